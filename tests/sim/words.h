/* SPDX-License-Identifier: MIT
 * Commands as a client writes them: arrays of bulk strings, nothing else. */
#ifndef SIM_WORDS_H
#define SIM_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bucket.h"

#define WORDS_MAX 256

struct word {
    const char *bytes;
    size_t len;
};

struct words {
    size_t count;
    struct word at[WORDS_MAX];
};

/* Reads the first command of the bytes. Returns its length, or 0 if it is not complete. Fails on anything but a
 * command. */
size_t words_read(struct words *words, const char *bytes, size_t len);

/* The form of a command, for decisions. */
enum form { FORM_OTHER, FORM_EVALSHA, FORM_EVAL, FORM_MODULE };
enum form words_form(const struct words *words);

/* What a decision asks for, by its script or its command. The module resets one key and several by one command. */
enum steady__verb words_verb(const struct words *words, enum form form);
enum steady__verb words_script(const struct word *word, bool by_text); /* by its text, or by its SHA-1 */

bool word_is(const struct word *word, const char *text);
int64_t word_number(const struct word *word); /* the last number in the word */
int64_t word_id(const struct word *key);      /* the number behind '#'; 0: none */

#endif
