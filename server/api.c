/* SPDX-License-Identifier: MIT
 * Decisions as JSON over HTTP.
 *
 * A request names its limits in one of two ways. Either each part names a limit of the rules, or brings its own rate:
 *
 *     {"limit": "login", "key": "192.0.2.1"}
 *     {"rate": "10/min", "key": "user 42", "name": "mail", "amount": 3}
 *     {"parts": [{...}, {...}], "max_wait": 0.5}
 *
 * Times are seconds, as everywhere in HTTP. */
#include "api.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "rls.h"

/* ---- Reading ---- */

struct api_reader {
    struct worker *worker;
    struct question *question;
    char error[300];                   /* "": none */
    steady_limit own[RULES_PARTS_MAX]; /* limits that came with the request */
};

__attribute__((format(printf, 2, 3))) static void api_fail(struct api_reader *r, const char *format, ...) {
    va_list arguments;
    if (r->error[0] != '\0') return;
    va_start(arguments, format);
    vsnprintf(r->error, sizeof r->error, format, arguments);
    va_end(arguments);
}

static const char *api_text(struct api_reader *r, const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (value == NULL) return NULL;
    if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value))
        return json_string_value(value);
    api_fail(r, "%s must be a string without NUL", name);
    return NULL;
}

static int64_t api_number(struct api_reader *r, const json_t *object, const char *name, int64_t usual, int64_t least,
                          int64_t most) {
    const json_t *value = json_object_get(object, name);
    if (value == NULL) return usual;
    if (json_is_integer(value) && json_integer_value(value) >= least && json_integer_value(value) <= most)
        return json_integer_value(value);
    api_fail(r, "%s must be a whole number from %lld to %lld", name, (long long)least, (long long)most);
    return usual;
}

static steady_us api_seconds(struct api_reader *r, const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (value == NULL) return 0;
    const double seconds = json_is_number(value) ? json_number_value(value) : -1;
    if (seconds >= 0 && seconds <= 4e9) return (steady_us)ceil(seconds * 1e6);
    api_fail(r, "%s must be a number of seconds", name);
    return 0;
}

static void api_check_keys(struct api_reader *r, const json_t *object, const char *const *known, const char *what) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        int i = 0;
        while (known[i] != NULL && strcmp(known[i], name) != 0)
            i++;
        if (known[i] != NULL) continue;
        char quoted[64];
        steady_quote(quoted, sizeof quoted, name);
        api_fail(r, "%s has no member \"%s\"", what, quoted);
        return;
    }
}

static enum steady_kind api_kind(struct api_reader *r, const json_t *object) {
    static const char *const kinds[] = {"take", "look", "charge", "shadow"};
    const char *text = api_text(r, object, "kind");
    for (size_t i = 0; text != NULL && i < 4; i++)
        if (strcmp(text, kinds[i]) == 0) return (enum steady_kind)i;
    if (text != NULL) api_fail(r, "kind must be take, look, charge or shadow");
    return STEADY_TAKE;
}

static const struct rules_limit *api_find_limit(const struct rules *rules, const char *name) {
    for (size_t i = 0; i < rules->n_limits; i++)
        if (strcmp(rules->limits[i].name, name) == 0) return &rules->limits[i];
    return NULL;
}

/* A limit of the rules, of the tier that the request may name. */
static void api_named_limit(struct api_reader *r, const json_t *object, const char *name, struct question_part *part) {
    struct ruleset *set = r->worker->set;
    const struct rules_limit *limit = api_find_limit(set->rules, name);
    const char *tier = api_text(r, object, "tier");
    size_t rate = 0;
    if (limit == NULL) {
        char quoted[80];
        steady_quote(quoted, sizeof quoted, name);
        api_fail(r, "there is no limit \"%s\"", quoted);
        return;
    }
    for (size_t i = 0; tier != NULL && i < limit->n_tiers; i++)
        if (strcmp(limit->tiers[i].value, tier) == 0) rate = limit->tiers[i].rate;
    part->rule = limit;
    part->name = limit->name;
    part->limit = &limit->rates[rate];
    part->throttler = set->throttlers[limit->index][rate];
    part->counters = set->counters[limit->index];
    if (json_object_get(object, "kind") == NULL && limit->shadow) part->kind = STEADY_SHADOW;
}

