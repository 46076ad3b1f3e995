/* SPDX-License-Identifier: MIT
 * A server that may belong to a cluster.
 *
 * The store starts with one node, the seed: the server of the URL. If that is a single server, nothing more is asked
 * of it. The first MOVED, ASK or CLUSTERDOWN shows a cluster. From then on there is a slot map, and a connection to
 * each node that is needed. A request for a slot without a known node goes to any node, which answers MOVED. Each MOVED
 * is noted in the map. So a user without the right to CLUSTER SLOTS learns the map slot by slot.
 *
 * The map is refreshed
 *   - after a redirect that contradicts it, after CLUSTERDOWN, after a lost connection or a passed deadline;
 *   - when it is old, because a node that has left the cluster may go on answering.
 * One node at a time is asked for CLUSTER SLOTS. The pause after each request doubles while there are reasons to
 * refresh. If the node does not answer in time, another node is asked too, three at most. A late map is used, unless a
 * later request was answered first. A map is adopted as a whole or not at all, and before any callback runs. A node
 * that lost sight of the others knows only its own slots. So slots that a map does not mention stay with their node.
 *
 * An error reply means that nothing was charged. So a redirected request is sent again, within its deadline. A request
 * that was written and not answered is never sent again.
 *
 * The words of a server must not make the store do more than a cluster needs:
 *   - A node that only redirects name, and no map, is unconfirmed. At most UNCONFIRMED_MAX of them are kept. A further
 *     one replaces one that has been there for HOLD and is idle; otherwise the redirect is not followed.
 *   - The connections take at most a quarter of the descriptors that the process may have. A further one replaces one
 *     that no request has wanted for HOLD, or that was never up; otherwise requests for its node are unavailable.
 *   - All connections share a bound on name lookups and on log lines.
 *
 * A node without slots loses its connection when that is idle, and is forgotten, unless it is the seed. A connection
 * that is down is kept until no request has wanted it for a while: it holds the back-off and the state of the log. A
 * connection that was never up stops its attempts at once, and starts again when it is wanted. It is closed even if its
 * node has slots, when no request has wanted it for a while.
 *
 * The seed is used again when no other node is up, until a node with slots is up: its connection looks up the name in
 * the URL at each attempt. It is also asked for the map while the other nodes may not know all of it: slots are
 * unknown, or a node answered CLUSTERDOWN. */
#include "redis/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "conn/backoff.h"
#include "conn/resp.h"
#include "core/error.h"
#include "core/redact.h"
#include "redis/node_table.h"
#include "redis/sentinel.h"
#include "redis/slot_map.h"

#define REDIRECTS_MAX 5
#define PAUSE_FIRST (20 * STEADY_MILLISECOND)
#define PAUSE_LAST (300 * STEADY_MILLISECOND) /* so that a failover is noticed within a second */
#define PAUSE_BLIND (30 * STEADY_SECOND)
#define STALE (30 * STEADY_SECOND) /* the largest age of a map: a node that left the cluster does not say so */
#define CALM (5 * STEADY_SECOND)   /* without a reason to refresh, the next pause is the first again */
#define ANSWER_LEAST (100 * STEADY_MILLISECOND)
#define ANSWER_TIMEOUTS 4  /* as a connection waits for any reply */
#define MAP_REQUESTS_MAX 3 /* at a time, if the first ones are late */
#define SWEEP_AGAIN STEADY_SECOND
#define UNWANTED (10 * STEADY_SECOND) /* then a connection that is down is closed */
#define UNCONFIRMED_MAX 16
#define CONNECTIONS_LEAST (2 + UNCONFIRMED_MAX)
#define CONNECTIONS_MAX 1024
#define HOLD STEADY_SECOND
#define HOLD_IN_VAIN (100 * STEADY_MILLISECOND) /* the same for a connection that was never up */
#define FULL_AGAIN (10 * STEADY_MILLISECOND)    /* before the next search for a connection to close */
#define CLOSED_PER_TURN 16                      /* connections closed in one turn of the loop */
#define LOG_LINES_MAX 64                        /* log lines at once; then one each second */

struct node {
    struct steady__node_entry at; /* host "": the seed, if its URL has a path or sentinels */
    struct steady__cluster *cluster;
    struct steady__url *url;            /* with this host, the rest from the seed; NULL: the seed, or never connected */
    struct steady__connection *conn;    /* NULL: not needed now */
    steady_us wanted_at;                /* the last request for this node */
    steady_us redirected_at;            /* unconfirmed: when a redirect named it; 0: confirmed by a map */
    bool timed_out;                     /* a deadline passed, and nothing was answered since */
    struct steady__request map_request; /* CLUSTER SLOTS */
    bool map_requested;
    uint64_t request_number; /* of the last map request */
    steady_us requested_at;  /* when that was sent, or queued */
    steady_us refuses_until; /* it answered CLUSTER SLOTS with an error */
    bool no_permission;      /* because the user has no right to it */
    bool unshown;            /* its host holds a key, and must not be shown */
    bool not_member;         /* for another reason: it may not be a member any more */
};

