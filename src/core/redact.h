/* SPDX-License-Identifier: MIT
 * The filter for texts from outside: no password, no key, no byte that a terminal or a log would interpret. */
#ifndef STEADY__REDACT_H
#define STEADY__REDACT_H

#include "core/url.h"
#include "steady.h"

struct steady__key {
    const char *text;
    size_t len;
    size_t prefix_len; /* how much of it is the prefix of the throttler, which may be shown */
};

/* The secrets that a text must not show. */
struct steady__secrets {
    const struct steady__url *url; /* its user and passwords; NULL: none */
    const char *key;               /* of the decision that the text is about; NULL: none */
    size_t key_len;
    size_t prefix_len;              /* how much of the key is the prefix of the throttler */
    const struct steady__key *keys; /* of a decision on several keys: all of them; NULL: only `key` */
    size_t n_keys;
};

/* Writes the error text of a server. Only words of our own list are shown, so the filter need not know the secrets. If
 * a secret is made of such words, the whole text is left out. The result is never empty: it has at least the class of
 * the error, such as NOPERM, or a sentence. */
void steady__redact(char *text, size_t size, const char *error, size_t len, const struct steady__secrets *secrets);

/* Writes a text without bytes of a server: of OpenSSL, the system or a client library. Masks the secrets, users and
 * passwords of URLs, and control characters. */
void steady__redact_known(char *text, size_t size, const char *said, const struct steady__secrets *secrets);

/* Whether a host that a server named holds a secret. */
bool steady__host_holds(const char *host, const struct steady__secrets *secrets);

/* Writes the place of a URL: host and port, path or service. at: the server in use; service: the URL of the caller,
 * often the same. A host that a server has named is masked if it holds a secret of `service`. */
void steady__redact_place(char *text, size_t size, const struct steady__url *at, const struct steady__url *service);

#endif
