/* SPDX-License-Identifier: MIT
 * One supervised connection to a server.
 *
 *     RESTING --alarm--> FINDING --found--> DIALING --connected--> GREETING --OK, OK--> UP
 *        ^                  |                  |                      |                  |
 *        +------------------+------------------+----------------------+------------------+   and CLOSED from anywhere
 *
 * Normally: a new link rests for no time at all, asks its finder if it has one, dials (TLS included), says AUTH and
 * SELECT if the URL wants them and ROLE if the role matters, and is up. Requests wait in `waiting` until it is, and go
 * out in the order they came in. A request that finds nothing else on the wire is sent inside submit; one that does not
 * is sent together with all others of the same turn of the loop: at the end of the batch of replies being read, or when
 * the loop says that the socket is writable.
 *
 * It fails in four ways, all of which end in RESTING with a time to dial again, at most one attempt at a time:
 *   - an attempt comes to nothing: the rest doubles, up to half a second, with jitter. From now on the server is known
 *     to be down: what waits ends, and what comes ends at once, until a connection is made.
 *   - a connection is lost that had answered: it is made again at once, more or less, and what was not written waits
 *     for that. What was written, if only a byte of it, ends as such: nobody knows what became of it.
 *   - the server will not have us (AUTH, SELECT): as the first, but at most once a second, and as STEADY_REFUSED.
 *   - the connection stalls: something is unanswered and not a byte has come for four timeouts.
 * A fifth way is READONLY: the server is no primary any more. The connection is left once it owes no answer, and made
 * again at once with ROLE among its greetings; what READONLY was the answer to goes out again there. Until a server has
 * said that it is a primary (or, where it does not say, has gone without READONLY for a second) another READONLY is an
 * attempt that came to nothing.
 * A connection that never answered counts as an attempt that came to nothing, so a server that accepts and hangs up is
 * not connected to more often than one that does not listen.
 *
 * Closing may happen inside any callback. It takes descriptors and timers away at once and forgets all requests; the
 * memory goes when the outermost handler on the stack has returned (`depth`). A handler that has called out looks at
 * `epoch`, which changes whenever the connection that it was about is gone. */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "circuit.h"
#include "error.h"
#include "notice.h"
#include "primacy.h"
#include "redact.h"
#include "script.h"

#define STALL_TIMEOUTS 4
#define STALL_LEAST (100 * STEADY_MILLISECOND)
#define REDIAL_SPREAD (10 * STEADY_MILLISECOND) /* the clients of a server that hangs up on all of them */
#define PATIENCE_LEAST (250 * STEADY_MILLISECOND)
#define PORTION 262144 /* bytes that are read before the loop goes on: a map of a cluster may have millions */
#define DROPS 1024     /* requests that are not sent after all, likewise */
#define HANDED 1024    /* requests that are handed back, likewise */
#define SENDS 4        /* times the buffer is filled and sent, likewise: a server may take it as fast as it is filled */
#define NAME_PATIENCE (10 * STEADY_SECOND) /* a resolver asks its second server after five */

enum state { RESTING, FINDING, DIALING, GREETING, UP, CLOSED };

struct steady__link {
    struct steady__link_options with;
    enum state state;
    unsigned depth; /* handlers on the stack */
    uint64_t epoch;
    bool hopeful;  /* the server is not known to be down */
    bool answered; /* this connection has had a reply */
    bool paused;   /* RESTING until a request comes, and until the alarm would have rung */
    bool leaving;  /* this connection is to be left once the wire is idle */
    bool moved;    /* because the server is elsewhere */
    bool let_in;   /* the server may have acted upon what is left of a lost connection */
    bool handing;  /* resting, and first handing back what is left */
    steady_us rest_delay, rest_until;
    struct steady__dialect dialect;
    int down_error; /* what a request ends as while not hopeful */
    struct steady__circuit circuit;
    struct steady__primacy primacy;
    uint64_t connections;
    steady_us resumes_at;  /* paused: not before */
    steady_us quiet_since; /* last byte, or the first request after nothing was unanswered */
    struct steady__list waiting;
    struct steady__list casualties;                      /* off the wire, and lost; being handed back */
    struct steady__list rejects;                         /* not written; being handed back */
    struct steady__request greetings[STEADY__GREETINGS]; /* by enum steady__greeting */
    unsigned greetings_due;
    struct steady__wire wire;
    struct steady__dial dial;
    struct steady__watch watch;
    struct steady__alarm alarm; /* RESTING: go on; GREETING: give up; UP: look whether it stalls, or leave */
    struct steady__notice notice;
};

