/* SPDX-License-Identifier: MIT
 * One supervised connection to a server.
 *
 *     RESTING --alarm--> FINDING --found--> CONNECTING --connected--> HANDSHAKING --all OK--> UP --> DRAINING
 *        ^                  |                  |                         |                    |         |
 *        +------------------+------------------+-------------------------+--------------------+---------+
 *                                                                                     CLOSED from anywhere
 *
 * The normal path: a new connection asks its finder, if it has one; connects, with TLS if the URL wants it; sends AUTH,
 * CLIENT SETNAME and SELECT if they are wanted, and ROLE if the role matters; and is up. Requests wait in `waiting`
 * until then, and go out in the order of submit. If nothing else is on the wire, a request is sent inside submit.
 * Otherwise it is sent together with the others of the same turn of the loop: after the replies are read, or when the
 * socket is writable.
 *
 * A connection ends in one of five ways. Each leads to RESTING, and to at most one attempt at a time:
 *   - An attempt fails. The back-off doubles up to half a second, with jitter. The server is now known to be down: what
 *     waits ends, and new requests end at once, until a connection is made.
 *   - An answered connection is lost. It is made again nearly at once, and unwritten requests wait for it. A request of
 *     which a byte was written ends as STEADY_UNKNOWN.
 *   - The server refuses AUTH or SELECT. Like a failed attempt, but at most once a second, and as STEADY_REFUSED.
 *   - The connection stalls: a reply is due, and no byte came for four timeouts.
 *   - It is drained, because the server is not a primary any more (READONLY) or has moved. When no reply is due, it is
 * made again at once, with ROLE in its handshake. The request with READONLY is sent again there. Until a server said
 * that it is a primary, or went a second without READONLY, another READONLY counts as a failed attempt. A connection
 * without any reply counts as a failed attempt. So a server that accepts and hangs up gets no more attempts than one
 * that does not listen.
 *
 * A callback may close the connection. Closing releases descriptors and timers at once, and forgets all requests. The
 * memory is freed when the outermost handler on the stack has returned (`depth`). After a callback a handler checks
 * `epoch`, which changes when its connection is gone. */
#include "conn/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/backoff.h"
#include "conn/circuit.h"
#include "conn/log.h"
#include "conn/resp.h"
#include "conn/role.h"
#include "core/error.h"
#include "core/redact.h"

#define STALL_TIMEOUTS 4
#define STALL_LEAST (100 * STEADY_MILLISECOND)
#define RECONNECT_SPREAD (10 * STEADY_MILLISECOND) /* spreads the clients of a server that hung up on all of them */
#define ATTEMPT_TIMEOUT_LEAST (250 * STEADY_MILLISECOND)
#define PORTION 262144         /* bytes that are read before the loop goes on; a cluster map may have millions */
#define DROPPED_PER_TURN 1024  /* the same for requests that are dropped before they are sent */
#define RETURNED_PER_TURN 1024 /* the same for requests that come back */
#define SENDS_PER_TURN 4       /* the same for fills of the buffer: a fast server may take each fill at once */
#define HALF_LEAST 16          /* replies; fewer are not worth a system call more */
#define LOOKUP_TIMEOUT (10 * STEADY_SECOND) /* a resolver asks its second server after 5 s */

enum state { RESTING, FINDING, CONNECTING, HANDSHAKING, UP, DRAINING, CLOSED };

enum drain_reason { SERVER_NOT_PRIMARY, SERVER_MOVED };

/* Whether the server accepted the client, so that it may have acted on requests that were written to it. */
enum acceptance { CLIENT_REJECTED, CLIENT_ACCEPTED };

struct steady__connection {
    struct steady__connection_options options;
    enum state state;
    enum drain_reason drain_reason; /* while DRAINING */
    unsigned depth;                 /* handlers on the stack */
    uint64_t epoch;
    unsigned dropped;           /* requests, before they were sent, since connection_flush ran last */
    bool known_down;            /* the last attempt failed */
    bool answered;              /* this connection had a reply */
    bool paused;                /* RESTING until a request comes, but not before resumes_at */
    enum acceptance acceptance; /* of the connection that was lost last */
    bool returning_lost;        /* RESTING, while lost requests are still being returned */
    steady_us rest_delay, rest_until;
    struct steady__engines engines;
    int down_error; /* the error of a request while known_down */
    struct steady__backoff backoff;
    struct steady__circuit circuit;
    struct steady__role_state role;
    uint64_t connections;
    steady_us resumes_at;  /* while paused: the earliest attempt */
    steady_us quiet_since; /* the last byte received, or the first request on an idle wire */
    struct steady__list waiting;
    struct steady__list lost_sent;                                   /* off the wire, and lost; being handed back */
    struct steady__list lost_unsent;                                 /* not written; to be returned */
    struct steady__request handshake_steps[STEADY__HANDSHAKE_STEPS]; /* by enum steady__handshake_step */
    unsigned handshake_steps_due;
    struct steady__pipeline pipeline;
    struct steady__connect attempt;
    struct steady__watch watch;
    struct steady__alarm alarm; /* RESTING: next attempt; HANDSHAKING: timeout; UP: stall check; DRAINING: end */
    struct steady__log log;
    bool name_refused;            /* and logged */
    enum steady_state counted_as; /* in with.readiness */
};

