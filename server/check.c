/* SPDX-License-Identifier: MIT
 * Forward authentication.
 *
 * A client must not choose what a limit sees of it. So each path believes the fields of its own proxies only: these set
 * them anew for each request. And an address is taken from a field only if the peer is trusted. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"

#define CHECK_PATH "/v1/check"
#define CHECK_403_PATH "/v1/check/403"
#define CHECK_ENVOY_PATH "/v1/check/envoy"

/* Whether `text` is this path, perhaps with one of these bytes after it. */
static bool check_is(struct rules_text text, const char *path, const char *after) {
    const size_t len = strlen(path);
    if (text.len < len || memcmp(text.bytes, path, len) != 0) return false;
    return text.len == len || (text.bytes[len] != '\0' && strchr(after, text.bytes[len]) != NULL);
}

/* The client chooses what Envoy appends. So no other path may begin like that of Envoy. */
static bool check_is_envoy(struct rules_text target) { return check_is(target, CHECK_ENVOY_PATH, "/?"); }

bool check_is_path(struct rules_text path) {
    return check_is(path, CHECK_PATH, "") || check_is(path, CHECK_403_PATH, "") || check_is_envoy(path);
}

bool check_is_strict(struct rules_text target) { return check_is(target, CHECK_403_PATH, "?"); }

/* nginx cannot pass on a status. So a field has what it should be. */
static void check_add_status(struct worker *worker, struct http_response *response, int status) {
    snprintf(worker->answer.status, sizeof worker->answer.status, "%d", status);
    http_add_field(response, "x-steady-status", http_text(worker->answer.status));
}

void check_forbid(struct exchange *exchange, int status, const char *title) {
    struct buffer body = {0};
    http_problem(&body, status, title);
    struct http_response response = {.status = 403, .body = {body.bytes, body.len}};
    http_add_field(&response, "content-type", http_text("application/problem+json"));
    http_add_field(&response, "cache-control", http_text("no-store"));
    check_add_status(exchange->client->worker, &response, status);
    http_respond(exchange, &response);
    buffer_free(&body);
}

/* ---- The original request ---- */

/* The value of a field, if it comes once. */
static struct rules_text check_only(const struct http_request *request, const char *name) {
    struct rules_text value = {0};
    return http_field(request, name, &value) == 1 ? value : (struct rules_text){0};
}

static struct rules_text check_or(struct rules_text first, struct rules_text second) {
    return first.len > 0 ? first : second;
}

/* The address of the client. False: it is not known. */
static bool check_address(struct steady__address *address, const struct client *client, const struct rules *rules,
                          const struct http_request *request, bool strict) {
    const struct steady__address *peer = client->has_peer ? &client->peer : NULL;
    const struct rules_text real = strict ? check_only(request, "x-real-ip") : (struct rules_text){0};
    const bool trusted = peer == NULL || rules_is_trusted(rules, peer);
    if (trusted && real.len > 0 && steady__address_parse(address, real.bytes, real.len)) return true;
    return rules_client_address(address, rules, peer, request->fields, request->n_fields);
}

static void check_original(struct rules_request *original, const struct http_request *request, bool strict) {
    original->fields = request->fields;
    original->n_fields = request->n_fields;
    if (strict) {
        original->method = check_or(check_only(request, "x-original-method"), request->method);
        original->target = check_only(request, "x-original-uri");
        original->host = check_or(check_only(request, "x-original-host"), check_only(request, "host"));
    } else if (check_is_envoy(request->target)) {
        const size_t len = sizeof CHECK_ENVOY_PATH - 1;
        original->method = request->method;
        original->target = (struct rules_text){request->target.bytes + len, request->target.len - len};
        original->host = check_only(request, "host");
    } else {
        original->method = check_or(check_only(request, "x-forwarded-method"), request->method);
        original->target = check_only(request, "x-forwarded-uri");
        original->host = check_or(check_only(request, "x-forwarded-host"), check_only(request, "host"));
    }
}

/* ---- The answer ---- */

/* nginx understands 200, 403 and 500 only. It opens access on a 500, so only a silent store may be one. */
static int check_strict_status(const steady_result *result, int status) {
    if (status == 200 && result->source == STEADY_FROM_POLICY) return 500;
    return status == 200 ? 200 : 403;
}

static void check_answered(void *to, const struct question *question, const steady_result *result, bool strict) {
    struct exchange *exchange = to;
    steady_reservation *reservation = result->reservation;
    if (exchange == NULL) return;
    struct http_response *response = answer_make(exchange->client->worker, question, result);
    if (strict) {
        const int status = response->status;
        response->status = check_strict_status(result, status);
        if (response->status != status) check_add_status(exchange->client->worker, response, status);
    }
    if (result->success && result->must_wait > 0) {
        answer_hold(exchange, response, result);
        return;
    }
    steady_reservation_free(&reservation);
    http_respond(exchange, response);
}

static void check_answered_plain(void *to, const struct question *question, const steady_result *result) {
    check_answered(to, question, result, false);
}

static void check_answered_strict(void *to, const struct question *question, const steady_result *result) {
    check_answered(to, question, result, true);
}

/* ---- The question ---- */

/* A field of the proxy that comes twice, or is empty; NULL: none. The client may have sent one of them. */
static const char *check_doubled(const struct http_request *request, bool strict) {
    static const char *const of_nginx[] = {"x-original-uri", "x-original-method", "x-original-host"};
    static const char *const of_others[] = {"x-forwarded-uri", "x-forwarded-method", "x-forwarded-host"};
    const char *const *names = strict ? of_nginx : of_others;
    for (size_t i = 0; i < 3 && !check_is_envoy(request->target); i++) {
        struct rules_text value = {0};
        const size_t n = http_field(request, names[i], &value);
        if (n > 1 || (n == 1 && value.len == 0)) return names[i];
    }
    return NULL;
}

void check_handle(struct exchange *exchange, const struct http_request *request) {
    struct client *client = exchange->client;
    struct worker *worker = client->worker;
    const bool strict = check_is_strict(request->target);
    struct rules_request original = {0};
    struct steady__address address;
    const char *doubled = check_doubled(request, strict);
    if (doubled != NULL) {
        char text[100];
        snprintf(text, sizeof text, "the request must have one %s field with a value, or none", doubled);
        http_reject(exchange, request->target, 400, text);
        return;
    }
    check_original(&original, request, strict);
    if (strict && original.target.len == 0) {
        http_reject(exchange, request->target, 400, "the request must have one X-Original-URI field");
        return;
    }
    if (check_address(&address, client, worker->set->rules, request, strict)) original.ip = &address;
    if (rules_match(&worker->match, worker->set->rules, &original) == RULES_REFUSED) {
        http_reject(exchange, request->target, 400, worker->match.reason.text);
        return;
    }
    if (worker->match.n_parts == 0) {
        http_respond(exchange, &(struct http_response){.status = 200});
        return;
    }
    struct question question;
    answer_question_of_match(&question, worker);
    /* The deadline is that of the store: proxies pass on x-steady-timeout of a client, who could make it too short. */
    question_ask(worker, &question, 0, strict ? check_answered_strict : check_answered_plain, exchange,
                 &exchange->waiting);
}
