/* SPDX-License-Identifier: MIT
 * The requests of each key once more.
 *
 * A request is a record of 24 bytes. The first bits of the hash choose one of 64 parts. Each part has a buffer, which
 * is written to the file when it is full. A part is read in ranges of the hash that fit into memory; the next bits of
 * the hash tell beforehand how large they are. Only a range that does not fit, because a key is so frequent, is read in
 * pieces with a state for each of its keys. */
#include "series.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SERIES_PARTS = 64,
    SERIES_BINS = 256,        /* of a part, by the next bits of the hash */
    SERIES_BUFFER = 1365,     /* records: 32 KiB */
    SERIES_CHUNK = 512 * 1024 /* records that are grouped at once */
};

struct series_record {
    uint64_t hash;
    int64_t time;
    int32_t amount;
    uint32_t limit;
};

/* A part of the records. Its blocks lie anywhere in the file. */
struct part {
    struct series_record *buffer;
    size_t n; /* in the buffer */
    uint64_t *blocks;
    size_t n_blocks, room;
    uint64_t bins[SERIES_BINS];
};

/* A key with a state. */
struct keyed {
    uint64_t hash;
    uint32_t limit;
    bool used;
    void *state;
};

struct series {
    char folder[4096];
    int fd;           /* -1: nothing was written yet */
    uint64_t written; /* blocks */
    char error[200];
    struct part parts[SERIES_PARTS];
    /* To group a chunk */
    struct series_record *chunk;
    struct series_event *grouped;
    uint32_t *groups, *ends, *table;
};

/* ---- Writing ---- */

struct series *series_new(const char *folder) {
    struct series *series = calloc(1, sizeof *series);
    if (series == NULL) return NULL;
    snprintf(series->folder, sizeof series->folder, "%s", folder);
    series->fd = -1;
    return series;
}

static void series_fail(struct series *series, const char *what) {
    if (series->error[0] == '\0') snprintf(series->error, sizeof series->error, "%s: %s", what, strerror(errno));
}

static bool series_open(struct series *series) {
    char path[sizeof series->folder + 24];
    if (series->fd >= 0) return true;
    snprintf(path, sizeof path, "%s/steady-replay-XXXXXX", series->folder);
    series->fd = mkostemp(path, O_CLOEXEC);
    if (series->fd >= 0) unlink(path);
    return series->fd >= 0;
}

