/* SPDX-License-Identifier: MIT
 * Reads the arguments of the commands on several keys. */
#include "parts_arguments.h"

#include <inttypes.h>
#include <string.h>

#include "core/error.h"

/* ---- Keys ---- */

/* Compares lengths and last bytes first, because keys often begin alike. */
static bool parts_arguments_keys_differ(server_string **keys, size_t n, const char *what, steady_message *why) {
    struct {
        const char *text;
        size_t len;
        uint64_t end;
    } seen[STEADY__KEYS_MAX];
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
static bool parts_arguments_read_keys(struct steady__arguments *a, int64_t *n, server_string **argv, int argc,
                                      steady_message *why) {
    const int rest = argc - 2;
    if (!steady__arguments_integer(n, argv[1], "numkeys", 1, STEADY__KEYS_MAX, why)) return false;
    if (*n > rest)
        return steady__fail(why, false, "numkeys is %" PRId64 ", but only %d arguments come after it", *n, rest);
    *a = (struct steady__arguments){argv + 2 + *n, argv + argc};
    return parts_arguments_keys_differ(argv + 2, (size_t)*n, "parts", why);
}

/* ---- PARTs ---- */

static bool parts_arguments_fail_in_part(size_t part, steady_message *why) {
    const steady_message what = *why;
    return steady__fail(why, false, "part %zu: %s", part, what.text);
}

/* Often the word is a key that numkeys leaves out. */
static bool parts_arguments_fail_after_keys(size_t n, steady_message *why) {
    const steady_message what = *why;
    return steady__fail(why, false, "numkeys is %zu: %s", n, what.text);
}

/* The options of a command. */
struct words {
    unsigned first, part; /* before the first PART, and in each PART */
};

static const struct words parts_words = {STEADY__BIT(STEADY__WAIT) | STEADY__BIT(STEADY__ATLEAST),
                                         STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__BLOCK) |
                                             STEADY__BIT(STEADY__AMOUNT) | STEADY__BIT(STEADY__KIND)};

enum { SETTLE_NEEDS = STEADY__BIT(STEADY__RESERVED) | STEADY__BIT(STEADY__MOMENT) | STEADY__BIT(STEADY__ACTUAL) };
static const struct words settle_words = {0,
                                          SETTLE_NEEDS | STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__OTHERRATE)};

/* Whether there is another PART, and its key. If not, *why is empty after the last part of a right call. */
static bool parts_arguments_next_part(struct steady__arguments *a, size_t part, size_t n, const struct words *words,
                                      steady_message *why) {
    why->text[0] = '\0';
    if (a->at == a->end) {
        if (part < n) steady__fail(why, false, "syntax error: %zu keys, but %zu PARTs", n, part);
        return false;
    }
    if (!steady__arguments_word(a, "PART", 4)) {
        steady__arguments_refuse(a, STEADY__BIT(STEADY__PART) | (part == 0 ? words->first : words->part), why);
        return part == 0 ? parts_arguments_fail_after_keys(n, why) : parts_arguments_fail_in_part(part - 1, why);
    }
    if (part == n) return steady__fail(why, false, "syntax error: %zu keys, but more PARTs", n);
    return true;
}

static bool parts_arguments_read_part(struct steady__arguments *a, struct steady__rate *rate, struct steady__part *part,
                                      steady_message *why) {
    struct steady__options options;
    if (!steady__arguments_limit(a, parts_words.part, &options, rate, why)) return false;
    const int64_t amount = options.values[STEADY__AMOUNT];
    *part = (struct steady__part){rate, amount, (enum steady__kind)options.values[STEADY__KIND]};
    return amount >= 0 || part->kind == STEADY__TAKE ||
           steady__fail(why, false, "amount is %" PRId64 "; it must be 0 .. %d for kind %s", amount, STEADY__AMOUNT_MAX,
                        steady__kind_name(part->kind));
}

static bool parts_arguments_read_how(struct steady__arguments *a, struct steady__how *how, bool peek,
                                     steady_message *why) {
    struct steady__options options = {0};
    if (!steady__arguments_options(a, parts_words.first, &options, why)) return false;
    *how = (struct steady__how){options.values[STEADY__WAIT], options.values[STEADY__ATLEAST], peek};
    return true;
}

bool steady__arguments_request(struct steady__parts_request *request, bool peek, server_string **argv, int argc,
                               steady_message *why) {
    struct steady__arguments a = {NULL, NULL};
    int64_t n = 0;
    size_t i = 0;
    if (!parts_arguments_read_keys(&a, &n, argv, argc, why) || !parts_arguments_read_how(&a, &request->how, peek, why))
        return false;
    request->n = (size_t)n;
    for (; parts_arguments_next_part(&a, i, request->n, &parts_words, why); i++)
        if (!parts_arguments_read_part(&a, &request->rates[i], &request->parts[i], why))
            return parts_arguments_fail_in_part(i, why);
    return why->text[0] == '\0' && (request->how.at_least == 0 ||
                                    steady__arguments_at_least(request->how.at_least, request->parts, request->n, why));
}

static bool parts_arguments_read_settlement(struct steady__arguments *a, struct steady__rate *rate,
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

bool steady__arguments_settlements(struct steady__rate *rates, struct steady__settlement *settlements, int64_t *n,
                                   server_string **argv, int argc, steady_message *why) {
    struct steady__arguments a = {NULL, NULL};
    if (!parts_arguments_read_keys(&a, n, argv, argc, why)) return false;
    for (size_t i = 0; parts_arguments_next_part(&a, i, (size_t)*n, &settle_words, why); i++)
        if (!parts_arguments_read_settlement(&a, &rates[i], &settlements[i], why))
            return parts_arguments_fail_in_part(i, why);
    return why->text[0] == '\0';
}

bool steady__arguments_reset(server_string **argv, size_t n, steady_message *why) {
    if (n > STEADY__KEYS_MAX) return steady__fail(why, false, "%zu keys; there must be 1 .. %d", n, STEADY__KEYS_MAX);
    return parts_arguments_keys_differ(argv + 1, n, "keys", why);
}
