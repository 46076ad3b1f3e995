/* SPDX-License-Identifier: MIT
 * Detects a forked child. */
#ifndef STEADY__FORK_GUARD_H
#define STEADY__FORK_GUARD_H

#include <stdbool.h>
#include <sys/types.h>

struct steady__fork_guard {
    volatile unsigned char *page; /* 1 in the parent, 0 in a child; NULL: the system cannot wipe a page on fork */
    pid_t pid;
};

/* wipe: use a page that the system wipes on fork. Then steady__forked costs a load; otherwise it is a system call. */
void steady__fork_guard_set(struct steady__fork_guard *mark, bool wipe);
bool steady__forked(const struct steady__fork_guard *mark);
void steady__fork_guard_clear(struct steady__fork_guard *mark);

/* In a child: replaces the parent's connection behind fd by a descriptor that is never ready. The number stays taken,
 * because the forked loop may still watch it. */
void steady__fork_guard_detach(int fd);

#endif
