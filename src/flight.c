/* SPDX-License-Identifier: MIT
 * The decisions in flight on one loop.
 *
 * Each has a ticket, from submit to its result. All timeouts of a store are equal, so the tickets in order of
 * submission are in order of deadline, and one timer does for all. It rings at the first deadline, and ten times a
 * timeout while anything is in flight: if it rings late, the loop was held. It is not stopped when the last ticket is
 * answered, because one ring for nothing is cheaper.
 *
 * NOSCRIPT means that the server has lost the script, and that the decision was not made. The first ticket that hears
 * it sends SCRIPT LOAD, and then its command again behind it; the others of the same loss, which were sent before that
 * SCRIPT LOAD, only their commands. A ticket knows which it is by the number of loads that had been sent on its
 * connection when it was. Where that was none, it begins anew: its tries were elsewhere. The SCRIPT LOAD has a ticket
 * of its own, without a deadline, which comes back with its reply. One that hears NOSCRIPT a second time sends the
 * script itself, as EVAL. Before all that, the first ticket of a connection asks the server's own command, of the
 * module steady.so; where there is none, it and all later ones ask the scripts. READONLY means that a decision was not
 * made either, and leaves it with the carrier, to be sent to the primary. Nothing else is ever sent twice.
 *
 * A callback may do anything, close the store included. So whatever calls finish() touches nothing of the flight after
 * it, or holds the store and looks at `closed`. */
#include "flight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "redact.h"
#include "script.h"
#include "survey.h"

#define SLAB_TICKETS 32
#define PORTION 1024                  /* that are told how they failed before the loop goes on */
#define AWAY (5 * STEADY_MILLISECOND) /* a loop that is so late was kept from running */
#define TICKS 10                      /* in a timeout: the alarm rings so often, to notice that the loop is held */
#define KEY_NEAR 64                   /* keys up to here need no memory of their own */
#define TRIES_MAX 3                   /* EVALSHA, EVALSHA, EVAL */
#define NO_TIMER_TEXT "the event loop starts no timer"
#define SURVEYS_MAX 3 /* each may have been lost because of what it asks */

enum errand {
    DECISION,
    LOAD,   /* SCRIPT LOAD, for its call's verb; in no list */
    SURVEY, /* of the server's settings; in no list either */
};

struct ticket {
    struct steady__call call; /* its key is in `key` */
    struct steady__request request;
    struct steady__list place; /* in due, failed or spare */
    steady_us deadline;
    steady_us held;        /* of the flight, when it was submitted */
    steady_result *answer; /* NULL: the callback's */
    int error;             /* of one that failed before it began */
    enum errand errand;
    bool to_module; /* which was asked last */
    bool turned;    /* the scripts are forbidden, so the module is asked next */
    unsigned tries; /* of the script */
    uint32_t loads; /* of its script, sent before it was */
    size_t key_room;
    char *key;
    char key_near[KEY_NEAR];
};

struct steady__slab {
    struct steady__slab *next;
    struct ticket tickets[SLAB_TICKETS];
};

static steady_us shorter(steady_us a, steady_us b) { return a < b ? a : b; }

static steady_us longer(steady_us a, steady_us b) { return a > b ? a : b; }

#define TICKET(list) STEADY__OWNER(struct ticket, place, list)
#define TICKET_OF(request_) STEADY__OWNER(struct ticket, request, request_)

/* ---- Tickets ---- */

static bool add_slab(struct steady__flight *flight) {
    struct steady__slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL) return false;
    slab->next = flight->slabs;
    flight->slabs = slab;
    for (size_t i = 0; i < SLAB_TICKETS; i++) {
        slab->tickets[i].key = slab->tickets[i].key_near;
        slab->tickets[i].key_room = KEY_NEAR;
        steady__list_append(&flight->spare, &slab->tickets[i].place);
    }
    return true;
}