static bool series_write(struct series *series, struct part *part) {
    const size_t size = SERIES_BUFFER * sizeof *part->buffer;
    if (!series_open(series)) return false;
    if (part->n_blocks == part->room) {
        const size_t room = part->room > 0 ? 2 * part->room : 64;
        uint64_t *blocks = realloc(part->blocks, room * sizeof *blocks);
        if (blocks == NULL) return false;
        part->blocks = blocks;
        part->room = room;
    }
    for (size_t done = 0; done < size;) {
        const ssize_t n =
            pwrite(series->fd, (const char *)part->buffer + done, size - done, (off_t)(series->written * size + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (size_t)n;
    }
    part->blocks[part->n_blocks++] = series->written++;
    part->n = 0;
    return true;
}

void series_add(struct series *series, size_t limit, uint64_t hash, int64_t time, int64_t amount) {
    struct part *part = &series->parts[hash >> 58];
    if (series->error[0] != '\0') return;
    if (part->buffer == NULL) part->buffer = malloc(SERIES_BUFFER * sizeof *part->buffer);
    if (part->buffer == NULL || (part->n == SERIES_BUFFER && !series_write(series, part))) {
        series_fail(series, "the temporary file of the requests");
        return;
    }
    part->buffer[part->n++] = (struct series_record){hash, time, (int32_t)amount, (uint32_t)limit};
    part->bins[hash >> 50 & (SERIES_BINS - 1)]++;
}

const char *series_error(const struct series *series) { return series->error[0] != '\0' ? series->error : NULL; }

void series_free(struct series *series) {
    if (series == NULL) return;
    for (size_t i = 0; i < SERIES_PARTS; i++) {
        free(series->parts[i].buffer);
        free(series->parts[i].blocks);
    }
    if (series->fd >= 0) close(series->fd);
    free(series->chunk);
    free(series->grouped);
    free(series->groups);
    free(series->ends);
    free(series->table);
    free(series);
}

/* ---- Keys with a state ---- */

struct keyed_table {
    struct keyed *slots;
    size_t n, room; /* room: a power of two */
};

/* Moves to a table twice as large. */
static bool series_grow(struct keyed_table *table) {
    struct keyed_table larger = {.n = table->n, .room = table->room > 0 ? 2 * table->room : 1024};
    larger.slots = calloc(larger.room, sizeof *larger.slots);
    if (larger.slots == NULL) return false;
    for (size_t i = 0; i < table->room; i++) {
        size_t slot = table->slots[i].hash & (larger.room - 1);
        if (!table->slots[i].used) continue;
        while (larger.slots[slot].used)
            slot = (slot + 1) & (larger.room - 1);
        larger.slots[slot] = table->slots[i];
    }
    free(table->slots);
    *table = larger;
    return true;
}

static void *series_state(struct keyed_table *table, uint64_t hash, uint32_t limit, size_t size) {
    if (table->n >= table->room / 2 && !series_grow(table)) return NULL;
    size_t slot = hash & (table->room - 1);
    while (table->slots[slot].used && (table->slots[slot].hash != hash || table->slots[slot].limit != limit))
        slot = (slot + 1) & (table->room - 1);
    struct keyed *keyed = &table->slots[slot];
    if (!keyed->used) {
        void *state = calloc(1, size);
        if (state == NULL) return NULL;
        *keyed = (struct keyed){hash, limit, true, state};
        table->n++;
    }
    return keyed->state;
}

/* ---- Grouping ---- */

/* Groups the chunk by key, in the order of first appearance. The events of a key keep their order. */
static size_t series_group(struct series *series, size_t n) {
    size_t slots = 1024, n_groups = 0;
    while (slots < 2 * n)
        slots *= 2;
    memset(series->table, 0xff, slots * sizeof *series->table);
    uint32_t *firsts = series->ends;               /* the first record of each group; later where the group ends */
    uint32_t *sizes = (uint32_t *)series->grouped; /* only until the events are there */
    for (size_t i = 0; i < n; i++) {
        const struct series_record *record = &series->chunk[i];
        size_t slot = record->hash & (slots - 1);
        uint32_t group;
        while ((group = series->table[slot]) != UINT32_MAX && (series->chunk[firsts[group]].hash != record->hash ||
                                                               series->chunk[firsts[group]].limit != record->limit))
            slot = (slot + 1) & (slots - 1);
        if (group == UINT32_MAX) {
            group = series->table[slot] = (uint32_t)n_groups++;
            firsts[group] = (uint32_t)i;
            sizes[group] = 0;
        }
        sizes[group]++;
        series->groups[i] = group;
    }
    /* The first record of each group stays known through `table`. */
    for (size_t g = 0; g < n_groups; g++)
        series->table[g] = firsts[g];
    uint32_t end = 0;
    for (size_t g = 0; g < n_groups; g++) {
        series->ends[g] = end; /* where its next event goes */
        end += sizes[g];
    }
    for (size_t i = 0; i < n; i++)
        series->grouped[series->ends[series->groups[i]]++] =
            (struct series_event){series->chunk[i].time, series->chunk[i].amount};
    return n_groups;
}

/* Runs the visitor over the keys of the chunk. table: NULL if the chunk has all events of its keys. */
static bool series_visit(struct series *series, size_t n, const struct series_visitor *visitor, void *scratch,
                         struct keyed_table *table) {
    const size_t n_groups = series_group(series, n);
    uint32_t begin = 0;
    for (size_t g = 0; g < n_groups; g++) {
        const struct series_record *first = &series->chunk[series->table[g]];
        void *state = scratch;
        if (table == NULL)
            memset(scratch, 0, visitor->state_size);
        else
            state = series_state(table, first->hash, first->limit, visitor->state_size);
        if (state == NULL) return false;
        visitor->run(visitor->data, state, first->limit, &series->grouped[begin], series->ends[g] - begin,
                     table == NULL);
        if (table == NULL) visitor->finish(visitor->data, state, first->limit);
        begin = series->ends[g];
    }
    return true;
}

/* ---- Reading ---- */

static bool series_read_block(struct series *series, uint64_t block, struct series_record *to) {
    const size_t size = SERIES_BUFFER * sizeof *to;
    for (size_t done = 0; done < size;) {
        const ssize_t n = pread(series->fd, (char *)to + done, size - done, (off_t)(block * size + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (size_t)n;
    }
    return true;
}

/* Reads the records of the bins [from, to) of a part, and visits them. whole: they fit into a chunk. */
static bool series_read_range(struct series *series, struct part *part, size_t from, size_t to, bool whole,
                              const struct series_visitor *visitor, void *scratch) {
    struct series_record block[SERIES_BUFFER];
    struct keyed_table table = {0};
    size_t n = 0;
    bool done = true;
    for (size_t b = 0; b <= part->n_blocks && done; b++) {
        const struct series_record *records = b < part->n_blocks ? block : part->buffer;
        const size_t n_records = b < part->n_blocks ? SERIES_BUFFER : part->n;
        done = b == part->n_blocks || series_read_block(series, part->blocks[b], block);
        for (size_t i = 0; i < n_records && done; i++) {
            const size_t bin = records[i].hash >> 50 & (SERIES_BINS - 1);
            if (bin < from || bin >= to) continue;
            series->chunk[n++] = records[i];
            if (whole || n < SERIES_CHUNK) continue;
            done = series_visit(series, n, visitor, scratch, &table);
            n = 0;
        }
    }
    done = done && series_visit(series, n, visitor, scratch, whole ? NULL : &table);
    for (size_t i = 0; i < table.room; i++) {
        if (!table.slots[i].used) continue;
        if (done) visitor->finish(visitor->data, table.slots[i].state, table.slots[i].limit);
        free(table.slots[i].state);
    }
    free(table.slots);
    return done;
}

static bool series_read_part(struct series *series, struct part *part, const struct series_visitor *visitor,
                             void *scratch) {
    for (size_t from = 0, to; from < SERIES_BINS; from = to) {
        uint64_t n = part->bins[from];
        for (to = from + 1; to < SERIES_BINS && n + part->bins[to] <= SERIES_CHUNK; to++)
            n += part->bins[to];
        if (n > 0 && !series_read_range(series, part, from, to, n <= SERIES_CHUNK, visitor, scratch)) return false;
    }
    return true;
}

bool series_each(struct series *series, const struct series_visitor *visitor) {
    void *scratch = calloc(1, visitor->state_size);
    bool done = scratch != NULL && series->error[0] == '\0';
    if (series->chunk == NULL) {
        series->chunk = malloc(SERIES_CHUNK * sizeof *series->chunk);
        series->grouped = malloc(SERIES_CHUNK * sizeof *series->grouped);
        series->groups = malloc(SERIES_CHUNK * sizeof *series->groups);
        series->ends = malloc(SERIES_CHUNK * sizeof *series->ends);
        series->table = malloc(2 * SERIES_CHUNK * sizeof *series->table);
    }
    done = done && series->chunk != NULL && series->grouped != NULL && series->groups != NULL && series->ends != NULL &&
           series->table != NULL;
    for (size_t i = 0; i < SERIES_PARTS && done; i++)
        done = series_read_part(series, &series->parts[i], visitor, scratch);
    if (!done) series_fail(series, "the requests cannot be read again");
    free(scratch);
    return done;
}

/* ---- Needed capacities ---- */

struct need_state {
    struct needed needed;
    int64_t most; /* content; -1: it cannot be counted */
};

static void series_need_run(void *data, void *memory, size_t limit, const struct series_event *events, size_t n,
                            bool whole) {
    const struct series_need *need = &((const struct series_need *)data)[limit];
    struct need_state *states = memory;
    (void)whole;
    for (size_t r = 0; r < need->n_rates; r++) {
        const struct needed_rate rate = need->rates[r];
        struct need_state state = states[r];
        for (size_t i = 0; i < n && state.most >= 0; i++) {
            needed_leak(&state.needed, &rate, events[i].time);
            if (!needed_add(&state.needed, &rate, events[i].amount))
                state.most = -1;
            else if (state.needed.content > state.most)
                state.most = state.needed.content;
        }
        states[r] = state;
    }
}

static void series_need_finish(void *data, void *memory, size_t limit) {
    struct series_need *need = &((struct series_need *)data)[limit];
    const struct need_state *states = memory;
    for (size_t r = 0; r < need->n_rates; r++) {
        if (need->needed[r] == NULL) need->needed[r] = calloc(1, sizeof *need->needed[r]);
        if (need->needed[r] == NULL)
            need->failed = true;
        else if (states[r].most < 0)
            need->over[r]++;
        else
            histogram_add(need->needed[r], needed_level(states[r].most, &need->rates[r]));
    }
}

bool series_find_needed(struct series *series, struct series_need *limits, size_t n_limits) {
    size_t most = 1;
    for (size_t i = 0; i < n_limits; i++)
        if (limits[i].n_rates > most) most = limits[i].n_rates;
    const struct series_visitor visitor = {.state_size = most * sizeof(struct need_state),
                                           .run = series_need_run,
                                           .finish = series_need_finish,
                                           .data = limits};
    bool done = series_each(series, &visitor);
    for (size_t i = 0; i < n_limits; i++)
        done = done && !limits[i].failed;
    return done;
}

void series_free_needed(struct series_need *limits, size_t n_limits) {
    for (size_t i = 0; i < n_limits; i++)
        for (size_t r = 0; r < limits[i].n_rates; r++)
            free(limits[i].needed[r]);
}

/* ---- Trials ---- */

struct try_state {
    struct needed needed;
    int64_t blocked_until;
    uint64_t denied;
};

/* A bucket of this rate and capacity, alone: what steady__bucket_consume does. Each product is below 2^53, as the
 * capacity is at most rate->top. */
static void series_run_bucket(struct try_state *to, const struct steady__rate *limit, const struct needed_rate *rate,
                              int64_t capacity, const struct series_event *events, size_t n) {
    struct try_state state = *to;
    for (size_t i = 0; i < n; i++) {
        const int64_t amount = events[i].amount;
        needed_leak(&state.needed, rate, events[i].time);
        if (amount < 0) {
            needed_add(&state.needed, rate, amount);
        } else if (state.blocked_until > events[i].time) {
            state.denied++;
        } else if (amount <= capacity && state.needed.content <= (capacity - amount) * rate->recharge) {
            state.needed.content += amount * rate->recharge;
        } else {
            state.denied++;
            if (limit->block > 0 && amount <= capacity) state.blocked_until = events[i].time + limit->block;
        }
    }
    *to = state;
}

/* The capacity that a whole series needs. INT64_MAX: none is enough. */
static int64_t series_needed(const struct needed_rate *rate, const struct series_event *events, size_t n) {
    struct needed needed = {0};
    int64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        needed_leak(&needed, rate, events[i].time);
        if (!needed_add(&needed, rate, events[i].amount)) return INT64_MAX;
        if (needed.content > most) most = needed.content;
    }
    return needed_level(most, rate);
}

static void series_try_run(void *data, void *memory, size_t limit, const struct series_event *events, size_t n,
                           bool whole) {
    const struct series_trial *trial = &((const struct series_trial *)data)[limit];
    struct try_state *state = memory;
    for (size_t r = 0; r < trial->n_rows; r++) {
        const struct series_row *row = &trial->rows[r];
        const struct needed_rate rate = needed_rate(&row->rate);
        const int64_t enough = whole ? series_needed(&rate, events, n) : INT64_MAX;
        for (size_t c = 0; c < row->n; c++, state++)
            if (row->capacities[c] < enough && row->capacities[c] <= rate.top)
                series_run_bucket(state, &row->rate, &rate, row->capacities[c], events, n);
    }
}

static void series_try_finish(void *data, void *memory, size_t limit) {
    struct series_trial *trial = &((struct series_trial *)data)[limit];
    const struct try_state *state = memory;
    for (size_t r = 0; r < trial->n_rows; r++)
        for (size_t c = 0; c < trial->rows[r].n; c++, state++) {
            trial->rows[r].keys_denied[c] += state->denied > 0;
            trial->rows[r].requests_denied[c] += state->denied;
        }
}

bool series_try(struct series *series, struct series_trial *limits, size_t n_limits) {
    size_t most = 1;
    for (size_t i = 0; i < n_limits; i++) {
        size_t n = 0;
        for (size_t r = 0; r < limits[i].n_rows; r++)
            n += limits[i].rows[r].n;
        if (n > most) most = n;
    }
    const struct series_visitor visitor = {.state_size = most * sizeof(struct try_state),
                                           .run = series_try_run,
                                           .finish = series_try_finish,
                                           .data = limits};
    return series_each(series, &visitor);
}
