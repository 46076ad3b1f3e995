/* SPDX-License-Identifier: MIT
 * The built-in loop: poll(2), and timers in the order in which they are due.
 *
 * steady_poller_wake writes to an eventfd (`bell`), which poll(2) watches too. A forked child shares the eventfd of its
 * parent. So its first run makes a new one, and returns at once in case a wake-up is lost.
 *
 * What is freed while callbacks run is only marked. It is removed when the outermost run ends. So a callback may free
 * its own handle or the poller, and may run the poller again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/list.h"
#include "loop/loop.h"

struct poll_io {
    struct steady__list place;
    steady_poller *poller;
    int fd;
    int wanted;
    int seen; /* events reported by the last poll(2) and not yet handed on */
    bool freed;
    void (*ready)(void *arg, int events);
    void *arg;
};

struct poll_timer {
    struct steady__list place; /* in timers while it runs, in idle while not */
    steady_poller *poller;
    steady_us due;
    bool freed;
    void (*fired)(void *arg);
    void *arg;
};

struct steady_poller {
    struct steady__list ios;
    struct steady__list timers; /* running, the next one first */
    struct steady__list idle;
    struct pollfd *fds; /* room for each of ios, and for the bell */
    size_t io_count, fd_room;
    unsigned depth; /* runs on the stack */
    bool freed;     /* the poller, or something in it */
    bool doomed;
    int bell;     /* -1: none */
    pid_t ringer; /* the process that made the bell */
    bool rang;
};

#define WAIT_MAX (365 * 86400 * STEADY_SECOND) /* a longer wait is without end */

#define IO(list) STEADY__OWNER(struct poll_io, place, list)
#define TIMER(list) STEADY__OWNER(struct poll_timer, place, list)

static steady_us poller_monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* ---- Descriptors ---- */

static int poller_make_room(steady_poller *poller) {
    if (poller->io_count + 1 < poller->fd_room) return 0;
    const size_t room = poller->fd_room > 0 ? poller->fd_room * 2 : 4;
    struct pollfd *fds = realloc(poller->fds, room * sizeof *fds);
    if (fds == NULL) return -1;
    poller->fds = fds;
    poller->fd_room = room;
    return 0;
}

static void *poller_io_new(void *loop, int fd, void (*ready)(void *arg, int events), void *arg) {
    steady_poller *poller = loop;
    if (poller_make_room(poller) != 0) return NULL;
    struct poll_io *io = calloc(1, sizeof *io);
    if (io == NULL) return NULL;
    io->poller = poller;
    io->fd = fd;
    io->ready = ready;
    io->arg = arg;
    steady__list_append(&poller->ios, &io->place);
    poller->io_count++;
    return io;
}

static int poller_io_want(void *handle, int events) {
    struct poll_io *io = handle;
    io->wanted = events;
    return 0;
}

static void poller_io_drop(struct poll_io *io) {
    steady__list_remove(&io->place);
    io->poller->io_count--;
    free(io);
}

static void poller_io_free(void *handle) {
    struct poll_io *io = handle;
    io->wanted = io->seen = 0;
    io->freed = io->poller->freed = true;
    if (io->poller->depth == 0) poller_io_drop(io);
}

/* ---- Timers ---- */

static void *poller_timer_new(void *loop, void (*fired)(void *arg), void *arg) {
    struct poll_timer *timer = calloc(1, sizeof *timer);
    if (timer == NULL) return NULL;
    timer->poller = loop;
    timer->fired = fired;
    timer->arg = arg;
    steady__list_append(&timer->poller->idle, &timer->place);
    return timer;
}

static void poller_timer_stop(void *handle) {
    struct poll_timer *timer = handle;
    steady__list_remove(&timer->place);
    steady__list_append(&timer->poller->idle, &timer->place);
}

/* Most new timers are due last, so the search starts at the end. */
static int poller_timer_start(void *handle, steady_us delay) {
    struct poll_timer *timer = handle;
    steady__list_remove(&timer->place);
    timer->due = poller_monotonic() + (delay < WAIT_MAX ? delay : WAIT_MAX);
    struct steady__list *before = timer->poller->timers.prev;
    while (before != &timer->poller->timers && TIMER(before)->due > timer->due)
        before = before->prev;
    steady__list_prepend(before, &timer->place);
    return 0;
}

