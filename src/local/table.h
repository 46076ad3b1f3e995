/* SPDX-License-Identifier: MIT
 * A fixed-size concurrent table of buckets over a flat region of bytes that threads and processes share. It reads no
 * clock, takes no lock and allocates nothing. */
#ifndef STEADY__TABLE_H
#define STEADY__TABLE_H

#include <stddef.h>

#include "core/parts.h"
#include "core/siphash.h"

#define STEADY__SLOT_SIZE 32
#define STEADY__GROUP_SLOTS 8
#define STEADY__TABLE_ALIGN 256 /* of the region: a group */
#define STEADY__BUCKETS_MAX ((uint32_t)1 << 30)
#define STEADY__TIME_MAX (((int64_t)1 << 50) - 1) /* us since boot, 35 years; later times count as this one */

struct steady__slot;

struct steady__table {
    struct steady__slot *slots;
    struct steady__slot *overflow;
    uint32_t groups;
    uint32_t overflow_slots;
};

/* The number of buckets of a table for `wanted`: a power of two, at least 64. wanted: at most 2^30. */
uint32_t steady__table_buckets(uint32_t wanted);
uint32_t steady__table_groups(uint32_t buckets);
uint32_t steady__table_overflow(uint32_t buckets);
size_t steady__table_bytes(uint32_t buckets);

/* Uses `bytes`, which hold steady__table_bytes(buckets), as a table. Zeroes are an empty table. Any other content is
 * accepted, even rubbish. */
void steady__table_init(struct steady__table *table, void *bytes, uint32_t buckets);

/* The place of a key: the slots in which its bucket may be. */
struct steady__place {
    const struct steady__table *table;
    struct steady__slot *group[2];
    uint64_t tag;
    unsigned home;
    unsigned slots; /* in probe order from `home`, in group[0] first */
};

/* The table must not move meanwhile. Also prefetches the likeliest cache line. The first half of the hash chooses the
 * slots. The second half is the tag, which may be filled in later. */
struct steady__place steady__table_place(const struct steady__table *table, struct steady__hash hash);

/* What a call with a group asks of one of its buckets. */
struct steady__errand {
    enum {
        STEADY__READ,   /* reads the bucket */
        STEADY__DECIDE, /* decides on `part` alone, with `how` */
        STEADY__DENY,   /* the whole call is denied: the part starts its block if it denies, and nothing goes in */
        STEADY__CORRECT /* settles */
    } task;
    const struct steady__part *part;             /* READ, DECIDE and DENY */
    const struct steady__how *how;               /* DECIDE and DENY */
    const struct steady__settlement *settlement; /* CORRECT */
    bool own_drops;                              /* CORRECT: this call put the drops into an overflow bucket */
    /* The answer, beside that of the ask. */
    struct steady__bucket bucket; /* READ: as stored */
    int64_t refused_for;          /* us until the key can get a bucket; 0: it has or gets one */
    int64_t granted;              /* DECIDE */
    int64_t wait;                 /* DECIDE: us to wait although the part allows */
    int64_t given_back, charged;  /* CORRECT */
    /* For the table. Zero at first. */
    bool poured, keeps;
    uint64_t seen[2];
};

struct steady__ask {
    struct steady__place place;
    const struct steady__rate *rate;
    bool peek;                     /* `amount` is ignored then */
    bool stepped;                  /* the clock has stepped back */
    int64_t amount;                /* within +-(2^31-1) */
    int64_t now;                   /* us since boot, not negative */
    struct steady__errand *errand; /* NULL: one consume or peek. Otherwise `peek` is false and `amount` 0 */
};

struct steady__answer {
    struct steady__decision decision;
    bool overflowed; /* decided on an overflow bucket, or denied because not even that was free */
    bool grew;       /* the bucket took a slot that was never used before */
    int64_t ahead;
};

/* Decides, and returns true. Returns false, and does nothing, if the bucket is at the time answer->ahead, later than
 * ask->now. Mostly another thread has read the clock a little later: read the clock again. If it is still behind
 * `ahead`, the clock has stepped back: ask again with `stepped`. A settlement returns false at least once: its time
 * must be read after its bucket. */
bool steady__table_decide(struct steady__ask *ask, struct steady__answer *answer);

void steady__table_reset(const struct steady__place *place, int64_t now);

#endif
