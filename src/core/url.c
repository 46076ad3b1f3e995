/* SPDX-License-Identifier: MIT
 * Parses store URLs, in place in a copy.
 *
 * A URL with an error may hold a password anywhere, because an unescaped '/' or '@' moves every border. So a message
 * quotes a part of it only if there is no '@' in the whole URL. Of an option it quotes only the name: a misspelt name
 * may stand before a password. */
#include "core/url.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "core/error.h"

#define DB_MAX INT32_MAX
#define HOST_MAX 255
#define CONNECT_TIMEOUT_MAX (24 * 3600 * STEADY_SECOND)
#define DEFAULT_PORT 6379
#define SENTINEL_PORT 26379

static const struct {
    const char *prefix; /* with its colon */
    enum steady__scheme scheme;
} schemes[] = {
    {"memory:", STEADY__URL_MEMORY},
    {"file:", STEADY__URL_FILE},
    {"redis:", STEADY__URL_TCP},
    {"valkey:", STEADY__URL_TCP},
    {"rediss:", STEADY__URL_TLS},
    {"valkeys:", STEADY__URL_TLS},
    {"unix:", STEADY__URL_UNIX},
    {"redis+sentinel:", STEADY__URL_SENTINEL},
    {"valkey+sentinel:", STEADY__URL_SENTINEL},
    {"rediss+sentinel:", STEADY__URL_SENTINEL_TLS},
    {"valkeys+sentinel:", STEADY__URL_SENTINEL_TLS},
};

static size_t url_find_prefix(const char *text, enum steady__scheme *scheme) {
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        const size_t len = strlen(schemes[i].prefix);
        if (strncasecmp(text, schemes[i].prefix, len) != 0) continue;
        *scheme = schemes[i].scheme;
        return len;
    }
    return 0;
}

size_t steady__url_scheme(const char *text) {
    enum steady__scheme scheme;
    return url_find_prefix(text, &scheme);
}

/* The name of an option for a message; "..." if it may be a secret: the URL may hold a password, no '=' follows, or it
 * is no name. */
static const char *url_shown_name(const struct steady__url *url, const char *option, char out[48]) {
    const size_t len = strspn(option, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    if (url->secretive || option[len] != '=') return "...";
    steady__printable(out, 48, option, len);
    return out;
}

/* The start of an unknown URL, for a message. It ends before ':' or '?', because a password may follow. */
static const char *url_shown_beginning(const struct steady__url *url, char out[48]) {
    size_t len = strcspn(url->bytes, ":?=%");
    if (url->secretive) return "...";
    if (strncmp(url->bytes + len, "://", 3) == 0) len += 3 + strcspn(url->bytes + len + 3, ":/?=");
    steady__printable(out, 40, url->bytes, len);
    if (url->bytes[len] == ':') snprintf(out + strlen(out), 8, ":...");
    return out;
}

static int url_refuse(steady_message *why, const char *reason) {
    return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL %s", reason);
}

static int url_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Decodes %XX in place. */
static int url_decode(char *text, steady_message *why) {
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        const int high = url_hex(from[1]);
        const int low = high < 0 ? -1 : url_hex(from[2]);
        if (low < 0)
            return url_refuse(why, "contains a '%' without two hexadecimal digits after it; write %25 for '%'");
        if (high == 0 && low == 0) return url_refuse(why, "contains %00, which is not allowed");
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return 0;
}

/* Decimal digits only: no sign, no space. False if the number is over `max`. */
static bool url_read_number(const char *text, uint64_t max, uint64_t *number) {
    uint64_t n = 0;
    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') return false;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > max) return false;
    }
    *number = n;
    return true;
}

static int url_read_db(struct steady__url *url, const char *text, steady_message *why) {
    uint64_t n;
    if (!url_read_number(text, DB_MAX, &n))
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL's database must be a number, 0 .. %d", DB_MAX);
    url->db = (uint32_t)n;
    return 0;
}

