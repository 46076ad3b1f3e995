/* SPDX-License-Identifier: MIT
 * The report as a page of text for a terminal. */
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "report_words.h"

enum { MARGIN = 2, COLUMNS = 80, COLUMNS_LEAST = 72, COLUMNS_MOST = 120, KEYS_SHOWN = 10, NAMES_SHOWN = 5 };

struct report_page {
    FILE *to;
    size_t columns;
    bool color, utf8;
};

/* ---- Lines ---- */

enum report_style { PLAIN, BOLD, DIM, RED };

static void report_text_style(const struct report_page *page, enum report_style style) {
    static const char *const codes[] = {"\33[0m", "\33[1m", "\33[2m", "\33[31m"};
    if (page->color) fputs(codes[style], page->to);
}

static void report_text_styled(const struct report_page *page, enum report_style style, const char *text) {
    report_text_style(page, style);
    fputs(text, page->to);
    report_text_style(page, PLAIN);
}

static void report_text_repeat(const struct report_page *page, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        fputs(text, page->to);
}

/* ---- Texts of a log ---- */

static size_t report_text_width(const char *piece) {
    wchar_t wide = 0;
    mbstate_t state = {0};
    const size_t len = strlen(piece);
    if ((unsigned char)piece[0] < 128) return len;
    const size_t n = mbrtowc(&wide, piece, len, &state);
    const int width = n == len ? wcwidth(wide) : 1;
    return width >= 0 ? (size_t)width : 1;
}

static size_t report_text_columns(const struct report_page *page, struct rules_text text) {
    char piece[REPORT_PIECE];
    size_t columns = 0;
    while (report_piece(&text, piece, !page->utf8))
        columns += report_text_width(piece);
    return columns;
}

/* Writes at most `width` columns of a text. Returns the columns. */
static size_t report_text_print(const struct report_page *page, struct rules_text text, size_t width) {
    const char *const more = page->utf8 ? "…" : "...";
    const size_t more_width = page->utf8 ? 1 : 3, all = report_text_columns(page, text);
    char piece[REPORT_PIECE];
    size_t at = 0;
    while (report_piece(&text, piece, !page->utf8)) {
        const size_t next = report_text_width(piece);
        if (all > width && at + next + more_width > width) {
            fputs(more, page->to);
            return at + more_width;
        }
        fputs(piece, page->to);
        at += next;
    }
    return at;
}

static void report_text_cell(const struct report_page *page, struct rules_text text, size_t width) {
    const size_t at = report_text_print(page, report_or_empty(text), width);
    fprintf(page->to, "%*s", (int)(width - at), "");
}

static struct rules_text report_text_of(const char *text) { return (struct rules_text){text, strlen(text)}; }

/* The whole text, however long. Returns the columns. */
static size_t report_text_foreign(const struct report_page *page, const char *text) {
    return report_text_print(page, report_text_of(text), SIZE_MAX / 2);
}

/* ---- Paragraphs ---- */

/* A paragraph, which may hold bytes of a log. The first line is already at column `at`; the others begin at `indent`.
 */
static void report_text_wrap(const struct report_page *page, const char *text, size_t at, size_t indent) {
    bool first = true;
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        if (strncmp(text + len, " %", 2) == 0) len += 1 + strcspn(text + len + 1, " "); /* a number and its sign */
        const struct rules_text word = {text, len};
        if (!first && at + 1 + report_text_columns(page, word) > page->columns) {
            fprintf(page->to, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!first) {
            putc(' ', page->to);
            at++;
        }
        at += report_text_print(page, word, SIZE_MAX / 2);
        text += len + (text[len] == ' ' ? 1 : 0);
        first = false;
    }
    putc('\n', page->to);
}

static void report_text_paragraph(const struct report_page *page, const char *text) {
    fprintf(page->to, "%*s", MARGIN, "");
    report_text_wrap(page, text, MARGIN, MARGIN);
}

