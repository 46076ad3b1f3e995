/* SPDX-License-Identifier: MIT
 * The decisions of a seed, and the checks on each. */
#include "journal.h"

#include <inttypes.h>
#include <string.h>

#include "../packed.h"
#include "client.h"
#include "denials.h"
#include "faults.h"
#include "leases.h"
#include "rounds.h"
#include "several.h"
#include "sim_cluster.h"
#include "words.h"

static struct decision decisions[DECISIONS_MAX];
static int64_t count;
struct journal_totals journal_totals;

void journal_begin(void) { count = 0; }

struct decision *journal_open(struct client *client, const struct place *place, enum steady__verb verb,
                              int64_t amount) {
    if (count == DECISIONS_MAX) broken("more than %d decisions", DECISIONS_MAX);
    struct decision *d = &decisions[count++];
    *d = (struct decision){.id = count,
                           .client = client,
                           .life = client->life,
                           .place = place,
                           .verb = verb,
                           .amount = place != NULL && place->by_amount ? count : amount};
    d->request = (struct request){.decision = d, .verb = verb, .n = 1};
    return d;
}

static int64_t amount_of(const struct words *words, enum form form) {
    if (form != FORM_MODULE) {
        if (words->at[4].len < PACKED_PLAIN) broken("an argument has only %zu bytes", words->at[4].len);
        return packed_get_i4(words->at[4].bytes + 12);
    }
    if (word_is(&words->at[0], "STEADY.RESET")) return 0;
    return word_is(&words->at[words->count - 2], "AMOUNT") ? word_number(&words->at[words->count - 1]) : 1;
}

struct decision *journal_find(int64_t id) {
    if (id < 1 || id > count) broken("a command is about no decision there ever was: %" PRId64, id);
    return &decisions[id - 1];
}

static struct request *request_on_one_key(const struct words *words, enum form form, const struct word *key) {
    const int64_t amount = amount_of(words, form), id = word_id(key);
    struct decision *d = journal_find(id != 0 ? id : amount);
    if (d->key_len != key->len || memcmp(d->key, key->bytes, key->len) != 0)
        broken("decision %" PRId64 " is about another key", d->id);
    if (d->amount != amount) broken("decision %" PRId64 " has another amount: %" PRId64, d->id, amount);
    return &d->request;
}

struct request *journal_of(const struct words *words) {
    const enum form form = words_form(words);
    struct group_words group;
    if (form == FORM_OTHER) return NULL;
    const enum steady__verb verb = words_verb(words, form);
    const struct word *key = &words->at[form == FORM_MODULE ? 1 : 3];
    const bool may_be_plain = verb <= STEADY__RESET;
    const int64_t id = may_be_plain ? word_id(key) : 0;
    if (may_be_plain && (verb != STEADY__RESET || journal_find(id)->several == NULL))
        return request_on_one_key(words, form, key);
    group_words_read(&group, words, form);
    struct request *of_lease = leases_request_of(&group);
    return of_lease != NULL ? of_lease : several_request_of(journal_find(word_id(group.keys)), &group);
}

const struct place *journal_place(const struct request *r, size_t key) {
    return r->decision->several != NULL ? r->decision->several->members[r->at[key]].place : r->decision->place;
}

static bool may_have_been_charged(int error) { return error == STEADY_UNKNOWN || error == STEADY_CANCELLED; }

/* A peek charges nothing, so the server may get a peek that a replica did not answer. */
static bool may_repeat(const struct decision *d) { return d->verb == STEADY__PEEK && d->client->peeks_at_replica; }

/* ---- Requests sent ---- */

static void left(struct conn *conn, const struct words *words) {
    struct request *r = journal_of(words);
    if (r == NULL) return;
    const struct decision *d = r->decision;
    note("goes out", d->id, conn->fd, r->verb);
    if (d->client != conn->client) broken("decision %" PRId64 " is sent by another client", d->id);
    if (d->told && !may_have_been_charged(d->error) && !may_repeat(d) && !rounds_outlives(r) && !leases_outlives(r))
        broken("decision %" PRId64 " goes out after it was told as %s", d->id, steady_error_name(d->error));
    if (r->left_on != NULL && !r->may_go_again && !r->left_on->turned_away && !may_repeat(d))
        broken("decision %" PRId64 " goes out twice", d->id);
    if (r->lease != NULL)
        leases_leaves(conn, r, words);
    else if (d->several != NULL)
        several_leaves(conn, r, words);
    if (!leases_outlives(r)) rounds_overtake(conn, d);
    r->left_on = conn;
    r->refused = r->may_go_again = false;
    r->closes = conn->client->closing;
    r->answered_at = 0;
}

