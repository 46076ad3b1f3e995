/* SPDX-License-Identifier: MIT
 * A TCP proxy that treats connections as networks do, in a thread of its own.
 *
 * Each connection has two flows, one towards the server and one towards the client. Bytes that are read from one end
 * become a parcel, which is sent when it is due. */
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAIRS 512
#define READ_SIZE 16384
#define QUEUE_MOST 65536 /* bytes; reading stops until less is queued */

struct parcel {
    struct parcel *next;
    steady_us due;
    size_t len, sent;
    char bytes[];
};

struct flow {
    int from, to;
    struct parcel *first, **last;
    size_t queued;
    steady_us next_send; /* if the rate is limited */
    bool ended;          /* `from` has closed */
    bool stuck;          /* `to` takes no more */
};

/* The position of the stream in a request: the number of words, then for each word a line "$len" and its bytes. */
struct scanner {
    enum { COUNT_LINE, SIZE_LINE, BYTES } in;
    long number, words, skip;
};

struct pair {
    bool open;
    struct flow up, down;
    struct scanner scanner;
    unsigned requests, replies; /* of the client and of the server, since the rules were set */
};

struct proxy {
    int listener, port, to_port, bell;
    pthread_t thread;
    pthread_mutex_t lock;
    struct proxy_rules rules; /* under lock, like the next two */
    bool renewed, reset_all;
    atomic_bool stop;
    atomic_uint accepted;
    struct pair pairs[PAIRS];
};

static steady_us now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (steady_us)t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

/* ---- Requests ---- */

/* True: this byte is the last of a request. */
static bool scan(struct scanner *s, char byte) {
    if (s->in == BYTES) {
        if (--s->skip > 0) return false;
        s->in = SIZE_LINE;
        if (--s->words > 0) return false;
        s->in = COUNT_LINE;
        return true;
    }
    if (byte >= '0' && byte <= '9') s->number = (10 * s->number + (byte - '0')) % 1000000000; /* in range on TLS, too */
    if (byte != '\n') return false;
    if (s->in == COUNT_LINE)
        s->words = s->number;
    else
        s->skip = s->number + 2;
    s->in = s->in == COUNT_LINE ? SIZE_LINE : BYTES;
    s->number = 0;
    return false;
}

/* How many of the bytes from the client may go on to the server. */
static size_t admit(struct pair *pair, const struct proxy_rules *rules, const char *bytes, size_t len) {
    size_t most = 0;
    for (size_t n = 0; n < len; n++) {
        if (!rules->cut || pair->requests < rules->cut_requests) most = n + 1;
        pair->requests += scan(&pair->scanner, bytes[n]);
    }
    return most;
}

/* How many of the bytes from the server may go on to the client. */
static size_t let_back(struct pair *pair, const struct proxy_rules *rules, const char *bytes, size_t len) {
    size_t most = 0;
    for (size_t n = 0; n < len; n++) {
        if (!rules->deaf && (!rules->cut || pair->replies < rules->cut_replies)) most = n + 1;
        pair->replies += bytes[n] == '\n';
    }
    return most;
}

/* ---- Flows ---- */

static void open_flow(struct flow *flow, int from, int to) {
    *flow = (struct flow){
        .from = from,
        .to = to,
    };
    flow->last = &flow->first;
}

static void free_flow(struct flow *flow) {
    while (flow->first != NULL) {
        struct parcel *next = flow->first->next;
        free(flow->first);
        flow->first = next;
    }
}

static void enqueue(struct flow *flow, const char *bytes, size_t len, steady_us due) {
    if (len == 0) return;
    struct parcel *parcel = malloc(sizeof *parcel + len);
    if (parcel == NULL) abort();
    *parcel = (struct parcel){.due = due, .len = len};
    memcpy(parcel->bytes, bytes, len);
    *flow->last = parcel;
    flow->last = &parcel->next;
    flow->queued += len;
}

static void dequeue(struct flow *flow) {
    struct parcel *parcel = flow->first;
    flow->first = parcel->next;
    if (flow->first == NULL) flow->last = &flow->first;
    flow->queued -= parcel->len;
    free(parcel);
}

