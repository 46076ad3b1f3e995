/* SPDX-License-Identifier: MIT
 * What a log is told of one server: that it is away, and that it is back, each once. */
#ifndef STEADY__LOG_H
#define STEADY__LOG_H

#include "circuit.h"
#include "redact.h"

struct steady__log {
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: nobody listens */
    void *log_data;
    bool away;                     /* the log has been told so, and no decision has been made since */
    bool refusing;                 /* the log has been told of refusals, and not that they are over */
    steady_us refused_at, told_at; /* a decision was refused, last; and when the log was last told so; 0: never */
    char where[300];               /* the server, without a password */
};

/* at: where the server is; service: what the caller has named. Often the same. */
void steady__log_set_server(struct steady__log *log, const struct steady__url *at, const struct steady__url *service);

/* Each may end anything: a log is the caller's. */
void steady__log_server_down(struct steady__log *log, const char *what, const char *why);

/* Whether the log is about to be told why: the reason need not be written otherwise. */
bool steady__notice_wants_reason(const struct steady__log *log, const steady_loop *loop,
                                 enum steady__circuit_event news);

/* What the reply to a decision says. One may be refused while others are not: of that the log is told once a minute at
 * most, and they are over when a decision is made and none was refused for a second. */
void steady__log_reply(struct steady__log *log, const steady_loop *loop, enum steady__circuit_event news,
                       const char *why);

#endif
