/* SPDX-License-Identifier: MIT
 * A server that wishes us ill, in a process of its own: nodes of a cluster, a primary, a replica and sentinels. Its
 * replies are valid, or nearly, and chosen at random from a seed, or by a test. */
#ifndef HOSTILE_SERVER_H
#define HOSTILE_SERVER_H

#include <stdint.h>

#define HOSTILE_PORTS 4 /* each port plays every role: a command is answered by what it asks for */

/* To a decision. An address is a new one each time; each spells 127.0.0.1 in another way. */
enum hostile_act {
    HOSTILE_VERDICT,
    HOSTILE_MOVED_UP,   /* to an address where the server itself listens */
    HOSTILE_MOVED_DEAD, /* where the system refuses connections */
    HOSTILE_MOVED_HOLE, /* where no connection is ever accepted */
    HOSTILE_MOVED_NAME, /* a host name */
    HOSTILE_MOVED_SELF, /* without a host: the speaker's */
    HOSTILE_MOVED_ANY,  /* to "?" */
    HOSTILE_ASK_UP,
    HOSTILE_CLUSTERDOWN,
    HOSTILE_ERROR, /* any that a server has for a decision, script or command */
    HOSTILE_LONG_ERROR,
    HOSTILE_GARBAGE,
    HOSTILE_TWICE,
    HOSTILE_HALF, /* of a reply, then nothing on that connection */
    HOSTILE_HANG_UP,
    HOSTILE_SILENCE,
    HOSTILE_LATE, /* a verdict, up to 300 ms late */
    HOSTILE_ACTS
};

/* To CLUSTER SLOTS. */
enum hostile_map {
    HOSTILE_MAP_TRUE, /* the first port has all slots */
    HOSTILE_MAP_NONE,
    HOSTILE_MAP_FEW,       /* eight new nodes */
    HOSTILE_MAP_UP,        /* 1,024 new nodes, which accept connections */
    HOSTILE_MAP_DEAD,      /* 1,024, which do not */
    HOSTILE_MAP_NAMES,     /* 1,024, by name */
    HOSTILE_MAP_ANY,       /* 16,384 ranges, each of the node "?" */
    HOSTILE_MAP_OVERLAP,   /* 1,024 new nodes, and at the end a range that makes the map useless */
    HOSTILE_MAP_ONE,       /* one slot, of a new node */
    HOSTILE_MAP_DENSE,     /* as many values as a map may have */
    HOSTILE_MAP_TOO_DENSE, /* 1,700,000 of them */
    HOSTILE_MAP_THICK,     /* nearly 8 MiB, and not many values */
    HOSTILE_MAP_TOO_THICK, /* more than 8 MiB */
    HOSTILE_MAP_HALF,      /* 6 MiB of a map, then nothing on that connection */
    HOSTILE_MAP_ERROR,
    HOSTILE_MAP_OTHER, /* as to a decision */
    HOSTILE_MAPS
};

struct hostile;

struct hostile *hostile_start(void);
int hostile_port(const struct hostile *server, int number);
void hostile_stop(struct hostile *server);

/* From now on it gives every decision its verdict, and everything else a true answer. */
void hostile_is_honest(struct hostile *server);

/* From now on it does this to each decision, and that to each CLUSTER SLOTS. */
void hostile_does(struct hostile *server, enum hostile_act act, enum hostile_map map);

/* From now on it behaves as the seed says, differently on each port. */
void hostile_draws(struct hostile *server, uint32_t seed);

/* Decisions it has read, connections it has accepted, and the most that were open at a time. */
unsigned hostile_heard(const struct hostile *server);
unsigned hostile_accepted(const struct hostile *server);
unsigned hostile_most_open(const struct hostile *server);

#endif
