/* SPDX-License-Identifier: MIT
 * The decisions of a replay.
 *
 * In the order of reading, a record is matched, and its keys become numbers of entries. Then it waits in the order of
 * time. When its turn comes, core/parts.c decides on its buckets as the daemon does. */
#include "engine.h"

#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "core/limit.h"
#include "reorder.h"
#include "rules/memory.h"
#include "series.h"

#define SECOND INT64_C(1000000)

/* A part of an event: a limit that counts for the request, and the entry of its key. */
struct waiting_part {
    uint64_t hash;
    uint32_t id;
    uint32_t owner; /* of --against: the entry of this key in the rules; KEYS_NONE: there is no such limit */
    int32_t amount;
    uint16_t limit;
    uint8_t rate, kind;
};

/* A request that waits for its turn. After the parts are the path and the user agent. */
struct waiting_event {
    uint8_t n[2]; /* parts of both sides */
    uint8_t path_len, agent_len;
    uint16_t status;
    struct waiting_part parts[];
};

/* ---- Limits ---- */

static bool engine_add_limit(struct engine_side *side, const struct rules_limit *limit, char *why, size_t room) {
    struct engine_limit *to = &side->limits[side->n_limits];
    struct rules_memory *memory = side->engine->memory;
    steady_message reason;
    if (limit->n_rates > UINT8_MAX) {
        snprintf(why, room, "the limit %s has more than %u rates", limit->name, (unsigned)UINT8_MAX);
        return false;
    }
    to->limit = limit;
    to->twin = SIZE_MAX;
    to->rates = memory_take(memory, limit->n_rates * sizeof *to->rates);
    to->needed = memory_take(memory, limit->n_rates * sizeof *to->needed);
    if (to->rates == NULL || to->needed == NULL) {
        snprintf(why, room, "out of memory");
        return false;
    }
    for (size_t i = 0; i < limit->n_rates; i++) {
        if (steady__limit_rate(&to->rates[i], &limit->rates[i], &reason) != 0) {
            snprintf(why, room, "the limit %s: %s", limit->name, reason.text);
            return false;
        }
        to->needed[i] = needed_rate(&to->rates[i]);
    }
    side->n_limits++;
    return true;
}

static size_t engine_find_limit(const struct engine_side *side, struct rules_text name) {
    for (size_t i = 0; i < side->n_limits; i++) {
        const char *other = side->limits[i].limit->name;
        if (strlen(other) == name.len && memcmp(other, name.bytes, name.len) == 0) return i;
    }
    return SIZE_MAX;
}

/* The limit of a part of a decision log. SIZE_MAX: the rules have none of this name. */
static size_t engine_named_limit(struct engine_side *side, struct rules_text name) {
    struct engine *engine = side->engine;
    char why[80];
    size_t found = engine_find_limit(side, name);
    if (found != SIZE_MAX || !engine->options.by_name || side != &engine->sides[0]) return found;
    if (side->n_limits == ENGINE_NAMED_MOST) return SIZE_MAX;
    struct rules_limit *limit = memory_take(engine->memory, sizeof *limit);
    char *copy = memory_copy(engine->memory, name.bytes, name.len);
    if (limit == NULL || copy == NULL) return SIZE_MAX;
    *limit = *side->limits[0].limit;
    limit->name = copy;
    found = side->n_limits;
    return engine_add_limit(side, limit, why, sizeof why) ? found : SIZE_MAX;
}

/* ---- Forgetting idle keys ---- */

/* A bucket that is empty under the rate that wrote it has expired in the store. Under a slower rate of another tier it
 * would not be empty yet. */
