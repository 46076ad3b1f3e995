/* SPDX-License-Identifier: MIT
 * Shared by tests of faults: a server, a store on it, a load of decisions, and a watch on the loop.
 *
 * The limits are so large and leak so slowly that the level of a bucket is exactly what was charged. */
#ifndef RIG_H
#define RIG_H

#include "support.h"

#define MS STEADY_MILLISECOND
#define TIMEOUT (100 * MS)
#define LARGE 9000000 /* drops, one of which leaks each RECHARGE */
#define RECHARGE (1000 * STEADY_SECOND)

struct rig {
    struct server server;
    steady_poller *poller;
    steady_loop loop; /* the poller's, watched */
    struct log_lines log;
    steady_store *store;
    steady_throttler *throttler;
};
extern struct rig rig;

/* For cmocka. Set-up makes a server and a poller. Tear-down removes all, and checks that no descriptor is left open. */
int rig_set_up(void **state);
int rig_tear_down(void **state);
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_set_up, rig_tear_down)

/* Opens the store, on the server or at a URL. */
void rig_open(steady_us timeout);
void rig_open_at(const char *url, steady_us timeout);
void rig_open_without_memory(steady_us timeout); /* each decision asks the server */
void rig_close(void);

long long level(const char *key);
steady_stats stats(void);

/* Makes one decision on the key "k" and returns its error. */
int ask_one(void);

/* Makes decisions until there is a verdict, or fails the test. */
void warm_up(void);

/* Makes decisions until there is a verdict. Fails the test if there is none within a second. */
void assert_used_again(void);

/* Keeps `in_flight` decisions on the key "k" in flight for `time`, then waits for all. */
void load(struct tally *tally, unsigned long in_flight, steady_us time);

/* Submits a decision after each `pause` for `time`, then waits for all. */
void trickle(struct tally *tally, steady_us pause, steady_us time);

/* Forks a child that calls `work` again and again. */
pid_t start_child(void (*work)(void));
void end_child(pid_t pid);

/* Fails the test if handlers of the library have held rig.loop for over 5 ms (longer under a sanitizer) more than once.
 * Waits for a processor do not count. */
void assert_loop_never_held(void);
extern steady_us longest_held; /* since rig_set_up */

/* Fails the test if a callback came more than SLACK after TIMEOUT, or if many were late: over one in twenty of the
 * decisions that ended by their deadline, by over 50 ms (longer under a sanitizer). Waits for a processor do not count
 * as late. */
void assert_in_time(const struct tally *tally);

/* Fails the test if over a tenth of the decisions took longer than AT_ONCE. With a timeout of LONG_TIMEOUT, those have
 * waited for the timeout. */
#define AT_ONCE (100 * MS)
#define LONG_TIMEOUT STEADY_SECOND
void assert_at_once(const struct tally *tally);

#endif
