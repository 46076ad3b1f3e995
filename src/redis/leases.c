/* SPDX-License-Identifier: MIT
 * The leases of a store.
 *
 * WHAT A LEASE IS. A call on a hot bucket takes n drops instead of its own, in one atomic call of the store. Later
 * calls of this process spend the other drops, until they are `age` old, counted from the sending. What is left is
 * settled.
 *
 * WHY IT ADMITS NO MORE. Each drop that is spent was in the bucket first, at most `age` before. So the drops allowed in
 * a window of the length W were put in within W + age: at most capacity + (W + age) * rate, for any number of
 * processes. A take whose outcome is not known gives no lease. A settle that is lost leaves drops in the bucket.
 *
 * HOW MUCH IS TAKEN. n is what the process used in the last `age`, at most a sixteenth of the capacity. Uses are
 * counted in windows of this length, and the larger one of the last two counts. A bucket with fewer than CALLS uses
 * has no lease, because a lease costs up to two calls.
 *
 * A SHORT TAKE got less than n: the bucket is full. Then calls are denied until n would have leaked, at the latest
 * until `age` after the sending. Otherwise the process would ask most often when the bucket is hottest. A blocked
 * bucket is no short take: its callers must see the block.
 *
 * THE TABLE has groups of eight entries, and a mutex for each group. A bucket that finds no entry has no lease. The
 * list of a holder belongs to its thread; the entries in it belong to their groups. */
#include "redis/leases.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "group.h"

#define GROUPS 256
#define GROUP 8
#define CALLS 4  /* the fewest uses in `age` for a lease */
#define SHARE 16 /* of the capacity */
#define UNUSED 4 /* a lease that is unused for this part of its age is returned */
#define FAR 2    /* a reply that took this part of the age: the server is too far for leases ... */
#define PAUSE 4  /* ... for so many ages; also of a blocked key */

struct lease {
    struct steady__hash name;
    struct steady__rate rate;
    steady_us window;              /* when it began */
    int64_t used, calls;           /* in it: drops and uses */
    int64_t used_last, calls_last; /* in the one before */
    steady_us no_lease_until;
    struct steady__lease_holder *holder; /* of the lease, or of the take in flight */
    bool is_known, takes, is_void;
    int64_t wanted;
    /* What the last take got. */
    void *ticket;              /* NULL: no lease */
    struct steady__list place; /* in the list of its holder */
    int64_t granted, left;
    steady_us sent, came, used_at;
    steady_us short_until;
    int64_t level;
    steady_us until_next_drop;
};

struct lease_group {
    pthread_mutex_t mutex;
    struct lease leases[GROUP];
};

struct steady__leases {
    struct lease_group groups[GROUPS];
    const struct steady__denials_world *world;
    unsigned char key[STEADY__SIPHASH_KEY];
    steady_us age;
    atomic_uint holders;
};

#define LEASE(list) STEADY__OWNER(struct lease, place, list)

/* ---- The table ---- */

steady_us steady__leases_age(const struct steady__url *url, const steady_store_options *options) {
    if (url->lease_age == 0) return options->lease_age;
    return url->lease_age > 0 ? url->lease_age : 0;
}

struct steady__leases *steady__leases_new(steady_us age, const struct steady__denials_world *world) {
    struct steady__leases *leases = calloc(1, sizeof *leases);
    if (leases == NULL) return NULL;
    if (getrandom(leases->key, sizeof leases->key, GRND_NONBLOCK) != (ssize_t)sizeof leases->key) {
        free(leases);
        return NULL;
    }
    leases->world = world != NULL ? world : &steady__denials_system;
    leases->age = age;
    atomic_init(&leases->holders, 1);
    for (size_t i = 0; i < GROUPS; i++) {
        pthread_mutex_init(&leases->groups[i].mutex, NULL);
        for (size_t k = 0; k < GROUP; k++)
            steady__list_init(&leases->groups[i].leases[k].place);
    }
    return leases;
}

void steady__leases_hold(struct steady__leases *leases) { atomic_fetch_add(&leases->holders, 1); }

void steady__leases_release(struct steady__leases *leases) {
    if (leases == NULL || atomic_fetch_sub(&leases->holders, 1) != 1) return;
    for (size_t i = 0; i < GROUPS; i++)
        pthread_mutex_destroy(&leases->groups[i].mutex);
    free(leases);
}

steady_us steady__leases_now(const struct steady__leases *leases) { return leases->world->now(leases->world); }

struct steady__hash steady__leases_name(const struct steady__leases *leases, const char *key, size_t key_len) {
    return leases->world->hash(leases->world, leases->key, key, key_len);
}

