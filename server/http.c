/* SPDX-License-Identifier: MIT
 * HTTP/1.1 on a connection, answers of both versions, and the table of paths. */
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "admin.h"
#include "api.h"
#include "check.h"
#include "http2.h"

enum { OTHER_HEAD_MOST = 16 * 1024, OTHER_FIELDS_MOST = 100 };

struct rules_text http_text(const char *text) {
    return (struct rules_text){text, strlen(text)};
}

static bool http_is(struct rules_text text, const char *word) {
    return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

size_t http_field(const struct http_request *request, const char *name, struct rules_text *value) {
    const size_t len = strlen(name);
    size_t n = 0;
    for (size_t i = 0; i < request->n_fields; i++)
        if (request->fields[i].name.len == len && strncasecmp(request->fields[i].name.bytes, name, len) == 0 &&
            n++ == 0)
            *value = request->fields[i].value;
    return n;
}

/* ---- Answers ---- */

void http_add_field(struct http_response *response, const char *name, struct rules_text value) {
    if (response->n_fields < HTTP_FIELDS_MOST)
        response->fields[response->n_fields++] = (struct rules_field){http_text(name), value};
}

static const char *http_reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "";
    }
}

static void http_respond_1(struct exchange *exchange, const struct http_response *response) {
    struct client *client = exchange->client;
    struct buffer *out = client_reply(exchange);
    const bool ends =
        !exchange->keep_alive || atomic_load_explicit(&client->worker->server->draining, memory_order_relaxed);
    buffer_add_text(out, "HTTP/1.1 ");
    buffer_add_number(out, response->status);
    buffer_add(out, " ", 1);
    buffer_add_text(out, http_reason(response->status));
    buffer_add(out, "\r\n", 2);
    for (size_t i = 0; i < response->n_fields; i++) {
        buffer_add(out, response->fields[i].name.bytes, response->fields[i].name.len);
        buffer_add(out, ": ", 2);
        buffer_add(out, response->fields[i].value.bytes, response->fields[i].value.len);
        buffer_add(out, "\r\n", 2);
    }
    if (ends) buffer_add_text(out, "connection: close\r\n");
    buffer_add_text(out, "content-length: ");
    buffer_add_number(out, (int64_t)response->body.len);
    buffer_add(out, "\r\n\r\n", 4);
    if (!exchange->head_only) buffer_add(out, response->body.bytes, response->body.len);
    client_answered(exchange);
    if (ends) client_end(client);
}

void http_respond(struct exchange *exchange, const struct http_response *response) {
    if (exchange->client->protocol == &client_http2)
        http2_respond(exchange, response);
    else
        http_respond_1(exchange, response);
}

void http_respond_body(struct exchange *exchange, int status, const char *type, struct rules_text body) {
    struct http_response response = {.status = status, .body = body};
    http_add_field(&response, "content-type", http_text(type));
    http_add_field(&response, "cache-control", http_text("no-store"));
    http_respond(exchange, &response);
}

void http_problem(struct buffer *body, int status, const char *title) {
    buffer_add_text(body, "{\"type\": \"about:blank\", \"title\": ");
    buffer_add_json(body, title, strlen(title));
    buffer_add_format(body, ", \"status\": %d}\n", status);
}

void http_respond_problem(struct exchange *exchange, int status, const char *title) {
    struct buffer body = {0};
    http_problem(&body, status, title);
    http_respond_body(exchange, status, "application/problem+json", (struct rules_text){body.bytes, body.len});
    buffer_free(&body);
}

/* ---- Paths ---- */

static void http_healthz(struct exchange *exchange, const struct http_request *request) {
    (void)request;
    http_respond_body(exchange, 200, "text/plain", http_text("ok\n"));
}

static void http_readyz(struct exchange *exchange, const struct http_request *request) {
    const struct worker *worker = exchange->client->worker;
    (void)request;
    if (atomic_load(&worker->server->draining))
        http_respond_body(exchange, 503, "text/plain", http_text("ending\n"));
    else if (steady_store_state(worker->store) == STEADY_DOWN)
        http_respond_body(exchange, 503, "text/plain", http_text("the store does not answer\n"));
    else
        http_respond_body(exchange, 200, "text/plain", http_text("ready\n"));
}

static void http_metrics(struct exchange *exchange, const struct http_request *request) {
    struct buffer body = {0};
    (void)request;
    metrics_text(&body, exchange->client->worker->server);
    http_respond_body(exchange, 200, "text/plain; version=0.0.4; charset=utf-8",
                      (struct rules_text){body.bytes, body.len});
    buffer_free(&body);
}

static void http_version(struct exchange *exchange, const struct http_request *request) {
    (void)request;
    http_respond_body(exchange, 200, "text/plain",
                      http_text("steady: rate limits. See /v1/check, /v1/consume, /metrics and /healthz.\n"));
}

