/* SPDX-License-Identifier: MIT
 * Reservations, and their text form:
 *
 *     r1,<number of parts>,<store>;
 *
 * and then for each part
 *
 *     <key>,<name>,<prefix length>,<key has name>,<capacity>,<recharge>,<drops>,<amount>,<granted>,<moment>;
 *
 * <store> is the tag of an embedded store, or 0. <key has name> is 1 if the throttler had several limits, otherwise 0.
 * All fields are decimal integers but key and name. In these, each byte that is no letter, digit or one of -._:/@ is
 * written %XX. The number of parts and the last semicolon show that nothing was cut off. */
#include "reservation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/limit.h"

#define HEAD "r1,"

/* One block of memory: the reservation, its parts, and their texts, each with a NUL. */
static steady_reservation *reservation_alloc(size_t n, size_t text_bytes) {
    const size_t parts = n * sizeof(steady_reserved), keys = n * sizeof(struct steady__reserved_key);
    steady_reservation *r = calloc(1, sizeof *r + parts + keys + text_bytes);
    if (r == NULL) return NULL;
    atomic_init(&r->holders, 1);
    atomic_init(&r->settled, false);
    r->n = n;
    r->parts = (steady_reserved *)(r + 1);
    r->keys = (struct steady__reserved_key *)(r->parts + n);
    r->text = (char *)(r->keys + n);
    return r;
}

static const char *reservation_keep(char **at, const char *bytes, size_t len) {
    char *kept = *at;
    memcpy(kept, bytes, len);
    kept[len] = '\0';
    *at += len + 1;
    return kept;
}

steady_reservation *steady__reservation_new(const struct steady__group *group, int64_t store) {
    size_t text_bytes = 0;
    for (size_t i = 0; i < group->n; i++)
        text_bytes += group->members[i].key_len + strlen(group->results[i].name) + 2;
    steady_reservation *r = reservation_alloc(group->n, text_bytes);
    if (r == NULL) return NULL;
    r->store = store;
    char *at = r->text;
    for (size_t i = 0; i < r->n; i++) {
        const struct steady__member *member = &group->members[i];
        const struct steady__rate *rate = member->part.rate;
        const char *name = group->results[i].name;
        r->keys[i] = (struct steady__reserved_key){member->prefix_len, member->key_has_name};
        r->parts[i] = (steady_reserved){.key = reservation_keep(&at, member->key, member->key_len),
                                        .name = reservation_keep(&at, name, strlen(name)),
                                        .key_len = member->key_len,
                                        .amount = member->asked,
                                        .limit = {.max_capacity = rate->capacity,
                                                  .drop_recharge = rate->recharge,
                                                  .drops = rate->drops,
                                                  .block_duration = rate->block}};
    }
    for (size_t i = 0; i < r->n; i++)
        r->parts[i].limit.name = r->parts[i].name;
    return r;
}

void steady__reservation_fill(steady_reservation *reservation, const struct steady__group *group) {
    for (size_t i = 0; i < reservation->n; i++) {
        reservation->parts[i].granted = group->results[i].granted;
        reservation->parts[i].moment = group->members[i].moment;
    }
}

bool steady__reservation_settle(steady_reservation *reservation) {
    return !atomic_exchange(&reservation->settled, true);
}

void steady__reservation_settled(steady_reservation *reservation, int error) {
    const bool perhaps = error == 0 || error == STEADY_UNKNOWN || error == STEADY_CANCELLED;
    if (!perhaps) atomic_store(&reservation->settled, false);
}

void steady__reservation_hold(steady_reservation *reservation) { atomic_fetch_add(&reservation->holders, 1); }

void steady__reservation_release(steady_reservation *reservation) {
    if (reservation != NULL && atomic_fetch_sub(&reservation->holders, 1) == 1) free(reservation);
}

void steady_reservation_free(steady_reservation **reservation) {
    if (reservation == NULL) return;
    steady__reservation_release(*reservation);
    *reservation = NULL;
}

const steady_reserved *steady_reservation_parts(const steady_reservation *reservation, size_t *n_parts) {
    if (n_parts != NULL) *n_parts = reservation != NULL ? reservation->n : 0;
    return reservation != NULL ? reservation->parts : NULL;
}

/* ---- Text ---- */

struct out {
    char *text;
    size_t size, len; /* len goes on beyond size */
};

static void reservation_put(struct out *out, const char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++, out->len++)
        if (out->len + 1 < out->size) out->text[out->len] = bytes[i];
}

static bool reservation_is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._:/@", c) != NULL);
}

static void reservation_put_escaped(struct out *out, const char *bytes, size_t len) {
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        const char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (reservation_is_plain(bytes[i]))
            reservation_put(out, &bytes[i], 1);
        else
            reservation_put(out, escaped, 3);
    }
}