#define REQUEST(list) STEADY__OWNER(struct steady__request, place, list)

static steady_us now(const struct steady__link *link) { return steady__loop_now(&link->with.loop); }

static steady_us longer(steady_us a, steady_us b) { return a > b ? a : b; }

static steady_us stall_time(const struct steady__link *link) {
    return longer(STALL_TIMEOUTS * link->with.timeout, STALL_LEAST);
}

static steady_us patience(const struct steady__link *link) { return longer(stall_time(link), PATIENCE_LEAST); }

static bool is_greeting(const struct steady__link *link, const struct steady__request *request) {
    return request >= link->greetings && request < link->greetings + STEADY__GREETINGS;
}

/* ---- Handlers: what the loop calls ---- */

static void destroy(struct steady__link *link) {
    steady__wire_free(&link->wire);
    free(link);
}

/* False in a forked child, which must not touch what is the parent's. */
static bool enter(struct steady__link *link) {
    if (steady__forked(link->with.birthmark)) return false;
    link->depth++;
    return true;
}

static void flush(struct steady__link *link);

static void leave(struct steady__link *link) {
    const bool writes = link->state == GREETING || link->state == UP;
    if (writes && !steady__forked(link->with.birthmark)) flush(link);
    if (--link->depth > 0) return;
    if (link->state == CLOSED)
        destroy(link);
    else
        steady__wire_relax(&link->wire);
}

/* ---- Ending ---- */

/* A lost connection has left requests on the wire. */
static bool is_wire_lost(const struct steady__link *link) {
    return link->wire.fd < 0 && !steady__wire_idle(&link->wire);
}

/* There is something to hand back. */
static bool owes(const struct steady__link *link) {
    return is_wire_lost(link) || !steady__list_empty(&link->casualties) || !steady__list_empty(&link->rejects);
}

/* The next request to hand back; NULL: a tombstone. */
static struct steady__request *take_owed(struct steady__link *link, bool *written) {
    struct steady__request *request = NULL;
    const bool from_wire = steady__list_empty(&link->casualties) && is_wire_lost(link);
    *written = from_wire ? link->let_in : !steady__list_empty(&link->casualties);
    if (from_wire) {
        (void)steady__wire_take_first(&link->wire, &request);
        return request != NULL && is_greeting(link, request) ? NULL : request;
    }
    request = REQUEST((*written ? &link->casualties : &link->rejects)->next);
    steady__list_remove(&request->place);
    return request;
}

/* A portion. One at a time, since each may end anything. */
static void hand_back(struct steady__link *link) {
    for (int i = 0; i < HANDED && link->state != CLOSED && owes(link) && !steady__forked(link->with.birthmark); i++) {
        bool written;
        struct steady__request *request = take_owed(link, &written);
        if (request != NULL) link->with.owner_class->unanswered(link->with.owner, request, written, link->down_error);
    }
}

static void rest(struct steady__link *link, steady_us delay) {
    link->state = RESTING;
    link->handing = false;
    link->rest_delay = delay;
    link->rest_until = now(link) + delay;
    steady__alarm_set(&link->alarm, delay);
}

