/* SPDX-License-Identifier: MIT
 * The commands: they read the arguments and send the reply. */
#include "commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/error.h"
#include "core/limit.h"
#include "decide.h"

#define AMOUNT_MAX INT32_MAX

static int commands_reply_error(server_context *context, const steady_message *why) {
    char text[sizeof why->text + 4];
    snprintf(text, sizeof text, "ERR %s", why->text);
    return steady__server.ReplyWithError(context, text);
}

static int commands_reply_not_a_bucket(server_context *context) {
    return steady__server.ReplyWithError(context, "NOTABUCKET the key holds something else");
}

static int commands_reply_integers(server_context *context, const int64_t *values, int count) {
    steady__server.ReplyWithArray(context, count);
    for (int i = 0; i < count; i++)
        steady__server.ReplyWithLongLong(context, values[i]);
    return SERVER_OK;
}

static int commands_reply_decision(server_context *context, const struct steady__decision *d) {
    const int64_t values[] = {d->success, d->level, d->until_next_drop, d->blocked_for, d->retry_after};
    return commands_reply_integers(context, values, 5);
}

/* ---- Arguments ---- */

/* An argument may hold NULs, which become "?". An argument longer than any valid one becomes "...". */
static void commands_quote(char *quoted, size_t size, const server_string *argument) {
    char text[256] = "...";
    size_t len = 0;
    const char *bytes = steady__server.StringPtrLen(argument, &len);
    for (size_t i = 0; len < sizeof text && i <= len; i++)
        text[i] = (char)(i == len ? '\0' : bytes[i] != '\0' ? bytes[i] : '?');
    steady_quote(quoted, size, text);
}

static bool commands_read_integer(int64_t *value, const server_string *argument, const char *name, int64_t min,
                                  int64_t max, steady_message *why) {
    long long n = 0;
    if (steady__server.StringToLongLong(argument, &n) != SERVER_OK) {
        char quoted[48];
        commands_quote(quoted, sizeof quoted, argument);
        return steady__fail(why, false, "%s is \"%s\"; it must be an integer", name, quoted);
    }
    if (n < min || n > max)
        return steady__fail(why, false, "%s is %lld; it must be %" PRId64 " .. %" PRId64, name, n, min, max);
    *value = n;
    return true;
}

struct option {
    const char *name;  /* in the command */
    const char *field; /* in error texts */
    int64_t min, max;
    int64_t *value;
    bool given;
};

static struct option *commands_find_option(struct option *options, size_t count, const server_string *argument) {
    size_t len = 0;
    const char *text = steady__server.StringPtrLen(argument, &len);
    for (size_t i = 0; i < count; i++)
        if (strnlen(options[i].name, len + 1) == len && strncasecmp(options[i].name, text, len) == 0)
            return &options[i];
    return NULL;
}

static bool commands_read_options(struct option *options, size_t count, server_string **argv, int argc,
                                  steady_message *why) {
    for (int i = 0; i < argc; i += 2) {
        struct option *option = commands_find_option(options, count, argv[i]);
        if (option == NULL || i + 1 == argc || option->given)
            return steady__fail(why, false,
                                option == NULL  ? "syntax error: no such option"
                                : option->given ? "syntax error: %s is given twice"
                                                : "syntax error: %s lacks its value",
                                option == NULL ? "" : option->name);
        option->given = true;
        if (!commands_read_integer(option->value, argv[i + 1], option->field, option->min, option->max, why))
            return false;
    }
    return true;
}

static bool commands_make_rate(struct steady__rate *rate, const steady_limit *limit, steady_message *why) {
    if (steady_limit_check(limit, why) != 0) return false;
    *rate = (struct steady__rate){limit->max_capacity, limit->drop_recharge, limit->drops, limit->block_duration};
    return true;
}

/* Reads key max_capacity drop_recharge [DROPS n]; with `amount` also [BLOCK us] [AMOUNT n]. The rate is not reduced to
 * lowest terms. The scripts do the same, and the remainder in a bucket counts 1/drops us. */
static bool commands_read_limit(struct steady__rate *rate, int64_t *amount, server_string **argv, int argc,
                                steady_message *why) {
    steady_limit limit = {.drops = 1};
    struct option options[] = {
        {"DROPS", "drops", 1, STEADY__DROPS_MAX, &limit.drops, false},
        {"BLOCK", "block_duration", 0, STEADY__BLOCK_LIMIT - 1, &limit.block_duration, false},
        {"AMOUNT", "amount", -AMOUNT_MAX, AMOUNT_MAX, amount, false},
    };
    const size_t count = amount != NULL ? 3 : 1;
    return commands_read_integer(&limit.max_capacity, argv[2], "max_capacity", 1, STEADY__CAPACITY_MAX, why) &&
           commands_read_integer(&limit.drop_recharge, argv[3], "drop_recharge", 1, STEADY__EXACT - 1, why) &&
           commands_read_options(options, count, argv + 4, argc - 4, why) && commands_make_rate(rate, &limit, why);
}

