/* SPDX-License-Identifier: MIT
 * A store that decides nothing. It keeps the call that is submitted to it, so that Python code can send it over a
 * client of its own, or apply the policy to it. */
#ifndef AIOSTEADY_CAPTURE_H
#define AIOSTEADY_CAPTURE_H

#include "src/store.h"

/* NULL: out of memory. Close it with steady_store_close. */
steady_store *capture_open(void);

/* Call this before a call of the library on its throttlers, in the same thread, without Python code in between. */
void capture_begin(steady_store *capture);

/* Takes the call that was submitted. The caller ends it with steady__call_release. */
struct steady__call capture_take(steady_store *capture);

#endif
