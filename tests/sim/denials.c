/* SPDX-License-Identifier: MIT
 * The memories of denials of simulated processes.
 *
 * A denial from memory must be one that a server would have given while the call was in flight. The exceptions are
 * those of docs/how-to/hot-keys.md, each for the deny_memory of the store: a bucket that another process or a server
 * has lowered, and a clock that has stepped. A give-back of the own process is an exception only until its answer.
 *
 * A key has the number of its decision, so that no two decisions have equal keys. The hash of a memory leaves it out:
 * for the memory, all decisions on a bucket have one key. */
#include "denials.h"

#include <inttypes.h>
#include <string.h>

#include "client.h"
#include "faults.h"
#include "keys.h"
#include "leases.h"
#include "rounds.h"
#include "several.h"

#define BOOT ((steady_us)1 << 51)
#define LONG_AGO (-3600 * STEADY_SECOND)

/* A give-back or reset that a server has made, and whose answer the process may not have. */
struct giving {
    struct giving *next;
    const struct request *request;
    const struct place *place;
    steady_us made_at, stalled_before;
    bool over;
};

struct denials_totals denials_totals;

static struct process *processes[CLIENTS_MAX];
static int process_count;
static bool on;
static struct decision *watched; /* decisions in flight that may be denied from memory */
static struct {
    const struct place *place;
    const char *key;
    size_t len;
} known[BUCKETS]; /* any key of the bucket */

/* ---- Processes ---- */

static steady_us process_now(const struct steady__denials_world *self) {
    const struct process *process = (const struct process *)self;
    const steady_us now = sim_loop_running_now();
    return BOOT + process->booted_before + now + now * process->drift / 1000000;
}

static bool is_number_begin(const unsigned char *bytes, size_t len, size_t i) {
    return bytes[i] == '#' && i + 1 < len && bytes[i + 1] >= '0' && bytes[i + 1] <= '9';
}

