/* SPDX-License-Identifier: MIT
 * Reads the rules file. libyaml parses it; each error names the file, the line and the column, and the correct form.
 *
 * Out of memory is an error like the others: `reader_take` notes it, and the reader goes on until it has to stop. */
#include "read.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "memory.h"
#include "pattern.h"

enum {
    FILE_MOST = 4 << 20,
    LIMITS_MOST = 10000,
    VALUES_MOST = 1000,
    VISITS_MOST = 500000,
    NESTED_MOST = 1000,
    WARNINGS_MOST = 100
};

/* ---- Errors ---- */

/* A text of the file may have line breaks, or codes for a terminal. */
static void read_blank_controls(char *text) {
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 127) *text = '?';
}

void reader_fail(struct reader *r, const yaml_node_t *node, const char *format, ...) {
    va_list arguments;
    if (r->failed) return;
    r->failed = true;
    int len = node == NULL ? snprintf(r->error->text, sizeof r->error->text, "%s: ", r->file)
                           : snprintf(r->error->text, sizeof r->error->text, "%s:%zu:%zu: ", r->file,
                                      node->start_mark.line + 1, node->start_mark.column + 1);
    if (len < 0 || (size_t)len >= sizeof r->error->text) return;
    va_start(arguments, format);
    vsnprintf(r->error->text + len, sizeof r->error->text - (size_t)len, format, arguments);
    va_end(arguments);
    read_blank_controls(r->error->text);
}

void reader_warn(struct reader *r, const yaml_node_t *node, const char *format, ...) {
    char text[512];
    va_list arguments;
    if (r->rules->n_warnings == WARNINGS_MOST) return;
    int len =
        snprintf(text, sizeof text, "%s:%zu:%zu: ", r->file, node->start_mark.line + 1, node->start_mark.column + 1);
    if (len < 0 || (size_t)len >= sizeof text) return;
    va_start(arguments, format);
    vsnprintf(text + len, sizeof text - (size_t)len, format, arguments);
    va_end(arguments);
    read_blank_controls(text);
    const char *copy = reader_copy(r, text, strlen(text));
    reader_append(r, &r->rules->warnings, &r->rules->n_warnings, &copy, sizeof copy);
}

/* ---- Memory ---- */

void *reader_take(struct reader *r, size_t size) {
    void *taken = memory_take(r->rules->memory, size);
    if (taken == NULL) reader_fail(r, NULL, "out of memory");
    return taken;
}

const char *reader_copy(struct reader *r, const char *bytes, size_t len) {
    const char *copy = memory_copy(r->rules->memory, bytes, len);
    if (copy == NULL) reader_fail(r, NULL, "out of memory");
    return copy;
}

/* Appends to an array. It grows by copying at each power of two; the old ones stay in the memory of the rules. */
void reader_append(struct reader *r, void *array, size_t *n, const void *item, size_t size) {
    void **items = array;
    if (*items == NULL || (*n & (*n - 1)) == 0) { /* 0, 1, 2, 4, ...: full */
        void *more = reader_take(r, size * (*n == 0 ? 1 : 2 * *n));
        if (more == NULL) return;
        if (*items != NULL) memcpy(more, *items, size * *n);
        *items = more;
    }
    memcpy((char *)*items + size * *n, item, size);
    ++*n;
}

/* ---- Nodes ---- */

yaml_node_t *reader_node(struct reader *r, int id) { return yaml_document_get_node(&r->document, id); }

/* The text of a scalar, or NULL after an error. It has no NUL inside. */
const char *reader_text(struct reader *r, const yaml_node_t *node, const char *what) {
    if (node->type != YAML_SCALAR_NODE) {
        reader_fail(r, node, "%s must be a single value", what);
        return NULL;
    }
    if (memchr(node->data.scalar.value, '\0', node->data.scalar.length) != NULL) {
        reader_fail(r, node, "%s has a NUL byte", what);
        return NULL;
    }
    return (const char *)node->data.scalar.value;
}

int64_t reader_number(struct reader *r, const yaml_node_t *node, const char *what, int64_t least, int64_t most) {
    const char *text = reader_text(r, node, what);
    if (text == NULL) return least;
    const size_t digits = strspn(text, "0123456789");
    const bool is_number = digits > 0 && digits <= 18 && text[digits] == '\0' && (*text != '0' || digits == 1);
    const long long number = is_number ? strtoll(text, NULL, 10) : 0;
    if (!is_number || number < least || number > most)
        reader_fail(r, node, "%s is \"%s\"; it must be a whole number from %lld to %lld", what, text, (long long)least,
                    (long long)most);
    return r->failed ? least : number;
}

bool reader_bool(struct reader *r, const yaml_node_t *node, const char *what) {
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "y", "n", NULL}; /* of YAML 1.1 */
    const char *text = reader_text(r, node, what);
    int i = 0;
    if (text == NULL) return false;
    while (words[i] != NULL && (r->is_envoy ? strcasecmp(text, words[i]) : strcmp(text, words[i])) != 0)
        i++;
    if (words[i] == NULL || (i > 1 && !r->is_envoy))
        reader_fail(r, node, "%s is \"%s\"; it must be true or false", what, text);
    return !r->failed && i % 2 == 0;
}

/* One of the words of a list that ends with NULL. Its index. */
int reader_choice(struct reader *r, const yaml_node_t *node, const char *what, const char *const *words) {
    char all[200] = "";
    const char *text = reader_text(r, node, what);
    for (int i = 0; text != NULL && words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) return i;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i > 0 ? ", " : "", words[i]);
    }
    if (text != NULL) reader_fail(r, node, "%s is \"%s\"; it must be one of: %s", what, text, all);
    return 0;
}

steady_us reader_duration(struct reader *r, const yaml_node_t *node, const char *what) {
    steady_message why;
    steady_us duration = 0;
    const char *text = reader_text(r, node, what);
    if (text != NULL && steady_duration_parse(&duration, text, &why) != 0)
        reader_fail(r, node, "%s: %s", what, why.text);
    return duration;
}