struct steady__cluster {
    struct steady__connection_options options;
    struct steady__node_table nodes;
    uint16_t next_index;
    struct steady__slot_map *map, *draft; /* NULL: no cluster so far */
    unsigned unknown;                     /* slots without a node in the map */
    bool table_full;                      /* a node of the last map got no number */
    steady_us down_at;                    /* the last CLUSTERDOWN; 0: never */
    bool map_forbidden;                   /* the node that was asked last refused for want of a right */
    bool refresh_due;
    uint64_t map_requests, map_number; /* requests so far; the one that the map answers */
    struct node *map_awaited;          /* the node whose answer is awaited */
    steady_us map_latency;             /* latency of the last answer */
    struct steady__backoff backoff;    /* between two requests for the map */
    steady_us allowed_at, stale_at;
    struct steady__alarm alarm; /* the answer is late, a request is allowed, or a sweep is due */
    struct node *unconfirmed[UNCONFIRMED_MAX];
    unsigned n_unconfirmed;
    unsigned conns, conns_max;
    unsigned lookups;      /* running lookups of node names */
    steady_us full_until;  /* no connection can be closed before */
    bool sweep_unfinished; /* more connections wait to be closed */
    steady_us line_at;     /* token bucket of log lines: from then on one line is allowed, LOG_LINES_MAX s later all */
    unsigned depth;        /* loops over nodes on the stack */
    bool closed;
};

static steady_us cluster_now(const struct steady__cluster *cluster) { return steady__loop_now(&cluster->options.loop); }

static steady_us cluster_longer(steady_us a, steady_us b) { return a > b ? a : b; }

/* ---- Nodes ---- */

/* NULL: forgotten. Number 0 is the seed. */
static struct node *cluster_node_at(const struct steady__cluster *cluster, uint16_t number) {
    return (struct node *)cluster->nodes.by_number[number];
}

static struct node *cluster_add_node(struct steady__cluster *cluster, const char *host, uint16_t port) {
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL || !steady__node_table_add(&cluster->nodes, &node->at, host, port)) {
        free(node);
        return NULL;
    }
    node->cluster = cluster;
    node->map_request.nested = STEADY__NESTED_MAP;
    if (!cluster->alarm.set && node->at.number != 0) steady__alarm_set(&cluster->alarm, SWEEP_AGAIN);
    return node;
}

static void cluster_confirm(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    for (unsigned i = 0; node->redirected_at != 0 && i < cluster->n_unconfirmed; i++)
        if (cluster->unconfirmed[i] == node) cluster->unconfirmed[i] = cluster->unconfirmed[--cluster->n_unconfirmed];
    node->redirected_at = 0;
}

static void cluster_free_node(struct node *node) {
    if (node != NULL) free(node->url);
    free(node);
}

static void cluster_forget_node(struct node *node) {
    cluster_confirm(node);
    steady__node_table_remove(&node->cluster->nodes, &node->at);
    cluster_free_node(node);
}

/* The number of a known node, or STEADY__SLOT_UNKNOWN. An empty host means the host of the sender. */
static uint16_t cluster_find_number(const struct node *sender, const char **host, uint16_t port) {
    if (**host == '\0') *host = sender->at.host;
    if (**host == '\0') return STEADY__SLOT_UNKNOWN;
    const struct steady__node_entry *known = steady__node_table_find(&sender->cluster->nodes, *host, port);
    return known != NULL ? known->number : STEADY__SLOT_UNKNOWN;
}

static const struct steady__connection_owner node_owner;

/* Made on demand: a URL is long, and few nodes of a large map need one. */
static bool cluster_make_url(struct node *node) {
    const struct steady__url *seed = node->cluster->options.url;
    if (node->url == NULL) node->url = calloc(1, sizeof *node->url);
    if (node->url == NULL) return false;
    node->url->scheme = steady__url_has_tls(seed->scheme) ? STEADY__URL_TLS : STEADY__URL_TCP;
    node->url->host = node->at.host;
    node->url->port = node->at.port;
    node->url->named = true;
    node->url->unshown = node->unshown;
    node->url->path = "";
    node->url->user = seed->user;
    node->url->password = seed->password;
    node->url->db = seed->db;
    return true;
}

static void cluster_close_connection(struct node *node) {
    if (node->conn == NULL) return;
    node->cluster->conns--;
    steady__connection_close(node->conn);
    node->conn = NULL;
}

/* Closing the connection loses nothing. Not during a lookup: it would go on uncounted. */
static bool cluster_is_idle(const struct node *node) {
    if (node->conn == NULL) return true;
    return steady__connection_is_idle(node->conn) && !steady__connection_looks_up(node->conn);
}

/* Closes the connection that was wanted least recently, if that is more than HOLD ago. */
static bool cluster_make_room(struct steady__cluster *cluster) {
    struct node *least = NULL;
    if (cluster->conns < cluster->conns_max) return true;
    if (cluster_now(cluster) < cluster->full_until) return false;
    for (uint16_t i = 1; i < cluster->nodes.count; i++) {
        struct node *node = cluster_node_at(cluster, i);
        if (node == NULL || node->conn == NULL || !cluster_is_idle(node)) continue;
        if (cluster_now(cluster) - node->wanted_at < (steady__connection_was_up(node->conn) ? HOLD : HOLD_IN_VAIN))
            continue;
        if (least == NULL || node->wanted_at < least->wanted_at) least = node;
    }
    if (least != NULL)
        cluster_close_connection(least);
    else
        cluster->full_until = cluster_now(cluster) + FULL_AGAIN;
    return least != NULL;
}

