/* SPDX-License-Identifier: MIT
 * A fleet of eight processes on one server: a hot key, and 1,000 others. Measures what it allows, and how often it asks
 * the server: without leases and memory, with the memory, and with both.
 *
 * The load is paced. A process that was kept from running makes up for its calls at once. */
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rig.h"

#define PROCESSES 8
#define TIME (3 * STEADY_SECOND)
#define TICK (10 * MS)   /* each process makes the calls of a tick at once */
#define MUCH (TIME / 20) /* if the machine takes so much away from a process, some checks are left out */
#define AGE (100 * MS)

#define HOT_RATE 10000 /* drops a second */
#define HOT_CAPACITY 1000
#define HOT_DEMAND 1600 /* calls a second of each process: 28 % over the limit together */

#define KEYS 1000
#define RATE 10
#define CAPACITY 10
#define ATTACKED PROCESSES /* the first keys: each gets the calls of one process, ... */
#define ATTACK_DEMAND 400  /* ... so many a second */
#define OTHERS_DEMAND 620  /* calls a second of each process on the other keys: 5 for a key together */
#define HOT_KEY KEYS       /* its number */
#define STEP MS            /* of the record of the calls on the hot key */
#define STEPS (20 * STEADY_SECOND / STEP)

enum kind { HOT, ATTACKED_KEY, OTHER };

static enum kind kind_of(int key) { return key == HOT_KEY ? HOT : key < ATTACKED ? ATTACKED_KEY : OTHER; }

/* What a process has seen. */
struct record {
    steady_us begin, end, taken;
    unsigned long asked, answered, late; /* calls; those that ended without a verdict */
    unsigned long by_store[3];           /* answers of the server, by kind of key */
    unsigned allowed[KEYS + 1];
    unsigned hot[STEPS]; /* calls on the hot key, by the time since the beginning of the fleet */
};

/* All processes see it. */
struct fleet {
    atomic_int ready;
    _Atomic steady_us begin; /* 0: not yet */
    struct record records[PROCESSES];
};

/* One way to run the fleet. */
struct way {
    const char *name;
    steady_us lease_age;
    bool has_memory;
};

static struct fleet *fleet;

/* ---- A process ---- */

struct call {
    struct record *record;
    int key;
};

struct process {
    struct record *record;
    int number;
    steady_poller *poller;
    steady_store *store;
    steady_throttler *hot, *others;
    uint64_t random;
};

static void answered(const steady_result *result, void *data) {
    struct call call = *(struct call *)data;
    free(data);
    call.record->answered++;
    call.record->late += result->error != 0;
    call.record->by_store[kind_of(call.key)] += result->source == STEADY_FROM_STORE;
    call.record->allowed[call.key] += result->success;
}

static void ask(struct process *process, int key) {
    char name[16];
    struct call *call = malloc(sizeof *call);
    const int len = snprintf(name, sizeof name, "key:%d", key);
    if (call == NULL) _exit(2);
    *call = (struct call){process->record, key};
    if (steady_consume(key == HOT_KEY ? process->hot : process->others, name, (size_t)len, 1, answered, call) != 0)
        _exit(3);
    process->record->asked++;
}

static int another_key(struct process *process) {
    process->random = process->random * 6364136223846793005U + 1442695040888963407U;
    return ATTACKED + (int)((process->random >> 33) % (KEYS - ATTACKED));
}

/* The calls that are due after this time. */
static long due(steady_us elapsed, long demand) { return (long)(elapsed * demand / STEADY_SECOND); }

static void ask_until(struct process *process, steady_us before, steady_us elapsed) {
    const long hot = due(elapsed, HOT_DEMAND) - due(before, HOT_DEMAND);
    const steady_us step = (now_us() - fleet->begin) / STEP;
    if (step < STEPS) process->record->hot[step] += (unsigned)hot;
    for (long i = 0; i < hot; i++)
        ask(process, HOT_KEY);
    for (long i = due(before, ATTACK_DEMAND); i < due(elapsed, ATTACK_DEMAND); i++)
        ask(process, process->number);
    for (long i = due(before, OTHERS_DEMAND); i < due(elapsed, OTHERS_DEMAND); i++)
        ask(process, another_key(process));
}

static void run_poller(struct process *process, steady_us until) {
    steady_us now;
    while ((now = now_us()) < until)
        if (steady_poller_run(process->poller, until - now) < 0) _exit(4);
}