/* A longer key gets the longest room there is, once. */
static bool keep_key(struct ticket *ticket, const struct steady__call *call) {
    if (call->key_len > ticket->key_room) {
        char *key = malloc(STEADY__KEY_MAX);
        if (key == NULL) return false;
        ticket->key = key;
        ticket->key_room = STEADY__KEY_MAX;
    }
    memcpy(ticket->key, call->key, call->key_len);
    ticket->call = *call;
    ticket->call.key = ticket->key;
    return true;
}

/* The spare ticket used last, if there is one, since it is still in the cache. It stays spare. */
static struct ticket *find_ticket(struct steady__flight *flight) {
    if (steady__list_empty(&flight->spare) && !add_slab(flight)) return NULL;
    return TICKET(flight->spare.next);
}

static struct ticket *take_ticket(struct steady__flight *flight, const struct steady__call *call) {
    struct ticket *ticket = find_ticket(flight);
    if (ticket == NULL || !keep_key(ticket, call)) return NULL;
    steady__list_remove(&ticket->place);
    ticket->request.key = ticket->key;
    ticket->request.key_len = call->key_len;
    ticket->request.prefix_len = steady__prefix_len(call->throttler);
    ticket->request.redirects = 0;
    ticket->request.reads = call->verb == STEADY__PEEK;
    ticket->request.reckons = 0;
    ticket->request.nested = 0;
    ticket->errand = DECISION;
    ticket->turned = false;
    ticket->tries = 1;
    ticket->error = 0;
    return ticket;
}

static void put_back(struct steady__flight *flight, struct ticket *ticket) {
    steady__list_remove(&ticket->place);
    steady__list_prepend(&flight->spare, &ticket->place);
}

static void count(steady_stats *stats, const struct steady__call *call, const steady_result *result) {
    stats->in_flight--;
    if (call->verb == STEADY__RESET) return;
    if (result->error == STEADY_UNKNOWN || result->error == STEADY_CANCELLED)
        stats->unknown++;
    else if (result->error != 0)
        stats->unavailable++;
    else if (result->success)
        stats->allowed++;
    else
        stats->denied++;
    if (result->error == 0 && !result->success && result->blocked_for > 0) stats->blocked++;
}

/* The key of a spare ticket stays as it is until the next submit, and so until the policy has been applied. */
static void finish(struct steady__flight *flight, struct ticket *ticket, const steady_result *result) {
    count(&flight->stats, &ticket->call, result);
    if (flight->stats.in_flight == 0) flight->in_portions = false;
    put_back(flight, ticket);
    if (ticket->answer != NULL)
        *ticket->answer = *result;
    else
        steady__finish(&ticket->call, result);
}

static void fail(struct steady__flight *flight, struct ticket *ticket, int error) {
    const steady_result result = {.error = error};
    if (error == STEADY_NO_MEMORY) steady__fail(flight->trouble, 0, "out of memory");
    finish(flight, ticket, &result);
}

/* ---- Deadlines ---- */

static steady_us tick(const struct steady__flight *flight) {
    return shorter(flight->timeout, longer(flight->timeout / TICKS, AWAY));
}

static void set_alarm(struct steady__flight *flight) {
    if (flight->closed || flight->alarm.set) return;
    if (!steady__list_empty(&flight->failed) || !steady__list_empty(&flight->telling))
        steady__alarm_set(&flight->alarm, 0);
    else if (!steady__list_empty(&flight->due))
        steady__alarm_set(&flight->alarm,
                          shorter(TICKET(flight->due.next)->deadline - steady__loop_now(&flight->loop), tick(flight)));
}

/* ---- A loop that is held ---- */

/* How long the loop was held so far: the sum of what the alarm rang late, and is late now. */
static steady_us held_so_far(const struct steady__flight *flight, steady_us now) {
    const steady_us late = flight->alarm.set && flight->alarm.due != 0 ? now - flight->alarm.due : 0;
    return flight->held + (late >= AWAY ? late : 0);
}

