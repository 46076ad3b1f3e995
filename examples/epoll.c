/* SPDX-License-Identifier: MIT
 * Steady on an epoll loop of your own: the eight functions of steady_loop_ops, on one epoll descriptor. A timer is a
 * timerfd, so each watched thing is a descriptor with a callback.
 *
 * An event may be reported in the same turn in which its watch is freed. So a freed watch stays in memory until the
 * turn is over, and its callback is not called.
 *
 * cc epoll.c $(pkg-config --cflags --libs steady) && ./a.out [URL] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_IN_A_TURN 64

struct loop {
    int epoll;
    struct watch *freed; /* in this turn */
};

struct watch {
    struct loop *loop;
    int fd; /* of the library, or a timerfd */
    void (*ready)(void *arg, int events);
    void (*fired)(void *arg); /* NULL: not a timer */
    void *arg;
    bool is_freed;
    struct watch *next_freed;
};

/* ---- The functions of steady_loop_ops ---- */

static struct watch *watch_new(struct loop *loop, int fd, void *arg, uint32_t events) {
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return NULL;
    *watch = (struct watch){.loop = loop, .fd = fd, .arg = arg};
    struct epoll_event event = {.events = events, .data = {.ptr = watch}};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0) return watch;
    free(watch);
    return NULL;
}

static void watch_free(struct watch *watch) {
    epoll_ctl(watch->loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->is_freed = true;
    watch->next_freed = watch->loop->freed;
    watch->loop->freed = watch;
}

static void *io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    struct watch *watch = watch_new(loop, fd, arg, 0);
    if (watch != NULL) watch->ready = ready;
    return watch;
}

static int io_want(void *io, int events) {
    struct watch *watch = io;
    struct epoll_event event = {.data = {.ptr = watch}};
    if ((events & STEADY_READABLE) != 0) event.events |= EPOLLIN;
    if ((events & STEADY_WRITABLE) != 0) event.events |= EPOLLOUT;
    return epoll_ctl(watch->loop->epoll, EPOLL_CTL_MOD, watch->fd, &event);
}

static void io_free(void *io) { watch_free(io); }

static void *timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct watch *watch = fd >= 0 ? watch_new(loop, fd, arg, EPOLLIN) : NULL;
    if (watch != NULL)
        watch->fired = fired;
    else if (fd >= 0)
        close(fd);
    return watch;
}

static int timer_set(void *timer, steady_us delay) {
    const struct timespec time = {(time_t)(delay / STEADY_SECOND), (long)(delay % STEADY_SECOND) * 1000};
    return timerfd_settime(((struct watch *)timer)->fd, 0, &(struct itimerspec){.it_value = time}, NULL);
}

/* Zero would disarm the timerfd, so a delay of 0 becomes 1 us. */
static int timer_start(void *timer, steady_us delay) { return timer_set(timer, delay > 0 ? delay : 1); }

static void timer_stop(void *timer) { timer_set(timer, 0); }

static void timer_free(void *timer) {
    watch_free(timer);
    close(((struct watch *)timer)->fd);
}

static const steady_loop_ops ops = {.name = "epoll",
                                    .io_new = io_new,
                                    .io_want = io_want,
                                    .io_free = io_free,
                                    .timer_new = timer_new,
                                    .timer_start = timer_start,
                                    .timer_stop = timer_stop,
                                    .timer_free = timer_free};

/* ---- The loop ---- */

static void on_event(const struct watch *watch, uint32_t events) {
    uint64_t times;
    int seen = 0;
    if (watch->is_freed) return;
    if (watch->fired != NULL) {
        /* A callback earlier in this turn may have stopped the timer; then there is nothing to read. */
        if (read(watch->fd, &times, sizeof times) == (ssize_t)sizeof times) watch->fired(watch->arg);
        return;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) seen = STEADY_READABLE | STEADY_WRITABLE;
    if ((events & EPOLLIN) != 0) seen |= STEADY_READABLE;
    if ((events & EPOLLOUT) != 0) seen |= STEADY_WRITABLE;
    watch->ready(watch->arg, seen);
}

static void end_turn(struct loop *loop) {
    while (loop->freed != NULL) {
        struct watch *watch = loop->freed;
        loop->freed = watch->next_freed;
        free(watch);
    }
}

/* Waits until something happens, and runs the callbacks. False: epoll failed. */
static bool turn(struct loop *loop) {
    struct epoll_event events[EVENTS_IN_A_TURN];
    const int count = epoll_wait(loop->epoll, events, EVENTS_IN_A_TURN, -1);
    for (int i = 0; i < count; i++)
        on_event(events[i].data.ptr, events[i].events);
    end_turn(loop);
    return count >= 0;
}

/* ---- The program: three decisions ---- */

struct app {
    int called, verdicts;
};

static void answered(const steady_result *result, void *data) {
    struct app *app = data;
    app->called++;
    app->verdicts += result->error == 0;
    if (result->error != 0)
        printf("no answer: %s\n", steady_error_text(result->error));
    else
        printf("%s, level %lld\n", result->success ? "allowed" : "denied", (long long)result->level);
}

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("REDIS_URL"); /* neither: the embedded store */
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 5 * STEADY_SECOND};
    struct loop mine = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    const steady_loop loop = {.ops = &ops, .loop = &mine};
    const steady_store_options options = {.loop = &loop};
    struct app app = {0, 0};
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    int asked = 0;

    int error = steady_store_open(&store, url, &options, &why);
    if (error == 0) error = steady_throttler_new(&throttler, store, &limit, NULL, &why);
    while (error == 0 && asked < 3) {
        error = steady_consume(throttler, "user:42", 7, 1, answered, &app);
        asked += error == 0;
    }
    if (error != 0) fprintf(stderr, "%s: %s\n", steady_error_text(error), why.text);
    while (app.called < asked && turn(&mine))
        ;

    steady_throttler_free(&throttler);
    steady_store_close(&store); /* frees its watches */
    end_turn(&mine);
    close(mine.epoll);
    return app.verdicts == 3 ? 0 : 1;
}
