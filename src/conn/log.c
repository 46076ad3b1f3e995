/* SPDX-License-Identifier: MIT
 * Log lines about one server. */
#include "conn/log.h"

#include <stdio.h>

#include "loop/loop.h"

#define REFUSAL_LINE_EVERY (60 * STEADY_SECOND)

void steady__log_set_server(struct steady__log *log, const struct steady__url *at, const struct steady__url *service) {
    steady__redact_place(log->where, sizeof log->where, at, service);
}

static void log_write(struct steady__log *log, enum steady_log_level level, const char *what, const char *why) {
    char text[512];
    if (log->log == NULL) return;
    snprintf(text, sizeof text, "%s%s%s%s%s", log->where, *log->where != '\0' ? ": " : "", what,
             *why != '\0' ? ": " : "", why);
    log->log(log->log_data, level, text);
}

void steady__log_warn(struct steady__log *log, const char *what, const char *why) {
    log_write(log, STEADY_LOG_WARNING, what, why);
}

void steady__log_server_down(struct steady__log *log, const char *what, const char *why) {
    if (log->down_logged) return;
    log->down_logged = true;
    log->refusal_logged = false;
    log_write(log, STEADY_LOG_WARNING, what, why);
}

static bool log_is_refusal_line_recent(const struct steady__log *log, steady_us now) {
    return log->refusal_logged_at != 0 && now - log->refusal_logged_at < REFUSAL_LINE_EVERY;
}

static void log_refused(struct steady__log *log, steady_us now, const char *why) {
    log->refused_at = now;
    if (log->down_logged || log->refusal_logged || log_is_refusal_line_recent(log, now)) return;
    log->refusal_logged_at = now;
    log->down_logged = log->refusal_logged = true;
    log_write(log, STEADY_LOG_WARNING, "the server refuses decisions", why);
}

static void log_decided(struct steady__log *log, const steady_loop *loop) {
    if (!log->down_logged && !log->refusal_logged) return;
    log->down_logged = false;
    if (log->refusal_logged && steady__loop_now(loop) - log->refused_at < STEADY_SECOND) return;
    log->refusal_logged = false;
    log_write(log, STEADY_LOG_INFO, "making decisions again", "");
}

bool steady__log_needs_reason(const struct steady__log *log, const steady_loop *loop, enum steady__circuit_event news) {
    if (log->log == NULL || log->down_logged) return false;
    if (news == STEADY__CIRCUIT_OPENED) return true;
    return news == STEADY__CIRCUIT_REFUSES && !log->refusal_logged &&
           !log_is_refusal_line_recent(log, steady__loop_now(loop));
}

void steady__log_reply(struct steady__log *log, const steady_loop *loop, enum steady__circuit_event news,
                       const char *why) {
    switch (news) {
    case STEADY__CIRCUIT_NOTHING: break;
    case STEADY__CIRCUIT_DECIDES: log_decided(log, loop); break;
    case STEADY__CIRCUIT_OPENED: steady__log_server_down(log, "the server makes no decisions for now", why); break;
    case STEADY__CIRCUIT_REFUSES: log_refused(log, steady__loop_now(loop), why); break;
    }
}
