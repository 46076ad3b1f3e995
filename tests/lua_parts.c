/* SPDX-License-Identifier: MIT
 * Decisions over several buckets by the shipped scripts. The commands and the replies are written and read here by the
 * comments of the scripts, and not by command.c. */
#include "lua_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "packed.h"

int lua_parts_run(struct lua_server *server, enum steady__verb verb, size_t n, size_t argc,
                  const struct lua_argument *argv, int64_t now) {
    static char command[2 * STEADY__PARTS_MAX * 160];
    int64_t values[STEADY__REPLY_MAX];
    size_t count = 0;
    int len = snprintf(command, sizeof command, "*%zu\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%zu\r\n", 3 + n + argc,
                       steady__scripts[verb].sha1, n < 10 ? 1 : 2, n);
    for (size_t i = 0; i < n; i++)
        len += snprintf(command + len, sizeof command - (size_t)len, "$3\r\nk%02zu\r\n", i);
    for (size_t i = 0; i < argc; i++) {
        len += snprintf(command + len, sizeof command - (size_t)len, "$%zu\r\n", argv[i].len);
        memcpy(command + len, argv[i].bytes, argv[i].len);
        len += (int)argv[i].len;
        memcpy(command + len, "\r\n", 2);
        len += 2;
    }
    return lua_server_run(server, command, (size_t)len, now, values, &count);
}

/* Makes the buckets before the call from the reply. False: the reply is wrong. */
static bool read_reply(const struct lua_server *server, const struct steady__rate *const *rates, size_t n, int64_t now,
                       struct steady__bucket *buckets, bool *success, unsigned *stepped) {
    size_t count = 0;
    const int64_t *values = lua_server_reply(server, &count);
    if ((count != 2 + n && count != 2 + 3 * n) || values[0] < 0 || values[1] != now) return false;
    *success = values[0] % 2 == 1;
    *stepped = (unsigned)(values[0] / 2);
    bool rare = *stepped > 0;
    for (size_t i = 0; i < n; i++) {
        const struct steady__rate *rate = rates[i];
        const int64_t *v = &values[2 + (count == 2 + n ? i : 3 * i)];
        int64_t level = v[0], phase = 0, blocked_for = 0;
        if (count == 2 + n) {
            level = v[0] / rate->recharge + (v[0] % rate->recharge != 0);
            phase = level * rate->recharge - v[0];
        } else {
            phase = v[1];
            blocked_for = v[2];
        }
        if (level < 0 || level > (STEADY__EXACT - 1) / rate->recharge || phase <= -rate->drops ||
            phase >= rate->recharge || (level == 0 && phase != 0) || blocked_for < 0 || blocked_for >= STEADY__EXACT)
            return false;
        rare = rare || phase < 0 || blocked_for > 0;
        buckets[i] = steady__bucket_at(rate, now, level, phase, blocked_for);
    }
    return rare == (count == 2 + 3 * n) && *stepped <= n;
}

bool lua_parts_decide(struct lua_server *server, const struct steady__part *parts, size_t n,
                      const struct steady__how *how, int64_t now, struct steady__part_decision *each,
                      struct steady__verdict *verdict, unsigned *stepped) {
    struct lua_argument argv[1 + STEADY__PARTS_MAX];
    const struct steady__rate *rates[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    bool success = false;
    argv[0].len =
        (size_t)snprintf(argv[0].bytes, sizeof argv[0].bytes, "%" PRId64 " %" PRId64, how->max_wait, how->at_least);
    for (size_t i = 0; i < n; i++) {
        rates[i] = parts[i].rate;
        argv[1 + i].len = packed_shortest(argv[1 + i].bytes, rates[i], parts[i].amount, parts[i].kind, true);
    }
    if (lua_parts_run(server, how->peek ? STEADY__PEEK_ALL : STEADY__CONSUME_ALL, n, 1 + n, argv, now) != 0)
        return false;
    if (!read_reply(server, rates, n, now, buckets, &success, stepped)) return false;
    steady__parts_decide(parts, n, how, now, buckets, each, verdict);
    return verdict->success == success;
}

bool lua_parts_settle(struct lua_server *server, const struct steady__settlement *settlements, size_t n, int64_t now,
                      struct steady__settled *settled, unsigned *stepped) {
    struct lua_argument argv[STEADY__PARTS_MAX];
    const struct steady__rate *rates[STEADY__PARTS_MAX];
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    bool success = false;
    for (size_t i = 0; i < n; i++) {
        const struct steady__settlement *s = &settlements[i];
        rates[i] = s->rate;
        argv[i].len = (size_t)snprintf(argv[i].bytes, sizeof argv[0].bytes,
                                       "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %d",
                                       s->rate->capacity, s->rate->recharge, s->rate->drops, s->reserved, s->moment,
                                       s->actual, s->same_rate);
    }
    if (lua_parts_run(server, STEADY__SETTLE, n, n, argv, now) != 0) return false;
    if (!read_reply(server, rates, n, now, buckets, &success, stepped)) return false;
    for (size_t i = 0; i < n; i++)
        steady__settle(&settlements[i], now, &buckets[i], &settled[i]);
    return success;
}
