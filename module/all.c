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
#include <inttypes.h>
#include <string.h>

#include "arguments.h"
#include "commands.h"
#include "core/error.h"
#include "decide.h"
#include "reply.h"

#define KEYS_MAX STEADY__PARTS_MAX

/* ---- Keys ---- */

/* Compares lengths and last bytes first, because keys often begin alike. */
static bool all_keys_differ(server_string **keys, size_t n, const char *what, steady_message *why) {
    struct {
        const char *text;
        size_t len;
        uint64_t end;
    } seen[KEYS_MAX];
    for (size_t i = 0; i < n; i++) {
        seen[i].end = 0;
        seen[i].text = steady__server.StringPtrLen(keys[i], &seen[i].len);
        const size_t of_end = seen[i].len < sizeof seen[i].end ? seen[i].len : sizeof seen[i].end;
        memcpy(&seen[i].end, seen[i].text + seen[i].len - of_end, of_end);
        for (size_t j = 0; j < i; j++)
            if (seen[j].end == seen[i].end && seen[j].len == seen[i].len &&
                memcmp(seen[j].text, seen[i].text, seen[i].len) == 0)
                return steady__fail(why, false, "%s %zu and %zu have the same key", what, j, i);
    }
    return true;
}

/* Reads numkeys and the keys, which are argv[2] and so on. */
static bool all_read_keys(struct steady__arguments *a, int64_t *n, server_string **argv, int argc,
                          steady_message *why) {
    const int rest = argc - 2;
    if (!steady__arguments_integer(n, argv[1], "numkeys", 1, KEYS_MAX, why)) return false;
    if (*n > rest)
        return steady__fail(why, false, "numkeys is %" PRId64 ", but only %d arguments come after it", *n, rest);
    *a = (struct steady__arguments){argv + 2 + *n, argv + argc};
    return all_keys_differ(argv + 2, (size_t)*n, "parts", why);
}

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

/* ---- PARTs ---- */

static bool all_fail_in_part(size_t part, steady_message *why) {
    const steady_message what = *why;
    return steady__fail(why, false, "part %zu: %s", part, what.text);
}

/* Often the word is a key that numkeys leaves out. */
static bool all_fail_after_keys(size_t n, steady_message *why) {
    const steady_message what = *why;
    return steady__fail(why, false, "numkeys is %zu: %s", n, what.text);
}

/* The options of a command. */
struct words {
    unsigned first, part; /* before the first PART, and in each PART */
};

static const struct words all_words = {STEADY__BIT(STEADY__WAIT) | STEADY__BIT(STEADY__ATLEAST),
                                       STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__BLOCK) |
                                           STEADY__BIT(STEADY__AMOUNT) | STEADY__BIT(STEADY__KIND)};

enum { SETTLE_NEEDS = STEADY__BIT(STEADY__RESERVED) | STEADY__BIT(STEADY__MOMENT) | STEADY__BIT(STEADY__ACTUAL) };
static const struct words settle_words = {0,
                                          SETTLE_NEEDS | STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__OTHERRATE)};

/* Whether there is another PART, and its key. If not, *why is empty after the last part of a right call. */
static bool all_next_part(struct steady__arguments *a, size_t part, size_t n, const struct words *words,
                          steady_message *why) {
    why->text[0] = '\0';
    if (a->at == a->end) {
        if (part < n) steady__fail(why, false, "syntax error: %zu keys, but %zu PARTs", n, part);
        return false;
    }
    if (!steady__arguments_word(a, "PART", 4)) {
        steady__arguments_refuse(a, STEADY__BIT(STEADY__PART) | (part == 0 ? words->first : words->part), why);
        return part == 0 ? all_fail_after_keys(n, why) : all_fail_in_part(part - 1, why);
    }
    if (part == n) return steady__fail(why, false, "syntax error: %zu keys, but more PARTs", n);
    return true;
}

/* What CONSUMEALL and PEEKALL are asked. */
struct request {
    size_t n;
    struct steady__how how;
    struct steady__rate rates[KEYS_MAX];
    struct steady__part parts[KEYS_MAX];
};

