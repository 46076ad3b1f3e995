/* SPDX-License-Identifier: MIT
 * TLS by OpenSSL.
 *
 * OpenSSL's own socket BIO uses write(2), which raises SIGPIPE. So OpenSSL gets a BIO of ours over struct steady__net.
 *
 * A request counts as unsent only if no byte of its TLS record was sent: the peer can use a record only as a whole.
 * SSL_write reports a record one call late. If it gets more bytes than fit in a record, it starts the next record as
 * soon as the first is out; if the next one has to wait or fails, it returns as if neither were out. So each SSL_write
 * here gets at most one record, and the same bytes again until that record is out.
 *
 * Each call leaves the error queue of the thread empty: SSL_get_error reads it, and the program may use it, too. */
#include "conn/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

#define NAME_SIZE sizeof(((struct steady__tls_ticket *)NULL)->name)
#define RECORD_MAX SSL3_RT_MAX_PLAIN_LENGTH
#define RECEIVE_MOST 65536  /* bytes without data, such as tickets, before the loop goes on */
#define FILE_MAX (16 << 20) /* the CAs of a system take 0.2 MiB */

struct steady__tls_context {
    SSL_CTX *ssl;
    BIO_METHOD *transport;
    bool locked;          /* a file wants a passphrase */
    char name[NAME_SIZE]; /* the name for the server's certificate; "": the host of the URL */
};

struct steady__tls {
    SSL *ssl;
    struct steady__tls_ticket *ticket;
    const struct steady__net *net;
    int fd;
    int error;        /* errno of the descriptor */
    size_t left;      /* bytes that OpenSSL may still read in this call */
    size_t record;    /* bytes in the record that SSL_write is sending; 0: none */
    bool begun;       /* a byte of that record was sent, or may be */
    int first;        /* the first byte received; -1: none yet */
    bool established; /* the handshake is done */
    bool failed;      /* OpenSSL reported a fatal error */
    bool asked;       /* the server asked for a certificate; there is none */
    bool heard;       /* data was received after the handshake */
    bool turned_away;
    char name[NAME_SIZE];
    char last_error[160];
};

/* ---- A BIO over struct steady__net ---- */

static bool tls_must_wait(ssize_t n) { return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK); }

static int tls_bio_write(BIO *bio, const char *bytes, int len) {
    struct steady__tls *tls = BIO_get_data(bio);
    const ssize_t n = tls->net->send(tls->net, tls->fd, bytes, (size_t)len);
    BIO_clear_retry_flags(bio);
    if (tls_must_wait(n))
        BIO_set_retry_write(bio);
    else if (n < 0)
        tls->error = errno;
    if (n > 0) tls->begun = true;
    return (int)n;
}

/* OpenSSL reads on until there are data. A server may send tickets without end; then it looks as if no more had come,
 * and the loop calls again, since there is more to read. */
static int tls_bio_read(BIO *bio, char *bytes, int room) {
    struct steady__tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->left == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    const ssize_t n = tls->net->recv(tls->net, tls->fd, bytes, (size_t)room);
    if (n > 0) tls->left -= (size_t)n < tls->left ? (size_t)n : tls->left;
    if (tls_must_wait(n))
        BIO_set_retry_read(bio);
    else if (n < 0)
        tls->error = errno;
    if (n > 0 && tls->first < 0) tls->first = (unsigned char)bytes[0];
    return (int)n;
}

static long tls_bio_control(BIO *bio, int what, long number, void *pointer) {
    (void)bio;
    (void)number;
    (void)pointer;
    return what == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *tls_bio_new(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "steady");
    if (method == NULL) return NULL;
    BIO_meth_set_write(method, tls_bio_write);
    BIO_meth_set_read(method, tls_bio_read);
    BIO_meth_set_ctrl(method, tls_bio_control);
    return method;
}

/* ---- Errors ---- */

__attribute__((format(printf, 2, 3))) static void tls_explain(struct steady__tls *tls, const char *format, ...) {
    char text[sizeof tls->last_error];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    steady__printable(tls->last_error, sizeof tls->last_error, text, strlen(text));
}

