/* SPDX-License-Identifier: MIT
 * Peeks put to a replica of the server, while there is one, and all else to the server.
 *
 * The server is asked for its ROLE, over the connection that there is anyhow: that lists the replicas which are online.
 * One of them, by chance, gets a link, and has to say itself that it is a replica and connected. The question is asked
 * again each LOOK, and a replica that the server has lost is left, so that peeks are not older than that for long.
 *
 * A peek goes to the replica if its link is up at that moment and it is not known to be slow, and else to the server.
 * Since nothing is charged for a peek, one that a replica does not answer for any reason but its deadline is put to the
 * server: sending it again can do no harm. A replica that refuses what may well be allowed at the server, as rights are
 * not replicated, is left, for another if there is one, and none is asked for a LOOK. A server that turns out to be a
 * cluster, by a redirect to or from it, is not asked this way any more, since there a replica answers for its own
 * slots, and only on demand.
 *
 * A peek that was sent and is not answered by its deadline is lost, and shows that the replica is slow. So that is left
 * for another if there is one; and whichever there is then gets no peek for a pause, and after it a single one, the
 * probe, with nothing ahead of it. A probe that is answered in time brings all peeks back; one that is not begins
 * another pause, twice as long. That length is forgotten only after a while without a late peek: a replica may answer a
 * single peek in no time, and be slow once it has all of them. */
#include "replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "script.h"

#define LOOK STEADY_SECOND
#define PAUSE_FIRST STEADY_SECOND
#define PAUSE_LAST (30 * STEADY_SECOND)
#define CALM (30 * STEADY_SECOND) /* without a late peek: the next pause is the first again */
#define HOST_MAX 255

struct address {
    char host[HOST_MAX + 1];
    uint16_t port;
};

struct steady__replica {
    struct steady__finder finder;
    struct steady__link_options with;
    struct steady__cluster *server;
    struct steady__link *link;       /* to the replica */
    struct steady__request question; /* ROLE */
    bool asking;                     /* it is on its way */
    bool finding;                    /* the link waits for what it brings */
    steady_us look_at;               /* the server is not asked before that; 0: yet */
    steady_us rests_until;           /* before that no peek goes to a replica */
    bool off;                        /* no replica is wanted any more */
    bool slow;                       /* the one found last has been, and has answered no probe since */
    steady_us pause;                 /* before the probe, the last time; 0: there was none */
    steady_us probe_at;              /* from then on a probe is wanted; 0: all peeks are */
    const struct steady__request *probe;
    steady_us trusted_at; /* when a probe was answered last */
    bool closed;
    unsigned depth;
    struct steady__alarm alarm;
    struct address at; /* the replica found last */
    struct steady__url url;
    steady_message trouble; /* of the link */
};

/* ---- Who there is ---- */

static bool take_text(struct steady__walk *walk, char *out, size_t size) {
    struct steady__value value;
    if (!steady__walk_next(walk, &value) || value.kind != STEADY__VALUE_TEXT) return false;
    if (value.text_len == 0 || value.text_len >= size || memchr(value.text, '\0', value.text_len) != NULL) return false;
    for (size_t i = 0; i < value.text_len; i++)
        if (value.text[i] <= ' ' || value.text[i] >= 0x7f) return false;
    memcpy(out, value.text, value.text_len);
    out[value.text_len] = '\0';
    return true;
}

/* One of the list: an array of host, port and offset. False where it is of no use: a copy of the server that nobody can
 * ask, as redis-cli --replica makes one, has the port 0. */
static bool read_address(struct steady__walk *walk, struct address *address) {
    struct steady__walk entry = *walk;
    struct steady__value head;
    char digits[8], *end = NULL;
    steady__walk_skip(walk);
    if (!steady__walk_next(&entry, &head) || head.kind != STEADY__VALUE_ARRAY || head.number != 3) return false;
    if (!take_text(&entry, address->host, sizeof address->host) || !take_text(&entry, digits, sizeof digits))
        return false;
    const unsigned long port = strtoul(digits, &end, 10);
    address->port = (uint16_t)port;
    return *end == '\0' && port > 0 && port <= UINT16_MAX;
}

