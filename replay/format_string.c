/* SPDX-License-Identifier: MIT
 * Formats that a string describes: log_format of nginx, LogFormat of Apache, the access log of Envoy.
 *
 * A string is compiled to steps. A step reads one variable: all bytes up to the text that stands after the variable in
 * the string. So two variables need a text between them. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "format_names.h"
#include "rules/memory.h"

enum format_string_kind {
    STEP_TO_STOP,
    STEP_PATTERN,  /* a time, or a part of it, that is read by its form */
    STEP_FRACTION, /* the digits of a fraction of a second */
    STEP_TO_END
};

struct format_string_step {
    enum format_string_kind kind;
    struct format_uses uses;
    const char *stop; /* the text after the variable */
    size_t stop_len;
    size_t skip;                   /* bytes of the stop; 0: it belongs to the next variable */
    uint64_t stop_word, stop_mask; /* the stop as bytes of a word, if it has at most 8 */
    const char *pattern;
    size_t pattern_len;
};

struct format_string {
    struct format *format;
    struct format_string_step *steps;
    size_t n;
    const char *begin; /* the text before the first variable */
    size_t begin_len;
    enum format_escape escape;
    bool open_end; /* more may follow after a space */
    bool syslog;   /* HAProxy: syslog writes something before the line, and may cut its end */
    bool has_patterns, begun_patterns;
};

/* ---- Reading a line ---- */

/* A quote with an odd number of backslashes before it is a part of the text. */
static bool format_string_is_escaped(const char *begin, const char *quote) {
    const char *at = quote;
    while (at > begin && at[-1] == '\\')
        at--;
    return (quote - at) % 2 == 1;
}

static inline bool format_string_stops(const struct format_string_step *step, const char *at, const char *end) {
    uint64_t word;
    if (end - at < 8 || step->stop_len > 8)
        return (size_t)(end - at) >= step->stop_len && memcmp(at, step->stop, step->stop_len) == 0;
    memcpy(&word, at, sizeof word);
    return (word & step->stop_mask) == step->stop_word;
}

/* Where the stop of a step begins; NULL: it does not follow. slashes: the line has backslashes, which escape. */
static inline const char *format_string_find(const struct format_string_step *step, bool slashes, const char *begin,
                                             const char *end) {
    const char first = step->stop[0];
    for (const char *at = begin;; at++) {
        at = format_use_find(at, end, first);
        if (at == NULL) return NULL;
        if (slashes && first == '"' && format_string_is_escaped(begin, at)) continue;
        if (format_string_stops(step, at, end)) return at;
    }
}

/* The digits of a fraction of a second. Returns where they end; NULL: there are none. */
static const char *format_string_fraction(struct log_time_parts *parts, const char *at, const char *end) {
    const char *const begin = at;
    int64_t unit = 100000;
    for (; at < end && *at >= '0' && *at <= '9'; at++, unit /= 10)
        parts->fraction += (*at - '0') * unit;
    parts->has_fraction = true;
    return at > begin ? at : NULL;
}

/* The end of a variable that no stop bounds. Then *at is its beginning: a part of a time is taken here. */
static const char *format_string_special(struct format *format, const struct format_string_step *step, const char **at,
                                         const char *end) {
    const struct format_string *string = format->of_kind;
    const char *stop = *at;
    const struct rules_text text = {stop, (size_t)(end - stop)};
    size_t n;
    switch (step->kind) {
    case STEP_PATTERN:
        n = log_time_pattern(&format->time_parts, step->pattern, step->pattern_len, text);
        stop = n > 0 ? stop + n : NULL;
        break;
    case STEP_FRACTION: stop = format_string_fraction(&format->time_parts, stop, end); break;
    default: /* the last variable */
        stop = string->open_end && text.len > 0 ? memchr(stop, ' ', text.len) : NULL;
        return stop == NULL ? end : stop;
    }
    if (stop == NULL || (size_t)(end - stop) < step->stop_len || memcmp(stop, step->stop, step->stop_len) != 0)
        return NULL;
    *at = stop;
    return stop;
}

