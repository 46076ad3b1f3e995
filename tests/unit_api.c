/* SPDX-License-Identifier: MIT
 * Bad arguments in the public API: each is refused with a reason. Nothing is charged or sent, and no callback runs. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "assertions.h"
#include "last_error.h"
#include "steady.h"
#include "steady/hiredis.h"

#define KEY_MAX 1024

/* No server has this address: a Redis store opens, and any request to it would fail. */
#define NO_SERVER "unix:/nonexistent/steady.sock"

static const steady_limit ten = {.max_capacity = 10, .drop_recharge = 3600 * STEADY_SECOND};

static void never(const steady_result *result, void *data) {
    (void)result;
    (void)data;
    fail_msg("the callback of a call that was refused ran");
}

static void count(const steady_result *result, void *data) {
    (void)result;
    (*(int *)data)++;
}

static steady_store *open_store(const char *url, const steady_store_options *options) {
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    if (steady_store_open(&store, url, options, &why) != 0) fail_msg("%s", why.text);
    return store;
}

static steady_throttler *throttler_with(steady_store *store, const steady_throttler_options *options) {
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    if (steady_throttler_new(&throttler, store, &ten, options, &why) != 0) fail_msg("%s", why.text);
    return throttler;
}

static int64_t level_of(steady_throttler *throttler, const char *key) {
    steady_result r;
    assert_int_equal(steady_peek_sync(throttler, key, strlen(key), &r), 0);
    return r.level;
}

static void assert_says(const steady_message *why, const char *part) {
    if (strstr(why->text, part) == NULL) fail_msg("\"%s\" does not say \"%s\"", why->text, part);
}

/* A result with values that no call sets. */
static steady_result garbage(void) {
    steady_result r;
    memset(&r, 0x5a, sizeof r);
    return r;
}

static void assert_refused(const steady_result *r, int error) {
    assert_int_equal(r->error, error);
    assert_int_equal(r->source, STEADY_FROM_NOWHERE);
    assert_false(r->success);
    assert_int_equal(r->level, 0);
    assert_int_equal(r->until_next_drop, 0);
    assert_int_equal(r->blocked_for, 0);
    assert_int_equal(r->retry_after, 0);
}

/* ---- Opening ---- */

static void assert_no_open(const char *url, const steady_store_options *options, const char *says) {
    steady_store *store = (steady_store *)(uintptr_t)1;
    steady_message why = {.text = ""};
    assert_int_equal(steady_store_open(&store, url, options, &why), STEADY_BAD_ARGUMENT);
    assert_null(store);
    assert_says(&why, says);
    store = (steady_store *)(uintptr_t)1;
    assert_int_equal(steady_store_open(&store, url, options, NULL), STEADY_BAD_ARGUMENT);
    assert_null(store);
}

static void bad_store_options_are_refused_with_a_reason(void **state) {
    (void)state;
    assert_no_open("memory:", &(steady_store_options){.timeout = -1}, "timeout is -1 us; it must be 1 .. 86400000000");
    assert_no_open(NO_SERVER, &(steady_store_options){.timeout = 24 * 3600 * STEADY_SECOND + 1}, "86400000001");
    assert_no_open(NO_SERVER, &(steady_store_options){.timeout = INT64_MAX}, "timeout");
    assert_no_open(NO_SERVER, &(steady_store_options){.max_in_flight = (1U << 24) + 1},
                   "max_in_flight is 16777217; it must be 1 .. 16777216");
    assert_no_open("memory:", &(steady_store_options){.buckets = (1U << 30) + 1},
                   "buckets is 1073741825; it must be 1 .. 1073741824");
    assert_no_open(NO_SERVER, &(steady_store_options){.engine = (enum steady_engine)3}, "engine is 3");
    for (size_t i = 0; i < sizeof((steady_store_options *)0)->reserved / sizeof(uint64_t); i++) {
        steady_store_options options = {0};
        options.reserved[i] = 1;
        assert_no_open("memory:", &options, "reserved");
    }
}

static void store_options_at_their_bounds_are_accepted(void **state) {
    (void)state;
    steady_store *store = open_store("memory:", &(steady_store_options){.timeout = 1, .buckets = 1});
    steady_store_close(&store);
    store = open_store(NO_SERVER, &(steady_store_options){.timeout = 24 * 3600 * STEADY_SECOND, .max_in_flight = 1});
    steady_store_close(&store);
}