/* The group of a name, locked. */
static struct lease_group *leases_lock(struct steady__leases *leases, struct steady__hash name) {
    struct lease_group *group = &leases->groups[name.word[1] % GROUPS];
    pthread_mutex_lock(&group->mutex);
    return group;
}

static void leases_unlock(struct lease_group *group) { pthread_mutex_unlock(&group->mutex); }

static struct lease *leases_find(struct lease_group *group, struct steady__hash name) {
    for (int i = 0; i < GROUP; i++) {
        struct lease *lease = &group->leases[i];
        if (lease->is_known && lease->name.word[0] == name.word[0] && lease->name.word[1] == name.word[1]) return lease;
    }
    return NULL;
}

/* A hot bucket, too, has few calls in a window that has just begun. */
static bool leases_is_idle(const struct lease *lease, steady_us now, steady_us age) {
    if (lease->ticket != NULL || lease->takes) return false;
    return lease->calls + lease->calls_last <= 1 || now - lease->window >= 2 * age;
}

/* An entry without a lease, a take or recent uses. Of a flood of keys that are used once, each one replaces another one
 * of them. */
static struct lease *leases_claim(struct lease_group *group, struct steady__hash name, const struct steady__rate *rate,
                                  steady_us now, steady_us age) {
    struct lease *found = NULL;
    for (int i = 0; i < GROUP; i++) {
        struct lease *lease = &group->leases[i];
        if (!lease->is_known && lease->ticket == NULL) {
            found = lease;
            break;
        }
        if (leases_is_idle(lease, now, age) && (found == NULL || lease->window < found->window)) found = lease;
    }
    if (found == NULL) return NULL;
    *found = (struct lease){.is_known = true, .name = name, .rate = *rate, .window = now};
    steady__list_init(&found->place);
    return found;
}

/* ---- One lease ---- */

static steady_us leases_shorter(steady_us a, steady_us b) { return a < b ? a : b; }

static steady_us leases_due(const struct lease *lease, steady_us age) {
    return leases_shorter(lease->sent + age, lease->used_at + age / UNUSED);
}

static bool leases_rates_equal(const struct steady__rate *a, const struct steady__rate *b) {
    return a->capacity == b->capacity && a->recharge == b->recharge && a->drops == b->drops;
}

static bool leases_leaks_alike(const struct steady__rate *a, const struct steady__rate *b) {
    return a->recharge == b->recharge && a->drops == b->drops;
}

static void leases_count(struct lease *lease, int64_t amount, steady_us now, steady_us age) {
    const steady_us elapsed = now - lease->window;
    if (elapsed >= age) {
        const bool next = elapsed < 2 * age;
        lease->used_last = next ? lease->used : 0;
        lease->calls_last = next ? lease->calls : 0;
        lease->used = lease->calls = 0;
        lease->window = next ? lease->window + age : now;
    }
    lease->used += amount;
    lease->calls += amount > 0;
}

static enum steady__lease_answer leases_spend(struct lease *lease, int64_t amount, steady_us now, steady_us age,
                                              struct steady__decision *decision) {
    const bool is_valid = lease->ticket != NULL && now < lease->sent + age;
    *decision = (struct steady__decision){.level = lease->level, .until_next_drop = lease->until_next_drop};
    if (is_valid && amount <= lease->left) {
        lease->left -= amount;
        lease->used_at = now;
        leases_count(lease, amount, now, age);
        decision->success = true;
        return STEADY__LEASE_SPENT;
    }
    if (now >= lease->short_until || amount > lease->wanted) return STEADY__LEASE_NONE;
    decision->retry_after = lease->short_until - now;
    return STEADY__LEASE_SHORT;
}

/* The drops of a take leak at the rate of the bucket. So nothing is left of it after some time. */
static bool leases_has_leaked(const struct lease *lease, steady_us now) {
    return now - lease->came >= steady__bucket_wait_for(lease->granted, 0, &lease->rate);
}

/* Takes the lease from its holder. Its thread calls this. */
static void leases_end(struct lease *lease, steady_us now, struct steady__lease_end *end) {
    *end = (struct steady__lease_end){.ticket = lease->ticket,
                                      .granted = lease->granted,
                                      .spent = lease->granted - lease->left,
                                      .rate = lease->rate,
                                      .is_due = lease->left > 0 && !leases_has_leaked(lease, now)};
    lease->ticket = NULL;
    lease->left = 0;
    steady__list_remove(&lease->place);
}

/* ---- Calls ---- */

int64_t steady__leases_amount(const struct steady__call *call) {
    const struct steady__group *group = call->group;
    if (call->terms->rate.block != 0) return 0;
    if (group == NULL) return call->verb == STEADY__CONSUME && call->amount > 0 ? call->amount : 0;
    const struct steady__part *part = &group->members[0].part;
    const bool plain = call->verb == STEADY__CONSUME_ALL && group->n == 1 && part->kind == STEADY__TAKE &&
                       group->how.max_wait == 0 && group->how.at_least == 0 && !group->how.peek &&
                       group->reservation == NULL;
    return plain && part->amount > 0 ? part->amount : 0;
}

