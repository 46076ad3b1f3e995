/* SPDX-License-Identifier: MIT
 * Calls with a group under every order of events. Calls run as coroutines that are switched at every access to shared
 * memory, in an order drawn from a seed. Some of them never continue, like a process that was killed. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

static void step(void);
#define STEADY__STEP() step()
#include "../src/local/local_group.c"
#include "../src/local/table.c"
#include "group_rig.h"

#define TASKS 4
#define OPERATIONS 4
#define KEYS 3
#define CAPACITY 6
#define ROUNDS 1000
#define STACK (256 * 1024)
#define BUCKETS 256
#define AGES ((int64_t)1 << 40)
#define A_MOMENT 10000000 /* us; longer than all leaks of a round together, and far shorter than AGES */

static const struct steady__rate lasting = {CAPACITY, AGES, 1, 0};
static const struct steady__rate blocking = {CAPACITY, AGES, 1, 50};
static const char *const keys[KEYS] = {"a", "b", "c"};

/* The drops of a key, as far as is known from outside. */
struct account {
    int64_t floor;   /* of calls that were allowed, and not given back */
    int64_t ceiling; /* also those of calls in progress, and those being given back */
};

/* What a task was allowed, and may settle. */
struct reservation {
    bool open;
    int64_t granted[KEYS], moment[KEYS];
};

struct task {
    ucontext_t context;
    bool over;
    bool deciding;
    int64_t began;         /* its call */
    int64_t highest[KEYS]; /* levels since then. Seen at that time: a rest of 1 us may have leaked since */
    struct reservation reservation;
};

static struct {
    uint64_t random;
    ucontext_t scheduler;
    struct task tasks[TASKS];
    struct task *running; /* NULL: no task is interrupted */
    uint32_t patience;    /* a task is interrupted at every step with a probability of 1 / patience */
    struct account accounts[KEYS];
    struct steady__rate rate;
    unsigned allowed, denied;
    void (*interrupt)(void); /* called once, at a step, if no task runs */
    unsigned steps_until;
    struct steady__table table;
    struct steady__place places[KEYS];
    _Alignas(STEADY__TABLE_ALIGN) unsigned char bytes[14 * 1024];
    struct slots {
        struct steady__slot group[KEYS][2][STEADY__GROUP_SLOTS], overflow[STEADY__GROUP_SLOTS];
    } checked; /* the slots of the keys, as they were last checked */
    _Alignas(16) unsigned char stacks[TASKS][STACK];
} world;

static uint32_t random_below(uint32_t count) {
    world.random = world.random * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)((world.random >> 32) * count >> 32);
}

static void step(void) {
    if (world.running != NULL) {
        swapcontext(&world.running->context, &world.scheduler);
    } else if (world.interrupt != NULL && world.steps_until-- == 0) {
        void (*interrupt)(void) = world.interrupt;
        world.interrupt = NULL;
        interrupt();
    }
}

static struct steady__ask ask_about(const char *key, const struct steady__rate *rate) {
    static const unsigned char hash_key[STEADY__SIPHASH_KEY];
    return (struct steady__ask){.place = steady__table_place(&world.table, steady__siphash(hash_key, key, 1)),
                                .rate = rate,
                                .peek = true,
                                .stepped = true,
                                .now = group_now};
}

/* Not interrupted itself. */
static int64_t level_at(unsigned key, int64_t now) {
    struct task *running = world.running;
    void (*interrupt)(void) = world.interrupt;
    struct steady__ask ask = ask_about(keys[key], &world.rate);
    struct steady__answer answer;
    ask.now = now;
    world.running = NULL;
    world.interrupt = NULL;
    assert_true(steady__table_decide(&ask, &answer));
    world.running = running;
    world.interrupt = interrupt;
    return answer.decision.level;
}

static int64_t level_of(unsigned key) { return level_at(key, group_now); }

/* ---- Calls ---- */

static void pass_time(void) { group_now += random_below(40) == 0 ? LEASE + 1 : random_below(3); }

