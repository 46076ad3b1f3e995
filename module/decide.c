/* SPDX-License-Identifier: MIT
 * A decision on a key of the server.
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

/* An open key and its bucket. `key` is NULL if it was opened for reading and does not exist. */
struct open_bucket {
    server_key *key;
    char *text; /* the value; writable if the key was opened for writing */
    size_t len; /* 0: the key does not exist */
    struct steady__bucket bucket;
};

static bool decide_open(struct open_bucket *open, server_context *context, server_string *name, int mode) {
    *open = (struct open_bucket){.key = steady__server.OpenKey(context, name, mode)};
    const int type = open->key != NULL ? steady__server.KeyType(open->key) : KEY_EMPTY;
    if (type == KEY_EMPTY) return true;
    if (type == KEY_STRING) {
        open->text = steady__server.StringDMA(open->key, &open->len, mode & OPEN_WRITE ? OPEN_WRITE : OPEN_READ);
        if (steady__stored_parse(&open->bucket, open->text, open->len)) return true;
    }
    counters.not_a_bucket++;
    steady__server.CloseKey(open->key);
    return false;
}

static void decide_close(struct open_bucket *open) {
    if (open->key != NULL) steady__server.CloseKey(open->key);
    open->key = NULL;
}

static void decide_replicate(server_context *context, server_string *name, const char *text, size_t len,
                             int64_t expires_ms) {
    char digits[20], *end = digits + sizeof digits;
    const char *ms = steady__put_number(end, (uint64_t)expires_ms);
    steady__server.Replicate(context, "SET", "sbsb", name, text, len, pxat, ms, (size_t)(end - ms));
}

/* Notifies after closing: a subscriber in another module may change the key. */
static void decide_write(struct open_bucket *open, server_context *context, server_string *name, int64_t expires_ms) {
    char room[STEADY__STORED_MAX];
    size_t len = 0;
    const char *text = steady__stored_format(room + sizeof room, &open->bucket, &len);
    if (open->len != len) {
        steady__server.StringTruncate(open->key, len);
        open->text = steady__server.StringDMA(open->key, &open->len, OPEN_WRITE);
    }
    memcpy(open->text, text, len);
    steady__server.SetAbsExpire(open->key, expires_ms);
    decide_close(open);
    steady__server.SignalModifiedKey(context, name);
    decide_replicate(context, name, text, len, expires_ms);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_STRING, "set", name);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "expire", name);
}

static void decide_delete(struct open_bucket *open, server_context *context, server_string *name) {
    steady__server.DeleteKey(open->key);
    decide_close(open);
    steady__server.SignalModifiedKey(context, name);
    steady__server.Replicate(context, "DEL", "s", name);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "del", name);
}

static void decide_count(const struct steady__decision *d) {
    counters.decisions++;
    counters.allowed += d->success;
    counters.denied += !d->success;
    counters.blocked += !d->success && d->blocked_for > 0;
    counters.clock_steps += d->stepped;
}

bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *d) {
    struct open_bucket open;
    if (!decide_open(&open, context, name, OPEN_READ | OPEN_WRITE)) return false;
    const int64_t now = steady__clock_us(context);
    steady__bucket_consume(&open.bucket, rate, now, amount, d);
    if (d->changed && d->busy_for > 0)
        decide_write(&open, context, name, now / 1000 + (d->busy_for + 999) / 1000);
    else if (d->changed && open.len > 0)
        decide_delete(&open, context, name);
    decide_close(&open);
    decide_count(d);
    return true;
}

bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *d) {
    struct open_bucket open;
    if (!decide_open(&open, context, name, OPEN_READ)) return false;
    steady__bucket_peek(&open.bucket, rate, steady__clock_us(context), d);
    decide_close(&open);
    decide_count(d);
    return true;
}

bool steady__decide_reset(server_context *context, server_string *name, bool *existed) {
    struct open_bucket open;
    if (!decide_open(&open, context, name, OPEN_READ | OPEN_WRITE)) return false;
    *existed = open.len > 0;
    if (*existed) decide_delete(&open, context, name);
    decide_close(&open);
    return true;
}
