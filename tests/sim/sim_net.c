/* SPDX-License-Identifier: MIT
 * A simulated network behind the functions of struct steady__net. */
#include "sim_net.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "client.h"
#include "journal.h"
#include "node.h"
#include "sim_cluster.h"

#define FIRST_FD 1000
#define CONNS_MAX 16384

struct net_weather net_weather;
struct name server_name;

static struct conn *conns[CONNS_MAX];
static int conn_count;

void sim_net_begin(void) {
    conn_count = 0;
    memset(&server_name, 0, sizeof server_name);
}

static struct sim_net *self(const struct steady__net *net) { return (struct sim_net *)(void *)(uintptr_t)net; }

static struct conn *find(int fd) {
    if (fd < FIRST_FD || fd >= FIRST_FD + conn_count) broken("no descriptor has the number %d", fd);
    struct conn *conn = conns[fd - FIRST_FD];
    if (conn->closed) broken("descriptor %d is used after it was closed", fd);
    return conn;
}

bool sim_net_is_open(int fd) { return fd >= FIRST_FD && fd < FIRST_FD + conn_count && !conns[fd - FIRST_FD]->closed; }

/* ---- Segments ---- */

static steady_us latency(void) { return between(net_weather.latency / 4 + 1, net_weather.latency + 1); }

static steady_us arrival(const struct conn *conn, struct side *side, steady_us from) {
    steady_us when = from + latency();
    if (net_weather.slow_one_in > 0 && one_in(net_weather.slow_one_in)) {
        const steady_us slow = when + between(0, net_weather.slow);
        if (slow < world.calm_at) when = slow;
    }
    if (when < side->last_arrival) when = side->last_arrival;
    if (when < conn->dark_until) when = conn->dark_until;
    return side->last_arrival = when;
}

static void put(const struct conn *conn, struct side *side, const char *bytes, size_t len, steady_us from) {
    while (len > 0) {
        size_t n = (size_t)between(1, (int64_t)net_weather.slice);
        if (n < len / 16) n = len / 16;
        if (n > len) n = len;
        struct segment *segment = keep(sizeof *segment + n);
        *segment = (struct segment){.arrives_at = arrival(conn, side, from), .len = n, .bytes = (char *)(segment + 1)};
        memcpy(segment->bytes, bytes, n);
        if (side->first == NULL)
            side->first = segment;
        else
            side->last->next = segment;
        side->last = segment;
        side->queued += n;
        side->total += n;
        bytes += n;
        len -= n;
    }
}

/* Loses the bytes after a random one among those that have not arrived. */
static void lose_tail(struct side *side) {
    struct segment *segment = side->first;
    while (segment != NULL && (segment->arrives_at <= world.now || !one_in(2)))
        segment = segment->next;
    if (segment == NULL) return;
    segment->len = segment->from + (size_t)between(0, (int64_t)(segment->len - segment->from));
    segment->next = NULL;
    side->last = segment;
}

static void delay_all(struct side *side, steady_us until) {
    for (struct segment *segment = side->first; segment != NULL; segment = segment->next)
        if (segment->arrives_at > world.now && segment->arrives_at < until) segment->arrives_at = until;
    if (side->last_arrival < until) side->last_arrival = until;
}

/* ---- To the server ---- */

static void arrive(void *arg);

static void expect_arrival(struct conn *conn) {
    if (conn->arrival_due || conn->up.first == NULL || conn->ended) return;
    conn->arrival_due = true;
    at(conn->up.first->arrives_at, arrive, conn);
}

static void arrive(void *arg) {
    struct conn *conn = arg;
    struct side *up = &conn->up;
    conn->arrival_due = false;
    while (!conn->ended && up->first != NULL && up->first->arrives_at <= world.now) {
        const struct segment *segment = up->first;
        const size_t before = up->total - up->queued;
        const size_t len = before + segment->len > up->cut ? up->cut - before : segment->len;
        up->first = segment->next;
        up->queued -= segment->len;
        node_hear(conn, segment->bytes, len);
        if (len < segment->len || before + len == up->cut) conn_end(conn, (enum ending)between(END_EOF, END_SILENT));
    }
    expect_arrival(conn);
    if (!conn->closed) sim_loop_wake(conn->loop, world.now);
}

static bool has_ended(const struct conn *conn, steady_us now) { return conn->ended && now >= conn->ends_at; }

