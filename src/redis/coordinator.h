/* SPDX-License-Identifier: MIT
 * The coordinator of a call whose keys lie in several slots of a cluster: it asks each slot, and makes one result. */
#ifndef STEADY__COORDINATOR_H
#define STEADY__COORDINATOR_H

#include "conn/pipeline.h"
#include "store.h"

struct steady__coordinator;

/* A branch of a call: one request, on keys of one slot. coordinator.c makes it, inflight.c sends it. */
struct steady__branch {
    struct steady__call call;        /* its group is the branch's own, with copies of keys and limits */
    struct steady__request *request; /* NULL: not in flight */
    uint64_t session; /* of a settle: the session that took the drops, and must be the one that gives them back; 0: any.
                         Of another branch: the session that answered */
    struct steady__coordinator *coordinator; /* NULL: its call has ended, or it is of a lease: see inflight.c */
    struct steady__request *taker;           /* the call for which it takes a lease; NULL: none */
    struct steady__list place;               /* among the branches of its coordinator */
    bool is_lease;                           /* it takes a lease, or settles one: see inflight.c */
    unsigned char round;
    unsigned char at[STEADY__PARTS_MAX]; /* its members, as indexes into the group of the call */
    struct steady__rate rates[];         /* theirs */
};

/* What a coordinator asks of inflight.c. */
struct steady__coordinator_owner {
    /* Sends a branch, with the deadline of the call of `parent`; NULL: with a deadline of its own. It comes back
     * through steady__coordinator_branch_ended, from the loop. False: out of memory, or the store is closed. */
    bool (*send)(void *owner, struct steady__request *parent, struct steady__branch *branch);
    /* Takes a branch back, and returns its error. held: the loop was held meanwhile. */
    int (*take_back)(void *owner, struct steady__branch *branch, bool held);
    /* A branch was not sent. Notes that memory is out. */
    void (*no_memory)(void *owner);
    /* Ends the call of `parent`, with its callback. Frees the coordinator before that. */
    void (*end)(void *owner, struct steady__request *parent, steady_result *result);
};

/* parent: the request of the call, which names it. one_by_one: each key is asked alone. NULL: out of memory. */
struct steady__coordinator *steady__coordinator_new(const struct steady__coordinator_owner *owner_class, void *owner,
                                                    struct steady__request *parent, const struct steady__call *call,
                                                    bool one_by_one);

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

/* The same for a branch that is not in flight any more because the store is closed: its call has another end. */
void steady__coordinator_drop_branch(struct steady__branch *branch);

#endif