#define REQUEST(list) STEADY__OWNER(struct steady__request, place, list)

static steady_us connection_now(const struct steady__connection *conn) { return steady__loop_now(&conn->options.loop); }

static steady_us connection_max_us(steady_us a, steady_us b) { return a > b ? a : b; }

static steady_us connection_stall_time(const struct steady__connection *conn) {
    return connection_max_us(STALL_TIMEOUTS * conn->options.timeout, STALL_LEAST);
}

static steady_us connection_attempt_timeout(const struct steady__connection *conn) {
    if (conn->options.connect_timeout > 0) return conn->options.connect_timeout;
    return connection_max_us(connection_stall_time(conn), ATTEMPT_TIMEOUT_LEAST);
}

static bool connection_is_handshake(const struct steady__connection *conn, const struct steady__request *request) {
    return request >= conn->handshake_steps && request < conn->handshake_steps + STEADY__HANDSHAKE_STEPS;
}

/* ---- The state, for the store ---- */

static enum steady_state connection_state(const struct steady__connection *conn) {
    if (conn->state == UP || conn->state == DRAINING) return conn->circuit.open ? STEADY_DOWN : STEADY_READY;
    return conn->known_down ? STEADY_DOWN : STEADY_CONNECTING;
}

static void connection_update_readiness(struct steady__connection *conn) {
    struct steady__readiness *readiness = conn->options.readiness;
    const enum steady_state state = connection_state(conn);
    if (readiness == NULL || conn->counted_as == state || conn->state == CLOSED) return;
    steady__counter_add(&readiness->in[state], 1);
    steady__counter_add(&readiness->in[conn->counted_as], (uint64_t)-1);
    conn->counted_as = state;
}

/* ---- Handlers, called by the loop ---- */

static void connection_destroy(struct steady__connection *conn) {
    steady__pipeline_free(&conn->pipeline);
    free(conn);
}

/* False in a forked child, which must not touch the connection of its parent. */
static bool connection_enter_handler(struct steady__connection *conn) {
    if (steady__forked(conn->options.fork_guard)) return false;
    conn->depth++;
    return true;
}

static bool connection_has_socket(const struct steady__connection *conn) {
    return conn->state == HANDSHAKING || conn->state == UP || conn->state == DRAINING;
}

static void connection_flush(struct steady__connection *conn);

static void connection_leave_handler(struct steady__connection *conn) {
    connection_update_readiness(conn);
    if (connection_has_socket(conn) && !steady__forked(conn->options.fork_guard)) connection_flush(conn);
    if (--conn->depth > 0) return;
    if (conn->state == CLOSED)
        connection_destroy(conn);
    else
        steady__pipeline_shrink(&conn->pipeline);
}

/* ---- The end of a connection ---- */

/* Whether requests of a lost connection are still in the ring. */
static bool connection_is_ring_lost(const struct steady__connection *conn) {
    return conn->pipeline.fd < 0 && !steady__pipeline_idle(&conn->pipeline);
}

/* Whether requests have to be returned to their owner. */
static bool connection_has_lost_requests(const struct steady__connection *conn) {
    return connection_is_ring_lost(conn) || !steady__list_empty(&conn->lost_sent) ||
           !steady__list_empty(&conn->lost_unsent);
}

/* Returns a portion of the lost requests to their owner: those of lost_sent, then of the ring, then of lost_unsent.
 * Each callback may close the connection, so each turn checks again. */
static void connection_return_lost(struct steady__connection *conn) {
    for (int i = 0; i < RETURNED_PER_TURN && conn->state != CLOSED && connection_has_lost_requests(conn) &&
                    !steady__forked(conn->options.fork_guard);
         i++) {
        struct steady__request *request = NULL;
        const bool from_wire = steady__list_empty(&conn->lost_sent) && connection_is_ring_lost(conn);
        const bool written = from_wire ? conn->acceptance == CLIENT_ACCEPTED : !steady__list_empty(&conn->lost_sent);
        if (from_wire) {
            (void)steady__pipeline_take_first(&conn->pipeline, &request);
            if (request == NULL || connection_is_handshake(conn, request)) continue; /* NULL: a tombstone */
        } else {
            request = REQUEST((written ? &conn->lost_sent : &conn->lost_unsent)->next);
            steady__list_remove(&request->place);
        }
        conn->options.owner_class->unanswered(conn->options.owner, request, written, conn->down_error);
    }
}

static void connection_retry_in(struct steady__connection *conn, steady_us delay) {
    conn->state = RESTING;
    conn->returning_lost = false;
    conn->rest_delay = delay;
    conn->rest_until = connection_now(conn) + delay;
    steady__alarm_set(&conn->alarm, delay);
}

