/* SPDX-License-Identifier: MIT
 * The window of a connection in a model of clients, a network and a server, without a real clock: how many requests are
 * answered in time, and how many are written and answered too late. */
#include "conn/window.h"

#include <stdlib.h>

#include "assertions.h"

#define MS STEADY_MILLISECOND
#define QUEUE 65536 /* the most that may be in flight */
#define SECONDS 4   /* the first second is not counted */

/* The constants of a scene. */
struct scene {
    int clients;
    steady_us timeout, round_trip;
    steady_us turn;       /* of a client's loop */
    double asked;         /* a second, by all clients together */
    double served;        /* a second, at most */
    steady_us frozen_for; /* the server, in the middle of the third second */
    unsigned slower_by;   /* the server, from the middle of the second second on */
    steady_us apart;      /* the time between the joins of two clients */
    steady_us farther_by; /* the server, from the middle of the second second on */
};

struct sent {
    steady_us since, deadline, back; /* back: when the reply arrives */
    uint32_t ahead;
};

struct client {
    struct steady__window window;
    steady_us waiting[QUEUE]; /* when they were asked */
    struct sent pipeline[QUEUE];
    uint64_t first, last; /* of the requests that wait */
    uint64_t head, tail;  /* of the pipeline */
    double owed;          /* the fraction of a decision that is still to be asked */
};

struct outcome {
    unsigned long asked, in_time, late, unasked;
    unsigned long most_late; /* in 10 ms */
    uint32_t smallest;       /* window */
};

static struct client *all;
static struct outcome outcome;
static const struct scene *scene;
static double server_free; /* when the server has finished its queue */

static bool counts(steady_us now) { return now >= STEADY_SECOND; }

/* The server serves requests in the order of arrival. */
static steady_us reply_at(steady_us now) {
    const steady_us stop = 2500 * MS, slow = 1500 * MS;
    const double arrives = (double)(now + scene->round_trip / 2);
    double each = 1e6 / scene->served;
    if (scene->slower_by > 0 && now >= slow) each *= scene->slower_by;
    if (server_free < arrives) server_free = arrives;
    if (scene->frozen_for > 0 && server_free >= (double)stop && server_free < (double)(stop + scene->frozen_for))
        server_free = (double)(stop + scene->frozen_for);
    server_free += each;
    return (steady_us)server_free + scene->round_trip / 2 + (now >= slow ? scene->farther_by : 0);
}

static void read_replies(struct client *c, steady_us now) {
    for (; c->head < c->tail && c->pipeline[c->head % QUEUE].back <= now; c->head++) {
        const struct sent *s = &c->pipeline[c->head % QUEUE];
        steady__window_answered(&c->window, s->ahead, now - s->since);
        if (!counts(now)) continue;
        outcome.in_time += now < s->deadline;
        outcome.late += now >= s->deadline;
    }
}

static void write_requests(struct client *c, steady_us now) {
    if (c->first == c->last) return;
    const struct sent *oldest = &c->pipeline[c->head % QUEUE];
    const bool idle = c->head == c->tail;
    const steady_us age = idle ? 0 : now - oldest->since;
    steady__window_look(&c->window, c->head, c->tail, idle ? 0 : oldest->ahead, age);
    if (counts(now) && c->window.size < outcome.smallest) outcome.smallest = c->window.size;
    for (; c->first < c->last; c->first++) {
        const steady_us deadline = c->waiting[c->first % QUEUE] + scene->timeout;
        const uint32_t ahead = (uint32_t)(c->tail - c->head);
        c->window.was_full = ahead >= c->window.size;
        if (c->window.was_full) return;
        if (now + steady__window_expected_latency(&c->window, age) >= deadline)
            outcome.unasked += counts(now);
        else
            c->pipeline[c->tail++ % QUEUE] = (struct sent){now, deadline, reply_at(now), ahead};
    }
}

static void ask(struct client *c, steady_us now) {
    for (c->owed += scene->asked / scene->clients * (double)scene->turn / 1e6; c->owed >= 1; c->owed--) {
        outcome.asked += counts(now);
        if (c->last - c->first + c->tail - c->head < QUEUE)
            c->waiting[c->last++ % QUEUE] = now;
        else
            outcome.unasked += counts(now);
    }
}

