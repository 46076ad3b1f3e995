/* SPDX-License-Identifier: MIT
 * Which limits count for a request, and by what keys.
 *
 * A client chooses most of a request. So a key never depends on how the client spells it: the path is in its normal
 * form, and the bytes that join the parts of a key are escaped. A field that is missing or comes twice has no value. */
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "pattern.h"

enum { PATH_MOST = 64 * 1024, HASH_SIZE = 32, UNKNOWN_ADDRESS = 7 };

struct matcher {
    struct rules_match *match;
    const struct rules_request *request;
    char path[PATH_MOST];
    size_t path_len; /* SIZE_MAX: it has none that can be read */
    bool has_path;   /* `path` is there */
};

__attribute__((format(printf, 2, 3))) static enum rules_outcome match_refuse(struct rules_match *match,
                                                                             const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(match->reason.text, sizeof match->reason.text, format, arguments);
    va_end(arguments);
    return RULES_REFUSED;
}

/* ---- Values ---- */

static bool match_same_name(struct rules_text name, const char *other) {
    return strlen(other) == name.len && strncasecmp(name.bytes, other, name.len) == 0;
}

static struct rules_text match_trimmed(struct rules_text text) {
    while (text.len > 0 && (text.bytes[0] == ' ' || text.bytes[0] == '\t'))
        text = (struct rules_text){text.bytes + 1, text.len - 1};
    while (text.len > 0 && (text.bytes[text.len - 1] == ' ' || text.bytes[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* Walks over NAME=VALUE pairs. False at the end. */
static bool match_next_pair(struct rules_text *rest, char separator, struct rules_field *pair) {
    if (rest->len == 0) return false;
    const char *end = memchr(rest->bytes, separator, rest->len);
    const size_t len = end != NULL ? (size_t)(end - rest->bytes) : rest->len;
    const char *equals = len > 0 ? memchr(rest->bytes, '=', len) : NULL;
    const size_t name = equals != NULL ? (size_t)(equals - rest->bytes) : len;
    pair->name = match_trimmed((struct rules_text){rest->bytes, name});
    pair->value = name < len ? match_trimmed((struct rules_text){rest->bytes + name + 1, len - name - 1})
                             : (struct rules_text){0};
    *rest = (struct rules_text){rest->bytes + len, rest->len - len};
    if (rest->len > 0) *rest = (struct rules_text){rest->bytes + 1, rest->len - 1};
    return true;
}

/* Counts the pairs of this name. *value is the first one. */
static size_t match_count_pairs(struct rules_text pairs, char separator, const char *name, struct rules_text *value) {
    struct rules_field pair;
    size_t n = 0;
    while (match_next_pair(&pairs, separator, &pair))
        if (pair.name.len == strlen(name) && memcmp(pair.name.bytes, name, pair.name.len) == 0 && n++ == 0)
            *value = pair.value;
    return n;
}

/* How many values the request has of this kind and name. *value is the first one. */
static size_t match_values(struct matcher *m, enum rules_key_kind kind, const char *name, struct rules_text *value) {
    const struct rules_request *request = m->request;
    size_t n = 0;
    switch (kind) {
    case RULES_KEY_METHOD: *value = request->method; return value->len > 0;
    case RULES_KEY_HOST: *value = request->host; return value->len > 0;
    case RULES_KEY_PATH:
        if (!m->has_path) m->path_len = pattern_normal_path(m->path, sizeof m->path, request->target);
        m->has_path = true;
        *value = (struct rules_text){m->path, m->path_len};
        return m->path_len != SIZE_MAX;
    case RULES_KEY_QUERY: return match_count_pairs(pattern_query(request->target), '&', name, value);
    case RULES_KEY_HEADER:
        for (size_t i = 0; i < request->n_fields; i++)
            if (match_same_name(request->fields[i].name, name) && n++ == 0) *value = request->fields[i].value;
        return n;
    case RULES_KEY_COOKIE:
        for (size_t i = 0; i < request->n_fields; i++) {
            struct rules_text one;
            if (!match_same_name(request->fields[i].name, "cookie")) continue;
            const size_t here = match_count_pairs(request->fields[i].value, ';', name, &one);
            if (here > 0 && n == 0) *value = one;
            n += here;
        }
        return n;
    case RULES_KEY_DESCRIPTOR:
        for (size_t i = 0; i < request->n_entries; i++)
            if (request->entries[i].name.len == strlen(name) &&
                memcmp(request->entries[i].name.bytes, name, request->entries[i].name.len) == 0 && n++ == 0)
                *value = request->entries[i].value;
        return n;
    case RULES_KEY_IP: break;
    }
    return 0;
}

/* ---- Conditions ---- */

static bool match_any_network(const struct rules_condition *condition, const struct steady__address *ip) {
    for (size_t i = 0; ip != NULL && i < condition->n_networks; i++)
        if (steady__network_has(&condition->networks[i], ip)) return true;
    return false;
}

/* A field that comes twice matches nothing: which of them the application takes is not known. */
static bool match_condition(struct matcher *m, const struct rules_condition *condition) {
    struct rules_text value = {0};
    if (condition->kind == RULES_KEY_IP) return match_any_network(condition, m->request->ip);
    if (match_values(m, condition->kind, condition->name, &value) != 1) return false;
    for (size_t i = 0; i < condition->n_values; i++)
        if (pattern_matches(condition->values[i], value, condition->kind == RULES_KEY_HOST)) return true;
    return false;
}

static bool match_all(struct matcher *m, const struct rules_conditions *conditions) {
    for (size_t i = 0; i < conditions->n; i++)
        if (!match_condition(m, &conditions->all[i])) return false;
    return true;
}

static bool match_any(struct matcher *m, const struct rules_condition *conditions, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (match_condition(m, &conditions[i])) return true;
    return false;
}

/* ---- Keys ---- */

struct key {
    char bytes[RULES_KEY_MAX];
    size_t len;
    bool too_long;
};

static void match_add(struct key *key, const char *bytes, size_t len) {
    if (len > sizeof key->bytes - key->len) {
        key->too_long = true;
        return;
    }
    memcpy(key->bytes + key->len, bytes, len);
    key->len += len;
}

/* A value with % + { } escaped. */
static void match_add_escaped(struct key *key, struct rules_text value) {
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.bytes[i];
        if (c != '\0' && strchr("%+{}", c) != NULL)
            match_add(key, (const char[]){'%', digits[(unsigned char)c >> 4], digits[(unsigned char)c & 15]}, 3);
        else
            match_add(key, &c, 1);
    }
}

/* The BLAKE2b digest that aiosteady's middleware uses, too (hash=True). */
static void match_add_hashed(struct key *key, struct rules_text value) {
    unsigned char digest[HASH_SIZE], salt[crypto_generichash_blake2b_SALTBYTES] = {0};
    unsigned char personal[crypto_generichash_blake2b_PERSONALBYTES] = "aiosteady";
    char hex[2 * HASH_SIZE + 1];
    crypto_generichash_blake2b_salt_personal(digest, sizeof digest, (const unsigned char *)value.bytes, value.len, NULL,
                                             0, salt, personal);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    match_add(key, hex, 2 * HASH_SIZE);
}

static void match_add_ip(struct key *key, const struct rules_key *part, const struct steady__address *ip) {
    char text[STEADY__ADDRESS_KEY_MAX];
    if (ip == NULL)
        match_add(key, "unknown", UNKNOWN_ADDRESS); /* all requests without an address share a bucket */
    else
        match_add(key, text, steady__address_key(text, ip, part->prefix));
}

/* False: a part of the key is missing. */
static bool match_make_key(struct matcher *m, const struct rules_limit *limit, struct key *key) {
    *key = (struct key){.len = 0};
    for (size_t i = 0; i < limit->n_keys; i++) {
        const struct rules_key *part = &limit->keys[i];
        struct rules_text value = {0};
        if (i > 0) match_add(key, "+", 1);
        if (part->kind == RULES_KEY_IP) {
            match_add_ip(key, part, m->request->ip);
            continue;
        }
        if (match_values(m, part->kind, part->name, &value) != 1 || value.len == 0) return false;
        if (part->hashed)
            match_add_hashed(key, value);
        else
            match_add_escaped(key, value);
    }
    return true;
}

/* A key that is too long is hashed, so that it still limits. All its parts are, because any of them may be long. */
static void match_hash_key(struct matcher *m, const struct rules_limit *limit, struct key *key) {
    *key = (struct key){.len = 0};
    for (size_t i = 0; i < limit->n_keys; i++) {
        const struct rules_key *part = &limit->keys[i];
        struct rules_text value = {0};
        if (i > 0) match_add(key, "+", 1);
        if (part->kind == RULES_KEY_IP)
            match_add_ip(key, part, m->request->ip);
        else if (match_values(m, part->kind, part->name, &value) == 1)
            match_add_hashed(key, value);
    }
}

static bool match_keep_key(struct rules_match *match, struct rules_part *part, const struct key *key) {
    if (key->len > sizeof match->keys - match->keys_len) return false;
    part->key_at = match->keys_len;
    part->key_len = key->len;
    memcpy(match->keys + match->keys_len, key->bytes, key->len);
    match->keys_len += key->len;
    return true;
}

/* ---- Limits ---- */

static size_t match_rate(struct matcher *m, const struct rules_limit *limit) {
    struct rules_text value = {0};
    if (limit->n_tiers == 0 || match_values(m, RULES_KEY_HEADER, limit->tier_header, &value) != 1) return 0;
    for (size_t i = 0; i < limit->n_tiers; i++)
        if (strlen(limit->tiers[i].value) == value.len && memcmp(limit->tiers[i].value, value.bytes, value.len) == 0)
            return limit->tiers[i].rate;
    return 0;
}

/* False: the cost is no number. */
static bool match_amount(struct matcher *m, const struct rules_limit *limit, int64_t *amount) {
    struct rules_text value = {0};
    *amount = limit->amount;
    if (limit->cost != RULES_COST_HEADER || match_values(m, RULES_KEY_HEADER, limit->cost_header, &value) == 0)
        return true;
    value = match_trimmed(value);
    if (value.len == 0 || value.len > 10) return false;
    *amount = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.bytes[i] < '0' || value.bytes[i] > '9') return false;
        *amount = *amount * 10 + (value.bytes[i] - '0');
    }
    return *amount <= INT32_MAX;
}

/* The fallback for a key with a missing part. No value can write it, because + is escaped in values. */
static void match_make_fallback(struct matcher *m, struct key *key) {
    static const struct rules_key by_ip = {.kind = RULES_KEY_IP, .prefix = 64};
    *key = (struct key){.len = 0};
    match_add(key, "+", 1);
    match_add_ip(key, &by_ip, m->request->ip);
}

static enum rules_outcome match_limit(struct matcher *m, const struct rules *rules, const struct rules_limit *limit) {
    struct rules_match *match = m->match;
    struct rules_part part = {.limit = limit};
    struct key key;
    if (!match_make_key(m, limit, &key)) {
        if (limit->missing == RULES_MISSING_SKIP) return RULES_MATCHED;
        if (limit->missing == RULES_MISSING_REFUSE)
            return match_refuse(match, "the request has no key for the limit %s", limit->name);
        match_make_fallback(m, &key);
    }
    if (!match_amount(m, limit, &part.amount))
        return match_refuse(match, "the header %s must be a whole number of drops", limit->cost_header);
    part.rate = match_rate(m, limit);
    part.kind = limit->shadow ? STEADY_SHADOW : limit->cost == RULES_COST_AFTER ? STEADY_LOOK : STEADY_TAKE;
    if (key.too_long || rules_stored_len(rules, limit, (struct rules_text){key.bytes, key.len}) > RULES_KEY_MAX)
        match_hash_key(m, limit, &key);
    if (match->n_parts == RULES_PARTS_MAX || !match_keep_key(match, &part, &key))
        return match_refuse(match, "more than %d limits match the request", RULES_PARTS_MAX);
    match->parts[match->n_parts++] = part;
    return RULES_MATCHED;
}

/* A limit of a file of envoyproxy/ratelimit: rules_find_descriptor finds it. */
static bool match_is_envoy(const struct rules_limit *limit) {
    return limit->n_keys == 1 && limit->keys[0].kind == RULES_KEY_DESCRIPTOR && limit->keys[0].name[0] == '\0';
}

enum rules_outcome rules_match(struct rules_match *match, const struct rules *rules,
                               const struct rules_request *request) {
    struct matcher m;
    m.match = match;
    m.request = request;
    m.has_path = false;
    match->n_parts = 0;
    match->keys_len = 0;
    match->exempt = match_any(&m, rules->exempt, rules->n_exempt);
    for (size_t i = 0; i < rules->n_limits && !match->exempt; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        if (limit->by_descriptor != (request->n_entries > 0) || match_is_envoy(limit)) continue;
        if (!match_all(&m, &limit->match) || match_any(&m, limit->exempt, limit->n_exempt)) continue;
        if (match_limit(&m, rules, limit) == RULES_REFUSED) return RULES_REFUSED;
    }
    return RULES_MATCHED;
}

/* ---- Stored keys ---- */

static bool match_is_escaped(char c) { return c == '%' || c == '{' || c == '}'; }

size_t rules_stored_len(const struct rules *rules, const struct rules_limit *limit, struct rules_text key) {
    size_t len = strlen(rules->prefix) + key.len + 2 + strlen(limit->stored_name);
    for (size_t i = 0; i < key.len; i++)
        len += match_is_escaped(key.bytes[i]) ? 2 : 0;
    return len;
}

size_t rules_stored_key(char out[RULES_KEY_MAX], const struct rules *rules, const struct rules_limit *limit,
                        struct rules_text key) {
    static const char digits[] = "0123456789ABCDEF";
    const size_t prefix = strlen(rules->prefix), name = strlen(limit->stored_name);
    size_t len = prefix;
    if (rules_stored_len(rules, limit, key) > RULES_KEY_MAX) return 0;
    memcpy(out, rules->prefix, prefix);
    out[len++] = '{';
    for (size_t i = 0; i < key.len; i++) {
        const char c = key.bytes[i];
        if (match_is_escaped(c)) {
            out[len++] = '%';
            out[len++] = digits[(unsigned char)c >> 4];
            out[len++] = digits[(unsigned char)c & 15];
        } else {
            out[len++] = c;
        }
    }
    out[len++] = '}';
    memcpy(out + len, limit->stored_name, name);
    return len + name;
}
