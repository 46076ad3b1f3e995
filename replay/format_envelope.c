/* SPDX-License-Identifier: MIT
 * What stands around a line. */
#include "format_envelope.h"

#include <stdlib.h>
#include <string.h>

#include "format_escape.h"

enum { TAG_MOST = 256 };

const char *const format_envelope_names[ENVELOPE_COUNT] = {"", "docker", "cri", "compose", "syslog"};

static bool format_envelope_begins(struct rules_text line, const char *text) {
    const size_t len = strlen(text);
    return line.len >= len && memcmp(line.bytes, text, len) == 0;
}

static void format_envelope_skip(struct rules_text *line, size_t n) {
    line->bytes += n;
    line->len -= n;
}

static bool format_envelope_docker(struct rules_text *line, struct format_envelope_room *room) {
    static const char begin[] = "{\"log\":\"";
    if (!format_envelope_begins(*line, begin)) return false;
    format_envelope_skip(line, sizeof begin - 1);
    const char *quote = line->bytes, *const end = line->bytes + line->len;
    while ((quote = memchr(quote, '"', (size_t)(end - quote))) != NULL) {
        const char *slash = quote;
        while (slash > line->bytes && slash[-1] == '\\')
            slash--;
        if ((quote - slash) % 2 == 0) break;
        quote++;
    }
    if (quote == NULL) return false;
    line->len = (size_t)(quote - line->bytes);
    if (room->len < line->len) {
        char *more = realloc(room->bytes, line->len * 2);
        if (more == NULL) return false;
        *room = (struct format_envelope_room){more, line->len * 2};
    }
    *line = format_escape_undo(room->bytes, *line, ESCAPE_JSON);
    while (line->len > 0 && (line->bytes[line->len - 1] == '\n' || line->bytes[line->len - 1] == '\r'))
        line->len--;
    return true;
}

static bool format_envelope_cri(struct rules_text *line) {
    const char *space = line->len < 30 ? NULL : memchr(line->bytes, ' ', 40 < line->len ? 40 : line->len);
    if (space == NULL || line->bytes[4] != '-' || line->bytes[10] != 'T') return false;
    format_envelope_skip(line, (size_t)(space + 1 - line->bytes));
    if (!format_envelope_begins(*line, "stdout F ") && !format_envelope_begins(*line, "stderr F ")) return false;
    format_envelope_skip(line, 9);
    return true;
}

static bool format_envelope_compose(struct rules_text *line) {
    const char *bar = memmem(line->bytes, line->len < TAG_MOST ? line->len : TAG_MOST, " | ", 3);
    if (bar == NULL || bar == line->bytes) return false;
    for (const char *at = line->bytes; at < bar; at++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. ", *at) == NULL) return false;
    format_envelope_skip(line, (size_t)(bar + 3 - line->bytes));
    return true;
}

/* After the words: VERSION TIME HOST APP PROCESS MESSAGE, and - if there are no structured data. */
static bool format_envelope_rfc5424(struct rules_text *line) {
    for (int words = 0; words < 6; words++) {
        const char *space =
            line->len == 0 ? NULL : memchr(line->bytes, ' ', line->len < TAG_MOST ? line->len : TAG_MOST);
        if (space == NULL) return false;
        format_envelope_skip(line, (size_t)(space + 1 - line->bytes));
    }
    if (!format_envelope_begins(*line, "- ")) return false;
    format_envelope_skip(line, 2);
    return true;
}

/* "Dec  1 08:00:00 host tag[1]: ", or with a time of RFC 3339. */
static bool format_envelope_syslog(struct rules_text *line) {
    if (format_envelope_begins(*line, "<")) {
        const char *close = memchr(line->bytes, '>', line->len < 6 ? line->len : 6);
        if (close == NULL) return false;
        format_envelope_skip(line, (size_t)(close + 1 - line->bytes));
        if (format_envelope_begins(*line, "1 ")) return format_envelope_rfc5424(line);
    }
    const bool month = line->len > 16 && line->bytes[3] == ' ' && line->bytes[6] == ' ' && line->bytes[9] == ':';
    const bool iso = line->len > 20 && line->bytes[4] == '-' && line->bytes[10] == 'T';
    if (!month && !iso) return false;
    const char *space = memchr(line->bytes + 15, ' ', line->len - 15);
    if (space == NULL) return false;
    format_envelope_skip(line, (size_t)(space - line->bytes));
    const char *tag = memmem(line->bytes, line->len < TAG_MOST ? line->len : TAG_MOST, ": ", 2);
    if (tag == NULL) return false;
    format_envelope_skip(line, (size_t)(tag + 2 - line->bytes));
    return true;
}

bool format_envelope_open(enum format_envelope envelope, struct rules_text *line, struct format_envelope_room *room) {
    struct rules_text inner = *line;
    bool opened = true;
    switch (envelope) {
    case ENVELOPE_DOCKER: opened = format_envelope_docker(&inner, room); break;
    case ENVELOPE_CRI: opened = format_envelope_cri(&inner); break;
    case ENVELOPE_COMPOSE: opened = format_envelope_compose(&inner); break;
    case ENVELOPE_SYSLOG: opened = format_envelope_syslog(&inner); break;
    default: break;
    }
    if (opened) *line = inner;
    return opened;
}
