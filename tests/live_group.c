/* SPDX-License-Identifier: MIT
 * Calls on several keys on a real server: with the scripts and with the module, asynchronous, blocking and on a hiredis
 * context. What they charge, and what they leave alone when something fails. */
#include <hiredis/async.h>

#include "stages.h"
#include "steady/hiredis.h"
#include "support.h"

#define MS STEADY_MILLISECOND
#define MOST 64
#define PATIENT (5 * STEADY_SECOND)

static struct server plain, with_module;

/* The ways in which a call reaches a server. */
static const struct way {
    const char *name;
    struct server *server;
    enum steady_engine engine;
    enum { ASYNC, BLOCKING, ATTACHED } how;
} ways[] = {{"script", &plain, STEADY_ENGINE_SCRIPT, ASYNC},
            {"script, blocking", &plain, STEADY_ENGINE_SCRIPT, BLOCKING},
            {"script, attached", &plain, STEADY_ENGINE_SCRIPT, ATTACHED},
            {"no module", &plain, STEADY_ENGINE_AUTO, ASYNC},
            {"module", &with_module, STEADY_ENGINE_MODULE, ASYNC},
            {"module, blocking", &with_module, STEADY_ENGINE_MODULE, BLOCKING},
            {"module, attached", &with_module, STEADY_ENGINE_AUTO, ATTACHED}};

static const struct way *way; /* of the test that runs */
static const struct stage *stage;
static steady_loop loop;
static redisAsyncContext *context;
static struct log_lines log_lines;
static steady_store *store;
static steady_throttler *a, *b; /* ten drops, of which one leaks each hour; b blocks for a minute */

static steady_throttler *throttler_of(steady_limit limit) {
    steady_throttler *t = NULL;
    if (steady_throttler_new(&t, store, &limit, NULL, NULL) != 0) fail_msg("%s: no throttler", way->name);
    return t;
}

static void open_at(const struct way *to, const char *url, steady_us timeout) {
    steady_message why = {.text = ""};
    way = to;
    stage = stages[0];
    loop = stage->make();
    log_lines = (struct log_lines){0};
    const steady_store_options options = {.loop = &loop,
                                          .timeout = timeout,
                                          .engine = way->engine,
                                          .log = remember_line,
                                          .log_data = &log_lines,
                                          .deny_memory_off = true};
    if (way->how == ATTACHED) {
        context = redisAsyncConnect("127.0.0.1", way->server->port);
        assert_int_equal(stage->attach(context, loop.loop), REDIS_OK);
        if (steady_store_attach(&store, context, &options, &why) != 0) fail_msg("%s: %s", way->name, why.text);
    } else {
        store = open_store(url, &options);
    }
    a = throttler_of((steady_limit){.max_capacity = 10, .drop_recharge = HOUR});
    b = throttler_of((steady_limit){.max_capacity = 10, .drop_recharge = HOUR, .block_duration = 60 * STEADY_SECOND});
}

static void open_way(const struct way *to) {
    server_ask(to->server, "FLUSHALL");
    server_ask(to->server, "CONFIG RESETSTAT");
    open_at(to, to->server->url, PATIENT);
}

static void close_way(void) {
    steady_throttler_free(&a);
    steady_throttler_free(&b);
    steady_store_close(&store);
    if (context != NULL) redisAsyncFree(context);
    context = NULL;
    if (!stage->leave(loop.loop)) fail_msg("%s: something is left in the loop", way->name);
}

/* ---- Calls ---- */

static steady_part_result each[MOST]; /* of the last call */
static steady_result answer;
static unsigned long submitted, called, errors[32];

static void remember(const steady_result *result, void *data) {
    (void)data;
    called++;
    answer = *result;
    if (result->error != 0) errors[-result->error]++;
    if (result->parts != NULL) memcpy(each, result->parts, result->n_parts * sizeof each[0]);
}

