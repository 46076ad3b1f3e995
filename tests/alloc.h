/* SPDX-License-Identifier: MIT
 * The allocations of the library, counted, and failing when asked to. A test that includes this is linked with --wrap
 * (see the Makefile), which catches what libsteady.a and the test allocate, and not what libc and hiredis do. */
#ifndef ALLOC_H
#define ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* The n-th allocation from now on fails, once; 0: none does. Counting begins anew. */
void alloc_fail(uint64_t nth);
uint64_t alloc_failing(void); /* that n */

/* All fail. */
void alloc_fail_all(bool on);

bool alloc_failed(void);    /* has it? */
uint64_t alloc_count(void); /* allocations since alloc_fail, resizing included */
int64_t alloc_blocks(void); /* blocks that are there now */

#endif
