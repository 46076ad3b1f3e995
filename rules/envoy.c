/* SPDX-License-Identifier: MIT
 * The files of envoyproxy/ratelimit, and how descriptors are matched with them.
 *
 * A file has a domain, and a tree of descriptors. Each entry of a request goes one level down. It looks for KEY and
 * VALUE, then for the patterns of that level in the order of the file, then for KEY alone. A limit counts only at the
 * depth of the last entry. */
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pattern.h"
#include "read.h"

enum { DEPTH_MOST = 16, UNITS = 7 };

static const char *const unit_names[UNITS + 1] = {"second", "minute", "hour", "day", "month", "year", "week", NULL};
static const int64_t unit_seconds[UNITS] = {1, 60, 3600, 86400, 30 * 86400, 365 * 86400, 7 * 86400};

/* ---- Rates ---- */

static int64_t envoy_gcd(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The largest p/q that is at most n/d, with p and q within their bounds: a walk in the Stern-Brocot tree, in which
 * `low` is always at most n/d, and `high` above it. */
static void envoy_best_below(int64_t n, int64_t d, int64_t p_most, int64_t q_most, int64_t *p, int64_t *q) {
    int64_t low_p = 0, low_q = 1, high_p = 1, high_q = 0;
    for (;;) {
        /* low + k * high, as far as it is at most n/d: k = (n * low_q - d * low_p) / (d * high_p - n * high_q) */
        const __int128 room = (__int128)n * low_q - (__int128)d * low_p,
                       step = (__int128)d * high_p - (__int128)n * high_q;
        int64_t k = step > 0 ? (room / step < INT64_MAX ? (int64_t)(room / step) : INT64_MAX) : INT64_MAX;
        if (high_p > 0 && k > (p_most - low_p) / high_p) k = (p_most - low_p) / high_p;
        if (high_q > 0 && k > (q_most - low_q) / high_q) k = (q_most - low_q) / high_q;
        low_p += k * high_p;
        low_q += k * high_q;
        /* high + k * low, as far as it stays above n/d */
        const __int128 over = (__int128)d * high_p - (__int128)n * high_q,
                       back = (__int128)n * low_q - (__int128)d * low_p;
        if (back == 0) break; /* low is n/d itself */
        int64_t m = (int64_t)((over - 1) / back);
        if (m > (q_most - high_q) / low_q) m = (q_most - high_q) / low_q;
        if (low_p > 0 && m > (p_most - high_p) / low_p) m = (p_most - high_p) / low_p;
        high_p += m * low_p;
        high_q += m * low_q;
        if (k == 0 && m == 0) break;
    }
    *p = low_p;
    *q = low_q;
}

void rules_requests_per_unit(steady_limit *limit, int64_t requests, int unit, bool *exact) {
    const int64_t most = (INT64_C(1) << 53) - 1;
    const int64_t us = unit_seconds[unit >= 1 && unit <= UNITS ? unit - 1 : 0] * STEADY_SECOND;
    const int64_t capacity = requests < INT32_MAX ? requests : INT32_MAX;
    const int64_t common = envoy_gcd(requests, us);
    limit->max_capacity = capacity;
    limit->drops = requests / common;
    limit->drop_recharge = us / common;
    *exact = limit->drops <= 1000000 && limit->drop_recharge <= most / capacity && capacity == requests;
    if (!*exact) envoy_best_below(requests, us, 1000000, most / capacity, &limit->drops, &limit->drop_recharge);
}

/* ---- Reading ---- */

struct envoy_reader {
    struct rules_descriptor *descriptor;
    const struct rules_domain *domain;
    char path[200]; /* domain.key_value.key, for metrics and messages */
    int depth;
    bool shadow, shares, has_requests;
    const yaml_node_t *limit_node, *unit_node, *children_node;
};

static void envoy_limit_unit(struct reader *r, const yaml_node_t *node, void *to) {
    struct envoy_reader *e = to;
    const char *text = reader_text(r, node, "unit");
    if (text == NULL) return;
    for (int i = 0; i < UNITS; i++)
        if (strcasecmp(text, unit_names[i]) == 0) e->descriptor->unit = i + 1;
    e->unit_node = node;
}
static void envoy_limit_requests(struct reader *r, const yaml_node_t *node, void *to) {
    struct envoy_reader *e = to;
    e->has_requests = true;
    e->descriptor->requests_per_unit = reader_number(r, node, "requests_per_unit", 0, UINT32_MAX);
}
static void envoy_limit_unlimited(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct envoy_reader *)to)->descriptor->unlimited = reader_bool(r, node, "unlimited");
}
static void envoy_limit_name(struct reader *r, const yaml_node_t *node, void *to) {
    const char *name = reader_text(r, node, "name");
    if (name != NULL) ((struct envoy_reader *)to)->descriptor->limit_name = reader_copy(r, name, strlen(name));
}