static struct steady__bucket engine_bucket(const struct keys_entry *entry, const struct engine_limit *limit,
                                           uint8_t rate, int64_t now) {
    const struct steady__bucket bucket = {entry->level, entry->last, entry->rem, entry->blocked_until};
    struct steady__bucket advanced = bucket;
    bool stepped;
    if (rate == entry->wrote) return bucket;
    steady__bucket_advance(&advanced, &limit->rates[entry->wrote], now, &stepped);
    return advanced.level > 0 || advanced.blocked_until > 0 ? bucket : (struct steady__bucket){0};
}

/* A key without a denial whose buckets are empty at the time of the last decision: no later decision differs. */
static bool engine_forget(void *data, const struct keys_entry *entry) {
    const struct engine_side *side = data;
    struct engine_limit *limit = &side->limits[entry->limit];
    struct steady__bucket bucket = engine_bucket(entry, limit, entry->wrote, side->engine->now);
    struct needed needed = entry->needed;
    bool stepped;
    steady__bucket_advance(&bucket, &limit->rates[entry->wrote], side->engine->now, &stepped);
    if (side->engine->now > needed.last) needed_leak(&needed, &limit->needed[entry->rate], side->engine->now);
    if (bucket.level > 0 || bucket.blocked_until > 0 || needed.content > 0) return false;
    if (entry->requests == 0) return true;
    if (limit->forgotten == NULL) limit->forgotten = calloc(1, sizeof *limit->forgotten);
    if (limit->forgotten == NULL) return false;
    limit->keys_forgotten++;
    if (entry->highest == KEYS_OVER)
        limit->forgotten_over++;
    else
        histogram_add(limit->forgotten, entry->highest);
    return true;
}

/* HyperLogLog: a register keeps the longest run of zeros among its hashes. */
static void engine_merge(struct engine_limit *limit, uint64_t hash) {
    limit->requests_merged++;
    if (limit->merged == NULL) limit->merged = calloc(ENGINE_SKETCH, 1);
    if (limit->merged == NULL) return;
    const uint64_t rest = hash / ENGINE_SKETCH | (uint64_t)1 << 52;
    const uint8_t run = (uint8_t)(__builtin_ctzll(rest) + 1);
    uint8_t *most = &limit->merged[hash % ENGINE_SKETCH];
    if (run > *most) *most = run;
}

uint64_t engine_merged_keys(const struct engine_limit *limit) {
    double sum = 0, zeros = 0;
    if (limit->merged == NULL) return 0;
    for (size_t i = 0; i < ENGINE_SKETCH; i++) {
        sum += ldexp(1, -limit->merged[i]);
        zeros += limit->merged[i] == 0;
    }
    double n = 0.7213 / (1 + 1.079 / ENGINE_SKETCH) * ENGINE_SKETCH * ENGINE_SKETCH / sum;
    if (n < 2.5 * ENGINE_SKETCH && zeros > 0) n = ENGINE_SKETCH * log(ENGINE_SKETCH / zeros); /* few keys */
    return n < 1 ? 1 : (uint64_t)(n + 0.5);
}

/* ---- The timeline ---- */

/* Each interval is a multiple of the one before. Beyond a day it doubles. */
static int64_t engine_longer(int64_t interval) {
    static const int64_t seconds[] = {1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400};
    for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++)
        if (seconds[i] * SECOND > interval) return seconds[i] * SECOND;
    return 2 * interval;
}

static int64_t engine_floor(int64_t time, int64_t interval) { return time - (time % interval + interval) % interval; }

/* Joins intervals until `index` of `time` is in range. */
static void engine_join_intervals(struct engine *engine, int64_t time) {
    struct engine_side *side = &engine->sides[0];
    while ((time - engine->begin) / engine->interval >= REPORT_TIMELINE) {
        const int64_t longer = engine_longer(engine->interval), begin = engine_floor(engine->begin, longer);
        for (size_t i = 0; i < side->n_limits; i++) {
            struct report_interval *timeline = side->limits[i].timeline;
            for (size_t k = 0; k < engine->n_intervals; k++) {
                const struct report_interval from = timeline[k];
                timeline[k] = (struct report_interval){0};
                const int64_t at = engine->begin + (int64_t)k * engine->interval;
                struct report_interval *to = &timeline[(at - begin) / longer];
                to->requests += from.requests;
                to->denied += from.denied;
            }
        }
        engine->n_intervals =
            (size_t)((engine->begin + (int64_t)(engine->n_intervals - 1) * engine->interval - begin) / longer) + 1;
        engine->interval = longer;
        engine->begin = begin;
    }
}

