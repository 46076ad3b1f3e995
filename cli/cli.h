/* SPDX-License-Identifier: MIT
 * What the files of the command share. */
#ifndef STEADY_CLI_H
#define STEADY_CLI_H

#include <steady.h>

/* All exit codes; steady(1) explains them. */
enum { ALLOWED = 0, DENIED = 1, USAGE = 2, UNAVAILABLE = 3, UNKNOWN = 4 };

/* ---- text.c: output ---- */

/* Output is built here and written at once, so it is never half-printed. All zero: empty. Its memory is freed by
 * text_say, text_warn or text_free. */
struct text {
    char *bytes; /* with a NUL; NULL if nothing was added */
    size_t len, room;
    bool lost; /* memory ran out; text_say reports it */
};

__attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format, ...);
void text_add_key(struct text *text,
                  const char *key); /* other bytes than printable ASCII as \xNN; a store URL is quoted */
void text_add_wait(struct text *text, steady_us wait);  /* rounded up: "3.2 s", "1 h 30 m" */
void text_add_exact(struct text *text, steady_us us);   /* exactly, in one unit: "1500 ms", "1 d" */
void text_add_seconds(struct text *text, steady_us us); /* exactly, as a decimal number: 3.2 */
void text_add_ratio(struct text *text, int64_t value, int64_t unit,
                    int decimals);                         /* value/unit, rounded down, with at most so many decimals */
void text_add_json(struct text *text, const char *string); /* printable ASCII, as a JSON string */
void text_add_bar(struct text *text, int64_t level, int64_t capacity);
void text_free(struct text *text);

/* Writes it to standard output. Returns `code`, or `unsaid` if it could not be written. A held signal ends a write that
 * blocks. */
int text_say(struct text *text, int code, int unsaid);

/* Writes it to standard error, in the same way. */
void text_warn(struct text *text);

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

enum {
    FOR_CONSUME = 1,
    FOR_PEEK = 2,
    FOR_RESET = 4,
    FOR_WAIT = 8,
    FOR_RESERVE = 16,
    FOR_SETTLE = 32,
    FOR_BENCH = 64,
    FOR_OTHERS = 128,
    FOR_KEYS = FOR_CONSUME | FOR_PEEK | FOR_RESET | FOR_WAIT | FOR_RESERVE,
    FOR_LIMITS = FOR_KEYS | FOR_BENCH,
    FOR_STORES = FOR_LIMITS | FOR_SETTLE
};

enum { LIMITS_MAX = 64 };                /* of one key */
enum { OPERANDS_KEPT = LIMITS_MAX + 2 }; /* a RESERVATION and its ACTUALs, and the first unexpected argument */

struct limits {
    steady_limit all[LIMITS_MAX];
    size_t n;
};

struct options {
    int64_t capacity;   /* 0: not given */
    steady_us recharge; /* 0: not given */
    steady_limit rates[LIMITS_MAX];
    int n_rates;
    steady_us block;
    int64_t amount;
    steady_us max_wait; /* -1: not given */
    int64_t at_least;   /* 0: not given */
    bool charge;
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

/* Whether the options name a limit. */
bool options_have_limit(const struct options *options);

/* Builds the limits from the options. Without these options it is `usual`; if that is NULL, a limit is required.
 * ALLOWED, or USAGE after an error message. */
int options_limits(const struct options *options, const steady_limit *usual, struct limits *limits);

/* Checks --amount, --max-wait, --at-least and --charge together. ALLOWED, or USAGE after an error message. */
int options_check_waits(const struct options *options);

/* Reads a whole number from 0 to ACTUAL_MAX, and nothing else. */
#define ACTUAL_MAX (((int64_t)1 << 53) - 1)
bool options_read_actual(int64_t *actual, const char *value);

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

/* ---- describe.c: results as text and JSON ---- */

enum verb { CONSUME, PEEK, RESET, WAIT, RESERVE };

/* A decision, and what is said of it. */
struct decision {
    enum verb verb;
    const struct options *options;
    const struct limits *limits;
    const steady_result *result;
    bool asks_again; /* wait: the key is blocked, and it will ask again */
};

void describe(struct text *text, const struct decision *decision);
void describe_json(struct text *text, const struct decision *decision);
void describe_reservation(struct text *text, const steady_reservation *reservation);

/* A settled reservation; `parts` are those that were settled, `n` of them. `limits` has those of today, or none. */
void describe_settled(struct text *text, const steady_reservation *reservation, const struct limits *limits,
                      const steady_part_result *parts, size_t n);
void describe_settled_json(struct text *text, const steady_reservation *reservation, const steady_part_result *parts,
                           const steady_result *result);

/* ---- pause.c: sleeping, and signals that end it ---- */

/* From now on SIGHUP, SIGINT and SIGTERM wait for pause_for, unless they are ignored. */
void pause_hold_signals(void);

/* Sleeps. Returns 0, or the signal that came before the end. After 0 us it returns a signal that came before. */
int pause_for(steady_us us);

/* While it is on, a write that blocks fails with EINTR again and again, so that its caller can look for a held signal.
 * Without held signals it does nothing. */
void pause_interrupt_writes(bool on);

/* Whether a held signal has come. It stays: the next pause_for returns it. */
bool pause_signal_came(void);

/* Ends the process by this signal, so that a shell script ends, too. Otherwise (process 1) returns the exit code. */
int pause_end_by(int signal_number);

/* us of a clock that never steps. */
steady_us pause_now(void);

/* ---- daemon.c: the commands of steadyd ---- */

/* Whether this is one of them. */
bool daemon_has(const char *command);

/* Replaces the process by steadyd, which lies beside this program or in the PATH. Returns only if that fails. */
int daemon_run(char **argv);

/* ---- A function for each command ---- */

int run_consume(const struct options *options);
int run_peek(const struct options *options);
int run_reset(const struct options *options);
int run_wait(const struct options *options);
int run_reserve(const struct options *options);
int run_settle(const struct options *options);
int run_bench(const struct options *options);

#endif