static void unacknowledged(void *arg) {
    struct conn *conn = arg;
    if (conn->closed || has_ended(conn, world.now) || !conn->silent) return;
    conn->silent = false;
    conn->error = ETIMEDOUT;
    conn->ends_at = world.now;
    sim_loop_wake(conn->loop, world.now);
}

static ssize_t sim_send(const struct steady__net *net, int fd, const void *bytes, size_t len) {
    struct conn *conn = find(fd);
    const steady_us now = sim_loop_now(self(net)->loop);
    if (conn->state != CONN_UP) broken("something is sent on a socket that is not connected");
    if (memmem(bytes, len, "\nSTEADY.", 8) != NULL) conn->asked_module = true;
    if (has_ended(conn, now) && conn->error != 0) {
        errno = one_in(2) ? EPIPE : conn->error;
        return -1;
    }
    if (conn->up.queued >= conn->window) {
        errno = EAGAIN;
        return -1;
    }
    size_t n = conn->window - conn->up.queued;
    if (n > len) n = len;
    if (n > 1 && net_weather.short_one_in > 0 && one_in(net_weather.short_one_in)) n = (size_t)between(1, (int64_t)n);
    journal_left(conn, bytes, len, n);
    put(conn, &conn->up, bytes, n, now);
    expect_arrival(conn);
    if (conn->silent && one_in(2)) at(now + conn->unanswered, unacknowledged, conn);
    return (ssize_t)n;
}

/* ---- To the client ---- */

void conn_say(struct conn *conn, const char *bytes, size_t len, size_t *end) {
    if (conn->ended) return;
    const size_t room = conn->down.cut - conn->down.total;
    put(conn, &conn->down, bytes, len < room ? len : room, world.now);
    if (end != NULL && *end == 0 && len <= room) *end = conn->down.total;
    if (!conn->closed) sim_loop_wake(conn->loop, conn->down.last_arrival);
    if (len >= room) conn_end(conn, (enum ending)between(END_EOF, END_SILENT));
}

void conn_end(struct conn *conn, enum ending how) {
    if (conn->ended) return;
    note("connection ends", conn->fd, how, 0);
    conn->ended = true;
    conn->silent = how == END_SILENT;
    conn->error = how == END_EOF ? 0 : ECONNRESET;
    if (how != END_EOF) lose_tail(&conn->down);
    conn->discards = how == END_RESET && one_in(2);
    conn->ends_at = conn->silent ? NEVER : arrival(conn, &conn->down, world.now);
    if (!conn->closed && !conn->silent) sim_loop_wake(conn->loop, conn->ends_at);
}

void conn_darken(struct conn *conn, steady_us until) {
    if (conn->ended || conn->dark_until >= until) return;
    conn->dark_until = until;
    delay_all(&conn->up, until);
    delay_all(&conn->down, until);
    sim_loop_wake(conn->loop, until);
}

void conns_calm_down(void) {
    for (int i = 0; i < conn_count; i++) {
        conns[i]->up.cut = conns[i]->down.cut = SIZE_MAX;
        conns[i]->window = net_weather.window;
        if (!client_finds_out(conns[i]->client) || one_in(2)) unacknowledged(conns[i]);
    }
}

static ssize_t take(struct conn *conn, char *bytes, size_t room) {
    struct side *down = &conn->down;
    struct segment *segment = down->first;
    size_t n = segment->len - segment->from;
    if (n > room) n = room;
    if (n > 1 && net_weather.short_one_in > 0 && one_in(net_weather.short_one_in)) n = (size_t)between(1, (int64_t)n);
    memcpy(bytes, segment->bytes + segment->from, n);
    segment->from += n;
    down->queued -= n;
    if (segment->from == segment->len) down->first = segment->next;
    conn->read += n;
    return (ssize_t)n;
}

/* Reads several arrived segments at once, as a kernel does. */
static ssize_t sim_recv(const struct steady__net *net, int fd, void *bytes, size_t room) {
    struct conn *conn = find(fd);
    const steady_us now = sim_loop_now(self(net)->loop);
    const bool over = has_ended(conn, now);
    size_t n = 0;
    if (room == 0) broken("a recv into no room");
    conn->read_before = conn->read;
    while (!(over && conn->discards) && n < room && conn->down.first != NULL) {
        if (conn->down.first->from == conn->down.first->len) {
            conn->down.first = conn->down.first->next;
            continue;
        }
        if (conn->down.first->arrives_at > now || (n > 0 && one_in(8))) break;
        n += (size_t)take(conn, (char *)bytes + n, room - n);
    }
    note("read", fd, (int64_t)n, over);
    if (n > 0) return (ssize_t)n;
    errno = over ? conn->error : EAGAIN;
    return over && conn->error == 0 ? 0 : -1;
}

