/* SPDX-License-Identifier: MIT
 *
 * HTTP responses of limits: rate-limit header fields in several forms, and problem documents (RFC 9457). For HTTP
 * servers that use Steady. These calls do no I/O, allocate no memory and keep nothing, so any thread may make them.
 *
 *     steady_http_policy policy = {.name = "default", .limit = &limit, .success = r.success, .level = r.level,
 *                                  .blocked_for = r.blocked_for, .retry_after = r.retry_after};
 *     steady_http_field fields[STEADY_HTTP_FIELDS_MAX] = {{0}};
 *     char text[STEADY_HTTP_TEXT_MAX(1, 7)];
 *     int n = steady_http_fields(STEADY_HTTP_DRAFT_11, &policy, 1, fields, text, sizeof text);
 *     for (int i = 0; i < n; i++) printf("%s: %s\r\n", fields[i].name, fields[i].value);
 *     if (!r.success) printf("retry-after: %lld\r\n", (long long)steady_http_retry_after(r.retry_after));
 *
 * Call them only if `source` of the result is STEADY_FROM_STORE, _MEMORY or _LEASE. Otherwise the state of the limit is
 * not known. */
#ifndef STEADY_HTTP_H
#define STEADY_HTTP_H

#include <steady.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The forms of the header fields. The drafts are those of draft-ietf-httpapi-ratelimit-headers.
 *
 *     STEADY_HTTP_DRAFT_11  ratelimit-policy: "default";q=100;w=60     ratelimit: "default";r=99;t=59
 *     STEADY_HTTP_DRAFT_07  ratelimit-policy: 100;w=60                 ratelimit: limit=100, remaining=99, reset=59
 *     STEADY_HTTP_DRAFT_03  ratelimit-limit: 100   ratelimit-remaining: 99   ratelimit-reset: 59
 *     STEADY_HTTP_X         x-ratelimit-limit, x-ratelimit-remaining and x-ratelimit-reset (seconds)
 *
 * In draft-11, `q` is the capacity and `w` the time in seconds in which a full bucket empties. `r` and `t` say: at most
 * r requests within t seconds. r/t is never over the rate of the limit, so a client that spreads its r requests over t
 * seconds is allowed. If a policy denies the request, `ratelimit` names only the policies that deny it, and t is the
 * wait of each. The other forms have room for one policy: the tightest one, or the one that denies for the longest
 * time. */
enum steady_http_form {
    STEADY_HTTP_DRAFT_11 = 0,
    STEADY_HTTP_DRAFT_07 = 1,
    STEADY_HTTP_DRAFT_03 = 2,
    STEADY_HTTP_X = 3
};

/* A limit that counts for a request, and its state after the decision. */
typedef struct steady_http_policy {
    const char *name;          /* in the fields: 1 or more bytes of printable ASCII */
    const steady_limit *limit; /* its `name` is not used */
    bool success;              /* these four: of the steady_result, or of the steady_part_result of this limit */
    int64_t level;
    steady_us blocked_for;
    steady_us retry_after; /* -1, the request can never fit: the state is left out */
    uint64_t reserved[4];
} steady_http_policy;

typedef struct steady_http_field {
    const char *name;  /* in lower case; static text */
    const char *value; /* in `text` */
    size_t value_len;
    uint64_t reserved[2];
} steady_http_field;

#define STEADY_HTTP_FIELDS_MAX 3

/* The room for the text of n policies whose names have `name_len` bytes at most. */
#define STEADY_HTTP_TEXT_MAX(n, name_len) ((n) * (96 + 4 * (name_len)))

/* Makes the fields of a response. Fills at most STEADY_HTTP_FIELDS_MAX of `fields`; their values are in `text`, which
 * has `size` bytes. Returns their number, or
 *
 *     STEADY_BAD_ARGUMENT   a NULL, no policy, a name that is not printable ASCII, a limit that is not valid, a form
 *                           that does not exist, or a `reserved` of a policy that is not zero
 *     STEADY_NO_MEMORY      `size` is too small */
STEADY_API int steady_http_fields(enum steady_http_form form, const steady_http_policy *policies, size_t n,
                                  steady_http_field *fields, char *text, size_t size);

/* The value of Retry-After: whole seconds, rounded up, at least 1. If several policies deny the request, pass the
 * longest wait. Send no Retry-After if it is -1. */
STEADY_API int64_t steady_http_retry_after(steady_us retry_after);

/* Writes the problem document for a status, which has the media type application/problem+json:
 *
 *     400   the key of the request cannot be used
 *     422   the cost of the request is over the capacity; waiting does not help
 *     429   the request is denied
 *     503   the store gave no verdict, and the policy denies the request
 *
 * The member violated-policies has the n names. Returns the length of the document without its NUL. If that is `size`
 * or more, the document is cut off, as by snprintf. 0: another status, or a name that is not printable ASCII. */
STEADY_API size_t steady_http_problem(char *out, size_t size, int status, const char *const *names, size_t n);

#ifdef __cplusplus
}
#endif

#endif
