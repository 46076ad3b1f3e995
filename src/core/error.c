/* SPDX-License-Identifier: MIT
 * The names and sentences of errors, from the list in steady.h, and error messages. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    int value;
    const char *word;
    const char *sentence;
} errors[] = {{STEADY_OK, "ok", "no error"},
#define ENTRY(name, value, word, sentence) {value, word, sentence},
              STEADY_ERRORS(ENTRY)
#undef ENTRY
};

const char *steady_error_name(int error) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].value == error) return errors[i].word;
    return "?";
}

const char *steady_error_text(int error) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].value == error) return errors[i].sentence;
    return "unknown error code";
}

const char *steady_version(void) { return STEADY_VERSION; }

int steady__fail(steady_message *why, int error, const char *format, ...) {
    if (why != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
    }
    return error;
}

void steady__printable(char *out, size_t size, const char *bytes, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < size; i++)
        out[n++] = (char)(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?');
    if (size > 0) out[n] = '\0';
}
