/* SPDX-License-Identifier: MIT
 * A hostile server in a process of its own: nodes of a cluster, a primary, a replica and sentinels. Its replies are
 * valid, or nearly valid. A seed or a test chooses them. */
#ifndef HOSTILE_SERVER_H
#define HOSTILE_SERVER_H

#include <stddef.h>
#include <stdint.h>

#define HOSTILE_PORTS 4 /* each port plays every role: the reply depends on the command */

/* Replies to a decision. Each address is new, and another spelling of 127.0.0.1. */
enum hostile_act {
    HOSTILE_VERDICT,
    HOSTILE_MOVED_UP,   /* to an address where the server itself listens */
    HOSTILE_MOVED_DEAD, /* to an address where the system refuses connections */
    HOSTILE_MOVED_HOLE, /* to an address where no connection is ever accepted */
    HOSTILE_MOVED_NAME, /* to a host name */
    HOSTILE_MOVED_SELF, /* without a host: the host of the sender */
    HOSTILE_MOVED_ANY,  /* to "?" */
    HOSTILE_ASK_UP,
    HOSTILE_CLUSTERDOWN,
    HOSTILE_ERROR, /* any error that a server sends for a decision, script or command */
    HOSTILE_LONG_ERROR,
    HOSTILE_GARBAGE,
    HOSTILE_TWICE,
    HOSTILE_HALF, /* half of a reply, then nothing on this connection */
    HOSTILE_HANG_UP,
    HOSTILE_SILENCE,
    HOSTILE_LATE, /* a verdict, up to 300 ms late */
    HOSTILE_ACTS
};

/* Replies to CLUSTER SLOTS. */
enum hostile_map {
    HOSTILE_MAP_TRUE, /* the first port has all slots */
    HOSTILE_MAP_NONE,
    HOSTILE_MAP_FEW,       /* eight new nodes */
    HOSTILE_MAP_UP,        /* 1,024 new nodes that accept connections */
    HOSTILE_MAP_DEAD,      /* 1,024 new nodes that do not */
    HOSTILE_MAP_NAMES,     /* 1,024 new nodes, by name */
    HOSTILE_MAP_ANY,       /* 16,384 ranges, each of the node "?" */
    HOSTILE_MAP_OVERLAP,   /* 1,024 new nodes, and then a range that makes the map invalid */
    HOSTILE_MAP_ONE,       /* one slot, at a new node */
    HOSTILE_MAP_DENSE,     /* as many values as a map may have */
    HOSTILE_MAP_TOO_DENSE, /* 1,700,000 values */
    HOSTILE_MAP_THICK,     /* nearly 8 MiB, with few values */
    HOSTILE_MAP_TOO_THICK, /* more than 8 MiB */
    HOSTILE_MAP_HALF,      /* 6 MiB of a map, then nothing on this connection */
    HOSTILE_MAP_ERROR,
    HOSTILE_MAP_OTHER, /* a reply to a decision */
    HOSTILE_MAPS
};

/* Counters of the process under test: bytes on the heap, and open sockets. */
#define HOSTILE_DESCRIPTORS 256 /* its limit of descriptors */
size_t process_memory(void);
unsigned process_sockets(void);

struct hostile;

struct hostile *hostile_start(void);
int hostile_port(const struct hostile *server, int number);
void hostile_stop(struct hostile *server);

/* From now on, each decision gets a verdict, and each other command a true reply. */
void hostile_is_honest(struct hostile *server);

/* From now on, decisions get the replies of `act`, and CLUSTER SLOTS those of `map`. */
void hostile_does(struct hostile *server, enum hostile_act act, enum hostile_map map);

/* From now on, the seed chooses the replies, differently on each port. */
void hostile_draws(struct hostile *server, uint32_t seed);

/* Decisions read, connections accepted, and the most connections open at a time. */
unsigned hostile_heard(const struct hostile *server);
unsigned hostile_accepted(const struct hostile *server);
unsigned hostile_most_open(const struct hostile *server);

#endif