static size_t engine_interval(struct engine *engine, int64_t time) {
    if (engine->n_intervals == 0) engine->begin = engine_floor(time, engine->interval);
    if (time < engine->begin) time = engine->begin; /* times do not go back; a clock of seconds before 1970 might */
    engine_join_intervals(engine, time);
    const size_t at = (size_t)((time - engine->begin) / engine->interval);
    if (at >= engine->n_intervals) engine->n_intervals = at + 1;
    return at;
}

/* ---- Counting ---- */

struct rules_text engine_shown_key(const struct engine *engine, struct rules_text key, char out[ENGINE_KEY_MAX]) {
    unsigned char digest[16];
    if (!engine->options.hash_keys) return key;
    crypto_generichash(digest, sizeof digest, (const unsigned char *)key.bytes, key.len, engine->secret,
                       sizeof engine->secret);
    sodium_bin2hex(out, ENGINE_KEY_MAX, digest, 8);
    return (struct rules_text){out, 16};
}

static void engine_write_quoted(FILE *to, struct rules_text text) {
    putc('"', to);
    for (size_t i = 0; i < text.len; i++) {
        if (text.bytes[i] == '"') putc('"', to);
        putc(text.bytes[i], to);
    }
    putc('"', to);
}

static void engine_write_verdict(const struct engine *engine, int64_t time, const struct waiting_part *part,
                                 const char *verdict, bool allowed) {
    const struct engine_side *side = &engine->sides[0];
    FILE *to = engine->options.verdicts;
    char memory[ENGINE_KEY_MAX];
    fprintf(to, "%lld.%06lld,", (long long)(time / SECOND), (long long)(time % SECOND));
    engine_write_quoted(
        to, (struct rules_text){side->limits[part->limit].limit->name, strlen(side->limits[part->limit].limit->name)});
    putc(',', to);
    engine_write_quoted(to, engine_shown_key(engine, keys_text(side->keys, keys_at(side->keys, part->id)), memory));
    fprintf(to, ",%ld,%s,%s\n", (long)part->amount, verdict, allowed ? "allowed" : "denied");
}

static void engine_count_denied(struct engine *engine, struct engine_limit *limit, const struct waiting_event *event,
                                int64_t retry_after) {
    const char *texts = (const char *)&event->parts[event->n[0] + event->n[1]];
    if (limit->waits == NULL) limit->waits = calloc(1, sizeof *limit->waits);
    if (limit->by_path == NULL) limit->by_path = heavy_new();
    if (limit->by_agent == NULL) limit->by_agent = heavy_new();
    if (limit->waits == NULL || limit->by_path == NULL || limit->by_agent == NULL) {
        engine->lost = true;
        return;
    }
    if (retry_after >= 0) histogram_add(limit->waits, retry_after);
    limit->by_status[event->status]++;
    if (event->path_len > 0) heavy_add(limit->by_path, (struct rules_text){texts, event->path_len});
    if (event->agent_len > 0)
        heavy_add(limit->by_agent, (struct rules_text){texts + event->path_len, event->agent_len});
}

static struct keys_denial *engine_denial(struct engine_side *side, struct keys_entry *entry) {
    struct keys_denial *denial = keys_denial(side->keys, entry);
    if (denial == NULL) side->engine->lost = true;
    return denial;
}

/* ---- Decisions ---- */

