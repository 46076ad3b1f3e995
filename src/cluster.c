/* SPDX-License-Identifier: MIT
 * A server that may turn out to be a cluster.
 *
 * It begins with one node, the seed, whose link is all there is: a server that is no cluster is asked nothing more and
 * pays nothing. The first MOVED, ASK or CLUSTERDOWN tells. From then on there is a map of who has which slot, and a
 * link to each node that was ever needed. A request for a slot that nobody is known to have goes to anyone, who will
 * say MOVED; each MOVED is noted in the map, so that a user without the right to CLUSTER SLOTS gets one as well, slot
 * by slot.
 *
 * Whatever goes wrong is a wish to draw the map anew: a redirect that the map did not know, CLUSTERDOWN, a link that is
 * down, a deadline that passed; and so is the map's age, since a node that has left the cluster may go on answering.
 * One node at a time is asked for CLUSTER SLOTS, with a pause after each that doubles while wishes keep coming. One
 * that does not answer in time gets another one asked beside it, three in all; its map is taken however late it comes,
 * unless that of one asked later has been. A map is taken whole or not at all, and before anyone is called back. A node
 * that has lost sight of the others knows of its own slots only, so those that a map does not mention stay with whom
 * they were.
 *
 * An error reply means that nothing was charged, so a redirected request is sent again, within its deadline. What was
 * written and not answered is not, whatever becomes of its node.
 *
 * What a peer says must not make us do more than a cluster needs. Of the nodes that redirects name and no map does
 * (strangers) at most STRANGERS_MAX are kept; one more takes the place of one that has been there for HOLD and is idle,
 * or is not followed. All links together are at most a quarter of the descriptors that the process may have: one more
 * takes the place of one that nobody has wanted for HOLD, or never was up, or requests for it are unavailable. Links
 * share the lookups of names and the lines of the log.
 *
 * A node that has no slot and whose link is idle loses the link, and is forgotten unless it is the seed. A link that is
 * down goes only when nobody has wanted it for a while: it is what knows how long to leave the server alone, and what
 * the log has been told. One that was never up gives its connection up at once, and makes no other until it is wanted.
 * It goes, too, where its node has slots and nobody has wanted it for a while. The seed comes back into play when no
 * other node is up, and stays until one with slots is: its link looks up the name in the URL at each attempt. It also
 * stays, and is asked like those that are up, where the others may not know all: while slots are unknown, or a node
 * says CLUSTERDOWN. */
#include "cluster.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "redact.h"
#include "roll.h"
#include "script.h"
#include "sentinel.h"
#include "slots.h"

#define REDIRECTS_MAX 5
#define PAUSE_FIRST (20 * STEADY_MILLISECOND)
#define PAUSE_LAST (300 * STEADY_MILLISECOND) /* so that who took over is asked within a second */
#define PAUSE_BLIND (30 * STEADY_SECOND)
#define STALE (30 * STEADY_SECOND) /* a map, at most: who has left the cluster does not say so */
#define CALM (5 * STEADY_SECOND)   /* without a wish: the next pause is the first again */
#define ANSWER_LEAST (100 * STEADY_MILLISECOND)
#define ANSWER_TIMEOUTS 4 /* as a link waits for anything at all */
#define INQUIRIES_MAX 3   /* at a time, where the first are late */
#define SWEEP_AGAIN STEADY_SECOND
#define UNWANTED (10 * STEADY_SECOND) /* a link that is down, by then */
#define STRANGERS_MAX 16
#define LINKS_LEAST (2 + STRANGERS_MAX)
#define LINKS_MAX 1024
#define HOLD STEADY_SECOND
#define HOLD_IN_VAIN (100 * STEADY_MILLISECOND) /* of a link that was never up */
#define FULL_AGAIN (10 * STEADY_MILLISECOND)    /* until another link is looked for that may go */
#define SWEPT_MOST 16                           /* links closed in a turn of the loop */
#define LINES_MAX 64                            /* of the log, at once; then one a second */

struct node {
    struct steady__entry at; /* host "": the seed's, where that is a path or asked of sentinels */
    struct steady__cluster *cluster;
    struct steady__url *url;        /* with our host; the rest is the seed's. NULL: the seed, or never connected to */
    struct steady__link *link;      /* NULL: not needed yet, or no more */
    steady_us wanted_at;            /* a request was last meant for it */
    steady_us noted_at;             /* by a redirect, and no map has named it: a stranger. 0: a map has */
    bool silent;                    /* a deadline has passed there, and it has answered nothing since */
    struct steady__request inquiry; /* CLUSTER SLOTS */
    bool inquiring;
    uint64_t asked;          /* the number of that inquiry */
    steady_us asked_at;      /* it went out, or is to */
    steady_us refuses_until; /* it has no map for us */
    bool forbids;            /* since we have no right to it */
    bool unshown;            /* its host holds the key that was redirected there */
    bool strange;            /* for another reason: it may be no part of the cluster any more */
};

