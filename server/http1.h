/* SPDX-License-Identifier: MIT
 * Reads HTTP/1.1 requests (RFC 9112). It is strict: whatever two servers could read differently is an error. */
#ifndef STEADY_SERVER_HTTP1_H
#define STEADY_SERVER_HTTP1_H

#include "rules/rules.h"

enum {
    HTTP1_HEAD_MOST = 64 * 1024, /* bytes of the request line and the fields */
    HTTP1_FIELDS_MOST = HTTP1_HEAD_MOST / 4,
    HTTP1_BODY_MOST = 64 * 1024
};

struct http1_request {
    struct rules_text method;
    struct rules_text target;    /* path and query; of an absolute URL these parts */
    struct rules_text authority; /* of an absolute URL, which must be that of Host; otherwise empty */
    struct rules_field *fields;  /* the caller's memory, HTTP1_FIELDS_MOST of them */
    size_t n_fields;
    size_t head_len;
    struct rules_text body; /* decoded; inside the bytes that were read, which decoding changes */
    bool keep_alive;
    bool interim;   /* HTTP/1.1: the client knows interim answers (1xx) */
    bool continues; /* the client waits for "100 Continue" before it sends the body */
};

struct http1_error {
    int status;       /* of the answer: 400, 413, 431, 501, 505 */
    const char *text; /* what is wrong, a sentence */
};

enum http1_outcome { HTTP1_MORE, HTTP1_READ, HTTP1_FAILED };

/* How far an incomplete request was read. All zero: a new request. */
struct http1_progress {
    size_t scanned; /* there is no end of the head before */
    size_t needs;   /* the request has at least so many bytes: do not try before they are there */
    size_t chunk;   /* of a chunked body: where the next line begins; 0: the head is not complete */
    size_t body;    /* bytes of the chunks so far */
    size_t trailer; /* where the trailers begin; 0: there are more chunks */
};

/* Reads a request at the beginning of `bytes`. HTTP1_READ: *len is its length. HTTP1_MORE: it is not complete; if the
 * head is, `method` is set. HTTP1_FAILED: *error says why; as far as they can be told, `method` and `target` are set.
 */
enum http1_outcome http1_read(struct http1_request *request, char *bytes, size_t *len, struct http1_progress *progress,
                              struct http1_error *error);

#endif
