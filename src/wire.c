/* SPDX-License-Identifier: MIT
 * One connected socket: what is on its way to the server, and in which order the answers are due.
 *
 * Requests are answered in the order in which they were sent, so a ring of slots says whose the next reply is. A slot
 * whose request is NULL is a tombstone: the reply will come, and reach nobody. Each slot remembers where in the stream
 * of bytes its request begins: what begins before `sent` is, as far as anyone can know, with the server.
 *
 * The ring is one of blocks of slots. When it grows only pointers to blocks move, so that a million slots take no
 * longer than a turn of the loop may. */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 32            /* slots */
#define FIRST_ROOM 2        /* blocks: an idle wire has room for a request of two, wherever it begins */
#define RECEIVE_MOST 131072 /* at once, so that whoever receives can let the loop go on */

struct steady__wire_block {
    struct steady__wire_block *next; /* a spare one */
    struct steady__wire_slot slots[BLOCK];
};

static bool add_spare(struct steady__wire *wire) {
    struct steady__wire_block *block = malloc(sizeof *block);
    if (block == NULL) return false;
    block->next = wire->spare;
    wire->spare = block;
    return true;
}

int steady__wire_init(struct steady__wire *wire, const struct steady__net *net, uint32_t max_unanswered) {
    memset(wire, 0, sizeof *wire);
    wire->net = net;
    wire->fd = -1;
    wire->max = max_unanswered;
    wire->blocks = calloc(FIRST_ROOM, sizeof(void *));
    if (wire->blocks != NULL) wire->room = FIRST_ROOM;
    wire->out = malloc(STEADY__WIRE_OUT);
    wire->in = malloc(STEADY__WIRE_IN);
    wire->in_room = STEADY__WIRE_IN;
    bool spares = true;
    for (int i = 0; i < FIRST_ROOM && spares; i++)
        spares = add_spare(wire);
    if (wire->blocks != NULL && wire->out != NULL && wire->in != NULL && spares) return 0;
    steady__wire_free(wire);
    return -1;
}

/* Makes a block of the ring a spare one. */
static void retire(struct steady__wire *wire, uint32_t at) {
    struct steady__wire_block *block = wire->blocks[at];
    wire->blocks[at] = NULL;
    if (block == NULL) return;
    block->next = wire->spare;
    wire->spare = block;
}

static void retire_all(struct steady__wire *wire) {
    for (uint32_t i = 0; i < wire->room; i++)
        retire(wire, i);
}

void steady__wire_free(struct steady__wire *wire) {
    retire_all(wire);
    free(wire->blocks);
    wire->blocks = NULL;
    wire->room = 0;
    while (wire->spare != NULL) {
        struct steady__wire_block *block = wire->spare;
        wire->spare = block->next;
        free(block);
    }
    if (wire->out != NULL) explicit_bzero(wire->out, wire->out_used); /* which has said AUTH */
    if (wire->in != NULL) explicit_bzero(wire->in, wire->in_used);    /* and may have been told it again */
    free(wire->out);
    free(wire->in);
    wire->out = wire->in = NULL;
}

void steady__wire_open(struct steady__wire *wire, int fd, struct steady__tls *tls, steady_us timeout,
                       steady_us round_trip) {
    wire->fd = fd;
    wire->tls = tls;
    wire->broken = 0;
    wire->sent = 0;
    wire->out_from = wire->out_to = wire->in_from = wire->in_to = 0;
    wire->head = wire->tail = 0;
    retire_all(wire);
    wire->progress = (struct steady__progress){0};
    steady__window_open(&wire->window, timeout, round_trip);
}

void steady__wire_close(struct steady__wire *wire) {
    if (wire->tls != NULL) wire->sent += steady__tls_half_sent(wire->tls); /* written, in part, as in the clear */
    steady__tls_free(wire->tls);
    wire->tls = NULL;
    if (wire->fd >= 0) wire->net->close(wire->net, wire->fd);
    wire->fd = -1;
}

static uint32_t block_at(const struct steady__wire *wire, uint64_t number) {
    return (uint32_t)(number / BLOCK) & (wire->room - 1);
}

static struct steady__wire_slot *slot(struct steady__wire *wire, uint64_t number) {
    return &wire->blocks[block_at(wire, number)]->slots[number % BLOCK];
}