struct steady__cluster {
    struct steady__link_options with;
    struct steady__roll roll;
    uint16_t turn;
    struct steady__slot_map *map, *draft; /* NULL: no cluster, as far as anyone knows */
    unsigned unknown;                     /* slots that nobody has, as far as the map knows */
    bool crowded;                         /* a node got no number */
    steady_us down_at;                    /* CLUSTERDOWN was last heard; 0: never */
    bool forbidden;                       /* who was asked last for the map: we have no right to it */
    bool wished;
    uint64_t inquiries, drawn; /* how many there were; which one the map is the answer to */
    struct node *inquired;     /* the last of them that is waited for */
    steady_us took;            /* the answer before this one */
    steady_us pause, allowed_at, stale_at;
    struct steady__alarm alarm; /* the answer is late, or the next inquiry is allowed, or it is time to sweep */
    uint64_t reconnects;        /* of links that are gone */
    struct node *strangers[STRANGERS_MAX];
    unsigned n_strangers;
    unsigned links, links_max;
    unsigned lookups;     /* of nodes' names */
    steady_us full_until; /* no link may go before, as far as anyone knows */
    bool unswept;         /* there are more links to close */
    steady_us line_at;    /* a line of the log is allowed from then on, LINES_MAX from that many seconds later */
    unsigned depth;       /* loops over nodes on the stack */
    bool closed;
};

static steady_us now(const struct steady__cluster *cluster) { return steady__loop_now(&cluster->with.loop); }

static steady_us longer(steady_us a, steady_us b) { return a > b ? a : b; }

/* ---- Nodes ---- */

/* NULL where one was forgotten. The first is the seed. */
static struct node *node_at(const struct steady__cluster *cluster, uint16_t number) {
    return (struct node *)cluster->roll.by_number[number];
}

static struct node *add_node(struct steady__cluster *cluster, const char *host, uint16_t port) {
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL || !steady__roll_add(&cluster->roll, &node->at, host, port)) {
        free(node);
        return NULL;
    }
    node->cluster = cluster;
    node->inquiry.nested = STEADY__NESTED_MAP;
    if (!cluster->alarm.set && node->at.number != 0) steady__alarm_set(&cluster->alarm, SWEEP_AGAIN);
    return node;
}

static void befriend(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    for (unsigned i = 0; node->noted_at != 0 && i < cluster->n_strangers; i++)
        if (cluster->strangers[i] == node) cluster->strangers[i] = cluster->strangers[--cluster->n_strangers];
    node->noted_at = 0;
}

static void free_node(struct node *node) {
    if (node != NULL) free(node->url);
    free(node);
}

static void forget_node(struct node *node) {
    befriend(node);
    steady__roll_strike(&node->cluster->roll, &node->at);
    free_node(node);
}

/* STEADY__SLOT_UNKNOWN: it is new, or, where there is no host, not to be told. No host means that of the node that
 * speaks of it. */
static uint16_t find_number(const struct node *speaker, const char **host, uint16_t port) {
    if (**host == '\0') *host = speaker->at.host;
    if (**host == '\0') return STEADY__SLOT_UNKNOWN;
    const struct steady__entry *known = steady__roll_find(&speaker->cluster->roll, *host, port);
    return known != NULL ? known->number : STEADY__SLOT_UNKNOWN;
}

static const struct steady__link_owner node_owner;