static void poller_timer_drop(struct poll_timer *timer) {
    steady__list_remove(&timer->place);
    free(timer);
}

static void poller_timer_free(void *handle) {
    struct poll_timer *timer = handle;
    poller_timer_stop(timer);
    timer->freed = timer->poller->freed = true;
    if (timer->poller->depth == 0) poller_timer_drop(timer);
}

static const steady_loop_ops poll_ops = {
    .name = "poll",
    .io_new = poller_io_new,
    .io_want = poller_io_want,
    .io_free = poller_io_free,
    .timer_new = poller_timer_new,
    .timer_start = poller_timer_start,
    .timer_stop = poller_timer_stop,
    .timer_free = poller_timer_free,
};

/* ---- Running ---- */

int steady__poller_new_deaf(steady_poller **poller) {
    *poller = calloc(1, sizeof **poller);
    if (*poller == NULL) return STEADY_NO_MEMORY;
    steady__list_init(&(*poller)->ios);
    steady__list_init(&(*poller)->timers);
    steady__list_init(&(*poller)->idle);
    (*poller)->bell = -1;
    if (poller_make_room(*poller) == 0) return 0;
    steady_poller_free(poller);
    return STEADY_NO_MEMORY;
}

int steady_poller_new(steady_poller **poller) {
    if (poller == NULL) return STEADY_BAD_ARGUMENT;
    const int error = steady__poller_new_deaf(poller);
    if (error != 0) return error;
    (*poller)->ringer = getpid();
    (*poller)->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if ((*poller)->bell >= 0) return 0;
    steady_poller_free(poller);
    return STEADY_SYSTEM;
}

/* Async-signal-safe. If the write fails because the counter is full, the poller is already woken. */
void steady_poller_wake(steady_poller *poller) {
    const uint64_t once = 1;
    const int error = errno;
    if (poller != NULL && poller->bell >= 0) {
        const ssize_t written = write(poller->bell, &once, sizeof once);
        (void)written;
    }
    errno = error;
}

/* The descriptor keeps its number, because a signal handler may use it at any time. 0, or -1 with errno. */
static int poller_make_own_bell(steady_poller *poller) {
    if (poller->bell < 0 || poller->ringer == getpid()) return 0;
    const int fresh = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fresh < 0) return -1;
    const int error = dup3(fresh, poller->bell, O_CLOEXEC) < 0 ? errno : 0;
    close(fresh);
    errno = error;
    if (error != 0) return -1;
    poller->ringer = getpid();
    poller->rang = true;
    return 0;
}

steady_loop steady_poller_loop(steady_poller *poller) { return (steady_loop){.ops = &poll_ops, .loop = poller}; }

/* The bell comes last; poller_note ignores it. */
static size_t poller_fill(steady_poller *poller) {
    size_t n = 0;
    for (struct steady__list *p = poller->ios.next; p != &poller->ios; p = p->next) {
        const int wanted = IO(p)->wanted;
        if (wanted == 0) continue;
        poller->fds[n].fd = IO(p)->fd;
        poller->fds[n].events =
            (short)(((wanted & STEADY_READABLE) != 0 ? POLLIN : 0) | ((wanted & STEADY_WRITABLE) != 0 ? POLLOUT : 0));
        poller->fds[n++].revents = 0;
    }
    if (poller->bell >= 0) poller->fds[n++] = (struct pollfd){.fd = poller->bell, .events = POLLIN};
    return n;
}

static void poller_listen_to_bell(steady_poller *poller, size_t n) {
    eventfd_t times;
    if (poller->bell < 0 || (poller->fds[n - 1].revents & POLLIN) == 0) return;
    if (eventfd_read(poller->bell, &times) == 0) poller->rang = true;
}

/* Copies the events of poll(2), in the order of poller_fill. */
static void poller_note(steady_poller *poller) {
    size_t n = 0;
    for (struct steady__list *p = poller->ios.next; p != &poller->ios; p = p->next) {
        if (IO(p)->wanted == 0) continue;
        const short seen = poller->fds[n++].revents;
        IO(p)->seen = (seen & POLLIN ? STEADY_READABLE : 0) | (seen & POLLOUT ? STEADY_WRITABLE : 0);
        if (seen & (POLLERR | POLLHUP | POLLNVAL)) IO(p)->seen = STEADY_READABLE | STEADY_WRITABLE;
    }
}

