/* SPDX-License-Identifier: MIT
 * A cluster, in the seeds that have one: which node has which slot, and what a node says about a key that it has not.
 */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "journal.h"
#include "node.h"

struct sim_cluster {
    bool on;
    uint8_t owner[16384];
    uint8_t going_to[16384]; /* a slot on its way, to that node; NODES: it is not */
};
extern struct sim_cluster sim_cluster;

void sim_cluster_begin(bool on);
void sim_cluster_add(const struct place *place, const char *key); /* a place that may be moved about */

/* Where a decision has to be asked instead, as the error says it; NULL: here. */
const char *sim_cluster_redirect(struct node *node, const struct decision *d, bool asking);

/* CLUSTER SLOTS, into room for a reply of 4096 bytes. */
void sim_cluster_slots(char *reply);

/* What happens to slots: one goes to another node, key by key or at once; a node loses all that it has to another. */
void sim_cluster_move_slot(steady_us until);
void sim_cluster_take_over(void);

#endif