/* Lets the loop go on before the rest is handed back. */
static bool hands_on(struct steady__link *link) {
    if (link->state != RESTING || !owes(link)) return false;
    link->handing = true;
    steady__alarm_set(&link->alarm, 0);
    return true;
}

/* The server is down, with `error`, for all one knows. What is asked from now on is another matter. */
static void despair(struct steady__link *link, int error) {
    link->hopeful = false;
    link->down_error = error;
    rest(link, steady__circuit_failed(&link->circuit, error == STEADY_REFUSED));
    steady__list_move(&link->rejects, &link->waiting);
}

static void tell(struct steady__link *link, const char *why) {
    steady__fail(link->with.trouble, 0, "%s: %s", link->notice.where, why);
    hand_back(link);
    (void)hands_on(link);
    if (link->state == RESTING)
        steady__notice_away(&link->notice, link->connections > 0 ? "connection lost" : "cannot connect", why);
}

static void give_up_attempt(struct steady__link *link, int error, const char *why) {
    despair(link, error);
    tell(link, why);
}

static void set_lost(struct steady__link *link, struct steady__request *request) {
    request->lost = true;
    steady__list_prepend(&link->casualties, &request->place);
}

/* What was not written waits, or ends, as if it had never been on the wire. The rest stays there to be handed back. */
static void take_back_unwritten(struct steady__link *link) {
    struct steady__request *request;
    while ((request = steady__wire_take_unwritten(&link->wire)) != NULL)
        if (!is_greeting(link, request)) steady__list_prepend(&link->waiting, &request->place);
}

/* Ends a connection. `let_in`: the server may have acted upon what was written. */
static void drop(struct steady__link *link, int error, bool let_in, const char *why) {
    char reason[sizeof((steady_message *)NULL)->text];
    if (steady__forked(link->with.birthmark)) return; /* in a callback: what is closed here would be the parent's */
    const bool was_fine = link->answered || link->moved || steady__dialect_in_question(&link->dialect);
    const bool worth_a_try = was_fine && let_in && error == STEADY_UNAVAILABLE;
    snprintf(reason, sizeof reason, "%s", why); /* `why` may lie in what is about to go */
    link->epoch++;
    steady__watch_stop(&link->watch);
    steady__wire_close(&link->wire);
    link->let_in = let_in;
    take_back_unwritten(link);
    if (worth_a_try) {
        link->down_error = error;
        rest(link, steady__circuit_jitter(&link->circuit, REDIAL_SPREAD));
    } else {
        despair(link, error);
    }
    tell(link, reason);
}

static bool awaits(const struct steady__link *link) {
    return !steady__wire_idle(&link->wire) || steady__wire_unread(&link->wire);
}

/* Call this after what has arrived is read. */
static bool is_silent(const struct steady__link *link) {
    return awaits(link) && now(link) - link->quiet_since >= link->with.timeout;
}

/* ---- Writing ---- */

/* ASKING goes with its command or not at all: the next command would be taken for it. */
static bool encode_next(struct steady__link *link, steady_us reckons, unsigned *dropped) {
    struct steady__request *request = REQUEST(link->waiting.next);
    if (steady__wire_idle(&link->wire) && steady__wire_unread(&link->wire)) return false; /* or that would answer it */
    const size_t ahead = request->asking ? sizeof STEADY__ASKING - 1 : 0;
    char *room = steady__wire_room(&link->wire, ahead > 0 ? 2 : 1, ahead + STEADY__REQUEST_MAX);
    if (room == NULL) return false;
    if (steady__wire_idle(&link->wire)) link->quiet_since = link->wire.clock;
    request->reckons = reckons;
    steady__list_remove(&request->place);
    const size_t len = link->with.owner_class->encode(link->with.owner, request, &link->dialect, room + ahead);
    if (len == 0) {
        request->passed = !is_silent(link);
        return ++*dropped > 0;
    }
    memcpy(room, STEADY__ASKING, ahead);
    if (ahead > 0) steady__wire_put(&link->wire, NULL, ahead);
    steady__wire_put(&link->wire, request, len);
    return true;
}

