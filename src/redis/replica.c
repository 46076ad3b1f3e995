/* SPDX-License-Identifier: MIT
 * Sends peeks to a replica of the server, and everything else to the server.
 *
 * The server is asked for its ROLE, over the connection that exists anyway. The reply lists the replicas that are
 * online. One of them, chosen at random, gets a connection, and must confirm by ROLE that it is a replica and
 * connected. ROLE is asked again each LOOK. A replica that the server has lost is left, so that peeks are not much
 * older than that.
 *
 * A peek goes to the replica if its connection is up and the replica is not slow; otherwise to the server. A peek
 * charges nothing. So a peek that the replica does not answer, for any reason but its deadline, is sent to the server
 * too.
 *   - A replica that refuses what the server may allow (rights are not replicated) is left for another one. For a LOOK
 *     no replica is used.
 *   - If a redirect shows a cluster, no replica is used any more: there a replica answers only for its own slots, and
 *     only on demand.
 *
 * A peek that was sent and misses its deadline is lost, and shows that the replica is slow. Then it is left for another
 * one, if there is one. The chosen replica gets no peek for a pause. After the pause it gets a single peek, the probe,
 * with nothing ahead of it. If the probe is answered in time, all peeks go to the replica again. If not, another pause
 * begins, twice as long. The length of the pause is reset only after CALM without a late peek: a replica may answer a
 * single peek quickly, and be slow under all of them. */
#include "redis/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/backoff.h"
#include "conn/resp.h"

#define LOOK STEADY_SECOND
#define PAUSE_FIRST STEADY_SECOND
#define PAUSE_LAST (30 * STEADY_SECOND)
#define CALM (30 * STEADY_SECOND) /* without a late peek; then the next pause is the first again */
#define HOST_MAX 255

struct address {
    char host[HOST_MAX + 1];
    uint16_t port;
};

enum replica_mode {
    REPLICA_FAST,
    REPLICA_SLOW,   /* the chosen replica was late, and has answered no probe since; look for another one */
    REPLICA_UNUSED, /* the server belongs to a cluster: no replica is used any more */
};

struct steady__replica {
    struct steady__finder finder;
    struct steady__connection_options options;
    struct steady__cluster *server;
    struct steady__connection *conn; /* to the replica */
    struct steady__request question; /* ROLE */
    bool role_in_flight;             /* ROLE is in flight */
    bool conn_waits;                 /* the connection to the replica waits for it */
    steady_us look_at;               /* the earliest time of the next ROLE; 0: none was sent yet */
    steady_us rests_until;           /* until then no peek goes to a replica */
    enum replica_mode mode;
    struct steady__backoff backoff; /* before each probe */
    steady_us probe_at;             /* the time of the next probe; 0: all peeks go to the replica */
    const struct steady__request *probe;
    steady_us trusted_at; /* the last answered probe */
    bool closed;
    unsigned depth;
    struct steady__alarm alarm;
    struct address at; /* the chosen replica */
    struct steady__url url;
    struct steady__last_error last_error; /* of the connection */
};

/* ---- The replicas of the server ---- */

static bool replica_take_text(struct steady__walk *walk, char *out, size_t size) {
    struct steady__value value;
    if (!steady__walk_next(walk, &value) || value.kind != STEADY__VALUE_TEXT) return false;
    if (value.text_len == 0 || value.text_len >= size || memchr(value.text, '\0', value.text_len) != NULL) return false;
    for (size_t i = 0; i < value.text_len; i++)
        if (value.text[i] <= ' ' || value.text[i] >= 0x7f) return false;
    memcpy(out, value.text, value.text_len);
    out[value.text_len] = '\0';
    return true;
}

/* Reads a replica: an array of host, port and offset. False if it cannot be asked: redis-cli --replica shows up with
 * port 0. */