static void stop_alarm(struct steady__flight *flight) {
    flight->held = held_so_far(flight, steady__loop_now(&flight->loop));
    steady__alarm_stop(&flight->alarm);
}

/* The loop was held for half of the ticket's time. */
static bool was_held(const struct steady__flight *flight, const struct ticket *ticket, steady_us now) {
    return held_so_far(flight, now) - ticket->held >= flight->timeout / 2;
}

/* ---- Ending ---- */

/* Many are late for the same reason. */
static void tell_late(struct steady__flight *flight, int error, const char *doing) {
    struct steady__late *late = &flight->late;
    if (late->error != error || late->doing != doing)
        steady__fail(&late->why, 0, "%s within %lld us%s%s",
                     error == STEADY_UNKNOWN      ? "no answer"
                     : error == STEADY_OVERLOADED ? "too much to do, or the event loop was held: not asked"
                                                  : "nobody to ask",
                     (long long)flight->timeout, doing != NULL ? "; still " : "", doing != NULL ? doing : "");
    late->error = error;
    late->doing = doing;
    *flight->trouble = late->why;
}

static void time_out(struct steady__flight *flight, struct ticket *ticket) {
    const struct steady__carrier *carrier = flight->carrier_class;
    const char *doing = carrier->doing != NULL ? carrier->doing(flight->carrier, &ticket->request) : NULL;
    const bool held = was_held(flight, ticket, steady__loop_now(&flight->loop));
    const int error = carrier->forget(flight->carrier, &ticket->request, held);
    if (ticket->call.verb != STEADY__RESET) flight->stats.timeouts++;
    tell_late(flight, error, error == STEADY_UNKNOWN ? NULL : doing);
    fail(flight, ticket, error);
}

/* To be told by the loop. */
static void put_off(struct steady__flight *flight, struct ticket *ticket, int error) {
    ticket->error = error;
    steady__list_remove(&ticket->place);
    if (steady__list_empty(&flight->failed)) stop_alarm(flight);
    steady__list_append(&flight->failed, &ticket->place);
    set_alarm(flight);
}

static bool goes_on(const struct steady__flight *flight) {
    return !flight->closed && !steady__forked(flight->birthmark);
}

/* Those there are now: a callback that asks again at once, and fails again, has to wait for the next turn. One that
 * runs the loop has that turn inside. */
static void tell_failed(struct steady__flight *flight) {
    steady__list_move(&flight->telling, &flight->failed);
    if (steady__list_empty(&flight->telling)) flight->in_portions = false;
    for (int i = 0; i < PORTION && goes_on(flight) && !steady__list_empty(&flight->telling); i++)
        fail(flight, TICKET(flight->telling.next), TICKET(flight->telling.next)->error);
}

static bool is_due(const struct steady__flight *flight, steady_us when) {
    return !steady__list_empty(&flight->due) && TICKET(flight->due.next)->deadline <= when;
}

static void expire(struct steady__flight *flight, steady_us until) {
    tell_failed(flight);
    for (int i = 0; i < PORTION && goes_on(flight) && is_due(flight, until); i++)
        time_out(flight, TICKET(flight->due.next));
}

/* A loop may run timers before it looks at sockets. True: whose carrier cannot catch up is given a turn to read. */
static bool lets_read(struct steady__flight *flight) {
    const bool away = is_due(flight, steady__loop_now(&flight->loop) - AWAY);
    const bool lets = flight->carrier_class->catch_up == NULL && away && !flight->last_turn;
    flight->last_turn = away; /* who was away is given one, however much is late */
    if (lets) steady__alarm_set(&flight->alarm, STEADY_MILLISECOND);
    return lets;
}