/* The call was denied, so at some moment of it one bucket had no room. */
static bool was_full(const struct task *task, const struct group_call *c) {
    for (size_t i = 0; i < c->call.group->n; i++) {
        const struct steady__member *m = &c->call.group->members[i];
        const int64_t asked = c->call.group->how.at_least > 0 ? c->call.group->how.at_least : m->part.amount;
        if (task->highest[m->key[0] - 'a'] + asked > CAPACITY) return true;
    }
    return false;
}

static void consume(struct task *task) {
    struct steady__how how = {.at_least = random_below(4) == 0 ? 1 : 0};
    const int64_t amount = 1 + random_below(3);
    struct group_call c;
    group_begin(&c, STEADY__CONSUME_ALL, &how);
    const unsigned first = random_below(KEYS), n = 1 + random_below(KEYS);
    for (unsigned i = 0; i < n; i++) {
        const unsigned key = (first + i) % KEYS;
        group_take(&c, keys[key], world.rate, how.at_least > 0 ? amount : 1 + random_below(3), STEADY__TAKE);
        world.accounts[key].ceiling += c.call.group->members[i].part.amount;
    }
    for (unsigned key = 0; key < KEYS; key++)
        task->highest[key] = level_of(key);
    task->began = group_now;
    task->deciding = true;
    pass_time();
    group_run(&c, &world.table);
    task->deciding = false;
    task->reservation = (struct reservation){.open = c.result.success};
    for (unsigned i = 0; i < n; i++) {
        const unsigned key = (first + i) % KEYS;
        const int64_t granted = c.call.group->results[i].granted;
        world.accounts[key].ceiling -= c.call.group->members[i].part.amount - granted;
        world.accounts[key].floor += granted;
        task->reservation.granted[key] = granted;
        task->reservation.moment[key] = c.call.group->members[i].moment;
        assert_int_equal(granted > 0, c.result.success);
    }
    if (!c.result.success && world.rate.block == 0) assert_true(was_full(task, &c));
    *(c.result.success ? &world.allowed : &world.denied) += 1;
    group_end(&c);
}

static void settle(struct task *task) {
    struct reservation *r = &task->reservation;
    int64_t less[KEYS] = {0};
    struct group_call c;
    if (!r->open) return;
    group_begin(&c, STEADY__SETTLE, NULL);
    for (unsigned key = 0; key < KEYS; key++) {
        if (r->granted[key] == 0) continue;
        struct steady__settlement *s = &group_add(&c, keys[key], world.rate)->settlement;
        s->reserved = r->granted[key];
        s->actual = random_below((uint32_t)r->granted[key] + 1);
        s->moment = r->moment[key];
        s->same_rate = true;
        less[key] = s->reserved - s->actual;
        world.accounts[key].floor -= less[key];
    }
    r->open = false;
    pass_time();
    group_run(&c, &world.table);
    for (unsigned key = 0; key < KEYS; key++)
        world.accounts[key].ceiling -= less[key];
    group_end(&c);
}

static void task_main(void) {
    struct task *task = world.running;
    for (int i = 0; i < OPERATIONS; i++) {
        consume(task);
        if (random_below(2) == 0) settle(task);
    }
    task->over = true;
    swapcontext(&task->context, &world.scheduler);
}

/* ---- Rounds ---- */

static void start_world(const struct steady__rate *rate) {
    memset(world.bytes, 0, sizeof world.bytes);
    memset(world.accounts, 0, sizeof world.accounts);
    group_now = 2 * AGES; /* no phase is older than the clock */
    world.running = NULL;
    world.interrupt = NULL;
    world.rate = *rate;
    steady__table_init(&world.table, world.bytes, BUCKETS);
    for (unsigned key = 0; key < KEYS; key++)
        world.places[key] = ask_about(keys[key], rate).place;
}

/* All slots live: the keys share an overflow bucket. */
static void fill_table(void) {
    static const struct steady__rate filler = {1, AGES - 1, 1, 0};
    for (size_t i = 0; i < (size_t)world.table.groups * STEADY__GROUP_SLOTS; i++) {
        struct steady__slot *slot = &world.table.slots[i];
        slot->identity.word[0] = i + 1;
        slot->state.word[0] = table_with_time(0, group_now);
        slot->state.word[1] = (uint64_t)1 << 33 | table_drain_encode(filler.recharge);
    }
}

