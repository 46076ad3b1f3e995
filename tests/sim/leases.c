/* SPDX-License-Identifier: MIT
 * The leases of simulated stores.
 *
 * THE BOUND is checked for each bucket of each server, as in tests/unit_leases_model.c. A window counts the drops that
 * servers put in for calls, and of leases the drops that calls were allowed. It ends with drops that fit. In a window
 * in which a bucket was lost, moved or copied, or a clock stepped, nothing is promised.
 *
 * A lease has no name, so the call that it answers is matched to a lease of the store that was there at the time. A
 * settle says how many drops were spent: more than that cannot be matched. */
#include "leases.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "denials.h"
#include "faults.h"
#include "reserved.h"
#include "several.h"

#define SHARE 16 /* of the capacity: the most that a take asks for */
#define EVENTS_MAX 16384

__extension__ typedef __int128 wide;

struct event {
    enum { PUT, TAKEN_OUT } kind;
    const struct node *node;
    const struct place *place;
    steady_us time;
    int64_t order;
    int64_t amount; /* drops; of TAKEN_OUT, a content */
    bool fits;
    steady_us age; /* of the lease; 0: none */
};

struct spend {
    const struct decision *decision;
    int64_t amount;
};

struct leases_totals leases_totals;

static bool on;
static struct sim_lease *newest;
static struct event events[EVENTS_MAX];
static size_t n_events;
static struct spend spends[DECISIONS_MAX];
static size_t n_spends;
static int64_t changes;             /* of buckets so far */
static int64_t lost_since[BUCKETS]; /* the last change after which nothing is known */
static steady_us lost_at[EVENTS_MAX];
static const struct place *lost_place[EVENTS_MAX]; /* NULL: all */
static size_t n_lost;

void leases_begin(void) {
    on = one_in(2);
    leases_totals.seeds += on;
    newest = NULL;
    n_events = n_spends = n_lost = 0;
    changes = 0;
    memset(lost_since, 0, sizeof lost_since);
}

bool leases_on(void) { return on; }

steady_us leases_any_age(void) { return on && !one_in(4) ? any_scale(MS, 500 * MS) : 0; }

struct steady__leases *leases_open(const struct client *client) {
    const steady_us age = client->options.lease_age;
    return age > 0 ? steady__leases_new(age, &client->process->world) : NULL;
}

/* ---- Which calls ---- */

static int64_t amount_of(const struct decision *d) {
    return d->several != NULL ? d->several->members[0].part.amount : d->amount;
}

static const struct place *place_of(const struct decision *d) {
    return d->several != NULL ? d->several->members[0].place : d->place;
}

bool leases_may_answer(const struct decision *d) {
    const struct several *s = d->several;
    if (d->client->options.lease_age == 0 || place_of(d)->rate.block != 0 || amount_of(d) <= 0) return false;
    if (s == NULL) return d->verb == STEADY__CONSUME;
    return d->verb == STEADY__CONSUME_ALL && s->n == 1 && s->members[0].part.kind == STEADY__TAKE &&
           s->how.max_wait == 0 && s->how.at_least == 0 && !s->reserve;
}

const struct request *leases_deciding(const struct decision *d) {
    return d->lease != NULL ? &d->lease->take : &d->request;
}

bool leases_outlives(const struct request *r) { return r->lease != NULL && r->verb == STEADY__SETTLE; }

/* ---- Requests ---- */

static struct sim_lease *new_lease(struct decision *d, int64_t n) {
    struct sim_lease *lease = keep(sizeof *lease);
    *lease = (struct sim_lease){.next = newest, .taker = d, .place = place_of(d), .amount = amount_of(d), .n = n};
    lease->take = (struct request){.decision = d, .verb = STEADY__CONSUME_ALL, .n = 1, .lease = lease};
    lease->settle = (struct request){.decision = d, .verb = STEADY__SETTLE, .n = 1, .lease = lease};
    newest = d->lease = lease;
    leases_totals.takes++;
    return lease;
}

struct request *leases_request_of(const struct group_words *group) {
    const int64_t id = word_id(group->keys);
    struct decision *d = id != 0 ? journal_find(id) : NULL;
    if (d == NULL || group->n != 1 || !leases_may_answer(d)) return NULL;
    if (group->verb == STEADY__SETTLE && d->lease != NULL) return &d->lease->settle;
    if (group->verb != STEADY__CONSUME_ALL || group->how.at_least == 0) return NULL;
    return d->lease != NULL ? &d->lease->take : &new_lease(d, group->parts[0].amount)->take;
}

