/* SPDX-License-Identifier: MIT
 * Fuzzes HTTP/1.1. The parser says the same of bytes that come at once and one by one, and what it reads is inside
 * them. The daemon then answers the bytes: each answer begins with a status line, and /v1/check/403 has no other
 * status than 200 and 403. */
#include "server/http1.h"
#include "serve_rig.h"

static struct rules_field fields[HTTP1_FIELDS_MOST];

static bool inside(struct rules_text text, const char *bytes, size_t len) {
    return text.len == 0 || (text.bytes >= bytes && text.bytes + text.len <= bytes + len);
}

static void compare(const uint8_t *bytes, size_t len) {
    char *once = malloc(len + 1), *steps = malloc(len + 1);
    struct http1_request a = {.fields = fields}, b = {.fields = fields};
    struct http1_progress progress = {0};
    struct http1_error error;
    size_t n = len, m = 0, have = 0;
    SERVE_MUST(once != NULL && steps != NULL);
    memcpy(once, bytes, len);
    memcpy(steps, bytes, len);
    const enum http1_outcome outcome = http1_read(&a, once, &n, &(struct http1_progress){0}, &error);
    enum http1_outcome step = HTTP1_MORE;
    while (step == HTTP1_MORE && have < len) {
        m = ++have;
        if (have >= progress.needs) step = http1_read(&b, steps, &m, &progress, &error);
    }
    /* The first error may be another one, and may come before the bytes that make the head complete. */
    SERVE_MUST(step == outcome || (outcome == HTTP1_MORE && len == 0));
    if (outcome == HTTP1_READ) {
        SERVE_MUST(n == m && n <= len && a.n_fields == b.n_fields && a.body.len == b.body.len);
        SERVE_MUST(inside(a.method, once, len) && inside(a.body, once, len) && a.body.len <= HTTP1_BODY_MOST);
        SERVE_MUST(memcmp(a.body.bytes, b.body.bytes, a.body.len) == 0);
        for (size_t i = 0; i < a.n_fields; i++)
            SERVE_MUST(inside(fields[i].name, steps, len) && inside(fields[i].value, steps, len));
    }
    free(once);
    free(steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const char strict[] = "GET /v1/check/403 HTTP/1.1\r\n";
    if (len == 0) return 0;
    compare(bytes, len);
    serve_begin();
    struct client *client = serve_client(&client_http1);
    serve_feed(client, bytes, len, bytes[len - 1] % len);
    SERVE_MUST(client->out.len == 0 || (client->out.len > 12 && memcmp(client->out.bytes, "HTTP/1.1 ", 9) == 0));
    if (len > sizeof strict && memcmp(bytes, strict, sizeof strict - 1) == 0 && client->out.len > 0 &&
        memcmp(client->out.bytes + 9, "100", 3) != 0)
        SERVE_MUST(memcmp(client->out.bytes + 9, "200", 3) == 0 || memcmp(client->out.bytes + 9, "403", 3) == 0);
    serve_end(client);
    return 0;
}
