/* SPDX-License-Identifier: MIT
 * Which limits count for a request, and why, as a document. */
#include "explain.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "buffer.h"

/* ---- The request ---- */

static bool explain_fail(struct explain *explain, const char *what, const char *value) {
    char quoted[200] = "";
    if (value != NULL) steady_quote(quoted, sizeof quoted, value);
    snprintf(explain->why, sizeof explain->why, value != NULL ? "%s: \"%s\"" : "%s", what, quoted);
    return false;
}

static struct rules_text explain_value(const json_t *value) {
    return (struct rules_text){json_string_value(value), json_string_length(value)};
}

/* A, a separator, B. The blanks before B do not count. */
static bool explain_split(struct rules_field *field, const json_t *value, char separator) {
    const struct rules_text text = explain_value(value);
    const char *at = text.len > 0 ? memchr(text.bytes, separator, text.len) : NULL;
    if (at == NULL || at == text.bytes) return false;
    field->name = (struct rules_text){text.bytes, (size_t)(at - text.bytes)};
    for (at++; at < text.bytes + text.len && *at == ' ';)
        at++;
    field->value = (struct rules_text){at, (size_t)(text.bytes + text.len - at)};
    return true;
}

static bool explain_read_fields(struct explain *explain, const json_t *list, char separator, const char *what,
                                struct rules_field fields[EXPLAIN_FIELDS_MOST], size_t *n) {
    const json_t *value;
    size_t i;
    if (list != NULL && !json_is_array(list)) return explain_fail(explain, what, NULL);
    if (json_array_size(list) > EXPLAIN_FIELDS_MOST)
        return explain_fail(explain, "there are more than 100 of them", NULL);
    json_array_foreach((json_t *)list, i, value) {
        if (!json_is_string(value) || !explain_split(&fields[(*n)++], value, separator))
            return explain_fail(explain, what, json_string_value(value));
    }
    return true;
}

static bool explain_is(const struct rules_field *field, const char *name) {
    return field->name.len == strlen(name) && strncasecmp(field->name.bytes, name, field->name.len) == 0;
}

static bool explain_read_headers(struct explain *explain, const json_t *list) {
    struct rules_request *request = &explain->request;
    if (!explain_read_fields(explain, list, ':', "a header is 'NAME: VALUE'", explain->fields, &request->n_fields))
        return false;
    for (size_t i = 0; i < request->n_fields; i++)
        if (explain_is(&explain->fields[i], "host")) request->host = explain->fields[i].value;
    return true;
}

bool explain_read(struct explain *explain, const json_t *document) {
    static const char *const texts[] = {"request", "host", "ip", "domain"};
    struct rules_request *request = &explain->request;
    struct rules_field line;
    const char *name;
    json_t *value;
    *explain = (struct explain){.request = {.fields = explain->fields, .entries = explain->entries}};
    if (!json_is_object(document)) return explain_fail(explain, "the request must be a JSON object", NULL);
    json_object_foreach((json_t *)document, name, value) {
        size_t i = 0;
        while (i < 4 && strcmp(texts[i], name) != 0)
            i++;
        if (i == 4 && strcmp(name, "headers") != 0 && strcmp(name, "entries") != 0)
            return explain_fail(explain, "a request has no such member", name);
        if (i < 4 && !json_is_string(value)) return explain_fail(explain, "the value must be a string, of", name);
    }
    if (!explain_read_headers(explain, json_object_get(document, "headers")) ||
        !explain_read_fields(explain, json_object_get(document, "entries"), '=', "an entry is KEY=VALUE",
                             explain->entries, &request->n_entries))
        return false;
    request->domain = explain_value(json_object_get(document, "domain"));
    if (request->domain.len > 0 && request->n_entries == 0)
        return explain_fail(explain, "a domain of Envoy needs entries, such as --entry user=u", NULL);
    value = json_object_get(document, "request");
    if (value != NULL && !explain_split(&line, value, ' '))
        return explain_fail(explain, "a request is METHOD TARGET, such as POST /login", json_string_value(value));
    if (value != NULL) {
        request->method = line.name;
        request->target = line.value;
    }
    value = json_object_get(document, "host");
    if (value != NULL) request->host = explain_value(value);
    value = json_object_get(document, "ip");
    explain->has_peer = value != NULL;
    if (value != NULL && !steady__address_parse(&explain->peer, json_string_value(value), json_string_length(value)))
        return explain_fail(explain, "this is no address", json_string_value(value));
    if (request->target.len == 0 && request->n_entries == 0 && json_object_size(document) > 0)
        return explain_fail(explain, "a request is missing, such as --request 'GET /'", NULL);
    return true;
}

/* ---- The document ---- */

