/* SPDX-License-Identifier: MIT
 * A strict parser of commands as a client writes them. */
#include "words.h"

#include <string.h>

#include "redis/command.h"
#include "world.h"

/* Reads a line of `type` and a number. Returns false if it is not complete. */
static bool read_line(const char *bytes, size_t len, size_t *from, char type, size_t *number) {
    size_t i = *from;
    *number = 0;
    if (i < len && bytes[i] != type) broken("a client sends a byte %d where '%c' is due", bytes[i], type);
    for (i++; i < len && bytes[i] >= '0' && bytes[i] <= '9'; i++)
        *number = *number * 10 + (size_t)(bytes[i] - '0');
    if (i + 1 >= len) return false;
    if (bytes[i] != '\r' || bytes[i + 1] != '\n' || i == *from + 1 || *number > 100000)
        broken("a client sends no number after '%c'", type);
    *from = i + 2;
    return true;
}

size_t words_read(struct words *words, const char *bytes, size_t len) {
    size_t from = 0;
    if (!read_line(bytes, len, &from, '*', &words->count)) return 0;
    if (words->count < 1 || words->count > WORDS_MAX) broken("a client sends %zu words", words->count);
    for (size_t i = 0; i < words->count; i++) {
        struct word *word = &words->at[i];
        if (!read_line(bytes, len, &from, '$', &word->len)) return 0;
        if (len - from < word->len + 2) return 0;
        word->bytes = bytes + from;
        from += word->len + 2;
        if (memcmp(bytes + from - 2, "\r\n", 2) != 0) broken("a client sends a word that does not end");
    }
    return from;
}

bool word_is(const struct word *word, const char *text) {
    return word->len == strlen(text) && memcmp(word->bytes, text, word->len) == 0;
}

enum form words_form(const struct words *words) {
    const struct word *name = &words->at[0];
    if (words->count >= 4 && word_is(name, "EVALSHA")) return FORM_EVALSHA;
    if (words->count >= 4 && word_is(name, "EVAL")) return FORM_EVAL;
    return words->count >= 2 && name->len > 7 && memcmp(name->bytes, "STEADY.", 7) == 0 ? FORM_MODULE : FORM_OTHER;
}

enum steady__verb words_script(const struct word *word, bool by_text) {
    for (int verb = 0; verb < STEADY__VERBS; verb++) {
        const struct steady__script *script = &steady__scripts[verb];
        const size_t len = by_text ? script->text_len : 40;
        if (word->len == len && memcmp(word->bytes, by_text ? script->text : script->sha1, len) == 0)
            return (enum steady__verb)verb;
    }
    broken("a client calls for a script that is not ours");
}

enum steady__verb words_verb(const struct words *words, enum form form) {
    static const char *const names[STEADY__VERBS] = {"STEADY.CONSUME",    "STEADY.PEEK",    "STEADY.RESET",
                                                     "STEADY.CONSUMEALL", "STEADY.PEEKALL", "STEADY.SETTLE"};
    if (form != FORM_MODULE) return words_script(&words->at[1], form == FORM_EVAL);
    for (int verb = 0; names[verb] != NULL; verb++)
        if (word_is(&words->at[0], names[verb])) return (enum steady__verb)verb;
    broken("a client calls a command that the module does not have");
}

int64_t word_id(const struct word *key) {
    const char *mark = memchr(key->bytes, '#', key->len), *end = key->bytes + key->len;
    int64_t id = 0;
    for (const char *c = mark != NULL ? mark + 1 : end; c < end && *c >= '0' && *c <= '9' && id < INT32_MAX; c++)
        id = id * 10 + (*c - '0');
    return id;
}

int64_t word_number(const struct word *word) {
    int64_t number = 0, scale = 1;
    size_t i = word->len;
    for (; i > 0 && word->bytes[i - 1] >= '0' && word->bytes[i - 1] <= '9' && scale < INT64_MAX / 100; i--) {
        number += scale * (word->bytes[i - 1] - '0');
        scale *= 10;
    }
    return i > 0 && word->bytes[i - 1] == '-' ? -number : number;
}
