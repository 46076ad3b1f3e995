/* SPDX-License-Identifier: MIT
 * HTTP/2 on a connection.
 *
 * libnghttp2 does the framing. What it leaves to us is the amount: of streams, of bytes that streams hold, and of
 * frames that cost us work and bring no request (resets, pings, settings, empty frames). Such frames have a budget,
 * which each request refills. A connection that overdraws it is closed with ENHANCE_YOUR_CALM. */
#include "http2.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "grpc.h"

enum {
    STREAMS_MOST = 128,
    HELD_MOST = 1024 * 1024, /* bytes of requests that a connection holds */
    BUDGET_MOST = 2000,      /* frames without a request */
    BUDGET_REFILL = 10,      /* for each request */
    REQUESTS_MOST = 10 * 1000 * 1000,
    REQUESTS_AFTER = 10 * 1000, /* while the client hears of it */
    STREAM_MS = 15 * 1000       /* from the first byte of a request to its last */
};

struct stream {
    int32_t id;
    struct stream *next, *previous; /* of the connection */
    struct exchange *exchange;      /* NULL: not asked yet, or answered */
    struct buffer fields;           /* name NUL value NUL ... of the request */
    size_t n_fields;
    struct buffer body;
    int too_large; /* the status that says what is; 0: nothing */
    bool asked, answered;
    uint64_t begun;      /* ms of the loop */
    struct buffer reply; /* the body of the answer */
    size_t sent;
    bool is_grpc;
    char grpc_status[4];
    struct buffer grpc_text;
};

struct http2 {
    nghttp2_session *session;
    struct client *client;
    struct stream *streams;
    size_t held, n_incomplete; /* streams whose request has not come as a whole */
    int64_t budget;
    uint64_t requests;
    bool going;
    bool reading; /* libnghttp2 reads: send afterwards */
};

/* ---- Streams ---- */

static void http2_hold(struct http2 *http2, struct buffer *buffer, const void *bytes, size_t len) {
    const size_t before = buffer->room;
    buffer_add(buffer, bytes, len);
    http2->held += buffer->room - before;
}

static void http2_free_request(struct http2 *http2, struct stream *stream) {
    http2->held -= stream->fields.room + stream->body.room;
    buffer_free(&stream->fields);
    buffer_free(&stream->body);
}

static void http2_free_stream(struct http2 *http2, struct stream *stream) {
    http2_free_request(http2, stream);
    http2->n_incomplete -= !stream->asked;
    *(stream->previous != NULL ? &stream->previous->next : &http2->streams) = stream->next;
    if (stream->next != NULL) stream->next->previous = stream->previous;
    buffer_free(&stream->reply);
    buffer_free(&stream->grpc_text);
    free(stream);
}

/* ---- Sending ---- */

static void http2_flush(struct http2 *http2) {
    const uint8_t *bytes;
    for (ssize_t n; (n = nghttp2_session_mem_send(http2->session, &bytes)) > 0;)
        buffer_add(client_out(http2->client), bytes, (size_t)n);
    client_send_soon(http2->client);
    if (nghttp2_session_want_read(http2->session) == 0 && nghttp2_session_want_write(http2->session) == 0)
        client_end(http2->client);
}

static void http2_calm(struct http2 *http2) {
    nghttp2_session_terminate_session(http2->session, NGHTTP2_ENHANCE_YOUR_CALM);
    http2->going = true;
}

static void http2_go_away(struct http2 *http2) {
    http2->going = true;
    nghttp2_submit_goaway(http2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(http2->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
}

/* A frame that brings no request. */
static void http2_spend(struct http2 *http2) {
    if (--http2->budget < 0 && !http2->going) http2_calm(http2);
}

static nghttp2_nv http2_field(struct rules_text name, struct rules_text value) {
    return (nghttp2_nv){(uint8_t *)name.bytes, (uint8_t *)value.bytes, name.len, value.len, NGHTTP2_NV_FLAG_NONE};
}

static ssize_t http2_read_reply(nghttp2_session *session, int32_t id, uint8_t *out, size_t room, uint32_t *flags,
                                nghttp2_data_source *source, void *data) {
    struct stream *stream = source->ptr;
    const size_t left = stream->reply.len - stream->sent, n = left < room ? left : room;
    (void)data;
    if (n > 0) memcpy(out, stream->reply.bytes + stream->sent, n);
    stream->sent += n;
    if (stream->sent < stream->reply.len) return (ssize_t)n;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->is_grpc) {
        nghttp2_nv trailers[2] = {http2_field(http_text("grpc-status"), http_text(stream->grpc_status))};
        size_t n_trailers = 1;
        if (stream->grpc_text.len > 0)
            trailers[n_trailers++] = http2_field(http_text("grpc-message"),
                                                 (struct rules_text){stream->grpc_text.bytes, stream->grpc_text.len});
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailers, n_trailers);
    }
    return (ssize_t)n;
}