/* ---- Mappings and lists ---- */

/* False: there are too many values, because an anchor is repeated. */
static bool read_visit(struct reader *r, const yaml_node_t *node) {
    if (++r->visited > VISITS_MOST)
        reader_fail(r, node, "the file has more than %d values, counting those of anchors", VISITS_MOST);
    return !r->failed;
}

/* envoyproxy/ratelimit takes a value of null for a missing one, and each of its keys in every place. */
static bool read_is_skipped(struct reader *r, const yaml_node_t *key, const char *name, const yaml_node_t *value,
                            bool known) {
    static const char *const keys[] = {
        "domain",         "descriptors",       "key",       "value",      "rate_limit",
        "unit",           "requests_per_unit", "unlimited", "name",       "replaces",
        "shadow_mode",    "share_threshold",   "metadata",  "quota_mode", "detailed_metric",
        "value_to_metric"};
    const bool plain = value->type == YAML_SCALAR_NODE && value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    const char *text = plain ? (const char *)value->data.scalar.value : "other";
    if (!r->is_envoy) return false;
    if (known) return *text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(name, keys[i]) != 0) continue;
        reader_warn(r, key, "%s has no effect here; it belongs to another level", name);
        return true;
    }
    return false;
}

/* Calls the function of each key. Keys that are unknown or come twice are errors. */
void reader_mapping(struct reader *r, const yaml_node_t *node, const char *what, const struct reader_entry *entries,
                    void *to) {
    uint64_t seen = 0;
    if (node->type != YAML_MAPPING_NODE) {
        reader_fail(r, node, "%s must be a mapping, such as { %s: ... }", what, entries[0].name);
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = reader_node(r, pair->key);
        const char *name = reader_text(r, key, "a key");
        int i = 0;
        if (r->failed || !read_visit(r, key)) return;
        while (entries[i].name != NULL && strcmp(entries[i].name, name) != 0)
            i++;
        if (read_is_skipped(r, key, name, reader_node(r, pair->value), entries[i].name != NULL)) continue;
        if (entries[i].name == NULL) {
            char all[300] = "";
            for (int k = 0; entries[k].name != NULL; k++)
                snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", k > 0 ? ", " : "", entries[k].name);
            reader_fail(r, key, "%s has no key \"%s\"; its keys are: %s", what, name, all);
            return;
        }
        if ((seen >> i & 1) != 0) {
            reader_fail(r, key, "\"%s\" is given twice", name);
            return;
        }
        seen |= UINT64_C(1) << i;
        entries[i].read(r, reader_node(r, pair->value), to);
        if (r->failed) return;
    }
}

/* Calls `read` for each item of a list, or for a single value. */
void reader_list(struct reader *r, const yaml_node_t *node, void (*read)(struct reader *, const yaml_node_t *, void *),
                 void *to) {
    if (node->type != YAML_SEQUENCE_NODE) {
        read(r, node, to);
        return;
    }
    if (node->data.sequence.items.top - node->data.sequence.items.start > LIMITS_MOST)
        reader_fail(r, node, "the list has more than %d items", LIMITS_MOST);
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top && !r->failed; item++)
        if (read_visit(r, node)) read(r, reader_node(r, *item), to);
}

/* ---- Conditions ---- */

struct values {
    const char **texts;
    size_t n;
};

static void read_value(struct reader *r, const yaml_node_t *node, void *to) {
    struct values *values = to;
    const char *text = reader_text(r, node, "a value");
    if (text == NULL) return;
    if (values->n == VALUES_MOST) {
        reader_fail(r, node, "more than %d values", VALUES_MOST);
        return;
    }
    text = reader_copy(r, text, strlen(text));
    reader_append(r, &values->texts, &values->n, &text, sizeof text);
}

static void read_network(struct reader *r, const yaml_node_t *node, void *to) {
    struct rules_condition *condition = to;
    struct steady__network network;
    const char *text = reader_text(r, node, "a network");
    if (text == NULL) return;
    if (!steady__network_parse(&network, text)) {
        reader_fail(r, node, "\"%s\" is no address and no network such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32",
                    text);
        return;
    }
    reader_append(r, &condition->networks, &condition->n_networks, &network, sizeof network);
}

struct conditions {
    struct rules_condition *all;
    size_t n;
    bool trusted_header; /* the proxy sets or removes the headers */
};

static void read_condition(struct reader *r, const yaml_node_t *node, struct conditions *to, enum rules_key_kind kind,
                           const char *name) {
    struct rules_condition condition = {.kind = kind, .name = name};
    struct values values = {0};
    if (kind == RULES_KEY_IP) {
        reader_list(r, node, read_network, &condition);
    } else {
        reader_list(r, node, read_value, &values);
        condition.values = values.texts;
        condition.n_values = values.n;
    }
    if (!r->failed && condition.n_values + condition.n_networks == 0) reader_fail(r, node, "the list is empty");
    if (!r->failed) reader_append(r, &to->all, &to->n, &condition, sizeof condition);
}

static void read_named(struct reader *r, const yaml_node_t *node, struct conditions *to, enum rules_key_kind kind,
                       const char *what) {
    if (node->type != YAML_MAPPING_NODE) {
        reader_fail(r, node, "%s must be a mapping of names, such as { x-name: value }", what);
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && !r->failed; pair++) {
        const yaml_node_t *key = reader_node(r, pair->key);
        const char *name = reader_text(r, key, "a name");
        if (name == NULL || !read_visit(r, key)) return;
        if (*name == '\0' || (kind == RULES_KEY_HEADER && strpbrk(name, ": ") != NULL))
            reader_fail(r, key, "\"%s\" is no name of a %s; leave out the colon", name, what);
        for (size_t i = 0; i < to->n; i++)
            if (to->all[i].kind == kind && (kind == RULES_KEY_HEADER ? strcasecmp : strcmp)(to->all[i].name, name) == 0)
                reader_fail(r, key, "\"%s\" is given twice; list its values: { %s: [ONE, OTHER] }", name, name);
        read_condition(r, reader_node(r, pair->value), to, kind, reader_copy(r, name, strlen(name)));
    }
}