/* Where the loop was kept from running, the answers may be there, and are better than none. */
static void alarmed(void *arg) {
    struct steady__flight *flight = arg;
    if (steady__forked(flight->birthmark)) return;
    flight->held = held_so_far(flight, steady__loop_now(&flight->loop));
    if (!steady__alarm_rang(&flight->alarm) || lets_read(flight)) return;
    steady_store *store = flight->store;
    steady__store_hold(store);
    if (flight->carrier_class->catch_up != NULL && is_due(flight, steady__loop_now(&flight->loop))) {
        set_alarm(flight); /* for a callback that runs the loop */
        flight->carrier_class->catch_up(flight->carrier);
        stop_alarm(flight);
    }
    set_alarm(flight); /* likewise */
    expire(flight, steady__loop_now(&flight->loop));
    set_alarm(flight);
    steady__store_release(store);
}

void steady__flight_give_up(struct steady__flight *flight) {
    do
        expire(flight, INT64_MAX);
    while (goes_on(flight) && (is_due(flight, INT64_MAX) || !steady__list_empty(&flight->telling)));
}

/* ---- What the carrier asks ---- */

/* One that waited while its connection was made anew is not wanted there: nobody has heard NOSCRIPT on it yet, and who
 * did before that begins anew. */
static size_t encode_load(struct steady__flight *flight, struct ticket *ticket, struct steady__dialect *dialect,
                          char *out) {
    const enum steady__verb verb = ticket->call.verb;
    if (!dialect->verbs[verb].loading) {
        put_back(flight, ticket);
        return 0;
    }
    flight->stats.script_loads++;
    dialect->verbs[verb].loading = false;
    dialect->verbs[verb].loads++;
    return steady__script_load(out, verb);
}

static size_t encode(void *owner, struct steady__request *request, struct steady__dialect *dialect, char *out) {
    struct steady__flight *flight = owner;
    struct ticket *ticket = TICKET_OF(request);
    const enum steady__verb verb = ticket->call.verb;
    if (ticket->errand == LOAD) return encode_load(flight, ticket, dialect, out);
    if (ticket->errand == SURVEY) return steady__survey_say(out);
    /* A request whose answer would be late is not sent, and ends at its deadline. After a hold of the loop, a request
     * that has little time left is not sent either: its answer could be lost, and it is not the server's fault. */
    const steady_us now = steady__loop_now(&flight->loop);
    const steady_us least = was_held(flight, ticket, now) ? flight->timeout / 4 : 0;
    if (now + longer(request->reckons, least) >= ticket->deadline) return 0;
    ticket->loads = dialect->verbs[verb].loads;
    ticket->to_module = ticket->turned || (ticket->tries == 1 && steady__dialect_module(dialect, verb, flight->engine));
    if (ticket->to_module) return steady__module_command(out, &ticket->call);
    return ticket->tries < TRIES_MAX ? steady__script_command(out, &ticket->call)
                                     : steady__script_eval(out, &ticket->call);
}

/* One that is no decision, to whom `asker` asked; NULL: there is no memory for it. */
static struct ticket *take_errand(struct steady__flight *flight, const struct ticket *asker, enum errand errand) {
    struct ticket *ticket = find_ticket(flight);
    if (ticket == NULL) return NULL;
    steady__list_remove(&ticket->place);
    ticket->errand = errand;
    ticket->call.verb = asker->call.verb;
    ticket->request.key = NULL;
    ticket->request.reads = false;
    ticket->request.nested = errand == SURVEY ? STEADY__NESTED : 0;
    ticket->request.at = asker->request.at;
    return ticket;
}

static bool run_errand(struct steady__flight *flight, struct ticket *ticket) {
    const bool runs = flight->carrier_class->submit(flight->carrier, &ticket->request) == 0;
    if (!runs) put_back(flight, ticket);
    return runs;
}