static void start_round(uint64_t seed, const struct steady__rate *rate) {
    static const uint32_t patience[] = {1, 2, 20, 100};
    start_world(rate);
    world.random = seed * 0x9e3779b97f4a7c15;
    world.patience = patience[seed % 4];
    for (int i = 0; i < TASKS; i++) {
        struct task *task = &world.tasks[i];
        memset(task, 0, sizeof *task);
        getcontext(&task->context);
        task->context.uc_stack.ss_sp = world.stacks[i];
        task->context.uc_stack.ss_size = STACK;
        makecontext(&task->context, task_main, 0);
    }
}

/* A slot of the keys has changed since the last call. */
static bool have_slots_changed(void) {
    static struct slots now;
    for (unsigned key = 0; key < KEYS; key++)
        for (int i = 0; i < 2; i++)
            memcpy(now.group[key][i], world.places[key].group[i], sizeof now.group[key][i]);
    memcpy(now.overflow, world.table.overflow, world.table.overflow_slots * sizeof now.overflow[0]);
    if (memcmp(&now, &world.checked, sizeof now) == 0) return false;
    world.checked = now;
    return true;
}

/* No bucket is ever over its capacity, and holds all drops that were allowed. */
static void check_step(uint64_t seed) {
    if (!have_slots_changed()) return;
    for (unsigned key = 0; key < KEYS; key++) {
        const int64_t level = level_of(key);
        if (level < world.accounts[key].floor || level > CAPACITY)
            fail_msg("seed %llu: key %u holds %lld, not %lld .. %d", (unsigned long long)seed, key, (long long)level,
                     (long long)world.accounts[key].floor, CAPACITY);
        for (struct task *t = world.tasks; t < world.tasks + TASKS; t++)
            if (t->deciding && level_at(key, t->began) > t->highest[key]) t->highest[key] = level_at(key, t->began);
    }
}

/* Runs all tasks to their ends except `killed`, which stops after so many steps. -1: none. */
static void run_tasks(uint64_t seed, int killed, unsigned after) {
    unsigned alive = TASKS, at = 0;
    while (alive > 0) {
        if (random_below(world.patience) == 0) at = random_below(TASKS);
        while (world.tasks[at].over)
            at = random_below(TASKS);
        struct task *task = &world.tasks[at];
        world.running = task;
        swapcontext(&world.scheduler, &task->context);
        world.running = NULL;
        check_step(seed);
        if ((int)at == killed && after-- == 0) task->over = true;
        if (task->over) alive--;
    }
}

/* After a moment, in which the rests of settlements leak, the levels are what was allowed. In an overflow bucket they
 * are no less. */
static void check_round(uint64_t seed, bool full) {
    group_now += A_MOMENT;
    for (unsigned key = 0; key < KEYS; key++) {
        const struct account *account = &world.accounts[key];
        const int64_t level = level_of(key);
        if (level < account->floor || (level > account->ceiling && !full))
            fail_msg("seed %llu: key %u holds %lld, not %lld .. %lld", (unsigned long long)seed, key, (long long)level,
                     (long long)account->floor, (long long)account->ceiling);
    }
}

static void play(uint64_t seed, int killed, unsigned after) {
    const bool full = seed % 5 == 0;
    start_round(seed, seed % 7 == 0 ? &blocking : &lasting);
    if (full) fill_table();
    run_tasks(seed, killed, after);
    check_round(seed, full);
    for (unsigned key = 0; key < KEYS && killed < 0; key++)
        assert_int_equal(world.accounts[key].floor, world.accounts[key].ceiling);
}

static void any_order_of_steps_allows_no_more_than_the_limits(void **state) {
    (void)state;
    world.allowed = world.denied = 0;
    for (uint64_t seed = 1; seed <= ROUNDS; seed++)
        play(seed, -1, 0);
    assert_true(world.allowed > ROUNDS && world.denied > ROUNDS);
}

static void task_killed_at_any_step_leaves_only_its_own_drops(void **state) {
    (void)state;
    for (unsigned after = 0; after < 300; after += 2)
        for (unsigned i = 0; i < TASKS; i++)
            play(1000000 + after * TASKS + i, (int)i, after);
}