static void envoy_replaces_name(struct reader *r, const yaml_node_t *node, void *to) {
    struct rules_descriptor *d = to;
    const char *name = reader_text(r, node, "the name of a limit");
    if (name == NULL) return;
    name = reader_copy(r, name, strlen(name));
    reader_append(r, &d->replaces, &d->n_replaces, &name, sizeof name);
}
static const struct reader_entry replaces_entries[] = {{"name", envoy_replaces_name}, {NULL, NULL}};
static void envoy_limit_replaces_one(struct reader *r, const yaml_node_t *node, void *to) {
    const struct rules_descriptor *d = to;
    const size_t before = d->n_replaces;
    reader_mapping(r, node, "replaces", replaces_entries, to);
    if (!r->failed && (d->n_replaces == before || d->replaces[before][0] == '\0'))
        reader_fail(r, node, "an entry of replaces needs the name of a limit, such as { name: other }");
}
static void envoy_limit_replaces(struct reader *r, const yaml_node_t *node, void *to) {
    reader_list(r, node, envoy_limit_replaces_one, ((struct envoy_reader *)to)->descriptor);
}
static const struct reader_entry limit_entries[] = {
    {"unit", envoy_limit_unit}, {"requests_per_unit", envoy_limit_requests}, {"unlimited", envoy_limit_unlimited},
    {"name", envoy_limit_name}, {"replaces", envoy_limit_replaces},          {NULL, NULL}};

static void envoy_descriptor_key(struct reader *r, const yaml_node_t *node, void *to) {
    const char *key = reader_text(r, node, "key");
    if (key != NULL) ((struct envoy_reader *)to)->descriptor->key = reader_copy(r, key, strlen(key));
}
static void envoy_descriptor_value(struct reader *r, const yaml_node_t *node, void *to) {
    struct rules_descriptor *d = ((struct envoy_reader *)to)->descriptor;
    const char *value = reader_text(r, node, "value");
    if (value == NULL || *value == '\0') return; /* an empty value is none */
    d->value = reader_copy(r, value, strlen(value));
}
static void envoy_descriptor_rate(struct reader *r, const yaml_node_t *node, void *to) {
    struct envoy_reader *e = to;
    e->limit_node = node;
    reader_mapping(r, node, "rate_limit", limit_entries, to);
}
static void envoy_descriptor_shadow(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct envoy_reader *)to)->shadow = reader_bool(r, node, "shadow_mode");
}
static void envoy_descriptor_children(struct reader *r, const yaml_node_t *node, void *to) {
    (void)r;
    ((struct envoy_reader *)to)->children_node = node;
}
static void envoy_descriptor_shares(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct envoy_reader *)to)->shares = reader_bool(r, node, "share_threshold");
}
static void envoy_descriptor_metric(struct reader *r, const yaml_node_t *node, void *to) {
    (void)to;
    if (reader_bool(r, node, "detailed_metric or value_to_metric"))
        reader_warn(r, node, "detailed_metric and value_to_metric have no effect; a value is never part of a metric");
}
static void envoy_descriptor_quota(struct reader *r, const yaml_node_t *node, void *to) {
    (void)to;
    if (reader_bool(r, node, "quota_mode"))
        reader_warn(r, node, "quota_mode has no effect; this limit denies a request even if others do not");
}
static void envoy_descriptor_metadata(struct reader *r, const yaml_node_t *node, void *to) {
    (void)to;
    reader_warn(r, node, "metadata has no effect");
}
static const struct reader_entry descriptor_entries[] = {{"key", envoy_descriptor_key},
                                                         {"value", envoy_descriptor_value},
                                                         {"rate_limit", envoy_descriptor_rate},
                                                         {"shadow_mode", envoy_descriptor_shadow},
                                                         {"descriptors", envoy_descriptor_children},
                                                         {"share_threshold", envoy_descriptor_shares},
                                                         {"detailed_metric", envoy_descriptor_metric},
                                                         {"value_to_metric", envoy_descriptor_metric},
                                                         {"quota_mode", envoy_descriptor_quota},
                                                         {"metadata", envoy_descriptor_metadata},
                                                         {NULL, NULL}};

