/* SPDX-License-Identifier: MIT
 * Calls between slots. The order of the rounds is not checked here, but what follows from it: each bucket is taken once
 * at most, what was taken in vain is given back once, and what is unknown never. */
#include "rounds.h"

#include <inttypes.h>
#include <string.h>

#include "faults.h"
#include "reserved.h"
#include "sim_cluster.h"

static bool asks(const struct request *r) { return r->verb == STEADY__CONSUME_ALL; }
static bool gives(const struct request *r) { return r->verb == STEADY__SETTLE && r->decision->verb != STEADY__SETTLE; }

static bool only_looks(const struct request *r) {
    return r->verb == STEADY__PEEK_ALL && r->decision->verb == STEADY__CONSUME_ALL;
}

bool rounds_outlives(const struct request *r) {
    const struct decision *d = r->decision;
    return r != &d->request && (gives(r) || only_looks(r) || (d->error == 0 && !d->success));
}

static bool was_refused(const struct request *r) { return r->left_on != NULL && r->refused && !r->may_go_again; }

/* A call is divided if its keys have several slots, or if a server says that it has not all of them. */
static void check_division(const struct decision *d) {
    const struct several *s = d->several;
    bool apart = was_refused(&d->request);
    for (size_t i = 1; i < s->n; i++)
        if (!sim_cluster_together(s->members[0].place, s->members[i].place)) apart = true;
    if (!sim_cluster.on || !apart) broken("decision %" PRId64 " is divided for no reason", d->id);
}

struct request *rounds_request_of(struct decision *d, const struct group_words *group, const uint8_t *at) {
    for (struct request *r = d->several->rounds; r != NULL; r = r->next)
        if (r->verb == group->verb && r->n == group->n && memcmp(r->at, at, r->n) == 0) return r;
    check_division(d);
    if (group->verb != d->verb && d->verb != STEADY__CONSUME_ALL)
        broken("decision %" PRId64 " sends a command that it does not need", d->id);
    struct request *r = keep(sizeof *r);
    *r = (struct request){.decision = d, .next = d->several->rounds, .verb = group->verb, .n = group->n};
    memcpy(r->at, at, r->n);
    d->several->rounds = r;
    return r;
}

/* ---- Commands ---- */

/* Drops are given back on the connection that took them, or where that one redirects to. If they were taken after ASK,
 * the owner of the slot is asked first again. Until a refused settle goes out again, the slot may have another owner.
 */
static void check_giving(const struct conn *conn, const struct request *r, size_t k) {
    const struct decision *d = r->decision;
    const struct member *member = &d->several->members[r->at[k]];
    if (member->asked == NULL || member->granted == 0)
        broken("decision %" PRId64 " gives back part %d, which it has not taken", d->id, r->at[k]);
    if (!journal_heard(member->asked))
        broken("decision %" PRId64 " gives back part %d, of which it knows nothing", d->id, r->at[k]);
    if (r->left_on == NULL && conn != member->asked->left_on && !member->asked->asking)
        broken("decision %" PRId64 " gives back part %d on another connection", d->id, r->at[k]);
    if (r->left_on != NULL && conn != r->left_on && !r->redirected && !member->asked->asking)
        broken("decision %" PRId64 " gives back part %d again", d->id, r->at[k]);
}

/* Drops are taken out when nothing can deny any more. */
static void check_drain(const struct request *r) {
    const struct several *s = r->decision->several;
    bool drains = false;
    for (size_t k = 0; k < r->n; k++)
        drains = drains || s->members[r->at[k]].part.amount < 0;
    for (size_t i = 0; drains && i < s->n; i++) {
        const struct member *member = &s->members[i];
        if (member->part.amount <= 0 || member->part.kind == STEADY__LOOK) continue;
        if (member->asked == NULL || !journal_heard(member->asked) || !member->asked->made->verdict.success)
            broken("decision %" PRId64 " drains before part %zu is taken", r->decision->id, i);
    }
}

void rounds_leaves(struct conn *conn, struct request *r, const struct group_words *group) {
    const struct decision *d = r->decision;
    if (asks(r)) check_drain(r);
    for (size_t k = 0; k < group->n && gives(r); k++) {
        check_giving(conn, r, k);
        if (d->told && d->error == 0 && d->success && group->settlements[k].actual == 0)
            broken("decision %" PRId64 " gives back part %d, and was allowed", d->id, r->at[k]);
    }
}

static bool is_amount(const struct several *s, const struct member *member, int64_t amount) {
    if (s->how.at_least == 0) return amount == member->part.amount;
    return amount >= s->how.at_least && amount <= member->part.amount;
}