/* ---- One interruption, at each step of a call ---- */

#define HOUR ((int64_t)3600 * 1000000)
#define MINUTE ((int64_t)60 * 1000000)
#define STEPS 120 /* more than that settlement takes */

static const struct steady__rate weekly = {CAPACITY, 168 * HOUR, 1, 0};
static const struct steady__rate hourly = {CAPACITY, HOUR, 1, 0}, strict = {CAPACITY, HOUR, 1, 24 * HOUR};
static struct steady_part_result others;

static void interrupt_at(unsigned steps, void (*interrupt)(void)) {
    memset(&others, 0, sizeof others);
    world.interrupt = interrupt;
    world.steps_until = steps;
}

/* Starts a world in which `interrupt` runs after so many steps of the next call. */
static void start_and_interrupt_at(unsigned steps, void (*interrupt)(void)) {
    start_world(&hourly);
    interrupt_at(steps, interrupt);
}

/* Runs the call. True: it ended before the interruption. */
static bool run_to_its_end(struct group_call *c) {
    group_run(c, &world.table);
    const bool over = world.interrupt != NULL;
    world.interrupt = NULL;
    return over;
}

static void others_take(const char *key, struct steady__rate rate, int64_t amount) {
    struct group_call c;
    group_begin(&c, STEADY__CONSUME_ALL, NULL);
    group_take(&c, key, rate, amount, STEADY__TAKE);
    group_run(&c, &world.table);
    others = c.call.group->results[0];
    group_end(&c);
}

static void others_take_one_drop_later(void) {
    group_now += 10 * MINUTE;
    others_take("a", hourly, 1);
    group_now += MINUTE;
}

/* A settlement that read its time before others put a drop in does not give back what leaked in between. */
static void settlement_that_is_stopped_gives_back_no_drop_of_others(void **state) {
    (void)state;
    for (unsigned n = 0; n < STEPS; n++) {
        struct group_call c;
        start_world(&hourly);
        others_take("a", hourly, 5);
        const int64_t moment = group_now;
        group_now += MINUTE;
        group_begin(&c, STEADY__SETTLE, NULL);
        struct steady__settlement *s = &group_add(&c, "a", hourly)->settlement;
        s->reserved = 5;
        s->moment = moment;
        s->same_rate = true;
        world.interrupt = others_take_one_drop_later;
        world.steps_until = n;
        group_run(&c, &world.table);
        if (world.interrupt != NULL) {
            assert_true(n > 5);
            world.interrupt = NULL;
            group_end(&c);
            return;
        }
        group_end(&c);
        struct steady__ask ask = ask_about("a", &hourly);
        struct steady__answer answer;
        assert_true(steady__table_decide(&ask, &answer));
        assert_int_equal(answer.decision.level, 1);
        assert_true(answer.decision.until_next_drop >= HOUR - MINUTE);
    }
    fail();
}

static void others_fill_b(void) { others_take("b", strict, CAPACITY); }

/* All or nothing, whenever the other call comes. The block starts only if the first look denied. */
static void call_that_loses_a_race_takes_nothing_and_starts_no_block(void **state) {
    (void)state;
    unsigned raced = 0, blocked = 0, n = 0;
    for (bool over = false; !over; n++) {
        struct group_call c;
        start_and_interrupt_at(n, others_fill_b);
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        group_take(&c, "a", strict, 3, STEADY__TAKE);
        group_take(&c, "b", strict, 2, STEADY__TAKE);
        group_take(&c, "c", strict, 1, STEADY__CHARGE);
        over = run_to_its_end(&c);
        assert_int_equal(level_of(0), c.result.success ? 3 : 0);
        assert_int_equal(level_of(1), others.success ? CAPACITY : 2);
        assert_int_equal(level_of(2), c.result.success ? 1 : 0);
        assert_int_equal(c.result.success, over || !others.success);
        const steady_part_result *b = &c.call.group->results[1];
        if (!c.result.success) {
            assert_int_equal(c.result.part, 1);
            assert_int_equal(b->level, CAPACITY);
            assert_int_equal(c.call.group->results[0].level, 0);
            assert_int_equal(c.call.group->results[2].level, 0);
            assert_int_equal(c.result.retry_after, b->blocked_for > 0 ? 24 * HOUR : 2 * HOUR);
            blocked += b->blocked_for > 0;
            raced += b->blocked_for == 0;
        }
        world.rate = strict;
        struct steady__ask ask = ask_about("b", &strict);
        struct steady__answer answer;
        assert_true(steady__table_decide(&ask, &answer));
        if (others.success) assert_int_equal(answer.decision.blocked_for, b->blocked_for);
        group_end(&c);
        assert_true(n < 5000);
    }
    assert_true(raced > 5 && blocked > 5);
}