static int url_read_port(struct steady__url *url, const char *text, steady_message *why) {
    uint64_t n;
    if (!url_read_number(text, UINT16_MAX, &n) || n == 0)
        return url_refuse(why, "has a port that is not a number in 1 .. 65535");
    url->port = (uint16_t)n;
    return 0;
}

/* user:pass, or :pass, or nothing. */
static int url_read_userinfo(struct steady__url *url, char *text, steady_message *why) {
    char *colon = strchr(text, ':');
    if (*text == '\0') return 0;
    if (colon == NULL) return url_refuse(why, "has a user without a password; write user:pass@, or :pass@");
    *colon = '\0';
    const int error = url_decode(text, why);
    if (error != 0) return error;
    url->user = text;
    url->password = colon + 1;
    return url_decode(colon + 1, why);
}

/* Splits off the part before the '@' of an authority. */
static int url_take_userinfo(struct steady__url *url, char **authority, steady_message *why) {
    char *at = strrchr(*authority, '@');
    if (at == NULL) return 0;
    *at = '\0';
    char *userinfo = *authority;
    *authority = at + 1;
    if (strchr(userinfo, '@') != NULL) return url_refuse(why, "has '@' in its user or password; write it %40");
    return url_read_userinfo(url, userinfo, why);
}

/* [address] or [address%zone]. The '%' before a zone may be written %25 (RFC 6874). */
static int url_read_bracketed(struct steady__url *url, char *text, steady_message *why) {
    struct in6_addr address;
    char *close = strchr(text, ']');
    if (close == NULL || (close[1] != '\0' && close[1] != ':')) return url_refuse(why, "has a '[' without a ']'");
    *close = '\0';
    url->host = ++text;
    char *zone = strchr(text, '%');
    if (zone != NULL) *zone = '\0';
    if (inet_pton(AF_INET6, text, &address) != 1) return url_refuse(why, "has no IPv6 address in its brackets");
    if (zone != NULL) {
        *zone++ = '%';
        if (strncmp(zone, "25", 2) == 0 && zone[2] != '\0') memmove(zone, zone + 2, strlen(zone + 2) + 1);
        if (*zone == '\0' || strlen(zone) > 15 || strchr(zone, '%') != NULL)
            return url_refuse(why, "has an IPv6 zone that is not an interface name");
    }
    return close[1] == ':' ? url_read_port(url, close + 2, why) : 0;
}

static bool url_host_is_plausible(const char *host) {
    for (const char *p = host; *p != '\0'; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '.' ||
              *p == '-' || *p == '_'))
            return false;
    return true;
}

static int url_read_host_port(struct steady__url *url, char *text, steady_message *why) {
    if (*text == '[') return url_read_bracketed(url, text, why);
    char *colon = strchr(text, ':');
    if (colon != NULL && strchr(colon + 1, ':') != NULL)
        return url_refuse(why, "has too many ':'; an IPv6 address goes in brackets, other ':' are written %3A");
    if (colon != NULL) *colon = '\0';
    if (*text == '\0') return url_refuse(why, "has no host");
    if (strlen(text) > HOST_MAX) return url_refuse(why, "has a host name of over 255 bytes");
    if (!url_host_is_plausible(text))
        return url_refuse(why, "has a host name with a byte that is not a letter, a digit, '.', '-' or '_'");
    url->host = text;
    return colon != NULL ? url_read_port(url, colon + 1, why) : 0;
}

/* ---- Options ---- */

static int url_read_db_option(struct steady__url *url, char *value, size_t field, steady_message *why) {
    (void)field;
    return url_read_db(url, value, why);
}

static int url_read_text(struct steady__url *url, char *value, size_t field, steady_message *why) {
    if (*value == '\0') return url_refuse(why, "has an option without a value after its '='");
    *(const char **)((char *)url + field) = value;
    return url_decode(value, why);
}