static bool replica_read_address(struct steady__walk *walk, struct address *address) {
    struct steady__walk entry = *walk;
    struct steady__value head;
    char digits[8], *end = NULL;
    steady__walk_skip(walk);
    if (!steady__walk_next(&entry, &head) || head.kind != STEADY__VALUE_ARRAY || head.number != 3) return false;
    if (!replica_take_text(&entry, address->host, sizeof address->host) ||
        !replica_take_text(&entry, digits, sizeof digits))
        return false;
    const unsigned long port = strtoul(digits, &end, 10);
    address->port = (uint16_t)port;
    return *end == '\0' && port > 0 && port <= UINT16_MAX;
}

/* Moves to the replicas in the reply of a primary, and returns their number; 0: another reply. */
static int64_t replica_find_list(struct steady__walk *walk) {
    struct steady__value head = {0}, role = {0}, offset = {0}, list = {0};
    if (!steady__walk_next(walk, &head) || !steady__walk_next(walk, &role) || !steady__walk_next(walk, &offset))
        return 0;
    if (head.kind != STEADY__VALUE_ARRAY || role.text_len != 6 || memcmp(role.text, "master", 6) != 0) return 0;
    return steady__walk_next(walk, &list) && list.kind == STEADY__VALUE_ARRAY ? list.number : 0;
}

static bool replica_is_found_last(const struct steady__replica *r, const struct address *address) {
    return address->port == r->at.port && strcmp(address->host, r->at.host) == 0;
}

/* Chooses a random replica other than the last one; the last one if there is no other. *still: the last one is listed.
 */
static bool replica_choose(const struct steady__replica *r, const struct steady__reply *reply, struct address *chosen,
                           bool *still) {
    struct steady__walk walk = steady__walk_over(reply);
    struct address one;
    uint64_t others = 0;
    *still = false;
    for (int64_t left = replica_find_list(&walk); left > 0; left--) {
        if (!replica_read_address(&walk, &one)) continue;
        if (replica_is_found_last(r, &one))
            *still = true;
        else if (r->options.net->random(r->options.net) % ++others == 0)
            *chosen = one;
    }
    if (others == 0 && *still) *chosen = r->at;
    return others > 0 || *still;
}

/* ---- The finder ---- */

static void replica_not_found(struct steady__replica *r, const char *why) {
    if (!r->conn_waits) return;
    r->conn_waits = false;
    steady__connection_not_found(r->conn, STEADY_UNAVAILABLE, why);
}

static void replica_role_received(struct steady__replica *r, const struct steady__reply *reply) {
    struct address chosen;
    bool still;
    steady__alarm_set(&r->alarm, LOOK);
    if (!replica_choose(r, reply, &chosen, &still)) {
        const bool lost = !r->conn_waits;
        r->at.port = 0;
        replica_not_found(r, "the primary lists no usable replica");
        if (lost) steady__connection_server_moved(r->conn);
        return;
    }
    const bool other = !replica_is_found_last(r, &chosen);
    if (r->conn_waits) {
        r->conn_waits = false;
        if (other && r->mode == REPLICA_SLOW) r->mode = REPLICA_FAST;
        r->at = chosen;
        r->url.port = chosen.port;
        steady__connection_found(r->conn, &r->url);
    } else if (!still || (r->mode == REPLICA_SLOW && other)) {
        steady__connection_server_moved(r->conn);
    }
}

/* It is too early for ROLE, or no replica is used: the connection finds none, and returns its requests. */
static void replica_skip_lookup(struct steady__replica *r) {
    if (r->mode != REPLICA_UNUSED) steady__alarm_set(&r->alarm, r->look_at - steady__loop_now(&r->options.loop));
    if (r->conn_waits)
        replica_not_found(r, "the next search for a replica has not started");
    else if (r->mode == REPLICA_UNUSED)
        steady__connection_server_moved(r->conn);
}

