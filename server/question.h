/* SPDX-License-Identifier: MIT
 * A decision of the daemon: what is asked of the store, and how its answer comes back.
 *
 * An embedded store answers inside question_ask. Another store answers later; then the question is copied. The same
 * function gets both answers. */
#ifndef STEADY_SERVER_QUESTION_H
#define STEADY_SERVER_QUESTION_H

#include "rules/rules.h"

struct exchange;
struct limit_counters;
struct ruleset;
struct worker;
struct question;

/* One bucket of a question. */
struct question_part {
    steady_throttler *throttler;
    const steady_limit *limit;
    const struct rules_limit *rule; /* NULL: the limit came with the request */
    struct limit_counters *counters;
    const char *name; /* for the client */
    const char *key;  /* as stored */
    size_t key_len;
    struct rules_text shown; /* see question_shown_key; empty: not known */
    int64_t amount;
    enum steady_kind kind;
};

/* `result` is valid during the call; its reservation belongs to the callee. `to` is the pointer that was given to
 * question_ask, or NULL if question_forget was called. */
typedef void (*question_answered)(void *to, const struct question *question, const steady_result *result);

enum question_verb { QUESTION_CONSUME, QUESTION_PEEK };

struct question {
    struct ruleset *set; /* it is used as long as the question lives */
    enum question_verb verb;
    steady_us max_wait;
    int64_t at_least; /* 0: all or nothing */
    bool reserve;
    bool quiet; /* it is in no metric and no log */
    size_t n_parts;
    struct question_part *parts;
};

/* A question that waits for its answer. */
struct waiting;

/* Asks. *waiting is NULL if `answered` has run already, and valid until it runs otherwise. deadline_us: how long the
 * client waits; 0: as long as the store does. */
void question_ask(struct worker *worker, const struct question *question, steady_us deadline_us,
                  question_answered answered, void *to, struct waiting **waiting);

/* Settles what was reserved with 0, and frees the reservation. NULL is fine. */
void question_give_back(struct worker *worker, steady_reservation *reservation);

/* The key of a part as clients and people know it: without the prefix, the name and the escapes of rules_stored_key.
 * Keys of limits that came with a request stay as they are stored. */
struct rules_text question_shown_key(const struct question_part *part, char memory[RULES_KEY_MAX]);

/* Empties the bucket of a stored key, and lifts its block. The caller gets no answer. */
void question_reset(struct worker *worker, steady_throttler *throttler, struct rules_text key);

/* Keys of buckets as they are stored. */
enum { QUESTION_KEYS_MOST = 9 }; /* of a name: one for each unit of Envoy, one of the rules, and one to try */
struct question_keys {
    size_t n, len[QUESTION_KEYS_MOST];
    char bytes[QUESTION_KEYS_MOST][RULES_KEY_MAX];
};

/* Empties the bucket of each key, and lifts its block; with a ban it blocks each key so long, at least a second.
 * `answered` runs once: now, or later unless the client has gone. It gets the last result, or the first error. After a
 * ban that is the result of a consume that was denied; if it was not, its key is not blocked. */
void question_act(struct exchange *exchange, const struct question_keys *keys, steady_us ban,
                  void (*answered)(struct exchange *exchange, const steady_result *result));

/* Settles. `answered` runs once: now, or later unless the client has gone. 0, or STEADY_BAD_ARGUMENT with the reason in
 * settlement->why; then it does not run. */
int question_settle(struct exchange *exchange, const steady_settlement *settlement,
                    void (*answered)(struct exchange *exchange, const steady_result *result));

/* What tells an embedded store from others in the text of a reservation; 0 for a server. */
int64_t question_store_tag(struct worker *worker);

/* The client has gone. The decision goes on; what it took in line is given back. */
void question_forget(struct waiting *waiting);

#endif