/* Bounds the log lines, because a server can name any number of nodes. */
static void cluster_log_line(void *arg, enum steady_log_level level, const char *text) {
    struct steady__cluster *cluster = arg;
    const steady_us least = cluster_now(cluster) - LOG_LINES_MAX * STEADY_SECOND;
    if (cluster->line_at < least) cluster->line_at = least;
    if (cluster->line_at > cluster_now(cluster)) return;
    cluster->line_at += STEADY_SECOND;
    cluster->options.log(cluster->options.log_data, level, text);
}

static struct steady__connection *cluster_new_connection(struct node *node) {
    struct steady__connection_options options = node->cluster->options;
    if (node->at.number != 0) {
        if (!cluster_make_url(node)) return NULL;
        options.url = node->url;
        options.lookups = &node->cluster->lookups;
        options.log = options.log != NULL ? cluster_log_line : NULL;
        options.log_data = node->cluster;
    }
    options.owner_class = &node_owner;
    options.owner = node;
    const bool sought = steady__url_is_sentinel(options.url->scheme);
    return sought ? steady__sentinels_link(&options) : steady__connection_open(&options);
}

/* 0, or the error of a request to the node. The seed does not count against the bound. */
static int cluster_open_connection(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    if (node->at.number != 0 && !cluster_make_room(cluster))
        return steady__note_error(cluster->options.last_error, STEADY_UNAVAILABLE,
                                  "the limit of %u connections to the cluster is reached", cluster->conns);
    node->conn = cluster_new_connection(node);
    if (node->conn == NULL) return STEADY_NO_MEMORY;
    cluster->conns++;
    if (!cluster->alarm.set && node->at.number != 0) steady__alarm_set(&cluster->alarm, SWEEP_AGAIN);
    return 0;
}

/* Inline, because each decision passes here. */
static inline int cluster_send_to(struct node *node, struct steady__request *request) {
    const int error = node->conn == NULL ? cluster_open_connection(node) : 0;
    if (error != 0) return error;
    request->at = node;
    node->wanted_at = cluster_now(node->cluster);
    return steady__connection_submit(node->conn, request);
}

static bool cluster_is_up(const struct node *node) {
    return node->conn != NULL && steady__connection_is_up(node->conn);
}

static struct node *cluster_next_up(struct steady__cluster *cluster, bool not_member) {
    for (uint16_t i = 0; i < cluster->nodes.count; i++) {
        cluster->next_index = (uint16_t)((cluster->next_index + 1) % cluster->nodes.count);
        struct node *node = cluster_node_at(cluster, cluster->next_index);
        if (node != NULL && cluster_is_up(node) && !node->timed_out && node->not_member == not_member) return node;
    }
    return NULL;
}

/* The next node that is up, round robin; the seed if none is up. A node that may not be a member comes last, because it
 * may decide on keys of other nodes. */
static struct node *cluster_next_up_or_seed(struct steady__cluster *cluster) {
    struct node *node = cluster_next_up(cluster, false);
    if (node == NULL) node = cluster_next_up(cluster, true);
    return node != NULL ? node : cluster_node_at(cluster, 0);
}

/* ---- The map ---- */

static void cluster_assign(struct steady__cluster *cluster, uint16_t slot, struct node *node) {
    const uint16_t before = cluster->map->node[slot];
    if (before != STEADY__SLOT_UNKNOWN)
        cluster_node_at(cluster, before)->at.slots--;
    else
        cluster->unknown--;
    cluster->map->node[slot] = node->at.number;
    node->at.slots++;
}

struct drawing {
    struct node *sender;
    uint16_t *at_port; /* see steady__node_table_others_by_port; NULL: not made yet */
};

/* The number of a node in a map; a new node gets one. "?" may mean any node; only the old map can tell. */
static uint16_t cluster_number_of_host(void *arg, const char *host, uint16_t port) {
    struct drawing *drawing = arg;
    struct steady__cluster *cluster = drawing->sender->cluster;
    if (strcmp(host, "?") == 0) {
        if (drawing->at_port == NULL)
            drawing->at_port = steady__node_table_others_by_port(&cluster->nodes, &drawing->sender->at);
        return drawing->at_port != NULL ? drawing->at_port[port] : STEADY__SLOT_UNKNOWN;
    }
    const uint16_t known = cluster_find_number(drawing->sender, &host, port);
    if (known != STEADY__SLOT_UNKNOWN || *host == '\0') return known;
    const struct node *node = cluster_add_node(cluster, host, port);
    if (node == NULL) cluster->table_full = true;
    return node != NULL ? node->at.number : STEADY__SLOT_UNKNOWN;
}

/* Forgets the nodes that only a map named, which is replaced or was rejected. */
static void cluster_forget_unnamed(struct steady__cluster *cluster) {
    for (uint16_t i = 1; i < cluster->nodes.count; i++) {
        struct node *node = cluster_node_at(cluster, i);
        if (node != NULL && node->conn == NULL && node->at.slots == 0 && node->redirected_at == 0)
            cluster_forget_node(node);
    }
}

static void cluster_confirm_named(struct steady__cluster *cluster, const struct steady__slot_map *map) {
    for (unsigned i = cluster->n_unconfirmed; i-- > 0;) {
        struct node *node = cluster->unconfirmed[i];
        unsigned slot = 0;
        while (slot < STEADY__SLOTS && map->node[slot] != node->at.number)
            slot++;
        if (slot < STEADY__SLOTS) cluster_confirm(node);
    }
}

/* If the node table was full, slots that the new map does not mention lose their node. Otherwise old nodes would keep
 * the numbers. */
