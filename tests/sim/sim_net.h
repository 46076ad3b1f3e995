/* SPDX-License-Identifier: MIT
 * A simulated network: a socket is two queues of segments in flight; names are looked up. Bytes keep their order
 * within a connection. Nothing keeps its order between connections. */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "conn/net.h"
#include "core/bucket.h"
#include "sim_loop.h"

struct client;
struct node;

struct segment {
    struct segment *next;
    steady_us arrives_at;
    size_t len, from;
    char *bytes;
};

/* One direction of a connection. */
struct side {
    struct segment *first, *last;
    steady_us last_arrival;
    size_t queued; /* bytes that have not arrived or were not read */
    size_t total;  /* bytes written so far */
    size_t cut;    /* the connection is cut after this many bytes */
};

enum ending { END_EOF, END_RESET, END_SILENT };

struct conn {
    int fd;
    struct client *client;
    struct sim_loop *loop;
    struct node *node;
    struct conn *next; /* the next connection of the node */
    enum { CONN_CONNECTING, CONN_UP, CONN_FAILED } state;
    int error;             /* of a failed or reset connection */
    bool closed;           /* closed by the client */
    bool ended;            /* ended by the server or the network */
    bool silent;           /* the client gets no notice of the end */
    bool discards;         /* bytes not read at the end are lost */
    steady_us ends_at;     /* the time at which the client can notice */
    steady_us unanswered;  /* see net.h */
    steady_us dark_until;  /* no packet arrives until then */
    size_t window;         /* bytes that the system buffers before they have arrived */
    size_t owed;           /* the rest of a request that was written in part */
    size_t heeded_at;      /* the first reply of a working server ends here; 0: no such reply yet */
    size_t garbage_at;     /* the last reply that is none */
    size_t readonly_at;    /* the first READONLY reply */
    size_t busy_at;        /* the last reply that says: loading or busy */
    size_t primary_at;     /* the reply that says that this is the primary */
    size_t turned_away_at; /* the reply that says: too many clients */
    size_t rejected_at;    /* the reply that rejects this client */
    size_t read;           /* reply bytes that the client has read */
    size_t read_before;    /* the same, before it read last */
    struct side up, down;  /* to the server and to the client */
    bool turned_away, authed, asking, asked_role;
    bool asked_module; /* the client wanted to send a module command */
    /* Scripts by verb: missed since the last SCRIPT LOAD; loaded at least once. */
    bool missed[STEADY__VERBS], loaded[STEADY__VERBS];
    steady_us stalled_before;
    bool work_due, arrival_due; /* its event is scheduled */
    long db;
    char *in; /* the bytes that the server has received */
    size_t in_len, in_room;
};

struct sim_net {
    struct steady__net api; /* first */
    struct client *client;
    struct sim_loop *loop;
    int64_t open_fds, lookups;
};

/* The properties of the network, for this seed or from now on. */
struct net_weather {
    steady_us latency;      /* one way, maximum */
    int64_t slow_one_in;    /* one segment in so many takes longer */
    steady_us slow;         /* by at most this */
    size_t slice;           /* the longest segment */
    size_t window;          /* bytes that a socket buffers, at most */
    int64_t short_one_in;   /* one send or recv in so many is partial */
    int64_t refuses_one_in; /* one connect in so many fails at once: no descriptor or no route */
    int64_t no_lookup_one_in;
};
extern struct net_weather net_weather;

void sim_net_begin(void);
void sim_net_init(struct sim_net *net, struct client *client, struct sim_loop *loop);

int sim_net_ready(int fd, steady_us now); /* the events of poll(2) */
steady_us sim_net_next(int fd);           /* the time at which bytes may be readable */
bool sim_net_is_open(int fd);

/* The server sends a reply. If *end is 0 and the reply was not cut off, *end becomes the end of the reply. */
void conn_say(struct conn *conn, const char *bytes, size_t len, size_t *end);
void conn_end(struct conn *conn, enum ending how);
void conn_darken(struct conn *conn, steady_us until);
/* From now on no connection is cut. Clients get notice of connections that ended silently, except some that must
 * detect it by timeout. */
void conns_calm_down(void);

/* ---- The name ---- */

/* The addresses of the name: nodes by number, and dead addresses. */
#define ADDRESS_CLOSED 200 /* refuses */
#define ADDRESS_DARK 201   /* does not answer during the faults */
struct name {
    uint8_t hosts[16];
    size_t count;
    int local; /* the node behind the Unix socket */
    steady_us fails_until, slow_until, slow;
};
extern struct name server_name;

#endif
