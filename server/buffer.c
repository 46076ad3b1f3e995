/* SPDX-License-Identifier: MIT
 * Bytes that grow at their end. */
#include "buffer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM_LEAST = 256, NUMBER_MOST = 24 };

char *buffer_reserve(struct buffer *buffer, size_t more) {
    size_t room = buffer->room > 0 ? buffer->room : ROOM_LEAST;
    if (buffer->room - buffer->len >= more && buffer->bytes != NULL) return buffer->bytes + buffer->len;
    while (room - buffer->len < more)
        room *= 2;
    char *bytes = realloc(buffer->bytes, room);
    if (bytes == NULL) {
        buffer->lost = true;
        return NULL;
    }
    buffer->bytes = bytes;
    buffer->room = room;
    return bytes + buffer->len;
}

void buffer_add_number(struct buffer *buffer, int64_t number) {
    char digits[2 * NUMBER_MOST] = {0}; /* so that NUMBER_MOST bytes are copied at once, wherever the number begins */
    if (number >= 0 && number <= 9) {
        buffer_add(buffer, &(char){(char)('0' + number)}, 1);
        return;
    }
    size_t at = NUMBER_MOST;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (number < 0) digits[--at] = '-';
    char *to = buffer_reserve(buffer, NUMBER_MOST);
    if (to == NULL) return;
    memcpy(to, digits + at, NUMBER_MOST);
    buffer->len += NUMBER_MOST - at;
}

void buffer_add_format(struct buffer *buffer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *to = buffer_reserve(buffer, 512);
    int len = to != NULL ? vsnprintf(to, buffer->room - buffer->len, format, arguments) : -1;
    va_end(arguments);
    if (len >= 0 && (size_t)len >= buffer->room - buffer->len) {
        va_start(arguments, format);
        to = buffer_reserve(buffer, (size_t)len + 1);
        if (to != NULL) vsnprintf(to, buffer->room - buffer->len, format, arguments);
        va_end(arguments);
    }
    if (len >= 0 && to != NULL) buffer->len += (size_t)len;
}

/* The length of the UTF-8 sequence at the beginning (RFC 3629); 0: it is none. */
static size_t buffer_utf8(const unsigned char *s, size_t len) {
    const size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0;
    if (s[0] == 0xed && s[1] > 0x9f) return 0; /* surrogates */
    if (s[0] == 0xf0 && s[1] < 0x90) return 0;
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0;
    return n;
}

/* Whether a byte of a JSON string stands for itself. */
static const bool buffer_plain[256] = {[' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true};

void buffer_add_json(struct buffer *buffer, const char *bytes, size_t len) {
    char *to = buffer_reserve(buffer, len + 2);
    if (to == NULL) return;
    *to = '"';
    size_t begun = 0; /* the plain bytes at the beginning are copied as they are checked */
    for (; begun < len && buffer_plain[(unsigned char)bytes[begun]]; begun++)
        to[1 + begun] = bytes[begun];
    buffer->len += 1 + begun;
    for (size_t i = begun; i < len;) {
        const unsigned char *s = (const unsigned char *)bytes + i;
        if (buffer_plain[*s]) {
            buffer_add(buffer, s, 1);
            i++;
            continue;
        }
        const size_t n = buffer_utf8(s, len - i);
        if (n == 0)
            buffer_add_text(buffer, "\\ufffd");
        else if (*s == '"' || *s == '\\')
            buffer_add(buffer, (const char[]){'\\', (char)*s}, 2);
        else if (*s < 0x20 || *s == 0x7f)
            buffer_add_format(buffer, "\\u%04x", *s);
        else
            buffer_add(buffer, s, n);
        i += n > 0 ? n : 1;
    }
    buffer_add(buffer, "\"", 1);
}

void buffer_add_seconds(struct buffer *buffer, int64_t us) {
    char fraction[8];
    size_t len = 6;
    if (us < 0) {
        buffer_add(buffer, "-", 1);
        us = -us;
    }
    buffer_add_number(buffer, us / 1000000);
    if (us % 1000000 == 0) return;
    snprintf(fraction, sizeof fraction, "%06d", (int)(us % 1000000));
    while (fraction[len - 1] == '0')
        len--;
    buffer_add(buffer, ".", 1);
    buffer_add(buffer, fraction, len);
}

void buffer_remove(struct buffer *buffer, size_t len) {
    buffer->len -= len;
    if (buffer->len > 0) memmove(buffer->bytes, buffer->bytes + len, buffer->len);
}

void buffer_free(struct buffer *buffer) {
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}