/* The replicas in a primary's answer, to be read one by one; 0 where it is none. */
static int64_t find_list(struct steady__walk *walk) {
    struct steady__value head = {0}, role = {0}, offset = {0}, list = {0};
    if (!steady__walk_next(walk, &head) || !steady__walk_next(walk, &role) || !steady__walk_next(walk, &offset))
        return 0;
    if (head.kind != STEADY__VALUE_ARRAY || role.text_len != 6 || memcmp(role.text, "master", 6) != 0) return 0;
    return steady__walk_next(walk, &list) && list.kind == STEADY__VALUE_ARRAY ? list.number : 0;
}

static bool is_found_last(const struct steady__replica *r, const struct address *address) {
    return address->port == r->at.port && strcmp(address->host, r->at.host) == 0;
}

/* Any but the one found last, by chance; that one where there is no other. *still: that one is among them. */
static bool choose(const struct steady__replica *r, const struct steady__reply *reply, struct address *chosen,
                   bool *still) {
    struct steady__walk walk = steady__walk_over(reply);
    struct address one;
    uint64_t others = 0;
    *still = false;
    for (int64_t left = find_list(&walk); left > 0; left--) {
        if (!read_address(&walk, &one)) continue;
        if (is_found_last(r, &one))
            *still = true;
        else if (r->with.net->random(r->with.net) % ++others == 0)
            *chosen = one;
    }
    if (others == 0 && *still) *chosen = r->at;
    return others > 0 || *still;
}

/* ---- The finder ---- */

static void not_found(struct steady__replica *r, const char *why) {
    if (!r->finding) return;
    r->finding = false;
    steady__link_not_found(r->link, STEADY_UNAVAILABLE, why);
}

static void told(struct steady__replica *r, const struct steady__reply *reply) {
    struct address chosen;
    bool still;
    steady__alarm_set(&r->alarm, LOOK);
    if (!choose(r, reply, &chosen, &still)) {
        const bool lost = !r->finding;
        r->at.port = 0;
        not_found(r, "the server names no replica");
        if (lost) steady__link_moved(r->link);
        return;
    }
    const bool other = !is_found_last(r, &chosen);
    if (r->finding) {
        r->finding = false;
        r->slow = r->slow && !other;
        r->at = chosen;
        r->url.port = chosen.port;
        steady__link_found(r->link, &r->url);
    } else if (!still || (r->slow && other)) {
        steady__link_moved(r->link);
    }
}

/* Too early, or none is wanted: the link looks for one in vain, and what waits for it is handed back. */
static void put_off(struct steady__replica *r) {
    if (!r->off) steady__alarm_set(&r->alarm, r->look_at - steady__loop_now(&r->with.loop));
    if (r->finding)
        not_found(r, "none is looked for at the moment");
    else if (r->off)
        steady__link_moved(r->link);
}

static void look(struct steady__replica *r) {
    r->look_at = steady__loop_now(&r->with.loop) + LOOK;
    r->question.at = NULL;
    r->asking = steady__cluster_class.submit(r->server, &r->question) == 0;
    if (r->asking) return;
    steady__alarm_set(&r->alarm, LOOK);
    not_found(r, "the server is not there to ask");
}

static void alarmed(void *arg) {
    struct steady__replica *r = arg;
    if (steady__forked(r->with.birthmark) || !steady__alarm_rang(&r->alarm)) return;
    if (r->asking) return;
    if (r->off || (r->look_at != 0 && steady__loop_now(&r->with.loop) < r->look_at))
        put_off(r);
    else
        look(r);
}

static void find(struct steady__finder *finder, struct steady__link *link) {
    struct steady__replica *r = (struct steady__replica *)finder;
    r->link = link;
    r->finding = true;
    const bool wanted = !r->off && !r->alarm.set; /* else the next look is soon enough */
    if (!r->asking && (wanted || !steady__link_is_idle(link))) steady__alarm_set(&r->alarm, 0);
}

static void let_go(struct steady__finder *finder) { (void)finder; }

/* ---- What the server's links ask ---- */

static size_t encode(void *owner, struct steady__request *request, struct steady__dialect *dialect, char *out) {
    static const char question[] = "*1\r\n$4\r\nROLE\r\n";
    struct steady__replica *r = owner;
    if (request->redirects > 0 && !r->off) {
        r->off = true; /* that was a cluster */
        steady__alarm_set(&r->alarm, 0);
    }
    if (request != &r->question) return r->with.owner_class->encode(r->with.owner, request, dialect, out);
    memcpy(out, question, sizeof question - 1);
    return sizeof question - 1;
}