static void tls_explain_certificate(struct steady__tls *tls, long result) {
    switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: tls_explain(tls, "the server's certificate is not for %s", tls->name); break;
    case X509_V_ERR_CERT_HAS_EXPIRED: tls_explain(tls, "the server's certificate has expired"); break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        tls_explain(tls, "the server's certificate is self-signed and not trusted (set tls_ca)");
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        tls_explain(tls, "the server's certificate is signed by a CA that is not trusted (set tls_ca)");
        break;
    default: tls_explain(tls, "the server's certificate: %s", X509_verify_cert_error_string(result)); break;
    }
}

static bool tls_is_certificate_alert(int alert) {
    switch (alert) {
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
    case SSL_AD_CERTIFICATE_REQUIRED: return true;
    default: return false;
    }
}

/* In TLS 1.3 the handshake is done for the client before the server checks its certificate. So the alert may come after
 * it, but not after a reply. In TLS 1.2 the alert comes before, and a missing certificate is a failed handshake. */
static void tls_explain_alert(struct steady__tls *tls, int alert) {
    const bool may_be = !tls->heard && (!tls->established || SSL_version(tls->ssl) >= TLS1_3_VERSION);
    tls->turned_away = may_be && (tls_is_certificate_alert(alert) || (alert == SSL_AD_HANDSHAKE_FAILURE && tls->asked));
    if (tls->turned_away && tls->asked)
        tls_explain(tls, "the server requires a client certificate (set tls_cert)");
    else if (tls->turned_away)
        tls_explain(tls, "the server refused the client certificate: %s", SSL_alert_desc_string_long(alert));
    else
        tls_explain(tls, "the server ended TLS: %s", SSL_alert_desc_string_long(alert));
}

#define RECORD_KIND_FIRST 20 /* of TLS 1.2 and 1.3: change cipher spec, alert, handshake, application data */
#define RECORD_KIND_LAST 23

static void tls_explain_failure(struct steady__tls *tls) {
    const unsigned long error = ERR_peek_error();
    const int reason = ERR_GET_REASON(error);
    const long verified = SSL_get_verify_result(tls->ssl);
    const char *text = ERR_reason_error_string(error);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK)
        tls_explain_certificate(tls, verified);
    else if (tls->first >= 0 && (tls->first < RECORD_KIND_FIRST || tls->first > RECORD_KIND_LAST))
        tls_explain(tls, "the server does not speak TLS on this port");
    else if (reason > SSL_AD_REASON_OFFSET && ERR_GET_LIB(error) == ERR_LIB_SSL)
        tls_explain_alert(tls, reason - SSL_AD_REASON_OFFSET);
    else
        tls_explain(tls, "TLS failed: %s", text != NULL ? text : "no reason given");
}

/* The result of an OpenSSL call that returned `got`: got, 0 at the end of the stream, or -1 and errno. */
static int tls_settle(struct steady__tls *tls, int got) {
    const int what = got > 0 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, got);
    int error = 0;
    switch (what) {
    case SSL_ERROR_NONE:
    case SSL_ERROR_ZERO_RETURN: break;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: error = EAGAIN; break;
    case SSL_ERROR_SYSCALL:
        tls->failed = true;
        error = tls->error;
        break;
    default:
        tls->failed = true;
        tls_explain_failure(tls);
        steady__tls_forget(tls->ticket);
        error = EPROTO;
        break;
    }
    ERR_clear_error();
    errno = error;
    return error != 0 ? -1 : got > 0 ? got : 0;
}

const char *steady__tls_error_text(const struct steady__tls *tls) { return tls->last_error; }

bool steady__tls_was_rejected(const struct steady__tls *tls) { return tls->turned_away; }

/* ---- One connection ---- */

/* The server decides how long a ticket is valid. Keep the newest. */
static int tls_ticket_came(SSL *ssl, SSL_SESSION *session) {
    struct steady__tls *tls = SSL_get_app_data(ssl);
    steady__tls_forget(tls->ticket);
    tls->ticket->session = session;
    return 1;
}

void steady__tls_forget(struct steady__tls_ticket *ticket) {
    SSL_SESSION_free(ticket->session);
    ticket->session = NULL;
}

