/* SPDX-License-Identifier: MIT
 * An answer over HTTP, before it is written in one of its versions. */
#ifndef STEADY_SERVER_RESPONSE_H
#define STEADY_SERVER_RESPONSE_H

#include "rules/rules.h"

enum { HTTP_FIELDS_MOST = 24 };

struct http_response {
    int status;
    struct rules_field fields[HTTP_FIELDS_MOST]; /* besides the length */
    size_t n_fields;
    struct rules_text body;
};

#endif
