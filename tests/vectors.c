/* SPDX-License-Identifier: MIT
 * `vectors FILE` runs a file of test vectors against the C code and against the Lua scripts. It prints how many steps
 * agree; or the first difference, and exits with 1.
 *
 * A line is a sequence: {"sequence": n, "steps": [step, ...]}. All steps have "op", "now", "expect" and "stored". A
 * stored bucket is [level, last, rem, blocked_until]; or null if it is empty and not blocked at that moment, whatever
 * the store keeps of it.
 *
 *   one bucket         "op": "consume" or "peek", "capacity", "recharge", "drops", "block", "amount".
 *                      "expect": {the five fields}. "stored": a bucket.
 *   several buckets    "op": "consume" or "peek", "parts": [[[capacity, recharge, drops, block], amount, kind], ...],
 *                      "at_least", "max_wait". "expect": {success, part, wait, retry_after, granted: [...],
 *                      each: [[the five fields], ...]}. "stored": a list of buckets.
 *   one of these       "op": "settle", "bucket": its index, "limit", "reserved", "moment", "actual", "same_rate".
 *                      "expect": {level, until_next_drop, blocked_for, given_back, charged}. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua_parts.h"

/* A bucket of a sequence, as a store keeps it for bucket.c and parts.c. */
struct kept {
    struct steady__bucket bucket;
    int64_t gone_at;           /* when its time to live is over; 0: it has none */
    struct steady__rate limit; /* of its last step */
};

struct run {
    struct lua_server *server;
    struct kept kept[STEADY__PARTS_MAX];
    int64_t now;
    const json_t *step;
    bool ok;
};

/* ---- Reading ---- */

static int64_t value_of(const json_t *json, int64_t otherwise) {
    if (json_is_boolean(json)) return json_is_true(json);
    return json_is_integer(json) ? json_integer_value(json) : otherwise;
}

static int64_t field(const json_t *object, const char *name, int64_t otherwise) {
    return value_of(json_object_get(object, name), otherwise);
}

static int64_t item(const json_t *array, size_t i) { return value_of(json_array_get(array, i), INT64_MIN); }

static bool is_op(const json_t *step, const char *op) {
    const char *text = json_string_value(json_object_get(step, "op"));
    return text != NULL && strcmp(text, op) == 0;
}

static struct steady__rate limit_of(const json_t *array) {
    return (struct steady__rate){item(array, 0), item(array, 1), item(array, 2), item(array, 3)};
}

static struct steady__bucket bucket_of(const json_t *stored) {
    if (json_array_size(stored) != 4) return (struct steady__bucket){0};
    return (struct steady__bucket){item(stored, 0), item(stored, 1), item(stored, 2), item(stored, 3)};
}

/* ---- Comparing ---- */

static void same(struct run *run, const char *who, const char *what, int64_t got, int64_t expected) {
    if (got == expected) return;
    run->ok = false;
    printf("%s: %s is %" PRId64 ", expected %" PRId64 "\n", who, what, got, expected);
}

static void same_each(struct run *run, const char *who, const json_t *expect, size_t i,
                      const struct steady__decision *d) {
    static const char *const names[5] = {"success", "level", "until_next_drop", "blocked_for", "retry_after"};
    const int64_t got[5] = {d->success, d->level, d->until_next_drop, d->blocked_for, d->retry_after};
    const json_t *each = json_array_get(json_object_get(expect, "each"), i);
    for (size_t f = 0; f < 5; f++) {
        char what[64];
        snprintf(what, sizeof what, json_is_array(each) ? "%s of part %zu" : "%s", names[f], i);
        same(run, who, what, got[f], json_is_array(each) ? item(each, f) : field(expect, names[f], INT64_MIN));
    }
}

static void same_bucket(struct run *run, const char *who, size_t i, struct steady__bucket got, const json_t *stored) {
    const struct steady__bucket expected = bucket_of(stored);
    struct steady__decision d;
    steady__bucket_peek(&got, &run->kept[i].limit, run->now, &d);
    if (d.busy_for == 0) got = (struct steady__bucket){0};
    if (memcmp(&got, &expected, sizeof got) == 0) return;
    run->ok = false;
    printf("%s: stored [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "] in bucket %zu, expected [%" PRId64 ",%" PRId64
           ",%" PRId64 ",%" PRId64 "]\n",
           who, got.level, got.last, got.rem, got.blocked_until, i, expected.level, expected.last, expected.rem,
           expected.blocked_until);
}

static void same_text(struct run *run, size_t i, const json_t *stored) {
    const char *text = lua_server_get_key(run->server, i, run->now);
    struct steady__bucket bucket;
    if (stored_parse(text, &bucket)) {
        same_bucket(run, "lua", i, bucket, stored);
    } else {
        run->ok = false;
        printf("lua: stored \"%s\"\n", text);
    }
}

