/* SPDX-License-Identifier: MIT
 * One attempt to connect: look the name up, then try its addresses one after the other.
 *
 * A lookup cannot be interrupted, and may never end. An attempt waits for it for a limited time and then fails; the
 * lookup goes on. The next attempt starts another lookup beside it, and the first answer for the name is used. So at
 * most STEADY__CONNECT_LOOKUPS threads can hang. Attempts that share a count have at most STEADY__LOOKUPS_MAX lookups
 * together; an attempt over that waits for its turn. */
#include "conn/connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define QUEUE_LOOK (10 * STEADY_MILLISECOND)

static void connect_next_address(struct steady__connect *attempt);

/* Maps an errno to an error. If descriptors or memory are used up, the fault is in this program: STEADY_OVERLOADED. */
static int connect_error_of(int number) {
    const bool ours = number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM;
    return ours ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
}

static void connect_set_timeout(struct steady__connect *attempt, steady_us time) {
    attempt->extra_turn_given = false;
    steady__alarm_set(&attempt->alarm, time);
}

static void connect_finish(struct steady__connect *attempt, const struct steady__connect_result *result) {
    steady__alarm_stop(&attempt->alarm);
    steady__watch_stop(&attempt->watch);
    attempt->fd = -1;
    attempt->tls = NULL;
    attempt->done(attempt->arg, result);
}

static void connect_fail(struct steady__connect *attempt, int error, const char *why) {
    connect_finish(attempt, &(struct steady__connect_result){-1, NULL, error, why, 0});
}

static void connect_close_socket(struct steady__connect *attempt) {
    steady__alarm_stop(&attempt->alarm);
    steady__watch_stop(&attempt->watch);
    steady__tls_free(attempt->tls);
    attempt->tls = NULL;
    if (attempt->fd >= 0) attempt->net->close(attempt->net, attempt->fd);
    attempt->fd = -1;
}

static void connect_note_error(struct steady__connect *attempt, int error, const char *why) {
    attempt->error = error;
    snprintf(attempt->why, sizeof attempt->why, "%s", why);
}

static void connect_give_up_address(struct steady__connect *attempt, int error, const char *why) {
    connect_note_error(attempt, error, why);
    connect_close_socket(attempt);
    connect_next_address(attempt);
}

static void connect_continue_tls(struct steady__connect *attempt) {
    const int wanted = steady__tls_handshake(attempt->tls);
    if (wanted == 0)
        connect_finish(attempt,
                       &(struct steady__connect_result){attempt->fd, attempt->tls, 0, NULL, attempt->round_trip});
    else if (wanted < 0)
        connect_give_up_address(attempt, steady__tls_was_rejected(attempt->tls) ? STEADY_REFUSED : STEADY_UNAVAILABLE,
                                steady__tls_error_text(attempt->tls));
    else
        steady__watch_want(&attempt->watch, wanted);
}

static void connect_tcp_connected(struct steady__connect *attempt) {
    attempt->round_trip = steady__loop_now(attempt->loop) - attempt->begun_at;
    if (attempt->tls_context == NULL) {
        connect_finish(attempt, &(struct steady__connect_result){attempt->fd, NULL, 0, NULL, attempt->round_trip});
        return;
    }
    attempt->tls =
        steady__tls_new(attempt->tls_context, attempt->net, attempt->fd, attempt->url->host, &attempt->ticket);
    if (attempt->tls == NULL) {
        connect_give_up_address(attempt, STEADY_OVERLOADED, "no memory for TLS");
        return;
    }
    connect_set_timeout(attempt, attempt->address_timeout);
    connect_continue_tls(attempt);
}

static void connect_on_socket(void *arg, int events) {
    struct steady__connect *attempt = arg;
    (void)events;
    if (steady__forked(attempt->fork_guard)) return;
    if (attempt->tls != NULL) {
        connect_continue_tls(attempt);
        return;
    }
    const int error = attempt->net->connected(attempt->net, attempt->fd);
    if (error == 0)
        connect_tcp_connected(attempt);
    else
        connect_give_up_address(attempt, STEADY_UNAVAILABLE, strerror(error));
}

