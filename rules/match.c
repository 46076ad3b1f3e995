/* SPDX-License-Identifier: MIT
 * Which limits count for a request, and by what keys.
 *
 * A client chooses most of a request. So a key never depends on how the client spells it: the path is in its normal
 * form, and the bytes that join the parts of a key are escaped. A field that is missing or comes twice makes no key; a
 * condition holds if one of its values matches. */
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "pattern.h"

enum { HASH_SIZE = 32, HOST_MOST = 255, METHOD_MOST = 31 };

struct matcher {
    struct rules_match *match;
    const struct rules_request *request;
    struct rules_text host, method; /* in their normal form */
    bool has_host, has_method;      /* they are there */
    bool has_path;                  /* match->path is there */
    bool too_long;                  /* the path, or a value of the query */
    char host_bytes[HOST_MOST], method_bytes[METHOD_MOST];
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

static bool match_same_name(struct rules_text name, const char *other, size_t len) {
    return len == name.len && strncasecmp(name.bytes, other, len) == 0;
}

static bool match_same(struct rules_text text, const char *other) {
    return strlen(other) == text.len && memcmp(text.bytes, other, text.len) == 0;
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

/* A copy with another case of its ASCII letters. What does not fit stays as it is: then it is no usual name. */
static struct rules_text match_folded(char *out, size_t size, struct rules_text text, char first, char last) {
    if (text.len > size) return text;
    for (size_t i = 0; i < text.len; i++) {
        out[i] = text.bytes[i];
        if (out[i] >= first && out[i] <= last) out[i] ^= 'a' - 'A';
    }
    return (struct rules_text){out, text.len};
}

/* The host in lower case, without port and without the dot at its end. */
static struct rules_text match_host(char out[HOST_MOST], struct rules_text host) {
    size_t len = host.len;
    while (len > 0 && host.bytes[len - 1] >= '0' && host.bytes[len - 1] <= '9')
        len--;
    if (len > 0 && host.bytes[len - 1] == ':' && (host.bytes[0] == '[' || memchr(host.bytes, ':', len - 1) == NULL))
        host.len = len - 1;
    if (host.len > 1 && host.bytes[host.len - 1] == '.') host.len--;
    return match_folded(out, HOST_MOST, host, 'A', 'Z');
}

static struct rules_text match_own_host(struct matcher *m) {
    if (!m->has_host) m->host = match_host(m->host_bytes, m->request->host);
    m->has_host = true;
    return m->host;
}

static struct rules_text match_own_method(struct matcher *m) {
    if (!m->has_method) m->method = match_folded(m->method_bytes, sizeof m->method_bytes, m->request->method, 'a', 'z');
    m->has_method = true;
    return m->method;
}

static const struct rules_path *match_path(struct matcher *m) {
    if (!m->has_path && !pattern_read_path(&m->match->path, m->request->target)) m->too_long = true;
    m->has_path = true;
    return &m->match->path;
}

/* A value as an application decodes it: so no other spelling is another value. */
static struct rules_text match_decoded(struct matcher *m, struct rules_text value, bool plus_is_space) {
    size_t len = sizeof m->match->value;
    if (pattern_decode(m->match->value, &len, value, plus_is_space)) return (struct rules_text){m->match->value, len};
    m->too_long = true;
    return (struct rules_text){0};
}

static struct rules_text match_decoded_cookie(struct matcher *m, struct rules_text value) {
    const bool quoted = value.len >= 2 && value.bytes[0] == '"' && value.bytes[value.len - 1] == '"';
    struct rules_text decoded =
        match_decoded(m, quoted ? (struct rules_text){value.bytes + 1, value.len - 2} : value, false);
    return quoted ? (struct rules_text){m->match->value, pattern_unescape(m->match->value, decoded.len)} : decoded;
}

static bool match_decoded_is(struct rules_text encoded, const char *name) {
    char bytes[256];
    size_t len = sizeof bytes;
    return pattern_decode(bytes, &len, encoded, true) && strlen(name) == len && memcmp(bytes, name, len) == 0;
}

/* A walk over the values that a request has of one kind and name. */
struct values {
    enum rules_key_kind kind;
    const char *name;
    size_t at;
    struct rules_text pairs; /* that are left, of the query or of a cookie field */
};

/* The value is valid until the next call. False at the end. */
static bool match_next(struct matcher *m, struct values *values, struct rules_text *value) {
    const struct rules_request *request = m->request;
    struct rules_field pair;
    switch (values->kind) {
    case RULES_KEY_METHOD: *value = match_own_method(m); return values->at++ == 0 && value->len > 0;
    case RULES_KEY_HOST: *value = match_own_host(m); return values->at++ == 0 && value->len > 0;
    case RULES_KEY_PATH:
        if (values->at++ > 0 || match_path(m)->n == 0) return false;
        *value = (struct rules_text){m->match->path.bytes[0], m->match->path.len[0]};
        return true;
    case RULES_KEY_QUERY:
        if (values->at++ == 0) values->pairs = pattern_query(request->target);
        while (match_next_pair(&values->pairs, '&', &pair))
            if (match_decoded_is(pair.name, values->name)) {
                *value = match_decoded(m, pair.value, true);
                return true;
            }
        return false;
    case RULES_KEY_HEADER:
        for (const size_t len = strlen(values->name); values->at < request->n_fields;) {
            const struct rules_field *field = &request->fields[values->at++];
            if (!match_same_name(field->name, values->name, len)) continue;
            *value = match_trimmed(field->value);
            return true;
        }
        return false;
    case RULES_KEY_COOKIE:
        for (;;) {
            while (match_next_pair(&values->pairs, ';', &pair))
                if (match_same(pair.name, values->name)) {
                    *value = match_decoded_cookie(m, pair.value);
                    return true;
                }
            while (values->at < request->n_fields &&
                   !match_same_name(request->fields[values->at].name, "cookie", sizeof "cookie" - 1))
                values->at++;
            if (values->at == request->n_fields) return false;
            values->pairs = request->fields[values->at++].value;
        }
    case RULES_KEY_DESCRIPTOR:
        while (values->at < request->n_entries) {
            const struct rules_field *entry = &request->entries[values->at++];
            if (!match_same(entry->name, values->name)) continue;
            *value = entry->value;
            return true;
        }
        return false;
    case RULES_KEY_IP: break;
    }
    return false;
}

/* The value of a field that a request has once. Which of two values the application takes is not known. */
static bool match_only(struct matcher *m, enum rules_key_kind kind, const char *name, struct rules_text *value) {
    struct values values = {.kind = kind, .name = name};
    struct rules_text other;
    return match_next(m, &values, value) && !match_next(m, &values, &other);
}

/* ---- Conditions ---- */

static bool match_any_network(const struct rules_condition *condition, const struct steady__address *ip) {
    for (size_t i = 0; ip != NULL && i < condition->n_networks; i++)
        if (steady__network_has(&condition->networks[i], ip)) return true;
    return false;
}

static bool match_value(const struct rules_condition *condition, struct rules_text value) {
    const bool fold = condition->kind == RULES_KEY_HOST || condition->kind == RULES_KEY_METHOD;
    for (size_t i = 0; i < condition->n_values; i++)
        if (pattern_matches(condition->values[i], value, fold)) return true;
    /* An application answers HEAD as it answers GET. */
    return condition->kind == RULES_KEY_METHOD && match_same(value, "HEAD") &&
           match_value(condition, (struct rules_text){"GET", 3});
}

/* A limit counts if one of the values matches: so a client cannot add a value to pass it. */
static bool match_condition(struct matcher *m, const struct rules_condition *condition) {
    struct values values = {.kind = condition->kind, .name = condition->name};
    struct rules_text value;
    if (condition->kind == RULES_KEY_IP) return match_any_network(condition, m->request->ip);
    if (condition->kind == RULES_KEY_PATH) {
        for (size_t i = 0; i < condition->n_values; i++)
            if (pattern_matches_path(condition->values[i], match_path(m))) return true;
        return false;
    }
    while (match_next(m, &values, &value))
        if (match_value(condition, value)) return true;
    return false;
}

static bool match_all(struct matcher *m, const struct rules_conditions *conditions) {
    for (size_t i = 0; i < conditions->n; i++)
        if (!match_condition(m, &conditions->all[i])) return false;
    return true;
}

/* A field that comes twice exempts nothing. */
static bool match_exempts(struct matcher *m, const struct rules_condition *conditions, size_t n) {
    struct rules_text value;
    for (size_t i = 0; i < n; i++)
        if (conditions[i].kind == RULES_KEY_IP
                ? match_any_network(&conditions[i], m->request->ip)
                : match_only(m, conditions[i].kind, conditions[i].name, &value) && match_value(&conditions[i], value))
            return true;
    return false;
}

/* ---- Keys ---- */

struct key {
    char bytes[RULES_KEY_MAX];
    size_t len;
    bool too_long;
};

/* Its bytes are not cleared. */
static void match_begin_key(struct key *key) {
    key->len = 0;
    key->too_long = false;
}

static void match_add(struct key *key, const char *bytes, size_t len) {
    if (len > sizeof key->bytes - key->len) {
        key->too_long = true;
        return;
    }
    memcpy(key->bytes + key->len, bytes, len);
    key->len += len;
}

/* A value with % + { } and NUL escaped. */
static void match_add_escaped(struct key *key, struct rules_text value) {
    static const char digits[] = "0123456789ABCDEF";
    static const bool escaped[256] = {['%'] = true, ['+'] = true, ['{'] = true, ['}'] = true, ['\0'] = true};
    for (size_t i = 0; i < value.len;) {
        size_t plain = i;
        while (plain < value.len && !escaped[(unsigned char)value.bytes[plain]])
            plain++;
        match_add(key, value.bytes + i, plain - i);
        if (plain < value.len) {
            const unsigned char c = (unsigned char)value.bytes[plain++];
            match_add(key, (const char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
        }
        i = plain;
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
    if (ip == NULL) {
        match_add(key, "unknown", sizeof "unknown" - 1); /* all requests without an address share a bucket */
    } else {
        const size_t len = steady__address_key(text, ip, part->prefix);
        match_add(key, text, len);
    }
}

/* False: a part of the key is missing. */
static bool match_make_key(struct matcher *m, const struct rules_limit *limit, struct key *key) {
    match_begin_key(key);
    for (size_t i = 0; i < limit->n_keys; i++) {
        const struct rules_key *part = &limit->keys[i];
        struct rules_text value = {0};
        if (i > 0) match_add(key, "+", 1);
        if (part->kind == RULES_KEY_IP) {
            match_add_ip(key, part, m->request->ip);
            continue;
        }
        if (!match_only(m, part->kind, part->name, &value) || value.len == 0) return false;
        if (part->hashed)
            match_add_hashed(key, value);
        else
            match_add_escaped(key, value);
    }
    return true;
}

/* A key that is too long is hashed, so that it still limits. All its parts are, because any of them may be long. No
 * value can write %h, because % is escaped in values. */
static void match_hash_key(struct matcher *m, const struct rules_limit *limit, struct key *key) {
    match_begin_key(key);
    for (size_t i = 0; i < limit->n_keys; i++) {
        const struct rules_key *part = &limit->keys[i];
        struct rules_text value = {0};
        if (i > 0) match_add(key, "+", 1);
        if (part->kind == RULES_KEY_IP) {
            match_add_ip(key, part, m->request->ip);
        } else if (match_only(m, part->kind, part->name, &value)) {
            if (!part->hashed) match_add(key, "%h", 2);
            match_add_hashed(key, value);
        }
    }
}

/* ---- Limits ---- */

static size_t match_rate(struct matcher *m, const struct rules_limit *limit) {
    struct rules_text value = {0};
    if (limit->n_tiers == 0 || !match_only(m, RULES_KEY_HEADER, limit->tier_header, &value)) return 0;
    for (size_t i = 0; i < limit->n_tiers; i++)
        if (match_same(value, limit->tiers[i].value)) return limit->tiers[i].rate;
    return 0;
}

/* False: the cost is no number, or comes twice. */
static bool match_amount(struct matcher *m, const struct rules_limit *limit, int64_t *amount) {
    struct values values = {.kind = RULES_KEY_HEADER, .name = limit->cost_header};
    struct rules_text value = {0}, other;
    *amount = limit->amount;
    if (limit->cost != RULES_COST_HEADER || !match_next(m, &values, &value)) return true;
    if (value.len == 0 || value.len > 10 || match_next(m, &values, &other)) return false;
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
    match_begin_key(key);
    match_add(key, "+", 1);
    match_add_ip(key, &by_ip, m->request->ip);
}

static enum rules_outcome match_limit(struct matcher *m, const struct rules *rules, const struct rules_limit *limit) {
    struct rules_match *match = m->match;
    struct rules_part part = {.limit = limit};
    struct key key;
    const bool has_key = match_make_key(m, limit, &key);
    if (m->too_long) return RULES_MATCHED; /* rules_match refuses the request */
    if (!has_key) {
        if (limit->missing == RULES_MISSING_SKIP) return RULES_MATCHED;
        if (limit->missing == RULES_MISSING_REFUSE)
            return match_refuse(match, "the request has no key for the limit %s", limit->name);
        match_make_fallback(m, &key);
    }
    if (!match_amount(m, limit, &part.amount))
        return match_refuse(match, "the header %s must be a whole number of drops", limit->cost_header);
    part.rate = match_rate(m, limit);
    part.kind = limit->shadow ? STEADY_SHADOW : limit->cost == RULES_COST_AFTER ? STEADY_LOOK : STEADY_TAKE;
    if (key.too_long || !rules_key_fits(rules, limit, (struct rules_text){key.bytes, key.len}))
        match_hash_key(m, limit, &key);
    if (match->n_parts == RULES_PARTS_MAX)
        return match_refuse(match, "more than %d limits match the request", RULES_PARTS_MAX);
    part.key_at = match->keys_len;
    part.key_len = key.len;
    memcpy(match->keys + match->keys_len, key.bytes, key.len);
    match->keys_len += key.len;
    match->parts[match->n_parts++] = part;
    return RULES_MATCHED;
}

static void match_begin(struct matcher *m, struct rules_match *match, const struct rules_request *request) {
    m->match = match;
    m->request = request;
    m->has_host = m->has_method = m->has_path = m->too_long = false;
}

const struct rules_condition *rules_mismatch(struct rules_match *match, const struct rules_limit *limit,
                                             const struct rules_request *request) {
    struct matcher m;
    match_begin(&m, match, request);
    for (size_t i = 0; i < limit->match.n; i++)
        if (!match_condition(&m, &limit->match.all[i])) return &limit->match.all[i];
    return NULL;
}

enum rules_outcome rules_match(struct rules_match *match, const struct rules *rules,
                               const struct rules_request *request) {
    const bool by_descriptor = request->n_entries > 0;
    const struct rules_candidate *all = by_descriptor ? rules->of_descriptors : rules->of_requests;
    const size_t n = by_descriptor ? rules->n_of_descriptors : rules->n_of_requests;
    struct matcher m; /* its arrays are not cleared */
    match_begin(&m, match, request);
    match->n_parts = 0;
    match->keys_len = 0;
    match->exempt = match_exempts(&m, rules->exempt, rules->n_exempt);
    for (size_t i = 0; i < n && !match->exempt; i++) {
        const struct rules_limit *limit = all[i].limit;
        if (all[i].mask != 0 && !m.has_path) match_path(&m);
        if (all[i].mask != 0 && !m.too_long && !pattern_path_may_begin(&match->path, all[i].begins, all[i].mask))
            continue;
        const bool counts = match_all(&m, &limit->match) && !match_exempts(&m, limit->exempt, limit->n_exempt);
        if (counts && match_limit(&m, rules, limit) == RULES_REFUSED) return RULES_REFUSED;
        if (m.too_long)
            return match_refuse(match, "the path, or a value of the query or of a cookie, is longer than %d bytes",
                                RULES_PATH_MAX);
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

/* The bytes are counted only if it matters how many of them are escaped. */
bool rules_key_fits(const struct rules *rules, const struct rules_limit *limit, struct rules_text key) {
    const size_t most = strlen(rules->prefix) + 3 * key.len + 2 + strlen(limit->stored_name);
    return most <= RULES_KEY_MAX || rules_stored_len(rules, limit, key) <= RULES_KEY_MAX;
}

size_t rules_stored_key(char out[RULES_KEY_MAX], const struct rules *rules, const struct rules_limit *limit,
                        struct rules_text key) {
    static const char digits[] = "0123456789ABCDEF";
    const size_t prefix = strlen(rules->prefix), name = strlen(limit->stored_name);
    size_t len = prefix;
    if (prefix + 3 * key.len + 2 + name > RULES_KEY_MAX && !rules_key_fits(rules, limit, key)) return 0;
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
