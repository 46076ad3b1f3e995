/* SPDX-License-Identifier: MIT
 * Simulated programs: a loop, a store, throttlers, and callbacks that do what they should not. */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "journal.h"
#include "sim_net.h"
#include "core/url.h"

#define CLIENTS_MAX 3
#define TAPS 4

/* A throttler, and what it was made for. */
struct tap {
    steady_throttler *throttler;
    const struct place *place;
    enum steady_policy policy;
    unsigned life; /* of the store it was made for */
};

struct client {
    int index;
    struct sim_loop loop;
    struct sim_net net;
    struct steady__url url;
    struct steady_store_options options;
    steady_store *store; /* NULL: closed */
    unsigned life;
    struct tap taps[TAPS];
    void *timer;
    bool submitting, closing;
    bool peeks_at_replica;            /* so its URL says */
    bool was_refused, was_hung_up_on; /* and comes back later: see well_at in client.c */
    int budget;                       /* decisions it may yet ask for */
    int64_t local_level;              /* of the store's embedded bucket */
    steady_stats expected;
    bool lost_logged, refusals_logged;
    unsigned asked_settings;
    bool warned_of_eviction;
    unsigned noscripts, loads;
    /* Attempts to connect. */
    unsigned failures;
    steady_us dialed_at;
    struct conn *conn; /* the last one */
};

void clients_begin(void);
void clients_end(void);
steady_us clients_watched_until(void); /* known once it is calm */

/* Has it more than one link, so that what is known of one says nothing of all? */
bool client_has_links(const struct client *client);
/* Does it give up a connection that stalls so soon that it is back within a second? */
bool client_finds_out(const struct client *client);
/* How long it waits for an address to accept, at most. */
steady_us client_patience(const struct client *client);
void client_dials(struct client *client);
/* Has nothing been wrong for so long that there has to be an answer? */
bool client_is_well(const struct client *client, steady_us when);
steady_us client_slack(const struct client *client, const struct decision *decision);

extern struct client clients[CLIENTS_MAX];
extern int client_count;

#endif
