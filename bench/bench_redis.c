/* SPDX-License-Identifier: MIT
 * The client for the measurements on Redis. scripts/bench runs it in turn with redis-benchmark.
 *
 *     bench_redis async URL COUNT IN_FLIGHT    prints seconds and CPU seconds for COUNT decisions
 *     bench_redis sync URL COUNT               prints the median and the 99th percentile of COUNT latencies, in us
 *     bench_redis pool URL COUNT               the same on a pool
 *     bench_redis keys URL COUNT KEY...        the same for calls on all these keys at once
 *     bench_redis threads URL COUNT THREADS CONNECTIONS    prints seconds and CPU seconds for COUNT blocking calls of
 * all THREADS on a pool with so many connections; 0: each thread has a store of its own bench_redis rate PORT COUNT <
 * COMMAND    prints seconds for COUNT commands (wire form), 200 in flight bench_redis load VERB prints the SCRIPT LOAD
 * of a verb in its wire form bench_redis command VERB CAPACITY RECHARGE_US AMOUNT KEY    prints a command in its wire
 * form */
#include <arpa/inet.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "redis/command.h"
#include "steady.h"

#define KEYS 100000 /* as redis-benchmark -r 100000 */
#define WARM_UP 2000

/* Every consume is allowed. */
static const steady_limit limit = {.max_capacity = 1000000000, .drop_recharge = STEADY_SECOND};

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what, const char *why) {
    fprintf(stderr, "bench_redis: %s: %s\n", what, why);
    exit(1);
}

/* A random key of KEYS keys, as long as redis-benchmark's __rand_int__. */
static size_t random_key(char key[16], uint64_t *seed) {
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    uint64_t n = (*seed >> 33) % KEYS;
    memcpy(key, "k:000000000000", 15);
    for (size_t at = 13; n > 0; n /= 10)
        key[at--] = (char)('0' + n % 10);
    return 14;
}

/* ---- Many at once ---- */

struct load {
    steady_throttler *throttler;
    uint64_t seed;
    long to_ask;
    long to_answer;
};

static void answered(const steady_result *result, void *data);

static void ask(struct load *load) {
    char key[16];
    const size_t len = random_key(key, &load->seed);
    const int error = steady_consume(load->throttler, key, len, 1, answered, load);
    if (error != 0) die("consume", steady_error_text(error));
    load->to_ask--;
}

static void answered(const steady_result *result, void *data) {
    struct load *load = data;
    if (result->error != 0 || !result->success) die("answer", steady_error_text(result->error));
    load->to_answer--;
    if (load->to_ask > 0) ask(load);
}

static void run(struct load *load, steady_poller *poller, long count, long in_flight) {
    load->to_ask = load->to_answer = count;
    for (long i = 0; i < in_flight && load->to_ask > 0; i++)
        ask(load);
    while (load->to_answer > 0)
        if (steady_poller_run(poller, -1) < 0) die("poller", "failed");
}

