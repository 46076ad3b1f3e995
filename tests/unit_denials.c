/* SPDX-License-Identifier: MIT
 * The memory of denials against a bucket of a server: random calls of this process and of others. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "assertions.h"
#include "random.h"
#include "redis/denials.h"

#define NOW (((steady_us)1 << 51) + 1000 * STEADY_SECOND)
#define VALID STEADY_SECOND

static struct steady__denials *denials;

static int set_up(void **state) {
    (void)state;
    denials = steady__denials_hold();
    return denials != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    steady__denials_release(denials);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static struct steady__hash name_of(const char *key) { return steady__denials_name(denials, 7, key, strlen(key)); }

static struct steady__observed observed_of(const struct steady__rate *rate, const struct steady__decision *d,
                                           steady_us sent, steady_us came, int64_t amount) {
    return (struct steady__observed){.rate = rate,
                                     .sent = sent,
                                     .came = came,
                                     .level = d->level,
                                     .until_next_drop = d->until_next_drop,
                                     .blocked_for = d->blocked_for,
                                     .amount = amount,
                                     .valid = VALID};
}

/* ---- A model ---- */

struct world {
    uint64_t seed;
    struct steady__rate rate;
    struct steady__bucket bucket; /* of the server */
    steady_us server, client;     /* their clocks */
    int64_t drift;                /* of the client's clock, in millionths */
    steady_us rest;               /* of the drift */
    bool others;                  /* others have put drops in since the last reply */
};

static void pass(struct world *w, steady_us time) {
    w->server += time;
    w->rest += time * w->drift;
    w->client += time + w->rest / 1000000;
    w->rest %= 1000000;
}

static struct steady__decision decide(struct world *w, const struct steady__rate *rate, int64_t amount) {
    struct steady__decision d;
    steady__bucket_consume(&w->bucket, rate, w->server, amount, &d);
    return d;
}

/* A call of this process. The memory denies it only if the server would; then it tells the wait to within the round
 * trip of what it knows. Otherwise the server decides. */
static void call(struct world *w, struct steady__hash name, steady_us longest_trip, unsigned *remembered) {
    struct steady__decision real;
    struct steady__look look;
    struct steady__rate rate = w->rate;
    const int64_t amount = random_in(&w->seed, 1, w->rate.capacity + 1);
    if (random_in(&w->seed, 0, 3) == 0) rate.capacity = random_in(&w->seed, 1, 2 * rate.capacity);
    if (random_in(&w->seed, 0, 3) == 0) rate.recharge += random_in(&w->seed, 0, rate.recharge);
    const enum steady__denial denial = steady__denials_look(denials, name, &rate, amount, VALID, w->client, &look);
    const struct steady__decision told = look.decision;
    if (denial == STEADY__FULL) {
        struct steady__bucket copy = w->bucket;
        steady__bucket_consume(&copy, &rate, w->server, amount, &real);
        assert_false(real.success);
        assert_false(told.success);
        assert_true((told.retry_after == -1) == (real.retry_after == -1));
        const steady_us drift = VALID / 1000 + 2;
        assert_true(told.retry_after <= real.retry_after + longest_trip + drift);
        if (!w->others) assert_true(told.retry_after >= real.retry_after - drift);
        (*remembered)++;
        return;
    }
    const steady_us sent = w->client;
    pass(w, random_in(&w->seed, 0, longest_trip / 2));
    real = decide(w, &rate, amount);
    pass(w, random_in(&w->seed, 0, longest_trip / 2));
    const struct steady__observed observed = observed_of(&rate, &real, sent, w->client, amount);
    steady__denials_learn(denials, name, &observed);
    w->others = false;
}

