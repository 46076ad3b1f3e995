/* SPDX-License-Identifier: MIT
 * Runs the library against a hostile server (../hostile_server.h), as a cluster, as a primary with a replica, and as
 * sentinels. Checks rules that must hold whatever a server sends. A run has episodes. Each opens stores, makes
 * decisions while the server changes its behaviour, makes decisions with the honest server, and closes the stores.
 * The seed chooses the behaviour, but not the timing of network and clock. So try a seed that fails more than once. */
#include "../hostile_server.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../random.h"
#include "../support.h"

#define MS STEADY_MILLISECOND

#if defined(__SANITIZE_ADDRESS__)
#define SECONDS 20
#define HELD_MOST (50 * MS)
#define LATE_MOST (250 * MS)
#else
#define SECONDS 10
#define HELD_MOST (10 * MS) /* twice the bound of live_hostile.c: processor time is longer on a busy machine */
#define LATE_MOST (150 * MS)
#endif

#define STORES 3
#define SOCKETS_EACH (64 + 1 + 2)         /* for a cluster, a replica and sentinels */
#define LOOKUPS_EACH (16 + 3 + 3 + 2 * 3) /* for nodes, the server, a replica and sentinels */
#define MEMORY_EACH ((size_t)34 << 20)    /* for three maps, connections and nodes */
#define LEFT_MOST ((size_t)256 << 10)     /* after all stores are closed */
#define STANDSTILLS 4                     /* of the machine, each minute */
#define TICKETS 262144
#define KEYS 400

/* ---- Broken rules ---- */

static uint64_t first_seed, episode_seed;
static bool verbose;

__attribute__((format(printf, 1, 2), noreturn)) static void broken(const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("not ok 1 - seed %" PRIu64 ", the episode of seed %" PRIu64 ": ", first_seed, episode_seed);
    vprintf(format, list);
    printf("\n");
    va_end(list);
    fflush(stdout);
    _exit(1); /* no crash: a starved machine may be late, and then it runs once more, alone */
}

static const char *now_doing = "";

/* ---- Time ---- */

#define WAIT (2 * MS) /* the longest wait of the poller */

static int schedule;         /* /proc/thread-self/schedstat */
static steady_us away;       /* the time in which this thread could not run the loop, for any cause */
static steady_us began, ran; /* the end of the last turn, and the processor time then */
static steady_us shift;      /* the shift of the loop's clock */
static steady_us longest;    /* the longest handler, in processor time */
static unsigned held;        /* handlers that ran too long */

static steady_us waited(void) {
    char text[96] = "", *end = NULL;
    if (pread(schedule, text, sizeof text - 1, 0) <= 0) return 0;
    strtoull(text, &end, 10);
    return (steady_us)(strtoull(end, NULL, 10) / 1000);
}

static steady_us processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* The times of this thread so far. */
struct account {
    steady_us time, ran, waited;
    long slept; /* the number of sleeps */
};

