/* SPDX-License-Identifier: MIT
 * Reservations that the clients keep. Each may be settled once: a settle whose outcome is not known must not be
 * repeated, and the library must refuse to. */
#include "reserved.h"

#include <inttypes.h>
#include <string.h>

#include "faults.h"

#define KEPT_MAX 12

static struct kept {
    steady_reservation *reservation; /* NULL: none */
    struct decision *by;
    bool over; /* a settle is in flight, or has changed the buckets, or perhaps has */
} kept[KEPT_MAX];

void reserved_begin(void) { memset(kept, 0, sizeof kept); }

void reserved_end(void) {
    for (int i = 0; i < KEPT_MAX; i++)
        steady_reservation_free(&kept[i].reservation);
}

static bool is_what_was_taken(const struct several *s, size_t i, const steady_reserved *part) {
    const struct member *member = &s->members[i];
    if (s->rounds == NULL) return part->granted == s->made.each[i].granted && part->moment == s->made.now;
    if (member->asked == NULL) return part->granted == 0;
    return part->moment == member->moment &&
           (part->granted == member->granted || (s->how.at_least > 0 && part->granted < member->granted));
}

static void note_parts(const struct decision *by, const steady_reservation *reservation) {
    struct several *s = by->several;
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    if (n != s->n) broken("the reservation of decision %" PRId64 " has %zu parts", by->id, n);
    for (size_t i = 0; i < n; i++) {
        struct member *member = &s->members[i];
        if (parts[i].amount != member->amount || parts[i].key_len != member->key_len ||
            memcmp(parts[i].key, member->key, member->key_len) != 0 || !is_what_was_taken(s, i, &parts[i]))
            broken("part %zu of the reservation of decision %" PRId64 " is not what was taken", i, by->id);
        member->reserved = parts[i].granted;
        member->reserved_at = parts[i].moment;
    }
}

/* Sends the reservation to another process. */
static void send_as_text(steady_reservation **reservation) {
    static char text[MEMBERS_MAX * 4096];
    steady_reservation *read = NULL;
    const size_t len = steady_reservation_text(*reservation, text, sizeof text);
    if (len >= sizeof text) broken("a reservation has %zu bytes", len);
    const int error = steady_reservation_parse(&read, text, NULL);
    if (error == STEADY_NO_MEMORY && faults_memory()) return;
    if (error != 0) broken("the text of a reservation is refused: %s", text);
    steady_reservation_free(reservation);
    *reservation = read;
}

void reserved_keep(struct decision *by, steady_reservation *reservation) {
    struct kept *to = &kept[between(0, KEPT_MAX - 1)];
    if (one_in(4)) send_as_text(&reservation);
    note_parts(by, reservation);
    steady_reservation_free(&to->reservation); /* perhaps while it is being settled */
    *to = (struct kept){.reservation = reservation, .by = by};
}

/* ---- Settling ---- */

struct settling {
    struct kept *kept;
    steady_settlement settlement;
    int64_t actuals[MEMBERS_MAX];
    steady_throttler *throttlers[TAPS];
    const struct place *places[TAPS];
    struct several *several;
};

static int64_t any_actual(int64_t granted) {
    switch (between(1, 6)) {
    case 1: return -1;
    case 2: return granted + between(1, 3);
    case 3: return granted;
    case 4: return between(0, granted);
    default: return 0;
    }
}

static void add_member(struct several *s, const struct member *from, size_t i, int64_t actual) {
    s->members[s->n++] = (struct member){.place = from->place,
                                         .asked_as = i,
                                         .key = from->key,
                                         .key_len = from->key_len,
                                         .part = from->part,
                                         .settlement = {.rate = &from->place->rate,
                                                        .same_rate = true,
                                                        .reserved = from->reserved,
                                                        .moment = from->reserved_at,
                                                        .actual = actual < INT32_MAX ? actual : INT32_MAX}};
}