/* The first slot; it counts for nothing any more, but stays readable until the next request is put. */
static struct steady__wire_slot *take_slot(struct steady__wire *wire) {
    struct steady__wire_slot *first = slot(wire, wire->head);
    const uint32_t at = block_at(wire, wire->head++);
    if (wire->head % BLOCK == 0) retire(wire, at);
    return first;
}

struct steady__request *steady__wire_take_unwritten(struct steady__wire *wire) {
    while (!steady__wire_idle(wire) && slot(wire, wire->tail - 1)->begin >= wire->sent) {
        struct steady__request *request = slot(wire, --wire->tail)->request;
        if (request == NULL) continue;
        request->on_wire = false;
        return request;
    }
    return NULL;
}

bool steady__wire_take_first(struct steady__wire *wire, struct steady__request **request) {
    if (steady__wire_idle(wire)) return false;
    *request = take_slot(wire)->request;
    if (*request != NULL) (*request)->on_wire = false;
    return true;
}

/* Doubles the ring. */
static bool grow(struct steady__wire *wire) {
    struct steady__wire_block **blocks = calloc(2 * (size_t)wire->room, sizeof(void *));
    if (blocks == NULL) return false;
    for (uint32_t i = 0; i < wire->room; i++) {
        const uint64_t block = wire->head / BLOCK + i;
        blocks[block & (2 * wire->room - 1)] = wire->blocks[block & (wire->room - 1)];
    }
    free(wire->blocks);
    wire->blocks = blocks;
    wire->room *= 2;
    return true;
}

/* Room for so many slots more. Where there is no memory for it, what is unanswered has to be answered first. */
static bool provide(struct steady__wire *wire, unsigned requests) {
    const uint64_t first = wire->head / BLOCK, last = (wire->tail + requests - 1) / BLOCK;
    if (last - first >= wire->room && !grow(wire)) return false;
    for (uint64_t block = wire->tail / BLOCK; block <= last; block++) {
        struct steady__wire_block **at = &wire->blocks[block & (wire->room - 1)];
        if (*at != NULL) continue;
        if (wire->spare == NULL && !add_spare(wire)) return false;
        *at = wire->spare;
        wire->spare = wire->spare->next;
    }
    return true;
}

char *steady__wire_room(struct steady__wire *wire, unsigned requests, size_t size) {
    const uint64_t unanswered = wire->tail - wire->head + requests;
    if (unanswered > wire->window.size) {
        wire->window.limits = true;
        return NULL;
    }
    if (wire->out_to + size > STEADY__WIRE_OUT || unanswered > wire->max) return NULL;
    return provide(wire, requests) ? wire->out + wire->out_to : NULL;
}

void steady__wire_put(struct steady__wire *wire, struct steady__request *request, size_t len) {
    struct steady__wire_slot *s = slot(wire, wire->tail);
    s->request = request;
    s->begin = wire->sent + (wire->out_to - wire->out_from);
    s->since = wire->clock;
    s->ahead = (uint32_t)(wire->tail - wire->head);
    s->nested = request != NULL ? request->nested : 0;
    if (request != NULL) request->number = wire->tail;
    if (request != NULL) request->on_wire = true;
    wire->tail++;
    wire->out_to += len;
    if (wire->out_to > wire->out_used) wire->out_used = wire->out_to;
}

static ssize_t send_some(struct steady__wire *wire) {
    const char *bytes = wire->out + wire->out_from;
    const size_t len = wire->out_to - wire->out_from;
    if (wire->tls != NULL) return steady__tls_send(wire->tls, bytes, len);
    return wire->net->send(wire->net, wire->fd, bytes, len);
}

bool steady__wire_flush(struct steady__wire *wire) {
    while (wire->out_from < wire->out_to && wire->broken == 0) {
        const ssize_t n = send_some(wire);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) wire->broken = errno;
            return false;
        }
        wire->out_from += (size_t)n;
        wire->sent += (uint64_t)n;
    }
    if (wire->broken != 0) return false;
    wire->out_from = wire->out_to = 0;
    return true;
}