static long slept(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

static struct account begin_handler(void) { return (struct account){now_us(), processor_time(), waited(), slept()}; }

/* Time that was not processor time was a wait for a processor, unless the handler slept. */
static void end_handler(const struct account *begin, const char *which) {
    const steady_us took = processor_time() - begin->ran;
    const steady_us rest = now_us() - begin->time - took - (waited() - begin->waited);
    if (rest > 10 * HELD_MOST && slept() != begin->slept) broken("%s slept for %lld us", which, (long long)rest);
    if (took > longest) longest = took;
    if (took <= HELD_MOST) return;
    held++;
    if (verbose) printf("# %s held the loop for %lld us, at %s\n", which, (long long)took, now_doing);
    if (took > 10 * HELD_MOST) broken("%s held the loop for %lld us", which, (long long)took);
}

/* ---- The loop: the poller's, with a clock around each handler ---- */

struct handler {
    void *inner;
    void (*ready)(void *arg, int events);
    void (*fired)(void *arg);
    void *arg;
};

static const steady_loop_ops *inner_ops;

static void ready(void *arg, int events) {
    const struct handler handler = *(struct handler *)arg; /* the handler may be freed inside */
    const struct account begin = begin_handler();
    handler.ready(handler.arg, events);
    end_handler(&begin, "a socket");
}

static void fired(void *arg) {
    const struct handler handler = *(struct handler *)arg;
    const struct account begin = begin_handler();
    handler.fired(handler.arg);
    end_handler(&begin, "a timer");
}

static struct handler *new_handler(void) {
    struct handler *handler = calloc(1, sizeof *handler);
    if (handler == NULL) abort();
    return handler;
}

static void *check(struct handler *handler) {
    if (handler->inner != NULL) return handler;
    free(handler);
    return NULL;
}

static void *io_new(void *loop, int fd, void (*on_ready)(void *arg, int events), void *arg) {
    struct handler *handler = new_handler();
    *handler = (struct handler){.ready = on_ready, .arg = arg};
    handler->inner = inner_ops->io_new(loop, fd, ready, handler);
    return check(handler);
}

static void *timer_new(void *loop, void (*on_fired)(void *arg), void *arg) {
    struct handler *handler = new_handler();
    *handler = (struct handler){.fired = on_fired, .arg = arg};
    handler->inner = inner_ops->timer_new(loop, fired, handler);
    return check(handler);
}

static int io_want(void *io, int events) { return inner_ops->io_want(((struct handler *)io)->inner, events); }
static int timer_start(void *timer, steady_us delay) {
    return inner_ops->timer_start(((struct handler *)timer)->inner, delay);
}
static void timer_stop(void *timer) { inner_ops->timer_stop(((struct handler *)timer)->inner); }

static void io_free(void *io) {
    inner_ops->io_free(((struct handler *)io)->inner);
    free(io);
}

static void timer_free(void *timer) {
    inner_ops->timer_free(((struct handler *)timer)->inner);
    free(timer);
}

static steady_us shifted_now(void *loop) {
    (void)loop;
    return now_us() + shift;
}

static const steady_loop_ops ops = {.name = "hostile",
                                    .now = shifted_now,
                                    .io_new = io_new,
                                    .io_want = io_want,
                                    .io_free = io_free,
                                    .timer_new = timer_new,
                                    .timer_start = timer_start,
                                    .timer_stop = timer_stop,
                                    .timer_free = timer_free};

/* A name resolves at once, after a while, or not at all, or the resolver does not answer. */
static atomic_uint lookups;
static atomic_bool resolves;

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list) {
    if ((hints->ai_flags & AI_NUMERICHOST) != 0) return __real_getaddrinfo(host, port, hints, list);
    const unsigned long number = strtoul(host + 1, NULL, 10);
    const int waits = number % 4 < 2 ? 0 : 300; /* times 10 ms */
    lookups++;
    for (int i = 0; i < waits && !resolves; i++)
        sleep_us(10 * MS);
    lookups--;
    return number % 4 == 0 ? EAI_NONAME : __real_getaddrinfo("127.0.0.1", port, hints, list);
}

/* ---- Decisions ---- */

struct client {
    steady_store *store;
    steady_throttler *throttler;
    steady_us timeout;
    bool blocks, cluster;
    unsigned in_flight, verdicts;
    int last;
};

struct ticket {
    struct client *client; /* NULL: called back */
    steady_us since, away;
};

static struct hostile *server;
static steady_poller *poller;
static steady_loop loop;
static struct client clients[STORES];
static unsigned n_clients;
static struct ticket tickets[TICKETS]; /* used in turn, so a second callback meets a used ticket */
static unsigned next_ticket;
static uint64_t seed;
static size_t memory_at_first, most_memory;
static unsigned sockets_at_first, most_sockets, most_lookups;
/* Adds the time since the last turn that was neither processor time nor the wait of the poller. */
static steady_us away_so_far(void) {
    const steady_us rest = now_us() - began - (processor_time() - ran) - WAIT;
    return away + (rest > 0 ? rest : 0);
}

static uint64_t decisions, verdicts, errors[16], at_once, after_a_minute, lines;

static unsigned any(unsigned most) { return (unsigned)random_in(&seed, 0, most); }

static void called_back(const steady_result *result, void *data) {
    struct ticket *ticket = data;
    struct client *client = ticket->client;
    if (client == NULL) broken("a decision is called back twice, or by a store that is closed");
    const steady_us took = now_us() - ticket->since - (away_so_far() - ticket->away);
    if (took > client->timeout + LATE_MOST)
        broken("a decision took %lld us, the loop being away left out, with a timeout of %lld: %s", (long long)took,
               (long long)client->timeout, steady_error_name(result->error));
    ticket->client = NULL;
    client->in_flight--;
    client->last = result->error;
    if (result->error == 0) client->verdicts++;
    if (result->error == 0) verdicts++;
    if (result->error != 0) errors[-result->error & 15]++;
}

static struct ticket *take_ticket(struct client *client) {
    struct ticket *ticket = &tickets[next_ticket++ % TICKETS];
    if (ticket->client != NULL) broken("a decision is not called back while %d others are asked for", TICKETS);
    *ticket = (struct ticket){client, now_us(), away_so_far()};
    client->in_flight++;
    decisions++;
    return ticket;
}