/* A request counts as sent when its first byte is sent. The bytes offered hold whole requests, except perhaps the
 * first. */
void journal_left(struct conn *conn, const char *bytes, size_t offered, size_t taken) {
    size_t from = conn->owed;
    while (from < taken) {
        struct words words;
        const size_t len = words_read(&words, bytes + from, offered - from);
        if (len == 0) broken("half a request is sent");
        left(conn, &words);
        from += len;
    }
    conn->owed = from - taken;
}

/* ---- Execution by the servers ---- */

/* Checks the forms in which a decision is sent: EVALSHA, EVALSHA again after NOSCRIPT, then the script itself. If
 * scripts are forbidden, the module may be used at any time. On a connection without a SCRIPT LOAD the order begins
 * again. */
void journal_seen(struct request *r, enum form form) {
    const int64_t id = r->decision->id;
    if (may_repeat(r->decision)) return; /* the order begins again at the server */
    if (form == FORM_EVAL && r->closes) return;
    if (form == FORM_EVAL && r->noscripts == 1 && faults_memory()) return; /* no memory may be left for SCRIPT LOAD */
    if (form == FORM_EVAL && r->verb == STEADY__SETTLE && r->decision->life < r->decision->client->life)
        return; /* a store that closes sends the script: it cannot send again */
    if (form == FORM_MODULE ? r->noscripts > 0 && !r->turned : (form == FORM_EVAL) != (r->noscripts == 2))
        broken("decision %" PRId64 " is sent in the wrong form after %u times NOSCRIPT", id, r->noscripts);
}

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

void journal_refused(struct request *r, const char *why) {
    r->refused = true;
    if (begins(why, "-NOSCRIPT")) r->noscripts = r->left_on->loaded[r->verb] ? r->noscripts + 1 : 1;
    if (begins(why, "-NOPERM this user")) r->turned = true;
    r->asking = begins(why, "-ASK");
    r->redirected = r->redirected || begins(why, "-MOVED") || begins(why, "-ASK");
    r->may_go_again = begins(why, "-MOVED") || begins(why, "-ASK") || begins(why, "-NOSCRIPT") ||
                      begins(why, "-READONLY") || begins(why, "-ERR unknown command 'STEADY") ||
                      begins(why, "-NOPERM no STEADY") || begins(why, "-NOPERM this user");
}

/* If the client closes the connection at garbage, it does not hear the replies behind it. It has read their bytes. It
 * takes garbage for the reply to a request that it has forgotten. */
bool journal_heard(const struct request *r) {
    const struct conn *conn = r->left_on;
    if (r->answered_at == 0 || conn->read < r->answered_at) return false;
    return !conn->closed || conn->garbage_at <= conn->read_before || r->answered_at < conn->garbage_at;
}

void journal_executed(struct request *r) {
    const struct decision *d = r->decision;
    if (r->executed++ > 0 && !may_repeat(d)) broken("decision %" PRId64 " is made twice", d->id);
    if (d->told && !may_have_been_charged(d->error) && !may_repeat(d) && !rounds_outlives(r) && !leases_outlives(r))
        broken("decision %" PRId64 " is made after it was told as %s", d->id, steady_error_name(d->error));
}

void journal_outcome(struct decision *d, const struct steady__decision *outcome) {
    d->before = d->outcome;
    d->stepped_before = d->stepped;
    d->stepped = outcome->stepped;
    d->outcome = (steady_result){.source = STEADY_FROM_STORE,
                                 .success = outcome->success,
                                 .level = outcome->level,
                                 .until_next_drop = outcome->until_next_drop,
                                 .blocked_for = outcome->blocked_for,
                                 .retry_after = outcome->retry_after};
}

/* ---- Results ---- */

static bool is_same(const steady_result *a, const steady_result *b) {
    return a->success == b->success && a->level == b->level && a->until_next_drop == b->until_next_drop &&
           a->blocked_for == b->blocked_for && a->retry_after == b->retry_after;
}

