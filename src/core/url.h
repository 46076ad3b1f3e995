/* SPDX-License-Identifier: MIT
 * Store URLs. */
#ifndef STEADY__URL_H
#define STEADY__URL_H

#include "steady.h"

enum steady__scheme {
    STEADY__URL_MEMORY,
    STEADY__URL_FILE,
    STEADY__URL_TCP, /* redis:// valkey:// */
    STEADY__URL_TLS, /* rediss:// valkeys:// */
    STEADY__URL_UNIX,
    STEADY__URL_SENTINEL,     /* redis+sentinel:// valkey+sentinel:// */
    STEADY__URL_SENTINEL_TLS, /* rediss+sentinel:// valkeys+sentinel:// */
};

static inline bool steady__url_is_sentinel(enum steady__scheme scheme) {
    return scheme == STEADY__URL_SENTINEL || scheme == STEADY__URL_SENTINEL_TLS;
}

static inline bool steady__url_has_tls(enum steady__scheme scheme) {
    return scheme == STEADY__URL_TLS || scheme == STEADY__URL_SENTINEL_TLS;
}

/* The bounds of two options, of a URL and of a program alike. */
#define STEADY__DENY_MEMORY_MAX (60 * STEADY_SECOND)
#define STEADY__LEASE_AGE_MIN STEADY_MILLISECOND
#define STEADY__LEASE_AGE_MAX (60 * STEADY_SECOND)
#define STEADY__URL_MAX 4096
#define STEADY__CLIENT_NAME_MAX 64
#define STEADY__SENTINELS_MAX 16

/* The parts of a URL, percent-decoded. A part that is not there is "". The strings point into `bytes`. */
struct steady__url {
    enum steady__scheme scheme;
    const char *host; /* an IPv6 address without its brackets */
    uint16_t port;
    const char *path; /* file: and unix: */
    const char *user;
    const char *password;
    uint32_t db;
    bool peek_replica;
    struct steady__url_host {
        const char *host;
        uint16_t port;
    } sentinels[STEADY__SENTINELS_MAX]; /* of a sentinel URL, which has no host and port of its own */
    unsigned n_sentinels;
    const char *service, *sentinel_user, *sentinel_password;
    const char *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    bool tls_insecure;
    steady_us connect_timeout; /* 0: not set */
    steady_us deny_memory;     /* 0: not set; -1: off */
    steady_us lease_age;       /* the same */
    const char *client_name;
    bool secretive; /* the URL may hold a password */
    bool named;     /* the host was named by a server */
    bool unshown;   /* that host holds a key, and must not be shown */
    char bytes[STEADY__URL_MAX + 8];
};

/* 0 or STEADY_BAD_ARGUMENT. *why never shows a URL that may hold a password. */
int steady__url_parse(struct steady__url *url, const char *text, steady_message *why);

/* Copies a URL. The strings of the copy point into the copy. */
void steady__url_copy(struct steady__url *to, const struct steady__url *from);

/* The length of the scheme at the start of a text, with its colon; 0: none of ours. */
size_t steady__url_scheme(const char *text);

/* Whether CLIENT SETNAME takes it: 1 to 64 printable ASCII bytes without spaces. */
bool steady__client_name_is_valid(const char *name);

/* Wipes the password. */
void steady__url_clear(struct steady__url *url);

#endif
