/* SPDX-License-Identifier: MIT
 * From a URL to a connected socket: the name is looked up anew, and its addresses are tried one after the other.
 *
 * A lookup cannot be interrupted, and may never come back. An attempt waits for it for a time and then ends; the lookup
 * goes on, the next attempt begins another one beside it, and the first answer for the name is the one that counts. So
 * at most STEADY__DIAL_LOOKUPS threads can be stuck, however long that lasts. Dials that share a count have at most
 * STEADY__LOOKUPS_MAX; an attempt that finds so many waits for its turn. */
#include "dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define QUEUE_LOOK (10 * STEADY_MILLISECOND)

static void try_next(struct steady__dial *dial);

/* Of an errno. A client that opens many connections can use up the descriptors and the memory of this program. */
static int error_of(int number) {
    const bool ours = number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM;
    return ours ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
}

static void allow(struct steady__dial *dial, steady_us time) {
    dial->last_turn = false;
    steady__alarm_set(&dial->alarm, time);
}

static void finish(struct steady__dial *dial, const struct steady__dialed *dialed) {
    steady__alarm_stop(&dial->alarm);
    steady__watch_stop(&dial->watch);
    dial->fd = -1;
    dial->tls = NULL;
    dial->done(dial->arg, dialed);
}

static void fail(struct steady__dial *dial, int error, const char *why) {
    finish(dial, &(struct steady__dialed){-1, NULL, error, why, 0});
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
        finish(dial, &(struct steady__dialed){dial->fd, dial->tls, 0, NULL, dial->round_trip});
    else if (wanted < 0)
        give_up_address(dial, steady__tls_turned_away(dial->tls) ? STEADY_REFUSED : STEADY_UNAVAILABLE,
                        steady__tls_trouble(dial->tls));
    else
        steady__watch_want(&dial->watch, wanted);
}

