/* SPDX-License-Identifier: MIT
 * Connections of clients: bytes in, bytes out, deadlines.
 *
 * An idle connection holds no buffers. Bytes are read into the memory of the worker, and only the rest of an incomplete
 * request is kept. Answers are collected, and are sent once when the events of a turn are done. */
#include "client.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    IDLE_MS = 75 * 1000,    /* between two requests */
    READING_MS = 15 * 1000, /* from the first byte of a request to its last */
    WRITING_MS = 30 * 1000, /* until the client has read what was sent */
    LINGERING_MS = 1000,    /* until the client closes, too */
    OUT_MOST = 256 * 1024,  /* a client that does not read: its requests wait */
    IN_MOST = HTTP1_HEAD_MOST + 4 * HTTP1_BODY_MOST,
    EXCHANGES_MOST = 1024,
    ADMIN_MOST = 16,             /* connections for the admin, if the others are all taken */
    DISCARDED_MOST = 1024 * 1024 /* bytes that come after the last answer */
};

/* ---- Deadlines ---- */

static uint64_t client_time_of(const struct client *client) {
    const struct worker *worker = client->worker;
    return client->list == &worker->idle      ? IDLE_MS
           : client->list == &worker->reading ? READING_MS
           : client->list == &worker->writing ? WRITING_MS
                                              : LINGERING_MS;
}

static void client_unlist(struct client *client) {
    struct client_list *list = client->list;
    if (list == NULL) return;
    *(client->older != NULL ? &client->older->newer : &list->first) = client->newer;
    *(client->newer != NULL ? &client->newer->older : &list->last) = client->older;
    client->list = NULL;
}

/* All deadlines of a list have the same length. So a list is in the order of the deadlines. */
static void client_enlist(struct client *client, struct client_list *list) {
    client_unlist(client);
    client->list = list;
    client->deadline = client->worker->now + client_time_of(client);
    client->older = list->last;
    client->newer = NULL;
    *(list->last != NULL ? &list->last->newer : &list->first) = client;
    list->last = client;
}

static void client_set_deadline(struct client *client, bool anew) {
    struct worker *worker = client->worker;
    struct client_list *list = client->writing      ? &worker->writing
                               : client->in.len > 0 ? &worker->reading
                                                    : &worker->idle;
    if (client->list != list || anew) client_enlist(client, list);
}

void client_close_late(struct worker *worker) {
    struct client_list *lists[] = {&worker->idle, &worker->reading, &worker->writing, &worker->lingering};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        while (lists[i]->first != NULL && lists[i]->first->deadline <= worker->now) {
            struct client *client = lists[i]->first;
            if (client->first != NULL && !client->writing)
                client_enlist(client, lists[i]); /* it waits for us, not we for it */
            else
                client_close(client);
        }
}

/* ---- Buffers ---- */

static void client_take_buffer(struct worker *worker, struct buffer *buffer) {
    if (buffer->bytes == NULL && worker->n_spare > 0) *buffer = worker->spare[--worker->n_spare];
}

static void client_give_buffer(struct worker *worker, struct buffer *buffer) {
    buffer->len = 0;
    buffer->lost = false;
    if (worker->n_spare < sizeof worker->spare / sizeof worker->spare[0] && buffer->room <= 16 * 1024 &&
        buffer->room > 0) {
        worker->spare[worker->n_spare++] = *buffer;
        *buffer = (struct buffer){0};
    } else {
        buffer_free(buffer);
    }
}

struct buffer *client_out(struct client *client) {
    client_take_buffer(client->worker, &client->out);
    return &client->out;
}

/* ---- Closing ---- */

static void client_free_exchange(struct exchange *exchange) {
    if (exchange->call != NULL)
        rls_forget(exchange->call); /* it is freed with its answer */
    else if (exchange->waiting != NULL)
        question_forget(exchange->waiting);
    if (exchange->held != NULL) answer_forget(exchange->held);
    if (exchange->settling != NULL) question_forget_settling(exchange->settling);
    json_decref(exchange->explained);
    buffer_free(&exchange->reply);
    free(exchange);
}

