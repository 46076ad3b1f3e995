/* SPDX-License-Identifier: MIT
 * The gRPC services. */
#include "grpc.h"

#include <stdlib.h>
#include <string.h>

#include "http2.h"
#include "ratelimit.pb-c.h"
#include "rls.h"

static void grpc_fail(struct exchange *exchange, enum grpc_status status, const char *text) {
    http2_respond_grpc(exchange, status, text, (struct rules_text){0});
}

/* "100m" is 100 ms: at most 8 digits and a unit (gRPC over HTTP/2). 0: none. -1: not valid. */
static steady_us grpc_timeout(const struct http_request *request) {
    static const char units[] = "HMSmun";
    static const int64_t ns[] = {3600000000000, 60000000000, 1000000000, 1000000, 1000, 1};
    struct rules_text value = {0};
    int64_t number = 0;
    if (http_field(request, "grpc-timeout", &value) == 0) return 0;
    const char *unit = value.len > 1 && value.len <= 9 && value.bytes[value.len - 1] != '\0'
                           ? strchr(units, value.bytes[value.len - 1])
                           : NULL;
    if (unit == NULL) return -1;
    for (size_t i = 0; i + 1 < value.len; i++) {
        if (value.bytes[i] < '0' || value.bytes[i] > '9') return -1;
        number = number * 10 + (value.bytes[i] - '0');
    }
    const int64_t us = number > INT64_C(100000000000000000) / ns[unit - units] ? INT64_C(86400000000)
                                                                               : number * ns[unit - units] / 1000;
    return us > 0 ? us : 1;
}

/* ---- Envoy's rate limit service ---- */

static struct rules_text grpc_text(const char *text) { return http_text(text != NULL ? text : ""); }

/* The strings stay in the message. NULL on success, otherwise the reason. */
static const char *grpc_read_request(struct rls_request *to, const Steady__RateLimitRequest *from) {
    if (from->n_descriptors > RLS_DESCRIPTORS_MOST) return "more than 64 descriptors";
    to->domain = grpc_text(from->domain);
    to->hits = from->hits_addend;
    to->n_descriptors = from->n_descriptors;
    for (size_t i = 0; i < from->n_descriptors; i++) {
        const Steady__Descriptor *d = from->descriptors[i];
        struct rls_descriptor *out = &to->descriptors[i];
        if (d->n_entries > RLS_ENTRIES_MOST) return "a descriptor has more than 32 entries";
        out->n_entries = d->n_entries;
        for (size_t k = 0; k < d->n_entries; k++)
            out->entries[k] = (struct rules_field){grpc_text(d->entries[k]->key), grpc_text(d->entries[k]->value)};
        out->has_limit = d->limit != NULL;
        out->requests_per_unit = d->limit != NULL ? d->limit->requests_per_unit : 0;
        out->unit = d->limit != NULL && d->limit->unit <= 7 ? (int)d->limit->unit : 0;
        out->has_hits = d->hits_addend != NULL;
        out->hits = d->hits_addend != NULL ? d->hits_addend->value : 0;
        out->gives_back = d->is_negative_hits;
    }
    return NULL;
}

struct grpc_response {
    Steady__RateLimitResponse response;
    Steady__DescriptorStatus statuses[RLS_DESCRIPTORS_MOST], *status_at[RLS_DESCRIPTORS_MOST];
    Steady__CurrentLimit limits[RLS_DESCRIPTORS_MOST];
    Steady__Duration durations[RLS_DESCRIPTORS_MOST];
    Steady__HeaderValue headers[HTTP_FIELDS_MOST], *header_at[HTTP_FIELDS_MOST];
};

static uint32_t grpc_u32(int64_t n) { return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n; }

static void grpc_fill(struct grpc_response *to, const struct rls_answer *answer) {
    steady__rate_limit_response__init(&to->response);
    to->response.overall_code = answer->code;
    for (size_t i = 0; i < answer->n_statuses; i++) {
        const struct rls_status *from = &answer->statuses[i];
        Steady__DescriptorStatus *status = to->status_at[i] = &to->statuses[i];
        steady__descriptor_status__init(status);
        status->code = from->code;
        status->limit_remaining = grpc_u32(from->remaining);
        if (!from->has_limit) continue;
        steady__current_limit__init(&to->limits[i]);
        steady__duration__init(&to->durations[i]);
        to->limits[i].requests_per_unit = grpc_u32(from->requests_per_unit);
        to->limits[i].unit = (uint32_t)from->unit;
        to->limits[i].name = (char *)(from->name != NULL ? from->name : "");
        to->durations[i].seconds = from->until_reset > 0 ? from->until_reset / 1000000 : 0;
        to->durations[i].nanos = from->until_reset > 0 ? (int32_t)(from->until_reset % 1000000 * 1000) : 0;
        status->current_limit = &to->limits[i];
        status->duration_until_reset = &to->durations[i];
    }
    to->response.n_statuses = answer->n_statuses;
    to->response.statuses = to->status_at;
}