static void bad_urls_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",      ":",        "memory",      "nonsense:",       "http://localhost",
                                      "file:", "redis://", "redis://h:0", "redis://h:65536", "redis://h:x",
                                      "unix:"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_no_open(bad[i], NULL, "");
    steady_message why = {.text = ""};
    assert_int_equal(steady_store_open(NULL, "memory:", NULL, &why), STEADY_BAD_ARGUMENT);
    assert_says(&why, "store is NULL");
}

static void password_in_a_bad_url_is_never_shown(void **state) {
    (void)state;
    static const char *const bad[] = {
        "redis://me:hunter2@h:99999", "redis://me:hunter2@h/x",       "redis://:hunter2@",
        "nonsense://me:hunter2@h",    "redis://me:hunter2@h:1/2?x=1", "redis//me:hunter2@h",
        "redis://h?passwd=hunter2",   "rediss://h?tls=hunter2&db=1",  "redis+sentinel://h/s?sentinel_pasword=hunter2",
        "nonsense://h?auth=hunter2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        steady_store *store = NULL;
        steady_message why = {.text = ""};
        assert_int_not_equal(steady_store_open(&store, bad[i], NULL, &why), 0);
        assert_null(store);
        assert_string_not_equal(why.text, "");
        assert_null(strstr(why.text, "hunter2"));
    }
}

static void attach_without_a_context_is_refused(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    steady_store *store = (steady_store *)(uintptr_t)1;
    steady_message why = {.text = ""};
    assert_int_equal(steady_store_attach(&store, NULL, &(steady_store_options){.loop = &loop}, &why),
                     STEADY_BAD_ARGUMENT);
    assert_null(store);
    assert_string_not_equal(why.text, "");
    assert_int_equal(steady_store_attach(NULL, NULL, NULL, NULL), STEADY_BAD_ARGUMENT);
    steady_poller_free(&poller);
}

/* ---- Making a throttler ---- */

static void assert_no_throttler(steady_store *store, const steady_limit *limit, const steady_throttler_options *options,
                                const char *says) {
    steady_throttler *throttler = (steady_throttler *)(uintptr_t)1;
    steady_message why = {.text = ""};
    assert_int_equal(steady_throttler_new(&throttler, store, limit, options, &why), STEADY_BAD_ARGUMENT);
    assert_null(throttler);
    assert_says(&why, says);
}

/* unit_limit tests which limits are bad. */
static void bad_limit_makes_no_throttler(void **state) {
    (void)state;
    steady_store *store = open_store(NULL, NULL);
    assert_no_throttler(store, NULL, NULL, "limit is NULL");
    assert_no_throttler(store, &(steady_limit){0}, NULL, "max_capacity is 0; it must be 1 .. 2147483647");
    assert_no_throttler(store, &(steady_limit){.max_capacity = 2, .drop_recharge = INT64_C(1) << 52}, NULL,
                        "max_capacity * drop_recharge is 2 * 4503599627370496 us; it must be below");
    assert_no_throttler(store, &(steady_limit){INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, NULL, {0}}, NULL,
                        "max_capacity");
    steady_store_close(&store);
}

static void bad_throttler_options_are_refused_with_a_reason(void **state) {
    (void)state;
    char prefix[KEY_MAX + 1];
    memset(prefix, 'p', sizeof prefix);
    prefix[KEY_MAX] = '\0';
    steady_store *store = open_store(NULL, NULL);
    assert_no_throttler(NULL, &ten, NULL, "store is NULL");
    assert_no_throttler(store, &ten, &(steady_throttler_options){.on_error = (enum steady_policy)4}, "on_error is 4");
    assert_no_throttler(store, &ten, &(steady_throttler_options){.on_error = (enum steady_policy) - 1},
                        "on_error is -1");
    assert_no_throttler(store, &ten, &(steady_throttler_options){.prefix = prefix}, "prefix is 1024 bytes long");
    for (size_t i = 0; i < sizeof((steady_throttler_options *)0)->reserved / sizeof(uint64_t); i++) {
        steady_throttler_options options = {0};
        options.reserved[i] = 1;
        assert_no_throttler(store, &ten, &options, "reserved");
    }
    assert_int_equal(steady_throttler_new(NULL, store, &ten, NULL, NULL), STEADY_BAD_ARGUMENT);
    steady_store_close(&store);
}

