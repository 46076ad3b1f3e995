/* SPDX-License-Identifier: MIT
 * The filter for texts from outside. Each message with bytes from outside passes through here. All other messages of
 * the library are its own words.
 *
 * A server may quote received bytes: in its error, in host names, in its settings. A search for the known secrets is
 * not enough. It misses keys of other decisions, a password of the caller's own connection, and a cut or encoded
 * secret. So only words of the list below are shown. They say nothing about the sent bytes.
 *
 * A secret may itself be a word of the list. Then the whole text is hidden. A gap in place of the word would show the
 * position of the word, and so the word. */
#include "core/redact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MASK "***"
#define MASKED_LEAST 4 /* bytes of a secret that is looked for inside other words */

/* ---- The words that are shown ---- */

/* The first word of an error, and its meaning, which is shown if the rest is hidden. */
static const struct {
    const char *word, *meaning;
} classes[] = {
    {"ASK", "another node serves the key for now"},
    {"BUSY", "the server is busy with a script or command"},
    {"CLUSTERDOWN", "the cluster is down"},
    {"CROSSSLOT", "the keys lie in several slots"},
    {"DENIED", "the server is in protected mode"},
    {"ERR", NULL},
    {"LOADING", "the server is loading its data"},
    {"MASTERDOWN", "the replica has lost its primary"},
    {"MISCONF", "the server cannot save to disk and accepts no writes"},
    {"MOVED", "another node serves the key"},
    {"NOAUTH", "the server requires a user and a password"},
    {"NOPERM", "the user has no permission for the command or the key"},
    {"NOREPLICAS", "too few replicas are connected"},
    {"NOSCRIPT", "the script is not loaded"},
    {"NOTABUCKET", "the key holds something that is not a bucket"},
    {"OOM", "the server's memory is full"},
    {"READONLY", "the server is a replica"},
    {"TRYAGAIN", "the slot of the key is being moved"},
    {"UNKILLABLE", "the running script has written data and cannot be stopped"},
    {"WRONGPASS", "the user or the password is wrong"},
    {"WRONGTYPE", "the key holds another type of value"},
};

/* Known texts of servers that quote nothing. They are shown even if a secret is a word of them, because they never
 * depend on the sent bytes. */
static const char *const sentences[] = {
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN The cluster is down and only accepts read commands",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "ERR This instance has cluster support disabled",
    "ERR max number of clients reached",
    "ERR syntax error",
    "ERR unknown command 'EVALSHA'",
    "ERR unknown command 'SCRIPT'",
    "ERR unknown command 'STEADY.CONSUME'",
    "ERR unknown command 'STEADY.CONSUMEALL'",
    "ERR unknown command 'STEADY.PEEK'",
    "ERR unknown command 'STEADY.PEEKALL'",
    "ERR unknown command 'STEADY.RESET'",
    "ERR unknown command 'STEADY.SETTLE'",
    "LOADING Redis is loading the dataset in memory",
    "LOADING Valkey is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOAUTH Authentication required.",
    "NOREPLICAS Not enough good replicas to write.",
    "NOSCRIPT No matching script. Please use EVAL.",
    "NOSCRIPT No matching script.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
};

/* Commands and abbreviations, in upper or lower case. */
/* clang-format off */
static const char *const commands[] = {
    "ACL", "AOF", "ASKING", "AUTH", "CLIENT", "CLUSTER", "CONFIG", "DB", "DEL", "EVAL", "EVALSHA", "FUNCTION",
    "GET", "HELLO", "KILL", "LOAD", "LUA", "MASTER", "NOSAVE", "RDB", "REDIS", "ROLE", "SCRIPT", "SELECT",
    "SENTINEL", "SET", "SHUTDOWN", "SLOTS", "STEADY.CONSUME", "STEADY.CONSUMEALL", "STEADY.PEEK", "STEADY.PEEKALL",
    "STEADY.RESET", "STEADY.SETTLE", "TIME", "VALKEY",
};
/* clang-format on */

/* In lower case, or with a capital at the start; sorted. From the errors of Redis, Valkey, Sentinel and the proxies
 * that our commands can meet, and from our scripts and our module. */