static bool encode_waiting(struct steady__link *link, unsigned *dropped) {
    bool any = false;
    if (link->leaving || steady__list_empty(&link->waiting)) return false;
    link->wire.clock = now(link);
    const steady_us reckons = steady__wire_look(&link->wire);
    while (!steady__list_empty(&link->waiting) && *dropped < DROPS && encode_next(link, reckons, dropped))
        any = true;
    return any;
}

/* Sends what there is to send. Calls nothing back: a send that fails is left to the handler of the socket. */
static void flush(struct steady__link *link) {
    unsigned dropped = 0, sends = 0;
    bool encoded, taken;
    do {
        encoded = link->state == UP && encode_waiting(link, &dropped);
        taken = steady__wire_flush(&link->wire);
    } while (encoded && taken && dropped < DROPS && ++sends < SENDS);
    if (awaits(link) && !link->alarm.set) steady__alarm_set(&link->alarm, stall_time(link));
    taken = taken && dropped < DROPS && sends < SENDS;
    steady__watch_want(&link->watch, taken ? STEADY_READABLE : STEADY_READABLE | STEADY_WRITABLE);
}

/* ---- Reading ---- */

static void is_up(struct steady__link *link) {
    link->state = UP;
    link->hopeful = true;
    link->primacy.since = now(link);
    steady__alarm_stop(&link->alarm);
}

static void greeted(struct steady__link *link, enum steady__greeting which, const struct steady__reply *reply) {
    char why[200];
    switch (
        steady__greeting_heard(which, link->with.url, steady__primacy_role(&link->primacy), reply, why, sizeof why)) {
    case STEADY__WELCOME_NOT_NOW: drop(link, STEADY_UNAVAILABLE, true, why); return;
    case STEADY__WELCOME_NEVER: drop(link, STEADY_REFUSED, true, why); return;
    case STEADY__WELCOME:
        if (which == STEADY__GREETING_ROLE) steady__primacy_vouched(&link->primacy);
        break;
    case STEADY__WELCOME_UNSURE: break;
    }
    if (--link->greetings_due == 0) is_up(link);
}

/* ---- Leaving ---- */

static void depart(struct steady__link *link) {
    drop(link, STEADY_UNAVAILABLE, true, link->moved ? "the server is elsewhere now" : "the server is no primary");
}

/* What is on the wire is answered soon, or ends at its deadline. */
static void begin_to_leave(struct steady__link *link) {
    if (link->leaving) return;
    link->leaving = true;
    steady__alarm_set(&link->alarm, link->with.timeout);
}

static void not_primary(struct steady__link *link, struct steady__request *request) {
    steady__list_append(&link->waiting, &request->place);
    if (link->leaving) return;
    link->answered = steady__primacy_refuted(&link->primacy, now(link)); /* so that it is made again at once, or not */
    begin_to_leave(link);
}

/* ---- What replies mean ---- */

static void answered_well(struct steady__link *link) {
    if (link->leaving ? link->primacy.doubtful : !steady__primacy_upheld(&link->primacy, link->wire.clock)) return;
    link->answered = true;
    link->circuit.failures = 0;
}

/* request: NULL where the reply was nobody's, or no reply. full: why nobody is let in, where that is what it says. */
static void heed(struct steady__link *link, enum steady__heed what, struct steady__request *request, const char *full) {
    switch (what) {
    case STEADY__HEED_NOTHING:
    case STEADY__HEED_AGAIN: answered_well(link); break;
    case STEADY__HEED_UNTRUSTED:
        link->answered = false;
        if (request != NULL && request->key != NULL) set_lost(link, request);
        drop(link, STEADY_UNAVAILABLE, true, "the server answers with what is no answer");
        break;
    case STEADY__HEED_NOT_PRIMARY: not_primary(link, request); break;
    case STEADY__HEED_NOT_LET_IN: drop(link, STEADY_UNAVAILABLE, link->answered, full); break;
    }
}