static void report_text_rule(const struct report_page *page) {
    report_text_style(page, DIM);
    report_text_repeat(page, page->utf8 ? "─" : "-", page->columns);
    report_text_style(page, PLAIN);
    putc('\n', page->to);
}

static void report_text_heading(const struct report_page *page, const char *text) {
    fprintf(page->to, "\n%*s", MARGIN, "");
    report_text_style(page, BOLD);
    report_text_foreign(page, text);
    report_text_style(page, PLAIN);
    putc('\n', page->to);
}

/* "- text" */
static void report_text_sentences(const struct report_page *page, const struct report_sentences *sentences,
                                  size_t first) {
    for (size_t i = first; i < sentences->n; i++) {
        fprintf(page->to, "%*s- ", MARGIN, "");
        report_text_wrap(page, sentences->texts[i], MARGIN + 2, MARGIN + 2);
    }
}

/* ---- What was read ---- */

static void report_text_label(const struct report_page *page, const char *label) {
    report_text_style(page, DIM);
    fprintf(page->to, "%*s%-10s", MARGIN, "", label);
    report_text_style(page, PLAIN);
}

static void report_text_paths(const struct report_page *page, const char *label, const char *const *paths, size_t all) {
    const size_t shown = all < 4 ? all : 3;
    char n[REPORT_SHORT];
    for (size_t i = 0; i < shown; i++) {
        report_text_label(page, i > 0 ? "" : label);
        report_text_print(page, report_text_of(paths[i]), page->columns - 12);
        putc('\n', page->to);
    }
    if (shown == all) return;
    report_text_label(page, "");
    fprintf(page->to, "and %s more\n", report_number(n, all - shown));
}

static void report_text_files(const struct report_page *page, const struct report *report) {
    report_text_paths(page, report->n_files == 1 ? "file" : "files", report->files, report->n_files);
    report_text_paths(page, "not read", report->unread, report->n_unread);
}

static void report_text_bad_lines(const struct report_page *page, const struct report *report) {
    char n[REPORT_SHORT];
    if (report->bad_lines == 0) return;
    report_text_label(page, "bad lines");
    fprintf(page->to, "%s left out", report_number(n, report->bad_lines));
    if (report->n_bad > 0)
        fputs(report->bad_lines == report->n_bad ? ":"
              : report->n_bad == 1               ? "; the first:"
                                                 : "; the first ones:",
              page->to);
    putc('\n', page->to);
    for (size_t i = 0; i < report->n_bad; i++) {
        const struct report_bad_line *bad = &report->bad[i];
        fprintf(page->to, "%*s", 12, "");
        report_text_foreign(page, bad->file);
        fprintf(page->to, ":%" PRIu64 ": ", bad->line);
        report_text_foreign(page, bad->reason);
        fprintf(page->to, "\n%*s", 14, "");
        report_text_print(page, report_text_of(bad->text), page->columns - 14);
        putc('\n', page->to);
    }
}

static void report_text_range(const struct report_page *page, const struct report *report) {
    char from[REPORT_SHORT], to[REPORT_SHORT], span[REPORT_SHORT], line[4 * REPORT_SHORT];
    report_text_label(page, "time");
    if (report->first > report->last) {
        fprintf(page->to, "no request\n");
        return;
    }
    report_time(from, report->first);
    report_time(to, report->last);
    const bool same_day = strncmp(from, to, 10) == 0;
    snprintf(line, sizeof line, "%s to %s UTC (%s)", from, same_day ? to + 11 : to,
             report_duration(span, report->last - report->first));
    report_text_wrap(page, line, 12, 12);
}

