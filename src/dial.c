/* SPDX-License-Identifier: MIT
 * From a URL to a connected socket: the name is looked up anew, and its addresses are tried one after the other. */
#include "dial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static void try_next(struct steady__dial *dial);

static void finish(struct steady__dial *dial, int fd, const char *why) {
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    dial->fd = -1;
    dial->done(dial->arg, fd, why);
}

static void give_up_address(struct steady__dial *dial, int error) {
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    if (dial->fd >= 0) dial->net->close(dial->net, dial->fd);
    dial->fd = -1;
    dial->last_error = error;
    try_next(dial);
}

static void writable(void *arg, int events) {
    struct steady__dial *dial = arg;
    (void)events;
    if (steady__forked(dial->birthmark)) return;
    const int error = dial->net->connected(dial->net, dial->fd);
    if (error == 0)
        finish(dial, dial->fd, NULL);
    else
        give_up_address(dial, error);
}

static void too_late(void *arg) {
    struct steady__dial *dial = arg;
    if (steady__forked(dial->birthmark)) return;
    steady__alarm_rang(&dial->alarm);
    give_up_address(dial, ETIMEDOUT);
}

static void try_next(struct steady__dial *dial) {
    while (dial->next < dial->addresses.count) {
        dial->fd = dial->net->connect(dial->net, &dial->addresses.at[dial->next++], dial->unanswered);
        if (dial->fd < 0) {
            dial->last_error = errno;
            continue;
        }
        if (steady__watch_start(&dial->watch, dial->loop, dial->fd, STEADY_WRITABLE, writable, dial) != 0) {
            give_up_address(dial, ENOMEM);
            return;
        }
        steady__alarm_set(&dial->alarm, dial->patience);
        return;
    }
    finish(dial, -1, strerror(dial->last_error));
}

static void looked_up(void *arg, const struct steady__addresses *found, const char *why) {
    struct steady__dial *dial = arg;
    dial->lookup = NULL;
    if (why != NULL) {
        finish(dial, -1, why);
        return;
    }
    dial->addresses = *found;
    try_next(dial);
}

static void start_unix(struct steady__dial *dial) {
    struct sockaddr_un *to = (struct sockaddr_un *)&dial->addresses.at[0].bytes;
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    snprintf(to->sun_path, sizeof to->sun_path, "%s", dial->url->path);
    dial->addresses.at[0].len = sizeof *to;
    dial->addresses.count = 1;
    try_next(dial);
}

void steady__dial_start(struct steady__dial *dial) {
    dial->next = 0;
    dial->addresses.count = 0;
    if (dial->url->scheme == STEADY__URL_UNIX) {
        start_unix(dial);
        return;
    }
    dial->lookup = dial->net->lookup(dial->net, dial->loop, dial->url->host, dial->url->port, looked_up, dial);
    if (dial->lookup == NULL) finish(dial, -1, "no memory, descriptor or thread to look the name up");
}

int steady__dial_init(struct steady__dial *dial) {
    dial->fd = -1;
    return steady__alarm_new(&dial->alarm, dial->loop, too_late, dial);
}

void steady__dial_stop(struct steady__dial *dial) {
    if (dial->lookup != NULL) dial->net->lookup_cancel(dial->net, dial->lookup);
    dial->lookup = NULL;
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    if (dial->fd >= 0) dial->net->close(dial->net, dial->fd);
    dial->fd = -1;
}

void steady__dial_free(struct steady__dial *dial) {
    steady__dial_stop(dial);
    steady__alarm_free(&dial->alarm);
}