static void reservation_put_number(struct out *out, int64_t number) {
    char digits[24];
    const int len = snprintf(digits, sizeof digits, ",%" PRId64, number);
    reservation_put(out, digits, (size_t)len);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is written through `out` */
size_t steady_reservation_text(const steady_reservation *reservation, char *text, size_t size) {
    struct out out = {text, text != NULL ? size : 0, 0};
    const size_t n = reservation != NULL ? reservation->n : 0;
    reservation_put(&out, HEAD, sizeof HEAD - 2); /* without its comma */
    reservation_put_number(&out, (int64_t)n);
    reservation_put_number(&out, reservation != NULL ? reservation->store : 0);
    reservation_put(&out, ";", 1);
    for (size_t i = 0; i < n; i++) {
        const steady_reserved *part = &reservation->parts[i];
        reservation_put_escaped(&out, part->key, part->key_len);
        reservation_put(&out, ",", 1);
        reservation_put_escaped(&out, part->name, strlen(part->name));
        const int64_t numbers[] = {(int64_t)reservation->keys[i].prefix_len,
                                   reservation->keys[i].has_name,
                                   part->limit.max_capacity,
                                   part->limit.drop_recharge,
                                   part->limit.drops,
                                   part->amount,
                                   part->granted,
                                   part->moment};
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
            reservation_put_number(&out, numbers[k]);
        reservation_put(&out, ";", 1);
    }
    if (out.size > 0) out.text[out.len < out.size ? out.len : out.size - 1] = '\0';
    return out.len;
}

/* ---- Parsing ---- */

static int reservation_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Reads a text up to the comma, and the comma. False if it is malformed or longer than `max`. */
static bool reservation_read_escaped(const char **at, char *to, size_t max, size_t *len) {
    for (*len = 0; **at != ','; ++*len) {
        if (*len == max) return false;
        if (reservation_is_plain(**at)) {
            to[*len] = *(*at)++;
            continue;
        }
        const int high = **at == '%' ? reservation_hex((*at)[1]) : -1;
        const int low = high >= 0 ? reservation_hex((*at)[2]) : -1;
        if (low < 0) return false;
        to[*len] = (char)(high << 4 | low);
        if (reservation_is_plain(to[*len])) return false; /* each reservation has one text */
        *at += 3;
    }
    ++*at;
    return true;
}

/* Reads a number in its shortest form, and the character behind it. */
static bool reservation_read_number(const char **at, int64_t min, int64_t max, char behind, int64_t *number) {
    const char *digit = *at + (**at == '-');
    int64_t n = 0;
    const bool negative = **at == '-', zero = *digit == '0';
    if (*digit < '0' || *digit > '9' || (zero && (negative || (digit[1] >= '0' && digit[1] <= '9')))) return false;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        if (n >= STEADY__EXACT) return false;
        n = n * 10 + (*digit - '0');
    }
    if (*digit != behind) return false;
    *number = negative ? -n : n;
    *at = digit + 1;
    return *number >= min && *number <= max;
}

/* Reads one part. Its key and name go to *text. */
static bool reservation_read_part(const char **at, steady_reserved *part, struct steady__reserved_key *key,
                                  char **text) {
    size_t name_len = 0;
    int64_t prefix_len = 0, has_name = 0;
    part->key = *text;
    if (!reservation_read_escaped(at, *text, STEADY__KEY_MAX, &part->key_len) || part->key_len == 0) return false;
    *text += part->key_len + 1;
    part->name = *text;
    if (!reservation_read_escaped(at, *text, STEADY__NAME_MAX, &name_len) || strlen(*text) != name_len) return false;
    *text += name_len + 1;
    part->limit.name = part->name;
    if (!reservation_read_number(at, 0, (int64_t)part->key_len - 1, ',', &prefix_len) ||
        !reservation_read_number(at, 0, 1, ',', &has_name) ||
        !reservation_read_number(at, 1, STEADY__CAPACITY_MAX, ',', &part->limit.max_capacity) ||
        !reservation_read_number(at, 1, STEADY__EXACT - 1, ',', &part->limit.drop_recharge) ||
        !reservation_read_number(at, 1, STEADY__DROPS_MAX, ',', &part->limit.drops) ||
        !reservation_read_number(at, -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, ',', &part->amount) ||
        !reservation_read_number(at, -STEADY__AMOUNT_MAX, STEADY__AMOUNT_MAX, ',', &part->granted) ||
        !reservation_read_number(at, 0, STEADY__EXACT - 1, ';', &part->moment))
        return false;
    const int64_t least = part->amount < 0 ? part->amount : 0, most = part->amount < 0 ? 0 : part->amount;
    if (part->granted < least || part->granted > most) return false; /* no call grants more than it was asked for */
    *key = (struct steady__reserved_key){(size_t)prefix_len, has_name == 1};
    return steady_limit_check(&part->limit, NULL) == 0;
}

/* Part `at` has the bucket of an earlier part. No call makes such a reservation. */
static bool reservation_repeats(const steady_reservation *r, size_t at) {
    for (size_t i = 0; i < at; i++)
        if (r->parts[i].key_len == r->parts[at].key_len &&
            memcmp(r->parts[i].key, r->parts[at].key, r->parts[at].key_len) == 0)
            return true;
    return false;
}

int steady_reservation_parse(steady_reservation **reservation, const char *text, steady_message *why) {
    static const char not_one[] = "the text is not a reservation, or a part of it is missing";
    int64_t n = 0, store = 0;
    if (reservation == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "reservation is NULL");
    *reservation = NULL;
    if (text == NULL) return steady__fail(why, STEADY_BAD_ARGUMENT, "text is NULL");
    const bool begins = strncmp(text, HEAD, sizeof HEAD - 1) == 0;
    const char *at = begins ? text + sizeof HEAD - 1 : text;
    if (!begins || !reservation_read_number(&at, 1, STEADY__PARTS_MAX, ',', &n) ||
        !reservation_read_number(&at, 0, STEADY__EXACT - 1, ';', &store))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s", not_one);
    steady_reservation *r = reservation_alloc((size_t)n, strlen(at) + 2 * (size_t)n);
    if (r == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    char *to = r->text;
    bool whole = true;
    r->store = store;
    for (size_t i = 0; i < r->n && whole; i++)
        whole = reservation_read_part(&at, &r->parts[i], &r->keys[i], &to) && !reservation_repeats(r, i);
    if (!whole || *at != '\0') {
        free(r);
        return steady__fail(why, STEADY_BAD_ARGUMENT, "%s", not_one);
    }
    *reservation = r;
    return 0;
}
