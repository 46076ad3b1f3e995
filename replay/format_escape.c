/* SPDX-License-Identifier: MIT
 * Escapes of logs. */
#include "format_escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static int format_escape_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of two hexadecimal digits; -1: these are none. */
static int format_escape_byte(const char *at, const char *end) {
    if (end - at < 2 || format_escape_hex(at[0]) < 0 || format_escape_hex(at[1]) < 0) return -1;
    return format_escape_hex(at[0]) << 4 | format_escape_hex(at[1]);
}

/* \xNN and the escapes of C. A backslash before anything else is a backslash. Returns the bytes that it used. */
static size_t format_escape_backslash(char *out, const char *at, const char *end) {
    static const char letters[] = "nrtbfv0\"\\/'", bytes[] = "\n\r\t\b\f\v\0\"\\/'";
    const int byte = end - at >= 4 && at[1] == 'x' ? format_escape_byte(at + 2, end) : -1;
    const char *letter = end - at >= 2 && at[1] != '\0' ? strchr(letters, at[1]) : NULL;
    *out = '\\';
    if (letter != NULL) *out = bytes[letter - letters];
    if (byte >= 0) *out = (char)byte;
    return byte >= 0 ? 4 : letter != NULL ? 2 : 1;
}

/* The four digits of \uXXXX; -1: these are none. */
static int32_t format_escape_unit(const char *at, const char *end) {
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
    const int high = format_escape_byte(at + 2, end), low = format_escape_byte(at + 4, end);
    return high < 0 || low < 0 ? -1 : high << 8 | low;
}

static size_t format_escape_utf8(char *out, uint32_t point) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint32_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(first[n] | point);
    return n;
}

/* An escape of JSON. Half a surrogate becomes U+FFFD. Returns the bytes that it used. */
static size_t format_escape_json(char **out, const char *at, const char *end) {
    const int32_t unit = format_escape_unit(at, end);
    if (unit < 0) return format_escape_backslash((*out)++, at, end);
    const int32_t low = unit >= 0xd800 && unit < 0xdc00 ? format_escape_unit(at + 6, end) : -1;
    const bool pair = low >= 0xdc00 && low < 0xe000;
    const uint32_t point = pair ? 0x10000 + (((uint32_t)unit & 0x3ff) << 10 | ((uint32_t)low & 0x3ff))
                           : unit >= 0xd800 && unit < 0xe000 ? 0xfffd
                                                             : (uint32_t)unit;
    *out += format_escape_utf8(*out, point);
    return pair ? 12 : 6;
}

static const char format_escape_marks[] = {'\0', '\\', '\\', '#', '%', '+', '"'};

char format_escape_mark(enum format_escape escape) { return format_escape_marks[escape]; }

struct rules_text format_escape_undo(char *out, struct rules_text raw, enum format_escape escape) {
    const char mark = format_escape_marks[escape], *at = raw.bytes, *const end = raw.bytes + raw.len;
    char *const begin = out;
    const char *next;
    while (at < end && (next = memchr(at, mark, (size_t)(end - at))) != NULL) {
        memcpy(out, at, (size_t)(next - at));
        out += next - at;
        at = next;
        const int byte = format_escape_byte(at + 1, end);
        switch (escape) {
        case ESCAPE_BACKSLASH: at += format_escape_backslash(out++, at, end); break;
        case ESCAPE_JSON: at += format_escape_json(&out, at, end); break;
        case ESCAPE_PLUS: *out++ = ' ', at++; break;
        case ESCAPE_DOUBLED: *out++ = '"', at += end - at >= 2 && at[1] == '"' ? 2 : 1; break;
        default:
            *out = mark;
            if (byte >= 0) *out = (char)byte;
            out++;
            at += byte < 0 ? 1 : 3;
            break;
        }
    }
    if (at < end) memcpy(out, at, (size_t)(end - at));
    out += end - at;
    return (struct rules_text){begin, (size_t)(out - begin)};
}