/* Envoy sends these to the client: the limits, and of a denial all. The values end with a NUL, because they come from
 * answer.c. */
static void grpc_add_headers(struct grpc_response *to, const struct rls_answer *answer) {
    const struct http_response *http = answer->http;
    for (size_t i = 0; i < http->n_fields; i++) {
        if (answer->code == RLS_OK && strncmp(http->fields[i].name.bytes, "ratelimit", 9) != 0) continue;
        Steady__HeaderValue *header = to->header_at[to->response.n_response_headers_to_add] =
            &to->headers[to->response.n_response_headers_to_add];
        steady__header_value__init(header);
        header->key = (char *)http->fields[i].name.bytes;
        header->value = (char *)http->fields[i].value.bytes;
        to->response.n_response_headers_to_add++;
    }
    to->response.response_headers_to_add = to->header_at;
    if (answer->code == RLS_OVER_LIMIT)
        to->response.raw_body = (ProtobufCBinaryData){http->body.len, (uint8_t *)http->body.bytes};
}

/* If the store is silent, Envoy decides by its failure_mode_deny: OVER_LIMIT would be a 429. Exception: the policy
 * local has a verdict of its own. */
static void grpc_limit_answered(struct exchange *exchange, const struct rls_answer *answer) {
    struct grpc_response response; /* 20 KiB, so it is filled as far as needed */
    if (answer->error != 0) {
        grpc_fail(exchange, GRPC_UNAVAILABLE, steady_error_text(answer->error));
        return;
    }
    grpc_fill(&response, answer);
    grpc_add_headers(&response, answer);
    const size_t len = steady__rate_limit_response__get_packed_size(&response.response);
    uint8_t *bytes = malloc(len + 1);
    if (bytes == NULL) {
        grpc_fail(exchange, GRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    steady__rate_limit_response__pack(&response.response, bytes);
    http2_respond_grpc(exchange, GRPC_OK, "", (struct rules_text){(const char *)bytes, len});
    free(bytes);
}

static void grpc_should_rate_limit(struct exchange *exchange, struct rules_text message, steady_us deadline) {
    Steady__RateLimitRequest *read =
        steady__rate_limit_request__unpack(NULL, message.len, (const uint8_t *)message.bytes);
    struct rls_request request; /* 64 KiB */
    const char *why = read == NULL ? "the message cannot be read" : grpc_read_request(&request, read);
    if (why == NULL) why = rls_ask(exchange, &request, deadline, grpc_limit_answered);
    if (why != NULL) grpc_fail(exchange, GRPC_INVALID_ARGUMENT, why);
    if (read != NULL) steady__rate_limit_request__free_unpacked(read, NULL);
}

/* ---- Health ---- */

static void grpc_health(struct exchange *exchange, struct rules_text message, steady_us deadline) {
    const struct worker *worker = exchange->client->worker;
    uint8_t bytes[16];
    Steady__HealthCheckResponse response = STEADY__HEALTH_CHECK_RESPONSE__INIT;
    (void)message;
    (void)deadline;
    response.status =
        atomic_load(&worker->server->draining) || steady_store_state(worker->store) == STEADY_DOWN ? 2 : 1;
    const size_t len = steady__health_check_response__pack(&response, bytes);
    http2_respond_grpc(exchange, GRPC_OK, "", (struct rules_text){(const char *)bytes, len});
}

/* ---- Calls ---- */

static const struct {
    const char *path;
    void (*handle)(struct exchange *exchange, struct rules_text message, steady_us deadline);
} calls[] = {{"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", grpc_should_rate_limit},
             {"/grpc.health.v1.Health/Check", grpc_health}};

void grpc_handle(struct exchange *exchange, const struct http_request *request) {
    const unsigned char *head = (const unsigned char *)request->body.bytes;
    const steady_us deadline = grpc_timeout(request);
    size_t i = 0;
    while (i < 2 && (request->path.len != strlen(calls[i].path) ||
                     memcmp(request->path.bytes, calls[i].path, request->path.len) != 0))
        i++;
    if (i == 2) {
        grpc_fail(exchange, GRPC_UNIMPLEMENTED, "no such method");
        return;
    }
    if (deadline < 0) {
        grpc_fail(exchange, GRPC_INVALID_ARGUMENT, "grpc-timeout is not valid");
        return;
    }
    if (request->body.len >= 5 && head[0] != 0) {
        grpc_fail(exchange, GRPC_UNIMPLEMENTED, "compressed messages are not supported");
        return;
    }
    if (request->body.len < 5 ||
        ((size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4]) != request->body.len - 5) {
        grpc_fail(exchange, GRPC_INVALID_ARGUMENT, "the call must have one whole message");
        return;
    }
    calls[i].handle(exchange, (struct rules_text){request->body.bytes + 5, request->body.len - 5}, deadline);
}