static void report_text_requests(const struct report_page *page, const struct report *report) {
    char n[REPORT_SHORT], share[REPORT_SHORT], line[400];
    size_t len = (size_t)snprintf(line, sizeof line, "%s", report_number(n, report->requests));
    bool verdicts = false;
    for (size_t i = 0; i < report->n_limits; i++)
        verdicts = verdicts || report->limits[i].has_verdicts;
    if (verdicts) {
        len += (size_t)snprintf(line + len, sizeof line - len, ": %s allowed", report_number(n, report->allowed));
        len += (size_t)snprintf(line + len, sizeof line - len, ", %s denied", report_number(n, report->denied));
        if (report->denied > 0)
            len += (size_t)snprintf(line + len, sizeof line - len, " (%s)",
                                    report_share(share, report->denied, report->requests));
    }
    if (report->exempt > 0)
        len += (size_t)snprintf(line + len, sizeof line - len, ", %s exempt", report_number(n, report->exempt));
    if (report->unmatched > 0)
        len += (size_t)snprintf(line + len, sizeof line - len, ", %s that no limit counts for",
                                report_number(n, report->unmatched));
    if (report->refused > 0) snprintf(line + len, sizeof line - len, ", %s refused", report_number(n, report->refused));
    report_text_label(page, "requests");
    report_text_wrap(page, line, 12, 12);
}

static void report_text_read(const struct report_page *page, const struct report *report) {
    char n[REPORT_SHORT], bytes[REPORT_SHORT];
    report_text_styled(page, BOLD, "What was read");
    putc('\n', page->to);
    report_text_files(page, report);
    report_text_label(page, "lines");
    fprintf(page->to, "%s", report_number(n, report->lines));
    if (report->bytes > 0) fprintf(page->to, " (%s)", report_bytes(bytes, report->bytes));
    if (report->format != NULL && report->format[0] != '\0') {
        fputs(strncmp(report->format, "format ", 7) == 0 ? ", " : ", format ", page->to); /* "format string" */
        report_text_foreign(page, report->format);
    }
    putc('\n', page->to);
    report_text_bad_lines(page, report);
    report_text_range(page, report);
    report_text_requests(page, report);
    if (report->rules_file != NULL) {
        report_text_label(page, "rules");
        report_text_print(page, report_text_of(report->rules_file), page->columns - 12);
        putc('\n', page->to);
    }
    if (report->partial) {
        report_text_label(page, "");
        report_text_styled(page, RED, "The replay ended early: this is a part of the log.");
        putc('\n', page->to);
    }
}

static void report_text_overview(const struct report_page *page, const struct report *report) {
    char a[REPORT_SHORT], b[REPORT_SHORT], c[REPORT_SHORT], d[REPORT_SHORT];
    const size_t names = page->columns - MARGIN - 50;
    fprintf(page->to, "\n");
    report_text_style(page, DIM);
    snprintf(a, sizeof a, "%s denied", report_overview_noun(report));
    fprintf(page->to, "%*s%-*s%12s%12s%9s%17s\n", MARGIN, "", (int)names, "limit", "requests", "denied", "", a);
    report_text_style(page, PLAIN);
    for (size_t i = 0; i < report->n_limits; i++) {
        const struct report_limit *limit = &report->limits[i];
        fprintf(page->to, "%*s", MARGIN, "");
        report_text_cell(page, report_text_of(report_name(limit)), names);
        if (!limit->has_verdicts || limit->requests == 0)
            fprintf(page->to, "%12s%12s%9s%17s\n", report_number(a, limit->requests), "-", "", "-");
        else
            fprintf(page->to, "%12s%12s%9s%17s\n", report_number(a, limit->requests), report_number(b, limit->denied),
                    report_share(c, limit->denied, limit->requests), report_number(d, limit->keys_denied));
    }
}

/* ---- A limit ---- */