/* False where there is no memory for it. */
static bool load(struct steady__flight *flight, const struct ticket *asker, struct steady__dialect *dialect) {
    const enum steady__verb verb = asker->call.verb;
    if (dialect->verbs[verb].loading) return true;
    struct ticket *ticket = take_errand(flight, asker, LOAD);
    if (ticket == NULL) return false;
    dialect->verbs[verb].loading = true; /* encoding, which may happen at once, makes it false */
    const bool runs = run_errand(flight, ticket);
    if (!runs) dialect->verbs[verb].loading = false;
    return runs;
}

/* Where the script cannot be loaded, it is sent. */
static bool ask_again(struct steady__flight *flight, struct ticket *ticket, struct steady__dialect *dialect) {
    const bool at_once = ticket->loads == dialect->verbs[ticket->call.verb].loads;
    if (ticket->tries == TRIES_MAX) return false;
    if (ticket->loads == 0) ticket->tries = 1;
    if (ticket->tries == 1 && at_once && !load(flight, ticket, dialect)) ticket->tries = TRIES_MAX - 1;
    ticket->tries++;
    return flight->carrier_class->submit(flight->carrier, &ticket->request) == 0;
}

static void note_error(struct steady__flight *flight, const struct ticket *ticket, const struct steady__reply *reply) {
    const struct steady__request *request = &ticket->request;
    const struct steady__secrets secrets = {flight->url, request->key, request->key_len, request->prefix_len};
    steady__redact(flight->trouble->text, sizeof flight->trouble->text, reply->text, reply->text_len, &secrets);
}

static enum steady__heed refused(struct steady__flight *flight, struct ticket *ticket, struct steady__dialect *dialect,
                                 const struct steady__reply *reply) {
    const enum steady__refusal refusal = steady__script_refusal(reply->text, reply->text_len);
    if (refusal == STEADY__REFUSAL_NOSCRIPT && ask_again(flight, ticket, dialect)) return STEADY__HEED_AGAIN;
    int error = steady__refusal_error(refusal);
    /* One who may call scripts but not load them has to wait until someone else has. */
    if (refusal == STEADY__REFUSAL_AUTH && ticket->tries == TRIES_MAX) error = STEADY_UNAVAILABLE;
    note_error(flight, ticket, reply);
    if (refusal == STEADY__REFUSAL_READONLY) return STEADY__HEED_NOT_PRIMARY;
    fail(flight, ticket, error);
    return refusal == STEADY__REFUSAL_CLIENTS ? STEADY__HEED_NOT_LET_IN : STEADY__HEED_NOTHING;
}

static enum steady__heed loaded(struct steady__flight *flight, struct ticket *ticket,
                                const struct steady__reply *reply) {
    put_back(flight, ticket);
    if (reply->kind == STEADY__REPLY_ERROR) note_error(flight, ticket, reply);
    return reply->kind == STEADY__REPLY_INTEGERS ? STEADY__HEED_UNTRUSTED : STEADY__HEED_NOTHING;
}

static void ask_otherwise(struct steady__flight *flight, struct ticket *ticket) {
    const int error = flight->carrier_class->submit(flight->carrier, &ticket->request);
    if (error != 0) fail(flight, ticket, error);
}

/* The server has no module, or not this command for us: the script is asked instead, for this and all that comes. Where
 * there is none, a server says "ERR unknown command", a proxy anything. True: that was the matter, and has been seen
 * to. */
static bool does_without_module(struct steady__flight *flight, struct ticket *ticket, struct steady__dialect *dialect,
                                const struct steady__reply *reply) {
    if (!ticket->to_module || flight->engine != STEADY_ENGINE_AUTO) return false;
    if (steady__script_refusal(reply->text, reply->text_len) == STEADY__REFUSAL_OTHER) {
        steady__dialect_without_module(dialect);
    } else if (steady__command_forbidden(reply->text, reply->text_len)) {
        steady__dialect_settle(dialect, ticket->call.verb, false);
    } else {
        steady__dialect_nothing_learnt(dialect);
        return false;
    }
    ticket->turned = false;
    ask_otherwise(flight, ticket);
    return true;
}

