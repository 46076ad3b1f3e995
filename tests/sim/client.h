/* SPDX-License-Identifier: MIT
 * Simulated programs: a loop, a store, throttlers, and callbacks that do what a program should not. */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "core/url.h"
#include "denials.h"
#include "journal.h"
#include "sim_net.h"

#define CLIENTS_MAX 3
#define TAPS 7
#define TAPS_PLAIN 4 /* the first ones; the others are for calls on several keys only */

/* A throttler and its limits: those of `place`, and of the places behind it. */
struct tap {
    steady_throttler *throttler;
    const struct place *place;
    enum steady_policy policy;
    uint32_t shares; /* of the local policy */
    bool clamp;
    steady_us max_ahead;
    unsigned life; /* the number of the store that it was made for */
};

struct client {
    int index;
    struct process *process;
    struct steady__deny_memory memory; /* that of its stores */
    struct sim_loop loop;
    struct sim_net net;
    struct steady__url url;
    struct steady_store_options options;
    steady_store *store; /* NULL: closed */
    unsigned life;
    struct tap taps[TAPS];
    void *timer;
    bool submitting, closing;
    bool crowds;                      /* it asks much for little at once */
    int hot;                          /* the tap that it asks only; TAPS: any */
    bool peeks_at_replica;            /* as its URL says */
    uint64_t rounds_stepped;          /* buckets that were ahead, of commands that may not have been answered */
    bool was_refused, was_hung_up_on; /* and is back later: see well_at in client.c */
    int budget;                       /* decisions that the client may still make */
    int64_t local_level;              /* the level of the embedded bucket of the store */
    steady_stats expected;
    bool lost_logged, refusals_logged;
    struct member *owing; /* parts that have to be given back, newest first */
    unsigned asked_settings;
    bool warned_of_eviction;
    unsigned noscripts, loads;
    /* Attempts to connect that failed in a row, and the last connection. */
    unsigned failures;
    steady_us dialed_at;
    struct conn *conn; /* the last connection */
};

void clients_begin(void);
void clients_end(void);
steady_us clients_watched_until(void); /* known after the end of the faults */

/* True if the client has several connections, so that the state of one says nothing about the others. */
bool client_has_links(const struct client *client);
/* True if the client drops a silent connection so soon that it is back within a second. */
bool client_finds_out(const struct client *client);
/* The longest wait for an address to accept. */
steady_us client_patience(const struct client *client);
void client_dials(struct client *client);
/* True if the faults ended so long ago that decisions must be made. */
bool client_is_well(const struct client *client, steady_us when);
steady_us client_slack(const struct client *client, const struct decision *decision);

/* A decision is about to be submitted, and was. */
void client_asks(struct client *client, struct decision *decision);
void client_asked(struct client *client, struct decision *decision, int error);
void client_called(const steady_result *result, void *decision); /* the callback */
struct tap *client_tap(struct client *client, int i);            /* with its throttler; NULL: no memory */

extern struct client clients[CLIENTS_MAX];
extern int client_count;

#endif
