/* SPDX-License-Identifier: MIT
 * steady admin: reset, ban, unban, reload and explain, through the admin socket. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "explain.h"
#include "explain_text.h"
#include "remote.h"

enum { DONE = 0, NOT_DONE = 1, WRONG = 2 };

static const char help[] =
    "usage: steady admin [--admin ADDRESS] VERB\n"
    "\n"
    "  reset LIMIT KEY          empties the bucket of KEY, and ends its block\n"
    "  ban LIMIT KEY DURATION   denies all requests of KEY for a time such as 10m\n"
    "  unban LIMIT KEY          the same as reset\n"
    "  reload                   reads the rules again; if they have a mistake, the old rules stay\n"
    "  explain                  says what a request would be answered now, and why; it changes nothing\n"
    "\n"
    "LIMIT is the name of a limit of the rules. If it is empty, KEY is the key of a bucket as it is\n"
    "stored.\n"
    "\n"
    "Options of explain:\n" EXPLAIN_TEXT_HELP "\n"
    "Options of all:\n"
    "  --admin ADDRESS          the admin socket: unix:/path, host:port, or the address of the dashboard\n"
    "                           with its token; by default STEADY_ADMIN. STEADY_ADMIN_TOKEN is the\n"
    "                           token if the address has none.\n"
    "  --help\n";

static const struct {
    const char *name, *path, *operands;
    int n;
} verbs[] = {{"reset", "/admin/reset", "LIMIT KEY", 2},
             {"ban", "/admin/ban", "LIMIT KEY DURATION", 3},
             {"unban", "/admin/unban", "LIMIT KEY", 2},
             {"reload", "/admin/reload", "", 0},
             {"explain", "/admin/explain", "", 0}};

enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

__attribute__((format(printf, 1, 2))) static int admin_command_complain(const char *format, ...) {
    va_list arguments;
    fprintf(stderr, "steady admin: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    return WRONG;
}

/* What is sent. */
struct asked {
    json_t *body;
    bool explains, has_options, json;
};

static int admin_command_send(struct remote *remote, const char *path, const struct asked *asked) {
    json_t *answer = remote_ask(remote, path, asked->body);
    if (answer == NULL) {
        admin_command_complain("%s", remote->why);
        return NOT_DONE;
    }
    if (!asked->explains)
        puts("done");
    else if (asked->json)
        explain_text_print_json(answer);
    else
        explain_text_print(answer);
    json_decref(answer);
    return DONE;
}

/* Adds the operands of a verb to the body. */
static int admin_command_read(struct asked *asked, size_t verb, char **operands, int n) {
    static struct explain explain;
    steady_us duration = 0;
    steady_message why;
    asked->explains = strcmp(verbs[verb].name, "explain") == 0;
    if (n != verbs[verb].n)
        return admin_command_complain(verbs[verb].n > 0 ? "%s needs %s" : "%s takes no operand%s", verbs[verb].name,
                                      verbs[verb].operands);
    if (asked->explains && !asked->has_options)
        return admin_command_complain("explain needs a request, such as --request 'GET /' --ip 192.0.2.1");
    if (!asked->explains && (asked->has_options || asked->json))
        return admin_command_complain("these options are of explain only; see steady admin --help");
    if (n >= 2 && *operands[1] == '\0') return admin_command_complain("KEY must not be empty");
    if (n == 3 && (steady_duration_parse(&duration, operands[2], &why) != 0 || duration < STEADY_SECOND))
        return admin_command_complain("the duration must be at least a second, such as 10m");
    if (asked->explains && !explain_read(&explain, asked->body)) return admin_command_complain("%s", explain.why);
    for (int i = 0; i < n && i < 2; i++)
        json_object_set_new(asked->body, i == 0 ? "limit" : "key", json_string_nocheck(operands[i]));
    if (n == 3) json_object_set_new(asked->body, "for", json_real((double)duration / 1e6));
    char *text = json_dumps(asked->body, JSON_COMPACT);
    free(text);
    return text != NULL ? DONE : admin_command_complain("the words must be UTF-8");
}

static int admin_command_run(struct asked *asked, const char *address, char **words, int n) {
    struct remote remote;
    size_t verb = 0;
    while (n > 0 && verb < N_VERBS && strcmp(verbs[verb].name, words[0]) != 0)
        verb++;
    if (n == 0 || verb == N_VERBS)
        return admin_command_complain("the verb must be reset, ban, unban, reload or explain; see steady admin --help");
    const int wrong = admin_command_read(asked, verb, words + 1, n - 1);
    if (wrong != 0) return wrong;
    if (!remote_read(&remote, address)) return admin_command_complain("%s", remote.why);
    return admin_command_send(&remote, verbs[verb].path, asked);
}

int admin_command_main(int argc, char **argv) {
    static const struct option names[] = {EXPLAIN_TEXT_OPTIONS,
                                          {"json", no_argument, NULL, 'j'},
                                          {"admin", required_argument, NULL, 'a'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *address = NULL;
    struct asked asked = {.body = json_object()};
    int code = -1;
    for (int c; code < 0 && (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'a': address = optarg; break;
        case 'h': code = DONE; break;
        case '?': code = WRONG; break;
        case 'j': asked.json = true; break;
        default: asked.has_options = explain_text_option(asked.body, c, optarg);
        }
    }
    if (code == DONE)
        fputs(help, stdout);
    else if (code == WRONG)
        admin_command_complain("see steady admin --help");
    else
        code = admin_command_run(&asked, address, argv + optind, argc - optind);
    json_decref(asked.body);
    return code;
}
