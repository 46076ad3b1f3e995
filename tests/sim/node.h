/* SPDX-License-Identifier: MIT
 * Simulated servers: sessions, the real scripts, the keys, and all that a server may be troubled by. */
#ifndef SIM_NODE_H
#define SIM_NODE_H

#include "core/bucket.h"
#include "sim_net.h"

#define NODES 3 /* the third only in a cluster */
#define BUCKETS 24
#define PASSWORD "Canary-0f-a-passw0rd"
#define CLOCK_BEGINS ((int64_t)1764000000 * 1000000)

/* What a node suffers from until some time; see node.c for what each does to a command. */
enum trouble {
    TROUBLE_DOWN,   /* nobody listens */
    TROUBLE_DARK,   /* no packet passes */
    TROUBLE_FROZEN, /* stopped: the system still takes connections and bytes */
    TROUBLE_LOADING,
    TROUBLE_BUSY,
    TROUBLE_OOM,
    TROUBLE_MISCONF,
    TROUBLE_NOREPLICAS,
    TROUBLE_PASSWORD, /* another one is wanted of new connections */
    TROUBLE_NOPERM,   /* no key may be touched */
    TROUBLE_NOCALL,   /* scripts may not be called; the module may */
    TROUBLE_NOLOAD,   /* nor loaded, but they may be called */
    TROUBLE_RENAMED,  /* there is no EVALSHA */
    TROUBLE_CLUSTERDOWN,
    TROUBLE_CLIENTS, /* no more connections */
    TROUBLE_FORGETS, /* the scripts are flushed all the time */
    TROUBLE_GARBAGE, /* now and then a reply is not one of ours */
    TROUBLE_LAST
};

/* A bucket as this node knows it. */
struct entry {
    bool holds;
    char value[128];
    int64_t expires_ms;
    struct steady__bucket bucket; /* what bucket.c makes of the same */
    /* Another opinion on the same: drops * us that have yet to leak, and since when. */
    int64_t content, content_at;
    int64_t shaken; /* how often the clock has stepped under it, each of which may cost the phase of a drop */
};

struct node {
    int index;
    bool primary;
    bool has_module;
    bool hangs_up; /* on who says what it does not know: a proxy may stand before it */
    bool has_script[3];
    int64_t clock_offset;
    steady_us until[TROUBLE_LAST];
    struct conn *conns;
    struct entry entries[BUCKETS];
};

extern struct node nodes[NODES];

void nodes_begin(void);

bool node_suffers(const struct node *node, enum trouble trouble);
bool node_listens(const struct node *node);
steady_us node_dark_until(const struct node *node);

void node_accept(struct conn *conn);
void node_hear(struct conn *conn, const char *bytes, size_t len);
void node_gone(struct conn *conn); /* the client has closed it */

void node_crash(struct node *node, steady_us until, bool keeps_keys);

#endif
