/* SPDX-License-Identifier: MIT
 * The report as one HTML file. report.html is its frame, with the style and the script. */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "report_page.h"
#include "report_words.h"

enum { FILES_SHOWN = 20 };

/* The policy has hashes of the style and the script, so no other one can run. That forbids style attributes, too. */

static const char *const report_html_frame = (const char *)report_page_html;

/* ---- Text ---- */

static void report_html_own(FILE *to, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&': fputs("&amp;", to); break;
        case '<': fputs("&lt;", to); break;
        case '>': fputs("&gt;", to); break;
        case '"': fputs("&quot;", to); break;
        case '\'': fputs("&#39;", to); break;
        case ' ': fputs(text[1] == '%' ? "&nbsp;" : " ", to); break;
        default: putc(*text, to);
        }
    }
}

/* Bytes of a log, or of a file name. */
static void report_html_foreign(FILE *to, struct rules_text text) {
    char piece[REPORT_PIECE];
    while (report_piece(&text, piece, false))
        report_html_own(to, piece);
}

static void report_html_string(FILE *to, const char *text) {
    report_html_foreign(to, (struct rules_text){text, text != NULL ? strlen(text) : 0});
}

static void report_html_number_cell(FILE *to, const char *class, const char *text) {
    fprintf(to, "<td class=\"n%s\">", class);
    report_html_own(to, text);
    fputs("</td>", to);
}

/* A number, and its share in a column of its own. */
static void report_html_share_cell(FILE *to, uint64_t n, uint64_t of, bool estimated) {
    char text[REPORT_SHORT];
    fprintf(to, "<td class=\"n\">%s%s <span class=\"of\">", estimated ? "~" : "", report_number(text, n));
    report_html_own(to, report_share(text, n, of));
    fputs("</span></td>", to);
}

/* The cell shows as much as fits; its title has all. */
static void report_html_text_cell(FILE *to, const char *class, struct rules_text text) {
    fprintf(to, "<td class=\"text%s\" title=\"", class);
    report_html_foreign(to, report_or_empty(text));
    fputs("\"><code>", to);
    report_html_foreign(to, report_or_empty(text));
    fputs("</code></td>", to);
}

static void report_html_notes(FILE *to, const struct report_sentences *notes) {
    if (notes->n == 0) return;
    fputs("<ul class=\"notes\">", to);
    for (size_t i = 0; i < notes->n; i++) {
        fputs("<li>", to);
        report_html_string(to, notes->texts[i]);
        fputs("</li>", to);
    }
    fputs("</ul>\n", to);
}

/* ---- What was read ---- */

static void report_html_fact(FILE *to, const char *name, const char *text) {
    fprintf(to, "<dt>%s</dt><dd>", name);
    report_html_string(to, text);
    fputs("</dd>\n", to);
}

static void report_html_range(char *out, size_t room, const struct report *report) {
    char from[REPORT_SHORT], until[REPORT_SHORT], span[REPORT_SHORT];
    if (report->first > report->last) {
        snprintf(out, room, "no request");
        return;
    }
    report_time(from, report->first);
    report_time(until, report->last);
    snprintf(out, room, "%s to %s UTC (%s)", from, strncmp(from, until, 10) == 0 ? until + 11 : until,
             report_duration(span, report->last - report->first));
}

static void report_html_bad_lines(FILE *to, const struct report *report) {
    char n[REPORT_SHORT];
    if (report->bad_lines == 0) return;
    fprintf(to, "<dt>Bad lines</dt><dd>%s left out", report_number(n, report->bad_lines));
    for (size_t i = 0; i < report->n_bad; i++) {
        const struct report_bad_line *bad = &report->bad[i];
        fputs("<br>", to);
        report_html_string(to, bad->file);
        fprintf(to, ":%" PRIu64 ": ", bad->line);
        report_html_string(to, bad->reason);
        fputs("<br><code class=\"soft\">", to);
        report_html_string(to, bad->text);
        fputs("</code>", to);
    }
    fputs("</dd>\n", to);
}

static void report_html_requests(FILE *to, const struct report *report) {
    char n[REPORT_SHORT], share[REPORT_SHORT];
    bool verdicts = false;
    for (size_t i = 0; i < report->n_limits; i++)
        verdicts = verdicts || report->limits[i].has_verdicts;
    fprintf(to, "<dt>Requests</dt><dd>%s", report_number(n, report->requests));
    if (verdicts) {
        fprintf(to, ": %s allowed", report_number(n, report->allowed));
        fprintf(to, ", %s denied", report_number(n, report->denied));
        if (report->denied > 0) {
            fputs(" (", to);
            report_html_own(to, report_share(share, report->denied, report->requests));
            fputs(")", to);
        }
    }
    if (report->exempt > 0) fprintf(to, ", %s exempt", report_number(n, report->exempt));
    if (report->unmatched > 0) fprintf(to, ", %s that no limit counts for", report_number(n, report->unmatched));
    if (report->refused > 0) fprintf(to, ", %s refused", report_number(n, report->refused));
    fputs("</dd>\n", to);
}