/* The bucket that takes every request. */
static void engine_need(const struct engine_limit *limit, struct keys_entry *entry, const struct waiting_part *part,
                        int64_t time) {
    const struct needed_rate *rate = &limit->needed[part->rate];
    if (part->kind == STEADY__LOOK || part->amount == 0) return;
    if (entry->rate != part->rate) { /* the level stays */
        const int64_t level = needed_level(entry->needed.content, &limit->needed[entry->rate]);
        entry->needed.content = (level < rate->top ? level : rate->top) * rate->recharge;
        entry->rate = part->rate;
    }
    needed_leak(&entry->needed, rate, time);
    if (!needed_add(&entry->needed, rate, part->amount)) {
        entry->highest = KEYS_OVER;
    } else if (entry->highest != KEYS_OVER && entry->needed.content > (int64_t)entry->highest * rate->recharge) {
        entry->highest = (uint32_t)needed_level(entry->needed.content, rate);
    }
}

/* With max_ahead, the daemon holds an answer for as long as all limits let it. */
static int64_t engine_max_wait(const struct engine_side *side, const struct waiting_part *parts, size_t n) {
    int64_t wait = INT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const struct rules_limit *limit = side->limits[parts[i].limit].limit;
        if (parts[i].kind == STEADY__TAKE && limit->max_ahead < wait) wait = limit->max_ahead;
    }
    return wait == INT64_MAX ? 0 : wait;
}

/* What the parts of an event got. */
struct outcome {
    bool allowed;
    bool denied[STEADY__PARTS_MAX], blocked[STEADY__PARTS_MAX];
};

static void engine_decide(struct engine_side *side, int64_t time, const struct waiting_event *event,
                          const struct waiting_part *waiting, size_t n, struct outcome *outcome) {
    struct engine *engine = side->engine;
    const bool is_main = side == &engine->sides[0];
    struct keys_entry *entries[STEADY__PARTS_MAX];
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    struct steady__part_decision each[STEADY__PARTS_MAX];
    struct steady__verdict verdict;
    const struct steady__how how = {.max_wait = engine_max_wait(side, waiting, n)};
    for (size_t i = 0; i < n; i++) {
        entries[i] = keys_at(side->keys, waiting[i].id);
        entries[i]->pending--;
        parts[i] = (struct steady__part){&side->limits[waiting[i].limit].rates[waiting[i].rate], waiting[i].amount,
                                         (enum steady__kind)waiting[i].kind};
        buckets[i] = engine_bucket(entries[i], &side->limits[waiting[i].limit], waiting[i].rate, time);
        outcome->blocked[i] = buckets[i].blocked_until > time;
    }
    steady__parts_decide(parts, n, &how, time, buckets, each, &verdict);
    outcome->allowed = verdict.success;
    if (is_main && verdict.wait > 0) engine->waited++;
    for (size_t i = 0; i < n; i++) {
        const struct waiting_part *part = &waiting[i];
        struct engine_limit *limit = &side->limits[part->limit];
        struct keys_entry *entry = entries[i];
        if (each[i].bucket.changed) {
            entry->level = (uint32_t)buckets[i].level;
            entry->last = buckets[i].last;
            entry->rem = (uint32_t)buckets[i].rem;
            entry->blocked_until = buckets[i].blocked_until;
            entry->wrote = part->rate;
        }
        engine_need(limit, entry, part, time);
        entry->requests += entry->requests < UINT32_MAX;
        limit->requests++;
        outcome->denied[i] = !each[i].bucket.success;
        if (each[i].bucket.success) {
            *(verdict.success ? &limit->allowed : &limit->other) += 1;
            continue;
        }
        limit->denied++;
        limit->blocked += outcome->blocked[i];
        limit->never += part->amount > parts[i].rate->capacity;
        if (is_main) engine_count_denied(engine, limit, event, each[i].bucket.retry_after);
        struct keys_denial *denial = engine_denial(side, entry);
        if (denial == NULL) continue;
        denial->denied += denial->denied < UINT32_MAX;
        if (time < denial->first) denial->first = time;
        denial->last = time;
    }
}

