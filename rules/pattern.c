/* SPDX-License-Identifier: MIT
 * Patterns with `*`, and paths as servers read them. */
#include "pattern.h"

#include <string.h>

static char pattern_fold(char c) {
    if (c >= 'A' && c <= 'Z') return (char)(c + ('a' - 'A'));
    return c;
}

/* After a mismatch, lets the last `*` match one byte more. Earlier ones never need to. So it takes at most
 * len(pattern) * len(text) steps. */
bool pattern_matches(const char *pattern, struct rules_text text, bool fold) {
    const char *star = NULL, *p = pattern;
    size_t i = 0, star_at = 0;
    while (i < text.len) {
        if (*p == '*') {
            if (p[1] == '\0') return true;
            star = p++;
            star_at = i;
        } else if (*p != '\0' && /* a text may have a NUL byte */
                   (*p == text.bytes[i] || (fold && pattern_fold(*p) == pattern_fold(text.bytes[i])))) {
            p++;
            i++;
        } else if (star != NULL) {
            p = star + 1;
            i = ++star_at;
        } else {
            return false;
        }
    }
    while (*p == '*')
        p++;
    return *p == '\0';
}

/* ---- Percent-encoding ---- */

static int pattern_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = pattern_fold(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that %XX stands for at text.bytes[i]; -1: none. */
static int pattern_encoded(struct rules_text text, size_t i) {
    if (text.bytes[i] != '%' || text.len - i < 3) return -1;
    const int high = pattern_hex(text.bytes[i + 1]), low = pattern_hex(text.bytes[i + 2]);
    return high >= 0 && low >= 0 ? high << 4 | low : -1;
}

bool pattern_decode(char *out, size_t *size, struct rules_text text, bool plus_is_space) {
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        const int byte = pattern_encoded(text, i);
        if (len == *size) return false;
        out[len] = text.bytes[i];
        if (plus_is_space && text.bytes[i] == '+') out[len] = ' ';
        if (byte >= 0) {
            out[len] = (char)byte;
            i += 2;
        }
        len++;
    }
    *size = len;
    return true;
}

static bool pattern_is_octal(const char *bytes) {
    return bytes[0] >= '0' && bytes[0] <= '3' && bytes[1] >= '0' && bytes[1] <= '7' && bytes[2] >= '0' &&
           bytes[2] <= '7';
}

size_t pattern_unescape(char *bytes, size_t len) {
    size_t to = 0;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\\' && len - i > 3 && pattern_is_octal(bytes + i + 1)) {
            bytes[to++] = (char)((bytes[i + 1] - '0') << 6 | (bytes[i + 2] - '0') << 3 | (bytes[i + 3] - '0'));
            i += 3;
        } else {
            if (bytes[i] == '\\' && len - i > 1) i++;
            bytes[to++] = bytes[i];
        }
    }
    return to;
}

/* ---- Paths ---- */

static struct rules_text pattern_before(struct rules_text text, const char *any_of) {
    for (; *any_of != '\0' && text.len > 0; any_of++) {
        const char *found = memchr(text.bytes, *any_of, text.len);
        if (found != NULL) text.len = (size_t)(found - text.bytes);
    }
    return text;
}

/* The target without "http://host". */
static struct rules_text pattern_origin_form(struct rules_text target) {
    if (target.len > 0 && target.bytes[0] == '/') return target;
    const struct rules_text scheme = pattern_before(target, ":/?#");
    if (scheme.len + 3 > target.len || scheme.len == 0 || memcmp(target.bytes + scheme.len, "://", 3) != 0)
        return target;
    const struct rules_text rest = {target.bytes + scheme.len + 3, target.len - scheme.len - 3};
    const size_t host = pattern_before(rest, "/?#").len;
    return (struct rules_text){rest.bytes + host, rest.len - host};
}

/* The last segment begins after the last slash of out[0 .. len). If it is "." or "..", it is removed. */
static size_t pattern_end_segment(const char *out, size_t len) {
    size_t begin = len;
    while (begin > 0 && out[begin - 1] != '/')
        begin--;
    const size_t n = len - begin;
    if (n == 1 && out[begin] == '.') return begin;
    if (n != 2 || out[begin] != '.' || out[begin + 1] != '.') return len;
    if (begin <= 1) return begin; /* at the root */
    begin--;                      /* the slash before ".." */
    while (begin > 0 && out[begin - 1] != '/')
        begin--;
    return begin;
}

enum { DECODED = 1, MERGED = 2, RESOLVED = 4, WITHOUT_PARAMETERS = 8, URL_STANDARD = 16 };

/* The first one is also the path of a key. */
static const unsigned pattern_readings[RULES_READINGS_MAX] = {
    DECODED | MERGED | RESOLVED | WITHOUT_PARAMETERS, /* Java: Tomcat, Jetty, Spring */
    DECODED | MERGED | RESOLVED,                      /* nginx, Go */
    RESOLVED | URL_STANDARD,                          /* Node, Envoy: a backslash is a slash, //HOST is a host */
    DECODED,                                          /* WSGI, ASGI */
    0                                                 /* as it was sent: Express, Rack */
};

/* Reads a path that all servers read alike. Its length without a slash at the end, or 0: it is another path, or there
 * is no room. */
