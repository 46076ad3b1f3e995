/* SPDX-License-Identifier: MIT
 * A decision on keys of the server.
 *
 * A bucket is written in place. Replicas and the AOF get the effect: SET with an absolute expiry, or DEL. They never
 * get the command, because it would be decided again there, at another time. A call that changes nothing writes,
 * replicates and notifies nothing. So WATCH and client-side caches are notified by SignalModifiedKey, not by every
 * CloseKey. */
#include "decide.h"

#include <string.h>

#include "clock.h"
#include "stored.h"

static struct steady__counters counters;
static server_string *pxat; /* "PXAT". Kept, because a new string for each call costs as much as opening a key. */

void steady__decide_start(void) { pxat = steady__server.CreateString(NULL, "PXAT", 4); }

void steady__decide_stop(void) {
    if (pxat != NULL) steady__server.FreeString(NULL, pxat);
    pxat = NULL;
}

const struct steady__counters *steady__decide_counters(void) { return &counters; }

/* An open key. `key` is NULL if it was opened for reading and does not exist. */
struct open_key {
    server_key *key;
    char *text; /* the value; writable if the key was opened for writing */
    size_t len; /* 0: the key does not exist */
};

static void decide_close(struct open_key *open) {
    if (open->key != NULL) steady__server.CloseKey(open->key);
    open->key = NULL;
}

/* Returns false if the key holds no bucket; it is closed then. */
__attribute__((always_inline)) static inline bool decide_open(struct open_key *open, struct steady__bucket *bucket,
                                                              server_context *context, server_string *name, int mode) {
    *bucket = (struct steady__bucket){0};
    *open = (struct open_key){.key = steady__server.OpenKey(context, name, mode)};
    if (open->key == NULL) return true;
    open->text = steady__server.StringDMA(open->key, &open->len, mode & OPEN_WRITE ? OPEN_WRITE : OPEN_READ);
    if (open->text != NULL && steady__stored_parse(bucket, open->text, open->len)) return true;
    if (open->len == 0 && steady__server.KeyType(open->key) == KEY_EMPTY) return true; /* no key, and not a string "" */
    counters.not_a_bucket++;
    decide_close(open);
    return false;
}

static void decide_replicate(server_context *context, server_string *name, const char *text, size_t len,
                             int64_t expires_ms) {
    char digits[24], *end = digits + sizeof digits;
    const char *ms = steady__put_number(end, (uint64_t)expires_ms);
    steady__server.Replicate(context, "SET", "sbsb", name, text, len, pxat, ms, (size_t)(end - ms));
}

static void decide_write(struct open_key *open, const struct steady__bucket *bucket, server_context *context,
                         server_string *name, int64_t expires_ms) {
    char room[STEADY__STORED_MAX];
    size_t len = 0;
    const char *text = steady__stored_format(room + sizeof room, bucket, &len);
    if (open->len != len) {
        steady__server.StringTruncate(open->key, len);
        open->text = steady__server.StringDMA(open->key, &open->len, OPEN_WRITE);
    }
    memcpy(open->text, text, len);
    steady__server.SetAbsExpire(open->key, expires_ms);
    decide_close(open);
    steady__server.SignalModifiedKey(context, name);
    decide_replicate(context, name, text, len, expires_ms);
}

static void decide_delete(struct open_key *open, server_context *context, server_string *name) {
    steady__server.DeleteKey(open->key);
    decide_close(open);
    steady__server.SignalModifiedKey(context, name);
    steady__server.Replicate(context, "DEL", "s", name);
}

enum change { UNCHANGED, WRITTEN, DELETED };

/* Stores what was decided, and closes the key. */
static enum change decide_store(struct open_key *open, const struct steady__bucket *bucket, server_context *context,
                                server_string *name, const struct steady__decision *d, int64_t now) {
    enum change change = UNCHANGED;
    if (d->changed && d->busy_for > 0) {
        decide_write(open, bucket, context, name, now / 1000 + (d->busy_for + 999) / 1000);
        change = WRITTEN;
    } else if (d->changed && open->len > 0) {
        decide_delete(open, context, name);
        change = DELETED;
    }
    decide_close(open);
    return change;
}

/* Call it when all keys are closed: a subscriber in another module may change them. */
static void decide_notify(server_context *context, server_string *name, enum change change) {
    if (change == WRITTEN) {
        steady__server.NotifyKeyspaceEvent(context, NOTIFY_STRING, "set", name);
        steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "expire", name);
    } else if (change == DELETED) {
        steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "del", name);
    }
}

static void decide_count(const struct steady__decision *d) {
    counters.decisions++;
    if (d->success) {
        counters.allowed++;
    } else {
        counters.denied++;
        if (d->blocked_for > 0) counters.blocked++;
    }
    if (d->stepped) counters.clock_steps++;
}