/* clang-format off */
static const char *const words[] = {
    "a", "aborted", "about", "accept", "accepts", "access", "account", "acl", "acls", "again", "against", "all",
    "allow", "allow-oom", "allowed", "already", "amount", "an", "and", "any", "are", "argument", "arguments", "as",
    "at", "auth", "authentication", "available", "bad", "be", "because", "been", "before", "beginning", "between",
    "block", "block_duration", "blocked", "bucket", "bulk", "busy", "but", "by", "bytes", "call", "called", "calling",
    "can", "can't", "cannot", "capacity", "change", "changed", "channel", "check", "client", "clients", "closed",
    "closing", "cluster", "code", "command", "commands", "config", "configuration", "configured", "connect",
    "connected", "connecting", "connection", "connections", "contain", "contains", "could", "couldn't", "count",
    "currently", "data", "database", "databases", "dataset", "day", "default", "denied", "details", "did",
    "different", "disabled", "disk", "do", "does", "doesn't", "don't", "down", "drop_recharge", "drops", "due",
    "during", "each", "else", "empty", "enable", "enabled", "enough", "error", "errors", "exceed", "exceeded",
    "executed", "executing", "execution", "exist", "exists", "expected", "expire", "expired", "failed", "failing",
    "failover", "failure", "flag", "for", "forbidden", "found", "from", "full", "function", "given", "good", "got",
    "greater", "group", "has", "hash", "have", "holding", "holds", "host", "if", "in", "index", "instance",
    "instances", "insufficient", "integer", "internal", "into", "invalid", "is", "isn't", "it", "its", "key", "keys",
    "kind", "lacks", "large", "length", "less", "level", "limit", "limited", "limits", "line", "link", "list",
    "loaded", "loading", "local", "lost", "many", "master", "masters", "match", "matching", "max", "max_burst",
    "max_capacity", "maximum", "maxmemory", "memory", "minute", "missing", "mode", "module", "more", "moved",
    "multibulk", "multiple", "must", "name", "need", "needs", "network", "no", "node", "nodes", "not", "number", "of",
    "offline", "on", "one", "only", "open", "operation", "option", "optionally", "or", "other", "out", "over",
    "overloaded", "own", "parse", "password", "per", "period", "permission", "permissions", "permitted", "persist",
    "plan", "please", "policy", "pool", "port", "primary", "protected", "protocol", "proxy", "quantity", "quota",
    "range", "rate", "reached", "read", "read-only", "readonly", "ready", "received", "recharge", "refused",
    "rehashing", "remote", "removed", "replica", "replica-serve-stale-data", "replicas", "replication", "reply",
    "request", "requested", "requests", "required", "requires", "reset", "right", "rights", "run", "running", "same",
    "save", "script", "scripts", "second", "see", "send", "sent", "served", "server", "servers", "service", "session",
    "set", "shard", "should", "size", "slot", "slots", "snapshots", "something", "source", "specified",
    "stop-writes-on-bgsave-error", "storage", "stored", "string", "subcommand", "such", "support", "supported",
    "syntax", "temporarily", "than", "that", "the", "then", "there", "this", "throttled", "time", "timed", "timeout",
    "tls", "to", "token", "too", "tried", "try", "type", "unable", "unauthorized", "unavailable", "unexpected",
    "unknown", "unreachable", "unsupported", "upstream", "usage", "use", "used", "user", "username",
    "username-password", "using", "valid", "value", "values", "version", "via", "was", "when", "while", "with",
    "without", "write", "writes", "wrong", "you", "your",
};
/* clang-format on */

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static int redact_compare_words(const void *word, const void *entry) {
    return strcmp(word, *(const char *const *)entry);
}

/* A piece of a text, without a NUL at its end. */
struct piece {
    const char *at;
    size_t len;
};

static bool redact_is_one_of(char c, const char *marks) { return c != '\0' && strchr(marks, c) != NULL; }

static bool redact_is_capital(char c) { return c >= 'A' && c <= 'Z'; }

