/* SPDX-License-Identifier: MIT
 * The options that describe a request, and the document of explain.h as text: for `steady check` and
 * `steady admin explain`. */
#ifndef STEADY_SERVER_EXPLAIN_TEXT_H
#define STEADY_SERVER_EXPLAIN_TEXT_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>

/* For getopt_long. The values are those of explain_text_option. */
#define EXPLAIN_TEXT_OPTIONS                                                                                           \
    {"request", required_argument, NULL, 'r'}, {"host", required_argument, NULL, 'o'},                                 \
        {"ip", required_argument, NULL, 'i'}, {"header", required_argument, NULL, 'H'},                                \
        {"domain", required_argument, NULL, 'd'}, {                                                                    \
        "entry", required_argument, NULL, 'e'                                                                          \
    }

#define EXPLAIN_TEXT_HELP                                                                                              \
    "  --request 'POST /login'  the method and the target\n"                                                           \
    "  --host NAME              the host; by default that of a Host header\n"                                          \
    "  --ip ADDRESS             the peer: the client, or a proxy; a trusted proxy's X-Forwarded-For names the "        \
    "client\n"                                                                                                         \
    "  --header 'NAME: VALUE'   a header field; repeat it for more\n"                                                  \
    "  --domain NAME            of a request of Envoy, with\n"                                                         \
    "  --entry KEY=VALUE        the entries of its descriptor, in their order\n"                                       \
    "  --json                   prints a JSON document: docs/reference/explain.md\n"

/* Adds an option to the document that explain_read reads. False: it is none of these options. */
bool explain_text_option(json_t *request, int option, const char *value);

/* Prints a document as text. */
void explain_text_print(const json_t *document);

/* Prints a document as JSON. */
void explain_text_print_json(const json_t *document);

#endif
