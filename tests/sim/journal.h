/* SPDX-License-Identifier: MIT
 * The decisions of a seed: requests, their execution by the servers, and results. A number in its key tells each
 * decision from all others on the wire. If keys have to be equal, the amount tells it. */
#ifndef SIM_JOURNAL_H
#define SIM_JOURNAL_H

#include "group_words.h"
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
    size_t n_limits; /* of its throttler. The places of the other limits follow that of the first one */
    bool foreign;    /* the key holds a foreign value */
    bool by_amount;  /* its decisions differ in their amounts */
    uint32_t shares; /* the shares of a local policy */
};

struct decision;
struct several;
struct sim_lease;

/* A command of a decision: what the network and the servers know of it. A decision on one key has one. */
struct request {
    struct decision *decision;
    struct sim_lease *lease; /* whose take or settle it is; NULL: it is not of a lease */
    struct request *next;    /* of the same decision */
    enum steady__verb verb;
    size_t n;                /* its keys */
    uint8_t at[MEMBERS_MAX]; /* each as an index into the members of the decision */
    struct conn *left_on;    /* the connection that last sent a byte of it */
    bool refused;            /* the server answered with an error */
    bool may_go_again;       /* the error permits another request */
    unsigned noscripts;
    bool turned; /* the server refused the script */
    bool closes; /* its store closes: no reply will be read, so the script itself is sent */
    unsigned executed;
    size_t answered_at;      /* its reply ends there on left_on; 0: there is none */
    bool redirected, asking; /* by MOVED or ASK; the last error was ASK */
    const struct made *made; /* of one of several commands: what a server did */
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
    bool accepted;  /* submit returned 0 */
    bool told;      /* or cancelled */
    bool cancelled; /* by steady_cancel, and has no callback */
    int error;
    bool success;
    uint64_t call_id;                 /* for steady_cancel; 0: not known */
    struct several *several;          /* NULL: a decision on one key without options */
    struct sim_lease *lease;          /* that it takes; NULL: none */
    struct request request;           /* its command, or the first of them */
    steady_result outcome, before;    /* of the last execution and of the one before */
    unsigned stepped, stepped_before; /* buckets that were ahead of the clock */
    /* If it may be denied from memory: see denials.c. */
    bool watched;
    uint64_t deniable, excused; /* a bit for each of its buckets */
    struct decision *next_watched;
};

void journal_begin(void);
void journal_end(void); /* checks that are possible only at the end */

struct decision *journal_open(struct client *client, const struct place *place, enum steady__verb verb, int64_t amount);
struct decision *journal_find(int64_t id);

/* Counts the results of all seeds so far. */
struct journal_totals {
    int64_t asked, allowed, denied, unknown, cancelled, other; /* `other` ended with an error that says: not charged */
    int64_t several, settled;                      /* calls on several keys, and settles that a server has made */
    int64_t in_rounds, given_back, not_given_back; /* calls between slots; parts that were taken in vain */
};
extern struct journal_totals journal_totals;

/* On the client's side: `taken` of the bytes offered were sent on that connection. */
void journal_left(struct conn *conn, const char *bytes, size_t offered, size_t taken);
/* A callback has run. */
void journal_told(struct decision *decision, const steady_result *result);
/* The decision was cancelled, and counted with this error. */
void journal_cancelled(struct decision *decision, int error);
struct decision *journal_in_flight(const struct client *client); /* any decision that can be cancelled, or NULL */

/* On the server's side. */
struct request *journal_of(const struct words *words); /* NULL: the command belongs to no decision */
const struct place *journal_place(const struct request *request, size_t key);
void journal_seen(struct request *request, enum form form);
void journal_refused(struct request *request, const char *why);
bool journal_heard(const struct request *request);
void journal_executed(struct request *request);                                          /* of any decision */
void journal_outcome(struct decision *decision, const struct steady__decision *outcome); /* of one on one key */

#endif