static void report_text_title(const struct report_page *page, const struct report_limit *limit) {
    const struct rules_limit *rule = limit->limit;
    char text[REPORT_LIMIT], place[400] = "", *key = report_key_text(rule);
    putc('\n', page->to);
    report_text_rule(page);
    report_text_style(page, BOLD);
    const size_t at = report_text_foreign(page, report_name(limit)) + 2;
    report_text_style(page, PLAIN);
    size_t len = 0;
    if (limit->has_verdicts && rule->n_rates > 0) {
        report_limit_text(&rule->rates[0], text, sizeof text);
        len = (size_t)snprintf(place, sizeof place, "%s, ", text);
    }
    if (key != NULL) len += (size_t)snprintf(place + len, sizeof place - len, "key: %s", key);
    if (rule->shadow && len < sizeof place) len += (size_t)snprintf(place + len, sizeof place - len, ", mode: shadow");
    if (limit->from_rules && rule->file != NULL && len < sizeof place)
        snprintf(place + len, sizeof place - len, " (%s:%d)", rule->file, rule->line);
    free(key);
    report_text_style(page, DIM);
    fputs("  ", page->to);
    report_text_wrap(page, place, at, MARGIN);
    report_text_style(page, PLAIN);
    putc('\n', page->to);
}

/* ---- Sparklines ---- */

static const char *const report_text_blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
                         *const report_text_ascii[] = {" ", ".", ":", "-", "=", "+", "*", "#", "%"};

/* Each column has `group` intervals. Returns the columns. */
static size_t report_text_sparkline(const struct report_page *page, const struct report *report,
                                    const struct report_limit *limit, bool denied, size_t group) {
    uint64_t columns[REPORT_TIMELINE] = {0}, peak = 0;
    size_t n = 0;
    char number[REPORT_SHORT];
    for (size_t i = 0; i < report->n_intervals; i++) {
        n = i / group + 1;
        columns[n - 1] += denied ? limit->timeline[i].denied : limit->timeline[i].requests;
        if (columns[n - 1] > peak) peak = columns[n - 1];
    }
    report_text_label(page, denied ? "denied" : "requests");
    report_text_style(page, denied ? RED : PLAIN);
    for (size_t i = 0; i < n; i++) {
        const size_t level = columns[i] == 0 ? 0 : 1 + (size_t)((double)columns[i] * 7 / (double)peak + 0.49);
        fputs((page->utf8 ? report_text_blocks : report_text_ascii)[level < 8 ? level : 8], page->to);
    }
    report_text_style(page, PLAIN);
    fprintf(page->to, "  max %s\n", report_number(number, peak));
    return n;
}

static void report_text_timeline(const struct report_page *page, const struct report *report,
                                 const struct report_limit *limit) {
    const size_t width = page->columns - MARGIN - 10 - 16;
    char from[REPORT_SHORT], to[REPORT_SHORT], each[REPORT_SHORT], axis[400];
    if (report->n_intervals < 2 || limit->requests == 0) return;
    const size_t group = (report->n_intervals + width - 1) / width;
    const int64_t span = (int64_t)report->n_intervals * report->interval;
    putc('\n', page->to);
    const size_t n = report_text_sparkline(page, report, limit, false, group);
    if (limit->denied > 0) report_text_sparkline(page, report, limit, true, group);
    report_clock(from, report->begin, span);
    report_clock(to, report->begin + span, span);
    report_duration(each, (int64_t)group * report->interval);
    const size_t gap = n > strlen(from) + strlen(to) ? n - strlen(from) - strlen(to) : 1;
    snprintf(axis, sizeof axis, "%s%*s%s  %s each", from, (int)gap, "", to, each);
    report_text_label(page, "");
    report_text_styled(page, DIM, axis);
    putc('\n', page->to);
}

/* ---- Who was denied ---- */

static void report_text_waits(const struct report_page *page, const struct report_limit *limit) {
    char p50[REPORT_SHORT], p99[REPORT_SHORT], longest[REPORT_SHORT], line[400];
    if (limit->wait_max < 0 || limit->denied == 0) return;
    putc('\n', page->to);
    report_text_label(page, "wait");
    if (limit->wait_p50 == limit->wait_max)
        snprintf(line, sizeof line, "at most %s", report_duration(longest, limit->wait_max));
    else
        snprintf(line, sizeof line, "half of the denied at most %s, 99 %% at most %s, longest %s",
                 report_duration(p50, limit->wait_p50), report_duration(p99, limit->wait_p99),
                 report_duration(longest, limit->wait_max));
    report_text_wrap(page, line, 12, 12);
}

