/* SPDX-License-Identifier: MIT
 * The memories of denials of simulated processes, and what they may deny. */
#ifndef SIM_DENIALS_H
#define SIM_DENIALS_H

#include "journal.h"
#include "node.h"
#include "redis/deny_memory.h"

/* Some clients share a process: then they are its threads. */
struct process {
    struct steady__denials_world world; /* first */
    struct steady__denials *denials;
    steady_us booted_before;    /* the begin of the seed */
    int64_t drift;              /* of its clock, in millionths */
    bool has_db;                /* its stores name a database */
    struct giving *givings;     /* of its calls, newest first */
    steady_us lost_at[BUCKETS]; /* the last time at which a bucket may have lost drops, and the process was not told */
};

void denials_begin(void);
void denials_end(void);
struct process *denials_process(void); /* that of the last client, or a new one */
steady_us denials_any_time(void);      /* the deny_memory of a store; 0: it has no memory */

/* A decision is about to be submitted; a server was asked to change its bucket; it has ended. */
void denials_asks(struct decision *decision);
void denials_made(struct request *request, const struct place *place, bool gives_back);
void denials_told(const struct decision *decision);

/* A bucket may have lost drops, or its clock has stepped. NULL: all buckets. */
void denials_lost(const struct place *place);

/* The decision was denied from memory. */
void denials_check(const struct decision *decision, const steady_result *result);
/* What the memory of the client would deny now. */
void denials_look_around(const struct client *client);

struct denials_totals {
    int64_t seeds, from_memory, on_several, looks; /* seeds with a memory; denials from it, and of calls on several
                                                      keys; buckets in it that were full */
};
extern struct denials_totals denials_totals;

#endif