static void cluster_adopt_map(struct node *sender, const struct steady__reply *reply) {
    struct steady__cluster *cluster = sender->cluster;
    struct steady__slot_map *old = cluster->map;
    struct drawing drawing = {sender, NULL};
    cluster->table_full = false;
    const bool map_number = steady__slot_map_draw(cluster->draft, reply, cluster_number_of_host, &drawing);
    free(drawing.at_port);
    if (map_number) {
        cluster_confirm_named(cluster, cluster->draft);
        if (!cluster->table_full) steady__slot_map_complete(cluster->draft, old);
        cluster->map = cluster->draft;
        cluster->draft = old;
        cluster->map_number = sender->request_number;
        cluster->refresh_due = false;
    } else if (cluster->table_full) {
        memset(old->node, 0xff, sizeof old->node);
    }
    cluster->unknown = steady__node_table_count_slots(&cluster->nodes, cluster->map);
    cluster_forget_unnamed(cluster);
}

/* ---- Unconfirmed nodes ---- */

static void cluster_take_slots_from(struct node *node) {
    struct steady__slot_map *map = node->cluster->map;
    for (unsigned slot = 0; node->at.slots > 0 && slot < STEADY__SLOTS; slot++) {
        if (map->node[slot] != node->at.number) continue;
        map->node[slot] = STEADY__SLOT_UNKNOWN;
        node->at.slots--;
        node->cluster->unknown++;
    }
}

static bool cluster_may_be_forgotten(const struct node *node) {
    return cluster_now(node->cluster) - node->redirected_at >= HOLD && cluster_is_idle(node) && !node->map_requested;
}

/* False: there is no room for another unconfirmed node. */
static bool cluster_make_room_for_unconfirmed(struct node *sender) {
    struct steady__cluster *cluster = sender->cluster;
    struct node *least = NULL;
    if (cluster->n_unconfirmed < UNCONFIRMED_MAX) return true;
    for (unsigned i = 0; i < UNCONFIRMED_MAX; i++) {
        struct node *node = cluster->unconfirmed[i];
        if (node != sender && cluster_may_be_forgotten(node) && (least == NULL || node->wanted_at < least->wanted_at))
            least = node;
    }
    if (least == NULL) return false;
    cluster_take_slots_from(least);
    cluster_close_connection(least);
    cluster_forget_node(least);
    return true;
}

/* NULL: the host is not known, or there are too many. */
static struct node *cluster_add_unconfirmed(struct node *sender, const char *host, uint16_t port) {
    struct steady__cluster *cluster = sender->cluster;
    struct node *node = cluster_make_room_for_unconfirmed(sender) ? cluster_add_node(cluster, host, port) : NULL;
    if (node == NULL) return NULL;
    node->redirected_at = cluster_now(cluster);
    cluster->unconfirmed[cluster->n_unconfirmed++] = node;
    return node;
}

/* The node that a redirect names. NULL: not known, or not to be followed. */
static struct node *cluster_node_of(struct node *sender, const struct steady__redirect *redirect, bool may_be_new) {
    struct steady__cluster *cluster = sender->cluster;
    const char *host = redirect->host;
    uint16_t number;
    if (strcmp(host, "?") == 0)
        number = steady__node_table_other_with_port(&cluster->nodes, &sender->at, redirect->port);
    else
        number = cluster_find_number(sender, &host, redirect->port);
    if (number != STEADY__SLOT_UNKNOWN) return cluster_node_at(cluster, number);
    const bool named = *host != '\0' && strcmp(host, "?") != 0;
    return named && may_be_new ? cluster_add_unconfirmed(sender, host, redirect->port) : NULL;
}

/* ---- Refreshing the map ---- */

/* For this long no other node is asked for the map. Some servers take more than a timeout for a large map, and requests
 * to them wait behind it. */
static steady_us cluster_map_timeout(const struct steady__cluster *cluster) {
    const steady_us least = cluster_longer(cluster->options.timeout, ANSWER_LEAST), most = ANSWER_TIMEOUTS * least;
    return 2 * cluster->map_latency < most ? cluster_longer(2 * cluster->map_latency, least) : most;
}

static bool cluster_is_map_late(const struct node *node) {
    return cluster_now(node->cluster) - node->requested_at >= cluster_map_timeout(node->cluster);
}

/* Sets the alarm for when the answer is late or a request is allowed; before that for the next sweep. */
static void cluster_schedule_alarm(struct steady__cluster *cluster) {
    const struct node *map_awaited = cluster->map_awaited;
    const steady_us due =
        map_awaited != NULL ? map_awaited->requested_at + cluster_map_timeout(cluster) : cluster->allowed_at;
    const steady_us wait = cluster->sweep_unfinished ? 0 : due - cluster_now(cluster);
    steady__alarm_set(&cluster->alarm, wait < SWEEP_AGAIN ? wait : SWEEP_AGAIN);
}

/* Schedules a request for the map. Without a map there is no cluster, and nothing to do. */
static void cluster_schedule_map_refresh(struct steady__cluster *cluster) {
    if (cluster->map == NULL || cluster->refresh_due || cluster->map_awaited != NULL) return;
    if (cluster_now(cluster) - cluster->allowed_at > CALM) steady__backoff_reset(&cluster->backoff);
    cluster->refresh_due = true;
    cluster_schedule_alarm(cluster);
}