static void connect_resolve(struct steady__connect *attempt);

static void connect_on_alarm(void *arg) {
    struct steady__connect *attempt = arg;
    if (steady__forked(attempt->fork_guard) || !steady__alarm_rang(&attempt->alarm)) return;
    if (attempt->lookup_queued && steady__loop_now(attempt->loop) - attempt->begun_at < attempt->lookup_timeout) {
        connect_resolve(attempt);
        return;
    }
    if (!attempt->extra_turn_given) { /* events may be pending: a loop may run due timers before it polls */
        attempt->extra_turn_given = true;
        steady__alarm_set(&attempt->alarm, STEADY_MILLISECOND);
        return;
    }
    if (attempt->awaits_lookup) {
        attempt->awaits_lookup = attempt->lookup_queued = false;
        connect_fail(attempt, STEADY_UNAVAILABLE, "the name lookup timed out");
        return;
    }
    connect_give_up_address(attempt, STEADY_UNAVAILABLE,
                            attempt->tls != NULL ? "TLS handshake failed: the server does not answer"
                                                 : strerror(ETIMEDOUT));
}

static void connect_next_address(struct steady__connect *attempt) {
    while (attempt->next < attempt->addresses.count) {
        attempt->begun_at = steady__loop_now(attempt->loop);
        attempt->fd = attempt->net->connect(attempt->net, &attempt->addresses.at[attempt->next++], attempt->unanswered);
        if (attempt->fd < 0) {
            connect_note_error(attempt, connect_error_of(errno), strerror(errno));
            continue;
        }
        if (steady__watch_start(&attempt->watch, attempt->loop, attempt->fd, STEADY_WRITABLE, connect_on_socket,
                                attempt) != 0) {
            connect_give_up_address(attempt, STEADY_OVERLOADED, strerror(ENOMEM));
            return;
        }
        connect_set_timeout(attempt, attempt->address_timeout);
        return;
    }
    connect_fail(attempt, attempt->error, attempt->why);
}

/* ---- Names ---- */

static bool connect_is_lookup_for(const struct steady__connect_lookup *slot, const struct steady__url *url) {
    return slot->port == url->port && strcmp(slot->host, url->host) == 0;
}

static void connect_lookup_done(void *arg, const struct steady__addresses *found, const char *why) {
    struct steady__connect_lookup *slot = arg;
    struct steady__connect *attempt = slot->attempt;
    slot->lookup = NULL;
    if (slot->counted) --*attempt->lookups_under_way;
    if (!attempt->awaits_lookup || !connect_is_lookup_for(slot, attempt->url)) return;
    attempt->awaits_lookup = attempt->lookup_queued = false;
    steady__alarm_stop(&attempt->alarm);
    if (why != NULL) {
        connect_fail(attempt, STEADY_UNAVAILABLE, why);
        return;
    }
    attempt->addresses = *found;
    connect_next_address(attempt);
}

/* Whether a lookup of this name is running that may still end in time. */
static bool connect_is_lookup_pending(const struct steady__connect *attempt) {
    const steady_us now = steady__loop_now(attempt->loop);
    for (size_t i = 0; i < STEADY__CONNECT_LOOKUPS; i++) {
        const struct steady__connect_lookup *slot = &attempt->lookups[i];
        if (slot->lookup != NULL && connect_is_lookup_for(slot, attempt->url) &&
            now - slot->begun_at < attempt->lookup_timeout)
            return true;
    }
    return false;
}

/* Whether the host is an address. An address needs no lookup and no thread. */
static bool connect_is_address(const char *host) {
    struct in_addr bytes;
    struct in6_addr bytes6;
    return inet_aton(host, &bytes) == 1 || inet_pton(AF_INET6, host, &bytes6) == 1;
}

static bool connect_has_turn(const struct steady__connect *attempt) {
    const unsigned *count = attempt->lookups_under_way;
    return count == NULL || *count < STEADY__LOOKUPS_MAX || connect_is_address(attempt->url->host);
}

