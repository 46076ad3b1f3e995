/* SPDX-License-Identifier: MIT
 * The commands on one key: they read the arguments and send the reply. */
#include "commands.h"

#include "arguments.h"
#include "decide.h"
#include "reply.h"

static int commands_reply_decision(server_context *context, const struct steady__decision *d) {
    const struct server_functions *s = &steady__server;
    s->ReplyWithArray(context, 5);
    s->ReplyWithLongLong(context, d->success);
    s->ReplyWithLongLong(context, d->level);
    s->ReplyWithLongLong(context, d->until_next_drop);
    s->ReplyWithLongLong(context, d->blocked_for);
    return s->ReplyWithLongLong(context, d->retry_after);
}

/* ---- STEADY.* ---- */

#define WITH_OPTIONS (STEADY__BIT(STEADY__WAIT) | STEADY__BIT(STEADY__ATLEAST))

/* key max_capacity drop_recharge [options] */
static bool commands_read_limit(struct steady__rate *rate, struct steady__options *options, unsigned allowed,
                                server_string **argv, int argc, steady_message *why) {
    struct steady__arguments arguments = {argv + 2, argv + argc};
    return steady__arguments_limit(&arguments, allowed, options, rate, why) &&
           steady__arguments_end(&arguments, allowed, why);
}

/* With WAIT or ATLEAST: a decision on one part. */
static int commands_consume_part(server_context *context, server_string **argv, const struct steady__rate *rate,
                                 const struct steady__options *options) {
    const struct steady__part part = {.rate = rate, .amount = options->values[STEADY__AMOUNT]};
    const struct steady__how how = {.max_wait = options->values[STEADY__WAIT],
                                    .at_least = options->values[STEADY__ATLEAST]};
    struct steady__part_decision each;
    struct steady__verdict verdict;
    int64_t now = 0;
    steady_message why;
    if (how.at_least > 0 && !steady__arguments_at_least(how.at_least, &part, 1, &why))
        return steady__reply_error(context, &why);
    if (!steady__decide_parts(context, argv + 1, &part, 1, &how, &each, &verdict, &now))
        return steady__reply_not_a_bucket(context);
    const struct steady__decision *d = &each.bucket;
    const int64_t values[] = {d->success,     d->level,     d->until_next_drop, d->blocked_for,
                              d->retry_after, verdict.wait, each.granted};
    return steady__reply_integers(context, values, 7);
}

static int commands_consume(server_context *context, server_string *name, const struct steady__rate *rate,
                            int64_t amount) {
    struct steady__decision d;
    if (!steady__decide_consume(context, name, rate, amount, &d)) return steady__reply_not_a_bucket(context);
    return commands_reply_decision(context, &d);
}

static int commands_consume_with_options(server_context *context, server_string **argv, int argc) {
    static const unsigned allowed =
        WITH_OPTIONS | STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__BLOCK) | STEADY__BIT(STEADY__AMOUNT);
    struct steady__rate rate;
    struct steady__options options;
    steady_message why;
    if (!commands_read_limit(&rate, &options, allowed, argv, argc, &why)) return steady__reply_error(context, &why);
    if ((options.given & WITH_OPTIONS) != 0) return commands_consume_part(context, argv, &rate, &options);
    return commands_consume(context, argv[1], &rate, options.values[STEADY__AMOUNT]);
}

/* The limit alone is the most frequent form. It takes a shorter path. */
int steady__command_consume(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate;
    if (argc == 4 && steady__arguments_plain_limit(&rate, argv)) return commands_consume(context, argv[1], &rate, 1);
    return commands_consume_with_options(context, argv, argc);
}

int steady__command_peek(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate;
    struct steady__options options;
    struct steady__decision d;
    steady_message why;
    if ((argc != 4 || !steady__arguments_plain_limit(&rate, argv)) &&
        !commands_read_limit(&rate, &options, STEADY__BIT(STEADY__DROPS), argv, argc, &why))
        return steady__reply_error(context, &why);
    if (!steady__decide_peek(context, argv[1], &rate, &d)) return steady__reply_not_a_bucket(context);
    return commands_reply_decision(context, &d);
}

/* ---- CL.THROTTLE, as in redis-cell ---- */

static int64_t commands_ceil_seconds(int64_t us) { return us / 1000000 + (us % 1000000 != 0); }

int steady__command_throttle(server_context *context, server_string **argv, int argc) {
    struct steady__rate rate = {0};
    struct steady__decision d;
    steady_message why;
    int64_t quantity = 1;
    if (argc > 6)
        return steady__server.ReplyWithError(context, "ERR wrong number of arguments for 'cl.throttle' command");
    if (!steady__arguments_throttle(&rate, &quantity, argv, argc, &why)) return steady__reply_error(context, &why);
    if (!steady__decide_consume(context, argv[1], &rate, quantity, &d)) return steady__reply_not_a_bucket(context);
    const int64_t remaining = d.level < rate.capacity ? rate.capacity - d.level : 0;
    const int64_t retry_after_s = d.retry_after > 0 ? commands_ceil_seconds(d.retry_after) : -1;
    const int64_t values[] = {!d.success, rate.capacity, remaining, retry_after_s, commands_ceil_seconds(d.busy_for)};
    return steady__reply_integers(context, values, 5);
}
