/* SPDX-License-Identifier: MIT
 * Reads the arguments of the commands. */
#include "arguments.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/limit.h"
#include "digits.h"

/* An argument may hold NULs, which become "?". An argument longer than any valid one becomes "...". */
static void arguments_quote(char *quoted, size_t size, const server_string *argument) {
    char text[256] = "...";
    size_t len = 0;
    const char *bytes = steady__server.StringPtrLen(argument, &len);
    for (size_t i = 0; len < sizeof text && i <= len; i++)
        text[i] = (char)(i == len ? '\0' : bytes[i] != '\0' ? bytes[i] : '?');
    steady_quote(quoted, size, text);
}

/* Most numbers. The server reads the others, and decides which are valid; it does not accept leading zeros. */
static inline bool arguments_number(const server_string *argument, int64_t *number) {
    size_t len = 0;
    const char *text = steady__server.StringPtrLen(argument, &len);
    return steady__digits_read(text, len, number) && *text != '0';
}

bool steady__arguments_integer(int64_t *value, const server_string *argument, const char *name, int64_t min,
                               int64_t max, steady_message *why) {
    int64_t common = 0;
    long long n = 0;
    if (arguments_number(argument, &common)) {
        n = common;
    } else if (steady__server.StringToLongLong(argument, &n) != SERVER_OK) {
        char quoted[48];
        arguments_quote(quoted, sizeof quoted, argument);
        return steady__fail(why, false, "%s is \"%s\"; it must be an integer, %" PRId64 " .. %" PRId64, name, quoted,
                            min, max);
    }
    if (n < min || n > max)
        return steady__fail(why, false, "%s is %lld; it must be %" PRId64 " .. %" PRId64, name, n, min, max);
    *value = n;
    return true;
}

/* ---- Words ---- */

/* `upper` is made of letters, so clearing the bit that tells the cases apart makes no other byte equal. */
static bool arguments_same_word(const char *text, const char *upper, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((text[i] & ~0x20) != upper[i]) return false;
    return true;
}

bool steady__arguments_word(struct steady__arguments *a, const char *upper, size_t len) {
    size_t its_len = 0;
    if (a->at == a->end) return false;
    const char *text = steady__server.StringPtrLen(*a->at, &its_len);
    if (its_len != len || !arguments_same_word(text, upper, len)) return false;
    a->at++;
    return true;
}

static const char *const kinds[STEADY__KINDS] = {"take", "look", "charge", "shadow"};

const char *steady__kind_name(enum steady__kind kind) { return kinds[kind]; }

static bool arguments_kind(int64_t *kind, const server_string *argument, steady_message *why) {
    static const char *const upper[STEADY__KINDS] = {"TAKE", "LOOK", "CHARGE", "SHADOW"};
    char quoted[48];
    size_t len = 0;
    const char *text = steady__server.StringPtrLen(argument, &len);
    for (int i = 0; i < STEADY__KINDS; i++)
        if (strnlen(upper[i], len + 1) == len && arguments_same_word(text, upper[i], len)) {
            *kind = i;
            return true;
        }
    arguments_quote(quoted, sizeof quoted, argument);
    return steady__fail(why, false, "kind is \"%s\"; it must be take, look, charge or shadow", quoted);
}

/* ---- Options ---- */

struct option {
    const char *name;  /* in the command */
    const char *field; /* in error texts */
    size_t len;        /* of the name */
    int64_t min, max;
};

#define OPTION(name, field, min, max)                                                                                  \
    { (name), (field), sizeof(name) - 1, (min), (max) }
static const struct option all_options[STEADY__WORDS] = {
    [STEADY__PART] = OPTION("PART", "", 0, 0),
    [STEADY__DROPS] = OPTION("DROPS", "drops", 1, STEADY__DROPS_MAX),
    [STEADY__BLOCK] = OPTION("BLOCK", "block_duration", 0, STEADY__BLOCK_LIMIT - 1),
    [STEADY__AMOUNT] = OPTION("AMOUNT", "amount", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX),
    [STEADY__KIND] = OPTION("KIND", "kind", 0, 0),
    [STEADY__WAIT] = OPTION("WAIT", "max_wait", 0, STEADY__MAX_WAIT),
    [STEADY__ATLEAST] = OPTION("ATLEAST", "at_least", 1, STEADY__AMOUNT_MAX),
    [STEADY__RESERVED] = OPTION("RESERVED", "reserved", 0, STEADY__AMOUNT_MAX),
    [STEADY__MOMENT] = OPTION("MOMENT", "moment", 0, STEADY__EXACT - 1),
    [STEADY__ACTUAL] = OPTION("ACTUAL", "actual", 0, INT64_MAX),
    [STEADY__OTHERRATE] = OPTION("OTHERRATE", "", 0, 0),
};

static unsigned arguments_find_option(unsigned allowed, const server_string *argument) {
    size_t len = 0;
    const char *text = steady__server.StringPtrLen(argument, &len);
    unsigned word = 0;
    for (; word < STEADY__WORDS; word++)
        if (all_options[word].len == len && (allowed & STEADY__BIT(word)) != 0 &&
            arguments_same_word(text, all_options[word].name, len))
            break;
    return word;
}

static bool arguments_fail_without_value(const struct option *option, steady_message *why) {
    if (option == &all_options[STEADY__KIND])
        return steady__fail(why, false, "syntax error: KIND lacks its value; it must be take, look, charge or shadow");
    return steady__fail(why, false, "syntax error: %s lacks its value; it must be %" PRId64 " .. %" PRId64,
                        option->name, option->min, option->max);
}