static void await_all(void) {
    const steady_us until = now_us() + 2 * PATIENT;
    while (called < submitted) {
        if (now_us() > until) fail_msg("%s: %lu of %lu in time", way->name, called, submitted);
        stage->turn(loop.loop);
    }
}

static void begin(void) {
    submitted = called = 0;
    memset(errors, 0, sizeof errors);
    memset(&answer, 0, sizeof answer);
    memset(each, 0, sizeof each);
}

static const steady_how defaults;

static void remember_and_free(const steady_result *result, void *data) {
    steady_reservation *reservation = result->reservation;
    remember(result, data);
    steady_reservation_free(&reservation);
}

static void submit(const steady_part *parts, size_t n, const steady_how *how, uint64_t *id) {
    const int error = steady_consume_all(parts, n, how, remember_and_free, NULL, id);
    if (error != 0) fail_msg("%s: submit: %s", way->name, steady_error_text(error));
    submitted++;
}

/* Makes a call and waits for its answer. */
static const steady_result *ask(const steady_part *parts, size_t n, steady_how how, bool peek) {
    steady_message why = {.text = ""};
    how.parts = each;
    how.parts_room = MOST;
    how.why = &why;
    begin();
    if (way->how == BLOCKING) {
        (void)(peek ? steady_peek_all_sync : steady_consume_all_sync)(parts, n, &how, &answer);
    } else {
        const int error = (peek ? steady_peek_all : steady_consume_all)(parts, n, &how, remember, NULL, NULL);
        if (error != 0) fail_msg("%s: %s", way->name, why.text);
        submitted = 1;
        await_all();
    }
    return &answer;
}

static const steady_result *consume(const steady_part *parts, size_t n) { return ask(parts, n, defaults, false); }

static steady_part part_of(steady_throttler *throttler, const char *key, int64_t amount) {
    return (steady_part){.throttler = throttler, .key = key, .key_len = strlen(key), .amount = amount};
}

static steady_part kind_of(steady_throttler *throttler, const char *key, int64_t amount, enum steady_kind kind) {
    steady_part part = part_of(throttler, key, amount);
    part.kind = kind;
    return part;
}

static const steady_result *one_call(steady_throttler *throttler, steady_call call) {
    begin();
    if (way->how == BLOCKING) {
        (void)steady_decide_sync(throttler, &call, &answer);
    } else {
        assert_int_equal(steady_decide(throttler, &call, remember, NULL, NULL), 0);
        submitted = 1;
        await_all();
    }
    return &answer;
}

static int64_t level_of(steady_throttler *throttler, const char *key) {
    const steady_result *r =
        one_call(throttler, (steady_call){.verb = STEADY_PEEK, .key = key, .key_len = strlen(key)});
    if (r->error != 0) fail_msg("%s: peek: %s", way->name, last_error_of(store));
    return r->level;
}

/* An attached store has no blocking calls, so `why` is not checked there. */
static const steady_result *settle(steady_reservation *reservation, int64_t actual) {
    steady_throttler *both[] = {a, b};
    const steady_settlement settlement = {.reservation = reservation,
                                          .actual = actual,
                                          .throttlers = both,
                                          .n_throttlers = 2,
                                          .parts = each,
                                          .parts_room = MOST};
    begin();
    if (way->how == BLOCKING) {
        (void)steady_settle_sync(&settlement, &answer);
    } else {
        assert_int_equal(steady_settle(&settlement, remember, NULL, NULL), 0);
        submitted = 1;
        await_all();
    }
    return &answer;
}

#define EACH_WAY                                                                                                       \
    for (size_t nth = 0; nth < COUNT(ways); nth++, close_way())                                                        \
        if (open_way(&ways[nth]), true)

#define CHECK(condition)                                                                                               \
    do                                                                                                                 \
        if (!(condition))                                                                                              \
            fail_msg("%s, line %d: %s; error %d, %s", way->name, __LINE__, #condition, answer.error,                   \
                     last_error_of(store));                                                                            \
    while (0)

/* ---- What a call does ---- */