static int tls_certificate_wanted(SSL *ssl, X509 **certificate, EVP_PKEY **key) {
    struct steady__tls *tls = SSL_get_app_data(ssl);
    (void)certificate;
    (void)key;
    tls->asked = true;
    return 0;
}

/* A certificate knows neither the zone of an IPv6 address nor the dot at the end of a name. */
static void tls_set_name(char name[NAME_SIZE], const char *host) {
    snprintf(name, NAME_SIZE, "%.*s", (int)strcspn(host, "%"), host);
    const size_t len = strlen(name);
    if (len > 1 && name[len - 1] == '.') name[len - 1] = '\0';
}

static bool tls_is_address(const char *name) {
    struct in6_addr bytes;
    return inet_pton(AF_INET, name, &bytes) == 1 || inet_pton(AF_INET6, name, &bytes) == 1;
}

/* SNI is for names only. */
static bool tls_expect_name(SSL *ssl, const char *name) {
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (tls_is_address(name)) return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static bool tls_prepare(struct steady__tls *tls, const struct steady__tls_context *context) {
    tls->ssl = SSL_new(context->ssl);
    if (tls->ssl == NULL) return false;
    BIO *bio = BIO_new(context->transport);
    if (bio == NULL) return false;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_connect_state(tls->ssl);
    if (SSL_set_app_data(tls->ssl, tls) != 1 || !tls_expect_name(tls->ssl, tls->name)) return false;
    if (tls->ticket->session != NULL)
        SSL_set_session(tls->ssl, tls->ticket->session); /* if it fails, the handshake is a full one */
    return true;
}

struct steady__tls *steady__tls_new(const struct steady__tls_context *context, const struct steady__net *net, int fd,
                                    const char *host, struct steady__tls_ticket *ticket) {
    struct steady__tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL) return NULL;
    tls->net = net;
    tls->fd = fd;
    tls->first = -1;
    tls->ticket = ticket;
    tls_set_name(tls->name, context->name[0] != '\0' ? context->name : host);
    if (strcmp(ticket->name, tls->name) != 0) steady__tls_forget(ticket);
    memcpy(ticket->name, tls->name, NAME_SIZE);
    ERR_clear_error();
    const bool prepared = tls_prepare(tls, context);
    ERR_clear_error();
    if (prepared) return tls;
    steady__tls_free(tls);
    return NULL;
}

/* OpenSSL does not resume a session that was not shut down. So mark it as shut down, even if close_notify cannot be
 * sent. After a failed handshake the ticket is dropped: it may be the reason why the server hangs up or is silent. */
void steady__tls_free(struct steady__tls *tls) {
    if (tls == NULL) return;
    if (!tls->established) steady__tls_forget(tls->ticket);
    if (tls->established && !tls->failed && tls->record == 0) SSL_shutdown(tls->ssl); /* never after half a record */
    if (tls->ssl != NULL) SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls->ssl);
    ERR_clear_error();
    free(tls);
}

int steady__tls_handshake(struct steady__tls *tls) {
    ERR_clear_error();
    tls->left = RECEIVE_MOST;
    const int done = tls_settle(tls, SSL_do_handshake(tls->ssl));
    tls->established = done > 0;
    if (done > 0) return 0;
    if (done < 0 && errno == EAGAIN) return SSL_want_write(tls->ssl) ? STEADY_WRITABLE : STEADY_READABLE;
    if (tls->last_error[0] == '\0')
        tls_explain(tls, "TLS handshake failed: %s",
                    tls->error != 0 ? strerror(tls->error) : "the server closed the connection");
    return -1;
}

ssize_t steady__tls_send(struct steady__tls *tls, const void *bytes, size_t len) {
    ERR_clear_error();
    if (tls->record == 0) {
        tls->record = len < RECORD_MAX ? len : RECORD_MAX;
        tls->begun = false;
    }
    tls->left = RECEIVE_MOST;
    const int n = tls_settle(tls, SSL_write(tls->ssl, bytes, (int)tls->record));
    if (n > 0) tls->record = 0;
    if (n == 0) errno = EPIPE;
    return n > 0 ? n : -1;
}

size_t steady__tls_half_sent(const struct steady__tls *tls) { return tls->begun ? tls->record : 0; }