static void replica_request_role(struct steady__replica *r) {
    r->look_at = steady__loop_now(&r->options.loop) + LOOK;
    r->question.at = NULL;
    r->role_in_flight = steady__cluster_class.submit(r->server, &r->question) == 0;
    if (r->role_in_flight) return;
    steady__alarm_set(&r->alarm, LOOK);
    replica_not_found(r, "the primary is not connected");
}

static void replica_on_alarm(void *arg) {
    struct steady__replica *r = arg;
    if (steady__forked(r->options.fork_guard) || !steady__alarm_rang(&r->alarm)) return;
    if (r->role_in_flight) return;
    if (r->mode == REPLICA_UNUSED || (r->look_at != 0 && steady__loop_now(&r->options.loop) < r->look_at))
        replica_skip_lookup(r);
    else
        replica_request_role(r);
}

static void replica_find(struct steady__finder *finder, struct steady__connection *conn) {
    struct steady__replica *r = (struct steady__replica *)finder;
    r->conn = conn;
    r->conn_waits = true;
    const bool wanted = r->mode != REPLICA_UNUSED && !r->alarm.set; /* otherwise the next LOOK is soon enough */
    if (!r->role_in_flight && (wanted || !steady__connection_is_idle(conn))) steady__alarm_set(&r->alarm, 0);
}

static void replica_finder_closed(struct steady__finder *finder) { (void)finder; }

/* ---- Called by the connections to the server ---- */

static size_t replica_encode(void *owner, struct steady__request *request, struct steady__engines *engines, char *out) {
    struct steady__replica *r = owner;
    if (request->redirects > 0 && r->mode != REPLICA_UNUSED) {
        r->mode = REPLICA_UNUSED; /* a redirect: this is a cluster */
        steady__alarm_set(&r->alarm, 0);
    }
    if (request != &r->question) return r->options.owner_class->encode(r->options.owner, request, engines, out);
    return steady__resp_command(out, 1, (const char *const[]){"ROLE"});
}

/* The owner may close everything, so touch nothing after calling it. */
static enum steady__reply_action replica_server_answered(void *owner, struct steady__request *request,
                                                         struct steady__engines *engines,
                                                         const struct steady__reply *reply) {
    struct steady__replica *r = owner;
    if (request != &r->question) return r->options.owner_class->answered(r->options.owner, request, engines, reply);
    r->role_in_flight = false;
    if (r->mode == REPLICA_UNUSED)
        steady__alarm_set(&r->alarm, 0);
    else
        replica_role_received(r, reply);
    return STEADY__REPLY_ACCEPTED;
}

static void replica_server_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__replica *r = owner;
    if (request != &r->question) {
        r->options.owner_class->unanswered(r->options.owner, request, written, error);
        return;
    }
    r->role_in_flight = false;
    steady__alarm_set(&r->alarm, LOOK);
    replica_not_found(r, "the server does not answer");
}

static const struct steady__connection_owner server_owner = {replica_encode, replica_server_answered,
                                                             replica_server_unanswered};

/* ---- Called by the connection to the replica ---- */

static void replica_send_to_server(struct steady__replica *r, struct steady__request *request) {
    const int error = steady__cluster_class.submit(r->server, request);
    if (error != 0) r->options.owner_class->unanswered(r->options.owner, request, false, error);
}

static bool replica_is_resting(const struct steady__replica *r) {
    return r->rests_until != 0 && steady__loop_now(&r->options.loop) < r->rests_until;
}

static void replica_rest(struct steady__replica *r) {
    r->rests_until = steady__loop_now(&r->options.loop) + LOOK;
    steady__connection_server_moved(r->conn);
}

/* A probe was answered: all peeks may go to the replica. */
static void replica_mark_fast(struct steady__replica *r) {
    if (r->mode == REPLICA_SLOW) r->mode = REPLICA_FAST;
    r->probe = NULL;
    r->probe_at = 0;
    r->trusted_at = steady__loop_now(&r->options.loop);
}

