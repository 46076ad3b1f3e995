/* SPDX-License-Identifier: MIT
 * Calls on several keys: their making, and the checks on their results. Reservations are kept by all clients together:
 * a client may settle what another one has reserved. */
#include "several.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "faults.h"
#include "reserved.h"
#include "rounds.h"
#include "sim_cluster.h"

/* ---- Keys ---- */

static void escape(char *to, const char *text) {
    for (; *text != '\0'; text++) {
        if (strchr("%{}", *text) != NULL)
            to += sprintf(to, "%%%02X", (unsigned)*text);
        else
            *to++ = *text;
    }
    *to = '\0';
}

static const char *name_of(const struct place *place, int64_t id) {
    char *name = keep(1100);
    snprintf(name, 1100, "%s#%" PRId64, place->name, id);
    return name;
}

static void compose_key(struct member *member, const char *name) {
    const struct place *place = member->place;
    char escaped[256], *key = keep(1100);
    if (place->n_limits == 1) {
        snprintf(key, 1100, "%s%s", place->prefix, name);
    } else {
        escape(escaped, name);
        snprintf(key, 1100, "%s{%s}%s", place->prefix, escaped, place->limit.name);
    }
    member->key = key;
    member->key_len = strlen(key);
    sim_cluster_check_slot(place, key);
}

/* ---- Choosing ---- */

static int64_t any_amount(const struct place *place, enum steady_kind kind) {
    switch (between(1, 14)) {
    case 1: return 0;
    case 2: return kind == STEADY_TAKE ? -between(1, 5) : 1;
    case 3: return between(1, place->rate.capacity);
    case 4: return place->rate.capacity < INT32_MAX ? place->rate.capacity + 1 : 1;
    case 5: return between(1, INT32_MAX);
    default: return between(1, 3);
    }
}

static enum steady_kind any_kind(void) { return one_in(2) ? STEADY_TAKE : (enum steady_kind)between(0, 3); }

static steady_us any_wait(void) {
    if (one_in(2)) return 0;
    return one_in(12) ? STEADY__MAX_WAIT : any_scale(MS, 20 * STEADY_SECOND);
}

/* What the client asks, in the terms of the library and in those of the test. */
struct asking {
    bool crowds;
    bool drains; /* all parts take drops out */
    size_t n_parts;
    steady_part parts[TAPS];
    int64_t amounts[TAPS][MEMBERS_MAX];
    steady_how how;
    enum steady__verb verb;
    struct several *several;
};

static bool has_place(const struct several *s, const struct place *place) {
    for (size_t i = 0; i < s->n; i++)
        if (s->members[i].place == place) return true;
    return false;
}

/* No bucket may come twice. */
static bool suits(const struct asking *asking, const struct tap *tap) {
    const struct several *s = asking->several;
    if (tap->place->by_amount || s->n + tap->place->n_limits > MEMBERS_MAX || has_place(s, tap->place)) return false;
    if (asking->verb == STEADY__RESET_ALL && tap->place->n_limits == 1) return false;
    return true;
}

static void add_part(struct asking *asking, const struct tap *tap, const char *name) {
    struct several *s = asking->several;
    steady_part *part = &asking->parts[asking->n_parts];
    int64_t *amounts = asking->amounts[asking->n_parts];
    const bool each = tap->place->n_limits > 1 && one_in(2);
    *part = (steady_part){.throttler = tap->throttler, .key = name, .key_len = strlen(name)};
    if (asking->how.at_least == 0 && !asking->crowds && !asking->drains) part->kind = any_kind();
    part->amount = asking->how.at_least > 0 ? asking->parts[0].amount
                   : asking->crowds         ? between(1, 2)
                   : asking->drains         ? -between(1, 5)
                                            : any_amount(tap->place, part->kind);
    if (asking->how.at_least > 0 && asking->n_parts == 0) part->amount = asking->how.at_least + between(0, 5);
    if (asking->verb == STEADY__RESET_ALL) part->amount = 0, part->kind = STEADY_TAKE;
    for (size_t i = 0; i < tap->place->n_limits; i++) {
        const struct place *place = tap->place + i;
        amounts[i] = each && asking->how.at_least == 0 ? any_amount(place, part->kind) : part->amount;
        if (asking->verb == STEADY__RESET_ALL) amounts[i] = 0;
        const int64_t amount = tap->clamp && amounts[i] > place->rate.capacity ? place->rate.capacity : amounts[i];
        struct member *member = &s->members[s->n++];
        *member = (struct member){.place = place,
                                  .policy = tap->policy,
                                  .shares = tap->shares,
                                  .asked_as = asking->n_parts,
                                  .amount = amounts[i],
                                  .part = {&place->rate, amount, (enum steady__kind)part->kind}};
        compose_key(member, name);
        if (asking->how.at_least > 0 && tap->clamp) s->clamps = true;
    }
    if (each) part->amounts = amounts;
    if (tap->max_ahead != 0 && s->how.max_wait > tap->max_ahead) s->how.max_wait = tap->max_ahead;
    asking->n_parts++;
}