static void envoy_read_children(struct reader *r, const yaml_node_t *node, const struct rules_domain *domain,
                                struct rules_descriptor *parent, const char *path, int depth);

/* The name in fields and metrics: at most 64 bytes of printable ASCII. */
static const char *envoy_shown_name(struct reader *r, const char *name) {
    const size_t len = strlen(name) < 64 ? strlen(name) : 64;
    char *copy = reader_take(r, len + 1);
    for (size_t i = 0; copy != NULL && i < len; i++)
        if (name[i] >= ' ' && name[i] <= '~')
            copy[i] = name[i];
        else
            copy[i] = '_';
    return copy;
}

/* The limit of a descriptor. */
static void envoy_make_limit(struct reader *r, const struct envoy_reader *e) {
    static const struct rules_key none = {.kind = RULES_KEY_DESCRIPTOR, .name = ""};
    struct rules_descriptor *d = e->descriptor;
    struct rules_limit *limit;
    bool exact = true;
    if (d->unlimited) {
        if (d->unit != 0) reader_fail(r, e->limit_node, "a limit must not be unlimited and have a unit");
        return;
    }
    if (d->unit == 0) {
        reader_fail(r, e->unit_node != NULL ? e->unit_node : e->limit_node,
                    "%s; it must be second, minute, hour, day, week, month or year",
                    e->unit_node != NULL ? "this is no unit" : "rate_limit needs a unit");
        return;
    }
    if (!e->has_requests)
        reader_warn(r, e->limit_node, "requests_per_unit is missing, so it is 0: every request is denied");
    for (size_t i = 0; i < d->n_replaces && d->limit_name != NULL; i++)
        if (strcmp(d->replaces[i], d->limit_name) == 0)
            reader_fail(r, e->limit_node, "the limit %s replaces itself; name another one", d->limit_name);
    d->never = d->requests_per_unit == 0;
    limit = reader_take(r, sizeof *limit + sizeof(steady_limit));
    if (limit == NULL) return;
    steady_limit *rate = (steady_limit *)(limit + 1);
    rules_requests_per_unit(rate, d->never ? 1 : d->requests_per_unit, d->unit, &exact);
    rate->name = unit_names[d->unit - 1];
    if (!exact)
        reader_warn(r, e->limit_node,
                    "%lld per %s is out of range; the limit is %lld drops in %lld us, the nearest slower rate",
                    (long long)d->requests_per_unit, unit_names[d->unit - 1], (long long)rate->drops,
                    (long long)rate->drop_recharge);
    *limit = (struct rules_limit){.name = envoy_shown_name(r, d->limit_name != NULL ? d->limit_name : e->path),
                                  .stored_name = unit_names[d->unit - 1],
                                  .line = d->line,
                                  .file = r->file,
                                  .keys = &none,
                                  .n_keys = 1,
                                  .rates = rate,
                                  .n_rates = 1,
                                  .cost = e->domain->after ? RULES_COST_AFTER : RULES_COST_NUMBER,
                                  .amount = 1,
                                  .shadow = e->shadow,
                                  .by_descriptor = true,
                                  .of_domain = true,
                                  .index = r->rules->n_limits};
    reader_append(r, &r->rules->limits, &r->rules->n_limits, limit, sizeof *limit);
    d->limit = limit;
}