static void http2_submit(struct exchange *exchange, int status, const struct rules_field *fields, size_t n_fields,
                         bool with_length) {
    struct client *client = exchange->client;
    struct http2 *http2 = client->state;
    struct stream *stream = nghttp2_session_get_stream_user_data(http2->session, exchange->stream);
    nghttp2_nv nv[HTTP_FIELDS_MOST + 2];
    char code[4] = {0}, length[24];
    size_t n = 0;
    client_forget(exchange);
    if (stream == NULL) return; /* the client has reset it */
    stream->exchange = NULL;
    stream->answered = true;
    for (int i = 2, rest = status; i >= 0; i--, rest /= 10) /* snprintf took a 20th of the instructions of a call */
        code[i] = (char)('0' + rest % 10);
    nv[n++] = http2_field(http_text(":status"), http_text(code));
    for (size_t i = 0; i < n_fields; i++)
        nv[n++] = http2_field(fields[i].name, fields[i].value);
    if (with_length) {
        snprintf(length, sizeof length, "%zu", stream->reply.len);
        nv[n++] = http2_field(http_text("content-length"), http_text(length));
    }
    const nghttp2_data_provider provider = {{.ptr = stream}, http2_read_reply};
    const bool body = stream->reply.len > 0 || stream->is_grpc;
    nghttp2_submit_response(http2->session, stream->id, nv, n, body ? &provider : NULL);
    if (!http2->reading) http2_flush(http2);
}

void http2_respond(struct exchange *exchange, const struct http_response *response) {
    struct http2 *http2 = exchange->client->state;
    struct stream *stream = nghttp2_session_get_stream_user_data(http2->session, exchange->stream);
    if (stream != NULL && !exchange->head_only) buffer_add(&stream->reply, response->body.bytes, response->body.len);
    http2_submit(exchange, response->status, response->fields, response->n_fields, true);
}

/* grpc-message is percent-encoded (gRPC over HTTP/2). */
static void http2_add_message(struct buffer *out, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text >= ' ' && *text <= '~' && *text != '%')
            buffer_add(out, text, 1);
        else
            buffer_add_format(out, "%%%02X", (unsigned char)*text);
    }
}

void http2_respond_grpc(struct exchange *exchange, enum grpc_status status, const char *text,
                        struct rules_text message) {
    struct http2 *http2 = exchange->client->state;
    struct stream *stream = nghttp2_session_get_stream_user_data(http2->session, exchange->stream);
    const struct rules_field type = {http_text("content-type"), http_text("application/grpc")};
    if (stream != NULL) {
        stream->is_grpc = true;
        if (status == GRPC_OK) {
            memcpy(stream->grpc_status, "0", 2);
            const unsigned char head[5] = {0, (unsigned char)(message.len >> 24), (unsigned char)(message.len >> 16),
                                           (unsigned char)(message.len >> 8), (unsigned char)message.len};
            buffer_add(&stream->reply, head, sizeof head);
            buffer_add(&stream->reply, message.bytes, message.len);
        } else {
            snprintf(stream->grpc_status, sizeof stream->grpc_status, "%d", (int)status);
            http2_add_message(&stream->grpc_text, text);
        }
    }
    http2_submit(exchange, 200, &type, 1, false);
}

/* ---- Requests ---- */

