/* SPDX-License-Identifier: MIT
 * The public calls on throttlers: they check the arguments and give the call to the store.
 *
 * A call on one bucket without options goes to the store as it is. Every other call becomes a group (group.h): several
 * keys, a throttler with several limits, a kind other than STEADY_TAKE, a max_wait, an at_least, a reservation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "group.h"
#include "policy.h"
#include "reservation.h"

/* ---- Who may call ---- */

static bool call_is_on_its_thread(const steady_store *store) {
    return pthread_equal(store->thread, pthread_self()) != 0;
}

static int call_check_async(const steady_store *store, steady_callback callback) {
    if (callback == NULL) return STEADY_BAD_ARGUMENT;
    if (!store->has_loop) return STEADY_NO_LOOP;
    return call_is_on_its_thread(store) ? 0 : STEADY_WRONG_THREAD;
}

static int call_check_sync(const steady_store *store) {
    return store->class_->any_thread || call_is_on_its_thread(store) ? 0 : STEADY_WRONG_THREAD;
}

/* ---- One bucket without options ---- */

static int call_check_plain(const steady_throttler *t, const void *key, size_t key_len, int64_t amount) {
    if (key == NULL || key_len == 0 || key_len > STEADY__KEY_MAX - t->prefix_len) return STEADY_BAD_ARGUMENT;
    if (amount > STEADY__AMOUNT_MAX || amount < -STEADY__AMOUNT_MAX) return STEADY_BAD_ARGUMENT;
    return atomic_load_explicit(&t->store->closed, memory_order_acquire) ? STEADY_CLOSED : 0;
}

/* The key with the prefix before it. It is in `room` if there is a prefix. */
static const char *call_whole_key(const steady_throttler *t, const void *key, size_t key_len, char *room) {
    if (t->prefix_len == 0) return key;
    memcpy(room, t->prefix, t->prefix_len);
    memcpy(room + t->prefix_len, key, key_len);
    return room;
}

static int64_t call_clamped(const steady_throttler *t, enum steady__verb verb, int64_t amount) {
    const int64_t capacity = t->limits[0].terms.rate.capacity;
    return verb == STEADY__CONSUME && t->clamp && amount > capacity ? capacity : amount;
}

/* Inlined into steady_consume, which passes on all of its arguments. */
__attribute__((always_inline)) static inline int call_ask(steady_throttler *t, enum steady__verb verb, const void *key,
                                                          size_t key_len, int64_t amount, steady_callback callback,
                                                          void *data, uint64_t *id) {
    char room[STEADY__KEY_MAX];
    int error = call_check_plain(t, key, key_len, amount);
    if (error == 0) error = call_check_async(t->store, callback);
    if (error != 0) return error;
    const struct steady__call call = {.verb = verb,
                                      .amount = call_clamped(t, verb, amount),
                                      .key = call_whole_key(t, key, key_len, room),
                                      .key_len = t->prefix_len + key_len,
                                      .terms = &t->limits[0].terms,
                                      .throttler = t,
                                      .callback = callback,
                                      .data = data};
    uint64_t call_id = 0;
    steady__throttler_hold(t);
    error = t->store->class_->submit(t->store, &call, &call_id);
    if (error != 0) steady__throttler_release(t);
    if (error == 0 && id != NULL) *id = call_id;
    return error;
}

/* The key is whole: with its prefix. */
static inline int call_decide(steady_throttler *t, enum steady__verb verb, const char *key, size_t key_len,
                              int64_t amount, steady_result *result) {
    const struct steady__store_class *class_ = t->store->class_;
    const struct steady__call call = {.verb = verb,
                                      .amount = call_clamped(t, verb, amount),
                                      .key = key,
                                      .key_len = key_len,
                                      .terms = &t->limits[0].terms,
                                      .throttler = t};
    const bool is_known = class_->recall != NULL && class_->recall(t->store, &call, result);
    const bool holds = !is_known && !class_->quiet; /* the log callback may free this throttler */
    if (holds) steady__throttler_hold(t);
    if (!is_known) class_->decide(t->store, &call, result);
    steady__complete_plain(&call, result);
    const int error = result->source == STEADY_FROM_NOWHERE ? result->error : 0;
    if (holds) steady__throttler_release(t);
    return error;
}

/* A function of its own, because of the room on the stack. */
__attribute__((noinline)) static int call_decide_prefixed(steady_throttler *t, enum steady__verb verb, const void *key,
                                                          size_t key_len, int64_t amount, steady_result *result) {
    char room[STEADY__KEY_MAX];
    return call_decide(t, verb, call_whole_key(t, key, key_len, room), t->prefix_len + key_len, amount, result);
}