struct level {
    const struct rules_domain *domain;
    const char *path;
    int depth;
    struct child {
        struct rules_descriptor descriptor;
        const yaml_node_t *node;
    } * children; /* in the order of the file */
    size_t n;
};

static void envoy_read_descriptor(struct reader *r, const yaml_node_t *node, void *to) {
    struct level *level = to;
    struct child child = {.descriptor = {.line = (int)node->start_mark.line + 1}, .node = node};
    struct rules_descriptor *d = &child.descriptor;
    struct envoy_reader e = {.descriptor = d, .domain = level->domain, .depth = level->depth};
    reader_mapping(r, node, "a descriptor", descriptor_entries, &e);
    if (!r->failed && (d->key == NULL || *d->key == '\0')) reader_fail(r, node, "a descriptor needs a key");
    d->shares = e.shares;
    if (!r->failed && e.shares && (d->value == NULL || strchr(d->value, '*') == NULL))
        reader_fail(r, node, "share_threshold needs a value with *, such as value: \"files/*\"");
    if (r->failed) return;
    snprintf(e.path, sizeof e.path, "%s.%s%s%s", level->path, d->key, d->value != NULL ? "_" : "",
             d->value != NULL ? d->value : "");
    if (e.limit_node != NULL) envoy_make_limit(r, &e);
    if (e.children_node != NULL) envoy_read_children(r, e.children_node, level->domain, d, e.path, level->depth + 1);
    reader_append(r, &level->children, &level->n, &child, sizeof child);
}

/* By key, then by value; that without a value is the first. */
static int envoy_compare(const void *a, const void *b) {
    const struct rules_descriptor *one = a, *other = b;
    const int by_key = strcmp(one->key, other->key);
    return by_key != 0 ? by_key
                       : strcmp(one->value != NULL ? one->value : "", other->value != NULL ? other->value : "");
}

static void envoy_sort_children(struct reader *r, struct rules_descriptor *parent, const struct level *level) {
    struct rules_descriptor *exact = reader_take(r, (level->n + 1) * sizeof *exact), *patterns = NULL;
    if (exact == NULL) return;
    for (size_t i = 0; i < level->n; i++) {
        const struct rules_descriptor *d = &level->children[i].descriptor;
        exact[i] = *d;
        if (d->value != NULL && strchr(d->value, '*') != NULL)
            reader_append(r, &patterns, &parent->n_patterns, d, sizeof *d);
    }
    qsort(exact, level->n, sizeof *exact, envoy_compare);
    for (size_t i = 1; i < level->n; i++) {
        const struct rules_descriptor *one = &exact[i - 1], *other = &exact[i];
        if (envoy_compare(one, other) != 0) continue;
        const bool swapped = one->line > other->line;
        size_t at = 0; /* the later one */
        while (level->children[at].descriptor.line != (swapped ? one : other)->line)
            at++;
        reader_fail(r, level->children[at].node, "the descriptor %s%s%s is that of line %d, too", one->key,
                    one->value != NULL ? "=" : "", one->value != NULL ? one->value : "", (swapped ? other : one)->line);
    }
    parent->exact = exact;
    parent->n_exact = level->n;
    parent->patterns = patterns;
}

