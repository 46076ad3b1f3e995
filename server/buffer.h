/* SPDX-License-Identifier: MIT
 * Bytes that grow at their end: what is read, and what is to be written. */
#ifndef STEADY_SERVER_BUFFER_H
#define STEADY_SERVER_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* All zero: empty. Free its bytes with buffer_free. */
struct buffer {
    char *bytes;
    size_t len, room;
    bool lost; /* memory ran out, and bytes are missing */
};

/* Room for `more` bytes at the end, or NULL; then `lost` is set. Add what was written there to `len`. */
char *buffer_reserve(struct buffer *buffer, size_t more);

static inline void buffer_add(struct buffer *buffer, const void *bytes, size_t len) {
    if (len == 0 || (buffer->room - buffer->len < len && buffer_reserve(buffer, len) == NULL)) return;
    memcpy(buffer->bytes + buffer->len, bytes, len);
    buffer->len += len;
}

static inline void buffer_add_text(struct buffer *buffer, const char *text) { buffer_add(buffer, text, strlen(text)); }
void buffer_add_number(struct buffer *buffer, int64_t number);
__attribute__((format(printf, 2, 3))) void buffer_add_format(struct buffer *buffer, const char *format, ...);

/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void buffer_add_json(struct buffer *buffer, const char *bytes, size_t len);

/* us as seconds: 0.25 */
void buffer_add_seconds(struct buffer *buffer, int64_t us);

/* Removes bytes at the beginning. */
void buffer_remove(struct buffer *buffer, size_t len);

/* Empties it, and gives its memory back. */
void buffer_free(struct buffer *buffer);

#endif