static const char *report_text_needed(char *out, int64_t needed) {
    return needed > 0 ? report_number(out, (uint64_t)needed) : "none helps";
}

static void report_text_keys(const struct report_page *page, const struct report *report,
                             const struct report_limit *limit) {
    const size_t shown = limit->n_top < KEYS_SHOWN ? limit->n_top : KEYS_SHOWN, width = page->columns - MARGIN - 52;
    const int64_t span = report->last - report->first;
    char a[REPORT_SHORT], b[REPORT_SHORT], when[REPORT_SHORT], c[REPORT_SHORT], title[120];
    if (shown == 0) return;
    if (limit->keys_denied > shown)
        snprintf(title, sizeof title, "Most denied %s (%zu of %s)", report_noun(limit, 2), shown,
                 report_number(a, limit->keys_denied));
    else
        snprintf(title, sizeof title, "Denied %s", report_noun(limit, 2));
    report_text_heading(page, title);
    report_text_style(page, DIM);
    fprintf(page->to, "%*s%-*s%11s%11s%16s%14s\n", MARGIN, "", (int)width, "", "requests", "denied", "first denied",
            "burst needed");
    report_text_style(page, PLAIN);
    for (size_t i = 0; i < shown; i++) {
        const struct report_key *key = &limit->top[i];
        fprintf(page->to, "%*s", MARGIN, "");
        report_text_cell(page, report_view(&key->key), width);
        report_clock(when, key->first_denied, span < INT64_C(86400000000) ? 0 : span);
        fprintf(page->to, "%11s%11s%16s%14s\n", report_number(a, key->requests), report_number(b, key->denied), when,
                report_text_needed(c, key->needed));
    }
}

static void report_text_statuses(const struct report_page *page, const struct report_limit *limit) {
    char line[600] = "", n[REPORT_SHORT], share[REPORT_SHORT];
    size_t len = 0;
    if (limit->by_status.n == 0) return;
    for (size_t i = 0; i < limit->by_status.n && i < 8 && len < sizeof line; i++) {
        const struct report_count *item = &limit->by_status.items[i];
        len +=
            (size_t)snprintf(line + len, sizeof line - len, "%s%.*s: %s%s (%s)", i > 0 ? ", " : "", (int)item->name.len,
                             item->name.bytes != NULL ? item->name.bytes : "", item->error > 0 ? "~" : "",
                             report_number(n, item->n), report_share(share, item->n, limit->denied));
    }
    report_text_heading(page, "Denied requests by the status in the log");
    report_text_paragraph(page, line);
}

static void report_text_list(const struct report_page *page, const struct report_limit *limit,
                             const struct report_list *list, const char *title) {
    char n[REPORT_SHORT], number[REPORT_SHORT + 1], share[REPORT_SHORT];
    const size_t shown = report_shown(list, NAMES_SHOWN);
    if (shown == 0) return;
    report_text_heading(page, title);
    for (size_t i = 0; i < shown; i++) {
        const struct report_count *item = &list->items[i];
        snprintf(number, sizeof number, "%s%s", item->error > 0 ? "~" : "", report_number(n, item->n));
        fprintf(page->to, "%*s%12s%9s  ", MARGIN, "", number, report_share(share, item->n, limit->denied));
        report_text_print(page, report_or_empty(report_view(&item->name)), page->columns - MARGIN - 23);
        putc('\n', page->to);
    }
    if (report_estimates(list, NAMES_SHOWN) != NULL) report_text_paragraph(page, report_estimates(list, NAMES_SHOWN));
}

/* ---- Needed bursts ---- */