/* ---- Keys and amounts ---- */

/* All six calls refuse this key, and set the result to zeros and the error. */
static void assert_bad_key(steady_throttler *t, const void *key, size_t len) {
    steady_result r[3] = {garbage(), garbage(), garbage()};
    assert_int_equal(steady_consume_sync(t, key, len, 1, &r[0]), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_peek_sync(t, key, len, &r[1]), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_reset_sync(t, key, len, &r[2]), STEADY_BAD_ARGUMENT);
    for (int i = 0; i < 3; i++)
        assert_refused(&r[i], STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_consume(t, key, len, 1, never, NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_peek(t, key, len, never, NULL), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_reset(t, key, len, never, NULL), STEADY_BAD_ARGUMENT);
}

/* A key of this length is used whole: a key that differs in its last byte is another bucket. */
static void assert_good_key(steady_throttler *t, size_t len) {
    char key[KEY_MAX];
    steady_result r;
    memset(key, 'k', sizeof key);
    assert_int_equal(steady_consume_sync(t, key, len, 7, &r), 0);
    assert_true(r.success);
    key[len - 1] = '\0';
    assert_int_equal(steady_peek_sync(t, key, len, &r), 0);
    assert_int_equal(r.level, 0);
    key[len - 1] = 'k';
    assert_int_equal(steady_peek_sync(t, key, len, &r), 0);
    assert_int_equal(r.level, 7);
}

static void bad_keys_are_refused_by_each_call(void **state) {
    static char big[65536];
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const char *urls[] = {"memory:", NO_SERVER};
    for (size_t i = 0; i < 2; i++) {
        steady_store *store = open_store(urls[i], &(steady_store_options){.loop = &loop});
        steady_throttler *plain = throttler_with(store, NULL);
        assert_bad_key(plain, NULL, 0);
        assert_bad_key(plain, NULL, 5);
        assert_bad_key(plain, "", 0);
        assert_bad_key(plain, "x", 0);
        assert_bad_key(plain, big, KEY_MAX + 1);
        assert_bad_key(plain, big, sizeof big);
        assert_bad_key(plain, big, (size_t)1 << 31);
        assert_bad_key(plain, big, SIZE_MAX);
        assert_bad_key(NULL, "k", 1);
        steady_throttler_free(&plain);
        steady_stats stats;
        steady_store_stats(store, &stats);
        assert_int_equal(stats.decisions, 0);
        assert_int_equal(stats.in_flight, 0);
        steady_store_close(&store);
    }
    steady_poller_free(&poller);
}

static void keys_that_differ_in_the_last_byte_are_two_buckets(void **state) {
    (void)state;
    steady_store *store = open_store(NULL, NULL);
    steady_throttler *plain = throttler_with(store, NULL);
    assert_good_key(plain, 1);
    assert_good_key(plain, 255);
    assert_good_key(plain, 256);
    assert_good_key(plain, KEY_MAX);
    steady_throttler_free(&plain);
    steady_store_close(&store);
}

static void prefix_counts_towards_the_length_of_the_key(void **state) {
    char prefix[KEY_MAX];
    char key[KEY_MAX];
    (void)state;
    memset(prefix, 'p', sizeof prefix);
    memset(key, 'k', sizeof key);
    prefix[1000] = '\0';
    steady_store *store = open_store(NULL, NULL);
    steady_throttler *t = throttler_with(store, &(steady_throttler_options){.prefix = prefix});
    steady_throttler *whole = throttler_with(store, NULL);
    assert_good_key(t, 24);
    assert_bad_key(t, key, 25);
    assert_bad_key(t, key, SIZE_MAX);
    steady_throttler_free(&t);
    prefix[1000] = 'p';
    prefix[KEY_MAX - 1] = '\0';
    t = throttler_with(store, &(steady_throttler_options){.prefix = prefix});
    assert_good_key(t, 1);
    assert_bad_key(t, key, 2);
    /* A prefix and a key make the same bucket as both in one key. */
    steady_result r;
    prefix[KEY_MAX - 1] = 'k';
    assert_int_equal(steady_peek_sync(whole, prefix, KEY_MAX, &r), 0);
    assert_int_equal(r.level, 7);
    steady_throttler_free(&t);
    steady_throttler_free(&whole);
    steady_store_close(&store);
}

static void bad_amounts_are_refused_and_charge_nothing(void **state) {
    static const int64_t bad[] = {(int64_t)INT32_MAX + 1, -(int64_t)INT32_MAX - 1, INT64_C(1) << 53, INT64_MAX,
                                  INT64_MIN};
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    steady_store *store = open_store(NULL, &(steady_store_options){.loop = &loop});
    steady_throttler *t = throttler_with(store, NULL);
    steady_result r;
    assert_int_equal(steady_consume_sync(t, "k", 1, 3, &r), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r = garbage();
        assert_int_equal(steady_consume_sync(t, "k", 1, bad[i], &r), STEADY_BAD_ARGUMENT);
        assert_refused(&r, STEADY_BAD_ARGUMENT);
        assert_int_equal(steady_consume(t, "k", 1, bad[i], never, NULL), STEADY_BAD_ARGUMENT);
    }
    assert_int_equal(level_of(t, "k"), 3);
    assert_int_equal(steady_consume_sync(t, "k", 1, INT32_MAX, &r), 0);
    assert_false(r.success);
    assert_int_equal(r.retry_after, -1);
    assert_int_equal(level_of(t, "k"), 3);
    assert_int_equal(steady_consume_sync(t, "k", 1, -INT32_MAX, &r), 0);
    assert_true(r.success);
    assert_int_equal(level_of(t, "k"), 0);
    steady_throttler_free(&t);
    steady_store_close(&store);
    steady_poller_free(&poller);
}

/* ---- Other requirements of a call ---- */

static void call_without_loop_callback_or_result_is_refused(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const char *urls[] = {"memory:", NO_SERVER};
    for (size_t i = 0; i < 2; i++) {
        steady_store *store = open_store(urls[i], NULL);
        steady_throttler *t = throttler_with(store, NULL);
        assert_int_equal(steady_consume(t, "k", 1, 1, never, NULL), STEADY_NO_LOOP);
        assert_int_equal(steady_peek(t, "k", 1, never, NULL), STEADY_NO_LOOP);
        assert_int_equal(steady_reset(t, "k", 1, never, NULL), STEADY_NO_LOOP);
        assert_int_equal(steady_consume_sync(t, "k", 1, 1, NULL), STEADY_BAD_ARGUMENT);
        assert_int_equal(steady_peek_sync(t, "k", 1, NULL), STEADY_BAD_ARGUMENT);
        assert_int_equal(steady_reset_sync(t, "k", 1, NULL), STEADY_BAD_ARGUMENT);
        steady_throttler_free(&t);
        steady_store_close(&store);

        store = open_store(urls[i], &(steady_store_options){.loop = &loop});
        t = throttler_with(store, NULL);
        assert_int_equal(steady_consume(t, "k", 1, 1, NULL, NULL), STEADY_BAD_ARGUMENT);
        steady_throttler_free(&t);
        steady_store_close(&store);
    }
    steady_poller_free(&poller);
}

struct elsewhere {
    steady_throttler *throttler;
    int async;
    int sync;
    steady_result result;
};

static void *ask_elsewhere(void *arg) {
    struct elsewhere *e = arg;
    e->async = steady_consume(e->throttler, "k", 1, 1, never, NULL);
    e->sync = steady_consume_sync(e->throttler, "k", 1, 1, &e->result);
    return NULL;
}

static struct elsewhere from_another_thread(steady_throttler *t) {
    struct elsewhere e = {.throttler = t, .result = garbage()};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_elsewhere, &e), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return e;
}