static void engine_count_change(struct engine *engine, uint32_t id, int64_t time, bool here, bool there) {
    struct engine_side *side = &engine->sides[0];
    if (!here && !there) return;
    struct keys_denial *denial = engine_denial(side, keys_at(side->keys, id));
    if (denial == NULL) return;
    denial->against += there;
    if (here == there) return;
    denial->changed++;
    if (time < denial->first_changed) denial->first_changed = time;
}

/* For each limit with a twin: whether it denied here and there. A limit that does not count denies nothing. */
static void engine_compare(struct engine *engine, int64_t time, const struct waiting_event *event,
                           const struct outcome *here, const struct outcome *there) {
    const struct waiting_part *ours = event->parts, *theirs = &event->parts[event->n[0]];
    for (size_t i = 0; i < event->n[0]; i++) {
        bool denied = false;
        if (engine->sides[0].limits[ours[i].limit].twin == SIZE_MAX) continue;
        for (size_t k = 0; k < event->n[1]; k++)
            denied = denied || (theirs[k].owner == ours[i].id && there->denied[k]);
        engine_count_change(engine, ours[i].id, time, here->denied[i], denied);
    }
    for (size_t k = 0; k < event->n[1]; k++) {
        bool counts = theirs[k].owner == KEYS_NONE;
        for (size_t i = 0; i < event->n[0]; i++)
            counts = counts || ours[i].id == theirs[k].owner;
        if (!counts) engine_count_change(engine, theirs[k].owner, time, false, there->denied[k]);
    }
}

/* An event whose turn it is. */
static void engine_release(void *data, int64_t time, void *waiting) {
    struct engine *engine = data;
    struct engine_side *side = &engine->sides[0];
    const struct waiting_event *event = waiting;
    struct outcome here = {.allowed = true}, there;
    engine->now = time;
    if (event->n[0] > 0) {
        engine_decide(side, time, event, event->parts, event->n[0], &here);
        const size_t interval = engine_interval(engine, time);
        *(here.allowed ? &engine->allowed : &engine->denied) += 1;
        for (size_t i = 0; i < event->n[0]; i++) {
            const struct waiting_part *part = &event->parts[i];
            struct report_interval *at = &side->limits[part->limit].timeline[interval];
            at->requests++;
            at->denied += here.denied[i];
            if (engine->options.verdicts != NULL)
                engine_write_verdict(engine, time, part,
                                     !here.denied[i]   ? "allowed"
                                     : here.blocked[i] ? "blocked"
                                                       : "denied",
                                     here.allowed);
            if (engine->options.series != NULL && part->kind != STEADY__LOOK && part->amount != 0)
                series_add(engine->options.series, part->limit, part->hash, time, part->amount);
        }
    }
    if (engine->n_sides < 2) return;
    if (event->n[1] > 0) engine_decide(&engine->sides[1], time, event, &event->parts[event->n[0]], event->n[1], &there);
    engine_compare(engine, time, event, &here, &there);
    for (size_t k = 0; k < event->n[1]; k++)
        if (event->parts[event->n[0] + k].owner != KEYS_NONE)
            keys_at(side->keys, event->parts[event->n[0] + k].owner)->pending--;
}

/* ---- Records ---- */

/* The parts of a record in the order of reading. */
struct found {
    struct waiting_part parts[2 * RULES_PARTS_MAX];
    size_t n[2];
};