static void lua_failed(struct run *run) {
    run->ok = false;
    printf("lua: %s\n", lua_server_error(run->server));
}

/* ---- Running ---- */

static struct kept *at_now(struct run *run, size_t i, struct steady__rate limit) {
    struct kept *kept = &run->kept[i];
    if (kept->gone_at != 0 && run->now >= kept->gone_at) kept->bucket = (struct steady__bucket){0};
    kept->limit = limit;
    return kept;
}

static void keep(struct run *run, size_t i, struct steady__bucket bucket, const struct steady__decision *d) {
    run->kept[i].bucket = bucket;
    if (d->changed) run->kept[i].gone_at = run->now + d->busy_for;
}

static void run_bucket(struct run *run) {
    const json_t *step = run->step, *expect = json_object_get(step, "expect"),
                 *stored = json_object_get(step, "stored");
    const bool peek = is_op(step, "peek");
    const int64_t amount = peek ? 1 : field(step, "amount", INT64_MIN);
    struct kept *kept = at_now(run, 0,
                               (struct steady__rate){field(step, "capacity", 0), field(step, "recharge", 0),
                                                     field(step, "drops", 1), field(step, "block", 0)});
    struct steady__bucket bucket = kept->bucket;
    struct steady__decision d;
    if (peek)
        steady__bucket_peek(&bucket, &kept->limit, run->now, &d);
    else
        steady__bucket_consume(&bucket, &kept->limit, run->now, amount, &d);
    keep(run, 0, bucket, &d);
    same_each(run, "bucket.c", expect, 0, &d);
    same_bucket(run, "bucket.c", 0, bucket, stored);

    steady_result r = {0};
    bool stepped = false;
    if (!lua_server_decide(run->server, peek ? STEADY__PEEK : STEADY__CONSUME, &kept->limit, amount, run->now, &r,
                           &stepped)) {
        lua_failed(run);
        return;
    }
    const struct steady__decision lua = {.success = r.success,
                                         .level = r.level,
                                         .until_next_drop = r.until_next_drop,
                                         .blocked_for = r.blocked_for,
                                         .retry_after = r.retry_after};
    same_each(run, "lua", expect, 0, &lua);
    same_text(run, 0, stored);
}

static void same_verdict(struct run *run, const char *who, size_t n, const struct steady__verdict *verdict,
                         const struct steady__part_decision *each) {
    const json_t *expect = json_object_get(run->step, "expect"), *granted = json_object_get(expect, "granted");
    same(run, who, "success", verdict->success, field(expect, "success", INT64_MIN));
    same(run, who, "part", (int64_t)verdict->part, field(expect, "part", INT64_MIN));
    same(run, who, "wait", verdict->wait, field(expect, "wait", INT64_MIN));
    same(run, who, "retry_after", verdict->retry_after, field(expect, "retry_after", INT64_MIN));
    for (size_t i = 0; i < n; i++) {
        same(run, who, "granted", each[i].granted, item(granted, i));
        same_each(run, who, expect, i, &each[i].bucket);
    }
}

static void run_parts(struct run *run) {
    static const char *const kinds[STEADY__KINDS] = {"take", "look", "charge", "shadow"};
    const json_t *list = json_object_get(run->step, "parts"), *stored = json_object_get(run->step, "stored");
    const struct steady__how how = {field(run->step, "max_wait", 0), field(run->step, "at_least", 0),
                                    is_op(run->step, "peek")};
    const size_t n = json_array_size(list);
    struct steady__part parts[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    struct steady__part_decision each[STEADY__PARTS_MAX];
    struct steady__verdict verdict;
    unsigned stepped = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *json = json_array_get(list, i);
        const char *kind = json_string_value(json_array_get(json, 2));
        struct kept *kept = at_now(run, i, limit_of(json_array_get(json, 0)));
        buckets[i] = kept->bucket;
        parts[i] = (struct steady__part){.rate = &kept->limit, .amount = item(json, 1)};
        for (int k = 0; kind != NULL && k < STEADY__KINDS; k++)
            if (strcmp(kind, kinds[k]) == 0) parts[i].kind = (enum steady__kind)k;
    }
    steady__parts_decide(parts, n, &how, run->now, buckets, each, &verdict);
    same_verdict(run, "parts.c", n, &verdict, each);
    for (size_t i = 0; i < n; i++) {
        keep(run, i, buckets[i], &each[i].bucket);
        same_bucket(run, "parts.c", i, buckets[i], json_array_get(stored, i));
    }

    if (!lua_parts_decide(run->server, parts, n, &how, run->now, each, &verdict, &stepped)) {
        lua_failed(run);
        return;
    }
    same_verdict(run, "lua", n, &verdict, each);
    for (size_t i = 0; i < n; i++)
        same_text(run, i, json_array_get(stored, i));
}