/* Inlined into steady_consume_sync. */
__attribute__((always_inline)) static inline int call_ask_sync(steady_throttler *t, enum steady__verb verb,
                                                               const void *key, size_t key_len, int64_t amount,
                                                               steady_result *result) {
    result->error = call_check_plain(t, key, key_len, amount);
    if (result->error == 0) result->error = call_check_sync(t->store);
    if (result->error != 0) return result->error;
    if (t->prefix_len > 0) return call_decide_prefixed(t, verb, key, key_len, amount, result);
    return call_decide(t, verb, key, key_len, amount, result);
}

/* ---- Groups: checks ---- */

static bool call_is_zero(const uint64_t *reserved, size_t n) {
    while (n > 0 && reserved[n - 1] == 0)
        n--;
    return n == 0;
}
#define CALL_IS_ZERO(reserved) call_is_zero(reserved, sizeof(reserved) / sizeof(reserved)[0])

static const steady_how no_options;

static int call_check_how(const steady_how *how) {
    steady_message *why = how->why;
    if (!CALL_IS_ZERO(how->reserved))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_how must be zero");
    if (how->max_wait < 0 || how->max_wait > STEADY__MAX_WAIT)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "max_wait is %lld us; it must be 0 .. %lld us (2^52)",
                            (long long)how->max_wait, (long long)STEADY__MAX_WAIT);
    if (how->at_least < 0 || how->at_least > STEADY__AMOUNT_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "at_least is %lld; it must be 1 .. the amount, or 0: not given",
                            (long long)how->at_least);
    return 0;
}

static int call_check_part(const steady_part *part, size_t at, const steady_part *first, steady_message *why) {
    const steady_throttler *t = part->throttler;
    if (t == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: throttler is NULL", at);
    if (t->store != first->throttler->store)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: its throttler has another store than parts[0]", at);
    if (part->key == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: key is NULL", at);
    if (part->key_len == 0 || part->key_len > STEADY__KEY_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: key_len is %zu; it must be 1 .. %d bytes", at,
                            part->key_len, STEADY__KEY_MAX);
    if ((int)part->kind < STEADY_TAKE || part->kind > STEADY_SHADOW)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: kind is %d; it must be a value of enum steady_kind",
                            at, (int)part->kind);
    if (!CALL_IS_ZERO(part->reserved))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: reserved fields of steady_part must be zero", at);
    return 0;
}

/* The place of a bucket, for a text. */
static const char *call_place(char room[128], const steady_throttler *t, size_t part, const char *name) {
    if (t->n_limits > 1)
        snprintf(room, 128, "parts[%zu], limit \"%s\"", part, name);
    else
        snprintf(room, 128, "parts[%zu]", part);
    return room;
}

static int call_check_amount(const steady_part *part, size_t at, const char *name, int64_t amount,
                             steady_message *why) {
    const int64_t least = part->kind == STEADY_TAKE ? -STEADY__AMOUNT_MAX : 0;
    char place[128];
    if (amount >= least && amount <= STEADY__AMOUNT_MAX) return 0;
    return steady__fail(why, STEADY_BAD_ARGUMENT, "%s: amount is %lld; it must be %lld .. %d%s",
                        call_place(place, part->throttler, at, name), (long long)amount, (long long)least,
                        STEADY__AMOUNT_MAX, part->kind == STEADY_TAKE ? "" : " for a look, a charge or a shadow");
}

/* at_least is given: all buckets take, and all take the same. */
static int call_check_at_least(const struct steady__group *group, steady_message *why) {
    const int64_t amount = group->members[0].part.amount;
    char place[128], first[128];
    for (size_t i = 0; i < group->n; i++) {
        const struct steady__part *part = &group->members[i].part;
        if (part->kind != STEADY__TAKE)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu]: with at_least every kind must be take",
                                group->results[i].part);
        if (part->amount != amount)
            return steady__fail(
                why, STEADY_BAD_ARGUMENT, "%s: amount is %lld; with at_least all amounts must be equal (%s: %lld)",
                call_place(place, group->members[i].throttler, group->results[i].part, group->results[i].name),
                (long long)part->amount, call_place(first, group->members[0].throttler, 0, group->results[0].name),
                (long long)amount);
    }
    if (group->how.at_least <= amount) return 0;
    return steady__fail(why, STEADY_BAD_ARGUMENT, "at_least is %lld; it must be 1 .. the amount (%lld)",
                        (long long)group->how.at_least, (long long)amount);
}