enum steady__lease_answer steady__leases_spend(struct steady__leases *leases, struct steady__hash name,
                                               const struct steady__rate *rate, int64_t amount,
                                               struct steady__decision *decision) {
    enum steady__lease_answer answer = STEADY__LEASE_NONE;
    const steady_us now = steady__leases_now(leases);
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    if (lease != NULL && leases_rates_equal(&lease->rate, rate))
        answer = leases_spend(lease, amount, now, leases->age, decision);
    leases_unlock(group);
    return answer;
}

bool steady__leases_answer(struct steady__leases *leases, const struct steady__call *call, steady_result *result) {
    const int64_t amount = leases != NULL ? steady__leases_amount(call) : 0;
    struct steady__decision decision;
    if (amount == 0) return false;
    const struct steady__hash name = steady__leases_name(leases, call->key, call->key_len);
    if (steady__leases_spend(leases, name, &call->terms->rate, amount, &decision) == STEADY__LEASE_NONE) return false;
    steady__group_answer(call, 0, STEADY_FROM_LEASE, &decision, result);
    return true;
}

/* The limit of a bucket has changed. False: the lease is not the holder's, or a take is in flight. */
static bool leases_change_rate(struct lease *lease, const struct steady__lease_holder *holder,
                               const struct steady__rate *rate, steady_us now, struct steady__lease_end *end) {
    const bool alike = leases_leaks_alike(&lease->rate, rate);
    if (lease->takes || (lease->ticket != NULL && lease->holder != holder)) return false;
    if (lease->ticket != NULL) {
        leases_end(lease, now, end);
        end->rate = *rate;
        end->is_due = end->is_due && alike; /* a settle at another rate gives nothing back */
    }
    *lease = (struct lease){.is_known = true, .name = lease->name, .rate = *rate, .window = now};
    steady__list_init(&lease->place);
    return true;
}

/* The drops to take for a call; 0: the call is sent as it is. */
static int64_t leases_to_take(const struct lease *lease, const struct steady__lease_holder *holder, int64_t amount,
                              steady_us now) {
    const int64_t calls = lease->calls > lease->calls_last ? lease->calls : lease->calls_last;
    const int64_t used = lease->used > lease->used_last ? lease->used : lease->used_last;
    const int64_t most = lease->rate.capacity / SHARE;
    const int64_t n = used < most ? used : most;
    if (calls < CALLS || now < lease->no_lease_until || (lease->ticket != NULL && lease->holder != holder)) return 0;
    return amount <= n / 2 ? n : 0;
}

/* Another holder has a lease that is over, and may not call for long: a pool uses few of its connections if few threads
 * call. The bucket gets a new entry. The old one is no longer found by its name, and stays until its holder ends it.
 * At most half of a group is left so. Returns the entry of the bucket. */
static struct lease *leases_leave(struct lease_group *group, struct lease *lease,
                                  const struct steady__lease_holder *holder, steady_us now, steady_us age) {
    int left = 0;
    if (lease->ticket == NULL || lease->holder == holder) return lease;
    if (lease->left > 0 && leases_due(lease, age) > now) return lease;
    for (int i = 0; i < GROUP; i++)
        left += !group->leases[i].is_known && group->leases[i].ticket != NULL;
    struct lease *fresh = left < GROUP / 2 ? leases_claim(group, lease->name, &lease->rate, now, age) : NULL;
    if (fresh == NULL) return lease;
    fresh->window = lease->window;
    fresh->used = lease->used;
    fresh->calls = lease->calls;
    fresh->used_last = lease->used_last;
    fresh->calls_last = lease->calls_last;
    fresh->no_lease_until = lease->no_lease_until;
    fresh->wanted = lease->wanted;
    fresh->short_until = lease->short_until;
    fresh->level = lease->level;
    fresh->until_next_drop = lease->until_next_drop;
    lease->is_known = false;
    return fresh;
}

static void leases_ask(struct lease *lease, struct steady__lease_holder *holder, int64_t amount, steady_us now,
                       steady_us age, struct steady__lease_look *look) {
    look->answer = leases_spend(lease, amount, now, age, &look->decision);
    if (look->answer != STEADY__LEASE_NONE) return;
    if (lease->takes && lease->holder == holder && amount <= lease->wanted) {
        look->answer = STEADY__LEASE_WAIT;
        return;
    }
    leases_count(lease, amount, now, age);
    look->take = lease->takes ? 0 : leases_to_take(lease, holder, amount, now);
    if (look->take == 0) return;
    if (lease->ticket != NULL) leases_end(lease, now, &look->end);
    lease->takes = true;
    lease->holder = holder;
    lease->wanted = look->take;
    look->answer = STEADY__LEASE_TAKE;
}

