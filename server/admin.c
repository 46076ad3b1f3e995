/* SPDX-License-Identifier: MIT
 * The admin socket. A Unix socket is protected by its mode, 0600. A TCP address must be loopback, and each request
 * needs the token that is logged at the start: another user of the host, or a page in a browser, does not have it.
 *
 *     GET  /                   the dashboard; it has no data of its own, so it needs no token
 *     GET  /admin/state        rules, counters, store
 *     GET  /admin/top          keys with the most denied and allowed decisions of the last 5 to 10 minutes
 *     GET  /admin/history      requests a second by verdict, in the last 5 minutes
 *     POST /admin/reload
 *     POST /admin/explain      {"request": "METHOD TARGET", ...}: what it would be answered, and why; see explain.h
 *     POST /admin/reset        {"limit": NAME, "key": KEY}: empties the bucket
 *     POST /admin/ban          {"limit": NAME, "key": KEY, "for": SECONDS}: blocks the key
 *     POST /admin/unban        the same as reset
 *
 * An empty NAME: KEY is the whole key of the bucket, as it is stored. */
#include "admin.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin_page.h"
#include "api.h"
#include "reload.h"
#include "top.h"
#include "worker.h"

enum { TOP_SHOWN = 20, LIMITS_SHOWN = 200, WARNINGS_SHOWN = 20 };

/* A name other than localhost could lead anywhere. */
static bool admin_is_loopback(const char *where) {
    struct steady__network v4, v6;
    struct steady__address address;
    if (strncmp(where, "localhost:", 10) == 0) return true;
    return steady__address_parse(&address, where, strlen(where)) && steady__network_parse(&v4, "127.0.0.0/8") &&
           steady__network_parse(&v6, "::1") &&
           (steady__network_has(&v4, &address) || steady__network_has(&v6, &address));
}

const char *admin_open(struct server *server) {
    const char *where = server->options.admin;
    unsigned char token[16];
    const bool path = strncmp(where, "unix:", 5) == 0;
    if (!path && !admin_is_loopback(where))
        return "the admin address must be unix:/path, or a loopback address with a port";
    const char *why = worker_listen(&server->workers[0], where, -1, true);
    if (why != NULL) return why;
    atomic_store(&server->has_admin, true);
    if (path) {
        server_log("admin at %s", where);
        return NULL;
    }
    randombytes_buf(token, sizeof token);
    sodium_bin2hex(server->admin_token, sizeof server->admin_token, token, sizeof token);
    server_log("dashboard: http://%.*s:%d/#token=%s", (int)(strrchr(where, ':') - where), where,
               worker_admin_port(&server->workers[0]), server->admin_token);
    return NULL;
}

static bool admin_may(const struct server *server, const struct http_request *request) {
    static const char scheme[] = "Bearer ";
    struct rules_text value = {0};
    const size_t len = strlen(server->admin_token);
    if (len == 0) return true;
    return http_field(request, "authorization", &value) == 1 && value.len == sizeof scheme - 1 + len &&
           memcmp(value.bytes, scheme, sizeof scheme - 1) == 0 &&
           sodium_memcmp(value.bytes + sizeof scheme - 1, server->admin_token, len) == 0;
}

/* ---- State ---- */

static void admin_respond_json(struct exchange *exchange, struct buffer *body) {
    if (body->lost)
        http_respond_problem(exchange, 503, "out of memory");
    else
        http_respond_body(exchange, 200, "application/json", (struct rules_text){body->bytes, body->len});
    buffer_free(body);
}

static void admin_add_text(struct buffer *out, const char *name, const char *value) {
    buffer_add_format(out, "\"%s\": ", name);
    buffer_add_json(out, value, strlen(value));
}