static void same_settled(struct run *run, const char *who, const struct steady__settled *settled) {
    const json_t *expect = json_object_get(run->step, "expect");
    same(run, who, "level", settled->bucket.level, field(expect, "level", INT64_MIN));
    same(run, who, "until_next_drop", settled->bucket.until_next_drop, field(expect, "until_next_drop", INT64_MIN));
    same(run, who, "blocked_for", settled->bucket.blocked_for, field(expect, "blocked_for", INT64_MIN));
    same(run, who, "given_back", settled->given_back, field(expect, "given_back", INT64_MIN));
    same(run, who, "charged", settled->charged, field(expect, "charged", INT64_MIN));
}

/* A script settles its first keys. So those before this bucket are settled too, with what changes nothing. */
static void run_settle(struct run *run) {
    const json_t *step = run->step, *stored = json_object_get(step, "stored");
    const size_t bucket = (size_t)field(step, "bucket", 0);
    struct steady__settlement settlements[STEADY__PARTS_MAX];
    struct steady__settled settled[STEADY__PARTS_MAX];
    unsigned stepped = 0;
    for (size_t i = 0; i < bucket; i++)
        settlements[i] = (struct steady__settlement){.rate = &run->kept[i].limit, .reserved = 1, .actual = 1};
    struct kept *kept = at_now(run, bucket, limit_of(json_object_get(step, "limit")));
    settlements[bucket] = (struct steady__settlement){.rate = &kept->limit,
                                                      .same_rate = field(step, "same_rate", 0) != 0,
                                                      .reserved = field(step, "reserved", 0),
                                                      .moment = field(step, "moment", 0),
                                                      .actual = field(step, "actual", 0)};
    struct steady__bucket b = kept->bucket;
    steady__settle(&settlements[bucket], run->now, &b, &settled[bucket]);
    keep(run, bucket, b, &settled[bucket].bucket);
    same_settled(run, "parts.c", &settled[bucket]);
    same_bucket(run, "parts.c", bucket, b, json_array_get(stored, bucket));

    if (!lua_parts_settle(run->server, settlements, bucket + 1, run->now, settled, &stepped)) {
        lua_failed(run);
        return;
    }
    same_settled(run, "lua", &settled[bucket]);
    for (size_t i = 0; i <= bucket; i++)
        same_text(run, i, json_array_get(stored, i));
}

static void run_step(struct run *run, const json_t *step) {
    const size_t parts = json_array_size(json_object_get(step, "parts"));
    run->step = step;
    run->now = field(step, "now", -1);
    run->ok = run->now >= 0 && json_is_object(json_object_get(step, "expect")) && parts <= STEADY__PARTS_MAX;
    if (!run->ok)
        printf("not a step\n");
    else if (is_op(step, "settle") && (uint64_t)field(step, "bucket", -1) < STEADY__PARTS_MAX)
        run_settle(run);
    else if ((is_op(step, "consume") || is_op(step, "peek")) && parts > 0)
        run_parts(run);
    else if ((is_op(step, "consume") || is_op(step, "peek")) && field(step, "capacity", 0) > 0)
        run_bucket(run);
    else {
        run->ok = false;
        printf("not a step\n");
    }
}

/* The number of steps of this line that agreed. *ok false: the next step did not. */
static size_t run_line(const char *line, struct lua_server *server, bool *ok) {
    json_error_t error;
    json_t *sequence = json_loads(line, 0, &error);
    const json_t *steps = json_object_get(sequence, "steps");
    struct run run = {.server = server, .ok = json_is_array(steps)};
    size_t i = 0;
    if (!run.ok) printf("not a sequence: %s\n", error.text);
    for (size_t key = 0; key < STEADY__PARTS_MAX; key++)
        lua_server_set_key(server, key, NULL, 0);
    while (run.ok && i < json_array_size(steps)) {
        run_step(&run, json_array_get(steps, i));
        i += run.ok;
    }
    json_decref(sequence);
    *ok = run.ok;
    return i;
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, argc == 2 ? "vectors: cannot open %s\n" : "usage: vectors FILE\n", argc == 2 ? argv[1] : "");
        return 2;
    }
    struct lua_server *server = lua_server_new();
    char *line = NULL;
    size_t room = 0, agreed = 0, number = 0;
    bool ok = true;
    while (ok && getline(&line, &room, file) > 0) {
        number++;
        if (line[0] == '\n') continue;
        const size_t steps = run_line(line, server, &ok);
        agreed += steps;
        if (!ok) printf("%s:%zu: step %zu (of this line, from 0)\n", argv[1], number, steps);
    }
    if (ok) printf("%zu steps agree: the C code and the Lua scripts\n", agreed);
    ok = ok && agreed > 0;
    free(line);
    fclose(file);
    lua_server_free(server);
    return ok ? 0 : 1;
}
