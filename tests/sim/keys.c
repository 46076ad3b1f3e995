/* SPDX-License-Identifier: MIT
 * The keys of a simulated server. Three implementations check each other: the shipped Lua, bucket.c, and a fluid
 * that leaks evenly. */
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../lua_parts.h"
#include "../packed.h"
#include "denials.h"
#include "leases.h"
#include "several.h"

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

/* For the bound on what is admitted. A clock that has stepped may have cost a drop. */
static void note_change(const struct node *node, const struct place *place, int64_t before, int64_t drops, bool fits) {
    const struct entry *entry = &node->entries[place->index];
    if (drops > 0) leases_put(node, place, drops, fits);
    if (drops <= 0 && entry->content < before) leases_taken_out(node, place, before + slack(entry, &place->rate));
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
    const int64_t before = content_now(entry, &d->place->rate, now);
    if (d->verb == STEADY__RESET)
        entry->content = 0;
    else
        check_volume(entry, d, now, &outcome);
    note_change(node, d->place, before, d->verb == STEADY__CONSUME && outcome.success ? d->amount : 0, true);
    journal_executed(&d->request);
    journal_outcome(d, &outcome);
    denials_made(&d->request, d->place, d->verb == STEADY__RESET || d->amount < 0);
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

/* ---- Running a script on several keys ---- */

__extension__ typedef __int128 wide;

/* The rule for a bucket that takes part: what was admitted fits within the wait, and what fits is admitted. */
static void check_part_volume(struct entry *entry, const struct decision *d, const struct steady__part *part,
                              const struct steady__how *how, int64_t now, const struct steady__part_decision *o) {
    const struct steady__rate *rate = part->rate;
    const bool votes = part->kind == STEADY__TAKE || part->kind == STEADY__LOOK, idle = part->amount == 0;
    const int64_t asked = how->at_least > 0 ? how->at_least : part->amount;
    const wide full = (wide)rate->capacity * worth(rate) + (wide)how->max_wait * rate->drops;
    const wide after = (wide)content_now(entry, rate, now) + (wide)asked * worth(rate);
    const wide with_grant = (wide)content_now(entry, rate, now) + (wide)o->granted * worth(rate);
    const wide most = (STEADY__EXACT - 1) / rate->recharge, top = most < INT32_MAX ? most : INT32_MAX;
    const bool counts = part->kind != STEADY__CHARGE && asked > 0 && !idle;
    if (counts && o->bucket.success && after > full + slack(entry, rate))
        broken("a part of decision %" PRId64 " is admitted beyond the capacity", d->id);
    if (part->kind == STEADY__TAKE && o->granted > 0 && with_grant > full + slack(entry, rate))
        broken("a part of decision %" PRId64 " is granted more than fits", d->id);
    if (counts && votes && !o->bucket.success && o->bucket.blocked_for == 0 && o->bucket.retry_after > 0 &&
        after <= full - slack(entry, rate) && after / worth(rate) < top)
        broken("a part of decision %" PRId64 " is denied what fits", d->id);
    if (!o->bucket.changed) return;
    wide content = (wide)content_now(entry, rate, now) + (wide)o->granted * worth(rate);
    if (content < 0 || o->bucket.level == 0) content = 0;
    entry->content = (int64_t)content;
    entry->content_at = now;
}

/* A settle takes out no more than what was reserved and has not leaked, and no more than there is. */
static void check_settled_volume(struct entry *entry, const struct decision *d, const struct steady__settlement *s,
                                 int64_t now, const struct steady__settled *o) {
    const struct steady__rate *rate = s->rate;
    const wide age = now > s->moment ? now - s->moment : 0;
    const wide left = (wide)s->reserved * worth(rate) - age * rate->drops;
    const wide too_much = (wide)(s->reserved - s->actual) * worth(rate);
    const int64_t content = content_now(entry, rate, now);
    if (o->given_back > 0 && (o->given_back > left || o->given_back > too_much))
        broken("decision %" PRId64 " gives back more than was reserved", d->id);
    if (o->given_back > content + slack(entry, rate))
        broken("decision %" PRId64 " gives back what is not there", d->id);
    if (o->charged > 0 && o->charged > s->actual - s->reserved) broken("decision %" PRId64 " charges too much", d->id);
    if (!o->bucket.changed) return;
    entry->content = o->given_back > content ? 0 : content - o->given_back + o->charged * worth(rate);
    if (o->bucket.level == 0) entry->content = 0;
    entry->content_at = now;
}

static size_t group_arguments(const struct group_words *g, struct lua_argument *argv) {
    struct lua_argument *at = argv;
    if (g->verb == STEADY__RESET_ALL) return 0;
    if (g->verb != STEADY__SETTLE) {
        at->len =
            (size_t)snprintf(at->bytes, sizeof at->bytes, "%" PRId64 " %" PRId64, g->how.max_wait, g->how.at_least);
        at++;
    }
    for (size_t i = 0; i < g->n; i++, at++) {
        const struct steady__rate *rate = &g->rates[i];
        const struct steady__settlement *s = &g->settlements[i];
        if (g->verb == STEADY__SETTLE)
            at->len = (size_t)snprintf(at->bytes, sizeof at->bytes,
                                       "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %d",
                                       rate->capacity, rate->recharge, rate->drops, s->reserved, s->moment, s->actual,
                                       s->same_rate);
        else
            at->len = packed_shortest(at->bytes, rate, g->parts[i].amount, g->parts[i].kind, true);
    }
    return (size_t)(at - argv);
}

/* The decision of the kernel on the buckets. */
static void decide_group(const struct request *r, const struct group_words *g, struct steady__bucket *buckets,
                         struct made *made) {
    static const struct steady__bucket empty;
    made->verdict = (struct steady__verdict){.success = true};
    for (size_t i = 0; i < g->n && g->verb == STEADY__SETTLE; i++) {
        steady__settle(&g->settlements[i], made->now, &buckets[i], &made->settled[i]);
        made->stepped += made->settled[i].bucket.stepped;
    }
    for (size_t i = 0; i < g->n && g->verb == STEADY__RESET_ALL; i++) {
        steady__bucket_peek(&empty, &journal_place(r, i)->rate, 0, &made->each[i].bucket);
        made->each[i].bucket.changed = true;
        buckets[i] = empty;
    }
    if (g->verb == STEADY__SETTLE || g->verb == STEADY__RESET_ALL) return;
    steady__parts_decide(g->parts, g->n, &g->how, made->now, buckets, made->each, &made->verdict);
    for (size_t i = 0; i < g->n; i++)
        made->stepped += made->each[i].bucket.stepped;
}

static void store_group(struct entry *entry, size_t i, const struct steady__bucket *bucket, int64_t now,
                        const struct decision *d) {
    struct steady__bucket stored;
    const char *text = lua_server_get_key(lua, i, now);
    if (lua_server_writes_of(lua, i) > 1) broken("decision %" PRId64 " writes key %zu twice", d->id, i);
    entry->holds = text != NULL;
    entry->expires_ms = lua_server_expires_ms_of(lua, i);
    snprintf(entry->value, sizeof entry->value, "%s", text != NULL ? text : "");
    if (!stored_parse(text, &stored) || memcmp(&stored, bucket, sizeof stored) != 0)
        broken("decision %" PRId64 " leaves \"%s\" in key %zu, which is not what parts.c leaves", d->id, entry->value,
               i);
    entry->bucket = *bucket;
}

/* success part wait retry_after now, and so on: see src/redis/command.c. */
static size_t module_values(const struct group_words *g, const struct made *made, int64_t *values) {
    size_t n = 0;
    if (g->verb == STEADY__RESET_ALL) {
        values[n++] = between(0, (int64_t)g->n);
        return n;
    }
    if (g->verb != STEADY__SETTLE) {
        values[n++] = made->verdict.success;
        values[n++] = (int64_t)made->verdict.part;
        values[n++] = made->verdict.wait;
        values[n++] = made->verdict.retry_after;
    }
    values[n++] = made->now;
    for (size_t i = 0; i < g->n; i++) {
        const struct steady__part_decision *each = &made->each[i];
        const struct steady__settled *settled = &made->settled[i];
        const struct steady__decision *b = g->verb == STEADY__SETTLE ? &settled->bucket : &each->bucket;
        if (g->verb != STEADY__SETTLE) {
            values[n++] = b->success;
            values[n++] = each->granted;
        }
        values[n++] = b->level;
        values[n++] = b->until_next_drop;
        values[n++] = b->blocked_for;
        values[n++] = g->verb == STEADY__SETTLE ? settled->given_back : b->retry_after;
        if (g->verb == STEADY__SETTLE) values[n++] = settled->charged;
    }
    return n;
}

/* The entries of the keys, as the script finds them. False: a key is of another type. */
static bool set_group(struct node *node, const struct request *r, struct entry *entries[MEMBERS_MAX], int64_t now) {
    for (size_t i = 0; i < r->n; i++) {
        const struct place *place = journal_place(r, i);
        struct entry *entry = entries[i] = &node->entries[place->index];
        if (entry->holds && strcmp(entry->value, KEYS_OTHER_TYPE) == 0) return false;
        expire(entry, &place->rate, now);
        lua_server_set_key(lua, i, entry->holds ? entry->value : NULL, entry->expires_ms);
    }
    return true;
}

static void note_group_change(const struct node *node, const struct request *r, const struct group_words *g, size_t i,
                              int64_t before, const struct made *made) {
    const bool decides = g->verb == STEADY__CONSUME_ALL;
    const bool fits = decides && g->how.max_wait == 0 && g->parts[i].kind != STEADY__CHARGE;
    const int64_t drops = decides ? made->each[i].granted : g->verb == STEADY__SETTLE ? made->settled[i].charged : 0;
    note_change(node, journal_place(r, i), before, drops, fits);
}

const char *keys_run_group(struct node *node, struct request *r, const struct group_words *g, bool to_module,
                           int64_t values[STEADY__REPLY_MAX], size_t *count) {
    struct entry *entries[MEMBERS_MAX];
    struct steady__bucket buckets[MEMBERS_MAX];
    struct lua_argument argv[1 + MEMBERS_MAX];
    const struct decision *d = r->decision;
    struct made made = {.now = server_now(node)};
    if (!set_group(node, r, entries, made.now))
        return "-WRONGTYPE Operation against a key holding the wrong kind of value";
    if (lua_parts_run(lua, g->verb, g->n, group_arguments(g, argv), argv, made.now) != 0) return error_text();
    const int64_t *reply = lua_server_reply(lua, count);
    memcpy(values, reply, *count * sizeof *values);
    for (size_t i = 0; i < g->n; i++)
        buckets[i] = entries[i]->bucket;
    decide_group(r, g, buckets, &made);
    if (lua_server_writes(lua) > STEADY__PARTS_MAX) broken("decision %" PRId64 " reads after it has written", d->id);
    for (size_t i = 0; i < g->n; i++) {
        const struct steady__decision *b = g->verb == STEADY__SETTLE ? &made.settled[i].bucket : &made.each[i].bucket;
        const bool resets = g->verb == STEADY__RESET_ALL;
        const int64_t before = content_now(entries[i], &journal_place(r, i)->rate, made.now);
        const bool nothing = !entries[i]->holds && b->busy_for == 0; /* there was no bucket, and there is none */
        if (!resets && (lua_server_writes_of(lua, i) > 0) != b->changed && !(b->changed && nothing))
            broken("decision %" PRId64 " should write key %zu: %d", d->id, i, b->changed);
        if (g->verb == STEADY__SETTLE)
            check_settled_volume(entries[i], d, &g->settlements[i], made.now, &made.settled[i]);
        else if (!resets)
            check_part_volume(entries[i], d, &g->parts[i], &g->how, made.now, &made.each[i]);
        else
            entries[i]->content = 0;
        if (r->lease == NULL) note_group_change(node, r, g, i, before, &made);
        if (b->changed) store_group(entries[i], i, &buckets[i], made.now, d);
    }
    if (to_module) {
        *count = module_values(g, &made, values);
        made.stepped = 0; /* this reply does not report a step */
    }
    journal_executed(r);
    if (r->lease != NULL)
        leases_executed(r, node, &made);
    else
        several_executed(r, &made);
    const bool lowers = g->verb == STEADY__SETTLE || g->verb == STEADY__RESET_ALL;
    for (size_t i = 0; i < g->n; i++)
        denials_made(r, journal_place(r, i), lowers || g->parts[i].amount < 0);
    return NULL;
}

/* ---- Changes of keys ---- */

static bool is_foreign(const struct entry *entry) { return entry->holds && entry->expires_ms == 0; }

void keys_forget(struct node *node) {
    note("keys lost", node->index, 0, 0);
    denials_lost(NULL);
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

bool keys_would_deny(const struct place *place, int64_t amount, steady_us when, steady_us *retry_after) {
    bool denies = false;
    for (int i = 0; i < NODES; i++) {
        const struct entry *entry = &nodes[i].entries[place->index];
        const int64_t now = server_now(&nodes[i]) + when - world.now;
        struct steady__bucket bucket = {.level = 0};
        struct steady__decision o;
        if (entry->holds && (entry->expires_ms == 0 || now / 1000 <= entry->expires_ms)) bucket = entry->bucket;
        if (!nodes[i].primary) continue;
        steady__bucket_consume(&bucket, &place->rate, now, amount, &o);
        if (!o.success && retry_after != NULL && (o.retry_after == -1 || o.retry_after > *retry_after))
            *retry_after = o.retry_after;
        denies |= !o.success;
    }
    return denies;
}

void keys_move(struct node *to, struct node *from, const struct place *place) {
    if (place->foreign || !keys_has(from, place)) return;
    copy_key(to, from, place->index);
    leases_lost(place);
    if (to->clock_offset != from->clock_offset) denials_lost(place);
    from->entries[place->index] = (struct entry){.holds = false};
}

void keys_step_clock(struct node *node, int64_t by) {
    note("clock steps", node->index, by, 0);
    denials_lost(NULL);
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
