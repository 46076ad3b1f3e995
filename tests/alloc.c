/* SPDX-License-Identifier: MIT
 * The wrappers of the allocator, which the linker inserts. */
#include "alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Atomic, because a name is resolved in a thread of its own. */
static atomic_uint_least64_t calls;
static atomic_uint_least64_t failing;
static atomic_int_least64_t blocks;
static atomic_bool all_fail;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
char *__real_strdup(const char *text);
void __real_free(void *block);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
char *__wrap_strdup(const char *text);
void __wrap_free(void *block);

void alloc_fail(uint64_t nth) {
    atomic_store(&calls, 0);
    atomic_store(&failing, nth);
}

void alloc_fail_all(bool on) { atomic_store(&all_fail, on); }

uint64_t alloc_failing(void) { return atomic_load(&failing); }
bool alloc_failed(void) { return atomic_load(&failing) != 0 && atomic_load(&calls) >= atomic_load(&failing); }
uint64_t alloc_count(void) { return atomic_load(&calls); }
int64_t alloc_blocks(void) { return atomic_load(&blocks); }

static bool fails_now(void) {
    if (atomic_fetch_add(&calls, 1) + 1 != atomic_load(&failing) && !atomic_load(&all_fail)) return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *block) {
    if (block != NULL) atomic_fetch_add(&blocks, 1);
    return block;
}

void *__wrap_malloc(size_t size) { return fails_now() ? NULL : counted(__real_malloc(size)); }
void *__wrap_calloc(size_t count, size_t size) { return fails_now() ? NULL : counted(__real_calloc(count, size)); }
char *__wrap_strdup(const char *text) { return fails_now() ? NULL : counted(__real_strdup(text)); }

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return fails_now() ? NULL : counted(__real_aligned_alloc(alignment, size));
}

void *__wrap_realloc(void *old, size_t size) {
    if (fails_now()) return NULL;
    void *block = __real_realloc(old, size);
    return old == NULL ? counted(block) : block;
}

/* Not a heap block, but it fails like one if there is no memory. */
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return fails_now() ? MAP_FAILED : __real_mmap(at, size, protection, flags, fd, offset);
}

void __wrap_free(void *block) {
    if (block != NULL) atomic_fetch_sub(&blocks, 1);
    __real_free(block);
}
