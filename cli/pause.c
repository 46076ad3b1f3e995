/* SPDX-License-Identifier: MIT
 * Sleeps for a place in line, and ends in an orderly way if a signal comes. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

#include "cli.h"

static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
enum { N_SIGNALS = sizeof signals / sizeof signals[0] };

/* A signal that was ignored when the command started stays ignored: nohup, or a job in the background. */
static void pause_add_signals(sigset_t *set) {
    sigemptyset(set);
    for (int i = 0; i < N_SIGNALS; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(set, signals[i]);
    }
}

static bool holds; /* pause_hold_signals was called */

void pause_hold_signals(void) {
    sigset_t set;
    pause_add_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    holds = true;
}

/* ---- Writing ---- */

static void pause_do_nothing(int signal_number) { (void)signal_number; }

/* One interruption is not enough: it may come just before the write begins. */
void pause_interrupt_writes(bool on) {
    static const struct timeval off = {0, 0}, period = {0, 50000};
    const struct itimerval timer = {on ? period : off, on ? period : off};
    const struct sigaction action = {.sa_handler = pause_do_nothing}; /* without SA_RESTART */
    sigset_t set;
    if (!holds) return;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    if (on) {
        sigaction(SIGALRM, &action, NULL);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
    setitimer(ITIMER_REAL, &timer, NULL);
}

bool pause_signal_came(void) {
    sigset_t set;
    if (!holds || sigpending(&set) != 0) return false;
    for (int i = 0; i < N_SIGNALS; i++)
        if (sigismember(&set, signals[i]) == 1) return true;
    return false;
}

/* ---- Sleeping ---- */

/* CLOCK_BOOTTIME goes on while the host is suspended, as the clocks of the stores do. */
steady_us pause_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

int pause_for(steady_us us) {
    static const steady_us longest = STEADY_SECOND; /* sigtimedwait does not count the time of a suspended host */
    const steady_us end = pause_now() + us;
    sigset_t set;
    pause_add_signals(&set);
    for (steady_us left = us;; left = end - pause_now()) {
        const steady_us step = left < 0 ? 0 : left < longest ? left : longest;
        const struct timespec time = {.tv_sec = (time_t)(step / STEADY_SECOND),
                                      .tv_nsec = (long)(step % STEADY_SECOND * 1000)};
        const int got = sigtimedwait(&set, NULL, &time);
        if (got > 0) return got;
        if (left <= 0 && errno != EINTR) return 0;
    }
}

int pause_end_by(int signal_number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    raise(signal_number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return 128 + signal_number;
}
