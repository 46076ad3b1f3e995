/* SPDX-License-Identifier: MIT
 * Checks limits, and reads limits and durations from text, without floating point and in any locale. */
#include "core/limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

#define QUOTED_SIZE 48 /* of a text in a message: 47 bytes of it, or 44 and "..." */
#define UNITS "us ms s m h d"
#define WORDS "second minute hour day week"

/* ---- Limits ---- */

int64_t steady__gcd(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static inline int limit_check_field(const char *name, int64_t value, int64_t min, int64_t max, const char *unit,
                                    steady_message *why) {
    if (value >= min && value <= max) return 0;
    steady__fail(why, STEADY_BAD_ARGUMENT, "%s is %" PRId64 "; it must be %" PRId64 " .. %" PRId64 "%s", name, value,
                 min, max, unit);
    return STEADY_BAD_ARGUMENT;
}

static bool limit_is_name(const char *name) {
    size_t len = 0;
    for (; name[len] != '\0'; len++)
        if (name[len] <= ' ' || name[len] > '~' || name[len] == '%' || name[len] == '{' || name[len] == '}')
            return false;
    return len > 0 && len <= STEADY__NAME_MAX;
}

int steady_limit_check(const steady_limit *limit, steady_message *why) {
    if (limit == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "limit is NULL");
    for (size_t i = 0; i < sizeof limit->reserved / sizeof limit->reserved[0]; i++)
        if (limit->reserved[i] != 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_limit must be zero");
    if (limit->name != NULL && !limit_is_name(limit->name))
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "name must be 1 .. %d printable ASCII bytes without spaces, %%, { and }", STEADY__NAME_MAX);
    int error = limit_check_field("max_capacity", limit->max_capacity, 1, STEADY__CAPACITY_MAX, "", why);
    if (error == 0) error = limit_check_field("drop_recharge", limit->drop_recharge, 1, STEADY__EXACT - 1, " us", why);
    if (error == 0) error = limit_check_field("drops", limit->drops, 0, STEADY__DROPS_MAX, "", why);
    if (error == 0)
        error = limit_check_field("block_duration", limit->block_duration, 0, STEADY__BLOCK_LIMIT - 1, " us", why);
    if (error != 0) return error;
    if (limit->max_capacity > (STEADY__EXACT - 1) / limit->drop_recharge)
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "max_capacity * drop_recharge is %" PRId64 " * %" PRId64 " us; it must be below %" PRId64
                            " us (2^53)",
                            limit->max_capacity, limit->drop_recharge, STEADY__EXACT);
    return 0;
}

int steady__limit_rate(struct steady__rate *rate, const steady_limit *limit, steady_message *why) {
    const int error = steady_limit_check(limit, why);
    if (error != 0) return error;
    const int64_t drops = limit->drops != 0 ? limit->drops : 1;
    const int64_t factor = steady__gcd(drops, limit->drop_recharge);
    rate->capacity = limit->max_capacity;
    rate->recharge = limit->drop_recharge / factor;
    rate->drops = drops / factor;
    rate->block = limit->block_duration;
    return 0;
}

/* ---- Durations ---- */

/* A rate takes the words as well, each also as a plural with "s". A week has no unit, only its word. */
static const struct {
    const char *name;
    const char *words[2];
    steady_us us;
} units[] = {
    {"us", {"microsecond"}, 1},
    {"ms", {"millisecond"}, 1000},
    {"s", {"sec", "second"}, 1000000},
    {"m", {"min", "minute"}, 60 * INT64_C(1000000)},
    {"h", {"hr", "hour"}, 3600 * INT64_C(1000000)},
    {"d", {"day"}, 86400 * INT64_C(1000000)},
    {"", {"week"}, 7 * 86400 * INT64_C(1000000)},
};

enum { N_UNITS = sizeof units / sizeof units[0], SECONDS = 2 };

enum flaw { NO_FLAW, MALFORMED, NO_UNIT, UNKNOWN_UNIT, OUT_OF_ORDER, TOO_FINE, TOO_LONG };

/* The state of reading a duration. `unit` is the index of the last unit, or N_UNITS before the first. */
struct reader {
    const char *at;
    bool words;
    int unit;
    steady_us total;
};

/* whole + fraction / scale */
struct number {
    int64_t whole;
    int64_t fraction;
    int64_t scale;
};

static bool limit_is_digit(char c) { return c >= '0' && c <= '9'; }
static bool limit_is_letter(char c) { return c >= 'a' && c <= 'z'; }

/* Reads at least one digit, for a value of at most max. Moves *at past the digits. */
static enum flaw limit_read_digits(const char **at, int64_t max, int64_t *value) {
    if (!limit_is_digit(**at)) return MALFORMED;
    int64_t n = 0;
    for (; limit_is_digit(**at); (*at)++) {
        const int digit = **at - '0';
        if (n > (max - digit) / 10) return TOO_LONG;
        n = n * 10 + digit;
    }
    *value = n;
    return NO_FLAW;
}