static void play(const struct scene *what) {
    scene = what;
    server_free = 0;
    outcome = (struct outcome){.smallest = UINT32_MAX};
    all = calloc((size_t)scene->clients, sizeof *all);
    assert_non_null(all);
    for (int i = 0; i < scene->clients; i++)
        steady__window_open(&all[i].window, scene->timeout, scene->round_trip + scene->turn);
    for (steady_us now = 0; now < SECONDS * STEADY_SECOND; now += 100) {
        for (int i = 0; i < scene->clients; i++) {
            if ((now + 100 * i) % scene->turn != 0 || now < i * scene->apart) continue;
            read_replies(&all[i], now);
            ask(&all[i], now);
            write_requests(&all[i], now);
        }
    }
    free(all);
    print_message("# %lu asked: %lu answered in time, %lu late, %lu not sent; smallest window %u\n", outcome.asked,
                  outcome.in_time, outcome.late, outcome.unasked, outcome.smallest);
}

/* In percent of what the server can serve in the seconds that count, and of what is asked. */
static double busy(void) { return 100 * (double)outcome.in_time / (scene->served * (SECONDS - 1)); }
static double in_time(void) { return 100 * (double)outcome.in_time / (double)outcome.asked; }
static double late(void) { return 100 * (double)outcome.late / (double)outcome.asked; }

static void assert_nothing_missed(struct scene what) {
    play(&what);
    assert_true(in_time() > 99 && late() < 0.2);
}

static void assert_busy(struct scene what, int percent) {
    play(&what);
    assert_true(busy() > percent && late() < (100 - percent) / 10.0);
}

/* ---- Load below the server's rate ---- */

static void near_and_distant_server_answers_in_time(void **state) {
    (void)state;
    for (steady_us round_trip = 100; round_trip <= 85 * MS; round_trip += 5 * MS)
        assert_nothing_missed((struct scene){1, 100 * MS, round_trip, MS, 40000, 50000, 0, 0, 0, 0});
}

/* The program is outside the loop for most of the time. */
static void client_with_long_turns_is_answered_in_time(void **state) {
    (void)state;
    for (steady_us turn = 10 * MS; turn <= 70 * MS; turn += 20 * MS)
        assert_nothing_missed((struct scene){1, 100 * MS, 100, turn, 40000, 50000, 0, 0, 0, 0});
}

static void several_clients_are_answered_in_time(void **state) {
    (void)state;
    for (int clients = 2; clients <= 32; clients *= 2)
        assert_nothing_missed((struct scene){clients, 100 * MS, 100, MS, 40000, 50000, 0, 0, 0, 0});
}

/* While the server is frozen, only the requests that it could not serve are lost. */
static void frozen_server_costs_only_what_it_could_not_serve(void **state) {
    (void)state;
    play(&(struct scene){1, 100 * MS, 100, MS, 40000, 50000, 60 * MS, 0, 0, 0});
    assert_true(in_time() > 98);
    play(&(struct scene){1, 100 * MS, 100, MS, 40000, 50000, 300 * MS, 0, 0, 0});
    assert_true(in_time() > 88 && late() < 1);
}

/* ---- Load above the server's rate ---- */

static void overloaded_server_stays_busy(void **state) {
    (void)state;
    for (double asked = 51000; asked < 2000000; asked *= 1.5)
        assert_busy((struct scene){1, 100 * MS, 100, MS, asked, 50000, 0, 0, 0, 0}, 98);
}

static void slow_overloaded_server_stays_busy(void **state) {
    (void)state;
    for (double served = 100000; served > 1000; served /= 2)
        assert_busy((struct scene){1, 100 * MS, 100, MS, 4 * served, served, 0, 0, 0, 0}, 98);
    assert_busy((struct scene){1, 100 * MS, 100, MS, 10000, 500, 0, 0, 0, 0}, 98);
}

static void overloaded_server_stays_busy_at_any_timeout(void **state) {
    (void)state;
    for (steady_us timeout = 5 * MS; timeout < 2 * STEADY_SECOND; timeout *= 2)
        assert_busy((struct scene){1, timeout, 100, 200, 150000, 50000, 0, 0, 0, 0}, 95);
}

static void distant_overloaded_server_stays_busy(void **state) {
    (void)state;
    for (steady_us round_trip = 5 * MS; round_trip <= 65 * MS; round_trip += 5 * MS)
        assert_busy((struct scene){1, 100 * MS, round_trip, MS, 100000, 50000, 0, 0, 0, 0}, 98);
}

static void server_overloaded_by_many_clients_stays_busy(void **state) {
    (void)state;
    for (int clients = 2; clients <= 32; clients *= 2)
        assert_busy((struct scene){clients, 100 * MS, 100, MS, 150000, 50000, 0, 0, 0, 0}, 95);
}

