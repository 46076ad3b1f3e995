/* SPDX-License-Identifier: MIT
 * The coordinator of a call whose keys lie in several slots of a cluster: it asks each slot, and makes one result. */
#ifndef STEADY__COORDINATOR_H
#define STEADY__COORDINATOR_H

#include "conn/pipeline.h"
#include "store.h"

struct steady__inflight;
struct steady__coordinator;

/* A branch of a call: one request, on keys of one slot. coordinator.c makes it, inflight.c sends it. */
struct steady__branch {
    struct steady__call call;        /* its group is the branch's own, with copies of keys and limits */
    struct steady__request *request; /* NULL: not in flight */
    uint64_t session; /* of a settle: the session that took the drops, and must be the one that gives them back; 0: any.
                         Of another branch: the session that answered */
    struct steady__coordinator *coordinator; /* NULL: its call has ended */
    struct steady__list place;               /* among the branches of its coordinator */
    unsigned char round;
    unsigned char at[STEADY__PARTS_MAX]; /* its members, as indexes into the group of the call */
    struct steady__rate rates[];         /* theirs */
};

/* parent: the request of the call, with which inflight.c names it. one_by_one: each key is asked alone. NULL: out of
 * memory. */
struct steady__coordinator *steady__coordinator_new(struct steady__inflight *inflight, struct steady__request *parent,
                                                    const struct steady__call *call, bool one_by_one);

/* Sends the first branches. False: out of memory, and nothing was sent. The end of the call comes from the loop. */
bool steady__coordinator_start(struct steady__coordinator *coordinator);

/* Ends the call at its deadline, or because it is cancelled: takes back what is in flight, sends off what gives drops
 * back, and fills *result. held: the loop was held meanwhile. */
void steady__coordinator_stop(struct steady__coordinator *coordinator, bool held, steady_result *result);

/* Takes back what is in flight, unless it gives drops back, and frees the coordinator. */
void steady__coordinator_free(struct steady__coordinator *coordinator);

/* The branch is not in flight any more. The error of its result may be STEADY__TRY_AGAIN: nothing was charged, because
 * its keys are on two nodes for now. Frees the branch. The call may end inside, with all that its callback does. */
#define STEADY__TRY_AGAIN 2
void steady__coordinator_branch_ended(struct steady__branch *branch, const steady_result *result);

#endif
