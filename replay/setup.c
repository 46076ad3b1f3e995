/* SPDX-License-Identifier: MIT
 * The rules of a replay. */
#include "setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rules/memory.h"

enum { SETUP_TEXT_MAX = 4096, SETUP_PARTS_MAX = 16 };

/* Without a limit, this one denies next to nothing; its verdicts are not shown. */
static const char setup_no_rate[] = "1000000/s";

/* ---- Fields ---- */

static bool setup_add(struct setup_fields *fields, const char *name) {
    for (size_t i = 0; i < fields->n; i++)
        if (strcasecmp(fields->names[i], name) == 0) return true;
    const char **names = realloc(fields->names, (fields->n + 1) * sizeof *names);
    if (names == NULL) return false;
    fields->names = names;
    names[fields->n++] = name;
    return true;
}

/* ---- Keys ---- */

static bool setup_begins(struct rules_text text, const char *with) {
    return text.len >= strlen(with) && memcmp(text.bytes, with, strlen(with)) == 0;
}

/* Whether it is a part of a key in a rules file. Otherwise it has to be a field of the log. */
static bool setup_is_known(struct rules_text part) {
    static const char *const whole[] = {"ip", "path", "host", "method"};
    static const char *const begins[] = {"ip/", "header:", "cookie:", "query:", "descriptor:"};
    if (setup_begins(part, "hash:")) part = (struct rules_text){part.bytes + 5, part.len - 5};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (part.len == strlen(whole[i]) && setup_begins(part, whole[i])) return true;
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++)
        if (setup_begins(part, begins[i])) return true;
    return false;
}

/* A key of the rules file in which headers stand for fields of the log. */
struct setup_key {
    char text[SETUP_TEXT_MAX];
    size_t len;
    struct rules_text fields[SETUP_PARTS_MAX]; /* empty: the part is as it was */
    size_t n;
    bool has_field;
};

static bool setup_read_key(struct setup_key *key, const char *text) {
    for (const char *at = text; key->n < SETUP_PARTS_MAX; at++) {
        const size_t len = strcspn(at, "+");
        const struct rules_text part = {at, len};
        const bool known = setup_is_known(part);
        const bool hashed = !known && setup_begins(part, "hash:");
        if (!known) key->fields[key->n] = (struct rules_text){at + (hashed ? 5 : 0), len - (hashed ? 5 : 0)};
        if (!known && key->fields[key->n].len == 0) return false;
        key->has_field = key->has_field || !known;
        key->n++;
        key->len +=
            (size_t)snprintf(key->text + key->len, sizeof key->text - key->len, "%s%s%.*s", at > text ? "+" : "",
                             known    ? ""
                             : hashed ? "hash:header:x-field"
                                      : "header:x-field",
                             known ? (int)len : 0, at);
        if (key->len >= sizeof key->text) return false;
        at += len;
        if (*at == '\0') return true;
    }
    return false;
}

/* As a string of YAML. */
static void setup_quote(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text != '\0' && n + 3 < size; text++) {
        if (*text == '"' || *text == '\\') out[n++] = '\\';
        out[n++] = *text;
    }
    out[n] = '\0';
}

/* The name of a field: a dot, and its path. A variable of a format string keeps its own mark. */
static const char *setup_field(struct rules *rules, struct rules_text field) {
    char name[SETUP_TEXT_MAX + 1];
    const bool marked = strchr(".$%", field.bytes[0]) != NULL;
    const int len = snprintf(name, sizeof name, "%s%.*s", marked ? "" : ".", (int)field.len, field.bytes);
    return memory_copy(rules->memory, name, (size_t)len);
}

struct rules *setup_rules(const char *rate, const char *key, struct setup_fields *bare, struct rules_error *error) {
    struct setup_key read = {.len = 0};
    char yaml[3 * SETUP_TEXT_MAX], quoted[SETUP_TEXT_MAX + 2];
    steady_limit limit = {0};
    steady_message why;
    if (key == NULL) key = "ip";
    if (rate != NULL && (steady_limit_parse(&limit, rate, &why) != 0 || steady_limit_check(&limit, &why) != 0)) {
        snprintf(error->text, sizeof error->text, "--limit: %s", why.text);
        return NULL;
    }
    if (!setup_read_key(&read, key)) {
        snprintf(error->text, sizeof error->text,
                 "--key: use parts such as ip, path, header:NAME or a field of the log");
        return NULL;
    }
    setup_quote(quoted, sizeof quoted, read.text);
    snprintf(yaml, sizeof yaml, "limits: [{name: default, key: \"%s\", missing: %s, rate: \"%s\"}]", quoted,
             read.has_field ? "skip" : "ip", rate != NULL ? rate : setup_no_rate);
    struct rules *rules = rules_read_text("--key", yaml, strlen(yaml), error);
    if (rules == NULL) return NULL;
    const struct rules_limit *made = &rules->limits[0];
    if (rate == NULL) made->rates[0].max_capacity = INT32_MAX;
    for (size_t i = 0; i < made->n_keys; i++) {
        if (read.fields[i].len == 0) continue;
        const char *name = setup_field(rules, read.fields[i]);
        if (name == NULL || (read.fields[i].bytes[0] != '.' && !setup_add(bare, name))) {
            rules_free(rules);
            snprintf(error->text, sizeof error->text, "out of memory");
            return NULL;
        }
        ((struct rules_key *)made->keys)[i].name = name; /* these rules are not shared yet */
    }
    return rules;
}

/* ---- What the rules look at ---- */

static bool setup_add_kind(struct setup_fields *fields, enum rules_key_kind kind, const char *name) {
    if (kind == RULES_KEY_HEADER) return setup_add(fields, name);
    return kind != RULES_KEY_COOKIE || setup_add(fields, "cookie");
}

static bool setup_add_conditions(struct setup_fields *fields, const struct rules_condition *conditions, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!setup_add_kind(fields, conditions[i].kind, conditions[i].name)) return false;
    return true;
}

bool setup_add_fields(struct setup_fields *fields, const struct rules *rules) {
    bool done = setup_add_conditions(fields, rules->exempt, rules->n_exempt);
    for (size_t i = 0; i < rules->n_limits && done; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        for (size_t k = 0; k < limit->n_keys && done; k++)
            done = setup_add_kind(fields, limit->keys[k].kind, limit->keys[k].name);
        done = done && setup_add_conditions(fields, limit->match.all, limit->match.n) &&
               setup_add_conditions(fields, limit->exempt, limit->n_exempt) &&
               (limit->n_tiers == 0 || setup_add(fields, limit->tier_header)) &&
               (limit->cost != RULES_COST_HEADER || setup_add(fields, limit->cost_header));
    }
    return done && (rules->n_trusted == 0 || setup_add(fields, "x-forwarded-for"));
}