static void another_thread_may_only_block_on_the_embedded_store(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    steady_store *store = open_store("memory:", &(steady_store_options){.loop = &loop});
    steady_throttler *t = throttler_with(store, NULL);
    struct elsewhere e = from_another_thread(t);
    assert_int_equal(e.async, STEADY_WRONG_THREAD);
    assert_int_equal(e.sync, 0);
    assert_int_equal(e.result.level, 1);
    steady_throttler_free(&t);
    steady_store_close(&store);

    store = open_store(NO_SERVER, &(steady_store_options){.loop = &loop});
    t = throttler_with(store, NULL);
    e = from_another_thread(t);
    assert_int_equal(e.async, STEADY_WRONG_THREAD);
    assert_int_equal(e.sync, STEADY_WRONG_THREAD);
    assert_refused(&e.result, STEADY_WRONG_THREAD);
    steady_throttler_free(&t);
    steady_store_close(&store);
    steady_poller_free(&poller);
}

/* ---- After close ---- */

static void assert_closed(steady_throttler *t) {
    steady_result r[3] = {garbage(), garbage(), garbage()};
    assert_int_equal(steady_consume_sync(t, "k", 1, 1, &r[0]), STEADY_CLOSED);
    assert_int_equal(steady_peek_sync(t, "k", 1, &r[1]), STEADY_CLOSED);
    assert_int_equal(steady_reset_sync(t, "k", 1, &r[2]), STEADY_CLOSED);
    for (int i = 0; i < 3; i++)
        assert_refused(&r[i], STEADY_CLOSED);
    assert_int_equal(steady_consume(t, "k", 1, 1, never, NULL), STEADY_CLOSED);
    assert_int_equal(steady_peek(t, "k", 1, never, NULL), STEADY_CLOSED);
    assert_int_equal(steady_reset(t, "k", 1, never, NULL), STEADY_CLOSED);
}

