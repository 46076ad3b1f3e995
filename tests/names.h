/* SPDX-License-Identifier: MIT
 * A fake resolver, for programs linked with --wrap=getaddrinfo. It resolves all names except addresses and "localhost".
 */
#ifndef NAMES_H
#define NAMES_H

#include "steady.h"

/* Sets its reply from now on: addresses with spaces between, or "" and an error (EAI_...), after this time. */
void names_say(const char *addresses, int error, steady_us after);
unsigned names_asked(void); /* the number of lookups so far */

#endif