static size_t pattern_read_plain(char *out, size_t size, struct rules_text path) {
    if (path.len == 0 || path.len > size || path.bytes[0] != '/') return 0;
    out[0] = '/';
    for (size_t i = 1; i < path.len; i++) {
        const char c = path.bytes[i];
        if (c == '%' || c == ';' || c == '\\') return 0;
        if ((c == '/' || c == '.') && path.bytes[i - 1] == '/') return 0;
        out[i] = pattern_fold(c);
    }
    return path.len - (path.len > 1 && path.bytes[path.len - 1] == '/');
}

/* The path without the host of //HOST/PATH. */
static struct rules_text pattern_without_host(struct rules_text path) {
    size_t i = 0;
    while (i < path.len && (path.bytes[i] == '/' || path.bytes[i] == '\\'))
        i++;
    if (i < 2) return path;
    while (i < path.len && path.bytes[i] != '/' && path.bytes[i] != '\\')
        i++;
    return (struct rules_text){path.bytes + i, path.len - i};
}

/* Reads a path. Its length without a slash at the end, or SIZE_MAX if there is no room. */
static size_t pattern_read(char *out, size_t size, struct rules_text path, unsigned reading) {
    size_t len = 0;
    if ((reading & URL_STANDARD) != 0) path = pattern_without_host(path);
    const bool has_slash =
        path.len > 0 && (path.bytes[0] == '/' || (path.bytes[0] == '\\' && (reading & URL_STANDARD) != 0));
    if (!has_slash) out[len++] = '/';
    for (size_t i = 0; i < path.len; i++) {
        const int byte = pattern_encoded(path, i);
        char c = path.bytes[i];
        if (c == ';' && (reading & WITHOUT_PARAMETERS) != 0) {
            while (i + 1 < path.len && path.bytes[i + 1] != '/')
                i++;
            continue;
        }
        /* No text of a request has a NUL, so %00 stays. */
        if (byte > 0 && ((reading & DECODED) != 0 || (byte == '.' && (reading & RESOLVED) != 0))) {
            c = (char)byte;
            i += 2;
        } else if (c == '\\' && (reading & URL_STANDARD) != 0) {
            c = '/';
        }
        if (c == '/' && (reading & RESOLVED) != 0) {
            const size_t end = pattern_end_segment(out, len);
            const bool removed = end != len;
            len = end;
            if (removed && len > 0 && out[len - 1] == '/') continue;
        }
        if (c == '/' && (reading & MERGED) != 0 && len > 0 && out[len - 1] == '/') continue;
        if (len == size) return SIZE_MAX;
        out[len++] = pattern_fold(c);
    }
    if ((reading & RESOLVED) != 0) len = pattern_end_segment(out, len);
    while (len > 1 && out[len - 1] == '/')
        len--;
    return len;
}

/* One more reading; its bytes are there. */
static void pattern_add(struct rules_path *path, size_t len) {
    memcpy(path->bytes[path->n] + len, "/\0\0\0\0\0\0\0", 9);
    path->len[path->n++] = len;
}

bool pattern_read_path(struct rules_path *path, struct rules_text target) {
    const struct rules_text text = pattern_before(pattern_origin_form(target), "?#");
    path->n = 0;
    if (target.len == 0) return true;
    const size_t plain = pattern_read_plain(path->bytes[0], RULES_PATH_MAX, text);
    if (plain > 0) pattern_add(path, plain);
    for (size_t i = 0; plain == 0 && i < RULES_READINGS_MAX; i++) {
        char *out = path->bytes[path->n];
        const size_t len = pattern_read(out, RULES_PATH_MAX, text, pattern_readings[i]);
        bool known = false;
        if (len == SIZE_MAX) return false;
        for (size_t k = 0; k < path->n; k++)
            known = known || (path->len[k] == len && memcmp(path->bytes[k], out, len) == 0);
        if (known) continue;
        pattern_add(path, len);
    }
    return true;
}

bool pattern_matches_path(const char *pattern, const struct rules_path *path) {
    for (size_t i = 0; i < path->n; i++) {
        const struct rules_text with_slash = {path->bytes[i], path->len[i] + 1};
        if (pattern_matches(pattern, (struct rules_text){path->bytes[i], path->len[i]}, true)) return true;
        if (path->len[i] > 1 && pattern_matches(pattern, with_slash, true)) return true;
    }
    return false;
}

void pattern_path_begins(const char *const *patterns, size_t n, uint64_t *begins, uint64_t *mask) {
    char first[8] = {0}, all[8] = {0};
    size_t len = n > 0 ? sizeof first : 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < len; k++) {
            const char c = pattern_fold(patterns[i][k]);
            if (c == '\0' || c == '*' || (i > 0 && c != first[k])) len = k;
            if (i == 0) first[k] = c;
        }
    memset(all, 0xff, len);
    for (size_t k = len; k < sizeof first; k++)
        first[k] = '\0';
    memcpy(begins, first, sizeof first);
    memcpy(mask, all, sizeof all);
}

struct rules_text pattern_query(struct rules_text target) {
    const struct rules_text whole = pattern_before(target, "#");
    const size_t path = pattern_before(whole, "?").len;
    if (path == whole.len) return (struct rules_text){0};
    return (struct rules_text){whole.bytes + path + 1, whole.len - path - 1};
}