/* "5/min" if the rate is a whole number in a second, a minute, an hour or a day. */
static void admin_add_rate(struct buffer *out, const steady_limit *limit) {
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"day", 86400}};
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    buffer_add_text(out, "\"rate\": \"");
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        const int64_t period = units[i].seconds * STEADY_SECOND;
        if (drops > INT64_MAX / period || drops * period % limit->drop_recharge != 0) continue;
        buffer_add_format(out, "%lld/%s\"", (long long)(drops * period / limit->drop_recharge), units[i].name);
        return;
    }
    buffer_add_format(out, "%lld/", (long long)drops);
    buffer_add_seconds(out, limit->drop_recharge);
    buffer_add_text(out, "s\"");
}

static const struct limit_sum *admin_sum_of(const struct limit_sums *sums, const char *name) {
    static const struct limit_sum none;
    for (size_t i = 0; i < sums->n; i++)
        if (strcmp(sums->all[i].name, name) == 0) return &sums->all[i];
    return &none;
}

static void admin_add_counts(struct buffer *out, const struct limit_sum *sum) {
    buffer_add_format(
        out, "\"allowed\": %llu, \"denied\": %llu, \"shadow_denied\": %llu, \"none\": %llu, \"near_limit\": %llu}",
        (unsigned long long)sum->allowed, (unsigned long long)sum->denied, (unsigned long long)sum->shadow_denied,
        (unsigned long long)sum->no_verdict, (unsigned long long)sum->near_limit);
}

/* Limits of the rules, and at the end those that came with requests, as one without a name. */
static void admin_add_limits(struct buffer *out, struct server *server, const struct rules *rules) {
    struct limit_sums sums = {0};
    metrics_sum_limits(&sums, server);
    for (size_t i = 0; i < rules->n_limits && i < LIMITS_SHOWN; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        buffer_add_text(out, "{");
        admin_add_text(out, "name", limit->name);
        buffer_add_text(out, ", ");
        admin_add_text(out, "file", limit->file);
        buffer_add_format(out, ", \"line\": %d, \"shadow\": %s, \"burst\": %lld, \"tiers\": %zu, ", limit->line,
                          limit->shadow ? "true" : "false", (long long)limit->rates[0].max_capacity, limit->n_tiers);
        admin_add_rate(out, &limit->rates[0]);
        buffer_add_text(out, ", \"block\": ");
        buffer_add_seconds(out, limit->rates[0].block_duration);
        buffer_add_text(out, ", ");
        admin_add_counts(out, admin_sum_of(&sums, limit->name));
        buffer_add_text(out, ", ");
    }
    buffer_add_text(out, "{\"name\": \"\", ");
    admin_add_counts(out, admin_sum_of(&sums, ""));
    free(sums.all);
}

static void admin_add_store(struct buffer *out, const struct worker *worker) {
    static const char *const states[] = {"connecting", "ready", "down"};
    struct server *server = worker->server;
    steady_message last;
    char url[300];
    int ready;
    const int n = metrics_stores(server, &ready);
    steady_quote(url, sizeof url, server->options.store != NULL ? server->options.store : worker->set->rules->store);
    steady_store_last_error(worker->store, &last);
    buffer_add_text(out, "\"store\": {");
    admin_add_text(out, "url", url);
    buffer_add_format(out, ", \"state\": \"%s\", \"ready\": %d, \"of\": %d, ",
                      ready == n ? "ready" : states[steady_store_state(worker->store)], ready, n);
    admin_add_text(out, "last_error", last.text);
    buffer_add_text(out, "}");
}

static void admin_add_rules(struct buffer *out, const struct server *server, const struct rules *rules) {
    buffer_add_format(out, "\"rules\": {\"loaded\": %lld, \"failed\": %llu, ",
                      (long long)atomic_load(&server->loaded_at), (unsigned long long)server->loads_failed);
    admin_add_text(out, "file", server->options.config != NULL ? server->options.config : "--limit");
    buffer_add_text(out, ", ");
    admin_add_text(out, "error", server->load_error.text);
    buffer_add_format(out, ", \"limits\": %zu, \"warnings\": [", rules->n_limits);
    for (size_t i = 0; i < rules->n_warnings && i < WARNINGS_SHOWN; i++) {
        if (i > 0) buffer_add_text(out, ", ");
        buffer_add_json(out, rules->warnings[i], strlen(rules->warnings[i]));
    }
    buffer_add_text(out, "]}");
}

