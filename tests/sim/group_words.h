/* SPDX-License-Identifier: MIT
 * A command on several keys, read back from its words: to the script or to the module. */
#ifndef SIM_GROUP_WORDS_H
#define SIM_GROUP_WORDS_H

#include "core/parts.h"
#include "words.h"

#define MEMBERS_MAX 12 /* buckets of a call */

struct group_words {
    enum steady__verb verb;
    size_t n;
    const struct word *keys;
    struct steady__how how;
    struct steady__rate rates[MEMBERS_MAX];
    struct steady__part parts[MEMBERS_MAX];             /* not of a settle and of a reset */
    struct steady__settlement settlements[MEMBERS_MAX]; /* of a settle */
    bool with_block;                                    /* the words of a part have its block duration */
};

/* Fails if the words have another form than the one that is documented. */
void group_words_read(struct group_words *g, const struct words *words, enum form form);

#endif
