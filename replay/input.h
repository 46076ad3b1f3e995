/* SPDX-License-Identifier: MIT
 * Log files, line by line: plain, gz, zst or xz, or standard input. */
#ifndef STEADY_REPLAY_INPUT_H
#define STEADY_REPLAY_INPUT_H

#include "rules/rules.h"

enum { INPUT_LINE_MAX = 4 * 1024 * 1024 }; /* bytes; the rest of a longer line is dropped and counted */

struct input;

enum input_outcome {
    INPUT_LINE,
    INPUT_END,
    INPUT_ERROR /* nothing more can be read; input_trouble says why. What was read before counts. */
};

/* Opens a file; "-" is standard input. The first bytes tell the compression; gzip, zstd and xz are then run to read it.
 * NULL on an error; `why` gets one line of text, without the path. Free the result with input_close. */
struct input *input_open(const char *path, char *why, size_t room);

/* The next line without its LF or CRLF. It may contain NUL. It is valid until the next call. */
enum input_outcome input_line(struct input *input, struct rules_text *line);

/* What went wrong at the end: a truncated gz, a file that shrank, a read error. NULL: nothing. */
const char *input_trouble(const struct input *input);

const char *input_path(const struct input *input);
uint64_t input_line_number(const struct input *input); /* of the last line, from 1 */
uint64_t input_position(const struct input *input);    /* bytes of the file itself that were read; for progress */
uint64_t input_size(const struct input *input);        /* bytes of the file itself; 0: not known */
uint64_t input_cut_lines(const struct input *input);   /* lines over INPUT_LINE_MAX */

void input_close(struct input *input);

#endif