static void engine_add_part(struct engine_side *side, struct found *found, size_t limit, size_t rate, int64_t amount,
                            enum steady_kind kind, struct rules_text key) {
    struct engine_side *main = &side->engine->sides[0];
    const size_t which = (size_t)(side - main), n = found->n[which];
    struct waiting_part *parts = &found->parts[which * RULES_PARTS_MAX];
    struct waiting_part part = {.owner = KEYS_NONE,
                                .amount = (int32_t)amount,
                                .limit = (uint16_t)limit,
                                .rate = (uint8_t)rate,
                                .kind = (uint8_t)kind};
    if (n == RULES_PARTS_MAX) return;
    part.id = keys_find(side->keys, limit, key, &part.hash);
    for (size_t i = 0; i < n; i++)
        if (parts[i].id == part.id) return; /* a call has each bucket once */
    struct keys_entry *entry = keys_at(side->keys, part.id);
    entry->pending++;
    if (entry->shared) engine_merge(&side->limits[limit], part.hash);
    if (which == 1 && side->limits[limit].twin != SIZE_MAX) {
        const size_t twin = side->limits[limit].twin;
        uint64_t hash;
        for (size_t i = 0; i < found->n[0]; i++)
            if (found->parts[i].limit == twin) part.owner = found->parts[i].id;
        if (part.owner == KEYS_NONE) part.owner = keys_find(main->keys, twin, key, &hash);
        keys_at(main->keys, part.owner)->pending++;
    }
    parts[n] = part;
    found->n[which]++;
}

static void engine_drop_parts(struct engine *engine, const struct found *found) {
    for (size_t i = 0; i < found->n[0]; i++)
        keys_at(engine->sides[0].keys, found->parts[i].id)->pending--;
    for (size_t i = 0; i < found->n[1]; i++) {
        const struct waiting_part *part = &found->parts[RULES_PARTS_MAX + i];
        keys_at(engine->sides[1].keys, part->id)->pending--;
        if (part->owner != KEYS_NONE) keys_at(engine->sides[0].keys, part->owner)->pending--;
    }
}

/* Of the last X-Forwarded-For if there is one and the peer is trusted; otherwise as the log tells. */
static const struct steady__address *engine_address(const struct rules *rules, const struct record *record,
                                                    struct steady__address *client) {
    const struct steady__address *peer = record->has_address ? &record->address : NULL;
    for (size_t i = 0; i < record->n_fields && rules->n_trusted > 0; i++) {
        const struct rules_text name = record->fields[i].name;
        if (name.len != 15 || strncasecmp(name.bytes, "x-forwarded-for", 15) != 0) continue;
        return rules_client_address(client, rules, peer, record->fields, record->n_fields) ? client : NULL;
    }
    return peer;
}

enum engine_match { ENGINE_COUNTS, ENGINE_NONE, ENGINE_EXEMPT, ENGINE_REFUSED };

static enum engine_match engine_match_named(struct engine_side *side, const struct record *record,
                                            struct found *found) {
    for (size_t i = 0; i < record->n_parts; i++) {
        const struct record_part *part = &record->parts[i];
        const size_t limit = engine_named_limit(side, part->limit);
        if (part->key.len > RULES_KEY_MAX || part->amount > INT32_MAX || part->amount < -INT32_MAX ||
            (part->amount < 0 && part->kind != STEADY_TAKE)) {
            snprintf(side->engine->refusal, sizeof side->engine->refusal, "a key or an amount is out of range");
            return ENGINE_REFUSED;
        }
        if (limit != SIZE_MAX)
            engine_add_part(side, found, limit, 0, part->amount, part->kind, part->key);
        else
            side->engine->unknown_parts += side == &side->engine->sides[0];
    }
    return found->n[side - side->engine->sides] > 0 ? ENGINE_COUNTS : ENGINE_NONE;
}