/* If more has to be returned, lets the loop go on first. */
static bool connection_continue_returning(struct steady__connection *conn) {
    if (conn->state != RESTING || !connection_has_lost_requests(conn)) return false;
    conn->returning_lost = true;
    steady__alarm_set(&conn->alarm, 0);
    return true;
}

/* Marks the server as down, with `error`. Requests that wait now end. Later ones fail at submit, except if the
 * connection is patient and an attempt is running. */
static void connection_mark_down(struct steady__connection *conn, int error) {
    conn->known_down = true;
    conn->down_error = error;
    connection_retry_in(conn, steady__reconnect_pause(&conn->backoff, conn->options.net, error == STEADY_REFUSED));
    steady__list_move(&conn->lost_unsent, &conn->waiting);
}

static void connection_report_loss(struct steady__connection *conn, const char *why) {
    connection_update_readiness(conn);
    steady__note_error(conn->options.last_error, 0, "%s: %s", conn->log.where, why);
    connection_return_lost(conn);
    (void)connection_continue_returning(conn);
    if (conn->state == RESTING)
        steady__log_server_down(&conn->log, conn->connections > 0 ? "connection lost" : "cannot connect", why);
}

static void connection_give_up_attempt(struct steady__connection *conn, int error, const char *why) {
    connection_mark_down(conn, error);
    connection_report_loss(conn, why);
}

/* Ends a connection. Unwritten requests wait again, as if they had never been on the wire. The others stay in the ring,
 * to be returned. A connection that worked is made again at once; otherwise the server counts as down. */
static void connection_drop(struct steady__connection *conn, int error, enum acceptance acceptance, const char *why) {
    char reason[sizeof((steady_message *)NULL)->text];
    if (steady__forked(conn->options.fork_guard)) return; /* a callback forked: the connection is the parent's */
    const bool moved = conn->state == DRAINING && conn->drain_reason == SERVER_MOVED;
    const bool worked = conn->answered || moved || steady__engine_is_trying(&conn->engines);
    const bool reconnect_now = worked && acceptance == CLIENT_ACCEPTED && error == STEADY_UNAVAILABLE;
    struct steady__request *request;
    snprintf(reason, sizeof reason, "%s", why); /* `why` may point into the TLS state that is freed below */
    conn->epoch++;
    steady__watch_stop(&conn->watch);
    steady__pipeline_close(&conn->pipeline);
    conn->acceptance = acceptance;
    while ((request = steady__pipeline_take_unwritten(&conn->pipeline)) != NULL)
        if (!connection_is_handshake(conn, request)) steady__list_prepend(&conn->waiting, &request->place);
    if (reconnect_now) {
        conn->down_error = error;
        connection_retry_in(conn, steady__jitter(conn->options.net, RECONNECT_SPREAD));
    } else {
        connection_mark_down(conn, error);
    }
    connection_report_loss(conn, reason);
}

static bool connection_awaits_reply(const struct steady__connection *conn) {
    return !steady__pipeline_idle(&conn->pipeline) || steady__pipeline_unread(&conn->pipeline);
}

/* Whether a reply is due and nothing arrived for a timeout. Read first; otherwise received bytes count as silence. */
static bool connection_is_silent(const struct steady__connection *conn) {
    return connection_awaits_reply(conn) && connection_now(conn) - conn->quiet_since >= conn->options.timeout;
}

/* ---- Writing ---- */

/* ASKING is written together with its command, because the server applies it to the next command. */
static bool connection_encode_next(struct steady__connection *conn, steady_us expected_latency) {
    struct steady__request *request = REQUEST(conn->waiting.next);
    if (steady__pipeline_idle(&conn->pipeline) && steady__pipeline_unread(&conn->pipeline))
        return false; /* otherwise an unasked reply would be taken for the answer */
    const size_t ahead = request->send_asking ? sizeof STEADY__ASKING - 1 : 0;
    char *room =
        steady__pipeline_room(&conn->pipeline, ahead > 0 ? 2 : 1, ahead + STEADY__REQUEST_MAX + request->extra);
    if (room == NULL) return false;
    if (steady__pipeline_idle(&conn->pipeline)) conn->quiet_since = conn->pipeline.clock;
    request->expected_latency = expected_latency;
    steady__list_remove(&request->place);
    const size_t len = conn->options.owner_class->encode(conn->options.owner, request, &conn->engines, room + ahead);
    if (len == 0) {
        request->state = connection_is_silent(conn) ? STEADY__REQUEST_OFF_WIRE : STEADY__REQUEST_TOO_LATE;
        conn->dropped++;
        return true;
    }
    memcpy(room, STEADY__ASKING, ahead);
    if (ahead > 0) steady__pipeline_put(&conn->pipeline, NULL, ahead);
    steady__pipeline_put(&conn->pipeline, request, len);
    return true;
}

static bool connection_encode_all(struct steady__connection *conn, steady_us expected_latency) {
    bool any = false;
    while (!steady__list_empty(&conn->waiting) && conn->dropped < DROPPED_PER_TURN &&
           connection_encode_next(conn, expected_latency))
        any = true;
    return any;
}