static void denied_from_memory_is_denied_by_the_server(void **state) {
    (void)state;
    unsigned remembered = 0;
    for (int round = 0; round < 3000; round++) {
        struct world w = {.seed = (uint64_t)round + 1, .server = NOW / 3, .client = NOW};
        char key[20];
        const int64_t scale = (int64_t[]){1, 1000, 100000}[round % 3];
        w.rate = (struct steady__rate){random_in(&w.seed, 1, 8), random_in(&w.seed, 1, 40) * scale,
                                       random_in(&w.seed, 1, 9), 0};
        w.drift = random_in(&w.seed, -500, 500);
        snprintf(key, sizeof key, "key %d", round);
        const steady_us trip = random_in(&w.seed, 0, 20 * scale);
        for (int i = 0; i < 100; i++) {
            pass(&w, random_in(&w.seed, 0, 2 * w.rate.recharge / w.rate.drops));
            if (random_in(&w.seed, 0, 3) == 0)
                w.others |= decide(&w, &w.rate, random_in(&w.seed, 1, w.rate.capacity)).success;
            else
                call(&w, name_of(key), trip, &remembered);
        }
    }
    assert_in_range(remembered, 10000, 250000);
}

/* ---- Single rules ---- */

static const struct steady__rate ten = {10, STEADY_SECOND, 1, 0};

/* The bucket is full from `sent` on. */
static void fill(const char *key, const struct steady__rate *rate, steady_us sent, steady_us came, steady_us blocked) {
    const struct steady__observed full = {.rate = rate,
                                          .sent = sent,
                                          .came = came,
                                          .level = rate->capacity,
                                          .until_next_drop = rate->recharge / rate->drops,
                                          .blocked_for = blocked,
                                          .amount = 1,
                                          .valid = VALID};
    steady__denials_learn(denials, name_of(key), &full);
}

static enum steady__denial look(const char *key, const struct steady__rate *rate, steady_us now) {
    struct steady__look look;
    return steady__denials_look(denials, name_of(key), rate, 1, VALID, now, &look);
}

static void memory_lasts_as_long_as_it_is_told(void **state) {
    (void)state;
    fill("lasts", &ten, NOW, NOW + 100, 0);
    assert_int_equal(look("lasts", &ten, NOW + 100), STEADY__FULL);
    assert_int_equal(look("lasts", &ten, NOW + STEADY_SECOND / 2), STEADY__FULL);
    assert_int_equal(look("lasts", &ten, NOW + VALID), STEADY__STALE);
    assert_int_equal(look("lasts", &ten, NOW - 1), STEADY__STALE);
    assert_int_equal(look("another", &ten, NOW + 100), STEADY__UNKNOWN_BUCKET);
}

static void higher_capacity_has_room(void **state) {
    const struct steady__rate eleven = {11, STEADY_SECOND, 1, 0};
    (void)state;
    fill("higher", &ten, NOW, NOW + 100, 0);
    assert_int_equal(look("higher", &eleven, NOW + 100), STEADY__HAS_ROOM);
    assert_int_equal(look("higher", &ten, NOW + 100), STEADY__FULL);
}

/* The server may count the leak from an earlier moment than the reply shows. */
static void other_leak_rate_is_not_remembered(void **state) {
    const struct steady__rate faster = {10, STEADY_SECOND - 1, 1, 0}, slower = {10, STEADY_SECOND + 1, 1, 0};
    (void)state;
    fill("rate", &ten, NOW, NOW + 100, 0);
    assert_int_equal(look("rate", &faster, NOW + 100), STEADY__UNKNOWN_BUCKET);
    assert_int_equal(look("rate", &slower, NOW + 100), STEADY__UNKNOWN_BUCKET);
    assert_int_equal(look("rate", &ten, NOW + 100), STEADY__FULL);
}

/* The store has to start the block. */
static void limit_with_a_block_is_denied_only_while_blocked(void **state) {
    const struct steady__rate blocking = {10, STEADY_SECOND, 1, 60 * STEADY_SECOND};
    struct steady__look look_at;
    (void)state;
    fill("block", &ten, NOW, NOW + 100, 0);
    assert_int_equal(look("block", &blocking, NOW + 100), STEADY__HAS_ROOM);
    fill("block", &blocking, NOW + 200, NOW + 300, 5 * STEADY_SECOND);
    assert_int_equal(steady__denials_look(denials, name_of("block"), &blocking, 1, VALID, NOW + 1300, &look_at),
                     STEADY__FULL);
    assert_int_equal(look_at.decision.blocked_for, 5 * STEADY_SECOND - 1000);
    assert_int_equal(look_at.decision.retry_after, 5 * STEADY_SECOND - 1000);
}