static void report_text_bar(const struct report_page *page, uint64_t n, uint64_t most, size_t width, bool denied) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    size_t parts = most > 0 ? (size_t)((double)n * 8 * (double)width / (double)most + 0.5) : 0;
    if (n > 0 && parts == 0) parts = 1;
    report_text_style(page, denied ? RED : PLAIN);
    if (page->utf8) {
        report_text_repeat(page, "█", parts / 8);
        fputs(eighths[parts % 8], page->to);
    } else {
        report_text_repeat(page, "#", (parts + 7) / 8);
    }
    report_text_style(page, PLAIN);
    const size_t used = (parts + 7) / 8;
    fprintf(page->to, "%*s", (int)(width > used ? width - used : 0), "");
}

static const char *report_text_bin(char *out, size_t i) {
    char a[REPORT_SHORT], b[REPORT_SHORT];
    int64_t low, high;
    report_bin(i, &low, &high);
    snprintf(out, 2 * REPORT_SHORT, low == high ? "%s" : "%s to %s", report_number(a, (uint64_t)low),
             report_number(b, (uint64_t)high));
    return out;
}

static void report_text_needs(const struct report_page *page, const struct report_limit *limit) {
    const int64_t capacity = report_capacity(limit);
    char title[200], rate[REPORT_LIMIT], a[REPORT_SHORT], b[REPORT_SHORT], range[2 * REPORT_SHORT],
        text[REPORT_SENTENCE];
    size_t first, last;
    uint64_t most = 0, all = 0;
    if (!report_bins(&limit->needed, capacity, &first, &last)) return;
    for (size_t i = first; i <= last; i++) {
        all += limit->needed.bins[i];
        if (limit->needed.bins[i] > most) most = limit->needed.bins[i];
    }
    const size_t ranges = strlen(report_text_bin(range, last)),
                 tag = strlen("  < burst ") + strlen(report_number(a, (uint64_t)capacity));
    snprintf(title, sizeof title, "Burst that the %s need at %s", report_noun(limit, 2),
             report_rate_text(&limit->needed.rate, rate));
    report_text_heading(page, title);
    for (size_t i = first; i <= last; i++) {
        const size_t gap = report_gap(&limit->needed, capacity, i);
        int64_t low, high;
        if (gap > 0) {
            fprintf(page->to, "%*s%*s  %s\n", MARGIN, "", (int)ranges, "", page->utf8 ? "⋮" : ":");
            i += gap - 1;
            continue;
        }
        report_bin(i, &low, &high);
        fprintf(page->to, "%*s%*s  ", MARGIN, "", (int)ranges, report_text_bin(range, i));
        report_text_bar(page, limit->needed.bins[i], most, page->columns - MARGIN - ranges - 2 - 20 - tag,
                        capacity > 0 && low > capacity);
        fprintf(page->to, "%11s%9s", report_number(a, limit->needed.bins[i]),
                report_share(b, limit->needed.bins[i], all));
        if (capacity >= low && capacity <= high)
            fprintf(page->to, "  %s burst %s", page->utf8 ? "◀" : "<", report_number(a, (uint64_t)capacity));
        putc('\n', page->to);
    }
    report_needs(limit, text);
    report_text_paragraph(page, text);
}

/* ---- What to choose ---- */

