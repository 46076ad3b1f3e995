/* SPDX-License-Identifier: MIT
 * The shared library, closed with dlclose during a lookup: the lookup's thread still runs its code. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#define SLOW (200 * STEADY_MILLISECOND)

static atomic_int looking, looked;

/* Replaces the function of the C library: the linker exports it to libraries that are opened later. */
int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **list) {
    (void)name;
    (void)port;
    (void)list;
    if ((hints->ai_flags & AI_NUMERICHOST) != 0) return EAI_NONAME;
    atomic_store(&looking, 1);
    sleep_us(SLOW);
    atomic_store(&looked, 1);
    return EAI_AGAIN;
}

static void *library(void) {
    char path[512];
    const char *build = getenv("BUILD");
    snprintf(path, sizeof path, "%s/libsteady.so", build != NULL ? build : "build");
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* Like a plug-in: opens a store, closes it and unloads the library. Returns an exit status. */
static int open_and_close(void) {
    int (*poller_new)(steady_poller **) = NULL;
    steady_loop (*poller_loop)(steady_poller *) = NULL;
    int (*poller_run)(steady_poller *, steady_us) = NULL;
    void (*poller_free)(steady_poller **) = NULL;
    int (*store_open)(steady_store **, const char *, const steady_store_options *, steady_message *) = NULL;
    void (*store_close)(steady_store **) = NULL;
    void *handle = library();
    if (handle == NULL) return 1;
#define FIND(function) *(void **)&function = dlsym(handle, "steady_" #function)
    FIND(poller_new);
    FIND(poller_loop);
    FIND(poller_run);
    FIND(poller_free);
    FIND(store_open);
    FIND(store_close);
#undef FIND
    steady_poller *poller = NULL;
    steady_store *store = NULL;
    if (poller_new(&poller) != 0) return 2;
    const steady_loop loop = poller_loop(poller);
    if (store_open(&store, "redis://slow.invalid", &(steady_store_options){.loop = &loop}, NULL) != 0) return 3;
    while (atomic_load(&looking) == 0)
        if (poller_run(poller, STEADY_MILLISECOND) < 0) return 4;
    store_close(&store);
    poller_free(&poller);
    return dlclose(handle) == 0 ? 0 : 5;
}

static void library_closed_during_a_lookup_does_not_crash(void **state) {
    int status = -1;
    (void)state;
    const pid_t pid = fork();
    assert_return_code(pid, errno);
    if (pid == 0) {
        const int error = open_and_close();
        if (error != 0) _exit(error);
        if (atomic_load(&looked) != 0) _exit(6); /* the machine is too slow for this test */
        sleep_us(2 * SLOW);
        _exit(atomic_load(&looked) != 0 ? 0 : 7);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(library_closed_during_a_lookup_does_not_crash)};
    return cmocka_run_group_tests_name("unload", tests, NULL, NULL);
}