static int call_check_different(const struct steady__group *group, steady_message *why) {
    for (size_t i = 1; i < group->n; i++)
        for (size_t k = 0; k < i; k++) {
            const struct steady__member *a = &group->members[k], *b = &group->members[i];
            if (a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0)
                return steady__fail(why, STEADY_BAD_ARGUMENT, "parts[%zu] and parts[%zu] have the same bucket",
                                    group->results[k].part, group->results[i].part);
        }
    return 0;
}

/* ---- Groups: making ---- */

/* The stored key of a bucket; see steady_throttler_new_limits. Returns its length, or 0 if it is too long. */
static size_t call_stored_key(const steady_throttler *t, const struct steady__throttler_limit *limit, const char *key,
                              size_t key_len, char *room) {
    static const char hex[] = "0123456789ABCDEF";
    const size_t name_len = strlen(limit->name);
    size_t len = t->prefix_len;
    memcpy(room, t->prefix, len);
    if (t->n_limits == 1) {
        if (key_len > STEADY__KEY_MAX - len) return 0;
        memcpy(room + len, key, key_len);
        return len + key_len;
    }
    if (len + 2 + name_len > STEADY__KEY_MAX) return 0;
    const size_t last = STEADY__KEY_MAX - name_len - 1; /* of the closing brace */
    room[len++] = '{';
    for (size_t i = 0; i < key_len; i++) {
        const bool escaped = key[i] == '%' || key[i] == '{' || key[i] == '}';
        if (len + (escaped ? 3 : 1) > last) return 0;
        if (escaped) {
            room[len++] = '%';
            room[len++] = hex[(unsigned char)key[i] >> 4];
            room[len++] = hex[(unsigned char)key[i] & 15];
        } else {
            room[len++] = key[i];
        }
    }
    room[len++] = '}';
    memcpy(room + len, limit->name, name_len);
    return len + name_len;
}

static int call_add_part(struct steady__group *group, const steady_part *part, size_t at, steady_message *why) {
    static const enum steady__kind kinds[] = {[STEADY_TAKE] = STEADY__TAKE,
                                              [STEADY_LOOK] = STEADY__LOOK,
                                              [STEADY_CHARGE] = STEADY__CHARGE,
                                              [STEADY_SHADOW] = STEADY__SHADOW};
    steady_throttler *t = part->throttler;
    for (size_t i = 0; i < t->n_limits; i++) {
        const struct steady__throttler_limit *limit = &t->limits[i];
        char *room = group->keys_end; /* call_make_group has counted its bytes */
        const int64_t amount = part->amounts != NULL ? part->amounts[i] : part->amount;
        const int error = call_check_amount(part, at, limit->name, amount, why);
        if (error != 0) return error;
        const size_t len = call_stored_key(t, limit, part->key, part->key_len, room);
        if (len == 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT,
                                "parts[%zu]: prefix, key and name have more than %d bytes together", at,
                                STEADY__KEY_MAX);
        struct steady__member *member = steady__group_add(group, t, &limit->terms, room, len);
        const int64_t capacity = limit->terms.rate.capacity;
        member->local_rate = &limit->local_terms.rate;
        member->prefix_len = t->prefix_len;
        member->key_has_name = t->n_limits > 1;
        member->part.kind = kinds[part->kind];
        member->asked = amount;
        member->part.amount = t->clamp && amount > capacity ? capacity : amount;
        group->results[group->n - 1] = (steady_part_result){.name = limit->name, .part = at};
    }
    return 0;
}

/* With at_least all amounts stay equal, so the smallest clamped one counts. */
static void call_clamp_all(struct steady__group *group) {
    bool clamps = false;
    int64_t least = STEADY__AMOUNT_MAX;
    for (size_t i = 0; i < group->n; i++) {
        clamps = clamps || group->members[i].throttler->clamp;
        if (group->members[i].part.amount < least) least = group->members[i].part.amount;
    }
    if (!clamps || group->how.at_least == 0 || least <= 0) return;
    for (size_t i = 0; i < group->n; i++)
        group->members[i].part.amount = least;
    if (group->how.at_least > least) group->how.at_least = least;
}

