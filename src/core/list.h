/* SPDX-License-Identifier: MIT
 * Intrusive doubly linked lists. */
#ifndef STEADY__LIST_H
#define STEADY__LIST_H

#include <stdbool.h>
#include <stddef.h>

/* The head of a list, or the place of a member. A member of no list points at itself. */
struct steady__list {
    struct steady__list *next, *prev;
};

#define STEADY__OWNER(type, member, at) ((type *)(void *)((char *)(at)-offsetof(type, member)))

static inline void steady__list_init(struct steady__list *list) { list->next = list->prev = list; }

static inline bool steady__list_empty(const struct steady__list *list) { return list->next == list; }

static inline void steady__list_append(struct steady__list *list, struct steady__list *place) {
    place->prev = list->prev;
    place->next = list;
    list->prev->next = place;
    list->prev = place;
}

static inline void steady__list_prepend(struct steady__list *list, struct steady__list *place) {
    steady__list_append(list->next, place);
}

static inline void steady__list_remove(struct steady__list *place) {
    place->prev->next = place->next;
    place->next->prev = place->prev;
    steady__list_init(place);
}

/* Moves all members of one list to the end of another. */
static inline void steady__list_move(struct steady__list *to, struct steady__list *from) {
    if (steady__list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    steady__list_init(from);
}

#endif