static char redact_lower(char c) { return (char)(redact_is_capital(c) ? c - 'A' + 'a' : c); }

static bool redact_is_command(struct piece piece) {
    for (size_t i = 0; i < COUNT(commands); i++)
        if (strlen(commands[i]) == piece.len && strncasecmp(commands[i], piece.at, piece.len) == 0) return true;
    return false;
}

static bool redact_is_word(struct piece piece) {
    char word[32];
    if (piece.len == 0 || piece.len >= sizeof word || memchr(piece.at, '\0', piece.len) != NULL) return false;
    memcpy(word, piece.at, piece.len);
    word[piece.len] = '\0';
    word[0] = redact_lower(word[0]);
    return bsearch(word, words, COUNT(words), sizeof words[0], redact_compare_words) != NULL ||
           redact_is_command(piece);
}

/* ---- Writing ---- */

struct out {
    char *text;
    size_t size, len;
};

/* Writes a piece as a whole or not at all. If it does not fit, nothing is written after it. */
static void redact_put(struct out *out, const char *at, size_t len) {
    if (out->len + len >= out->size) {
        out->size = out->len + 1;
        return;
    }
    memcpy(out->text + out->len, at, len);
    out->len += len;
    out->text[out->len] = '\0';
}

static void redact_put_text(struct out *out, const char *text) { redact_put(out, text, strlen(text)); }

static struct out redact_begin(char *text, size_t size) {
    if (size > 0) *text = '\0';
    return (struct out){text, size, 0};
}

static bool redact_ends_with(const struct out *out, const char *end) {
    const size_t len = strlen(end);
    return out->len >= len && memcmp(out->text + out->len - len, end, len) == 0;
}

/* ---- Looking for secrets ---- */

static bool redact_is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || redact_is_capital(c);
}

static bool redact_holds(const char *text, size_t len, struct piece secret, bool whole_words) {
    for (size_t i = 0; secret.len > 0 && i + secret.len <= len; i++) {
        if (redact_lower(text[i]) != redact_lower(*secret.at) || strncasecmp(text + i, secret.at, secret.len) != 0)
            continue;
        const bool begins = i == 0 || !redact_is_alphanumeric(text[i - 1]) || !redact_is_alphanumeric(text[i]);
        const size_t end = i + secret.len;
        const bool ends = end == len || !redact_is_alphanumeric(text[end]) || !redact_is_alphanumeric(text[end - 1]);
        if (!whole_words || (begins && ends)) return true;
    }
    return false;
}

static struct piece redact_piece_of(const char *text) { return (struct piece){text, text != NULL ? strlen(text) : 0}; }

enum { OF_URL = 4, OF_KEY = 3 };

/* The secrets of a key: all of it; what the caller named; of PREFIX{KEY}NAME, KEY. */
static struct piece redact_secret_of_key(const struct steady__key *key, size_t i) {
    struct piece named = {NULL, 0};
    if (key->prefix_len < key->len) named = (struct piece){key->text + key->prefix_len, key->len - key->prefix_len};
    if (i == 0) return (struct piece){key->text, key->len};
    if (i == 1) return named;
    const char *end = named.len > 0 && *named.at == '{' ? memchr(named.at, '}', named.len) : NULL;
    return end != NULL ? (struct piece){named.at + 1, (size_t)(end - named.at) - 1} : (struct piece){NULL, 0};
}

/* The i-th secret; it may be empty. False: there are no more. */
static bool redact_secret(const struct steady__secrets *secrets, size_t i, struct piece *secret) {
    const struct steady__url *url = secrets->url;
    *secret = (struct piece){NULL, 0};
    if (i < OF_URL) {
        if (url != NULL)
            *secret = redact_piece_of(
                (const char *const[OF_URL]){url->password, url->sentinel_password, url->user, url->sentinel_user}[i]);
        return true;
    }
    const struct steady__key one = {secrets->key, secrets->key_len, secrets->prefix_len};
    const size_t n_keys = secrets->keys != NULL ? secrets->n_keys : secrets->key != NULL, k = (i - OF_URL) / OF_KEY;
    if (k < n_keys)
        *secret = redact_secret_of_key(secrets->keys != NULL ? &secrets->keys[k] : &one, (i - OF_URL) % OF_KEY);
    return k < n_keys;
}

