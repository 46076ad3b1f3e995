/* SPDX-License-Identifier: MIT
 * One connected socket: the requests on the wire, and the order in which their replies are due.
 *
 * Replies come in the order of the requests. So a ring of slots tells to which request the next reply belongs. A slot
 * whose request is NULL is a tombstone: its reply is dropped. Each slot holds the position of its request in the stream
 * of bytes. A request that begins before `sent` may be at the server.
 *
 * The ring consists of blocks of slots. When it grows, only pointers to blocks move. So growing to a million slots does
 * not hold the loop. */
#include "conn/pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 32            /* slots in a block */
#define FIRST_ROOM 2        /* blocks: enough for ASKING and a request, wherever they begin */
#define RECEIVE_MOST 131072 /* in one call, so that the caller can let the loop go on */

struct steady__pipeline_block {
    struct steady__pipeline_block *next; /* in the list of spare blocks */
    struct steady__pipeline_slot slots[BLOCK];
};

static bool pipeline_add_spare(struct steady__pipeline *pipeline) {
    struct steady__pipeline_block *block = malloc(sizeof *block);
    if (block == NULL) return false;
    block->next = pipeline->spare;
    pipeline->spare = block;
    return true;
}

int steady__pipeline_init(struct steady__pipeline *pipeline, const struct steady__net *net, uint32_t max_unanswered) {
    memset(pipeline, 0, sizeof *pipeline);
    pipeline->net = net;
    pipeline->fd = -1;
    pipeline->max = max_unanswered;
    pipeline->blocks = calloc(FIRST_ROOM, sizeof(void *));
    if (pipeline->blocks != NULL) pipeline->room = FIRST_ROOM;
    pipeline->out = malloc(STEADY__PIPELINE_OUT);
    pipeline->out_room = STEADY__PIPELINE_OUT;
    pipeline->in = malloc(STEADY__PIPELINE_IN);
    pipeline->in_room = STEADY__PIPELINE_IN;
    bool spares = true;
    for (int i = 0; i < FIRST_ROOM && spares; i++)
        spares = pipeline_add_spare(pipeline);
    if (pipeline->blocks != NULL && pipeline->out != NULL && pipeline->in != NULL && spares) return 0;
    steady__pipeline_free(pipeline);
    return -1;
}

/* Moves a block from the ring to the spare ones. */
static void pipeline_retire(struct steady__pipeline *pipeline, uint32_t at) {
    struct steady__pipeline_block *block = pipeline->blocks[at];
    pipeline->blocks[at] = NULL;
    if (block == NULL) return;
    block->next = pipeline->spare;
    pipeline->spare = block;
}

static void pipeline_retire_all(struct steady__pipeline *pipeline) {
    for (uint32_t i = 0; i < pipeline->room; i++)
        pipeline_retire(pipeline, i);
}

void steady__pipeline_free(struct steady__pipeline *pipeline) {
    pipeline_retire_all(pipeline);
    free(pipeline->blocks);
    pipeline->blocks = NULL;
    pipeline->room = 0;
    while (pipeline->spare != NULL) {
        struct steady__pipeline_block *block = pipeline->spare;
        pipeline->spare = block->next;
        free(block);
    }
    if (pipeline->out != NULL) explicit_bzero(pipeline->out, pipeline->out_used); /* it held AUTH */
    if (pipeline->in != NULL) explicit_bzero(pipeline->in, pipeline->in_used);    /* the server may have quoted it */
    free(pipeline->out);
    free(pipeline->in);
    pipeline->out = pipeline->in = NULL;
}

void steady__pipeline_open(struct steady__pipeline *pipeline, int fd, struct steady__tls *tls, steady_us timeout,
                           steady_us round_trip) {
    pipeline->fd = fd;
    pipeline->tls = tls;
    pipeline->broken = 0;
    pipeline->sent = 0;
    pipeline->out_from = pipeline->out_to = pipeline->in_from = pipeline->in_to = 0;
    pipeline->head = pipeline->tail = 0;
    pipeline_retire_all(pipeline);
    pipeline->progress = (struct steady__progress){0};
    steady__window_open(&pipeline->window, timeout, round_trip);
}