static void allowed_call_charges_all_buckets_and_a_denied_one_none(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part first[] = {part_of(a, "x", 3), part_of(b, "y", 8)};
        CHECK(consume(first, 2)->success && answer.atomic && answer.source == STEADY_FROM_STORE);
        CHECK(answer.n_parts == 2 && answer.part == 1 && answer.level == 8 && answer.granted == 8);
        CHECK(each[0].level == 3 && each[0].granted == 3 && each[0].until_next_drop > HOUR - 10 * STEADY_SECOND);
        const steady_part second[] = {part_of(a, "x", 1), part_of(a, "z", 11), part_of(a, "y", 3)};
        CHECK(!consume(second, 3)->success && answer.error == 0 && answer.part == 1 && answer.retry_after == -1);
        CHECK(each[0].success && each[0].granted == 0 && !each[2].success && each[2].retry_after > 0);
        CHECK(level_of(a, "x") == 3 && level_of(b, "y") == 8 && level_of(a, "z") == 0);
        CHECK(strcmp(server_ask(way->server, "EXISTS z"), "0") == 0);
    }
}

static void each_kind_does_what_it_says(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part parts[] = {part_of(a, "take", 2), kind_of(a, "look", 10, STEADY_LOOK),
                                     kind_of(a, "charge", 25, STEADY_CHARGE), kind_of(b, "shadow", 11, STEADY_SHADOW),
                                     part_of(a, "drain", -4)};
        CHECK(consume(parts, 5)->success);
        CHECK(each[0].level == 2 && each[1].level == 0 && each[2].level == 25 && each[3].level == 0);
        CHECK(!each[3].success && each[3].retry_after == -1 && each[2].granted == 25 && each[1].granted == 0);
        CHECK(each[4].success && each[4].level == 0);
        CHECK(!consume(&(steady_part){.throttler = a, .key = "charge", .key_len = 6, .amount = 1}, 1)->success);
        const steady_part denied[] = {part_of(a, "take", 2), kind_of(a, "charge", 1, STEADY_LOOK)};
        CHECK(!consume(denied, 2)->success && level_of(a, "take") == 2);
        const steady_part blocking[] = {part_of(b, "block", 7), kind_of(b, "shadow", 7, STEADY_SHADOW)};
        CHECK(consume(blocking, 2)->success && consume(blocking, 2)->blocked_for > 59 * STEADY_SECOND);
        CHECK(each[0].blocked_for > 0 && each[1].blocked_for > 0 && each[0].retry_after > 0);
    }
}

static void max_wait_takes_a_place_in_line(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part parts[] = {part_of(a, "x", 10), part_of(a, "y", 1)};
        CHECK(ask(parts, 2, (steady_how){.max_wait = HOUR}, false)->success && answer.must_wait == 0);
        const steady_part next[] = {part_of(a, "x", 1), part_of(a, "y", 1)};
        CHECK(ask(next, 2, (steady_how){.max_wait = HOUR}, true)->success &&
              answer.must_wait > HOUR - 10 * STEADY_SECOND);
        CHECK(answer.level == 10);
        CHECK(ask(next, 2, (steady_how){.max_wait = HOUR}, false)->success &&
              answer.must_wait > HOUR - 10 * STEADY_SECOND);
        CHECK(answer.must_wait <= HOUR && answer.level == 11 && each[1].level == 2);
        CHECK(!ask(next, 2, (steady_how){.max_wait = HOUR}, false)->success && answer.must_wait == 0);
        CHECK(answer.retry_after > HOUR - 10 * STEADY_SECOND && answer.retry_after <= HOUR);
        CHECK(level_of(a, "y") == 2);
    }
}

static void at_least_takes_what_fits_in_all_buckets(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part parts[] = {part_of(a, "x", 8), part_of(a, "y", 8)};
        consume(&parts[0], 1);
        CHECK(ask(parts, 2, (steady_how){.at_least = 2}, false)->success && answer.granted == 2);
        CHECK(each[0].level == 10 && each[1].level == 2 && each[1].granted == 2);
        CHECK(!ask(parts, 2, (steady_how){.at_least = 1}, false)->success && level_of(a, "y") == 2);
    }
}

