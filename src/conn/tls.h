/* SPDX-License-Identifier: MIT
 * TLS over a descriptor, with the send and recv of struct steady__net. */
#ifndef STEADY__TLS_H
#define STEADY__TLS_H

#include "conn/net.h"
#include "core/url.h"

/* The TLS context of a store, for all its connections: the trusted CAs and the certificate of the client. */
struct steady__tls_context;

/* 0, STEADY_BAD_ARGUMENT (a file is not usable), STEADY_UNSUPPORTED (built without TLS) or STEADY_NO_MEMORY. *why never
 * shows the content of a file. options may be NULL; the options of the URL come first. */
int steady__tls_open(struct steady__tls_context **context, const struct steady__url *url,
                     const steady_tls_options *options, steady_message *why);

/* The version of OpenSSL, as "OpenSSL 3.0.19 27 Jan 2026"; NULL: built without TLS. Static text. */
const char *steady__tls_version(void);

/* Call it after all connections are freed. */
void steady__tls_close(struct steady__tls_context *context);

/* The session ticket of the last connection to a server, for the next one. Zero at first. It must outlive the
 * connections that use it. */
struct steady__tls_ticket {
    void *session;
    char name[256]; /* the server that it is for */
};
void steady__tls_forget(struct steady__tls_ticket *ticket);

/* One connection. It never closes the descriptor. */
struct steady__tls;

/* NULL: out of memory. host: the host of the URL. */
struct steady__tls *steady__tls_new(const struct steady__tls_context *context, const struct steady__net *net, int fd,
                                    const char *host, struct steady__tls_ticket *ticket);
/* Sends close_notify if the connection is up. Not for a forked child. */
void steady__tls_free(struct steady__tls *tls);

/* Continues the handshake. 0: done. STEADY_READABLE or STEADY_WRITABLE: call it again on that event. -1: failed, see
 * steady__tls_error_text. */
int steady__tls_handshake(struct steady__tls *tls);

/* Like send and recv of struct steady__net; after EPROTO see steady__tls_error_text. The bytes that send took are with
 * the system, in one whole record. If it took less than it was given, give it the rest again, with more if you like. */
ssize_t steady__tls_send(struct steady__tls *tls, const void *bytes, size_t len);
ssize_t steady__tls_recv(struct steady__tls *tls, void *bytes, size_t room);

/* The bytes of a record of which the system has taken a part. send has not reported them as taken. */
size_t steady__tls_half_sent(const struct steady__tls *tls);

/* Decrypted bytes wait for recv. The loop does not report them. */
bool steady__tls_pending(const struct steady__tls *tls);

/* The last error as printable text; "" if there is none. */
const char *steady__tls_error_text(const struct steady__tls *tls);

/* The server rejected the certificate of the client, or its absence, before it read any request. */
bool steady__tls_was_rejected(const struct steady__tls *tls);

#endif
