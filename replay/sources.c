/* SPDX-License-Identifier: MIT
 * Several logs as one stream of records.
 *
 * The file whose newest time is the oldest is read on. If there are many files, one is closed after a look at its first
 * lines, and opened again when its time has come. So a hundred compressed logs do not need a hundred processes. */
#include "sources.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "input.h"

enum { SOURCES_LOOK = 32, SOURCES_OPEN = 8 };
#define SOURCES_AHEAD                                                                                                  \
    INT64_C(1000000) /* us that a file may be read ahead, so that files do not alternate each line                     \
                      */

struct line {
    char *bytes;
    size_t len;
};

struct source {
    const char *path;
    struct input *input; /* NULL: not open */
    struct format *format;
    struct line first[SOURCES_LOOK]; /* the first lines, which tell the format */
    size_t n_first, at;
    uint64_t size;
    dev_t device;
    ino_t inode;
    bool is_file, done;
    uint64_t records, cut;
    int64_t begin;    /* the time of the first record */
    int64_t previous; /* the time of the last record */
    int64_t newest;   /* a time that two records in succession reached */
};

struct sources {
    struct sources_options options;
    struct source *all;
    const char **read, **unread; /* paths */
    size_t n, usable, failed;
    bool partial;
    struct source *current;
    int64_t until;  /* the current one is read up to here */
    int64_t others; /* the oldest time of all other files */
    uint64_t lines, bad_lines, other_lines, bytes;
    struct report_bad_line bad[REPORT_BAD];
    size_t n_bad;
    char (*notes)[400];
    size_t n_notes;
    char formats[200];
};

__attribute__((format(printf, 2, 3))) static void sources_add_note(struct sources *sources, const char *format, ...) {
    char(*notes)[400] = realloc(sources->notes, (sources->n_notes + 1) * sizeof *notes);
    va_list arguments;
    if (notes == NULL) return;
    sources->notes = notes;
    va_start(arguments, format);
    vsnprintf(notes[sources->n_notes++], sizeof *notes, format, arguments);
    va_end(arguments);
}

/* ---- Opening ---- */

static void sources_fail(struct sources *sources, struct source *source, const char *why) {
    char quoted[300];
    steady_quote(quoted, sizeof quoted, source->path);
    fprintf(stderr, "steady replay: \"%s\": %s\n", quoted, why);
    source->done = true;
    sources->unread[sources->failed++] = source->path;
    sources_add_note(sources, "%s could not be read: %s. The other files count.", source->path, why);
}

/* Reads the first lines. False: there is none, or no memory. */
static bool sources_look(struct source *source) {
    struct rules_text line;
    size_t bytes = 0;
    while (source->n_first < SOURCES_LOOK && bytes < INPUT_LINE_MAX && input_line(source->input, &line) == INPUT_LINE) {
        struct line *copy = &source->first[source->n_first];
        copy->bytes = malloc(line.len + 1);
        if (copy->bytes == NULL) return false;
        if (line.len > 0) memcpy(copy->bytes, line.bytes, line.len);
        copy->len = line.len;
        bytes += line.len;
        source->n_first++;
    }
    return source->n_first > 0;
}

/* A file of comments and empty lines has no request, and tells no format. */
static bool sources_is_idle(const struct source *source) {
    for (size_t i = 0; i < source->n_first; i++)
        if (source->first[i].len > 0 && source->first[i].bytes[0] != '#') return false;
    return source->n_first < SOURCES_LOOK;
}

static void sources_end(struct sources *sources, struct source *source) {
    if (input_trouble(source->input) != NULL) {
        sources->partial = true;
        sources_add_note(sources, "%s: %s. The lines before it count.", source->path, input_trouble(source->input));
    }
    source->cut += input_cut_lines(source->input);
    input_close(source->input);
    source->input = NULL;
    source->done = true;
}

/* Which fields of the rules a format cannot have. Most formats lack X-Forwarded-For; its log has the address then. */
static void sources_note_lacks(struct sources *sources, const struct source *source) {
    const char *name;
    for (size_t i = 0; (name = format_lacks(source->format, i)) != NULL; i++) {
        char note[400];
        bool known = strcasecmp(name, "x-forwarded-for") == 0;
        snprintf(note, sizeof note, "The format %s has no field %s. So the rules take it as missing in each request.",
                 format_name(source->format), name);
        for (size_t k = 0; k < sources->n_notes; k++)
            known = known || strcmp(sources->notes[k], note) == 0;
        if (!known) sources_add_note(sources, "%s", note);
    }
}

/* A log that is given twice, also under two names: its requests count twice. */
static void sources_note_twice(struct sources *sources, const struct source *source) {
    for (const struct source *other = sources->all; other < source && source->is_file; other++) {
        if (!other->is_file || other->device != source->device || other->inode != source->inode) continue;
        sources_add_note(sources, "%s is the same file as %s. Its requests count twice.", source->path, other->path);
        return;
    }
}