static bool connection_encode_waiting(struct steady__connection *conn) {
    if (steady__list_empty(&conn->waiting)) return false;
    conn->pipeline.clock = connection_now(conn);
    return connection_encode_all(conn, steady__pipeline_look(&conn->pipeline));
}

/* Sends the waiting requests between two received replies. The window is adapted only when all of them are read. The
 * clock stays at the time of receiving, because the latency of the other replies counts until then. */
static void connection_send_early(struct steady__connection *conn) {
    const steady_us received = conn->pipeline.clock;
    const struct steady__window *window = &conn->pipeline.window;
    if (conn->state != UP) return;
    conn->quiet_since = conn->pipeline.clock = connection_now(conn); /* replies are there: this is no silence */
    (void)connection_encode_all(conn, steady__window_expected_latency(window, window->seen_age));
    (void)steady__pipeline_flush(&conn->pipeline); /* the end of the handler sends what the system did not take */
    conn->pipeline.clock = received;
}

/* Sends the waiting requests. Runs no callback: the handler of the socket handles a failed send. */
static void connection_flush(struct steady__connection *conn) {
    unsigned sends = 0;
    bool encoded, taken;
    do {
        encoded = conn->state == UP && connection_encode_waiting(conn);
        taken = steady__pipeline_flush(&conn->pipeline);
    } while (encoded && taken && conn->dropped < DROPPED_PER_TURN && ++sends < SENDS_PER_TURN);
    if (connection_awaits_reply(conn) && !conn->alarm.set) steady__alarm_set(&conn->alarm, connection_stall_time(conn));
    taken = taken && conn->dropped < DROPPED_PER_TURN && sends < SENDS_PER_TURN;
    conn->dropped = 0;
    steady__watch_want(&conn->watch, taken ? STEADY_READABLE : STEADY_READABLE | STEADY_WRITABLE);
}

/* ---- Reading ---- */

static void connection_handshake_done(struct steady__connection *conn) {
    conn->state = UP;
    conn->known_down = false;
    conn->role.since = connection_now(conn);
    steady__alarm_stop(&conn->alarm);
    connection_update_readiness(conn);
}

static void connection_handshake_replied(struct steady__connection *conn, enum steady__handshake_step which,
                                         const struct steady__reply *reply) {
    char why[200];
    bool name_refused = false;
    switch (
        steady__handshake_reply(which, conn->options.url, steady__role_expected(&conn->role), reply, why, sizeof why)) {
    case STEADY__HANDSHAKE_FAILED: connection_drop(conn, STEADY_UNAVAILABLE, CLIENT_ACCEPTED, why); return;
    case STEADY__HANDSHAKE_REFUSED: connection_drop(conn, STEADY_REFUSED, CLIENT_ACCEPTED, why); return;
    case STEADY__HANDSHAKE_OK:
        if (which == STEADY__HANDSHAKE_ROLE) steady__role_confirmed(&conn->role);
        break;
    case STEADY__HANDSHAKE_ROLE_UNKNOWN: break;
    case STEADY__HANDSHAKE_NAME_REFUSED: name_refused = !conn->name_refused; break;
    }
    if (--conn->handshake_steps_due == 0) connection_handshake_done(conn);
    if (!name_refused) return;
    conn->name_refused = true;
    steady__log_warn(&conn->log, "the server refuses the client name", why); /* may close the connection */
}

/* ---- Draining ---- */

static void connection_finish_draining(struct steady__connection *conn) {
    connection_drop(conn, STEADY_UNAVAILABLE, CLIENT_ACCEPTED,
                    conn->drain_reason == SERVER_MOVED ? "the server has moved" : "the server is not a primary");
}

/* The requests on the wire are answered soon, or end at their deadlines. */
static void connection_start_draining(struct steady__connection *conn, enum drain_reason reason) {
    if (conn->state != DRAINING) steady__alarm_set(&conn->alarm, conn->options.timeout);
    if (conn->state != DRAINING || reason == SERVER_MOVED) conn->drain_reason = reason;
    conn->state = DRAINING;
}

/* ---- Acting on replies ---- */

static void connection_note_good_reply(struct steady__connection *conn) {
    if (conn->state == DRAINING ? conn->role.suspect
                                : !steady__role_not_contradicted(&conn->role, conn->pipeline.clock))
        return;
    conn->answered = true;
    steady__backoff_reset(&conn->backoff);
}

