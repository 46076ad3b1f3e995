/* SPDX-License-Identifier: MIT
 * The commands on several keys: they read the arguments and send the reply.
 *
 *     STEADY.CONSUMEALL numkeys key [key ...] [WAIT us] [ATLEAST n]
 *         PART max_capacity drop_recharge [DROPS n] [BLOCK us] [AMOUNT n] [KIND take|look|charge|shadow] [PART ...]
 *     STEADY.PEEKALL    the same
 *     STEADY.SETTLE     numkeys key [key ...]
 *         PART max_capacity drop_recharge [DROPS n] RESERVED n MOMENT us ACTUAL n [OTHERRATE] [PART ...]
 *     STEADY.RESET      key [key ...]
 *
 * Each key has one PART, in the order of the keys. Errors count parts from 0, as the reply does. */
#include "commands.h"
#include "decide.h"
#include "parts_arguments.h"
#include "reply.h"

#define KEYS_MAX STEADY__KEYS_MAX

/* Redis 7.0 routes commands in a cluster by these positions, and not by key specs. An invalid numkeys has no keys: then
 * the command itself replies with the error. */
static bool all_tells_keys(server_context *context, server_string **argv, int argc, int flags) {
    long long n = 0;
    if (!steady__server.IsKeysPositionRequest(context)) return false;
    if (steady__server.StringToLongLong(argv[1], &n) != SERVER_OK || n > argc - 2) return true;
    for (int i = 0; i < n; i++)
        steady__server.KeyAtPosWithFlags(context, 2 + i, flags);
    return true;
}

/* ---- The commands ---- */

/* success part wait retry_after now, then of each part: success granted level until_next_drop blocked_for retry_after
 */
static int all_reply_verdict(server_context *context, const struct steady__part_decision *each, size_t n,
                             const struct steady__verdict *verdict, int64_t now) {
    int64_t values[5 + 6 * KEYS_MAX], *at = values;
    *at++ = verdict->success;
    *at++ = (int64_t)verdict->part;
    *at++ = verdict->wait;
    *at++ = verdict->retry_after;
    *at++ = now;
    for (size_t i = 0; i < n; i++) {
        const struct steady__decision *d = &each[i].bucket;
        *at++ = d->success;
        *at++ = each[i].granted;
        *at++ = d->level;
        *at++ = d->until_next_drop;
        *at++ = d->blocked_for;
        *at++ = d->retry_after;
    }
    return steady__reply_integers(context, values, (size_t)(at - values));
}

static int all_decide(server_context *context, bool peek, server_string **argv, int argc) {
    const int flags = KEY_ACCESSED | (peek ? KEY_READ_ONLY : KEY_READ_WRITE | KEY_UPDATED);
    struct steady__parts_request request;
    struct steady__part_decision each[KEYS_MAX];
    struct steady__verdict verdict;
    int64_t now = 0;
    steady_message why;
    if (all_tells_keys(context, argv, argc, flags)) return SERVER_OK;
    if (!steady__arguments_request(&request, peek, argv, argc, &why)) return steady__reply_error(context, &why);
    if (!steady__decide_parts(context, argv + 2, request.parts, request.n, &request.how, each, &verdict, &now))
        return steady__reply_not_a_bucket(context);
    return all_reply_verdict(context, each, request.n, &verdict, now);
}

int steady__command_consume_all(server_context *context, server_string **argv, int argc) {
    return all_decide(context, false, argv, argc);
}

int steady__command_peek_all(server_context *context, server_string **argv, int argc) {
    return all_decide(context, true, argv, argc);
}

/* now, then of each part: level until_next_drop blocked_for given_back charged */
int steady__command_settle(server_context *context, server_string **argv, int argc) {
    struct steady__rate rates[KEYS_MAX];
    struct steady__settlement settlements[KEYS_MAX];
    struct steady__settled settled[KEYS_MAX];
    int64_t n = 0, values[1 + 5 * KEYS_MAX], *at = values;
    steady_message why;
    if (all_tells_keys(context, argv, argc, KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED)) return SERVER_OK;
    if (!steady__arguments_settlements(rates, settlements, &n, argv, argc, &why))
        return steady__reply_error(context, &why);
    if (!steady__decide_settle(context, argv + 2, settlements, (size_t)n, settled, at++))
        return steady__reply_not_a_bucket(context);
    for (int64_t i = 0; i < n; i++) {
        *at++ = settled[i].bucket.level;
        *at++ = settled[i].bucket.until_next_drop;
        *at++ = settled[i].bucket.blocked_for;
        *at++ = settled[i].given_back;
        *at++ = settled[i].charged;
    }
    return steady__reply_integers(context, values, (size_t)(at - values));
}

int steady__command_reset(server_context *context, server_string **argv, int argc) {
    const size_t n = (size_t)argc - 1; /* the server has checked that it is 1 or more */
    size_t existed = 0;
    steady_message why;
    if (!steady__arguments_reset(argv, n, &why)) return steady__reply_error(context, &why);
    if (!steady__decide_reset(context, argv + 1, n, &existed)) return steady__reply_not_a_bucket(context);
    return steady__server.ReplyWithLongLong(context, (long long)existed);
}
