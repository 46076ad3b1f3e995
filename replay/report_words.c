/* SPDX-License-Identifier: MIT
 * What the four forms of a report share. */
#include "report_words.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/limit.h"

/* ---- Numbers and times ---- */

const char *report_number(char *out, uint64_t n) {
    char digits[24];
    const size_t len = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, n);
    char *to = out;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

const char *report_share(char *out, uint64_t n, uint64_t of) {
    const double percent = of > 0 ? 100.0 * (double)n / (double)of : 0;
    if (n == 0 || of == 0)
        snprintf(out, REPORT_SHORT, "0 %%");
    else if (n >= of)
        snprintf(out, REPORT_SHORT, "100 %%");
    else if (percent < 0.05)
        snprintf(out, REPORT_SHORT, "<0.1 %%");
    else if (percent >= 99.95)
        snprintf(out, REPORT_SHORT, ">99.9 %%");
    else
        snprintf(out, REPORT_SHORT, percent < 9.95 || percent >= 99 ? "%.1f %%" : "%.0f %%", percent);
    return out;
}

const char *report_percent(char *out, double share) {
    snprintf(out, REPORT_SHORT, "%.10g %%", 100 * share);
    return out;
}

const char *report_bytes(char *out, uint64_t n) {
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB"};
    double size = (double)n / 1000;
    size_t unit = 0;
    while (size >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        size /= 1000;
        unit++;
    }
    if (n < 1000)
        snprintf(out, REPORT_SHORT, "%" PRIu64 " bytes", n);
    else
        snprintf(out, REPORT_SHORT, size < 9.95 ? "%.1f %s" : "%.0f %s", size, units[unit]);
    return out;
}

const char *report_duration(char *out, int64_t us) {
    static const struct {
        int64_t us;
        const char *name;
    } units[] = {{INT64_C(86400000000), "d"}, {INT64_C(3600000000), "h"}, {60000000, "min"}, {1000000, "s"}};
    if (us < 1000) {
        snprintf(out, REPORT_SHORT, us == 0 ? "0 s" : "%" PRId64 " us", us);
    } else if (us < 10000000) { /* 1.25 s, 1.2 s, 250 ms */
        const bool small = us < 1000000;
        snprintf(out, REPORT_SHORT, small || us % 1000000 == 0 ? "%.0f %s" : "%.1f %s",
                 (double)us / (small ? 1e3 : 1e6), small ? "ms" : "s");
    } else {
        size_t i = 0;
        const int64_t rounded = (us + 500000) / 1000000 * 1000000;
        while (rounded < units[i].us)
            i++;
        const int64_t rest = i < 3 ? rounded % units[i].us / units[i + 1].us : 0;
        const size_t len = (size_t)snprintf(out, REPORT_SHORT, "%" PRId64 " %s", rounded / units[i].us, units[i].name);
        if (rest > 0) snprintf(out + len, REPORT_SHORT - len, " %" PRId64 " %s", rest, units[i + 1].name);
    }
    return out;
}

/* The rest of the second, which is never negative, is returned. */
static int64_t report_words_split(int64_t us, struct tm *parts) {
    int64_t rest = us % 1000000;
    if (rest < 0) rest += 1000000;
    const time_t seconds = (time_t)((us - rest) / 1000000);
    if (gmtime_r(&seconds, parts) == NULL) memset(parts, 0, sizeof *parts);
    return rest;
}

const char *report_time(char *out, int64_t us) {
    struct tm parts;
    report_words_split(us, &parts);
    strftime(out, REPORT_SHORT, "%Y-%m-%d %H:%M:%S", &parts);
    return out;
}

const char *report_clock(char *out, int64_t us, int64_t span) {
    struct tm parts;
    report_words_split(us, &parts);
    strftime(out, REPORT_SHORT,
             span < INT64_C(600) * 1000000     ? "%H:%M:%S"
             : span < INT64_C(90000) * 1000000 ? "%H:%M"
                                               : "%m-%d %H:%M",
             &parts);
    return out;
}

const char *report_rfc3339(char *out, int64_t us) {
    struct tm parts;
    const int64_t rest = report_words_split(us, &parts);
    const size_t len = strftime(out, REPORT_SHORT, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + len, REPORT_SHORT - len, ".%06" PRId64 "Z", rest);
    return out;
}