/* A limit that comes with the request. */
static void api_own_limit(struct api_reader *r, const json_t *object, const char *rate, struct question_part *part) {
    steady_limit *limit = &r->own[r->question->n_parts];
    const char *name = api_text(r, object, "name");
    steady_message why;
    *limit = (steady_limit){0};
    if (steady_limit_parse(limit, rate, &why) != 0) {
        api_fail(r, "%s", why.text);
        return;
    }
    limit->max_capacity = api_number(r, object, "burst", limit->max_capacity, 1, INT32_MAX);
    limit->name = name != NULL ? name : "default";
    if (steady_limit_check(limit, &why) != 0) {
        api_fail(r, "%s", why.text);
        return;
    }
    part->limit = limit;
    part->name = limit->name;
    part->counters = r->worker->unnamed;
    part->throttler = throttlers_find(r->worker->throttlers, limit, &why);
    if (part->throttler == NULL) api_fail(r, "%s", why.text);
}

static void api_part(struct api_reader *r, const json_t *object, const char *const *known) {
    struct question_part part = {.kind = STEADY_TAKE};
    if (!json_is_object(object)) {
        api_fail(r, "a part must be an object, such as {\"limit\": \"login\", \"key\": \"192.0.2.1\"}");
        return;
    }
    api_check_keys(r, object, known, "a part");
    const char *limit = api_text(r, object, "limit"), *rate = api_text(r, object, "rate");
    const char *key = api_text(r, object, "key");
    part.kind = api_kind(r, object);
    part.amount = api_number(r, object, "amount", 1, -INT64_C(2147483647), INT32_MAX);
    if ((limit == NULL) == (rate == NULL)) api_fail(r, "a part needs either limit, the name of a limit, or rate");
    if (key == NULL || *key == '\0') api_fail(r, "a part needs a key, a string that is not empty");
    if (r->question->n_parts == RULES_PARTS_MAX) api_fail(r, "more than %d parts", RULES_PARTS_MAX);
    if (r->error[0] == '\0' && limit != NULL) api_named_limit(r, object, limit, &part);
    if (r->error[0] == '\0' && rate != NULL) api_own_limit(r, object, rate, &part);
    if (r->error[0] == '\0' && !answer_add_part(r->question, r->worker, &part, http_text(key)))
        api_fail(r, "the key is too long: prefix, key and name have at most %d bytes", RULES_KEY_MAX);
}

/* Without a max_wait of the request, it waits as long as all its limits let it: max_ahead of the rules. */
static steady_us api_max_ahead(const struct question *question) {
    steady_us least = INT64_MAX;
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *part = &question->parts[i];
        const steady_us ahead = part->rule != NULL ? part->rule->max_ahead : 0;
        if (part->kind == STEADY_TAKE && ahead < least) least = ahead;
    }
    return least != INT64_MAX ? least : 0;
}

static const char *const part_members[] = {"limit", "rate", "burst", "name", "key", "amount", "kind", "tier", NULL};
static const char *const single_members[] = {"limit", "rate", "burst",    "name",     "key", "amount",
                                             "kind",  "tier", "max_wait", "at_least", NULL};

static void api_question(struct api_reader *r, const json_t *document) {
    static const char *const members[] = {"parts", "max_wait", "at_least", NULL};
    const json_t *parts = json_is_object(document) ? json_object_get(document, "parts") : NULL;
    if (!json_is_object(document)) {
        api_fail(r, "the body must be a JSON object, such as {\"limit\": \"login\", \"key\": \"192.0.2.1\"}");
        return;
    }
    r->question->max_wait = api_seconds(r, document, "max_wait");
    r->question->at_least = api_number(r, document, "at_least", 0, 1, INT32_MAX);
    if (parts == NULL) {
        api_part(r, document, single_members);
    } else {
        api_check_keys(r, document, members, "the body");
        if (!json_is_array(parts) || json_array_size(parts) == 0)
            api_fail(r, "parts must be a list with 1 to 64 parts");
        for (size_t i = 0; i < json_array_size(parts) && r->error[0] == '\0'; i++)
            api_part(r, json_array_get(parts, i), part_members);
    }
    for (size_t i = 0; i < r->question->n_parts && r->question->at_least > 0; i++) {
        const struct question_part *part = &r->question->parts[i];
        if (part->kind != STEADY_TAKE || part->amount != r->question->parts[0].amount ||
            part->amount < r->question->at_least)
            api_fail(r, "at_least needs parts of kind take with the same amount, and no less than at_least");
    }
    if (json_object_get(document, "max_wait") == NULL) r->question->max_wait = api_max_ahead(r->question);
}

