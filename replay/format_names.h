/* SPDX-License-Identifier: MIT
 * Names that fields of logs usually have: the variables of nginx, and what writers of JSON and CSV use. */
#ifndef STEADY_REPLAY_FORMAT_NAMES_H
#define STEADY_REPLAY_FORMAT_NAMES_H

#include "format_use.h"

struct format_name {
    const char *name;
    struct format_use use;
};

/* The use of a variable of nginx, without its $. NULL: it has none. */
const struct format_use *format_names_nginx(const char *name);

/* All names; those of nginx come first. Two names are one if format_use_alike says so; then the first counts. */
const struct format_name *format_names_usual(size_t *n);

/* The use of a usual name. NULL: it is none. */
const struct format_use *format_names_find(const char *name, size_t len);

#endif
