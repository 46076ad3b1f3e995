/* SPDX-License-Identifier: MIT
 * A client that loads an HTTP/1.1 server on 127.0.0.1.
 *
 *     load_http PORT CONNECTIONS RATE SECONDS [COUNT] < REQUESTS
 *
 * RATE 0: each connection sends its next request when the answer to the last one is there. Another RATE: a request is
 * due at each 1/RATE of a second, and takes a free connection. The client never sleeps, so it sends at the microsecond.
 * Its latency begins when it is due, even if no connection was free then. COUNT ends the load after so many requests.
 *
 * REQUESTS: for each request a line with its length, and its bytes. The requests take turns. Each answer must have a
 * Content-Length.
 *
 * Prints the number of answers that are 200, and of the others; the seconds; and in us the 50th and 99th percentiles
 * and the maximum of the latencies, and the 99th percentile of the delays of the client itself: how late it sent,
 * although a connection was free. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MOST = 16 * 1024, STEPS = 1000000 /* us of a histogram; longer ones count as the last */ };

struct request {
    const char *bytes;
    size_t len;
};

struct connection {
    int fd;
    double due; /* of the request under way */
    size_t len; /* of the answer so far */
    char answer[ANSWER_MOST];
};

struct load {
    struct request *requests;
    size_t n_requests, next;
    struct connection *connections;
    int *free, n_connections, n_free; /* indices */
    double rate, begun, end;
    uint64_t most, sent, answered, failed; /* failed: of `answered`, those that are not 200 */
    uint32_t *latencies, *delays;          /* histograms */
    uint32_t longest;
};

static double load_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void load_die(const char *what, const char *why) {
    fprintf(stderr, "load_http: %s: %s\n", what, why);
    exit(1);
}

static void *load_memory(size_t n, size_t size) {
    void *memory = calloc(n, size);
    if (memory == NULL) load_die("calloc", strerror(errno));
    return memory;
}

/* ---- Requests ---- */

static void load_read_requests(struct load *load) {
    size_t room = 0, len;
    while (scanf("%zu", &len) == 1) {
        getchar(); /* the end of the line */
        char *bytes = load_memory(len, 1);
        if (fread(bytes, 1, len, stdin) != len) load_die("standard input", "a request is cut");
        if (load->n_requests == room) {
            room = room > 0 ? 2 * room : 1024;
            load->requests = realloc(load->requests, room * sizeof *load->requests);
            if (load->requests == NULL) load_die("realloc", strerror(errno));
        }
        load->requests[load->n_requests++] = (struct request){bytes, len};
    }
    if (load->n_requests == 0) load_die("standard input", "it has no request");
}

static void load_send(struct load *load, struct connection *connection, double due) {
    const struct request *request = &load->requests[load->next];
    load->next = (load->next + 1) % load->n_requests;
    connection->due = due;
    connection->len = 0;
    load->sent++;
    if (send(connection->fd, request->bytes, request->len, MSG_NOSIGNAL) != (ssize_t)request->len)
        load_die("send", strerror(errno));
}

/* ---- Answers ---- */

/* The length of a whole answer, or 0 if its head is not complete. */
static size_t load_whole(const char *bytes, size_t len) {
    const char *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (len < 12 || memcmp(bytes, "HTTP/1.1 ", 9) != 0) load_die("an answer is not of HTTP/1.1", bytes);
    for (const char *line = bytes; line < end; line = (const char *)memchr(line, '\n', (size_t)(end + 2 - line)) + 1)
        if ((*line == 'C' || *line == 'c') && strncasecmp(line, "content-length:", 15) == 0)
            return (size_t)(end + 4 - bytes) + strtoul(line + 15, NULL, 10);
    load_die("an answer has no Content-Length", bytes);
}

static void load_count(uint32_t *histogram, double seconds) {
    const double us = seconds > 0 ? seconds * 1e6 : 0;
    histogram[us < STEPS - 1 ? (size_t)us : STEPS - 1]++;
}