static bool all_read_part(struct steady__arguments *a, struct steady__rate *rate, struct steady__part *part,
                          steady_message *why) {
    struct steady__options options;
    if (!steady__arguments_limit(a, all_words.part, &options, rate, why)) return false;
    const int64_t amount = options.values[STEADY__AMOUNT];
    *part = (struct steady__part){rate, amount, (enum steady__kind)options.values[STEADY__KIND]};
    return amount >= 0 || part->kind == STEADY__TAKE ||
           steady__fail(why, false, "amount is %" PRId64 "; it must be 0 .. %d for kind %s", amount, STEADY__AMOUNT_MAX,
                        steady__kind_name(part->kind));
}

static bool all_read_how(struct steady__arguments *a, struct steady__how *how, bool peek, steady_message *why) {
    struct steady__options options = {0};
    if (!steady__arguments_options(a, all_words.first, &options, why)) return false;
    *how = (struct steady__how){options.values[STEADY__WAIT], options.values[STEADY__ATLEAST], peek};
    return true;
}

static bool all_read_request(struct request *request, bool peek, server_string **argv, int argc, steady_message *why) {
    struct steady__arguments a = {NULL, NULL};
    int64_t n = 0;
    size_t i = 0;
    if (!all_read_keys(&a, &n, argv, argc, why) || !all_read_how(&a, &request->how, peek, why)) return false;
    request->n = (size_t)n;
    for (; all_next_part(&a, i, request->n, &all_words, why); i++)
        if (!all_read_part(&a, &request->rates[i], &request->parts[i], why)) return all_fail_in_part(i, why);
    return why->text[0] == '\0' && (request->how.at_least == 0 ||
                                    steady__arguments_at_least(request->how.at_least, request->parts, request->n, why));
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
    struct request request;
    struct steady__part_decision each[KEYS_MAX];
    struct steady__verdict verdict;
    int64_t now = 0;
    steady_message why;
    if (all_tells_keys(context, argv, argc, flags)) return SERVER_OK;
    if (!all_read_request(&request, peek, argv, argc, &why)) return steady__reply_error(context, &why);
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

static bool all_read_settlement(struct steady__arguments *a, struct steady__rate *rate,
                                struct steady__settlement *settlement, steady_message *why) {
    struct steady__options options;
    if (!steady__arguments_limit(a, settle_words.part, &options, rate, why)) return false;
    if ((options.given & SETTLE_NEEDS) != SETTLE_NEEDS)
        return steady__fail(why, false, "syntax error: RESERVED, MOMENT and ACTUAL are needed");
    const int64_t *values = options.values, actual = values[STEADY__ACTUAL];
    *settlement = (struct steady__settlement){.rate = rate,
                                              .same_rate = values[STEADY__OTHERRATE] == 0,
                                              .reserved = values[STEADY__RESERVED],
                                              .moment = values[STEADY__MOMENT],
                                              .actual = actual < STEADY__AMOUNT_MAX ? actual : STEADY__AMOUNT_MAX};
    return true;
}

static bool all_read_settlements(struct steady__rate *rates, struct steady__settlement *settlements, int64_t *n,
                                 server_string **argv, int argc, steady_message *why) {
    struct steady__arguments a = {NULL, NULL};
    if (!all_read_keys(&a, n, argv, argc, why)) return false;
    for (size_t i = 0; all_next_part(&a, i, (size_t)*n, &settle_words, why); i++)
        if (!all_read_settlement(&a, &rates[i], &settlements[i], why)) return all_fail_in_part(i, why);
    return why->text[0] == '\0';
}

/* now, then of each part: level until_next_drop blocked_for given_back charged */
int steady__command_settle(server_context *context, server_string **argv, int argc) {
    struct steady__rate rates[KEYS_MAX];
    struct steady__settlement settlements[KEYS_MAX];
    struct steady__settled settled[KEYS_MAX];
    int64_t n = 0, values[1 + 5 * KEYS_MAX], *at = values;
    steady_message why;
    if (all_tells_keys(context, argv, argc, KEY_READ_WRITE | KEY_ACCESSED | KEY_UPDATED)) return SERVER_OK;
    if (!all_read_settlements(rates, settlements, &n, argv, argc, &why)) return steady__reply_error(context, &why);
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
    if (n > KEYS_MAX) {
        steady__fail(&why, false, "%zu keys; there must be 1 .. %d", n, KEYS_MAX);
        return steady__reply_error(context, &why);
    }
    if (!all_keys_differ(argv + 1, n, "keys", &why)) return steady__reply_error(context, &why);
    if (!steady__decide_reset(context, argv + 1, n, &existed)) return steady__reply_not_a_bucket(context);
    return steady__server.ReplyWithLongLong(context, (long long)existed);
}