static void admin_state(struct exchange *exchange, const struct http_request *request) {
    struct worker *worker = exchange->client->worker;
    struct server *server = worker->server;
    const struct rules *rules = worker->set->rules;
    struct buffer out = {0};
    (void)request;
    buffer_add_format(&out, "{\"version\": \"%s\", \"now\": %lld, \"started\": %lld, \"threads\": %d, ",
                      steady_version(), (long long)time(NULL), (long long)server->started_at, server->n_workers);
    buffer_add_format(&out, "\"connections\": {\"http\": %llu, \"http2\": %llu, \"resp\": %llu}, ",
                      (unsigned long long)metrics_connections(server, METRICS_HTTP),
                      (unsigned long long)metrics_connections(server, METRICS_GRPC),
                      (unsigned long long)metrics_connections(server, METRICS_RESP));
    buffer_add_format(&out, "\"answers\": {\"allowed\": %llu, \"denied\": %llu, \"none\": %llu}, ",
                      (unsigned long long)metrics_answers(server, METRICS_ALLOWED),
                      (unsigned long long)metrics_answers(server, METRICS_DENIED),
                      (unsigned long long)metrics_answers(server, METRICS_NONE));
    buffer_add_format(&out, "\"log_dropped\": %llu, ", (unsigned long long)metrics_log_dropped(server));
    admin_add_store(&out, worker);
    buffer_add_text(&out, ", ");
    admin_add_rules(&out, server, rules);
    buffer_add_text(&out, ", \"limits\": [");
    admin_add_limits(&out, server, rules);
    buffer_add_text(&out, "]}\n");
    admin_respond_json(exchange, &out);
}

static void admin_history(struct exchange *exchange, const struct http_request *request) {
    const struct history *history = &exchange->client->worker->server->history;
    struct buffer out = {0};
    (void)request;
    buffer_add_text(&out, "{\"allowed\": ");
    history_text(&out, history, METRICS_ALLOWED);
    buffer_add_text(&out, ", \"denied\": ");
    history_text(&out, history, METRICS_DENIED);
    buffer_add_text(&out, ", \"none\": ");
    history_text(&out, history, METRICS_NONE);
    buffer_add_text(&out, "}\n");
    admin_respond_json(exchange, &out);
}

/* ---- Top keys ---- */

/* A key that JSON cannot give back as it is cannot be reset by what is shown of it. */
static bool admin_is_whole(const struct top_entry *entry) {
    if (entry->key_len > TOP_KEY_MOST || memchr(entry->key, '\0', entry->key_len) != NULL) return false;
    json_t *text = json_stringn(entry->key, entry->key_len); /* NULL: not UTF-8 */
    json_decref(text);
    return text != NULL;
}

static void admin_add_key(struct buffer *out, const struct top_entry *entry, uint64_t count, uint64_t now_ms) {
    const struct top_bucket *bucket = &entry->bucket;
    buffer_add_text(out, "{");
    admin_add_text(out, "limit", entry->limit);
    buffer_add_text(out, ", \"key\": ");
    buffer_add_json(out, entry->key, entry->key_len < TOP_KEY_MOST ? entry->key_len : TOP_KEY_MOST);
    buffer_add_format(out, ", \"whole\": %s, \"count\": %llu, \"level\": %lld, \"capacity\": %lld, ",
                      admin_is_whole(entry) ? "true" : "false", (unsigned long long)count, (long long)bucket->level,
                      (long long)bucket->capacity);
    buffer_add_format(out, "\"drops\": %lld, \"recharge\": ", (long long)bucket->drops);
    buffer_add_seconds(out, bucket->recharge);
    buffer_add_text(out, ", \"retry_after\": ");
    if (bucket->retry_after < 0)
        buffer_add_text(out, "null"); /* never: it costs more than the capacity */
    else
        buffer_add_seconds(out, bucket->retry_after);
    buffer_add_format(out, ", \"blocked\": %s, \"ago\": ", bucket->blocked ? "true" : "false");
    buffer_add_seconds(out, now_ms > bucket->at_ms ? (int64_t)(now_ms - bucket->at_ms) * 1000 : 0);
    buffer_add_text(out, "}");
}