/* Only what was asked after the give-back counts. */
static void give_back_is_seen_at_once(void **state) {
    (void)state;
    fill("back", &ten, NOW, NOW + 100, 0);
    steady__denials_forget(denials, name_of("back"), NOW + 200);
    assert_int_equal(look("back", &ten, NOW + 200), STEADY__UNKNOWN_BUCKET);
    fill("back", &ten, NOW + 150, NOW + 300, 0);
    assert_int_equal(look("back", &ten, NOW + 300), STEADY__UNKNOWN_BUCKET);
    fill("back", &ten, NOW + 250, NOW + 300, 0);
    assert_int_equal(look("back", &ten, NOW + 300), STEADY__FULL);
    steady__denials_forget(denials, name_of("never asked"), NOW + 200);
    fill("never asked", &ten, NOW + 199, NOW + 300, 0);
    assert_int_equal(look("never asked", &ten, NOW + 300), STEADY__UNKNOWN_BUCKET);
}

static void forgetting_all_counts_for_each_bucket(void **state) {
    (void)state;
    fill("one", &ten, NOW, NOW + 100, 0);
    fill("two", &ten, NOW + 50, NOW + 100, 0);
    steady__denials_forget_all(denials, NOW + 200);
    assert_int_equal(look("one", &ten, NOW + 200), STEADY__UNKNOWN_BUCKET);
    assert_int_equal(look("two", &ten, NOW + 200), STEADY__UNKNOWN_BUCKET);
    fill("one", &ten, NOW + 150, NOW + 300, 0);
    fill("three", &ten, NOW + 150, NOW + 300, 0);
    assert_int_equal(look("one", &ten, NOW + 300), STEADY__UNKNOWN_BUCKET);
    assert_int_equal(look("three", &ten, NOW + 300), STEADY__UNKNOWN_BUCKET);
    fill("one", &ten, NOW + 200, NOW + 300, 0);
    assert_int_equal(look("one", &ten, NOW + 300), STEADY__FULL);
}

static void fill_others(steady_us sent, steady_us valid) {
    const struct steady__observed full = {.rate = &ten,
                                          .sent = sent,
                                          .came = sent,
                                          .level = ten.capacity,
                                          .until_next_drop = ten.recharge,
                                          .amount = 1,
                                          .valid = valid};
    char key[20];
    for (int i = 0; i < 40000; i++) {
        snprintf(key, sizeof key, "other %d", i);
        steady__denials_learn(denials, name_of(key), &full);
    }
}

/* Stores believe replies for different times. What one of them learns after the give-back ends soon. Then no other
 * bucket takes its place, so a reply of another store from before the give-back does not count. */
static void give_back_outlives_a_reply_that_is_believed_for_a_short_time(void **state) {
    const struct steady__observed short_lived = {.rate = &ten,
                                                 .sent = NOW + 250,
                                                 .came = NOW + 260,
                                                 .level = 6,
                                                 .until_next_drop = ten.recharge,
                                                 .amount = 5,
                                                 .valid = 1000};
    (void)state;
    steady__denials_forget(denials, name_of("back"), NOW + 200);
    steady__denials_learn(denials, name_of("back"), &short_lived);
    assert_int_equal(look("back", &ten, NOW + 260), STEADY__HAS_ROOM);
    fill_others(NOW + 5000, 1000);
    fill("back", &ten, NOW + 100, NOW + 7000, 0);
    assert_int_equal(look("back", &ten, NOW + 7000), STEADY__HAS_ROOM);
}

/* The server may have decided when the request was sent, or when the reply came. After a denial, the later one counts.
 */
static void call_after_one_that_was_too_early_waits_for_the_drop(void **state) {
    const struct steady__observed denied = {.rate = &ten,
                                            .sent = NOW,
                                            .came = NOW + 10000,
                                            .level = ten.capacity,
                                            .until_next_drop = 5000,
                                            .amount = 1,
                                            .valid = VALID,
                                            .denied = true};
    struct steady__look look_at;
    (void)state;
    steady__denials_learn(denials, name_of("early"), &denied);
    assert_int_equal(steady__denials_look(denials, name_of("early"), &ten, 1, VALID, NOW + 11000, &look_at),
                     STEADY__TOO_EARLY);
    assert_in_range(look_at.wait, 4000, 4001);
    assert_int_equal(look("early", &ten, NOW + 15001), STEADY__HAS_ROOM);
}