/* Whether that shows if the server makes decisions: some questions are answered while it does not. */
static bool shows(const struct steady__link *link, const struct steady__request *request, bool error) {
    return request != NULL ? request->key != NULL : error || link->circuit.open;
}

/* While the reply is there: what ends a request may end the connection, too. */
static void note_reason(const struct steady__link *link, const struct steady__request *request,
                        const struct steady__reply *reply, char *why, size_t size) {
    struct steady__secrets secrets = {.url = link->with.url};
    if (request != NULL) {
        secrets.key = request->key;
        secrets.key_len = request->key_len;
        secrets.prefix_len = request->prefix_len;
    }
    steady__redact(why, size, reply->text, reply->text_len, &secrets);
}

/* The log is told last: it may run the loop, and what has not ended by then may end in there. */
static void replied(struct steady__link *link, struct steady__request *request, const struct steady__reply *reply) {
    char why[200] = "";
    const uint64_t epoch = link->epoch;
    enum steady__circuit_news news = STEADY__CIRCUIT_NOTHING;
    if (shows(link, request, reply->kind == STEADY__REPLY_ERROR))
        news = steady__circuit_heard(&link->circuit, reply, &link->with.loop);
    if (steady__notice_wants_reason(&link->notice, &link->with.loop, news))
        note_reason(link, request, reply, why, sizeof why);
    const char *full = steady__greeting_turned_away(reply);
    enum steady__heed what = STEADY__HEED_NOTHING;
    if (request != NULL) what = link->with.owner_class->answered(link->with.owner, request, &link->dialect, reply);
    if (full != NULL && what == STEADY__HEED_NOTHING) what = STEADY__HEED_NOT_LET_IN;
    if (link->epoch == epoch && (request != NULL || full != NULL)) heed(link, what, request, full);
    if (link->epoch == epoch && what == STEADY__HEED_NOTHING && !link->primacy.doubtful)
        steady__notice_heard(&link->notice, &link->with.loop, news, why);
}

/* Replies may be there that the loop does not know of. */
static bool has_more(const struct steady__link *link) {
    return steady__wire_unread(&link->wire) || steady__wire_pending(&link->wire);
}

/* False once the connection is gone, or, where a callback has forked, the parent's. */
static bool take_replies(struct steady__link *link) {
    struct steady__reply reply;
    struct steady__request *request;
    const uint64_t epoch = link->epoch;
    int got;
    while ((got = steady__wire_next(&link->wire, &reply, &request)) > 0) {
        if (has_more(link))
            steady__watch_want(&link->watch, STEADY_READABLE | STEADY_WRITABLE); /* a callback may wait */
        if (request != NULL && is_greeting(link, request))
            greeted(link, (enum steady__greeting)(request - link->greetings), &reply);
        else
            replied(link, request, &reply);
        if (link->epoch != epoch || steady__forked(link->with.birthmark)) return false;
    }
    if (got < 0) {
        const char *full = steady__greeting_turned_away(&reply);
        heed(link, full != NULL ? STEADY__HEED_NOT_LET_IN : STEADY__HEED_UNTRUSTED, NULL, full);
    }
    if (got == 0 && link->leaving && steady__wire_idle(&link->wire)) depart(link);
    return link->epoch == epoch;
}

/* error: an errno; 0: the end of the stream. */
static void lost(struct steady__link *link, int error) {
    const bool let_in = !steady__wire_turned_away(&link->wire);
    drop(link, let_in ? STEADY_UNAVAILABLE : STEADY_REFUSED, let_in, steady__wire_excuse(&link->wire, error));
}

/* About as many bytes as are left, and what TLS has taken in: of the rest the loop knows. A broken one is read to its
 * end. */