/* ---- STEADY.* ---- */

int steady__command_consume(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate;
    struct steady__decision d;
    steady_message why;
    int64_t amount = 1;
    if (!commands_read_limit(&rate, &amount, argv, argc, &why)) return commands_reply_error(context, &why);
    if (!steady__decide_consume(context, argv[1], &rate, amount, &d)) return commands_reply_not_a_bucket(context);
    return commands_reply_decision(context, &d);
}

int steady__command_peek(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate;
    struct steady__decision d;
    steady_message why;
    if (!commands_read_limit(&rate, NULL, argv, argc, &why)) return commands_reply_error(context, &why);
    if (!steady__decide_peek(context, argv[1], &rate, &d)) return commands_reply_not_a_bucket(context);
    return commands_reply_decision(context, &d);
}

int steady__command_reset(server_context *context, server_string **argv, int argc) {
    (void)argc; /* the server has checked that it is 2 */
    bool existed = false;
    if (!steady__decide_reset(context, argv[1], &existed)) return commands_reply_not_a_bucket(context);
    return steady__server.ReplyWithLongLong(context, existed);
}

/* ---- CL.THROTTLE, as in redis-cell ---- */

static int64_t commands_ceil_seconds(int64_t us) { return us / 1000000 + (us % 1000000 != 0); }

/* Reduces the rate to lowest terms before the check: 1000000 per day is 1 per 86.4 ms, which is in range. */
static bool commands_make_throttle_rate(struct steady__rate *rate, int64_t burst, int64_t count, int64_t period_s,
                                        steady_message *why) {
    const int64_t period = period_s * 1000000, factor = steady__gcd(count, period);
    const int64_t drops = count / factor, recharge = period / factor;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): recharge is at least 1: the factor divides the period */
    const int64_t burst_max = (STEADY__EXACT - 1) / recharge - 1;
    *rate = (struct steady__rate){.capacity = burst + 1, .recharge = recharge, .drops = drops};
    if (drops > STEADY__DROPS_MAX)
        return steady__fail(why, false,
                            "count is %" PRId64 "; in lowest terms with the period in us it is %" PRId64
                            ", and must be 1 .. %" PRId64,
                            count, drops, (int64_t)STEADY__DROPS_MAX);
    if (burst > burst_max)
        return steady__fail(why, false,
                            "max_burst is %" PRId64 "; with a count of %" PRId64 " and a period of %" PRId64
                            " it must be 0 .. %" PRId64,
                            burst, count, period_s, burst_max);
    return true;
}

/* key max_burst count period_s [quantity] */
static bool commands_read_throttle(struct steady__rate *rate, int64_t *quantity, server_string **argv, int argc,
                                   steady_message *why) {
    int64_t burst = 0, count = 0, period_s = 0;
    if (!commands_read_integer(&burst, argv[2], "max_burst", 0, STEADY__CAPACITY_MAX - 1, why) ||
        !commands_read_integer(&count, argv[3], "count", 1, INT32_MAX, why) ||
        !commands_read_integer(&period_s, argv[4], "period", 1, STEADY__EXACT / 1000000, why))
        return false;
    if (argc == 6 && !commands_read_integer(quantity, argv[5], "quantity", -AMOUNT_MAX, AMOUNT_MAX, why)) return false;
    return commands_make_throttle_rate(rate, burst, count, period_s, why);
}

int steady__command_throttle(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate = {0};
    struct steady__decision d;
    steady_message why;
    int64_t quantity = 1;
    if (argc > 6)
        return steady__server.ReplyWithError(context, "ERR wrong number of arguments for 'cl.throttle' command");
    if (!commands_read_throttle(&rate, &quantity, argv, argc, &why)) return commands_reply_error(context, &why);
    if (!steady__decide_consume(context, argv[1], &rate, quantity, &d)) return commands_reply_not_a_bucket(context);
    const int64_t remaining = d.level < rate.capacity ? rate.capacity - d.level : 0;
    const int64_t retry_after_s = d.retry_after > 0 ? commands_ceil_seconds(d.retry_after) : -1;
    const int64_t values[] = {!d.success, rate.capacity, remaining, retry_after_s, commands_ceil_seconds(d.busy_for)};
    return commands_reply_integers(context, values, 5);
}
