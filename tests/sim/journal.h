/* SPDX-License-Identifier: MIT
 * The decisions of a seed: requests, their execution by the servers, and results. A number in its key tells each
 * decision from all others on the wire. If keys have to be equal, the amount tells it. */
#ifndef SIM_JOURNAL_H
#define SIM_JOURNAL_H

#include "core/bucket.h"
#include "sim_net.h"
#include "store.h"
#include "words.h"

#define DECISIONS_MAX 8192

/* A bucket and its limit, which is the same for all clients. */
struct place {
    int index;
    steady_limit limit;
    struct steady__rate rate; /* the same limit as the library computes it */
    const char *prefix;
    const char *name;
    bool foreign;    /* the key holds a foreign value */
    bool by_amount;  /* its decisions differ in their amounts */
    uint32_t shares; /* the shares of a local policy */
};

struct decision {
    int64_t id;
    struct client *client;
    unsigned life; /* the number of the client's store */
    const struct place *place;
    enum steady_policy policy;
    enum steady__verb verb;
    int64_t amount;
    const char *key; /* with its prefix */
    size_t key_len;
    steady_us submitted, deadline, stalled_before;
    bool accepted; /* submit returned 0 */
    bool told;
    int error;
    /* What the network and the servers know. */
    struct conn *left_on; /* the connection that last sent a byte of it */
    bool refused;         /* the server answered with an error */
    bool may_go_again;    /* the error permits another request */
    unsigned noscripts;
    bool turned; /* the server refused the script */
    unsigned executed;
    steady_result outcome, before; /* of the last execution and of the one before */
    bool stepped, stepped_before;
};

void journal_begin(void);
void journal_end(void); /* checks that are possible only at the end */

struct decision *journal_open(struct client *client, const struct place *place, enum steady__verb verb, int64_t amount);

/* Counts the results of all seeds so far. */
struct journal_totals {
    int64_t asked, allowed, denied, unknown, cancelled, other; /* `other` ended with an error that says: not charged */
};
extern struct journal_totals journal_totals;

/* On the client's side: `taken` of the bytes offered were sent on that connection. */
void journal_left(struct conn *conn, const char *bytes, size_t offered, size_t taken);
/* A callback has run. */
void journal_told(struct decision *decision, const steady_result *result);

/* On the server's side. */
struct decision *journal_of(const struct words *words); /* NULL: the command belongs to no decision */
void journal_seen(struct decision *decision, enum form form);
void journal_refused(struct decision *decision, const char *why);
void journal_executed(struct decision *decision, const struct steady__decision *outcome);

#endif