static void read_match_method(struct reader *r, const yaml_node_t *node, void *to) {
    read_condition(r, node, to, RULES_KEY_METHOD, NULL);
}
static void read_match_path(struct reader *r, const yaml_node_t *node, void *to) {
    struct conditions *conditions = to;
    read_condition(r, node, conditions, RULES_KEY_PATH, NULL);
    const struct rules_condition *last = r->failed ? NULL : &conditions->all[conditions->n - 1];
    for (size_t i = 0; last != NULL && i < last->n_values; i++)
        if (last->values[i][0] != '/' && last->values[i][0] != '*')
            reader_fail(r, node, "the path \"%s\" must begin with / or *", last->values[i]);
    for (size_t i = 0; last != NULL && i < last->n_values; i++)
        if (strpbrk(last->values[i], "?#") != NULL)
            reader_fail(r, node, "the path \"%s\" must end before ? and #; use query: { name: value }",
                        last->values[i]);
}
static void read_match_host(struct reader *r, const yaml_node_t *node, void *to) {
    read_condition(r, node, to, RULES_KEY_HOST, NULL);
}
static void read_match_ip(struct reader *r, const yaml_node_t *node, void *to) {
    read_condition(r, node, to, RULES_KEY_IP, NULL);
}
static void read_match_header(struct reader *r, const yaml_node_t *node, void *to) {
    read_named(r, node, to, RULES_KEY_HEADER, "header");
}
static void read_match_query(struct reader *r, const yaml_node_t *node, void *to) {
    read_named(r, node, to, RULES_KEY_QUERY, "query");
}
static void read_match_cookie(struct reader *r, const yaml_node_t *node, void *to) {
    read_named(r, node, to, RULES_KEY_COOKIE, "cookie");
}
static void read_match_descriptor(struct reader *r, const yaml_node_t *node, void *to) {
    read_named(r, node, to, RULES_KEY_DESCRIPTOR, "descriptor");
}

static const struct reader_entry match_entries[] = {
    {"path", read_match_path},     {"method", read_match_method},         {"host", read_match_host},
    {"ip", read_match_ip},         {"header", read_match_header},         {"query", read_match_query},
    {"cookie", read_match_cookie}, {"descriptor", read_match_descriptor}, {NULL, NULL}};

static void read_exempt_trusted(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct conditions *)to)->trusted_header = reader_bool(r, node, "trusted_header");
}

static const struct reader_entry exempt_entries[] = {
    {"ip", read_match_ip}, {"header", read_match_header}, {"trusted_header", read_exempt_trusted}, {NULL, NULL}};

/* A client controls its headers, unless a proxy sets or removes them. */
static void read_check_trust(struct reader *r, const yaml_node_t *node, bool by_header, bool trusted,
                             const char *what) {
    if (by_header && !trusted)
        reader_fail(
            r, node,
            "%s by header needs trusted_header: true, because a client can send any header; let the proxy set or "
            "remove it",
            what);
    else if (by_header)
        reader_warn(r, node, "%s by header: make sure that the proxy sets or removes this header", what);
}

static struct conditions read_exempt(struct reader *r, const yaml_node_t *node) {
    struct conditions conditions = {0};
    bool by_header = false;
    reader_mapping(r, node, "exempt", exempt_entries, &conditions);
    for (size_t i = 0; i < conditions.n; i++)
        by_header = by_header || conditions.all[i].kind == RULES_KEY_HEADER;
    if (!r->failed) read_check_trust(r, node, by_header, conditions.trusted_header, "exempt");
    return conditions;
}

/* ---- Limits ---- */

struct limit_reader {
    struct rules_limit limit;
    const char *rate;
    const yaml_node_t *rate_node, *tiers_node;
    int64_t burst;
    steady_us block;
    bool has_missing;
};

static void read_limit_name(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    const char *name = reader_text(r, node, "name");
    if (name == NULL) return;
    const steady_limit probe = {.max_capacity = 1, .drop_recharge = 1, .name = name};
    steady_message why;
    if (steady_limit_check(&probe, &why) != 0 || strchr(name, ':') != NULL)
        reader_fail(r, node,
                    "the name \"%.64s\" must be 1 to 64 printable ASCII bytes without spaces, %%, {, } and :", name);
    l->limit.name = l->limit.stored_name = reader_copy(r, name, strlen(name));
}

static void read_limit_match(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    struct conditions conditions = {0};
    reader_mapping(r, node, "match", match_entries, &conditions);
    l->limit.match = (struct rules_conditions){conditions.all, conditions.n};
}

static void read_limit_exempt(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    const struct conditions conditions = read_exempt(r, node);
    l->limit.exempt = conditions.all;
    l->limit.n_exempt = conditions.n;
}

/* "" or "/48" */
static bool read_prefix(struct rules_key *key, const char *text) {
    char *end = NULL;
    key->prefix = 64;
    if (*text == '\0') return true;
    if (text[1] < '0' || text[1] > '9') return false;
    const unsigned long bits = strtoul(text + 1, &end, 10);
    key->prefix = (unsigned)bits;
    return *end == '\0' && bits >= 1 && bits <= 128;
}

/* One part of a key: [hash:]ip, header:NAME, ... False: it is none. */
static bool read_key(struct reader *r, struct rules_key *key, const char *text, size_t len) {
    static const struct {
        const char *name;
        enum rules_key_kind kind;
    } named[] = {{"header:", RULES_KEY_HEADER},
                 {"cookie:", RULES_KEY_COOKIE},
                 {"query:", RULES_KEY_QUERY},
                 {"descriptor:", RULES_KEY_DESCRIPTOR}},
      plain[] = {{"path", RULES_KEY_PATH}, {"host", RULES_KEY_HOST}, {"method", RULES_KEY_METHOD}};
    const char *copy = reader_copy(r, text, len);
    if (copy == NULL) return true; /* failed */
    *key = (struct rules_key){0};
    if (strncmp(copy, "hash:", 5) == 0) {
        key->hashed = true;
        copy += 5;
    }
    if (strncmp(copy, "ip", 2) == 0 && (copy[2] == '\0' || copy[2] == '/')) {
        key->kind = RULES_KEY_IP;
        return read_prefix(key, copy + 2);
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(copy, plain[i].name) == 0) {
            key->kind = plain[i].kind;
            return true;
        }
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        const size_t n = strlen(named[i].name);
        if (strncmp(copy, named[i].name, n) != 0 || copy[n] == '\0') continue;
        key->kind = named[i].kind;
        key->name = copy + n;
        return true;
    }
    return false;
}

