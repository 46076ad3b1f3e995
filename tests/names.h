/* SPDX-License-Identifier: MIT
 * A resolver that says what a test wants, for programs linked with --wrap=getaddrinfo. Any name but an address and
 * "localhost" asks it. */
#ifndef NAMES_H
#define NAMES_H

#include "steady.h"

/* What it says from now on: addresses with spaces between, or "" and an error (EAI_...), after a while. */
void names_say(const char *addresses, int error, steady_us after);
unsigned names_asked(void); /* how often so far */

#endif
