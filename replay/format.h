/* SPDX-License-Identifier: MIT
 * Formats of logs: a line becomes a record. */
#ifndef STEADY_REPLAY_FORMAT_H
#define STEADY_REPLAY_FORMAT_H

#include "rules/rules.h"

enum { RECORD_FIELDS_MAX = 32, RECORD_PARTS_MAX = RULES_PARTS_MAX };

/* A part of a decision, from a decision log of `steady serve`. */
struct record_part {
    struct rules_text limit, key;
    int64_t amount;
    enum steady_kind kind;
};

/* A request, as far as the log tells. Empty: not known. The texts point into the line, or into the format; they are
 * valid until the next line of this format. */
struct record {
    int64_t time;      /* us since 1970: the time that the log tells */
    int64_t duration;  /* us of the request; -1: not known */
    bool whole_second; /* the log tells only the second */
    bool at_begin;     /* the time is that of the beginning: do not subtract the duration */
    struct rules_text method, host, target;
    struct steady__address address;
    bool has_address;
    int status; /* 0: not known */
    struct rules_text user_agent;
    struct rules_field fields[RECORD_FIELDS_MAX]; /* header fields, and the wanted fields under their own names */
    size_t n_fields;
    struct record_part parts[RECORD_PARTS_MAX]; /* of a decision log */
    size_t n_parts;
};

/* Where a format finds things that it cannot know. */
struct format_options {
    const char *format;      /* a name, or a format string of nginx or Apache; NULL: detect it */
    const char *time_field;  /* --time: the field with the time; NULL: the usual ones */
    const char *const *maps; /* --field NAME=FIELD: `header:x-api-key=.headers.key`, `ip=client`, `path=url`, ... */
    size_t n_maps;
    const char *const *wanted; /* names of header fields that the rules look at, and fields such as `.user.id` */
    size_t n_wanted;
};

struct format;

enum format_outcome {
    FORMAT_RECORD,
    FORMAT_NO_RECORD, /* a comment, a line of column names, an empty line */
    FORMAT_BAD        /* format_reason says why */
};

/* Detects or compiles a format. lines: the first lines of the file, at least one. On an error NULL; `why` gets one
 * line: what is wrong, where in the format string, and which names there are. A format keeps state (column names), so
 * each file has its own. Free it with format_free. */
struct format *format_new(const struct format_options *options, const struct rules_text *lines, size_t n, char *why,
                          size_t room);

const char *format_name(const struct format *format); /* for the report: "combined", "json (nginx)", ... */

enum format_outcome format_read(struct format *format, struct rules_text line, struct record *record);

const char *format_reason(const struct format *format); /* of the last FORMAT_BAD */

/* Wanted fields that this format can never have. For a warning. */
const char *format_lacks(const struct format *format, size_t i); /* NULL: no more */

void format_free(struct format *format);

/* The names of formats, for --help; NULL: no more. */
const char *format_known_name(size_t i);
const char *format_known_text(size_t i);

#endif
