/* SPDX-License-Identifier: MIT
 * `vectors FILE` runs a file of test vectors against bucket.c and against the Lua scripts. It prints how many steps
 * agree; or the first difference, and exits with 1.
 *
 * A line is a sequence: {"sequence": n, "steps": [{"op": "consume" or "peek", "now", "capacity", "recharge", "drops",
 * "block", "amount", "expect": {the five fields}, "stored": null or [level, last, rem, blocked_until]}, ...]}. "stored"
 * is null if the bucket is empty and not blocked at that moment, whatever the store keeps of it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua_server.h"

struct step {
    bool peek;
    int64_t now, amount;
    struct steady__rate rate;
    int64_t expect[5]; /* success level until_next_drop blocked_for retry_after */
    struct steady__bucket stored;
};

static const char *const fields[5] = {"success", "level", "until_next_drop", "blocked_for", "retry_after"};

static int64_t integer(const json_t *object, const char *name, int64_t otherwise) {
    const json_t *value = json_object_get(object, name);
    if (json_is_boolean(value)) return json_is_true(value);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static bool read_step(struct step *step, const json_t *json) {
    const char *op = json_string_value(json_object_get(json, "op"));
    const json_t *stored = json_object_get(json, "stored"), *expect = json_object_get(json, "expect");
    if (op == NULL || (strcmp(op, "peek") != 0 && strcmp(op, "consume") != 0) || !json_is_object(expect)) return false;
    step->peek = strcmp(op, "peek") == 0;
    step->now = integer(json, "now", -1);
    step->amount = integer(json, "amount", 1);
    step->rate = (struct steady__rate){integer(json, "capacity", 0), integer(json, "recharge", 0),
                                       integer(json, "drops", 1), integer(json, "block", 0)};
    for (int i = 0; i < 5; i++)
        step->expect[i] = integer(expect, fields[i], INT64_MIN);
    memset(&step->stored, 0, sizeof step->stored);
    if (json_array_size(stored) == 4) {
        int64_t *const parts[4] = {&step->stored.level, &step->stored.last, &step->stored.rem,
                                   &step->stored.blocked_until};
        for (size_t i = 0; i < 4; i++)
            *parts[i] = json_integer_value(json_array_get(stored, i));
    }
    return step->now >= 0 && step->rate.capacity > 0 && step->rate.recharge > 0;
}

static bool same(const char *who, const struct step *step, const int64_t got[5], struct steady__bucket stored) {
    struct steady__decision d;
    steady__bucket_peek(&stored, &step->rate, step->now, &d);
    if (d.busy_for == 0) stored = (struct steady__bucket){0};
    if (memcmp(got, step->expect, sizeof step->expect) == 0 && memcmp(&stored, &step->stored, sizeof stored) == 0)
        return true;
    for (int i = 0; i < 5; i++)
        if (got[i] != step->expect[i])
            printf("%s: %s is %" PRId64 ", expected %" PRId64 "\n", who, fields[i], got[i], step->expect[i]);
    printf("%s: stored [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "], expected [%" PRId64 ",%" PRId64 ",%" PRId64
           ",%" PRId64 "]\n",
           who, stored.level, stored.last, stored.rem, stored.blocked_until, step->stored.level, step->stored.last,
           step->stored.rem, step->stored.blocked_until);
    return false;
}

/* bucket.c, with a state that expires after its time to live, like in a store. */
static bool run_core(const struct step *step, struct steady__bucket *bucket, int64_t *gone_at) {
    struct steady__decision d;
    if (*gone_at != 0 && step->now >= *gone_at) *bucket = (struct steady__bucket){0};
    if (step->peek)
        steady__bucket_peek(bucket, &step->rate, step->now, &d);
    else
        steady__bucket_consume(bucket, &step->rate, step->now, step->amount, &d);
    if (d.changed) *gone_at = step->now + d.busy_for;
    const int64_t got[5] = {d.success, d.level, d.until_next_drop, d.blocked_for, d.retry_after};
    return same("bucket.c", step, got, *bucket);
}

static bool run_lua(const struct step *step, struct lua_server *server) {
    steady_result r = {0};
    struct steady__bucket stored;
    bool stepped = false;
    if (!lua_server_decide(server, step->peek ? STEADY__PEEK : STEADY__CONSUME, &step->rate, step->amount, step->now,
                           &r, &stepped)) {
        printf("lua: %s\n", lua_server_error(server));
        return false;
    }
    if (!stored_parse(lua_server_get(server, step->now), &stored)) {
        printf("lua: stored \"%s\"\n", lua_server_get(server, step->now));
        return false;
    }
    const int64_t got[5] = {r.success, r.level, r.until_next_drop, r.blocked_for, r.retry_after};
    return same("lua", step, got, stored);
}

/* The number of steps of this line that agreed. *ok false: the next step did not. */
static size_t run_line(const char *line, struct lua_server *server, bool *ok) {
    json_error_t error;
    json_t *sequence = json_loads(line, 0, &error);
    const json_t *steps = json_object_get(sequence, "steps");
    struct steady__bucket bucket = {0};
    int64_t gone_at = 0;
    size_t i = 0;
    *ok = json_is_array(steps);
    if (!*ok) printf("not a sequence: %s\n", error.text);
    lua_server_set(server, NULL, 0);
    for (; *ok && i < json_array_size(steps); i++) {
        struct step step;
        *ok = read_step(&step, json_array_get(steps, i));
        if (!*ok) printf("not a step\n");
        *ok = *ok && run_core(&step, &bucket, &gone_at) && run_lua(&step, server);
        if (!*ok) break;
    }
    json_decref(sequence);
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
    if (ok) printf("%zu steps agree: bucket.c and the Lua scripts\n", agreed);
    ok = ok && agreed > 0;
    free(line);
    fclose(file);
    lua_server_free(server);
    return ok ? 0 : 1;
}
