/* SPDX-License-Identifier: MIT
 * Columns whose names stand in the log: CSV and TSV with a line of names, and W3C Extended with a line #Fields:.
 *
 * A value of CSV may be in quotes, with "" for a quote (RFC 4180). A record is one line: a value with a line feed in it
 * is a bad line. In W3C the columns may change with each line #Fields:. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "format_names.h"
#include "format_use.h"
#include "rules/memory.h"

enum { COLUMNS_MAX = 256, CHANGES_MAX = 1000 };

struct format_column {
    struct format_uses uses;
    enum format_escape escape;
};

struct format_columns {
    struct format *format;
    struct format_column *columns;
    size_t n;
    char separator;
    bool w3c, iis, cloudfront;
    struct rules_text names; /* the line of names; of W3C the last one */
    unsigned changes;        /* of the names. They take memory until the end */
};

/* ---- Fields of a line ---- */

/* The next field of a line; `text` is the rest of the line, and *more says if a separator follows. False: a quote is
 * not closed. */
static bool format_columns_next(const struct format_columns *columns, struct rules_text *text, struct rules_text *field,
                                bool *quoted, bool *more) {
    const char *at = text->bytes, *const end = at + text->len;
    *quoted = text->len > 0 && *at == '"';
    const char *stop;
    if (*quoted) {
        const char *close = at + 1;
        for (;; close += 2) {
            close = close < end ? memchr(close, '"', (size_t)(end - close)) : NULL;
            if (close == NULL) return false;
            if (close + 1 == end || close[1] != '"') break;
        }
        *field = (struct rules_text){at + 1, (size_t)(close - at - 1)};
        stop = close + 1;
        if (stop < end && *stop != columns->separator) return false;
    } else {
        const char *separator = text->len == 0 ? NULL : memchr(at, columns->separator, text->len);
        stop = separator == NULL ? end : separator;
        *field = (struct rules_text){at, (size_t)(stop - at)};
    }
    *more = stop < end;
    *text = (struct rules_text){stop + *more, (size_t)(end - stop) - *more};
    return true;
}