static void sources_open(struct sources *sources, struct source *source, const char *path) {
    struct rules_text lines[SOURCES_LOOK];
    struct stat status;
    char why[400];
    source->path = path;
    source->begin = source->previous = source->newest = INT64_MIN;
    source->is_file = strcmp(path, "-") != 0 && stat(path, &status) == 0 && S_ISREG(status.st_mode);
    if (source->is_file) {
        source->size = (uint64_t)status.st_size;
        source->device = status.st_dev;
        source->inode = status.st_ino;
    }
    source->input = input_open(path, why, sizeof why);
    if (source->input == NULL) {
        sources_fail(sources, source, why);
        return;
    }
    if (!sources_look(source)) {
        if (input_trouble(source->input) == NULL) sources->usable++; /* it is empty */
        if (input_trouble(source->input) != NULL) sources_fail(sources, source, input_trouble(source->input));
        source->done = true;
        return;
    }
    for (size_t i = 0; i < source->n_first; i++)
        lines[i] = (struct rules_text){source->first[i].bytes, source->first[i].len};
    source->format = format_new(sources->options.format, lines, source->n_first, why, sizeof why);
    if (source->format == NULL && sources_is_idle(source)) {
        source->done = true;
        sources->lines += source->n_first;
        sources->other_lines += source->n_first;
    } else if (source->format == NULL) {
        sources_fail(sources, source, why);
        return;
    }
    sources->usable++;
    sources_note_twice(sources, source);
    if (source->format != NULL) sources_note_lacks(sources, source);
}

struct sources *sources_new(const struct sources_options *options) {
    struct sources *sources = calloc(1, sizeof *sources);
    if (sources == NULL) return NULL;
    sources->options = *options;
    sources->all = calloc(options->n, sizeof *sources->all);
    sources->read = calloc(options->n, sizeof *sources->read);
    sources->unread = calloc(options->n, sizeof *sources->unread);
    const bool made = sources->all != NULL && sources->read != NULL && sources->unread != NULL;
    sources->n = made ? options->n : 0;
    for (size_t i = 0; i < sources->n; i++) {
        struct source *source = &sources->all[i];
        const size_t failed = sources->failed;
        sources_open(sources, source, options->paths[i]);
        if (sources->failed == failed) sources->read[i - failed] = source->path;
        if (source->done || sources->n <= SOURCES_OPEN || !source->is_file) continue;
        input_close(source->input);
        source->input = NULL;
    }
    if (made || options->n == 0) return sources;
    sources_free(sources);
    return NULL;
}

/* ---- Reading ---- */

/* Opens a file again, behind its first lines. */
static bool sources_reopen(struct sources *sources, struct source *source) {
    struct rules_text line;
    char why[400];
    source->input = input_open(source->path, why, sizeof why);
    for (size_t i = 0; i < source->n_first && source->input != NULL; i++)
        if (input_line(source->input, &line) != INPUT_LINE) break;
    if (source->input == NULL) {
        sources_add_note(sources, "%s: %s. It was not read to its end.", source->path, why);
        source->done = sources->partial = true;
    }
    return source->input != NULL;
}

static void sources_add_bad(struct sources *sources, const struct source *source, struct rules_text line,
                            uint64_t number) {
    sources->bad_lines++;
    if (sources->n_bad == REPORT_BAD) return;
    struct report_bad_line *bad = &sources->bad[sources->n_bad++];
    const size_t len = line.len < sizeof bad->text - 1 ? line.len : sizeof bad->text - 1;
    bad->file = source->path;
    bad->line = number;
    if (len > 0) memcpy(bad->text, line.bytes, len);
    for (size_t i = 0; i < len; i++) /* the text ends at a NUL */
        if (bad->text[i] == '\0') bad->text[i] = ' ';
    snprintf(bad->reason, sizeof bad->reason, "%s", format_reason(source->format));
}

static void sources_count_time(struct source *source, int64_t time) {
    if (source->records++ == 0) source->begin = time;
    const int64_t reached = time < source->previous ? time : source->previous;
    if (source->records > 1 && reached > source->newest) source->newest = reached;
    source->previous = time;
}

static enum sources_outcome sources_read(struct sources *sources, struct source *source, struct record *record) {
    struct rules_text line;
    uint64_t number = source->at + 1;
    if (source->at < source->n_first) {
        line = (struct rules_text){source->first[source->at].bytes, source->first[source->at].len};
        source->at++;
    } else {
        if (source->input == NULL && !sources_reopen(sources, source)) return SOURCES_OTHER;
        if (input_line(source->input, &line) != INPUT_LINE) {
            sources_end(sources, source);
            return SOURCES_OTHER;
        }
        number = input_line_number(source->input);
    }
    sources->lines++;
    sources->bytes += line.len + 1;
    switch (format_read(source->format, line, record)) {
    case FORMAT_RECORD: sources_count_time(source, record->time); return SOURCES_RECORD;
    case FORMAT_NO_RECORD: sources->other_lines++; return SOURCES_OTHER;
    default: sources_add_bad(sources, source, line, number); return SOURCES_OTHER;
    }
}

