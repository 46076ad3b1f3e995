/* SPDX-License-Identifier: MIT
 * Names of variables of nginx. Its JSON logs have the same names. */
#ifndef STEADY_REPLAY_FORMAT_STRING_H
#define STEADY_REPLAY_FORMAT_STRING_H

#include "format_use.h"

struct format_string_name {
    const char *name;
    struct format_use use;
};

const struct format_string_name *format_string_names(size_t *n);

#endif
