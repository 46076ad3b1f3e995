/* SPDX-License-Identifier: MIT
 * A cluster: slots that move, and nodes that redirect. */
#include "sim_cluster.h"

#include <stdio.h>
#include <string.h>

#include "keys.h"

#define SLOTS 16384
#define TRYAGAIN "-TRYAGAIN Multiple keys request during rehashing of slot"

struct sim_cluster sim_cluster;

static const struct place *movable[BUCKETS];
static uint16_t slots[BUCKETS]; /* the slots of the buckets */
static bool has_moved[SLOTS];
static int count;

void sim_cluster_begin(bool on) {
    sim_cluster.on = on;
    count = 0;
    memset(has_moved, 0, sizeof has_moved);
    for (int slot = 0; slot < SLOTS; slot++) {
        sim_cluster.owner[slot] = (uint8_t)(slot / (SLOTS / NODES + 1));
        sim_cluster.going_to[slot] = NODES;
    }
    for (int i = 0; on && i < NODES; i++) {
        nodes[i].primary = true;
        nodes[i].hangs_up = false; /* otherwise it would hang up on each new connection */
    }
}

/* CRC-16/XMODEM, bit by bit, of the hash tag: the bytes between the first '{' and the next '}', or the whole key. */
static uint16_t slot_of(const char *key, size_t len) {
    const char *open = memchr(key, '{', len);
    const char *close = open != NULL ? memchr(open, '}', len - (size_t)(open - key)) : NULL;
    uint16_t crc = 0;
    if (close != NULL && close > open + 1) {
        key = open + 1;
        len = (size_t)(close - key);
    }
    for (size_t i = 0; i < len; i++) {
        crc ^= (uint16_t)((unsigned char)key[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc % SLOTS;
}

void sim_cluster_set_slot(const struct place *place, const char *key) {
    movable[place->index] = place;
    slots[place->index] = slot_of(key, strlen(key));
    if (count <= place->index) count = place->index + 1;
}

void sim_cluster_check_slot(const struct place *place, const char *key) {
    if (sim_cluster.on && slot_of(key, strlen(key)) != slots[place->index]) broken("%s is in another slot", key);
}

bool sim_cluster_stays(const struct place *place) { return !has_moved[slots[place->index]]; }

bool sim_cluster_together(const struct place *a, const struct place *b) {
    return !sim_cluster.on || slots[a->index] == slots[b->index];
}

/* ---- Replies of nodes ---- */

static const char *say_where(const char *word, uint16_t slot, int node) {
    static char text[64];
    snprintf(text, sizeof text, "-%s %u 10.0.0.%d:7000", word, slot, node);
    return text;
}

/* As getNodeByQuery of Redis. */
const char *sim_cluster_redirect(struct node *node, const struct request *r, bool asking) {
    const uint16_t slot = slots[journal_place(r, 0)->index];
    const bool here = sim_cluster.owner[slot] == node->index, leaves = sim_cluster.going_to[slot] != NODES;
    size_t missing = 0;
    if (node_suffers(node, TROUBLE_CLUSTERDOWN)) return "-CLUSTERDOWN The cluster is down";
    for (size_t i = 0; i < r->n; i++) {
        if (slots[journal_place(r, i)->index] != slot) return "-CROSSSLOT Keys in request don't hash to the same slot";
        missing += !keys_has(node, journal_place(r, i));
    }
    if (here && leaves && missing > 0)
        return missing < r->n ? TRYAGAIN : say_where("ASK", slot, sim_cluster.going_to[slot]);
    if (here) return NULL;
    if (asking && sim_cluster.going_to[slot] == node->index) return missing > 0 && r->n > 1 ? TRYAGAIN : NULL;
    return say_where("MOVED", slot, sim_cluster.owner[slot]);
}

void sim_cluster_slots(char *reply) {
    char *end = reply + 8;
    int ranges = 0;
    for (int slot = 0, last; slot < SLOTS; slot = last + 1) {
        for (last = slot; last + 1 < SLOTS && sim_cluster.owner[last + 1] == sim_cluster.owner[slot];)
            last++;
        end += sprintf(end, "*3\r\n:%d\r\n:%d\r\n*4\r\n$8\r\n10.0.0.%d\r\n:7000\r\n$2\r\nid\r\n*0\r\n", slot, last,
                       sim_cluster.owner[slot]);
        ranges++;
    }
    char head[16];
    const int len = snprintf(head, sizeof head, "*%d\r\n", ranges);
    memmove(reply + len, reply + 8, (size_t)(end - reply - 8) + 1);
    memcpy(reply, head, (size_t)len);
}

/* ---- Moving ---- */

static void move_keys(uint16_t slot, int to) {
    for (int i = 0; i < count; i++)
        if (slots[i] == slot) keys_move(&nodes[to], &nodes[sim_cluster.owner[slot]], movable[i]);
}

static void key_leaves(void *arg) {
    const struct place *place = *(const struct place *const *)arg;
    const uint16_t slot = slots[place->index];
    const uint8_t to = sim_cluster.going_to[slot];
    if (to != NODES) keys_move(&nodes[to], &nodes[sim_cluster.owner[slot]], place);
}

static void arrive(void *arg) {
    const uint16_t slot = slots[(size_t)((const struct place *const *)arg - movable)];
    const uint8_t to = sim_cluster.going_to[slot];
    if (to == NODES) return;
    note("slot has moved", slot, to, 0);
    move_keys(slot, to);
    sim_cluster.going_to[slot] = NODES;
    sim_cluster.owner[slot] = to;
}

void sim_cluster_move_slot(steady_us until) {
    const int i = (int)between(0, count - 1);
    const uint16_t slot = slots[i];
    const uint8_t to = (uint8_t)between(0, NODES - 1);
    if (sim_cluster.going_to[slot] != NODES || sim_cluster.owner[slot] == to) return;
    has_moved[slot] = true;
    note("slot moves", slot, sim_cluster.owner[slot], to);
    sim_cluster.going_to[slot] = to;
    for (int k = 0; k < count; k++)
        if (slots[k] == slot) at(between(world.now, until), key_leaves, &movable[k]);
    at(one_in(3) ? world.now : until, arrive, &movable[i]);
}

void sim_cluster_take_over(void) {
    const int from = (int)between(0, NODES - 1), to = (int)between(0, NODES - 1);
    if (from == to) return;
    note("node is taken over", from, to, 0);
    for (int i = 0; i < count; i++)
        if (sim_cluster.owner[slots[i]] == from) keys_move(&nodes[to], &nodes[from], movable[i]);
    for (int slot = 0; slot < SLOTS; slot++) {
        if (sim_cluster.owner[slot] != from) continue;
        has_moved[slot] = true;
        sim_cluster.owner[slot] = (uint8_t)to;
        sim_cluster.going_to[slot] = NODES;
    }
}
