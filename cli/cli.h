/* SPDX-License-Identifier: MIT
 * What the files of the command share. */
#ifndef STEADY_CLI_H
#define STEADY_CLI_H

#include <steady.h>

/* Every exit code there is; the manual explains them. */
enum { ALLOWED = 0, DENIED = 1, USAGE = 2, UNAVAILABLE = 3, UNKNOWN = 4 };

/* ---- text.c: what is said, and how ---- */

/* Output is put together here and written at once, so that nothing is ever half-printed. Room for a key of 1024 bytes
 * with each byte escaped, and for the longest help. */
struct text {
    size_t len;
    char bytes[8192];
};

__attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format, ...);
void text_add_key(struct text *text, const char *key);  /* what is not printable ASCII as \xNN; a URL as above */
void text_add_wait(struct text *text, steady_us wait);  /* for people, rounded up: "3.2 s", "1 h 30 m" */
void text_add_seconds(struct text *text, steady_us us); /* exactly, as a decimal number: 3.2 */
void text_add_bar(struct text *text, int64_t level, int64_t capacity);

/* Writes it to standard output; returns `code`, or `unsaid` where it could not be written. */
int text_say(const struct text *text, int code, int unsaid);

/* "steady: ..." and a line end, to standard error. complain returns USAGE, for the many that end so. */
__attribute__((format(printf, 1, 2))) int complain(const char *format, ...);

/* A value from the command line, and an option that may have one, fit to be quoted: see steady_quote. */
struct quoted {
    char text[80];
};
struct quoted quoted(const char *value);
struct quoted quoted_option(const char *arg);

/* How many letters lie between two names; for "did you mean". */
int distance(const char *typed, const char *name);
#define FAR 3 /* not a slip any more */

/* ---- options.c ---- */

enum { FOR_CONSUME = 1, FOR_PEEK = 2, FOR_RESET = 4, FOR_BENCH = 8, FOR_OTHERS = 16 };
enum { FOR_KEYS = FOR_CONSUME | FOR_PEEK | FOR_RESET, FOR_STORES = FOR_KEYS | FOR_BENCH };

enum { OPERANDS_KEPT = 2 }; /* a KEY, and the first that is one too many */

struct options {
    int64_t capacity;   /* 0: not given */
    steady_us recharge; /* 0: not given */
    steady_limit rate;  /* all zero: not given */
    steady_us block;
    int64_t amount;
    const char *prefix; /* NULL: none */
    const char *store;  /* NULL: not given */
    steady_us timeout;
    enum steady_policy on_error;
    enum steady_engine engine;
    int64_t keys;
    int64_t in_flight;
    int64_t seconds;
    bool json;
    bool help;
    uint32_t given; /* a bit for each row of the table of options */
    const char *operands[OPERANDS_KEPT];
    int n_operands; /* all that there were */
};

/* Reads what follows the command's name. ALLOWED, or USAGE and it has been said why. */
int options_read(struct options *options, int command, const char *name, char **args);

/* The limit that the options describe; where they describe none, the usual one, NULL where there is none. */
int options_limit(const struct options *options, const steady_limit *usual, steady_limit *limit);

void options_help(struct text *text, int command);

/* ---- own.c ---- */

enum { OWN_SIZE = 320 };

/* The directory of the user's own file, made if need be. 0 or STEADY_SYSTEM. */
int own_directory(char path[OWN_SIZE], steady_message *why);

/* ---- store.c ---- */

/* Opens the store of the options, of the environment, or the user's own file. */
int open_store(steady_store **store, const struct options *options, const steady_loop *loop, bool *embedded,
               steady_message *why);

/* Says why a call ended so. */
void complain_error(int error, const steady_message *why);

/* The exit code of a call that ended so. */
int error_code(int error);

/* ---- one for each command ---- */

int run_consume(const struct options *options);
int run_peek(const struct options *options);
int run_reset(const struct options *options);
int run_bench(const struct options *options);

#endif