static void read_replies(struct steady__link *link, size_t *left) {
    while (*left > 0 || steady__wire_pending(&link->wire) || link->wire.broken != 0) {
        const ssize_t n = steady__wire_receive(&link->wire);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            lost(link, n < 0 ? errno : link->wire.broken);
            return;
        }
        *left -= (size_t)n < *left ? (size_t)n : *left;
        link->quiet_since = link->wire.clock = now(link);
        if (!take_replies(link) || (n < STEADY__WIRE_IN / 2 && !steady__wire_pending(&link->wire))) return;
    }
}

static void ready(void *arg, int events) {
    struct steady__link *link = arg;
    if (!enter(link)) return;
    const uint64_t epoch = link->epoch;
    size_t portion = PORTION;
    const bool goes_on = !steady__wire_unread(&link->wire) || take_replies(link); /* a callback runs the loop */
    const bool more = (events & STEADY_READABLE) != 0 || steady__wire_pending(&link->wire);
    if (goes_on && (more || link->wire.broken != 0)) read_replies(link, &portion);
    if (link->epoch == epoch && link->wire.broken != 0) lost(link, link->wire.broken);
    leave(link);
}

void steady__link_catch_up(struct steady__link *link, size_t *left) {
    size_t portion = PORTION;
    if (!enter(link)) return;
    if (steady__wire_awaits_nested(&link->wire)) left = &portion; /* drawing a map takes its time, too */
    if (link->state == UP && take_replies(link))
        read_replies(link, left); /* may be inside the callback of one of them */
    leave(link);
}

/* ---- Connecting ---- */

static void greet(struct steady__link *link) {
    link->greetings_due = 0;
    for (int i = 0; i < STEADY__GREETINGS; i++) {
        char *room = steady__wire_room(&link->wire, 1, STEADY__REQUEST_MAX);
        const size_t len =
            steady__greeting_say(room, (enum steady__greeting)i, link->with.url, steady__primacy_role(&link->primacy));
        if (len == 0) continue;
        link->greetings[i].nested = i == STEADY__GREETING_ROLE ? STEADY__NESTED : 0;
        steady__wire_put(&link->wire, &link->greetings[i], len);
        link->greetings_due++;
    }
}

static void connected(struct steady__link *link, const struct steady__dialed *dialed) {
    steady__wire_open(&link->wire, dialed->fd, dialed->tls, link->with.timeout, dialed->round_trip);
    link->wire.clock = now(link);
    link->epoch++;
    link->connections++;
    link->answered = link->leaving = link->moved = link->circuit.open = link->primacy.vouched = false;
    link->dialect = steady__dialect_anew(&link->dialect);
    if (steady__watch_start(&link->watch, &link->with.loop, dialed->fd, STEADY_READABLE, ready, link) != 0) {
        drop(link, STEADY_UNAVAILABLE, true, "no memory to watch a socket");
        return;
    }
    greet(link);
    link->state = GREETING;
    steady__alarm_set(&link->alarm, patience(link));
    if (link->greetings_due == 0) is_up(link);
}

static void dialed(void *arg, const struct steady__dialed *dialed) {
    struct steady__link *link = arg;
    if (!enter(link)) return;
    if (dialed->fd >= 0)
        connected(link, dialed);
    else
        give_up_attempt(link, dialed->error, dialed->why);
    leave(link);
}

static void begin(struct steady__link *link) {
    if (link->with.finder != NULL) {
        link->state = FINDING;
        link->with.finder->find(link->with.finder, link);
    } else {
        link->state = DIALING;
        steady__dial_start(&link->dial);
    }
}

/* Handing back has taken part of the rest. A clock of the caller's may be anywhere. */
static void rested(struct steady__link *link) {
    const steady_us left = link->rest_until - now(link);
    if (hands_on(link)) return;
    if (link->handing && left > 0 && left <= link->rest_delay)
        steady__alarm_set(&link->alarm, left);
    else
        begin(link);
    link->handing = false;
}

