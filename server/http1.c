/* SPDX-License-Identifier: MIT
 * Reads HTTP/1.1 requests.
 *
 * What is refused, because servers read it differently, so that a request could hide in another one: a line that ends
 * with a bare LF, a CR inside a line, a folded field, blanks before a colon, Content-Length with Transfer-Encoding, two
 * lengths, a coding besides chunked, and a chunk with a bad length. */
#include "http1.h"

#include <string.h>
#include <strings.h>

enum {
    CHUNK_LINE_MOST = 1024,            /* bytes */
    CHUNKS_MOST = 3 * HTTP1_BODY_MOST, /* with their lines: a body of tiny chunks is refused */
    TRAILERS_MOST = 16 * 1024
};

static const bool http1_tokens[256] = {
    ['!'] = true, ['#'] = true, ['$'] = true, ['%'] = true,         ['&'] = true,         ['\''] = true,
    ['*'] = true, ['+'] = true, ['-'] = true, ['.'] = true,         ['^'] = true,         ['_'] = true,
    ['`'] = true, ['|'] = true, ['~'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true};

/* The number of token bytes at the beginning. */
static size_t http1_token(struct rules_text text) {
    size_t i = 0;
    while (i < text.len && http1_tokens[(unsigned char)text.bytes[i]])
        i++;
    return i;
}

/* Whether the text has a control character besides the tab. Eight bytes at once: the high bit of a byte is set if the
 * byte is below a space or is DEL. A borrow can only set a wrong bit above a right one, which is then looked at. */
static bool http1_has_control(struct rules_text text) {
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = UINT64_C(0x8080808080808080);
    size_t i = 0;
    for (; i + 8 <= text.len; i += 8) {
        uint64_t x;
        memcpy(&x, text.bytes + i, 8);
        const uint64_t y = x ^ 0x7f * ones;
        if ((((x - ' ' * ones) & ~x) | ((y - ones) & ~y)) & highs) break;
    }
    for (; i < text.len; i++) {
        const unsigned char c = (unsigned char)text.bytes[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) return true;
    }
    return false;
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

/* What stands where the target should be. The answer to a line that cannot be read depends on it. */
static struct rules_text http1_guess_target(struct rules_text line) {
    size_t i = 0;
    while (i < line.len && line.bytes[i] != ' ' && line.bytes[i] != '\t')
        i++;
    while (i < line.len && (line.bytes[i] == ' ' || line.bytes[i] == '\t'))
        i++;
    const size_t begin = i;
    while (i < line.len && line.bytes[i] != ' ' && line.bytes[i] != '\t')
        i++;
    return (struct rules_text){line.bytes + begin, i - begin};
}

/* http://AUTHORITY/PATH (RFC 9112, 3.2.2) */
static void http1_split_url(struct http1_request *request) {
    struct rules_text *target = &request->target;
    const size_t scheme = target->len > 7 && strncasecmp(target->bytes, "http://", 7) == 0    ? 7
                          : target->len > 8 && strncasecmp(target->bytes, "https://", 8) == 0 ? 8
                                                                                              : 0;
    if (scheme == 0) return;
    const char *slash = memchr(target->bytes + scheme, '/', target->len - scheme);
    const size_t end = slash != NULL ? (size_t)(slash - target->bytes) : target->len;
    request->authority = (struct rules_text){target->bytes + scheme, end - scheme};
    *target =
        slash != NULL ? (struct rules_text){slash, target->len - end} : (struct rules_text){.bytes = "/", .len = 1};
}

/* METHOD SP TARGET SP HTTP/1.x; `line` is without its CRLF. */
static enum http1_outcome http1_request_line(struct http1_request *request, struct rules_text line,
                                             struct http1_error *error) {
    size_t i = http1_token(line);
    if (i == 0 || i == line.len || line.bytes[i] != ' ') {
        request->target = http1_guess_target(line);
        return http1_fail(error, 400, "the request line has no method");
    }
    request->method = (struct rules_text){line.bytes, i};
    const size_t begin = ++i;
    while (i < line.len && line.bytes[i] > ' ' && line.bytes[i] != 0x7f)
        i++;
    if (i == begin) {
        request->target = http1_guess_target(line);
        return http1_fail(error, 400, "the request line has no target");
    }
    request->target = (struct rules_text){line.bytes + begin, i - begin};
    http1_split_url(request);
    const bool has_version = line.len - i == 9 && memcmp(line.bytes + i, " HTTP/", 6) == 0 && line.bytes[i + 7] == '.';
    if (!has_version) return http1_fail(error, 400, "the request line must end with HTTP/1.1 or HTTP/1.0");
    if (line.bytes[i + 6] != '1' || (line.bytes[i + 8] != '0' && line.bytes[i + 8] != '1'))
        return http1_fail(error, 505, "the version must be HTTP/1.1");
    request->keep_alive = request->interim = line.bytes[i + 8] == '1';
    return HTTP1_READ;
}

/* The first line of a head that is not valid: only for the target. */
static enum http1_outcome http1_fail_head(struct http1_request *request, const char *bytes, size_t len, int status,
                                          const char *text, struct http1_error *error) {
    size_t end = 0;
    while (end < len && bytes[end] != '\r' && bytes[end] != '\n')
        end++;
    request->method = request->target = request->authority = (struct rules_text){0};
    http1_request_line(request, (struct rules_text){bytes, end}, error);
    return http1_fail(error, status, text);
}

/* NAME: VALUE; of fields and trailers */
static enum http1_outcome http1_field(struct rules_field *field, struct rules_text line, struct http1_error *error) {
    const size_t i = http1_token(line);
    if (i == 0 || i == line.len || line.bytes[i] != ':')
        return http1_fail(error, 400, "a field must begin with its name and a colon");
    const struct rules_text value = http1_trimmed((struct rules_text){line.bytes + i + 1, line.len - i - 1});
    if (http1_has_control(value)) return http1_fail(error, 400, "a field has a control character");
    *field = (struct rules_field){{line.bytes, i}, value};
    return HTTP1_READ;
}

static enum http1_outcome http1_field_line(struct http1_request *request, struct rules_text line,
                                           struct http1_error *error) {
    if (request->n_fields == HTTP1_FIELDS_MOST) return http1_fail(error, 431, "the request has too many fields");
    return http1_field(&request->fields[request->n_fields++], line, error);
}

/* Each LF has its CR: http1_find_end has looked. */
static enum http1_outcome http1_head(struct http1_request *request, const char *bytes, size_t len,
                                     struct http1_error *error) {
    size_t at = 0;
    request->n_fields = 0;
    request->method = request->target = request->authority = (struct rules_text){0};
    while (at + 2 < len) { /* the last line is empty */
        const char *cr = memchr(bytes + at, '\r', len - at);
        const struct rules_text line = {bytes + at, (size_t)(cr - bytes) - at};
        if (cr[1] != '\n') return http1_fail_head(request, bytes, len, 400, "each line must end with CR LF", error);
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

/* host[:port]; empty, if the client knows none */
static bool http1_is_host(struct rules_text text) {
    for (size_t i = 0; i < text.len; i++) {
        const unsigned char c = (unsigned char)text.bytes[i];
        if ((c >= 'a' && c <= 'z') || (c >= '-' && c <= ':' && c != '/')) continue; /* the usual ones */
        if (c <= ' ' || c >= 0x7f || strchr("\"#/<>?@\\^`{|}", c) != NULL) return false;
    }
    return true;
}

static enum http1_outcome http1_framing(struct http1_request *request, struct framing *framing,
                                        struct http1_error *error) {
    size_t lengths = 0, codings = 0, hosts = 0;
    struct rules_text host = {0};
    const bool http10 = !request->interim;
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
            host = field->value;
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
    if (!http1_is_host(host)) return http1_fail(error, 400, "Host is not a host");
    if (request->authority.len > 0 &&
        (host.len != request->authority.len || strncasecmp(host.bytes, request->authority.bytes, host.len) != 0))
        return http1_fail(error, 400, "Host is not the host of the target");
    return HTTP1_READ;
}

/* ---- Chunks ---- */

static int http1_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The length of the line at bytes[at], without its CRLF. SIZE_MAX: it is not complete, or *bad: has a bare CR or LF. */
static size_t http1_line(const char *bytes, size_t at, size_t len, bool *bad) {
    const char *end = bytes + len, *lf = at < len ? memchr(bytes + at, '\n', len - at) : NULL;
    const char *cr = at < len ? memchr(bytes + at, '\r', (size_t)((lf != NULL ? lf : end) - bytes) - at) : NULL;
    if (cr != NULL && cr + 1 == lf) return (size_t)(cr - bytes) - at;
    *bad = lf != NULL || (cr != NULL && cr + 1 < end);
    return SIZE_MAX;
}

/* The size at the beginning of the line of a chunk. False: there is none. Over HTTP1_BODY_MOST it is not exact. */
static bool http1_chunk_size(struct rules_text line, size_t *size) {
    size_t digits = 0;
    *size = 0;
    while (digits < line.len && http1_hex(line.bytes[digits]) >= 0 && *size <= HTTP1_BODY_MOST)
        *size = *size * 16 + (size_t)http1_hex(line.bytes[digits++]);
    return digits > 0 && (digits == line.len || line.bytes[digits] == ';' || *size > HTTP1_BODY_MOST);
}

/* Goes from chunk to chunk. It begins where it stopped before, and fails again where it failed. */
static enum http1_outcome http1_skip_chunks(const char *bytes, size_t len, size_t head_len,
                                            struct http1_progress *progress, struct http1_error *error) {
    while (progress->trailer == 0) {
        bool bad = false;
        size_t size = 0;
        if (progress->chunk - head_len > CHUNKS_MOST) return http1_fail(error, 413, "the chunks are too small");
        const size_t at = progress->chunk, line = http1_line(bytes, at, len, &bad);
        if (bad) return http1_fail(error, 400, "the line of a chunk must end with CR LF");
        if (line == SIZE_MAX ? len - at > CHUNK_LINE_MOST : line > CHUNK_LINE_MOST)
            return http1_fail(error, 400, "the line of a chunk is too long");
        if (line == SIZE_MAX) return HTTP1_MORE;
        if (!http1_chunk_size((struct rules_text){bytes + at, line}, &size))
            return http1_fail(error, 400, "the length of a chunk is not a number");
        if (size > HTTP1_BODY_MOST - progress->body) return http1_fail(error, 413, "the body is larger than 64 KiB");
        const size_t data = at + line + 2;
        if (size == 0) {
            progress->chunk = progress->trailer = data;
            break;
        }
        progress->needs = data + size + 2;
        if (len < progress->needs) return HTTP1_MORE;
        if (bytes[data + size] != '\r' || bytes[data + size + 1] != '\n')
            return http1_fail(error, 400, "a chunk must end with CR LF");
        progress->chunk = progress->needs;
        progress->body += size;
    }
    for (;;) {
        bool bad = false;
        struct rules_field field;
        const size_t at = progress->chunk, line = http1_line(bytes, at, len, &bad);
        if (bad) return http1_fail(error, 400, "a trailer must end with CR LF");
        if ((line == SIZE_MAX ? len : at + line) - progress->trailer > TRAILERS_MOST)
            return http1_fail(error, 431, "the trailers are too long");
        if (line == SIZE_MAX) return HTTP1_MORE;
        if (line > 0 && http1_field(&field, (struct rules_text){bytes + at, line}, error) != HTTP1_READ)
            return HTTP1_FAILED;
        if (line == 0) return HTTP1_READ;
        progress->chunk = at + line + 2;
    }
}

/* The chunks are decoded only when all have come, so that their bytes can be moved together. */
static enum http1_outcome http1_chunks(struct http1_request *request, char *bytes, size_t *len,
                                       struct http1_progress *progress, struct http1_error *error) {
    if (progress->chunk == 0) progress->chunk = request->head_len;
    const enum http1_outcome outcome = http1_skip_chunks(bytes, *len, request->head_len, progress, error);
    if (outcome != HTTP1_READ) return outcome;
    size_t body = 0;
    for (size_t at = request->head_len, size = 1; size > 0;) {
        bool bad = false;
        const size_t line = http1_line(bytes, at, progress->trailer, &bad);
        http1_chunk_size((struct rules_text){bytes + at, line}, &size);
        memmove(bytes + request->head_len + body, bytes + at + line + 2, size);
        body += size;
        at += line + 2 + size + 2;
    }
    request->body = (struct rules_text){bytes + request->head_len, body};
    *len = progress->chunk + 2;
    return HTTP1_READ;
}

/* ---- A request ---- */

/* The length of the head with its empty line; 0: it is not complete. *bare: there is an LF without a CR. */
static size_t http1_find_end(const char *bytes, size_t from, size_t len, bool *bare) {
    for (size_t at = from; at < len; at++) {
        const char *lf = memchr(bytes + at, '\n', len - at);
        if (lf == NULL) break;
        at = (size_t)(lf - bytes);
        *bare = at == 0 || lf[-1] != '\r';
        if (*bare) break;
        if (at >= 3 && lf[-2] == '\n' && lf[-3] == '\r') return at + 1;
    }
    return 0;
}

/* The head is not complete. It fails as soon as it cannot become valid. */
static enum http1_outcome http1_head_so_far(struct http1_request *request, const char *bytes, size_t len,
                                            struct http1_progress *progress, struct http1_error *error) {
    progress->scanned = len;
    if (len <= HTTP1_HEAD_MOST) return HTTP1_MORE;
    return http1_fail_head(request, bytes, len, memchr(bytes, '\r', len) != NULL ? 431 : 414,
                           "the head of the request is larger than 64 KiB", error);
}

enum http1_outcome http1_read(struct http1_request *request, char *bytes, size_t *len, struct http1_progress *progress,
                              struct http1_error *error) {
    struct framing framing;
    request->method = (struct rules_text){0};
    if (progress->chunk > 0 && http1_skip_chunks(bytes, *len, progress->scanned + 4, progress, error) == HTTP1_MORE)
        return HTTP1_MORE;
    bool bare = false;
    request->head_len = http1_find_end(bytes, progress->scanned, *len, &bare);
    if (bare) return http1_fail_head(request, bytes, *len, 400, "each line must end with CR LF", error);
    if (request->head_len == 0) return http1_head_so_far(request, bytes, *len, progress, error);
    progress->scanned = request->head_len - 4;
    if (request->head_len > HTTP1_HEAD_MOST)
        return http1_fail_head(request, bytes, *len, 431, "the head of the request is larger than 64 KiB", error);
    if (http1_head(request, bytes, request->head_len, error) != HTTP1_READ) return HTTP1_FAILED;
    if (http1_framing(request, &framing, error) != HTTP1_READ) return HTTP1_FAILED;
    request->body = (struct rules_text){bytes + request->head_len, framing.length};
    if (framing.chunked) return http1_chunks(request, bytes, len, progress, error);
    progress->needs = request->head_len + framing.length;
    if (*len < progress->needs) return HTTP1_MORE;
    *len = progress->needs;
    return HTTP1_READ;
}