static void report_text_suggestion(const struct report_page *page, const struct report *report,
                                   const struct report_limit *limit) {
    steady_limit suggested;
    char share[REPORT_SHORT], text[200];
    if (!report_suggestion(report, limit, &suggested)) return;
    const char *field = report_field(limit->limit);
    char *rule = report_rule_text(limit->limit, &suggested);
    snprintf(text, sizeof text, "Suggestion, to deny nothing to %s of the %s",
             report_percent(share, report->share > 0 ? report->share : 0.999), report_noun(limit, 2));
    report_text_heading(page, text);
    if (report_rule_is_whole(limit->limit) && rule != NULL) {
        fprintf(page->to, "%*s", MARGIN, "");
        report_text_style(page, BOLD);
        fputs(rule, page->to);
        report_text_style(page, PLAIN);
        putc('\n', page->to);
    } else {
        char limits[REPORT_LIMIT];
        report_limit_text(&suggested, limits, sizeof limits);
        fprintf(page->to, "%*sIn the limit ", MARGIN, "");
        report_text_foreign(page, report_name(limit));
        fputs(" set  ", page->to);
        report_text_styled(page, BOLD, limits);
        putc('\n', page->to);
        if (field != NULL) {
            snprintf(text, sizeof text, "A rules file has no key %s. Use a header or a cookie that has this value.",
                     field);
            report_text_paragraph(page, text);
        }
    }
    free(rule);
}

static void report_text_choices(const struct report_page *page, const struct report_limit *limit) {
    char a[REPORT_SHORT], b[REPORT_SHORT], c[REPORT_SHORT], d[REPORT_SHORT], e[REPORT_SHORT], rate[REPORT_LIMIT];
    char title[REPORT_SHORT];
    const int more = (int)(page->columns - COLUMNS_LEAST) / 4, wide = 12 + (more < 5 ? more : 5);
    if (limit->n_choices == 0) return;
    putc('\n', page->to);
    report_text_style(page, DIM);
    snprintf(title, sizeof title, "%s denied", report_noun(limit, 2));
    fprintf(page->to, "%*s  %-14s%*s%*s%*s\n", MARGIN, "", "rate", wide - 2, "burst", wide + 9, title, wide + 9,
            "requests denied");
    report_text_style(page, PLAIN);
    for (size_t i = 0; i < limit->n_choices; i++) {
        const struct report_choice *choice = &limit->choices[i];
        const char *mark = !choice->suggested ? " " : page->utf8 ? "▶" : ">";
        if (choice->suggested) report_text_style(page, BOLD);
        fprintf(page->to, "%*s%s %-14s%*s%*s%9s%*s%9s\n", MARGIN, "", mark, report_rate_text(&choice->limit, rate),
                wide - 2, report_number(a, (uint64_t)choice->limit.max_capacity), wide,
                report_number(b, choice->keys_denied), report_share(c, choice->keys_denied, limit->keys), wide,
                report_number(d, choice->requests_denied), report_share(e, choice->requests_denied, limit->requests));
        if (choice->suggested) report_text_style(page, PLAIN);
    }
}

static void report_text_against(const struct report_page *page, const struct report *report,
                                const struct report_limit *limit) {
    const struct report_against *against = &limit->against;
    const size_t width = page->columns - MARGIN - 50;
    const int64_t span = report->last - report->first;
    char text[REPORT_LIMIT], line[600], a[REPORT_SHORT], b[REPORT_SHORT], c[REPORT_SHORT], d[REPORT_SHORT];
    if (!limit->has_against) return;
    snprintf(line, sizeof line, "Against %s", report->against_file != NULL ? report->against_file : "the other rules");
    report_text_heading(page, line);
    if (against->missing) {
        report_text_paragraph(page, "There is no limit of this name there.");
        return;
    }
    report_limit_text(&against->limit, text, sizeof text);
    snprintf(line, sizeof line, "%s would deny %s requests of %s %s; this limit denies %s of %s.", text,
             report_number(a, against->denied), report_number(b, against->keys_denied),
             report_noun(limit, against->keys_denied), report_number(c, limit->denied),
             report_number(d, limit->keys_denied));
    report_text_paragraph(page, line);
    if (against->keys_changed == 0) {
        report_text_paragraph(page, "No verdict would change.");
        return;
    }
    snprintf(line, sizeof line, "Verdicts change for %s %s: %s denied only there, %s denied only here.",
             report_number(a, against->keys_changed), report_noun(limit, against->keys_changed),
             report_number(b, against->newly_hit), report_number(c, against->freed));
    report_text_paragraph(page, line);
    report_text_style(page, DIM);
    fprintf(page->to, "%*s%-*s%11s%11s%11s%17s\n", MARGIN, "", (int)width, "", "requests", "denied", "there",
            "first change");
    report_text_style(page, PLAIN);
    for (size_t i = 0; i < against->n_changes && i < KEYS_SHOWN; i++) {
        const struct report_change *change = &against->changes[i];
        fprintf(page->to, "%*s", MARGIN, "");
        report_text_cell(page, report_view(&change->key), width);
        report_clock(d, change->first_changed, span < INT64_C(86400000000) ? 0 : span);
        fprintf(page->to, "%11s%11s%11s%17s\n", report_number(a, change->requests), report_number(b, change->denied),
                report_number(c, change->denied_against), d);
    }
}

