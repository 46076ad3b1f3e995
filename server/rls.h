/* SPDX-License-Identifier: MIT
 * Envoy's rate limit service: descriptors in, a status for each of them out. The protocol (gRPC or JSON) is elsewhere.
 */
#ifndef STEADY_SERVER_RLS_H
#define STEADY_SERVER_RLS_H

#include "http.h"

enum { RLS_DESCRIPTORS_MOST = 64, RLS_ENTRIES_MOST = 32 };

/* A descriptor of a request. */
struct rls_descriptor {
    struct rules_field entries[RLS_ENTRIES_MOST];
    size_t n_entries;
    bool has_limit; /* Envoy gives the limit */
    int64_t requests_per_unit;
    int unit;
    bool has_hits; /* otherwise those of the request */
    uint64_t hits;
    bool gives_back;
};

struct rls_request {
    struct rules_text domain;
    struct rls_descriptor descriptors[RLS_DESCRIPTORS_MOST];
    size_t n_descriptors;
    uint32_t hits; /* 0: 1 */
};

enum rls_code { RLS_OK = 1, RLS_OVER_LIMIT = 2 };

/* The status of a descriptor. */
struct rls_status {
    enum rls_code code;
    bool has_limit;
    int64_t requests_per_unit;
    int unit; /* 0: none of Envoy's */
    const char *name;
    int64_t remaining;
    steady_us until_reset; /* denied: the wait. Allowed: the time until the bucket is empty */
};

struct rls_answer {
    enum rls_code code;
    int error; /* of the store, if there is no verdict, also if a policy says what to do: enum steady_error */
    struct rls_status statuses[RLS_DESCRIPTORS_MOST];
    size_t n_statuses;
    const struct http_response *http; /* the fields and the body of a denial */
};

/* The answer is valid during the call. */
typedef void (*rls_answered)(struct exchange *exchange, const struct rls_answer *answer);

/* Asks. If the request cannot be answered, returns why, and `answered` does not run. */
const char *rls_ask(struct exchange *exchange, const struct rls_request *request, steady_us deadline,
                    rls_answered answered);

#endif