/* ---- Answering ---- */

static void api_add_part(struct buffer *out, const struct question_part *part, const steady_part_result *r) {
    const int64_t room = part->limit->max_capacity - r->level;
    buffer_add_text(out, "{\"name\": ");
    buffer_add_json(out, part->name, strlen(part->name));
    if (!r->answered) { /* another limit denied the request */
        buffer_add_format(out,
                          ", \"allowed\": null, \"capacity\": %lld, \"level\": null, \"remaining\": null, "
                          "\"granted\": 0, \"until_next_drop\": null, \"blocked_for\": null, \"retry_after\": null}",
                          (long long)part->limit->max_capacity);
        return;
    }
    buffer_add_format(out,
                      ", \"allowed\": %s, \"capacity\": %lld, \"level\": %lld, \"remaining\": %lld, \"granted\": %lld",
                      r->success ? "true" : "false", (long long)part->limit->max_capacity, (long long)r->level,
                      (long long)(room > 0 && r->blocked_for == 0 ? room : 0), (long long)r->granted);
    buffer_add_text(out, ", \"until_next_drop\": ");
    buffer_add_seconds(out, r->until_next_drop);
    buffer_add_text(out, ", \"blocked_for\": ");
    buffer_add_seconds(out, r->blocked_for);
    buffer_add_text(out, ", \"retry_after\": ");
    if (r->retry_after < 0)
        buffer_add_text(out, "null");
    else
        buffer_add_seconds(out, r->retry_after);
    buffer_add_text(out, "}");
}

static void api_add_result(struct buffer *out, const struct question *question, const steady_result *result) {
    buffer_add_format(out, "{\"allowed\": %s, \"source\": \"%s\"", result->success ? "true" : "false",
                      answer_source(result));
    if (result->error != 0) buffer_add_format(out, ", \"error\": \"%s\"", steady_error_name(result->error));
    buffer_add_text(out, ", \"wait\": ");
    buffer_add_seconds(out, result->must_wait);
    buffer_add_text(out, ", \"retry_after\": ");
    if (result->retry_after < 0)
        buffer_add_text(out, "null");
    else
        buffer_add_seconds(out, result->retry_after);
    if (result->reservation != NULL) {
        const size_t len = steady_reservation_text(result->reservation, NULL, 0);
        char *text = malloc(len + 1);
        if (text == NULL) {
            out->lost = true;
        } else {
            steady_reservation_text(result->reservation, text, len + 1);
            buffer_add_text(out, ", \"reservation\": ");
            buffer_add_json(out, text, len);
            free(text);
        }
    }
    buffer_add_text(out, ", \"parts\": [");
    for (size_t i = 0; result->parts != NULL && i < question->n_parts; i++) {
        if (i > 0) buffer_add_text(out, ", ");
        api_add_part(out, &question->parts[i], &result->parts[i]);
    }
    buffer_add_text(out, "]}\n");
}

/* The status and the fields are those of /v1/check; the body says all. */
static void api_answered(void *to, const struct question *question, const steady_result *result) {
    struct exchange *exchange = to;
    steady_reservation *reservation = result->reservation;
    struct buffer body = {0};
    if (exchange == NULL) return;
    struct http_response *response = answer_make(exchange->client->worker, question, result);
    api_add_result(&body, question, result);
    steady_reservation_free(&reservation);
    if (body.lost) {
        buffer_free(&body);
        http_respond_problem(exchange, 503, "out of memory");
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < response->n_fields; i++)
        if (strcmp(response->fields[i].name.bytes, "content-type") != 0) response->fields[kept++] = response->fields[i];
    response->n_fields = kept;
    http_add_field(response, "content-type", http_text("application/json"));
    response->body = (struct rules_text){body.bytes, body.len};
    http_respond(exchange, response);
    buffer_free(&body);
}