/* room: of a call that ends before its caller does; otherwise NULL. */
static int call_make_group(struct steady__group **made, const steady_part *parts, size_t n_parts, const steady_how *how,
                           enum steady__verb verb, struct steady__group_room *room) {
    size_t members = 0, key_bytes = 0;
    int error = 0;
    *made = NULL;
    for (size_t i = 0; i < n_parts; i++) {
        error = call_check_part(&parts[i], i, &parts[0], how->why);
        if (error != 0) return error;
        const steady_throttler *t = parts[i].throttler;
        members += t->n_limits;
        for (size_t k = 0; k < t->n_limits; k++) /* each byte of a key may become three */
            key_bytes +=
                t->prefix_len + (t->n_limits > 1 ? 3 * parts[i].key_len + 2 + STEADY__NAME_MAX : parts[i].key_len);
    }
    if (members > STEADY__PARTS_MAX)
        return steady__fail(how->why, STEADY_BAD_ARGUMENT,
                            "the parts have %zu buckets together; they must have 1 .. %d", members, STEADY__PARTS_MAX);
    if (atomic_load_explicit(&parts[0].throttler->store->closed, memory_order_acquire)) return STEADY_CLOSED;
    struct steady__group *group = room != NULL ? steady__group_borrow(room, members, key_bytes) : NULL;
    if (group == NULL) group = steady__group_new(members, key_bytes);
    if (group == NULL) return steady__fail(how->why, STEADY_NO_MEMORY, "out of memory");
    group->how =
        (struct steady__how){.max_wait = how->max_wait, .at_least = how->at_least, .peek = verb == STEADY__PEEK_ALL};
    for (size_t i = 0; i < n_parts && error == 0; i++) {
        const steady_us ahead = parts[i].throttler->max_ahead;
        if (ahead != 0 && group->how.max_wait > ahead) group->how.max_wait = ahead;
        error = call_add_part(group, &parts[i], i, how->why);
    }
    if (error == 0 && how->at_least > 0) call_clamp_all(group);
    if (error == 0 && how->at_least > 0) error = call_check_at_least(group, how->why);
    if (error == 0 && n_parts > 1) error = call_check_different(group, how->why);
    if (error == 0 && how->reserve && verb == STEADY__CONSUME_ALL) {
        group->reservation = steady__reservation_new(group, parts[0].throttler->store->tag);
        if (group->reservation == NULL) error = steady__fail(how->why, STEADY_NO_MEMORY, "out of memory");
    }
    if (error != 0) {
        if (!group->borrows) free(group);
        return error;
    }
    for (size_t i = 0; i < members && !group->borrows; i++)
        steady__throttler_hold(group->members[i].throttler);
    *made = group;
    return 0;
}

/* ---- Groups: asking ---- */

static struct steady__call call_on_group(enum steady__verb verb, struct steady__group *group) {
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): made without an error, so it is there */
    const struct steady__member *first = &group->members[0];
    return (struct steady__call){.verb = verb,
                                 .amount = first->part.amount,
                                 .key = first->key,
                                 .key_len = first->key_len,
                                 .terms = first->terms,
                                 .throttler = first->throttler,
                                 .group = group};
}

/* Takes the group. */
static int call_submit_group(enum steady__verb verb, struct steady__group *group, steady_callback callback, void *data,
                             uint64_t *id) {
    struct steady__call call = call_on_group(verb, group);
    uint64_t call_id = 0;
    call.callback = callback;
    call.data = data;
    const int error = call.throttler->store->class_->submit(call.throttler->store, &call, &call_id);
    if (error != 0) steady__call_release(&call);
    if (error == 0 && id != NULL) *id = call_id;
    return error;
}

/* Takes the group. Copies the results of its buckets to the caller's memory. */
static int call_decide_group(enum steady__verb verb, struct steady__group *group, steady_part_result *parts,
                             size_t room, steady_result *result) {
    const struct steady__call call = call_on_group(verb, group);
    call.throttler->store->class_->decide(call.throttler->store, &call, result);
    steady__complete(&call, result);
    if (result->parts != NULL) {
        const size_t n = room < group->n ? room : group->n;
        if (parts != NULL) memcpy(parts, group->results, n * sizeof *parts);
        result->parts = parts;
    }
    steady__call_release(&call);
    return result->source == STEADY_FROM_NOWHERE ? result->error : 0;
}