static enum format_outcome format_string_fails(struct format *format, const char *line, const char *at,
                                               const struct format_string_step *step) {
    if (step->kind == STEP_TO_STOP)
        snprintf(format->reason, sizeof format->reason, "after byte %zu there is no '%.*s'", (size_t)(at - line),
                 step->stop_len > 40 ? 40 : (int)step->stop_len, step->stop);
    else
        snprintf(format->reason, sizeof format->reason, "after byte %zu there is no time of the form %.60s",
                 (size_t)(at - line), step->pattern);
    return FORMAT_BAD;
}

/* Without what syslog writes before a line: "Feb  6 12:14:14 localhost haproxy[14389]: ". The word before the date is
 * the address. */
static struct rules_text format_string_without_tag(struct rules_text line) {
    const char *const end = line.bytes + line.len;
    const char *date = memmem(line.bytes, line.len < 256 ? line.len : 256, " [", 2);
    if (date == NULL) return line;
    const char *space = memrchr(line.bytes, ' ', (size_t)(date - line.bytes));
    return space == NULL ? line : (struct rules_text){space + 1, (size_t)(end - space - 1)};
}

/* The time of all its parts. If they are only a fraction, it belongs to another time of the line. */
static void format_string_join(struct format *format) {
    const struct format_string *string = format->of_kind;
    struct record *record = format->record;
    struct log_time time;
    if (log_time_join(&time, &format->time_parts)) {
        record->time = time.us;
        record->whole_second = time.whole_second;
        record->at_begin = string->begun_patterns;
    } else if (format->time_parts.has_fraction && record->time >= 0 && record->whole_second) {
        record->time += format->time_parts.fraction;
        record->whole_second = false;
    }
}

static enum format_outcome format_string_read(struct format *format, struct rules_text line) {
    const struct format_string *string = format->of_kind;
    if (string->syslog) line = format_string_without_tag(line);
    const bool escapes =
        string->escape != ESCAPE_NONE && memchr(line.bytes, format_escape_mark(string->escape), line.len) != NULL;
    const enum format_escape escape = escapes ? string->escape : ESCAPE_NONE;
    const bool slashes = escape == ESCAPE_BACKSLASH || escape == ESCAPE_JSON;
    const char *at = line.bytes, *const end = line.bytes + line.len;
    format_use_begin(format, line);
    if (line.len < string->begin_len || memcmp(at, string->begin, string->begin_len) != 0)
        return format_use_bad(format, "the line begins otherwise");
    at += string->begin_len;
    if (string->has_patterns) format->time_parts = (struct log_time_parts){.month = 1, .day = 1};
    const struct format_string_step *const last = string->steps + string->n;
    for (const struct format_string_step *step = string->steps; step < last; step++) {
        const char *stop = step->kind == STEP_TO_STOP ? format_string_find(step, slashes, at, end)
                                                      : format_string_special(format, step, &at, end);
        if (stop == NULL) {
            if (!string->syslog || step + 1 < last) return format_string_fails(format, line.bytes, at, step);
            stop = end; /* syslog cut the line */
        }
        if (step->uses.n > 0 &&
            !format_use_take(format, &step->uses, (struct rules_text){at, (size_t)(stop - at)}, escape))
            return FORMAT_BAD;
        at = stop == end ? end : stop + step->skip;
    }
    if (at != end && !(string->open_end && *at == ' '))
        return format_use_bad(format, "more follows than the format has");
    if (string->has_patterns && format->ranks[ROLE_TIME] < RANK_ASKED) format_string_join(format);
    return format_use_end(format);
}

/* ---- Compiling ---- */

/* A text, and the column of each of its bytes in what the user wrote. */
struct format_string_text {
    char *bytes;
    unsigned *columns;
    size_t len;
};

/* A format string while it is compiled. */
struct format_string_source {
    struct format_string *string;
    struct format_string_text text;
    size_t at;     /* next byte of the text */
    char *literal; /* the text before the next variable */
    size_t literal_len;
    bool keeps; /* the literal is also the beginning of the next variable */
    bool has_time;
    char *why;
    size_t room;
};

__attribute__((format(printf, 3, 4))) static bool format_string_error(struct format_string_source *source, size_t at,
                                                                      const char *text, ...) {
    const struct format_string_text *from = &source->text;
    const unsigned column = from->len == 0 ? 1 : from->columns[at < from->len ? at : from->len - 1];
    const int n = snprintf(source->why, source->room, "--format, column %u: ", column);
    va_list list;
    va_start(list, text);
    if (n > 0 && (size_t)n < source->room) vsnprintf(source->why + n, source->room - (size_t)n, text, list);
    va_end(list);
    return false;
}

