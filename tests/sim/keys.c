/* SPDX-License-Identifier: MIT
 * The keys of a simulated server. Three implementations check each other: the shipped Lua, bucket.c, and a fluid
 * that leaks evenly. */
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../lua_server.h"

static struct lua_server *lua;

void keys_open(void) { lua = lua_server_new(); }
void keys_close(void) { lua_server_free(lua); }

static int64_t server_now(const struct node *node) { return CLOCK_BEGINS + node->clock_offset + world.now; }

/* ---- A fluid that leaks evenly ---- */

/* In drops * us: the size of one drop, and the error that steps of the clock may cause in an entry. */
static int64_t worth(const struct steady__rate *rate) { return rate->recharge; }

static int64_t slack(const struct entry *entry, const struct steady__rate *rate) {
    return entry->shaken * (worth(rate) + rate->drops);
}

static int64_t content_now(const struct entry *entry, const struct steady__rate *rate, int64_t now) {
    const int64_t elapsed = now > entry->content_at ? now - entry->content_at : 0;
    if (elapsed > entry->content / rate->drops) return 0;
    return entry->content - elapsed * rate->drops;
}

/* The rule of a limiter: what was admitted fits, and what fits is admitted. */
static void check_volume(struct entry *entry, const struct decision *d, int64_t now, const struct steady__decision *o) {
    const struct steady__rate *rate = &d->place->rate;
    const int64_t full = rate->capacity * worth(rate);
    const int64_t amount = d->verb == STEADY__PEEK ? 1 : d->amount;
    int64_t content = content_now(entry, rate, now);
    const bool fits = amount <= rate->capacity && content + amount * worth(rate) <= full + slack(entry, rate);
    const bool fits_well = amount <= rate->capacity && content + amount * worth(rate) <= full - slack(entry, rate);
    if (o->success && amount > 0 && !fits) broken("decision %" PRId64 " is admitted beyond the capacity", d->id);
    if (!o->success && o->blocked_for == 0 && fits_well) broken("decision %" PRId64 " is denied what fits", d->id);
    if (!o->changed) return;
    if (o->success) content += d->amount * worth(rate);
    if (content < 0 || o->level == 0) content = 0;
    entry->content = content;
    entry->content_at = now;
}

/* ---- Running a script ---- */

/* A key expires when its bucket is empty and not blocked, unless a clock has stepped. */
static void expire(struct entry *entry, const struct steady__rate *rate, int64_t now) {
    if (!entry->holds || entry->expires_ms == 0 || now / 1000 <= entry->expires_ms) return;
    if (entry->shaken == 0 && (content_now(entry, rate, now) > 0 || entry->bucket.blocked_until > now))
        broken("a bucket expires before it is empty");
    *entry = (struct entry){.shaken = entry->shaken};
}

static void decide(struct entry *entry, const struct decision *d, int64_t now, struct steady__decision *o) {
    static const struct steady__bucket empty;
    memset(o, 0, sizeof *o);
    if (d->verb == STEADY__PEEK) {
        steady__bucket_peek(&entry->bucket, &d->place->rate, now, o);
    } else if (d->verb == STEADY__CONSUME) {
        steady__bucket_consume(&entry->bucket, &d->place->rate, now, d->amount, o);
    } else {
        o->success = o->changed = true;
        entry->bucket = empty;
        steady__bucket_report(o, &d->place->rate, 0, 0, 0, 0);
    }
}

static void store(struct entry *entry, const struct decision *d, int64_t now) {
    struct steady__bucket stored;
    const char *text = lua_server_get(lua, now);
    entry->holds = text != NULL;
    entry->expires_ms = lua_server_expires_ms(lua);
    snprintf(entry->value, sizeof entry->value, "%s", text != NULL ? text : "");
    if (!stored_parse(text, &stored) || memcmp(&stored, &entry->bucket, sizeof stored) != 0)
        broken("decision %" PRId64 " leaves \"%s\", which is not what bucket.c leaves", d->id, entry->value);
}

