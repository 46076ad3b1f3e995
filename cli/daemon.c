/* SPDX-License-Identifier: MIT
 * The commands that another program has: steadyd, the daemon. So this one needs none of its libraries. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

bool daemon_has(const char *command) {
    static const char *const commands[] = {"serve", "check", "replay", "top", "admin"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(command, commands[i]) == 0) return true;
    return false;
}

int daemon_run(char **argv) {
    char path[PATH_MAX];
    const ssize_t len = readlink("/proc/self/exe", path, sizeof path - sizeof "steadyd");
    char *slash = len > 0 ? memrchr(path, '/', (size_t)len) : NULL;
    if (slash != NULL) {
        memcpy(slash + 1, "steadyd", sizeof "steadyd");
        argv[0] = path;
        execv(path, argv);
    }
    argv[0] = "steadyd";
    execvp("steadyd", argv);
    complain("this build has no steady %s: the program steadyd is missing (%s). Build it with: make serve", argv[1],
             strerror(errno));
    return UNAVAILABLE;
}