int sim_net_ready(int fd, steady_us now) {
    const struct conn *conn = find(fd);
    int events = 0;
    if (conn->state == CONN_CONNECTING) return 0;
    if (conn->state == CONN_FAILED || (has_ended(conn, now) && conn->error != 0))
        return STEADY_READABLE | STEADY_WRITABLE;
    if (conn->down.first != NULL && conn->down.first->arrives_at <= now) events |= STEADY_READABLE;
    if (has_ended(conn, now)) events |= STEADY_READABLE;
    if (conn->up.queued < conn->window) events |= STEADY_WRITABLE;
    return events;
}

steady_us sim_net_next(int fd) {
    const struct conn *conn = find(fd);
    if (conn->down.first != NULL) return conn->down.first->arrives_at;
    return conn->ended ? conn->ends_at : NEVER;
}

/* ---- Connecting ---- */

static void settle(struct conn *conn, int error) {
    conn->state = error == 0 ? CONN_UP : CONN_FAILED;
    conn->error = error;
    note(error == 0 ? "connected" : "connecting failed", conn->fd, error, 0);
    if (!conn->closed) sim_loop_wake(conn->loop, world.now);
    if (error == 0) node_accept(conn);
}

/* The first packet reaches the host, which answers at once. */
static void reach(void *arg) {
    struct conn *conn = arg;
    if (conn->closed) return;
    const steady_us dark_until = conn->node != NULL ? node_dark_until(conn->node) : conn->dark_until;
    if (dark_until > world.now)
        at(dark_until + latency(), reach, conn);
    else
        settle(conn, conn->node != NULL && node_listens(conn->node) ? 0 : ECONNREFUSED);
}

static int host_of(const struct steady__address *address) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&address->bytes;
    return address->bytes.ss_family == AF_UNIX ? server_name.local : (int)(ntohl(in->sin_addr.s_addr) & 0xff);
}

static struct conn *new_conn(struct sim_net *net, int host, steady_us unanswered) {
    if (conn_count == CONNS_MAX) broken("more than %d connections", CONNS_MAX);
    struct conn *conn = keep(sizeof *conn);
    *conn = (struct conn){.fd = FIRST_FD + conn_count,
                          .client = net->client,
                          .loop = net->loop,
                          .node = host < NODES ? &nodes[host] : NULL,
                          .unanswered = unanswered,
                          .stalled_before = net->loop->stalled,
                          .dark_until = host == ADDRESS_DARK ? world.calm_at : 0,
                          .window = world.now < world.calm_at ? (size_t)between(1, (int64_t)net_weather.window)
                                                              : net_weather.window,
                          .up.cut = SIZE_MAX,
                          .down.cut = SIZE_MAX};
    conns[conn_count++] = conn;
    net->open_fds++;
    net->client->conn = conn;
    return conn;
}

/* An attempt to connect to a silent address ends after the time of the client. */
static void be_impatient(void *arg) {
    struct conn *conn = arg;
    const steady_us stood_still = conn->loop->stalled - conn->stalled_before;
    if (conn->closed || conn->state != CONN_CONNECTING || world.now >= world.calm_at) return;
    if (stood_still == 0) broken("client %d waits for an address for ever", conn->client->index);
    conn->stalled_before += stood_still;
    at(world.now + stood_still, be_impatient, conn);
}

static int sim_connect(const struct steady__net *net, const struct steady__address *address, steady_us unanswered) {
    const int host = host_of(address);
    const bool local = address->bytes.ss_family == AF_UNIX;
    if (local) client_dials(self(net)->client);
    if (net_weather.refuses_one_in > 0 && one_in(net_weather.refuses_one_in)) {
        errno = one_in(2) ? EMFILE : ENETUNREACH;
        return -1;
    }
    if (local && !node_listens(&nodes[host])) {
        errno = ECONNREFUSED;
        return -1;
    }
    struct conn *conn = new_conn(self(net), host, unanswered);
    note("connect", conn->fd, host, 0);
    if (local)
        settle(conn, 0);
    else
        at(sim_loop_now(conn->loop) + 2 * latency(), reach, conn);
    at(sim_loop_now(conn->loop) + client_patience(conn->client), be_impatient, conn);
    return conn->fd;
}