static enum engine_match engine_match(struct engine_side *side, const struct record *record, struct found *found) {
    struct engine *engine = side->engine;
    struct rules_match *match = &engine->match;
    if (record->n_parts > 0) return engine_match_named(side, record, found);
    struct steady__address client;
    const struct rules_request request = {.method = record->method,
                                          .host = record->host,
                                          .target = record->target,
                                          .ip = engine_address(side->rules, record, &client),
                                          .fields = record->fields,
                                          .n_fields = record->n_fields};
    if (request.ip == NULL && side == engine->sides) engine->without_address++;
    if (rules_match(match, side->rules, &request) == RULES_REFUSED) {
        if (engine->refusal[0] == '\0')
            snprintf(engine->refusal, sizeof engine->refusal, "%.*s", (int)sizeof engine->refusal - 1,
                     match->reason.text);
        return ENGINE_REFUSED;
    }
    if (match->exempt) return ENGINE_EXEMPT;
    for (size_t i = 0; i < match->n_parts; i++) {
        const struct rules_part *part = &match->parts[i];
        engine_add_part(side, found, part->limit->index, part->rate, part->amount, part->kind,
                        (struct rules_text){match->keys + part->key_at, part->key_len});
    }
    return match->n_parts > 0 ? ENGINE_COUNTS : ENGINE_NONE;
}

/* The path of a target, without its query. */
static struct rules_text engine_path(struct rules_text target) {
    if (target.len > HEAVY_TEXT_MAX) target.len = HEAVY_TEXT_MAX;
    const char *query = target.len > 0 ? memchr(target.bytes, '?', target.len) : NULL;
    if (query != NULL) target.len = (size_t)(query - target.bytes);
    return target;
}

/* False: the event is too late. */
static bool engine_wait(struct engine *engine, const struct record *record, int64_t time, const struct found *found) {
    const size_t n = found->n[0] + found->n[1];
    const struct rules_text path = engine_path(record->target), agent = record->user_agent;
    const size_t agent_len = agent.len < HEAVY_TEXT_MAX ? agent.len : HEAVY_TEXT_MAX;
    struct waiting_event *event = reorder_add(engine->reorder, time, record->whole_second && time % SECOND == 0,
                                              sizeof *event + n * sizeof event->parts[0] + path.len + agent_len);
    if (event == NULL) return false;
    char *texts = (char *)&event->parts[n];
    *event = (struct waiting_event){
        .n = {(uint8_t)found->n[0], (uint8_t)found->n[1]},
        .path_len = (uint8_t)path.len,
        .agent_len = (uint8_t)agent_len,
        .status = (uint16_t)(record->status > 0 && record->status < ENGINE_STATUSES ? record->status : 0)};
    memcpy(event->parts, found->parts, found->n[0] * sizeof event->parts[0]);
    memcpy(&event->parts[found->n[0]], &found->parts[RULES_PARTS_MAX], found->n[1] * sizeof event->parts[0]);
    if (path.len > 0) memcpy(texts, path.bytes, path.len);
    if (agent_len > 0) memcpy(texts + path.len, agent.bytes, agent_len);
    return true;
}

void engine_take(struct engine *engine, const struct record *record) {
    struct found found; /* its parts are not cleared */
    int64_t time = record->time;
    found.n[0] = found.n[1] = 0;
    const bool is_begin = record->duration >= 0 && !record->at_begin && !engine->options.at_end;
    if (is_begin) {
        time -= record->duration;
        engine->begun_known = true;
    }
    if (time < 0) time = 0;
    if (time >= STEADY__EXACT / 2) time = STEADY__EXACT / 2;
    if (reorder_is_late(engine->reorder, time)) {
        if (reorder_is_late(engine->reorder, record->time)) {
            engine->late++;
            return;
        }
        time = reorder_earliest(engine->reorder); /* it took longer than the window */
        engine->moved++;
    }
    const enum engine_match outcome = engine_match(&engine->sides[0], record, &found);
    if (engine->n_sides > 1) engine_match(&engine->sides[1], record, &found);
    if (found.n[0] + found.n[1] > 0 && !engine_wait(engine, record, time, &found)) {
        engine_drop_parts(engine, &found);
        engine->late++;
        return;
    }
    engine->requests++;
    engine->exempt += outcome == ENGINE_EXEMPT;
    engine->unmatched += outcome == ENGINE_NONE;
    engine->refused += outcome == ENGINE_REFUSED;
    engine->whole_seconds = engine->whole_seconds || record->whole_second;
    engine->has_parts = engine->has_parts || record->n_parts > 0;
    engine->at_ends = engine->at_ends || (!record->at_begin && record->n_parts == 0 && !is_begin);
    if (time < engine->first) engine->first = time;
    if (time > engine->last) engine->last = time;
}

