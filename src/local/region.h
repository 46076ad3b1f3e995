/* SPDX-License-Identifier: MIT
 * A flat region of bytes for a table of buckets: private memory, or a file that processes share. */
#ifndef STEADY__REGION_H
#define STEADY__REGION_H

#include "core/siphash.h"
#include "steady.h"

struct steady__region {
    void *map; /* NULL: closed */
    size_t map_size;
    void *bytes; /* of the table */
    uint32_t buckets;
    uint32_t huge_pages;                                 /* the number that private memory can have */
    _Alignas(16) unsigned char key[STEADY__SIPHASH_KEY]; /* of the hash */
    bool is_private;
};

/* Private, zeroed memory. 0, STEADY_NO_MEMORY or STEADY_SYSTEM. */
int steady__region_private(struct steady__region *region, uint32_t buckets, steady_message *why);

/* Zeroes private memory, and returns it to the system. No thread may use it meanwhile. 0, or STEADY_NO_MEMORY: it is as
 * before. */
int steady__region_clear(struct steady__region *region);

/* Asks for huge pages as the memory fills. Call it once for each number of slots in use, from 1 on, in any order and
 * from any thread. It may take a millisecond. */
void steady__region_grew(const struct steady__region *region, uint32_t slots);

/* Maps the store at `path`. A missing file is made; a file of an earlier boot is replaced. buckets 0: the number of the
 * file, also of the replaced file; STEADY__FILE_BUCKETS for a new file. 0, STEADY_BAD_FILE or STEADY_SYSTEM. */
int steady__region_file(struct steady__region *region, const char *path, uint32_t buckets, steady_message *why);

#define STEADY__FILE_BUCKETS ((uint32_t)1 << 16)

/* A closed region may be closed again. */
void steady__region_close(struct steady__region *region);

#endif
