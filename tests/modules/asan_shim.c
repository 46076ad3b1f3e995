/* SPDX-License-Identifier: MIT
 * Preloaded before libasan, lets a server as Debian builds it run with a module that has AddressSanitizer in it: what
 * the server asks of jemalloc beyond malloc is malloc's here, and modules are loaded without RTLD_DEEPBIND, which ASan
 * refuses. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void *mallocx(size_t size, int flags);
void *rallocx(void *at, size_t size, int flags);
void dallocx(void *at, int flags);
void sdallocx(void *at, size_t size, int flags);
size_t nallocx(size_t size, int flags);
int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len);

void *mallocx(size_t size, int flags) { return (void)flags, malloc(size); }
void *rallocx(void *at, size_t size, int flags) { return (void)flags, realloc(at, size); }
void dallocx(void *at, int flags) { (void)flags, free(at); }
void sdallocx(void *at, size_t size, int flags) { (void)size, (void)flags, free(at); }
size_t nallocx(size_t size, int flags) { return (void)flags, size; }

int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len) {
    (void)name, (void)new, (void)new_len;
    if (old != NULL && old_len != NULL) memset(old, 0, *old_len);
    return 0;
}

void *dlopen(const char *path, int flags) {
    void *(*next)(const char *, int) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "dlopen");
    return next(path, flags & ~RTLD_DEEPBIND);
}
