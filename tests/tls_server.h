/* SPDX-License-Identifier: MIT
 * A TLS server that answers every EVALSHA with one drop in the bucket, and does what no redis-server can be made to. */
#ifndef TLS_SERVER_H
#define TLS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/* All zero: it answers at once. */
struct tls_server_rules {
    const char *certificate;  /* "server" where NULL; see certificates.h */
    int version;              /* no other, such as TLS1_2_VERSION; 0: any */
    unsigned batch;           /* answers are sent together, in one piece, for so many requests */
    size_t record;            /* bytes an answer is cut to, each a record; 0: as it comes */
    unsigned keys_every;      /* so many requests, both sides take new keys */
    unsigned close_after;     /* so many answers the connection ends */
    bool floods;              /* after an answer it sends tickets of TLS 1.3, and nothing else, without end */
    bool goodbye;             /* with a close_notify before */
    bool mute;                /* nothing is answered */
    bool hangs_up_on_tickets; /* of TLS 1.3, without an alert */
    bool ignores_tickets;     /* as well: it says nothing, until the client has hung up */
};

struct tls_server_seen {
    unsigned connections; /* with TLS */
    unsigned resumed;     /* of those */
    unsigned tickets;     /* of TLS 1.3 that were shown, as often as they were */
    unsigned goodbyes;    /* clients that sent a close_notify */
    char name[256];       /* the last SNI; "": none */
};

struct tls_server;

struct tls_server *tls_server_start(const struct tls_server_rules *rules);
int tls_server_port(const struct tls_server *server);
void tls_server_stop(struct tls_server *server);

/* Of all connections; once it has been stopped from accepting more and the last one is over. */
struct tls_server_seen tls_server_finish(struct tls_server *server);
const char *tls_server_received(struct tls_server *server, size_t *len);

#endif