static int sim_connected(const struct steady__net *net, int fd) {
    (void)net;
    const struct conn *conn = find(fd);
    if (conn->state == CONN_CONNECTING) broken("a socket is asked how it connected before it has");
    return conn->state == CONN_FAILED ? conn->error : 0;
}

static void forget(void *arg) { node_gone(arg); }

static void sim_close(const struct steady__net *net, int fd) {
    struct conn *conn = find(fd);
    note("close", fd, 0, 0);
    conn->closed = true;
    self(net)->open_fds--;
    if (conn->state != CONN_UP || conn->ended) return;
    if (one_in(2)) lose_tail(&conn->up); /* a connection with an unread reply is reset */
    at(conn->up.last_arrival, forget, conn);
}

/* ---- The name ---- */

struct steady__lookup {
    struct sim_net *net;
    void *timer;
    void (*done)(void *arg, const struct steady__addresses *found, const char *why);
    void *arg;
    uint16_t port;
    bool fails;
    struct name found;
};

static void answer(void *arg) {
    struct steady__lookup *lookup = arg;
    struct steady__addresses found = {.count = lookup->found.count};
    lookup->net->lookups--;
    lookup->net->loop->api.ops->timer_free(lookup->timer);
    if (lookup->fails) {
        lookup->done(lookup->arg, NULL, "no such host");
        return;
    }
    for (size_t i = 0; i < found.count; i++) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)&found.at[i].bytes;
        in->sin_family = AF_INET;
        in->sin_port = htons(lookup->port);
        in->sin_addr.s_addr = htonl(0x0a000000u | lookup->found.hosts[i]);
        found.at[i].len = sizeof *in;
    }
    lookup->done(lookup->arg, &found, NULL);
}

/* A numeric address needs no lookup. Only clusters and primaries announce addresses. */
static bool address_of(const struct client *client, const char *host, struct name *found) {
    if (strcmp(host, "server.test") == 0) return false;
    if (!client_has_links(client) || strncmp(host, "10.0.0.", 7) != 0) broken("\"%s\" is looked up", host);
    found->hosts[0] = (uint8_t)(host[7] - '0');
    found->count = 1;
    return true;
}

static struct steady__lookup *sim_lookup(
    const struct steady__net *net, const steady_loop *loop, const char *host, uint16_t port,
    void (*done)(void *arg, const struct steady__addresses *found, const char *why), void *arg) {
    struct name found = server_name;
    const steady_loop *own = &self(net)->loop->api; /* the store passes a loop on top of it */
    const bool by_address = address_of(self(net)->client, host, &found);
    (void)loop;
    if (!by_address) client_dials(self(net)->client);
    if (net_weather.no_lookup_one_in > 0 && one_in(net_weather.no_lookup_one_in)) return NULL;
    const steady_us now = sim_loop_now(self(net)->loop);
    struct steady__lookup *lookup = keep(sizeof *lookup);
    *lookup =
        (struct steady__lookup){self(net), NULL, done, arg, port, !by_address && now < server_name.fails_until, found};
    steady_us wait = latency();
    if (!by_address && now < server_name.slow_until) wait += between(0, server_name.slow_until - now);
    lookup->timer = own->ops->timer_new(own->loop, answer, lookup);
    own->ops->timer_start(lookup->timer, wait);
    lookup->net->lookups++;
    return lookup;
}

static void sim_lookup_cancel(const struct steady__net *net, struct steady__lookup *lookup) {
    (void)net;
    lookup->net->lookups--;
    lookup->net->loop->api.ops->timer_free(lookup->timer);
}

static uint64_t sim_random(const struct steady__net *net) {
    (void)net;
    return (uint64_t)between(0, INT64_MAX - 1);
}

void sim_net_init(struct sim_net *net, struct client *client, struct sim_loop *loop) {
    *net = (struct sim_net){
        .api = {sim_connect, sim_connected, sim_send, sim_recv, sim_close, sim_random, sim_lookup, sim_lookup_cancel},
        .client = client,
        .loop = loop};
}