static bool cluster_start_map(struct steady__cluster *cluster) {
    if (cluster->map != NULL) return true;
    struct steady__slot_map *map = malloc(sizeof *map), *draft = malloc(sizeof *draft);
    if (map == NULL || draft == NULL) {
        free(map);
        free(draft);
        return false;
    }
    memset(map->node, 0xff, sizeof map->node);
    cluster->map = map;
    cluster->draft = draft;
    cluster->unknown = STEADY__SLOTS;
    cluster_schedule_map_refresh(cluster);
    return true;
}

/* Allows no map request for a pause. Each pause is longer than the last one, up to `most`. */
static void cluster_pause_map_requests(struct steady__cluster *cluster, steady_us most) {
    cluster->backoff.last = most;
    cluster->allowed_at =
        cluster_now(cluster) + steady__jittered(cluster->options.net, steady__backoff_next(&cluster->backoff));
}

static bool cluster_is_reported_down(const struct steady__cluster *cluster) {
    return cluster->down_at != 0 && cluster_now(cluster) - cluster->down_at < CALM;
}

/* Whether the node refused CLUSTER SLOTS. This is kept per node, because permissions may differ. */
static bool cluster_refuses_map(const struct node *node) { return cluster_now(node->cluster) < node->refuses_until; }

/* Whether a node that is up forbids CLUSTER SLOTS. Then no connection is made just to ask another node. */
static bool cluster_is_map_forbidden(const struct steady__cluster *cluster) {
    for (uint16_t i = 0; i < cluster->nodes.count; i++) {
        const struct node *node = cluster_node_at(cluster, i);
        if (node != NULL && cluster_is_up(node) && cluster_refuses_map(node) && node->no_permission) return true;
    }
    return false;
}

/* Whether a node may be asked for the map. up: nodes that are up, and the seed if it has no connection and may know
 * more. Otherwise: nodes that must connect first. */
static bool cluster_may_be_asked_for_map(const struct node *node, bool up) {
    const struct steady__cluster *cluster = node->cluster;
    const bool ask_seed =
        node->at.number == 0 && node->conn == NULL && (cluster->unknown > 0 || cluster_is_reported_down(cluster));
    return !node->map_requested && !cluster_refuses_map(node) && (cluster_is_up(node) || ask_seed) == up;
}

/* Requests that wait for a connection do not count, because they cost the server nothing. */
static bool cluster_too_many_map_requests(const struct steady__cluster *cluster) {
    unsigned request_number = 0;
    for (uint16_t i = 0; i < cluster->nodes.count; i++)
        if (cluster_node_at(cluster, i) != NULL && cluster_node_at(cluster, i)->map_requested &&
            cluster_is_up(cluster_node_at(cluster, i)))
            request_number++;
    return request_number >= MAP_REQUESTS_MAX;
}

static bool cluster_send_map_request(struct node *node) {
    node->request_number = ++node->cluster->map_requests;
    node->requested_at = cluster_now(node->cluster);
    node->map_requested = true; /* encoding may happen at once; it resets this if there are too many */
    if (cluster_send_to(node, &node->map_request) != 0) node->map_requested = false;
    return node->map_requested;
}

static struct node *cluster_request_map_from_one(struct steady__cluster *cluster) {
    for (int up = 1, least = cluster_is_map_forbidden(cluster) ? 1 : 0; up >= least; up--)
        for (uint16_t i = 0; i < cluster->nodes.count; i++) {
            cluster->next_index = (uint16_t)((cluster->next_index + 1) % cluster->nodes.count);
            struct node *node = cluster_node_at(cluster, cluster->next_index);
            if (node == NULL || !cluster_may_be_asked_for_map(node, up == 1)) continue;
            if (cluster_send_map_request(node)) return node;
        }
    return NULL;
}

static void cluster_request_map(struct steady__cluster *cluster) {
    const uint64_t chance = cluster->options.net->random(cluster->options.net);
    cluster->refresh_due = false;
    cluster->stale_at = cluster_now(cluster) + STALE / 2 + (steady_us)(chance % (uint64_t)(STALE / 2));
    const bool many = cluster_too_many_map_requests(cluster);
    cluster->map_awaited = many ? NULL : cluster_request_map_from_one(cluster);
    if (cluster->map_awaited != NULL)
        cluster_schedule_alarm(cluster);
    else if (many)
        cluster_pause_map_requests(cluster, cluster_longer(cluster->backoff.next, PAUSE_LAST));
    else if (cluster_is_map_forbidden(cluster))
        cluster->allowed_at = cluster_now(cluster) + PAUSE_BLIND;
    else
        cluster_pause_map_requests(cluster, PAUSE_LAST);
}

/* A late map is used, unless a later request was answered first. */
static enum steady__reply_action cluster_map_received(struct node *node, const struct steady__reply *reply) {
    struct steady__cluster *cluster = node->cluster;
    const bool map = reply->kind == STEADY__REPLY_NESTED, error = reply->kind == STEADY__REPLY_ERROR;
    const enum steady__error_class error_class = error ? reply->error_class : STEADY__ERROR_CLASS_OTHER;
    node->map_requested = false;
    cluster->map_latency = cluster_now(cluster) - node->requested_at;
    if (cluster->map_awaited == node) {
        cluster->map_awaited = NULL;
        cluster_pause_map_requests(cluster, PAUSE_LAST);
    }
    if (map && node->request_number > cluster->map_number) cluster_adopt_map(node, reply);
    if (!map && !steady__error_class_is_temporary(error_class))
        node->refuses_until = cluster_now(cluster) + PAUSE_BLIND;
    node->no_permission = cluster->map_forbidden = error_class == STEADY__ERROR_CLASS_NO_PERMISSION;
    node->not_member = !map && !node->no_permission && !steady__error_class_is_temporary(error_class);
    if (node->not_member) cluster_schedule_map_refresh(cluster);
    steady__alarm_set(&cluster->alarm, 0); /* to sweep */
    return map || error ? STEADY__REPLY_ACCEPTED : STEADY__REPLY_UNTRUSTED;
}

