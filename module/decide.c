/* SPDX-License-Identifier: MIT
 * A decision on a key of the server.
 *
 * A bucket is written in place, and what other servers and the AOF get is the effect, SET with an absolute expiry or
 * DEL; never the command, which would be decided again there, at another time. A call that changes nothing writes,
 * announces and replicates nothing, so WATCH and client-side caches are told by hand, not on every CloseKey. */
#include "decide.h"

#include <string.h>

#include "clock.h"
#include "stored.h"

static struct steady__counters counters;
static server_string *pxat; /* kept: to make a string of it for each call costs as much as opening a key does */

void steady__decide_start(void) { pxat = steady__server.CreateString(NULL, "PXAT", 4); }

void steady__decide_stop(void) {
    if (pxat != NULL) steady__server.FreeString(NULL, pxat);
    pxat = NULL;
}

const struct steady__counters *steady__decide_counters(void) { return &counters; }

/* An open key and the bucket in it; key is NULL where it was opened for reading and is not there. */
struct slot {
    server_key *key;
    char *text; /* what the key holds, to be written in place where it was opened for that */
    size_t len; /* 0: nothing */
    struct steady__bucket bucket;
};

static bool open_slot(struct slot *slot, server_context *context, server_string *name, int mode) {
    *slot = (struct slot){.key = steady__server.OpenKey(context, name, mode)};
    const int type = slot->key != NULL ? steady__server.KeyType(slot->key) : KEY_EMPTY;
    if (type == KEY_EMPTY) return true;
    if (type == KEY_STRING) {
        slot->text = steady__server.StringDMA(slot->key, &slot->len, mode & OPEN_WRITE ? OPEN_WRITE : OPEN_READ);
        if (steady__stored_parse(&slot->bucket, slot->text, slot->len)) return true;
    }
    counters.not_a_bucket++;
    steady__server.CloseKey(slot->key);
    return false;
}

static void close_slot(struct slot *slot) {
    if (slot->key != NULL) steady__server.CloseKey(slot->key);
    slot->key = NULL;
}

static void replicate(server_context *context, server_string *name, const char *text, size_t len, int64_t expires_ms) {
    char digits[20], *end = digits + sizeof digits;
    const char *ms = steady__put_number(end, (uint64_t)expires_ms);
    steady__server.Replicate(context, "SET", "sbsb", name, text, len, pxat, ms, (size_t)(end - ms));
}

/* Announcing comes after closing: whoever listens may do anything to the key. */
static void write_slot(struct slot *slot, server_context *context, server_string *name, int64_t expires_ms) {
    char room[STEADY__STORED_MAX];
    size_t len = 0;
    const char *text = steady__stored_format(room + sizeof room, &slot->bucket, &len);
    if (slot->len != len) {
        steady__server.StringTruncate(slot->key, len);
        slot->text = steady__server.StringDMA(slot->key, &slot->len, OPEN_WRITE);
    }
    memcpy(slot->text, text, len);
    steady__server.SetAbsExpire(slot->key, expires_ms);
    close_slot(slot);
    steady__server.SignalModifiedKey(context, name);
    replicate(context, name, text, len, expires_ms);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_STRING, "set", name);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "expire", name);
}

static void delete_slot(struct slot *slot, server_context *context, server_string *name) {
    steady__server.DeleteKey(slot->key);
    close_slot(slot);
    steady__server.SignalModifiedKey(context, name);
    steady__server.Replicate(context, "DEL", "s", name);
    steady__server.NotifyKeyspaceEvent(context, NOTIFY_GENERIC, "del", name);
}

static void count(const struct steady__decision *d) {
    counters.decisions++;
    counters.allowed += d->success;
    counters.denied += !d->success;
    counters.blocked += !d->success && d->blocked_for > 0;
    counters.clock_steps += d->stepped;
}

bool steady__decide_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount, struct steady__decision *d) {
    struct slot slot;
    if (!open_slot(&slot, context, name, OPEN_READ | OPEN_WRITE)) return false;
    const int64_t now = steady__clock_us(context);
    steady__bucket_consume(&slot.bucket, rate, now, amount, d);
    if (d->changed && d->busy_for > 0)
        write_slot(&slot, context, name, now / 1000 + (d->busy_for + 999) / 1000);
    else if (d->changed && slot.len > 0)
        delete_slot(&slot, context, name);
    close_slot(&slot);
    count(d);
    return true;
}

bool steady__decide_peek(server_context *context, server_string *name, const struct steady__rate *rate,
                         struct steady__decision *d) {
    struct slot slot;
    if (!open_slot(&slot, context, name, OPEN_READ)) return false;
    steady__bucket_peek(&slot.bucket, rate, steady__clock_us(context), d);
    close_slot(&slot);
    count(d);
    return true;
}

bool steady__decide_reset(server_context *context, server_string *name, bool *existed) {
    struct slot slot;
    if (!open_slot(&slot, context, name, OPEN_READ | OPEN_WRITE)) return false;
    *existed = slot.len > 0;
    if (*existed) delete_slot(&slot, context, name);
    close_slot(&slot);
    return true;
}
