/* SPDX-License-Identifier: MIT
 * Calls on several keys, and on one with options: what a client asks, what the servers do, and what it is told. */
#ifndef SIM_SEVERAL_H
#define SIM_SEVERAL_H

#include "client.h"
#include "group_words.h"
#include "journal.h"

/* One bucket of a call. */
struct member {
    const struct place *place;
    enum steady_policy policy;
    uint32_t shares; /* of the local policy */
    size_t asked_as; /* the caller's part */
    const char *key; /* as stored */
    size_t key_len;
    int64_t amount; /* before `clamp` */
    struct steady__part part;
    struct steady__settlement settlement; /* of a settle */
    /* Between slots, what servers did with it: */
    struct request *asked;   /* the command that put drops in, or could not */
    unsigned asks;           /* how many such commands there were */
    int64_t granted, moment; /* by `asked` */
    steady_us taken_at;      /* the time of `asked` */
    struct request *given_back;
    unsigned gives;
    int64_t reserved, reserved_at; /* by its reservation */
    unsigned settles;              /* of its reservation, that servers have made */
    bool read;                     /* the answer of `asked` was read before the call had ended */
    bool heard;                    /* and the client has acted on it */
    steady_us ended_at;            /* the time at which its call ended; the connection of `asked` was there */
    bool overtaken;                /* on that connection, by a command that was submitted later */
    struct member *owing;          /* see struct client */
};

/* What a server did: the call of one script is atomic. */
struct made {
    struct steady__verdict verdict;
    struct steady__part_decision each[MEMBERS_MAX];
    struct steady__settled settled[MEMBERS_MAX];
    unsigned stepped;
    int64_t now; /* of the server's clock */
};

struct several {
    size_t n;
    struct member members[MEMBERS_MAX];
    struct steady__how how;
    bool reserve;
    bool clamps; /* a throttler lowers amounts to its capacity */
    struct made made;
    struct request *rounds;       /* the commands of a call between slots; NULL: it is atomic so far */
    bool look_denied;             /* by a part that was looked at */
    struct decision *reserved_by; /* of a settle: the decision whose reservation it settles */
    struct decision *settling;    /* the last settle of its reservation */
};

/* The client asks for something. False: it could not. */
bool several_ask(struct client *client);

/* Its callback has run, with a verdict of the store, or with that of the local policy, or with neither. */
void several_check_verdict(const struct decision *decision, const steady_result *result);
void several_check_local(const struct decision *decision, const steady_result *result);
void several_told(struct decision *decision, const steady_result *result);
void several_cancelled(struct decision *decision);

/* The request of a command on several keys. */
struct request *several_request_of(struct decision *decision, const struct group_words *group);
/* The arguments must be those of the decision. */
void several_check_arguments(const struct request *request, const struct group_words *group);
void several_leaves(struct conn *conn, struct request *request, const struct words *words); /* from the client */
void several_executed(struct request *request, const struct made *made);

bool several_is_rate(const struct steady__rate *sent, const struct steady__rate *rate, bool with_block);
bool several_is_settlement(const struct steady__settlement *a, const struct steady__settlement *b);

enum steady_policy several_policy(const struct several *several);
bool several_is_foreign(const struct several *several);

#endif
