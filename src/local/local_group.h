/* SPDX-License-Identifier: MIT
 * A call with a group, on a table of buckets that threads and processes share. No lock, no allocation. */
#ifndef STEADY__LOCAL_GROUP_H
#define STEADY__LOCAL_GROUP_H

#include "local/table.h"
#include "store.h"

/* A call takes the buckets at most this many times, and once more. */
#define STEADY__LOCAL_REPEATS 16

/* Where a call is made. Afterwards: what it met there. */
struct steady__local_site {
    const struct steady__table *table;
    const unsigned char *key;           /* of the hash */
    int64_t (*clock)(const void *data); /* us; from 0 to STEADY__TIME_MAX */
    const void *clock_data;
    unsigned stepped; /* buckets that were ahead of the clock */
    unsigned grew;    /* slots that were never used before */
    bool overflowed;  /* a bucket was an overflow bucket, or its key got none */
};

/* Makes the call. Fills *result, the results of the members, and their moments. */
void steady__local_group(struct steady__local_site *site, const struct steady__call *call, steady_result *result);

#endif
