/* SPDX-License-Identifier: MIT
 * From a URL to a connected socket: the name is looked up anew, and its addresses are tried one after the other. */
#include "dial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static void try_next(struct steady__dial *dial);

static void finish(struct steady__dial *dial, const struct steady__dialed *dialed) {
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    dial->fd = -1;
    dial->tls = NULL;
    dial->done(dial->arg, dialed);
}

static void fail(struct steady__dial *dial, int error, const char *why) {
    finish(dial, &(struct steady__dialed){-1, NULL, error, why});
}

static void hang_up(struct steady__dial *dial) {
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    steady__tls_free(dial->tls);
    dial->tls = NULL;
    if (dial->fd >= 0) dial->net->close(dial->net, dial->fd);
    dial->fd = -1;
}

static void note(struct steady__dial *dial, int error, const char *why) {
    dial->error = error;
    snprintf(dial->why, sizeof dial->why, "%s", why);
}

static void give_up_address(struct steady__dial *dial, int error, const char *why) {
    note(dial, error, why);
    hang_up(dial);
    try_next(dial);
}

static void shake_hands(struct steady__dial *dial) {
    const int wanted = steady__tls_handshake(dial->tls);
    if (wanted == 0)
        finish(dial, &(struct steady__dialed){dial->fd, dial->tls, 0, NULL});
    else if (wanted < 0)
        give_up_address(dial, steady__tls_turned_away(dial->tls) ? STEADY_REFUSED : STEADY_UNAVAILABLE,
                        steady__tls_trouble(dial->tls));
    else
        steady__watch_want(&dial->watch, wanted);
}

static void connected(struct steady__dial *dial) {
    if (dial->tls_context == NULL) {
        finish(dial, &(struct steady__dialed){dial->fd, NULL, 0, NULL});
        return;
    }
    dial->tls = steady__tls_new(dial->tls_context, dial->net, dial->fd, dial->url->host, &dial->ticket);
    if (dial->tls == NULL) {
        give_up_address(dial, STEADY_UNAVAILABLE, "no memory for TLS");
        return;
    }
    steady__alarm_set(&dial->alarm, dial->patience);
    shake_hands(dial);
}

static void ready(void *arg, int events) {
    struct steady__dial *dial = arg;
    (void)events;
    if (steady__forked(dial->birthmark)) return;
    if (dial->tls != NULL) {
        shake_hands(dial);
        return;
    }
    const int error = dial->net->connected(dial->net, dial->fd);
    if (error == 0)
        connected(dial);
    else
        give_up_address(dial, STEADY_UNAVAILABLE, strerror(error));
}

static void too_late(void *arg) {
    struct steady__dial *dial = arg;
    if (steady__forked(dial->birthmark)) return;
    steady__alarm_rang(&dial->alarm);
    give_up_address(dial, STEADY_UNAVAILABLE,
                    dial->tls != NULL ? "no TLS: the server does not answer" : strerror(ETIMEDOUT));
}

static void try_next(struct steady__dial *dial) {
    while (dial->next < dial->addresses.count) {
        dial->fd = dial->net->connect(dial->net, &dial->addresses.at[dial->next++], dial->unanswered);
        if (dial->fd < 0) {
            note(dial, STEADY_UNAVAILABLE, strerror(errno));
            continue;
        }
        if (steady__watch_start(&dial->watch, dial->loop, dial->fd, STEADY_WRITABLE, ready, dial) != 0) {
            give_up_address(dial, STEADY_UNAVAILABLE, strerror(ENOMEM));
            return;
        }
        steady__alarm_set(&dial->alarm, dial->patience);
        return;
    }
    fail(dial, dial->error, dial->why);
}

static void looked_up(void *arg, const struct steady__addresses *found, const char *why) {
    struct steady__dial *dial = arg;
    dial->lookup = NULL;
    if (why != NULL) {
        fail(dial, STEADY_UNAVAILABLE, why);
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
    if (dial->lookup == NULL) fail(dial, STEADY_UNAVAILABLE, "no memory, descriptor or thread to look the name up");
}

int steady__dial_init(struct steady__dial *dial) {
    dial->fd = -1;
    return steady__alarm_new(&dial->alarm, dial->loop, too_late, dial);
}

void steady__dial_stop(struct steady__dial *dial) {
    if (dial->lookup != NULL) dial->net->lookup_cancel(dial->net, dial->lookup);
    dial->lookup = NULL;
    hang_up(dial);
}

const char *steady__dial_doing(const struct steady__dial *dial) {
    if (dial->lookup != NULL) return "looking the name up";
    return dial->tls != NULL ? "in the TLS handshake" : "connecting";
}

void steady__dial_free(struct steady__dial *dial) {
    steady__dial_stop(dial);
    steady__alarm_free(&dial->alarm);
    steady__tls_forget(&dial->ticket);
}
