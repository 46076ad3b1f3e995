/* SPDX-License-Identifier: MIT
 * Fuzzes RESP: the daemon answers any bytes behind the first `*`, and its answers are RESP. */
#include "serve_rig.h"

/* The end of a reply at `at`. */
static const char *skip(const char *at, const char *end) {
    const char *lf = memchr(at, '\n', (size_t)(end - at));
    SERVE_MUST(lf != NULL && lf[-1] == '\r' && lf - at >= 2);
    const long n = strtol(at + 1, NULL, 10);
    switch (*at) {
    case '+':
    case '-':
    case ':': return lf + 1;
    case '$': SERVE_MUST(n >= 0 && n + 2 <= end - lf - 1 && memcmp(lf + 1 + n, "\r\n", 2) == 0); return lf + 1 + n + 2;
    case '*':
    case '%':
        at = lf + 1;
        for (long i = 0; i < (lf[0] == '\n' && n > 0 ? n : 0); i++)
            at = skip(at, end);
        return at;
    default: abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0 || bytes[0] != '*') return 0;
    serve_begin();
    struct client *client = serve_client(&client_resp);
    client->admin = bytes[len - 1] & 1;
    serve_feed(client, bytes, len, bytes[len - 1] % len);
    const char *end = client->out.bytes + client->out.len;
    for (const char *at = client->out.bytes; at < end;) {
        if (*at == '%') { /* of HELLO 3: pairs */
            at = memchr(at, '\n', (size_t)(end - at)) + 1;
            for (int i = 0; i < 8; i++)
                at = skip(at, end);
        } else {
            at = skip(at, end);
        }
    }
    serve_end(client);
    return 0;
}
