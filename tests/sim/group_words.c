/* SPDX-License-Identifier: MIT
 * Reads commands on several keys: the arguments of lua/parts.lua and lua/settle.lua, and those of the module. */
#include "group_words.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../packed.h"
#include "world.h"

struct reader {
    const struct words *words;
    size_t next;
};

static const struct word *next_word(struct reader *r) {
    if (r->next == r->words->count) broken("a command on several keys ends too early");
    return &r->words->at[r->next++];
}

static bool skip_word(struct reader *r, const char *text) {
    if (r->next == r->words->count || !word_is(&r->words->at[r->next], text)) return false;
    r->next++;
    return true;
}

static int64_t next_number(struct reader *r) {
    const struct word *word = next_word(r);
    const int64_t number = word_number(word);
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    if (!word_is(word, text)) broken("\"%.*s\" is no number", (int)word->len, word->bytes);
    return number;
}

/* Reads `count` numbers with a space between them. */
static void next_numbers(struct reader *r, int64_t *numbers, int count) {
    const struct word *word = next_word(r);
    char text[200] = "", again[200] = "";
    int from = 0, len = 0;
    if (word->len < sizeof text) memcpy(text, word->bytes, word->len);
    for (int i = 0; i < count; i++) {
        int took = 0;
        if (sscanf(text + from, "%" SCNd64 "%n", &numbers[i], &took) != 1) broken("\"%s\" is no argument", text);
        from += took;
        len += snprintf(again + len, sizeof again - (size_t)len, i > 0 ? " %" PRId64 : "%" PRId64, numbers[i]);
    }
    if (strcmp(text, again) != 0) broken("the argument \"%s\" should be \"%s\"", text, again);
}

static void next_keys(struct group_words *g, struct reader *r, size_t n) {
    if (n < 1 || n > MEMBERS_MAX || n > r->words->count - r->next) broken("a command has %zu keys", n);
    g->n = n;
    g->keys = &r->words->at[r->next];
    r->next += n;
}

/* ---- Scripts ---- */

static void read_settlement(struct group_words *g, size_t i, struct reader *r) {
    int64_t a[7];
    next_numbers(r, a, 7);
    g->rates[i] = (struct steady__rate){a[0], a[1], a[2], 0};
    g->settlements[i] = (struct steady__settlement){
        .rate = &g->rates[i], .reserved = a[3], .moment = a[4], .actual = a[5], .same_rate = a[6] == 1};
}

static void read_script_part(struct group_words *g, size_t i, struct reader *r) {
    const struct word *word = next_word(r);
    const char *bytes = word->bytes;
    char again[PACKED_PART];
    const bool plain = word->len == PACKED_PLAIN;
    if (!plain && word->len != PACKED_PART) broken("a part has an argument of %zu bytes", word->len);
    g->rates[i] = (struct steady__rate){packed_get_i4(bytes), packed_get_d(bytes + 4),
                                        plain ? 1 : packed_get_i4(bytes + 16), plain ? 0 : packed_get_d(bytes + 20)};
    g->parts[i] = (struct steady__part){&g->rates[i], packed_get_i4(bytes + 12),
                                        plain ? STEADY__TAKE : (enum steady__kind)bytes[28]};
    const size_t len = packed_shortest(again, &g->rates[i], g->parts[i].amount, g->parts[i].kind, true);
    if (len != word->len || memcmp(again, bytes, len) != 0) broken("a part is not packed in the shortest way");
}

static void read_script(struct group_words *g, struct reader *r) {
    int64_t how[2];
    r->next = 2;
    const int64_t n = next_number(r);
    next_keys(g, r, (size_t)n);
    g->with_block = true;
    if (g->verb == STEADY__RESET_ALL) return;
    if (g->verb != STEADY__SETTLE) {
        next_numbers(r, how, 2);
        g->how.max_wait = how[0];
        g->how.at_least = how[1];
    }
    for (size_t i = 0; i < g->n; i++)
        if (g->verb == STEADY__SETTLE)
            read_settlement(g, i, r);
        else
            read_script_part(g, i, r);
}

/* ---- The module ---- */

static enum steady__kind next_kind(struct reader *r) {
    if (skip_word(r, "look")) return STEADY__LOOK;
    if (skip_word(r, "charge")) return STEADY__CHARGE;
    if (skip_word(r, "shadow")) return STEADY__SHADOW;
    broken("a part has another kind than those that the client names");
}

static void read_module_part(struct group_words *g, size_t i, struct reader *r) {
    struct steady__rate *rate = &g->rates[i];
    struct steady__part *part = &g->parts[i];
    struct steady__settlement *s = &g->settlements[i];
    if (!skip_word(r, "PART")) broken("a key has no PART");
    rate->capacity = next_number(r);
    rate->recharge = next_number(r);
    rate->drops = skip_word(r, "DROPS") ? next_number(r) : 1;
    rate->block = skip_word(r, "BLOCK") ? next_number(r) : 0;
    if (g->verb != STEADY__SETTLE) {
        part->rate = rate;
        part->amount = skip_word(r, "AMOUNT") ? next_number(r) : 1;
        part->kind = skip_word(r, "KIND") ? next_kind(r) : STEADY__TAKE;
        return;
    }
    s->rate = rate;
    if (!skip_word(r, "RESERVED")) broken("a PART of a settle has no RESERVED");
    s->reserved = next_number(r);
    if (!skip_word(r, "MOMENT")) broken("a PART of a settle has no MOMENT");
    s->moment = next_number(r);
    if (!skip_word(r, "ACTUAL")) broken("a PART of a settle has no ACTUAL");
    s->actual = next_number(r);
    s->same_rate = !skip_word(r, "OTHERRATE");
}

static void read_module(struct group_words *g, struct reader *r) {
    r->next = 1;
    const int64_t n = g->verb == STEADY__RESET_ALL ? (int64_t)r->words->count - 1 : next_number(r);
    next_keys(g, r, (size_t)n);
    g->with_block = g->verb == STEADY__CONSUME_ALL;
    if (g->verb == STEADY__RESET_ALL) return;
    if (skip_word(r, "WAIT")) g->how.max_wait = next_number(r);
    if (skip_word(r, "ATLEAST")) g->how.at_least = next_number(r);
    for (size_t i = 0; i < g->n; i++)
        read_module_part(g, i, r);
}

void group_words_read(struct group_words *g, const struct words *words, enum form form) {
    struct reader r = {words, 0};
    memset(g, 0, sizeof *g);
    g->verb = words_verb(words, form);
    if (g->verb == STEADY__RESET) g->verb = STEADY__RESET_ALL;
    g->how.peek = g->verb == STEADY__PEEK_ALL;
    if (form == FORM_MODULE)
        read_module(g, &r);
    else
        read_script(g, &r);
    if (r.next != words->count) broken("a command on %zu keys has %zu words", g->n, words->count);
}