ssize_t steady__tls_recv(struct steady__tls *tls, void *bytes, size_t room) {
    ERR_clear_error();
    tls->left = RECEIVE_MOST;
    const int n = tls_settle(tls, SSL_read(tls->ssl, bytes, (int)room));
    if (n > 0) tls->heard = true;
    return n;
}

bool steady__tls_pending(const struct steady__tls *tls) { return SSL_has_pending(tls->ssl) == 1; }

/* ---- The context of a store ---- */

static int tls_refuse_file(steady_message *why, const char *what, const char *path, const char *reason) {
    char shown[128];
    steady_quote(shown, sizeof shown, path);
    return steady__fail(why, STEADY_BAD_ARGUMENT, "the TLS %s %s: %s", what, shown, reason);
}

static const struct {
    int library, reason;
    const char *text;
} file_troubles[] = {
    {ERR_LIB_PEM, PEM_R_NO_START_LINE, "it is not in PEM format, or holds something else"},
    {ERR_LIB_X509, X509_R_NO_CERTIFICATE_OR_CRL_FOUND, "it is not in PEM format, or holds something else"},
    {ERR_LIB_OSSL_DECODER, ERR_R_UNSUPPORTED, "it is not in PEM format, or holds something else"},
    {ERR_LIB_X509, X509_R_KEY_VALUES_MISMATCH, "it does not match the certificate"},
    {ERR_LIB_X509, X509_R_KEY_TYPE_MISMATCH, "it does not match the certificate"},
};

/* Fails with the error of OpenSSL about a file. */
static int tls_refuse_content(steady_message *why, const char *what, const char *path) {
    const unsigned long error = ERR_peek_error();
    const char *text = ERR_reason_error_string(error);
    if (ERR_GET_LIB(error) == ERR_LIB_SYS) text = strerror(ERR_GET_REASON(error));
    for (size_t i = 0; i < sizeof file_troubles / sizeof file_troubles[0]; i++)
        if (file_troubles[i].library == ERR_GET_LIB(error) && file_troubles[i].reason == ERR_GET_REASON(error))
            text = file_troubles[i].text;
    return tls_refuse_file(why, what, path, text != NULL ? text : "OpenSSL cannot use it");
}

