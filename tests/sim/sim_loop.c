/* SPDX-License-Identifier: MIT
 * An event loop over the simulated network and time. */
#include "sim_loop.h"

#include "sim_net.h"

#define ITEMS_MAX 256

struct sim_io {
    struct sim_io *next;
    struct sim_loop *loop;
    int fd, want;
    bool freed;
    void (*ready)(void *arg, int events);
    void *arg;
};

struct sim_timer {
    struct sim_timer *next;
    struct sim_loop *loop;
    steady_us fires_at; /* NEVER: not started */
    bool freed;
    void (*fired)(void *arg);
    void *arg;
};

/* A descriptor or timer that is ready in this turn. */
struct item {
    struct sim_io *io;
    struct sim_timer *timer;
    int events;
};

static const struct sim_loop *running; /* NULL: none */

static void turn(void *arg);

steady_us sim_loop_now(const struct sim_loop *loop) { return loop->local > world.now ? loop->local : world.now; }

steady_us sim_loop_running_now(void) { return running != NULL ? sim_loop_now(running) : world.now; }

void sim_loop_wake(struct sim_loop *loop, steady_us when) {
    if (when < loop->local) when = loop->local;
    if (when >= loop->wake_at) return;
    loop->wake_at = when;
    at(when, turn, loop);
}

void sim_loop_block(struct sim_loop *loop, steady_us time) {
    const steady_us now = sim_loop_now(loop);
    if (time > world.calm_at - now) time = world.calm_at > now ? world.calm_at - now : 0;
    loop->local = now + time;
    loop->stalled += time;
    note("the loop stands still", time, 0, 0);
}

/* ---- Turning ---- */

static size_t collect_ios(struct sim_loop *loop, struct item *items, size_t n) {
    for (struct sim_io **place = &loop->ios; *place != NULL;) {
        struct sim_io *io = *place;
        if (io->freed) {
            *place = io->next;
            continue;
        }
        int events = sim_net_ready(io->fd, world.now);
        if ((io->want & STEADY_READABLE) != 0 && one_in(500)) events |= STEADY_READABLE; /* a false alarm */
        if (events != 0 && n < ITEMS_MAX) items[n++] = (struct item){.io = io, .events = events};
        place = &io->next;
    }
    return n;
}

static size_t collect_timers(struct sim_loop *loop, struct item *items, size_t n) {
    for (struct sim_timer **place = &loop->timers; *place != NULL;) {
        struct sim_timer *timer = *place;
        if (timer->freed) {
            *place = timer->next;
            continue;
        }
        if (timer->fires_at <= world.now && n < ITEMS_MAX) items[n++] = (struct item){.timer = timer};
        place = &timer->next;
    }
    return n;
}

static void shuffle(struct item *items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const size_t j = (size_t)between(0, (int64_t)i);
        const struct item item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

/* An earlier handler of the turn may have freed, stopped or restarted this item. */
static void run_item(const struct item *item) {
    if (item->io != NULL) {
        const bool hung_up = item->events == (STEADY_READABLE | STEADY_WRITABLE);
        const int events = hung_up && item->io->want != 0 ? item->events : item->events & item->io->want;
        if (!item->io->freed && events != 0) item->io->ready(item->io->arg, events);
    } else if (!item->timer->freed && item->timer->fires_at <= world.now) {
        item->timer->fires_at = NEVER;
        item->timer->fired(item->timer->arg);
    }
}

static void arm(struct sim_loop *loop) {
    for (const struct sim_timer *timer = loop->timers; timer != NULL; timer = timer->next)
        if (!timer->freed && timer->fires_at != NEVER) sim_loop_wake(loop, timer->fires_at);
    for (const struct sim_io *io = loop->ios; io != NULL; io = io->next) {
        if (io->freed) continue;
        if ((sim_net_ready(io->fd, sim_loop_now(loop)) & io->want) != 0)
            sim_loop_wake(loop, sim_loop_now(loop) + between(1, 20));
        else if (sim_net_next(io->fd) > sim_loop_now(loop))
            sim_loop_wake(loop, sim_net_next(io->fd));
    }
}

static void turn(void *arg) {
    struct sim_loop *loop = arg;
    struct item items[ITEMS_MAX];
    if (loop->wake_at <= world.now) loop->wake_at = NEVER;
    if (world.now < loop->local) {
        sim_loop_wake(loop, loop->local);
        return;
    }
    const size_t n = collect_timers(loop, items, collect_ios(loop, items, 0));
    shuffle(items, n);
    running = loop;
    for (size_t i = 0; i < n; i++)
        run_item(&items[i]);
    running = NULL;
    arm(loop);
}

/* ---- Calls of the library ---- */

static void *io_new(void *arg, int fd, void (*ready)(void *arg, int events), void *ready_arg) {
    struct sim_loop *loop = arg;
    if (loop->io_fails_one_in > 0 && one_in(loop->io_fails_one_in)) return NULL;
    struct sim_io *io = keep(sizeof *io);
    *io = (struct sim_io){.next = loop->ios, .loop = loop, .fd = fd, .ready = ready, .arg = ready_arg};
    loop->ios = io;
    loop->io_count++;
    return io;
}

static int io_want(void *arg, int events) {
    struct sim_io *io = arg;
    if (io->freed) broken("a watch is used after it was freed");
    io->want = events;
    if (events != 0) sim_loop_wake(io->loop, sim_loop_now(io->loop) + between(0, 20));
    return 0;
}

static void io_free(void *arg) {
    struct sim_io *io = arg;
    if (io->freed) broken("a watch is freed twice");
    if (!sim_net_is_open(io->fd)) broken("a descriptor is closed before its watch is freed");
    io->freed = true;
    io->loop->io_count--;
}

static void *timer_new(void *arg, void (*fired)(void *arg), void *fired_arg) {
    struct sim_loop *loop = arg;
    struct sim_timer *timer = keep(sizeof *timer);
    *timer =
        (struct sim_timer){.next = loop->timers, .loop = loop, .fires_at = NEVER, .fired = fired, .arg = fired_arg};
    loop->timers = timer;
    loop->timer_count++;
    return timer;
}

static int timer_start(void *arg, steady_us delay) {
    struct sim_timer *timer = arg;
    if (timer->freed) broken("a timer is used after it was freed");
    if (delay < 0) broken("a timer is set for %lld us", (long long)delay);
    const steady_us late =
        timer->loop->late > 0 && world.now < world.calm_at && one_in(4) ? between(0, timer->loop->late) : 0;
    timer->fires_at = sim_loop_now(timer->loop) + delay + late;
    sim_loop_wake(timer->loop, timer->fires_at);
    return 0;
}

static void timer_stop(void *arg) {
    struct sim_timer *timer = arg;
    if (timer->freed) broken("a timer is used after it was freed");
    timer->fires_at = NEVER;
}

static void timer_free(void *arg) {
    struct sim_timer *timer = arg;
    if (timer->freed) broken("a timer is freed twice");
    timer->freed = true;
    timer->loop->timer_count--;
}

static steady_us loop_now(void *arg) { return sim_loop_now(arg); }

static const steady_loop_ops ops = {.name = "simulated",
                                    .io_new = io_new,
                                    .io_want = io_want,
                                    .io_free = io_free,
                                    .timer_new = timer_new,
                                    .timer_start = timer_start,
                                    .timer_stop = timer_stop,
                                    .timer_free = timer_free,
                                    .now = loop_now};

void sim_loop_init(struct sim_loop *loop, steady_us late) {
    *loop = (struct sim_loop){.late = late, .wake_at = NEVER};
    loop->api = (steady_loop){.ops = &ops, .loop = loop};
}