/* False: the connection is broken. */
static bool send_due(struct flow *flow, const struct proxy_rules *rules, steady_us at) {
    while (flow->first != NULL && flow->first->due <= at && flow->next_send <= at) {
        struct parcel *parcel = flow->first;
        size_t len = parcel->len - parcel->sent;
        if (rules->slice > 0 && len > rules->slice) len = rules->slice;
        if (rules->bytes_per_second > 0 && len > 100) len = 100;
        const ssize_t n = send(flow->to, parcel->bytes + parcel->sent, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        flow->stuck = n < 0 && errno == EAGAIN;
        if (n < 0) return flow->stuck;
        parcel->sent += (size_t)n;
        if (rules->bytes_per_second > 0)
            flow->next_send = at + (steady_us)((size_t)n * 1000000 / rules->bytes_per_second);
        if (parcel->sent == parcel->len) dequeue(flow);
    }
    if (flow->ended && flow->first == NULL) shutdown(flow->to, SHUT_WR);
    return true;
}

/* False: the connection is broken. */
static bool take(struct pair *pair, struct flow *flow, const struct proxy_rules *rules) {
    char bytes[READ_SIZE];
    const ssize_t n = recv(flow->from, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) {
        flow->ended = true;
        return true;
    }
    const bool up = flow == &pair->up;
    const size_t len = up ? admit(pair, rules, bytes, (size_t)n) : let_back(pair, rules, bytes, (size_t)n);
    enqueue(flow, bytes, len, now() + (up ? rules->delay_up : rules->delay_down));
    return true;
}

/* ---- Connections ---- */

static void close_pair(struct pair *pair, bool reset) {
    const struct linger at_once = {1, 0};
    for (int i = 0; i < 2; i++) {
        const int fd = i == 0 ? pair->up.from : pair->up.to;
        if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
    }
    free_flow(&pair->up);
    free_flow(&pair->down);
    pair->open = false;
}

static void accept_one(struct proxy *proxy) {
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)proxy->to_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int yes = 1;
    struct pair *pair = proxy->pairs;
    const int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (pair < proxy->pairs + PAIRS && pair->open)
        pair++;
    if (client < 0 || pair == proxy->pairs + PAIRS) abort();
    atomic_fetch_add(&proxy->accepted, 1);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    memset(pair, 0, sizeof *pair);
    pair->open = true;
    open_flow(&pair->up, client, server);
    open_flow(&pair->down, server, client);
    if (connect(server, (const struct sockaddr *)&to, sizeof to) != 0) close_pair(pair, true);
}

static bool is_over(const struct pair *pair, const struct proxy_rules *rules) {
    if (pair->up.ended && pair->down.ended && pair->up.first == NULL && pair->down.first == NULL) return true;
    return rules->cut && pair->requests >= rules->cut_sent && pair->replies >= rules->cut_requests &&
           pair->up.first == NULL && pair->down.first == NULL;
}

static void serve(struct pair *pair, const struct proxy_rules *rules, short up, short down) {
    bool sound = true;
    if ((up & (POLLIN | POLLHUP | POLLERR)) != 0 && !pair->up.ended) sound = take(pair, &pair->up, rules);
    if ((down & (POLLIN | POLLHUP | POLLERR)) != 0 && !pair->down.ended)
        sound = take(pair, &pair->down, rules) && sound;
    if (sound) sound = send_due(&pair->up, rules, now()) && send_due(&pair->down, rules, now());
    if (!sound || is_over(pair, rules)) close_pair(pair, !sound || (rules->cut && !rules->cut_softly));
}

/* ---- The thread ---- */

/* One end of a connection: the source of one flow and the target of the other. */
static struct pollfd end_of(const struct flow *from, const struct flow *to) {
    const short read = from->ended || from->queued >= QUEUE_MOST ? 0 : POLLIN, write = to->stuck ? POLLOUT : 0;
    return (struct pollfd){.fd = read || write ? from->from : -1, .events = (short)(read | write)};
}

/* The time until the flow has something to send, at most `wait` ms. */
static int until_due(const struct flow *flow, int wait) {
    if (flow->first == NULL || flow->stuck) return wait;
    const steady_us due = flow->first->due > flow->next_send ? flow->first->due : flow->next_send;
    const steady_us left = (due - now() + 999) / 1000;
    return left <= 0 ? 0 : left < wait ? (int)left : wait;
}

