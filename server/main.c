/* SPDX-License-Identifier: MIT
 * steadyd: the daemon, and the commands that need its rules. The command `steady` starts it for `steady serve`,
 * `steady check` and `steady replay`. */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", serve_main, "answer HTTP, gRPC and RESP by the rules of a file"},
    {"check", check_command_main, "check a rules file, and say what counts for a request"},
    {"replay", replay_main, "say what limits would have done to the requests of a log"},
    {"top", top_command_main, "show rates, limits and top keys of a daemon"},
    {"admin", admin_command_main, "reset, ban or explain a key of a daemon, or reload its rules"},
};

int main(int argc, char **argv) {
    static char name[32];
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            snprintf(name, sizeof name, "steady %s", commands[i].name);
            argv[1] = name; /* for the messages of getopt_long */
            return commands[i].run(argc - 1, argv + 1);
        }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("steadyd %s\n", steady_version());
        return 0;
    }
    FILE *to = argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr;
    fprintf(to, "usage: steadyd COMMAND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(to, "  steadyd %-8s %s\n", commands[i].name, commands[i].help);
    return to == stdout ? 0 : 2;
}