/* reached: a node with slots is up. */
static bool cluster_may_close_connection(const struct node *node, bool reached) {
    if (node->conn == NULL) return true;
    if (!cluster_is_idle(node)) return false;
    if (node->at.number == 0 && (!reached || cluster_is_reported_down(node->cluster))) return false;
    return cluster_is_up(node) || cluster_now(node->cluster) - node->wanted_at >= UNWANTED;
}

/* A node with slots. True: look at it again, because its connection was never up. */
static bool cluster_sweep_needed(struct node *node, unsigned *closed) {
    if (node->at.number == 0 || node->conn == NULL || steady__connection_was_up(node->conn)) return false;
    if (!cluster_may_close_connection(node, false)) return true;
    cluster_close_connection(node);
    ++*closed;
    return false;
}

/* True: the node is not needed, but cannot be forgotten yet. */
static bool cluster_sweep_unneeded(struct node *node, bool reached, unsigned *closed) {
    if (!cluster_may_close_connection(node, reached)) {
        if (node->at.number != 0) steady__connection_pause(node->conn);
        return true;
    }
    if (node->conn != NULL) ++*closed;
    cluster_close_connection(node);
    if (node->at.number == 0) return false;
    if (node->redirected_at != 0 && cluster_now(node->cluster) - node->redirected_at < HOLD) return true;
    cluster_forget_node(node);
    return false;
}

static bool cluster_sweep_node(struct node *node, bool reached, unsigned *closed) {
    const bool useful = node->at.slots > 0 || (node->at.number == 0 && node->cluster->unknown > 0);
    return useful ? cluster_sweep_needed(node, closed) : cluster_sweep_unneeded(node, reached, closed);
}

/* Closes connections that are not needed. If no node has slots, all are kept: any of them may know the map. */
static void cluster_sweep(struct steady__cluster *cluster) {
    bool again = false, any = false, reached = false;
    unsigned closed = 0;
    uint16_t i;
    for (i = 0; i < cluster->nodes.count; i++)
        if (cluster_node_at(cluster, i) != NULL && cluster_node_at(cluster, i)->at.slots > 0) {
            any = true;
            if (cluster_is_up(cluster_node_at(cluster, i))) reached = true;
        }
    for (i = 0; any && i < cluster->nodes.count && closed < CLOSED_PER_TURN; i++)
        if (cluster_node_at(cluster, i) != NULL && cluster_sweep_node(cluster_node_at(cluster, i), reached, &closed))
            again = true;
    cluster->sweep_unfinished = any && i < cluster->nodes.count;
    if (again || cluster->sweep_unfinished)
        steady__alarm_set(&cluster->alarm, cluster->sweep_unfinished ? 0 : SWEEP_AGAIN);
}

/* Another node is asked after a pause, because all nodes may be slow. A pause that has grown does not shrink here. */
static void cluster_map_request_timed_out(struct steady__cluster *cluster) {
    cluster->map_awaited = NULL;
    cluster->refresh_due = true;
    cluster_pause_map_requests(cluster, cluster_longer(cluster->backoff.next, PAUSE_LAST));
}

static void cluster_on_alarm(void *arg) {
    struct steady__cluster *cluster = arg;
    if (steady__forked(cluster->options.fork_guard) || !steady__alarm_rang(&cluster->alarm)) return;
    if (cluster->map_awaited != NULL && cluster_is_map_late(cluster->map_awaited))
        cluster_map_request_timed_out(cluster);
    cluster_sweep(cluster);
    if (cluster->refresh_due && cluster->allowed_at <= cluster_now(cluster))
        cluster_request_map(cluster);
    else if (cluster->refresh_due || cluster->map_awaited != NULL)
        cluster_schedule_alarm(cluster);
}

/* ---- Called by connections ---- */

/* Bounds the map replies on the wire, because each may have megabytes. */
static bool cluster_too_many_maps_on_wire(const struct steady__cluster *cluster) {
    unsigned out = 0;
    for (uint16_t i = 0; i < cluster->nodes.count; i++)
        if (cluster_node_at(cluster, i) != NULL &&
            cluster_node_at(cluster, i)->map_request.state == STEADY__REQUEST_ON_WIRE)
            out++;
    return out >= MAP_REQUESTS_MAX;
}

/* Drops a map request that waited for its connection and is not needed any more. */
static size_t cluster_drop_map_request(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    node->map_requested = false;
    if (cluster->map_awaited != node) return 0;
    cluster->map_awaited = NULL;
    cluster->refresh_due = true;
    cluster_pause_map_requests(cluster, PAUSE_LAST);
    cluster_schedule_alarm(cluster);
    return 0;
}

static size_t cluster_encode_map_request(struct node *node, char *out) {
    if (cluster_too_many_maps_on_wire(node->cluster)) return cluster_drop_map_request(node);
    node->requested_at = cluster_now(node->cluster);
    return steady__resp_command(out, 2, (const char *const[]){"CLUSTER", "SLOTS"});
}