static void report_html_read(FILE *to, const struct report *report) {
    char n[REPORT_SHORT], bytes[REPORT_SHORT], text[4 * REPORT_SHORT];
    struct report_sentences notes;
    fputs("<section class=\"card\"><h3>What was read</h3>\n<dl class=\"facts\">", to);
    fprintf(to, "<dt>%s</dt><dd>", report->n_files == 1 ? "File" : "Files");
    const size_t shown = report->n_files <= FILES_SHOWN ? report->n_files : FILES_SHOWN - 1;
    for (size_t i = 0; i < shown; i++) {
        if (i > 0) fputs(", ", to);
        report_html_string(to, report->files[i]);
    }
    if (shown < report->n_files) fprintf(to, ", and %s more", report_number(n, report->n_files - shown));
    fputs("</dd>\n", to);
    for (size_t i = 0; i < report->n_unread && i < FILES_SHOWN; i++)
        report_html_fact(to, i == 0 ? "Not read" : "", report->unread[i]);
    fprintf(to, "<dt>Lines</dt><dd>%s", report_number(n, report->lines));
    if (report->bytes > 0) fprintf(to, " (%s)", report_bytes(bytes, report->bytes));
    if (report->format != NULL && report->format[0] != '\0') {
        fputs(strncmp(report->format, "format ", 7) == 0 ? ", " : ", format ", to); /* "format string" */
        report_html_string(to, report->format);
    }
    fputs("</dd>\n", to);
    report_html_bad_lines(to, report);
    report_html_range(text, sizeof text, report);
    report_html_fact(to, "Time", text);
    report_html_requests(to, report);
    if (report->rules_file != NULL) report_html_fact(to, "Rules", report->rules_file);
    if (report->against_file != NULL) report_html_fact(to, "Against", report->against_file);
    fputs("</dl>\n", to);
    report_notes(report, NULL, &notes);
    report_html_notes(to, &notes);
    fputs("</section>\n", to);
}

/* ---- Timelines ---- */

static void report_html_clock(FILE *to, const struct report *report, size_t interval) {
    char text[REPORT_SHORT];
    const int64_t span = (int64_t)report->n_intervals * report->interval;
    fputs(report_clock(text, report->begin + (int64_t)interval * report->interval, span), to);
}

static double report_html_height(uint64_t n, uint64_t peak) { return peak > 0 ? 100.0 * (double)n / (double)peak : 0; }

/* Bars, one unit wide, on top of those of `below`. */
static void report_html_bars(FILE *to, const char *class, const uint64_t *below, const uint64_t *n, size_t count,
                             uint64_t peak) {
    fprintf(to, "<path class=\"%s\" d=\"", class);
    for (size_t i = 0; i < count; i++) {
        if (n[i] == 0) continue;
        const double foot = 100 - (below != NULL ? report_html_height(below[i], peak) : 0);
        const double height = report_html_height(n[i], peak);
        fprintf(to, "M%zu %.2fv-%.2fh1v%.2fz", i, foot, height < 0.6 ? 0.6 : height, height < 0.6 ? 0.6 : height);
    }
    fputs("\"/>", to);
}

static void report_html_svg(FILE *to, const char *class, size_t width, const char *title) {
    fprintf(to,
            "<svg class=\"%s\" viewBox=\"0 0 %zu 100\" preserveAspectRatio=\"none\" role=\"img\" "
            "shape-rendering=\"crispEdges\"><title>%s</title>",
            class, width, title);
}

static void report_html_list_attribute(FILE *to, const char *name, const uint64_t *all, size_t n) {
    fprintf(to, " data-%s=\"[", name);
    for (size_t i = 0; i < n; i++)
        fprintf(to, "%s%" PRIu64, i > 0 ? "," : "", all[i]);
    fputs("]\"", to);
}