static void check_stall(struct steady__link *link) {
    const uint64_t epoch = link->epoch;
    size_t portion = PORTION;
    if (!awaits(link)) return;
    read_replies(link, &portion); /* the loop may have been away for long */
    if (link->epoch != epoch || !awaits(link)) return;
    const steady_us quiet = now(link) - link->quiet_since;
    if (link->leaving)
        depart(link);
    else if (link->state == GREETING || quiet >= stall_time(link))
        drop(link, STEADY_UNAVAILABLE, true, "the server does not answer");
    else
        steady__alarm_set(&link->alarm, stall_time(link) - quiet);
}

static void alarmed(void *arg) {
    struct steady__link *link = arg;
    if (!enter(link)) return;
    const bool due = steady__alarm_rang(&link->alarm);
    hand_back(link); /* where a callback of one of them runs the loop */
    const bool goes_on = due && !steady__forked(link->with.birthmark);
    if (goes_on && link->state == RESTING)
        rested(link);
    else if (goes_on && (link->state == GREETING || link->state == UP))
        check_stall(link);
    leave(link);
}

/* ---- The finder's calls ---- */

void steady__link_found(struct steady__link *link, const struct steady__url *at) {
    if (link->state != FINDING || !enter(link)) return;
    link->dial.url = at;
    steady__notice_place(&link->notice, at, link->with.url);
    link->state = DIALING;
    steady__dial_start(&link->dial);
    leave(link);
}

void steady__link_not_found(struct steady__link *link, int error, const char *why) {
    if (link->state != FINDING || !enter(link)) return;
    give_up_attempt(link, error, why);
    leave(link);
}

void steady__link_moved(struct steady__link *link) {
    if (!enter(link)) return;
    if (link->state == RESTING) {
        rest(link, 0);
    } else if (link->state == DIALING) {
        steady__dial_stop(&link->dial);
        begin(link);
    } else if (link->state == GREETING || link->state == UP) {
        link->moved = true;
        begin_to_leave(link);
        if (link->state == GREETING || steady__wire_idle(&link->wire)) depart(link);
    }
    leave(link);
}

/* ---- The owner's calls ---- */

static void resume(struct steady__link *link) {
    const steady_us wait = link->resumes_at - now(link);
    link->paused = false;
    rest(link, wait > 0 ? wait : 0);
}

int steady__link_submit(struct steady__link *link, struct steady__request *request) {
    if (link->paused) resume(link);
    const bool trying = link->with.patient && link->state > RESTING && link->state < UP;
    if (link->state != UP && !link->hopeful && !trying) return link->down_error;
    if (request->key != NULL && steady__circuit_holds(&link->circuit, &link->with.loop)) return STEADY_UNAVAILABLE;
    request->lost = request->passed = false;
    steady__list_append(&link->waiting, &request->place);
    if (link->state != UP) return 0;
    const bool unread = has_more(link);
    if (steady__wire_idle(&link->wire) && !unread)
        flush(link);
    else if ((link->depth == 0 || unread) && !steady__wire_full(&link->wire))
        steady__watch_want(&link->watch, STEADY_READABLE | STEADY_WRITABLE);
    return 0;
}

int steady__link_forget(struct steady__link *link, struct steady__request *request, bool held) {
    if (request->on_wire) {
        steady__wire_forget(&link->wire, request);
        return link->wire.fd >= 0 || link->let_in ? STEADY_UNKNOWN : STEADY_UNAVAILABLE;
    }
    steady__list_remove(&request->place);
    if (request->lost) return STEADY_UNKNOWN;
    const bool ours = request->passed || (steady__link_is_up(link) ? !is_silent(link) : held);
    return ours ? STEADY_OVERLOADED : STEADY_UNAVAILABLE;
}

bool steady__link_is_up(const struct steady__link *link) { return link->state == UP && !link->leaving; }