/* What is handed on may end anything, so nothing is touched after it. */
static enum steady__heed answered(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                  const struct steady__reply *reply) {
    struct steady__replica *r = owner;
    if (request != &r->question) return r->with.owner_class->answered(r->with.owner, request, dialect, reply);
    r->asking = false;
    if (r->off)
        steady__alarm_set(&r->alarm, 0);
    else
        told(r, reply);
    return STEADY__HEED_NOTHING;
}

static void unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__replica *r = owner;
    if (request != &r->question) {
        r->with.owner_class->unanswered(r->with.owner, request, written, error);
        return;
    }
    r->asking = false;
    steady__alarm_set(&r->alarm, LOOK);
    not_found(r, "the server does not answer");
}

static const struct steady__link_owner server_owner = {encode, answered, unanswered};

/* ---- What the replica's link asks ---- */

static void put_to_server(struct steady__replica *r, struct steady__request *request) {
    const int error = steady__cluster_class.submit(r->server, request);
    if (error != 0) r->with.owner_class->unanswered(r->with.owner, request, false, error);
}

static bool rests(const struct steady__replica *r) {
    return r->rests_until != 0 && steady__loop_now(&r->with.loop) < r->rests_until;
}

static void rest(struct steady__replica *r) {
    r->rests_until = steady__loop_now(&r->with.loop) + LOOK;
    steady__link_moved(r->link);
}

/* It has answered, so that all may ask it. */
static void trust(struct steady__replica *r) {
    r->slow = false;
    r->probe = NULL;
    r->probe_at = 0;
    r->trusted_at = steady__loop_now(&r->with.loop);
}

/* The next pause. What was sent before the last one began says nothing new. */
static void late(struct steady__replica *r, const struct steady__request *request) {
    const steady_us now = steady__loop_now(&r->with.loop);
    const bool probing = r->probe_at != 0;
    if (probing && request != r->probe) return;
    const bool anew = r->pause == 0 || (!probing && now - r->trusted_at >= CALM);
    const steady_us next = anew ? PAUSE_FIRST : 2 * r->pause;
    r->pause = next < PAUSE_LAST ? next : PAUSE_LAST;
    r->probe_at = now + r->pause;
    r->probe = NULL;
    r->slow = true;
}

/* A link that is idle owes no answer to a peek that was late either. */
static bool takes_peeks(const struct steady__replica *r) {
    if (r->off || rests(r) || !steady__link_is_up(r->link)) return false;
    return r->probe_at == 0 || (steady__loop_now(&r->with.loop) >= r->probe_at && steady__link_is_idle(r->link));
}

/* Whether the flight asks otherwise on this connection: the script instead of the module's command, or that instead of
 * the script. Where the engine is forced, the module is untried for ever. */
static bool is_asked_otherwise(enum steady__fluency fluency, const struct steady__reply *reply) {
    return fluency != STEADY__FLUENCY_UNTRIED && fluency != STEADY__FLUENCY_SCRIPT &&
           steady__command_forbidden(reply->text, reply->text_len);
}

/* An error of no other kind, to the module's command: there is none. The flight would know, but report it where it was
 * the script's after all; the server can answer in either case. */
static bool has_no_module(struct steady__dialect *dialect) {
    const enum steady__fluency fluency = dialect->verbs[STEADY__PEEK].fluency;
    if (fluency != STEADY__FLUENCY_TRYING && fluency != STEADY__FLUENCY_MODULE) return false;
    steady__dialect_without_module(dialect);
    return true;
}

/* Whether a peek that was refused so is for the server. What the key holds is the same there; a script that is missing
 * is loaded, unless the replica has just refused that. */
static bool is_for_server(struct steady__replica *r, struct steady__dialect *dialect,
                          const struct steady__reply *reply) {
    const enum steady__refusal refusal = steady__script_refusal(reply->text, reply->text_len);
    const bool forbidden = refusal == STEADY__REFUSAL_AUTH, other = refusal == STEADY__REFUSAL_OTHER;
    if (refusal == STEADY__REFUSAL_DATA) return false;
    if (refusal == STEADY__REFUSAL_NOSCRIPT) return rests(r);
    if (forbidden && is_asked_otherwise(dialect->verbs[STEADY__PEEK].fluency, reply)) return false;
    if (other && has_no_module(dialect)) return true;
    steady__dialect_nothing_learnt(dialect);
    if (refusal == STEADY__REFUSAL_MOVED) r->off = true;
    if (forbidden || other)
        rest(r);
    else
        steady__link_moved(r->link);
    return true;
}