static void api_ask(struct exchange *exchange, const struct http_request *request, enum question_verb verb,
                    bool reserve) {
    struct worker *worker = exchange->client->worker;
    struct question question = {.set = worker->set, .verb = verb, .reserve = reserve, .parts = worker->parts};
    struct api_reader in_stack, *reader = &in_stack;
    steady_us deadline = 0;
    json_error_t error;
    json_t *document = json_loadb(request->body.bytes, request->body.len, JSON_REJECT_DUPLICATES, &error);
    in_stack = (struct api_reader){.worker = worker, .question = &question};
    if (document == NULL)
        api_fail(reader, "the body is not JSON: line %d, column %d: %s", error.line, error.column, error.text);
    else
        api_question(reader, document);
    if (!answer_deadline(request, &deadline)) api_fail(reader, "x-steady-timeout must be a duration such as 50ms");
    if (reader->error[0] != '\0')
        http_reject(exchange, request->target, 400, reader->error);
    else
        question_ask(worker, &question, deadline, api_answered, exchange, &exchange->waiting);
    json_decref(document);
}

void api_consume(struct exchange *exchange, const struct http_request *request) {
    api_ask(exchange, request, QUESTION_CONSUME, false);
}

void api_peek(struct exchange *exchange, const struct http_request *request) {
    api_ask(exchange, request, QUESTION_PEEK, false);
}

void api_reserve(struct exchange *exchange, const struct http_request *request) {
    api_ask(exchange, request, QUESTION_CONSUME, true);
}

/* ---- Settling ---- */

static void api_add_settled(struct buffer *out, const steady_result *result) {
    buffer_add_text(out, "{\"settled\": true, \"parts\": [");
    for (size_t i = 0; i < result->n_parts && result->parts != NULL; i++) {
        const steady_part_result *r = &result->parts[i];
        buffer_add_text(out, i > 0 ? ", {\"name\": " : "{\"name\": ");
        buffer_add_json(out, r->name, strlen(r->name));
        buffer_add_format(out, ", \"level\": %lld, \"charged\": %lld}", (long long)r->level, (long long)r->charged);
    }
    buffer_add_text(out, "]}\n");
}

static void api_tell_settled(struct exchange *exchange, const steady_result *result) {
    struct buffer body = {0};
    if (result->error != 0) {
        http_respond_problem(exchange, 503, steady_error_text(result->error));
        return;
    }
    api_add_settled(&body, result);
    http_respond_body(exchange, 200, "application/json", (struct rules_text){body.bytes, body.len});
    buffer_free(&body);
}

/* {"reservation": "r1,...", "actual": 3} or "actuals": [3, 1200], one for each part; null: it stays charged */
static size_t api_actuals(struct api_reader *r, const json_t *document, int64_t actuals[RULES_PARTS_MAX]) {
    const json_t *list = json_object_get(document, "actuals");
    if (list == NULL) return 0;
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > RULES_PARTS_MAX) {
        api_fail(r, "actuals must be a list with a number for each part");
        return 0;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_null(value) && (!json_is_integer(value) || json_integer_value(value) < 0))
            api_fail(r, "actuals[%zu] must be a whole number, 0 or more, or null", i);
        actuals[i] = json_is_null(value) ? -1 : json_integer_value(value);
    }
    return json_array_size(list);
}