static void client_closed(uv_handle_t *handle) {
    struct client *client = handle->data;
    struct worker *worker = client->worker;
    client_give_buffer(worker, &client->sent);
    client_give_buffer(worker, &client->out);
    buffer_free(&client->in);
    if (client->protocol != NULL) {
        metrics_counter *open = &worker->metrics.connections[client->protocol->counted_as];
        if (client->protocol->closed != NULL) client->protocol->closed(client);
        metrics_add(open, (uint64_t)-1);
    }
    atomic_fetch_sub_explicit(&worker->server->connections, 1, memory_order_relaxed);
    free(client);
}

void client_close(struct client *client) {
    if (client->condition == CLIENT_CLOSED) return;
    client->condition = CLIENT_CLOSED;
    while (client->first != NULL) {
        struct exchange *exchange = client->first;
        client->first = exchange->next;
        client_free_exchange(exchange);
    }
    client->last = NULL;
    client_unlist(client);
    uv_close(&client->handle, client_closed);
}

static void client_stop_reading(struct client *client) {
    if (!client->paused) uv_read_stop(&client->stream);
    client->paused = true;
    client_send_soon(client); /* closes it, too */
}

void client_finish(struct client *client) {
    client->finishing = true;
    client_stop_reading(client);
}

void client_end(struct client *client) {
    if (client->condition != CLIENT_OPEN) return;
    client->condition = CLIENT_ENDING;
    client->in.len = 0;
    client_stop_reading(client);
}

static bool client_is_done(const struct client *client) {
    return client->condition == CLIENT_ENDING && client->first == NULL && client->out.len == 0 && !client->writing;
}

static void client_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer);
static void client_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

/* If a socket is closed while bytes of the client are unread, the client gets a reset, perhaps before it has read the
 * answer (RFC 9112, 9.6). So we close our half, and read until the client closes. */
static void client_linger(struct client *client) {
    uv_os_fd_t fd;
    client->condition = CLIENT_LINGERING;
    if (client->at_eof || uv_fileno(&client->handle, &fd) != 0 || shutdown(fd, SHUT_WR) != 0 ||
        uv_read_start(&client->stream, client_allocate, client_on_read) != 0)
        client_close(client);
    else
        client_enlist(client, &client->worker->lingering);
}

/* ---- Writing ---- */

static void client_read_on(struct client *client);

static void client_written(uv_write_t *write, int status) {
    struct client *client = write->data;
    client->writing = false;
    if (client->condition == CLIENT_CLOSED) return;
    if (status != 0) {
        client_close(client);
        return;
    }
    client_give_buffer(client->worker, &client->sent);
    client_set_deadline(client, true);
    client_send_soon(client);
}

/* Sends at once what the socket takes; libuv writes the rest when it can. Nothing is under way in libuv then. */
static void client_flush(struct client *client) {
    if (client->condition == CLIENT_CLOSED || client->condition == CLIENT_LINGERING) return;
    if (client->out.lost) {
        client_close(client);
        return;
    }
    if (client->out.len > 0 && !client->writing) {
        uv_os_fd_t fd = -1;
        uv_fileno(&client->handle, &fd);
        const ssize_t n = send(fd, client->out.bytes, client->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            client_close(client);
            return;
        }
        if (n > 0) buffer_remove(&client->out, (size_t)n);
        if (client->out.len > 0) {
            client->sent = client->out;
            client->out = (struct buffer){0};
            const uv_buf_t whole = uv_buf_init(client->sent.bytes, (unsigned)client->sent.len);
            client->write.data = client;
            if (uv_write(&client->write, &client->stream, &whole, 1, client_written) != 0) {
                client_close(client);
                return;
            }
            client->writing = true;
        } else {
            client_give_buffer(client->worker, &client->out);
        }
        client_set_deadline(client, client->writing);
    }
    if (client_is_done(client))
        client_linger(client);
    else
        client_read_on(client);
}

static void client_nothing(uv_idle_t *idle) { (void)idle; }

/* An idle handle keeps the loop from waiting before the check handle has run. */
void client_send_soon(struct client *client) {
    if (client->is_dirty || client->condition == CLIENT_CLOSED) return;
    client->is_dirty = true;
    client->next_dirty = client->worker->dirty;
    client->worker->dirty = client;
    uv_idle_start(&client->worker->no_wait, client_nothing);
}

void client_send_dirty(struct worker *worker) {
    uv_idle_stop(&worker->no_wait);
    while (worker->dirty != NULL) {
        struct client *client = worker->dirty;
        worker->dirty = client->next_dirty;
        client->is_dirty = false;
        client_flush(client);
    }
}

