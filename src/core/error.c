/* SPDX-License-Identifier: MIT
 * The names and sentences of errors, from the list in steady.h, and error messages. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

int steady__note_error(struct steady__last_error *last, int error, const char *format, ...) {
    steady_message message = {.text = ""};
    va_list args;
    va_start(args, format);
    vsnprintf(message.text, sizeof message.text, format, args);
    va_end(args);
    steady__last_error_set(last, &message);
    return error;
}

#define WORDS (sizeof last->texts[0] / sizeof last->texts[0][0])

/* A writer that stops halfway, as in a forked child, leaves the text before whole. */
void steady__last_error_set(struct steady__last_error *last, const steady_message *message) {
    uint64_t words[WORDS];
    const unsigned edition = atomic_load_explicit(&last->edition, memory_order_relaxed) + 1;
    memcpy(words, message->text, sizeof words);
    for (size_t i = 0; i < WORDS; i++)
        atomic_store_explicit(&last->texts[edition % 2][i], words[i], memory_order_release);
    atomic_store_explicit(&last->edition, edition, memory_order_release);
}

/* A word of edition n + 2 is written after the number n + 1. So if the number is still n, all words are of edition n.
 * Otherwise the writer was faster: copy its newer text. */
void steady__last_error_get(const struct steady__last_error *last, steady_message *message) {
    uint64_t words[WORDS];
    unsigned edition, now = atomic_load_explicit(&last->edition, memory_order_acquire);
    do {
        edition = now;
        for (size_t i = 0; i < WORDS; i++)
            words[i] = atomic_load_explicit(&last->texts[edition % 2][i], memory_order_acquire);
        now = atomic_load_explicit(&last->edition, memory_order_acquire);
    } while (now != edition);
    *message = (steady_message){.text = ""};
    /* cppcheck-suppress uninitvar ; the loop fills all of it */
    memcpy(message->text, words, sizeof words);
    message->text[sizeof message->text - 1] = '\0';
}

void steady__printable(char *out, size_t size, const char *bytes, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < size; i++)
        out[n++] = (char)(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?');
    if (size > 0) out[n] = '\0';
}