void engine_advance(struct engine *engine, int64_t newest) { reorder_advance(engine->reorder, newest); }

void engine_end(struct engine *engine) { reorder_end(engine->reorder); }

/* ---- Life ---- */

static bool engine_add_side(struct engine *engine, const struct rules *rules, size_t memory, char *why, size_t room) {
    struct engine_side *side = &engine->sides[engine->n_sides];
    const size_t n = engine->options.by_name ? ENGINE_NAMED_MOST : rules->n_limits;
    side->engine = engine;
    side->rules = rules;
    engine->n_sides++;
    if (n >= UINT16_MAX) {
        snprintf(why, room, "there are more than %u limits", (unsigned)UINT16_MAX - 1);
        return false;
    }
    side->limits = calloc(n + 1, sizeof *side->limits);
    if (side->limits == NULL) return false; /* engine_new said that memory is out */
    for (size_t i = 0; i < rules->n_limits; i++)
        if (!engine_add_limit(side, &rules->limits[i], why, room)) return false;
    const struct keys_options options = {.memory = memory, .n_limits = n, .forget = engine_forget, .data = side};
    side->keys = keys_new(&options);
    if (side->keys == NULL) snprintf(why, room, "out of memory");
    return side->keys != NULL;
}

struct engine *engine_new(const struct engine_options *options, char *why, size_t room) {
    struct engine *engine = calloc(1, sizeof *engine);
    const struct reorder_options reorder = {
        .memory = options->memory / 4, .spread = options->spread, .release = engine_release, .data = engine};
    snprintf(why, room, "out of memory");
    if (engine == NULL) return NULL;
    engine->options = *options;
    engine->first = INT64_MAX;
    engine->last = INT64_MIN;
    engine->interval = SECOND;
    engine->memory = memory_new();
    engine->reorder = reorder_new(&reorder);
    const size_t memory = options->memory / 4 * 3;
    bool made = engine->memory != NULL && engine->reorder != NULL &&
                getrandom(engine->secret, sizeof engine->secret, 0) == sizeof engine->secret &&
                engine_add_side(engine, options->rules, options->against != NULL ? memory / 2 : memory, why, room) &&
                (options->against == NULL || engine_add_side(engine, options->against, memory / 2, why, room));
    for (size_t i = 0; made && options->against != NULL && i < engine->sides[0].n_limits; i++) {
        const char *name = engine->sides[0].limits[i].limit->name;
        const size_t twin = engine_find_limit(&engine->sides[1], (struct rules_text){name, strlen(name)});
        engine->sides[0].limits[i].twin = twin;
        if (twin != SIZE_MAX) engine->sides[1].limits[twin].twin = i;
    }
    if (made) return engine;
    engine_free(engine);
    return NULL;
}

void engine_free(struct engine *engine) {
    if (engine == NULL) return;
    for (size_t s = 0; s < engine->n_sides; s++) {
        struct engine_side *side = &engine->sides[s];
        for (size_t i = 0; i < side->n_limits; i++) {
            free(side->limits[i].merged);
            free(side->limits[i].waits);
            free(side->limits[i].forgotten);
            heavy_free(side->limits[i].by_path);
            heavy_free(side->limits[i].by_agent);
        }
        free(side->limits);
        keys_free(side->keys);
    }
    reorder_free(engine->reorder);
    memory_free(engine->memory);
    free(engine);
}