static void ask_and_wait(struct client *client, const char *key) {
    steady_result result;
    const steady_us since = now_us(), before = waited();
    client->last = any(3) == 0 ? steady_peek_sync(client->throttler, key, strlen(key), &result)
                               : steady_consume_sync(client->throttler, key, strlen(key), 1, &result);
    const steady_us took = now_us() - since;
    if (took - (waited() - before) > client->timeout + LATE_MOST)
        broken("a call blocked for %lld us, with a timeout of %lld", (long long)took, (long long)client->timeout);
    decisions++;
    if (client->last == 0) client->verdicts++;
    if (client->last == 0) verdicts++;
}

static void ask(struct client *client) {
    char key[16];
    snprintf(key, sizeof key, "k%u", any(KEYS - 1));
    if (client->blocks) {
        ask_and_wait(client, key);
        return;
    }
    struct ticket *ticket = take_ticket(client);
    const unsigned kind = any(7);
    int error;
    if (kind == 0)
        error = steady_reset(client->throttler, key, strlen(key), called_back, ticket);
    else if (kind < 3)
        error = steady_peek(client->throttler, key, strlen(key), called_back, ticket);
    else
        error = steady_consume(client->throttler, key, strlen(key), 1, called_back, ticket);
    if (error == 0) return;
    ticket->client = NULL;
    client->in_flight--;
    client->last = error;
    if (error != STEADY_OVERLOADED) broken("a decision ends at once as %s", steady_error_name(error));
}

/* ---- Turns of the loop ---- */

static void count_all(void) {
    const size_t m = process_memory() - memory_at_first;
    const unsigned s = process_sockets() - sockets_at_first, l = lookups;
    if (m > most_memory && m < SIZE_MAX / 2) most_memory = m;
    if (s > most_sockets) most_sockets = s;
    if (l > most_lookups) most_lookups = l;
    if (s > n_clients * SOCKETS_EACH) broken("%u sockets", s);
    if (l > n_clients * LOOKUPS_EACH) broken("%u lookups", l);
    if (m > n_clients * MEMORY_EACH && m < SIZE_MAX / 2) broken("%zu bytes of memory", m);
}

static void turn(void) {
    if (steady_poller_run(poller, WAIT) < 0) broken("the poller fails");
    away = away_so_far();
    began = now_us();
    ran = processor_time();
    count_all();
}

static void run_for_us(steady_us time) {
    for (const steady_us until = now_us() + time; now_us() < until;)
        turn();
}

static unsigned in_flight(void) {
    unsigned sum = 0;
    for (unsigned i = 0; i < n_clients; i++)
        sum += clients[i].in_flight;
    return sum;
}

static void drain(void) {
    const steady_us since = now_us(), gone = away;
    while (in_flight() > 0) {
        turn();
        if (now_us() - since - (away - gone) > STEADY_SECOND) broken("%u decisions are never called back", in_flight());
    }
}

/* ---- An episode ---- */

static void count_line(void *data, enum steady_log_level level, const char *text) {
    (void)data;
    (void)level;
    lines++;
    if (strstr(text, "SECRET") != NULL) broken("the password is in the log: %s", text);
}

static void open_client(struct client *client) {
    char url[200];
    const int *const ports = (const int[]){hostile_port(server, 0), hostile_port(server, 2), hostile_port(server, 3)};
    memset(client, 0, sizeof *client);
    client->timeout = (20 + (steady_us)any(100)) * MS;
    client->blocks = any(7) == 0;
    const unsigned kind = any(5);
    client->cluster = kind < 3;
    if (kind < 3)
        snprintf(url, sizeof url, "redis://%s127.0.0.1:%d", kind == 0 ? "user:SECRET@" : "", ports[0]);
    else if (kind == 3)
        snprintf(url, sizeof url, "redis://127.0.0.1:%d?peek=replica", ports[0]);
    else
        snprintf(url, sizeof url, "redis+sentinel://:SECRET@127.0.0.1:%d,127.0.0.1:%d/service%s", ports[1], ports[2],
                 kind == 4 ? "?peek=replica" : "");
    const steady_store_options options = {.loop = client->blocks ? NULL : &loop,
                                          .timeout = client->timeout,
                                          .max_in_flight = 1 + any(500),
                                          .engine = (enum steady_engine)any(2),
                                          .log = count_line};
    const steady_limit limit = {.max_capacity = 1000, .drop_recharge = STEADY_SECOND};
    steady_message why;
    if (steady_store_open(&client->store, url, &options, &why) != 0) broken("%s: %s", url, why.text);
    if (steady_throttler_new(&client->throttler, client->store, &limit, NULL, &why) != 0) broken("%s", why.text);
    if (verbose)
        printf("# %s, timeout %lld us, engine %d%s\n", url, (long long)client->timeout, options.engine,
               client->blocks ? ", blocking" : "");
}

static void close_client(struct client *client) {
    steady_throttler_free(&client->throttler);
    steady_store_close(&client->store);
    if (client->in_flight > 0) broken("%u decisions are not called back by the end of their store", client->in_flight);
}