/* Writes the request again, always as EVALSHA. The received one was already compared with the decision. */
static size_t compose(char *out, const struct decision *d) {
    struct steady__terms terms = {.rate = d->place->rate};
    steady__command_encode_limit(&terms);
    const struct steady__call call = {
        .verb = d->verb, .amount = d->amount, .key = d->key, .key_len = d->key_len, .terms = &terms};
    return steady__command_evalsha(out, &call);
}

static const char *error_text(void) {
    static char text[300];
    snprintf(text, sizeof text, "-%s", lua_server_error(lua));
    return text;
}

const char *keys_run(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count) {
    struct entry *entry = &node->entries[d->place->index];
    struct steady__decision outcome;
    char command[STEADY__COMMAND_MAX];
    const int64_t now = server_now(node);
    if (entry->holds && strcmp(entry->value, KEYS_OTHER_TYPE) == 0)
        return "-WRONGTYPE Operation against a key holding the wrong kind of value";
    expire(entry, &d->place->rate, now);
    lua_server_set(lua, entry->holds ? entry->value : NULL, entry->expires_ms);
    if (lua_server_run(lua, command, compose(command, d), now, values, count) != 0) return error_text();
    decide(entry, d, now, &outcome);
    if (lua_server_writes(lua) > 1) broken("decision %" PRId64 " writes more than once, or not last", d->id);
    if (lua_server_writes(lua) > 0) store(entry, d, now);
    if (d->verb == STEADY__RESET)
        entry->content = 0;
    else
        check_volume(entry, d, now, &outcome);
    journal_executed(d, &outcome);
    return NULL;
}

const char *keys_run_module(struct node *node, struct decision *d, int64_t values[STEADY__REPLY_MAX], size_t *count) {
    const steady_result *o = &d->outcome;
    const char *error = keys_run(node, d, values, count);
    if (error != NULL) return error;
    values[0] = d->verb == STEADY__RESET ? between(0, 1) : o->success;
    values[1] = o->level;
    values[2] = o->until_next_drop;
    values[3] = o->blocked_for;
    values[4] = o->retry_after;
    *count = d->verb == STEADY__RESET ? 1 : 5;
    d->stepped = false; /* this reply does not report a step */
    return NULL;
}

/* ---- Changes of keys ---- */

static bool is_foreign(const struct entry *entry) { return entry->holds && entry->expires_ms == 0; }

void keys_forget(struct node *node) {
    note("keys lost", node->index, 0, 0);
    for (int i = 0; i < BUCKETS; i++)
        if (!is_foreign(&node->entries[i])) node->entries[i] = (struct entry){.holds = false};
}

static void copy_key(struct node *to, const struct node *from, int bucket) {
    to->entries[bucket] = from->entries[bucket];
    to->entries[bucket].shaken += to->clock_offset != from->clock_offset;
}

void keys_copy(struct node *to, const struct node *from) {
    note("keys copied", to->index, from->index, 0);
    for (int i = 0; i < BUCKETS; i++)
        copy_key(to, from, i);
}

bool keys_has(const struct node *node, const struct place *place) {
    const struct entry *entry = &node->entries[place->index];
    return entry->holds && (entry->expires_ms == 0 || server_now(node) / 1000 <= entry->expires_ms);
}

void keys_move(struct node *to, struct node *from, const struct place *place) {
    if (place->foreign || !keys_has(from, place)) return;
    copy_key(to, from, place->index);
    from->entries[place->index] = (struct entry){.holds = false};
}

void keys_step_clock(struct node *node, int64_t by) {
    note("clock steps", node->index, by, 0);
    node->clock_offset += by;
    for (int i = 0; i < BUCKETS; i++)
        node->entries[i].shaken++;
}

void keys_plant(int bucket, const char *value) {
    for (int i = 0; i < NODES; i++) {
        struct entry *entry = &nodes[i].entries[bucket];
        *entry = (struct entry){.holds = true};
        snprintf(entry->value, sizeof entry->value, "%s", value);
    }
}