void steady__pipeline_close(struct steady__pipeline *pipeline) {
    if (pipeline->tls != NULL)
        pipeline->sent += steady__tls_half_sent(pipeline->tls); /* a record that was sent in part counts as sent */
    steady__tls_free(pipeline->tls);
    pipeline->tls = NULL;
    if (pipeline->fd >= 0) pipeline->net->close(pipeline->net, pipeline->fd);
    pipeline->fd = -1;
}

static uint32_t pipeline_block_at(const struct steady__pipeline *pipeline, uint64_t number) {
    return (uint32_t)(number / BLOCK) & (pipeline->room - 1);
}

static struct steady__pipeline_slot *pipeline_slot(struct steady__pipeline *pipeline, uint64_t number) {
    return &pipeline->blocks[pipeline_block_at(pipeline, number)]->slots[number % BLOCK];
}

/* The first slot; it counts for nothing any more, but stays readable until the next request is put. */
static struct steady__pipeline_slot *pipeline_take_slot(struct steady__pipeline *pipeline) {
    struct steady__pipeline_slot *first = pipeline_slot(pipeline, pipeline->head);
    const uint32_t at = pipeline_block_at(pipeline, pipeline->head++);
    if (pipeline->head % BLOCK == 0) pipeline_retire(pipeline, at);
    return first;
}

struct steady__request *steady__pipeline_take_unwritten(struct steady__pipeline *pipeline) {
    while (!steady__pipeline_idle(pipeline) && pipeline_slot(pipeline, pipeline->tail - 1)->begin >= pipeline->sent) {
        struct steady__request *request = pipeline_slot(pipeline, --pipeline->tail)->request;
        if (request == NULL) continue;
        request->state = STEADY__REQUEST_OFF_WIRE;
        return request;
    }
    return NULL;
}

bool steady__pipeline_take_first(struct steady__pipeline *pipeline, struct steady__request **request) {
    if (steady__pipeline_idle(pipeline)) return false;
    *request = pipeline_take_slot(pipeline)->request;
    if (*request != NULL) (*request)->state = STEADY__REQUEST_OFF_WIRE;
    return true;
}

/* Doubles the ring. */
static bool pipeline_grow(struct steady__pipeline *pipeline) {
    struct steady__pipeline_block **blocks = calloc(2 * (size_t)pipeline->room, sizeof(void *));
    if (blocks == NULL) return false;
    for (uint32_t i = 0; i < pipeline->room; i++) {
        const uint64_t block = pipeline->head / BLOCK + i;
        blocks[block & (2 * pipeline->room - 1)] = pipeline->blocks[block & (pipeline->room - 1)];
    }
    free(pipeline->blocks);
    pipeline->blocks = blocks;
    pipeline->room *= 2;
    return true;
}

/* Makes room for more slots. False: out of memory; then unanswered requests must be answered first. */
static bool pipeline_provide(struct steady__pipeline *pipeline, unsigned requests) {
    const uint64_t first = pipeline->head / BLOCK, last = (pipeline->tail + requests - 1) / BLOCK;
    if (last - first >= pipeline->room && !pipeline_grow(pipeline)) return false;
    for (uint64_t block = pipeline->tail / BLOCK; block <= last; block++) {
        struct steady__pipeline_block **at = &pipeline->blocks[block & (pipeline->room - 1)];
        if (*at != NULL) continue;
        if (pipeline->spare == NULL && !pipeline_add_spare(pipeline)) return false;
        *at = pipeline->spare;
        pipeline->spare = pipeline->spare->next;
    }
    return true;
}

/* Gives an empty buffer another size. It may have held AUTH. */
static bool pipeline_resize_out(struct steady__pipeline *pipeline, size_t room) {
    char *out = malloc(room);
    if (out == NULL) return false;
    explicit_bzero(pipeline->out, pipeline->out_used);
    free(pipeline->out);
    pipeline->out = out;
    pipeline->out_room = room;
    pipeline->out_used = 0;
    return true;
}

