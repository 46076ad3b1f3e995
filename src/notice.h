/* SPDX-License-Identifier: MIT
 * What a log is told of one server: that it is away, and that it is back, each once. */
#ifndef STEADY__NOTICE_H
#define STEADY__NOTICE_H

#include "url.h"

struct steady__notice {
    void (*log)(void *data, enum steady_log_level level, const char *text); /* NULL: nobody listens */
    void *log_data;
    bool away;       /* the log has been told so */
    char where[300]; /* the server, without a password */
};

void steady__notice_place(struct steady__notice *notice, const struct steady__url *url);

/* Each may end anything: a log is the caller's. */
void steady__notice_away(struct steady__notice *notice, const char *what, const char *why);
void steady__notice_back(struct steady__notice *notice);

#endif