/* A part may be sent with its block duration only after a denial. Later a denial is the loss of a race. */
static bool is_block(const struct request *r, const struct member *member, const struct steady__rate *sent) {
    const struct steady__rate *rate = member->part.rate;
    const bool blocks = r->decision->several->look_denied || member->part.kind != STEADY__TAKE;
    return sent->block == (r->verb == STEADY__PEEK_ALL || blocks ? rate->block : 0);
}

static void check_part(const struct request *r, size_t k, const struct group_words *group) {
    const struct decision *d = r->decision;
    const struct several *s = d->several;
    const struct member *member = &s->members[r->at[k]];
    const struct steady__part *part = &group->parts[k];
    const bool looks = r->verb == STEADY__PEEK_ALL;
    bool same = several_is_rate(&group->rates[k], member->part.rate, false) && part->kind == member->part.kind;
    same = same && (looks ? part->amount == member->part.amount : is_amount(s, member, part->amount));
    if (group->with_block && part->amount > 0) same = same && is_block(r, member, &group->rates[k]);
    same = same && group->how.max_wait == s->how.max_wait;
    same = same && (group->how.at_least == s->how.at_least || (part->amount <= 0 && group->how.at_least == 0));
    if (!same) broken("part %d of decision %" PRId64 " goes out with other arguments", r->at[k], d->id);
}

static void check_settlement(const struct request *r, size_t k, const struct steady__settlement *sent) {
    const struct several *s = r->decision->several;
    const struct member *member = &s->members[r->at[k]];
    struct steady__settlement right = member->settlement;
    if (gives(r))
        right = (struct steady__settlement){
            .reserved = member->granted, .moment = member->moment, .same_rate = true, .actual = sent->actual};
    const bool equalizes = s->how.at_least > 0 && sent->actual >= s->how.at_least && sent->actual < sent->reserved;
    if (!several_is_settlement(sent, &right) || (gives(r) && sent->actual != 0 && !equalizes))
        broken("part %d of decision %" PRId64 " is settled with other arguments", r->at[k], r->decision->id);
    if (!several_is_rate(sent->rate, member->part.rate, false))
        broken("part %d of decision %" PRId64 " is settled under another limit", r->at[k], r->decision->id);
}

void rounds_check_arguments(const struct request *r, const struct group_words *group) {
    for (size_t k = 0; k < group->n; k++) {
        if (r->verb == STEADY__SETTLE)
            check_settlement(r, k, &group->settlements[k]);
        else if (r->verb != STEADY__RESET_ALL)
            check_part(r, k, group);
    }
}

/* ---- What servers do ---- */

static void asked(struct request *r, size_t k, const struct made *made) {
    struct member *member = &r->decision->several->members[r->at[k]];
    if (member->asks++ > 0) broken("part %d of decision %" PRId64 " is taken twice", r->at[k], r->decision->id);
    member->asked = r;
    member->taken_at = world.now;
    member->granted = made->each[k].granted;
    member->moment = made->now;
}

static void gave_back(struct request *r, size_t k) {
    struct member *member = &r->decision->several->members[r->at[k]];
    if (member->gives++ > 0) broken("part %d of decision %" PRId64 " is given back twice", r->at[k], r->decision->id);
    member->given_back = r;
    journal_totals.given_back++;
}

static bool is_idle(const struct several *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->members[i].part.amount != 0) return false;
    return true;
}

/* A part with amount 0 has a vote only if all amounts of the call are 0, and not if only those of this command are. */
static bool denies(const struct request *r, const struct made *made) {
    const struct several *s = r->decision->several;
    for (size_t k = 0; k < r->n; k++) {
        const struct steady__part *part = &s->members[r->at[k]].part;
        const bool votes = part->kind <= STEADY__LOOK && (part->amount > 0 || is_idle(s));
        if (votes && !made->each[k].bucket.success) return true;
    }
    return false;
}

void rounds_executed(struct request *r, const struct made *made) {
    struct several *s = r->decision->several;
    struct made *kept = keep(sizeof *kept);
    *kept = *made;
    r->made = kept;
    r->decision->client->rounds_stepped += made->stepped;
    for (size_t k = 0; k < r->n; k++) {
        if (asks(r)) asked(r, k, made);
        if (gives(r)) gave_back(r, k);
    }
    if (r->verb == STEADY__PEEK_ALL && denies(r, made)) s->look_denied = true;
    if (r->decision->verb == STEADY__SETTLE) reserved_settled(r);
}

/* ---- Verdicts ---- */

static void check_taken(const struct decision *d, size_t i, const steady_part_result *r) {
    const struct several *s = d->several;
    const struct member *member = &s->members[i];
    if (member->part.amount == 0 || member->part.kind == STEADY__LOOK) return;
    if (member->asked == NULL || !journal_heard(member->asked))
        broken("decision %" PRId64 " is allowed, and part %zu was not taken", d->id, i);
    if (member->granted != r->granted && !(s->how.at_least > 0 && member->granted > r->granted))
        broken("part %zu of decision %" PRId64 " was granted %" PRId64 ", and is told as %" PRId64, i, d->id,
               member->granted, r->granted);
    if (member->part.kind == STEADY__TAKE && member->part.amount > 0 && s->how.at_least == 0 &&
        member->granted != member->part.amount)
        broken("part %zu of decision %" PRId64 " got %" PRId64 " only", i, d->id, member->granted);
}

