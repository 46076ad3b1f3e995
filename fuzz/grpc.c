/* SPDX-License-Identifier: MIT
 * Fuzzes the messages of gRPC calls: a client of libnghttp2 sends any bytes as a message, and gets a grpc-status. The
 * first byte selects the call. */
#include <nghttp2/nghttp2.h>

#include "serve_rig.h"

struct call {
    const uint8_t *bytes;
    size_t len, sent;
    bool answered;
};

static ssize_t body(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                    nghttp2_data_source *source, void *data) {
    struct call *call = source->ptr;
    const size_t left = call->len - call->sent, n = left < room ? left : room;
    (void)session;
    (void)id;
    (void)data;
    if (n > 0) memcpy(out, call->bytes + call->sent, n);
    call->sent += n;
    if (call->sent == call->len) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int on_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                    const uint8_t *value, size_t value_len, uint8_t flags, void *data) {
    struct call *call = data;
    (void)session;
    (void)frame;
    (void)flags;
    if (name_len == 11 && memcmp(name, "grpc-status", 11) == 0) {
        SERVE_MUST(value_len >= 1 && value_len <= 2 && *value >= '0' && *value <= '9');
        call->answered = true;
    }
    return 0;
}

#define FIELD(name, value)                                                                                             \
    { (uint8_t *)(name), (uint8_t *)(value), strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE }

static void send_all(nghttp2_session *session, struct client *client) {
    const uint8_t *bytes;
    for (ssize_t n; (n = nghttp2_session_mem_send(session, &bytes)) > 0;)
        serve_feed(client, bytes, (size_t)n, (size_t)n);
    if (client->out.len > 0) nghttp2_session_mem_recv(session, (const uint8_t *)client->out.bytes, client->out.len);
    client->out.len = 0;
}

static void run(const char *path, const uint8_t *bytes, size_t len) {
    uint8_t message[4096];
    struct call call = {.bytes = message, .len = len + 5};
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *session;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
    nghttp2_session_client_new(&session, callbacks, &call);
    nghttp2_session_callbacks_del(callbacks);
    const uint8_t head[5] = {0, 0, 0, (uint8_t)(len >> 8), (uint8_t)len};
    memcpy(message, head, 5);
    memcpy(message + 5, bytes, len);
    const nghttp2_nv fields[] = {FIELD(":method", "POST"), FIELD(":scheme", "http"), FIELD(":path", path),
                                 FIELD(":authority", "h"), FIELD("content-type", "application/grpc")};
    const nghttp2_data_provider provider = {{.ptr = &call}, body};
    struct client *client = serve_client(&client_http2);
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, NULL, 0);
    nghttp2_submit_request(session, NULL, fields, 5, &provider, NULL);
    for (int i = 0; i < 4; i++)
        send_all(session, client);
    SERVE_MUST(call.answered);
    nghttp2_session_del(session);
    serve_end(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0 || len > 4000) return 0;
    serve_begin();
    run(bytes[0] == 'h' ? "/grpc.health.v1.Health/Check"
                        : "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
        bytes + 1, len - 1);
    return 0;
}
