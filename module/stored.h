/* SPDX-License-Identifier: MIT
 * A bucket as text, the way the scripts read and write it: "<level> <last> <blocked_until>[ <rem>]". */
#ifndef STEADY__MODULE_STORED_H
#define STEADY__MODULE_STORED_H

#include <stddef.h>

#include "core/bucket.h"

#define STEADY__STORED_MAX 80 /* no bucket's text is longer */

/* False: that is no bucket, and *bucket stays as it was. */
bool steady__stored_parse(struct steady__bucket *bucket, const char *text, size_t len);

/* Writes the text into the STEADY__STORED_MAX bytes before `end`. Returns its begin; there is no NUL. */
const char *steady__stored_format(char *end, const struct steady__bucket *bucket, size_t *len);

/* Writes decimal digits, the last of them before `end`. Returns the first. */
char *steady__put_number(char *end, uint64_t number);

#endif