static void check_take(const struct sim_lease *lease, const struct group_words *group) {
    const struct steady__part *part = &group->parts[0];
    if (group->how.at_least != lease->amount || group->how.max_wait != 0 || part->kind != STEADY__TAKE)
        broken("decision %" PRId64 " takes drops otherwise than it may", lease->taker->id);
    if (part->amount != lease->n || lease->n < 2 * lease->amount || lease->n > lease->place->rate.capacity / SHARE)
        broken("decision %" PRId64 " takes %" PRId64 " drops", lease->taker->id, part->amount);
}

static void check_settle(struct sim_lease *lease, const struct group_words *group) {
    const struct steady__settlement *sent = &group->settlements[0];
    const struct steady__settlement right = {.same_rate = true,
                                             .reserved = lease->made->each[0].granted,
                                             .moment = lease->made->now,
                                             .actual = sent->actual};
    if (!several_is_settlement(sent, &right) || sent->actual < lease->amount || sent->actual >= right.reserved)
        broken("the lease of decision %" PRId64 " is settled with other arguments", lease->taker->id);
    if (lease->settles && lease->actual != sent->actual)
        broken("the lease of decision %" PRId64 " is settled twice", lease->taker->id);
    lease->settles = true;
    lease->actual = sent->actual;
}

void leases_check_arguments(const struct request *r, const struct group_words *group) {
    struct sim_lease *lease = r->lease;
    if (!several_is_rate(&group->rates[0], &lease->place->rate, false))
        broken("the lease of decision %" PRId64 " is about another limit", lease->taker->id);
    if (r->verb == STEADY__SETTLE)
        check_settle(lease, group);
    else
        check_take(lease, group);
}

/* As in rounds.c: on the connection that took the drops, or where that one redirects to. A call that waits for the
 * lease may end it before the callback of the call that took it. */
static void check_connection(const struct conn *conn, const struct request *r) {
    const struct request *take = &r->lease->take;
    if (!journal_heard(take) || (take->decision->told && !r->lease->granted))
        broken("the lease of decision %" PRId64 " is given back before it is there", r->decision->id);
    if (r->left_on == NULL && conn != take->left_on && !take->asking)
        broken("the lease of decision %" PRId64 " is given back on another connection", r->decision->id);
    if (r->left_on != NULL && conn != r->left_on && !r->redirected && !take->asking)
        broken("the lease of decision %" PRId64 " is given back again", r->decision->id);
}

void leases_leaves(struct conn *conn, struct request *r, const struct words *words) {
    struct group_words group;
    group_words_read(&group, words, words_form(words));
    if (r->verb == STEADY__SETTLE) check_connection(conn, r);
    if (r->verb == STEADY__CONSUME_ALL) r->lease->left_at = sim_loop_running_now();
    leases_check_arguments(r, &group);
}

static struct event *new_event(const struct node *node, const struct place *place) {
    if (n_events == EVENTS_MAX) broken("more than %d changes of buckets", EVENTS_MAX);
    struct event *event = &events[n_events++];
    *event = (struct event){.node = node, .place = place, .time = world.now, .order = ++changes};
    return event;
}

void leases_executed(struct request *r, const struct node *node, const struct made *made) {
    struct sim_lease *lease = r->lease;
    if (r->verb == STEADY__CONSUME_ALL) {
        struct made *kept = keep(sizeof *kept);
        *kept = *made;
        lease->made = kept;
        lease->node = node;
        lease->made_at = world.now;
        lease->order = ++changes;
        r->decision->stepped = made->stepped;
        return;
    }
    leases_totals.settles++;
    r->decision->client->rounds_stepped += made->stepped;
    if (node != lease->node || lease->order <= lost_since[lease->place->index])
        leases_taken_out(node, lease->place, made->settled[0].given_back);
}

/* ---- Buckets ---- */

void leases_put(const struct node *node, const struct place *place, int64_t drops, bool fits) {
    if (!on) return;
    struct event *event = new_event(node, place);
    event->kind = PUT;
    event->amount = drops;
    event->fits = fits;
}

void leases_taken_out(const struct node *node, const struct place *place, int64_t content) {
    if (!on || content <= 0) return;
    struct event *event = new_event(node, place);
    event->kind = TAKEN_OUT;
    event->amount = content;
    lost_since[place->index] = changes;
}