/* The clock of this process may be slower than that of the server by a thousandth. */
static void slow_clock_denies_nothing_that_has_leaked(void **state) {
    const struct steady__rate rate = {10, STEADY_SECOND / 2, 1, 0};
    (void)state;
    fill("slow", &rate, NOW, NOW, 0);
    assert_int_equal(look("slow", &rate, NOW + STEADY_SECOND / 2 - 600), STEADY__FULL);
    assert_int_equal(look("slow", &rate, NOW + STEADY_SECOND / 2 - 400), STEADY__HAS_ROOM);
    assert_int_equal(look("slow", &rate, NOW + 499499), STEADY__FULL); /* at most 499,499 + 499 + 1 us have passed */
    assert_int_equal(look("slow", &rate, NOW + 499500), STEADY__HAS_ROOM);
}

/* The block may have begun when the request was sent. Then it is over, and the bucket has room. */
static void block_that_may_be_over_denies_nothing(void **state) {
    const struct steady__observed blocked = {.rate = &ten,
                                             .sent = NOW,
                                             .came = NOW + 400,
                                             .level = 5,
                                             .until_next_drop = ten.recharge,
                                             .blocked_for = 1000,
                                             .amount = 1,
                                             .valid = VALID};
    (void)state;
    steady__denials_learn(denials, name_of("over"), &blocked);
    assert_int_equal(look("over", &ten, NOW + 900), STEADY__FULL);
    assert_int_equal(look("over", &ten, NOW + 1100), STEADY__HAS_ROOM);
}

static void late_reply_does_not_replace_a_newer_one(void **state) {
    const struct steady__observed empty = {.rate = &ten,
                                           .sent = NOW + 50,
                                           .came = NOW + 400,
                                           .level = 1,
                                           .until_next_drop = STEADY_SECOND,
                                           .amount = 1,
                                           .valid = VALID};
    (void)state;
    fill("late", &ten, NOW + 100, NOW + 200, 0);
    steady__denials_learn(denials, name_of("late"), &empty);
    assert_int_equal(look("late", &ten, NOW + 400), STEADY__FULL);
    fill("room", &ten, NOW, NOW + 20, 0);
    steady__denials_learn(denials, name_of("room"), &empty);
    assert_int_equal(look("room", &ten, NOW + 400), STEADY__HAS_ROOM);
}

/* A group has eight places. A name that finds none is not remembered, and a give-back still counts for it. */
static void full_table_forgets_nothing_and_remembers_no_more(void **state) {
    enum { MANY = 40000 };
    char key[20];
    unsigned known = 0;
    (void)state;
    const uint64_t before = steady__denials_crowded(denials);
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "many %d", i);
        fill(key, &ten, NOW, NOW + 100, 0);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "many %d", i);
        known += look(key, &ten, NOW + 100) == STEADY__FULL;
    }
    assert_in_range(known, 8000, 8192);
    assert_int_equal(steady__denials_crowded(denials) - before, MANY - known);
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "many %d", i);
        steady__denials_forget(denials, name_of(key), NOW + 200);
        fill(key, &ten, NOW + 150, NOW + 300, 0);
        assert_int_not_equal(look(key, &ten, NOW + 300), STEADY__FULL);
    }
}

static void equal_keys_of_two_servers_are_two_buckets(void **state) {
    (void)state;
    const uint64_t one = steady__denials_scope(denials, "one", 3), two = steady__denials_scope(denials, "two", 3);
    const struct steady__hash a = steady__denials_name(denials, one, "k", 1),
                              b = steady__denials_name(denials, two, "k", 1);
    assert_true(a.word[0] != b.word[0] && a.word[1] != b.word[1]);
}

/* ---- One for each process ---- */