/* Each client finds the queues of the clients before it, and takes them for network latency. */
static void server_overloaded_by_clients_that_join_later_stays_busy(void **state) {
    (void)state;
    for (steady_us round_trip = 100; round_trip <= 40 * MS; round_trip += 13 * MS)
        assert_busy((struct scene){16, 100 * MS, round_trip, MS, 800000, 50000, 0, 0, 200 * MS, 0}, 70);
}

static void overloaded_server_that_freezes_is_busy_again(void **state) {
    (void)state;
    assert_busy((struct scene){1, 100 * MS, 100, MS, 150000, 50000, 300 * MS, 0, 0, 0}, 85);
}

/* The clock of a caller's loop may be set back. */
static void clock_set_back_keeps_the_window_usable(void **state) {
    struct steady__window window;
    (void)state;
    steady__window_open(&window, 100 * MS, -3600 * STEADY_SECOND);
    steady__window_answered(&window, 0, -3600 * STEADY_SECOND);
    steady__window_look(&window, 1000, 2000, 999, 10 * MS);
    steady__window_look(&window, 1000, 2000, 999, -3600 * STEADY_SECOND);
    assert_int_equal(window.size, 1000);
    steady__window_answered(&window, 0, 3600 * STEADY_SECOND);
    steady__window_look(&window, 1000, 2000, 999, 3600 * STEADY_SECOND);
    assert_int_equal(window.size, 16);
    window.was_full = true;
    steady__window_look(&window, 2000, 3000, 999, 10 * MS);
    assert_int_equal(window.size, 16);
    window.was_full = true;
    steady__window_look(&window, 3000, 4000, 999, 10 * MS);
    assert_int_equal(window.size, 1016);
}

static void server_that_slows_down_is_used_at_its_new_rate(void **state) {
    (void)state;
    for (unsigned by = 2; by <= 16; by *= 2) {
        play(&(struct scene){1, 100 * MS, 100, MS, 40000, 50000, 0, by, 0, 0});
        const double can = 500e-3 * 40000 + 2.5 * (50000.0 / by < 40000 ? 50000.0 / by : 40000);
        print_message("# of %.0f\n", can);
        assert_true((double)outcome.in_time > 0.95 * can && late() < 1);
    }
}

/* For example a new route, or a proxy that accepts connections at once and answers late. */
static void server_that_moves_away_still_answers_in_time(void **state) {
    (void)state;
    for (double asked = 60; asked < 10000; asked *= 3)
        for (steady_us by = 10 * MS; by <= 50 * MS; by += 10 * MS)
            for (steady_us from = 100; from < 50 * MS - by; from += 10 * MS)
                for (int slower = 1; slower <= 10; slower *= 10) {
                    play(&(struct scene){1, slower * 100 * MS, from, MS, asked, 50000, 0, 0, 0, slower * by});
                    print_message("# asked %g, by %lld from %lld, slower %d\n", asked, (long long)by, (long long)from,
                                  slower);
                    assert_true((double)(outcome.unasked + outcome.late) < 0.01 * (double)outcome.asked);
                }
    for (steady_us by = 10 * MS; by <= 50 * MS; by += 10 * MS) {
        play(&(struct scene){1, 100 * MS, 100, MS, 40000, 50000, 0, 0, 0, by});
        assert_true((double)(outcome.unasked + outcome.late) < 0.1 * (double)outcome.asked);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_and_distant_server_answers_in_time),
        cmocka_unit_test(client_with_long_turns_is_answered_in_time),
        cmocka_unit_test(several_clients_are_answered_in_time),
        cmocka_unit_test(frozen_server_costs_only_what_it_could_not_serve),
        cmocka_unit_test(overloaded_server_stays_busy),
        cmocka_unit_test(slow_overloaded_server_stays_busy),
        cmocka_unit_test(overloaded_server_stays_busy_at_any_timeout),
        cmocka_unit_test(distant_overloaded_server_stays_busy),
        cmocka_unit_test(server_overloaded_by_many_clients_stays_busy),
        cmocka_unit_test(server_overloaded_by_clients_that_join_later_stays_busy),
        cmocka_unit_test(overloaded_server_that_freezes_is_busy_again),
        cmocka_unit_test(clock_set_back_keeps_the_window_usable),
        cmocka_unit_test(server_that_slows_down_is_used_at_its_new_rate),
        cmocka_unit_test(server_that_moves_away_still_answers_in_time),
    };
    return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