static void suffer(steady_us time) {
    unsigned load = 1 + any(200);
    for (const steady_us until = now_us() + time; now_us() < until;) {
        const steady_us next = now_us() + (10 + (steady_us)any(300)) * MS;
        hostile_draws(server, (uint32_t)random_next(&seed));
        if (any(3) == 0) load = 1 + any(200);
        while (now_us() < next) {
            for (unsigned i = 0; i < n_clients; i++)
                for (unsigned n = clients[i].blocks ? any(9) == 0 : any(load / 4); n > 0; n--)
                    if (clients[i].blocks || clients[i].in_flight < load) ask(&clients[i]);
            turn();
        }
    }
}

/* True if twenty verdicts follow each other, on any keys. */
static bool decides_again(struct client *client, steady_us within) {
    unsigned row = 0;
    const steady_us since = now_us();
    steady_us gone = away;
    while (row < 20 && now_us() - since - (away - gone) < within) {
        const unsigned before = client->verdicts;
        ask(client);
        while (client->in_flight > 0)
            turn();
        row = client->verdicts > before ? row + 1 : 0;
        if (row == 0) run_for_us(10 * MS);
        if (client->blocks) gone = away; /* a blocking store waits outside the loop */
    }
    return row == 20;
}

/* Without a map some states last for up to 30 s. */
static void recover(struct client *client) {
    if (decides_again(client, 2500 * MS)) {
        at_once++;
        return;
    }
    drain();
    shift += 61 * STEADY_SECOND;
    if (!decides_again(client, 4 * STEADY_SECOND))
        broken("no decisions are made by an honest server: %s; %s", steady_error_name(client->last),
               last_error_of(client->store));
    after_a_minute++;
}

static void run_episode(void) {
    resolves = false;
    n_clients = 1 + any(STORES - 1);
    now_doing = "open";
    for (unsigned i = 0; i < n_clients; i++)
        open_client(&clients[i]);
    now_doing = "hostile";
    suffer((300 + (steady_us)any(2500)) * MS);
    now_doing = "honest";
    hostile_is_honest(server);
    if (any(3) != 0) {
        drain();
        resolves = true;
        for (unsigned i = 0; i < n_clients; i++)
            recover(&clients[i]);
    }
    now_doing = "close";
    for (unsigned i = 0; i < n_clients; i++)
        close_client(&clients[i]);
    resolves = true;
    for (const steady_us until = now_us() + 2 * STEADY_SECOND; lookups > 0 && now_us() < until;)
        sleep_us(MS);
    run_for_us(5 * MS);
    const size_t left = process_memory() - memory_at_first;
    if (left > LEFT_MOST && left < SIZE_MAX / 2) broken("%zu bytes are left when all stores are closed", left);
}

/* ---- */

static int usage(void) {
    fputs("usage: hostile [--seconds COUNT] [--seed NUMBER] [--verbose]\n", stderr);
    return 2;
}

static void run(steady_us time) {
    unsigned episodes = 0;
    for (const steady_us until = now_us() + time; now_us() < until; episodes++) {
        episode_seed = first_seed + episodes;
        seed = episode_seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        run_episode();
    }
    const unsigned allowed = STANDSTILLS * (1 + (unsigned)(time / (60 * STEADY_SECOND)));
    if (held > allowed) broken("the loop was held %u times, for up to %lld us", held, (long long)longest);
    printf("ok 1 - seed %" PRIu64 ", %u episodes, %" PRIu64 " decisions, %" PRIu64
           " verdicts; stores recovered %" PRIu64 " times, and %" PRIu64
           " times within a minute; at most %u sockets, %zu KiB, %u lookups; %" PRIu64
           " lines of the log; a handler of %lld us\n",
           first_seed, episodes, decisions, verdicts, at_once, after_a_minute, most_sockets, most_memory >> 10,
           most_lookups, lines, (long long)longest);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"seconds", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    steady_us time = SECONDS * STEADY_SECOND;
    int option;
    first_seed = (uint64_t)now_us() % 1000000007;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n': time = strtoll(optarg, NULL, 10) * STEADY_SECOND; break;
        case 's': first_seed = strtoull(optarg, NULL, 10); break;
        case 'v': verbose = true; break;
        default: return usage();
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..1\n# seed %" PRIu64 "\n", first_seed);
    server = hostile_start();
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = HOSTILE_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit);
    schedule = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (steady_poller_new(&poller) != 0) abort();
    loop = steady_poller_loop(poller);
    inner_ops = loop.ops;
    loop.ops = &ops;
    began = now_us();
    ran = processor_time();
    sockets_at_first = process_sockets();
    memory_at_first = process_memory();
    run(time);
    steady_poller_free(&poller);
    hostile_stop(server);
    return 0;
}