/* For the formats of format.c. nginx has no such names. */
static const struct format_name format_string_own[] = {
    {"time-end", {.role = ROLE_TIME, .form = TIME_ISO, .rank = RANK_USUAL}},
    {"time-begin", {.role = ROLE_TIME, .form = TIME_ISO, .rank = RANK_GOOD, .at_begin = true}},
    {"duration-part", {.role = ROLE_DURATION_PART, .form = LOG_TIME_S}},
    {"begun-at", {.role = ROLE_TIME, .form = TIME_CLF, .rank = RANK_USUAL, .at_begin = true}},
    {"duration-ms", {.role = ROLE_DURATION, .form = LOG_TIME_MS, .rank = RANK_USUAL}},
    {"a-number", {.role = ROLE_NUMBER}},
    {"forwarded-for", {.role = ROLE_FORWARDED}},
    {"address-port", {.role = ROLE_ADDRESS, .form = ADDRESS_PORT, .rank = RANK_GOOD}},
};

static const struct format_name format_string_apache[] = {
    {"h", {.role = ROLE_ADDRESS, .rank = RANK_USUAL}},
    {"a", {.role = ROLE_ADDRESS, .rank = RANK_GOOD}},
    {"t", {.role = ROLE_TIME, .form = TIME_CLF, .rank = RANK_USUAL, .at_begin = true}},
    {"r", {.role = ROLE_REQUEST, .rank = RANK_USUAL}},
    {"m", {.role = ROLE_METHOD, .rank = RANK_GOOD}},
    {"U", {.role = ROLE_PATH, .rank = RANK_USUAL}},
    {"q", {.role = ROLE_QUERY, .rank = RANK_USUAL}},
    {"v", {.role = ROLE_HOST, .rank = RANK_LOW}},
    {"V", {.role = ROLE_HOST, .rank = RANK_USUAL}},
    {"s", {.role = ROLE_STATUS, .rank = RANK_USUAL}},
    {"D", {.role = ROLE_DURATION, .form = LOG_TIME_US, .rank = RANK_GOOD}},
    {"T", {.role = ROLE_DURATION, .form = LOG_TIME_S, .rank = RANK_USUAL}},
};

static const struct format_name format_string_envoy[] = {
    {"START_TIME", {.role = ROLE_TIME, .form = TIME_ISO, .rank = RANK_USUAL, .at_begin = true}},
    {"REQ(:METHOD)", {.role = ROLE_METHOD, .rank = RANK_GOOD}},
    {"REQ(:PATH)", {.role = ROLE_TARGET, .rank = RANK_USUAL}},
    {"REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", {.role = ROLE_TARGET, .rank = RANK_GOOD}},
    {"REQ(:AUTHORITY)", {.role = ROLE_HOST, .rank = RANK_GOOD}},
    {"REQ(X-FORWARDED-FOR)", {.role = ROLE_ADDRESS, .form = ADDRESS_LAST, .rank = RANK_LOW}},
    {"REQ(USER-AGENT)", {.role = ROLE_AGENT, .rank = RANK_USUAL}},
    {"RESPONSE_CODE", {.role = ROLE_STATUS, .rank = RANK_USUAL}},
    {"DURATION", {.role = ROLE_DURATION, .form = LOG_TIME_MS, .rank = RANK_USUAL}},
    {"DOWNSTREAM_REMOTE_ADDRESS", {.role = ROLE_ADDRESS, .rank = RANK_GOOD}},
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", {.role = ROLE_ADDRESS, .rank = RANK_GOOD}},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", {.role = ROLE_ADDRESS, .rank = RANK_USUAL}},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", {.role = ROLE_ADDRESS, .rank = RANK_USUAL}},
};

#define FORMAT_STRING_FIND(table, name) format_string_lookup(table, sizeof(table) / sizeof(table)[0], name)
static const struct format_use *format_string_lookup(const struct format_name *table, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i].use;
    return NULL;
}

