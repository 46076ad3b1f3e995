/* SPDX-License-Identifier: MIT
 * steady check: reads a rules file, and says which limits count for a request. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "explain.h"
#include "explain_text.h"

enum { RIGHT = 0, WRONG = 2 };

static const char help[] =
    "usage: steady check FILE [--request 'METHOD TARGET'] [--ip ADDRESS] [--header 'NAME: VALUE']\n"
    "                         [--domain NAME --entry KEY=VALUE ...] [--json]\n"
    "\n"
    "Reads a rules file. With a request, says which limits count for it, and with what key.\n"
    "\n" EXPLAIN_TEXT_HELP "  --help\n"
    "\n"
    "Exit codes: 0 the file is right, 2 it is not.\n";

static void check_command_print_summary(const char *file, const struct rules *rules) {
    printf("%s is right: %zu limit%s", file, rules->n_limits, rules->n_limits == 1 ? "" : "s");
    if (rules->n_domains > 0) printf(" in %zu domain%s of Envoy", rules->n_domains, rules->n_domains == 1 ? "" : "s");
    if (rules->n_warnings > 0) printf(", %zu warning%s", rules->n_warnings, rules->n_warnings == 1 ? "" : "s");
    printf("\n");
}

static void check_command_print_json(const char *file, const struct rules *rules, const char *error,
                                     json_t *explained) {
    json_t *warnings = json_array();
    for (size_t i = 0; rules != NULL && i < rules->n_warnings; i++)
        json_array_append_new(warnings, json_string(rules->warnings[i]));
    json_t *document = json_pack("{s:s, s:b, s:s?, s:o, s:i, s:i, s:O?}", "file", file, "right", rules != NULL, "error",
                                 error, "warnings", warnings, "limits", rules != NULL ? (int)rules->n_limits : 0,
                                 "domains", rules != NULL ? (int)rules->n_domains : 0, "explained", explained);
    explain_text_print_json(document);
    json_decref(document);
}

static int check_command_run(const char *file, const json_t *request, bool json) {
    static struct rules_match match;
    static struct explain explain;
    struct rules_error error;
    json_t *explained = NULL;
    if (!explain_read(&explain, request)) {
        fprintf(stderr, "steady check: %s\n", explain.why);
        return WRONG;
    }
    struct rules *rules = rules_read(file, &error);
    if (rules == NULL && json) check_command_print_json(file, NULL, error.text, NULL);
    if (rules == NULL && !json) fprintf(stderr, "%s\n", error.text);
    if (rules == NULL) return WRONG;
    for (size_t i = 0; i < rules->n_warnings && !json; i++)
        fprintf(stderr, "warning: %s\n", rules->warnings[i]);
    if (json_object_size(request) > 0) explained = explain_match(&explain, rules, &match);
    if (json)
        check_command_print_json(file, rules, NULL, explained);
    else if (explained != NULL)
        explain_text_print(explained);
    else
        check_command_print_summary(file, rules);
    json_decref(explained);
    rules_free(rules);
    return RIGHT;
}

int check_command_main(int argc, char **argv) {
    static const struct option names[] = {
        EXPLAIN_TEXT_OPTIONS, {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    json_t *request = json_object();
    bool json = false;
    int code = WRONG;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'h') fputs(help, stdout);
        if (c == '?') fprintf(stderr, "steady check --help lists the options\n");
        if (c == 'h' || c == '?') {
            json_decref(request);
            return c == 'h' ? RIGHT : WRONG;
        }
        if (!explain_text_option(request, c, optarg)) json = true;
    }
    if (optind + 1 == argc)
        code = check_command_run(argv[optind], request, json);
    else
        fprintf(stderr, "steady check: name one FILE; steady check --help explains the rest\n");
    json_decref(request);
    return code;
}