static int call_check_parts(const steady_part *parts, size_t n_parts, const steady_how *how) {
    const int error = call_check_how(how);
    if (error != 0) return error;
    if (parts == NULL) return steady__fail(how->why, STEADY_BAD_ARGUMENT, "parts is NULL");
    if (n_parts < 1 || n_parts > STEADY__PARTS_MAX)
        return steady__fail(how->why, STEADY_BAD_ARGUMENT, "n_parts is %zu; it must be 1 .. %d", n_parts,
                            STEADY__PARTS_MAX);
    if (parts[0].throttler == NULL) return steady__fail(how->why, STEADY_BAD_ARGUMENT, "parts[0]: throttler is NULL");
    return 0;
}

static int call_all(enum steady__verb verb, const steady_part *parts, size_t n_parts, const steady_how *how,
                    steady_callback callback, void *data, uint64_t *id) {
    struct steady__group *group = NULL;
    if (how == NULL) how = &no_options;
    int error = call_check_parts(parts, n_parts, how);
    if (error == 0) error = call_check_async(parts[0].throttler->store, callback);
    if (error == 0) error = call_make_group(&group, parts, n_parts, how, verb, NULL);
    return error != 0 ? error : call_submit_group(verb, group, callback, data, id);
}

static int call_all_sync(enum steady__verb verb, const steady_part *parts, size_t n_parts, const steady_how *how,
                         steady_result *result) {
    struct steady__group *group = NULL;
    struct steady__group_room room; /* large: not cleared */
    if (how == NULL) how = &no_options;
    if (result == NULL) return STEADY_BAD_ARGUMENT;
    steady__result_clear(result);
    result->error = call_check_parts(parts, n_parts, how);
    if (result->error == 0) result->error = call_check_sync(parts[0].throttler->store);
    if (result->error == 0)
        result->error =
            call_make_group(&group, parts, n_parts, how, verb, parts[0].throttler->store->class_->quiet ? &room : NULL);
    if (result->error != 0) return result->error;
    return call_decide_group(verb, group, how->parts, how->parts_room, result);
}

int steady_consume_all(const steady_part *parts, size_t n_parts, const steady_how *how, steady_callback callback,
                       void *data, uint64_t *id) {
    return call_all(STEADY__CONSUME_ALL, parts, n_parts, how, callback, data, id);
}

int steady_consume_all_sync(const steady_part *parts, size_t n_parts, const steady_how *how, steady_result *result) {
    return call_all_sync(STEADY__CONSUME_ALL, parts, n_parts, how, result);
}

int steady_peek_all(const steady_part *parts, size_t n_parts, const steady_how *how, steady_callback callback,
                    void *data, uint64_t *id) {
    return call_all(STEADY__PEEK_ALL, parts, n_parts, how, callback, data, id);
}

int steady_peek_all_sync(const steady_part *parts, size_t n_parts, const steady_how *how, steady_result *result) {
    return call_all_sync(STEADY__PEEK_ALL, parts, n_parts, how, result);
}

/* ---- One key ---- */

/* The verb of a group, and the part that it is made of. */
static enum steady__verb call_one_part(steady_throttler *t, const steady_call *call, steady_part *part) {
    *part = (steady_part){.throttler = t,
                          .key = call->key,
                          .key_len = call->key_len,
                          .amount = call->amount,
                          .amounts = call->amounts,
                          .kind = call->kind};
    if (call->verb == STEADY_RESET) {
        part->amount = 0;
        part->amounts = NULL;
        return STEADY__RESET_ALL;
    }
    if (call->verb == STEADY_PEEK && call->amounts == NULL && call->amount == 0) part->amount = 1;
    return call->verb == STEADY_PEEK ? STEADY__PEEK_ALL : STEADY__CONSUME_ALL;
}

/* One bucket without options. *verb is that of the plain call. */
static bool call_is_plain(const steady_throttler *t, const steady_call *call, enum steady__verb *verb) {
    const steady_how *how = call->how;
    if (t->n_limits > 1 || call->kind != STEADY_TAKE || call->amounts != NULL) return false;
    if (call->verb == STEADY_PEEK && call->amount != 0 && call->amount != 1) return false;
    *verb = call->verb == STEADY_CONSUME ? STEADY__CONSUME : call->verb == STEADY_PEEK ? STEADY__PEEK : STEADY__RESET;
    return how == NULL || (how->max_wait == 0 && how->at_least == 0 && !how->reserve && how->parts == NULL &&
                           CALL_IS_ZERO(how->reserved));
}

static int call_check_long_form(const steady_throttler *t, const steady_call *call) {
    if (t == NULL || call == NULL) return STEADY_BAD_ARGUMENT;
    steady_message *why = call->how != NULL ? call->how->why : NULL;
    if ((int)call->verb < STEADY_CONSUME || call->verb > STEADY_RESET)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "verb is %d; it must be a value of enum steady_verb",
                            (int)call->verb);
    if (!CALL_IS_ZERO(call->reserved))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_call must be zero");
    return 0;
}