static size_t cluster_encode(void *owner, struct steady__request *request, struct steady__engines *engines, char *out) {
    struct node *node = owner;
    const struct steady__connection_options *options = &node->cluster->options;
    if (request == &node->map_request) return cluster_encode_map_request(node, out);
    const size_t len = options->owner_class->encode(options->owner, request, engines, out);
    if (len == 0) request->at = NULL; /* it belongs to no node now; the node may be freed before the request */
    return len;
}

/* The target of a redirect. NULL: no redirect, an invalid redirect, or too many of them. */
static struct node *cluster_redirect_target(struct node *sender, struct steady__request *request,
                                            const struct steady__reply *reply) {
    struct steady__cluster *cluster = sender->cluster;
    struct steady__redirect redirect;
    if (!steady__redirect_read(&redirect, reply->text, reply->text_len)) return NULL;
    if (redirect.slot != steady__slot_of(request->key, request->key_len)) return NULL;
    struct node *node = cluster_node_of(sender, &redirect, request->redirects < REDIRECTS_MAX);
    if (node == NULL) return NULL;
    const struct steady__secrets keys = steady__request_secrets(request, NULL);
    if (steady__host_holds(redirect.host, &keys)) node->unshown = true;
    if (!redirect.ask && cluster->map->node[redirect.slot] != node->at.number) {
        cluster_assign(cluster, redirect.slot, node);
        cluster_schedule_map_refresh(cluster);
    }
    request->send_asking = redirect.ask;
    return request->redirects++ < REDIRECTS_MAX ? node : NULL;
}

static bool cluster_reply_begins(const struct steady__reply *reply, const char *word) {
    const size_t len = strlen(word);
    return reply->text_len >= len && memcmp(reply->text, word, len) == 0 &&
           (reply->text_len == len || reply->text[len] == ' ');
}

/* CROSSSLOT shows a cluster, too. Then the next call on keys of several slots is divided at once. */
static void cluster_crossed_slots(struct steady__cluster *cluster) {
    if (cluster->map == NULL && cluster_start_map(cluster)) cluster_schedule_map_refresh(cluster);
}

/* True: the error was a redirect, and the request was sent to another node, or ended. */
static bool cluster_follow_redirect(struct node *node, struct steady__request *request, struct steady__engines *engines,
                                    const struct steady__reply *reply) {
    struct steady__cluster *cluster = node->cluster;
    if (!cluster_reply_begins(reply, "MOVED") && !cluster_reply_begins(reply, "ASK") &&
        !cluster_reply_begins(reply, "CLUSTERDOWN"))
        return false;
    if (!cluster_start_map(cluster)) return false;
    if (cluster_reply_begins(reply, "CLUSTERDOWN")) cluster->down_at = cluster_now(cluster);
    struct node *target = cluster_redirect_target(node, request, reply);
    if (target == NULL) {
        cluster_schedule_map_refresh(cluster);
        return false;
    }
    steady__engine_not_answered(engines);
    const int error = cluster_send_to(target, request);
    if (error != 0) cluster->options.owner_class->unanswered(cluster->options.owner, request, false, error);
    return true;
}

/* The owner may close everything, so touch nothing after calling it. */
static enum steady__reply_action cluster_answered(void *owner, struct steady__request *request,
                                                  struct steady__engines *engines, const struct steady__reply *reply) {
    struct node *node = owner;
    const struct steady__connection_options *options = &node->cluster->options;
    node->timed_out = false;
    if (request == &node->map_request) return cluster_map_received(node, reply);
    if (reply->kind == STEADY__REPLY_ERROR && reply->error_class == STEADY__ERROR_CLASS_CROSS_SLOT)
        cluster_crossed_slots(node->cluster);
    if (reply->kind == STEADY__REPLY_ERROR && request->key != NULL &&
        cluster_follow_redirect(node, request, engines, reply))
        return STEADY__REPLY_RESENT;
    return options->owner_class->answered(options->owner, request, engines, reply);
}

/* If CLUSTER SLOTS was never sent and no node is up, do not schedule a refresh; the next decision will. */
static void cluster_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct node *node = owner;
    struct steady__cluster *cluster = node->cluster;
    const bool map_request = request == &node->map_request, awaited = map_request && cluster->map_awaited == node;
    if (map_request) node->map_requested = false;
    if (awaited) cluster->map_awaited = NULL;
    if (map_request && written && node->request_number > cluster->map_number)
        cluster_pause_map_requests(cluster, PAUSE_BLIND); /* an unreadable map costs a connection each time */
    else if (awaited)
        cluster_pause_map_requests(cluster, PAUSE_LAST);
    if (!map_request || written || cluster_is_up(cluster_next_up_or_seed(cluster)))
        cluster_schedule_map_refresh(cluster);
    if (map_request) return;
    cluster->options.owner_class->unanswered(cluster->options.owner, request, written, error);
}

static const struct steady__connection_owner node_owner = {cluster_encode, cluster_answered, cluster_unanswered};

/* ---- What the decisions in flight call ---- */

static struct node *cluster_node_for_request(struct steady__cluster *cluster, const struct steady__request *request) {
    if (cluster->map == NULL) return cluster_node_at(cluster, 0);
    const uint16_t number = cluster->map->node[steady__slot_of(request->key, request->key_len)];
    return number != STEADY__SLOT_UNKNOWN ? cluster_node_at(cluster, number) : cluster_next_up_or_seed(cluster);
}