/* The same with shared buckets: the call knows that its drops are in them. */
static void call_that_loses_a_race_takes_its_drops_out_of_a_shared_bucket(void **state) {
    (void)state;
    unsigned raced = 0, n = 0;
    for (bool over = false; !over; n++) {
        struct group_call c;
        start_and_interrupt_at(n, others_fill_b);
        fill_table();
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        group_take(&c, "a", weekly, 3, STEADY__TAKE);
        group_take(&c, "b", strict, 2, STEADY__TAKE);
        over = run_to_its_end(&c);
        world.rate = weekly;
        assert_true(c.site.overflowed);
        assert_int_equal(level_of(0), c.result.success ? 3 : 0);
        raced += !c.result.success && c.result.blocked_for == 0;
        group_end(&c);
        assert_true(n < 5000);
    }
    assert_true(raced > 5);
}

static void others_take_one_of_b_later(void) {
    group_now += HOUR / 2;
    others_take("b", hourly, 1);
}

static int64_t taken_at(const char *key) {
    struct steady__errand read = {.task = STEADY__READ};
    struct steady__answer answer;
    struct steady__ask ask = ask_about(key, &hourly);
    ask.peek = false;
    ask.errand = &read;
    assert_true(steady__table_decide(&ask, &answer));
    return read.bucket.last;
}

/* A settlement then gives back what is left, and no more. */
static void moment_of_each_bucket_is_that_of_its_take(void **state) {
    (void)state;
    unsigned apart = 0, n = 0;
    for (bool over = false; !over; n++) {
        struct group_call c;
        start_and_interrupt_at(n, others_take_one_of_b_later);
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        group_take(&c, "a", hourly, 3, STEADY__TAKE);
        group_take(&c, "b", hourly, 2, STEADY__TAKE);
        group_take(&c, "c", hourly, 1, STEADY__CHARGE);
        over = run_to_its_end(&c);
        assert_true(c.result.success);
        assert_int_equal(c.call.group->members[0].moment, taken_at("a"));
        assert_int_equal(c.call.group->members[2].moment, taken_at("c"));
        apart += taken_at("a") != taken_at("c");
        group_end(&c);
        assert_true(n < 5000);
    }
    assert_true(apart > 5);
}

/* ---- More interruptions, at each step ---- */

static unsigned later; /* steps from one interruption to the next */

static void then(void (*interrupt)(void)) {
    world.interrupt = interrupt;
    world.steps_until = later;
}

/* A call that puts 3 drops into a, 2 into b, and drains 2 of another key. True: it was allowed. */
static bool take_and_drain_key(const char *drained, bool *over) {
    struct group_call c;
    group_begin(&c, STEADY__CONSUME_ALL, NULL);
    group_take(&c, drained, strict, -2, STEADY__TAKE);
    group_take(&c, "a", strict, 3, STEADY__TAKE);
    group_take(&c, "b", strict, 2, STEADY__TAKE);
    *over = run_to_its_end(&c);
    const bool allowed = c.result.success;
    world.rate = strict;
    group_end(&c);
    return allowed;
}

static bool take_and_drain(bool *over) { return take_and_drain_key("c", over); }

/* Whichever key comes first in the order of the hashes. */
static void call_that_loses_a_race_drains_nothing(void **state) {
    (void)state;
    static const char *const drained[] = {"c", "d", "e", "f", "g", "h"};
    for (size_t i = 0; i < sizeof drained / sizeof drained[0]; i++) {
        unsigned denied = 0, n = 0;
        for (bool over = false; !over; n++) {
            start_world(&strict);
            others_take(drained[i], strict, 4);
            interrupt_at(n, others_fill_b);
            const bool allowed = take_and_drain_key(drained[i], &over);
            struct steady__ask ask = ask_about(drained[i], &strict);
            struct steady__answer answer;
            assert_true(steady__table_decide(&ask, &answer));
            assert_int_equal(answer.decision.level, allowed ? 2 : 4);
            denied += !allowed;
            assert_true(n < 5000);
        }
        assert_true(denied > 5);
    }
}

