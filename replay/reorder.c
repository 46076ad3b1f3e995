/* SPDX-License-Identifier: MIT
 * Events in the order of their times.
 *
 * Each second has a list of blocks with its events, in the order in which they came. The seconds are kept sorted; there
 * are about sixty. When a second is released, its events are sorted by time. Events of one time keep their order. */
#include "reorder.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { REORDER_BLOCK = 16 * 1024 };

struct reorder_block {
    struct reorder_block *next;
    size_t used, size;
    alignas(max_align_t) char bytes[];
};

struct event {
    int64_t time;
    uint32_t size;
    bool whole;
    alignas(max_align_t) char bytes[];
};

struct second {
    int64_t second; /* since 1970 */
    size_t n, n_whole;
    struct reorder_block *first, *last;
};

struct reorder {
    struct reorder_options options;
    struct second *seconds; /* ascending */
    size_t n, room, at;     /* at: where the last event went */
    struct reorder_block *spare;
    size_t memory;
    int64_t newest;
    int64_t released; /* all seconds below it are released */
    int64_t window;
    struct event **sorted, **other;
    size_t sorted_room;
};

static int64_t reorder_second(int64_t time) { return time / 1000000 - (time % 1000000 < 0); }

struct reorder *reorder_new(const struct reorder_options *options) {
    struct reorder *reorder = calloc(1, sizeof *reorder);
    if (reorder == NULL) return NULL;
    reorder->options = *options;
    reorder->released = reorder->newest = INT64_MIN;
    reorder->window = REORDER_WINDOW;
    return reorder;
}

bool reorder_is_late(const struct reorder *reorder, int64_t time) { return reorder_second(time) < reorder->released; }

int64_t reorder_earliest(const struct reorder *reorder) {
    return reorder->released > INT64_MIN ? reorder->released * 1000000 : INT64_MIN;
}

/* ---- Adding ---- */

static struct second *reorder_find(struct reorder *reorder, int64_t second) {
    if (reorder->at < reorder->n && reorder->seconds[reorder->at].second == second)
        return &reorder->seconds[reorder->at];
    size_t low = 0, high = reorder->n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (reorder->seconds[middle].second < second)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == reorder->n || reorder->seconds[low].second != second) {
        if (reorder->n == reorder->room) {
            const size_t room = reorder->room > 0 ? 2 * reorder->room : 128;
            struct second *more = realloc(reorder->seconds, room * sizeof *more);
            if (more == NULL) return NULL;
            reorder->seconds = more;
            reorder->room = room;
        }
        memmove(&reorder->seconds[low + 1], &reorder->seconds[low], (reorder->n - low) * sizeof *reorder->seconds);
        reorder->seconds[low] = (struct second){.second = second};
        reorder->n++;
    }
    reorder->at = low;
    return &reorder->seconds[low];
}

static struct reorder_block *reorder_block(struct reorder *reorder, size_t size) {
    struct reorder_block *block = reorder->spare;
    if (block != NULL && block->size >= size) {
        reorder->spare = block->next;
    } else {
        const size_t room = size > REORDER_BLOCK ? size : REORDER_BLOCK;
        block = malloc(sizeof *block + room);
        if (block == NULL) return NULL;
        block->size = room;
    }
    block->next = NULL;
    block->used = 0;
    reorder->memory += sizeof *block + block->size;
    return block;
}

static void reorder_release(struct reorder *reorder);

void *reorder_add(struct reorder *reorder, int64_t time, bool whole, size_t size) {
    const size_t align = alignof(max_align_t);
    const size_t all = (sizeof(struct event) + size + align - 1) / align * align;
    if (reorder_is_late(reorder, time)) return NULL;
    while (reorder->memory + REORDER_BLOCK > reorder->options.memory && reorder->n > 1) {
        const int64_t window = reorder->newest - (reorder->seconds[0].second + 1) * 1000000;
        if (window < reorder->window) reorder->window = window > 0 ? window : 0;
        reorder_release(reorder);
        if (reorder_is_late(reorder, time)) return NULL;
    }
    struct second *second = reorder_find(reorder, reorder_second(time));
    if (second == NULL) return NULL;
    struct reorder_block *block = second->last;
    if (block == NULL || block->size - block->used < all) {
        block = reorder_block(reorder, all);
        if (block == NULL) return NULL;
        if (second->last != NULL)
            second->last->next = block;
        else
            second->first = block;
        second->last = block;
    }
    struct event *event = (struct event *)(block->bytes + block->used);
    block->used += all;
    event->time = time;
    event->size = (uint32_t)all;
    event->whole = whole;
    second->n++;
    second->n_whole += whole;
    return event->bytes;
}

