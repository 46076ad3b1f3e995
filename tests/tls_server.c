/* SPDX-License-Identifier: MIT
 * A TLS server for tests, in a thread of its own, one connection at a time. */
#include "tls_server.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "certificates.h"

#define RECEIVED_MAX (16 << 20)
#define ANSWER ":3600000000\r\n" /* the reply for a bucket whose drops leak in an hour */

struct tls_server {
    struct tls_server_rules rules;
    struct tls_server_seen seen;
    SSL_CTX *ssl;
    int listener, port;
    pthread_t thread;
    bool joined;
    unsigned requests, answers; /* of this connection */
    size_t received, looked_at; /* bytes of all connections */
    char *bytes;
};

static int name_came(SSL *ssl, int *alert, void *arg) {
    struct tls_server *server = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    snprintf(server->seen.name, sizeof server->seen.name, "%s", name != NULL ? name : "");
    return SSL_TLSEXT_ERR_OK;
}

static int hello_came(SSL *ssl, int *alert, void *arg) {
    struct tls_server *server = arg;
    const unsigned char *ticket;
    size_t len;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_psk, &ticket, &len) == 0) return SSL_CLIENT_HELLO_SUCCESS;
    server->seen.tickets++;
    if (server->rules.ignores_tickets) poll(&(struct pollfd){.fd = SSL_get_fd(ssl), .events = POLLRDHUP}, 1, 5000);
    if (!server->rules.ignores_tickets && !server->rules.hangs_up_on_tickets) return SSL_CLIENT_HELLO_SUCCESS;
    shutdown(SSL_get_fd(ssl), SHUT_RDWR);
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

static void count_requests(struct tls_server *server) {
    static const char word[] = "EVALSHA";
    const size_t len = sizeof word - 1;
    for (; server->looked_at + len <= server->received; server->looked_at++)
        if (memcmp(server->bytes + server->looked_at, word, len) == 0) server->requests++;
}

static bool say(SSL *ssl, const char *bytes, size_t len, size_t record) {
    for (size_t n; len > 0; bytes += n, len -= n) {
        n = record > 0 && len > record ? record : len;
        if (SSL_write(ssl, bytes, (int)n) <= 0) return false;
    }
    return true;
}

static bool answer(struct tls_server *server, SSL *ssl, unsigned count) {
    char *bytes = malloc(count * (sizeof ANSWER - 1) + 1);
    if (bytes == NULL) abort();
    for (unsigned i = 0; i < count; i++)
        memcpy(bytes + i * (sizeof ANSWER - 1), ANSWER, sizeof ANSWER);
    const bool said = say(ssl, bytes, count * (sizeof ANSWER - 1), server->rules.record);
    free(bytes);
    server->answers += count;
    return said;
}

/* False: the connection must end. */
static bool react(struct tls_server *server, SSL *ssl) {
    const struct tls_server_rules *rules = &server->rules;
    const unsigned batch = rules->batch > 0 ? rules->batch : 1;
    while (!rules->mute && server->requests - server->answers >= batch) {
        if (rules->keys_every > 0 && server->answers % rules->keys_every == 0)
            SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
        if (!answer(server, ssl, batch)) return false;
        if (rules->close_after > 0 && server->answers >= rules->close_after) return false;
    }
    return true;
}

static void flood(SSL *ssl) {
    bool sends = true;
    while (sends) {
        for (int i = 0; i < 50; i++)
            SSL_new_session_ticket(ssl);
        sends = SSL_do_handshake(ssl) == 1;
    }
}

static void serve(struct tls_server *server, SSL *ssl) {
    server->seen.connections++;
    server->seen.resumed += SSL_session_reused(ssl) == 1;
    server->requests = server->answers = 0;
    for (;;) {
        const int n = SSL_read(ssl, server->bytes + server->received, (int)(RECEIVED_MAX - server->received));
        if (n <= 0) server->seen.goodbyes += SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN;
        if (n <= 0) return;
        server->received += (size_t)n;
        count_requests(server);
        if (!react(server, ssl)) break;
        if (server->rules.floods) flood(ssl);
    }
    if (server->rules.goodbye) SSL_shutdown(ssl);
}

static void *run(void *arg) {
    struct tls_server *server = arg;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL); /* because OpenSSL writes to the socket itself */
    for (int fd; (fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        SSL *ssl = SSL_new(server->ssl);
        SSL_set_fd(ssl, fd);
        ERR_clear_error();
        if (SSL_accept(ssl) == 1) serve(server, ssl);
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* so that the ticket stays valid */
        SSL_free(ssl);
        ERR_clear_error();
    }
    return NULL;
}

static SSL_CTX *new_context(struct tls_server *server) {
    char cert[32], key[32];
    const char *name = server->rules.certificate != NULL ? server->rules.certificate : "server";
    SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());
    snprintf(cert, sizeof cert, "%s.pem", name);
    snprintf(key, sizeof key, "%s.key", name);
    if (ssl == NULL || SSL_CTX_use_certificate_chain_file(ssl, certificate(cert)) != 1 ||
        SSL_CTX_use_PrivateKey_file(ssl, certificate(key), SSL_FILETYPE_PEM) != 1)
        abort();
    SSL_CTX_set_tlsext_servername_callback(ssl, name_came);
    SSL_CTX_set_tlsext_servername_arg(ssl, server);
    SSL_CTX_set_client_hello_cb(ssl, hello_came, server);
    if (server->rules.version == TLS1_1_VERSION) SSL_CTX_set_cipher_list(ssl, "ALL:@SECLEVEL=0");
    if (server->rules.version != 0) {
        SSL_CTX_set_min_proto_version(ssl, server->rules.version);
        SSL_CTX_set_max_proto_version(ssl, server->rules.version);
    }
    return ssl;
}

struct tls_server *tls_server_start(const struct tls_server_rules *rules) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    struct tls_server *server = calloc(1, sizeof *server);
    if (server == NULL || (server->bytes = malloc(RECEIVED_MAX)) == NULL) abort();
    server->rules = *rules;
    server->ssl = new_context(server);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server->listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(server->listener, 16) != 0) abort();
    if (getsockname(server->listener, (struct sockaddr *)&a, &len) != 0) abort();
    server->port = ntohs(a.sin_port);
    if (pthread_create(&server->thread, NULL, run, server) != 0) abort();
    return server;
}

int tls_server_port(const struct tls_server *server) { return server->port; }

struct tls_server_seen tls_server_finish(struct tls_server *server) {
    shutdown(server->listener, SHUT_RDWR); /* ends an accept that is waiting */
    if (!server->joined) pthread_join(server->thread, NULL);
    server->joined = true;
    return server->seen;
}

const char *tls_server_received(struct tls_server *server, size_t *len) {
    tls_server_finish(server);
    *len = server->received;
    return server->bytes;
}

void tls_server_stop(struct tls_server *server) {
    if (server == NULL) return;
    tls_server_finish(server);
    close(server->listener);
    SSL_CTX_free(server->ssl);
    free(server->bytes);
    free(server);
}