/* request: NULL if the reply matches no request or cannot be parsed. full: if the server accepts no clients, why. */
static void connection_act_on_reply(struct steady__connection *conn, enum steady__reply_action what,
                                    struct steady__request *request, const char *full) {
    switch (what) {
    case STEADY__REPLY_ACCEPTED:
    case STEADY__REPLY_RESENT: connection_note_good_reply(conn); break;
    case STEADY__REPLY_UNTRUSTED:
        conn->answered = false;
        if (request != NULL && request->key != NULL) {
            request->state = STEADY__REQUEST_LOST;
            steady__list_prepend(&conn->lost_sent, &request->place);
        }
        connection_drop(conn, STEADY_UNAVAILABLE, CLIENT_ACCEPTED, "the server sent an unexpected reply");
        break;
    case STEADY__REPLY_NOT_PRIMARY:
        steady__list_append(&conn->waiting, &request->place);
        if (conn->state == DRAINING) break;
        /* The first contradiction reconnects at once; a further one counts as a failed attempt. */
        conn->answered = steady__role_contradicted(&conn->role, connection_now(conn));
        connection_start_draining(conn, SERVER_NOT_PRIMARY);
        break;
    case STEADY__REPLY_REJECTED:
        connection_drop(conn, STEADY_UNAVAILABLE, conn->answered ? CLIENT_ACCEPTED : CLIENT_REJECTED, full);
        break;
    }
}

/* Whether the reply shows if the server makes decisions. Some commands are answered even while it makes none. */
static bool connection_shows_server_state(const struct steady__connection *conn, const struct steady__request *request,
                                          bool error) {
    return request != NULL ? request->key != NULL : error || conn->circuit.open;
}

/* Call it while the reply is valid: the callback of a request may end the connection. */
static void connection_note_reason(const struct steady__connection *conn, const struct steady__request *request,
                                   const struct steady__reply *reply, char *why, size_t size) {
    struct steady__secrets secrets = {.url = conn->options.url};
    if (request != NULL) secrets = steady__request_secrets(request, conn->options.url);
    steady__redact(why, size, reply->text, reply->text_len, &secrets);
}

/* The log comes last: it may run the loop, and anything may end inside. */
static void connection_reply_received(struct steady__connection *conn, struct steady__request *request,
                                      const struct steady__reply *reply) {
    char why[200] = "";
    const uint64_t epoch = conn->epoch;
    enum steady__circuit_event news = STEADY__CIRCUIT_NOTHING;
    if (connection_shows_server_state(conn, request, reply->kind == STEADY__REPLY_ERROR))
        news = steady__circuit_reply(&conn->circuit, reply, &conn->options.loop);
    if (steady__log_needs_reason(&conn->log, &conn->options.loop, news))
        connection_note_reason(conn, request, reply, why, sizeof why);
    const char *full = steady__handshake_rejection(reply);
    enum steady__reply_action what = STEADY__REPLY_ACCEPTED;
    if (request != NULL)
        what = conn->options.owner_class->answered(conn->options.owner, request, &conn->engines, reply);
    if (full != NULL && what == STEADY__REPLY_ACCEPTED) what = STEADY__REPLY_REJECTED;
    if (conn->epoch == epoch && (request != NULL || full != NULL)) connection_act_on_reply(conn, what, request, full);
    if (conn->epoch == epoch && what == STEADY__REPLY_ACCEPTED && !conn->role.suspect)
        steady__log_reply(&conn->log, &conn->options.loop, news, why);
}

/* Whether received bytes wait that the loop cannot see, because they are in our buffers. */
static bool connection_has_unread(const struct steady__connection *conn) {
    return steady__pipeline_unread(&conn->pipeline) || steady__pipeline_pending(&conn->pipeline);
}

/* False if the connection is gone, or a callback forked.
 *
 * If replies to all requests come at once, the server has nothing to do until the next requests come. So the requests
 * of the first half are sent when half of the replies are processed. From then on the server works on one half while we
 * process the other. */
static bool connection_process_replies(struct steady__connection *conn) {
    struct steady__reply reply;
    struct steady__request *request;
    const uint64_t epoch = conn->epoch;
    uint64_t processed = 0;
    int got;
    while ((got = steady__pipeline_next(&conn->pipeline, &reply, &request)) > 0) {
        if (connection_has_unread(conn))
            steady__watch_want(&conn->watch, STEADY_READABLE | STEADY_WRITABLE); /* a callback may run the loop */
        if (request != NULL && connection_is_handshake(conn, request))
            connection_handshake_replied(conn, (enum steady__handshake_step)(request - conn->handshake_steps), &reply);
        else
            connection_reply_received(conn, request, &reply);
        if (conn->epoch != epoch || steady__forked(conn->options.fork_guard)) return false;
        if (++processed < HALF_LEAST || processed < conn->pipeline.tail - conn->pipeline.head) continue;
        processed = 0;
        if (connection_has_unread(conn)) connection_send_early(conn);
    }
    if (got < 0) {
        const char *full = steady__handshake_rejection(&reply);
        connection_act_on_reply(conn, full != NULL ? STEADY__REPLY_REJECTED : STEADY__REPLY_UNTRUSTED, NULL, full);
    }
    if (got == 0 && conn->state == DRAINING && steady__pipeline_idle(&conn->pipeline)) connection_finish_draining(conn);
    return conn->epoch == epoch;
}

/* error: an errno; 0: the end of the stream. */
static void connection_lost(struct steady__connection *conn, int error) {
    const bool rejected = steady__pipeline_was_rejected(&conn->pipeline);
    connection_drop(conn, rejected ? STEADY_REFUSED : STEADY_UNAVAILABLE, rejected ? CLIENT_REJECTED : CLIENT_ACCEPTED,
                    steady__pipeline_error_text(&conn->pipeline, error));
}

