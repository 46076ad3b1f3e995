/* SPDX-License-Identifier: MIT
 * What a log is told of one server: that it is away, and that it is back, each once. */
#include "log.h"

#include <stdio.h>

#include "loop.h"

#define TOLD_EVERY (60 * STEADY_SECOND)

void steady__notice_place(struct steady__notice *notice, const struct steady__url *at,
                          const struct steady__url *service) {
    steady__redact_place(notice->where, sizeof notice->where, at, service);
}

static void tell(struct steady__notice *notice, enum steady_log_level level, const char *what, const char *why) {
    char text[512];
    if (notice->log == NULL) return;
    snprintf(text, sizeof text, "%s%s%s%s%s", notice->where, *notice->where != '\0' ? ": " : "", what,
             *why != '\0' ? ": " : "", why);
    notice->log(notice->log_data, level, text);
}

void steady__notice_away(struct steady__notice *notice, const char *what, const char *why) {
    if (notice->away) return;
    notice->away = true;
    notice->refusing = false;
    tell(notice, STEADY_LOG_WARNING, what, why);
}

static bool was_told_lately(const struct steady__notice *notice, steady_us now) {
    return notice->told_at != 0 && now - notice->told_at < TOLD_EVERY;
}

static void refused(struct steady__notice *notice, steady_us now, const char *why) {
    notice->refused_at = now;
    if (notice->away || notice->refusing || was_told_lately(notice, now)) return;
    notice->told_at = now;
    notice->away = notice->refusing = true;
    tell(notice, STEADY_LOG_WARNING, "decisions are refused", why);
}

static void decided(struct steady__notice *notice, const steady_loop *loop) {
    if (!notice->away && !notice->refusing) return;
    notice->away = false;
    if (notice->refusing && steady__loop_now(loop) - notice->refused_at < STEADY_SECOND) return;
    notice->refusing = false;
    tell(notice, STEADY_LOG_INFO, "answering again", "");
}

bool steady__notice_wants_reason(const struct steady__notice *notice, const steady_loop *loop,
                                 enum steady__circuit_news news) {
    if (notice->log == NULL || notice->away) return false;
    if (news == STEADY__CIRCUIT_OPENED) return true;
    return news == STEADY__CIRCUIT_REFUSES && !notice->refusing && !was_told_lately(notice, steady__loop_now(loop));
}

void steady__notice_heard(struct steady__notice *notice, const steady_loop *loop, enum steady__circuit_news news,
                          const char *why) {
    switch (news) {
    case STEADY__CIRCUIT_NOTHING: break;
    case STEADY__CIRCUIT_DECIDES: decided(notice, loop); break;
    case STEADY__CIRCUIT_OPENED: steady__notice_away(notice, "the server decides nothing for now", why); break;
    case STEADY__CIRCUIT_REFUSES: refused(notice, steady__loop_now(loop), why); break;
    }
}
