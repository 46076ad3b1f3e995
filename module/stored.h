/* SPDX-License-Identifier: MIT
 * The text of a bucket, as in the scripts: "<level> <last> <blocked_until>[ <rem>]". */
#ifndef STEADY__MODULE_STORED_H
#define STEADY__MODULE_STORED_H

#include <stddef.h>

#include "core/bucket.h"

#define STEADY__STORED_MAX 88 /* the longest text of a bucket, and a word before it, in bytes */

/* Returns false if the text is no bucket; *bucket is unchanged then. */
bool steady__stored_parse(struct steady__bucket *bucket, const char *text, size_t len);

/* Writes the text into the STEADY__STORED_MAX bytes before `end`, without a NUL. Returns its begin. */
const char *steady__stored_format(char *end, const struct steady__bucket *bucket, size_t *len);

/* Writes decimal digits; the last digit is just before `end`. Returns the address of the first. Up to 7 bytes before it
 * are overwritten: 24 bytes are enough for any number. */
char *steady__put_number(char *end, uint64_t number);

#endif