static int64_t call_plain_amount(enum steady__verb verb, const steady_call *call) {
    return verb == STEADY__CONSUME ? call->amount : verb == STEADY__PEEK ? 1 : 0;
}

/* The reason why a plain call is refused. */
static int call_explain(const steady_throttler *t, const steady_call *call, int error) {
    steady_part part;
    if (error != STEADY_BAD_ARGUMENT || call->how == NULL || call->how->why == NULL) return error;
    call_one_part((steady_throttler *)t, call, &part);
    struct steady__group *group = NULL;
    if (call_check_how(call->how) == 0 && call_make_group(&group, &part, 1, call->how, STEADY__PEEK_ALL, NULL) == 0) {
        const struct steady__call made = call_on_group(STEADY__PEEK_ALL, group);
        steady__call_release(&made);
    }
    return error;
}

int steady_decide(steady_throttler *t, const steady_call *call, steady_callback callback, void *data, uint64_t *id) {
    enum steady__verb verb;
    steady_part part;
    const int error = call_check_long_form(t, call);
    if (error != 0) return error;
    if (call_is_plain(t, call, &verb))
        return call_explain(
            t, call, call_ask(t, verb, call->key, call->key_len, call_plain_amount(verb, call), callback, data, id));
    verb = call_one_part(t, call, &part);
    return call_all(verb, &part, 1, call->how, callback, data, id);
}

int steady_decide_sync(steady_throttler *t, const steady_call *call, steady_result *result) {
    enum steady__verb verb;
    steady_part part;
    if (result == NULL) return STEADY_BAD_ARGUMENT;
    steady__result_clear(result);
    result->error = call_check_long_form(t, call);
    if (result->error != 0) return result->error;
    if (call_is_plain(t, call, &verb))
        return call_explain(t, call,
                            call_ask_sync(t, verb, call->key, call->key_len, call_plain_amount(verb, call), result));
    verb = call_one_part(t, call, &part);
    return call_all_sync(verb, &part, 1, call->how, result);
}

/* The short forms. */

static bool call_has_one_limit(const steady_throttler *t) { return t != NULL && t->n_limits == 1; }

static int call_short(steady_throttler *t, const steady_call *call, steady_callback callback, void *data) {
    return steady_decide(t, call, callback, data, NULL);
}

int steady_consume(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                   steady_callback callback, void *data) {
    if (call_has_one_limit(throttler))
        return call_ask(throttler, STEADY__CONSUME, key, key_len, amount, callback, data, NULL);
    const steady_call call = {.verb = STEADY_CONSUME, .key = key, .key_len = key_len, .amount = amount};
    return call_short(throttler, &call, callback, data);
}

int steady_consume_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                        steady_result *result) {
    if (call_has_one_limit(throttler) && result != NULL) {
        steady__result_clear(result);
        return call_ask_sync(throttler, STEADY__CONSUME, key, key_len, amount, result);
    }
    const steady_call call = {.verb = STEADY_CONSUME, .key = key, .key_len = key_len, .amount = amount};
    return steady_decide_sync(throttler, &call, result);
}

int steady_peek(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    const steady_call call = {.verb = STEADY_PEEK, .key = key, .key_len = key_len};
    return call_short(throttler, &call, callback, data);
}

int steady_peek_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    const steady_call call = {.verb = STEADY_PEEK, .key = key, .key_len = key_len};
    return steady_decide_sync(throttler, &call, result);
}

int steady_reset(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback, void *data) {
    const steady_call call = {.verb = STEADY_RESET, .key = key, .key_len = key_len};
    return call_short(throttler, &call, callback, data);
}

int steady_reset_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result) {
    const steady_call call = {.verb = STEADY_RESET, .key = key, .key_len = key_len};
    return steady_decide_sync(throttler, &call, result);
}

int steady_charge(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                  steady_callback callback, void *data) {
    const steady_call call = {
        .verb = STEADY_CONSUME, .key = key, .key_len = key_len, .amount = amount, .kind = STEADY_CHARGE};
    return call_short(throttler, &call, callback, data);
}

int steady_charge_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                       steady_result *result) {
    const steady_call call = {
        .verb = STEADY_CONSUME, .key = key, .key_len = key_len, .amount = amount, .kind = STEADY_CHARGE};
    return steady_decide_sync(throttler, &call, result);
}