/* A day is 2^13 * 5^8 * 27 us. So no fraction with more than 13 significant digits is a whole number of us. */
static enum flaw limit_read_fraction(const char **at, struct number *n) {
    const char *start = *at, *end = *at;
    if (!limit_is_digit(*start)) return MALFORMED;
    for (; limit_is_digit(**at); (*at)++)
        if (**at != '0') end = *at + 1;
    if (end - start > 13) return TOO_FINE;
    for (; start < end; start++) {
        n->fraction = n->fraction * 10 + (*start - '0');
        n->scale *= 10;
    }
    return NO_FLAW;
}

static enum flaw limit_read_number(const char **at, struct number *n) {
    *n = (struct number){.scale = 1};
    const enum flaw flaw = limit_read_digits(at, STEADY__EXACT - 1, &n->whole);
    if (flaw != NO_FLAW || **at != '.') return flaw;
    (*at)++;
    return limit_read_fraction(at, n);
}

static bool limit_is_word(const char *word, const char *text, size_t len) {
    if (word == NULL) return false;
    const size_t singular = strlen(word);
    const bool plural = len == singular + 1 && text[singular] == 's';
    return (len == singular || plural) && memcmp(word, text, singular) == 0;
}

static int limit_find_unit(const char *text, size_t len, bool words) {
    for (int i = 0; i < N_UNITS; i++) {
        const char *name = units[i].name;
        if (strlen(name) == len && memcmp(name, text, len) == 0) return i;
        if (words && (limit_is_word(units[i].words[0], text, len) || limit_is_word(units[i].words[1], text, len)))
            return i;
    }
    return -1;
}

static enum flaw limit_read_unit(struct reader *r) {
    const char *start = r->at;
    while (limit_is_letter(*r->at))
        r->at++;
    if (r->at == start) return *start == '\0' ? NO_UNIT : MALFORMED;
    const int unit = limit_find_unit(start, (size_t)(r->at - start), r->words);
    if (unit < 0) return UNKNOWN_UNIT;
    if (unit >= r->unit) return OUT_OF_ORDER;
    r->unit = unit;
    return NO_FLAW;
}

static enum flaw limit_add(struct reader *r, const struct number *n) {
    const steady_us unit = units[r->unit].us;
    if (n->whole > (STEADY__EXACT - 1) / unit) return TOO_LONG;
    /* fraction / scale * unit. Dividing by the common factor first avoids an overflow. */
    const int64_t common = steady__gcd(unit, n->scale);
    if (n->fraction % (n->scale / common) != 0) return TOO_FINE;
    const steady_us part = n->whole * unit + n->fraction / (n->scale / common) * (unit / common);
    if (part > STEADY__EXACT - 1 - r->total) return TOO_LONG;
    r->total += part;
    return NO_FLAW;
}

static enum flaw limit_read_duration(struct reader *r) {
    do {
        struct number n;
        enum flaw flaw = limit_read_number(&r->at, &n);
        if (flaw == NO_FLAW) flaw = limit_read_unit(r);
        if (flaw == NO_FLAW) flaw = limit_add(r, &n);
        if (flaw != NO_FLAW) return flaw;
    } while (*r->at != '\0');
    return NO_FLAW;
}

/* Fails with a text for the flaw. `what` names the expected kind of text. */
static int limit_refuse(const struct reader *r, enum flaw flaw, const char *what, const char *text,
                        steady_message *why) {
    const char *known = r->words ? UNITS ", or " WORDS : UNITS;
    char quoted[QUOTED_SIZE];
    steady_quote(quoted, sizeof quoted, text);
    switch (flaw) {
    case NO_UNIT:
        if (r->unit == 0) break;
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s \"%s\" lacks a unit: did you mean \"%s%s\"? (units: %s)",
                            what, quoted, quoted, units[r->unit == N_UNITS ? SECONDS : r->unit - 1].name, known);
    case UNKNOWN_UNIT:
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s \"%s\" has an unknown unit; the units are %s", what, quoted,
                            known);
    case OUT_OF_ORDER:
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "%s \"%s\" must have its largest unit first and each only once, as in 1h30m", what, quoted);
    case TOO_FINE:
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s \"%s\" is not a whole number of microseconds", what, quoted);
    case TOO_LONG:
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s \"%s\" is too long; it must be below %" PRId64 "us (2^53)",
                            what, quoted, STEADY__EXACT);
    default: break;
    }
    return steady__fail(why, STEADY_BAD_ARGUMENT, "%s \"%s\" is not a duration such as 5s, 250ms, 0.5s or 1h30m", what,
                        quoted);
}

