/* SPDX-License-Identifier: MIT
 * Detects a forked child. */
#include "loop/fork_guard.h"

#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

void steady__fork_guard_set(struct steady__fork_guard *mark, bool wipe) {
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    mark->pid = getpid();
    mark->page = NULL;
    if (!wipe) return;
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, size, MADV_WIPEONFORK) == 0) {
        mark->page = page;
        *mark->page = 1;
    } else {
        munmap(page, size);
    }
}

bool steady__forked(const struct steady__fork_guard *mark) {
    return mark->page != NULL ? *mark->page == 0 : getpid() != mark->pid;
}

void steady__fork_guard_clear(struct steady__fork_guard *mark) {
    if (mark->page != NULL) munmap((void *)mark->page, (size_t)sysconf(_SC_PAGESIZE));
    mark->page = NULL;
}

void steady__fork_guard_detach(int fd) {
    const int inert = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (inert >= 0) {
        dup2(inert, fd);
        close(inert);
    } else {
        close(fd);
    }
}