enum method { GET, POST };

static const struct {
    const char *path;
    enum method method;
    void (*handle)(struct exchange *exchange, const struct http_request *request);
} routes[] = {
    {"/v1/consume", POST, api_consume}, {"/v1/peek", POST, api_peek},    {"/v1/reserve", POST, api_reserve},
    {"/v1/settle", POST, api_settle},   {"/json", POST, api_envoy_json}, {"/healthz", GET, http_healthz},
    {"/readyz", GET, http_readyz},      {"/metrics", GET, http_metrics}, {"/", GET, http_version},
};

static bool http_allows(enum method method, struct rules_text name) {
    return method == POST ? http_is(name, "POST") : http_is(name, "GET") || http_is(name, "HEAD");
}

static void http_not_allowed(struct exchange *exchange, enum method method) {
    struct http_response response = {.status = 405, .body = http_text("")};
    http_add_field(&response, "allow", http_text(method == POST ? "POST" : "GET, HEAD"));
    http_respond(exchange, &response);
}

void http_route(struct exchange *exchange, const struct http_request *request) {
    struct rules_text origin;
    if (exchange->admin && admin_handle(exchange, request)) return;
    if (check_is_path(request->path)) {
        check_handle(exchange, request);
        return;
    }
    if (request->head_len > OTHER_HEAD_MOST || request->n_fields > OTHER_FIELDS_MOST) {
        http_respond_problem(exchange, 431,
                             "the head of the request is larger than 16 KiB, or has more than 100 fields");
        return;
    }
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!http_is(request->path, routes[i].path)) continue;
        if (routes[i].method == POST && http_field(request, "origin", &origin) > 0)
            http_respond_problem(exchange, 403, "a page in a browser must not ask: the request has an Origin field");
        else if (http_allows(routes[i].method, request->method))
            routes[i].handle(exchange, request);
        else
            http_not_allowed(exchange, routes[i].method);
        return;
    }
    http_respond_problem(exchange, 404, "no such path");
}

void http_reject(struct exchange *exchange, struct rules_text target, int status, const char *title) {
    metrics_add(&exchange->client->worker->metrics.refused, 1);
    if (check_is_strict(target))
        check_forbid(exchange, status, title);
    else
        http_respond_problem(exchange, status, title);
}

/* ---- HTTP/1.1 on a connection ---- */

void http_split_target(struct http_request *request) {
    const char *mark = request->target.len > 0 ? memchr(request->target.bytes, '?', request->target.len) : NULL;
    const size_t path = mark != NULL ? (size_t)(mark - request->target.bytes) : request->target.len;
    request->path = (struct rules_text){request->target.bytes, path};
    request->query =
        mark != NULL ? (struct rules_text){mark + 1, request->target.len - path - 1} : (struct rules_text){0};
}

/* One request at a time: the next one is read when this one is answered. */
static ptrdiff_t http_read(struct client *client, char *bytes, size_t len) {
    struct worker *worker = client->worker;
    size_t at = 0;
    while (at < len && client->first == NULL && client->condition == CLIENT_OPEN && !client_must_wait(client)) {
        struct http1_request read = {.fields = worker->fields};
        struct http1_error error;
        size_t n = len - at;
        if (n < client->progress.needs) break;
        const enum http1_outcome outcome = http1_read(&read, bytes + at, &n, &client->progress, &error);
        if (outcome == HTTP1_MORE) {
            if (read.method.len > 0 && read.continues && client->state == NULL) {
                buffer_add_text(client_out(client), "HTTP/1.1 100 Continue\r\n\r\n");
                client->state = client; /* once for a request */
                client_send_soon(client);
            }
            break;
        }
        client->progress = (struct http1_progress){0};
        client->state = NULL;
        struct exchange *exchange = client_begin(client);
        if (exchange == NULL) return -1;
        if (outcome == HTTP1_FAILED) {
            exchange->keep_alive = false;
            http_reject(exchange, read.target, error.status, error.text);
            return (ptrdiff_t)len;
        }
        exchange->keep_alive = read.keep_alive;
        exchange->interim = read.interim;
        exchange->head_only = http_is(read.method, "HEAD");
        struct http_request request = {.method = read.method,
                                       .target = read.target,
                                       .fields = read.fields,
                                       .n_fields = read.n_fields,
                                       .head_len = read.head_len,
                                       .body = read.body};
        http_split_target(&request);
        http_route(exchange, &request);
        at += n;
    }
    return (ptrdiff_t)at;
}

/* Each answer now says "connection: close". At last a client that is idle is closed. */
static void http_drain(struct client *client, bool last) {
    if (last && client->first == NULL && client->in.len == 0) client_end(client);
}

const struct protocol client_http1 = {
    .name = "http", .counted_as = METRICS_HTTP, .read = http_read, .drain = http_drain};
