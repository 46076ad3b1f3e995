/* SPDX-License-Identifier: MIT
 * Texts from outside, made fit to be shown: no password, no key, no byte that a terminal or a log would act upon. */
#ifndef STEADY__REDACT_H
#define STEADY__REDACT_H

#include "steady.h"
#include "url.h"

/* What a text must not show even where it is made of ordinary words. */
struct steady__secrets {
    const struct steady__url *url; /* its user and passwords; NULL: none */
    const char *key;               /* of the decision that the text is about; NULL: none */
    size_t key_len;
    size_t prefix_len; /* so much of the key is the throttler's prefix */
};

/* The error text of a server, which may quote anything that it was sent. Only words of our own list are shown, so what
 * was sent need not be known. A secret made of such words takes the whole text with it. Never empty: what is left at
 * least is the class of the error, such as NOPERM, or a sentence. */
void steady__redact(char *out, size_t size, const char *text, size_t len, const struct steady__secrets *secrets);

/* What Python's clients, OpenSSL or the system say, which a server has no part in: all of it, but for the secrets, for
 * URLs with a password, and for control characters. */
void steady__redact_known(char *out, size_t size, const char *text, const struct steady__secrets *secrets);

/* Whether a host that a server has named holds a secret. */
bool steady__host_holds(const char *host, const struct steady__secrets *secrets);

/* Where a URL leads. `at` is what was found in the name of `service`, or is the same; a host that a server has named is
 * left out if it holds a secret. */
void steady__redact_place(char *out, size_t size, const struct steady__url *at, const struct steady__url *service);

#endif