static void read_limit_key(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    struct rules_key *keys = NULL;
    const char *at = reader_text(r, node, "key");
    while (at != NULL && !r->failed) {
        struct rules_key key;
        const size_t len = strcspn(at, "+");
        if (!read_key(r, &key, at, len)) {
            reader_fail(
                r, node,
                "\"%.*s\" is no key; use ip, ip/48, header:NAME, cookie:NAME, query:NAME, descriptor:NAME, path, "
                "host or method, joined with +, each with hash: before it if it is secret",
                (int)(len < 60 ? len : 60), at);
            return;
        }
        reader_append(r, &keys, &l->limit.n_keys, &key, sizeof key);
        at = at[len] == '+' ? at + len + 1 : NULL;
    }
    l->limit.keys = keys;
}

static void read_limit_rate(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    l->rate = reader_text(r, node, "rate");
    l->rate_node = node;
}
static void read_limit_burst(struct reader *r, const yaml_node_t *node, void *to) {
    struct limit_reader *l = to;
    l->burst = reader_number(r, node, "burst", 1, INT32_MAX);
}
static void read_limit_block(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct limit_reader *)to)->block = reader_duration(r, node, "block");
}
static void read_limit_tiers(struct reader *r, const yaml_node_t *node, void *to) {
    (void)r;
    ((struct limit_reader *)to)->tiers_node = node;
}
static void read_limit_max_ahead(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct limit_reader *)to)->limit.max_ahead = reader_duration(r, node, "max_ahead");
}
static void read_limit_mode(struct reader *r, const yaml_node_t *node, void *to) {
    static const char *const modes[] = {"enforce", "shadow", NULL};
    ((struct limit_reader *)to)->limit.shadow = reader_choice(r, node, "mode", modes) == 1;
}
static void read_limit_missing(struct reader *r, const yaml_node_t *node, void *to) {
    static const char *const words[] = {"ip", "skip", "refuse", NULL};
    struct limit_reader *l = to;
    l->has_missing = true;
    l->limit.missing = (enum rules_missing)reader_choice(r, node, "missing", words);
}

/* cost: { header: NAME, trusted_header: true } */
struct cost {
    const char *header;
    bool trusted;
};

static void read_cost_header(struct reader *r, const yaml_node_t *node, void *to) {
    const char *name = reader_text(r, node, "header");
    if (name == NULL) return;
    if (*name == '\0' || strpbrk(name, ": ") != NULL)
        reader_fail(r, node, "\"%s\" is no name of a header; leave out the colon", name);
    ((struct cost *)to)->header = reader_copy(r, name, strlen(name));
}
static void read_cost_trusted(struct reader *r, const yaml_node_t *node, void *to) {
    ((struct cost *)to)->trusted = reader_bool(r, node, "trusted_header");
}

static const struct reader_entry cost_entries[] = {
    {"header", read_cost_header}, {"trusted_header", read_cost_trusted}, {NULL, NULL}};

/* A client that chooses its cost chooses 0. */
static void read_cost_by_header(struct reader *r, const yaml_node_t *node, struct rules_limit *limit,
                                const struct cost *cost) {
    limit->cost = RULES_COST_HEADER;
    limit->cost_header = cost->header;
    if (!cost->trusted)
        reader_warn(
            r, node,
            "cost by header: a client can send any header, so it chooses its cost, also 0; let the proxy set or "
            "remove it, and write cost: { header: %s, trusted_header: true }",
            cost->header);
}

static void read_limit_cost(struct reader *r, const yaml_node_t *node, void *to) {
    struct rules_limit *limit = &((struct limit_reader *)to)->limit;
    struct cost cost = {NULL, false};
    if (node->type == YAML_MAPPING_NODE) {
        reader_mapping(r, node, "cost", cost_entries, &cost);
        if (!r->failed && cost.header == NULL) reader_fail(r, node, "cost needs its header, such as header: x-cost");
        if (!r->failed) read_cost_by_header(r, node, limit, &cost);
        return;
    }
    const char *text = reader_text(r, node, "cost");
    if (text == NULL) return;
    if (strcmp(text, "after") == 0) {
        limit->cost = RULES_COST_AFTER;
    } else if (strncmp(text, "header:", 7) == 0 && text[7] != '\0') {
        cost.header = reader_copy(r, text + 7, strlen(text + 7));
        if (!r->failed) read_cost_by_header(r, node, limit, &cost);
    } else if (*text >= '0' && *text <= '9') {
        limit->amount = reader_number(r, node, "cost", 1, INT32_MAX);
    } else {
        reader_fail(r, node,
                    "cost is \"%s\"; it must be a whole number, { header: NAME, trusted_header: true }, or after",
                    text);
    }
}

static const struct reader_entry limit_entries[] = {{"name", read_limit_name},
                                                    {"match", read_limit_match},
                                                    {"key", read_limit_key},
                                                    {"rate", read_limit_rate},
                                                    {"burst", read_limit_burst},
                                                    {"block", read_limit_block},
                                                    {"tiers", read_limit_tiers},
                                                    {"cost", read_limit_cost},
                                                    {"mode", read_limit_mode},
                                                    {"missing", read_limit_missing},
                                                    {"max_ahead", read_limit_max_ahead},
                                                    {"exempt", read_limit_exempt},
                                                    {NULL, NULL}};

