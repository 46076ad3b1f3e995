/* SPDX-License-Identifier: MIT
 * What the four forms of a report share: numbers, times, texts of a log, sentences. */
#ifndef STEADY_REPLAY_REPORT_WORDS_H
#define STEADY_REPLAY_REPORT_WORDS_H

#include "report.h"

enum {
    REPORT_SHORT = 64,     /* bytes for a number, a share, a duration or a time */
    REPORT_LIMIT = 128,    /* bytes for a limit */
    REPORT_PIECE = 20,     /* bytes for a character */
    REPORT_MANY = 10,      /* limits */
    REPORT_SENTENCES = 16, /* of a list */
    REPORT_SENTENCE = 600
};

/* ---- Numbers and times. `out` has REPORT_SHORT bytes. ---- */

const char *report_number(char *out, uint64_t n);              /* "1,204,551" */
const char *report_share(char *out, uint64_t n, uint64_t of);  /* "3.1 %"; 0 % and 100 % only if they are exact */
const char *report_percent(char *out, double share);           /* 0.999: "99.9 %" */
const char *report_bytes(char *out, uint64_t n);               /* "214 MB" */
const char *report_duration(char *out, int64_t us);            /* "12 min 30 s" */
const char *report_time(char *out, int64_t us);                /* "2026-11-30 14:02:11", in UTC */
const char *report_clock(char *out, int64_t us, int64_t span); /* as much of the time as a range of `span` needs */
const char *report_rfc3339(char *out, int64_t us);             /* "2026-11-30T14:02:11.000000Z" */

/* ---- Texts of a log ---- */

/* Takes the next character of a text from a log. A backslash becomes `\\`. A byte that is not UTF-8, of a control
 * character or of an invisible character becomes `\xNN`. With `ascii`, so does each byte over 127. So the text cannot
 * move a cursor, and the bytes can be restored. False at the end. */
bool report_piece(struct rules_text *text, char piece[REPORT_PIECE], bool ascii);

static inline struct rules_text report_view(const struct report_text *text) {
    return (struct rules_text){text->bytes, text->len};
}

struct rules_text report_or_empty(struct rules_text text); /* "(empty)" if it is */

/* ---- Limits ---- */

const char *report_name(const struct report_limit *limit);

const char *report_rate_text(const steady_limit *limit, char out[REPORT_LIMIT]); /* "100/min", "5/7s" */
int64_t report_capacity(const struct report_limit *limit);                       /* 0: it has no verdicts */

/* False for a limit that counted for nothing, if there are many limits. Then only the overview has it. */
bool report_has_section(const struct report *report, const struct report_limit *limit);

/* "ip", "header:x-api-key+path". Free it. NULL: no memory. */
char *report_key_text(const struct rules_limit *limit);

/* "- { name: login, key: ip, rate: 20/min, burst: 35 }": the limit with another rate, to paste into a rules file. NULL:
 * no memory. Free it. */
char *report_rule_text(const struct rules_limit *limit, const steady_limit *rate);

/* A field of the log in the key, which no rules file can have; NULL: there is none. */
const char *report_field(const struct rules_limit *limit);

/* False if report_rule_text leaves out a part of the limit (tiers, exempt), or the limit is of a file of Envoy. */
bool report_rule_is_whole(const struct rules_limit *limit);

/* The limit to suggest. False: there is none. */
bool report_suggestion(const struct report *report, const struct report_limit *limit, steady_limit *suggested);

/* Of a bin of needed bursts: from `*low` to `*high`. */
void report_bin(size_t i, int64_t *low, int64_t *high);

/* The bins that have keys, or the capacity: from *first to *last. False: there are no keys. */
bool report_bins(const struct report_rate *rate, int64_t capacity, size_t *first, size_t *last);

/* How many bins from `first` on have neither a key nor the capacity, if there are at least three. */
size_t report_gap(const struct report_rate *rate, int64_t capacity, size_t first);

/* How many items of a list to show a reader, at most `most`. The order of counts that are smaller than their error is
 * by chance. */
size_t report_shown(const struct report_list *list, size_t most);

/* What the ~ before a shown count means; NULL: none has one. */
const char *report_estimates(const struct report_list *list, size_t most);

uint64_t report_peak(const struct report *report, const struct report_limit *limit, bool denied);

/* ---- Sentences ---- */

struct report_sentences {
    size_t n;
    char texts[REPORT_SENTENCES][REPORT_SENTENCE];
};

/* "client" if a bucket belongs to a client, otherwise "key"; with an s if `n` is not 1. */
const char *report_noun(const struct report_limit *limit, uint64_t n);

/* "clients" if the buckets of all limits belong to clients, otherwise "keys". */
const char *report_overview_noun(const struct report *report);

/* What would have happened, or why nothing did. The first is the most important. */
void report_findings(const struct report *report, const struct report_limit *limit, struct report_sentences *to);

/* "A burst of 3 is enough for half of the clients, ..." */
void report_needs(const struct report_limit *limit, char out[REPORT_SENTENCE]);

/* What bounds these findings. limit NULL: of the whole report. */
void report_notes(const struct report *report, const struct report_limit *limit, struct report_sentences *to);

#endif