static void throttler_of_a_closed_store_answers_closed(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const char *urls[] = {"memory:", NO_SERVER};
    for (size_t i = 0; i < 2; i++) {
        steady_store *store = open_store(urls[i], &(steady_store_options){.loop = &loop});
        /* No policy answers for a closed store. */
        steady_throttler *t[2] = {throttler_with(store, NULL),
                                  throttler_with(store, &(steady_throttler_options){.on_error = STEADY_LOCAL})};
        steady_store_close(&store);
        assert_null(store);
        steady_store_close(&store);
        assert_closed(t[0]);
        assert_closed(t[1]);
        steady_throttler_free(&t[0]);
        assert_null(t[0]);
        steady_throttler_free(&t[0]);
        steady_throttler_free(&t[1]);
    }
    assert_int_equal(steady_poller_run(poller, 0), 0);
    steady_poller_free(&poller);
    assert_null(poller);
    steady_poller_free(&poller);
}

static void close_cancels_waiting_calls_and_runs_no_callback_after(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop loop = steady_poller_loop(poller);
    const char *urls[] = {"memory:", NO_SERVER};
    for (size_t i = 0; i < 2; i++) {
        int answers = 0;
        steady_store *store = open_store(urls[i], &(steady_store_options){.loop = &loop});
        steady_throttler *t = throttler_with(store, NULL);
        assert_int_equal(steady_consume(t, "k", 1, 1, count, &answers), 0);
        assert_int_equal(steady_peek(t, "k", 1, count, &answers), 0);
        assert_int_equal(answers, 0);
        steady_throttler_free(&t);
        steady_store_close(&store);
        assert_int_equal(answers, 2);
        while (steady_poller_run(poller, 10 * STEADY_MILLISECOND) > 0) {
        }
        assert_int_equal(answers, 2);
    }
    steady_poller_free(&poller);
}

static void freeing_null_does_nothing(void **state) {
    (void)state;
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_poller *poller = NULL;
    steady_store_close(NULL);
    steady_store_close(&store);
    steady_throttler_free(NULL);
    steady_throttler_free(&throttler);
    steady_poller_free(NULL);
    steady_poller_free(&poller);
}

static void stats_and_trouble_of_null_are_empty(void **state) {
    (void)state;
    steady_stats stats;
    static const steady_stats zero;
    memset(&stats, 0x5a, sizeof stats);
    steady_store_stats(NULL, &stats);
    assert_memory_equal(&stats, &zero, sizeof stats);
    steady_store_stats(NULL, NULL);
    assert_string_equal(last_error_of(NULL), "");
}

static void numbers_of_the_version_are_its_text(void **state) {
    char text[32];
    (void)state;
    snprintf(text, sizeof text, "%d.%d.%d", STEADY_VERSION_MAJOR, STEADY_VERSION_MINOR, STEADY_VERSION_PATCH);
    assert_string_equal(text, STEADY_VERSION);
    assert_string_equal(text, steady_version());
#if STEADY_VERSION_NUMBER < 1000
    fail_msg("STEADY_VERSION_NUMBER is %d", STEADY_VERSION_NUMBER);
#endif
    assert_int_equal(STEADY_VERSION_NUMBER,
                     STEADY_VERSION_MAJOR * 1000000 + STEADY_VERSION_MINOR * 1000 + STEADY_VERSION_PATCH);
}