bool steady__link_was_up(const struct steady__link *link) { return link->connections > 0; }

void steady__link_pause(struct steady__link *link) {
    const bool rests = link->state == RESTING && link->alarm.set, dials = link->state == DIALING;
    if (link->connections > 0 || link->paused || !steady__link_is_idle(link) || (!rests && !dials)) return;
    if (dials && (link->with.finder != NULL || steady__link_looks_up(link))) return;
    if (dials) link->resumes_at = now(link) + steady__circuit_failed(&link->circuit, false);
    if (rests) link->resumes_at = link->alarm.due;
    steady__dial_stop(&link->dial);
    steady__alarm_stop(&link->alarm);
    link->state = RESTING;
    link->paused = true;
}

bool steady__link_looks_up(const struct steady__link *link) { return steady__dial_looks_up(&link->dial); }

bool steady__link_is_idle(const struct steady__link *link) {
    return steady__list_empty(&link->waiting) && steady__list_empty(&link->casualties) &&
           steady__list_empty(&link->rejects) && steady__wire_idle(&link->wire);
}

const char *steady__link_doing(const struct steady__link *link) {
    if (link->state == DIALING) return steady__dial_doing(&link->dial);
    if (link->state == GREETING) return "waiting to be let in";
    return link->state == UP && !steady__wire_idle(&link->wire) ? "waiting for its turn" : NULL;
}

uint64_t steady__link_reconnects(const struct steady__link *link) {
    return link->connections > 0 ? link->connections - 1 : 0;
}

struct steady__link *steady__link_open(const struct steady__link_options *options) {
    struct steady__link *link = calloc(1, sizeof *link);
    if (link == NULL) return NULL;
    link->with = *options;
    link->hopeful = true;
    link->down_error = STEADY_UNAVAILABLE;
    link->circuit.net = options->net;
    link->primacy.wanted = options->role;
    steady__list_init(&link->waiting);
    steady__list_init(&link->casualties);
    steady__list_init(&link->rejects);
    link->notice.log = options->log;
    link->notice.log_data = options->log_data;
    steady__notice_place(&link->notice, options->url, options->url);
    link->dial = (struct steady__dial){.net = options->net,
                                       .loop = &link->with.loop,
                                       .url = options->url,
                                       .tls_context = options->tls,
                                       .birthmark = options->birthmark,
                                       .patience = patience(link),
                                       .name_patience = NAME_PATIENCE,
                                       .lookups_under_way = options->lookups,
                                       .unanswered = stall_time(link),
                                       .done = dialed,
                                       .arg = link};
    const uint32_t slots = (uint32_t)longer(options->max_unanswered, STEADY__GREETINGS);
    if (steady__wire_init(&link->wire, options->net, slots) == 0 &&
        steady__alarm_new(&link->alarm, &link->with.loop, alarmed, link) == 0 && steady__dial_init(&link->dial) == 0) {
        rest(link, 0);
        return link;
    }
    steady__alarm_free(&link->alarm);
    destroy(link);
    return NULL;
}

/* A child leaves the parent's loop alone, which it may share, and with it the memory that the loop points at. */
static void close_in_child(struct steady__link *link) {
    if (link->with.finder != NULL) link->with.finder->close(link->with.finder);
    if (link->wire.fd >= 0) steady__fork_detach(link->wire.fd);
    if (link->dial.fd >= 0) steady__fork_detach(link->dial.fd);
}

void steady__link_close(struct steady__link *link) {
    if (link == NULL) return;
    if (steady__forked(link->with.birthmark)) {
        close_in_child(link);
        return;
    }
    link->state = CLOSED;
    link->epoch++;
    if (link->with.finder != NULL) link->with.finder->close(link->with.finder);
    steady__dial_free(&link->dial);
    steady__alarm_free(&link->alarm);
    steady__watch_stop(&link->watch);
    steady__wire_close(&link->wire);
    if (link->depth == 0) destroy(link);
}