/* Starts the next pause. A peek that was sent before the last pause began shows nothing new. */
static void replica_mark_slow(struct steady__replica *r, const struct steady__request *request) {
    const steady_us now = steady__loop_now(&r->options.loop);
    const bool probing = r->probe_at != 0;
    if (probing && request != r->probe) return;
    if (!probing && now - r->trusted_at >= CALM) steady__backoff_reset(&r->backoff);
    r->probe_at = now + steady__backoff_next(&r->backoff);
    r->probe = NULL;
    if (r->mode == REPLICA_FAST) r->mode = REPLICA_SLOW;
}

/* An idle connection owes no reply to a late peek either. */
static bool replica_takes_peeks(const struct steady__replica *r) {
    if (r->mode == REPLICA_UNUSED || replica_is_resting(r) || !steady__connection_is_up(r->conn)) return false;
    return r->probe_at == 0 ||
           (steady__loop_now(&r->options.loop) >= r->probe_at && steady__connection_is_idle(r->conn));
}

/* Whether inflight.c will use the other engine on this connection. If the user forces an engine, the state stays
 * UNTRIED. */
static bool replica_has_other_engine(enum steady__engine_state engine_state, const struct steady__reply *reply) {
    return engine_state != STEADY__ENGINE_UNTRIED && engine_state != STEADY__ENGINE_SCRIPT &&
           steady__error_is_forbidden_command(reply->text, reply->text_len);
}

/* An error of class OTHER to a command of the module shows that there is no module. If it was a script's error after
 * all, inflight.c would report it; the server can answer in both cases. */
static bool replica_learn_no_module(struct steady__engines *engines) {
    const enum steady__engine_state engine_state = engines->verbs[STEADY__PEEK].engine_state;
    if (engine_state != STEADY__ENGINE_TRYING && engine_state != STEADY__ENGINE_MODULE) return false;
    steady__engine_no_module(engines);
    return true;
}

/* Whether a peek with this error goes to the server. Not if the key holds another value: it does so there, too. Not if
 * a script is missing: it is loaded, unless the replica has just refused that. */
static bool replica_must_ask_server(struct steady__replica *r, struct steady__engines *engines,
                                    const struct steady__reply *reply) {
    const enum steady__error_class error_class = reply->error_class;
    const bool forbidden = error_class == STEADY__ERROR_CLASS_NO_PERMISSION,
               other = error_class == STEADY__ERROR_CLASS_OTHER;
    if (error_class == STEADY__ERROR_CLASS_NOT_A_BUCKET) return false;
    if (error_class == STEADY__ERROR_CLASS_NOSCRIPT) return replica_is_resting(r);
    if (forbidden && replica_has_other_engine(engines->verbs[STEADY__PEEK].engine_state, reply)) return false;
    if (other && replica_learn_no_module(engines)) return true;
    steady__engine_not_answered(engines);
    if (error_class == STEADY__ERROR_CLASS_MOVED) r->mode = REPLICA_UNUSED;
    if (forbidden || other)
        replica_rest(r);
    else
        steady__connection_server_moved(r->conn);
    return true;
}

static enum steady__reply_action replica_answered(void *owner, struct steady__request *request,
                                                  struct steady__engines *engines, const struct steady__reply *reply) {
    struct steady__replica *r = owner;
    const bool peek = request->key != NULL, error = reply->kind == STEADY__REPLY_ERROR;
    if (!peek && request->nested == 0 && error)
        replica_rest(r); /* it refuses scripts, so the next peeks would miss theirs */
    if (peek && reply->kind == STEADY__REPLY_TEXT) return STEADY__REPLY_UNTRUSTED;
    if (peek && !error && request == r->probe) replica_mark_fast(r);
    if (peek && error && replica_must_ask_server(r, engines, reply)) {
        replica_send_to_server(r, request);
        return STEADY__REPLY_RESENT;
    }
    return r->options.owner_class->answered(r->options.owner, request, engines, reply);
}