static bool http2_is(struct rules_text text, const char *word) {
    return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

/* Fills the request from the fields of the stream. :authority stands for Host, and a Host beside it must say the same.
 * Otherwise two servers could see two hosts. */
static bool http2_read_fields(struct http_request *request, const struct stream *stream, struct rules_field *fields) {
    const char *at = stream->fields.bytes;
    struct rules_text authority = {0};
    bool right = true;
    *request = (struct http_request){.fields = fields, .head_len = stream->fields.len};
    for (size_t i = 0; i < stream->n_fields; i++) {
        struct rules_field field;
        field.name = http_text(at);
        field.value = http_text(at + field.name.len + 1);
        at += field.name.len + field.value.len + 2;
        if (http2_is(field.name, ":method"))
            request->method = field.value;
        else if (http2_is(field.name, ":path"))
            request->target = field.value;
        else if (http2_is(field.name, ":authority"))
            fields[request->n_fields++] = (struct rules_field){http_text("host"), authority = field.value};
        else if (authority.bytes != NULL && http2_is(field.name, "host"))
            right = field.value.len == authority.len && strcasecmp(field.value.bytes, authority.bytes) == 0;
        else if (field.name.bytes[0] != ':')
            fields[request->n_fields++] = field;
    }
    http_split_target(request);
    return right;
}

static void http2_ask(struct http2 *http2, struct stream *stream) {
    struct client *client = http2->client;
    struct http_request request;
    struct exchange *exchange = client_begin(client);
    stream->asked = true;
    http2->n_incomplete--;
    if (exchange == NULL || stream->fields.lost || stream->body.lost) {
        if (exchange != NULL) client_forget(exchange);
        nghttp2_submit_rst_stream(http2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_REFUSED_STREAM);
        return;
    }
    stream->exchange = exchange;
    exchange->stream = stream->id;
    http2->budget += http2->budget < BUDGET_MOST ? BUDGET_REFILL : 0;
    if (++http2->requests == REQUESTS_MOST) nghttp2_submit_shutdown_notice(http2->session);
    if (http2->requests == REQUESTS_MOST + REQUESTS_AFTER) http2_go_away(http2);
    const bool one_host = http2_read_fields(&request, stream, client->worker->fields);
    request.body = (struct rules_text){stream->body.bytes, stream->body.len};
    exchange->head_only = http2_is(request.method, "HEAD");
    struct rules_text type = {0};
    const bool is_grpc = http_field(&request, "content-type", &type) == 1 && type.len >= 16 &&
                         memcmp(type.bytes, "application/grpc", 16) == 0;
    const char *what =
        stream->too_large == 413 ? "the body is larger than 64 KiB" : "the fields are larger than 64 KiB";
    if (stream->too_large != 0 && is_grpc)
        http2_respond_grpc(exchange, GRPC_RESOURCE_EXHAUSTED, what, (struct rules_text){0});
    else if (stream->too_large != 0)
        http_reject(exchange, request.target, stream->too_large, what);
    else if (!one_host)
        http_reject(exchange, request.target, 400, "Host is not :authority");
    else if (is_grpc)
        grpc_handle(exchange, &request);
    else
        http_route(exchange, &request);
    /* The stream may be gone. */
}

/* ---- What libnghttp2 reports ---- */

static int http2_on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
    struct http2 *http2 = data;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    stream->id = frame->hd.stream_id;
    stream->begun = http2->client->worker->now;
    http2->n_incomplete++;
    stream->next = http2->streams;
    if (stream->next != NULL) stream->next->previous = stream;
    http2->streams = stream;
    nghttp2_session_set_stream_user_data(session, stream->id, stream);
    return 0;
}

static int http2_on_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                          const uint8_t *value, size_t value_len, uint8_t flags, void *data) {
    struct http2 *http2 = data;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    if (stream == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0; /* trailers */
    if (stream->n_fields == HTTP1_FIELDS_MOST || stream->fields.len + name_len + value_len > HTTP1_HEAD_MOST ||
        http2->held > HELD_MOST || memchr(value, '\0', value_len) != NULL) {
        stream->too_large = 431;
        return 0;
    }
    http2_hold(http2, &stream->fields, name, name_len);
    http2_hold(http2, &stream->fields, "", 1);
    http2_hold(http2, &stream->fields, value, value_len);
    http2_hold(http2, &stream->fields, "", 1);
    stream->n_fields++;
    return 0;
}

static int http2_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t len,
                         void *data) {
    struct http2 *http2 = data;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    (void)flags;
    if (stream == NULL || stream->answered) return 0;
    if (stream->body.len + len > HTTP1_BODY_MOST || http2->held > HELD_MOST)
        stream->too_large = stream->too_large == 0 ? 413 : stream->too_large;
    else
        http2_hold(http2, &stream->body, bytes, len);
    return 0;
}

