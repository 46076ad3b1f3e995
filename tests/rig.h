/* SPDX-License-Identifier: MIT
 * What tests of faults share: a server, a store on it, decisions that keep coming, and a watch on the loop.
 *
 * The limits are so large and leak so slowly that a bucket's level is exactly what was charged. */
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

/* For cmocka: a server and a poller; and all of it gone, with every descriptor that a test or the library opened. */
int rig_set_up(void **state);
int rig_tear_down(void **state);
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_set_up, rig_tear_down)

/* The store, on the server or at a URL. */
void rig_open(steady_us timeout);
void rig_open_at(const char *url, steady_us timeout);
void rig_close(void);

long long level(const char *key);
steady_stats stats(void);

/* What a single decision on the key "k" ends as. */
int ask_one(void);

/* Asks until there is a verdict, or fails the test. */
void warm_up(void);

/* Submits until there is a verdict; fails the test if there is none within a second. */
void assert_used_again(void);

/* Keeps so many in flight for so long, on the key "k"; then waits for the rest. */
void load(struct tally *tally, unsigned long in_flight, steady_us time);

/* Submits one each `pause` for as long; then waits for the rest. */
void trickle(struct tally *tally, steady_us pause, steady_us time);

/* A process that does `work` again and again. */
pid_t start_child(void (*work)(void));
void end_child(pid_t pid);

/* Fails the test where handlers of the library have held rig.loop for over 5 ms (more under a sanitizer) more than
 * once, waits for a processor left out. */
void assert_loop_never_held(void);
extern steady_us longest_held; /* since rig_set_up */

/* Fails the test where a decision was called back SLACK later than TIMEOUT, and where one in twenty of those that ended
 * by it were over 50 ms late (more under a sanitizer), waits for a processor left out. */
void assert_in_time(const struct tally *tally);

/* Fails the test where more than a tenth of the decisions took longer than AT_ONCE. Of a store whose timeout is
 * LONG_TIMEOUT they have waited for it, then. */
#define AT_ONCE (100 * MS)
#define LONG_TIMEOUT STEADY_SECOND
void assert_at_once(const struct tally *tally);

#endif