/* With at_least, all amounts stay equal. */
static void clamp_all(struct several *s) {
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < s->n; i++)
        if (s->members[i].part.amount < least) least = s->members[i].part.amount;
    for (size_t i = 0; s->clamps && i < s->n; i++)
        s->members[i].part.amount = least;
    if (s->clamps && s->how.at_least > least) s->how.at_least = least;
}

static void choose_parts(struct asking *asking, struct client *client, int64_t id) {
    const int64_t want = asking->verb == STEADY__RESET_ALL ? 1 : between(1, 5);
    const int first = asking->crowds ? TAPS_PLAIN : 0;
    for (int64_t tries = 0; tries < 20 && (int64_t)asking->n_parts < want; tries++) {
        struct tap *tap = client_tap(client, (int)between(first, TAPS - 1));
        if (tap != NULL && suits(asking, tap)) add_part(asking, tap, name_of(tap->place, id));
    }
    clamp_all(asking->several);
}

static void choose_how(struct asking *asking) {
    struct several *s = asking->several;
    asking->how.max_wait = asking->crowds ? 0 : any_wait();
    asking->how.reserve = one_in(2);
    if (one_in(6)) asking->how.at_least = between(1, 5);
    if (asking->verb == STEADY__RESET_ALL) asking->how = (steady_how){.max_wait = 0};
    s->how = (struct steady__how){asking->how.max_wait, asking->how.at_least, asking->verb == STEADY__PEEK_ALL};
    s->reserve = asking->how.reserve && asking->verb == STEADY__CONSUME_ALL;
}

/* ---- Asking ---- */

static int submit(const struct asking *asking, struct decision *d) {
    static const enum steady_verb verbs[] = {
        [STEADY__CONSUME_ALL] = STEADY_CONSUME, [STEADY__PEEK_ALL] = STEADY_PEEK, [STEADY__RESET_ALL] = STEADY_RESET};
    const steady_part *part = &asking->parts[0];
    const bool alone = asking->n_parts == 1 && asking->several->n > 1 && (part->amount != 0 || part->amounts != NULL);
    if (asking->verb == STEADY__RESET_ALL || (alone && one_in(2))) {
        const steady_call call = {verbs[asking->verb], part->key,  part->key_len, part->amount,
                                  part->amounts,       part->kind, &asking->how,  {0}};
        return steady_decide(part->throttler, &call, client_called, d, &d->call_id);
    }
    if (asking->verb == STEADY__PEEK_ALL)
        return steady_peek_all(asking->parts, asking->n_parts, &asking->how, client_called, d, &d->call_id);
    return steady_consume_all(asking->parts, asking->n_parts, &asking->how, client_called, d, &d->call_id);
}

static bool ask_for(struct client *client, enum steady__verb verb) {
    struct decision *d = journal_open(client, NULL, verb, 0);
    struct asking *asking = keep(sizeof *asking);
    asking->verb = verb;
    asking->crowds = client->crowds;
    asking->drains = !client->crowds && one_in(12);
    asking->several = keep(sizeof *asking->several);
    choose_how(asking);
    choose_parts(asking, client, d->id);
    if (asking->n_parts == 0) return false;
    d->several = asking->several;
    d->policy = several_policy(asking->several);
    client_asks(client, d);
    client_asked(client, d, submit(asking, d));
    return true;
}

bool several_ask(struct client *client) {
    if (one_in(4) && reserved_settle(client)) return true;
    if (client->crowds) return ask_for(client, STEADY__CONSUME_ALL);
    return ask_for(client, one_in(6) ? STEADY__RESET_ALL : one_in(5) ? STEADY__PEEK_ALL : STEADY__CONSUME_ALL);
}