/* A URL is long, and of a large map few nodes need one. */
static bool make_url(struct node *node) {
    const struct steady__url *seed = node->cluster->with.url;
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

static void close_link(struct node *node) {
    if (node->link == NULL) return;
    node->cluster->links--;
    node->cluster->reconnects += steady__link_reconnects(node->link);
    steady__link_close(node->link);
    node->link = NULL;
}

/* Nothing is lost with it but a connection. A lookup would go on without its link, so that nobody could count it. */
static bool is_idle(const struct node *node) {
    if (node->link == NULL) return true;
    return steady__link_is_idle(node->link) && !steady__link_looks_up(node->link);
}

/* The link that nobody has wanted for longest goes, if that is long. */
static bool make_room(struct steady__cluster *cluster) {
    struct node *least = NULL;
    if (cluster->links < cluster->links_max) return true;
    if (now(cluster) < cluster->full_until) return false;
    for (uint16_t i = 1; i < cluster->roll.count; i++) {
        struct node *node = node_at(cluster, i);
        if (node == NULL || node->link == NULL || !is_idle(node)) continue;
        if (now(cluster) - node->wanted_at < (steady__link_was_up(node->link) ? HOLD : HOLD_IN_VAIN)) continue;
        if (least == NULL || node->wanted_at < least->wanted_at) least = node;
    }
    if (least != NULL)
        close_link(least);
    else
        cluster->full_until = now(cluster) + FULL_AGAIN;
    return least != NULL;
}

/* A peer names the nodes, and each has lines of its own. */
static void log_line(void *arg, enum steady_log_level level, const char *text) {
    struct steady__cluster *cluster = arg;
    const steady_us least = now(cluster) - LINES_MAX * STEADY_SECOND;
    if (cluster->line_at < least) cluster->line_at = least;
    if (cluster->line_at > now(cluster)) return;
    cluster->line_at += STEADY_SECOND;
    cluster->with.log(cluster->with.log_data, level, text);
}

static struct steady__link *new_link(struct node *node) {
    struct steady__link_options options = node->cluster->with;
    if (node->at.number != 0) {
        if (!make_url(node)) return NULL;
        options.url = node->url;
        options.lookups = &node->cluster->lookups;
        options.log = options.log != NULL ? log_line : NULL;
        options.log_data = node->cluster;
    }
    options.owner_class = &node_owner;
    options.owner = node;
    const bool sought = steady__url_is_sentinel(options.url->scheme);
    return sought ? steady__sentinels_link(&options) : steady__link_open(&options);
}

/* 0, or what a request to it ends as. The server in the URL has a place of its own. */
static int open_link(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    if (node->at.number != 0 && !make_room(cluster))
        return steady__fail(cluster->with.trouble, STEADY_UNAVAILABLE,
                            "there are %u connections to the cluster, and no more may be made", cluster->links);
    node->link = new_link(node);
    if (node->link == NULL) return STEADY_NO_MEMORY;
    cluster->links++;
    if (!cluster->alarm.set && node->at.number != 0) steady__alarm_set(&cluster->alarm, SWEEP_AGAIN);
    return 0;
}

static int send_to(struct node *node, struct steady__request *request) {
    const int error = node->link == NULL ? open_link(node) : 0;
    if (error != 0) return error;
    request->at = node;
    node->wanted_at = now(node->cluster);
    return steady__link_submit(node->link, request);
}

static bool is_up(const struct node *node) { return node->link != NULL && steady__link_is_up(node->link); }

static struct node *next_of(struct steady__cluster *cluster, bool strange) {
    for (uint16_t i = 0; i < cluster->roll.count; i++) {
        cluster->turn = (uint16_t)((cluster->turn + 1) % cluster->roll.count);
        struct node *node = node_at(cluster, cluster->turn);
        if (node != NULL && is_up(node) && !node->silent && node->strange == strange) return node;
    }
    return NULL;
}

/* Another one each time; a stranger where there is no other, who would decide what is not for it. The seed where there
 * is none to be had. */
static struct node *anyone(struct steady__cluster *cluster) {
    struct node *node = next_of(cluster, false);
    if (node == NULL) node = next_of(cluster, true);
    return node != NULL ? node : node_at(cluster, 0);
}

/* ---- The map ---- */

static void assign(struct steady__cluster *cluster, uint16_t slot, struct node *node) {
    const uint16_t before = cluster->map->node[slot];
    if (before != STEADY__SLOT_UNKNOWN)
        node_at(cluster, before)->at.slots--;
    else
        cluster->unknown--;
    cluster->map->node[slot] = node->at.number;
    node->at.slots++;
}

struct drawing {
    struct node *speaker;
    uint16_t *at_port; /* see steady__roll_others_at; NULL: not needed yet */
};

/* The node's number, which it gets here where it is new. "?" may mean any, and only the old map can tell. */
static uint16_t number_of(void *arg, const char *host, uint16_t port) {
    struct drawing *drawing = arg;
    struct steady__cluster *cluster = drawing->speaker->cluster;
    if (strcmp(host, "?") == 0) {
        if (drawing->at_port == NULL) drawing->at_port = steady__roll_others_at(&cluster->roll, &drawing->speaker->at);
        return drawing->at_port != NULL ? drawing->at_port[port] : STEADY__SLOT_UNKNOWN;
    }
    const uint16_t known = find_number(drawing->speaker, &host, port);
    if (known != STEADY__SLOT_UNKNOWN || *host == '\0') return known;
    const struct node *node = add_node(cluster, host, port);
    if (node == NULL) cluster->crowded = true;
    return node != NULL ? node->at.number : STEADY__SLOT_UNKNOWN;
}

/* Those that only a map has named, and it does not any more, or has been refused. */
static void forget_unnamed(struct steady__cluster *cluster) {
    for (uint16_t i = 1; i < cluster->roll.count; i++) {
        struct node *node = node_at(cluster, i);
        if (node != NULL && node->link == NULL && node->at.slots == 0 && node->noted_at == 0) forget_node(node);
    }
}

static void befriend_named(struct steady__cluster *cluster, const struct steady__slot_map *map) {
    for (unsigned i = cluster->n_strangers; i-- > 0;) {
        struct node *node = cluster->strangers[i];
        unsigned slot = 0;
        while (slot < STEADY__SLOTS && map->node[slot] != node->at.number)
            slot++;
        if (slot < STEADY__SLOTS) befriend(node);
    }
}

/* Where there are more nodes than numbers, those that have one for a slot of old do not keep it for that: neither where
 * the map names some of them, nor where it names none. */
static void take_map(struct node *speaker, const struct steady__reply *reply) {
    struct steady__cluster *cluster = speaker->cluster;
    struct steady__slot_map *old = cluster->map;
    struct drawing drawing = {speaker, NULL};
    cluster->crowded = false;
    const bool drawn = steady__slot_map_draw(cluster->draft, reply, number_of, &drawing);
    free(drawing.at_port);
    if (drawn) {
        befriend_named(cluster, cluster->draft);
        if (!cluster->crowded) steady__slot_map_complete(cluster->draft, old);
        cluster->map = cluster->draft;
        cluster->draft = old;
        cluster->drawn = speaker->asked;
        cluster->wished = false;
    } else if (cluster->crowded) {
        memset(old->node, 0xff, sizeof old->node);
    }
    cluster->unknown = steady__roll_count(&cluster->roll, cluster->map);
    forget_unnamed(cluster);
}

/* ---- Strangers ---- */

static void take_slots_from(struct node *node) {
    struct steady__slot_map *map = node->cluster->map;
    for (unsigned slot = 0; node->at.slots > 0 && slot < STEADY__SLOTS; slot++) {
        if (map->node[slot] != node->at.number) continue;
        map->node[slot] = STEADY__SLOT_UNKNOWN;
        node->at.slots--;
        node->cluster->unknown++;
    }
}

static bool may_go(const struct node *node) {
    return now(node->cluster) - node->noted_at >= HOLD && is_idle(node) && !node->inquiring;
}

/* False: there is none for one more. */
static bool make_place(struct node *speaker) {
    struct steady__cluster *cluster = speaker->cluster;
    struct node *least = NULL;
    if (cluster->n_strangers < STRANGERS_MAX) return true;
    for (unsigned i = 0; i < STRANGERS_MAX; i++) {
        struct node *node = cluster->strangers[i];
        if (node != speaker && may_go(node) && (least == NULL || node->wanted_at < least->wanted_at)) least = node;
    }
    if (least == NULL) return false;
    take_slots_from(least);
    close_link(least);
    forget_node(least);
    return true;
}

/* NULL where it cannot be told, or there are too many. */
static struct node *stranger(struct node *speaker, const char *host, uint16_t port) {
    struct steady__cluster *cluster = speaker->cluster;
    struct node *node = make_place(speaker) ? add_node(cluster, host, port) : NULL;
    if (node == NULL) return NULL;
    node->noted_at = now(cluster);
    cluster->strangers[cluster->n_strangers++] = node;
    return node;
}

/* The node that a redirect names. NULL: not to be told, or not to be followed. */
static struct node *node_of(struct node *speaker, const struct steady__redirect *redirect, bool may_be_new) {
    struct steady__cluster *cluster = speaker->cluster;
    const char *host = redirect->host;
    uint16_t number;
    if (strcmp(host, "?") == 0)
        number = steady__roll_other_at(&cluster->roll, &speaker->at, redirect->port);
    else
        number = find_number(speaker, &host, redirect->port);
    if (number != STEADY__SLOT_UNKNOWN) return node_at(cluster, number);
    const bool told = *host != '\0' && strcmp(host, "?") != 0;
    return told && may_be_new ? stranger(speaker, host, redirect->port) : NULL;
}

/* ---- Drawing it anew ---- */

/* So long no other inquiry is made beside the last: some servers take more than a timeout over a large map, and what is
 * asked of them meanwhile waits behind it. */
static steady_us patience(const struct steady__cluster *cluster) {
    const steady_us least = longer(cluster->with.timeout, ANSWER_LEAST), most = ANSWER_TIMEOUTS * least;
    return 2 * cluster->took < most ? longer(2 * cluster->took, least) : most;
}

static bool is_late(const struct node *node) { return now(node->cluster) - node->asked_at >= patience(node->cluster); }

/* Comes back when the answer is late, or an inquiry is allowed, and before that to sweep. */
static void come_back(struct steady__cluster *cluster) {
    const struct node *inquired = cluster->inquired;
    const steady_us due = inquired != NULL ? inquired->asked_at + patience(cluster) : cluster->allowed_at;
    const steady_us wait = cluster->unswept ? 0 : due - now(cluster);
    steady__alarm_set(&cluster->alarm, wait < SWEEP_AGAIN ? wait : SWEEP_AGAIN);
}

/* Sooner or later the map is drawn anew, if there is one. */
static void wish(struct steady__cluster *cluster) {
    if (cluster->map == NULL || cluster->wished || cluster->inquired != NULL) return;
    if (now(cluster) - cluster->allowed_at > CALM) cluster->pause = PAUSE_FIRST;
    cluster->wished = true;
    come_back(cluster);
}

static bool recognise(struct steady__cluster *cluster) {
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
    wish(cluster);
    return true;
}

/* No inquiry for a while, which is longer each time, up to `most`. */
static void rest(struct steady__cluster *cluster, steady_us most) {
    const struct steady__net *net = cluster->with.net;
    const steady_us half = cluster->pause / 2;
    cluster->allowed_at = now(cluster) + half + (steady_us)(net->random(net) % (uint64_t)(half + 1));
    cluster->pause = cluster->pause < most / 2 ? 2 * cluster->pause : most;
}

static bool heard_down(const struct steady__cluster *cluster) {
    return cluster->down_at != 0 && now(cluster) - cluster->down_at < CALM;
}

/* Rights need not be the same on all nodes. */
static bool refuses(const struct node *node) { return now(node->cluster) < node->refuses_until; }

/* By one that is up, for want of a right: no connection is made just to ask another. */
static bool is_forbidden(const struct steady__cluster *cluster) {
    for (uint16_t i = 0; i < cluster->roll.count; i++) {
        const struct node *node = node_at(cluster, i);
        if (node != NULL && is_up(node) && refuses(node) && node->forbids) return true;
    }
    return false;
}

/* Those that are up come first, and the seed if it has no link and may know more than they; then any that will have us
 * wait for a connection. */
static bool is_next(const struct node *node, bool up) {
    const struct steady__cluster *cluster = node->cluster;
    const bool called_back =
        node->at.number == 0 && node->link == NULL && (cluster->unknown > 0 || heard_down(cluster));
    return !node->inquiring && !refuses(node) && (is_up(node) || called_back) == up;
}

/* Another answer is not worth what it costs. One that waits for its connection costs nothing. */
static bool are_many_asked(const struct steady__cluster *cluster) {
    unsigned asked = 0;
    for (uint16_t i = 0; i < cluster->roll.count; i++)
        if (node_at(cluster, i) != NULL && node_at(cluster, i)->inquiring && is_up(node_at(cluster, i))) asked++;
    return asked >= INQUIRIES_MAX;
}

static bool put_inquiry(struct node *node) {
    node->asked = ++node->cluster->inquiries;
    node->asked_at = now(node->cluster);
    node->inquiring = true; /* encoding, which may happen at once, makes it false where there are too many */
    if (send_to(node, &node->inquiry) != 0) node->inquiring = false;
    return node->inquiring;
}

static struct node *inquire_at_one(struct steady__cluster *cluster) {
    for (int up = 1, least = is_forbidden(cluster) ? 1 : 0; up >= least; up--)
        for (uint16_t i = 0; i < cluster->roll.count; i++) {
            cluster->turn = (uint16_t)((cluster->turn + 1) % cluster->roll.count);
            struct node *node = node_at(cluster, cluster->turn);
            if (node == NULL || !is_next(node, up == 1)) continue;
            if (put_inquiry(node)) return node;
        }
    return NULL;
}

static void inquire(struct steady__cluster *cluster) {
    const uint64_t chance = cluster->with.net->random(cluster->with.net);
    cluster->wished = false;
    cluster->stale_at = now(cluster) + STALE / 2 + (steady_us)(chance % (uint64_t)(STALE / 2));
    const bool many = are_many_asked(cluster);
    cluster->inquired = many ? NULL : inquire_at_one(cluster);
    if (cluster->inquired != NULL)
        come_back(cluster);
    else if (many)
        rest(cluster, longer(cluster->pause, PAUSE_LAST));
    else if (is_forbidden(cluster))
        cluster->allowed_at = now(cluster) + PAUSE_BLIND;
    else
        rest(cluster, PAUSE_LAST);
}

/* However late a map is, it is of use as long as there is none of who was asked later. */
static enum steady__heed told(struct node *node, const struct steady__reply *reply) {
    struct steady__cluster *cluster = node->cluster;
    const bool map = reply->kind == STEADY__REPLY_NESTED, error = reply->kind == STEADY__REPLY_ERROR;
    const enum steady__refusal refusal =
        error ? steady__script_refusal(reply->text, reply->text_len) : STEADY__REFUSAL_OTHER;
    node->inquiring = false;
    cluster->took = now(cluster) - node->asked_at;
    if (cluster->inquired == node) {
        cluster->inquired = NULL;
        rest(cluster, PAUSE_LAST);
    }
    if (map && node->asked > cluster->drawn) take_map(node, reply);
    if (!map && !steady__refusal_passes(refusal)) node->refuses_until = now(cluster) + PAUSE_BLIND;
    node->forbids = cluster->forbidden = refusal == STEADY__REFUSAL_AUTH;
    node->strange = !map && !node->forbids && !steady__refusal_passes(refusal);
    if (node->strange) wish(cluster);
    steady__alarm_set(&cluster->alarm, 0); /* to sweep */
    return map || error ? STEADY__HEED_NOTHING : STEADY__HEED_UNTRUSTED;
}

/* reached: one that has slots is up. */
static bool may_lose_link(const struct node *node, bool reached) {
    if (node->link == NULL) return true;
    if (!is_idle(node)) return false;
    if (node->at.number == 0 && (!reached || heard_down(node->cluster))) return false;
    return is_up(node) || now(node->cluster) - node->wanted_at >= UNWANTED;
}

/* True where its link was never up and may have to go. */
static bool sweep_useful(struct node *node, unsigned *closed) {
    if (node->at.number == 0 || node->link == NULL || steady__link_was_up(node->link)) return false;
    if (!may_lose_link(node, false)) return true;
    close_link(node);
    ++*closed;
    return false;
}

/* True where one is of no use, and cannot go yet. */
static bool sweep_useless(struct node *node, bool reached, unsigned *closed) {
    if (!may_lose_link(node, reached)) {
        if (node->at.number != 0) steady__link_pause(node->link);
        return true;
    }
    if (node->link != NULL) ++*closed;
    close_link(node);
    if (node->at.number == 0) return false;
    if (node->noted_at != 0 && now(node->cluster) - node->noted_at < HOLD) return true;
    forget_node(node);
    return false;
}

static bool sweep_node(struct node *node, bool reached, unsigned *closed) {
    const bool useful = node->at.slots > 0 || (node->at.number == 0 && node->cluster->unknown > 0);
    return useful ? sweep_useful(node, closed) : sweep_useless(node, reached, closed);
}

/* Where no node is known to have slots, any may be of use. */
static void sweep(struct steady__cluster *cluster) {
    bool again = false, any = false, reached = false;
    unsigned closed = 0;
    uint16_t i;
    for (i = 0; i < cluster->roll.count; i++)
        if (node_at(cluster, i) != NULL && node_at(cluster, i)->at.slots > 0) {
            any = true;
            if (is_up(node_at(cluster, i))) reached = true;
        }
    for (i = 0; any && i < cluster->roll.count && closed < SWEPT_MOST; i++)
        if (node_at(cluster, i) != NULL && sweep_node(node_at(cluster, i), reached, &closed)) again = true;
    cluster->unswept = any && i < cluster->roll.count;
    if (again || cluster->unswept) steady__alarm_set(&cluster->alarm, cluster->unswept ? 0 : SWEEP_AGAIN);
}

/* After a pause, as all may be as slow; one that has grown for want of answers is not shorter for want of another. */
static void ask_another(struct steady__cluster *cluster) {
    cluster->inquired = NULL;
    cluster->wished = true;
    rest(cluster, longer(cluster->pause, PAUSE_LAST));
}

static void alarmed(void *arg) {
    struct steady__cluster *cluster = arg;
    if (steady__forked(cluster->with.birthmark) || !steady__alarm_rang(&cluster->alarm)) return;
    if (cluster->inquired != NULL && is_late(cluster->inquired)) ask_another(cluster);
    sweep(cluster);
    if (cluster->wished && cluster->allowed_at <= now(cluster))
        inquire(cluster);
    else if (cluster->wished || cluster->inquired != NULL)
        come_back(cluster);
}

/* ---- What links ask ---- */

/* Each may bring a map of megabytes. */
static bool are_many_inquiries_out(const struct steady__cluster *cluster) {
    unsigned out = 0;
    for (uint16_t i = 0; i < cluster->roll.count; i++)
        if (node_at(cluster, i) != NULL && node_at(cluster, i)->inquiry.on_wire) out++;
    return out >= INQUIRIES_MAX;
}

/* Of those that waited for their connections, some are not needed any more. */
static size_t give_up_inquiry(struct node *node) {
    struct steady__cluster *cluster = node->cluster;
    node->inquiring = false;
    if (cluster->inquired != node) return 0;
    cluster->inquired = NULL;
    cluster->wished = true;
    rest(cluster, PAUSE_LAST);
    come_back(cluster);
    return 0;
}

static size_t encode_inquiry(struct node *node, char *out) {
    static const char inquiry[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
    if (are_many_inquiries_out(node->cluster)) return give_up_inquiry(node);
    node->asked_at = now(node->cluster);
    memcpy(out, inquiry, sizeof inquiry - 1);
    return sizeof inquiry - 1;
}

static size_t encode(void *owner, struct steady__request *request, struct steady__dialect *dialect, char *out) {
    struct node *node = owner;
    const struct steady__link_options *with = &node->cluster->with;
    if (request == &node->inquiry) return encode_inquiry(node, out);
    const size_t len = with->owner_class->encode(with->owner, request, dialect, out);
    if (len == 0) request->at = NULL; /* it is nobody's, until it is forgotten; the node may go before that */
    return len;
}

/* The node that a redirect is to; NULL where it makes no sense, is no redirect, or is one too many. */
static struct node *redirected(struct node *speaker, struct steady__request *request,
                               const struct steady__reply *reply) {
    struct steady__cluster *cluster = speaker->cluster;
    struct steady__redirect redirect;
    if (!steady__redirect_read(&redirect, reply->text, reply->text_len)) return NULL;
    if (redirect.slot != steady__slot_of(request->key, request->key_len)) return NULL;
    struct node *node = node_of(speaker, &redirect, request->redirects < REDIRECTS_MAX);
    if (node == NULL) return NULL;
    const struct steady__secrets key = {NULL, request->key, request->key_len, request->prefix_len};
    if (steady__host_holds(redirect.host, &key)) node->unshown = true;
    if (!redirect.ask && cluster->map->node[redirect.slot] != node->at.number) {
        assign(cluster, redirect.slot, node);
        wish(cluster);
    }
    request->asking = redirect.ask;
    return request->redirects++ < REDIRECTS_MAX ? node : NULL;
}

static bool says(const struct steady__reply *reply, const char *word) {
    const size_t len = strlen(word);
    return reply->text_len >= len && memcmp(reply->text, word, len) == 0 &&
           (reply->text_len == len || reply->text[len] == ' ');
}

/* True: the error was no answer, and the request has gone on to another node, or ended. */
static bool follow(struct node *node, struct steady__request *request, struct steady__dialect *dialect,
                   const struct steady__reply *reply) {
    struct steady__cluster *cluster = node->cluster;
    if (!says(reply, "MOVED") && !says(reply, "ASK") && !says(reply, "CLUSTERDOWN")) return false;
    if (!recognise(cluster)) return false;
    if (says(reply, "CLUSTERDOWN")) cluster->down_at = now(cluster);
    struct node *target = redirected(node, request, reply);
    if (target == NULL) {
        wish(cluster);
        return false;
    }
    steady__dialect_nothing_learnt(dialect);
    const int error = send_to(target, request);
    if (error != 0) cluster->with.owner_class->unanswered(cluster->with.owner, request, false, error);
    return true;
}

/* What is handed on may end anything, so nothing is touched after it. */
static enum steady__heed answered(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                  const struct steady__reply *reply) {
    struct node *node = owner;
    const struct steady__link_options *with = &node->cluster->with;
    node->silent = false;
    if (request == &node->inquiry) return told(node, reply);
    if (reply->kind == STEADY__REPLY_ERROR && request->key != NULL && follow(node, request, dialect, reply))
        return STEADY__HEED_AGAIN;
    return with->owner_class->answered(with->owner, request, dialect, reply);
}

/* Where an inquiry did not get out and nobody is left, decisions will wish. */
static void unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct node *node = owner;
    struct steady__cluster *cluster = node->cluster;
    const bool inquiry = request == &node->inquiry, awaited = inquiry && cluster->inquired == node;
    if (inquiry) node->inquiring = false;
    if (awaited) cluster->inquired = NULL;
    if (inquiry && written && node->asked > cluster->drawn)
        rest(cluster, PAUSE_BLIND); /* a map that cannot be read costs a connection each time */
    else if (awaited)
        rest(cluster, PAUSE_LAST);
    if (!inquiry || written || is_up(anyone(cluster))) wish(cluster);
    if (inquiry) return;
    cluster->with.owner_class->unanswered(cluster->with.owner, request, written, error);
}

static const struct steady__link_owner node_owner = {encode, answered, unanswered};

/* ---- The flight's calls ---- */

static struct node *node_for(struct steady__cluster *cluster, const struct steady__request *request) {
    if (cluster->map == NULL) return node_at(cluster, 0);
    const uint16_t number = cluster->map->node[steady__slot_of(request->key, request->key_len)];
    return number != STEADY__SLOT_UNKNOWN ? node_at(cluster, number) : anyone(cluster);
}

/* The map will not be drawn anew before long, or only once many have refused. */
static bool is_blind(const struct steady__cluster *cluster) {
    return cluster->forbidden || cluster->allowed_at - now(cluster) > PAUSE_LAST;
}

/* Then someone else has to say who took over from a node that is down, or silent. */
static int submit(void *carrier, struct steady__request *request) {
    struct steady__cluster *cluster = carrier;
    if (request->key == NULL) return send_to(request->at != NULL ? request->at : node_at(cluster, 0), request);
    struct node *node = node_for(cluster, request);
    request->asking = false;
    struct node *other = node->silent && is_blind(cluster) ? anyone(cluster) : node;
    if (is_up(other)) node = other;
    const int error = send_to(node, request);
    if (error != 0 || node->wanted_at >= cluster->stale_at) wish(cluster);
    other = error != 0 && is_blind(cluster) ? anyone(cluster) : node;
    return other != node ? send_to(other, request) : error;
}

/* One that waited behind a map, which may take its time, is no sign of anything. */
static int forget(void *carrier, struct steady__request *request, bool held) {
    struct node *node = request->at;
    if (node == NULL || !node->inquiring || is_late(node)) wish(carrier);
    int error = request->passed ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
    if (node != NULL) error = steady__link_forget(node->link, request, held);
    if (error == STEADY_UNKNOWN) node->silent = true;
    return error;
}

static void release(struct steady__cluster *cluster) {
    for (uint16_t i = 0; i < cluster->roll.count; i++)
        free_node(node_at(cluster, i));
    free(cluster->roll.by_number);
    free(cluster->map);
    free(cluster->draft);
    free(cluster);
}

static void catch_up(void *carrier) {
    struct steady__cluster *cluster = carrier;
    size_t left = STEADY__CATCH_UP;
    cluster->depth++;
    for (uint16_t i = 0; i < cluster->roll.count && !cluster->closed; i++)
        if (node_at(cluster, i) != NULL && node_at(cluster, i)->link != NULL)
            steady__link_catch_up(node_at(cluster, i)->link, &left);
    if (--cluster->depth == 0 && cluster->closed) release(cluster);
}

/* A child leaves to the parent's loop what that may point at, as links do. */
static void close_cluster(void *carrier) {
    struct steady__cluster *cluster = carrier;
    for (uint16_t i = 0; i < cluster->roll.count; i++)
        if (node_at(cluster, i) != NULL) close_link(node_at(cluster, i));
    if (steady__forked(cluster->with.birthmark)) return;
    steady__alarm_free(&cluster->alarm);
    cluster->closed = true;
    if (cluster->depth == 0) release(cluster);
}

static const char *doing(void *carrier, const struct steady__request *request) {
    const struct node *node = request->at;
    (void)carrier;
    return node != NULL ? steady__link_doing(node->link) : NULL;
}

/* Of all nodes. */
static uint64_t reconnects(const void *carrier) {
    const struct steady__cluster *cluster = carrier;
    uint64_t sum = cluster->reconnects;
    for (uint16_t i = 0; i < cluster->roll.count; i++)
        if (node_at(cluster, i) != NULL && node_at(cluster, i)->link != NULL)
            sum += steady__link_reconnects(node_at(cluster, i)->link);
    return sum;
}

const struct steady__carrier steady__cluster_class = {submit, forget, catch_up, close_cluster, doing, reconnects};

/* ---- Opening ---- */

struct steady__cluster *steady__cluster_open(const struct steady__link_options *options) {
    struct steady__cluster *cluster = calloc(1, sizeof *cluster);
    if (cluster == NULL) return NULL;
    cluster->with = *options;
    cluster->pause = PAUSE_FIRST;
    cluster->links_max = steady__net_descriptors() / 4;
    if (cluster->links_max < LINKS_LEAST) cluster->links_max = LINKS_LEAST;
    if (cluster->links_max > LINKS_MAX) cluster->links_max = LINKS_MAX;
    const uint64_t words[2] = {options->net->random(options->net), options->net->random(options->net)};
    steady__roll_key(&cluster->roll, words);
    const char *host = options->url->host;
    const uint16_t port = options->url->port;
    if (steady__alarm_new(&cluster->alarm, &cluster->with.loop, alarmed, cluster) == 0 &&
        add_node(cluster, host, port) != NULL && open_link(node_at(cluster, 0)) == 0)
        return cluster;
    steady__alarm_free(&cluster->alarm);
    release(cluster);
    return NULL;
}
