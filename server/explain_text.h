/* SPDX-License-Identifier: MIT
 * The options that describe a request, and the document of explain.h as text: for `steady check` and
 * `steady admin explain`. */
#ifndef STEADY_SERVER_EXPLAIN_TEXT_H
#define STEADY_SERVER_EXPLAIN_TEXT_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>

/* For getopt_long. The values are those of explain_text_option. */
#define EXPLAIN_TEXT_OPTION(name, value)                                                                               \
    { name, required_argument, NULL, value }
#define EXPLAIN_TEXT_OPTIONS                                                                                           \
    EXPLAIN_TEXT_OPTION("request", 'r'), EXPLAIN_TEXT_OPTION("host", 'o'), EXPLAIN_TEXT_OPTION("ip", 'i'),             \
        EXPLAIN_TEXT_OPTION("header", 'H'), EXPLAIN_TEXT_OPTION("domain", 'd'), EXPLAIN_TEXT_OPTION("entry", 'e')

#define EXPLAIN_TEXT_HELP                                                                                              \
    "  --request 'POST /login'  the method and the target\n"                                                           \
    "  --host NAME              the host; by default that of a Host header\n"                                          \
    "  --ip ADDRESS             the peer: the client, or a trusted proxy whose X-Forwarded-For\n"                      \
    "                           names the client\n"                                                                    \
    "  --header 'NAME: VALUE'   a header field; repeat it for more\n"                                                  \
    "  --domain NAME            of a request of Envoy, with\n"                                                         \
    "  --entry KEY=VALUE        the entries of its descriptor, in their order\n"                                       \
    "  --json                   prints a JSON document\n"

/* Adds an option to the document that explain_read reads. False: it is none of these options. */
bool explain_text_option(json_t *request, int option, const char *value);

/* Prints a document as text. */
void explain_text_print(const json_t *document);

/* Prints a document as JSON. */
void explain_text_print_json(const json_t *document);

#endif
