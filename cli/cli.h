/* SPDX-License-Identifier: MIT
 * What the files of the command share. */
#ifndef STEADY_CLI_H
#define STEADY_CLI_H

#include <steady.h>

/* All exit codes; steady(1) explains them. */
enum { ALLOWED = 0, DENIED = 1, USAGE = 2, UNAVAILABLE = 3, UNKNOWN = 4 };

/* ---- text.c: output ---- */

/* Output is built here and written at once, so it is never half-printed. The room suffices for a key of 1024 escaped
 * bytes, and for the longest help. */
struct text {
    size_t len;
    char bytes[8192];
};

__attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format, ...);
void text_add_key(struct text *text,
                  const char *key); /* other bytes than printable ASCII as \xNN; a store URL is quoted */
void text_add_wait(struct text *text, steady_us wait);  /* rounded up: "3.2 s", "1 h 30 m" */
void text_add_seconds(struct text *text, steady_us us); /* exactly, as a decimal number: 3.2 */
void text_add_bar(struct text *text, int64_t level, int64_t capacity);

/* Writes it to standard output. Returns `code`, or `unsaid` if it could not be written. */
int text_say(const struct text *text, int code, int unsaid);

/* Writes "steady: ..." and a line end to standard error. Always returns USAGE, for callers that end with it. */
__attribute__((format(printf, 1, 2))) int complain(const char *format, ...);

/* Quote a value, or an option that may contain a value, for a message: see steady_quote. */
struct quoted {
    char text[80];
};
struct quoted quoted(const char *value);
struct quoted quoted_option(const char *arg);

/* The edit distance of two names, for "did you mean". */
int distance(const char *typed, const char *name);
#define FAR 3 /* at this distance a name is not suggested */

/* ---- options.c ---- */

enum { FOR_CONSUME = 1, FOR_PEEK = 2, FOR_RESET = 4, FOR_BENCH = 8, FOR_OTHERS = 16 };
enum { FOR_KEYS = FOR_CONSUME | FOR_PEEK | FOR_RESET, FOR_STORES = FOR_KEYS | FOR_BENCH };

enum { OPERANDS_KEPT = 2 }; /* a KEY, and the first unexpected argument */

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
    uint32_t given; /* a bit for each row of the option table */
    const char *operands[OPERANDS_KEPT];
    int n_operands; /* the number of all operands */
};

/* Reads the arguments after the name of the command. ALLOWED, or USAGE after an error message. */
int options_read(struct options *options, int command, const char *name, char **args);

/* Builds the limit from the options. Without these options it is `usual`; if that is NULL, a limit is required.
 * ALLOWED, or USAGE after an error message. */
int options_limit(const struct options *options, const steady_limit *usual, steady_limit *limit);

void options_help(struct text *text, int command);

/* ---- own.c ---- */

enum { OWN_SIZE = 320 };

/* Finds or makes the directory of the user's own file. 0 or STEADY_SYSTEM. */
int own_directory(char path[OWN_SIZE], steady_message *why);

/* ---- store.c ---- */

/* Opens the store of --store, or else of STEADY_STORE, or else the user's own file. */
int open_store(steady_store **store, const struct options *options, const steady_loop *loop, bool *embedded,
               steady_message *why);

/* Writes why a call failed to standard error. */
void complain_error(int error, const steady_message *why);

/* The exit code for an error. */
int error_code(int error);

/* ---- A function for each command ---- */

int run_consume(const struct options *options);
int run_peek(const struct options *options);
int run_reset(const struct options *options);
int run_bench(const struct options *options);

#endif