/* The file must be readable to its end without blocking. */
static int tls_check_file(const char *what, const char *path, steady_message *why) {
    struct stat st;
    if (stat(path, &st) != 0) return tls_refuse_file(why, what, path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return tls_refuse_file(why, what, path, "it is not a regular file");
    return st.st_size <= FILE_MAX ? 0 : tls_refuse_file(why, what, path, "it is larger than 16 MiB");
}

static int tls_refuse_openssl(steady_message *why) {
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return steady__fail(why, STEADY_SYSTEM, "OpenSSL cannot be used: %s", reason != NULL ? reason : "no reason given");
}

/* Without this callback OpenSSL would ask at the terminal. */
static int tls_no_passphrase(char *text, int size, int writing, void *locked) {
    (void)writing;
    if (size > 0) *text = '\0';
    *(bool *)locked = true;
    return -1;
}

/* OpenSSL knows where the CAs are on the system that it was built for. A Python wheel has its OpenSSL inside, and runs
 * on others, too: if neither place exists, look where Debian, Fedora, RHEL, openSUSE and Alpine have them. */
static void tls_find_trust(SSL_CTX *ssl) {
#ifdef STEADY_OPENSSL_INSIDE
    static const char *const bundles[] = {
        "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
    if (getenv(X509_get_default_cert_file_env()) != NULL || getenv(X509_get_default_cert_dir_env()) != NULL ||
        access(X509_get_default_cert_file(), F_OK) == 0 || access(X509_get_default_cert_dir(), F_OK) == 0)
        return;
    for (size_t i = 0; i < sizeof bundles / sizeof bundles[0]; i++)
        if (SSL_CTX_load_verify_file(ssl, bundles[i]) == 1) return;
#else
    (void)ssl;
#endif
}

static int tls_load_trust(SSL_CTX *ssl, const char *ca, steady_message *why) {
    static const char what[] = "CA file";
    if (ca == NULL) {
        if (SSL_CTX_set_default_verify_paths(ssl) != 1) return tls_refuse_openssl(why);
        tls_find_trust(ssl);
        return 0;
    }
    const int error = tls_check_file(what, ca, why);
    if (error != 0) return error;
    return SSL_CTX_load_verify_file(ssl, ca) == 1 ? 0 : tls_refuse_content(why, what, ca);
}

static int tls_load_identity(struct steady__tls_context *context, const char *cert, const char *key,
                             steady_message *why) {
    static const char what_cert[] = "certificate", what_key[] = "key";
    SSL_CTX *ssl = context->ssl;
    if (cert == NULL && key == NULL) return 0;
    if (cert == NULL)
        return tls_refuse_file(why, what_key, key, "a key without a certificate cannot be used (set tls_cert)");
    if (key == NULL) key = cert;
    int error = tls_check_file(what_cert, cert, why);
    if (error == 0) error = tls_check_file(what_key, key, why);
    if (error != 0) return error;
    SSL_CTX_set_default_passwd_cb(ssl, tls_no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(ssl, &context->locked);
    if (SSL_CTX_use_certificate_chain_file(ssl, cert) != 1) return tls_refuse_content(why, what_cert, cert);
    const bool used = SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) == 1;
    if (context->locked)
        return tls_refuse_file(why, what_key, key, "it has a passphrase; use a key without a passphrase");
    if (!used) return tls_refuse_content(why, what_key, key);
    if (SSL_CTX_check_private_key(ssl) == 1) return 0;
    return tls_refuse_file(why, what_key, key, "it does not match the certificate");
}

/* A stricter setting of the system administrator stays. */
static int tls_set_up(SSL_CTX *ssl, bool verify, steady_message *why) {
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ssl, 1);
    SSL_CTX_set_verify(ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_client_cert_cb(ssl, tls_certificate_wanted);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ssl, tls_ticket_came);
    if (SSL_CTX_get_min_proto_version(ssl) >= TLS1_2_VERSION) return 0;
    return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 ? 0 : tls_refuse_openssl(why);
}

static const char *tls_either(const char *url, const char *option) { return *url != '\0' ? url : option; }

/* OpenSSL takes a leading dot for any name below it. */
static int tls_set_server_name(struct steady__tls_context *context, const char *name, steady_message *why) {
    if (name == NULL) return 0;
    if (*name == '\0' || *name == '.' || strlen(name) >= NAME_SIZE)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the TLS server name must be a host name or an address");
    tls_set_name(context->name, name);
    return 0;
}

static int tls_fill(struct steady__tls_context *context, const struct steady__url *url,
                    const steady_tls_options *options, steady_message *why) {
    const char *cert = tls_either(url->tls_cert, options->cert_file),
               *key = tls_either(url->tls_key, options->key_file);
    context->transport = tls_bio_new();
    context->ssl = SSL_CTX_new(TLS_client_method());
    if (context->transport == NULL || context->ssl == NULL) return tls_refuse_openssl(why);
    int error = tls_set_up(context->ssl, !url->tls_insecure && !options->insecure_skip_verify, why);
    if (error == 0) error = tls_set_server_name(context, tls_either(url->tls_server_name, options->server_name), why);
    if (error == 0) error = tls_load_trust(context->ssl, tls_either(url->tls_ca, options->ca_file), why);
    if (error == 0) error = tls_load_identity(context, cert, key, why);
    return error;
}

int steady__tls_open(struct steady__tls_context **context, const struct steady__url *url,
                     const steady_tls_options *options, steady_message *why) {
    static const steady_tls_options defaults;
    struct steady__tls_context *c = calloc(1, sizeof *c);
    *context = NULL;
    if (c == NULL) return steady__fail(why, STEADY_NO_MEMORY, "out of memory");
    ERR_clear_error();
    const int error = tls_fill(c, url, options != NULL ? options : &defaults, why);
    if (error == 0)
        *context = c;
    else
        steady__tls_close(c);
    ERR_clear_error();
    return error;
}

const char *steady__tls_version(void) { return OpenSSL_version(OPENSSL_VERSION); }

void steady__tls_close(struct steady__tls_context *context) {
    if (context == NULL) return;
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->transport);
    ERR_clear_error();
    free(context);
}
