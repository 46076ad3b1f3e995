/* SPDX-License-Identifier: MIT
 * Memory that is freed at once. */
#include "memory.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

struct block {
    struct block *next;
    alignas(max_align_t) char bytes[];
};

struct rules_memory {
    struct block *blocks;
};

struct rules_memory *memory_new(void) {
    return calloc(1, sizeof(struct rules_memory));
}

void memory_free(struct rules_memory *memory) {
    if (memory == NULL) return;
    while (memory->blocks != NULL) {
        struct block *block = memory->blocks;
        memory->blocks = block->next;
        free(block);
    }
    free(memory);
}

void *memory_take(struct rules_memory *memory, size_t size) {
    struct block *block = calloc(1, sizeof *block + size);
    if (block == NULL) return NULL;
    block->next = memory->blocks;
    memory->blocks = block;
    return block->bytes;
}

char *memory_copy(struct rules_memory *memory, const char *bytes, size_t len) {
    char *copy = memory_take(memory, len + 1);
    if (copy != NULL && len > 0) memcpy(copy, bytes, len);
    return copy;
}