/* Puts what stands before a variable behind the variable before it. keeps: it belongs to the variable after it. */
static bool format_string_flush(struct format_string_source *source, size_t at, bool keeps) {
    struct format_string *string = source->string;
    const size_t len = source->literal_len;
    if (string->n == 0) {
        string->begin = source->literal;
        string->begin_len = len;
    } else {
        struct format_string_step *last = &string->steps[string->n - 1];
        last->stop = source->literal;
        last->stop_len = len;
        last->skip = keeps ? 0 : len;
        if (len <= sizeof last->stop_word) {
            memcpy(&last->stop_word, source->literal, len);
            memset(&last->stop_mask, 0xff, len);
        }
        if (len == 0 && last->kind == STEP_TO_STOP) last->kind = STEP_TO_END;
        if (last->kind == STEP_TO_END && at < source->text.len)
            return format_string_error(source, at,
                                       "nothing stands between this variable and the one before it, so it "
                                       "cannot be told where that ends. Log a space between them");
    }
    source->literal += len;
    source->literal_len = 0;
    return true;
}

/* A variable. header: the header field that it is; NULL: none. The step is NULL if there is an error. */
static struct format_string_step *format_string_add(struct format_string_source *source, size_t at, const char *name,
                                                    const struct format_use *use, const char *header) {
    struct format_string *string = source->string;
    struct format_string_step *step = &string->steps[string->n];
    if (!format_string_flush(source, at, source->keeps)) return NULL;
    source->keeps = false;
    if (!format_use_all(string->format, &step->uses, name, use, use == NULL ? 0 : 1, header)) {
        format_string_error(source, at, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < step->uses.n; i++)
        source->has_time |= step->uses.at[i].role == ROLE_TIME;
    string->n++;
    return step;
}

static bool format_string_is_word(char c) {
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char *format_string_copy(struct format_string_source *source, const char *before, const char *bytes,
                                size_t len) {
    const size_t lead = strlen(before);
    char *copy = memory_take(source->string->format->memory, lead + len + 1);
    if (copy == NULL) return NULL;
    for (size_t i = 0; i < lead + len; i++)
        copy[i] = *(i < lead ? before + i : bytes + (i - lead));
    return copy;
}

/* $name or ${name}. The value of $request_uri begins with a slash, so $host may stand right before it. $is_args and
 * $args belong to the $uri right before them. */
static bool format_string_dollar(struct format_string_source *source) {
    const struct format_string_text *text = &source->text;
    struct format_string *string = source->string;
    const size_t begin = source->at++;
    const bool braces = source->at < text->len && text->bytes[source->at] == '{';
    const size_t from = source->at += braces;
    while (source->at < text->len &&
           (braces ? text->bytes[source->at] != '}' : format_string_is_word(text->bytes[source->at])))
        source->at++;
    const size_t len = source->at - from;
    if (braces && source->at == text->len)
        return format_string_error(source, begin, "the brace is not closed: write ${name}");
    if (len == 0) return format_string_error(source, begin, "no name follows the $: write $name or ${name}");
    source->at += braces;
    char *field = format_string_copy(source, "$", text->bytes + from, len);
    if (field == NULL) return format_string_error(source, begin, "out of memory");
    const char *name = field + 1;
    const bool follows = string->n > 0 && source->literal_len == 0;
    struct format_string_step *last = string->n > 0 ? &string->steps[string->n - 1] : NULL;
    const bool after_path = follows && last->uses.n > 0 && last->uses.at[0].role == ROLE_PATH;
    if (after_path && (strcmp(name, "is_args") == 0 || strcmp(name, "args") == 0 || strcmp(name, "query_string") == 0))
        return true;
    if (follows && (strcmp(name, "request_uri") == 0 || strcmp(name, "uri") == 0)) {
        source->literal[0] = '/'; /* the text of the format has room for it: the variable is longer */
        source->literal_len = 1;
        source->keeps = true;
    }
    const bool cookie = strncmp(name, "cookie_", 7) == 0;
    const struct format_use of_cookie = {.role = ROLE_COOKIE, .name = name + 7, .name_len = cookie ? len - 7 : 0};
    const struct format_use *natural = cookie ? &of_cookie
                                       : braces && strchr(name, '-') != NULL
                                           ? FORMAT_STRING_FIND(format_string_own, name)
                                           : format_names_nginx(name);
    const char *header = strncmp(name, "http_", 5) == 0       ? name + 5
                         : strcmp(name, "forwarded-for") == 0 ? "x-forwarded-for"
                                                              : NULL;
    return format_string_add(source, begin, field, natural, header) != NULL;
}

/* %{...}t of Apache: a form of strftime, or one of sec, msec, usec, msec_frac, usec_frac; after begin: or end: */
static bool format_string_apache_time(struct format_string_source *source, size_t begin, const char *field,
                                      char *form) {
    static const struct {
        const char *name;
        enum log_time_unit unit;
    } units[] = {{"sec", LOG_TIME_S}, {"msec", LOG_TIME_MS}, {"usec", LOG_TIME_US}};
    const bool at_end = strncmp(form, "end:", 4) == 0;
    if (at_end || strncmp(form, "begin:", 6) == 0) form = strchr(form, ':') + 1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(form, units[i].name) != 0) continue;
        const struct format_use use = {
            .role = ROLE_TIME, .form = (uint8_t)units[i].unit, .rank = RANK_GOOD, .at_begin = !at_end};
        return format_string_add(source, begin, field, &use, NULL) != NULL;
    }
    const bool fraction = strcmp(form, "msec_frac") == 0 || strcmp(form, "usec_frac") == 0;
    const char *fault = log_time_pattern_fault(form, strlen(form));
    if (fault != NULL && !fraction)
        return format_string_error(
            source, begin, "%%%c in a time cannot be read; %%Y %%m %%d %%H %%M %%S %%T %%F %%D %%b %%y %%z %%s can",
            fault[1] == '\0' ? '%' : fault[1]);
    struct format_string_step *step = format_string_add(source, begin, field, NULL, NULL);
    if (step == NULL) return false;
    step->kind = fraction ? STEP_FRACTION : STEP_PATTERN;
    step->pattern = form;
    step->pattern_len = strlen(form);
    source->string->has_patterns = true;
    source->string->begun_patterns = !at_end;
    return true;
}