static void stores_of_a_process_share_one_memory(void **state) {
    (void)state;
    struct steady__denials *again = steady__denials_hold();
    assert_ptr_equal(again, denials);
    steady__denials_release(again);
}

static void child_of_fork_has_a_memory_of_its_own(void **state) {
    int status;
    (void)state;
    fill("fork", &ten, NOW, NOW + 100, 0);
    const pid_t pid = fork();
    assert_return_code(pid, 0);
    if (pid == 0) {
        struct steady__denials *own = steady__denials_hold();
        const bool other = own != NULL && own != denials;
        steady__denials_release(own);
        steady__denials_release(denials);
        _exit(other ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(look("fork", &ten, NOW + 100), STEADY__FULL);
}

/* Each thread writes buckets whose level, capacity and time belong together. A reader never sees parts of two. */
static void *write_and_read(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < 30000; i++) {
        const int64_t n = random_in(&seed, 1, 1000);
        const struct steady__rate rate = {n, n * 1000, 1, 0};
        struct steady__look look_at;
        fill("shared", &rate, NOW + n * 10, NOW + n * 10, 0);
        /* Only the entry of n tells recharge n * 1000. It must come with level n. */
        if (steady__denials_look(denials, name_of("shared"), &rate, 1, VALID, NOW + n * 10, &look_at) == STEADY__FULL &&
            look_at.decision.level != n)
            return NULL;
        if (i % 100 == 0) steady__denials_forget(denials, name_of("shared"), NOW + n);
    }
    return arg;
}

static void threads_see_whole_entries(void **state) {
    pthread_t threads[4];
    (void)state;
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
}

/* ---- Whether it is in use ---- */

static steady_us set_now;

static steady_us read_now(const struct steady__denials_world *world) {
    (void)world;
    return set_now;
}

/* After a bucket was full, the memory is in use for its time and a minute more. */
static void memory_is_in_use_while_a_bucket_may_be_known(void **state) {
    const struct steady__denials_world world = {read_now, steady__denials_system.hash};
    const struct steady__rate rate = {10, STEADY_SECOND, 1, 0};
    struct steady__denials *own = steady__denials_new(&world);
    const struct steady__hash name = steady__denials_name(own, 7, "k", 1);
    struct steady__observed o = {.rate = &rate,
                                 .sent = NOW,
                                 .came = NOW + 1,
                                 .level = 9,
                                 .until_next_drop = STEADY_SECOND,
                                 .amount = 1,
                                 .valid = VALID};
    (void)state;
    set_now = NOW + 1;
    assert_false(steady__denials_in_use(own));
    steady__denials_learn(own, name, &o);
    assert_false(steady__denials_in_use(own));
    o.level = 10;
    steady__denials_learn(own, name, &o);
    assert_true(steady__denials_in_use(own));
    set_now = NOW + VALID + 60 * STEADY_SECOND - 1;
    assert_true(steady__denials_in_use(own));
    set_now++;
    assert_false(steady__denials_in_use(own));
    steady__denials_release(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(denied_from_memory_is_denied_by_the_server),
        TEST(memory_lasts_as_long_as_it_is_told),
        TEST(higher_capacity_has_room),
        TEST(other_leak_rate_is_not_remembered),
        TEST(limit_with_a_block_is_denied_only_while_blocked),
        TEST(give_back_is_seen_at_once),
        TEST(forgetting_all_counts_for_each_bucket),
        TEST(give_back_outlives_a_reply_that_is_believed_for_a_short_time),
        TEST(slow_clock_denies_nothing_that_has_leaked),
        TEST(block_that_may_be_over_denies_nothing),
        TEST(call_after_one_that_was_too_early_waits_for_the_drop),
        TEST(late_reply_does_not_replace_a_newer_one),
        TEST(full_table_forgets_nothing_and_remembers_no_more),
        TEST(equal_keys_of_two_servers_are_two_buckets),
        TEST(stores_of_a_process_share_one_memory),
        TEST(child_of_fork_has_a_memory_of_its_own),
        TEST(threads_see_whole_entries),
        TEST(memory_is_in_use_while_a_bucket_may_be_known),
    };
    return cmocka_run_group_tests_name("denials", tests, NULL, NULL);
}