static void check_verdict(const struct decision *d, const steady_result *r) {
    const steady_result *o = &d->outcome;
    if (d->request.executed == 0) broken("decision %" PRId64 " has a verdict and was never made", d->id);
    if (r->source != STEADY_FROM_STORE) broken("decision %" PRId64 " comes from %d", d->id, (int)r->source);
    if (!is_same(r, o))
        broken("decision %" PRId64 " was told as %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 ", but is %d %" PRId64
               " %" PRId64 " %" PRId64 " %" PRId64,
               d->id, r->success, r->level, r->until_next_drop, r->blocked_for, r->retry_after, o->success, o->level,
               o->until_next_drop, o->blocked_for, o->retry_after);
}

static void check_local(const struct decision *d, const steady_result *r) {
    struct client *client = d->client;
    const int64_t capacity = d->place->rate.capacity / d->place->shares;
    const bool fits = client->local_level + d->amount <= capacity;
    if (fits) client->local_level += d->amount;
    if (r->source != STEADY_FROM_LOCAL || r->success != fits || r->level != client->local_level)
        broken("decision %" PRId64 " is %d at level %" PRId64 " of %" PRId64 " by the local policy", d->id, r->success,
               r->level, capacity);
}

static void check_policy(const struct decision *d, const steady_result *r) {
    const bool silence = r->error == STEADY_UNAVAILABLE || r->error == STEADY_UNKNOWN || r->error == STEADY_REFUSED ||
                         r->error == STEADY_SERVER || r->error == STEADY_OVERLOADED;
    if (d->policy == STEADY_REPORT || !silence || !steady__verb_decides(d->verb)) {
        if (r->source != STEADY_FROM_NOWHERE || r->success)
            broken("decision %" PRId64 " is %s, and yet from %d", d->id, steady_error_name(r->error), (int)r->source);
    } else if (d->policy == STEADY_LOCAL) {
        if (d->several != NULL)
            several_check_local(d, r);
        else
            check_local(d, r);
    } else if (r->source != STEADY_FROM_POLICY ||
               r->success != (d->policy == STEADY_ALLOW && r->error != STEADY_OVERLOADED)) {
        broken("decision %" PRId64 " does not follow its policy %d", d->id, (int)d->policy);
    }
}

/* No decision is unknown if the server says that it has read nothing and the client can hear that. */
static void check_doubt(const struct decision *d) {
    if (d->several != NULL && d->several->rounds != NULL) {
        rounds_check_doubt(d);
        return;
    }
    const struct conn *conn = leases_deciding(d)->left_on;
    const bool in_time = sim_loop_now(&d->client->loop) < d->deadline;
    if (conn == NULL && !client_has_links(d->client) && (d->client->conn == NULL || d->client->conn->closed))
        broken("decision %" PRId64 " never went out, and is unknown", d->id);
    if (conn == NULL) return;
    if (in_time && conn->turned_away_at > 0 && conn->read >= conn->turned_away_at)
        broken("decision %" PRId64 " was never read, and is unknown", d->id);
}

static void check_uncharged(const struct decision *d) {
    const struct request *r = leases_deciding(d);
    if (d->several != NULL && d->several->rounds != NULL) rounds_check_uncharged(d);
    if (r->executed > 0) broken("decision %" PRId64 " was made, but is %s", d->id, steady_error_name(d->error));
    if (r->left_on != NULL && !r->refused && !r->left_on->turned_away)
        broken("decision %" PRId64 " went out and was not refused, but is %s", d->id, steady_error_name(d->error));
}

static bool is_foreign(const struct decision *d) {
    return d->several != NULL ? several_is_foreign(d->several) : d->place->foreign;
}

/* If the error says that nothing was charged, nothing was charged, and nothing will be. */
static void check_error(const struct decision *d) {
    const struct client *client = d->client;
    switch (d->error) {
    case STEADY_UNKNOWN: check_doubt(d); return;
    case STEADY_CANCELLED:
        if (!client->closing) broken("decision %" PRId64 " is cancelled, but its store is open", d->id);
        return;
    case STEADY_NOT_A_BUCKET:
        if (!is_foreign(d)) broken("decision %" PRId64 " is about a bucket", d->id);
        break;
    case STEADY_UNAVAILABLE:
    case STEADY_OVERLOADED:
    case STEADY_REFUSED:
    case STEADY_SERVER: break;
    case STEADY_NO_MEMORY:
        if (!faults_memory()) broken("decision %" PRId64 " finds no memory", d->id);
        break;
    default: broken("decision %" PRId64 " ends as %s", d->id, steady_error_name(d->error));
    }
    if (may_repeat(d)) return;
    check_uncharged(d);
}

