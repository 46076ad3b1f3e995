/* SPDX-License-Identifier: MIT
 * Knowing a forked child without asking the system each time. */
#ifndef STEADY__FORK_GUARD_H
#define STEADY__FORK_GUARD_H

#include <stdbool.h>
#include <sys/types.h>

struct steady__fork_guard {
    volatile unsigned char *page; /* 1 here, 0 in a child; NULL: the system cannot wipe a page on fork */
    pid_t pid;
};

/* `wipe`: try for the page, which costs a load each time asked; without it, asking is a system call. */
void steady__fork_guard_set(struct steady__fork_guard *mark, bool wipe);
bool steady__forked(const struct steady__fork_guard *mark);
void steady__fork_guard_clear(struct steady__fork_guard *mark);

/* In a child: lets go of the parent's connection behind fd and leaves the number taken, by something that is never
 * ready, since a loop that was forked too may still hold it. */
void steady__fork_guard_detach(int fd);

#endif