static void report_text_limit(const struct report_page *page, const struct report *report,
                              const struct report_limit *limit) {
    struct report_sentences sentences;
    char all[2 * REPORT_SENTENCE] = "";
    report_text_title(page, limit);
    report_findings(report, limit, &sentences);
    for (size_t i = 0; i < sentences.n; i++) {
        if (i == 0) report_text_style(page, BOLD);
        if (i == 0) report_text_paragraph(page, sentences.texts[i]);
        if (i == 0) report_text_style(page, PLAIN);
        const size_t len = strlen(all);
        if (i > 0) snprintf(all + len, sizeof all - len, "%s%s", i > 1 ? " " : "", sentences.texts[i]);
    }
    if (all[0] != '\0') report_text_paragraph(page, all);
    report_text_timeline(page, report, limit);
    if (limit->has_verdicts) {
        report_text_waits(page, limit);
        report_text_keys(page, report, limit);
        report_text_statuses(page, limit);
        report_text_list(page, limit, &limit->by_path, "Denied requests by path");
        report_text_list(page, limit, &limit->by_agent, "Denied requests by user agent");
    }
    report_text_needs(page, limit);
    report_text_suggestion(page, report, limit);
    report_text_choices(page, limit);
    report_text_against(page, report, limit);
    report_notes(report, limit, &sentences);
    if (sentences.n > 0) putc('\n', page->to);
    report_text_sentences(page, &sentences, 0);
}

/* At the end, where a terminal shows them. The first note of a partial report is already on top. */
static void report_text_notes(const struct report_page *page, const struct report *report) {
    struct report_sentences notes;
    const size_t first = report->partial ? 1 : 0;
    report_notes(report, NULL, &notes);
    if (notes.n <= first) return;
    putc('\n', page->to);
    report_text_rule(page);
    report_text_styled(page, BOLD, "Notes");
    putc('\n', page->to);
    report_text_sentences(page, &notes, first);
}

bool report_write_text(const struct report *report, FILE *to, unsigned columns, bool color) {
    const locale_t locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
    const locale_t before = locale != (locale_t)0 ? uselocale(locale) : (locale_t)0;
    const size_t wide = columns == 0 ? COLUMNS : columns;
    const struct report_page page = {.to = to,
                                     .columns = wide < COLUMNS_LEAST  ? COLUMNS_LEAST
                                                : wide > COLUMNS_MOST ? COLUMNS_MOST
                                                                      : wide,
                                     .color = color,
                                     .utf8 =
                                         locale != (locale_t)0 && strcmp(nl_langinfo_l(CODESET, locale), "UTF-8") == 0};
    report_text_read(&page, report);
    if (report->n_limits > 1) report_text_overview(&page, report);
    for (size_t i = 0; i < report->n_limits; i++)
        if (report_has_section(report, &report->limits[i])) report_text_limit(&page, report, &report->limits[i]);
    report_text_notes(&page, report);
    if (locale != (locale_t)0) {
        uselocale(before);
        freelocale(locale);
    }
    return fflush(to) == 0 && ferror(to) == 0;
}