static void throttler_with_several_limits_has_a_bucket_for_each(void **state) {
    (void)state;
    EACH_WAY {
        const steady_limit limits[] = {{.max_capacity = 3, .drop_recharge = STEADY_SECOND * 60},
                                       {.max_capacity = 5, .drop_recharge = HOUR, .name = "daily"}};
        steady_throttler *t = NULL;
        assert_int_equal(
            steady_throttler_new_limits(&t, store, limits, 2, &(steady_throttler_options){.prefix = "p:"}, NULL), 0);
        const steady_call one = {.verb = STEADY_CONSUME, .key = "k", .key_len = 1, .amount = 1};
        for (int i = 0; i < 3; i++)
            CHECK(one_call(t, one)->success);
        CHECK(!one_call(t, one)->success && answer.part == 0 && answer.n_parts == 2);
        CHECK(strcmp(server_ask(way->server, "EXISTS p:{k}1m p:{k}daily"), "2") == 0);
        CHECK(one_call(t, (steady_call){.verb = STEADY_RESET, .key = "k", .key_len = 1})->success && answer.level == 0);
        CHECK(strcmp(server_ask(way->server, "EXISTS p:{k}1m p:{k}daily"), "0") == 0);
        steady_throttler_free(&t);
    }
}

static void settlement_gives_back_what_was_not_used(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part parts[] = {part_of(a, "x", 6), part_of(b, "y", 6)};
        CHECK(ask(parts, 2, (steady_how){.reserve = true}, false)->success && answer.reservation != NULL);
        steady_reservation *reservation = answer.reservation;
        CHECK(settle(reservation, 2)->success && answer.error == 0 && answer.n_parts == 2);
        if (way->how != BLOCKING) CHECK(each[0].given_back > 0 && each[1].charged == 0 && each[1].level == 2);
        CHECK(level_of(a, "x") == 2 && level_of(b, "y") == 2);
        steady_reservation_free(&reservation);
        CHECK(ask(parts, 2, (steady_how){.reserve = true}, false)->success);
        reservation = answer.reservation;
        CHECK(settle(reservation, 9)->success && level_of(a, "x") == 11);
        steady_reservation_free(&reservation);
    }
}

/* A decision is counted once, however many buckets it has. A settlement or a reset is none. */
static void call_counts_as_one_decision(void **state) {
    (void)state;
    EACH_WAY {
        steady_stats stats;
        const steady_part parts[] = {part_of(b, "x", 6), part_of(b, "y", 6)};
        ask(parts, 2, (steady_how){.reserve = true}, false);
        steady_reservation *reservation = answer.reservation;
        ask(parts, 2, defaults, true);
        consume(parts, 2);
        settle(reservation, 2);
        steady_reservation_free(&reservation);
        one_call(a, (steady_call){.verb = STEADY_RESET, .key = "x", .key_len = 1});
        steady_store_stats(store, &stats);
        CHECK(stats.decisions == 3 && stats.allowed == 1 && stats.denied == 2 && stats.blocked == 1);
        CHECK(stats.unknown == 0 && stats.unavailable == 0 && stats.in_flight == 0);
    }
}

/* ---- Sizes ---- */

static char long_keys[MOST][1024];

static void make_long_parts(steady_part *parts, steady_throttler *throttler) {
    for (int i = 0; i < MOST; i++) {
        memset(long_keys[i], 'k', sizeof long_keys[i]);
        snprintf(long_keys[i], 12, "{t}%d", i);
        parts[i] =
            (steady_part){.throttler = throttler, .key = long_keys[i], .key_len = sizeof long_keys[i], .amount = 1};
    }
}

