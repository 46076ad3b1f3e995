/* SPDX-License-Identifier: MIT
 * A simulated network: sockets that are two queues of segments on their way, and a name that is looked up. Between
 * connections nothing keeps its order; within one, bytes do. */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "conn/net.h"
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
    size_t queued; /* bytes that have not arrived, or not been read */
    size_t total;  /* bytes ever put in */
    size_t cut;    /* the connection is cut after this many */
};

enum ending { END_EOF, END_RESET, END_SILENT };

struct conn {
    int fd;
    struct client *client;
    struct sim_loop *loop;
    struct node *node;
    struct conn *next; /* of the node */
    enum { CONN_CONNECTING, CONN_UP, CONN_FAILED } state;
    int error;             /* of a failed one; of one that was reset */
    bool closed;           /* by the client */
    bool ended;            /* by the server, or by what lies between */
    bool silent;           /* and nobody is told */
    bool discards;         /* what has not been read when the end comes is lost */
    steady_us ends_at;     /* when the client can know */
    steady_us unanswered;  /* see net.h */
    steady_us dark_until;  /* until then nothing arrives */
    size_t window;         /* bytes the system takes before they have arrived */
    size_t owed;           /* of a request of which a part was taken */
    size_t heeded_at;      /* the first reply that shows the server at work ends here; 0: none yet */
    size_t readonly_at;    /* the first that says READONLY */
    size_t primary_at;     /* the one that says that this is the primary */
    size_t turned_away_at; /* and the one that says that there are too many */
    size_t rejected_at;    /* and the one that says that this client is not welcome */
    size_t read;           /* bytes of replies the client has read */
    struct side up, down;  /* to the server, to the client */
    bool turned_away, authed, asking, asked_role;
    bool asked_module;         /* the client had it in hand to send, if no more */
    bool missed[3], loaded[3]; /* scripts, by verb: since the last SCRIPT LOAD; was there one */
    steady_us stalled_before;
    bool work_due, arrival_due; /* the event for it is to come */
    long db;
    char *in; /* what the server has received */
    size_t in_len, in_room;
};

struct sim_net {
    struct steady__net api; /* first */
    struct client *client;
    struct sim_loop *loop;
    int64_t open_fds, lookups;
};

/* How the network is: of this seed, or from now on. */
struct net_weather {
    steady_us latency;      /* one way, at most */
    int64_t slow_one_in;    /* a segment takes much longer */
    steady_us slow;         /* by up to this */
    size_t slice;           /* no segment is longer */
    size_t window;          /* what a socket takes, at most */
    int64_t short_one_in;   /* a send or recv does less than it could */
    int64_t refuses_one_in; /* connect fails at once: descriptors, routes */
    int64_t no_lookup_one_in;
};
extern struct net_weather net_weather;

void sim_net_begin(void);
void sim_net_init(struct sim_net *net, struct client *client, struct sim_loop *loop);

int sim_net_ready(int fd, steady_us now); /* the events of poll(2) */
steady_us sim_net_next(int fd);           /* when there may be something to read */
bool sim_net_is_open(int fd);

/* The server says something; *end, if it is the first such thing and was not cut off, becomes where it ends. */
void conn_say(struct conn *conn, const char *bytes, size_t len, size_t *end);
void conn_end(struct conn *conn, enum ending how);
void conn_darken(struct conn *conn, steady_us until);
/* No connection is cut any more, and whoever waits for one that ended in silence hears of it, but for some of those
 * that have to find out for themselves. */
void conns_calm_down(void);

/* ---- The name ---- */

/* What the name means: nodes by number; dead addresses, at which nobody is, come with them. */
#define ADDRESS_NOBODY 200 /* refuses */
#define ADDRESS_DARK 201   /* does not answer, in the time of the faults */
struct name {
    uint8_t hosts[16];
    size_t count;
    int local; /* the node behind the Unix socket */
    steady_us fails_until, slow_until, slow;
};
extern struct name server_name;

#endif