static struct steady__hash process_hash(const struct steady__denials_world *self,
                                        const unsigned char key[STEADY__SIPHASH_KEY], const void *text, size_t len) {
    const unsigned char *bytes = text;
    struct steady__hash hash = {{UINT64_C(0xcbf29ce484222325), 0}};
    (void)self;
    (void)key;
    for (size_t i = 0; i < len; i++) {
        if (is_number_begin(bytes, len, i))
            for (i++; i < len && bytes[i] >= '0' && bytes[i] <= '9';)
                i++;
        if (i < len) hash.word[0] = (hash.word[0] ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    hash.word[1] = hash.word[0] * UINT64_C(0x9fb21c651e98df25);
    hash.word[1] ^= hash.word[1] >> 29;
    return hash;
}

void denials_begin(void) {
    on = !one_in(3);
    denials_totals.seeds += on;
    process_count = 0;
    watched = NULL;
    memset(known, 0, sizeof known);
}

struct process *denials_process(void) {
    if (process_count > 0 && one_in(3)) return processes[process_count - 1];
    struct process *process = processes[process_count++] = keep(sizeof *process);
    process->world = (struct steady__denials_world){process_now, process_hash};
    process->booted_before = any_scale(0, 1000000 * STEADY_SECOND);
    process->drift = between(-500, 500);
    process->has_db = one_in(2);
    for (int i = 0; i < BUCKETS; i++)
        process->lost_at[i] = LONG_AGO;
    process->denials = on ? steady__denials_new(&process->world) : NULL;
    if (on && process->denials == NULL) broken("no memory of denials");
    return process;
}

steady_us denials_any_time(void) {
    if (!on || one_in(6)) return 0;
    return one_in(2) ? any_scale(MS, STEADY_SECOND) : between(50 * MS, STEADY_SECOND);
}

void denials_end(void) {
    for (int i = 0; i < process_count; i++)
        steady__denials_release(processes[i]->denials);
}

/* ---- What may be denied ---- */

static size_t count_of(const struct decision *d) { return d->several != NULL ? d->several->n : 1; }

static const struct place *place_of(const struct decision *d, size_t i) {
    return d->several != NULL ? d->several->members[i].place : d->place;
}

/* The drops that a decision asks of this bucket, if it may be denied from memory by it; otherwise 0. */
static int64_t amount_of(const struct decision *d, size_t i) {
    const struct several *s = d->several;
    if (d->client->options.deny_memory == 0 || place_of(d, i)->foreign) return 0;
    if (s == NULL) return d->verb == STEADY__CONSUME && d->amount > 0 ? d->amount : 0;
    const struct steady__part *part = &s->members[i].part;
    const bool votes = part->kind == STEADY__TAKE || part->kind == STEADY__LOOK;
    if (d->verb != STEADY__CONSUME_ALL || !votes || s->how.max_wait != 0 || s->how.at_least != 0) return 0;
    return part->amount > 0 ? part->amount : 0;
}

static bool may_be_denied(const struct decision *d) {
    for (size_t i = 0; i < count_of(d); i++)
        if (amount_of(d, i) > 0) return true;
    return false;
}

/* Notes by which of its buckets a server would deny the decision at `when`. */
static void note_deniable(struct decision *d, const struct place *place, steady_us when) {
    for (size_t i = 0; i < count_of(d); i++)
        if ((place == NULL || place_of(d, i) == place) && amount_of(d, i) > 0 &&
            keys_would_deny(place_of(d, i), amount_of(d, i), when, NULL))
            d->deniable |= UINT64_C(1) << i;
}

/* The settle of a call between slots that the library makes itself. Its answer has no callback. */
static bool is_internal(const struct request *r) {
    return r->verb == STEADY__SETTLE && r->decision->verb != STEADY__SETTLE;
}

/* The answer was read by the client, and it has read again: so it has acted on it. */
static bool is_acted_on(const struct request *r) {
    return r->answered_at > 0 && r->left_on != NULL && r->left_on->read_before >= r->answered_at;
}

/* The library waits for the answer of its own settle for one timeout at most. */
static bool is_over(struct giving *giving, steady_us now) {
    const struct client *client = giving->request->decision->client;
    const steady_us slack = 2 * client->loop.late + client->loop.stalled - giving->stalled_before + MS;
    if (giving->over) return true;
    if (!is_internal(giving->request)) return giving->over = giving->request->decision->told;
    giving->over = is_acted_on(giving->request) || now > giving->made_at + client->options.timeout + slack;
    return giving->over;
}

/* Whether the memory may be wrong. */
static bool is_excused(const struct client *client, const struct place *place, steady_us now) {
    const steady_us valid = client->options.deny_memory;
    if (client->process->lost_at[place->index] + valid + valid / 1000 + 2 > now) return true;
    for (struct giving *giving = client->process->givings; giving != NULL; giving = giving->next)
        if (giving->place == place && !is_over(giving, now)) return true;
    return false;
}

static void know(const struct place *place, const char *key, size_t len) {
    known[place->index].place = place;
    known[place->index].key = key;
    known[place->index].len = len;
}

void denials_asks(struct decision *d) {
    if (d->several == NULL) know(d->place, d->key, d->key_len);
    for (size_t i = 0; d->several != NULL && i < d->several->n; i++)
        know(d->several->members[i].place, d->several->members[i].key, d->several->members[i].key_len);
    if (!may_be_denied(d)) return;
    d->watched = true;
    d->next_watched = watched;
    watched = d;
    d->deniable = d->excused = 0;
    note_deniable(d, NULL, d->submitted);
    for (size_t i = 0; i < count_of(d); i++)
        if (is_excused(d->client, place_of(d, i), d->submitted)) d->excused |= UINT64_C(1) << i;
}

/* ---- What happens to buckets ---- */

static void excuse(const struct place *place) {
    for (struct decision *d = watched; d != NULL; d = d->next_watched)
        for (size_t i = 0; i < count_of(d); i++)
            if (place == NULL || place_of(d, i) == place) d->excused |= UINT64_C(1) << i;
}

static void lose(struct process *process, const struct place *place) {
    for (int i = 0; i < BUCKETS; i++)
        if (place == NULL || place->index == i) process->lost_at[i] = world.now;
}

void denials_lost(const struct place *place) {
    for (int i = 0; i < process_count; i++)
        lose(processes[i], place);
    excuse(place);
    leases_lost(place);
}

/* The memory will not hear of it, because the store has none, or because the client may have given up before. */
static bool is_unheard(const struct request *r) {
    const struct decision *d = r->decision;
    if (d->client->options.deny_memory == 0) return true;
    if (!is_internal(r)) return d->told;
    return r->left_on->closed || world.now >= d->submitted + d->client->options.timeout;
}

static void give_back(struct request *r, const struct place *place) {
    const struct client *client = r->decision->client;
    struct process *own = client->process;
    for (int i = 0; i < process_count; i++)
        if (processes[i] != own || is_unheard(r)) lose(processes[i], place);
    struct giving *giving = keep(sizeof *giving);
    *giving = (struct giving){.next = own->givings,
                              .request = r,
                              .place = place,
                              .made_at = world.now,
                              .stalled_before = client->loop.stalled};
    own->givings = giving;
    excuse(place);
}

void denials_made(struct request *r, const struct place *place, bool gives_back) {
    if (!on) return;
    if (gives_back) give_back(r, place);
    for (struct decision *d = watched; d != NULL; d = d->next_watched)
        note_deniable(d, place, world.now > d->submitted ? world.now : d->submitted);
}

void denials_told(const struct decision *d) {
    struct decision **at_ = &watched;
    if (!d->watched) return;
    while (*at_ != d)
        at_ = &(*at_)->next_watched;
    *at_ = d->next_watched;
}

/* ---- Checks ---- */

void denials_check(const struct decision *d, const steady_result *r) {
    const size_t by = d->several != NULL ? r->part : 0;
    const int64_t amount = by < count_of(d) ? amount_of(d, by) : 0;
    denials_totals.from_memory++;
    denials_totals.on_several += d->several != NULL && d->several->n > 1;
    if (r->success) broken("decision %" PRId64 " is allowed from memory", d->id);
    if (amount == 0) broken("decision %" PRId64 " may not be denied from memory", d->id);
    if (d->request.left_on != NULL || d->request.executed > 0)
        broken("decision %" PRId64 " was sent, and is denied from memory", d->id);
    if (((d->deniable | d->excused) >> by & 1) == 0)
        broken("decision %" PRId64 " is denied from memory, and not by a server", d->id);
    if ((r->retry_after == -1) != (amount > place_of(d, by)->rate.capacity) || r->retry_after == 0)
        broken("decision %" PRId64 " is denied from memory for %" PRId64 " us", d->id, r->retry_after);
    if (!r->atomic || r->level < 0 || r->until_next_drop < 0)
        broken("decision %" PRId64 " is denied from memory at level %" PRId64, d->id, r->level);
    if (d->several == NULL) return;
    if (r->n_parts != d->several->n || !r->parts[by].answered || r->parts[by].success || r->parts[by].granted != 0 ||
        r->parts[by].level != r->level || r->parts[by].retry_after != r->retry_after)
        broken("decision %" PRId64 " is denied from memory otherwise than its part", d->id);
    for (size_t i = 0; i < r->n_parts; i++)
        if (i != by && (r->parts[i].answered || r->parts[i].success || r->parts[i].level != 0 ||
                        r->parts[i].granted != 0 || r->parts[i].retry_after != 0))
            broken("decision %" PRId64 " is denied from memory, and tells of another part", d->id);
}

/* The longest round trip of a reply that a client of the process has used. */
static steady_us longest_trip(const struct process *process) {
    steady_us longest = 0;
    for (int i = 0; i < client_count; i++) {
        const struct client *client = &clients[i];
        const steady_us trip = client->options.timeout + 2 * client->loop.late + client->loop.stalled + MS;
        if (client->process == process && trip > longest) longest = trip;
    }
    return longest;
}

/* A wait is at most one round trip too long. */
static void check_wait(const struct client *client, const struct place *place, const struct steady__look *look,
                       steady_us retry_after) {
    const steady_us drift = client->options.deny_memory / 500 + 2;
    if ((look->decision.retry_after == -1) != (retry_after == -1) ||
        look->decision.retry_after > retry_after + longest_trip(client->process) + drift)
        broken("the memory denies bucket %d for %" PRId64 " us, and the server for %" PRId64, place->index,
               look->decision.retry_after, retry_after);
}

void denials_look_around(const struct client *client) {
    const steady_us valid = client->options.deny_memory, now = sim_loop_now(&client->loop);
    for (int i = 0; i < BUCKETS && valid > 0; i++) {
        const struct place *place = known[i].place;
        struct steady__look look;
        if (place == NULL || place->foreign) continue;
        const int64_t amount = between(1, 3);
        const struct steady__hash name = steady__deny_memory_name(&client->memory, known[i].key, known[i].len);
        if (steady__denials_look(client->memory.denials, name, &place->rate, amount, valid,
                                 steady__denials_now(client->memory.denials), &look) != STEADY__FULL ||
            is_excused(client, place, now))
            continue;
        denials_totals.looks++;
        steady_us retry_after = 0;
        if (!keys_would_deny(place, amount, now, &retry_after))
            broken("the memory of client %d denies bucket %d, and no server does", client->index, i);
        check_wait(client, place, &look, retry_after);
    }
}
