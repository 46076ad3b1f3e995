/* SPDX-License-Identifier: MIT
 * Questions out of matches, and answers over HTTP out of results. */
#include "answer.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Questions ---- */

bool answer_add_part(struct question *question, struct worker *worker, const struct question_part *part,
                     struct rules_text key) {
    char *to = worker->keys + question->n_parts * RULES_KEY_MAX;
    const struct rules_limit named = {.stored_name = part->name};
    const size_t len = rules_stored_key(to, worker->set->rules, part->rule != NULL ? part->rule : &named, key);
    if (len == 0) return false;
    question->parts[question->n_parts] = *part;
    question->parts[question->n_parts].key = to;
    question->parts[question->n_parts++].key_len = len;
    return true;
}

void answer_question_of_match(struct question *question, struct worker *worker) {
    const struct rules_match *match = &worker->match;
    struct ruleset *set = worker->set;
    *question = (struct question){.set = set, .parts = worker->parts, .max_wait = INT64_MAX};
    for (size_t i = 0; i < match->n_parts; i++) {
        const struct rules_part *part = &match->parts[i];
        const struct rules_limit *limit = part->limit;
        const struct rules_text key = {match->keys + part->key_at, part->key_len};
        const struct question_part to = {.throttler = set->throttlers[limit->index][part->rate],
                                         .limit = &limit->rates[part->rate],
                                         .rule = limit,
                                         .counters = set->counters[limit->index],
                                         .name = limit->name,
                                         .shown = key,
                                         .amount = part->amount,
                                         .kind = part->kind};
        answer_add_part(question, worker, &to, key);
        if (part->kind == STEADY_TAKE && limit->max_ahead < question->max_wait) question->max_wait = limit->max_ahead;
    }
    if (question->max_wait == INT64_MAX) question->max_wait = 0;
    question->reserve = question->max_wait > 0;
}

bool answer_deadline(const struct http_request *request, steady_us *deadline) {
    struct rules_text value = {0};
    char text[32];
    *deadline = 0;
    if (http_field(request, "x-steady-timeout", &value) == 0) return true;
    if (value.len >= sizeof text) return false;
    memcpy(text, value.bytes, value.len);
    text[value.len] = '\0';
    return steady_duration_parse(deadline, text, NULL) == 0 && *deadline > 0;
}

/* ---- Answers ---- */

/* A part that the client may see. Shadow limits are not told. */
static bool answer_shows(const struct question_part *part) {
    return part->kind == STEADY_TAKE || part->kind == STEADY_LOOK;
}

static size_t answer_policies(steady_http_policy policies[RULES_PARTS_MAX], const struct question *question,
                              const steady_result *result) {
    size_t n = 0;
    for (size_t i = 0; i < question->n_parts; i++) {
        const steady_part_result *r = &result->parts[i];
        if (!answer_shows(&question->parts[i])) continue;
        policies[n++] = (steady_http_policy){.name = question->parts[i].name,
                                             .limit = question->parts[i].limit,
                                             .success = result->success || r->success,
                                             .level = r->level,
                                             .blocked_for = r->blocked_for,
                                             .retry_after = result->success ? 0
                                                            : r->answered   ? r->retry_after
                                                                            : -1}; /* its state is left out */
    }
    return n;
}

static void answer_add_limits(struct worker *worker, const struct question *question, const steady_result *result) {
    steady_http_policy policies[RULES_PARTS_MAX];
    steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
    const size_t n = answer_policies(policies, question, result);
    const int made = n > 0 ? steady_http_fields(STEADY_HTTP_DRAFT_11, policies, n, fields, worker->answer.text,
                                                sizeof worker->answer.text)
                           : 0;
    for (int i = 0; i < made; i++)
        http_add_field(&worker->answer.response, fields[i].name,
                       (struct rules_text){fields[i].value, fields[i].value_len});
}

/* The problem document names the limits that deny; of a silent store all of them. */
static void answer_add_problem(struct worker *worker, const struct question *question, const steady_result *result) {
    struct http_response *response = &worker->answer.response;
    const char *names[RULES_PARTS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < question->n_parts; i++)
        if (answer_shows(&question->parts[i]) &&
            (result->parts == NULL || (result->parts[i].answered && !result->parts[i].success)))
            names[n++] = question->parts[i].name;
    size_t len = steady_http_problem(worker->answer.problem, sizeof worker->answer.problem, response->status, names, n);
    if (len >= sizeof worker->answer.problem) len = 0;
    response->body = (struct rules_text){worker->answer.problem, len};
    http_add_field(response, "content-type", http_text("application/problem+json"));
    http_add_field(response, "cache-control", http_text("no-store"));
}

static void answer_add_retry(struct worker *worker, steady_us wait) {
    char *seconds = worker->answer.retry, *ms = worker->answer.retry_ms;
    snprintf(seconds, sizeof worker->answer.retry, "%lld", (long long)steady_http_retry_after(wait));
    snprintf(ms, sizeof worker->answer.retry_ms, "%lld", (long long)(wait <= 1000 ? 1 : (wait + 999) / 1000));
    http_add_field(&worker->answer.response, "retry-after", http_text(seconds));
    http_add_field(&worker->answer.response, "retry-after-ms", http_text(ms));
}

/* A wait by chance, from 1 to 5 seconds: the true one is not known, and clients should not all return at once. */
static steady_us answer_unknown_wait(struct worker *worker) {
    return STEADY_SECOND + (steady_us)(worker_random(worker) % (4 * STEADY_SECOND));
}