/* At most 24 rows: readers without the script get the course, not each bar. */
static void report_html_timeline_table(FILE *to, const struct report *report, const uint64_t *requests,
                                       const uint64_t *denied) {
    const size_t group = (report->n_intervals + 23) / 24;
    char n[REPORT_SHORT];
    fputs("<details><summary>The timeline as a table</summary><table><thead><tr><th>From (UTC)</th><th class=\"n\">"
          "Requests</th><th class=\"n\">Denied</th></tr></thead><tbody>\n",
          to);
    for (size_t i = 0; i < report->n_intervals; i += group) {
        uint64_t both[2] = {0, 0};
        for (size_t k = i; k < i + group && k < report->n_intervals; k++) {
            both[0] += requests[k];
            both[1] += denied[k];
        }
        fputs("<tr><td>", to);
        report_html_clock(to, report, i);
        fputs("</td>", to);
        report_html_number_cell(to, "", report_number(n, both[0]));
        report_html_number_cell(to, "", report_number(n, both[1]));
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table></details>\n", to);
}

/* The denied requests below, the allowed ones on top. */
static void report_html_stack(FILE *to, const struct report *report, const struct report_limit *limit) {
    uint64_t allowed[REPORT_TIMELINE], denied[REPORT_TIMELINE];
    const uint64_t peak = report_peak(report, limit, false);
    for (size_t i = 0; i < report->n_intervals; i++) {
        denied[i] = limit->timeline[i].denied;
        allowed[i] = limit->timeline[i].requests - denied[i];
    }
    report_html_bars(to, "denied", NULL, denied, report->n_intervals, peak);
    report_html_bars(to, "allowed", denied, allowed, report->n_intervals, peak);
    fputs("</svg>", to);
}

/* Round times, at most 8, at least 3 if the timeline is long enough. */
static void report_html_axis(FILE *to, const struct report *report) {
    static const int64_t steps[] = {1,      2,      5,       10,      15,      30,       60,        120,      300,
                                    600,    900,    1800,    3600,    7200,    10800,    21600,     43200,    86400,
                                    172800, 604800, 1209600, 2592000, 7776000, 31536000, 157680000, 630720000};
    const int64_t span = (int64_t)report->n_intervals * report->interval;
    char text[REPORT_SHORT];
    size_t i = 0, n = 0;
    while (i + 1 < sizeof steps / sizeof steps[0] && span / (steps[i] * 1000000) > 7)
        i++;
    const int64_t step = steps[i] * 1000000;
    fputs("<svg class=\"axis\" aria-hidden=\"true\">", to);
    for (int64_t at = (report->begin + step - 1) / step * step; at <= report->begin + span; at += step, n++) {
        const double x = 100.0 * (double)(at - report->begin) / (double)span;
        fprintf(to, "<text%s x=\"%.2f%%\" y=\"15\" text-anchor=\"%s\">%s</text>", n % 2 == 1 ? " class=\"wide\"" : "",
                x,
                x < 3    ? "start"
                : x > 97 ? "end"
                         : "middle",
                report_clock(text, at, span));
    }
    fputs("</svg>", to);
}

static void report_html_timeline(FILE *to, const struct report *report, const struct report_limit *limit) {
    uint64_t requests[REPORT_TIMELINE], denied[REPORT_TIMELINE];
    const size_t n = report->n_intervals;
    const uint64_t peak = report_peak(report, limit, false), denied_peak = report_peak(report, limit, true);
    char text[REPORT_SHORT];
    if (n < 2 || limit->requests == 0) return;
    for (size_t i = 0; i < n; i++) {
        requests[i] = limit->timeline[i].requests;
        denied[i] = limit->timeline[i].denied;
    }
    fprintf(to, "<section class=\"card\"><h3>Requests over time</h3><p class=\"hint\">in %s each, UTC</p>\n",
            report_duration(text, report->interval));
    if (limit->has_verdicts)
        fputs("<p class=\"legend\"><span><i class=\"allowed\"></i>allowed</span><span><i class=\"denied\"></i>denied"
              "</span></p>\n",
              to);
    fprintf(to, "<figure class=\"chart\" data-begin=\"%" PRId64 "\" data-interval=\"%" PRId64 "\"", report->begin,
            report->interval);
    report_html_list_attribute(to, "requests", requests, n);
    report_html_list_attribute(to, "denied", denied, n);
    fputs(">\n", to);
    report_html_svg(to, "", n, "Requests over time; the denied ones are below. The table has the values.");
    report_html_stack(to, report, limit);
    fprintf(to, "<span class=\"peak\">%s</span>\n", report_number(text, peak));
    if (denied_peak > 0 && denied_peak < peak / 8) {
        fprintf(to, "<span class=\"peak second\">denied alone, up to %s</span>", report_number(text, denied_peak));
        report_html_svg(to, "low", n, "Denied requests over time, on a scale of their own.");
        report_html_bars(to, "denied", NULL, denied, n, denied_peak);
        fputs("</svg>\n", to);
    }
    report_html_axis(to, report);
    fputs("</figure>\n", to);
    report_html_timeline_table(to, report, requests, denied);
    fputs("</section>\n", to);
}

/* ---- The heat map ---- */

/* On a scale of thirds of a decade. */
static unsigned report_html_step(uint64_t n, uint64_t of) {
    static const double steps[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3};
    const double share = of > 0 ? (double)n / (double)of : 0;
    unsigned step = 1;
    if (n == 0) return 0;
    while (step <= 6 && share > steps[step - 1])
        step++;
    return step;
}

/* "950", "1.2k", "35M": for the head of a narrow column */
static const char *report_html_compact(char *out, int64_t n) {
    static const char units[] = "kMGT";
    double size = (double)n;
    int unit = -1;
    while (size >= 999.5 && unit < 3) {
        size /= 1000;
        unit++;
    }
    if (unit < 0)
        snprintf(out, REPORT_SHORT, "%" PRId64, n);
    else
        snprintf(out, REPORT_SHORT, size < 9.95 && size - (double)(int)size > 0.05 ? "%.1f%c" : "%.0f%c", size,
                 units[unit]);
    return out;
}

static void report_html_heat_cell(FILE *to, const struct report_limit *limit, size_t rate, size_t capacity) {
    const struct report_heat *heat = &limit->heat;
    const uint64_t keys = heat->keys_denied[rate][capacity], requests = heat->requests_denied[rate][capacity];
    const bool here = heat->rate_at == rate && heat->capacity_at == capacity;
    char text[REPORT_LIMIT], a[REPORT_SHORT], b[REPORT_SHORT], share[REPORT_SHORT];
    fprintf(to, "<td class=\"h%u%s\" title=\"%s, burst %s: ", report_html_step(keys, limit->keys), here ? " here" : "",
            report_rate_text(&heat->rates[rate], text), report_number(a, (uint64_t)heat->capacities[capacity]));
    fprintf(to, "%s %s (", report_number(a, keys), report_noun(limit, keys));
    report_html_own(to, report_share(share, keys, limit->keys));
    fprintf(to, ") and %s %s (", report_number(b, requests), requests == 1 ? "request" : "requests");
    report_html_own(to, report_share(b, requests, limit->requests));
    fputs(") denied\">", to);
    share[strcspn(share, " ")] = '\0'; /* without the sign */
    report_html_own(to, share);
    fputs("</td>", to);
}

static void report_html_heat_legend(FILE *to, const struct report_limit *limit) {
    static const char *const names[] = {"none", "0.1 %", "0.3 %", "1 %", "3 %", "10 %", "30 %", "more"};
    fputs("<p class=\"legend steps\">", to);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        fprintf(to, "<span><i class=\"h%zu\"></i>%s%s</span>", i, i > 0 && i < 7 ? "to " : "", names[i]);
    if (limit->heat.rate_at != SIZE_MAX && limit->heat.capacity_at != SIZE_MAX)
        fputs("<span><i class=\"out\"></i>this limit</span>", to);
    fputs("</p>\n", to);
}

/* Drops in a microsecond */
static double report_html_speed(const steady_limit *rate) {
    return (double)(rate->drops > 0 ? rate->drops : 1) / (double)rate->drop_recharge;
}

static void report_html_heat(FILE *to, const struct report_limit *limit) {
    const struct report_heat *heat = &limit->heat;
    char text[REPORT_LIMIT];
    if (!limit->has_heat || heat->n_rates == 0 || heat->n_capacities == 0) return;
    fprintf(to,
            "<section class=\"card\"><h3>Other limits</h3><p class=\"hint\">Share of the %s that each rate (rows) and "
            "burst (columns) would deny at least once, in %%.<span class=\"narrow\"> Touch a field for its values."
            "</span></p>\n",
            report_noun(limit, 2));
    report_html_heat_legend(to, limit);
    fputs("<table class=\"heat\"><thead><tr><th scope=\"col\">rate \\ burst</th>", to);
    for (size_t i = 0; i < heat->n_capacities; i++)
        fprintf(to, "<th scope=\"col\"%s>%s</th>", i == heat->capacity_at ? " class=\"here\"" : "",
                report_html_compact(text, heat->capacities[i]));
    fputs("</tr></thead><tbody>\n", to);
    const bool ascending = report_html_speed(&heat->rates[0]) < report_html_speed(&heat->rates[heat->n_rates - 1]);
    for (size_t i = 0; i < heat->n_rates; i++) { /* the fastest rate on top */
        const size_t rate = ascending ? heat->n_rates - 1 - i : i;
        fprintf(to, "<tr><th scope=\"row\"%s>%s</th>", rate == heat->rate_at ? " class=\"here\"" : "",
                report_rate_text(&heat->rates[rate], text));
        for (size_t k = 0; k < heat->n_capacities; k++)
            report_html_heat_cell(to, limit, rate, k);
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table></section>\n", to);
}

/* ---- Needed bursts ---- */

static void report_html_bar(FILE *to, const char *class, uint64_t n, uint64_t most) {
    const double width = most > 0 ? 100.0 * (double)n / (double)most : 0;
    fprintf(to,
            "<svg viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"%s\" "
            "width=\"%.2f\" height=\"1\"/></svg>",
            class, n > 0 && width < 0.7 ? 0.7 : width);
}

static void report_html_needs(FILE *to, const struct report_limit *limit) {
    const int64_t capacity = report_capacity(limit);
    char rate[REPORT_LIMIT], a[REPORT_SHORT], text[REPORT_SENTENCE];
    uint64_t most = 0, all = 0;
    size_t first, last;
    if (!report_bins(&limit->needed, capacity, &first, &last)) return;
    for (size_t i = first; i <= last; i++) {
        all += limit->needed.bins[i];
        if (limit->needed.bins[i] > most) most = limit->needed.bins[i];
    }
    fprintf(to,
            "<section class=\"card half\"><h3>Burst that the %s need</h3><p class=\"hint\">at %s, the smallest that "
            "denies them nothing",
            report_noun(limit, 2), report_rate_text(&limit->needed.rate, rate));
    if (capacity > 0) fprintf(to, "; this limit has %s", report_number(a, (uint64_t)capacity));
    fprintf(to,
            "</p>\n<table class=\"bars\"><thead><tr><th class=\"n\">Burst</th><th></th><th class=\"n\">%s</th></tr>"
            "</thead><tbody>\n",
            report_noun(limit, 2)[0] == 'c' ? "Clients" : "Keys");
    for (size_t i = first; i <= last; i++) {
        const size_t gap = report_gap(&limit->needed, capacity, i);
        int64_t low, high;
        if (gap > 0) {
            fputs("<tr><td class=\"n soft\">⋮</td><td></td><td></td></tr>\n", to);
            i += gap - 1;
            continue;
        }
        report_bin(i, &low, &high);
        const bool here = capacity >= low && capacity <= high;
        fprintf(to, "<tr%s><td class=\"n\">%s", here ? " class=\"mark\"" : "", report_number(a, (uint64_t)low));
        if (low != high) fprintf(to, " to %s", report_number(a, (uint64_t)high));
        fputs("</td><td class=\"bar\">", to);
        report_html_bar(to, capacity > 0 && low > capacity ? "denied" : "allowed", limit->needed.bins[i], most);
        if (here) fprintf(to, "<span class=\"tag\">burst %s</span>", report_number(a, (uint64_t)capacity));
        fputs("</td>", to);
        report_html_share_cell(to, limit->needed.bins[i], all, false);
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table>\n", to);
    report_needs(limit, text);
    fputs("<p class=\"hint\">", to);
    report_html_own(to, text);
    fputs("</p></section>\n", to);
}

/* ---- What to choose ---- */

static void report_html_choices(FILE *to, const struct report_limit *limit) {
    char rate[REPORT_LIMIT], n[REPORT_SHORT];
    if (limit->n_choices == 0) return;
    fprintf(to,
            "<table><thead><tr><th>Rate</th><th class=\"n\">Burst</th><th class=\"n\">%s denied</th>"
            "<th class=\"n\">Requests denied</th></tr></thead><tbody>\n",
            report_noun(limit, 2)[0] == 'c' ? "Clients" : "Keys");
    for (size_t i = 0; i < limit->n_choices; i++) {
        const struct report_choice *choice = &limit->choices[i];
        fprintf(to, "<tr%s><td>%s</td>", choice->suggested ? " class=\"mark\"" : "",
                report_rate_text(&choice->limit, rate));
        report_html_number_cell(to, "", report_number(n, (uint64_t)choice->limit.max_capacity));
        report_html_share_cell(to, choice->keys_denied, limit->keys, false);
        report_html_share_cell(to, choice->requests_denied, limit->requests, false);
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table>\n", to);
}

static void report_html_suggestion(FILE *to, const struct report *report, const struct report_limit *limit) {
    steady_limit suggested;
    char share[REPORT_SHORT], text[REPORT_LIMIT];
    const bool any = report_suggestion(report, limit, &suggested);
    size_t first, last;
    if (!any && limit->n_choices == 0) return;
    const bool beside = report_bins(&limit->needed, report_capacity(limit), &first, &last); /* another half is there */
    fprintf(to, "<section class=\"card%s\"><h3>What to choose</h3>\n", beside ? " half" : "");
    if (any) {
        const char *field = report_field(limit->limit);
        char *rule = report_rule_text(limit->limit, &suggested);
        fprintf(to, "<p class=\"hint\">This denies nothing to %s of the %s:</p>",
                report_percent(share, report->share > 0 ? report->share : 0.999), report_noun(limit, 2));
        fputs("<code class=\"rule-text\">", to);
        report_limit_text(&suggested, text, sizeof text);
        report_html_own(to, rule != NULL && report_rule_is_whole(limit->limit) ? rule : text);
        fputs("</code>\n", to);
        if (field != NULL) {
            fputs("<p class=\"hint\">A rules file has no key ", to);
            report_html_string(to, field);
            fputs(". Use a header or a cookie that has this value.</p>", to);
        } else if (!report_rule_is_whole(limit->limit)) {
            fputs("<p class=\"hint\">Set these in the limit; it has more keys than this page can write.</p>", to);
        }
        free(rule);
    }
    report_html_choices(to, limit);
    fputs("</section>\n", to);
}

/* ---- Who was denied ---- */

static void report_html_keys(FILE *to, const struct report *report, const struct report_limit *limit) {
    const int64_t span = report->last - report->first;
    char n[REPORT_SHORT];
    if (limit->n_top == 0) return;
    fprintf(to, "<section class=\"card\"><h3>Most denied %s</h3>", report_noun(limit, 2));
    if (limit->keys_denied > limit->n_top)
        fprintf(to, "<p class=\"hint\">%zu of %s</p>", limit->n_top, report_number(n, limit->keys_denied));
    fputs("\n<table><thead><tr><th>Key</th><th class=\"n wide\">Requests</th><th class=\"n\">Denied</th>"
          "<th class=\"n wide\">First denied</th><th class=\"n wide\">Last denied</th>"
          "<th class=\"n\"><span class=\"wide\">Burst </span>needed</th></tr></thead><tbody>\n",
          to);
    for (size_t i = 0; i < limit->n_top; i++) {
        const struct report_key *key = &limit->top[i];
        fputs("<tr>", to);
        report_html_text_cell(to, "", report_view(&key->key));
        report_html_number_cell(to, " wide", report_number(n, key->requests));
        report_html_number_cell(to, " red", report_number(n, key->denied));
        report_html_number_cell(to, " wide",
                                report_clock(n, key->first_denied, span < INT64_C(86400000000) ? 0 : span));
        report_html_number_cell(to, " wide", report_clock(n, key->last_denied, span < INT64_C(86400000000) ? 0 : span));
        report_html_number_cell(to, "", key->needed > 0 ? report_number(n, (uint64_t)key->needed) : "none helps");
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table></section>\n", to);
}

static void report_html_list(FILE *to, const struct report_limit *limit, const struct report_list *list,
                             const char *title, const char *class) {
    const size_t shown = report_shown(list, REPORT_TOP);
    if (shown == 0) return;
    fprintf(to, "<section class=\"card %s\"><h3>%s</h3>\n<table class=\"bars\"><tbody>\n", class, title);
    for (size_t i = 0; i < shown; i++) {
        const struct report_count *item = &list->items[i];
        fputs("<tr>", to);
        report_html_text_cell(to, " all", report_view(&item->name));
        fputs("<td class=\"share\">", to);
        report_html_bar(to, "denied", item->n, list->items[0].n);
        fputs("</td>", to);
        report_html_share_cell(to, item->n, limit->denied, item->error > 0);
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table>", to);
    if (report_estimates(list, REPORT_TOP) != NULL)
        fprintf(to, "<p class=\"hint\">%s</p>", report_estimates(list, REPORT_TOP));
    fputs("</section>\n", to);
}

static void report_html_changes(FILE *to, const struct report *report, const struct report_limit *limit) {
    const int64_t span = report->last - report->first;
    char n[REPORT_SHORT];
    fputs("<table><thead><tr><th>Key</th><th class=\"n wide\">Requests</th><th class=\"n\">Denied here</th>"
          "<th class=\"n\">there</th><th class=\"n wide\">First change</th></tr></thead><tbody>\n",
          to);
    for (size_t i = 0; i < limit->against.n_changes; i++) {
        const struct report_change *change = &limit->against.changes[i];
        fputs("<tr>", to);
        report_html_text_cell(to, "", report_view(&change->key));
        report_html_number_cell(to, " wide", report_number(n, change->requests));
        report_html_number_cell(to, "", report_number(n, change->denied));
        report_html_number_cell(to, "", report_number(n, change->denied_against));
        report_html_number_cell(to, " wide",
                                report_clock(n, change->first_changed, span < INT64_C(86400000000) ? 0 : span));
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table>\n", to);
}

static void report_html_against(FILE *to, const struct report *report, const struct report_limit *limit) {
    const struct report_against *against = &limit->against;
    char n[REPORT_SHORT], text[REPORT_LIMIT];
    if (!limit->has_against) return;
    fputs("<section class=\"card\"><h3>Against ", to);
    report_html_string(to, report->against_file != NULL ? report->against_file : "the other rules");
    fputs("</h3>\n", to);
    if (against->missing) {
        fputs("<p class=\"more\">There is no limit of this name there.</p></section>\n", to);
        return;
    }
    report_limit_text(&against->limit, text, sizeof text);
    fprintf(to, "<p class=\"more\"><code>%s</code> would deny %s requests", text, report_number(n, against->denied));
    fprintf(to, " of %s %s", report_number(n, against->keys_denied), report_noun(limit, against->keys_denied));
    fprintf(to, "; this limit denies %s", report_number(n, limit->denied));
    fprintf(to, " of %s. ", report_number(n, limit->keys_denied));
    if (against->keys_changed == 0) {
        fputs("No verdict would change.</p></section>\n", to);
        return;
    }
    fprintf(to, "Verdicts change for %s %s: ", report_number(n, against->keys_changed),
            report_noun(limit, against->keys_changed));
    fprintf(to, "%s denied only there, ", report_number(n, against->newly_hit));
    fprintf(to, "%s denied only here.</p>\n", report_number(n, against->freed));
    report_html_changes(to, report, limit);
    fputs("</section>\n", to);
}

/* ---- A limit ---- */

static void report_html_tile(FILE *to, const char *name, const char *value, const char *more, bool red) {
    fprintf(to, "<div class=\"card tile%s\"><span>%s</span><b>", red ? " red" : "", name);
    report_html_own(to, value);
    fputs("</b><span>", to);
    report_html_own(to, more);
    fputs("</span></div>\n", to);
}

static void report_html_tiles(FILE *to, const struct report_limit *limit) {
    char a[REPORT_SHORT], b[REPORT_SHORT], c[REPORT_SHORT + 20];
    snprintf(c, sizeof c, "of %s %s", report_number(b, limit->keys), report_noun(limit, limit->keys));
    report_html_tile(to, "Requests", report_number(a, limit->requests), c, false);
    snprintf(c, sizeof c, "%s of the requests", report_share(b, limit->denied, limit->requests));
    report_html_tile(to, "Denied", report_number(a, limit->denied), c, limit->denied > 0);
    snprintf(c, sizeof c, "%s of all", report_share(b, limit->keys_denied, limit->keys));
    report_html_tile(to, report_noun(limit, 2)[0] == 'c' ? "Clients denied" : "Keys denied",
                     report_number(a, limit->keys_denied), c, false);
    if (limit->wait_max >= 0 && limit->denied > 0) {
        snprintf(c, sizeof c, "longest %s", report_duration(b, limit->wait_max));
        char name[REPORT_SHORT];
        snprintf(name, sizeof name, "Wait, half of the denied");
        report_html_tile(to, name, report_duration(a, limit->wait_p50), c, false);
    } else {
        report_html_tile(to, "Wait, half of the denied", "–", "nothing was denied", false);
    }
}

static void report_html_title(FILE *to, const struct report_limit *limit) {
    const struct rules_limit *rule = limit->limit;
    char text[REPORT_LIMIT], *key = report_key_text(rule);
    fputs("<div class=\"title\"><h2>", to);
    report_html_string(to, report_name(limit));
    fputs("</h2><code>", to);
    if (limit->has_verdicts && rule->n_rates > 0) {
        report_limit_text(&rule->rates[0], text, sizeof text);
        fprintf(to, "%s, ", text);
    }
    if (key != NULL) {
        fputs("key: ", to);
        report_html_string(to, key);
    }
    fputs(rule->shadow ? ", mode: shadow</code>" : "</code>", to);
    if (limit->from_rules && rule->file != NULL) {
        fputs("<span class=\"soft\">", to);
        report_html_string(to, rule->file);
        fprintf(to, ":%d</span>", rule->line);
    }
    free(key);
    fputs("</div>\n", to);
}

static void report_html_limit(FILE *to, const struct report *report, const struct report_limit *limit, size_t index) {
    struct report_sentences sentences;
    fprintf(to, "<section class=\"limit\" id=\"limit-%zu\">\n", index + 1);
    report_html_title(to, limit);
    fputs("<div class=\"grid\">\n<section class=\"card\">", to);
    report_findings(report, limit, &sentences);
    for (size_t i = 0; i < sentences.n; i++) {
        fputs(i == 0 ? "<p class=\"lead\">" : i == 1 ? "<p class=\"more\">" : " ", to);
        report_html_own(to, sentences.texts[i]);
        if (i == 0) fputs("</p>", to);
    }
    fputs(sentences.n > 1 ? "</p></section>\n" : "</section>\n", to);
    if (limit->has_verdicts && limit->requests > 0) report_html_tiles(to, limit);
    report_html_timeline(to, report, limit);
    report_html_heat(to, limit);
    report_html_needs(to, limit);
    report_html_suggestion(to, report, limit);
    if (limit->has_verdicts) {
        report_html_keys(to, report, limit);
        report_html_list(to, limit, &limit->by_path, "Denied, by path", "");
        report_html_list(to, limit, &limit->by_agent, "Denied, by user agent", "half");
        report_html_list(to, limit, &limit->by_status, "Denied, by the status in the log", "half");
    }
    report_html_against(to, report, limit);
    report_notes(report, limit, &sentences);
    if (sentences.n > 0) {
        fputs("<section class=\"card plain\">", to);
        report_html_notes(to, &sentences);
        fputs("</section>", to);
    }
    fputs("</div></section>\n", to);
}

static void report_html_overview(FILE *to, const struct report *report) {
    char n[REPORT_SHORT];
    if (report->n_limits < 2) return;
    fputs("<section class=\"card\"><h3>Limits</h3>\n<table><thead><tr><th>Limit</th><th class=\"wide\">Over time</th>"
          "<th class=\"n\">Requests</th><th class=\"n\">Denied</th><th class=\"n wide\">Share</th>"
          "<th class=\"n wide\">",
          to);
    fputs(report_overview_noun(report)[0] == 'c' ? "Clients denied</th></tr></thead><tbody>\n"
                                                 : "Keys denied</th></tr></thead><tbody>\n",
          to);
    for (size_t i = 0; i < report->n_limits; i++) {
        const struct report_limit *limit = &report->limits[i];
        const bool any = limit->has_verdicts && limit->requests > 0;
        fputs("<tr><td class=\"text\">", to);
        if (report_has_section(report, limit)) fprintf(to, "<a href=\"#limit-%zu\">", i + 1);
        report_html_string(to, report_name(limit));
        fputs(report_has_section(report, limit) ? "</a>" : "", to);
        fputs("</td><td class=\"spark wide\">", to);
        if (limit->requests > 0 && report->n_intervals > 1) {
            report_html_svg(to, "", report->n_intervals, "Requests over time; the denied ones are below.");
            report_html_stack(to, report, limit);
        }
        fputs("</td>", to);
        report_html_number_cell(to, "", report_number(n, limit->requests));
        report_html_number_cell(to, limit->denied > 0 ? " red" : "", any ? report_number(n, limit->denied) : "–");
        report_html_number_cell(to, " wide", any ? report_share(n, limit->denied, limit->requests) : "");
        report_html_number_cell(to, " wide", any ? report_number(n, limit->keys_denied) : "");
        fputs("</tr>\n", to);
    }
    fputs("</tbody></table></section>\n", to);
}

static void report_html_body(FILE *to, const struct report *report) {
    char text[4 * REPORT_SHORT];
    fputs("<header><svg viewBox=\"0 0 32 32\" aria-hidden=\"true\"><path class=\"allowed\" d=\"M16 3c5 7 9 11 9 16a9 9 "
          "0 0 1-18 0c0-5 4-9 9-16z\"/></svg><h1>Steady replay</h1><div class=\"about\">",
          to);
    report_html_range(text, sizeof text, report);
    report_html_own(to, text);
    fputs("</div></header>\n<main>\n", to);
    if (report->n_limits == 1) report_html_limit(to, report, &report->limits[0], 0);
    fprintf(to, "<div class=\"grid%s\">\n", report->n_limits == 1 ? " limit" : "");
    if (report->n_limits > 1) report_html_overview(to, report);
    report_html_read(to, report);
    fputs("</div>\n", to);
    for (size_t i = 0; report->n_limits > 1 && i < report->n_limits; i++)
        if (report_has_section(report, &report->limits[i])) report_html_limit(to, report, &report->limits[i], i);
    fprintf(to,
            "</main>\n<footer>Written by steady replay %s. This page loads nothing from elsewhere. A byte that cannot "
            "be shown is <code>\\xNN</code>, and a backslash is <code>\\\\</code>.</footer>\n",
            steady_version());
}

/* ---- The frame ---- */

/* 'sha256-...' of what stands between two tags of the frame */
static void report_html_digest(FILE *to, const char *open, const char *close) {
    unsigned char digest[crypto_hash_sha256_BYTES];
    char text[sodium_base64_ENCODED_LEN(sizeof digest, sodium_base64_VARIANT_ORIGINAL)];
    const char *begin = strstr(report_html_frame, open) + strlen(open);
    crypto_hash_sha256(digest, (const unsigned char *)begin, (unsigned long long)(strstr(begin, close) - begin));
    fprintf(to, "'sha256-%s'",
            sodium_bin2base64(text, sizeof text, digest, sizeof digest, sodium_base64_VARIANT_ORIGINAL));
}

static void report_html_policy(FILE *to) {
    fputs("default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src ", to);
    report_html_digest(to, "<style>", "</style>");
    fputs("; script-src ", to);
    report_html_digest(to, "<script>", "</script>");
}

bool report_write_html(const struct report *report, FILE *to) {
    const char *at = report_html_frame;
    for (const char *mark; (mark = strchr(at, '@')) != NULL;) {
        fwrite(at, 1, (size_t)(mark - at), to);
        if (strncmp(mark, "@POLICY@", 8) == 0) {
            report_html_policy(to);
            at = mark + 8;
        } else if (strncmp(mark, "@TITLE@", 7) == 0) {
            fputs("Steady replay", to);
            if (report->n_files > 0) fputs(": ", to);
            if (report->n_files > 0) report_html_string(to, report->files[0]);
            at = mark + 7;
        } else if (strncmp(mark, "@BODY@", 6) == 0) {
            report_html_body(to, report);
            at = mark + 6;
        } else { /* @media */
            putc('@', to);
            at = mark + 1;
        }
    }
    fputs(at, to);
    return fflush(to) == 0 && ferror(to) == 0;
}