static int url_read_yes(struct steady__url *url, char *value, size_t field, steady_message *why) {
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return url_refuse(why, "has an option that must be yes or no, and is neither");
    *(bool *)((char *)url + field) = *value == 'y';
    return 0;
}

static int url_read_connect_timeout(struct steady__url *url, char *value, size_t field, steady_message *why) {
    (void)field;
    const bool read = steady_duration_parse(&url->connect_timeout, value, NULL) == 0;
    if (read && url->connect_timeout >= 1 && url->connect_timeout <= CONNECT_TIMEOUT_MAX) return 0;
    return url_refuse(why,
                      "has the option connect_timeout with a value that is no duration of 1us to 24h, such as 500ms");
}

static int url_read_deny_memory(struct steady__url *url, char *value, size_t field, steady_message *why) {
    (void)field;
    const bool read = strcmp(value, "0") == 0 || steady_duration_parse(&url->deny_memory, value, NULL) == 0;
    if (read && url->deny_memory == 0) url->deny_memory = -1;
    if (read && url->deny_memory >= -1 && url->deny_memory <= STEADY__DENY_MEMORY_MAX) return 0;
    return url_refuse(
        why, "has the option deny_memory with a value that is neither 0 nor a duration of 1us to 60s, such as 1s");
}

static int url_read_lease_age(struct steady__url *url, char *value, size_t field, steady_message *why) {
    (void)field;
    const bool read = strcmp(value, "0") == 0 || steady_duration_parse(&url->lease_age, value, NULL) == 0;
    if (read && url->lease_age == 0) url->lease_age = -1;
    if (read &&
        (url->lease_age == -1 || (url->lease_age >= STEADY__LEASE_AGE_MIN && url->lease_age <= STEADY__LEASE_AGE_MAX)))
        return 0;
    return url_refuse(
        why, "has the option lease_age with a value that is neither 0 nor a duration of 1ms to 60s, such as 100ms");
}

static int url_read_client_name(struct steady__url *url, char *value, size_t field, steady_message *why) {
    const int error = url_read_text(url, value, field, why);
    if (error != 0 || steady__client_name_is_valid(url->client_name)) return error;
    return url_refuse(
        why, "has the option client_name with a value that is not 1 to 64 printable ASCII bytes without spaces");
}

bool steady__client_name_is_valid(const char *name) {
    const size_t len = strlen(name);
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~') return false;
    return len >= 1 && len <= STEADY__CLIENT_NAME_MAX;
}

static int url_read_peek(struct steady__url *url, char *value, size_t field, steady_message *why) {
    (void)field;
    url->peek_replica = strcmp(value, "replica") == 0;
    return url->peek_replica || strcmp(value, "primary") == 0
               ? 0
               : url_refuse(why, "has a wrong value for peek; it must be replica or primary");
}

#define IN(scheme) (1u << (scheme))
#define IN_TLS (IN(STEADY__URL_TLS) | IN(STEADY__URL_SENTINEL_TLS))
#define IN_SENTINEL (IN(STEADY__URL_SENTINEL) | IN(STEADY__URL_SENTINEL_TLS))
#define IN_ALL (IN(STEADY__URL_TCP) | IN(STEADY__URL_UNIX) | IN_TLS | IN_SENTINEL)

