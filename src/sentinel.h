/* SPDX-License-Identifier: MIT
 * The primary of a service, as its sentinels know it. */
#ifndef STEADY__SENTINEL_H
#define STEADY__SENTINEL_H

#include "connection.h"

/* A link to the primary, for a URL that names sentinels and their service. NULL: out of memory. */
struct steady__connection *steady__sentinels_link(const struct steady__connection_options *options);

#endif