/* One number for all buckets, or one for each. */
static void choose_actuals(struct settling *s) {
    const struct several *by = s->kept->by->several;
    bool equal = true;
    for (size_t i = 0; i < by->n; i++)
        equal = equal && by->members[i].amount >= 0 && by->members[i].amount == by->members[0].amount;
    const bool one = equal && one_in(2);
    const int64_t actual = one ? between(0, by->members[0].reserved + 1) : 0;
    for (size_t i = 0; i < by->n; i++) {
        s->actuals[i] = by->members[i].part.amount < 0 ? -1 : one ? actual : any_actual(by->members[i].reserved);
        if (s->actuals[i] >= 0) add_member(s->several, &by->members[i], i, s->actuals[i]);
    }
    s->settlement.actual = actual;
    if (!one) s->settlement.actuals = s->actuals;
}

static bool owns(const struct place *limits, const struct member *member) {
    const size_t prefix_len = strlen(limits->prefix);
    return prefix_len == strlen(member->place->prefix) && memcmp(limits->prefix, member->key, prefix_len) == 0 &&
           (limits->n_limits > 1) == (member->place->n_limits > 1);
}

/* A throttler with one limit owns all keys with its prefix, so the first one is found. It must be the right one. */
static bool find_own(const struct settling *s, const struct member *member, bool *right) {
    for (size_t t = 0; t < s->settlement.n_throttlers; t++) {
        if (!owns(s->places[t], member)) continue;
        const ptrdiff_t limit = member->place - s->places[t];
        *right = limit >= 0 && limit < (ptrdiff_t)s->places[t]->n_limits;
        return true;
    }
    return false;
}

static void choose_throttlers(struct settling *s, struct client *client) {
    bool all = true, right = true;
    for (int i = 0; i < TAPS && one_in(2); i++) {
        struct tap *tap = client_tap(client, i);
        if (tap == NULL) continue;
        s->places[s->settlement.n_throttlers] = tap->place;
        s->throttlers[s->settlement.n_throttlers++] = tap->throttler;
    }
    for (size_t i = 0; i < s->several->n && right; i++)
        if (!find_own(s, &s->several->members[i], &right)) all = false;
    if (!right) s->settlement.n_throttlers = 0;
    if (!right || !all || one_in(2)) s->settlement.store = client->store;
    if (s->settlement.n_throttlers > 0) s->settlement.throttlers = s->throttlers;
}

/* A settle that may have changed the buckets must not be repeated. */
static void ask_again(const struct settling *s) {
    const int error = steady_settle(&s->settlement, client_called, NULL, NULL);
    if (error != STEADY_BAD_ARGUMENT && !(error == STEADY_NO_MEMORY && faults_memory()))
        broken("a second settle of decision %" PRId64 " says %s", s->kept->by->id, steady_error_name(error));
}

bool reserved_settle(struct client *client) {
    struct kept *which = &kept[between(0, KEPT_MAX - 1)];
    if (which->reservation == NULL) return false;
    struct settling *s = keep(sizeof *s);
    s->kept = which;
    s->settlement.reservation = which->reservation;
    s->several = keep(sizeof *s->several);
    choose_actuals(s);
    if (s->several->n == 0) return false;
    choose_throttlers(s, client);
    if (which->over) {
        ask_again(s);
        return true;
    }
    struct decision *d = journal_open(client, NULL, STEADY__SETTLE, 0);
    d->several = s->several;
    d->several->reserved_by = which->by;
    which->by->several->settling = d;
    client_asks(client, d);
    const int error = steady_settle(&s->settlement, client_called, d, &d->call_id);
    which->over = error == 0;
    if (one_in(8)) steady_reservation_free(&which->reservation);
    client_asked(client, d, error);
    return true;
}

void reserved_settled(const struct request *r) {
    const struct several *settle = r->decision->several;
    struct several *by = settle->reserved_by->several;
    for (size_t k = 0; k < r->n; k++) {
        struct member *member = &by->members[settle->members[r->at[k]].asked_as];
        if (member->settles++ > 0)
            broken("the reservation of decision %" PRId64 " is settled twice", settle->reserved_by->id);
    }
    journal_totals.settled++;
}

void reserved_told(struct decision *settle, int error) {
    const bool uncharged = error != 0 && error != STEADY_UNKNOWN && error != STEADY_CANCELLED;
    for (int i = 0; uncharged && i < KEPT_MAX; i++)
        if (kept[i].by == settle->several->reserved_by) kept[i].over = false;
}