int steady_duration_parse(steady_us *duration, const char *text, steady_message *why) {
    if (duration == NULL || text == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s is NULL", duration == NULL ? "duration" : "text");
    struct reader r = {.at = text, .unit = N_UNITS};
    const enum flaw flaw = limit_read_duration(&r);
    if (flaw != NO_FLAW) return limit_refuse(&r, flaw, "duration", text, why);
    *duration = r.total;
    return 0;
}

/* ---- Rates ---- */

void steady__duration_text(char *out, size_t size, steady_us duration) {
    size_t len = 0;
    if (size > 0) out[0] = '\0';
    for (int unit = N_UNITS - 2; unit >= 0; unit--) { /* a week has no unit */
        const steady_us count = duration / units[unit].us;
        duration -= count * units[unit].us;
        if ((count > 0 || (unit == SECONDS && len == 0 && duration == 0)) && len < size)
            len += (size_t)snprintf(out + len, size - len, "%" PRId64 "%s", count, units[unit].name);
    }
}

/* A unit alone, such as "min", is one of it. */
static int limit_parse_period(steady_us *period, const char *text, steady_message *why) {
    struct reader r = {.at = text, .words = true, .unit = N_UNITS};
    enum flaw flaw = NO_FLAW;
    if (limit_is_letter(*text)) {
        flaw = limit_read_unit(&r);
        if (flaw == NO_FLAW && *r.at != '\0') flaw = MALFORMED;
        if (flaw == NO_FLAW) r.total = units[r.unit].us;
    } else {
        flaw = limit_read_duration(&r);
    }
    if (flaw != NO_FLAW) return limit_refuse(&r, flaw, "rate period", text, why);
    *period = r.total;
    return 0;
}

static int limit_refuse_rate(const char *rate, const char *reason, steady_message *why) {
    char quoted[QUOTED_SIZE];
    steady_quote(quoted, sizeof quoted, rate);
    return steady__fail(why, STEADY_BAD_ARGUMENT, "rate \"%s\": %s", quoted, reason);
}

/* Makes a limit from a count, a period and a burst. They stay as they are if they are in range, else in lowest terms.
 */
static steady_limit limit_make_limit(int64_t count, steady_us period, int64_t burst) {
    steady_limit made = {.max_capacity = burst, .drop_recharge = period, .drops = count};
    if (steady_limit_check(&made, NULL) == 0) return made;
    const int64_t common = steady__gcd(count, period);
    made.drops = count / common;
    made.drop_recharge = period / common;
    return made;
}

/* Fails with a text about the rate, for a limit that is out of range although its count is not. */
static int limit_refuse_limit(const char *rate, const steady_limit *made, bool burst, steady_message *why) {
    char reason[160];
    if (made->drop_recharge == 0) return limit_refuse_rate(rate, "the period must be at least 1us", why);
    if (made->drops > STEADY__DROPS_MAX)
        snprintf(reason, sizeof reason,
                 "in lowest terms it is %" PRId64 "/%" PRId64 "us; that count must be at most %d", made->drops,
                 made->drop_recharge, STEADY__DROPS_MAX);
    else
        snprintf(reason, sizeof reason,
                 "the %s times the period in lowest terms is %" PRId64 " * %" PRId64 "us; it must be below %" PRId64
                 "us (2^53)",
                 burst ? "burst" : "count", made->max_capacity, made->drop_recharge, STEADY__EXACT);
    return limit_refuse_rate(rate, reason, why);
}

#define BURST " burst "
#define PERIOD_SIZE 256

static bool limit_read_burst(const char *text, int64_t *burst) {
    return limit_read_digits(&text, STEADY__CAPACITY_MAX, burst) == NO_FLAW && *text == '\0' && *burst > 0;
}

int steady_limit_parse(steady_limit *limit, const char *rate, steady_message *why) {
    int64_t count = 0;
    steady_us period = 0;
    if (limit == NULL || rate == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s is NULL", limit == NULL ? "limit" : "rate");
    const char *at = rate;
    const enum flaw flaw = limit_read_digits(&at, STEADY__CAPACITY_MAX, &count);
    if (flaw == MALFORMED || (flaw == NO_FLAW && *at != '/'))
        return limit_refuse_rate(rate, "write a count, a slash and a period, such as 100/min, 3/s or 5/250ms", why);
    if (flaw == TOO_LONG || count == 0) return limit_refuse_rate(rate, "the count must be 1 .. 2147483647", why);
    const char *tail = strstr(++at, BURST);
    char period_text[PERIOD_SIZE] = "";
    int64_t burst = count;
    const bool named = tail != NULL && tail - at < PERIOD_SIZE;
    if (named) memcpy(period_text, at, (size_t)(tail - at));
    const int error = limit_parse_period(&period, named ? period_text : at, why);
    if (error != 0) return error;
    if (named && !limit_read_burst(tail + sizeof BURST - 1, &burst))
        return limit_refuse_rate(rate, "the burst must be 1 .. 2147483647, as in 100/min burst 20", why);
    const steady_limit made = limit_make_limit(count, period, burst);
    if (steady_limit_check(&made, NULL) != 0) return limit_refuse_limit(rate, &made, named, why);
    limit->max_capacity = made.max_capacity;
    limit->drop_recharge = made.drop_recharge;
    limit->drops = made.drops;
    return 0;
}