static bool redact_holds_secret(const char *text, size_t len, const struct steady__secrets *secrets) {
    struct piece secret;
    for (size_t i = 0; redact_secret(secrets, i, &secret); i++)
        if (redact_holds(text, len, secret, true)) return true;
    return false;
}

/* ---- A server's error ---- */

/* The length without the arguments of the command. Servers quote them last. */
static size_t redact_without_quotation(const char *text, size_t len) {
    static const char quoting[] = ", with args beginning";
    const char *quote = memmem(text, len, quoting, sizeof quoting - 1);
    return quote != NULL ? (size_t)(quote - text) : len;
}

static const char *redact_sentence_of(const char *text, size_t len) {
    for (size_t i = 0; i < COUNT(sentences); i++)
        if (strlen(sentences[i]) == len && memcmp(sentences[i], text, len) == 0) return sentences[i];
    return NULL;
}

static int redact_class_of(struct piece piece) {
    for (size_t i = 0; i < COUNT(classes); i++)
        if (strlen(classes[i].word) == piece.len && memcmp(classes[i].word, piece.at, piece.len) == 0) return (int)i;
    return -1;
}

/* The word without the marks around it: at most one before it and two behind it. */
static struct piece redact_core_of(struct piece token) {
    if (token.len > 1 && redact_is_one_of(*token.at, "'\"(`[<")) {
        token.at++;
        token.len--;
    }
    for (int i = 0; i < 2 && token.len > 1 && redact_is_one_of(token.at[token.len - 1], "'\")`]>.,:;!?"); i++)
        token.len--;
    return token;
}

static void redact_put_mask(struct out *out) {
    if (redact_ends_with(out, " " MASK)) return;
    redact_put_text(out, " " MASK);
}

/* True if a word of the server was shown. */
static bool redact_put_token(struct out *out, struct piece token) {
    const struct piece core = redact_core_of(token);
    const bool known = redact_is_word(core);
    if (known || (token.len == 1 && redact_is_one_of(*token.at, ">-=+&"))) {
        const size_t room = out->size - out->len;
        if (token.len + 1 < room) {
            redact_put(out, " ", 1);
            redact_put(out, token.at, token.len);
        } else {
            out->size = out->len + 1;
        }
    } else {
        redact_put_mask(out);
    }
    return known;
}

static void redact_put_meaning(struct out *out, int class_) {
    const char *meaning = class_ >= 0 ? classes[class_].meaning : NULL;
    if (class_ < 0) redact_put_text(out, "an error");
    if (class_ >= 0) redact_put_text(out, classes[class_].word);
    redact_put_text(out, " (");
    redact_put_text(out,
                    meaning != NULL ? meaning : "the server's text is not shown: it may contain a key or a password");
    redact_put_text(out, ")");
}

static struct piece redact_next_token(struct piece *rest) {
    while (rest->len > 0 && *rest->at == ' ') {
        rest->at++;
        rest->len--;
    }
    const char *space = memchr(rest->at, ' ', rest->len);
    const struct piece token = {rest->at, space != NULL ? (size_t)(space - rest->at) : rest->len};
    rest->at += token.len;
    rest->len -= token.len;
    return token;
}

void steady__redact(char *text, size_t size, const char *error, size_t len, const struct steady__secrets *secrets) {
    struct out out = redact_begin(text, size);
    struct piece rest = {error, redact_without_quotation(error, len)}, token;
    const char *sentence = redact_sentence_of(rest.at, rest.len);
    if (sentence != NULL) {
        redact_put_text(&out, sentence);
        return;
    }
    bool said = false;
    token = redact_next_token(&rest);
    const int class_ = redact_class_of(token);
    const size_t begun = class_ >= 0 ? token.len : 0;
    if (class_ >= 0)
        redact_put(&out, token.at, token.len);
    else if (token.len > 0)
        said = redact_put_token(&out, token);
    while ((token = redact_next_token(&rest)).len > 0)
        said = redact_put_token(&out, token) || said;
    if (!said || redact_holds_secret(text + begun, out.len - begun, secrets)) {
        out = redact_begin(text, size);
        redact_put_meaning(&out, class_);
    } else if (*text == ' ') {
        memmove(text, text + 1, out.len);
    }
}

