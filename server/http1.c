/* SPDX-License-Identifier: MIT
 * Reads HTTP/1.1 requests.
 *
 * What is refused, because servers read it differently, so that a request could hide in another one: a line that ends
 * with a bare LF, a CR inside a line, a folded field, blanks before a colon, Content-Length with Transfer-Encoding, two
 * lengths, a coding besides chunked, and a chunk with a bad length. */
#include "http1.h"

#include <string.h>
#include <strings.h>

static bool http1_is_token(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static enum http1_outcome http1_fail(struct http1_error *error, int status, const char *text) {
    *error = (struct http1_error){status, text};
    return HTTP1_FAILED;
}

static bool http1_is(struct rules_text text, const char *word) {
    return text.len == strlen(word) && strncasecmp(text.bytes, word, text.len) == 0;
}

static struct rules_text http1_trimmed(struct rules_text text) {
    while (text.len > 0 && (text.bytes[0] == ' ' || text.bytes[0] == '\t'))
        text = (struct rules_text){text.bytes + 1, text.len - 1};
    while (text.len > 0 && (text.bytes[text.len - 1] == ' ' || text.bytes[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* Takes the next member of a list with commas. False at the end. */
static bool http1_next_member(struct rules_text *list, struct rules_text *member) {
    if (list->bytes == NULL) return false;
    const char *comma = list->len > 0 ? memchr(list->bytes, ',', list->len) : NULL;
    const size_t len = comma != NULL ? (size_t)(comma - list->bytes) : list->len;
    *member = http1_trimmed((struct rules_text){list->bytes, len});
    *list = comma != NULL ? (struct rules_text){comma + 1, list->len - len - 1} : (struct rules_text){0};
    return true;
}

/* ---- The head ---- */

/* METHOD SP TARGET SP HTTP/1.x; `line` is without its CRLF. */
static enum http1_outcome http1_request_line(struct http1_request *request, struct rules_text line,
                                             struct http1_error *error) {
    size_t i = 0;
    while (i < line.len && http1_is_token((unsigned char)line.bytes[i]))
        i++;
    if (i == 0 || i == line.len || line.bytes[i] != ' ')
        return http1_fail(error, 400, "the request line has no method");
    request->method = (struct rules_text){line.bytes, i};
    const size_t begin = ++i;
    while (i < line.len && line.bytes[i] > ' ' && line.bytes[i] != 0x7f)
        i++;
    request->target = (struct rules_text){line.bytes + begin, i - begin};
    if (i == begin) return http1_fail(error, 400, "the request line has no target");
    if (line.len - i != 9 || memcmp(line.bytes + i, " HTTP/1.", 8) != 0)
        return http1_fail(error, line.len - i >= 6 && memcmp(line.bytes + i, " HTTP/", 6) == 0 ? 505 : 400,
                          "the request line must end with HTTP/1.1 or HTTP/1.0");
    if (line.bytes[i + 8] != '0' && line.bytes[i + 8] != '1')
        return http1_fail(error, 505, "the version must be HTTP/1.1");
    request->keep_alive = line.bytes[i + 8] == '1';
    return HTTP1_READ;
}

static enum http1_outcome http1_field_line(struct http1_request *request, struct rules_text line,
                                           struct http1_error *error) {
    size_t i = 0;
    while (i < line.len && http1_is_token((unsigned char)line.bytes[i]))
        i++;
    if (i == 0 || i == line.len || line.bytes[i] != ':')
        return http1_fail(error, 400, "a field must begin with its name and a colon");
    const struct rules_text value = http1_trimmed((struct rules_text){line.bytes + i + 1, line.len - i - 1});
    for (size_t k = 0; k < value.len; k++) {
        const unsigned char c = (unsigned char)value.bytes[k];
        if ((c < ' ' && c != '\t') || c == 0x7f) return http1_fail(error, 400, "a field has a control character");
    }
    if (request->n_fields == HTTP1_FIELDS_MOST) return http1_fail(error, 431, "the request has too many fields");
    request->fields[request->n_fields++] = (struct rules_field){{line.bytes, i}, value};
    return HTTP1_READ;
}

static enum http1_outcome http1_head(struct http1_request *request, const char *bytes, size_t len,
                                     struct http1_error *error) {
    size_t at = 0;
    request->n_fields = 0;
    request->method = request->target = (struct rules_text){0};
    while (at + 2 < len) { /* the last line is empty */
        const char *cr = memchr(bytes + at, '\r', len - at);
        const struct rules_text line = {bytes + at, (size_t)(cr - bytes) - at};
        if (cr[1] != '\n' || memchr(line.bytes, '\n', line.len) != NULL) {
            if (at == 0) http1_request_line(request, line, error);
            return http1_fail(error, 400, "each line must end with CR LF");
        }
        const enum http1_outcome outcome =
            at == 0 ? http1_request_line(request, line, error) : http1_field_line(request, line, error);
        if (outcome != HTTP1_READ) return outcome;
        at += line.len + 2;
    }
    return HTTP1_READ;
}

/* ---- How the body is framed ---- */

struct framing {
    bool chunked;
    size_t length; /* of the body, if it is not chunked */
};

static enum http1_outcome http1_length(struct framing *framing, struct rules_text value, struct http1_error *error) {
    if (value.len == 0) return http1_fail(error, 400, "Content-Length is not a number");
    framing->length = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.bytes[i] < '0' || value.bytes[i] > '9')
            return http1_fail(error, 400, "Content-Length is not a number");
        if (framing->length <= HTTP1_BODY_MOST) framing->length = framing->length * 10 + (size_t)(value.bytes[i] - '0');
    }
    if (framing->length > HTTP1_BODY_MOST) return http1_fail(error, 413, "the body is larger than 64 KiB");
    return HTTP1_READ;
}

static enum http1_outcome http1_framing(struct http1_request *request, struct framing *framing,
                                        struct http1_error *error) {
    size_t lengths = 0, codings = 0, hosts = 0;
    const bool http10 = !request->keep_alive;
    *framing = (struct framing){0};
    request->continues = false;
    for (size_t i = 0; i < request->n_fields; i++) {
        const struct rules_field *field = &request->fields[i];
        if (http1_is(field->name, "content-length")) {
            if (lengths++ > 0) return http1_fail(error, 400, "Content-Length is given twice");
            if (http1_length(framing, field->value, error) != HTTP1_READ) return HTTP1_FAILED;
        } else if (http1_is(field->name, "transfer-encoding")) {
            if (codings++ > 0 || !http1_is(field->value, "chunked"))
                return http1_fail(error, 501, "the only transfer coding is chunked");
            framing->chunked = true;
        } else if (http1_is(field->name, "host")) {
            hosts++;
        } else if (http1_is(field->name, "connection")) {
            struct rules_text list = field->value, member;
            while (http1_next_member(&list, &member)) {
                if (http1_is(member, "close")) request->keep_alive = false;
                if (http10 && http1_is(member, "keep-alive")) request->keep_alive = true;
            }
        } else if (http1_is(field->name, "expect")) {
            if (!http1_is(field->value, "100-continue"))
                return http1_fail(error, 417, "the expectation is not 100-continue");
            request->continues = !http10;
        }
    }
    if (lengths > 0 && codings > 0)
        return http1_fail(error, 400, "Content-Length and Transfer-Encoding must not come together");
    if (codings > 0 && http10) return http1_fail(error, 400, "HTTP/1.0 has no transfer coding");
    if (hosts > 1 || (hosts == 0 && !http10)) return http1_fail(error, 400, "the request must have one Host field");
    return HTTP1_READ;
}

/* ---- Chunks ---- */

static int http1_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The length of the line at bytes[at], without its CRLF. SIZE_MAX: it is not complete, or has a bare CR or LF. */
static size_t http1_line(const char *bytes, size_t at, size_t len, bool *bad) {
    for (size_t i = at; i < len; i++) {
        if (bytes[i] == '\n') break;
        if (bytes[i] != '\r') continue;
        if (i + 1 == len) return SIZE_MAX;
        if (bytes[i + 1] == '\n') return i - at;
        break;
    }
    for (size_t i = at; i < len && !*bad; i++)
        *bad = bytes[i] == '\n' || (bytes[i] == '\r' && i + 1 < len && bytes[i + 1] != '\n');
    return SIZE_MAX;
}

/* The chunks are decoded only when all have come, so that their bytes can be moved together. */
static enum http1_outcome http1_chunks(struct http1_request *request, char *bytes, size_t *whole,
                                       struct http1_progress *progress, struct http1_error *error) {
    const size_t len = *whole;
    size_t at = request->head_len, body = 0;
    bool last = false, bad = false;
    for (int pass = 0; pass < 2; pass++) {
        at = request->head_len;
        body = 0;
        last = false;
        while (!last) {
            const size_t line = http1_line(bytes, at, len, &bad);
            if (bad) return http1_fail(error, 400, "the line of a chunk must end with CR LF");
            if (line == SIZE_MAX)
                return len - at > 1024 ? http1_fail(error, 400, "the line of a chunk is too long") : HTTP1_MORE;
            size_t size = 0, digits = 0;
            while (digits < line && http1_hex(bytes[at + digits]) >= 0 && size <= HTTP1_BODY_MOST)
                size = size * 16 + (size_t)http1_hex(bytes[at + digits++]);
            if (digits == 0 || (digits < line && bytes[at + digits] != ';' && size <= HTTP1_BODY_MOST))
                return http1_fail(error, 400, "the length of a chunk is not a number");
            if (size > HTTP1_BODY_MOST - body) return http1_fail(error, 413, "the body is larger than 64 KiB");
            at += line + 2;
            last = size == 0;
            if (last) break;
            progress->needs = at + size + 2;
            if (len < progress->needs) return HTTP1_MORE;
            if (bytes[at + size] != '\r' || bytes[at + size + 1] != '\n')
                return http1_fail(error, 400, "a chunk must end with CR LF");
            if (pass == 1) memmove(bytes + request->head_len + body, bytes + at, size);
            body += size;
            at += size + 2;
        }
        for (size_t trailers = 0, line = 1; line > 0; trailers++) {
            line = http1_line(bytes, at, len, &bad);
            if (bad || trailers > 100) return http1_fail(error, 400, "a trailer is not valid");
            if (line == SIZE_MAX)
                return len - at > HTTP1_HEAD_MOST ? http1_fail(error, 431, "the trailers are too long") : HTTP1_MORE;
            at += line + 2;
        }
    }
    request->body = (struct rules_text){bytes + request->head_len, body};
    *whole = at;
    return HTTP1_READ;
}

/* ---- A request ---- */

/* A head that is too long is read as far as it goes, because the answer depends on its target. */
static enum http1_outcome http1_too_long(struct http1_request *request, const char *bytes, size_t len,
                                         struct http1_error *error) {
    const char *cr = memchr(bytes, '\r', len);
    request->method = request->target = (struct rules_text){0};
    if (cr != NULL) http1_request_line(request, (struct rules_text){bytes, (size_t)(cr - bytes)}, error);
    return http1_fail(error, cr != NULL ? 431 : 414, "the head of the request is larger than 64 KiB");
}

enum http1_outcome http1_read(struct http1_request *request, char *bytes, size_t *len, struct http1_progress *progress,
                              struct http1_error *error) {
    struct framing framing;
    request->method = (struct rules_text){0};
    const size_t from = progress->scanned > 3 ? progress->scanned - 3 : 0;
    const char *empty = memmem(bytes + from, *len - from, "\r\n\r\n", 4);
    if (empty == NULL) {
        progress->scanned = *len;
        return *len > HTTP1_HEAD_MOST ? http1_too_long(request, bytes, *len, error) : HTTP1_MORE;
    }
    request->head_len = (size_t)(empty - bytes) + 4;
    progress->scanned = request->head_len - 4;
    if (request->head_len > HTTP1_HEAD_MOST) return http1_too_long(request, bytes, *len, error);
    if (http1_head(request, bytes, request->head_len, error) != HTTP1_READ) return HTTP1_FAILED;
    if (http1_framing(request, &framing, error) != HTTP1_READ) return HTTP1_FAILED;
    request->body = (struct rules_text){bytes + request->head_len, framing.length};
    if (framing.chunked) return http1_chunks(request, bytes, len, progress, error);
    progress->needs = request->head_len + framing.length;
    if (*len < progress->needs) return HTTP1_MORE;
    *len = progress->needs;
    return HTTP1_READ;
}