static struct steady__connect_lookup *connect_free_lookup(struct steady__connect *attempt) {
    for (size_t i = 0; i < STEADY__CONNECT_LOOKUPS; i++)
        if (attempt->lookups[i].lookup == NULL) return &attempt->lookups[i];
    return NULL;
}

/* Returns NULL, or why it cannot start. */
static const char *connect_begin_lookup(struct steady__connect *attempt) {
    struct steady__connect_lookup *slot = connect_free_lookup(attempt);
    const struct steady__url *url = attempt->url;
    if (slot == NULL) return "the resolver does not answer";
    slot->attempt = attempt;
    slot->begun_at = steady__loop_now(attempt->loop);
    slot->port = url->port;
    snprintf(slot->host, sizeof slot->host, "%s", url->host);
    slot->lookup = attempt->net->lookup(attempt->net, attempt->loop, url->host, url->port, connect_lookup_done, slot);
    if (slot->lookup == NULL) return "no memory, descriptor or thread for the name lookup";
    slot->counted = attempt->lookups_under_way != NULL && !connect_is_address(url->host);
    if (slot->counted) ++*attempt->lookups_under_way;
    return NULL;
}

static void connect_resolve(struct steady__connect *attempt) {
    const bool under_way = connect_is_lookup_pending(attempt);
    attempt->lookup_queued = !under_way && !connect_has_turn(attempt);
    const char *why = under_way || attempt->lookup_queued ? NULL : connect_begin_lookup(attempt);
    if (why != NULL) { /* with a slot left, this program is short of something */
        connect_fail(attempt, connect_free_lookup(attempt) != NULL ? STEADY_OVERLOADED : STEADY_UNAVAILABLE, why);
        return;
    }
    attempt->awaits_lookup = true;
    connect_set_timeout(attempt, attempt->lookup_queued ? QUEUE_LOOK : attempt->lookup_timeout);
}

bool steady__connect_looks_up(const struct steady__connect *attempt) {
    for (size_t i = 0; i < STEADY__CONNECT_LOOKUPS; i++)
        if (attempt->lookups[i].lookup != NULL) return true;
    return false;
}

/* ---- Starting and stopping ---- */

static void connect_start_unix(struct steady__connect *attempt) {
    struct sockaddr_un *to = (struct sockaddr_un *)&attempt->addresses.at[0].bytes;
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    snprintf(to->sun_path, sizeof to->sun_path, "%s", attempt->url->path);
    attempt->addresses.at[0].len = sizeof *to;
    attempt->addresses.count = 1;
    connect_next_address(attempt);
}

void steady__connect_start(struct steady__connect *attempt) {
    attempt->begun_at = steady__loop_now(attempt->loop);
    attempt->next = 0;
    attempt->addresses.count = 0;
    if (attempt->url->scheme == STEADY__URL_UNIX)
        connect_start_unix(attempt);
    else
        connect_resolve(attempt);
}

int steady__connect_init(struct steady__connect *attempt) {
    attempt->fd = -1;
    return steady__alarm_new(&attempt->alarm, attempt->loop, connect_on_alarm, attempt);
}

void steady__connect_stop(struct steady__connect *attempt) {
    attempt->awaits_lookup = attempt->lookup_queued = false;
    connect_close_socket(attempt);
}

const char *steady__connect_activity(const struct steady__connect *attempt) {
    if (attempt->awaits_lookup) return "looking up the host name";
    return attempt->tls != NULL ? "in the TLS handshake (does this port speak TLS?)" : "connecting";
}

void steady__connect_free(struct steady__connect *attempt) {
    steady__connect_stop(attempt);
    for (size_t i = 0; i < STEADY__CONNECT_LOOKUPS; i++) {
        if (attempt->lookups[i].lookup != NULL) attempt->net->lookup_cancel(attempt->net, attempt->lookups[i].lookup);
        attempt->lookups[i].lookup = NULL;
    }
    steady__alarm_free(&attempt->alarm);
    steady__tls_forget(&attempt->ticket);
}