/* ---- Texts without bytes of a server ---- */

/* Writes a text with masked secrets, and with '?' for each byte other than printable ASCII. Secrets shorter than
 * MASKED_LEAST bytes are not masked: too many words contain them. */
static void redact_put_without(struct out *out, struct piece text, const struct steady__secrets *secrets) {
    struct piece secret;
    while (text.len > 0) {
        size_t skip = 0;
        for (size_t i = 0; redact_secret(secrets, i, &secret); i++)
            if (secret.len >= MASKED_LEAST && secret.len <= text.len && secret.len > skip &&
                strncasecmp(text.at, secret.at, secret.len) == 0)
                skip = secret.len;
        const char shown = (char)(*text.at >= 0x20 && *text.at < 0x7f ? *text.at : '?');
        if (skip > 0)
            redact_put_text(out, MASK);
        else
            redact_put(out, &shown, 1);
        text.at += skip > 0 ? skip : 1;
        text.len -= skip > 0 ? skip : 1;
    }
}

void steady__redact_known(char *text, size_t size, const char *said, const struct steady__secrets *secrets) {
    struct out out = redact_begin(text, size);
    char quoted[256];
    for (struct piece rest = redact_piece_of(said), token; (token = redact_next_token(&rest)).len > 0;) {
        if (out.len > 0) redact_put_text(&out, " ");
        const bool may_be_url =
            memchr(token.at, '@', token.len) != NULL || memmem(token.at, token.len, "://", 3) != NULL;
        if (may_be_url && token.len >= sizeof quoted) {
            token = redact_piece_of(MASK);
        } else if (may_be_url) {
            char whole[sizeof quoted];
            memcpy(whole, token.at, token.len);
            whole[token.len] = '\0';
            steady_quote(quoted, sizeof quoted, whole);
            token = redact_piece_of(quoted);
        }
        redact_put_without(&out, token, secrets);
    }
}

/* ---- Arguments, paths and URLs ---- */

/* Whether a text has a user or a password before an '@', as URLs have. */
static bool redact_has_credentials(const char *text) {
    const char *colon = strchr(text, ':'), *last = NULL;
    for (const char *at = strpbrk(text, "@%"); at != NULL; at = strpbrk(at + 1, "@%"))
        if (*at == '@' || strncmp(at, "%40", 3) == 0) last = at;
    if (last == NULL) return false;
    return *text != '/' || (colon != NULL && colon < last); /* a path may hold an '@' */
}

/* The start of the first value whose name says that it is a secret, such as password=. NULL: none. */
static const char *redact_find_value(const char *text) {
    static const char *const names[] = {"pass", "pwd", "secret", "token", "auth", "credential"};
    const char *first = NULL;
    for (size_t i = 0; i < COUNT(names); i++) {
        const char *name = strcasestr(text, names[i]), *value = name != NULL ? strpbrk(name, "=:") : NULL;
        if (value != NULL && (first == NULL || value < first)) first = value;
    }
    return first != NULL ? first + 1 : NULL;
}

static bool redact_begins_with(const char *text, const char *part) { return strncmp(text, part, strlen(part)) == 0; }