static void call_on_64_keys_of_1024_bytes_is_made(void **state) {
    (void)state;
    EACH_WAY {
        steady_part parts[MOST];
        make_long_parts(parts, b);
        CHECK(consume(parts, MOST)->success && answer.n_parts == MOST && each[63].level == 1);
        parts[63].amount = 10;
        CHECK(!consume(parts, MOST)->success && answer.part == 63 && each[63].blocked_for > 0);
        CHECK(!ask(parts, MOST, defaults, true)->success && each[0].level == 1);
        CHECK(strcmp(server_ask(way->server, "DBSIZE"), "64") == 0);
        CHECK(ask(parts, MOST - 1, (steady_how){.reserve = true}, false)->success);
        steady_reservation *reservation = answer.reservation;
        CHECK(settle(reservation, 0)->success && answer.n_parts == MOST - 1);
        steady_reservation_free(&reservation);
    }
}

/* The long requests and the short ones leave in the order of submit, and each answer finds its call. */
static void long_calls_and_short_ones_share_a_connection(void **state) {
    (void)state;
    EACH_WAY {
        steady_part parts[MOST];
        struct tally tally = {0};
        steady_throttler *t = throttler_of((steady_limit){.max_capacity = 1000000, .drop_recharge = HOUR});
        if (way->how == BLOCKING) {
            steady_throttler_free(&t);
            continue;
        }
        make_long_parts(parts, t);
        begin();
        for (int i = 0; i < 200; i++) {
            consume_counted(t, "short", 1, &tally);
            if (i % 5 == 0) submit(parts, i % 10 == 0 ? MOST : 20, NULL, NULL);
        }
        await_all();
        while (tally.called < tally.submitted)
            stage->turn(loop.loop);
        CHECK(tally.allowed == 200 && tally.last.level == 200 && called == 40 && answer.success);
        CHECK(ask(parts, MOST, defaults, true)->error == 0 && each[0].level == 40 && each[20].level == 20);
        steady_throttler_free(&t);
    }
}

/* ---- Faults ---- */

static void key_that_is_no_bucket_charges_nothing(void **state) {
    (void)state;
    EACH_WAY {
        const steady_part parts[] = {part_of(a, "x", 3), part_of(a, "precious", 1), part_of(a, "y", 3)};
        server_ask(way->server, "SET precious text");
        CHECK(consume(parts, 3)->error == STEADY_NOT_A_BUCKET && answer.parts == NULL);
        CHECK(strstr(last_error_of(store), "precious") == NULL);
        CHECK(ask(parts, 3, defaults, true)->error == STEADY_NOT_A_BUCKET);
        CHECK(strcmp(server_ask(way->server, "EXISTS x y"), "0") == 0);
        CHECK(strcmp(server_ask(way->server, "GET precious"), "text") == 0);
        server_ask(way->server, "DEL precious");
        server_ask(way->server, "RPUSH precious 1");
        CHECK(consume(parts, 3)->error == STEADY_NOT_A_BUCKET);
        CHECK(strcmp(server_ask(way->server, "EXISTS x y"), "0") == 0);
    }
}

static void flushed_script_is_loaded_and_each_call_charged_once(void **state) {
    (void)state;
    EACH_WAY {
        steady_throttler *t = throttler_of((steady_limit){.max_capacity = 1000000, .drop_recharge = HOUR});
        const steady_part parts[] = {part_of(t, "x", 1), part_of(t, "y", 2)};
        steady_stats stats;
        for (int round = 0; round < 3 && way->how != BLOCKING; round++) {
            server_ask(way->server, "SCRIPT FLUSH");
            begin();
            for (int i = 0; i < 300; i++)
                submit(parts, 2, NULL, NULL);
            await_all();
            CHECK(answer.success);
        }
        if (way->how != BLOCKING) CHECK(level_of(t, "x") == 900 && level_of(t, "y") == 1800);
        steady_store_stats(store, &stats);
        if (way->how == ASYNC && way->server == &plain) CHECK(stats.script_loads == 3 + 1); /* and peek */
        steady_throttler_free(&t);
    }
}