static void check_allowed(const struct decision *d, const steady_result *r) {
    const struct several *s = d->several;
    steady_us wait = 0;
    for (size_t i = 0; i < s->n && d->verb == STEADY__CONSUME_ALL; i++) {
        check_taken(d, i, &r->parts[i]);
        if (s->how.at_least > 0 && (r->parts[i].granted != r->parts[0].granted || r->granted < s->how.at_least))
            broken("the parts of decision %" PRId64 " get different amounts", d->id);
    }
    for (const struct request *q = s->rounds; q != NULL; q = q->next)
        if (asks(q) && q->executed > 0 && q->made->verdict.wait > wait) wait = q->made->verdict.wait;
    if (r->must_wait < wait || r->must_wait > s->how.max_wait)
        broken("decision %" PRId64 " may start after %" PRId64 " us, and must wait %" PRId64, d->id, r->must_wait,
               wait);
}

static bool was_denied(const struct several *s) {
    for (const struct request *q = s->rounds; q != NULL; q = q->next) {
        if (q->made == NULL || !journal_heard(q)) continue;
        if ((asks(q) && !q->made->verdict.success) || (q->verb == STEADY__PEEK_ALL && denies(q, q->made))) return true;
    }
    return false;
}

/* What a denied call has taken was given back, or is unknown. Its settle may have been lost; see rounds_end. */
static void check_denied(const struct decision *d, const steady_result *r) {
    const struct several *s = d->several;
    if (!was_denied(s)) broken("decision %" PRId64 " is denied, and no part has denied it", d->id);
    for (size_t i = 0; i < s->n; i++)
        if (r->parts[i].granted != 0) broken("part %zu of decision %" PRId64 ", which is denied, is granted", i, d->id);
    if (r->retry_after != r->parts[r->part].retry_after || r->parts[r->part].success)
        broken("decision %" PRId64 " names part %zu, which did not deny it", d->id, r->part);
}

/* All commands must have been answered. Each settle and each reset has one command for each slot. */
static void check_alone(const struct decision *d, const steady_result *r) {
    const struct several *s = d->several;
    uint64_t answered = 0;
    for (const struct request *q = s->rounds; q != NULL; q = q->next)
        for (size_t k = 0; k < q->n && journal_heard(q); k++) {
            answered |= UINT64_C(1) << q->at[k];
            if (d->verb != STEADY__SETTLE) continue;
            if (r->parts[q->at[k]].given_back != q->made->settled[k].given_back ||
                r->parts[q->at[k]].charged != q->made->settled[k].charged)
                broken("part %d of decision %" PRId64 " is settled otherwise than told", q->at[k], d->id);
        }
    if (answered != (UINT64_C(1) << s->n) - 1 || !r->success)
        broken("decision %" PRId64 " is called back before all its parts are answered", d->id);
}

static void check_answered(const struct decision *d) {
    for (const struct request *q = d->several->rounds; q != NULL; q = q->next)
        if (q->left_on != NULL && !q->refused && !journal_heard(q) && !gives(q) && d->success)
            broken("decision %" PRId64 " is called back before all its commands are answered", d->id);
}

void rounds_check_verdict(const struct decision *d, const steady_result *r) {
    if (r->source != STEADY_FROM_STORE || r->atomic || r->n_parts != d->several->n)
        broken("decision %" PRId64 " comes from %d, atomic: %d, of %zu parts", d->id, (int)r->source, r->atomic,
               r->n_parts);
    check_answered(d);
    if (!steady__verb_decides(d->verb))
        check_alone(d, r);
    else if (r->success)
        check_allowed(d, r);
    else
        check_denied(d, r);
}

/* ---- Errors ---- */

/* Whether nothing of the part is charged: it was not taken, or it was given back, and the client knows. */
static bool is_uncharged(const struct member *member) {
    if (member->asked == NULL || member->granted == 0) return true;
    return journal_heard(member->asked) && member->given_back != NULL && journal_heard(member->given_back);
}

static bool is_resolved(const struct request *r) {
    return r->left_on == NULL || r->refused || r->left_on->turned_away || journal_heard(r);
}

static bool is_all_uncharged(const struct decision *d) {
    const struct several *s = d->several;
    for (size_t i = 0; i < s->n; i++)
        if (!is_uncharged(&s->members[i])) return false;
    for (const struct request *q = s->rounds; q != NULL; q = q->next) {
        if (!gives(q) && !only_looks(q) && !is_resolved(q)) return false;
        if (d->verb == STEADY__SETTLE && q->executed > 0) return false; /* half a reset charges nothing */
    }
    return true;
}