static void measure_async(const char *url, long count, long in_flight) {
    steady_poller *poller = NULL;
    steady_store *store = NULL;
    struct load load = {.seed = 1};
    steady_message why = {.text = ""};
    if (steady_poller_new(&poller) != 0) die("poller", "failed");
    const steady_loop loop = steady_poller_loop(poller);
    const steady_store_options options = {.loop = &loop, .timeout = 10 * STEADY_SECOND};
    if (steady_store_open(&store, url, &options, &why) != 0 ||
        steady_throttler_new(&load.throttler, store, &limit, NULL, &why) != 0)
        die(url, why.text);
    run(&load, poller, WARM_UP, in_flight);
    const double began = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run(&load, poller, count, in_flight);
    printf("%.6f %.6f\n", seconds(CLOCK_MONOTONIC) - began, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    steady_throttler_free(&load.throttler);
    steady_store_close(&store);
    steady_poller_free(&poller);
}

/* ---- One after another ---- */

static char **keys; /* NULL: one random key */
static size_t n_keys;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int call_keys(steady_throttler *throttler, steady_result *result) {
    steady_part parts[64];
    for (size_t i = 0; i < n_keys; i++)
        parts[i] = (steady_part){.throttler = throttler, .key = keys[i], .key_len = strlen(keys[i]), .amount = 1};
    return steady_consume_all_sync(parts, n_keys, NULL, result);
}

static double time_one(steady_throttler *throttler, uint64_t *seed) {
    char key[16];
    steady_result r;
    const size_t len = random_key(key, seed);
    const double began = seconds(CLOCK_MONOTONIC);
    const int error = keys == NULL ? steady_consume_sync(throttler, key, len, 1, &r) : call_keys(throttler, &r);
    const double took = seconds(CLOCK_MONOTONIC) - began;
    if (error != 0 || !r.success) die("answer", steady_error_text(error));
    return took * 1e6;
}

static int open_pool(steady_store **store, const char *url, uint32_t connections, steady_message *why) {
    const steady_store_options options = {.timeout = 10 * STEADY_SECOND};
    return steady_pool_open(store, url, connections, &options, why);
}

static int open_store(steady_store **store, const char *url, steady_message *why) {
    const steady_store_options options = {.timeout = 10 * STEADY_SECOND};
    return steady_store_open(store, url, &options, why);
}

static void measure_sync(const char *url, long count, bool pool) {
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    uint64_t seed = 1;
    double *took = calloc((size_t)count, sizeof *took);
    if (took == NULL) die("memory", "none");
    if ((pool ? open_pool(&store, url, 0, &why) : open_store(&store, url, &why)) != 0 ||
        steady_throttler_new(&throttler, store, &limit, NULL, &why) != 0)
        die(url, why.text);
    for (long i = 0; i < (keys == NULL ? WARM_UP : count / 10); i++)
        time_one(throttler, &seed);
    for (long i = 0; i < count; i++)
        took[i] = time_one(throttler, &seed);
    qsort(took, (size_t)count, sizeof *took, by_value);
    printf("%.2f %.2f\n", took[count / 2], took[count - 1 - count / 100]);
    free(took);
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* ---- From several threads ---- */

struct thread {
    pthread_t id;
    const char *url;
    steady_throttler *throttler; /* on the pool; NULL: it opens a store */
    pthread_barrier_t *begin, *end;
    uint64_t seed;
    long count;
};

static void *call_in_sequence(void *arg) {
    struct thread *thread = arg;
    steady_store *store = NULL;
    steady_throttler *throttler = thread->throttler;
    steady_message why = {.text = ""};
    if (throttler == NULL && (open_store(&store, thread->url, &why) != 0 ||
                              steady_throttler_new(&throttler, store, &limit, NULL, &why) != 0))
        die(thread->url, why.text);
    for (int i = 0; i < WARM_UP / 10; i++)
        time_one(throttler, &thread->seed);
    pthread_barrier_wait(thread->begin);
    for (long i = 0; i < thread->count; i++)
        time_one(throttler, &thread->seed);
    pthread_barrier_wait(thread->end);
    if (store != NULL) steady_throttler_free(&throttler);
    steady_store_close(&store);
    return NULL;
}

static void measure_threads(const char *url, long count, unsigned n, uint32_t connections) {
    steady_store *pool = NULL;
    steady_throttler *throttler = NULL;
    steady_message why = {.text = ""};
    pthread_barrier_t begin, end;
    struct thread *threads = calloc(n, sizeof *threads);
    if (threads == NULL) die("memory", "none");
    if (connections > 0 && (open_pool(&pool, url, connections, &why) != 0 ||
                            steady_throttler_new(&throttler, pool, &limit, NULL, &why) != 0))
        die(url, why.text);
    pthread_barrier_init(&begin, NULL, n + 1);
    pthread_barrier_init(&end, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        threads[i] = (struct thread){
            .url = url, .throttler = throttler, .begin = &begin, .end = &end, .seed = i, .count = count / n};
        if (pthread_create(&threads[i].id, NULL, call_in_sequence, &threads[i]) != 0) die("thread", "not started");
    }
    pthread_barrier_wait(&begin);
    const double began = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&end);
    printf("%.6f %.6f\n", seconds(CLOCK_MONOTONIC) - began, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i].id, NULL);
    free(threads);
    steady_throttler_free(&throttler);
    steady_store_close(&pool);
}

/* ---- As fast as the server can: counts the lines of replies, and does not parse them ---- */

#define BATCH 100

static int connected(const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect", port);
    return fd;
}