void api_settle(struct exchange *exchange, const struct http_request *request) {
    static const char *const members[] = {"reservation", "actual", "actuals", NULL};
    struct worker *worker = exchange->client->worker;
    struct api_reader reader = {.worker = worker};
    int64_t actuals[RULES_PARTS_MAX];
    json_error_t error;
    steady_message why = {.text = ""};
    steady_reservation *reservation = NULL;
    json_t *document = json_loadb(request->body.bytes, request->body.len, JSON_REJECT_DUPLICATES, &error);
    if (document == NULL || !json_is_object(document))
        api_fail(&reader, "the body must be a JSON object, such as {\"reservation\": \"r1,...\", \"actual\": 3}");
    else
        api_check_keys(&reader, document, members, "the body");
    const char *text = reader.error[0] == '\0' ? api_text(&reader, document, "reservation") : NULL;
    if (text == NULL) api_fail(&reader, "reservation is missing");
    const size_t n = reader.error[0] == '\0' ? api_actuals(&reader, document, actuals) : 0;
    const int64_t actual = reader.error[0] == '\0' ? api_number(&reader, document, "actual", 0, 0, INT64_MAX) : 0;
    if (reader.error[0] == '\0' && (n > 0) == (json_object_get(document, "actual") != NULL))
        api_fail(&reader, "give either actual or actuals");
    if (reader.error[0] == '\0' && steady_reservation_parse(&reservation, text, &why) != 0)
        api_fail(&reader, "%s", why.text);
    size_t parts = 0;
    steady_reservation_parts(reservation, &parts);
    if (reader.error[0] == '\0' && n > 0 && n != parts)
        api_fail(&reader, "the reservation has %zu parts, and actuals %zu", parts, n);
    if (reader.error[0] != '\0') {
        http_reject(exchange, request->target, 400, reader.error);
    } else {
        const steady_settlement settlement = {.reservation = reservation,
                                              .actual = actual,
                                              .actuals = n > 0 ? actuals : NULL,
                                              .store = worker->store,
                                              .why = &why};
        if (question_settle(exchange, &settlement, api_tell_settled) != 0)
            http_reject(exchange, request->target, 400, why.text);
    }
    steady_reservation_free(&reservation);
    json_decref(document);
}

/* ---- POST /json ---- */

/* The JSON form of Envoy's messages (protobuf's JSON mapping): names in lowerCamelCase or as in the .proto, 64-bit
 * numbers as strings or numbers. */
static const json_t *api_either(const json_t *object, const char *camel, const char *snake) {
    const json_t *value = json_object_get(object, camel);
    return value != NULL ? value : json_object_get(object, snake);
}

static uint64_t api_u64(struct api_reader *r, const json_t *value, const char *name) {
    char *end = NULL;
    if (value == NULL) return 0;
    if (json_is_integer(value) && json_integer_value(value) >= 0) return (uint64_t)json_integer_value(value);
    const char *text = json_string_value(value);
    const unsigned long long number = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || *text < '0' || *text > '9' || *end != '\0')
        api_fail(r, "%s must be a whole number, 0 or more", name);
    return number;
}

static uint32_t api_u32(struct api_reader *r, const json_t *value, const char *name) {
    const uint64_t n = api_u64(r, value, name);
    if (n > UINT32_MAX) api_fail(r, "%s must be at most 4294967295", name);
    return n > UINT32_MAX ? 0 : (uint32_t)n;
}

static int api_envoy_unit(struct api_reader *r, const json_t *value) {
    static const char *const units[] = {"UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"};
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= 7)
        return (int)json_integer_value(value);
    for (int i = 0; json_is_string(value) && i < 8; i++)
        if (strcmp(json_string_value(value), units[i]) == 0) return i;
    api_fail(r, "unit must be SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR");
    return 0;
}

static void api_envoy_descriptor(struct api_reader *r, const json_t *from, struct rls_descriptor *to) {
    const json_t *entries = json_object_get(from, "entries"), *limit = json_object_get(from, "limit");
    const json_t *hits = api_either(from, "hitsAddend", "hits_addend");
    const json_t *negative = api_either(from, "isNegativeHits", "is_negative_hits");
    if (!json_is_array(entries) || json_array_size(entries) > RLS_ENTRIES_MOST) {
        api_fail(r, "a descriptor needs entries, a list with 1 to 32 entries");
        return;
    }
    to->n_entries = json_array_size(entries);
    for (size_t i = 0; i < to->n_entries; i++) {
        const json_t *entry = json_array_get(entries, i);
        if (!json_is_object(entry)) api_fail(r, "an entry must be an object with key and value");
        const char *key = api_text(r, entry, "key"), *value = api_text(r, entry, "value");
        to->entries[i] = (struct rules_field){http_text(key != NULL ? key : ""), http_text(value != NULL ? value : "")};
    }
    to->has_limit = json_is_object(limit);
    if (limit != NULL && !to->has_limit) api_fail(r, "limit must be an object with requestsPerUnit and unit");
    if (to->has_limit) {
        to->requests_per_unit =
            api_u32(r, api_either(limit, "requestsPerUnit", "requests_per_unit"), "requestsPerUnit");
        to->unit = api_envoy_unit(r, json_object_get(limit, "unit"));
    }
    to->has_hits = hits != NULL;
    to->hits = api_u64(r, hits, "hitsAddend");
    to->gives_back = json_is_true(negative);
}