static enum steady__heed replica_answered(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                          const struct steady__reply *reply) {
    struct steady__replica *r = owner;
    const bool peek = request->key != NULL, error = reply->kind == STEADY__REPLY_ERROR;
    if (!peek && request->nested == 0 && error) rest(r); /* it takes no script: peeks that miss theirs come next */
    if (peek && reply->kind == STEADY__REPLY_TEXT) return STEADY__HEED_UNTRUSTED;
    if (peek && !error && request == r->probe) trust(r);
    if (peek && error && is_for_server(r, dialect, reply)) {
        put_to_server(r, request);
        return STEADY__HEED_AGAIN;
    }
    return r->with.owner_class->answered(r->with.owner, request, dialect, reply);
}

static void replica_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__replica *r = owner;
    if (request->key != NULL)
        put_to_server(r, request);
    else
        r->with.owner_class->unanswered(r->with.owner, request, written, error);
}

static const struct steady__link_owner replica_owner = {encode, replica_answered, replica_unanswered};

/* ---- The flight's calls ---- */

/* at: the struct itself where the replica's link has it. */
static int submit(void *carrier, struct steady__request *request) {
    struct steady__replica *r = carrier;
    if (request->key == NULL && request->at == r) return steady__link_submit(r->link, request);
    const bool wanted = request->key != NULL && request->reads && takes_peeks(r);
    if (!wanted || steady__link_submit(r->link, request) != 0) return steady__cluster_class.submit(r->server, request);
    request->at = r;
    if (r->probe_at != 0) r->probe = request;
    return 0;
}

static int forget(void *carrier, struct steady__request *request, bool held) {
    struct steady__replica *r = carrier;
    if (request->at != r) return steady__cluster_class.forget(r->server, request, held);
    const int error = steady__link_forget(r->link, request, held);
    if (error == STEADY_UNKNOWN || request == r->probe) late(r, request);
    return error;
}

static void catch_up(void *carrier) {
    struct steady__replica *r = carrier;
    r->depth++;
    size_t left = STEADY__CATCH_UP;
    steady__link_catch_up(r->link, &left);
    if (!r->closed) steady__cluster_class.catch_up(r->server);
    if (--r->depth == 0 && r->closed) free(r);
}

/* A child leaves to the parent's loop what that may point at, as links do. */
static void close_replica(void *carrier) {
    struct steady__replica *r = carrier;
    if (r->server != NULL) steady__cluster_class.close(r->server);
    steady__link_close(r->link);
    if (steady__forked(r->with.birthmark)) return;
    steady__alarm_free(&r->alarm);
    r->closed = true;
    if (r->depth == 0) free(r);
}

static const char *doing(void *carrier, const struct steady__request *request) {
    struct steady__replica *r = carrier;
    if (request->at == r) return steady__link_doing(r->link);
    return steady__cluster_class.doing(r->server, request);
}

static uint64_t reconnects(const void *carrier) {
    const struct steady__replica *r = carrier;
    return steady__cluster_class.reconnects(r->server) + steady__link_reconnects(r->link);
}

const struct steady__carrier steady__replica_class = {submit, forget, catch_up, close_replica, doing, reconnects};

/* ---- Opening ---- */

static bool open_both(struct steady__replica *r) {
    struct steady__link_options options = r->with;
    options.owner = r;
    options.owner_class = &server_owner;
    r->server = steady__cluster_open(&options);
    if (r->server == NULL) return false;
    options.owner_class = &replica_owner;
    options.finder = &r->finder;
    options.role = STEADY__ROLE_REPLICA;
    options.trouble = &r->trouble;
    options.log = NULL; /* peeks go on without */
    r->link = steady__link_open(&options);
    return r->link != NULL;
}

struct steady__replica *steady__replica_open(const struct steady__link_options *options) {
    struct steady__replica *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->with = *options;
    r->finder = (struct steady__finder){find, let_go};
    r->question.nested = STEADY__NESTED;
    steady__list_init(&r->question.place);
    r->url.scheme = steady__url_has_tls(options->url->scheme) ? STEADY__URL_TLS : STEADY__URL_TCP;
    r->url.host = r->at.host;
    r->url.named = true;
    if (steady__alarm_new(&r->alarm, &r->with.loop, alarmed, r) == 0 && open_both(r)) return r;
    close_replica(r);
    return NULL;
}