void leases_lost(const struct place *place) {
    if (!on) return;
    if (n_lost == EVENTS_MAX) broken("buckets are lost more than %d times", EVENTS_MAX);
    lost_at[n_lost] = world.now;
    lost_place[n_lost++] = place;
    changes++;
    for (int i = 0; i < BUCKETS; i++)
        if (place == NULL || place->index == i) lost_since[i] = changes;
}

/* ---- Results ---- */

/* The clock of a process may be slower by 500 millionths. */
static steady_us longest(steady_us age) { return age + age / 1000 + 2; }

void leases_granted(struct decision *d, const steady_result *r) {
    struct sim_lease *lease = d->lease;
    if (lease->made == NULL || !journal_heard(&lease->take))
        broken("decision %" PRId64 " has a verdict, and its take was not answered", d->id);
    const struct steady__decision *o = &lease->made->each[0].bucket;
    if (r->source != STEADY_FROM_STORE || !r->atomic || r->success != lease->made->verdict.success ||
        r->level != o->level || r->until_next_drop != o->until_next_drop || r->blocked_for != o->blocked_for ||
        r->retry_after != o->retry_after || r->granted != (r->success ? lease->amount : 0))
        broken("decision %" PRId64 " is told otherwise than its take was answered", d->id);
    lease->granted = true;
    lease->granted_at = sim_loop_now(&d->client->loop);
}

static bool is_of(const struct sim_lease *lease, const struct decision *d) {
    return lease->granted && lease->taker->client == d->client && lease->taker->life == d->life &&
           lease->place == place_of(d);
}

/* The time at which a lease answered a call: at once, or when the lease came. */
static steady_us answered_at(const struct sim_lease *lease, const struct decision *d) {
    return d->submitted > lease->granted_at ? d->submitted : lease->granted_at;
}

static bool is_in_time(const struct sim_lease *lease, const struct decision *d) {
    return answered_at(lease, d) <= lease->left_at + longest(d->client->options.lease_age);
}

/* It got less than it asked for. */
static void check_denied(const struct decision *d, const steady_result *r) {
    const steady_us most = longest(d->client->options.lease_age);
    leases_totals.denied++;
    for (const struct sim_lease *lease = newest; lease != NULL; lease = lease->next)
        if (is_of(lease, d) && lease->made->each[0].granted < lease->n && amount_of(d) <= lease->n &&
            is_in_time(lease, d) && r->level == lease->made->each[0].bucket.level && r->retry_after > 0 &&
            answered_at(lease, d) + r->retry_after <= lease->left_at + most)
            return;
    broken("decision %" PRId64 " is denied by a lease that there is not", d->id);
}

void leases_check(const struct decision *d, const steady_result *r) {
    if (!leases_may_answer(d)) broken("decision %" PRId64 " may not be answered from a lease", d->id);
    if (d->lease != NULL || d->request.left_on != NULL || d->request.executed > 0)
        broken("decision %" PRId64 " was sent, and is answered from a lease", d->id);
    if (!r->atomic || r->blocked_for != 0 || r->granted != (r->success ? amount_of(d) : 0) || r->until_next_drop <= 0)
        broken("decision %" PRId64 " is answered from a lease in another form", d->id);
    if (d->several != NULL && (r->n_parts != 1 || r->parts[0].success != r->success || r->parts[0].level != r->level))
        broken("decision %" PRId64 " is answered from a lease otherwise than its part", d->id);
    if (!r->success) {
        check_denied(d, r);
        return;
    }
    if (r->retry_after != 0) broken("decision %" PRId64 " is allowed, and should be asked again", d->id);
    leases_totals.spent++;
    spends[n_spends++] = (struct spend){d, amount_of(d)};
}

/* ---- The end of a seed ---- */

static int64_t left_of(const struct sim_lease *lease) {
    const int64_t most = lease->settles ? lease->actual : lease->made->each[0].granted;
    return most - lease->amount - lease->matched;
}

/* The oldest one that may have answered. It is fine to match a call to another lease than the real one. */
static struct sim_lease *lease_of(const struct spend *spend) {
    struct sim_lease *found = NULL;
    for (struct sim_lease *lease = newest; lease != NULL; lease = lease->next)
        if (is_of(lease, spend->decision) && lease->made->verdict.success && is_in_time(lease, spend->decision) &&
            left_of(lease) >= spend->amount)
            found = lease;
    return found;
}

