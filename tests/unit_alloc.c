/* SPDX-License-Identifier: MIT
 * Memory of the embedded store: every allocation of every public call fails in turn; a decision allocates nothing. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "assertions.h"
#include "local/local_store.h"
#include "steady.h"

#define KEYS 500

static const steady_limit limit = {.max_capacity = 3, .drop_recharge = STEADY_SECOND, .block_duration = STEADY_SECOND};

static char directory[] = "/tmp/steady-alloc-XXXXXX";
static char file_url[64];

/* The state of one run of the scenario. */
struct scene {
    const char *url;
    steady_poller *poller;
    steady_store *store;
    steady_throttler *plain;
    steady_throttler *local; /* with an embedded store of its own behind it */
    int asked;
    int answered;
};

static void answer(const steady_result *result, void *data) {
    struct scene *s = data;
    s->answered++;
    (void)result;
}

static int ask(struct scene *s) {
    steady_result r;
    int error = steady_consume_sync(s->plain, "key", 3, 1, &r);
    if (error == 0) error = steady_peek_sync(s->local, "key", 3, &r);
    if (error == 0) error = steady_reset_sync(s->plain, "key", 3, &r);
    if (error == 0) error = steady_consume(s->plain, "key", 3, 1, answer, s);
    if (error == 0) s->asked++, error = steady_peek(s->local, "key", 3, answer, s);
    if (error == 0) s->asked++, error = steady_reset(s->plain, "key", 3, answer, s);
    if (error == 0) s->asked++;
    while (error == 0 && s->answered < s->asked)
        if (steady_poller_run(s->poller, STEADY_SECOND) < 0) error = STEADY_SYSTEM;
    return error;
}

/* Calls everything that the embedded store offers. Returns 0 or the first error. */
static int play(const char *url) {
    struct scene s = {.url = url};
    steady_message why;
    int error = steady_poller_new(&s.poller);
    const steady_loop loop = error == 0 ? steady_poller_loop(s.poller) : (steady_loop){0};
    const steady_store_options options = {.loop = &loop, .buckets = 64};
    const steady_throttler_options with_local = {.on_error = STEADY_LOCAL, .prefix = "app:"};
    if (error == 0) error = steady_store_open(&s.store, url, &options, &why);
    if (error == 0) error = steady_throttler_new(&s.plain, s.store, &limit, NULL, &why);
    if (error == 0) error = steady_throttler_new(&s.local, s.store, &limit, &with_local, &why);
    if (error == 0) error = ask(&s);
    steady_throttler_free(&s.local);
    steady_store_close(&s.store);
    steady_throttler_free(&s.plain);
    steady_poller_free(&s.poller);
    assert_int_equal(s.answered, s.asked); /* close ends the rest */
    return error;
}

/* The system or the loop may report a failed allocation as its own error, for a mapping or a timer. */
static bool is_want_of_memory(int error) { return error == STEADY_NO_MEMORY || error == STEADY_SYSTEM; }

static void every_allocation_may_fail(const char *url, void (*between)(void)) {
    uint64_t nth = 0;
    int error = 0;
    const int64_t blocks = alloc_blocks();
    do {
        between();
        alloc_fail(++nth);
        error = play(url);
        if (alloc_failed() && !is_want_of_memory(error))
            fail_msg("allocation %d: %s", (int)nth, steady_error_name(error));
        assert_int_equal(alloc_blocks(), blocks);
    } while (alloc_failed());
    alloc_fail(0);
    assert_int_equal(error, 0);
    assert_true(nth > 4); /* at least poller, store, region and throttlers; otherwise the wrappers are missing */
}

static void nothing(void) {}
static void remove_the_file(void) { unlink(file_url + strlen("file:")); }

static void failed_allocation_in_a_private_store_is_reported_and_leaks_nothing(void **state) {
    (void)state;
    every_allocation_may_fail("memory:", nothing);
}

