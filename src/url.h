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
    STEADY__URL_SENTINEL, /* redis+sentinel:// */
};

#define STEADY__URL_MAX 4096

/* What a URL says, %-decoding done; "" where it says nothing. The strings point into `bytes`. */
struct steady__url {
    enum steady__scheme scheme;
    const char *host; /* an IPv6 address without its brackets */
    uint16_t port;
    const char *path; /* file: and unix: */
    const char *user;
    const char *password;
    uint32_t db;
    const char *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    bool tls_insecure;
    bool secretive; /* there may be a password in it */
    char bytes[STEADY__URL_MAX + 8];
};

/* 0, STEADY_BAD_ARGUMENT, or STEADY_UNSUPPORTED for what is planned (Sentinel). A message never shows the user
 * part of the URL. */
int steady__url_parse(struct steady__url *url, const char *text, steady_message *why);

/* A copy whose strings point into itself. */
void steady__url_copy(struct steady__url *to, const struct steady__url *from);

/* Wipes the password. */
void steady__url_clear(struct steady__url *url);

#endif