/* Makes room for a request that is longer than the buffer. It waits until the buffer is empty. Otherwise the bytes of
 * the others would move, and those that TLS has begun to send must not. */
static bool pipeline_lengthen_out(struct steady__pipeline *pipeline, size_t size) {
    if (size <= STEADY__PIPELINE_OUT || pipeline->out_to > 0) return false;
    return size <= pipeline->out_room || pipeline_resize_out(pipeline, size);
}

char *steady__pipeline_room(struct steady__pipeline *pipeline, unsigned requests, size_t size) {
    const uint64_t unanswered = pipeline->tail - pipeline->head + requests;
    if (unanswered > pipeline->window.size) {
        pipeline->window.was_full = true;
        return NULL;
    }
    if (unanswered > pipeline->max) return NULL;
    if (pipeline->out_to + size > STEADY__PIPELINE_OUT && !pipeline_lengthen_out(pipeline, size)) return NULL;
    return pipeline_provide(pipeline, requests) ? pipeline->out + pipeline->out_to : NULL;
}

void steady__pipeline_put(struct steady__pipeline *pipeline, struct steady__request *request, size_t len) {
    struct steady__pipeline_slot *s = pipeline_slot(pipeline, pipeline->tail);
    s->request = request;
    s->begin = pipeline->sent + (pipeline->out_to - pipeline->out_from);
    s->since = pipeline->clock;
    s->ahead = (uint32_t)(pipeline->tail - pipeline->head);
    s->nested = request != NULL ? request->nested : 0;
    if (request != NULL) request->number = pipeline->tail;
    if (request != NULL) request->state = STEADY__REQUEST_ON_WIRE;
    pipeline->tail++;
    pipeline->out_to += len;
    if (pipeline->out_to > pipeline->out_used) pipeline->out_used = pipeline->out_to;
}

static ssize_t pipeline_send_some(struct steady__pipeline *pipeline) {
    const char *bytes = pipeline->out + pipeline->out_from;
    const size_t len = pipeline->out_to - pipeline->out_from;
    if (pipeline->tls != NULL) return steady__tls_send(pipeline->tls, bytes, len);
    return pipeline->net->send(pipeline->net, pipeline->fd, bytes, len);
}

bool steady__pipeline_flush(struct steady__pipeline *pipeline) {
    while (pipeline->out_from < pipeline->out_to && pipeline->broken == 0) {
        const ssize_t n = pipeline_send_some(pipeline);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) pipeline->broken = errno;
            return false;
        }
        pipeline->out_from += (size_t)n;
        pipeline->sent += (uint64_t)n;
    }
    if (pipeline->broken != 0) return false;
    pipeline->out_from = pipeline->out_to = 0;
    return true;
}

static bool pipeline_resize_in(struct steady__pipeline *pipeline, size_t room) {
    char *in = realloc(pipeline->in, room);
    if (in == NULL) return false;
    pipeline->in = in;
    pipeline->in_room = room;
    if (pipeline->in_used > room) pipeline->in_used = room;
    return true;
}

void steady__pipeline_shrink(struct steady__pipeline *pipeline) {
    if (pipeline->out_room > STEADY__PIPELINE_OUT && pipeline->out_to == 0)
        (void)pipeline_resize_out(pipeline, STEADY__PIPELINE_OUT);
    if (pipeline->in_room > STEADY__PIPELINE_IN && !steady__pipeline_unread(pipeline))
        (void)pipeline_resize_in(pipeline, STEADY__PIPELINE_IN);
    if (!steady__pipeline_unread(pipeline)) pipeline->in_from = pipeline->in_to = 0;
}

bool steady__pipeline_awaits_nested(struct steady__pipeline *pipeline) {
    return !steady__pipeline_idle(pipeline) && pipeline_slot(pipeline, pipeline->head)->nested > 0;
}

/* The largest buffer that the next reply may use. */
static size_t pipeline_room_allowed(struct steady__pipeline *pipeline) {
    const uint32_t nested = steady__pipeline_idle(pipeline) ? 0 : pipeline_slot(pipeline, pipeline->head)->nested;
    return nested > STEADY__PIPELINE_IN ? nested : STEADY__PIPELINE_IN;
}