static void lost_server_leaves_calls_unknown_and_charges_none_twice(void **state) {
    (void)state;
    for (size_t nth = 0; nth < COUNT(ways); nth++) {
        const struct way *to = &ways[nth];
        if (to->how == BLOCKING) continue;
        server_ask(to->server, "FLUSHALL");
        open_at(to, to->server->url, 100 * MS);
        steady_throttler *t = throttler_of((steady_limit){.max_capacity = 1000000, .drop_recharge = HOUR});
        const steady_part parts[] = {part_of(t, "x", 1), part_of(t, "y", 1)};
        consume(parts, 2);
        server_freeze(to->server);
        begin();
        for (int i = 0; i < 20; i++)
            submit(parts, 2, NULL, NULL);
        await_all();
        server_thaw(to->server);
        CHECK(errors[-STEADY_UNKNOWN] == 20);
        while (consume(parts, 2)->error != 0)
            sleep_us(10 * MS);
        CHECK(each[0].level == each[1].level && each[0].level >= 2 && each[0].level <= 1000);
        const int64_t level = each[0].level;
        CHECK(consume(parts, 2)->level == level + 1); /* nothing arrives later */
        steady_throttler_free(&t);
        close_way();
    }
}

static void server_that_is_down_is_unavailable(void **state) {
    struct server server;
    (void)state;
    server_start(&server, NULL);
    struct way to[] = {{"script", &server, STEADY_ENGINE_AUTO, ASYNC},
                       {"blocking", &server, STEADY_ENGINE_AUTO, BLOCKING}};
    for (size_t i = 0; i < COUNT(to); i++) {
        open_at(&to[i], server.url, 100 * MS);
        const steady_part parts[] = {part_of(a, "x", 1), part_of(a, "y", 1)};
        CHECK(consume(parts, 2)->success);
        server_kill(&server);
        const int error = consume(parts, 2)->error;
        CHECK(error == STEADY_UNAVAILABLE || error == STEADY_UNKNOWN);
        CHECK(consume(parts, 2)->error == STEADY_UNAVAILABLE && answer.parts == NULL);
        server_restart(&server, true);
        for (const steady_us until = now_us() + PATIENT; consume(parts, 2)->error != 0 && now_us() < until;)
            sleep_us(10 * MS);
        CHECK(answer.success && each[1].level == 1);
        close_way();
    }
    server_stop(&server);
}

static void cancelled_call_gets_no_callback(void **state) {
    (void)state;
    EACH_WAY {
        if (way->how == BLOCKING) continue;
        const steady_part parts[] = {part_of(a, "x", 1), part_of(a, "y", 1)};
        uint64_t ids[10];
        begin();
        for (int i = 0; i < 10; i++)
            submit(parts, 2, &(steady_how){.reserve = true}, &ids[i]);
        for (int i = 0; i < 10; i += 2)
            assert_int_equal(steady_cancel(a, ids[i]), 0);
        submitted -= 5;
        await_all();
        CHECK(called == 5 && steady_cancel(a, ids[0]) == STEADY_NOT_IN_FLIGHT);
        CHECK(steady_cancel(a, ids[9]) == STEADY_NOT_IN_FLIGHT);
    }
}

static void closing_the_store_cancels_calls_in_flight(void **state) {
    (void)state;
    for (size_t nth = 0; nth < COUNT(ways); nth++) {
        if (ways[nth].how == BLOCKING) continue;
        open_way(&ways[nth]);
        const steady_part parts[] = {part_of(a, "x", 1), part_of(b, "y", 1)};
        steady_part longest[MOST];
        make_long_parts(longest, b);
        consume(parts, 2);
        begin();
        for (int i = 0; i < 10; i++) {
            submit(parts, 2, &(steady_how){.reserve = true}, NULL);
            submit(longest, MOST, NULL, NULL);
        }
        steady_throttler_free(&a);
        steady_throttler_free(&b); /* the calls hold them */
        steady_store_close(&store);
        assert_int_equal(called, 20);
        assert_int_equal(errors[-STEADY_CANCELLED], 20);
        close_way();
    }
}