/* Reads a rate into the next of the rates of a limit. */
static size_t read_add_rate(struct reader *r, struct limit_reader *l, const yaml_node_t *node, const char *text) {
    steady_limit limit = {0};
    steady_message why;
    if (steady_limit_parse(&limit, text, &why) != 0) reader_fail(r, node, "%s", why.text);
    if (!r->failed && l->burst > 0 && node == l->rate_node) limit.max_capacity = l->burst;
    limit.block_duration = l->block;
    limit.name = l->limit.name;
    if (!r->failed && steady_limit_check(&limit, &why) != 0) reader_fail(r, node, "%s", why.text);
    reader_append(r, &l->limit.rates, &l->limit.n_rates, &limit, sizeof limit);
    return l->limit.n_rates - 1;
}

/* tiers: { header: NAME, trusted_header: true, VALUE: RATE, ... } */
static void read_tiers(struct reader *r, struct limit_reader *l) {
    const yaml_node_t *node = l->tiers_node;
    struct rules_tier *tiers = NULL;
    bool trusted = false;
    if (node->type != YAML_MAPPING_NODE) {
        reader_fail(r, node,
                    "tiers must be a mapping, such as { header: x-plan, trusted_header: true, pro: 1000/min }");
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && !r->failed; pair++) {
        const yaml_node_t *value = reader_node(r, pair->value);
        const char *name = reader_text(r, reader_node(r, pair->key), "a tier");
        const char *text = r->failed ? NULL : reader_text(r, value, "the value of a tier");
        if (text == NULL) return;
        for (size_t i = 0; tiers != NULL && i < l->limit.n_tiers; i++)
            if (strcmp(tiers[i].value, name) == 0) reader_fail(r, value, "the tier \"%s\" is given twice", name);
        if (!read_visit(r, value)) return;
        if (strcmp(name, "header") == 0) {
            if (l->limit.tier_header != NULL) reader_fail(r, value, "\"header\" is given twice");
            l->limit.tier_header = reader_copy(r, text, strlen(text));
        } else if (strcmp(name, "trusted_header") == 0) {
            trusted = reader_bool(r, value, "trusted_header");
        } else {
            const struct rules_tier tier = {reader_copy(r, name, strlen(name)), read_add_rate(r, l, value, text)};
            reader_append(r, &tiers, &l->limit.n_tiers, &tier, sizeof tier);
        }
    }
    l->limit.tiers = tiers;
    if (!r->failed && l->limit.tier_header == NULL)
        reader_fail(r, node, "tiers needs the header that names the tier, such as header: x-plan");
    if (!r->failed && l->limit.n_tiers == 0)
        reader_fail(r, node, "tiers has no tier; add a value of the header and its rate, such as pro: 1000/min");
    if (!r->failed) read_check_trust(r, node, true, trusted, "tiers");
}

/* A descriptor has entries and nothing else. */
static void read_check_descriptor(struct reader *r, const yaml_node_t *node, struct rules_limit *limit,
                                  bool has_missing) {
    if (!limit->by_descriptor) return;
    for (size_t i = 0; i < limit->n_keys; i++)
        if (limit->keys[i].kind != RULES_KEY_DESCRIPTOR)
            reader_fail(r, node, "the limit %s counts for descriptors of Envoy, so its key must be descriptor:NAME",
                        limit->name);
    for (size_t i = 0; i < limit->match.n; i++)
        if (limit->match.all[i].kind != RULES_KEY_DESCRIPTOR)
            reader_fail(r, node, "the limit %s counts for descriptors of Envoy, so it must match descriptor only",
                        limit->name);
    if (has_missing && limit->missing == RULES_MISSING_IP)
        reader_fail(r, node, "a descriptor of Envoy has no address; use missing: skip or missing: refuse");
    if (!has_missing) limit->missing = RULES_MISSING_SKIP;
    if (limit->max_ahead > 0) reader_fail(r, node, "Envoy does not wait for its answer; leave out max_ahead");
    if (limit->n_exempt > 0 || limit->n_tiers > 0 || limit->cost == RULES_COST_HEADER)
        reader_fail(r, node, "a descriptor of Envoy has no headers and no address; leave out %s",
                    limit->n_exempt > 0  ? "exempt"
                    : limit->n_tiers > 0 ? "tiers"
                                         : "cost");
}

/* Likely mistakes. */
static void read_warn_of_limit(struct reader *r, const yaml_node_t *node, const struct rules_limit *limit) {
    const bool takes = limit->cost == RULES_COST_NUMBER;
    for (size_t i = 0; takes && i < limit->n_rates; i++)
        if (limit->amount > limit->rates[i].max_capacity) {
            reader_warn(r, node, "the limit %s denies every request: its cost is %lld, and %s burst is only %lld",
                        limit->name, (long long)limit->amount, i > 0 ? "the smallest tier's" : "its",
                        (long long)limit->rates[i].max_capacity);
            break;
        }
    if (limit->max_ahead > 0 && limit->rates[0].block_duration > 0)
        reader_warn(r, node, "the limit %s has max_ahead, so its block never starts; leave one of them out",
                    limit->name);
    if (limit->cost == RULES_COST_AFTER && limit->rates[0].block_duration > 0)
        reader_warn(r, node, "the limit %s has cost: after, so its block never starts; leave it out", limit->name);
}

