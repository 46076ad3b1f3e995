/* SPDX-License-Identifier: MIT
 * The admin socket. A Unix socket is protected by its mode, 0600. A TCP address must be loopback, and each request
 * needs the token that is logged at the start: another user of the host, or a page in a browser, does not have it.
 *
 *     GET  /                   the dashboard; it has no data of its own, so it needs no token
 *     GET  /admin/state        rules, counters, store
 *     GET  /admin/top          keys with the most denied and allowed decisions
 *     POST /admin/reload
 *     POST /admin/reset        {"limit": NAME, "key": KEY}: empties the bucket
 *     POST /admin/ban          {"limit": NAME, "key": KEY, "for": SECONDS}: blocks the key
 *     POST /admin/unban        the same as reset */
#include "admin.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "admin_page.h"
#include "api.h"
#include "reload.h"
#include "top.h"
#include "worker.h"

enum { TOP_SHOWN = 20 };

static bool admin_is_loopback(const char *where) {
    return strncmp(where, "127.", 4) == 0 || strncmp(where, "localhost:", 10) == 0 || strncmp(where, "[::1]:", 6) == 0;
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

static uint64_t admin_sum(struct server *server, const char *limit, size_t offset) {
    uint64_t sum = 0;
    for (int w = 0; w < server->n_workers; w++) {
        struct limit_counters *c = atomic_load_explicit(&server->workers[w].metrics.limits, memory_order_acquire);
        while (c != NULL && strcmp(c->name, limit) != 0)
            c = atomic_load_explicit(&c->next, memory_order_acquire);
        if (c != NULL) sum += metrics_get((metrics_counter *)(void *)((char *)c + offset));
    }
    return sum;
}

static void admin_add_limit(struct buffer *out, struct server *server, const char *name,
                            const struct rules_limit *limit) {
    buffer_add_text(out, "{");
    admin_add_text(out, "name", name);
    if (limit != NULL) {
        const steady_limit *rate = &limit->rates[0];
        buffer_add_text(out, ", ");
        admin_add_text(out, "file", limit->file);
        buffer_add_format(out, ", \"line\": %d, \"drops\": %lld, \"shadow\": %s, \"burst\": %lld, \"recharge\": ",
                          limit->line, (long long)(rate->drops > 0 ? rate->drops : 1), limit->shadow ? "true" : "false",
                          (long long)rate->max_capacity);
        buffer_add_seconds(out, rate->drop_recharge);
        buffer_add_text(out, ", \"block\": ");
        buffer_add_seconds(out, rate->block_duration);
    }
    buffer_add_format(out, ", \"allowed\": %llu, \"denied\": %llu, \"none\": %llu}",
                      (unsigned long long)admin_sum(server, name, offsetof(struct limit_counters, allowed)),
                      (unsigned long long)admin_sum(server, name, offsetof(struct limit_counters, denied)),
                      (unsigned long long)admin_sum(server, name, offsetof(struct limit_counters, no_verdict)));
}

static void admin_state(struct exchange *exchange, const struct http_request *request) {
    static const char *const states[] = {"connecting", "ready", "down"};
    struct worker *worker = exchange->client->worker;
    struct server *server = worker->server;
    const struct rules *rules = worker->set->rules;
    struct buffer out = {0};
    steady_message last;
    char url[300];
    (void)request;
    steady_quote(url, sizeof url, server->options.store != NULL ? server->options.store : rules->store);
    steady_store_last_error(worker->store, &last);
    buffer_add_format(&out,
                      "{\"version\": \"%s\", \"now\": %lld, \"started\": %lld, \"threads\": %d, \"connections\": %u, ",
                      steady_version(), (long long)time(NULL), (long long)server->started_at, server->n_workers,
                      atomic_load(&server->connections));
    buffer_add_text(&out, "\"store\": {");
    admin_add_text(&out, "url", url);
    buffer_add_format(&out, ", \"state\": \"%s\", ", states[steady_store_state(worker->store)]);
    admin_add_text(&out, "last_error", last.text);
    buffer_add_format(&out, "}, \"rules\": {\"loaded\": %lld, \"failed\": %llu, ", (long long)server->loaded_at,
                      (unsigned long long)server->loads_failed);
    admin_add_text(&out, "file", server->options.config != NULL ? server->options.config : "--limit");
    buffer_add_text(&out, ", ");
    admin_add_text(&out, "error", server->load_error.text);
    buffer_add_text(&out, "}, \"limits\": [");
    for (size_t i = 0; i < rules->n_limits; i++) {
        if (i > 0) buffer_add_text(&out, ", ");
        admin_add_limit(&out, server, rules->limits[i].name, &rules->limits[i]);
    }
    if (rules->n_limits > 0) buffer_add_text(&out, ", ");
    admin_add_limit(&out, server, "", NULL); /* of limits that come with a request */
    buffer_add_text(&out, "]}\n");
    admin_respond_json(exchange, &out);
}

/* ---- Top keys ---- */

static void admin_add_top(struct buffer *out, struct server *server, bool denied) {
    static struct top sum; /* of the first worker only */
    const struct top_entry *sorted[TOP_ENTRIES];
    memset(&sum, 0, sizeof sum);
    for (int w = 0; w < server->n_workers; w++) {
        struct worker *worker = &server->workers[w];
        uv_mutex_lock(&worker->shown_lock);
        top_merge(&sum, denied ? &worker->shown_denied : &worker->shown_allowed);
        uv_mutex_unlock(&worker->shown_lock);
    }
    const size_t n = top_sorted(&sum, sorted);
    buffer_add_format(out, "{\"total\": %llu, \"error\": %llu, \"keys\": [", (unsigned long long)sum.total,
                      (unsigned long long)(sum.total / (TOP_ENTRIES + 1)));
    for (size_t i = 0; i < n && i < TOP_SHOWN; i++) {
        buffer_add_text(out, i > 0 ? ", {" : "{");
        admin_add_text(out, "limit", sorted[i]->limit);
        buffer_add_text(out, ", \"key\": ");
        buffer_add_json(out, sorted[i]->key, sorted[i]->key_len);
        buffer_add_format(out, ", \"count\": %llu, \"level\": %lld, \"capacity\": %lld, \"retry_after\": ",
                          (unsigned long long)sorted[i]->count, (long long)sorted[i]->level,
                          (long long)sorted[i]->capacity);
        buffer_add_seconds(out, sorted[i]->retry_after > 0 ? sorted[i]->retry_after : 0);
        buffer_add_text(out, "}");
    }
    buffer_add_text(out, "]}");
}

static void admin_top(struct exchange *exchange, const struct http_request *request) {
    struct server *server = exchange->client->worker->server;
    struct buffer out = {0};
    (void)request;
    buffer_add_text(&out, "{\"denied\": ");
    admin_add_top(&out, server, true);
    buffer_add_text(&out, ", \"allowed\": ");
    admin_add_top(&out, server, false);
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

/* The bucket that a request names, as it is stored. NULL: *why says what is wrong. */
static const struct rules_limit *admin_find(const struct rules *rules, const json_t *document,
                                            char stored[RULES_KEY_MAX], size_t *len, const char **why) {
    const char *name = json_string_value(json_object_get(document, "limit"));
    const char *key = json_string_value(json_object_get(document, "key"));
    *why = "the body must be {\"limit\": NAME, \"key\": KEY}";
    if (name == NULL || key == NULL || *key == '\0') return NULL;
    *why = "there is no such limit";
    for (size_t i = 0; i < rules->n_limits; i++) {
        if (strcmp(rules->limits[i].name, name) != 0) continue;
        *len = rules_stored_key(stored, rules, &rules->limits[i], http_text(key));
        *why = "the key is too long";
        return *len > 0 ? &rules->limits[i] : NULL;
    }
    return NULL;
}

static void admin_act(struct exchange *exchange, const struct http_request *request, bool ban) {
    struct worker *worker = exchange->client->worker;
    const struct rules *rules = worker->set->rules;
    char stored[RULES_KEY_MAX];
    size_t len = 0;
    const char *why;
    steady_message message = {.text = ""};
    json_t *document = json_loadb(request->body.bytes, request->body.len, 0, NULL);
    const struct rules_limit *limit = admin_find(rules, document, stored, &len, &why);
    const double seconds = json_number_value(json_object_get(document, "for"));
    json_decref(document);
    if (limit != NULL && ban && !(seconds > 0 && seconds <= 1e9)) {
        limit = NULL;
        why = "\"for\" must be a number of seconds";
    }
    if (limit == NULL) {
        http_respond_problem(exchange, 400, why);
        return;
    }
    steady_limit blocking = limit->rates[0];
    blocking.block_duration = ban ? (steady_us)(seconds * 1e6) : 0;
    steady_throttler *throttler = throttlers_find(worker->throttlers, &blocking, &message);
    if (throttler == NULL) {
        http_respond_problem(exchange, 503, message.text);
        return;
    }
    question_reset(worker, throttler, (struct rules_text){stored, len});
    if (ban) question_block(worker, throttler, (struct rules_text){stored, len}, blocking.max_capacity);
    server_log("admin: %s %s of limit %s", ban ? "banned" : "reset", "a key", limit->name);
    http_respond_body(exchange, 200, "application/json",
                      http_text(ban ? "{\"banned\": true}\n" : "{\"reset\": true}\n"));
}

static void admin_reset(struct exchange *exchange, const struct http_request *request) {
    admin_act(exchange, request, false);
}

static void admin_ban(struct exchange *exchange, const struct http_request *request) {
    admin_act(exchange, request, true);
}

/* ---- Paths ---- */

static void admin_page(struct exchange *exchange, const struct http_request *request) {
    struct http_response response = {.status = 200, .body = {admin_page_html, sizeof admin_page_html - 1}};
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
              {"/admin/reload", true, false, admin_reload},
              {"/admin/reset", true, false, admin_reset},
              {"/admin/unban", true, false, admin_reset},
              {"/admin/ban", true, false, admin_ban}};

static bool admin_is(struct rules_text text, const char *word) {
    return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

bool admin_handle(struct exchange *exchange, const struct http_request *request) {
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!admin_is(request->path, routes[i].path)) continue;
        if (!routes[i].open && !admin_may(exchange->client->worker->server, request))
            http_respond_problem(exchange, 401,
                                 "the token of the admin socket is missing; it is in the log of the daemon");
        else if (routes[i].post != admin_is(request->method, "POST"))
            http_respond_problem(exchange, 405, routes[i].post ? "use POST" : "use GET");
        else
            routes[i].handle(exchange, request);
        return true;
    }
    return false;
}