static void send_all(int fd, const char *bytes, size_t len) {
    for (ssize_t sent = 0; len > 0; bytes += sent, len -= (size_t)sent)
        if ((sent = write(fd, bytes, len)) < 0) die("write", "failed");
}

static void await_lines(int fd, long *lines, long wanted) {
    static char bytes[65536];
    while (*lines < wanted) {
        const ssize_t len = read(fd, bytes, sizeof bytes);
        if (len <= 0 || bytes[0] == '-') die("read", "failed");
        for (const char *at = bytes; (at = memchr(at, '\n', (size_t)(bytes + len - at))) != NULL; at++)
            ++*lines;
    }
}

/* Counts the lines of a reply: sends the command once, and a PING after it. */
static long lines_of_reply(int fd, const char *command, size_t len) {
    long lines = 0;
    char byte = 0, before = '\n';
    send_all(fd, command, len);
    send_all(fd, "PING\r\n", 6);
    for (; read(fd, &byte, 1) == 1 && !(before == '\n' && byte == '+'); before = byte)
        lines += byte == '\n';
    await_lines(fd, &(long){0}, 1);
    return lines;
}

static void measure_rate(const char *port, long count) {
    static char command[4096], batch[BATCH * sizeof command];
    const size_t len = fread(command, 1, sizeof command, stdin);
    const int fd = connected(port);
    const long each = lines_of_reply(fd, command, len);
    long lines = 0;
    for (size_t i = 0; i < BATCH; i++)
        memcpy(batch + i * len, command, len);
    const double began = seconds(CLOCK_MONOTONIC);
    send_all(fd, batch, BATCH * len);
    for (long sent = BATCH; sent < count; sent += BATCH) {
        send_all(fd, batch, BATCH * len);
        await_lines(fd, &lines, sent * each);
    }
    await_lines(fd, &lines, count * each);
    printf("%.6f\n", seconds(CLOCK_MONOTONIC) - began);
    close(fd);
}

/* ---- Wire forms ---- */

static enum steady__verb verb_of(const char *name) {
    static const char *const names[STEADY__VERBS] = {"consume",  "peek",   "reset",    "consume_all",
                                                     "peek_all", "settle", "reset_all"};
    for (int i = 0; i < STEADY__VERBS; i++)
        if (strcmp(name, names[i]) == 0) return (enum steady__verb)i;
    die(name, "no such verb");
}

static void print_load(const char *verb) {
    static char bytes[65536];
    fwrite(bytes, 1, steady__command_script_load(bytes, verb_of(verb)), stdout);
}

static void print_command(char **words) {
    char bytes[STEADY__COMMAND_MAX];
    struct steady__terms terms = {.rate = {.capacity = atoll(words[1]), .recharge = atoll(words[2]), .drops = 1}};
    steady__command_encode_limit(&terms);
    const struct steady__call call = {.verb = verb_of(words[0]),
                                      .amount = atoll(words[3]),
                                      .key = words[4],
                                      .key_len = strlen(words[4]),
                                      .terms = &terms};
    fwrite(bytes, 1, steady__command_evalsha(bytes, &call), stdout);
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "async") == 0)
        measure_async(argv[2], atol(argv[3]), atol(argv[4]));
    else if (argc == 4 && strcmp(argv[1], "sync") == 0)
        measure_sync(argv[2], atol(argv[3]), false);
    else if (argc == 4 && strcmp(argv[1], "pool") == 0)
        measure_sync(argv[2], atol(argv[3]), true);
    else if (argc > 4 && argc <= 4 + 64 && strcmp(argv[1], "keys") == 0) {
        keys = argv + 4;
        n_keys = (size_t)argc - 4;
        measure_sync(argv[2], atol(argv[3]), false);
    } else if (argc == 6 && strcmp(argv[1], "threads") == 0)
        measure_threads(argv[2], atol(argv[3]), (unsigned)atoi(argv[4]), (uint32_t)atoi(argv[5]));
    else if (argc == 4 && strcmp(argv[1], "rate") == 0)
        measure_rate(argv[2], atol(argv[3]));
    else if (argc == 3 && strcmp(argv[1], "load") == 0)
        print_load(argv[2]);
    else if (argc == 7 && strcmp(argv[1], "command") == 0)
        print_command(argv + 2);
    else
        die("usage", "see the top of bench/bench_redis.c");
    return 0;
}
