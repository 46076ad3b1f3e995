/* SPDX-License-Identifier: MIT
 * Memory that is freed at once: what the rules consist of. */
#ifndef STEADY_RULES_MEMORY_H
#define STEADY_RULES_MEMORY_H

#include <stddef.h>

struct rules_memory;

/* NULL: out of memory. */
struct rules_memory *memory_new(void);
void memory_free(struct rules_memory *memory);

/* Zeroed and aligned for every type. NULL: out of memory. */
void *memory_take(struct rules_memory *memory, size_t size);

/* A copy with a NUL at its end. */
char *memory_copy(struct rules_memory *memory, const char *bytes, size_t len);

#endif