bool steady__arguments_options(struct steady__arguments *a, unsigned allowed, struct steady__options *options,
                               steady_message *why) {
    while (a->at < a->end) {
        const unsigned word = arguments_find_option(allowed | STEADY__BIT(STEADY__PART), *a->at);
        if (word == STEADY__WORDS || word == STEADY__PART) return true;
        const struct option *option = &all_options[word];
        int64_t *value = &options->values[word];
        if ((options->given & STEADY__BIT(word)) != 0)
            return steady__fail(why, false, "syntax error: %s is given twice", option->name);
        options->given |= STEADY__BIT(word);
        a->at++;
        if (word == STEADY__OTHERRATE) {
            *value = 1;
            continue;
        }
        if (a->at == a->end) return arguments_fail_without_value(option, why);
        const bool read = word == STEADY__KIND
                              ? arguments_kind(value, *a->at, why)
                              : steady__arguments_integer(value, *a->at, option->field, option->min, option->max, why);
        if (!read) return false;
        a->at++;
    }
    return true;
}

/* The words are in the order of the table, PART first. */
bool steady__arguments_refuse(const struct steady__arguments *a, unsigned allowed, steady_message *why) {
    char quoted[48], words[128] = "";
    size_t len = 0;
    arguments_quote(quoted, sizeof quoted, *a->at);
    for (unsigned word = 0; word < STEADY__WORDS; word++)
        if ((allowed & STEADY__BIT(word)) != 0 && len < sizeof words)
            len +=
                (size_t)snprintf(words + len, sizeof words - len, "%s%s", len > 0 ? ", " : "", all_options[word].name);
    return steady__fail(why, false, "syntax error: \"%s\" is not one of %s", quoted, words);
}

bool steady__arguments_end(const struct steady__arguments *a, unsigned allowed, steady_message *why) {
    return a->at == a->end || steady__arguments_refuse(a, allowed, why);
}

/* ---- Limits ---- */

static bool arguments_field(struct steady__arguments *a, int64_t *value, const char *name, int64_t max,
                            steady_message *why) {
    if (a->at == a->end)
        return steady__fail(why, false, "syntax error: %s is missing; it must be 1 .. %" PRId64, name, max);
    return steady__arguments_integer(value, *a->at++, name, 1, max, why);
}

static bool arguments_product_is_exact(const struct steady__rate *rate) {
    int64_t product = 0;
    return !__builtin_mul_overflow(rate->capacity, rate->recharge, &product) && product < STEADY__EXACT;
}

bool steady__arguments_plain_limit(struct steady__rate *rate, server_string **argv) {
    rate->drops = 1;
    rate->block = 0;
    return arguments_number(argv[2], &rate->capacity) && arguments_number(argv[3], &rate->recharge) &&
           rate->capacity <= STEADY__CAPACITY_MAX && arguments_product_is_exact(rate);
}

bool steady__arguments_limit(struct steady__arguments *a, unsigned allowed, struct steady__options *options,
                             struct steady__rate *rate, steady_message *why) {
    *options = (struct steady__options){.values = {[STEADY__DROPS] = 1, [STEADY__AMOUNT] = 1}};
    if (!arguments_field(a, &rate->capacity, "max_capacity", STEADY__CAPACITY_MAX, why) ||
        !arguments_field(a, &rate->recharge, "drop_recharge", STEADY__EXACT - 1, why) ||
        !steady__arguments_options(a, allowed, options, why))
        return false;
    rate->drops = options->values[STEADY__DROPS];
    rate->block = options->values[STEADY__BLOCK];
    if (arguments_product_is_exact(rate)) return true;
    const steady_limit limit = {.max_capacity = rate->capacity, .drop_recharge = rate->recharge};
    return steady_limit_check(&limit, why) == 0;
}

/* Reduces the rate to lowest terms before the check: 1000000 per day is 1 per 86.4 ms, which is in range. */
static bool arguments_throttle_rate(struct steady__rate *rate, int64_t burst, int64_t count, int64_t period_s,
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
bool steady__arguments_throttle(struct steady__rate *rate, int64_t *quantity, server_string **argv, int argc,
                                steady_message *why) {
    int64_t burst = 0, count = 0, period_s = 0;
    if (!steady__arguments_integer(&burst, argv[2], "max_burst", 0, STEADY__CAPACITY_MAX - 1, why) ||
        !steady__arguments_integer(&count, argv[3], "count", 1, INT32_MAX, why) ||
        !steady__arguments_integer(&period_s, argv[4], "period", 1, STEADY__EXACT / 1000000, why))
        return false;
    if (argc == 6 &&
        !steady__arguments_integer(quantity, argv[5], "quantity", -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, why))
        return false;
    return arguments_throttle_rate(rate, burst, count, period_s, why);
}

bool steady__arguments_at_least(int64_t at_least, const struct steady__part *parts, size_t n, steady_message *why) {
    for (size_t i = 0; i < n; i++) {
        if (parts[i].kind != STEADY__TAKE)
            return steady__fail(why, false, "part %zu: kind is %s; with ATLEAST it must be take", i,
                                steady__kind_name(parts[i].kind));
        if (parts[i].amount != parts[0].amount)
            return steady__fail(why, false,
                                "part %zu: amount is %" PRId64 "; with ATLEAST it must be that of part 0, %" PRId64, i,
                                parts[i].amount, parts[0].amount);
    }
    return at_least <= parts[0].amount ||
           steady__fail(why, false, "at_least is %" PRId64 "; it must not be over the amount, %" PRId64, at_least,
                        parts[0].amount);
}