/* %X, %>X, %{name}X, %200,304X of Apache */
static bool format_string_percent(struct format_string_source *source) {
    static const char known[] = "aABbCDefhHiIkLlmnoOpPqrRsSTtuUvVX";
    const struct format_string_text *text = &source->text;
    struct format_string *string = source->string;
    const size_t begin = source->at++;
    char *inner = NULL;
    while (source->at < text->len && text->bytes[source->at] != '\0' &&
           strchr("<>!,0123456789", text->bytes[source->at]) != NULL)
        source->at++;
    if (source->at < text->len && text->bytes[source->at] == '{') {
        const char *close = memchr(text->bytes + source->at, '}', text->len - source->at);
        if (close == NULL) return format_string_error(source, begin, "the brace is not closed: write %%{name}i");
        inner = format_string_copy(source, "", text->bytes + source->at + 1,
                                   (size_t)(close - text->bytes) - source->at - 1);
        source->at = (size_t)(close - text->bytes) + 1;
    }
    if (source->at + 2 < text->len && text->bytes[source->at] == '^') source->at += 2; /* %^FB, %{}^ti, %{}^to */
    const char letter = text->bytes[source->at];                                       /* NUL at its end */
    const bool caret = source->at > 1 && text->bytes[source->at - 2] == '^';
    if (letter == '\0' || (!caret && strchr(known, letter) == NULL))
        return format_string_error(source, begin,
                                   "there is no directive %%%c: write %%h, %%t, %%r, %%>s, %%b, %%{Name}i, %%%% ...",
                                   letter == '\0' ? ' ' : letter);
    source->at++;
    char *field = format_string_copy(source, "", text->bytes + begin, source->at - begin);
    if (field == NULL) return format_string_error(source, begin, "out of memory");
    const struct format_string_step *last = string->n > 0 ? &string->steps[string->n - 1] : NULL;
    const bool follows = last != NULL && source->literal_len == 0;
    if (follows && letter == 'q' && last->uses.n > 0 && last->uses.at[0].role == ROLE_PATH) return true; /* %U%q */
    const char short_name[] = {letter, '\0'};
    struct format_use use = {.rank = RANK_GOOD};
    if (caret) return format_string_add(source, begin, field, NULL, NULL) != NULL;
    if (inner == NULL) {
        const struct format_use *natural = FORMAT_STRING_FIND(format_string_apache, short_name);
        return format_string_add(source, begin, field, natural, NULL) != NULL;
    }
    switch (letter) {
    case 't': return format_string_apache_time(source, begin, field, inner);
    case 'i':
        use.role = strcasecmp(inner, "host") == 0         ? ROLE_HOST
                   : strcasecmp(inner, "user-agent") == 0 ? ROLE_AGENT
                                                          : ROLE_COUNT;
        return format_string_add(source, begin, field, use.role == ROLE_COUNT ? NULL : &use, inner) != NULL;
    case 'C':
        use = (struct format_use){.role = ROLE_COOKIE, .name = inner, .name_len = strlen(inner)};
        return format_string_add(source, begin, field, &use, NULL) != NULL;
    case 'a':
        use = (struct format_use){.role = ROLE_ADDRESS, .rank = RANK_LOW};
        return format_string_add(source, begin, field, &use, NULL) != NULL;
    case 'T':
        use.role = ROLE_DURATION;
        use.form = strcmp(inner, "us") == 0 ? LOG_TIME_US : strcmp(inner, "ms") == 0 ? LOG_TIME_MS : LOG_TIME_S;
        return format_string_add(source, begin, field, &use, NULL) != NULL;
    default: return format_string_add(source, begin, field, NULL, NULL) != NULL;
    }
}