/* Bytes that are not UTF-8 become U+FFFD. */
static json_t *explain_json(const char *bytes, size_t len) {
    struct buffer text = {0};
    buffer_add_json(&text, bytes, len);
    json_t *json = text.lost ? NULL : json_loadb(text.bytes, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    buffer_free(&text);
    return json;
}

static json_t *explain_string(const char *text) { return explain_json(text, strlen(text)); }

json_t *explain_seconds(steady_us us) {
    if (us < 0) return json_null();
    return us % STEADY_SECOND == 0 ? json_integer(us / STEADY_SECOND) : json_real((double)us / 1e6);
}

static json_t *explain_address(const struct steady__address *address) {
    static const uint8_t v4[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char text[INET6_ADDRSTRLEN] = "";
    const bool is_v4 = memcmp(address->bytes, v4, sizeof v4) == 0;
    inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? address->bytes + 12 : address->bytes, text, sizeof text);
    return json_string(text);
}

/* The client, as the daemon finds it: `ip` is the peer. */
static json_t *explain_client(struct explain *explain, const struct rules *rules) {
    struct rules_request *request = &explain->request;
    const struct steady__address *peer = explain->has_peer ? &explain->peer : NULL;
    bool forwarded = false;
    for (size_t i = 0; i < request->n_fields; i++)
        forwarded = forwarded || explain_is(&explain->fields[i], "x-forwarded-for");
    const bool known = rules_client_address(&explain->client, rules, peer, request->fields, request->n_fields);
    const bool is_peer = known && peer != NULL && memcmp(peer, &explain->client, sizeof *peer) == 0;
    request->ip = known ? &explain->client : NULL;
    return json_pack("{s:o, s:s?, s:o, s:b, s:b}", "address", known ? explain_address(&explain->client) : json_null(),
                     "from",
                     !known    ? NULL
                     : is_peer ? "ip"
                               : "x-forwarded-for",
                     "peer", peer != NULL ? explain_address(peer) : json_null(), "peer_is_trusted",
                     peer == NULL || rules_is_trusted(rules, peer), "is_forwarded", forwarded);
}

static json_t *explain_rate(const steady_limit *limit) {
    return json_pack("{s:I, s:o, s:I, s:o}", "drops", (json_int_t)(limit->drops > 0 ? limit->drops : 1), "seconds",
                     explain_seconds(limit->drop_recharge), "burst", (json_int_t)limit->max_capacity, "block",
                     explain_seconds(limit->block_duration));
}

static json_t *explain_limit(const struct rules_limit *limit) {
    return json_pack("{s:o, s:o, s:i}", "name", explain_string(limit->name), "file", explain_string(limit->file),
                     "line", limit->line);
}

static const char *explain_tier(const struct rules_part *part) {
    for (size_t i = 0; part->rate > 0 && i < part->limit->n_tiers; i++)
        if (part->limit->tiers[i].rate == part->rate) return part->limit->tiers[i].value;
    return NULL;
}

static json_t *explain_part(const struct rules *rules, const struct rules_match *match, const struct rules_part *part) {
    static const char *const kinds[] = {"take", "look", "charge", "shadow"};
    const struct rules_text key = {match->keys + part->key_at, part->key_len};
    const char *tier = explain_tier(part);
    char stored[RULES_KEY_MAX];
    const size_t len = rules_stored_key(stored, rules, part->limit, key);
    json_t *made = explain_limit(part->limit);
    json_object_set_new(made, "rate", explain_rate(&part->limit->rates[part->rate]));
    json_object_set_new(made, "tier", tier != NULL ? explain_string(tier) : json_null());
    json_object_set_new(made, "kind", json_string(kinds[part->kind]));
    json_object_set_new(made, "cost", json_integer(part->amount));
    json_object_set_new(made, "key", explain_json(key.bytes, key.len));
    json_object_set_new(made, "stored", explain_json(stored, len));
    json_object_set_new(made, "key_is_missing", json_boolean(key.len > 0 && key.bytes[0] == '+'));
    return made;
}

/* ---- Why other limits do not count ---- */

static void explain_add_condition(struct buffer *out, const struct rules_condition *condition) {
    static const char *const kinds[] = {"ip", "header ", "cookie ", "query ", "path", "host", "method", "descriptor "};
    buffer_add_format(out, "%s%s is not ", kinds[condition->kind], condition->name != NULL ? condition->name : "");
    if (condition->kind == RULES_KEY_IP) buffer_add_text(out, "in its networks");
    for (size_t i = 0; i < condition->n_values; i++)
        buffer_add_format(out, "%s%s", i > 0 ? " or " : "", condition->values[i]);
}

static json_t *explain_why_not(const struct explain *explain, struct rules_match *match,
                               const struct rules_limit *limit) {
    struct buffer why = {0};
    if (limit->by_descriptor != (explain->request.n_entries > 0))
        return json_string(limit->by_descriptor ? "it counts for descriptors of Envoy only: --domain and --entry"
                                                : "it does not count for descriptors of Envoy");
    const struct rules_condition *condition = rules_mismatch(match, limit, &explain->request);
    if (condition == NULL) return json_string("the request is exempt, or has no key");
    explain_add_condition(&why, condition);
    json_t *text = why.lost ? NULL : explain_json(why.bytes, why.len);
    buffer_free(&why);
    return text;
}

static json_t *explain_others(const struct explain *explain, const struct rules *rules, struct rules_match *match) {
    json_t *others = json_array();
    for (size_t i = 0; i < rules->n_limits && !match->exempt; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        bool counts = limit->of_domain;
        for (size_t k = 0; k < match->n_parts; k++)
            counts = counts || match->parts[k].limit == limit;
        if (counts) continue;
        json_t *other = explain_limit(limit);
        json_object_set_new(other, "why", explain_why_not(explain, match, limit));
        json_array_append_new(others, other);
    }
    return others;
}

/* ---- The match ---- */

/* The limit of a descriptor of envoyproxy/ratelimit is one more part. False: there is no room. */
static bool explain_add_descriptor(const struct explain *explain, const struct rules *rules, struct rules_match *match,
                                   const struct rules_descriptor *found) {
    if (match->n_parts == RULES_PARTS_MAX) return false;
    struct rules_part *part = &match->parts[match->n_parts++];
    char key[RULES_KEY_MAX];
    *part = (struct rules_part){.limit = found->limit,
                                .amount = 1,
                                .kind = found->limit->shadow ? STEADY_SHADOW : STEADY_TAKE,
                                .key_at = match->keys_len,
                                .key_len = rules_descriptor_key(key, rules, &explain->request)};
    memcpy(match->keys + part->key_at, key, part->key_len);
    match->keys_len += part->key_len;
    return true;
}

/* A descriptor without a bucket: it is unlimited, or always denied. */
static json_t *explain_descriptor(const struct rules_descriptor *found) {
    json_t *made = found->limit != NULL ? explain_limit(found->limit) : json_pack("{s:i}", "line", found->line);
    json_object_set_new(made, found->unlimited ? "unlimited" : "never", json_true());
    return made;
}

json_t *explain_match(struct explain *explain, const struct rules *rules, struct rules_match *match) {
    const bool by_descriptor = explain->request.n_entries > 0;
    json_t *client = explain_client(explain, rules), *limits = json_array();
    const struct rules_descriptor *found = by_descriptor ? rules_find_descriptor(rules, &explain->request) : NULL;
    bool refused = rules_match(match, rules, &explain->request) == RULES_REFUSED;
    if (!refused && found != NULL && !found->unlimited && !found->never &&
        !explain_add_descriptor(explain, rules, match, found)) {
        refused = true;
        snprintf(match->reason.text, sizeof match->reason.text, "more than %d limits", RULES_PARTS_MAX);
    }
    for (size_t i = 0; i < match->n_parts && !refused; i++) {
        /* A request of Envoy has its cost. */
        if (by_descriptor && match->parts[i].limit->cost == RULES_COST_AFTER) match->parts[i].kind = STEADY_CHARGE;
        json_array_append_new(limits, explain_part(rules, match, &match->parts[i]));
    }
    if (!refused && found != NULL && (found->unlimited || found->never))
        json_array_append_new(limits, explain_descriptor(found));
    const char *outcome = refused                       ? "refused"
                          : match->exempt               ? "exempt"
                          : json_array_size(limits) > 0 ? "limits"
                                                        : "no limit";
    return json_pack("{s:s, s:o, s:b, s:o, s:o, s:o}", "outcome", outcome, "reason",
                     refused ? explain_string(match->reason.text) : json_null(), "envoy", by_descriptor, "client",
                     client, "limits", limits, "others",
                     refused ? json_array() : explain_others(explain, rules, match));
}

/* ---- What the store says ---- */

/* "3.2 s", rounded up. */
static void explain_add_seconds(struct buffer *out, steady_us us) {
    const steady_us unit = us < 10000 ? 1 : us < 10 * STEADY_SECOND ? 1000 : 100000;
    buffer_add_seconds(out, (us + unit - 1) / unit * unit);
    buffer_add_text(out, " s");
}

void explain_request(steady_part_result *after, const steady_part_result *before, const struct question_part *part,
                     bool allowed, steady_us max_wait) {
    const steady_us block = part->limit->block_duration;
    const bool fits_ever = before->retry_after >= 0, writes = part->kind != STEADY_LOOK;
    *after = *before;
    if (allowed && before->success && writes) after->level += part->amount;
    if (before->success || !writes || !fits_ever || block == 0 || before->blocked_for > 0 || max_wait > 0) return;
    after->blocked_for = block;
    if (block > after->retry_after) after->retry_after = block;
}

/* A limit of a question. `allowed`: all limits allow the request. */
struct state {
    const struct question_part *part;
    const steady_part_result *before, *after;
    bool allowed;
};

/* The time in which all drops leak, after the request. */
static steady_us explain_empty_in(const struct state *state) {
    const steady_limit *limit = state->part->limit;
    const int64_t drops = limit->drops > 0 ? limit->drops : 1, level = state->after->level;
    const bool leaks = state->before->level > 0; /* otherwise the first drop begins now */
    if (level <= 0) return 0;
    return (leaks ? state->before->until_next_drop : 0) +
           ((level - (leaks ? 1 : 0)) * limit->drop_recharge + drops - 1) / drops;
}

static void explain_add_level(struct buffer *out, const struct state *state) {
    const enum steady_kind kind = state->part->kind;
    const long long capacity = state->part->limit->max_capacity, level = state->before->level;
    const long long cost = state->part->amount, remain = capacity - level - cost;
    if (!state->before->success) {
        buffer_add_format(out, "level %lld + %lld > %lld: %s", level, cost, capacity,
                          kind == STEADY_SHADOW ? "it would deny" : "denied");
        if (state->after->blocked_for > 0) buffer_add_text(out, ", and a block starts");
    } else if (kind == STEADY_CHARGE) {
        buffer_add_format(out, "level %lld of %lld, %lld charged whatever the level", level, capacity, cost);
    } else if (remain < 0) {
        buffer_add_format(out, "level %lld + %lld > %lld: it waits in line", level, cost, capacity);
    } else {
        buffer_add_format(out, "level %lld of %lld, %lld more fit%s", level, capacity, cost, cost == 1 ? "s" : "");
        if (kind == STEADY_LOOK)
            buffer_add_text(out, ", and the cost comes after");
        else if (!state->allowed)
            buffer_add_text(out, ", but another limit denies");
        else
            buffer_add_format(out, ": %lld remain%s", remain, remain == 1 ? "s" : "");
    }
}

static void explain_add_leak(struct buffer *out, const struct state *state) {
    const steady_limit *limit = state->part->limit;
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    buffer_add_text(out, "; one drop leaks each ");
    explain_add_seconds(out, (limit->drop_recharge + drops - 1) / drops);
    if (state->before->level > 0) {
        buffer_add_text(out, ", the next in ");
        explain_add_seconds(out, state->before->until_next_drop);
    }
}

static json_t *explain_says(const struct state *state, steady_us empty_in) {
    const steady_part_result *before = state->before;
    struct buffer out = {0};
    if (before->blocked_for > 0) {
        buffer_add_text(&out, "the key is blocked");
    } else if (before->retry_after < 0) {
        buffer_add_format(&out, "a cost of %lld never fits into %lld", (long long)state->part->amount,
                          (long long)state->part->limit->max_capacity);
    } else {
        explain_add_level(&out, state);
        explain_add_leak(&out, state);
    }
    if (!before->success && before->retry_after >= 0) {
        buffer_add_text(&out, ": retry after ");
        explain_add_seconds(&out, state->after->retry_after);
    } else if (before->success && empty_in > 0) {
        buffer_add_text(&out, ": empty in ");
        explain_add_seconds(&out, empty_in);
    }
    json_t *says = out.lost ? NULL : json_stringn(out.bytes, out.len);
    buffer_free(&out);
    return says;
}

void explain_add_state(json_t *to, const struct question_part *part, const steady_part_result *before,
                       const steady_part_result *after, bool allowed) {
    const struct state state = {part, before, after, allowed};
    const int64_t room = part->limit->max_capacity - after->level;
    const steady_us empty_in = explain_empty_in(&state);
    json_object_set_new(to, "allowed", json_boolean(before->success));
    json_object_set_new(to, "level", json_integer(before->level));
    json_object_set_new(to, "remaining", json_integer(room > 0 && after->blocked_for == 0 ? room : 0));
    json_object_set_new(to, "until_next_drop", explain_seconds(before->level > 0 ? before->until_next_drop : 0));
    json_object_set_new(to, "blocked_for", explain_seconds(before->blocked_for));
    json_object_set_new(to, "retry_after", explain_seconds(before->success ? 0 : after->retry_after));
    json_object_set_new(to, "empty_in", explain_seconds(empty_in));
    json_object_set_new(to, "says", explain_says(&state, empty_in));
}