static struct rules_text format_columns_trim(struct rules_text text) {
    while (text.len > 0 && (text.bytes[0] == ' ' || text.bytes[0] == '\t'))
        text = (struct rules_text){text.bytes + 1, text.len - 1};
    while (text.len > 0 && (text.bytes[text.len - 1] == ' ' || text.bytes[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* ---- Names ---- */

static const struct format_name format_columns_w3c[] = {
    {"date", {.role = ROLE_DATE, .rank = RANK_USUAL}},
    {"time", {.role = ROLE_CLOCK, .rank = RANK_USUAL}},
    {"timestamp", {.role = ROLE_TIME, .form = TIME_ANY, .rank = RANK_USUAL}},
    {"c-ip", {.role = ROLE_ADDRESS, .rank = RANK_GOOD}},
    {"cs-method", {.role = ROLE_METHOD, .rank = RANK_USUAL}},
    {"cs-uri", {.role = ROLE_TARGET, .rank = RANK_USUAL}},
    {"cs-uri-stem", {.role = ROLE_PATH, .rank = RANK_USUAL}},
    {"cs-uri-query", {.role = ROLE_QUERY, .rank = RANK_USUAL}},
    {"cs-host", {.role = ROLE_HOST, .rank = RANK_USUAL}},
    {"cs(host)", {.role = ROLE_HOST, .rank = RANK_USUAL}},
    {"x-host-header", {.role = ROLE_HOST, .rank = RANK_BEST}},
    {"sc-status", {.role = ROLE_STATUS, .rank = RANK_USUAL}},
    {"cs(user-agent)", {.role = ROLE_AGENT, .rank = RANK_USUAL}},
    {"time-taken", {.role = ROLE_DURATION, .form = LOG_TIME_S, .rank = RANK_USUAL}},
};

/* IIS has milliseconds, and a + for each space. CloudFront has %NN. */
static bool format_columns_use_w3c(struct format_columns *columns, struct format_column *column, const char *name) {
    const size_t len = strlen(name);
    const bool header = strncmp(name, "cs(", 3) == 0 && name[len - 1] == ')';
    char *of_header = header ? memory_copy(columns->format->memory, name + 3, len - 4) : NULL;
    struct format_use use = {0};
    bool natural = false;
    for (size_t i = 0; i < sizeof format_columns_w3c / sizeof format_columns_w3c[0] && !natural; i++) {
        natural = strcasecmp(format_columns_w3c[i].name, name) == 0;
        if (natural) use = format_columns_w3c[i].use;
    }
    if (columns->iis && use.role == ROLE_DURATION) use.form = LOG_TIME_MS;
    column->escape = !header               ? ESCAPE_NONE
                     : columns->iis        ? ESCAPE_PLUS
                     : columns->cloudfront ? ESCAPE_PERCENT
                                           : ESCAPE_NONE;
    if (strcasecmp(name, "x-forwarded-for") == 0) of_header = memory_copy(columns->format->memory, name, len);
    return format_use_all(columns->format, &column->uses, name, &use, natural ? 1 : 0, of_header);
}

/* A column may be a header field by its own name, with http_ or request_ before it. */
static bool format_columns_use_csv(struct format_columns *columns, struct format_column *column, const char *name) {
    static const char *const before[] = {"http_", "request_", "header_", "req_"};
    const struct format_use *natural = format_names_find(name, strlen(name));
    const char *header = name;
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        const size_t len = strlen(before[i]);
        if (strncasecmp(name, before[i], len) == 0 && name[len] != '\0') header = name + len;
    }
    return format_use_all(columns->format, &column->uses, name, natural, natural == NULL ? 0 : 1, header);
}

/* Takes the columns from a line of names. False: out of memory, or the line is no line of names. */
static bool format_columns_set(struct format_columns *columns, struct rules_text names) {
    struct rules_memory *memory = columns->format->memory;
    struct rules_text rest = names, field;
    bool quoted, more = true;
    columns->n = 0;
    memset(columns->format->mapped, 0, columns->format->options.n_maps);
    memset(columns->format->found, 0, columns->format->options.n_wanted);
    while (more) {
        if (columns->n == COLUMNS_MAX || !format_columns_next(columns, &rest, &field, &quoted, &more)) return false;
        field = format_columns_trim(field);
        if (field.len == 0 && columns->w3c) continue; /* two spaces */
        char *name = memory_copy(memory, field.bytes, field.len);
        struct format_column *column = &columns->columns[columns->n++];
        *column = (struct format_column){.escape = columns->w3c ? ESCAPE_NONE : ESCAPE_DOUBLED};
        if (name == NULL) return false;
        if (!(columns->w3c ? format_columns_use_w3c(columns, column, name)
                           : format_columns_use_csv(columns, column, name)))
            return false;
    }
    return true;
}

/* How many columns have a role, and if one is a time. */
static size_t format_columns_roles(const struct format_columns *columns, bool *has_time) {
    size_t n = 0;
    bool date = false, clock = false, time = false;
    for (size_t i = 0; i < columns->n; i++)
        for (size_t k = 0; k < columns->columns[i].uses.n; k++) {
            const enum format_role role = (enum format_role)columns->columns[i].uses.at[k].role;
            n += k == 0;
            date |= role == ROLE_DATE;
            clock |= role == ROLE_CLOCK;
            time |= role == ROLE_TIME;
        }
    *has_time = time || (date && clock);
    return n;
}

/* ---- Reading ---- */

static enum format_outcome format_columns_count(struct format *format, size_t found, size_t n) {
    snprintf(format->reason, sizeof format->reason, "the line has %s%zu columns, not %zu", found > n ? "over " : "",
             found > n ? n : found, n);
    return FORMAT_BAD;
}

static enum format_outcome format_columns_row(struct format *format, struct rules_text line) {
    const struct format_columns *columns = format->of_kind;
    struct rules_text rest = line, field;
    bool quoted, more = true;
    size_t i = 0;
    format_use_begin(format, line);
    while (more) {
        if (!format_columns_next(columns, &rest, &field, &quoted, &more))
            return format_use_bad(format, "a quote is not closed; a record has to be one line");
        if (i == columns->n) return format_columns_count(format, i + 1, columns->n);
        const struct format_column *column = &columns->columns[i++];
        const enum format_escape escape = quoted ? ESCAPE_DOUBLED : column->escape;
        if (!format_use_take(format, &column->uses, field, escape)) return FORMAT_BAD;
    }
    if (i != columns->n) return format_columns_count(format, i, columns->n);
    return format_use_end(format);
}

static enum format_outcome format_columns_read_csv(struct format *format, struct rules_text line) {
    const struct format_columns *columns = format->of_kind;
    if (format_use_is(line, columns->names.bytes, columns->names.len)) return FORMAT_NO_RECORD;
    return format_columns_row(format, line);
}

static bool format_columns_begins(struct rules_text line, const char *text) {
    return line.len >= strlen(text) && strncasecmp(line.bytes, text, strlen(text)) == 0;
}

/* A line of W3C that begins with #. False: out of memory. */
static bool format_columns_directive(struct format_columns *columns, struct rules_text line) {
    if (format_columns_begins(line, "#Software:")) columns->iis = memmem(line.bytes, line.len, "Microsoft", 9) != NULL;
    if (!format_columns_begins(line, "#Fields:")) return true;
    struct rules_text names = format_columns_trim((struct rules_text){line.bytes + 8, line.len - 8});
    if (format_use_is(names, columns->names.bytes, columns->names.len)) return true;
    if (columns->changes++ == CHANGES_MAX) return false;
    columns->names = (struct rules_text){memory_copy(columns->format->memory, names.bytes, names.len), names.len};
    if (columns->names.bytes == NULL) return false;
    columns->cloudfront = memmem(names.bytes, names.len, "x-edge-", 7) != NULL;
    columns->iis |= memmem(names.bytes, names.len, "sc-win32-status", 15) != NULL;
    columns->separator = memchr(names.bytes, '\t', names.len) != NULL ? '\t' : ' ';
    if (!format_columns_set(columns, names)) return false;
    if (columns->cloudfront) columns->separator = '\t'; /* in the line of names there are spaces */
    return true;
}

static enum format_outcome format_columns_read_w3c(struct format *format, struct rules_text line) {
    struct format_columns *columns = format->of_kind;
    if (line.bytes[0] != '#') return format_columns_row(format, line);
    if (format_columns_directive(columns, line)) return FORMAT_NO_RECORD;
    return format_use_bad(format, "the names of the columns cannot be read");
}

/* ---- Making the format ---- */

static bool format_columns_make_w3c(struct format_columns *columns, const struct rules_text *lines, size_t n, char *why,
                                    size_t room) {
    struct format *format = columns->format;
    bool has_time;
    columns->w3c = true;
    for (size_t i = 0; i < n && columns->n == 0; i++)
        if (lines[i].len > 0 && lines[i].bytes[0] == '#') format_columns_directive(columns, lines[i]);
    format->read = format_columns_read_w3c;
    snprintf(format->name, sizeof format->name, "w3c%s",
             columns->iis          ? " (iis)"
             : columns->cloudfront ? " (cloudfront)"
                                   : "");
    format_columns_roles(columns, &has_time);
    if (columns->n > 0 && has_time) return true;
    snprintf(why, room,
             columns->n == 0 ? "w3c: the first lines have no line #Fields:"
                             : "w3c: the line #Fields: has no date and time");
    return false;
}

/* The line of names is the first line with names that are known, of which one is the time. */
static bool format_columns_make_csv(struct format_columns *columns, const char *separators,
                                    const struct rules_text *lines, size_t n, char *why, size_t room) {
    struct format *format = columns->format;
    format->read = format_columns_read_csv;
    for (size_t i = 0; i < n; i++)
        for (const char *separator = separators; *separator != '\0'; separator++) {
            const struct rules_text line = lines[i];
            bool has_time;
            columns->separator = *separator;
            if (line.len == 0 || memchr(line.bytes, *separator, line.len) == NULL) continue;
            if (!format_columns_set(columns, line) || format_columns_roles(columns, &has_time) < 2 || !has_time)
                continue;
            columns->names = (struct rules_text){memory_copy(format->memory, line.bytes, line.len), line.len};
            if (columns->names.bytes != NULL) return true;
        }
    snprintf(why, room,
             "%s: none of the first lines has names of columns, with a time and at least one other known field. Name "
             "them: --time FIELD, --field ip=FIELD",
             format->name);
    return false;
}

bool format_columns_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines,
                         size_t n, char *why, size_t room) {
    struct format_columns *columns = memory_take(format->memory, sizeof *columns);
    if (columns != NULL) columns->columns = memory_take(format->memory, COLUMNS_MAX * sizeof *columns->columns);
    if (columns == NULL || columns->columns == NULL) {
        snprintf(why, room, "out of memory");
        return false;
    }
    columns->format = format;
    format->of_kind = columns;
    if (strcmp(kind->name, "w3c") == 0) return format_columns_make_w3c(columns, lines, n, why, room);
    return format_columns_make_csv(columns, strcmp(kind->name, "tsv") == 0 ? "\t" : ",;|", lines, n, why, room);
}