/* Reads about *left bytes, and all that TLS has decrypted. The loop knows of the rest. After a failed send, reads to
 * the end, because replies may have arrived. */
static void connection_read_replies(struct steady__connection *conn, size_t *left) {
    while (*left > 0 || steady__pipeline_pending(&conn->pipeline) || conn->pipeline.broken != 0) {
        const ssize_t n = steady__pipeline_receive(&conn->pipeline);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            connection_lost(conn, n < 0 ? errno : conn->pipeline.broken);
            return;
        }
        *left -= (size_t)n < *left ? (size_t)n : *left;
        conn->quiet_since = conn->pipeline.clock = connection_now(conn);
        if (!connection_process_replies(conn) ||
            (n < STEADY__PIPELINE_IN / 2 && !steady__pipeline_pending(&conn->pipeline)))
            return;
    }
}

static void connection_on_socket(void *arg, int events) {
    struct steady__connection *conn = arg;
    if (!connection_enter_handler(conn)) return;
    const uint64_t epoch = conn->epoch;
    size_t portion = PORTION;
    const bool goes_on = !steady__pipeline_unread(&conn->pipeline) ||
                         connection_process_replies(conn); /* a callback may be running the loop */
    const bool more = (events & STEADY_READABLE) != 0 || steady__pipeline_pending(&conn->pipeline);
    if (goes_on && (more || conn->pipeline.broken != 0)) connection_read_replies(conn, &portion);
    if (conn->epoch == epoch && conn->pipeline.broken != 0) connection_lost(conn, conn->pipeline.broken);
    connection_leave_handler(conn);
}

void steady__connection_catch_up(struct steady__connection *conn, size_t *left) {
    size_t portion = PORTION;
    if (!connection_enter_handler(conn)) return;
    if (steady__pipeline_awaits_nested(&conn->pipeline)) left = &portion; /* adopting a map takes time, too */
    if ((conn->state == UP || conn->state == DRAINING) && connection_process_replies(conn))
        connection_read_replies(conn, left); /* perhaps inside the callback of a reply */
    connection_leave_handler(conn);
}

/* ---- Connecting ---- */

static void connection_send_handshake(struct steady__connection *conn) {
    conn->handshake_steps_due = 0;
    for (int i = 0; i < STEADY__HANDSHAKE_STEPS; i++) {
        char *room = steady__pipeline_room(&conn->pipeline, 1, STEADY__REQUEST_MAX);
        const size_t len = steady__handshake_encode(room, (enum steady__handshake_step)i, conn->options.url,
                                                    conn->options.client_name, steady__role_expected(&conn->role));
        if (len == 0) continue;
        conn->handshake_steps[i].nested = i == STEADY__HANDSHAKE_ROLE ? STEADY__NESTED : 0;
        steady__pipeline_put(&conn->pipeline, &conn->handshake_steps[i], len);
        conn->handshake_steps_due++;
    }
}

static void connection_socket_connected(struct steady__connection *conn, const struct steady__connect_result *result) {
    steady__pipeline_open(&conn->pipeline, result->fd, result->tls, conn->options.timeout, result->round_trip);
    conn->pipeline.clock = connection_now(conn);
    conn->epoch++;
    if (conn->connections++ > 0 && conn->options.reconnects != NULL) steady__counter_add(conn->options.reconnects, 1);
    conn->answered = conn->circuit.open = conn->role.confirmed = false;
    conn->engines = steady__engine_reconnected(&conn->engines);
    if (steady__watch_start(&conn->watch, &conn->options.loop, result->fd, STEADY_READABLE, connection_on_socket,
                            conn) != 0) {
        connection_drop(conn, STEADY_UNAVAILABLE, CLIENT_ACCEPTED,
                        "out of memory: the event loop cannot watch the socket");
        return;
    }
    connection_send_handshake(conn);
    conn->state = HANDSHAKING;
    steady__alarm_set(&conn->alarm, connection_attempt_timeout(conn));
    if (conn->handshake_steps_due == 0) connection_handshake_done(conn);
}

static void connection_attempt_done(void *arg, const struct steady__connect_result *result) {
    struct steady__connection *conn = arg;
    if (!connection_enter_handler(conn)) return;
    if (result->fd >= 0)
        connection_socket_connected(conn, result);
    else
        connection_give_up_attempt(conn, result->error, result->why);
    connection_leave_handler(conn);
}

static void connection_start_attempt(struct steady__connection *conn) {
    if (conn->options.finder != NULL) {
        conn->state = FINDING;
        conn->options.finder->find(conn->options.finder, conn);
    } else {
        conn->state = CONNECTING;
        steady__connect_start(&conn->attempt);
    }
}