static void user_without_the_right_to_one_key_is_refused_and_nothing_charged(void **state) {
    char url[96];
    (void)state;
    for (size_t nth = 0; nth < COUNT(ways); nth++) {
        if (ways[nth].how == ATTACHED) continue;
        server_ask(ways[nth].server, "FLUSHALL");
        server_ask(ways[nth].server, "ACL SETUSER app on >pw resetkeys ~mine:* +@all");
        snprintf(url, sizeof url, "redis://app:pw@127.0.0.1:%d", ways[nth].server->port);
        open_at(&ways[nth], url, PATIENT);
        const steady_part parts[] = {part_of(a, "mine:x", 1), part_of(a, "other", 1)};
        CHECK(consume(parts, 2)->error == STEADY_REFUSED);
        CHECK(strstr(last_error_of(store), "other") == NULL && strstr(log_lines.all, "other") == NULL);
        CHECK(strcmp(server_ask(way->server, "EXISTS mine:x other"), "0") == 0);
        CHECK(consume(parts, 1)->success);
        close_way();
    }
}

/* Each verb finds its own engine. */
static void user_with_one_engine_only_is_served_by_it(void **state) {
    static const char *const rights[] = {
        "ACL SETUSER one on >pw ~* -@all +evalsha +eval +script|load +get +set +del +time",
        "ACL SETUSER one on >pw ~* -@all +steady.consumeall +steady.peekall +steady.settle +steady.reset +steady.peek"};
    char url[96];
    (void)state;
    for (size_t i = 0; i < COUNT(rights); i++) {
        server_ask(&with_module, "FLUSHALL");
        server_ask(&with_module, "ACL DELUSER one");
        server_ask(&with_module, rights[i]);
        snprintf(url, sizeof url, "redis://one:pw@127.0.0.1:%d", with_module.port);
        open_at(&(struct way){"one engine", &with_module, STEADY_ENGINE_AUTO, ASYNC}, url, PATIENT);
        const steady_part parts[] = {part_of(a, "x", 1), part_of(a, "y", 1)};
        for (int k = 0; k < 3; k++)
            CHECK(ask(parts, 2, (steady_how){.reserve = k == 2}, false)->success);
        steady_reservation *reservation = answer.reservation;
        CHECK(ask(parts, 2, defaults, true)->success && settle(reservation, 0)->success && level_of(a, "x") == 2);
        steady_reservation_free(&reservation);
        close_way();
    }
}

/* ---- Set-up ---- */

static int set_up(void **state) {
    (void)state;
    server_start(&with_module, module_options());
    server_start(&plain, NULL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    server_stop(&with_module);
    server_stop(&plain);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowed_call_charges_all_buckets_and_a_denied_one_none),
        cmocka_unit_test(each_kind_does_what_it_says),
        cmocka_unit_test(max_wait_takes_a_place_in_line),
        cmocka_unit_test(at_least_takes_what_fits_in_all_buckets),
        cmocka_unit_test(throttler_with_several_limits_has_a_bucket_for_each),
        cmocka_unit_test(settlement_gives_back_what_was_not_used),
        cmocka_unit_test(call_counts_as_one_decision),
        cmocka_unit_test(call_on_64_keys_of_1024_bytes_is_made),
        cmocka_unit_test(long_calls_and_short_ones_share_a_connection),
        cmocka_unit_test(key_that_is_no_bucket_charges_nothing),
        cmocka_unit_test(flushed_script_is_loaded_and_each_call_charged_once),
        cmocka_unit_test(lost_server_leaves_calls_unknown_and_charges_none_twice),
        cmocka_unit_test(server_that_is_down_is_unavailable),
        cmocka_unit_test(cancelled_call_gets_no_callback),
        cmocka_unit_test(closing_the_store_cancels_calls_in_flight),
        cmocka_unit_test(user_without_the_right_to_one_key_is_refused_and_nothing_charged),
        cmocka_unit_test(user_with_one_engine_only_is_served_by_it),
    };
    return cmocka_run_group_tests_name("group", tests, set_up, tear_down);
}