static int poller_call_ready(steady_poller *poller) {
    int ran = 0;
    for (struct steady__list *p = poller->ios.next; p != &poller->ios; p = p->next) {
        const int seen = IO(p)->seen & IO(p)->wanted;
        IO(p)->seen = 0;
        if (seen == 0) continue;
        IO(p)->ready(IO(p)->arg, seen);
        ran++;
    }
    return ran;
}

/* This ends, because a timer that a callback restarts is due after `now`. */
static int poller_call_due(steady_poller *poller) {
    int ran = 0;
    const steady_us now = poller_monotonic();
    while (!steady__list_empty(&poller->timers) && TIMER(poller->timers.next)->due < now) {
        struct poll_timer *timer = TIMER(poller->timers.next);
        poller_timer_stop(timer);
        timer->fired(timer->arg);
        ran++;
    }
    return ran;
}

static void poller_sweep(steady_poller *poller) {
    for (struct steady__list *p = poller->ios.next, *next; p != &poller->ios; p = next) {
        next = p->next;
        if (IO(p)->freed) poller_io_drop(IO(p));
    }
    for (struct steady__list *p = poller->idle.next, *next; p != &poller->idle; p = next) {
        next = p->next;
        if (TIMER(p)->freed) poller_timer_drop(TIMER(p));
    }
    poller->freed = false;
}

/* The analyzer does not see that a dropped handle has left its list. */
/* NOLINTBEGIN(clang-analyzer-unix.Malloc) */
static void poller_drop_all(steady_poller *poller) {
    while (!steady__list_empty(&poller->ios))
        poller_io_drop(IO(poller->ios.next));
    while (!steady__list_empty(&poller->timers))
        poller_timer_drop(TIMER(poller->timers.next));
    while (!steady__list_empty(&poller->idle))
        poller_timer_drop(TIMER(poller->idle.next));
    if (poller->bell >= 0) close(poller->bell);
    free(poller->fds);
    free(poller);
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */

/* The time to wait, in us: until `until` (negative: without end) or until the next timer. */
static steady_us poller_wait_for(const steady_poller *poller, steady_us until) {
    if (!steady__list_empty(&poller->timers)) {
        const steady_us due = TIMER(poller->timers.next)->due + 1; /* poller_call_due needs it to be past */
        if (until < 0 || due < until) until = due;
    }
    if (until < 0) return -1;
    const steady_us now = poller_monotonic();
    return until > now ? until - now : 0;
}

/* One turn. Returns how many callbacks ran, or -1 with errno. */
static int poller_turn(steady_poller *poller, steady_us until) {
    const steady_us wait = poller_wait_for(poller, until);
    const struct timespec t = {(time_t)(wait / STEADY_SECOND), (long)(wait % STEADY_SECOND) * 1000};
    const size_t n = poller_fill(poller);
    if (ppoll(poller->fds, (nfds_t)n, wait < 0 ? NULL : &t, NULL) < 0) return -1;
    poller_listen_to_bell(poller, n);
    poller_note(poller);
    const int ran = poller_call_ready(poller);
    return ran + poller_call_due(poller);
}

int steady_poller_run(steady_poller *poller, steady_us max_wait) {
    int ran = 0;
    if (poller == NULL) return STEADY_BAD_ARGUMENT;
    const steady_us until = max_wait < 0 || max_wait > WAIT_MAX ? -1 : poller_monotonic() + max_wait;
    if (poller_make_own_bell(poller) != 0) return STEADY_SYSTEM;
    bool interrupted = false;
    poller->depth++;
    do {
        ran = poller_turn(poller, poller->rang ? 0 : until);
        interrupted = ran < 0 && errno == EINTR;
        if (interrupted) ran = 0;
    } while (ran == 0 && !interrupted && !poller->rang && !poller->doomed && (until < 0 || poller_monotonic() < until));
    poller->rang = false;
    poller->depth--;
    if (poller->depth == 0 && poller->doomed)
        poller_drop_all(poller);
    else if (poller->depth == 0 && poller->freed)
        poller_sweep(poller);
    return ran < 0 ? STEADY_SYSTEM : ran;
}

void steady_poller_free(steady_poller **poller) {
    if (poller == NULL || *poller == NULL) return;
    steady_poller *p = *poller;
    *poller = NULL;
    p->doomed = true;
    if (p->depth == 0) poller_drop_all(p);
}
