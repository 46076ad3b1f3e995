/* SPDX-License-Identifier: MIT
 * Reads the arguments of the commands. Each function returns false if an argument is wrong, and *why says what. */
#ifndef STEADY__MODULE_ARGUMENTS_H
#define STEADY__MODULE_ARGUMENTS_H

#include <stdbool.h>

#include "abi.h"
#include "core/parts.h"
#include "steady.h"

#define STEADY__AMOUNT_MAX INT32_MAX

/* The arguments that have not been read yet. */
struct steady__arguments {
    server_string **at, **end;
};

/* PART, and the options: words with a value after them. OTHERRATE has none. */
enum steady__word {
    STEADY__PART, /* the first, because it is looked up first and comes most often */
    STEADY__DROPS,
    STEADY__BLOCK,
    STEADY__AMOUNT,
    STEADY__KIND,
    STEADY__WAIT,
    STEADY__ATLEAST,
    STEADY__RESERVED,
    STEADY__MOMENT,
    STEADY__ACTUAL,
    STEADY__OTHERRATE,
    STEADY__WORDS
};
#define STEADY__BIT(word) (1U << (word))

struct steady__options {
    unsigned given; /* STEADY__BIT of each */
    int64_t values[STEADY__WORDS];
};

bool steady__arguments_integer(int64_t *value, const server_string *argument, const char *name, int64_t min,
                               int64_t max, steady_message *why);

/* Reads max_capacity and drop_recharge without options. Returns false if they are wrong, or not written in the common
 * way: then steady__arguments_limit reads them. */
bool steady__arguments_plain_limit(struct steady__rate *rate, server_string **argv);

/* Whether this word is the next argument; then it is read. `upper` is in upper case; the case of the argument does not
 * matter. */
bool steady__arguments_word(struct steady__arguments *arguments, const char *upper, size_t len);

/* Reads options, in any order, up to the first other argument. `allowed` has the STEADY__BITs of the options that the
 * command has. Options that are not given keep their values. */
bool steady__arguments_options(struct steady__arguments *arguments, unsigned allowed, struct steady__options *options,
                               steady_message *why);

/* Reads max_capacity drop_recharge [options]. Options that are not given get their defaults. The rate is not reduced to
 * lowest terms. The scripts do the same, and the remainder in a bucket counts 1/drops us. */
bool steady__arguments_limit(struct steady__arguments *arguments, unsigned allowed, struct steady__options *options,
                             struct steady__rate *rate, steady_message *why);

/* The arguments of CL.THROTTLE: key max_burst count period [quantity], with 5 or 6 words. *quantity keeps its value if
 * it is not given. */
bool steady__arguments_throttle(struct steady__rate *rate, int64_t *quantity, server_string **argv, int argc,
                                steady_message *why);

/* Refuses the next argument. `allowed` has the STEADY__BITs of the words that may stand there. Returns false. */
bool steady__arguments_refuse(const struct steady__arguments *arguments, unsigned allowed, steady_message *why);

/* Whether all arguments have been read; the next one is refused. */
bool steady__arguments_end(const struct steady__arguments *arguments, unsigned allowed, steady_message *why);

/* Checks at_least against the amounts and the kinds of the parts. */
bool steady__arguments_at_least(int64_t at_least, const struct steady__part *parts, size_t n, steady_message *why);

/* The name of a kind, as in the options. */
const char *steady__kind_name(enum steady__kind kind);

#endif