void steady__leases_ask(struct steady__leases *leases, struct steady__lease_holder *holder, struct steady__hash name,
                        const struct steady__rate *rate, int64_t amount, struct steady__lease_look *look) {
    const steady_us now = steady__leases_now(leases);
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    *look = (struct steady__lease_look){.answer = STEADY__LEASE_NONE};
    if (lease == NULL)
        lease = leases_claim(group, name, rate, now, leases->age);
    else
        lease = leases_leave(group, lease, holder, now, leases->age);
    if (lease != NULL &&
        (leases_rates_equal(&lease->rate, rate) || leases_change_rate(lease, holder, rate, now, &look->end)))
        leases_ask(lease, holder, amount, now, leases->age, look);
    leases_unlock(group);
}

/* ---- Takes ---- */

bool steady__leases_granted(struct steady__leases *leases, struct steady__lease_holder *holder,
                            struct steady__hash name, const struct steady__lease_take *take) {
    const steady_us now = steady__leases_now(leases);
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    bool kept = false;
    lease->takes = false;
    if (!lease->is_void) {
        lease->sent = take->sent;
        lease->came = lease->used_at = now;
        lease->level = take->level;
        lease->until_next_drop = take->until_next_drop;
        lease->short_until = 0;
        if (take->granted < lease->wanted && !take->is_blocked)
            lease->short_until =
                take->sent + leases_shorter(steady__bucket_wait_for(lease->wanted, 0, &lease->rate), leases->age);
        if (take->is_blocked || now - take->sent >= leases->age / FAR)
            lease->no_lease_until = now + PAUSE * leases->age;
        kept = take->granted > take->amount;
    }
    if (kept) {
        lease->ticket = take->ticket;
        lease->granted = take->granted;
        lease->left = take->granted - take->amount;
        steady__list_append(&holder->leases, &lease->place);
    }
    lease->is_void = false;
    leases_unlock(group);
    return kept;
}

static void leases_end_take(struct lease *lease) { lease->takes = lease->is_void = false; }

/* It is counted anew, so the next calls are sent as they are. */
void steady__leases_failed(struct steady__leases *leases, struct steady__hash name) {
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    leases_end_take(lease);
    lease->used = lease->calls = lease->used_last = lease->calls_last = 0;
    leases_unlock(group);
}

void steady__leases_put_off(struct steady__leases *leases, struct steady__hash name) {
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    leases_end_take(lease);
    leases_unlock(group);
}

void steady__leases_forget(struct steady__leases *leases, struct steady__lease_holder *holder, struct steady__hash name,
                           bool reset, struct steady__lease_end *end) {
    const steady_us now = steady__leases_now(leases);
    struct lease_group *group = leases_lock(leases, name);
    struct lease *lease = leases_find(group, name);
    *end = (struct steady__lease_end){.ticket = NULL};
    for (int i = 0; i < GROUP && reset; i++) /* also those that were left behind; a hash in common does no harm */
        if (!group->leases[i].is_known && group->leases[i].name.word[0] == name.word[0]) group->leases[i].left = 0;
    if (lease != NULL) {
        lease->short_until = 0;
        if (reset) {
            lease->is_void = lease->takes;
            lease->left = 0;
            if (lease->ticket != NULL && lease->holder == holder) leases_end(lease, now, end);
        }
    }
    leases_unlock(group);
}

/* ---- Ends ---- */

size_t steady__leases_end(struct steady__leases *leases, struct steady__lease_holder *holder, bool all,
                          struct steady__lease_end *ends, size_t most) {
    const steady_us now = steady__leases_now(leases);
    struct steady__list *next;
    size_t n = 0;
    for (struct steady__list *place = holder->leases.next; place != &holder->leases && n < most; place = next) {
        struct lease *lease = LEASE(place);
        next = place->next;
        struct lease_group *group = leases_lock(leases, lease->name);
        if (all || lease->left == 0 || leases_due(lease, leases->age) <= now) leases_end(lease, now, &ends[n++]);
        leases_unlock(group);
    }
    return n;
}

steady_us steady__leases_due(struct steady__leases *leases, struct steady__lease_holder *holder) {
    steady_us due = -1;
    for (struct steady__list *place = holder->leases.next; place != &holder->leases; place = place->next) {
        struct lease *lease = LEASE(place);
        struct lease_group *group = leases_lock(leases, lease->name);
        const steady_us its = leases_due(lease, leases->age);
        leases_unlock(group);
        if (due < 0 || its < due) due = its;
    }
    return due;
}
