/* SPDX-License-Identifier: MIT
 * A cluster, in some seeds: which node owns which slot, and the redirects of the others. */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "journal.h"
#include "node.h"

struct sim_cluster {
    bool on;
    uint8_t owner[16384];
    uint8_t going_to[16384]; /* the node to which the slot is migrating; NODES: it is not migrating */
};
extern struct sim_cluster sim_cluster;

void sim_cluster_begin(bool on);
/* The bucket has this slot, which may move. Set first in the order of the places. */
void sim_cluster_set_slot(const struct place *place, const char *key);
void sim_cluster_check_slot(const struct place *place, const char *key); /* the key must be in it */
bool sim_cluster_stays(const struct place *place);                       /* its slot has never moved */
bool sim_cluster_together(const struct place *a, const struct place *b); /* one call can reach both */

/* The error that redirects the request to another node; NULL: this node executes it. */
const char *sim_cluster_redirect(struct node *node, const struct request *r, bool asking);

/* Writes the reply to CLUSTER SLOTS, at most 4096 bytes. */
void sim_cluster_slots(char *reply);

/* Faults of slots: one moves to another node, key by key or at once; a node loses all its slots to another. */
void sim_cluster_move_slot(steady_us until);
void sim_cluster_take_over(void);

#endif