/* A user may be allowed the module alone, and what was sent before it was known went to the scripts. As above. */
static bool does_without_scripts(struct steady__flight *flight, struct ticket *ticket, struct steady__dialect *dialect,
                                 const struct steady__reply *reply) {
    if (ticket->to_module || !steady__command_forbidden(reply->text, reply->text_len)) return false;
    if (!steady__dialect_turn(dialect, ticket->call.verb, flight->engine)) return false;
    ticket->turned = true;
    ask_otherwise(flight, ticket);
    return true;
}

/* Once, for whoever reads the log. A server that has settled which engine it has is behind nothing that hangs up on a
 * command it does not know. */
static void survey(struct steady__flight *flight, const struct ticket *asker, const struct steady__dialect *dialect) {
    if (flight->surveyed || flight->log == NULL || !steady__dialect_is_settled(dialect)) return;
    flight->surveyed = true;
    flight->surveys++;
    struct ticket *ticket = take_errand(flight, asker, SURVEY);
    if (ticket != NULL) run_errand(flight, ticket);
}

/* Who may not ask hears an error, and that is that. */
static enum steady__heed surveyed(struct steady__flight *flight, struct ticket *ticket,
                                  const struct steady__reply *reply) {
    char where[300], policy[32], text[480];
    put_back(flight, ticket);
    if (steady__survey_evicts(reply, policy, sizeof policy)) {
        steady__redact_place(where, sizeof where, flight->url, flight->url);
        snprintf(text, sizeof text, "%s: the server may evict buckets (maxmemory-policy %s): each such key begins anew",
                 where, policy);
        flight->log(flight->log_data, STEADY_LOG_WARNING, text);
    }
    return reply->kind == STEADY__REPLY_ERROR || reply->kind == STEADY__REPLY_NESTED ? STEADY__HEED_NOTHING
                                                                                     : STEADY__HEED_UNTRUSTED;
}

static bool understand(struct steady__flight *flight, const struct ticket *ticket, const struct steady__reply *reply,
                       steady_result *result) {
    bool stepped = false;
    if (reply->kind != STEADY__REPLY_INTEGERS) return false;
    if (ticket->to_module) return steady__module_reply(&ticket->call, reply->values, reply->count, result);
    if (!steady__script_reply(&ticket->call, reply->values, reply->count, result, &stepped)) return false;
    if (stepped) flight->stats.clock_steps++;
    return true;
}

static enum steady__heed answered(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                  const struct steady__reply *reply) {
    struct steady__flight *flight = owner;
    struct ticket *ticket = TICKET_OF(request);
    steady_result result;
    if (ticket->errand == LOAD) return loaded(flight, ticket, reply);
    if (ticket->errand == SURVEY) return surveyed(flight, ticket, reply);
    if (reply->kind == STEADY__REPLY_ERROR) {
        if (does_without_module(flight, ticket, dialect, reply)) return STEADY__HEED_AGAIN;
        if (does_without_scripts(flight, ticket, dialect, reply)) return STEADY__HEED_AGAIN;
        return refused(flight, ticket, dialect, reply);
    }
    if (!understand(flight, ticket, reply, &result)) return STEADY__HEED_UNTRUSTED;
    if (ticket->to_module) steady__dialect_settle(dialect, ticket->call.verb, true);
    survey(flight, ticket, dialect);
    finish(flight, ticket, &result);
    return STEADY__HEED_NOTHING;
}

static void unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct steady__flight *flight = owner;
    struct ticket *ticket = TICKET_OF(request);
    if (written) error = STEADY_UNKNOWN;
    if (flight->stats.in_flight > PORTION) flight->in_portions = true;
    if (ticket->errand == SURVEY) flight->surveyed = flight->surveys == SURVEYS_MAX;
    if (ticket->errand != DECISION)
        put_back(flight, ticket);
    else if (flight->in_portions)
        put_off(flight, ticket, error);
    else
        fail(flight, ticket, error);
}