/* ---- Exchanges ---- */

struct exchange *client_begin(struct client *client) {
    struct exchange *exchange = malloc(sizeof *exchange); /* calloc of glibc does not take what was just freed */
    if (exchange == NULL) return NULL;
    *exchange = (struct exchange){.client = client, .admin = client->admin};
    *(client->last != NULL ? &client->last->next : &client->first) = exchange;
    client->last = exchange;
    client->n_exchanges++;
    return exchange;
}

void client_forget(struct exchange *exchange) {
    struct client *client = exchange->client;
    struct exchange **place = &client->first, *before = NULL;
    while (*place != exchange) {
        before = *place;
        place = &(*place)->next;
    }
    *place = exchange->next;
    if (client->last == exchange) client->last = before;
    client->n_exchanges--;
    client_free_exchange(exchange);
}

struct buffer *client_reply(struct exchange *exchange) {
    return exchange->client->first == exchange ? client_out(exchange->client) : &exchange->reply;
}

/* The answers at the head go out. The reply of the first one was written to `out` directly, unless it was not the first
 * then. */
void client_answered(struct exchange *exchange) {
    struct client *client = exchange->client;
    exchange->answered = true;
    exchange->waiting = NULL;
    while (client->first != NULL && client->first->answered) {
        struct exchange *head = client->first;
        if (head->reply.len > 0) buffer_add(client_out(client), head->reply.bytes, head->reply.len);
        client->out.lost = client->out.lost || head->reply.lost;
        client->first = head->next;
        if (client->first == NULL) client->last = NULL;
        client->n_exchanges--;
        client_free_exchange(head);
    }
    client_send_soon(client);
}

/* ---- Reading ---- */

static const struct protocol *client_choose(const char *bytes, size_t len) {
    static const char preface[] = "PRI * HTTP/2.0";
    const size_t n = len < sizeof preface - 1 ? len : sizeof preface - 1;
    if (bytes[0] == '*') return &client_resp;
    if (memcmp(bytes, preface, n) != 0) return &client_http1;
    return n == sizeof preface - 1 ? &client_http2 : NULL;
}

bool client_must_wait(const struct client *client) {
    return client->out.len + client->sent.len > OUT_MOST || client->n_exchanges >= EXCHANGES_MOST ||
           (client->first != NULL && client->in.len > HTTP1_HEAD_MOST);
}

/* Hands the bytes to the protocol. Returns how many are used up, or -1 after the client was closed or is ending. */
static ptrdiff_t client_hand_over(struct client *client, char *bytes, size_t len) {
    if (client->protocol == NULL) {
        client->protocol = client_choose(bytes, len);
        if (client->protocol == NULL) return 0;
        metrics_add(&client->worker->metrics.connections[client->protocol->counted_as], 1);
    }
    const ptrdiff_t used = client->protocol->read(client, bytes, len);
    if (used < 0) client_end(client);
    if (client->condition != CLIENT_OPEN) return -1;
    return used;
}

static void client_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    struct client *client = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(client->worker->read, sizeof client->worker->read);
}

/* The client sends no more. It may have closed its half only; then it gets its answers. One that has gone must not keep
 * its place in line: it is probed, or if that is not possible, it counts as gone. */
static void client_on_eof(struct client *client) {
    client->at_eof = true;
    for (const struct exchange *exchange = client->first; exchange != NULL; exchange = exchange->next)
        if (exchange->held != NULL && !exchange->interim) {
            client_close(client);
            return;
        }
    client_finish(client);
    for (const struct exchange *exchange = client->first; exchange != NULL; exchange = exchange->next)
        if (exchange->held != NULL) answer_probe(exchange->held);
}