static void envoy_read_children(struct reader *r, const yaml_node_t *node, const struct rules_domain *domain,
                                struct rules_descriptor *parent, const char *path, int depth) {
    struct level level = {.domain = domain, .path = path, .depth = depth};
    if (depth > DEPTH_MOST)
        reader_fail(r, node, "descriptors are nested deeper than %d", DEPTH_MOST);
    else if (node->type != YAML_SEQUENCE_NODE)
        reader_fail(r, node, "descriptors must be a list; begin each descriptor with \"- \"");
    else
        reader_list(r, node, envoy_read_descriptor, &level);
    if (!r->failed) envoy_sort_children(r, parent, &level);
}

struct envoy_file {
    struct rules_domain domain;
    const yaml_node_t *descriptors;
};

static void envoy_file_domain(struct reader *r, const yaml_node_t *node, void *to) {
    const char *name = reader_text(r, node, "domain");
    if (name != NULL) ((struct envoy_file *)to)->domain.name = reader_copy(r, name, strlen(name));
}
static void envoy_file_descriptors(struct reader *r, const yaml_node_t *node, void *to) {
    (void)r;
    ((struct envoy_file *)to)->descriptors = node;
}
static const struct reader_entry envoy_entries[] = {
    {"domain", envoy_file_domain}, {"descriptors", envoy_file_descriptors}, {NULL, NULL}};

void reader_envoy(struct reader *r, const yaml_node_t *root, const char *const *after, size_t n_after) {
    struct envoy_file file = {.descriptors = NULL};
    r->is_envoy = true;
    reader_mapping(r, root, "the file", envoy_entries, &file);
    if (r->failed) return;
    if (file.domain.name == NULL || *file.domain.name == '\0') {
        reader_fail(r, root, "the file needs a domain");
        return;
    }
    for (size_t i = 0; i < r->rules->n_domains; i++)
        if (strcmp(r->rules->domains[i].name, file.domain.name) == 0)
            reader_fail(r, root, "another file has the domain %s, too", file.domain.name);
    if (r->failed) return;
    for (size_t i = 0; i < n_after; i++)
        file.domain.after = file.domain.after || strcmp(after[i], file.domain.name) == 0;
    if (file.descriptors != NULL)
        envoy_read_children(r, file.descriptors, &file.domain, &file.domain.root, file.domain.name, 1);
    if (!r->failed) reader_append(r, &r->rules->domains, &r->rules->n_domains, &file.domain, sizeof file.domain);
}

/* ---- Matching ---- */

static int envoy_compare_text(struct rules_text text, const char *other) {
    const size_t len = strlen(other);
    const int order = text.len > 0 ? memcmp(text.bytes, other, text.len < len ? text.len : len) : 0;
    return order != 0 ? order : (text.len > len) - (text.len < len);
}

static const struct rules_descriptor *envoy_find(const struct rules_descriptor *level, struct rules_text key,
                                                 struct rules_text value) {
    size_t low = 0, high = level->n_exact;
    while (low < high) {
        const size_t at = low + (high - low) / 2;
        const struct rules_descriptor *d = &level->exact[at];
        int order = envoy_compare_text(key, d->key);
        if (order == 0) order = envoy_compare_text(value, d->value != NULL ? d->value : "");
        if (order == 0) return d;
        if (order < 0)
            high = at;
        else
            low = at + 1;
    }
    return NULL;
}

static const struct rules_descriptor *envoy_next(const struct rules_descriptor *level,
                                                 const struct rules_field *entry) {
    static const struct rules_text none = {"", 0};
    const struct rules_descriptor *found = entry->value.len > 0 ? envoy_find(level, entry->name, entry->value) : NULL;
    for (size_t i = 0; i < level->n_patterns && found == NULL; i++)
        if (envoy_compare_text(entry->name, level->patterns[i].key) == 0 &&
            pattern_matches(level->patterns[i].value, entry->value, false))
            found = &level->patterns[i];
    return found != NULL ? found : envoy_find(level, entry->name, none);
}

