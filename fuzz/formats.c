/* SPDX-License-Identifier: MIT
 * Fuzzes the formats of logs. The first line is --format (empty: it is detected), the second one a map and a wanted
 * field, the others are the log. Each line lies flush against the end of its memory. A line is read twice, with the
 * same record. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay/format.h"

#define MUST(what)                                                                                                     \
    do {                                                                                                               \
        if (!(what)) abort();                                                                                          \
    } while (0)

enum { LINES_MAX = 64 };

static struct record first, second;

static struct rules_text next_line(const char **at, const char *end) {
    const char *lf = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    const struct rules_text line = {*at, (size_t)((lf == NULL ? end : lf) - *at)};
    *at = lf == NULL ? end : lf + 1;
    return line;
}

static char *text_of(struct rules_text line) {
    char *text = calloc(1, line.len + 1);
    MUST(text != NULL);
    if (line.len > 0) memcpy(text, line.bytes, line.len);
    return text;
}

/* Touches each byte, so that AddressSanitizer looks at it. */
static size_t sum(struct rules_text text) {
    size_t sum = text.len;
    for (size_t i = 0; i < text.len; i++)
        sum = sum * 31 + (unsigned char)text.bytes[i];
    return sum;
}

static size_t check(const struct record *record) {
    MUST(record->time >= 0 && record->time < INT64_C(7289654400000000));
    MUST(record->duration >= -1 && record->status >= 0 && record->status <= 999);
    MUST(record->n_fields <= RECORD_FIELDS_MAX && record->n_parts <= RECORD_PARTS_MAX);
    size_t all = sum(record->method) ^ sum(record->host) << 1 ^ sum(record->target) << 2 ^ sum(record->user_agent) << 3;
    for (size_t i = 0; i < record->n_fields; i++)
        all ^= sum(record->fields[i].name) + sum(record->fields[i].value) * (i + 2);
    for (size_t i = 0; i < record->n_parts; i++) {
        MUST(record->parts[i].amount >= 0);
        all ^= sum(record->parts[i].limit) + sum(record->parts[i].key) * (i + 3);
    }
    return all;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    const char *at = (const char *)bytes, *const end = at + len;
    char *name = text_of(next_line(&at, end)), *map = text_of(next_line(&at, end)), why[300] = "";
    const char *const maps[] = {map}, *const wanted[] = {"x-api-key", "cookie", ".user.id", map};
    const struct format_options options = {.format = name[0] == '\0' ? NULL : name,
                                           .time_field = map[0] == '.' ? map : NULL,
                                           .maps = maps,
                                           .n_maps = strchr(map, '=') != NULL,
                                           .wanted = wanted,
                                           .n_wanted = map[0] == '\0' ? 3 : 4};
    struct rules_text lines[LINES_MAX] = {{0}};
    size_t n = 0;
    for (; at < end && n < LINES_MAX; n++) {
        const struct rules_text line = next_line(&at, end);
        char *copy = malloc(line.len);
        if (line.len > 0) memcpy(copy, line.bytes, line.len);
        lines[n] = (struct rules_text){copy, line.len};
    }
    struct format *format = format_new(&options, lines, n, why, sizeof why);
    MUST(format != NULL || strlen(why) > 0);
    for (size_t i = 0; i < n && format != NULL; i++) {
        const enum format_outcome outcome = format_read(format, lines[i], &first);
        const size_t once = outcome == FORMAT_RECORD ? check(&first) : 0;
        MUST(outcome != FORMAT_BAD || strlen(format_reason(format)) > 0);
        MUST(format_read(format, lines[i], &second) == outcome);
        if (outcome != FORMAT_RECORD) continue;
        MUST(check(&second) == once && first.time == second.time && first.duration == second.duration);
        MUST(first.status == second.status && first.has_address == second.has_address);
    }
    for (size_t i = 0; format != NULL && format_lacks(format, i) != NULL; i++)
        MUST(strlen(format_lacks(format, i)) < len + 16);
    format_free(format);
    for (size_t i = 0; i < n; i++)
        free((char *)lines[i].bytes);
    free(name);
    free(map);
    return 0;
}
