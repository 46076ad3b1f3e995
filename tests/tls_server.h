/* SPDX-License-Identifier: MIT
 * A TLS server that answers each EVALSHA with one drop in the bucket. It also does what a redis-server never does. */
#ifndef TLS_SERVER_H
#define TLS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/* How the server behaves. All zero: it answers at once. */
struct tls_server_rules {
    const char *certificate;  /* NULL: "server"; see certificates.h */
    int version;              /* the only version, such as TLS1_2_VERSION; 0: any */
    unsigned batch;           /* replies are sent together, in one write, for so many requests */
    size_t record;            /* the size of a record in bytes; 0: one record a write */
    unsigned keys_every;      /* after so many requests, both sides update their keys */
    unsigned close_after;     /* after so many replies, the connection ends */
    bool floods;              /* after a reply it sends TLS 1.3 tickets without end, and nothing else */
    bool goodbye;             /* the connection ends with a close_notify */
    bool mute;                /* it never replies */
    bool hangs_up_on_tickets; /* it closes a connection that shows a TLS 1.3 ticket, without an alert */
    bool ignores_tickets;     /* it does not answer a connection that shows a ticket, until the client closes */
};

struct tls_server_seen {
    unsigned connections; /* with TLS */
    unsigned resumed;     /* of those, the resumed ones */
    unsigned tickets;     /* how often a TLS 1.3 ticket was shown */
    unsigned goodbyes;    /* clients that sent a close_notify */
    char name[256];       /* the last SNI; "": none */
};

struct tls_server;

struct tls_server *tls_server_start(const struct tls_server_rules *rules);
int tls_server_port(const struct tls_server *server);
void tls_server_stop(struct tls_server *server);

/* For all connections. Waits for the last connection, and accepts no more. */
struct tls_server_seen tls_server_finish(struct tls_server *server);
const char *tls_server_received(struct tls_server *server, size_t *len);

#endif
