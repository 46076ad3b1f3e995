/* SPDX-License-Identifier: MIT
 * Events in the order of their times, although they arrive out of order by up to a window. */
#ifndef STEADY_REPLAY_REORDER_H
#define STEADY_REPLAY_REORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REORDER_WINDOW ((int64_t)60 * 1000000) /* us */

struct reorder_options {
    size_t memory; /* bytes of waiting events; over it the oldest second is released early */
    bool spread;   /* space the events of a whole second evenly */
    void (*release)(void *data, int64_t time, void *event);
    void *data;
};

struct reorder;

/* NULL: out of memory. */
struct reorder *reorder_new(const struct reorder_options *options);

/* Whether an event of this time would be too late. */
bool reorder_is_late(const struct reorder *reorder, int64_t time);

/* The earliest time that is not too late. */
int64_t reorder_earliest(const struct reorder *reorder);

/* Room for an event of `size` bytes, aligned for every type, to be filled before the next call. NULL: it is too late,
 * or there is no memory. whole: its time is known to the second only. */
void *reorder_add(struct reorder *reorder, int64_t time, bool whole, size_t size);

/* Releases all seconds that end a window before `newest`. */
void reorder_advance(struct reorder *reorder, int64_t newest);

/* Releases the rest. */
void reorder_end(struct reorder *reorder);

/* The shortest window that there was, in us: less than REORDER_WINDOW if the memory was too small. */
int64_t reorder_window(const struct reorder *reorder);

void reorder_free(struct reorder *reorder);

#endif
