/* SPDX-License-Identifier: MIT
 * Counts the allocations of the library, and makes them fail on demand. A test that includes this is linked with --wrap
 * (see the Makefile), which covers allocations of libsteady.a and the test, but not those of libc and hiredis. */
#ifndef ALLOC_H
#define ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* Makes the n-th allocation from now on fail, once; 0: none. Restarts the count. */
void alloc_fail(uint64_t nth);
uint64_t alloc_failing(void); /* n of the last call */

/* Makes all allocations fail. */
void alloc_fail_all(bool on);

bool alloc_failed(void);    /* whether the n-th allocation has failed */
uint64_t alloc_count(void); /* allocations since alloc_fail, with reallocations */
int64_t alloc_blocks(void); /* blocks allocated now */

#endif
