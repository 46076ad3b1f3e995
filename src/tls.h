/* SPDX-License-Identifier: MIT
 * TLS over a descriptor that struct steady__net sends and receives on. */
#ifndef STEADY__TLS_H
#define STEADY__TLS_H

#include "net.h"
#include "url.h"

/* What the connections of a store have in common: whom it trusts, who it is. */
struct steady__tls_context;

/* 0; or STEADY_BAD_ARGUMENT where a file cannot be used, STEADY_UNSUPPORTED where this build has no TLS, or
 * STEADY_NO_MEMORY. A message never shows anything of what is in the files. options may be NULL; the URL goes first. */
int steady__tls_open(struct steady__tls_context **context, const struct steady__url *url,
                     const steady_tls_options *options, steady_message *why);

/* After all its connections. */
void steady__tls_close(struct steady__tls_context *context);

/* What the last connection to a server leaves to the next one, so that it need not begin from nothing. Zero at first;
 * outlives the connections that are made with it. */
struct steady__tls_ticket {
    void *session;
    char name[256]; /* the server's, for whom it is */
};
void steady__tls_forget(struct steady__tls_ticket *ticket);

/* One connection. It never closes the descriptor. */
struct steady__tls;

/* NULL: out of memory. host: whom the URL names. */
struct steady__tls *steady__tls_new(const struct steady__tls_context *context, const struct steady__net *net, int fd,
                                    const char *host, struct steady__tls_ticket *ticket);
/* Says goodbye where there is somebody to say it to. Not for a forked child. */
void steady__tls_free(struct steady__tls *tls);

/* Goes on with the handshake: 0 once it is done, STEADY_READABLE or STEADY_WRITABLE where it has to wait for that, or
 * -1: see steady__tls_error_text. */
int steady__tls_handshake(struct steady__tls *tls);

/* As send and recv of struct steady__net; EPROTO: see steady__tls_error_text. What send has taken has been handed to
 * the system, in one whole record. Where it took less than it was given, or nothing for now, it must be given the rest
 * again, and more at will. */
ssize_t steady__tls_send(struct steady__tls *tls, const void *bytes, size_t len);
ssize_t steady__tls_recv(struct steady__tls *tls, void *bytes, size_t room);

/* Bytes that send has not taken, but that are in a record of which a part is with the system. */
size_t steady__tls_half_sent(const struct steady__tls *tls);

/* Something has been received that recv has not handed out, so that no loop will tell of it. */
bool steady__tls_pending(const struct steady__tls *tls);

/* What went wrong in words; "" where nothing did. Printable. */
const char *steady__tls_error_text(const struct steady__tls *tls);

/* The server turned us away for the certificate that we have, or have not, and has read nothing that was sent. */
bool steady__tls_was_rejected(const struct steady__tls *tls);

#endif