static void client_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    struct client *client = stream->data;
    const bool whole = client->in.len == 0; /* nothing is left of an earlier read */
    if (n > 0 && client->condition == CLIENT_LINGERING) {
        client->discarded += (size_t)n;
        if (client->discarded > DISCARDED_MOST) client_close(client);
    }
    if (n == 0 || (n > 0 && client->condition != CLIENT_OPEN)) return;
    if (n < 0) {
        if (n == UV_EOF && client->condition == CLIENT_OPEN)
            client_on_eof(client);
        else
            client_close(client);
        return;
    }
    if (!whole) buffer_add(&client->in, buffer->base, (size_t)n);
    char *bytes = whole ? buffer->base : client->in.bytes;
    const size_t len = whole ? (size_t)n : client->in.len;
    const ptrdiff_t used = client_hand_over(client, bytes, len);
    if (used < 0) return;
    if (whole)
        buffer_add(&client->in, bytes + used, len - (size_t)used);
    else
        buffer_remove(&client->in, (size_t)used);
    if (client->in.lost || client->in.len > IN_MOST) {
        client_close(client);
        return;
    }
    if (client->in.len == 0) buffer_free(&client->in);
    client_set_deadline(client, used > 0);
    if (client_must_wait(client)) {
        uv_read_stop(&client->stream);
        client->paused = true;
    }
}

/* After answers: goes on with requests that were read already, then reads again. */
static void client_read_on(struct client *client) {
    ptrdiff_t used = 0;
    if (client->condition != CLIENT_OPEN || client_must_wait(client)) return;
    if (client->in.len > 0 && client->protocol != NULL) {
        used = client_hand_over(client, client->in.bytes, client->in.len);
        if (used < 0) return;
        if (used > 0) {
            buffer_remove(&client->in, (size_t)used);
            client_set_deadline(client, true);
        }
        if (client->in.len == 0) buffer_free(&client->in);
    }
    if (client->finishing) {
        if (client->first == NULL && (client->in.len == 0 || used == 0)) client_end(client);
        return;
    }
    if (client->paused && !client_must_wait(client)) {
        client->paused = uv_read_start(&client->stream, client_allocate, client_on_read) != 0;
        if (client->paused) client_close(client);
    }
}

/* ---- Accepting ---- */

static void client_note_peer(struct client *client) {
    struct sockaddr_storage from;
    int len = sizeof from;
    if (client->handle.type != UV_TCP || uv_tcp_getpeername(&client->tcp, (struct sockaddr *)&from, &len) != 0) return;
    client->has_peer = true;
    if (from.ss_family == AF_INET6) {
        memcpy(client->peer.bytes, &((struct sockaddr_in6 *)&from)->sin6_addr, 16);
    } else {
        memcpy(client->peer.bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
        memcpy(client->peer.bytes + 12, &((struct sockaddr_in *)&from)->sin_addr, 4);
    }
}

void client_accept(struct worker *worker, uv_stream_t *listener, bool admin) {
    struct server *server = worker->server;
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) return;
    client->worker = worker;
    client->admin = admin;
    const int error = listener->type == UV_TCP ? uv_tcp_init(&worker->loop, &client->tcp)
                                               : uv_pipe_init(&worker->loop, &client->pipe, 0);
    if (error != 0) {
        free(client);
        return;
    }
    client->handle.data = client;
    const unsigned open = atomic_fetch_add_explicit(&server->connections, 1, memory_order_relaxed);
    if (uv_accept(listener, &client->stream) != 0 ||
        open >= server->options.max_connections + (admin ? ADMIN_MOST : 0)) {
        client_close(client);
        return;
    }
    if (listener->type == UV_TCP) uv_tcp_nodelay(&client->tcp, 1);
    client_note_peer(client);
    client_set_deadline(client, true);
    if (uv_read_start(&client->stream, client_allocate, client_on_read) != 0) client_close(client);
}

/* ---- The end of the daemon ---- */

bool client_any(const struct worker *worker) {
    return worker->idle.first != NULL || worker->reading.first != NULL || worker->writing.first != NULL ||
           worker->lingering.first != NULL;
}

static void client_drain_list(struct client_list *list, bool last) {
    for (struct client *client = list->first, *next; client != NULL; client = next) {
        next = client->newer;
        if (client->protocol != NULL)
            client->protocol->drain(client, last);
        else if (last)
            client_end(client);
    }
}

void client_drain_all(struct worker *worker, bool last) {
    client_drain_list(&worker->idle, last);
    client_drain_list(&worker->reading, last);
    client_drain_list(&worker->writing, last);
}

static void client_close_list(struct client_list *list) {
    while (list->first != NULL)
        client_close(list->first);
}

void client_close_all(struct worker *worker) {
    client_close_list(&worker->idle);
    client_close_list(&worker->reading);
    client_close_list(&worker->writing);
    client_close_list(&worker->lingering);
}