static int64_t level_meanwhile; /* of a, when b was drained */

static void others_drain_b(void) {
    world.rate = strict;
    level_meanwhile = level_of(0);
    others_take("b", strict, -CAPACITY);
}

static void others_fill_b_and_drain_it_later(void) {
    others_fill_b();
    then(others_drain_b);
}

/* The first step at which others_fill_b makes the call lose a race: it is denied, and starts no block. */
static unsigned first_race(const struct steady__rate *rate) {
    for (unsigned n = 0; n < 5000; n++) {
        bool over;
        start_and_interrupt_at(n, others_fill_b);
        world.rate = *rate;
        if (take_and_drain(&over)) continue;
        struct steady__ask ask = ask_about("b", &strict);
        struct steady__answer answer;
        assert_true(steady__table_decide(&ask, &answer));
        if (answer.decision.blocked_for == 0) return n;
    }
    fail();
    return 0;
}

/* The bucket was full for a moment between the look and the take. If it is drained after a was taken and settled, the
 * next look finds room. */
static void call_that_loses_a_race_looks_again(void **state) {
    (void)state;
    unsigned again = 0, denied = 0;
    bool a_was_taken = false;
    const unsigned race = first_race(&strict);
    for (later = 0; later < 600; later++) {
        bool over;
        start_and_interrupt_at(race, others_fill_b_and_drain_it_later);
        const bool success = take_and_drain(&over);
        a_was_taken = a_was_taken || level_meanwhile == 3;
        again += success && a_was_taken && level_meanwhile == 0;
        denied += !success;
        assert_int_equal(level_of(0), success ? 3 : 0);
        if (success) assert_int_equal(level_of(1), 2);
    }
    assert_true(again > 5 && denied > 5);
}

/* The look has denied: the call stays denied, and no drop goes in. */
static void call_that_the_look_denied_stays_denied(void **state) {
    (void)state;
    unsigned denied = 0, n = 0;
    for (bool over = false; !over; n++) {
        struct group_call c;
        start_world(&strict);
        others_take("b", strict, CAPACITY);
        interrupt_at(n, others_drain_b);
        group_begin(&c, STEADY__CONSUME_ALL, NULL);
        group_take(&c, "a", strict, 3, STEADY__TAKE);
        group_take(&c, "b", strict, 2, STEADY__TAKE);
        over = run_to_its_end(&c);
        assert_int_equal(level_of(0), c.result.success ? 3 : 0);
        assert_int_equal(level_of(1), over ? CAPACITY : c.result.success ? 2 : 0);
        if (!c.result.success) {
            denied++;
            assert_int_equal(c.result.part, 1);
            assert_false(c.call.group->results[1].success);
            assert_true(c.result.retry_after >= 2 * HOUR);
        }
        group_end(&c);
        assert_true(n < 5000);
    }
    assert_true(denied > 5);
}

static void others_take_one_of_a(void) { others_take("a", hourly, 1); }

/* The end of a block is cleared after the level was changed. Others may do that first. */
static void call_on_a_bucket_whose_block_has_ended_is_made_once(void **state) {
    const struct steady__rate brief = {CAPACITY, HOUR, 1, 50};
    (void)state;
    for (int settles = 0; settles < 2; settles++) {
        unsigned n = 0;
        for (bool over = false; !over; n++) {
            struct group_call c;
            start_world(&brief);
            others_take("a", brief, 4);
            others_take("a", brief, 4);
            const int64_t moment = group_now;
            group_now += 100;
            group_begin(&c, settles ? STEADY__SETTLE : STEADY__CONSUME_ALL, NULL);
            group_take(&c, "a", brief, 1, STEADY__CHARGE);
            c.call.group->members[0].settlement = (struct steady__settlement){
                .rate = &brief, .same_rate = true, .reserved = 4, .moment = moment, .actual = 3};
            interrupt_at(n, others_take_one_of_a);
            over = run_to_its_end(&c);
            assert_int_equal(level_of(0), 4 + (settles ? -1 : 1) + (over ? 0 : 1));
            group_end(&c);
            assert_true(n < 5000);
        }
    }
}

