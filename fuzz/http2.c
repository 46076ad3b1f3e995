/* SPDX-License-Identifier: MIT
 * Fuzzes HTTP/2: the bytes of a client behind the preface. */
#include "serve_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    serve_begin();
    struct client *client = serve_client(&client_http2);
    serve_feed(client, (const uint8_t *)preface, sizeof preface, sizeof preface);
    if (len > 0) serve_feed(client, bytes, len, bytes[len - 1] % len);
    serve_end(client);
    return 0;
}