static int http2_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
    struct http2 *http2 = data;
    const bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (ends) {
            struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
            if (stream != NULL && !stream->asked) http2_ask(http2, stream);
        } else if (frame->hd.type == NGHTTP2_DATA && frame->hd.length < 64) {
            http2_spend(http2); /* small pieces */
        }
        break;
    default: http2_spend(http2);
    }
    return 0;
}

/* libnghttp2 answers it, if the connection can go on. */
static int http2_on_invalid(nghttp2_session *session, const nghttp2_frame *frame, int error, void *data) {
    (void)session;
    (void)frame;
    (void)error;
    http2_spend(data);
    return 0;
}

static int http2_on_close(nghttp2_session *session, int32_t id, uint32_t code, void *data) {
    struct http2 *http2 = data;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    (void)code;
    if (stream == NULL) return 0;
    if (stream->exchange != NULL) client_forget(stream->exchange);
    http2_free_stream(http2, stream);
    return 0;
}

static nghttp2_session_callbacks *http2_callbacks(void) {
    nghttp2_session_callbacks *callbacks = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, http2_on_begin);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, http2_on_field);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, http2_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, http2_on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, http2_on_invalid);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, http2_on_close);
    return callbacks;
}

/* ---- The connection ---- */

static struct http2 *http2_open(struct client *client) {
    struct http2 *http2 = calloc(1, sizeof *http2);
    nghttp2_session_callbacks *callbacks = http2_callbacks();
    nghttp2_option *option = NULL;
    int error = http2 != NULL && callbacks != NULL ? nghttp2_option_new(&option) : NGHTTP2_ERR_NOMEM;
    if (error == 0) {
        nghttp2_option_set_max_settings(option, 32);
        nghttp2_option_set_max_outbound_ack(option, 1000);
        http2->client = client;
        http2->budget = BUDGET_MOST;
        error = nghttp2_session_server_new2(&http2->session, callbacks, http2, option);
    }
    if (error == 0) {
        const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MOST},
                                                   {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP1_HEAD_MOST}};
        nghttp2_submit_settings(http2->session, NGHTTP2_FLAG_NONE, settings, 2);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (error == 0) return http2;
    free(http2);
    return NULL;
}

/* A client that sends a request a byte at a time. */
static void http2_reset_late(struct http2 *http2) {
    const uint64_t now = http2->client->worker->now;
    for (struct stream *stream = http2->streams; stream != NULL; stream = stream->next)
        if (!stream->asked && now - stream->begun > STREAM_MS)
            nghttp2_submit_rst_stream(http2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
}

static ptrdiff_t http2_read(struct client *client, char *bytes, size_t len) {
    struct http2 *http2 = client->state;
    if (http2 == NULL) http2 = client->state = http2_open(client);
    if (http2 == NULL) return -1;
    http2->reading = true;
    const ssize_t n = nghttp2_session_mem_recv(http2->session, (const uint8_t *)bytes, len);
    http2->reading = false;
    if (http2->n_incomplete > 0) http2_reset_late(http2);
    http2_flush(http2);
    return n < 0 ? -1 : (ptrdiff_t)len;
}

/* RFC 9113, 6.8: the first GOAWAY lets requests that are on their way pass, the last one says which were read. */
static void http2_drain(struct client *client, bool last) {
    struct http2 *http2 = client->state;
    if (http2 == NULL) {
        if (last) client_end(client);
        return;
    }
    if (last)
        http2_go_away(http2);
    else
        nghttp2_submit_shutdown_notice(http2->session);
    http2_flush(http2);
    if (last && http2->streams == NULL) client_end(client);
}

static void http2_closed(struct client *client) {
    struct http2 *http2 = client->state;
    if (http2 == NULL) return;
    for (struct stream *stream = http2->streams, *next; stream != NULL; stream = next) {
        next = stream->next;
        http2_free_stream(http2, stream);
    }
    nghttp2_session_del(http2->session);
    free(http2);
}

const struct protocol client_http2 = {
    .name = "http2", .counted_as = METRICS_GRPC, .read = http2_read, .drain = http2_drain, .closed = http2_closed};