static const struct option {
    const char *name; /* with its '=' */
    unsigned schemes;
    int (*read)(struct steady__url *url, char *value, size_t field, steady_message *why);
    size_t field;
} known_options[] = {
    {"db=", IN(STEADY__URL_UNIX), url_read_db_option, 0},
    {"peek=", IN_ALL, url_read_peek, 0},
    {"connect_timeout=", IN_ALL, url_read_connect_timeout, 0},
    {"deny_memory=", IN_ALL, url_read_deny_memory, 0},
    {"lease_age=", IN_ALL, url_read_lease_age, 0},
    {"client_name=", IN_ALL, url_read_client_name, offsetof(struct steady__url, client_name)},
    {"sentinel_username=", IN_SENTINEL, url_read_text, offsetof(struct steady__url, sentinel_user)},
    {"sentinel_password=", IN_SENTINEL, url_read_text, offsetof(struct steady__url, sentinel_password)},
    {"tls_ca=", IN_TLS, url_read_text, offsetof(struct steady__url, tls_ca)},
    {"tls_cert=", IN_TLS, url_read_text, offsetof(struct steady__url, tls_cert)},
    {"tls_key=", IN_TLS, url_read_text, offsetof(struct steady__url, tls_key)},
    {"tls_server_name=", IN_TLS, url_read_text, offsetof(struct steady__url, tls_server_name)},
    {"tls_insecure_skip_verify=", IN_TLS, url_read_yes, offsetof(struct steady__url, tls_insecure)},
};

enum { N_OPTIONS = sizeof known_options / sizeof known_options[0] };

static int url_find_option(const char *option) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (strncmp(option, known_options[i].name, strlen(known_options[i].name)) == 0) return i;
    return -1;
}

static int url_refuse_unknown(const struct steady__url *url, const char *option, steady_message *why) {
    char text[48];
    if (*option == '\0') return url_refuse(why, "has no option after its '?' or '&'");
    char list[160] = "";
    for (int i = 0; i < N_OPTIONS; i++) {
        const size_t len = strlen(list);
        if ((known_options[i].schemes & IN(url->scheme)) != 0)
            snprintf(list + len, sizeof list - len, "%s%.*s", len > 0 ? " " : "",
                     (int)strlen(known_options[i].name) - 1, known_options[i].name);
    }
    return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL has an unknown option \"%s\"; its options are %s",
                        url_shown_name(url, option, text), list);
}

static int url_refuse_here(const struct option *option, steady_message *why) {
    char list[96] = "";
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        const size_t len = strlen(list);
        if ((option->schemes & IN(schemes[i].scheme)) != 0)
            snprintf(list + len, sizeof list - len, " %s", schemes[i].prefix);
    }
    return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL has the option %.*s, which works only with%s",
                        (int)strlen(option->name) - 1, option->name, list);
}

/* a=b&c=d, each once. */
static int url_read_options(struct steady__url *url, char *options, steady_message *why) {
    unsigned seen = 0;
    for (char *option = options; option != NULL;) {
        char *next = strchr(option, '&');
        if (next != NULL) *next++ = '\0';
        const int i = url_find_option(option);
        if (i < 0) return url_refuse_unknown(url, option, why);
        if ((known_options[i].schemes & IN(url->scheme)) == 0) return url_refuse_here(&known_options[i], why);
        const int len = (int)strlen(known_options[i].name);
        if ((seen & 1u << i) != 0)
            return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL has the option %.*s twice", len - 1, option);
        seen |= 1u << i;
        const int error = known_options[i].read(url, option + len, known_options[i].field, why);
        if (error != 0) return error;
        option = next;
    }
    return 0;
}

/* ---- The part after the scheme ---- */

/* //[user:pass@]authority[/path][?options]: finds the authority without the user part, and the path or NULL. */
static int url_read_parts(struct steady__url *url, char *rest, char **authority, char **path, steady_message *why) {
    if (strncmp(rest, "//", 2) != 0) return url_refuse(why, "has no // after its scheme");
    char *options = strchr(rest, '?');
    if (options != NULL && strchr(options, '@') != NULL)
        return url_refuse(why, "has '?' in its user or password, or '@' in its options; write %3F or %40");
    if (options != NULL) *options++ = '\0';
    *authority = rest + 2;
    *path = strchr(*authority, '/');
    if (*path != NULL && strchr(*path, '@') != NULL)
        return url_refuse(why, "has '/' in its user or password; write it %2F");
    if (*path != NULL) *(*path)++ = '\0';
    const int error = url_take_userinfo(url, authority, why);
    return error == 0 && options != NULL ? url_read_options(url, options, why) : error;
}