/* The ticks of the processes are spread evenly. */
static void make_calls(struct process *process) {
    const steady_us begin = fleet->begin + process->number * TICK / PROCESSES;
    run_poller(process, begin);
    const steady_us taken = taken_away();
    process->record->begin = now_us();
    for (steady_us before = 0, elapsed; before < TIME; before = elapsed) {
        run_poller(process, begin + before + TICK);
        elapsed = now_us() - begin;
        if (elapsed > TIME) elapsed = TIME;
        ask_until(process, before, elapsed);
    }
    while (process->record->answered < process->record->asked)
        if (steady_poller_run(process->poller, -1) < 0) _exit(4);
    process->record->end = now_us();
    process->record->taken = taken_away() - taken;
}

static void open_process(struct process *process, const struct way *way) {
    if (steady_poller_new(&process->poller) != 0) _exit(5);
    const steady_loop loop = steady_poller_loop(process->poller);
    const steady_store_options options = {
        .loop = &loop, .timeout = 10 * STEADY_SECOND, .lease_age = way->lease_age, .deny_memory_off = !way->has_memory};
    const steady_limit hot = {.max_capacity = HOT_CAPACITY, .drop_recharge = STEADY_SECOND, .drops = HOT_RATE};
    const steady_limit others = {.max_capacity = CAPACITY, .drop_recharge = STEADY_SECOND, .drops = RATE};
    if (steady_store_open(&process->store, rig.server.url, &options, NULL) != 0 ||
        steady_throttler_new(&process->hot, process->store, &hot, NULL, NULL) != 0 ||
        steady_throttler_new(&process->others, process->store, &others, NULL, NULL) != 0)
        _exit(6);
}

static void run_process(int number, const struct way *way) {
    struct process process = {.record = &fleet->records[number], .number = number, .random = (uint64_t)number + 1};
    struct record warm_up = {0};
    open_process(&process, way);
    struct call *call = malloc(sizeof *call);
    if (call == NULL) _exit(2);
    *call = (struct call){&warm_up, 0};
    if (steady_peek(process.others, "warm up", 7, answered, call) != 0) _exit(3);
    while (warm_up.answered == 0)
        steady_poller_run(process.poller, -1);
    if (warm_up.late > 0) _exit(7);
    atomic_fetch_add(&fleet->ready, 1);
    while (fleet->begin == 0)
        run_poller(&process, now_us() + MS);
    make_calls(&process);
    steady_throttler_free(&process.hot);
    steady_throttler_free(&process.others);
    steady_store_close(&process.store);
    steady_poller_free(&process.poller);
    _exit(0);
}

/* ---- The fleet ---- */

static long long server_asked(void) {
    const char *line = strstr(server_ask(&rig.server, "INFO COMMANDSTATS"), "cmdstat_evalsha:calls=");
    return line != NULL ? strtoll(line + strlen("cmdstat_evalsha:calls="), NULL, 10) : 0;
}

/* Returns how often the server was asked. */
static long long run_fleet(const struct way *way) {
    pid_t processes[PROCESSES];
    int status;
    memset(fleet, 0, sizeof *fleet);
    server_ask(&rig.server, "FLUSHALL");
    for (int i = 0; i < PROCESSES; i++) {
        processes[i] = fork();
        assert_true(processes[i] >= 0);
        if (processes[i] == 0) run_process(i, way);
    }
    for (int i = 0; i < PROCESSES; i++)
        while (fleet->ready < PROCESSES && waitpid(processes[i], &status, WNOHANG) == 0)
            sleep_us(MS);
    const long long before = server_asked();
    fleet->begin = now_us() + 20 * MS;
    for (int i = 0; i < PROCESSES; i++) {
        assert_int_equal(waitpid(processes[i], &status, 0), processes[i]);
        if (status != 0) fail_msg("process %d ended with status %#x", i, (unsigned)status);
    }
    return server_asked() - before;
}

/* The time in which the fleet ran: from before the first call until after the last answer. */
static steady_us window(void) {
    steady_us begin = fleet->records[0].begin, end = 0;
    for (int i = 0; i < PROCESSES; i++) {
        begin = fleet->records[i].begin < begin ? fleet->records[i].begin : begin;
        end = fleet->records[i].end > end ? fleet->records[i].end : end;
    }
    return end - begin;
}

static long long allowed(int key) {
    long long sum = 0;
    for (int i = 0; i < PROCESSES; i++)
        sum += fleet->records[i].allowed[key];
    return sum;
}

/* From one process. */
static steady_us most_taken(void) {
    steady_us taken = 0;
    for (int i = 0; i < PROCESSES; i++)
        taken = fleet->records[i].taken > taken ? fleet->records[i].taken : taken;
    return taken;
}

/* What one bucket without a network would have allowed of the calls on the hot key. */
static double possible(void) {
    double level = 0, sum = 0;
    for (size_t step = 0; step < STEPS; step++) {
        unsigned calls = 0;
        for (int i = 0; i < PROCESSES; i++)
            calls += fleet->records[i].hot[step];
        const double fit = floor(HOT_CAPACITY - level);
        const double taken = calls < fit ? calls : fit;
        sum += taken;
        level = fmax(0, level + taken - (double)HOT_RATE * STEP / STEADY_SECOND);
    }
    return sum;
}

