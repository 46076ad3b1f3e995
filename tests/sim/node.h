/* SPDX-License-Identifier: MIT
 * Simulated servers: sessions, the real scripts, the keys, and all faults of a server. */
#ifndef SIM_NODE_H
#define SIM_NODE_H

#include "core/bucket.h"
#include "sim_net.h"

#define NODES 3 /* the third is used in a cluster only */
#define BUCKETS 24
#define PASSWORD "Canary-0f-a-passw0rd"
#define CLOCK_BEGINS ((int64_t)1764000000 * 1000000)

/* The faults of a node, each until some time. node.c says what each does to a command. */
enum trouble {
    TROUBLE_DOWN,   /* connections are refused */
    TROUBLE_DARK,   /* no packet passes */
    TROUBLE_FROZEN, /* the process is stopped; the system still accepts connections and bytes */
    TROUBLE_LOADING,
    TROUBLE_BUSY,
    TROUBLE_OOM,
    TROUBLE_MISCONF,
    TROUBLE_NOREPLICAS,
    TROUBLE_PASSWORD, /* new connections need another password */
    TROUBLE_NOPERM,   /* access to each key is forbidden */
    TROUBLE_NOCALL,   /* EVALSHA and EVAL are forbidden, the module is permitted */
    TROUBLE_NOLOAD,   /* SCRIPT LOAD is forbidden, EVALSHA is permitted */
    TROUBLE_RENAMED,  /* EVALSHA is an unknown command */
    TROUBLE_CLUSTERDOWN,
    TROUBLE_CLIENTS, /* the server has too many clients */
    TROUBLE_FORGETS, /* the scripts are flushed often */
    TROUBLE_GARBAGE, /* a reply is sometimes of a wrong form */
    TROUBLE_LAST
};

/* A bucket as this node stores it. */
struct entry {
    bool holds;
    char value[128];
    int64_t expires_ms;
    struct steady__bucket bucket; /* the state that bucket.c computes */
    /* The state of the fluid: the drops * us that have not leaked yet, and the time of that value. */
    int64_t content, content_at;
    int64_t shaken; /* the number of clock steps; each may cost the phase of a drop */
};

struct node {
    int index;
    bool primary;
    bool has_module;
    bool hangs_up; /* on an unknown command, as some proxies do */
    bool has_script[STEADY__VERBS];
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
void node_gone(struct conn *conn); /* the client has closed the connection */

void node_crash(struct node *node, steady_us until, bool keeps_keys);

#endif
