/* SPDX-License-Identifier: MIT
 * The denied keys as CSV (RFC 4180). */
#include <inttypes.h>
#include <string.h>

#include "report_words.h"

/* A spreadsheet takes a cell that begins with one of these for a formula. Such a cell gets an apostrophe before it. */
static void report_csv_text(FILE *to, struct rules_text text) {
    char piece[REPORT_PIECE];
    putc('"', to);
    for (bool first = true; report_piece(&text, piece, false); first = false) {
        if (first && strchr("=+-@", piece[0]) != NULL) putc('\'', to);
        fputs(piece[0] == '"' ? "\"\"" : piece, to);
    }
    putc('"', to);
}

static void report_csv_time(FILE *to, int64_t us) {
    char text[REPORT_SHORT];
    fprintf(to, ",%s", report_rfc3339(text, us));
}

bool report_write_csv(const struct report *report, FILE *to) {
    fputs("limit,key,requests,denied,first_denied,last_denied,needed\r\n", to);
    for (size_t i = 0; i < report->n_limits; i++) {
        const struct report_limit *limit = &report->limits[i];
        const char *name = report_name(limit);
        for (size_t k = 0; k < limit->n_top; k++) {
            const struct report_key *key = &limit->top[k];
            report_csv_text(to, (struct rules_text){name, strlen(name)});
            putc(',', to);
            report_csv_text(to, report_view(&key->key));
            fprintf(to, ",%" PRIu64 ",%" PRIu64, key->requests, key->denied);
            report_csv_time(to, key->first_denied);
            report_csv_time(to, key->last_denied);
            if (key->needed > 0)
                fprintf(to, ",%" PRId64 "\r\n", key->needed);
            else
                fputs(",\r\n", to);
        }
    }
    return fflush(to) == 0 && ferror(to) == 0;
}
