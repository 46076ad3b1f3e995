/* SPDX-License-Identifier: MIT
 * The Lua scripts, the commands that call them and what their replies mean. */
#include "script.h"

#include <stdio.h>
#include <string.h>

#include "scripts.h" /* made from lua/ by the build */

const struct steady__script steady__scripts[3] = {
    [STEADY__CONSUME] = {consume_lua, sizeof consume_lua - 1, STEADY__CONSUME_SHA1},
    [STEADY__PEEK] = {peek_lua, sizeof peek_lua - 1, STEADY__PEEK_SHA1},
    [STEADY__RESET] = {reset_lua, sizeof reset_lua - 1, STEADY__RESET_SHA1},
};

/* ---- Commands ---- */

/* Decimal digits; no locale, and much quicker than printf. Returns the end. */
static char *put_number(char *out, int64_t number) {
    char digits[20];
    size_t n = 0;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    if (number < 0) *out++ = '-';
    do
        digits[n++] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

static char *put(char *out, const char *bytes, size_t len) {
    memcpy(out, bytes, len);
    return out + len;
}

static char *put_bulk(char *out, const char *bytes, size_t len) {
    *out++ = '$';
    out = put_number(out, (int64_t)len);
    out = put(out, "\r\n", 2);
    out = put(out, bytes, len);
    return put(out, "\r\n", 2);
}

/* The wire form is "<capacity> <recharge> ", to which a command adds its amount, then a NUL, then what follows the
 * amount: the second argument, as a bulk, where the limit needs one. */
void steady__script_terms(struct steady__terms *terms) {
    const struct steady__rate *rate = &terms->rate;
    char *end = put_number(terms->wire, rate->capacity);
    *end++ = ' ';
    end = put_number(end, rate->recharge);
    *end++ = ' ';
    *end++ = '\0';
    if (rate->drops != 1 || rate->block != 0) {
        char second[48];
        char *second_end = put_number(second, rate->drops);
        *second_end++ = ' ';
        second_end = put_number(second_end, rate->block);
        end = put_bulk(end, second, (size_t)(second_end - second));
    }
    terms->wire_len = (size_t)(end - terms->wire);
}

static char *put_arguments(char *out, const struct steady__call *call) {
    const struct steady__terms *terms = call->terms;
    const size_t first_len = strlen(terms->wire);
    char argument[80];
    char *end = put(argument, terms->wire, first_len);
    end = put_number(end, call->amount);
    out = put_bulk(out, call->key, call->key_len);
    out = put_bulk(out, argument, (size_t)(end - argument));
    return put(out, terms->wire + first_len + 1, terms->wire_len - first_len - 1);
}

static size_t put_command(char *out, const struct steady__call *call, const char *name, const char *what,
                          size_t what_len) {
    const bool second = call->terms->wire_len > strlen(call->terms->wire) + 1;
    char *end = put(out, second ? "*6\r\n" : "*5\r\n", 4);
    end = put_bulk(end, name, strlen(name));
    end = put_bulk(end, what, what_len);
    end = put(end, "$1\r\n1\r\n", 7);
    return (size_t)(put_arguments(end, call) - out);
}

size_t steady__script_command(char *out, const struct steady__call *call) {
    return put_command(out, call, "EVALSHA", steady__scripts[call->verb].sha1, 40);
}

size_t steady__script_eval(char *out, const struct steady__call *call) {
    const struct steady__script *script = &steady__scripts[call->verb];
    return put_command(out, call, "EVAL", script->text, script->text_len);
}

size_t steady__script_load(char *out, enum steady__verb verb) {
    char *end = put(out, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n", 26);
    return (size_t)(put_bulk(end, steady__scripts[verb].text, steady__scripts[verb].text_len) - out);
}

/* ---- Replies ---- */

/* lua/report.lua says what the values are. */
bool steady__script_reply(const struct steady__call *call, const int64_t *values, size_t count, steady_result *result,
                          bool *stepped) {
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

/* ---- Refusals ---- */

static bool has(const char *text, size_t len, const char *part) {
    return memmem(text, len, part, strlen(part)) != NULL;
}

enum steady__refusal steady__script_refusal(const char *error, size_t len) {
    static const struct {
        const char *word;
        enum steady__refusal refusal;
    } words[] = {
        {"NOSCRIPT", STEADY__REFUSAL_NOSCRIPT}, {"NOTABUCKET", STEADY__REFUSAL_DATA},
        {"WRONGTYPE", STEADY__REFUSAL_DATA},    {"READONLY", STEADY__REFUSAL_READONLY},
        {"MOVED", STEADY__REFUSAL_MOVED},       {"ASK", STEADY__REFUSAL_MOVED},
        {"LOADING", STEADY__REFUSAL_WAIT},      {"BUSY", STEADY__REFUSAL_WAIT},
        {"OOM", STEADY__REFUSAL_WAIT},          {"MISCONF", STEADY__REFUSAL_WAIT},
        {"NOREPLICAS", STEADY__REFUSAL_WAIT},   {"MASTERDOWN", STEADY__REFUSAL_WAIT},
        {"CLUSTERDOWN", STEADY__REFUSAL_WAIT},  {"TRYAGAIN", STEADY__REFUSAL_WAIT},
        {"NOAUTH", STEADY__REFUSAL_AUTH},       {"WRONGPASS", STEADY__REFUSAL_AUTH},
        {"NOPERM", STEADY__REFUSAL_AUTH},
    };
    const char *space = memchr(error, ' ', len);
    const size_t word_len = space != NULL ? (size_t)(space - error) : len;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i].word) == word_len && memcmp(words[i].word, error, word_len) == 0) return words[i].refusal;
    if (has(error, len, "max number of clients reached")) return STEADY__REFUSAL_CLIENTS;
    if (has(error, len, "script can't run this command") || has(error, len, "ACL failure in script"))
        return STEADY__REFUSAL_AUTH;
    return STEADY__REFUSAL_OTHER;
}

int steady__refusal_error(enum steady__refusal refusal) {
    switch (refusal) {
    case STEADY__REFUSAL_AUTH: return STEADY_REFUSED;
    case STEADY__REFUSAL_DATA: return STEADY_NOT_A_BUCKET;
    case STEADY__REFUSAL_OTHER: return STEADY_SERVER;
    default: return STEADY_UNAVAILABLE;
    }
}