static void failed_allocation_in_a_new_file_is_reported_and_leaks_nothing(void **state) {
    (void)state;
    every_allocation_may_fail(file_url, remove_the_file);
}

static void failed_allocation_in_an_old_file_is_reported_and_leaks_nothing(void **state) {
    (void)state;
    remove_the_file();
    assert_int_equal(play(file_url), 0);
    every_allocation_may_fail(file_url, nothing);
}

/* Consumes, peeks and resets many keys: allowed, denied and blocked. Waits for the results. */
static void decide(struct scene *s, bool sync) {
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        const size_t len = (size_t)snprintf(key, sizeof key, "key %d", i);
        steady_result r;
        for (int n = 0; n < 6; n++) {
            if (sync) {
                assert_int_equal(steady_consume_sync(s->plain, key, len, 1, &r), 0);
                assert_int_equal(steady_peek_sync(s->local, key, len, &r), 0);
            } else {
                assert_int_equal(steady_consume(s->plain, key, len, 1, answer, s), 0);
                assert_int_equal(steady_peek(s->local, key, len, answer, s), 0);
                s->asked += 2;
            }
        }
        if (i % 2 == 0) assert_int_equal(steady_reset_sync(s->plain, key, len, &r), 0);
        while (s->answered < s->asked)
            assert_true(steady_poller_run(s->poller, STEADY_SECOND) > 0);
    }
}

static void store_that_cannot_be_cleared_keeps_its_buckets(void **state) {
    const steady_limit slow = {.max_capacity = 5, .drop_recharge = 3600 * STEADY_SECOND};
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_result r;
    (void)state;
    assert_int_equal(steady_store_open(&store, "memory:", NULL, NULL), 0);
    assert_int_equal(steady_throttler_new(&throttler, store, &slow, NULL, NULL), 0);
    assert_int_equal(steady_consume_sync(throttler, "key", 3, 2, &r), 0);
    alloc_fail(1);
    assert_int_equal(steady__local_clear(store), STEADY_NO_MEMORY);
    alloc_fail(0);
    assert_int_equal(steady_consume_sync(throttler, "key", 3, 1, &r), 0);
    assert_int_equal(r.level, 3);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static void decisions_allocate_nothing(void **state) {
    (void)state;
    const char *urls[] = {"memory:", file_url};
    remove_the_file();
    for (size_t i = 0; i < 2; i++) {
        struct scene s = {.url = urls[i]};
        const steady_throttler_options with_prefix = {.prefix = "app:"};
        assert_int_equal(steady_poller_new(&s.poller), 0);
        const steady_loop loop = steady_poller_loop(s.poller);
        assert_int_equal(steady_store_open(&s.store, urls[i], &(steady_store_options){.loop = &loop}, NULL), 0);
        assert_int_equal(steady_throttler_new(&s.plain, s.store, &limit, NULL, NULL), 0);
        assert_int_equal(steady_throttler_new(&s.local, s.store, &limit, &with_prefix, NULL), 0);
        alloc_fail(0);
        decide(&s, true);
        assert_int_equal(alloc_count(), 0); /* not even the first */
        decide(&s, false);
        alloc_fail(0);
        decide(&s, false);
        assert_int_equal(alloc_count(), 0);
        steady_throttler_free(&s.plain);
        steady_throttler_free(&s.local);
        steady_store_close(&s.store);
        steady_poller_free(&s.poller);
    }
}

static int make_directory(void **state) {
    (void)state;
    if (mkdtemp(directory) == NULL) return -1;
    snprintf(file_url, sizeof file_url, "file:%s/buckets", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    remove_the_file();
    return rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failed_allocation_in_a_private_store_is_reported_and_leaks_nothing),
        cmocka_unit_test(failed_allocation_in_a_new_file_is_reported_and_leaks_nothing),
        cmocka_unit_test(failed_allocation_in_an_old_file_is_reported_and_leaks_nothing),
        cmocka_unit_test(store_that_cannot_be_cleared_keeps_its_buckets),
        cmocka_unit_test(decisions_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
