/* SPDX-License-Identifier: MIT
 * Finds the primary of a service by asking its sentinels. */
#ifndef STEADY__SENTINEL_H
#define STEADY__SENTINEL_H

#include "conn/connection.h"

/* A connection to the primary, for a URL that names sentinels and their service. NULL: out of memory. */
struct steady__connection *steady__sentinels_link(const struct steady__connection_options *options);

#endif