static void admin_add_top(struct buffer *out, struct worker *of, bool denied) {
    static struct top sum; /* of the first worker only */
    struct server *server = of->server;
    size_t sorted[TOP_ENTRIES];
    memset(&sum, 0, sizeof sum);
    for (int w = 0; w < server->n_workers; w++) {
        struct worker *worker = &server->workers[w];
        uv_mutex_lock(&worker->shown_lock);
        top_merge(&sum, denied ? &worker->denied.shown : &worker->allowed.shown);
        uv_mutex_unlock(&worker->shown_lock);
    }
    const size_t n = top_sorted(&sum, sorted);
    buffer_add_format(out, "{\"total\": %llu, \"error\": %llu, \"keys\": [", (unsigned long long)sum.total,
                      (unsigned long long)sum.error);
    for (size_t i = 0; i < n && i < TOP_SHOWN; i++) {
        if (i > 0) buffer_add_text(out, ", ");
        admin_add_key(out, &sum.entries[sorted[i]], sum.counts[sorted[i]], of->now);
    }
    buffer_add_text(out, "]}");
}

static void admin_top(struct exchange *exchange, const struct http_request *request) {
    struct worker *worker = exchange->client->worker;
    struct buffer out = {0};
    (void)request;
    buffer_add_format(
        &out, "{\"seconds\": %llu, \"denied\": ", (unsigned long long)((worker->now - worker->top_since + 999) / 1000));
    admin_add_top(&out, worker, true);
    buffer_add_text(&out, ", \"allowed\": ");
    admin_add_top(&out, worker, false);
    buffer_add_text(&out, "}\n");
    admin_respond_json(exchange, &out);
}

/* ---- Actions ---- */

static void admin_reload(struct exchange *exchange, const struct http_request *request) {
    const char *why = reload_now(exchange->client->worker->server);
    (void)request;
    if (why != NULL)
        http_respond_problem(exchange, 422, why);
    else
        http_respond_body(exchange, 200, "application/json", http_text("{\"reloaded\": true}\n"));
}

/* Adds a key as it is stored, once. False: it is too long. */
static bool admin_add_stored(struct question_keys *keys, const struct rules *rules, const struct rules_limit *limit,
                             struct rules_text key) {
    char *to = keys->bytes[keys->n];
    const size_t len = rules_stored_key(to, rules, limit, key);
    for (size_t i = 0; i < keys->n; i++)
        if (keys->len[i] == len && memcmp(keys->bytes[i], to, len) == 0) return true;
    keys->len[keys->n] = len;
    keys->n += len > 0;
    return len > 0;
}

/* The buckets that a request names. Limits of Envoy's files may share a name: then there is one for each unit. NULL, or
 * what is wrong. */
static const char *admin_find(struct question_keys *keys, const struct rules *rules, const json_t *document) {
    static char why[200]; /* of the first worker only */
    char name[100];
    const json_t *limit = json_object_get(document, "limit"), *key = json_object_get(document, "key");
    if (!json_is_string(limit) || !json_is_string(key) || json_string_length(key) == 0)
        return "the body must be {\"limit\": NAME, \"key\": KEY}";
    const struct rules_text text = {json_string_value(key), json_string_length(key)};
    keys->n = 0;
    if (json_string_length(limit) == 0) { /* of no limit of the rules: the key as it is stored */
        if (text.len > RULES_KEY_MAX) return "the key is too long";
        memcpy(keys->bytes[0], text.bytes, text.len);
        keys->len[0] = text.len;
        keys->n = 1;
        return NULL;
    }
    for (size_t i = 0; i < rules->n_limits; i++)
        if (strcmp(rules->limits[i].name, json_string_value(limit)) == 0 &&
            !admin_add_stored(keys, rules, &rules->limits[i], text))
            return "the key is too long";
    if (keys->n > 0) return NULL;
    steady_quote(name, sizeof name, json_string_value(limit));
    snprintf(why, sizeof why, "there is no limit \"%s\"", name);
    return why;
}