static void others_get_a_slot_for_a(void) {
    struct steady__slot *slot = world.places[0].group[0];
    memset(slot, 0, sizeof *slot);
    others_take("a", weekly, 1);
}

static void others_fill_b_and_get_a_slot_for_a_later(void) {
    others_fill_b();
    then(others_get_a_slot_for_a);
}

/* The call has put 3 drops for a into an overflow bucket, and takes them out. Meanwhile a gets a bucket, as a copy of
 * the overflow bucket with those drops or without them, and a drop of another call. */
static void drops_of_others_stay_in_a_bucket_that_was_copied_meanwhile(void **state) {
    unsigned raced = 0;
    (void)state;
    for (unsigned n = 0; n < 1200; n += 25)
        for (later = 0; later < 600; later += 3) {
            struct group_call c;
            start_world(&weekly);
            fill_table();
            interrupt_at(n, others_fill_b_and_get_a_slot_for_a_later);
            group_begin(&c, STEADY__CONSUME_ALL, NULL);
            group_take(&c, "a", weekly, 3, STEADY__TAKE);
            group_take(&c, "b", strict, 2, STEADY__TAKE);
            group_run(&c, &world.table);
            const bool others_took = world.interrupt == NULL;
            world.interrupt = NULL;
            world.rate = weekly;
            raced += others_took && !c.result.success;
            assert_true(level_of(0) >= (c.result.success ? 3 : 0) + (others_took && others.success ? 1 : 0));
            group_end(&c);
        }
    assert_true(raced > 100);
}

static void others_take_four_of_b(void) { others_take("b", hourly, 4); }

/* With at_least, all buckets get the same, and no drop stays in any of them that was not granted. */
static void partial_grant_is_the_same_in_all_buckets(void **state) {
    (void)state;
    unsigned partial = 0, n = 0;
    for (bool over = false; !over; n++) {
        struct group_call c;
        start_and_interrupt_at(n, others_take_four_of_b);
        group_begin(&c, STEADY__CONSUME_ALL, &(struct steady__how){.at_least = 1});
        group_take(&c, "a", hourly, 5, STEADY__TAKE);
        group_take(&c, "b", hourly, 5, STEADY__TAKE);
        over = run_to_its_end(&c);
        assert_true(c.result.success);
        const int64_t granted = c.result.granted;
        assert_int_equal(c.call.group->results[0].granted, granted);
        assert_int_equal(c.call.group->results[1].granted, granted);
        assert_int_equal(c.call.group->results[0].level, granted);
        assert_int_equal(level_of(0), granted);
        assert_int_equal(level_of(1), granted + (others.success ? 4 : 0));
        partial += granted == 2;
        group_end(&c);
        assert_true(n < 5000);
    }
    assert_true(partial > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settlement_that_is_stopped_gives_back_no_drop_of_others),
        cmocka_unit_test(call_that_loses_a_race_takes_nothing_and_starts_no_block),
        cmocka_unit_test(call_that_loses_a_race_takes_its_drops_out_of_a_shared_bucket),
        cmocka_unit_test(moment_of_each_bucket_is_that_of_its_take),
        cmocka_unit_test(call_that_loses_a_race_drains_nothing),
        cmocka_unit_test(call_that_loses_a_race_looks_again),
        cmocka_unit_test(call_that_the_look_denied_stays_denied),
        cmocka_unit_test(call_on_a_bucket_whose_block_has_ended_is_made_once),
        cmocka_unit_test(drops_of_others_stay_in_a_bucket_that_was_copied_meanwhile),
        cmocka_unit_test(partial_grant_is_the_same_in_all_buckets),
        cmocka_unit_test(any_order_of_steps_allows_no_more_than_the_limits),
        cmocka_unit_test(task_killed_at_any_step_leaves_only_its_own_drops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