/* The map cannot be refreshed for a while. */
static bool cluster_is_map_unavailable(const struct steady__cluster *cluster) {
    return cluster->map_forbidden || cluster->allowed_at - cluster_now(cluster) > PAUSE_LAST;
}

/* A single server takes any keys. A node of a cluster would answer CROSSSLOT. */
static bool cluster_divides(void *transport, const struct steady__request *request) {
    const struct steady__cluster *cluster = transport;
    if (cluster->map == NULL) return false;
    const uint16_t slot = steady__slot_of(request->key, request->key_len);
    for (size_t i = 1; i < request->n_keys; i++)
        if (steady__slot_of(request->keys[i].text, request->keys[i].len) != slot) return true;
    return false;
}

/* A request goes to the node of its key. If that node is down or silent and the map cannot be refreshed, it goes to
 * another node: the MOVED reply names the new primary. */
static int cluster_submit(void *transport, struct steady__request *request) {
    struct steady__cluster *cluster = transport;
    if (request->key == NULL)
        return cluster_send_to(request->at != NULL ? request->at : cluster_node_at(cluster, 0), request);
    struct node *node = cluster_node_for_request(cluster, request);
    request->send_asking = false;
    struct node *other =
        node->timed_out && cluster_is_map_unavailable(cluster) ? cluster_next_up_or_seed(cluster) : node;
    if (cluster_is_up(other)) node = other;
    const int error = cluster_send_to(node, request);
    if (error != 0 || node->wanted_at >= cluster->stale_at) cluster_schedule_map_refresh(cluster);
    other = error != 0 && cluster_is_map_unavailable(cluster) ? cluster_next_up_or_seed(cluster) : node;
    return other != node ? cluster_send_to(other, request) : error;
}

/* A passed deadline may show a lost node, so refresh the map. A request that waited behind a slow map shows nothing. */
static int cluster_forget(void *transport, struct steady__request *request, bool held) {
    struct node *node = request->at;
    if (node == NULL || !node->map_requested || cluster_is_map_late(node)) cluster_schedule_map_refresh(transport);
    int error = request->state == STEADY__REQUEST_TOO_LATE ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
    if (node != NULL) error = steady__connection_forget(node->conn, request, held);
    if (error == STEADY_UNKNOWN) node->timed_out = true;
    return error;
}

static void cluster_free(struct steady__cluster *cluster) {
    for (uint16_t i = 0; i < cluster->nodes.count; i++)
        cluster_free_node(cluster_node_at(cluster, i));
    free(cluster->nodes.by_number);
    free(cluster->map);
    free(cluster->draft);
    free(cluster);
}

static void cluster_catch_up(void *transport) {
    struct steady__cluster *cluster = transport;
    size_t left = STEADY__CATCH_UP;
    cluster->depth++;
    for (uint16_t i = 0; i < cluster->nodes.count && !cluster->closed; i++)
        if (cluster_node_at(cluster, i) != NULL && cluster_node_at(cluster, i)->conn != NULL)
            steady__connection_catch_up(cluster_node_at(cluster, i)->conn, &left);
    if (--cluster->depth == 0 && cluster->closed) cluster_free(cluster);
}

/* A forked child leaves the memory that the parent's loop may point at. */
static void cluster_close(void *transport) {
    struct steady__cluster *cluster = transport;
    for (uint16_t i = 0; i < cluster->nodes.count; i++)
        if (cluster_node_at(cluster, i) != NULL) cluster_close_connection(cluster_node_at(cluster, i));
    if (steady__forked(cluster->options.fork_guard)) return;
    steady__alarm_free(&cluster->alarm);
    cluster->closed = true;
    if (cluster->depth == 0) cluster_free(cluster);
}

static const char *cluster_doing(void *transport, const struct steady__request *request) {
    const struct node *node = request->at;
    (void)transport;
    return node != NULL ? steady__connection_activity(node->conn) : NULL;
}

const struct steady__transport steady__cluster_class = {cluster_submit, cluster_forget, cluster_catch_up,
                                                        cluster_close,  cluster_doing,  cluster_divides};

/* ---- Opening ---- */

struct steady__cluster *steady__cluster_open(const struct steady__connection_options *options) {
    struct steady__cluster *cluster = calloc(1, sizeof *cluster);
    if (cluster == NULL) return NULL;
    cluster->options = *options;
    cluster->backoff.first = PAUSE_FIRST;
    cluster->conns_max = steady__net_descriptors() / 4;
    if (cluster->conns_max < CONNECTIONS_LEAST) cluster->conns_max = CONNECTIONS_LEAST;
    if (cluster->conns_max > CONNECTIONS_MAX) cluster->conns_max = CONNECTIONS_MAX;
    const uint64_t words[2] = {options->net->random(options->net), options->net->random(options->net)};
    steady__node_table_set_key(&cluster->nodes, words);
    const char *host = options->url->host;
    const uint16_t port = options->url->port;
    if (steady__alarm_new(&cluster->alarm, &cluster->options.loop, cluster_on_alarm, cluster) == 0 &&
        cluster_add_node(cluster, host, port) != NULL && cluster_open_connection(cluster_node_at(cluster, 0)) == 0)
        return cluster;
    steady__alarm_free(&cluster->alarm);
    cluster_free(cluster);
    return NULL;
}