const char *answer_source(const steady_result *result) {
    static const char *const sources[] = {
        [STEADY_FROM_NOWHERE] = "none", [STEADY_FROM_STORE] = "store",   [STEADY_FROM_POLICY] = "policy",
        [STEADY_FROM_LOCAL] = "local",  [STEADY_FROM_MEMORY] = "memory", [STEADY_FROM_LEASE] = "lease"};
    return sources[result->source];
}

struct http_response *answer_make(struct worker *worker, const struct question *question, const steady_result *result) {
    struct http_response *response = &worker->answer.response;
    const bool has_state = result->parts != NULL;
    const bool of_server = has_state && result->source != STEADY_FROM_LOCAL; /* not of a share of the limits */
    response->status = 200;                                                  /* the fields are not cleared */
    response->n_fields = 0;
    response->body = (struct rules_text){0};
    if (result->success) {
        if (of_server) answer_add_limits(worker, question, result);
        return response;
    }
    response->status = !has_state ? 503 : result->retry_after < 0 ? 422 : 429;
    if (response->status == 503)
        answer_add_retry(worker, answer_unknown_wait(worker));
    else if (response->status == 429)
        answer_add_retry(worker, result->retry_after);
    if (of_server && response->status == 429) answer_add_limits(worker, question, result);
    answer_add_problem(worker, question, result);
    return response;
}

/* ---- Answers that wait ---- */

enum { LOOK_MS = 50, FIRST_PROBE_MS = 1000 };

struct held {
    uv_timer_t timer;
    uint64_t until;         /* ms of the loop: when the answer goes out */
    uint64_t probe_at, gap; /* the next probe, and the time after it */
    struct exchange *exchange;
    struct worker *worker;
    steady_reservation *reservation;
    int status;
    struct buffer fields; /* name NUL value NUL ... */
};

static void answer_timer_closed(uv_handle_t *handle) {
    struct held *held = handle->data;
    buffer_free(&held->fields);
    free(held);
}

static void answer_wait_is_over(uv_timer_t *timer) {
    struct held *held = timer->data;
    struct http_response response = {.status = held->status};
    for (size_t at = 0; at < held->fields.len;) {
        const char *name = held->fields.bytes + at, *value = name + strlen(name) + 1;
        http_add_field(&response, name, http_text(value));
        at += strlen(name) + strlen(value) + 2;
    }
    held->exchange->held = NULL;
    steady_reservation_free(&held->reservation);
    http_respond(held->exchange, &response);
    uv_close((uv_handle_t *)timer, answer_timer_closed);
}

/* ---- Clients that closed their half ----
 *
 * To us, a client that has closed its half of a TCP connection looks like one that has gone. Only bytes tell them
 * apart: the system of a client that has gone answers them with a reset. So it gets "100 Continue", which clients skip.
 */

static void answer_send_probe(struct held *held) {
    struct client *client = held->exchange->client;
    buffer_add_text(client_out(client), "HTTP/1.1 100 Continue\r\n\r\n");
    client_send_soon(client);
    held->probe_at += held->gap;
    held->gap *= 2;
}

/* Nothing is read any more, so libuv does not tell of a reset. */
static bool answer_was_reset(const struct client *client) {
    uv_os_fd_t fd;
    if (uv_fileno(&client->handle, &fd) != 0) return true;
    struct pollfd state = {.fd = fd};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLHUP)) != 0;
}

static void answer_look(uv_timer_t *timer) {
    struct held *held = timer->data;
    const uint64_t now = uv_now(timer->loop);
    if (answer_was_reset(held->exchange->client)) {
        client_close(held->exchange->client); /* calls answer_forget */
    } else if (now >= held->until) {
        answer_wait_is_over(timer);
    } else {
        if (now >= held->probe_at) answer_send_probe(held);
        uv_timer_start(timer, answer_look, held->until - now < LOOK_MS ? held->until - now : LOOK_MS, 0);
    }
}

void answer_probe(struct held *held) {
    held->probe_at = uv_now(held->timer.loop);
    held->gap = FIRST_PROBE_MS;
    uv_timer_start(&held->timer, answer_look, 0, 0);
}

/* The client has gone: its place is given back. */
void answer_forget(struct held *held) {
    question_give_back(held->worker, held->reservation);
    held->reservation = NULL;
    uv_close((uv_handle_t *)&held->timer, answer_timer_closed);
}

void answer_hold(struct exchange *exchange, const struct http_response *response, const steady_result *result) {
    struct worker *worker = exchange->client->worker;
    exchange->waiting = NULL; /* it ends with this answer */
    if (exchange->client->at_eof && !exchange->interim) {
        question_give_back(worker, result->reservation);
        http_respond_problem(exchange, 503,
                             "a client that has closed its half of the connection can wait over HTTP/1.1 only");
        return;
    }
    struct held *held = calloc(1, sizeof *held);
    if (held == NULL || uv_timer_init(&worker->loop, &held->timer) != 0) {
        free(held);
        question_give_back(worker, result->reservation);
        http_respond_problem(exchange, 503, "out of memory");
        return;
    }
    held->timer.data = held;
    held->exchange = exchange;
    held->worker = worker;
    held->reservation = result->reservation;
    held->status = response->status;
    for (size_t i = 0; i < response->n_fields; i++) {
        buffer_add(&held->fields, response->fields[i].name.bytes, response->fields[i].name.len);
        buffer_add(&held->fields, "", 1);
        buffer_add(&held->fields, response->fields[i].value.bytes, response->fields[i].value.len);
        buffer_add(&held->fields, "", 1);
    }
    exchange->held = held;
    const uint64_t wait = (uint64_t)((result->must_wait + 999) / 1000);
    held->until = uv_now(&worker->loop) + wait;
    uv_timer_start(&held->timer, answer_wait_is_over, wait, 0);
    if (exchange->client->at_eof) answer_probe(held);
}