/* host[:port] and db */
static int url_read_tcp(struct steady__url *url, char *rest, steady_message *why) {
    char *authority = rest, *path = NULL;
    int error = url_read_parts(url, rest, &authority, &path, why);
    if (error == 0) error = url_read_host_port(url, authority, why);
    if (error == 0 && path != NULL && *path != '\0') error = url_read_db(url, path, why);
    return error;
}

/* host[:port][,host[:port]]... */
static int url_read_sentinels(struct steady__url *url, char *list, steady_message *why) {
    for (char *one = list; one != NULL;) {
        char *next = strchr(one, ',');
        if (next != NULL) *next++ = '\0';
        if (url->n_sentinels == STEADY__SENTINELS_MAX) return url_refuse(why, "has more than 16 sentinels");
        url->port = SENTINEL_PORT;
        const int error = url_read_host_port(url, one, why);
        if (error != 0) return error;
        url->sentinels[url->n_sentinels++] = (struct steady__url_host){url->host, url->port};
        one = next;
    }
    url->host = "";
    return 0;
}

/* sentinels and service[/db] */
static int url_read_sentinel(struct steady__url *url, char *rest, steady_message *why) {
    char *authority = rest, *path = NULL;
    int error = url_read_parts(url, rest, &authority, &path, why);
    if (error == 0) error = url_read_sentinels(url, authority, why);
    if (error != 0) return error;
    if (path == NULL || *path == '\0' || *path == '/')
        return url_refuse(why, "has no service name; write redis+sentinel://host/service");
    char *db = strchr(path, '/');
    if (db != NULL) *db++ = '\0';
    url->service = path;
    error = url_decode(path, why);
    if (error == 0 && strlen(path) > HOST_MAX) return url_refuse(why, "has a service name of over 255 bytes");
    if (error == 0 && db != NULL && *db != '\0') error = url_read_db(url, db, why);
    if (error == 0 && *url->sentinel_user != '\0' && *url->sentinel_password == '\0')
        return url_refuse(why, "has a sentinel_username without a sentinel_password");
    return error;
}

/* /path, ///path, and with credentials //user:pass@/path */
static int url_read_path(struct steady__url *url, char *rest, bool credentials, steady_message *why) {
    char *path = rest;
    if (strncmp(rest, "//", 2) == 0) {
        path = strchr(rest + 2, '/');
        if (path == NULL || strchr(path, '@') != strrchr(path, '@') || (!credentials && path != rest + 2))
            return url_refuse(why, "has no absolute path; write file:/path or unix:/path");
        *path = '\0'; /* put back below */
        char *authority = rest + 2;
        const int error = credentials ? url_take_userinfo(url, &authority, why) : 0;
        if (error != 0) return error;
        if (*authority != '\0') return url_refuse(why, "has a host; file: and unix: take only a path");
        *path = '/';
    }
    if (*path != '/') return url_refuse(why, "needs an absolute path");
    url->path = path;
    return url_decode(path, why);
}

static int url_read_unix(struct steady__url *url, char *rest, steady_message *why) {
    const size_t room = sizeof((struct sockaddr_un *)NULL)->sun_path;
    char *options = strchr(rest, '?');
    if (options != NULL) *options++ = '\0';
    int error = url_read_path(url, rest, true, why);
    if (error == 0 && strlen(url->path) >= room)
        error = steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL's socket path is %zu bytes long; at most %zu",
                             strlen(url->path), room - 1);
    if (error == 0 && options != NULL) error = url_read_options(url, options, why);
    return error;
}

static int url_read_file(struct steady__url *url, char *rest, steady_message *why) {
    if (strchr(rest, '?') != NULL)
        return url_refuse(why, "has options after '?', but file: has none; write %3F for '?'");
    return url_read_path(url, rest, false, why);
}

