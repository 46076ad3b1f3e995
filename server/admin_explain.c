/* SPDX-License-Identifier: MIT
 * POST /admin/explain: what the daemon would answer to a request now, and why. It only looks. */
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "answer.h"
#include "explain.h"

static void admin_explain_respond(struct exchange *exchange, const json_t *document) {
    char *text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (text == NULL)
        http_respond_problem(exchange, 503, "out of memory");
    else
        http_respond_body(exchange, 200, "application/json", http_text(text));
    free(text);
}

/* An answer without a decision. */
static void admin_explain_add_answer(json_t *document, bool envoy, bool allowed, int status, const char *code) {
    json_t *answer = envoy ? json_pack("{s:b, s:s}", "allowed", allowed, "code", code)
                           : json_pack("{s:b, s:i, s:{}}", "allowed", allowed, "status", status, "fields");
    json_object_set_new(document, "answer", answer);
}

/* The fields are those of a decision, whose levels have the cost of this request. */
static json_t *admin_explain_fields(const struct http_response *response) {
    json_t *fields = json_object();
    for (size_t i = 0; i < response->n_fields; i++) {
        const struct rules_field *field = &response->fields[i];
        if (strcmp(field->name.bytes, "content-type") == 0 || strcmp(field->name.bytes, "cache-control") == 0) continue;
        json_object_set_new(fields, field->name.bytes, json_stringn(field->value.bytes, field->value.len));
    }
    return fields;
}

static json_t *admin_explain_answer(struct worker *worker, bool envoy, const struct question *question,
                                    const steady_result *result) {
    json_t *answer =
        json_pack("{s:b, s:s, s:s?, s:o, s:o}", "allowed", result->success, "source", answer_source(result), "error",
                  result->error != 0 ? steady_error_text(result->error) : NULL, "wait",
                  explain_seconds(result->must_wait), "retry_after", explain_seconds(result->retry_after));
    if (envoy) {
        const bool known = result->error == 0 || result->source == STEADY_FROM_LOCAL;
        json_object_set_new(answer, "code",
                            json_string(!known            ? "UNAVAILABLE"
                                        : result->success ? "OK"
                                                          : "OVER_LIMIT"));
        return answer;
    }
    const struct http_response *response = answer_make(worker, question, result);
    json_object_set_new(answer, "status", json_integer(response->status));
    json_object_set_new(answer, "fields", admin_explain_fields(response));
    return answer;
}

/* The result of the request itself, out of that of the look. */
static void admin_explain_request(steady_part_result after[RULES_PARTS_MAX], steady_result *whole,
                                  const struct question *question, const steady_result *result) {
    *whole = *result;
    if (result->parts == NULL) return;
    whole->parts = after;
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *part = &question->parts[i];
        explain_request(&after[i], &result->parts[i], part, result->success, question->max_wait);
        if (after[i].answered && !after[i].success && part->kind != STEADY_SHADOW && whole->retry_after >= 0 &&
            (after[i].retry_after < 0 || after[i].retry_after > whole->retry_after))
            whole->retry_after = after[i].retry_after;
    }
}

static void admin_explain_answered(void *to, const struct question *question, const steady_result *result) {
    struct exchange *exchange = to;
    steady_part_result after[RULES_PARTS_MAX];
    steady_result whole;
    if (exchange == NULL) return;
    json_t *document = exchange->explained, *limits = json_object_get(document, "limits");
    admin_explain_request(after, &whole, question, result);
    for (size_t i = 0; i < question->n_parts && result->parts != NULL; i++)
        if (result->parts[i].answered)
            explain_add_state(json_array_get(limits, i), &question->parts[i], &result->parts[i], &after[i],
                              result->success);
    json_object_set_new(document, "answer",
                        admin_explain_answer(exchange->client->worker, json_is_true(json_object_get(document, "envoy")),
                                             question, &whole));
    admin_explain_respond(exchange, document);
}

void admin_explain(struct exchange *exchange, const struct http_request *request) {
    struct worker *worker = exchange->client->worker;
    static struct explain explain; /* of the first worker only */
    json_error_t error;
    json_t *body = json_loadb(request->body.bytes, request->body.len, JSON_REJECT_DUPLICATES, &error);
    if (!explain_read(&explain, body)) {
        http_respond_problem(exchange, 400, explain.why);
        json_decref(body);
        return;
    }
    json_t *document = exchange->explained = explain_match(&explain, worker->set->rules, &worker->match);
    const char *outcome = json_string_value(json_object_get(document, "outcome"));
    const json_t *limits = json_object_get(document, "limits");
    const bool envoy = explain.request.n_entries > 0;
    const bool never = json_is_true(json_object_get(json_array_get(limits, json_array_size(limits) - 1), "never"));
    json_decref(body);
    if (outcome == NULL) {
        http_respond_problem(exchange, 503, "out of memory");
    } else if (strcmp(outcome, "refused") == 0) {
        admin_explain_add_answer(document, envoy, false, 400, "INVALID_ARGUMENT");
        admin_explain_respond(exchange, document);
    } else if (never || worker->match.n_parts == 0) {
        admin_explain_add_answer(document, envoy, !never, 200, never ? "OVER_LIMIT" : "OK");
        admin_explain_respond(exchange, document);
    } else {
        struct question question;
        answer_question_of_match(&question, worker);
        question.verb = QUESTION_PEEK;
        question.reserve = false;
        question.quiet = true;
        question_ask(worker, &question, 0, admin_explain_answered, exchange, &exchange->waiting);
    }
}