void rounds_check_uncharged(const struct decision *d) {
    if (!is_all_uncharged(d))
        broken("decision %" PRId64 " is %s, and may be charged", d->id, steady_error_name(d->error));
}

/* A command that waits in the buffer of a connection may go out, and has not left so far. */
void rounds_check_doubt(const struct decision *d) {
    uint64_t seen = 0;
    for (const struct request *q = d->several->rounds; q != NULL; q = q->next)
        if (only_looks(q) && q->left_on != NULL && !q->refused && !journal_heard(q))
            broken("decision %" PRId64 " is unknown, and still looks", d->id);
    for (const struct request *q = d->several->rounds; q != NULL; q = q->next) {
        if (q->left_on == NULL || q->may_go_again || !journal_heard(q)) return;
        for (size_t k = 0; k < q->n && q->verb != STEADY__PEEK_ALL; k++)
            seen |= UINT64_C(1) << q->at[k];
    }
    if (seen != (UINT64_C(1) << d->several->n) - 1) return;
    if (is_all_uncharged(d)) broken("decision %" PRId64 " is unknown, and nothing about it is", d->id);
}

/* The connection that took the drops leads to the bucket. Before the first map a client may have reached the same node
 * by its name: then the bucket has another connection from now on. */
static bool is_connected(const struct member *member) {
    const struct conn *conn = member->asked->left_on;
    for (const struct conn *other = conn->node->conns; other != NULL; other = other->next)
        if (other != conn && other->client == conn->client) return false;
    return !conn->closed && !conn->ended && sim_cluster_stays(member->place);
}

/* The server said after the take that it makes no decisions for now. Then the client sends none for a while, and no
 * settle either. */
static bool is_paused(const struct member *member) {
    const struct conn *conn = member->asked->left_on;
    return conn->busy_at > member->asked->answered_at && conn->read >= conn->busy_at;
}

/* granted: to each part, if the call has an at_least. */
void rounds_told(struct decision *d, int64_t granted) {
    for (size_t i = 0; d->several->rounds != NULL && i < d->several->n; i++) {
        struct member *member = &d->several->members[i];
        const struct conn *conn = member->asked != NULL ? member->asked->left_on : NULL;
        member->heard = member->read = conn != NULL && journal_heard(member->asked);
        /* A callback may cancel the call of a later reply, which was read with its own. */
        if (member->heard && d->cancelled) member->heard = conn->read_before >= member->asked->answered_at;
        const bool in_vain = d->error == 0 && d->success ? member->granted > granted : member->granted > 0;
        if (!member->heard || !in_vain || !is_connected(member) || is_paused(member)) continue;
        member->ended_at = sim_loop_now(&d->client->loop);
        member->owing = d->client->owing;
        d->client->owing = member;
    }
}

/* Commands go out in the order in which they were submitted. So a settle that was submitted when its call ended, or
 * before, goes out before. If little time is left for it, it may be skipped. Its time begins when the client hears of
 * the denial, which is after the take. */
void rounds_overtake(struct conn *conn, const struct decision *d) {
    const steady_us now = sim_loop_now(&d->client->loop), half = d->client->options.timeout / 2;
    for (struct member *m = d->client->owing; m != NULL && m->ended_at + half >= now; m = m->owing)
        if (m->asked->left_on == conn && d->submitted > m->ended_at && m->taken_at + half >= now) m->overtaken = true;
}

/* ---- The end ---- */

static bool has_gone_out(const struct decision *d, const struct member *member) {
    for (const struct request *q = d->several->rounds; q != NULL; q = q->next)
        for (size_t k = 0; k < q->n; k++)
            if (gives(q) && &d->several->members[q->at[k]] == member && q->left_on != NULL) return true;
    return false;
}

/* Then a call that is cancelled stays charged. */
static bool is_all_taken(const struct several *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->members[i].part.amount > 0 && s->members[i].part.kind != STEADY__LOOK && !s->members[i].read)
            return false;
    return true;
}

void rounds_end(const struct decision *d) {
    const struct several *s = d->several;
    journal_totals.in_rounds++;
    if (d->cancelled && is_all_taken(s)) return;
    if (d->verb != STEADY__CONSUME_ALL || !d->told) return;
    const bool allowed = d->error == 0 && d->success;
    for (size_t i = 0; i < s->n; i++) {
        const struct member *member = &s->members[i];
        if (!member->heard || member->granted <= 0 || member->gives > 0) continue;
        journal_totals.not_given_back += !allowed;
        if (member->overtaken && !faults_memory() && d->error != STEADY_CANCELLED && !has_gone_out(d, member))
            broken("part %zu of decision %" PRId64 " was taken in vain, and never given back", i, d->id);
    }
}
