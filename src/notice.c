/* SPDX-License-Identifier: MIT
 * What a log is told of one server: that it is away, and that it is back, each once. */
#include "notice.h"

#include <stdio.h>

void steady__notice_place(struct steady__notice *notice, const struct steady__url *url) {
    steady__url_name(notice->where, sizeof notice->where, url);
}

static void tell(struct steady__notice *notice, enum steady_log_level level, const char *what, const char *why) {
    char text[512];
    if (notice->log == NULL) return;
    snprintf(text, sizeof text, "%s: %s%s%s", notice->where, what, *why != '\0' ? ": " : "", why);
    notice->log(notice->log_data, level, text);
}

void steady__notice_away(struct steady__notice *notice, const char *what, const char *why) {
    if (notice->away) return;
    notice->away = true;
    tell(notice, STEADY_LOG_WARNING, what, why);
}

void steady__notice_back(struct steady__notice *notice) {
    if (!notice->away) return;
    notice->away = false;
    tell(notice, STEADY_LOG_INFO, "connected and answering again", "");
}