/* The alarm of RESTING. Returning requests may have taken a part of the pause. The caller's clock may step. */
static void connection_rested(struct steady__connection *conn) {
    const steady_us left = conn->rest_until - connection_now(conn);
    if (connection_continue_returning(conn)) return;
    if (conn->returning_lost && left > 0 && left <= conn->rest_delay)
        steady__alarm_set(&conn->alarm, left);
    else
        connection_start_attempt(conn);
    conn->returning_lost = false;
}

static void connection_check_stall(struct steady__connection *conn) {
    const uint64_t epoch = conn->epoch;
    size_t portion = PORTION;
    if (!connection_awaits_reply(conn)) return;
    connection_read_replies(conn, &portion); /* the loop may have been held */
    if (conn->epoch != epoch || !connection_awaits_reply(conn)) return;
    const steady_us quiet = connection_now(conn) - conn->quiet_since;
    if (conn->state == DRAINING)
        connection_finish_draining(conn);
    else if (conn->state == HANDSHAKING || quiet >= connection_stall_time(conn))
        connection_drop(conn, STEADY_UNAVAILABLE, CLIENT_ACCEPTED, "the server does not answer");
    else
        steady__alarm_set(&conn->alarm, connection_stall_time(conn) - quiet);
}

static void connection_on_alarm(void *arg) {
    struct steady__connection *conn = arg;
    if (!connection_enter_handler(conn)) return;
    const bool due = steady__alarm_rang(&conn->alarm);
    connection_return_lost(conn); /* a callback inside connection_return_lost may be running the loop */
    const bool goes_on = due && !steady__forked(conn->options.fork_guard);
    if (goes_on && conn->state == RESTING)
        connection_rested(conn);
    else if (goes_on && connection_has_socket(conn))
        connection_check_stall(conn);
    connection_leave_handler(conn);
}

/* ---- Calls of the finder ---- */

void steady__connection_found(struct steady__connection *conn, const struct steady__url *at) {
    if (conn->state != FINDING || !connection_enter_handler(conn)) return;
    conn->attempt.url = at;
    steady__log_set_server(&conn->log, at, conn->options.url);
    conn->state = CONNECTING;
    steady__connect_start(&conn->attempt);
    connection_leave_handler(conn);
}

void steady__connection_not_found(struct steady__connection *conn, int error, const char *why) {
    if (conn->state != FINDING || !connection_enter_handler(conn)) return;
    connection_give_up_attempt(conn, error, why);
    connection_leave_handler(conn);
}

void steady__connection_server_moved(struct steady__connection *conn) {
    if (!connection_enter_handler(conn)) return;
    if (conn->state == RESTING) {
        connection_retry_in(conn, 0);
    } else if (conn->state == CONNECTING) {
        steady__connect_stop(&conn->attempt);
        connection_start_attempt(conn);
    } else if (connection_has_socket(conn)) {
        const bool handshaking = conn->state == HANDSHAKING;
        connection_start_draining(conn, SERVER_MOVED);
        if (handshaking || steady__pipeline_idle(&conn->pipeline)) connection_finish_draining(conn);
    }
    connection_leave_handler(conn);
}

/* ---- Calls of the owner ---- */

static void connection_resume(struct steady__connection *conn) {
    const steady_us wait = conn->resumes_at - connection_now(conn);
    conn->paused = false;
    connection_retry_in(conn, wait > 0 ? wait : 0);
}

int steady__connection_submit(struct steady__connection *conn, struct steady__request *request) {
    if (conn->paused) connection_resume(conn);
    const bool trying = conn->options.patient && conn->state > RESTING && conn->state < UP;
    if (conn->state < UP && conn->known_down && !trying) return conn->down_error;
    if (request->key != NULL && steady__circuit_holds(&conn->circuit, &conn->options.loop)) return STEADY_UNAVAILABLE;
    request->state = STEADY__REQUEST_OFF_WIRE;
    steady__list_append(&conn->waiting, &request->place);
    if (conn->state != UP) return 0;
    const bool unread = connection_has_unread(conn);
    if (steady__pipeline_idle(&conn->pipeline) && !unread)
        connection_flush(conn);
    else if ((conn->depth == 0 || unread) && !steady__pipeline_full(&conn->pipeline))
        steady__watch_want(&conn->watch, STEADY_READABLE | STEADY_WRITABLE);
    return 0;
}

int steady__connection_forget(struct steady__connection *conn, struct steady__request *request, bool held) {
    if (request->state == STEADY__REQUEST_ON_WIRE) {
        steady__pipeline_forget(&conn->pipeline, request);
        return conn->pipeline.fd >= 0 || conn->acceptance == CLIENT_ACCEPTED ? STEADY_UNKNOWN : STEADY_UNAVAILABLE;
    }
    steady__list_remove(&request->place);
    if (request->state == STEADY__REQUEST_LOST) return STEADY_UNKNOWN;
    const bool ours = request->state == STEADY__REQUEST_TOO_LATE ||
                      (steady__connection_is_up(conn) ? !connection_is_silent(conn) : held);
    return ours ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
}

bool steady__connection_is_up(const struct steady__connection *conn) { return conn->state == UP; }

bool steady__connection_was_up(const struct steady__connection *conn) { return conn->connections > 0; }