/* %NAME%, %NAME(...)%, %NAME(...):12% of Envoy */
static bool format_string_operator(struct format_string_source *source) {
    const struct format_string_text *text = &source->text;
    const size_t begin = source->at++, from = source->at;
    while (source->at < text->len && format_string_is_word(text->bytes[source->at]))
        source->at++;
    if (source->at < text->len && text->bytes[source->at] == '(') {
        const char *close = memchr(text->bytes + source->at, ')', text->len - source->at);
        if (close == NULL)
            return format_string_error(source, begin, "the parenthesis is not closed: write %%REQ(NAME)%%");
        source->at = (size_t)(close - text->bytes) + 1;
    }
    char *field = format_string_copy(source, "", text->bytes + from, source->at - from);
    while (source->at < text->len && text->bytes[source->at] != '%')
        source->at++;
    if (source->at == text->len || source->at == from)
        return format_string_error(source, begin, "the operator does not end with %%: write %%NAME%% or %%REQ(NAME)%%");
    source->at++;
    if (field == NULL) return format_string_error(source, begin, "out of memory");
    const bool time = strncmp(field, "START_TIME(", 11) == 0, header = strncmp(field, "REQ(", 4) == 0;
    char *inner =
        time || header ? format_string_copy(source, "", strchr(field, '(') + 1, strlen(strchr(field, '(')) - 2) : NULL;
    if (time && inner != NULL) return format_string_apache_time(source, begin, field, inner);
    for (char *c = field; header && *c != '\0'; c++)
        if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 0x20);
    if (header && inner != NULL && strchr(inner, '?') != NULL) *strchr(inner, '?') = '\0';
    return format_string_add(source, begin, field, FORMAT_STRING_FIND(format_string_envoy, field),
                             header ? inner : NULL) != NULL;
}

/* ---- What the user pasted ---- */

/* Adds a byte that stands at a place of the pasted text. */
static void format_string_put(struct format_string_text *text, char byte, size_t at) {
    text->bytes[text->len] = byte;
    text->columns[text->len++] = (unsigned)at + 1;
}

/* Copies a text in quotes, or up to `end`. Returns where it ends, NULL if a quote is not closed. */
static const char *format_string_unquote(struct format_string_text *text, const char *all, const char *at, char quote) {
    for (; *at != '\0' && *at != quote; at++) {
        const bool escape = *at == '\\';
        const char next = at[1];
        if (escape && next == 't') {
            format_string_put(text, '\t', (size_t)(at++ - all));
            continue;
        }
        if (escape && (next == '"' || next == '\'' || next == '\\')) at++;
        format_string_put(text, *at, (size_t)(at - all));
    }
    if (quote == '\0') return at;
    return *at == quote ? at + 1 : NULL;
}

static const char *format_string_blanks(const char *at) { return at + strspn(at, " \t\r\n"); }
static const char *format_string_word(const char *at) { return format_string_blanks(at + strcspn(at, " \t\r\n")); }

/* Takes the format string out of a statement: `log_format NAME escape=json '...' '...';`, `LogFormat "..." NAME`, or
 * the string itself. False: a quote is not closed. */
