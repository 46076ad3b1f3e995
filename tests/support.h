/* SPDX-License-Identifier: MIT
 * What tests share: a redis-server of their own, a command to it, decisions that count their callbacks, time. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "assertions.h"
#include "steady.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define HOUR (3600 * STEADY_SECOND)

steady_us now_us(void);
void sleep_us(steady_us us);

/* A port that is free, and that no other test of this machine is given while this process runs. */
int free_port(void);

/* ---- A redis-server ---- */

struct server {
    pid_t pid; /* 0: not running */
    int port;
    char dir[64];      /* its own; gone after server_stop */
    char url[64];      /* redis:// */
    char unix_url[96]; /* unix: */
    char options[512]; /* of its command line */
};

/* Starts one and waits until it answers; options may be NULL. It dies with the test program. The program is
 * $REDIS_SERVER where that is set: another server, or one with a command before it. */
void server_start(struct server *server, const char *options);
/* Starts it again on its port, as it was; `wait`: until it answers. */
void server_restart(struct server *server, bool wait);
void server_kill(struct server *server); /* SIGKILL */
void server_stop(struct server *server); /* the same, and its directory is removed */
void server_freeze(struct server *server);
void server_thaw(struct server *server);

/* A command, on a connection of its own; format as in redisCommand. What came back as text: an integer in decimal, an
 * array with spaces between, nil as "(nil)", an error with '-' before it. Valid until the next call. */
const char *server_ask(const struct server *server, const char *format, ...);
long long server_stat(const struct server *server, const char *field); /* a number out of INFO */

/* ---- Decisions ---- */

#define TOOK_STEP (10 * STEADY_MILLISECOND)
#define TOOK_STEPS 100

/* What callbacks were called with. Callbacks of one tally are counted together. */
struct tally {
    unsigned long submitted;
    unsigned long called;
    unsigned long verdicts, allowed, denied;
    unsigned long errors[16]; /* by -error */
    steady_result last;
    steady_us slowest;                  /* from submit to callback */
    unsigned long took[TOOK_STEPS + 1]; /* by TOOK_STEP, waits for a processor left out; last: longer */
};

/* How many took longer; `than` is a multiple of TOOK_STEP. */
unsigned long slower(const struct tally *tally, steady_us than);

/* For how long the thread that runs the loop has waited for a processor, where somebody keeps watch (tests/rig.c). */
extern steady_us waited_for_processor;

/* One of them: count_result frees it. */
void *expect_result(struct tally *tally);
void count_result(const steady_result *result, void *data);

/* Tallies live in the stack frames of tests. Of a test that has failed nothing is left to count in. */
void forget_tallies(bool gone);

/* Submits, and counts. Fails the test where submitting does. */
void consume_counted(steady_throttler *throttler, const char *key, int64_t amount, struct tally *tally);

/* Opens, or fails the test. */
steady_store *open_store(const char *url, const steady_store_options *options);
steady_throttler *new_throttler(steady_store *store, int64_t capacity, steady_us recharge);

/* Runs the poller until all that was submitted has been called back, for at most `limit`. */
void run_until_done(steady_poller *poller, const struct tally *tally, steady_us limit);
void run_for(steady_poller *poller, steady_us time);

/* ---- Faults ---- */

/* How long a fault lasts: briefly in `make test`, at length in `make faults`. */
steady_us how_long(steady_us briefly, steady_us at_length);

/* Fails the test unless what a bucket that never drains was charged is what was allowed, and at most what ended as
 * unknown more. `make faults` shows the sums: what is missing counts as lost, what is too much as doubled. */
void account(const struct tally *tally, long long charged);
/* The same where the fault may lose some: at most so many. */
void account_lost(const struct tally *tally, long long charged, long long most);

/* ---- A log that remembers ---- */

struct log_lines {
    unsigned lines, warnings;
    char last[512];
    char all[4096];
};
void remember_line(void *log_lines, enum steady_log_level level, const char *text);

/* How late a deadline may be seen to be kept on two busy cores. The next thing that would end a decision, were its
 * deadline not kept, is the stall limit, 300 ms after it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLACK (250 * STEADY_MILLISECOND)
#else
#define SLACK (150 * STEADY_MILLISECOND)
#endif

#endif
