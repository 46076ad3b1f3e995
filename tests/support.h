/* SPDX-License-Identifier: MIT
 * Shared by all tests: a redis-server of their own, commands to it, decisions whose callbacks are counted, and time. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "assertions.h"
#include "last_error.h"
#include "steady.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define HOUR (3600 * STEADY_SECOND)

steady_us now_us(void);
void sleep_us(steady_us us);

/* How long the threads of this process and its servers have waited for a processor. Subtract two readings. A reading
 * is at most 1 ms old. 0 if the kernel does not count it. */
steady_us taken_away(void);

/* A free port. No other test on this machine gets it while this process runs. */
int free_port(void);

/* ---- A redis-server ---- */

struct server {
    pid_t pid; /* 0: not running */
    int port;
    char dir[64];      /* a directory of its own, removed by server_stop */
    char url[64];      /* redis:// */
    char unix_url[96]; /* unix: */
    char options[512]; /* on its command line */
};

/* Starts a server and waits until it answers. options may be NULL. The server ends with the test program.
 * $REDIS_SERVER, if set, is the program: another server, or a server with a command before it. */
void server_start(struct server *server, const char *options);

/* The module of this build, and the options of a server that loads it. */
const char *module_path(void);
const char *module_options(void);
/* Starts the server again on its port with its options. wait: until it answers. */
void server_restart(struct server *server, bool wait);
void server_kill(struct server *server); /* SIGKILL */
void server_stop(struct server *server); /* server_kill, and removes its directory */
void server_freeze(struct server *server);
void server_thaw(struct server *server);

/* Sends a command on a connection of its own. The format is that of redisCommand. Returns the reply as text: an integer
 * in decimal, an array with spaces between its values, nil as "(nil)", an error with '-' before it. Valid until the
 * next call. */
const char *server_ask(const struct server *server, const char *format, ...);
long long server_stat(const struct server *server, const char *field); /* a number from INFO */

/* ---- Decisions ---- */

#define TOOK_STEP (10 * STEADY_MILLISECOND)
#define TOOK_STEPS 100

/* The results of callbacks. The callbacks of one tally are counted together. */
struct tally {
    unsigned long submitted;
    unsigned long called;
    unsigned long verdicts, allowed, denied;
    unsigned long errors[32]; /* indexed by -error */
    steady_result last;
    steady_us slowest;                  /* from submit to callback */
    steady_us taken_away;               /* meanwhile */
    unsigned long took[TOOK_STEPS + 1]; /* by TOOK_STEP, without what was taken away; last: all longer ones */
};

/* The number of decisions that took longer. `than` is a multiple of TOOK_STEP. */
unsigned long slower(const struct tally *tally, steady_us than);

/* How long the thread of the loop has waited for a processor. Only tests/rig.c measures it. */
extern steady_us waited_for_processor;

/* The data of one callback. count_result frees it. */
void *expect_result(struct tally *tally);
void count_result(const steady_result *result, void *data);

/* Tallies live in the stack frames of tests. After a failed test its callbacks must not count any more. */
void forget_tallies(bool gone);

/* Submits a decision and counts it. Fails the test if the decision cannot be submitted. */
void consume_counted(steady_throttler *throttler, const char *key, int64_t amount, struct tally *tally);

/* Fails the test if a decision has no verdict. Exception: the machine took away half of `timeout` from the slowest.
 * Then one in ten may have ended at the deadline, and a line says so. */
void assert_all_answered(const struct tally *tally, steady_us timeout);

/* Opens a store, or fails the test. */
steady_store *open_store(const char *url, const steady_store_options *options);
steady_throttler *new_throttler(steady_store *store, int64_t capacity, steady_us recharge);

/* Runs the poller until each submitted decision has been called back, for at most `limit`. */
void run_until_done(steady_poller *poller, const struct tally *tally, steady_us limit);
void run_for(steady_poller *poller, steady_us time);

/* ---- Faults ---- */

/* The duration of a fault: `briefly` in `make test`, `at_length` in `make faults`. */
steady_us how_long(steady_us briefly, steady_us at_length);

/* For a bucket that never drains. Fails the test unless the drops charged are at least those allowed, and at most those
 * allowed plus those unknown. `make faults` shows the sums: missing drops count as lost, surplus drops as doubled. */
void account(const struct tally *tally, long long charged);
/* The same, if the fault may lose drops: at most `most`. */
void account_lost(const struct tally *tally, long long charged, long long most);

/* ---- A log that keeps its lines ---- */

struct log_lines {
    unsigned lines, warnings;
    char last[512];
    char all[4096];
};
void remember_line(void *log_lines, enum steady_log_level level, const char *text);

/* How late a test may see a deadline kept, on two busy cores. Without the deadline, the stall limit would end the
 * decision, 300 ms later. Add what the machine took away. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLACK (250 * STEADY_MILLISECOND)
#else
#define SLACK (150 * STEADY_MILLISECOND)
#endif

/* Of the slowest decision. */
#define SLACK_OF(tally) (SLACK + (tally).taken_away)
/* Since taken_away() was `before`. */
static inline steady_us slack_since(steady_us before) { return SLACK + taken_away() - before; }

#endif