static bool format_string_unwrap(struct format_string_source *source, const char *pasted) {
    struct format_string_text *text = &source->text;
    const char *at = format_string_blanks(pasted);
    bool nginx = strncmp(at, "log_format", 10) == 0 && strchr(" \t\r\n", at[10]) != NULL;
    const bool apache = strncasecmp(at, "LogFormat", 9) == 0 && strchr(" \t\r\n", at[9]) != NULL;
    if (nginx) at = format_string_word(format_string_word(at));
    if (apache) at = format_string_word(at);
    while (nginx && strncmp(at, "escape=", 7) == 0) {
        source->string->escape = strncmp(at + 7, "json", 4) == 0   ? ESCAPE_JSON
                                 : strncmp(at + 7, "none", 4) == 0 ? ESCAPE_NONE
                                                                   : ESCAPE_BACKSLASH;
        at = format_string_word(at);
    }
    nginx |= *at == '\'';
    if (!nginx && !(apache && *at == '"')) {
        format_string_unquote(text, pasted, at, '\0');
        while (text->len > 0 && strchr(" \t\r\n", text->bytes[text->len - 1]) != NULL)
            text->len--;
        return true;
    }
    while (*at == '\'' || *at == '"') {
        const size_t quote = (size_t)(at - pasted);
        at = format_string_unquote(text, pasted, at + 1, *at);
        if (at == NULL) {
            snprintf(source->why, source->room, "--format, column %zu: this quote is not closed", quote + 1);
            return false;
        }
        if (apache) break; /* a name may follow */
        at = format_string_blanks(at);
    }
    if (nginx && *at != '\0' && *at != ';') {
        snprintf(source->why, source->room, "--format, column %zu: a quote or ; should stand here",
                 (size_t)(at - pasted) + 1);
        return false;
    }
    return true;
}

static bool format_string_compile(struct format_string_source *source) {
    const struct format_string_text *text = &source->text;
    const bool dollars = text->len > 0 && memchr(text->bytes, '$', text->len) != NULL;
    const bool envoy =
        memmem(text->bytes, text->len, "%START_TIME", 11) != NULL || memmem(text->bytes, text->len, "%REQ(", 5) != NULL;
    if (envoy) source->string->escape = ESCAPE_NONE;
    while (source->at < text->len) {
        const char c = text->bytes[source->at];
        const bool doubled = source->at + 1 < text->len && text->bytes[source->at + 1] == c;
        if (envoy ? c == '%' && !doubled : dollars ? c == '$' : c == '%' && !doubled) {
            if (!(envoy     ? format_string_operator(source)
                  : dollars ? format_string_dollar(source)
                            : format_string_percent(source)))
                return false;
            continue;
        }
        source->literal[source->literal_len++] = c;
        source->at += c == '%' && !dollars ? 2 : 1;
    }
    if (!format_string_flush(source, text->len, false)) return false;
    if (source->string->n == 0) return format_string_error(source, 0, "the format has no variable");
    if (!source->has_time && !source->string->has_patterns)
        return format_string_error(source, 0, "the format has no time: log %s too, or name the field with --time",
                                   envoy     ? "%START_TIME%"
                                   : dollars ? "$time_local or $msec"
                                             : "%t");
    return true;
}

bool format_string_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines, size_t n,
                        char *why, size_t room) {
    const size_t len = strlen(kind->string);
    struct format_string *string = memory_take(format->memory, sizeof *string);
    struct format_string_source source = {.string = string, .why = why, .room = room};
    (void)lines;
    (void)n;
    source.text.bytes = memory_take(format->memory, len + 1);
    source.text.columns = memory_take(format->memory, (len + 1) * sizeof *source.text.columns);
    source.literal = memory_take(format->memory, len + 1);
    if (string != NULL) string->steps = memory_take(format->memory, (len + 1) * sizeof *string->steps);
    if (string == NULL || source.text.bytes == NULL || source.text.columns == NULL || source.literal == NULL ||
        string->steps == NULL) {
        snprintf(why, room, "out of memory");
        return false;
    }
    string->format = format;
    string->escape = ESCAPE_BACKSLASH;
    string->open_end = kind->name[0] != '\0';
    string->syslog = strcmp(kind->name, "haproxy") == 0;
    if (string->syslog) string->escape = ESCAPE_HASH;
    if (!format_string_unwrap(&source, kind->string) || !format_string_compile(&source)) return false;
    if (kind->name[0] == '\0') snprintf(format->name, sizeof format->name, "format string");
    format->of_kind = string;
    format->read = format_string_read;
    return true;
}