static int url_find_scheme(struct steady__url *url, char **rest, steady_message *why) {
    char piece[48];
    const size_t len = url_find_prefix(url->bytes, &url->scheme);
    *rest = url->bytes + len;
    if (len > 0) return 0;
    return steady__fail(why, STEADY_BAD_ARGUMENT,
                        "the store URL \"%s\" does not begin with memory: file: redis: rediss: redis+sentinel: "
                        "rediss+sentinel: or unix:",
                        url_shown_beginning(url, piece));
}

static int url_read_rest(struct steady__url *url, char *rest, steady_message *why) {
    switch (url->scheme) {
    case STEADY__URL_MEMORY: return *rest == '\0' ? 0 : url_refuse(why, "has text after memory: (write memory: alone)");
    case STEADY__URL_FILE: return url_read_file(url, rest, why);
    case STEADY__URL_TCP:
    case STEADY__URL_TLS: return url_read_tcp(url, rest, why);
    case STEADY__URL_UNIX: return url_read_unix(url, rest, why);
    default: return url_read_sentinel(url, rest, why);
    }
}

static void url_say_nothing(struct steady__url *url) {
    url->host = url->path = url->user = url->password = "";
    url->client_name = "";
    url->service = url->sentinel_user = url->sentinel_password = "";
    url->tls_ca = url->tls_cert = url->tls_key = url->tls_server_name = "";
    url->n_sentinels = 0;
}

static int url_check_bytes(const char *text, steady_message *why) {
    const size_t len = strlen(text);
    if (len == 0) return url_refuse(why, "is empty; write memory: for the embedded store");
    if (len > STEADY__URL_MAX)
        return steady__fail(why, STEADY_BAD_ARGUMENT, "the store URL is %zu bytes long; at most %d", len,
                            STEADY__URL_MAX);
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f) return url_refuse(why, "contains a space or a control character");
    return strchr(text, '#') == NULL ? 0 : url_refuse(why, "contains a '#'; write it %23");
}

int steady__url_parse(struct steady__url *url, const char *text, steady_message *why) {
    char *rest = NULL;
    memset(url, 0, sizeof *url);
    url_say_nothing(url);
    url->port = DEFAULT_PORT;
    int error = url_check_bytes(text, why);
    if (error == 0) {
        memcpy(url->bytes, text, strlen(text) + 1);
        url->secretive = strchr(text, '@') != NULL || strcasestr(text, "password") != NULL;
        error = url_find_scheme(url, &rest, why);
    }
    if (error == 0) error = url_read_rest(url, rest, why);
    if (error != 0) steady__url_clear(url);
    return error;
}

static const char *url_moved(const struct steady__url *to, const struct steady__url *from, const char *piece) {
    return *piece == '\0' ? "" : to->bytes + (piece - from->bytes);
}

void steady__url_copy(struct steady__url *to, const struct steady__url *from) {
    *to = *from;
    to->host = url_moved(to, from, from->host);
    to->path = url_moved(to, from, from->path);
    to->user = url_moved(to, from, from->user);
    to->password = url_moved(to, from, from->password);
    for (unsigned i = 0; i < from->n_sentinels; i++)
        to->sentinels[i].host = url_moved(to, from, from->sentinels[i].host);
    to->client_name = url_moved(to, from, from->client_name);
    to->service = url_moved(to, from, from->service);
    to->sentinel_user = url_moved(to, from, from->sentinel_user);
    to->sentinel_password = url_moved(to, from, from->sentinel_password);
    to->tls_ca = url_moved(to, from, from->tls_ca);
    to->tls_cert = url_moved(to, from, from->tls_cert);
    to->tls_key = url_moved(to, from, from->tls_key);
    to->tls_server_name = url_moved(to, from, from->tls_server_name);
}

void steady__url_clear(struct steady__url *url) {
    explicit_bzero(url->bytes, sizeof url->bytes);
    url_say_nothing(url);
}