/* Files without a record come first. */
static int64_t sources_order(const struct source *source) {
    return source->records > 1 ? source->newest : source->begin;
}

static void sources_choose(struct sources *sources) {
    sources->current = NULL;
    sources->others = INT64_MAX;
    for (size_t i = 0; i < sources->n; i++) {
        struct source *source = &sources->all[i];
        if (source->done) continue;
        if (sources->current == NULL || sources_order(source) < sources_order(sources->current)) {
            if (sources->current != NULL && sources_order(sources->current) < sources->others)
                sources->others = sources_order(sources->current);
            sources->current = source;
        } else if (sources_order(source) < sources->others) {
            sources->others = sources_order(source);
        }
    }
    sources->until = sources->others < INT64_MAX - SOURCES_AHEAD ? sources->others + SOURCES_AHEAD : INT64_MAX;
    if (sources->others == INT64_MIN) sources->until = INT64_MIN;
}

enum sources_outcome sources_next(struct sources *sources, struct record *record) {
    const struct source *current = sources->current;
    if (current == NULL || current->done || sources_order(current) > sources->until) sources_choose(sources);
    if (sources->current == NULL) return SOURCES_END;
    return sources_read(sources, sources->current, record);
}

int64_t sources_newest(const struct sources *sources) {
    if (sources->current == NULL || sources->current->done) return INT64_MIN;
    const int64_t own = sources->current->newest;
    return own < sources->others ? own : sources->others;
}

/* ---- What is known of them ---- */

size_t sources_usable(const struct sources *sources) { return sources->usable; }
size_t sources_failed(const struct sources *sources) { return sources->failed; }
bool sources_have(const struct sources *sources, const char *field) {
    bool any = false;
    for (size_t i = 0; i < sources->n; i++) {
        if (sources->all[i].format == NULL) continue;
        const char *name;
        size_t k = 0;
        while ((name = format_lacks(sources->all[i].format, k)) != NULL && strcmp(name, field) != 0)
            k++;
        if (name == NULL) return true;
        any = true;
    }
    return !any;
}

bool sources_is_partial(const struct sources *sources) { return sources->partial; }

void sources_progress(const struct sources *sources, uint64_t *position, uint64_t *size) {
    *position = *size = 0;
    for (size_t i = 0; i < sources->n; i++) {
        const struct source *source = &sources->all[i];
        if (!source->is_file) {
            *size = 0; /* the end is not known */
            return;
        }
        *size += source->size;
        *position += source->done ? source->size : source->input != NULL ? input_position(source->input) : 0;
    }
}

static void sources_name_formats(struct sources *sources) {
    size_t at = 0;
    sources->formats[0] = '\0';
    for (size_t i = 0; i < sources->n; i++) {
        if (sources->all[i].format == NULL) continue;
        const char *name = format_name(sources->all[i].format);
        bool known = false;
        for (size_t k = 0; k < i; k++)
            known = known || (sources->all[k].format != NULL && strcmp(format_name(sources->all[k].format), name) == 0);
        if (!known && at + strlen(name) + 3 < sizeof sources->formats)
            at +=
                (size_t)snprintf(sources->formats + at, sizeof sources->formats - at, "%s%s", at > 0 ? ", " : "", name);
    }
}

void sources_report(const struct sources *sources, struct report *report) {
    sources_name_formats((struct sources *)sources);
    report->files = sources->read;
    report->n_files = sources->n - sources->failed;
    report->unread = sources->unread;
    report->n_unread = sources->failed;
    report->format = sources->formats;
    report->lines = sources->lines;
    report->bad_lines = sources->bad_lines;
    report->other_lines = sources->other_lines;
    report->bytes = sources->bytes;
    report->n_bad = sources->n_bad;
    memcpy(report->bad, sources->bad, sizeof report->bad);
    for (size_t i = 0; i < sources->n; i++)
        report->cut_lines +=
            sources->all[i].cut + (sources->all[i].input != NULL ? input_cut_lines(sources->all[i].input) : 0);
}

const char *sources_note(struct sources *sources, size_t i) { return i < sources->n_notes ? sources->notes[i] : NULL; }

void sources_free(struct sources *sources) {
    if (sources == NULL) return;
    for (size_t i = 0; i < sources->n; i++) {
        struct source *source = &sources->all[i];
        if (source->input != NULL) input_close(source->input);
        if (source->format != NULL) format_free(source->format);
        for (size_t k = 0; k < source->n_first; k++)
            free(source->first[k].bytes);
    }
    free(sources->all);
    free(sources->read);
    free(sources->unread);
    free(sources->notes);
    free(sources);
}