/* The strictest: deny, report, local, allow. */
enum steady_policy several_policy(const struct several *s) {
    static const enum steady_policy by_strictness[] = {STEADY_DENY, STEADY_REPORT, STEADY_LOCAL, STEADY_ALLOW};
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < s->n; i++)
            if (s->members[i].policy == by_strictness[k]) return by_strictness[k];
    return STEADY_ALLOW;
}

bool several_is_foreign(const struct several *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->members[i].place->foreign) return true;
    return false;
}

/* ---- Commands ---- */

/* The user settles what the call has granted. Between slots the library settles more: what it gives back. */
static bool is_settled_by_user(const struct several *s, const struct group_words *group) {
    const struct several *settle = s->settling != NULL ? s->settling->several : NULL;
    for (size_t i = 0; settle != NULL && i < settle->n; i++)
        if (settle->members[i].key_len == group->keys[0].len &&
            memcmp(settle->members[i].key, group->keys[0].bytes, group->keys[0].len) == 0)
            return several_is_settlement(&settle->members[i].settlement, &group->settlements[0]);
    return false;
}

/* The script gets the parts in the order of the call, because its reply names them by their numbers. */
static void find_members(const struct decision *d, const struct group_words *group, uint8_t at[MEMBERS_MAX]) {
    size_t i = 0;
    for (size_t k = 0; k < group->n; k++, i++) {
        const struct member *members = d->several->members;
        while (i < d->several->n && (members[i].key_len != group->keys[k].len ||
                                     memcmp(members[i].key, group->keys[k].bytes, members[i].key_len) != 0))
            i++;
        if (i == d->several->n) broken("key %zu of decision %" PRId64 " is another one", k, d->id);
        at[k] = (uint8_t)i;
    }
}

struct request *several_request_of(struct decision *d, const struct group_words *group) {
    uint8_t at[MEMBERS_MAX];
    if (d->several == NULL) broken("a command on several keys was not asked for");
    if (group->verb == STEADY__SETTLE && is_settled_by_user(d->several, group)) d = d->several->settling;
    find_members(d, group, at);
    if (group->verb != d->verb || group->n != d->several->n) return rounds_request_of(d, group, at);
    memcpy(d->request.at, at, group->n);
    d->request.n = group->n;
    return &d->request;
}

void several_leaves(struct conn *conn, struct request *r, const struct words *words) {
    struct group_words group;
    if (r == &r->decision->request) return;
    group_words_read(&group, words, words_form(words));
    rounds_leaves(conn, r, &group);
}

bool several_is_rate(const struct steady__rate *sent, const struct steady__rate *rate, bool with_block) {
    return sent->capacity == rate->capacity && sent->recharge == rate->recharge && sent->drops == rate->drops &&
           (!with_block || sent->block == rate->block);
}

bool several_is_settlement(const struct steady__settlement *a, const struct steady__settlement *b) {
    return a->same_rate == b->same_rate && a->reserved == b->reserved && a->moment == b->moment &&
           a->actual == b->actual;
}

void several_check_arguments(const struct request *r, const struct group_words *group) {
    const struct several *s = r->decision->several;
    const bool settles = group->verb == STEADY__SETTLE;
    if (r != &r->decision->request) {
        rounds_check_arguments(r, group);
        return;
    }
    bool same = group->how.max_wait == s->how.max_wait && group->how.at_least == s->how.at_least;
    for (size_t k = 0; k < group->n && group->verb != STEADY__RESET_ALL; k++) {
        const struct member *member = &s->members[r->at[k]];
        const struct steady__part *part = &group->parts[k];
        same = same && several_is_rate(&group->rates[k], member->part.rate, group->with_block && !settles);
        same = same && (settles ? several_is_settlement(&group->settlements[k], &member->settlement)
                                : part->amount == member->part.amount && part->kind == member->part.kind);
    }
    if (!same) broken("decision %" PRId64 " goes out with other arguments than its own", r->decision->id);
}

void several_executed(struct request *r, const struct made *made) {
    struct decision *d = r->decision;
    if (r != &d->request) {
        rounds_executed(r, made);
        return;
    }
    d->several->made = *made;
    d->stepped = made->stepped;
    if (d->verb == STEADY__SETTLE) reserved_settled(r);
}

/* ---- Results ---- */