static void read_limit(struct reader *r, const yaml_node_t *node, void *to) {
    static const struct rules_key by_ip = {.kind = RULES_KEY_IP, .prefix = 64};
    struct limit_reader l = {.limit = {.line = (int)node->start_mark.line + 1,
                                       .column = node->start_mark.column + 1,
                                       .file = r->file,
                                       .amount = 1}};
    (void)to;
    reader_mapping(r, node, "a limit", limit_entries, &l);
    if (!r->failed && l.limit.name == NULL) reader_fail(r, node, "a limit needs a name, such as name: login");
    if (!r->failed && l.rate == NULL)
        reader_fail(r, node, "the limit %s needs a rate, such as rate: 10/min", l.limit.name);
    if (!r->failed) read_add_rate(r, &l, l.rate_node, l.rate);
    if (!r->failed && l.tiers_node != NULL) read_tiers(r, &l);
    if (r->failed) return;
    if (l.limit.n_keys == 0) {
        l.limit.keys = &by_ip;
        l.limit.n_keys = 1;
    }
    for (size_t i = 0; i < l.limit.n_keys; i++)
        l.limit.by_descriptor = l.limit.by_descriptor || l.limit.keys[i].kind == RULES_KEY_DESCRIPTOR;
    for (size_t i = 0; i < l.limit.match.n; i++)
        l.limit.by_descriptor = l.limit.by_descriptor || l.limit.match.all[i].kind == RULES_KEY_DESCRIPTOR;
    read_check_descriptor(r, node, &l.limit, l.has_missing);
    if (l.limit.cost == RULES_COST_AFTER && l.limit.max_ahead > 0)
        reader_fail(r, node, "the limit %s has cost: after, so it cannot queue; leave out max_ahead", l.limit.name);
    if (l.limit.shadow && l.limit.max_ahead > 0)
        reader_fail(r, node, "the limit %s has mode: shadow, so it cannot queue; leave out max_ahead", l.limit.name);
    if (r->rules->n_limits == LIMITS_MOST) reader_fail(r, node, "more than %d limits", LIMITS_MOST);
    if (!r->failed) read_warn_of_limit(r, node, &l.limit);
    l.limit.index = r->rules->n_limits;
    reader_append(r, &r->rules->limits, &r->rules->n_limits, &l.limit, sizeof l.limit);
}

/* ---- The file ---- */

struct file {
    const yaml_node_t *include;
    struct values after; /* domains whose cost is known afterwards */
};

static void read_file_store(struct reader *r, const yaml_node_t *node, void *to) {
    const char *url = reader_text(r, node, "store");
    (void)to;
    if (url != NULL) r->rules->store = reader_copy(r, url, strlen(url));
}
static void read_file_on_error(struct reader *r, const yaml_node_t *node, void *to) {
    static const char *const words[] = {"report", "deny", "allow", "local", NULL};
    (void)to;
    r->rules->on_error = (enum steady_policy)reader_choice(r, node, "on_error", words);
}
static void read_file_local_share(struct reader *r, const yaml_node_t *node, void *to) {
    (void)to;
    r->rules->local_share = (uint32_t)reader_number(r, node, "local_share", 1, INT32_MAX);
}
static void read_file_prefix(struct reader *r, const yaml_node_t *node, void *to) {
    const char *prefix = reader_text(r, node, "prefix");
    (void)to;
    if (prefix == NULL) return;
    if (strlen(prefix) > 200 || strpbrk(prefix, "{}") != NULL)
        reader_fail(r, node, "prefix must have at most 200 bytes, without { and }");
    r->rules->prefix = reader_copy(r, prefix, strlen(prefix));
}
static void read_file_trusted(struct reader *r, const yaml_node_t *node, void *to) {
    struct rules_condition condition = {0};
    (void)to;
    reader_list(r, node, read_network, &condition);
    r->rules->trusted = condition.networks;
    r->rules->n_trusted = condition.n_networks;
}
static void read_file_exempt(struct reader *r, const yaml_node_t *node, void *to) {
    const struct conditions conditions = read_exempt(r, node);
    (void)to;
    r->rules->exempt = conditions.all;
    r->rules->n_exempt = conditions.n;
}
static void read_file_limits(struct reader *r, const yaml_node_t *node, void *to) {
    if (node->type != YAML_SEQUENCE_NODE)
        reader_fail(r, node, "limits must be a list; begin each limit with \"- \"");
    else
        reader_list(r, node, read_limit, to);
}

static void read_file_include(struct reader *r, const yaml_node_t *node, void *to) {
    (void)r;
    ((struct file *)to)->include = node;
}
static void read_file_after(struct reader *r, const yaml_node_t *node, void *to) {
    reader_list(r, node, read_value, &((struct file *)to)->after);
}

static const struct reader_entry file_entries[] = {{"store", read_file_store},
                                                   {"on_error", read_file_on_error},
                                                   {"local_share", read_file_local_share},
                                                   {"prefix", read_file_prefix},
                                                   {"trusted", read_file_trusted},
                                                   {"exempt", read_file_exempt},
                                                   {"limits", read_file_limits},
                                                   {"include", read_file_include},
                                                   {"after", read_file_after},
                                                   {NULL, NULL}};

static void read_file(struct reader *r, const struct values *after);

static void read_note_include(struct reader *r, const char *pattern) {
    struct rules_includes *includes = r->includes;
    if (includes == NULL) return;
    char **more = realloc(includes->patterns, (includes->n + 1) * sizeof *more);
    if (more != NULL) includes->patterns = more;
    char *copy = more != NULL ? strdup(pattern) : NULL;
    if (copy != NULL)
        includes->patterns[includes->n++] = copy;
    else
        reader_fail(r, NULL, "out of memory");
}

/* The files that a pattern names, such as ratelimit/\*.yaml. They are files of envoyproxy/ratelimit. */
static void read_include(struct reader *r, const yaml_node_t *node, void *to) {
    const char *pattern = reader_text(r, node, "include"), *slash = strrchr(r->file, '/');
    char path[PATH_MAX];
    glob_t found;
    if (pattern == NULL) return;
    if (r->in_memory) {
        reader_fail(r, node, "include needs a file of rules");
        return;
    }
    const int folder = *pattern != '/' && slash != NULL ? (int)(slash - r->file) + 1 : 0;
    if (snprintf(path, sizeof path, "%.*s%s", folder, r->file, pattern) >= (int)sizeof path) {
        reader_fail(r, node, "the path is too long");
        return;
    }
    read_note_include(r, path);
    if (r->failed) return;
    const int failed = glob(path, 0, NULL, &found);
    if (failed != 0) {
        reader_fail(r, node, failed == GLOB_NOMATCH ? "no file matches \"%s\"" : "cannot look for \"%s\"", pattern);
        return;
    }
    for (size_t i = 0; i < found.gl_pathc && !r->failed; i++) {
        struct reader inner = {.rules = r->rules, .error = r->error, .is_included = true};
        inner.file = reader_copy(r, found.gl_pathv[i], strlen(found.gl_pathv[i]));
        if (inner.file != NULL) read_file(&inner, to);
        r->failed = r->failed || inner.failed;
    }
    globfree(&found);
}