static void replica_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__replica *r = owner;
    if (request->key != NULL)
        replica_send_to_server(r, request);
    else
        r->options.owner_class->unanswered(r->options.owner, request, written, error);
}

static const struct steady__connection_owner replica_owner = {replica_encode, replica_answered, replica_unanswered};

/* ---- What the decisions in flight call ---- */

/* request->at is this struct if the connection to the replica has the request. */
static int replica_submit(void *transport, struct steady__request *request) {
    struct steady__replica *r = transport;
    if (request->key == NULL && request->at == r) return steady__connection_submit(r->conn, request);
    const bool wanted = request->key != NULL && request->read_only && replica_takes_peeks(r);
    if (!wanted || steady__connection_submit(r->conn, request) != 0)
        return steady__cluster_class.submit(r->server, request);
    request->at = r;
    if (r->probe_at != 0) r->probe = request;
    return 0;
}

static int replica_forget(void *transport, struct steady__request *request, bool held) {
    struct steady__replica *r = transport;
    if (request->at != r) return steady__cluster_class.forget(r->server, request, held);
    const int error = steady__connection_forget(r->conn, request, held);
    if (error == STEADY_UNKNOWN || request == r->probe) replica_mark_slow(r, request);
    return error;
}

static void replica_catch_up(void *transport) {
    struct steady__replica *r = transport;
    r->depth++;
    size_t left = STEADY__CATCH_UP;
    steady__connection_catch_up(r->conn, &left);
    if (!r->closed) steady__cluster_class.catch_up(r->server);
    if (--r->depth == 0 && r->closed) free(r);
}

/* A forked child leaves the memory that the parent's loop may point at. */
static void replica_close(void *transport) {
    struct steady__replica *r = transport;
    if (r->server != NULL) steady__cluster_class.close(r->server);
    steady__connection_close(r->conn);
    if (steady__forked(r->options.fork_guard)) return;
    steady__alarm_free(&r->alarm);
    r->closed = true;
    if (r->depth == 0) free(r);
}

static const char *replica_doing(void *transport, const struct steady__request *request) {
    struct steady__replica *r = transport;
    if (request->at == r) return steady__connection_activity(r->conn);
    return steady__cluster_class.doing(r->server, request);
}

static bool replica_divides(void *transport, const struct steady__request *request) {
    const struct steady__replica *r = transport;
    return steady__cluster_class.divides(r->server, request);
}

const struct steady__transport steady__replica_class = {replica_submit, replica_forget, replica_catch_up,
                                                        replica_close,  replica_doing,  replica_divides};

/* ---- Opening ---- */

static bool replica_open_both(struct steady__replica *r) {
    struct steady__connection_options options = r->options;
    options.owner = r;
    options.owner_class = &server_owner;
    r->server = steady__cluster_open(&options);
    if (r->server == NULL) return false;
    options.owner_class = &replica_owner;
    options.finder = &r->finder;
    options.role = STEADY__ROLE_REPLICA;
    options.last_error = &r->last_error;
    options.readiness = NULL; /* consume needs the primary */
    options.log = NULL;       /* peeks go on without a replica, so its loss is not logged */
    r->conn = steady__connection_open(&options);
    return r->conn != NULL;
}

struct steady__replica *steady__replica_open(const struct steady__connection_options *options) {
    struct steady__replica *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->options = *options;
    r->finder = (struct steady__finder){replica_find, replica_finder_closed};
    r->backoff = (struct steady__backoff){.first = PAUSE_FIRST, .last = PAUSE_LAST};
    r->question.nested = STEADY__NESTED;
    steady__list_init(&r->question.place);
    r->url.scheme = steady__url_has_tls(options->url->scheme) ? STEADY__URL_TLS : STEADY__URL_TCP;
    r->url.host = r->at.host;
    r->url.named = true;
    if (steady__alarm_new(&r->alarm, &r->options.loop, replica_on_alarm, r) == 0 && replica_open_both(r)) return r;
    replica_close(r);
    return NULL;
}
