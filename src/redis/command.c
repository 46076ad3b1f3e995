/* SPDX-License-Identifier: MIT
 * The commands of a decision, and their replies. */
#include "redis/command.h"

#include <stdio.h>
#include <string.h>

#include "conn/resp.h"
#include "scripts.h" /* made from lua/ by the build */

const struct steady__script steady__scripts[STEADY__VERBS] = {
    [STEADY__CONSUME] = {consume_lua, sizeof consume_lua - 1, STEADY__CONSUME_SHA1},
    [STEADY__PEEK] = {peek_lua, sizeof peek_lua - 1, STEADY__PEEK_SHA1},
    [STEADY__RESET] = {reset_lua, sizeof reset_lua - 1, STEADY__RESET_SHA1},
    [STEADY__CONSUME_ALL] = {consume_all_lua, sizeof consume_all_lua - 1, STEADY__CONSUME_ALL_SHA1},
    [STEADY__PEEK_ALL] = {peek_all_lua, sizeof peek_all_lua - 1, STEADY__PEEK_ALL_SHA1},
    [STEADY__SETTLE] = {settle_lua, sizeof settle_lua - 1, STEADY__SETTLE_SHA1},
    [STEADY__RESET_ALL] = {reset_all_lua, sizeof reset_all_lua - 1, STEADY__RESET_ALL_SHA1},
};

/* ---- Commands ---- */

/* The encoded limit is "<capacity> <recharge> ", a NUL, and the second argument as a bulk if the limit needs one. A
 * command puts its amount in the place of the NUL. */
void steady__command_encode_limit(struct steady__terms *terms) {
    const struct steady__rate *rate = &terms->rate;
    char *end = steady__resp_put_number(terms->encoded, rate->capacity);
    *end++ = ' ';
    end = steady__resp_put_number(end, rate->recharge);
    *end++ = ' ';
    *end++ = '\0';
    if (rate->drops != 1 || rate->block != 0) {
        char second[48];
        char *second_end = steady__resp_put_number(second, rate->drops);
        *second_end++ = ' ';
        second_end = steady__resp_put_number(second_end, rate->block);
        end = steady__resp_put_bulk(end, second, (size_t)(second_end - second));
    }
    terms->encoded_len = (size_t)(end - terms->encoded);
}

static char *command_put_arguments(char *out, const struct steady__call *call) {
    const struct steady__terms *terms = call->terms;
    const size_t first_len = strlen(terms->encoded);
    char argument[80];
    char *end = steady__resp_put(argument, terms->encoded, first_len);
    end = steady__resp_put_number(end, call->amount);
    out = steady__resp_put_bulk(out, call->key, call->key_len);
    out = steady__resp_put_bulk(out, argument, (size_t)(end - argument));
    return steady__resp_put(out, terms->encoded + first_len + 1, terms->encoded_len - first_len - 1);
}

static size_t command_put_command(char *out, const struct steady__call *call, const char *name, const char *what,
                                  size_t what_len) {
    const bool second = call->terms->encoded_len > strlen(call->terms->encoded) + 1;
    char *end = steady__resp_put(out, second ? "*6\r\n" : "*5\r\n", 4);
    end = steady__resp_put_bulk(end, name, strlen(name));
    end = steady__resp_put_bulk(end, what, what_len);
    end = steady__resp_put(end, "$1\r\n1\r\n", 7);
    return (size_t)(command_put_arguments(end, call) - out);
}

size_t steady__command_evalsha(char *out, const struct steady__call *call) {
    return command_put_command(out, call, "EVALSHA", steady__scripts[call->verb].sha1, 40);
}

size_t steady__command_eval(char *out, const struct steady__call *call) {
    const struct steady__script *script = &steady__scripts[call->verb];
    return command_put_command(out, call, "EVAL", script->text, script->text_len);
}