/* ---- Releasing ---- */

/* Merges sorted runs of `width` events into runs twice as long. */
static void reorder_merge(struct event **to, struct event **from, size_t n, size_t width) {
    for (size_t begin = 0; begin < n; begin += 2 * width) {
        const size_t middle = begin + width < n ? begin + width : n;
        const size_t end = middle + width < n ? middle + width : n;
        size_t left = begin, right = middle;
        for (size_t i = begin; i < end; i++)
            to[i] =
                left < middle && (right == end || from[left]->time <= from[right]->time) ? from[left++] : from[right++];
    }
}

static bool reorder_is_sorted(struct event *const *events, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (events[i - 1]->time > events[i]->time) return false;
    return true;
}

static void reorder_sort(struct reorder *reorder, size_t n) {
    if (reorder_is_sorted(reorder->sorted, n)) return;
    for (size_t width = 1; width < n; width *= 2) {
        reorder_merge(reorder->other, reorder->sorted, n, width);
        struct event **swap = reorder->sorted;
        reorder->sorted = reorder->other;
        reorder->other = swap;
    }
}

static bool reorder_sort_room(struct reorder *reorder, size_t n) {
    if (n <= reorder->sorted_room) return true;
    struct event **sorted = realloc(reorder->sorted, n * sizeof(struct event *));
    if (sorted != NULL) reorder->sorted = sorted;
    struct event **other = realloc(reorder->other, n * sizeof(struct event *));
    if (other != NULL) reorder->other = other;
    if (sorted == NULL || other == NULL) return false;
    reorder->sorted_room = n;
    return true;
}

/* The events of a second in their order. If there is no memory to sort them, in the order in which they came. */
static void reorder_release_events(struct reorder *reorder, const struct second *second) {
    const bool sorted = reorder_sort_room(reorder, second->n);
    size_t n = 0, n_whole = 0;
    for (struct reorder_block *block = second->first; block != NULL; block = block->next)
        for (size_t at = 0; at < block->used;) {
            struct event *event = (struct event *)(block->bytes + at);
            at += event->size;
            if (event->whole && reorder->options.spread)
                event->time = second->second * 1000000 + (int64_t)(n_whole++ * 1000000 / second->n_whole);
            if (sorted)
                reorder->sorted[n++] = event;
            else
                reorder->options.release(reorder->options.data, event->time, event->bytes);
        }
    if (!sorted) return;
    reorder_sort(reorder, n);
    for (size_t i = 0; i < n; i++)
        reorder->options.release(reorder->options.data, reorder->sorted[i]->time, reorder->sorted[i]->bytes);
}

/* Releases the oldest second. */
static void reorder_release(struct reorder *reorder) {
    const struct second second = reorder->seconds[0];
    reorder->released = second.second + 1;
    reorder->n--;
    memmove(&reorder->seconds[0], &reorder->seconds[1], reorder->n * sizeof *reorder->seconds);
    reorder->at = reorder->at > 0 ? reorder->at - 1 : 0;
    reorder_release_events(reorder, &second);
    for (struct reorder_block *block = second.first, *next; block != NULL; block = next) {
        next = block->next;
        reorder->memory -= sizeof *block + block->size;
        block->next = reorder->spare;
        reorder->spare = block;
    }
}

void reorder_advance(struct reorder *reorder, int64_t newest) {
    if (newest <= reorder->newest) return;
    reorder->newest = newest;
    const int64_t end = reorder_second(newest - REORDER_WINDOW);
    while (reorder->n > 0 && reorder->seconds[0].second < end)
        reorder_release(reorder);
    if (end > reorder->released) reorder->released = end;
}

void reorder_end(struct reorder *reorder) {
    while (reorder->n > 0)
        reorder_release(reorder);
}

int64_t reorder_window(const struct reorder *reorder) { return reorder->window; }

void reorder_free(struct reorder *reorder) {
    if (reorder == NULL) return;
    for (size_t i = 0; i <= reorder->n; i++)
        for (struct reorder_block *block = i < reorder->n ? reorder->seconds[i].first : reorder->spare, *next;
             block != NULL; block = next) {
            next = block->next;
            free(block);
        }
    free(reorder->seconds);
    free(reorder->sorted);
    free(reorder->other);
    free(reorder);
}