static bool resize_in(struct steady__wire *wire, size_t room) {
    char *in = realloc(wire->in, room);
    if (in == NULL) return false;
    wire->in = in;
    wire->in_room = room;
    if (wire->in_used > room) wire->in_used = room;
    return true;
}

void steady__wire_relax(struct steady__wire *wire) {
    if (wire->in_room > STEADY__WIRE_IN && !steady__wire_unread(wire)) (void)resize_in(wire, STEADY__WIRE_IN);
    if (!steady__wire_unread(wire)) wire->in_from = wire->in_to = 0;
}

bool steady__wire_awaits_nested(struct steady__wire *wire) {
    return !steady__wire_idle(wire) && slot(wire, wire->head)->nested > 0;
}

/* What the reply that is due may need. */
static size_t room_allowed(struct steady__wire *wire) {
    const uint32_t nested = steady__wire_idle(wire) ? 0 : slot(wire, wire->head)->nested;
    return nested > STEADY__WIRE_IN ? nested : STEADY__WIRE_IN;
}

/* Room for more bytes. Only a nested reply may need more than there is at first. */
static bool make_room(struct steady__wire *wire) {
    memmove(wire->in, wire->in + wire->in_from, wire->in_to - wire->in_from);
    wire->in_to -= wire->in_from;
    wire->in_from = 0;
    steady__wire_relax(wire);
    if (wire->in_to < wire->in_room) return true;
    return 2 * wire->in_room <= room_allowed(wire) && resize_in(wire, 2 * wire->in_room);
}

ssize_t steady__wire_receive(struct steady__wire *wire) {
    if (!make_room(wire)) {
        errno = ENOBUFS;
        return -1;
    }
    char *room = wire->in + wire->in_to;
    const size_t left = wire->in_room - wire->in_to, size = left < RECEIVE_MOST ? left : RECEIVE_MOST;
    const ssize_t n =
        wire->tls != NULL ? steady__tls_recv(wire->tls, room, size) : wire->net->recv(wire->net, wire->fd, room, size);
    if (n > 0) wire->in_to += (size_t)n;
    if (wire->in_to > wire->in_used) wire->in_used = wire->in_to;
    return n;
}

const char *steady__wire_excuse(const struct steady__wire *wire, int error) {
    if (wire->tls != NULL && *steady__tls_trouble(wire->tls) != '\0') return steady__tls_trouble(wire->tls);
    return error != 0 ? strerror(error) : "the server closed the connection";
}

static ptrdiff_t read_reply(struct steady__wire *wire, struct steady__reply *reply) {
    const char *bytes = wire->in + wire->in_from;
    const size_t len = wire->in_to - wire->in_from;
    if (steady__wire_idle(wire) || slot(wire, wire->head)->nested == 0) return steady__reply_read(reply, bytes, len);
    return steady__reply_read_nested(reply, &wire->progress, bytes, len);
}

int steady__wire_next(struct steady__wire *wire, struct steady__reply *reply, struct steady__request **request) {
    reply->kind = STEADY__REPLY_INTEGERS; /* until it is known to be an error */
    const ptrdiff_t took = read_reply(wire, reply);
    *request = NULL;
    if (took <= 0) return (int)took;
    wire->in_from += (size_t)took;
    if (steady__wire_idle(wire)) return -1; /* nobody asked */
    const struct steady__wire_slot *s = take_slot(wire);
    steady__window_answered(&wire->window, s->ahead, wire->clock - s->since);
    *request = s->request;
    if (*request != NULL) (*request)->on_wire = false;
    return 1;
}

steady_us steady__wire_look(struct steady__wire *wire) {
    const bool idle = steady__wire_idle(wire);
    const struct steady__wire_slot *first = idle ? NULL : slot(wire, wire->head);
    if (idle && !wire->window.limits) { /* most often */
        wire->window.seen = wire->head;
        wire->window.seen_age = 0;
        return 0;
    }
    const steady_us age = idle ? 0 : wire->clock - first->since;
    steady__window_look(&wire->window, wire->head, wire->tail, idle ? 0 : first->ahead, age);
    return steady__window_reckon(&wire->window, age);
}

void steady__wire_forget(struct steady__wire *wire, struct steady__request *request) {
    slot(wire, request->number)->request = NULL;
    request->on_wire = false;
}