void steady__connection_pause(struct steady__connection *conn) {
    const bool rests = conn->state == RESTING && conn->alarm.set, dials = conn->state == CONNECTING;
    if (conn->connections > 0 || conn->paused || !steady__connection_is_idle(conn) || (!rests && !dials)) return;
    if (dials && (conn->options.finder != NULL || steady__connection_looks_up(conn))) return;
    if (dials)
        conn->resumes_at = connection_now(conn) + steady__reconnect_pause(&conn->backoff, conn->options.net, false);
    if (rests) conn->resumes_at = conn->alarm.due;
    steady__connect_stop(&conn->attempt);
    steady__alarm_stop(&conn->alarm);
    conn->state = RESTING;
    conn->paused = true;
}

bool steady__connection_looks_up(const struct steady__connection *conn) {
    return steady__connect_looks_up(&conn->attempt);
}

bool steady__connection_is_idle(const struct steady__connection *conn) {
    return steady__list_empty(&conn->waiting) && steady__list_empty(&conn->lost_sent) &&
           steady__list_empty(&conn->lost_unsent) && steady__pipeline_idle(&conn->pipeline);
}

const char *steady__connection_activity(const struct steady__connection *conn) {
    if (conn->state == CONNECTING) return steady__connect_activity(&conn->attempt);
    if (conn->state == HANDSHAKING) return "waiting for the handshake";
    return connection_has_socket(conn) && !steady__pipeline_idle(&conn->pipeline) ? "queued behind earlier requests"
                                                                                  : NULL;
}

enum steady_state steady__readiness_state(const struct steady__readiness *readiness) {
    if (steady__counter_get(&readiness->in[STEADY_READY]) > 0) return STEADY_READY;
    return steady__counter_get(&readiness->in[STEADY_DOWN]) > 0 ? STEADY_DOWN : STEADY_CONNECTING;
}

struct steady__connection *steady__connection_open(const struct steady__connection_options *options) {
    struct steady__connection *conn = calloc(1, sizeof *conn);
    if (conn == NULL) return NULL;
    conn->options = *options;
    conn->down_error = STEADY_UNAVAILABLE;
    conn->backoff = STEADY__RECONNECT_BACKOFF;
    conn->circuit.net = options->net;
    conn->role.wanted = options->role;
    steady__list_init(&conn->waiting);
    steady__list_init(&conn->lost_sent);
    steady__list_init(&conn->lost_unsent);
    conn->log.log = options->log;
    conn->log.log_data = options->log_data;
    steady__log_set_server(&conn->log, options->url, options->url);
    conn->attempt = (struct steady__connect){.net = options->net,
                                             .loop = &conn->options.loop,
                                             .url = options->url,
                                             .tls_context = options->tls,
                                             .fork_guard = options->fork_guard,
                                             .address_timeout = connection_attempt_timeout(conn),
                                             .lookup_timeout = LOOKUP_TIMEOUT,
                                             .lookups_under_way = options->lookups,
                                             .unanswered = connection_stall_time(conn),
                                             .done = connection_attempt_done,
                                             .arg = conn};
    const uint32_t slots = (uint32_t)connection_max_us(options->max_unanswered, STEADY__HANDSHAKE_STEPS);
    if (steady__pipeline_init(&conn->pipeline, options->net, slots) == 0 &&
        steady__alarm_new(&conn->alarm, &conn->options.loop, connection_on_alarm, conn) == 0 &&
        steady__connect_init(&conn->attempt) == 0) {
        connection_retry_in(conn, 0);
        if (conn->options.readiness != NULL) steady__counter_add(&conn->options.readiness->in[STEADY_CONNECTING], 1);
        return conn;
    }
    steady__alarm_free(&conn->alarm);
    connection_destroy(conn);
    return NULL;
}

/* A forked child leaves the parent's loop, which it may share, and the memory that the loop points at. */
static void connection_close_in_child(struct steady__connection *conn) {
    if (conn->options.finder != NULL) conn->options.finder->close(conn->options.finder);
    if (conn->pipeline.fd >= 0) steady__fork_guard_detach(conn->pipeline.fd);
    if (conn->attempt.fd >= 0) steady__fork_guard_detach(conn->attempt.fd);
}

void steady__connection_close(struct steady__connection *conn) {
    if (conn == NULL) return;
    if (conn->options.readiness != NULL)
        steady__counter_add(&conn->options.readiness->in[conn->counted_as], (uint64_t)-1);
    if (steady__forked(conn->options.fork_guard)) {
        connection_close_in_child(conn);
        return;
    }
    if (conn->state == UP && !steady__list_empty(&conn->waiting)) connection_flush(conn);
    conn->state = CLOSED;
    conn->epoch++;
    if (conn->options.finder != NULL) conn->options.finder->close(conn->options.finder);
    steady__connect_free(&conn->attempt);
    steady__alarm_free(&conn->alarm);
    steady__watch_stop(&conn->watch);
    steady__pipeline_close(&conn->pipeline);
    if (conn->depth == 0) connection_destroy(conn);
}