static void expect(const struct decision *d, const char *what, int64_t is, int64_t should_be) {
    if (is != should_be)
        broken("%s of decision %" PRId64 " is told as %" PRId64 ", but is %" PRId64, what, d->id, is, should_be);
}

static void check_part(const struct decision *d, size_t i, const steady_part_result *r,
                       const struct steady__decision *o) {
    const struct member *member = &d->several->members[i];
    expect(d, "success of a part", r->success, o->success);
    expect(d, "the level of a part", r->level, o->level);
    expect(d, "until_next_drop of a part", r->until_next_drop, o->until_next_drop);
    expect(d, "blocked_for of a part", r->blocked_for, o->blocked_for);
    expect(d, "retry_after of a part", r->retry_after, o->retry_after);
    expect(d, "the number of a part", (int64_t)r->part, (int64_t)member->asked_as);
    if (member->place->limit.name != NULL && strcmp(r->name, member->place->limit.name) != 0)
        broken("a part of decision %" PRId64 " is named %s", d->id, r->name);
}

void several_check_verdict(const struct decision *d, const steady_result *r) {
    const struct several *s = d->several;
    const struct made *made = &s->made;
    const bool settles = d->verb == STEADY__SETTLE;
    if (s->rounds != NULL) {
        rounds_check_verdict(d, r);
        return;
    }
    if (d->request.executed == 0) broken("decision %" PRId64 " has a verdict and was never made", d->id);
    expect(d, "the source", r->source, STEADY_FROM_STORE);
    expect(d, "atomic", r->atomic, true);
    expect(d, "n_parts", (int64_t)r->n_parts, (int64_t)s->n);
    expect(d, "success", r->success, made->verdict.success);
    expect(d, "part", (int64_t)r->part, (int64_t)made->verdict.part);
    expect(d, "must_wait", r->must_wait, made->verdict.wait);
    expect(d, "retry_after", r->retry_after, made->verdict.retry_after);
    for (size_t i = 0; i < s->n; i++) {
        check_part(d, i, &r->parts[i], settles ? &made->settled[i].bucket : &made->each[i].bucket);
        expect(d, "granted of a part", r->parts[i].granted, settles ? 0 : made->each[i].granted);
        expect(d, "charged of a part", r->parts[i].charged, settles ? made->settled[i].charged : 0);
        expect(d, "given_back of a part", r->parts[i].given_back, settles ? made->settled[i].given_back : 0);
    }
    const steady_part_result *named = &r->parts[r->part];
    if (r->level != named->level || r->until_next_drop != named->until_next_drop || r->granted != named->granted ||
        r->blocked_for != named->blocked_for)
        broken("decision %" PRId64 " does not repeat the part that it names", d->id);
}

/* The local buckets are those of this decision alone. Its store may have run out of buckets, and share them. */
void several_check_local(const struct decision *d, const steady_result *r) {
    const struct several *s = d->several;
    bool fits = true;
    for (size_t i = 0; i < s->n; i++) {
        const struct steady__part *part = &s->members[i].part;
        const int64_t share = part->rate->capacity / s->members[i].shares, asked = s->how.at_least;
        const bool votes = part->kind == STEADY__TAKE || part->kind == STEADY__LOOK;
        if (votes && (asked > 0 ? asked : part->amount) > (share > 0 ? share : 1)) fits = false;
    }
    expect(d, "the source", r->source, STEADY_FROM_LOCAL);
    expect(d, "n_parts", (int64_t)r->n_parts, (int64_t)s->n);
    if (r->success && !fits && s->how.max_wait == 0)
        broken("decision %" PRId64 " is allowed more than its share by the local policy", d->id);
}

void several_told(struct decision *d, const steady_result *r) {
    const bool reserves = d->several->reserve && r->success && r->source == STEADY_FROM_STORE;
    if (d->verb == STEADY__SETTLE) reserved_told(d, r->error);
    rounds_told(d, d->several->how.at_least > 0 ? r->granted : INT64_MAX);
    if (reserves != (r->reservation != NULL))
        broken("decision %" PRId64 " has %s reservation", d->id, reserves ? "no" : "a");
    if (r->reservation != NULL) reserved_keep(d, r->reservation);
}

void several_cancelled(struct decision *d) {
    if (d->verb == STEADY__SETTLE) reserved_told(d, STEADY_CANCELLED);
    rounds_told(d, INT64_MAX);
}