/* ---- Reserved fields ---- */

static void reserved_field_of_a_limit_must_be_zero(void **state) {
    (void)state;
    steady_store *store = open_store(NULL, NULL);
    for (size_t i = 0; i < sizeof ten.reserved / sizeof ten.reserved[0]; i++) {
        steady_limit limit = ten;
        steady_throttler *throttler = (steady_throttler *)(uintptr_t)1;
        steady_message why = {.text = ""};
        limit.reserved[i] = 1;
        assert_int_equal(steady_limit_check(&limit, &why), STEADY_BAD_ARGUMENT);
        assert_says(&why, "reserved fields of steady_limit must be zero");
        assert_int_equal(steady_throttler_new(&throttler, store, &limit, NULL, &why), STEADY_BAD_ARGUMENT);
        assert_null(throttler);
    }
    steady_store_close(&store);
}

static void reserved_field_of_a_loop_must_be_zero(void **state) {
    (void)state;
    steady_poller *poller = NULL;
    assert_int_equal(steady_poller_new(&poller), 0);
    const steady_loop good = steady_poller_loop(poller);
    const char *urls[] = {"memory:", NO_SERVER};
    for (size_t i = 0; i < 2; i++) {
        for (size_t at = 0; at < sizeof good.reserved / sizeof good.reserved[0]; at++) {
            steady_loop loop = good;
            loop.reserved[at] = poller;
            assert_no_open(urls[i], &(steady_store_options){.loop = &loop}, "reserved fields of steady_loop must");
        }
        for (size_t at = 0; at < sizeof good.ops->reserved / sizeof good.ops->reserved[0]; at++) {
            steady_loop_ops ops = *good.ops;
            const steady_loop loop = {.ops = &ops, .loop = good.loop};
            ops.reserved[at] = (void (*)(void))never;
            assert_no_open(urls[i], &(steady_store_options){.loop = &loop}, "reserved fields of steady_loop_ops must");
        }
    }
    steady_poller_free(&poller);
}

static void each_call_leaves_zero_in_the_reserved_fields_of_a_result(void **state) {
    static const uint64_t zero[sizeof((steady_result *)NULL)->reserved / sizeof(uint64_t)];
    (void)state;
    steady_store *store = open_store(NULL, NULL);
    steady_throttler *t = throttler_with(store, NULL);
    steady_result r[4] = {garbage(), garbage(), garbage(), garbage()};
    steady_consume_sync(t, "k", 1, 1, &r[0]);
    steady_peek_sync(t, "k", 1, &r[1]);
    steady_reset_sync(t, "k", 1, &r[2]);
    steady_consume_sync(t, "", 0, 1, &r[3]);
    for (int i = 0; i < 4; i++)
        assert_memory_equal(r[i].reserved, zero, sizeof zero);
    steady_throttler_free(&t);
    steady_store_close(&store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_store_options_are_refused_with_a_reason),
        cmocka_unit_test(store_options_at_their_bounds_are_accepted),
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(password_in_a_bad_url_is_never_shown),
        cmocka_unit_test(attach_without_a_context_is_refused),
        cmocka_unit_test(bad_limit_makes_no_throttler),
        cmocka_unit_test(bad_throttler_options_are_refused_with_a_reason),
        cmocka_unit_test(bad_keys_are_refused_by_each_call),
        cmocka_unit_test(keys_that_differ_in_the_last_byte_are_two_buckets),
        cmocka_unit_test(prefix_counts_towards_the_length_of_the_key),
        cmocka_unit_test(bad_amounts_are_refused_and_charge_nothing),
        cmocka_unit_test(call_without_loop_callback_or_result_is_refused),
        cmocka_unit_test(another_thread_may_only_block_on_the_embedded_store),
        cmocka_unit_test(throttler_of_a_closed_store_answers_closed),
        cmocka_unit_test(close_cancels_waiting_calls_and_runs_no_callback_after),
        cmocka_unit_test(freeing_null_does_nothing),
        cmocka_unit_test(stats_and_trouble_of_null_are_empty),
        cmocka_unit_test(numbers_of_the_version_are_its_text),
        cmocka_unit_test(reserved_field_of_a_limit_must_be_zero),
        cmocka_unit_test(reserved_field_of_a_loop_must_be_zero),
        cmocka_unit_test(each_call_leaves_zero_in_the_reserved_fields_of_a_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