size_t steady__command_script_load(char *out, enum steady__verb verb) {
    char *end = steady__resp_put(out, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n", 26);
    return (size_t)(steady__resp_put_bulk(end, steady__scripts[verb].text, steady__scripts[verb].text_len) - out);
}

static char *command_put_option(char *out, const char *name, int64_t value) {
    return steady__resp_put_integer(steady__resp_put_bulk(out, name, strlen(name)), value);
}

/* name key max_capacity drop_recharge [DROPS n] [BLOCK us] [AMOUNT n]. A reset has no limit, and a peek no block. */
size_t steady__command_module(char *out, const struct steady__call *call) {
    static const char *const names[3] = {
        [STEADY__CONSUME] = "STEADY.CONSUME", [STEADY__PEEK] = "STEADY.PEEK", [STEADY__RESET] = "STEADY.RESET"};
    const struct steady__rate *rate = &call->terms->rate;
    const bool limit = call->verb != STEADY__RESET, consume = call->verb == STEADY__CONSUME;
    const bool drops = limit && rate->drops != 1, block = consume && rate->block != 0;
    const bool amount = consume && call->amount != 1;
    char *end = steady__resp_put(out, "*", 1);
    end = steady__resp_put_number(end, 2 + 2 * (limit + drops + block + amount));
    end = steady__resp_put(end, "\r\n", 2);
    end = steady__resp_put_bulk(end, names[call->verb], strlen(names[call->verb]));
    end = steady__resp_put_bulk(end, call->key, call->key_len);
    if (limit) end = steady__resp_put_integer(steady__resp_put_integer(end, rate->capacity), rate->recharge);
    if (drops) end = command_put_option(end, "DROPS", rate->drops);
    if (block) end = command_put_option(end, "BLOCK", rate->block);
    if (amount) end = command_put_option(end, "AMOUNT", call->amount);
    return (size_t)(end - out);
}

/* ---- Replies ---- */

/* lua/report.lua defines the values. */
bool steady__command_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result, bool *stepped) {
    const struct steady__rate *rate = &call->terms->rate;
    struct steady__decision d = {0};
    int64_t level, phase, blocked_for = 0;
    if (count == 1) {
        d.success = values[0] >= 0;
        const int64_t content = d.success ? values[0] : -1 - values[0];
        if (content >= STEADY__EXACT) return false;
        level = content / rate->recharge + (content % rate->recharge != 0);
        phase = level * rate->recharge - content;
    } else if (count == 4) {
        d.success = values[0] & 1;
        d.stepped = values[0] & 2;
        level = values[1];
        phase = values[2];
        blocked_for = values[3];
        if (values[0] < 0 || values[0] > 3 || level < 0 || level > (STEADY__EXACT - 1) / rate->recharge ||
            phase <= -rate->drops || phase >= rate->recharge || blocked_for < 0 || blocked_for >= STEADY__EXACT)
            return false;
    } else {
        return false;
    }
    steady__bucket_report(&d, rate, level, phase, blocked_for, call->verb == STEADY__PEEK ? 1 : call->amount);
    *stepped = d.stepped;
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = d.success,
                              .level = d.level,
                              .until_next_drop = d.until_next_drop,
                              .blocked_for = d.blocked_for,
                              .retry_after = d.retry_after};
    return true;
}

/* The reply says whether there was a bucket. Now there is none. */
static bool command_reset_reply(const struct steady__call *call, int64_t existed, steady_result *result) {
    struct steady__decision d = {.success = true};
    steady__bucket_report(&d, &call->terms->rate, 0, 0, 0, 1);
    *result = (steady_result){
        .source = STEADY_FROM_STORE, .success = true, .until_next_drop = d.until_next_drop, .level = d.level};
    return existed == 0 || existed == 1;
}

/* success level until_next_drop blocked_for retry_after */
bool steady__command_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result) {
    if (call->verb == STEADY__RESET) return count == 1 && command_reset_reply(call, values[0], result);
    if (count != 5 || (values[0] != 0 && values[0] != 1)) return false;
    for (size_t i = 1; i < count; i++)
        if (values[i] < (i == 4 ? -1 : 0) || values[i] >= STEADY__EXACT) return false;
    if (values[2] == 0 || (values[0] == 1) != (values[4] == 0)) return false;
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = values[0] == 1,
                              .level = values[1],
                              .until_next_drop = values[2],
                              .blocked_for = values[3],
                              .retry_after = values[4]};
    return true;
}