/* True: the answer is complete. */
static bool load_receive(struct load *load, struct connection *connection) {
    const ssize_t n = recv(connection->fd, connection->answer + connection->len, ANSWER_MOST - 1 - connection->len, 0);
    if (n <= 0) load_die("recv", n == 0 ? "the server closed a connection" : strerror(errno));
    connection->len += (size_t)n;
    connection->answer[connection->len] = '\0';
    const size_t whole = load_whole(connection->answer, connection->len);
    if (whole >= ANSWER_MOST) load_die("an answer is too long", connection->answer);
    if (whole == 0 || connection->len < whole) return false;
    const double latency = load_now() - connection->due;
    load_count(load->latencies, latency);
    if (latency * 1e6 > load->longest) load->longest = (uint32_t)(latency * 1e6);
    load->answered++;
    if (memcmp(connection->answer + 9, "200", 3) != 0) load->failed++;
    return true;
}

/* ---- The load ---- */

static bool load_goes_on(const struct load *load) {
    return load->sent < load->most && (load->rate > 0 || load_now() < load->end);
}

/* Sends what is due. Returns whether a further request will be. */
static bool load_send_due(struct load *load) {
    const double now = load_now();
    while (load->n_free > 0 && load->sent < load->most) {
        const double due = load->begun + (double)load->sent / load->rate;
        if (due >= load->end) return false;
        if (due > now) return true;
        load_send(load, &load->connections[load->free[--load->n_free]], due);
        load_count(load->delays, load_now() - due);
    }
    return load->sent < load->most;
}

static void load_run(struct load *load, int poll) {
    struct epoll_event events[64];
    bool more = true;
    while (load->rate == 0 && load->n_free > 0)
        load_send(load, &load->connections[load->free[--load->n_free]], load_now());
    while (more || load->answered < load->sent) {
        if (load->rate > 0 && more) more = load_send_due(load);
        const int n = epoll_wait(poll, events, 64, load->rate > 0 ? 0 : 5000);
        if (n == 0 && load->rate == 0) load_die("epoll_wait", "no answer for 5 s");
        for (int i = 0; i < n; i++) {
            struct connection *connection = &load->connections[events[i].data.u32];
            if (!load_receive(load, connection)) continue;
            if (load->rate > 0)
                load->free[load->n_free++] = (int)events[i].data.u32;
            else if ((more = load_goes_on(load)))
                load_send(load, connection, load_now());
        }
    }
}

static int load_connect(struct load *load, uint16_t port) {
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int poll = epoll_create1(0), on = 1;
    for (int i = 0; i < load->n_connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof to) != 0 ||
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
            load_die("connect", strerror(errno));
        load->connections[i].fd = fd;
        load->free[load->n_free++] = i;
    }
    return poll;
}

static uint32_t load_percentile(const uint32_t *histogram, double share) {
    uint64_t all = 0, seen = 0;
    uint32_t us = 0;
    for (uint32_t i = 0; i < STEPS; i++)
        all += histogram[i];
    while (us < STEPS - 1 && (double)(seen += histogram[us]) < share * (double)all)
        us++;
    return us;
}

int main(int argc, char **argv) {
    struct load load = {.most = UINT64_MAX};
    if (argc < 5) load_die("usage", "load_http PORT CONNECTIONS RATE SECONDS [COUNT] < REQUESTS");
    load.n_connections = atoi(argv[2]);
    load.rate = atof(argv[3]);
    if (argc > 5) load.most = strtoull(argv[5], NULL, 10);
    load.connections = load_memory((size_t)load.n_connections, sizeof *load.connections);
    load.free = load_memory((size_t)load.n_connections, sizeof *load.free);
    load.latencies = load_memory(STEPS, sizeof *load.latencies);
    load.delays = load_memory(STEPS, sizeof *load.delays);
    load_read_requests(&load);
    const int poll = load_connect(&load, (uint16_t)atoi(argv[1]));
    load.begun = load_now();
    load.end = load.begun + atof(argv[4]);
    load_run(&load, poll);
    printf("%llu %llu %.6f %u %u %u %u\n", (unsigned long long)(load.answered - load.failed),
           (unsigned long long)load.failed, load_now() - load.begun, load_percentile(load.latencies, 0.5),
           load_percentile(load.latencies, 0.99), load.longest, load_percentile(load.delays, 0.99));
    return 0;
}