static bool read_is_envoy(struct reader *r, const yaml_node_t *root) {
    if (root->type != YAML_MAPPING_NODE) return false;
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = reader_node(r, pair->key);
        if (key->type == YAML_SCALAR_NODE && strcmp((const char *)key->data.scalar.value, "domain") == 0) return true;
    }
    return false;
}

/* An earlier network that has all addresses of this one. */
static bool read_is_covered(const struct rules_condition *conditions, size_t n, const struct steady__network *network) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < conditions[i].n_networks; k++)
            if (conditions[i].networks[k].prefix <= network->prefix &&
                steady__network_has(&conditions[i].networks[k], &network->address))
                return true;
    return false;
}

/* Warns if all networks of a match are exempt. `exempt` may stand after `limits`, so this is done at the end. */
static void read_warn_of_exempt(struct reader *r) {
    const struct rules *rules = r->rules;
    for (size_t i = 0; i < rules->n_limits; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        for (size_t k = 0; k < limit->match.n; k++) {
            const struct rules_condition *condition = &limit->match.all[k];
            size_t covered = 0;
            for (size_t n = 0; n < condition->n_networks; n++)
                covered += read_is_covered(rules->exempt, rules->n_exempt, &condition->networks[n]) ||
                           read_is_covered(limit->exempt, limit->n_exempt, &condition->networks[n]);
            if (covered > 0 && covered == condition->n_networks) {
                const yaml_node_t at = {.start_mark = {.line = (size_t)limit->line - 1, .column = limit->column - 1}};
                reader_warn(r, &at, "the limit %s never counts: exempt has all addresses of its match", limit->name);
            }
        }
    }
}

static void read_root(struct reader *r, const struct values *after) {
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    struct file file = {.include = NULL};
    if (root == NULL) {
        reader_fail(r, NULL, "the file is empty; it needs limits: [ ... ]");
    } else if (read_is_envoy(r, root)) {
        reader_envoy(r, root, after != NULL ? after->texts : NULL, after != NULL ? after->n : 0);
    } else if (r->is_included) {
        reader_fail(r, root, "an included file must be one of envoyproxy/ratelimit, with a domain");
    } else {
        reader_mapping(r, root, "the file", file_entries, &file);
        if (!r->failed && file.include != NULL) reader_list(r, file.include, read_include, &file.after);
        if (!r->failed && r->rules->n_limits == 0 && r->rules->n_domains == 0)
            reader_fail(r, root, "the file has no limit; add limits: [ ... ]");
        if (!r->failed) read_warn_of_exempt(r);
    }
}

/* libyaml takes a time that grows with the square of the nested brackets. Those in texts and comments count, too. */
static bool read_is_too_deep(struct reader *r, const char *bytes, size_t len) {
    yaml_node_t at = {.start_mark = {.line = 0}};
    int depth = 0;
    for (size_t i = 0; i < len; i++, at.start_mark.column++) {
        if (bytes[i] == '[' || bytes[i] == '{') depth++;
        if ((bytes[i] == ']' || bytes[i] == '}') && depth > 0) depth--;
        if (depth > NESTED_MOST) {
            reader_fail(r, &at, "brackets are nested deeper than %d", NESTED_MOST);
            return true;
        }
        if (bytes[i] != '\n') continue;
        at.start_mark.line++;
        at.start_mark.column = (size_t)-1;
    }
    return false;
}

/* What libyaml found, where it is, and what a user can do about it. */
static void read_fail_of_yaml(struct reader *r, const yaml_parser_t *parser, const char *bytes, size_t len) {
    const yaml_node_t at = {.start_mark = parser->problem_mark};
    const char *problem = parser->problem != NULL ? parser->problem : "unknown error";
    const size_t offset = parser->problem_mark.index;
    if (parser->error == YAML_READER_ERROR)
        reader_fail(r, NULL, "%s at byte %zu; the file must be UTF-8 text", problem, parser->problem_offset);
    else if (offset < len && bytes[offset] == '\t')
        reader_fail(r, &at, "this is not YAML: indent with spaces, not with tabs");
    else
        reader_fail(r, &at, "this is not YAML: %s%s%s; check the indentation, brackets and quotes", problem,
                    parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "");
}

static void read_bytes(struct reader *r, const char *bytes, size_t len, const struct values *after) {
    yaml_parser_t parser;
    yaml_document_t more;
    if (read_is_too_deep(r, bytes, len)) return;
    if (!yaml_parser_initialize(&parser)) {
        reader_fail(r, NULL, "out of memory");
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, len);
    if (!yaml_parser_load(&parser, &r->document)) {
        read_fail_of_yaml(r, &parser, bytes, len);
        yaml_parser_delete(&parser);
        return;
    }
    read_root(r, after);
    if (!r->failed && !yaml_parser_load(&parser, &more)) {
        read_fail_of_yaml(r, &parser, bytes, len);
    } else if (!r->failed) {
        const yaml_node_t *second = yaml_document_get_root_node(&more);
        if (second != NULL && !(second->type == YAML_SCALAR_NODE && second->data.scalar.length == 0))
            reader_fail(r, second, "the file has a second document after ---; make it a file of its own");
        yaml_document_delete(&more);
    }
    yaml_document_delete(&r->document);
    yaml_parser_delete(&parser);
}

static void read_file(struct reader *r, const struct values *after) {
    FILE *file = fopen(r->file, "rb");
    char *bytes = file != NULL ? malloc(FILE_MOST + 1) : NULL;
    if (file == NULL) {
        reader_fail(r, NULL, "%s", strerror(errno));
        return;
    }
    const size_t len = bytes != NULL ? fread(bytes, 1, FILE_MOST + 1, file) : 0;
    if (bytes == NULL)
        reader_fail(r, NULL, "out of memory");
    else if (ferror(file))
        reader_fail(r, NULL, "%s", strerror(errno));
    else if (len > FILE_MOST)
        reader_fail(r, NULL, "the file is larger than %d MiB", FILE_MOST >> 20);
    else
        read_bytes(r, bytes, len, after);
    free(bytes);
    fclose(file);
}