int steady_cancel(steady_throttler *throttler, uint64_t id) {
    if (throttler == NULL) return STEADY_BAD_ARGUMENT;
    if (!call_is_on_its_thread(throttler->store)) return STEADY_WRONG_THREAD;
    return throttler->store->class_->cancel(throttler->store, id) ? 0 : STEADY_NOT_IN_FLIGHT;
}

int steady_expire(steady_throttler *throttler, uint64_t id) {
    if (throttler == NULL) return STEADY_BAD_ARGUMENT;
    if (!call_is_on_its_thread(throttler->store)) return STEADY_WRONG_THREAD;
    const struct steady__store_class *class_ = throttler->store->class_;
    return class_->expire == NULL || class_->expire(throttler->store, id) ? 0 : STEADY_NOT_IN_FLIGHT;
}

/* ---- Settling ---- */

/* The limit of a throttler that the bucket belongs to; NULL: none. */
static const struct steady__throttler_limit *call_limit_of(const steady_throttler *t, const steady_reserved *part,
                                                           const struct steady__reserved_key *key) {
    if (t == NULL || key->prefix_len != t->prefix_len || key->has_name != (t->n_limits > 1)) return NULL;
    if (t->prefix_len > part->key_len || memcmp(t->prefix, part->key, t->prefix_len) != 0) return NULL;
    if (t->n_limits == 1) return &t->limits[0];
    for (size_t i = 0; i < t->n_limits; i++)
        if (strcmp(t->limits[i].name, part->name) == 0) return &t->limits[i];
    return NULL;
}

static steady_store *call_settling_store(const steady_settlement *s) {
    return s->n_throttlers > 0 ? s->throttlers[0]->store : s->store;
}

static int call_check_settlement(const steady_settlement *s) {
    if (s == NULL) return STEADY_BAD_ARGUMENT;
    steady_message *why = s->why;
    if (s->reservation == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "reservation is NULL");
    if (!CALL_IS_ZERO(s->reserved))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "reserved fields of steady_settlement must be zero");
    if (s->n_throttlers == 0 && s->store == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT,
                            "n_throttlers is 0 and store is NULL; name the throttlers that reserved, or their store");
    if (s->n_throttlers > 0 && s->throttlers == NULL)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "throttlers is NULL");
    for (size_t i = 0; i < s->n_throttlers; i++) {
        if (s->throttlers[i] == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "throttlers[%zu] is NULL", i);
        if (s->throttlers[i]->store != s->throttlers[0]->store)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "throttlers[%zu] has another store than throttlers[0]", i);
    }
    if (s->store != NULL && s->store != call_settling_store(s))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "throttlers[0] has another store than `store`");
    if (s->actuals == NULL && s->actual < 0)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "actual is %lld; it must be 0 or more", (long long)s->actual);
    for (size_t i = 0; i < s->reservation->n; i++) {
        const int64_t amount = s->reservation->parts[i].amount;
        if (s->actuals == NULL && amount != s->reservation->parts[0].amount)
            return steady__fail(why, STEADY_BAD_ARGUMENT,
                                "the reservation asked %lld of part 0 and %lld of part %zu; give each its actual",
                                (long long)s->reservation->parts[0].amount, (long long)amount, i);
        const int64_t actual = s->actuals != NULL ? s->actuals[i] : s->actual;
        if (actual < -1)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "actuals[%zu] is %lld; it must be 0 or more, or -1", i,
                                (long long)actual);
        if (actual >= 0 && amount < 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "part %zu took drops out; it cannot be settled", i);
    }
    return 0;
}

/* How well a limit fits a bucket of a reservation: its name counts more than its rate. */
static unsigned call_likeness(const struct steady__throttler_limit *limit, const steady_reserved *part) {
    const bool name = strcmp(limit->name, part->name) == 0;
    const bool rate =
        limit->terms.rate.recharge == part->limit.drop_recharge && limit->terms.rate.drops == part->limit.drops;
    return 1 + 2U * name + rate;
}

/* The limit that the bucket belongs to; NULL: none. *owner is its throttler. Throttlers can have one prefix: then it is
 * the one whose limit has the name of the bucket, and among those the one that leaks at the same rate. */
