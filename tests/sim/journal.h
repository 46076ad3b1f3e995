/* SPDX-License-Identifier: MIT
 * The decisions of a seed: what was asked, what the servers did about it, what was told. Each decision can be told from
 * all others on the wire, by a number in its key or, where keys have to be equal, by its amount. */
#ifndef SIM_JOURNAL_H
#define SIM_JOURNAL_H

#include "core/bucket.h"
#include "sim_net.h"
#include "store.h"
#include "words.h"

#define DECISIONS_MAX 8192

/* A bucket, and the limit that everyone gives it. */
struct place {
    int index;
    steady_limit limit;
    struct steady__rate rate; /* what the library makes of it */
    const char *prefix;
    const char *name;
    bool foreign;    /* the key holds something else */
    bool by_amount;  /* its decisions are told apart by their amounts */
    uint32_t shares; /* of a local policy */
};

struct decision {
    int64_t id;
    struct client *client;
    unsigned life; /* of the client's store */
    const struct place *place;
    enum steady_policy policy;
    enum steady__verb verb;
    int64_t amount;
    const char *key; /* whole */
    size_t key_len;
    steady_us submitted, deadline, stalled_before;
    bool accepted; /* by submit */
    bool told;
    int error;
    /* What is known on the network and at the servers. */
    struct conn *left_on; /* a byte of it went out there last */
    bool refused;         /* and that was answered with an error */
    bool may_go_again;    /* which is one that sends it out again */
    unsigned noscripts;
    bool turned; /* was refused as a script */
    unsigned executed;
    steady_result outcome, before; /* of the execution, and of the one before that */
    bool stepped, stepped_before;
};

void journal_begin(void);
void journal_end(void); /* checks what can only be known at the end */

struct decision *journal_open(struct client *client, const struct place *place, enum steady__verb verb, int64_t amount);

/* What became of the decisions of all seeds so far. */
struct journal_totals {
    int64_t asked, allowed, denied, unknown, cancelled, other; /* the others were not charged, and said so */
};
extern struct journal_totals journal_totals;

/* The client's side: of the bytes offered, `taken` go out on that connection. */
void journal_left(struct conn *conn, const char *bytes, size_t offered, size_t taken);
/* A callback. */
void journal_told(struct decision *decision, const steady_result *result);

/* The server's side. */
struct decision *journal_of(const struct words *words); /* NULL: the command is about none */
void journal_seen(struct decision *decision, enum form form);
void journal_refused(struct decision *decision, const char *why);
void journal_executed(struct decision *decision, const struct steady__decision *outcome);

#endif