/* ---- One key ---- */

bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *d) {
    struct open_key open;
    struct steady__bucket bucket;
    if (!decide_open(&open, &bucket, context, name, OPEN_READ | OPEN_WRITE)) return false;
    const int64_t now = steady__clock_us(context);
    steady__bucket_consume(&bucket, rate, now, amount, d);
    if (d->changed)
        decide_notify(context, name, decide_store(&open, &bucket, context, name, d, now));
    else
        steady__server.CloseKey(open.key);
    decide_count(d);
    return true;
}

bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *d) {
    struct open_key open;
    struct steady__bucket bucket;
    if (!decide_open(&open, &bucket, context, name, OPEN_READ)) return false;
    steady__bucket_peek(&bucket, rate, steady__clock_us(context), d);
    decide_close(&open);
    decide_count(d);
    return true;
}

/* ---- Several keys ----
 *
 * All keys are opened and read before the first is written. All are written before the first notification. */

struct open_keys {
    server_context *context;
    server_string **names;
    size_t n;
    struct open_key keys[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    enum change changes[STEADY__PARTS_MAX];
};

static void decide_close_all(struct open_keys *open) {
    for (size_t i = 0; i < open->n; i++)
        decide_close(&open->keys[i]);
}

/* Opens the next key. If it holds no bucket, returns false and closes all. */
static bool decide_open_next(struct open_keys *open, int mode) {
    const size_t i = open->n;
    if (decide_open(&open->keys[i], &open->buckets[i], open->context, open->names[i], mode)) {
        open->n++;
        return true;
    }
    decide_close_all(open);
    return false;
}

static void decide_store_one(struct open_keys *open, size_t i, const struct steady__decision *d, int64_t now) {
    open->changes[i] = decide_store(&open->keys[i], &open->buckets[i], open->context, open->names[i], d, now);
    counters.clock_steps += d->stepped;
}

static void decide_notify_all(struct open_keys *open) {
    for (size_t i = 0; i < open->n; i++)
        decide_notify(open->context, open->names[i], open->changes[i]);
}

static void decide_count_verdict(const struct steady__verdict *verdict, const struct steady__part_decision *each) {
    counters.decisions++;
    counters.allowed += verdict->success;
    counters.denied += !verdict->success;
    counters.blocked += !verdict->success && each[verdict->part].bucket.blocked_for > 0;
}

bool steady__decide_parts(server_context *context, server_string **names, const struct steady__part *parts, size_t n,
                          const struct steady__how *how, struct steady__part_decision *each,
                          struct steady__verdict *verdict, int64_t *now) {
    struct open_keys open;
    open.context = context, open.names = names, open.n = 0;
    while (open.n < n) {
        const bool reads = how->peek || parts[open.n].kind == STEADY__LOOK;
        if (!decide_open_next(&open, reads ? OPEN_READ : OPEN_READ | OPEN_WRITE)) return false;
    }
    *now = steady__clock_us(context);
    steady__parts_decide(parts, n, how, *now, open.buckets, each, verdict);
    for (size_t i = 0; i < n; i++)
        decide_store_one(&open, i, &each[i].bucket, *now);
    decide_notify_all(&open);
    decide_count_verdict(verdict, each);
    return true;
}

bool steady__decide_settle(server_context *context, server_string **names, const struct steady__settlement *settlements,
                           size_t n, struct steady__settled *settled, int64_t *now) {
    struct open_keys open;
    open.context = context, open.names = names, open.n = 0;
    while (open.n < n)
        if (!decide_open_next(&open, OPEN_READ | OPEN_WRITE)) return false;
    *now = steady__clock_us(context);
    for (size_t i = 0; i < n; i++) {
        steady__settle(&settlements[i], *now, &open.buckets[i], &settled[i]);
        decide_store_one(&open, i, &settled[i].bucket, *now);
    }
    decide_notify_all(&open);
    return true;
}

bool steady__decide_reset(server_context *context, server_string **names, size_t n, size_t *existed) {
    struct open_keys open;
    open.context = context, open.names = names, open.n = 0;
    while (open.n < n)
        if (!decide_open_next(&open, OPEN_READ | OPEN_WRITE)) return false;
    for (size_t i = 0; i < n; i++) {
        open.changes[i] = open.keys[i].len > 0 ? DELETED : UNCHANGED;
        if (open.changes[i] == DELETED) decide_delete(&open.keys[i], context, names[i]);
        decide_close(&open.keys[i]);
        *existed += open.changes[i] == DELETED;
    }
    decide_notify_all(&open);
    return true;
}