/* Writes a valid URL without its user and the values of passwords. */
static void redact_put_url(struct out *out, const char *url) {
    const char *options = strchr(url, '?');
    const char *authority = strstr(url, "//");
    if (authority != NULL && options != NULL && options < authority) authority = NULL; /* of the value of an option */
    const char *path = authority != NULL ? authority + 2 + strcspn(authority + 2, "/?") : NULL;
    const char *at = authority != NULL ? memchr(authority, '@', (size_t)(path - authority)) : NULL;
    const char *rest = url;
    if (at != NULL) {
        redact_put(out, url, (size_t)(authority + 2 - url));
        redact_put_text(out, MASK);
        rest = at;
    }
    redact_put(out, rest, options != NULL ? (size_t)(options - rest) : strlen(rest));
    for (const char *option = options; option != NULL && *option != '\0';) {
        const size_t len = 1 + strcspn(option + 1, "&");
        const char *value = memchr(option, '=', len);
        if (value != NULL && memmem(option, len, "password=", 9) != NULL) {
            redact_put(out, option, (size_t)(value + 1 - option));
            redact_put_text(out, MASK);
        } else {
            redact_put(out, option, len);
        }
        option += len;
    }
}

static bool redact_is_url(const char *text) {
    struct steady__url url;
    const bool is = steady__url_parse(&url, text, NULL) == 0 && !redact_has_credentials(url.path) &&
                    redact_find_value(url.path) == NULL && redact_find_value(url.service) == NULL;
    steady__url_clear(&url);
    return is;
}

/* The length of "scheme:" or "scheme://" at the start of a possible URL; 0: none. */
static size_t redact_scheme_length(const char *text) {
    const size_t known = steady__url_scheme(text);
    const size_t len = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+");
    if (known > 0) return redact_begins_with(text + known, "//") ? known + 2 : known;
    return len > 0 && len < 20 && redact_begins_with(text + len, "://") ? len + 3 : 0;
}

static void redact_put_printable(struct out *out, const char *text) {
    const size_t len = strlen(text), room = out->size > 0 ? out->size - 1 : 0;
    const size_t shown = len <= room ? len : room > 3 ? room - 3 : 0;
    for (size_t i = 0; i < shown; i++)
        redact_put(out, text[i] >= 0x20 && text[i] < 0x7f ? &text[i] : "?", 1);
    if (shown < len) redact_put_text(out, room >= 3 ? "..." : "");
}

void steady_quote(char *out, size_t size, const char *text) {
    struct out quoted = redact_begin(out, size);
    if (text == NULL) return;
    char whole[STEADY__URL_MAX + 64];
    struct out safe = redact_begin(whole, sizeof whole);
    const char *value = redact_find_value(text);
    const size_t scheme = redact_scheme_length(text);
    if (redact_is_url(text)) {
        redact_put_url(&safe, text);
    } else if (scheme > 0 || redact_has_credentials(text) || strstr(text, "://") != NULL) {
        redact_put(&safe, text, scheme);
        redact_put_text(&safe, MASK);
    } else if (value != NULL) {
        redact_put(&safe, text, (size_t)(value - text));
        redact_put_text(&safe, MASK);
    } else {
        redact_put_printable(&quoted, text);
        return;
    }
    redact_put_printable(&quoted, whole);
    explicit_bzero(whole, sizeof whole);
}

/* ---- Places ---- */

bool steady__host_holds(const char *host, const struct steady__secrets *secrets) {
    const size_t len = strlen(host);
    struct piece secret;
    for (size_t i = 0; redact_secret(secrets, i, &secret); i++)
        if ((secret.len >= MASKED_LEAST || secret.len == len) && redact_holds(host, len, secret, false)) return true;
    return false;
}

void steady__redact_place(char *text, size_t size, const struct steady__url *at, const struct steady__url *service) {
    const struct steady__secrets secrets = {.url = service};
    struct out out = redact_begin(text, size);
    char port[16];
    if (*at->host == '\0') {
        const bool sentinel = steady__url_is_sentinel(at->scheme);
        redact_put_printable(&out, sentinel ? at->service : redact_has_credentials(at->path) ? MASK : at->path);
        return;
    }
    const bool hidden = at->named && (at->unshown || steady__host_holds(at->host, &secrets));
    const bool brackets = strchr(at->host, ':') != NULL;
    snprintf(port, sizeof port, "%s:%u", brackets ? "]" : "", (unsigned)at->port);
    redact_put_text(&out, brackets ? "[" : "");
    redact_put_printable(&out, hidden ? MASK : at->host);
    redact_put_text(&out, port);
}