static void put_of_lease(const struct sim_lease *lease, steady_us time, int64_t amount) {
    struct event *event = new_event(lease->node, lease->place);
    event->kind = PUT;
    event->time = time;
    event->order = lease->order;
    event->amount = amount;
    event->fits = true;
    event->age = longest(lease->taker->client->options.lease_age);
}

/* The drops of each lease that were allowed. Those of the call that took were allowed by the server. */
static void match_spends(void) {
    for (size_t i = 0; i < n_spends; i++) {
        struct sim_lease *lease = lease_of(&spends[i]);
        if (lease == NULL) broken("decision %" PRId64 " is allowed by drops that no lease has", spends[i].decision->id);
        lease->matched += spends[i].amount;
        put_of_lease(lease, answered_at(lease, spends[i].decision), spends[i].amount);
    }
    for (struct sim_lease *lease = newest; lease != NULL; lease = lease->next) {
        leases_totals.settles_lost += lease->settles && lease->settle.executed == 0;
        if (lease->settles && !lease->granted)
            broken("the lease of decision %" PRId64 " is settled, and its call has no verdict", lease->taker->id);
        if (!lease->granted || !lease->made->verdict.success) continue;
        put_of_lease(lease, lease->made_at, lease->amount);
    }
}

static int by_time(const void *a, const void *b) {
    const struct event *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return x->order != y->order ? (x->order < y->order ? -1 : 1) : 0;
}

static bool is_same_bucket(const struct event *a, const struct event *b) {
    return a->node == b->node && a->place == b->place;
}

static bool was_lost(const struct place *place, steady_us from, steady_us to) {
    for (size_t i = 0; i < n_lost; i++)
        if ((lost_place[i] == NULL || lost_place[i] == place) && lost_at[i] >= from && lost_at[i] <= to) return true;
    return false;
}

static wide taken_out_between(const struct event *of, steady_us from, steady_us to) {
    wide sum = 0;
    for (size_t i = 0; i < n_events; i++)
        if (events[i].kind == TAKEN_OUT && is_same_bucket(&events[i], of) && events[i].time >= from &&
            events[i].time <= to)
            sum += events[i].amount;
    return sum;
}

static void check_window(const struct event *first, const struct event *last, const struct event *last_in, wide n,
                         steady_us age) {
    const struct steady__rate *rate = &last_in->place->rate;
    const steady_us length = last->time - first->time;
    const wide capacity =
        (wide)rate->capacity * rate->recharge + taken_out_between(first, first->time - age, last->time);
    leases_totals.windows++;
    leases_totals.windows_that_need_the_age += n * rate->recharge > capacity + (wide)length * rate->drops;
    if (n * rate->recharge > capacity + (wide)(length + age) * rate->drops)
        if (n * rate->recharge > capacity + (wide)(length + age) * rate->drops) {
            for (size_t i = 0; i < n_events; i++)
                if (is_same_bucket(&events[i], first))
                    printf("%d t %ld order %ld amount %ld fits %d age %ld\n", events[i].kind, events[i].time,
                           events[i].order, events[i].amount, events[i].fits, events[i].age);
            printf("cap %ld rech %ld drops %ld first %ld last %ld\n", rate->capacity, rate->recharge, rate->drops,
                   first->time, last->time);
        }
    if (n * rate->recharge > capacity + (wide)(length + age) * rate->drops)
        broken("bucket %d admits %" PRId64 " drops in %" PRId64 " us", first->place->index, (int64_t)n, length);
}

static void check_windows_from(size_t i) {
    const struct event *first = &events[i], *last_in = first;
    steady_us age = 0;
    wide n = 0;
    for (size_t k = i; k < n_events; k++) {
        const struct event *event = &events[k];
        if (event->kind != PUT || !is_same_bucket(event, first)) continue;
        if (event->age > age) age = event->age;
        if (was_lost(first->place, first->time - age, event->time)) return;
        if (event->order > last_in->order) last_in = event;
        n += event->amount;
        if (last_in->fits) check_window(first, event, last_in, n, age);
    }
}

void leases_end(void) {
    if (!on) return;
    match_spends();
    qsort(events, n_events, sizeof events[0], by_time);
    for (size_t i = 0; i < n_events; i++)
        if (events[i].kind == PUT) check_windows_from(i);
}