/* Makes room for more bytes. Only a nested reply may enlarge the buffer. */
static bool pipeline_make_room(struct steady__pipeline *pipeline) {
    memmove(pipeline->in, pipeline->in + pipeline->in_from, pipeline->in_to - pipeline->in_from);
    pipeline->in_to -= pipeline->in_from;
    pipeline->in_from = 0;
    steady__pipeline_shrink(pipeline);
    if (pipeline->in_to < pipeline->in_room) return true;
    return 2 * pipeline->in_room <= pipeline_room_allowed(pipeline) &&
           pipeline_resize_in(pipeline, 2 * pipeline->in_room);
}

ssize_t steady__pipeline_receive(struct steady__pipeline *pipeline) {
    if (!pipeline_make_room(pipeline)) {
        errno = ENOBUFS;
        return -1;
    }
    char *room = pipeline->in + pipeline->in_to;
    const size_t left = pipeline->in_room - pipeline->in_to, size = left < RECEIVE_MOST ? left : RECEIVE_MOST;
    const ssize_t n = pipeline->tls != NULL ? steady__tls_recv(pipeline->tls, room, size)
                                            : pipeline->net->recv(pipeline->net, pipeline->fd, room, size);
    if (n > 0) pipeline->in_to += (size_t)n;
    if (pipeline->in_to > pipeline->in_used) pipeline->in_used = pipeline->in_to;
    return n;
}

const char *steady__pipeline_error_text(const struct steady__pipeline *pipeline, int error) {
    if (pipeline->tls != NULL && *steady__tls_error_text(pipeline->tls) != '\0')
        return steady__tls_error_text(pipeline->tls);
    return error != 0 ? strerror(error) : "the server closed the connection";
}

static ptrdiff_t pipeline_read_reply(struct steady__pipeline *pipeline, struct steady__reply *reply) {
    const char *bytes = pipeline->in + pipeline->in_from;
    const size_t len = pipeline->in_to - pipeline->in_from;
    if (steady__pipeline_idle(pipeline) || pipeline_slot(pipeline, pipeline->head)->nested == 0)
        return steady__reply_read(reply, bytes, len);
    return steady__reply_read_nested(reply, &pipeline->progress, bytes, len);
}

int steady__pipeline_next(struct steady__pipeline *pipeline, struct steady__reply *reply,
                          struct steady__request **request) {
    reply->kind = STEADY__REPLY_INTEGERS; /* until it is known to be an error */
    reply->error_class = STEADY__ERROR_CLASS_NONE;
    const ptrdiff_t took = pipeline_read_reply(pipeline, reply);
    *request = NULL;
    if (took <= 0) return (int)took;
    pipeline->in_from += (size_t)took;
    if (steady__pipeline_idle(pipeline)) return -1; /* a reply without a request */
    const struct steady__pipeline_slot *s = pipeline_take_slot(pipeline);
    steady__window_answered(&pipeline->window, s->ahead, pipeline->clock - s->since);
    *request = s->request;
    if (*request != NULL) (*request)->state = STEADY__REQUEST_OFF_WIRE;
    return 1;
}

steady_us steady__pipeline_look(struct steady__pipeline *pipeline) {
    const bool idle = steady__pipeline_idle(pipeline);
    const struct steady__pipeline_slot *first = idle ? NULL : pipeline_slot(pipeline, pipeline->head);
    if (idle && !pipeline->window.was_full) { /* the most frequent case */
        pipeline->window.seen = pipeline->head;
        pipeline->window.seen_age = 0;
        return 0;
    }
    const steady_us age = idle ? 0 : pipeline->clock - first->since;
    steady__window_look(&pipeline->window, pipeline->head, pipeline->tail, idle ? 0 : first->ahead, age);
    return steady__window_expected_latency(&pipeline->window, age);
}

void steady__pipeline_forget(struct steady__pipeline *pipeline, struct steady__request *request) {
    pipeline_slot(pipeline, request->number)->request = NULL;
    request->state = STEADY__REQUEST_OFF_WIRE;
}