static void admin_was_reset(struct exchange *exchange, const steady_result *result) {
    if (result->error == 0)
        http_respond_body(exchange, 200, "application/json", http_text("{\"reset\": true}\n"));
    else
        http_respond_problem(exchange, 503, steady_error_text(result->error));
}

static void admin_was_banned(struct exchange *exchange, const steady_result *result) {
    if (result->error != 0)
        http_respond_problem(exchange, 503, steady_error_text(result->error));
    else if (result->success)
        http_respond_problem(exchange, 503, "the key was not banned: another change came between; try again");
    else
        http_respond_body(exchange, 200, "application/json", http_text("{\"banned\": true}\n"));
}

static void admin_act(struct exchange *exchange, const struct http_request *request, bool ban) {
    static struct question_keys keys; /* of the first worker only */
    json_t *document = json_loadb(request->body.bytes, request->body.len, JSON_ALLOW_NUL, NULL);
    const char *why = admin_find(&keys, exchange->client->worker->set->rules, document);
    const double seconds = json_number_value(json_object_get(document, "for"));
    json_decref(document);
    if (why == NULL && ban && !(seconds >= 1 && seconds <= 1e9)) why = "\"for\" must be 1 to 1e9 seconds";
    if (why != NULL) {
        http_respond_problem(exchange, 400, why);
        return;
    }
    server_log("admin: a key is %s", ban ? "banned" : "reset");
    question_act(exchange, &keys, ban ? (steady_us)(seconds * 1e6) : 0, ban ? admin_was_banned : admin_was_reset);
}

static void admin_reset(struct exchange *exchange, const struct http_request *request) {
    admin_act(exchange, request, false);
}

static void admin_ban(struct exchange *exchange, const struct http_request *request) {
    admin_act(exchange, request, true);
}

/* ---- Paths ---- */

static void admin_page(struct exchange *exchange, const struct http_request *request) {
    struct http_response response = {.status = 200,
                                     .body = {(const char *)admin_page_html, sizeof admin_page_html - 1}};
    (void)request;
    http_add_field(&response, "content-type", http_text("text/html; charset=utf-8"));
    http_add_field(&response, "cache-control", http_text("no-store"));
    http_add_field(
        &response, "content-security-policy",
        http_text("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
                  "img-src data:; frame-ancestors 'none'; base-uri 'none'"));
    http_respond(exchange, &response);
}

static const struct {
    const char *path;
    bool post, open;
    void (*handle)(struct exchange *exchange, const struct http_request *request);
} routes[] = {{"/", false, true, admin_page},
              {"/admin/state", false, false, admin_state},
              {"/admin/top", false, false, admin_top},
              {"/admin/history", false, false, admin_history},
              {"/admin/reload", true, false, admin_reload},
              {"/admin/explain", true, false, admin_explain},
              {"/admin/reset", true, false, admin_reset},
              {"/admin/unban", true, false, admin_reset},
              {"/admin/ban", true, false, admin_ban}};

static bool admin_is(struct rules_text text, const char *word) {
    return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

static void admin_refuse(struct exchange *exchange) {
    http_respond_problem(exchange, 401,
                         "the token of the admin socket is missing or wrong; it is in the log of the daemon");
}

bool admin_handle(struct exchange *exchange, const struct http_request *request) {
    const bool may = admin_may(exchange->client->worker->server, request);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!admin_is(request->path, routes[i].path)) continue;
        if (!routes[i].open && !may)
            admin_refuse(exchange);
        else if (routes[i].post != admin_is(request->method, "POST"))
            http_respond_problem(exchange, 405, routes[i].post ? "use POST" : "use GET");
        else
            routes[i].handle(exchange, request);
        return true;
    }
    if (!may) admin_refuse(exchange); /* the other paths change buckets, and show names of limits */
    return !may;
}
