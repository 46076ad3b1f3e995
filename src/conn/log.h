/* SPDX-License-Identifier: MIT
 * Log lines about one server: one when it goes down, one when it is back. */
#ifndef STEADY__LOG_H
#define STEADY__LOG_H

#include "conn/circuit.h"
#include "core/redact.h"

struct steady__log {
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: no log */
    void *log_data;
    bool down_logged;            /* logged as down; no decision was made since */
    bool refusal_logged;         /* refusals are logged, and not yet their end */
    steady_us refused_at;        /* the last refused decision */
    steady_us refusal_logged_at; /* the last log line about refusals; 0: never */
    char where[300];             /* the place of the server, without secrets */
};

/* at: the place of the server; service: the URL of the caller. Often both are the same. */
void steady__log_set_server(struct steady__log *log, const struct steady__url *at, const struct steady__url *service);

/* The log belongs to the caller, and may close the store. So touch nothing after this call, or hold the store. */
void steady__log_server_down(struct steady__log *log, const char *what, const char *why);

/* A warning that changes no state. The same rule about the caller applies. */
void steady__log_warn(struct steady__log *log, const char *what, const char *why);

/* Whether this event will be logged with a reason. Otherwise the reason need not be written. */
bool steady__log_needs_reason(const struct steady__log *log, const steady_loop *loop, enum steady__circuit_event news);

/* Logs a change that the reply to a decision shows. Some decisions may be refused while others are made: that is logged
 * at most once a minute. Refusals are over when a decision is made and none was refused for a second. The same rule
 * about the caller applies. */
void steady__log_reply(struct steady__log *log, const steady_loop *loop, enum steady__circuit_event news,
                       const char *why);

#endif
