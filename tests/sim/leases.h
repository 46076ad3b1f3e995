/* SPDX-License-Identifier: MIT
 * The leases of simulated stores: what they take, spend and give back, and how much all clients are allowed. */
#ifndef SIM_LEASES_H
#define SIM_LEASES_H

#include "journal.h"
#include "node.h"
#include "redis/leases.h"

struct made;
struct process;

/* The request of a call for drops ahead, and what became of them. */
struct sim_lease {
    struct sim_lease *next; /* older */
    struct decision *taker;
    const struct place *place;
    int64_t amount, n; /* the drops of its call, and those that it asks for */
    struct request take, settle;
    steady_us left_at; /* when the take was sent */
    /* What the servers did. */
    const struct made *made;
    const struct node *node;
    steady_us made_at;
    int64_t order; /* among all changes of buckets */
    /* What the client did. */
    bool granted; /* the answer of the store ended the call */
    steady_us granted_at;
    bool settles;
    int64_t actual;  /* of the settle */
    int64_t matched; /* drops of calls that it may have answered */
};

void leases_begin(void);
void leases_end(void); /* the bound */

bool leases_on(void);                                            /* in this seed */
steady_us leases_any_age(void);                                  /* the lease_age of a store; 0: it has no leases */
struct steady__leases *leases_open(const struct client *client); /* of a new store; NULL: none, or out of memory */

/* Whether a call may be answered from a lease. */
bool leases_may_answer(const struct decision *decision);

/* The request of a command for a lease; NULL: the command is another one. */
struct request *leases_request_of(const struct group_words *group);
void leases_check_arguments(const struct request *request, const struct group_words *group);
void leases_leaves(struct conn *conn, struct request *request, const struct words *words);
void leases_executed(struct request *request, const struct node *node, const struct made *made);
bool leases_outlives(const struct request *request); /* it may be sent after its call has ended */

/* The request that decides on the drops of a decision: its own, or that of a lease. */
const struct request *leases_deciding(const struct decision *decision);

/* A server put drops into a bucket. fits: the bucket has no more than its capacity now. */
void leases_put(const struct node *node, const struct place *place, int64_t drops, bool fits);
/* Drops left a bucket otherwise than by leaking; the content is in 1/drops us. */
void leases_taken_out(const struct node *node, const struct place *place, int64_t content);
/* Nothing is known of what was in a bucket; NULL: in all of them. */
void leases_lost(const struct place *place);

/* The decision that takes has ended, with a verdict of the store; the decision was answered from a lease. */
void leases_granted(struct decision *decision, const steady_result *result);
void leases_check(const struct decision *decision, const steady_result *result);

struct leases_totals {
    int64_t seeds, takes, spent, denied, settles, settles_lost, windows, windows_that_need_the_age;
};
extern struct leases_totals leases_totals;

#endif