/* A thousandth of the time is added, because the clocks of the server and of the fleet may differ by as much. */
static void assert_within_bound(const struct way *way, int key, double capacity, double rate) {
    const double most = capacity + ((double)window() * 1.001 + (double)way->lease_age) * rate / (double)STEADY_SECOND;
    if ((double)allowed(key) > most)
        fail_msg("%s: key %d: %lld were allowed, at most %.1f may be", way->name, key, allowed(key), most);
}

/* Of what the hot key may be allowed, 98 % is. The drops in the lease of a process that does not run are lost. So if
 * the machine took much time away, only a line tells the share. */
static void assert_limit_is_reached(const struct way *way) {
    const steady_us taken = most_taken();
    const double share = (double)allowed(HOT_KEY) / possible();
    if (share >= 0.98) return;
    if (taken < MUCH) fail_msg("%s: the hot key got %.1f %% of its limit", way->name, share * 100);
    print_message("# %s: the hot key got %.1f %% of its limit: the machine took away %lld us of a process\n", way->name,
                  share * 100, (long long)taken);
}

/* An attacker takes each drop that leaks: the memory denies no call that fits. */
static void assert_attacked_keys_are_not_denied_more(const struct way *way) {
    const long long most = ATTACKED * (CAPACITY + due(TIME - TICK, RATE));
    long long sum = 0;
    for (int key = 0; key < ATTACKED; key++)
        sum += allowed(key);
    if (sum * 100 < most * 98) fail_msg("%s: attacked keys got %lld of %lld drops", way->name, sum, most);
}

static void assert_all_were_answered(const struct way *way) {
    for (int i = 0; i < PROCESSES; i++)
        if (fleet->records[i].late > 0)
            fail_msg("%s: %lu calls of process %d have no verdict", way->name, fleet->records[i].late, i);
}

/* ---- The table ---- */

/* The server also decides about the drops that are left of a lease, so its calls may be more than its answers. */
static void print_row(const struct way *way, long long asked) {
    double calls = 0, by_store[3] = {0};
    const double time = (double)window() / (double)STEADY_SECOND;
    for (int i = 0; i < PROCESSES; i++) {
        calls += (double)fleet->records[i].answered;
        for (int kind = 0; kind < 3; kind++)
            by_store[kind] += (double)fleet->records[i].by_store[kind];
    }
    print_message("# %-22s %9.0f %11.0f %9.0f %9.0f %9.0f %11.0f %7.1f %%\n", way->name, calls / time,
                  (double)asked / time, by_store[HOT] / time, by_store[ATTACKED_KEY] / time, by_store[OTHER] / time,
                  (double)allowed(HOT_KEY) / time, (double)allowed(HOT_KEY) / possible() * 100);
}

static void fleet_keeps_the_limits_and_asks_less(void **state) {
    const struct way ways[] = {
        {"without both", 0, false}, {"with the memory", 0, true}, {"with memory and leases", AGE, true}};
    long long asked[COUNT(ways)];
    steady_us taken = 0;
    (void)state;
    fleet = mmap(NULL, sizeof *fleet, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(fleet != MAP_FAILED);
    print_message("# %-22s %9s %11s %9s %9s %9s %11s %9s\n", "a second", "decisions", "Redis calls", "hot key",
                  "attacked", "others", "hot allowed", "of limit");
    for (size_t i = 0; i < COUNT(ways); i++) {
        asked[i] = run_fleet(&ways[i]);
        print_row(&ways[i], asked[i]);
        assert_all_were_answered(&ways[i]);
        assert_within_bound(&ways[i], HOT_KEY, HOT_CAPACITY, HOT_RATE);
        for (int key = 0; key < KEYS; key++)
            assert_within_bound(&ways[i], key, CAPACITY, RATE);
        assert_limit_is_reached(&ways[i]);
        assert_attacked_keys_are_not_denied_more(&ways[i]);
        taken = most_taken() > taken ? most_taken() : taken;
    }
    if (asked[1] * 10 > asked[0] * 9 || asked[2] * 2 > asked[1]) {
        if (taken < 5 * MUCH)
            fail_msg("%lld calls, with the memory %lld, with leases %lld", asked[0], asked[1], asked[2]);
        print_message("# the calls were not compared: the machine took away %lld us of a process\n", (long long)taken);
    }
    munmap(fleet, sizeof *fleet);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(fleet_keeps_the_limits_and_asks_less),
    };
    return cmocka_run_group_tests_name("fleet", tests, NULL, NULL);
}