static struct proxy_rules rules_of(struct proxy *proxy) {
    pthread_mutex_lock(&proxy->lock);
    const struct proxy_rules rules = proxy->rules;
    pthread_mutex_unlock(&proxy->lock);
    return rules;
}

/* The rules may have changed while the proxy waited for the data. */
static struct proxy_rules latest_rules(struct proxy *proxy) {
    pthread_mutex_lock(&proxy->lock);
    const struct proxy_rules rules = proxy->rules;
    const bool renewed = proxy->renewed, reset = proxy->reset_all;
    proxy->renewed = proxy->reset_all = false;
    pthread_mutex_unlock(&proxy->lock);
    for (struct pair *pair = proxy->pairs; pair < proxy->pairs + PAIRS; pair++) {
        if (renewed) pair->requests = pair->replies = 0;
        if (reset && pair->open) close_pair(pair, true);
    }
    return rules;
}

static void turn(struct proxy *proxy) {
    static const struct pollfd nothing = {.fd = -1};
    struct pollfd fds[2 + 2 * PAIRS];
    struct proxy_rules rules = rules_of(proxy);
    int wait = 1000;
    fds[0] = (struct pollfd){.fd = proxy->bell, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    for (int i = 0; i < PAIRS; i++) {
        const struct pair *pair = &proxy->pairs[i];
        fds[2 + 2 * i] = fds[3 + 2 * i] = nothing;
        if (!pair->open || rules.frozen) continue;
        wait = until_due(&pair->down, until_due(&pair->up, wait));
        fds[2 + 2 * i] = end_of(&pair->up, &pair->down);
        fds[3 + 2 * i] = end_of(&pair->down, &pair->up);
    }
    poll(fds, 2 + 2 * PAIRS, wait);
    rules = latest_rules(proxy);
    eventfd_t count;
    if (fds[0].revents != 0) eventfd_read(proxy->bell, &count);
    for (int i = 0; i < PAIRS && !rules.frozen; i++)
        if (proxy->pairs[i].open) serve(&proxy->pairs[i], &rules, fds[2 + 2 * i].revents, fds[3 + 2 * i].revents);
    if (fds[1].revents != 0) accept_one(proxy);
}

static void *run(void *arg) {
    struct proxy *proxy = arg;
    while (!atomic_load(&proxy->stop))
        turn(proxy);
    return NULL;
}

/* ---- Called by the test ---- */

struct proxy *proxy_start(int to_port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    struct proxy *proxy = calloc(1, sizeof *proxy);
    if (proxy == NULL) abort();
    proxy->to_port = to_port;
    proxy->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(proxy->listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(proxy->listener, 511) != 0) abort();
    if (getsockname(proxy->listener, (struct sockaddr *)&a, &len) != 0) abort();
    proxy->port = ntohs(a.sin_port);
    pthread_mutex_init(&proxy->lock, NULL);
    if (pthread_create(&proxy->thread, NULL, run, proxy) != 0) abort();
    return proxy;
}

int proxy_port(const struct proxy *proxy) { return proxy->port; }

unsigned proxy_accepted(struct proxy *proxy) { return atomic_load(&proxy->accepted); }

void proxy_set(struct proxy *proxy, const struct proxy_rules *rules) {
    pthread_mutex_lock(&proxy->lock);
    proxy->rules = *rules;
    proxy->renewed = true;
    pthread_mutex_unlock(&proxy->lock);
    eventfd_write(proxy->bell, 1);
}

void proxy_reset_all(struct proxy *proxy) {
    pthread_mutex_lock(&proxy->lock);
    proxy->reset_all = true;
    pthread_mutex_unlock(&proxy->lock);
    eventfd_write(proxy->bell, 1);
}

void proxy_stop(struct proxy *proxy) {
    if (proxy == NULL) return;
    atomic_store(&proxy->stop, true);
    eventfd_write(proxy->bell, 1);
    pthread_join(proxy->thread, NULL);
    for (struct pair *pair = proxy->pairs; pair < proxy->pairs + PAIRS; pair++)
        if (pair->open) close_pair(pair, false);
    close(proxy->listener);
    close(proxy->bell);
    pthread_mutex_destroy(&proxy->lock);
    free(proxy);
}
