/* SPDX-License-Identifier: MIT
 * Patterns with `*`, and paths in their normal form. */
#include "pattern.h"

#include <string.h>

static char pattern_fold(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* After a mismatch, lets the last `*` match one byte more. Earlier ones never need to. So it takes at most
 * len(pattern) * len(text) steps. */
bool pattern_matches(const char *pattern, struct rules_text text, bool fold) {
    const char *star = NULL, *p = pattern;
    size_t i = 0, star_at = 0;
    while (i < text.len) {
        if (*p == '*') {
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

/* ---- Paths ---- */

static struct rules_text pattern_before(struct rules_text text, const char *any_of) {
    for (size_t i = 0; i < text.len; i++)
        if (text.bytes[i] != '\0' && strchr(any_of, text.bytes[i]) != NULL) return (struct rules_text){text.bytes, i};
    return text;
}

/* The target without "http://host". */
static struct rules_text pattern_origin_form(struct rules_text target) {
    const struct rules_text scheme = pattern_before(target, ":/?#");
    if (scheme.len + 3 > target.len || scheme.len == 0 || memcmp(target.bytes + scheme.len, "://", 3) != 0)
        return target;
    const struct rules_text rest = {target.bytes + scheme.len + 3, target.len - scheme.len - 3};
    const size_t host = pattern_before(rest, "/?#").len;
    return (struct rules_text){rest.bytes + host, rest.len - host};
}

static int pattern_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = pattern_fold(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
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

size_t pattern_normal_path(char *out, size_t size, struct rules_text target) {
    const struct rules_text path = pattern_before(pattern_origin_form(target), "?#");
    size_t len = 0;
    if (size == 0) return SIZE_MAX;
    if (path.len == 0 && target.len > 0 && target.bytes[0] != '/' && target.bytes[0] != '?') { /* http://host */
        out[0] = '/';
        return 1;
    }
    if (path.len == 0 || (path.bytes[0] != '/' && path.bytes[0] != '*')) return SIZE_MAX;
    for (size_t i = 0; i < path.len; i++) {
        char c = path.bytes[i];
        if (c == '%' && i + 2 < path.len) {
            const int high = pattern_hex(path.bytes[i + 1]), low = pattern_hex(path.bytes[i + 2]);
            if (high >= 0 && low >= 0) {
                c = (char)(high << 4 | low);
                i += 2;
            }
        }
        if (c == '/') {
            len = pattern_end_segment(out, len);
            if (len > 0 && out[len - 1] == '/') continue;
        }
        if (len == size) return SIZE_MAX;
        out[len++] = c;
    }
    return pattern_end_segment(out, len);
}

struct rules_text pattern_query(struct rules_text target) {
    const struct rules_text whole = pattern_before(target, "#");
    const size_t path = pattern_before(whole, "?").len;
    if (path == whole.len) return (struct rules_text){0};
    return (struct rules_text){whole.bytes + path + 1, whole.len - path - 1};
}