static const struct steady__throttler_limit *call_settling_limit(const steady_settlement *s, size_t at,
                                                                 steady_throttler **owner) {
    const struct steady__throttler_limit *best = NULL;
    unsigned best_likeness = 0;
    for (size_t i = 0; i < s->n_throttlers; i++) {
        const steady_reserved *part = &s->reservation->parts[at];
        const struct steady__throttler_limit *limit = call_limit_of(s->throttlers[i], part, &s->reservation->keys[at]);
        const unsigned likeness = limit != NULL ? call_likeness(limit, part) : 0;
        if (likeness <= best_likeness) continue;
        best = limit;
        best_likeness = likeness;
        *owner = s->throttlers[i];
    }
    return best;
}

/* Adds a bucket to the group, which then holds the throttler of the bucket. */
static int call_add_settled(struct steady__group *group, const steady_settlement *s, size_t at) {
    const steady_reserved *part = &s->reservation->parts[at];
    const int64_t actual = s->actuals != NULL ? s->actuals[at] : s->actual;
    steady_throttler *owner = NULL;
    if (actual == -1) return 0;
    const struct steady__throttler_limit *limit = call_settling_limit(s, at, &owner);
    if (limit != NULL) {
        steady__throttler_hold(owner);
    } else if (s->store != NULL) { /* a throttler for this call only, so only the call holds it */
        const int error = steady_throttler_new(&owner, s->store, &part->limit, NULL, s->why);
        if (error != 0) return error;
        limit = &owner->limits[0];
    } else {
        return steady__fail(s->why, STEADY_BAD_ARGUMENT,
                            "part %zu of the reservation (limit \"%s\") belongs to none of the throttlers", at,
                            part->name);
    }
    const struct steady__rate *rate = &limit->terms.rate;
    struct steady__member *member = steady__group_add(group, owner, &limit->terms, part->key, part->key_len);
    member->settlement = (struct steady__settlement){
        .rate = rate,
        .same_rate = rate->recharge == part->limit.drop_recharge && rate->drops == part->limit.drops &&
                     s->reservation->store == owner->store->tag, /* another store has other drops */
        .reserved = part->granted,
        .moment = part->moment,
        .actual = actual < STEADY__AMOUNT_MAX ? actual : STEADY__AMOUNT_MAX};
    group->results[group->n - 1] = (steady_part_result){.name = part->name, .part = at};
    return 0;
}

static int call_make_settlement(struct steady__group **made, const steady_settlement *s) {
    int error = 0;
    size_t key_bytes = 0;
    *made = NULL;
    if (atomic_load_explicit(&call_settling_store(s)->closed, memory_order_acquire)) return STEADY_CLOSED;
    for (size_t i = 0; i < s->reservation->n; i++)
        key_bytes += s->reservation->parts[i].key_len;
    struct steady__group *group = steady__group_new(s->reservation->n, key_bytes);
    if (group == NULL) return steady__fail(s->why, STEADY_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < s->reservation->n && error == 0; i++)
        error = call_add_settled(group, s, i);
    if (error == 0 && group->n == 0)
        error = steady__fail(s->why, STEADY_BAD_ARGUMENT, "actuals names no part of the reservation");
    if (error == 0 && !steady__reservation_settle(s->reservation))
        error = steady__fail(s->why, STEADY_BAD_ARGUMENT, "the reservation was settled before");
    if (error != 0) {
        for (size_t i = 0; i < group->n; i++)
            steady__throttler_release(group->members[i].throttler);
        free(group);
        return error;
    }
    steady__reservation_hold(s->reservation);
    group->reservation = s->reservation;
    *made = group;
    return 0;
}

int steady_settle(const steady_settlement *settlement, steady_callback callback, void *data, uint64_t *id) {
    struct steady__group *group = NULL;
    int error = call_check_settlement(settlement);
    if (error == 0) error = call_check_async(call_settling_store(settlement), callback);
    if (error == 0) error = call_make_settlement(&group, settlement);
    if (error != 0) return error;
    error = call_submit_group(STEADY__SETTLE, group, callback, data, id);
    if (error != 0) steady__reservation_settled(settlement->reservation, error);
    return error;
}

int steady_settle_sync(const steady_settlement *settlement, steady_result *result) {
    struct steady__group *group = NULL;
    if (result == NULL) return STEADY_BAD_ARGUMENT;
    steady__result_clear(result);
    result->error = call_check_settlement(settlement);
    if (result->error == 0) result->error = call_check_sync(call_settling_store(settlement));
    if (result->error == 0) result->error = call_make_settlement(&group, settlement);
    if (result->error != 0) return result->error;
    return call_decide_group(STEADY__SETTLE, group, settlement->parts, settlement->parts_room, result);
}