/* ---- Texts of a log ---- */

/* The length of the UTF-8 sequence at the beginning (RFC 3629), and its character; 0: it is none. */
static size_t report_words_utf8(const unsigned char *at, size_t len, uint32_t *code) {
    const unsigned n = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || n > len) return 0;
    *code = n == 1 ? at[0] : at[0] & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (at[i] & 0x3f);
    }
    const bool right = *code >= least[n] && *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff);
    return right ? n : 0;
}

/* Controls, and characters that change the direction of the text, or that have no width. */
static bool report_words_is_hidden(uint32_t code) {
    static const uint32_t ranges[][2] = {{0, 0x1f},        {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},
                                         {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
                                         {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xe0000, 0xe0fff}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    return false;
}

bool report_piece(struct rules_text *text, char piece[REPORT_PIECE], bool ascii) {
    const unsigned char *at = (const unsigned char *)text->bytes;
    uint32_t code = 0;
    if (text->bytes == NULL || text->len == 0) return false;
    const size_t n = report_words_utf8(at, text->len, &code), taken = n > 0 ? n : 1;
    if (n == 0 || report_words_is_hidden(code) || (ascii && code > 127)) {
        for (size_t i = 0; i < taken; i++)
            snprintf(piece + 4 * i, 5, "\\x%02x", at[i]);
    } else if (code == '\\') {
        memcpy(piece, "\\\\", 3);
    } else {
        memcpy(piece, at, taken);
        piece[taken] = '\0';
    }
    text->bytes += taken;
    text->len -= taken;
    return true;
}

struct rules_text report_or_empty(struct rules_text text) {
    static char empty[] = "(empty)";
    return text.len > 0 ? text : (struct rules_text){empty, sizeof empty - 1};
}

/* ---- Limits ---- */

const char *report_name(const struct report_limit *limit) {
    return limit->limit->name != NULL ? limit->limit->name : "(no name)";
}

const char *report_rate_text(const steady_limit *limit, char out[REPORT_LIMIT]) {
    static const struct {
        int64_t us;
        const char *name;
    } units[] = {{1000000, "s"},
                 {60000000, "min"},
                 {INT64_C(3600000000), "h"},
                 {INT64_C(86400000000), "day"},
                 {INT64_C(604800000000), "week"}};
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    char period[48];
    steady__duration_text(period, sizeof period, limit->drop_recharge);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (limit->drop_recharge == units[i].us) snprintf(period, sizeof period, "%s", units[i].name);
    snprintf(out, REPORT_LIMIT, "%" PRId64 "/%s", drops, period);
    return out;
}

/* Burst and block of a limit, as far as they are not the default. */
static void report_words_rest_text(const steady_limit *limit, char *text, size_t room) {
    char block[48];
    size_t len = 0;
    text[0] = '\0';
    if (limit->max_capacity > 0 && limit->max_capacity != (limit->drops > 0 ? limit->drops : 1))
        len = (size_t)snprintf(text, room, ", burst: %" PRId64, limit->max_capacity);
    if (limit->block_duration > 0 && len < room) {
        steady__duration_text(block, sizeof block, limit->block_duration);
        snprintf(text + len, room - len, ", block: %s", block);
    }
}

void report_limit_text(const steady_limit *limit, char *text, size_t room) {
    char rate[REPORT_LIMIT], rest[REPORT_LIMIT];
    report_rate_text(limit, rate);
    report_words_rest_text(limit, rest, sizeof rest);
    snprintf(text, room, "rate: %s%s", rate, rest);
}

bool report_has_section(const struct report *report, const struct report_limit *limit) {
    return report->n_limits <= REPORT_MANY || limit->requests > 0;
}

int64_t report_capacity(const struct report_limit *limit) {
    return limit->has_verdicts && limit->limit->n_rates > 0 ? limit->limit->rates[0].max_capacity : 0;
}

static const char *const report_words_kinds[] = {"ip",   "header", "cookie", "query",
                                                 "path", "host",   "method", "descriptor"};

/* A field of the log, such as .user.id: no rules file has such a key. */
static bool report_words_is_field(const struct rules_key *key) {
    return key->kind == RULES_KEY_HEADER && strchr(".$%", key->name[0]) != NULL;
}

static void report_words_print_key(FILE *to, const struct rules_limit *limit) {
    if (limit->n_keys == 0) fputs("ip", to);
    for (size_t i = 0; i < limit->n_keys; i++) {
        const struct rules_key *key = &limit->keys[i];
        fprintf(to, "%s%s", i > 0 ? "+" : "", key->hashed ? "hash:" : "");
        if (report_words_is_field(key)) {
            fputs(key->name, to);
            continue;
        }
        fputs(report_words_kinds[key->kind], to);
        if (key->name != NULL) fprintf(to, ":%s", key->name);
        if (key->kind == RULES_KEY_IP && key->prefix != 64 && key->prefix != 0) fprintf(to, "/%u", key->prefix);
    }
}

/* Closes a stream of open_memstream. It moves the text until then. NULL: no memory. */
static char *report_words_close(FILE *to, char **text) {
    const bool failed = ferror(to) != 0;
    if (fclose(to) == 0 && !failed) return *text;
    free(*text);
    return NULL;
}

char *report_key_text(const struct rules_limit *limit) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (to == NULL) return NULL;
    report_words_print_key(to, limit);
    return report_words_close(to, &text);
}

/* A YAML scalar in a flow collection. Values that YAML could read as something else are quoted. */
static void report_words_print_value(FILE *to, const char *value) {
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
    const bool letter = (value[0] >= 'A' && value[0] <= 'Z') || (value[0] >= 'a' && value[0] <= 'z');
    const size_t plain = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/.-");
    bool quoted = (!letter && value[0] != '/') || value[plain] != '\0';
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        quoted = quoted || strcasecmp(value, words[i]) == 0;
    if (!quoted) {
        fputs(value, to);
        return;
    }
    putc('"', to);
    for (const unsigned char *at = (const unsigned char *)value; *at != '\0'; at++) {
        if (*at < 32 || *at == 127)
            fprintf(to, "\\x%02x", *at);
        else
            fprintf(to, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
    }
    putc('"', to);
}

static void report_words_print_network(FILE *to, const struct steady__network *network) {
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *b = network->address.bytes;
    if (network->prefix >= 96 && memcmp(b, v4, sizeof v4) == 0) {
        fprintf(to, "%u.%u.%u.%u/%u", b[12], b[13], b[14], b[15], network->prefix - 96);
        return;
    }
    putc('"', to);
    for (size_t i = 0; i < 16; i += 2)
        fprintf(to, "%s%x", i > 0 ? ":" : "", (unsigned)b[i] << 8 | b[i + 1]);
    fprintf(to, "/%u\"", network->prefix);
}

static void report_words_print_condition(FILE *to, const struct rules_condition *condition) {
    const size_t n = condition->kind == RULES_KEY_IP ? condition->n_networks : condition->n_values;
    if (n > 1) putc('[', to);
    for (size_t i = 0; i < n; i++) {
        if (i > 0) fputs(", ", to);
        if (condition->kind == RULES_KEY_IP)
            report_words_print_network(to, &condition->networks[i]);
        else
            report_words_print_value(to, condition->values[i]);
    }
    if (n > 1) putc(']', to);
}

/* match: { method: POST, header: { x-a: b, x-c: d } } */
static void report_words_print_match(FILE *to, const struct rules_conditions *match) {
    uint64_t done = 0;
    const char *before = ", match: { ";
    for (size_t i = 0; i < match->n; i++) {
        const struct rules_condition *first = &match->all[i];
        if ((done >> first->kind & 1) != 0) continue;
        done |= UINT64_C(1) << first->kind;
        fprintf(to, "%s%s: ", before, report_words_kinds[first->kind]);
        before = ", ";
        if (first->name == NULL) {
            report_words_print_condition(to, first);
            continue;
        }
        const char *open = "{ ";
        for (size_t k = i; k < match->n; k++) {
            if (match->all[k].kind != first->kind) continue;
            fputs(open, to);
            open = ", ";
            report_words_print_value(to, match->all[k].name);
            fputs(": ", to);
            report_words_print_condition(to, &match->all[k]);
        }
        fputs(" }", to);
    }
    if (match->n > 0) fputs(" }", to);
}

const char *report_field(const struct rules_limit *limit) {
    for (size_t i = 0; i < limit->n_keys; i++)
        if (report_words_is_field(&limit->keys[i])) return limit->keys[i].name;
    return NULL;
}

bool report_rule_is_whole(const struct rules_limit *limit) {
    if (report_field(limit) != NULL) return false;
    return limit->n_tiers == 0 && limit->n_exempt == 0 && !limit->of_domain;
}

static void report_words_print_rule(FILE *to, const struct rules_limit *limit, const steady_limit *rate) {
    static const char *const missing[] = {"ip", "skip", "refuse"};
    char text[REPORT_LIMIT];
    bool by_descriptor = false;
    fprintf(to, "- { name: ");
    report_words_print_value(to, limit->name != NULL ? limit->name : "limit");
    report_words_print_match(to, &limit->match);
    fputs(", key: ", to);
    for (size_t i = 0; i < limit->n_keys; i++)
        by_descriptor = by_descriptor || limit->keys[i].kind == RULES_KEY_DESCRIPTOR;
    report_words_print_key(to, limit);
    if (limit->missing != (by_descriptor ? RULES_MISSING_SKIP : RULES_MISSING_IP))
        fprintf(to, ", missing: %s", missing[limit->missing]);
    report_limit_text(rate, text, sizeof text);
    fprintf(to, ", %s", text);
    if (limit->cost == RULES_COST_AFTER) fputs(", cost: after", to);
    if (limit->cost == RULES_COST_HEADER) fprintf(to, ", cost: header:%s", limit->cost_header);
    if (limit->cost == RULES_COST_NUMBER && limit->amount > 1) fprintf(to, ", cost: %" PRId64, limit->amount);
    if (limit->max_ahead > 0) {
        steady__duration_text(text, sizeof text, limit->max_ahead);
        fprintf(to, ", max_ahead: %s", text);
    }
    fprintf(to, "%s }", limit->shadow ? ", mode: shadow" : "");
}

char *report_rule_text(const struct rules_limit *limit, const steady_limit *rate) {
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (to == NULL) return NULL;
    report_words_print_rule(to, limit, rate);
    return report_words_close(to, &text);
}

bool report_suggestion(const struct report *report, const struct report_limit *limit, steady_limit *suggested) {
    for (size_t i = 0; i < limit->n_choices; i++)
        if (limit->choices[i].suggested) {
            *suggested = limit->choices[i].limit;
            if (limit->limit->n_rates > 0) suggested->block_duration = limit->limit->rates[0].block_duration;
            return true;
        }
    /* Without --suggest: the rate of the limit, with the burst that denies nothing to 99.9 % of the keys. */
    if (report->share > 0 || !limit->has_verdicts || limit->denied == 0 || limit->needed.needed[3] < 1) return false;
    if (limit->needed.needed[3] <= limit->limit->rates[0].max_capacity) return false;
    *suggested = limit->limit->rates[0];
    suggested->max_capacity = limit->needed.needed[3];
    return true;
}

void report_bin(size_t i, int64_t *low, int64_t *high) {
    *low = i == 0 ? 1 : (INT64_C(1) << (i - 1)) + 1;
    *high = INT64_C(1) << i;
}

bool report_bins(const struct report_rate *rate, int64_t capacity, size_t *first, size_t *last) {
    bool any = false;
    *first = REPORT_BINS;
    *last = 0;
    for (size_t i = 0; i < REPORT_BINS; i++) {
        int64_t low, high;
        report_bin(i, &low, &high);
        any = any || rate->bins[i] > 0;
        if (rate->bins[i] == 0 && (capacity < low || capacity > high)) continue;
        if (i < *first) *first = i;
        *last = i;
    }
    return any;
}

size_t report_gap(const struct report_rate *rate, int64_t capacity, size_t first) {
    size_t n = 0;
    for (size_t i = first; i < REPORT_BINS && rate->bins[i] == 0; i++) {
        int64_t low, high;
        report_bin(i, &low, &high);
        if (capacity >= low && capacity <= high) break;
        n++;
    }
    return n > 2 ? n : 0;
}

size_t report_shown(const struct report_list *list, size_t most) {
    size_t n = 0;
    while (n < list->n && n < most && list->items[n].n > list->items[n].error)
        n++;
    return n;
}

const char *report_estimates(const struct report_list *list, size_t most) {
    for (size_t i = 0; i < report_shown(list, most); i++)
        if (list->items[i].error > 0)
            return "A count with a ~ is an estimate, because there was no room for all values.";
    return NULL;
}

uint64_t report_peak(const struct report *report, const struct report_limit *limit, bool denied) {
    uint64_t peak = 0;
    for (size_t i = 0; i < report->n_intervals && i < REPORT_TIMELINE; i++) {
        const uint64_t n = denied ? limit->timeline[i].denied : limit->timeline[i].requests;
        if (n > peak) peak = n;
    }
    return peak;
}

/* ---- Sentences ---- */

__attribute__((format(printf, 2, 3))) static void report_words_say(struct report_sentences *to, const char *format,
                                                                   ...) {
    va_list arguments;
    if (to->n == REPORT_SENTENCES) return;
    va_start(arguments, format);
    vsnprintf(to->texts[to->n++], REPORT_SENTENCE, format, arguments);
    va_end(arguments);
}

const char *report_noun(const struct report_limit *limit, uint64_t n) {
    bool client = limit->limit->n_keys == 0;
    for (size_t i = 0; i < limit->limit->n_keys; i++) {
        const enum rules_key_kind kind = limit->limit->keys[i].kind;
        client = client || (kind != RULES_KEY_PATH && kind != RULES_KEY_HOST && kind != RULES_KEY_METHOD);
    }
    return client ? (n == 1 ? "client" : "clients") : (n == 1 ? "key" : "keys");
}

const char *report_overview_noun(const struct report *report) {
    for (size_t i = 0; i < report->n_limits; i++)
        if (report_noun(&report->limits[i], 2)[0] != 'c') return "keys";
    return "clients";
}

static const char *report_words_requests(uint64_t n) { return n == 1 ? "request" : "requests"; }

/* Why a limit counted for nothing. */
static void report_words_say_unused(const struct report *report, const struct report_limit *limit,
                                    struct report_sentences *to) {
    const struct rules_limit *rule = limit->limit;
    char n[REPORT_SHORT];
    report_words_say(to, "This limit counted for no request.");
    if (report->requests == 0) {
        report_words_say(to, "The log has no request.");
    } else if (rule->by_descriptor || rule->of_domain) {
        report_words_say(to, "It counts for descriptors of Envoy, and the log has none for it.");
    } else if (report->exempt == report->requests) {
        report_words_say(to, "All requests are exempt by the rules.");
    } else if (rule->match.n > 0) {
        report_words_say(to, "No request met all conditions of its match. Try one with: steady check FILE --request "
                             "'GET /path'. A condition on a header or a cookie needs a log that has it.");
    } else if (rule->missing == RULES_MISSING_SKIP && !limit->from_rules) {
        if (rule->n_keys == 1 && rule->keys[0].name != NULL)
            report_words_say(to, "No request of the log has the field %s.", rule->keys[0].name);
        else
            report_words_say(to, "No request of the log has all parts of its key.");
    } else if (rule->missing == RULES_MISSING_SKIP) {
        report_words_say(
            to, "No request had its key, and `missing: skip` leaves it out. Perhaps the log does not have it.");
    } else if (report->refused > 0) {
        report_words_say(to, "%s %s without a key or with a wrong cost would be refused before this limit counts.",
                         report_number(n, report->refused), report_words_requests(report->refused));
    }
}

/* Why a limit denied nothing. */
static void report_words_say_quiet(const struct report_limit *limit, struct report_sentences *to) {
    char n[REPORT_SHORT], keys[REPORT_SHORT];
    const int64_t capacity = limit->limit->n_rates > 0 ? limit->limit->rates[0].max_capacity : 0;
    const int64_t most = limit->needed.needed[4];
    report_words_say(to, "No request would have been denied.");
    if (limit->requests == 1)
        report_words_say(to, "The only request fits.");
    else
        report_words_say(to, "All %s requests of %s %s fit.", report_number(n, limit->requests),
                         report_number(keys, limit->keys), report_noun(limit, limit->keys));
    if (most > 0 && most <= capacity && limit->limit->n_rates == 1)
        report_words_say(to, "The busiest %s needs a burst of %s, and the limit has %s.", report_noun(limit, 1),
                         report_number(n, (uint64_t)most), report_number(keys, (uint64_t)capacity));
}

static void report_words_say_denied(const struct report_limit *limit, struct report_sentences *to) {
    char share[REPORT_SHORT], a[REPORT_SHORT], b[REPORT_SHORT];
    report_share(share, limit->keys_denied, limit->keys);
    if (limit->keys_denied == limit->keys && limit->keys == 1)
        report_words_say(to, "The only %s would have been denied.", report_noun(limit, 1));
    else if (limit->keys_denied == limit->keys)
        report_words_say(to, "All %s %s would have been denied at least once.", report_number(a, limit->keys),
                         report_noun(limit, 2));
    else
        report_words_say(to, "%s%s of the %s (%s of %s) would have been denied at least once.",
                         *share == '<'   ? "Less than "
                         : *share == '>' ? "More than "
                                         : "",
                         share + (*share == '<' || *share == '>'), report_noun(limit, 2),
                         report_number(a, limit->keys_denied), report_number(b, limit->keys));
    report_share(share, limit->denied, limit->requests);
    if (limit->keys_denied == 1)
        report_words_say(to, "All %s denied requests (%s of %s) came from this one.", report_number(a, limit->denied),
                         share, report_number(b, limit->requests));
    else if (limit->half_of_denied > 0)
        report_words_say(to, "Half of the %s denied requests (%s of all) came from %s of them.",
                         report_number(a, limit->denied), share, report_number(b, limit->half_of_denied));
    if (limit->blocked > 0)
        report_words_say(to, "%s of the denied requests came while their %s was blocked.",
                         report_number(a, limit->blocked), report_noun(limit, 1));
    if (limit->never > 0)
        report_words_say(to, "%s %s cost more than the burst, so no wait would help.", report_number(a, limit->never),
                         report_words_requests(limit->never));
}

/* No request had the key, so the address stands for it. This comes first: all figures are of another key. */
static void report_words_say_fallback(const struct report_limit *limit, struct report_sentences *to) {
    const struct rules_limit *rule = limit->limit;
    const struct rules_key *named = NULL;
    size_t n = 0; /* parts that a log may lack */
    for (size_t i = 0; i < rule->n_keys; i++) {
        if (rule->keys[i].kind == RULES_KEY_IP) continue;
        if (rule->keys[i].name != NULL) named = &rule->keys[i];
        n++;
    }
    if (n == 1 && named != NULL)
        report_words_say(to, "The log has no %s %s. So each client is counted by its address.",
                         named->kind == RULES_KEY_HEADER ? "field" : report_words_kinds[named->kind], named->name);
    else
        report_words_say(to, "No request has all parts of the key. So each client is counted by its address.");
}

void report_findings(const struct report *report, const struct report_limit *limit, struct report_sentences *to) {
    char a[REPORT_SHORT], b[REPORT_SHORT];
    to->n = 0;
    if (limit->by_fallback) report_words_say_fallback(limit, to);
    if (!limit->has_verdicts && limit->requests > 0) {
        report_words_say(to, "%s %s sent %s %s. No limit was tried on them; see the suggestion.",
                         report_number(a, limit->keys), report_noun(limit, limit->keys),
                         report_number(b, limit->requests), report_words_requests(limit->requests));
        return;
    }
    if (limit->requests == 0)
        report_words_say_unused(report, limit, to);
    else if (limit->denied == 0)
        report_words_say_quiet(limit, to);
    else
        report_words_say_denied(limit, to);
    if (limit->other > 0)
        report_words_say(to, "Another limit would have denied %s %s that this one lets through.",
                         report_number(a, limit->other), report_words_requests(limit->other));
    if (limit->limit->shadow && limit->denied > 0)
        report_words_say(to, "In `mode: shadow` it denies nothing; these figures are what it would do.");
}

void report_needs(const struct report_limit *limit, char out[REPORT_SENTENCE]) {
    static const char *const shares[] = {"half of the ", "90 % of the ", "99 % of the ", "99.9 % of the ", "all "};
    static const char *const short_shares[] = {"half", "90 %", "99 %", "99.9 %", "all"};
    const int64_t *needed = limit->needed.needed;
    size_t len = 0;
    char n[REPORT_SHORT], whom[REPORT_SHORT];
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        if (i < 4 && needed[i] > 0 && needed[i] == needed[i + 1]) continue; /* it is enough for more */
        snprintf(whom, sizeof whom, "%s%s", len == 0 ? shares[i] : short_shares[i],
                 len == 0 ? report_noun(limit, 2) : "");
        if (needed[i] < 1) {
            len += (size_t)snprintf(out + len, REPORT_SENTENCE - len,
                                    len == 0 ? "No burst is enough for %s" : "; none for %s", whom);
            break;
        }
        if (len == 0)
            len += (size_t)snprintf(out, REPORT_SENTENCE, "A burst of %s is enough for %s",
                                    report_number(n, (uint64_t)needed[i]), whom);
        else
            len += (size_t)snprintf(out + len, REPORT_SENTENCE - len, ", %s for %s",
                                    report_number(n, (uint64_t)needed[i]), whom);
    }
    snprintf(out + len, REPORT_SENTENCE - len, ".");
}

static void report_words_note_log(const struct report *report, struct report_sentences *to) {
    char a[REPORT_SHORT];
    uint64_t left_out = 0;
    for (size_t i = 0; i < report->n_limits; i++)
        left_out += !report_has_section(report, &report->limits[i]);
    if (report->partial) report_words_say(to, "The replay ended early: this is a part of the log.");
    if (report->whole_seconds && !report->spread)
        report_words_say(to,
                         "The log tells whole seconds only. Requests of one second count as one moment, so bursts look "
                         "worse than they were. Use --spread to space them within the second.");
    if (report->whole_seconds && report->spread)
        report_words_say(to,
                         "The log tells whole seconds only. --spread spaced the requests evenly within each second.");
    if (report->at_ends)
        report_words_say(to, report->begun_known
                                 ? "Some lines have no duration. They count at the end of their request."
                                 : "Servers log at the end of a request. No durations were subtracted, so slow "
                                   "requests count later than they came.");
    if (report->late_lines > 0)
        report_words_say(to, "%s %s over 60 s out of order and %s left out.", report_number(a, report->late_lines),
                         report->late_lines == 1 ? "line was" : "lines were", report->late_lines == 1 ? "is" : "are");
    if (report->cut_lines > 0)
        report_words_say(to, "%s %s longer than 4 MiB; the rest of each was dropped.",
                         report_number(a, report->cut_lines), report->cut_lines == 1 ? "line was" : "lines were");
    if (report->without_address > 0)
        report_words_say(to, "%s %s no client address. They share the key `unknown` where the key is the address.",
                         report_number(a, report->without_address),
                         report->without_address == 1 ? "request has" : "requests have");
    if (report->refused > 0)
        report_words_say(to, "%s %s refused: a key is missing with `missing: refuse`, or the cost is wrong.",
                         report_number(a, report->refused),
                         report->refused == 1 ? "request would be" : "requests would be");
    if (left_out > 0)
        report_words_say(to, "%s of the limits counted for no request. Only the table of limits has them.",
                         report_number(a, left_out));
    if (report->hashed) report_words_say(to, "The keys are hashed (--hash-keys).");
    for (size_t i = 0; i < report->n_notes; i++)
        report_words_say(to, "%s", report->notes[i]);
}

static void report_words_note_limit(const struct report_limit *limit, struct report_sentences *to) {
    char a[REPORT_SHORT], b[REPORT_SHORT];
    if (limit->keys_merged > 0)
        report_words_say(to,
                         "For lack of memory, %s %s with %s %s share one bucket. Their verdicts are stricter than they "
                         "would be.",
                         report_number(a, limit->keys_merged), report_noun(limit, limit->keys_merged),
                         report_number(b, limit->requests_merged), report_words_requests(limit->requests_merged));
    if (limit->keys_forgotten > 0)
        report_words_say(to,
                         "For lack of memory, %s idle %s with an empty bucket %s forgotten. A forgotten one that came "
                         "back counts once more.",
                         report_number(a, limit->keys_forgotten), report_noun(limit, limit->keys_forgotten),
                         limit->keys_forgotten == 1 ? "was" : "were");
    if (limit->limit->n_tiers > 0 && limit->has_verdicts)
        report_words_say(
            to, "The limit has tiers. The verdicts and the needed bursts are at the rate of each tier; a suggestion "
                "is one limit for all tiers.");
}

void report_notes(const struct report *report, const struct report_limit *limit, struct report_sentences *to) {
    to->n = 0;
    if (limit == NULL)
        report_words_note_log(report, to);
    else
        report_words_note_limit(limit, to);
}
