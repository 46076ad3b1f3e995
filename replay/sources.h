/* SPDX-License-Identifier: MIT
 * Several logs as one stream of records, about in the order of time. */
#ifndef STEADY_REPLAY_SOURCES_H
#define STEADY_REPLAY_SOURCES_H

#include "format.h"
#include "report.h"

struct sources;

struct sources_options {
    const char *const *paths; /* "-" is standard input */
    size_t n;
    const struct format_options *format;
};

enum sources_outcome {
    SOURCES_RECORD,
    SOURCES_OTHER, /* a line without a record; or a file has ended */
    SOURCES_END
};

/* Opens the files. If one cannot be opened or has no known format, a line on standard error says so, and the others are
 * read. NULL: out of memory. */
struct sources *sources_new(const struct sources_options *options);

/* The next line of the file that is furthest behind. The record is valid until the next call. */
enum sources_outcome sources_next(struct sources *sources, struct record *record);

/* No file has a line before this time any more, except lines out of order. INT64_MIN: not known yet. A time counts only
 * if two lines in succession reach it, so one wrong line far in the future does no harm. */
int64_t sources_newest(const struct sources *sources);

size_t sources_usable(const struct sources *sources); /* files that are read */
size_t sources_failed(const struct sources *sources); /* files that could not be opened, or have no known format */

/* Whether a file may have this field, as far as its first lines tell. True if no file has a line. */
bool sources_have(const struct sources *sources, const char *field);

bool sources_is_partial(const struct sources *sources); /* a file ended early */

void sources_progress(const struct sources *sources, uint64_t *position, uint64_t *size);

/* What the report says of files and lines. The texts live as long as the sources. */
void sources_report(const struct sources *sources, struct report *report);

/* What went wrong with a file, or what it lacks, as a sentence; NULL: no more. */
const char *sources_note(struct sources *sources, size_t i);

void sources_free(struct sources *sources);

#endif
