/* SPDX-License-Identifier: MIT
 * Replaces tls.c if the library is built without OpenSSL. Opening a store with TLS fails. The other functions are never
 * called, because there is no context. */
#include "conn/tls.h"
#include "core/error.h"

int steady__tls_open(struct steady__tls_context **context, const struct steady__url *url,
                     const steady_tls_options *options, steady_message *why) {
    (void)url;
    (void)options;
    *context = NULL;
    return steady__fail(why, STEADY_UNSUPPORTED,
                        "this library was built without OpenSSL, so it has no TLS (rediss: valkeys:)");
}

const char *steady__tls_version(void) { return NULL; }

void steady__tls_close(struct steady__tls_context *context) { (void)context; }

void steady__tls_forget(struct steady__tls_ticket *ticket) { (void)ticket; }

struct steady__tls *steady__tls_new(const struct steady__tls_context *context, const struct steady__net *net, int fd,
                                    const char *host, struct steady__tls_ticket *ticket) {
    (void)context;
    (void)net;
    (void)fd;
    (void)host;
    (void)ticket;
    return NULL;
}

void steady__tls_free(struct steady__tls *tls) { (void)tls; }

int steady__tls_handshake(struct steady__tls *tls) {
    (void)tls;
    return -1;
}

ssize_t steady__tls_send(struct steady__tls *tls, const void *bytes, size_t len) {
    (void)tls;
    (void)bytes;
    (void)len;
    return -1;
}

ssize_t steady__tls_recv(struct steady__tls *tls, void *bytes, size_t room) {
    (void)tls;
    (void)bytes;
    (void)room;
    return -1;
}

size_t steady__tls_half_sent(const struct steady__tls *tls) {
    (void)tls;
    return 0;
}

bool steady__tls_pending(const struct steady__tls *tls) {
    (void)tls;
    return false;
}

const char *steady__tls_error_text(const struct steady__tls *tls) {
    (void)tls;
    return "";
}

bool steady__tls_was_rejected(const struct steady__tls *tls) {
    (void)tls;
    return false;
}