static struct rules *read_rules_new(struct rules_error *error) {
    struct rules *rules = calloc(1, sizeof *rules);
    if (rules != NULL) rules->memory = memory_new();
    if (rules == NULL || rules->memory == NULL) {
        free(rules);
        snprintf(error->text, sizeof error->text, "out of memory");
        return NULL;
    }
    static const struct steady__network loopback[] = {{{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127}}, 104},
                                                      {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 128}};
    rules->store = "memory:";
    rules->trusted = loopback;
    rules->n_trusted = 2;
    rules->prefix = "steady:";
    rules->on_error = STEADY_ALLOW;
    return rules;
}

static int read_compare_names(const void *a, const void *b) {
    const struct rules_limit *one = *(const struct rules_limit *const *)a,
                             *other = *(const struct rules_limit *const *)b;
    const int order = strcmp(one->name, other->name);
    return order != 0 ? order : (one->index > other->index) - (one->index < other->index);
}

/* Each limit of ours has a name of its own. */
static void read_check_names(struct reader *r) {
    const struct rules *rules = r->rules;
    const struct rules_limit **sorted = reader_take(r, (rules->n_limits + 1) * sizeof(struct rules_limit *));
    size_t n = 0;
    for (size_t i = 0; !r->failed && i < rules->n_limits; i++)
        if (!rules->limits[i].of_domain) sorted[n++] = &rules->limits[i];
    if (!r->failed) qsort(sorted, n, sizeof(struct rules_limit *), read_compare_names);
    for (size_t i = 1; !r->failed && i < n; i++) {
        const struct rules_limit *one = sorted[i - 1], *other = sorted[i];
        const yaml_node_t at = {.start_mark = {.line = (size_t)other->line - 1, .column = other->column - 1}};
        if (strcmp(one->name, other->name) == 0)
            reader_fail(r, &at, "the name %s is that of the limit in line %d, too; each limit needs its own", one->name,
                        one->line);
    }
}

/* What rules_match looks at. */
static void read_index(struct reader *r) {
    struct rules *rules = r->rules;
    read_check_names(r);
    rules->of_requests = reader_take(r, (rules->n_limits + 1) * sizeof *rules->of_requests);
    rules->of_descriptors = reader_take(r, (rules->n_limits + 1) * sizeof *rules->of_descriptors);
    for (size_t i = 0; !r->failed && i < rules->n_limits; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        struct rules_candidate candidate = {.limit = limit};
        if (limit->of_domain) continue;
        for (size_t k = 0; k < limit->match.n; k++)
            if (limit->match.all[k].kind == RULES_KEY_PATH)
                pattern_path_begins(limit->match.all[k].values, limit->match.all[k].n_values, &candidate.begins,
                                    &candidate.mask);
        if (limit->by_descriptor)
            rules->of_descriptors[rules->n_of_descriptors++] = candidate;
        else
            rules->of_requests[rules->n_of_requests++] = candidate;
    }
}

struct rules *rules_read_noting(const char *path, struct rules_includes *includes, struct rules_error *error) {
    struct rules *rules = read_rules_new(error);
    struct reader reader = {.rules = rules, .error = error, .includes = includes};
    if (rules == NULL) return NULL;
    reader.file = reader_copy(&reader, path, strlen(path));
    if (reader.file != NULL) read_file(&reader, NULL);
    if (!reader.failed) read_index(&reader);
    if (!reader.failed) return rules;
    rules_free(rules);
    return NULL;
}

struct rules *rules_read(const char *path, struct rules_error *error) {
    return rules_read_noting(path, NULL, error);
}

void rules_includes_free(struct rules_includes *includes) {
    for (size_t i = 0; i < includes->n; i++)
        free(includes->patterns[i]);
    free(includes->patterns);
    *includes = (struct rules_includes){.patterns = NULL};
}

struct rules *rules_read_text(const char *name, const char *bytes, size_t len, struct rules_error *error) {
    struct rules *rules = read_rules_new(error);
    struct reader reader = {.rules = rules, .error = error, .in_memory = true};
    if (rules == NULL) return NULL;
    reader.file = reader_copy(&reader, name, strlen(name));
    if (reader.file != NULL) read_bytes(&reader, bytes, len, NULL);
    if (!reader.failed) read_index(&reader);
    if (!reader.failed) return rules;
    rules_free(rules);
    return NULL;
}

struct rules *rules_of_limit(const char *rate, const char *store, struct rules_error *error) {
    static const struct rules_key by_ip = {.kind = RULES_KEY_IP, .prefix = 64};
    struct rules *rules = read_rules_new(error);
    struct rules_limit limit = {.name = "default",
                                .stored_name = "default",
                                .file = "--limit",
                                .line = 1,
                                .keys = &by_ip,
                                .n_keys = 1,
                                .amount = 1};
    steady_limit parsed = {.name = "default"};
    steady_message why;
    if (rules == NULL) return NULL;
    struct reader reader = {.rules = rules, .error = error, .file = "--limit"};
    if (steady_limit_parse(&parsed, rate, &why) != 0 || steady_limit_check(&parsed, &why) != 0)
        reader_fail(&reader, NULL, "%s", why.text);
    reader_append(&reader, &limit.rates, &limit.n_rates, &parsed, sizeof parsed);
    reader_append(&reader, &rules->limits, &rules->n_limits, &limit, sizeof limit);
    if (store != NULL) rules->store = reader_copy(&reader, store, strlen(store));
    if (!reader.failed) read_index(&reader);
    if (!reader.failed) return rules;
    rules_free(rules);
    return NULL;
}

void rules_free(struct rules *rules) {
    if (rules == NULL) return;
    memory_free(rules->memory);
    free(rules);
}