static const struct rules_descriptor *envoy_root(const struct rules *rules, struct rules_text domain) {
    for (size_t i = 0; i < rules->n_domains; i++)
        if (envoy_compare_text(domain, rules->domains[i].name) == 0) return &rules->domains[i].root;
    return NULL;
}

bool rules_has_domain(const struct rules *rules, struct rules_text name) { return envoy_root(rules, name) != NULL; }

const struct rules_descriptor *rules_find_descriptor(const struct rules *rules, const struct rules_request *request) {
    const struct rules_descriptor *at = envoy_root(rules, request->domain);
    for (size_t i = 0; i < request->n_entries && at != NULL; i++)
        at = envoy_next(at, &request->entries[i]);
    return at != NULL && request->n_entries > 0 && (at->limit != NULL || at->unlimited) ? at : NULL;
}

/* ---- Keys ---- */

/* A quarter of the longest key, because %, { and } grow when they are escaped here, and again when they are stored. */
enum { KEY_MOST = RULES_KEY_MAX / 4 };

static bool envoy_add(char out[KEY_MOST], size_t *len, struct rules_text text) {
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        const char c = text.bytes[i];
        const bool escaped = c == '%' || c == '+' || c == '{' || c == '}' || c == '\0';
        if (*len + (escaped ? 3 : 1) > KEY_MOST) return false;
        if (escaped) {
            out[(*len)++] = '%';
            out[(*len)++] = digits[(unsigned char)c >> 4];
            out[(*len)++] = digits[(unsigned char)c & 15];
        } else {
            out[(*len)++] = c;
        }
    }
    return true;
}

static bool envoy_add_plus(char out[KEY_MOST], size_t *len) {
    if (*len == KEY_MOST) return false;
    out[(*len)++] = '+';
    return true;
}

/* What counts as the value of an entry: of a pattern with share_threshold the pattern. *at goes one level down. */
static struct rules_text envoy_value(const struct rules_descriptor **at, const struct rules_field *entry) {
    if (*at != NULL) *at = envoy_next(*at, entry);
    return *at != NULL && (*at)->shares ? (struct rules_text){(*at)->value, strlen((*at)->value)} : entry->value;
}

static void envoy_hash(crypto_generichash_blake2b_state *state, struct rules_text text) {
    const uint64_t len = text.len;
    crypto_generichash_blake2b_update(state, (const unsigned char *)&len, sizeof len);
    crypto_generichash_blake2b_update(state, (const unsigned char *)text.bytes, text.len);
}

/* domain+key+value+key+value, or a digest if that is too long. A digest has no +. */
size_t rules_descriptor_key(char out[RULES_KEY_MAX], const struct rules *rules, const struct rules_request *request) {
    const struct rules_descriptor *const root = envoy_root(rules, request->domain), *at = root;
    crypto_generichash_blake2b_state state;
    unsigned char digest[32];
    size_t len = 0;
    bool fits = envoy_add(out, &len, request->domain);
    for (size_t i = 0; i < request->n_entries && fits; i++)
        fits = envoy_add_plus(out, &len) && envoy_add(out, &len, request->entries[i].name) &&
               envoy_add_plus(out, &len) && envoy_add(out, &len, envoy_value(&at, &request->entries[i]));
    if (fits) return len;
    at = root;
    crypto_generichash_blake2b_init(&state, NULL, 0, sizeof digest);
    envoy_hash(&state, request->domain);
    for (size_t i = 0; i < request->n_entries; i++) {
        envoy_hash(&state, request->entries[i].name);
        envoy_hash(&state, envoy_value(&at, &request->entries[i]));
    }
    crypto_generichash_blake2b_final(&state, digest, sizeof digest);
    sodium_bin2hex(out, RULES_KEY_MAX, digest, sizeof digest);
    return 2 * sizeof digest;
}
