/* SPDX-License-Identifier: MIT
 * steady admin: reset, ban, unban and reload, through the admin socket. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "remote.h"

enum { DONE = 0, NOT_DONE = 1, WRONG = 2 };

static const char help[] =
    "usage: steady admin [--admin ADDRESS] VERB\n"
    "\n"
    "  reset LIMIT KEY          empties the bucket of KEY, and ends its block\n"
    "  ban LIMIT KEY DURATION   denies all requests of KEY for a time such as 10m\n"
    "  unban LIMIT KEY          the same as reset\n"
    "  reload                   reads the rules again; if they have a mistake, the old rules stay\n"
    "\n"
    "LIMIT is the name of a limit of the rules. If it is empty, KEY is the key of a bucket as it is stored.\n"
    "\n"
    "  --admin ADDRESS  the admin socket: unix:/path, host:port, or the address of the dashboard with its token;\n"
    "                   by default STEADY_ADMIN. STEADY_ADMIN_TOKEN is the token if the address has none.\n"
    "  --help\n";

static const struct {
    const char *name, *path;
    int operands;
} verbs[] = {{"reset", "/admin/reset", 2},
             {"ban", "/admin/ban", 3},
             {"unban", "/admin/unban", 2},
             {"reload", "/admin/reload", 0}};

static int admin_command_complain(const char *why) {
    fprintf(stderr, "steady admin: %s\n", why);
    return WRONG;
}

static int admin_command_run(struct remote *remote, const char *path, json_t *body) {
    const bool named = body != NULL;
    json_t *answer = named ? remote_ask(remote, path, body) : NULL;
    json_decref(body);
    if (answer == NULL) {
        fprintf(stderr, "steady admin: %s\n", named ? remote->why : "the key or the limit is not UTF-8");
        return NOT_DONE;
    }
    json_decref(answer);
    puts("done");
    return DONE;
}

int admin_command_main(int argc, char **argv) {
    static const struct option names[] = {
        {"admin", required_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *address = NULL;
    struct remote remote;
    steady_message why;
    steady_us duration = 0;
    size_t i = 0;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return DONE;
        }
        if (c == '?') return admin_command_complain("see steady admin --help");
        address = optarg;
    }
    const int operands = argc - optind - 1;
    while (operands >= 0 && i < sizeof verbs / sizeof verbs[0] && strcmp(verbs[i].name, argv[optind]) != 0)
        i++;
    if (operands < 0 || i == sizeof verbs / sizeof verbs[0])
        return admin_command_complain("the verb must be reset, ban, unban or reload; see steady admin --help");
    if (operands != verbs[i].operands)
        return admin_command_complain("the verb has other operands; see steady admin --help");
    char **operand = &argv[optind + 1];
    if (operands == 3 && (steady_duration_parse(&duration, operand[2], &why) != 0 || duration < STEADY_SECOND))
        return admin_command_complain("the duration must be at least a second, such as 10m");
    if (!remote_read(&remote, address)) return admin_command_complain(remote.why);
    return admin_command_run(&remote, verbs[i].path,
                             operands == 0   ? json_object()
                             : operands == 2 ? json_pack("{s:s, s:s}", "limit", operand[0], "key", operand[1])
                                             : json_pack("{s:s, s:s, s:f}", "limit", operand[0], "key", operand[1],
                                                         "for", (double)duration / 1e6));
}