static void connected(struct steady__dial *dial) {
    dial->round_trip = steady__loop_now(dial->loop) - dial->begun_at;
    if (dial->tls_context == NULL) {
        finish(dial, &(struct steady__dialed){dial->fd, NULL, 0, NULL, dial->round_trip});
        return;
    }
    dial->tls = steady__tls_new(dial->tls_context, dial->net, dial->fd, dial->url->host, &dial->ticket);
    if (dial->tls == NULL) {
        give_up_address(dial, STEADY_OVERLOADED, "no memory for TLS");
        return;
    }
    allow(dial, dial->patience);
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

static void look_up(struct steady__dial *dial);

static void too_late(void *arg) {
    struct steady__dial *dial = arg;
    if (steady__forked(dial->birthmark) || !steady__alarm_rang(&dial->alarm)) return;
    if (dial->queued && steady__loop_now(dial->loop) - dial->begun_at < dial->name_patience) {
        look_up(dial);
        return;
    }
    if (!dial->last_turn) { /* what has come meanwhile comes first; a loop may run timers set for now before it looks */
        dial->last_turn = true;
        steady__alarm_set(&dial->alarm, STEADY_MILLISECOND);
        return;
    }
    if (dial->looking) {
        dial->looking = dial->queued = false;
        fail(dial, STEADY_UNAVAILABLE, "looking the name up takes too long");
        return;
    }
    give_up_address(dial, STEADY_UNAVAILABLE,
                    dial->tls != NULL ? "no TLS: the server does not answer" : strerror(ETIMEDOUT));
}

static void try_next(struct steady__dial *dial) {
    while (dial->next < dial->addresses.count) {
        dial->begun_at = steady__loop_now(dial->loop);
        dial->fd = dial->net->connect(dial->net, &dial->addresses.at[dial->next++], dial->unanswered);
        if (dial->fd < 0) {
            note(dial, error_of(errno), strerror(errno));
            continue;
        }
        if (steady__watch_start(&dial->watch, dial->loop, dial->fd, STEADY_WRITABLE, ready, dial) != 0) {
            give_up_address(dial, STEADY_OVERLOADED, strerror(ENOMEM));
            return;
        }
        allow(dial, dial->patience);
        return;
    }
    fail(dial, dial->error, dial->why);
}

/* ---- Names ---- */

static bool is_for(const struct steady__dial_lookup *slot, const struct steady__url *url) {
    return slot->port == url->port && strcmp(slot->host, url->host) == 0;
}

static void looked_up(void *arg, const struct steady__addresses *found, const char *why) {
    struct steady__dial_lookup *slot = arg;
    struct steady__dial *dial = slot->dial;
    slot->lookup = NULL;
    if (slot->counted) --*dial->lookups_under_way;
    if (!dial->looking || !is_for(slot, dial->url)) return;
    dial->looking = dial->queued = false;
    steady__alarm_stop(&dial->alarm);
    if (why != NULL) {
        fail(dial, STEADY_UNAVAILABLE, why);
        return;
    }
    dial->addresses = *found;
    try_next(dial);
}

/* One for the name that may yet come back in time. */
static bool is_under_way(const struct steady__dial *dial) {
    const steady_us now = steady__loop_now(dial->loop);
    for (size_t i = 0; i < STEADY__DIAL_LOOKUPS; i++) {
        const struct steady__dial_lookup *slot = &dial->lookups[i];
        if (slot->lookup != NULL && is_for(slot, dial->url) && now - slot->begun_at < dial->name_patience) return true;
    }
    return false;
}

/* It is read without a thread. */
static bool is_address(const char *host) {
    struct in_addr bytes;
    struct in6_addr bytes6;
    return inet_aton(host, &bytes) == 1 || inet_pton(AF_INET6, host, &bytes6) == 1;
}

static bool has_turn(const struct steady__dial *dial) {
    const unsigned *count = dial->lookups_under_way;
    return count == NULL || *count < STEADY__LOOKUPS_MAX || is_address(dial->url->host);
}

static struct steady__dial_lookup *find_slot(struct steady__dial *dial) {
    for (size_t i = 0; i < STEADY__DIAL_LOOKUPS; i++)
        if (dial->lookups[i].lookup == NULL) return &dial->lookups[i];
    return NULL;
}

/* NULL, or why not. */
static const char *begin_lookup(struct steady__dial *dial) {
    struct steady__dial_lookup *slot = find_slot(dial);
    const struct steady__url *url = dial->url;
    if (slot == NULL) return "the resolver does not answer";
    slot->dial = dial;
    slot->begun_at = steady__loop_now(dial->loop);
    slot->port = url->port;
    snprintf(slot->host, sizeof slot->host, "%s", url->host);
    slot->lookup = dial->net->lookup(dial->net, dial->loop, url->host, url->port, looked_up, slot);
    if (slot->lookup == NULL) return "no memory, descriptor or thread to look the name up";
    slot->counted = dial->lookups_under_way != NULL && !is_address(url->host);
    if (slot->counted) ++*dial->lookups_under_way;
    return NULL;
}

static void look_up(struct steady__dial *dial) {
    const bool under_way = is_under_way(dial);
    dial->queued = !under_way && !has_turn(dial);
    const char *why = under_way || dial->queued ? NULL : begin_lookup(dial);
    if (why != NULL) { /* with a slot left, this program is short of something */
        fail(dial, find_slot(dial) != NULL ? STEADY_OVERLOADED : STEADY_UNAVAILABLE, why);
        return;
    }
    dial->looking = true;
    allow(dial, dial->queued ? QUEUE_LOOK : dial->name_patience);
}

bool steady__dial_looks_up(const struct steady__dial *dial) {
    for (size_t i = 0; i < STEADY__DIAL_LOOKUPS; i++)
        if (dial->lookups[i].lookup != NULL) return true;
    return false;
}

/* ---- */

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
    dial->begun_at = steady__loop_now(dial->loop);
    dial->next = 0;
    dial->addresses.count = 0;
    if (dial->url->scheme == STEADY__URL_UNIX)
        start_unix(dial);
    else
        look_up(dial);
}

int steady__dial_init(struct steady__dial *dial) {
    dial->fd = -1;
    return steady__alarm_new(&dial->alarm, dial->loop, too_late, dial);
}

void steady__dial_stop(struct steady__dial *dial) {
    dial->looking = dial->queued = false;
    hang_up(dial);
}

const char *steady__dial_doing(const struct steady__dial *dial) {
    if (dial->looking) return "looking the name up";
    return dial->tls != NULL ? "in the TLS handshake" : "connecting";
}

void steady__dial_free(struct steady__dial *dial) {
    steady__dial_stop(dial);
    for (size_t i = 0; i < STEADY__DIAL_LOOKUPS; i++) {
        if (dial->lookups[i].lookup != NULL) dial->net->lookup_cancel(dial->net, dial->lookups[i].lookup);
        dial->lookups[i].lookup = NULL;
    }
    steady__alarm_free(&dial->alarm);
    steady__tls_forget(&dial->ticket);
}