static const char *const envoy_units[] = {"UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"};

static void api_add_status(struct buffer *out, const struct rls_status *status) {
    buffer_add_format(out, "{\"code\": \"%s\"", status->code == RLS_OK ? "OK" : "OVER_LIMIT");
    if (status->has_limit) {
        buffer_add_text(out, ", \"currentLimit\": {");
        if (status->name != NULL) {
            buffer_add_text(out, "\"name\": ");
            buffer_add_json(out, status->name, strlen(status->name));
            buffer_add_text(out, ", ");
        }
        buffer_add_format(out, "\"requestsPerUnit\": %lld, \"unit\": \"%s\"}, \"durationUntilReset\": \"",
                          (long long)status->requests_per_unit, envoy_units[status->unit]);
        buffer_add_seconds(out, status->until_reset > 0 ? status->until_reset : 0);
        buffer_add_text(out, "s\"");
    }
    buffer_add_format(out, ", \"limitRemaining\": %lld}", (long long)status->remaining);
}

static void api_envoy_answered(struct exchange *exchange, const struct rls_answer *answer) {
    struct buffer body = {0};
    if (answer->error != 0) {
        http_respond_problem(exchange, 500, steady_error_text(answer->error));
        return;
    }
    buffer_add_format(&body, "{\"overallCode\": \"%s\", \"statuses\": [", answer->code == RLS_OK ? "OK" : "OVER_LIMIT");
    for (size_t i = 0; i < answer->n_statuses; i++) {
        if (i > 0) buffer_add_text(&body, ", ");
        api_add_status(&body, &answer->statuses[i]);
    }
    buffer_add_text(&body, "]}\n");
    http_respond_body(exchange, answer->code == RLS_OK ? 200 : 429, "application/json",
                      (struct rules_text){body.bytes, body.len});
    buffer_free(&body);
}

void api_envoy_json(struct exchange *exchange, const struct http_request *request) {
    struct api_reader reader = {.worker = exchange->client->worker};
    struct rls_request rls = {.n_descriptors = 0};
    json_error_t error;
    steady_us deadline = 0;
    json_t *document = json_loadb(request->body.bytes, request->body.len, 0, &error);
    const json_t *descriptors = json_object_get(document, "descriptors");
    const char *domain = NULL, *why = NULL;
    if (!json_is_object(document))
        api_fail(&reader, "the body must be a JSON object with domain and descriptors");
    else if ((domain = api_text(&reader, document, "domain")) == NULL)
        api_fail(&reader, "domain is missing");
    if (json_array_size(descriptors) > RLS_DESCRIPTORS_MOST) api_fail(&reader, "more than 64 descriptors");
    rls.domain = http_text(domain != NULL ? domain : "");
    rls.hits = api_u32(&reader, api_either(document, "hitsAddend", "hits_addend"), "hitsAddend");
    for (size_t i = 0; i < json_array_size(descriptors) && reader.error[0] == '\0'; i++)
        api_envoy_descriptor(&reader, json_array_get(descriptors, i), &rls.descriptors[rls.n_descriptors++]);
    if (!answer_deadline(request, &deadline)) api_fail(&reader, "x-steady-timeout must be a duration such as 50ms");
    if (reader.error[0] == '\0') why = rls_ask(exchange, &rls, deadline, api_envoy_answered);
    if (reader.error[0] != '\0' || why != NULL)
        http_reject(exchange, request->target, 400, why != NULL ? why : reader.error);
    json_decref(document);
}