static void tally(const struct decision *d, const steady_result *r) {
    steady_stats *stats = &d->client->expected;
    stats->in_flight--;
    if (d->error == 0) stats->clock_steps += d->stepped;
    if (!steady__verb_decides(d->verb)) return;
    if (may_have_been_charged(d->error))
        stats->unknown++;
    else if (d->error != 0)
        stats->unavailable++;
    else if (r->success)
        stats->allowed++;
    else
        stats->denied++;
    if (d->error == 0 && !r->success && r->blocked_for > 0) stats->blocked++;
    if (r->source == STEADY_FROM_MEMORY) stats->from_memory++;
    if (r->source == STEADY_FROM_LEASE) stats->from_lease++;
}

void journal_told(struct decision *d, const steady_result *r) {
    const struct client *client = d->client;
    const steady_us now = sim_loop_now(&client->loop);
    note("told", d->id, r->error, r->success);
    if (client->submitting) broken("decision %" PRId64 " is called back inside the call of a decision", d->id);
    if (d->told || !d->accepted) broken("decision %" PRId64 " is called back once too often", d->id);
    if (d->life != client->life) broken("decision %" PRId64 " is called back after its store was closed", d->id);
    d->told = true;
    d->error = r->error;
    d->success = r->success;
    if (client->closing && d->error != STEADY_CANCELLED)
        broken("decision %" PRId64 " ends as %s while its store is closed", d->id, steady_error_name(d->error));
    if (now > d->deadline + client_slack(client, d))
        broken("decision %" PRId64 " ends %" PRId64 " us after its deadline", d->id, now - d->deadline);
    if (d->error != 0 && d->error != STEADY_CANCELLED && client_is_well(client, d->submitted) && !is_foreign(d))
        broken("decision %" PRId64 " is %s, though nothing has been wrong for long", d->id,
               steady_error_name(d->error));
    if (d->request.executed > 1 && !is_same(r, &d->outcome)) {
        d->outcome = d->before;
        d->stepped = d->stepped_before;
    }
    tally(d, r);
    denials_told(d);
    if (r->source == STEADY_FROM_MEMORY) {
        denials_check(d, r);
    } else if (r->source == STEADY_FROM_LEASE) {
        leases_check(d, r);
    } else if (d->error == 0 && d->lease != NULL) {
        leases_granted(d, r);
    } else if (d->error == 0 && d->several != NULL) {
        several_check_verdict(d, r);
    } else if (d->error == 0) {
        check_verdict(d, r);
    } else {
        check_error(d);
        check_policy(d, r);
    }
    if (d->several != NULL) several_told(d, r);
}

void journal_cancelled(struct decision *d, int error) {
    note("cancelled", d->id, error, 0);
    d->told = d->cancelled = true;
    d->error = error;
    d->client->expected.in_flight--;
    denials_told(d);
    if (d->several != NULL) several_cancelled(d);
    if (steady__verb_decides(d->verb))
        *(may_have_been_charged(error) ? &d->client->expected.unknown : &d->client->expected.unavailable) += 1;
    if (!may_have_been_charged(error) && !may_repeat(d)) check_uncharged(d);
}

struct decision *journal_in_flight(const struct client *client) {
    struct decision *found = NULL;
    int64_t so_far = 0;
    for (int64_t i = count; i > 0 && i > count - 200; i--) {
        struct decision *d = &decisions[i - 1];
        if (d->client != client || d->life != client->life || d->call_id == 0 || d->told || !d->accepted) continue;
        if (one_in(++so_far)) found = d;
    }
    return found;
}

void journal_end(void) {
    for (int64_t i = 0; i < count; i++) {
        const struct decision *d = &decisions[i];
        journal_totals.several += d->several != NULL;
        if (d->several != NULL && d->several->rounds != NULL) rounds_end(d);
        if (d->accepted && !d->told) broken("decision %" PRId64 " was never called back", i + 1);
        journal_totals.asked++;
        if (!d->told || (d->error != 0 && !may_have_been_charged(d->error)))
            journal_totals.other++;
        else if (d->error == 0)
            *(d->success ? &journal_totals.allowed : &journal_totals.denied) += 1;
        else
            *(d->error == STEADY_UNKNOWN ? &journal_totals.unknown : &journal_totals.cancelled) += 1;
    }
}