const struct steady__link_owner steady__flight_owner = {encode, answered, unanswered};

/* ---- The store's calls ---- */

int steady__flight_init(struct steady__flight *flight) {
    steady__list_init(&flight->due);
    steady__list_init(&flight->failed);
    steady__list_init(&flight->telling);
    steady__list_init(&flight->spare);
    return steady__alarm_new(&flight->alarm, &flight->loop, alarmed, flight);
}

int steady__turn_away(steady_stats *stats, steady_message *trouble, const struct steady__call *call, int error,
                      const char *why) {
    if (call->verb != STEADY__RESET) {
        stats->decisions++;
        stats->unavailable++;
    }
    return steady__fail(trouble, error, "%s", why);
}

static int turn_away(struct steady__flight *flight, const struct steady__call *call, int error, const char *why) {
    return steady__turn_away(&flight->stats, flight->trouble, call, error, why);
}

/* Before a decision is begun: whether its deadline can be kept. */
static bool has_alarm(struct steady__flight *flight) {
    if (!flight->alarm.set) steady__alarm_set(&flight->alarm, tick(flight));
    return steady__retry_runs(flight->retry);
}

/* One that was put off, where no timer comes to tell it. */
static int take_back(struct steady__flight *flight, struct ticket *ticket) {
    flight->stats.in_flight--;
    if (ticket->call.verb != STEADY__RESET) flight->stats.unavailable++;
    put_back(flight, ticket);
    return steady__fail(flight->trouble, STEADY_SYSTEM, NO_TIMER_TEXT);
}

int steady__flight_submit(struct steady__flight *flight, const struct steady__call *call, steady_result *answer) {
    const steady_us now = steady__loop_now(&flight->loop);
    if (flight->stats.in_flight >= flight->max_in_flight)
        return turn_away(flight, call, STEADY_OVERLOADED, "max_in_flight decisions are in flight");
    if (!has_alarm(flight)) return turn_away(flight, call, STEADY_SYSTEM, NO_TIMER_TEXT);
    struct ticket *ticket = take_ticket(flight, call);
    if (ticket == NULL) return turn_away(flight, call, STEADY_NO_MEMORY, "out of memory");
    if (call->verb != STEADY__RESET) flight->stats.decisions++;
    ticket->answer = answer;
    if (answer != NULL) answer->error = STEADY__PENDING;
    flight->stats.in_flight++;
    ticket->deadline = now + flight->timeout;
    ticket->held = held_so_far(flight, now);
    const int error = flight->carrier_class->submit(flight->carrier, &ticket->request);
    if (error != 0) {
        put_off(flight, ticket, error);
        if (!steady__retry_runs(flight->retry)) return take_back(flight, ticket);
    } else {
        steady__list_append(&flight->due, &ticket->place);
        set_alarm(flight);
    }
    return 0;
}

void steady__flight_close(struct steady__flight *flight) {
    flight->closed = true;
    if (flight->carrier != NULL) flight->carrier_class->close(flight->carrier);
    flight->carrier = NULL;
    if (!steady__forked(flight->birthmark)) steady__alarm_free(&flight->alarm);
    while (!steady__list_empty(&flight->telling))
        fail(flight, TICKET(flight->telling.next), STEADY_CANCELLED);
    while (!steady__list_empty(&flight->failed))
        fail(flight, TICKET(flight->failed.next), STEADY_CANCELLED);
    while (!steady__list_empty(&flight->due))
        fail(flight, TICKET(flight->due.next), STEADY_CANCELLED);
}

void steady__flight_free(struct steady__flight *flight) {
    while (flight->slabs != NULL) {
        struct steady__slab *slab = flight->slabs;
        flight->slabs = slab->next;
        for (size_t i = 0; i < SLAB_TICKETS; i++)
            if (slab->tickets[i].key != slab->tickets[i].key_near) free(slab->tickets[i].key);
        free(slab);
    }
}
