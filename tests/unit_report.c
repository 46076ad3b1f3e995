/* SPDX-License-Identifier: MIT
 * The four forms of a report, of figures that are filled in by hand. tests/test_replay_html.py opens the HTML. */
#include <jansson.h>
#include <locale.h>

#include "replay/report_words.h"
#include "report_rig.h"

/* ---- Rig ---- */

struct written {
    char *text;
    size_t len;
};

enum form { TEXT, ASCII, NARROW, COLOR, JSON, CSV, HTML };

static struct written written_as(const struct report *report, enum form form) {
    struct written out = {NULL, 0};
    FILE *to = open_memstream(&out.text, &out.len);
    assert_non_null(to);
    setenv("LC_ALL", form == ASCII ? "C" : "C.UTF-8", 1);
    const bool done = form == JSON     ? report_write_json(report, to)
                      : form == CSV    ? report_write_csv(report, to)
                      : form == HTML   ? report_write_html(report, to)
                      : form == NARROW ? report_write_text(report, to, 1, false)
                                       : report_write_text(report, to, 80, form == COLOR);
    assert_true(done);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(strlen(out.text), out.len);
    return out;
}

static void assert_has(const char *text, const char *part) {
    if (strstr(text, part) == NULL) fail_msg("no \"%s\" in:\n%s", part, text);
}

static void assert_lacks(const char *text, const char *part) {
    if (strstr(text, part) != NULL) fail_msg("\"%s\" in:\n%s", part, text);
}

static void assert_report_has(const struct report *report, enum form form, const char *part) {
    struct written out = written_as(report, form);
    assert_has(out.text, part);
    free(out.text);
}

/* Columns of a line of UTF-8 without wide characters. */
static size_t columns_of(const char *line, size_t len) {
    size_t columns = 0;
    for (size_t i = 0; i < len; i++)
        columns += ((unsigned char)line[i] & 0xc0) != 0x80;
    return columns;
}

/* Every line fits, except a rule that is there to be pasted. */
static void assert_fits(const char *text, size_t columns) {
    for (const char *line = text; *line != '\0';) {
        const size_t len = strcspn(line, "\n");
        if (strncmp(line, "  - { name", 10) != 0 && columns_of(line, len) > columns)
            fail_msg("over %zu columns: %.*s", columns, (int)len, line);
        line += len + (line[len] == '\n');
    }
}

static json_t *json_of(const struct report *report) {
    json_error_t error;
    struct written out = written_as(report, JSON);
    json_t *root = json_loadb(out.text, out.len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) fail_msg("%s at %d in:\n%s", error.text, error.line, out.text);
    free(out.text);
    return root;
}

static json_t *limit_of(json_t *root, size_t limit) { return json_array_get(json_object_get(root, "limits"), limit); }

static const char *string_of(json_t *object, const char *name) {
    return json_string_value(json_object_get(object, name));
}

static json_int_t number_of(json_t *object, const char *name) {
    assert_true(json_is_integer(json_object_get(object, name)));
    return json_integer_value(json_object_get(object, name));
}

/* ---- Numbers and times ---- */

static void number_has_a_comma_for_each_thousand(void **state) {
    char out[REPORT_SHORT];
    (void)state;
    assert_string_equal(report_number(out, 0), "0");
    assert_string_equal(report_number(out, 999), "999");
    assert_string_equal(report_number(out, 1000), "1,000");
    assert_string_equal(report_number(out, UINT64_MAX), "18,446,744,073,709,551,615");
}

static void share_is_0_or_100_percent_only_if_it_is_exact(void **state) {
    char out[REPORT_SHORT];
    (void)state;
    assert_string_equal(report_share(out, 0, 10), "0 %");
    assert_string_equal(report_share(out, 0, 0), "0 %");
    assert_string_equal(report_share(out, 10, 10), "100 %");
    assert_string_equal(report_share(out, 1, 1000000), "<0.1 %");
    assert_string_equal(report_share(out, 999999, 1000000), ">99.9 %");
    assert_string_equal(report_share(out, 127, 4096), "3.1 %");
    assert_string_equal(report_share(out, 996, 10000), "10 %");
    assert_string_equal(report_share(out, 9, 10), "90 %");
    assert_string_equal(report_share(out, 996, 1000), "99.6 %");
}

static void duration_has_its_two_largest_units(void **state) {
    char out[REPORT_SHORT];
    (void)state;
    assert_string_equal(report_duration(out, 0), "0 s");
    assert_string_equal(report_duration(out, 17), "17 us");
    assert_string_equal(report_duration(out, 250000), "250 ms");
    assert_string_equal(report_duration(out, 1250000), "1.2 s");
    assert_string_equal(report_duration(out, 59 * INT64_C(1000000)), "59 s");
    assert_string_equal(report_duration(out, 750 * INT64_C(1000000)), "12 min 30 s");
    assert_string_equal(report_duration(out, 3599 * INT64_C(1000000) + 600000), "1 h");
    assert_string_equal(report_duration(out, 90061 * INT64_C(1000000)), "1 d 1 h");
}

static void time_is_exact_to_the_microsecond_also_before_1970(void **state) {
    char out[REPORT_SHORT];
    (void)state;
    assert_string_equal(report_rfc3339(out, RIG_BEGIN + 1), "2026-12-01T00:00:00.000001Z");
    assert_string_equal(report_rfc3339(out, -1), "1969-12-31T23:59:59.999999Z");
    assert_string_equal(report_time(out, RIG_BEGIN + 999999), "2026-12-01 00:00:00");
}

/* ---- Limits ---- */

static void limit_is_written_as_in_a_rules_file(void **state) {
    static const struct {
        steady_limit limit;
        const char *text;
    } cases[] = {
        {{.drops = 20, .drop_recharge = 1000000, .max_capacity = 20}, "rate: 20/s"},
        {{.drops = 100, .drop_recharge = 60000000, .max_capacity = 100}, "rate: 100/min"},
        {{.drops = 100, .drop_recharge = 60000000, .max_capacity = 20, .block_duration = 600000000},
         "rate: 100/min, burst: 20, block: 10m"},
        {{.drops = 5, .drop_recharge = 7000000, .max_capacity = 5}, "rate: 5/7s"},
        {{.drop_recharge = INT64_C(86400000000), .max_capacity = 2}, "rate: 1/day, burst: 2"},
        {{.drops = 9, .drop_recharge = INT64_C(604800000000), .max_capacity = 9}, "rate: 9/week"},
        {{.drops = 9, .drop_recharge = INT64_C(5400000000)}, "rate: 9/1h30m"},
        {{.drops = 3, .drop_recharge = 1500}, "rate: 3/1ms500us"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[REPORT_LIMIT], rate[REPORT_LIMIT];
        steady_limit read = {0};
        steady_message why;
        report_limit_text(&cases[i].limit, text, sizeof text);
        assert_string_equal(text, cases[i].text);
        if (steady_limit_parse(&read, report_rate_text(&cases[i].limit, rate), &why) != 0) fail_msg("%s", why.text);
        assert_int_equal(read.drop_recharge, cases[i].limit.drop_recharge);
    }
}

/* A suggested rule, read as a rules file. */
static struct rules *reread(const struct rules_limit *limit, const steady_limit *rate) {
    struct rules_error error;
    char yaml[2000], *rule = report_rule_text(limit, rate);
    assert_non_null(rule);
    const int len = snprintf(yaml, sizeof yaml, "limits:\n  %s\n", rule);
    struct rules *rules = rules_read_text("again", yaml, (size_t)len, &error);
    if (rules == NULL) fail_msg("%s in %s", error.text, yaml);
    free(rule);
    return rules;
}

static void assert_same_conditions(const struct rules_conditions *a, const struct rules_conditions *b) {
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct rules_condition *one = &a->all[i], *other = &b->all[i];
        assert_int_equal(one->kind, other->kind);
        assert_int_equal(one->n_values, other->n_values);
        assert_int_equal(one->n_networks, other->n_networks);
        assert_true((one->name == NULL) == (other->name == NULL));
        if (one->name != NULL) assert_string_equal(one->name, other->name);
        for (size_t k = 0; k < one->n_values; k++)
            assert_string_equal(one->values[k], other->values[k]);
        for (size_t k = 0; k < one->n_networks; k++) {
            assert_memory_equal(&one->networks[k].address, &other->networks[k].address, 16);
            assert_int_equal(one->networks[k].prefix, other->networks[k].prefix);
        }
    }
}

static void suggested_rule_reads_as_the_same_limit_with_another_rate(void **state) {
    static const char yaml[] =
        "limits:\n"
        "  - { name: \"-x\", match: { path: [/a, \"*.php\", \"/q\\\"\\\\'{}: é\"], method: [GET, POST], host: \"1\",\n"
        "      ip: [192.0.2.1, 10.0.0.0/8, \"2001:db8::/32\", \"::ffff:0:0/96\"], query: { q: \"yes\", r: [\"\", "
        "\"[a\"] },\n"
        "      cookie: { c: \"null\" }, header: { x-a: b } }, key: \"ip/48+hash:cookie:c+method\", rate: 3/s, cost: "
        "7,\n"
        "      max_ahead: 2s500ms, missing: refuse }\n"
        "  - { name: b, key: ip, rate: 9/d, cost: \"header:x-cost\", mode: shadow }\n"
        "  - { name: c, match: { descriptor: { d: [e, f] } }, key: \"descriptor:d+hash:descriptor:e\", rate: 9/d, "
        "cost: after "
        "}\n"
        "  - { name: d, key: \"descriptor:d\", missing: refuse, rate: 9/d }\n";
    const steady_limit rate = {.drops = 5, .drop_recharge = 7000000, .max_capacity = 35, .block_duration = 1000000};
    struct rules_error error;
    struct rules *rules = rules_read_text("first", yaml, strlen(yaml), &error);
    (void)state;
    if (rules == NULL) fail_msg("%s", error.text);
    for (size_t i = 0; i < rules->n_limits; i++) {
        const struct rules_limit *one = &rules->limits[i];
        struct rules *again = reread(one, &rate);
        const struct rules_limit *other = &again->limits[0];
        assert_string_equal(one->name, other->name);
        assert_same_conditions(&one->match, &other->match);
        assert_int_equal(one->n_keys, other->n_keys);
        for (size_t k = 0; k < one->n_keys; k++) {
            assert_int_equal(one->keys[k].kind, other->keys[k].kind);
            assert_int_equal(one->keys[k].hashed, other->keys[k].hashed);
            assert_int_equal(one->keys[k].prefix, other->keys[k].prefix);
        }
        assert_int_equal(one->missing, other->missing);
        assert_int_equal(one->cost, other->cost);
        assert_int_equal(one->amount, other->amount);
        assert_int_equal(one->shadow, other->shadow);
        assert_int_equal(one->max_ahead, other->max_ahead);
        assert_int_equal(other->rates[0].drops, 5);
        assert_int_equal(other->rates[0].drop_recharge, 7000000);
        assert_int_equal(other->rates[0].max_capacity, 35);
        assert_int_equal(other->rates[0].block_duration, 1000000);
        rules_free(again);
    }
    rules_free(rules);
}

static void rule_with_tiers_or_exempt_is_not_offered_as_whole(void **state) {
    struct report *report = rig_report();
    (void)state;
    assert_true(report_rule_is_whole(report->limits[RIG_LOGIN].limit));
    assert_false(report_rule_is_whole(report->limits[RIG_SHADOW].limit));
    report->limits[RIG_SHADOW].needed.needed[3] = 2500;
    report->share = 0; /* then a limit that denied something gets a suggestion of its own */
    assert_report_has(report, TEXT, "  In the limit a<b> set  rate: 1000/1h30m, burst: 2500");
}

static void suggestion_without_the_option_keeps_the_rate(void **state) {
    struct report *report = rig_report();
    struct report_limit *login = &report->limits[RIG_LOGIN];
    steady_limit suggested = {0};
    (void)state;
    login->n_choices = 0;
    assert_false(report_suggestion(report, login, &suggested));
    report->share = 0;
    assert_true(report_suggestion(report, login, &suggested));
    assert_int_equal(suggested.drops, 5);
    assert_int_equal(suggested.max_capacity, 213);
    login->needed.needed[3] = 10; /* the limit has that */
    assert_false(report_suggestion(report, login, &suggested));
    login->needed.needed[3] = -1; /* no burst is enough */
    assert_false(report_suggestion(report, login, &suggested));
}

/* ---- Text ---- */

static void text_tells_first_who_would_have_been_denied(void **state) {
    struct written out = written_as(rig_report(), TEXT);
    (void)state;
    assert_has(out.text, "3.1 % of the clients (127 of 4,096) would have been denied at least once.");
    assert_has(out.text, "Half of the 1,125 denied requests (5.9 % of all) came from 4 of them.");
    assert_has(out.text, "562 of\n  the denied requests came while their client was blocked.");
    assert_has(out.text, "3 requests cost more\n  than the burst, so no wait would help. Another limit would have "
                         "denied 17\n  requests that this one lets through.");
    assert_has(out.text, "wait      half of the denied at most 1.2 s, 99 % at most 48 s, longest 10 min");
    assert_has(out.text, "bad lines 12 left out; the first ones:\n            access.log:17: no time in []");
    assert_has(out.text, "time      2026-12-01 00:00:03 to 23:59:59 UTC (23 h 59 min)");
    assert_has(out.text, "In `mode:\n  shadow` it denies nothing");
    assert_has(out.text, "2001:db8:1234:5678::/64        20,000      1,500        14:01:00    none helps\n");
    assert_has(out.text, "A burst of 1 is enough for half of the clients, 7 for 90 %, 41 for 99 %, 213\n");
    assert_has(out.text, "  ▶ 20/min                  81             4    0.1 %            84    0.4 %\n");
    assert_has(out.text, "  - { name: login, match: { method: POST, path: [/login, \"/api/*/login\"] }, key: ip, "
                         "rate: 20/min, burst: 81, block: 10m }\n");
    assert_has(out.text, "Verdicts change for 90 clients: 2 denied only there, 88 denied only here.");
    assert_has(out.text, "There is no limit of this name there.");
    assert_has(out.text, "  - For lack of memory, 12 clients with 340 requests share one bucket.");
    assert_has(out.text, "  - The log tells whole seconds only.");
    assert_has(out.text, "  - The log has no field for the header x-b.\n");
    free(out.text);
}

static void limit_that_denied_nothing_says_so(void **state) {
    struct report *report = rig_report();
    (void)state;
    assert_report_has(report, TEXT, "\n  No request would have been denied.\n");
    assert_report_has(report, HTML, "<p class=\"lead\">No request would have been denied.</p>");
    assert_report_has(report, TEXT, "The busiest client needs a burst of\n  14, and the limit has 20.");
    report->limits[RIG_SEARCH].needed.needed[4] = -1;
    struct written out = written_as(report, TEXT);
    assert_lacks(out.text, "The busiest client");
    free(out.text);
}

static void limit_that_counted_for_nothing_says_why(void **state) {
    struct report *report = rig_report();
    struct rules_limit other = *report->limits[RIG_UNUSED].limit;
    (void)state;
    assert_report_has(report, TEXT, "This limit counted for no request.\n  No request met all conditions");
    assert_report_has(rig_empty(), TEXT, "This limit counted for no request.\n  The log has no request.");
    report->limits[RIG_UNUSED].limit = &other;
    other.match.n = 0;
    other.missing = RULES_MISSING_SKIP;
    assert_report_has(report, TEXT, "`missing: skip` leaves it out");
    other.missing = RULES_MISSING_REFUSE;
    assert_report_has(report, TEXT, "1 request without a key or with a wrong cost would be refused");
    other.by_descriptor = true;
    assert_report_has(report, TEXT, "It counts for descriptors of Envoy");
    other.by_descriptor = false;
    report->exempt = report->requests;
    assert_report_has(report, TEXT, "All requests are exempt by the rules.");
}

static void line_is_never_wider_than_the_page(void **state) {
    static const enum form forms[] = {TEXT, ASCII};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct written out = written_as(rig_report(), forms[i]);
        assert_fits(out.text, 80);
        free(out.text);
    }
    struct written out = written_as(rig_report(), NARROW);
    assert_fits(out.text, 72); /* the least */
    free(out.text);
}

static void locale_without_utf8_gets_ascii_alone(void **state) {
    struct written out = written_as(rig_report(), ASCII), wide = written_as(rig_report(), TEXT);
    (void)state;
    for (size_t i = 0; i < out.len; i++)
        assert_true(out.text[i] == '\n' || (out.text[i] >= ' ' && out.text[i] <= '~'));
    assert_has(out.text, "a\\\\b\\x1b[31m");
    assert_has(wide.text, "█");
    free(out.text);
    free(wide.text);
}

static void control_byte_of_a_log_never_reaches_the_terminal(void **state) {
    struct written out = written_as(rig_report(), TEXT), color = written_as(rig_report(), COLOR);
    (void)state;
    for (size_t i = 0; i < out.len; i++)
        assert_true(out.text[i] == '\n' || ((unsigned char)out.text[i] >= ' ' && out.text[i] != '\177'));
    assert_lacks(out.text, "\xe2\x80\xae"); /* it would turn the direction of the line */
    assert_lacks(color.text, "\33[31m\r");
    assert_has(color.text, "\33[1mlogin\33[0m");
    free(out.text);
    free(color.text);
}

static void wide_character_counts_as_two_columns(void **state) {
    struct report *report = rig_alone(RIG_LOGIN);
    (void)state;
    free(report->limits[0].top[0].key.bytes);
    report->limits[0].top[0].key = rig_text("\xe6\x97\xa5\xe6\x9c\xac");
    assert_report_has(report, TEXT, "\n  \xe6\x97\xa5\xe6\x9c\xac                           40,000      3,000");
}

static void report_of_one_line_or_none_is_complete(void **state) {
    (void)state;
    assert_report_has(rig_one_line(), TEXT, "1 client sent 1 request. No limit was tried on them");
    assert_report_has(rig_one_line(), TEXT, "key: header:x-api-key+path, rate: 1/min }\n");
    assert_report_has(rig_one_line(), TEXT, "The replay ended early: this is a part of the log.");
    assert_report_has(rig_one_line(), HTML, "The replay ended early: this is a part of the log.");
    assert_report_has(rig_empty(), HTML, "<dt>Time</dt><dd>no request</dd>");
    json_decref(json_of(rig_one_line()));
    json_decref(json_of(rig_empty()));
}

static void burst_that_is_enough_for_more_is_told_once(void **state) {
    static const struct {
        int64_t needed[5];
        const char *text;
    } cases[] = {
        {{1, 7, 41, 213, 1804},
         "A burst of 1 is enough for half of the clients, 7 for 90 %, 41 for 99 %, 213 for 99.9 %, 1,804 for all."},
        {{1, 1, 1, 1, 1}, "A burst of 1 is enough for all clients."},
        {{2, 2, 3, 3, 8}, "A burst of 2 is enough for 90 % of the clients, 3 for 99.9 %, 8 for all."},
        {{2, 2, 2, 2, -1}, "A burst of 2 is enough for 99.9 % of the clients; none for all."},
        {{-1, -1, -1, -1, -1}, "No burst is enough for half of the clients."},
        {{2, 2, -1, -1, -1}, "A burst of 2 is enough for 90 % of the clients; none for 99 %."},
    };
    struct report *report = rig_report();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[REPORT_SENTENCE];
        memcpy(report->limits[RIG_LOGIN].needed.needed, cases[i].needed, sizeof cases[i].needed);
        report_needs(&report->limits[RIG_LOGIN], text);
        assert_string_equal(text, cases[i].text);
    }
}

static void empty_bins_in_a_row_are_one_line(void **state) {
    struct report *report = rig_alone(RIG_LOGIN);
    uint64_t *bins = report->limits[0].needed.bins;
    (void)state;
    assert_report_has(report, TEXT, "      257 to 512                                          0      0 %\n");
    bins[8] = 0;
    assert_report_has(report, TEXT, "\n      129 to 256                                          0      0 %\n");
    bins[7] = 0;
    assert_report_has(
        report, TEXT,
        "33 to 64  ▌                                      31    0.8 %\n                  ⋮\n    513 to 1,024  ");
    assert_report_has(report, HTML, "<tr><td class=\"n soft\">⋮</td>");
    memset(bins, 0, REPORT_BINS * sizeof *bins);
    bins[0] = 7;
    assert_report_has(report, TEXT, "    100 %\n           ⋮\n  9 to 16  ");
}

static void headline_fits_one_and_all_clients(void **state) {
    struct report *report = rig_alone(RIG_LOGIN);
    struct report_limit *limit = &report->limits[0];
    (void)state;
    limit->keys = 100000;
    limit->keys_denied = 2;
    assert_report_has(report, TEXT,
                      "\n  Less than 0.1 % of the clients (2 of 100,000) would have been denied at least\n  once.\n");
    limit->keys_denied = 99999;
    assert_report_has(report, HTML, "More than 99.9&nbsp;% of the clients (99,999 of 100,000) would");
    limit->keys_denied = 100000;
    assert_report_has(report, TEXT, "\n  All 100,000 clients would have been denied at least once.\n");
    limit->keys = limit->keys_denied = 1;
    assert_report_has(report, TEXT,
                      "\n  The only client would have been denied.\n  All 1,125 denied requests (5.9 % of 18,949)");
    limit->denied = limit->keys_denied = 0;
    limit->requests = 1;
    assert_report_has(report, TEXT, "\n  No request would have been denied.\n  The only request fits.");
}

static void unused_one_of_many_limits_is_in_the_overview_only(void **state) {
    struct report *report = rig_report();
    struct report_limit *many = calloc(REPORT_MANY + 1, sizeof *many);
    (void)state;
    rig_keep(many);
    for (size_t i = 0; i <= REPORT_MANY; i++)
        many[i] = report->limits[i == 0 ? RIG_SEARCH : RIG_UNUSED];
    report->limits = many;
    report->n_limits = REPORT_MANY;
    assert_report_has(report, TEXT, "This limit counted for no request.");
    report->n_limits++;
    struct written text = written_as(report, TEXT), html = written_as(report, HTML);
    assert_lacks(text.text, "This limit counted for no request.");
    assert_lacks(html.text, "This limit counted for no request.");
    assert_lacks(html.text, "limit-2");
    assert_has(text.text, "  unused                                 0           -                         -\n");
    assert_has(text.text, "10 of the limits counted for no request. Only the table of limits has them.");
    free(text.text);
    free(html.text);
}

static void hostile_name_and_note_are_escaped(void **state) {
    static const char *const notes[] = {"The log has no field \33[2Jx."};
    struct report *report = rig_alone(RIG_UNUSED);
    struct rules_limit other = *report->limits[0].limit;
    (void)state;
    report->limits[0].limit = &other;
    report->notes = notes;
    report->n_notes = 1;
    report->against_file = "\33[2Jnew.yaml";
    report->limits[0].has_against = report->limits[0].against.missing = true;
    other.name = "\33[2Jname";
    other.file = "\33[2Jfile";
    for (enum form form = TEXT; form <= HTML; form++) {
        struct written out = written_as(report, form);
        assert_lacks(out.text, "\33[2J");
        if (form != CSV) assert_has(out.text, "x1b[2J");
        free(out.text);
    }
}

static void many_files_are_cut(void **state) {
    static const char *const files[] = {"1",  "2",  "3",  "4",  "5",  "6",  "7",  "8",  "9",  "10", "11",
                                        "12", "13", "14", "15", "16", "17", "18", "19", "20", "21"};
    struct report *report = rig_alone(RIG_UNUSED);
    (void)state;
    report->files = files;
    report->n_files = sizeof files / sizeof files[0];
    assert_report_has(report, TEXT, "  files     1\n            2\n            3\n            and 18 more\n");
    assert_report_has(
        report, HTML,
        "<dt>Files</dt><dd>1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, and 2 more</dd>");
    json_t *root = json_of(report);
    assert_int_equal(json_array_size(json_object_get(json_object_get(root, "log"), "files")), 21);
    json_decref(root);
}

static void count_below_its_error_is_not_shown(void **state) {
    struct report *report = rig_report();
    (void)state;
    report->limits[RIG_LOGIN].by_path.items[4].n = 5;
    assert_report_has(report, TEXT, "~5 ");
    report->limits[RIG_LOGIN].by_path.items[4].error = 5;
    struct written text = written_as(report, TEXT), html = written_as(report, HTML);
    assert_lacks(text.text, "~5 ");
    assert_lacks(html.text, "/%6cogin");
    free(text.text);
    free(html.text);
    assert_report_has(report, JSON, "/%6cogin");
}

/* ---- JSON ---- */

static void json_has_each_figure_as_an_integer(void **state) {
    json_t *root = json_of(rig_report()), *login = limit_of(root, RIG_LOGIN), *log = json_object_get(root, "log");
    (void)state;
    assert_int_equal(number_of(root, "version"), 1);
    assert_int_equal(number_of(log, "bad_lines"), 12);
    assert_string_equal(string_of(log, "first"), "2026-12-01T00:00:03.000000Z");
    assert_string_equal(string_of(login, "key"), "ip");
    assert_int_equal(number_of(login, "line"), 2);
    assert_int_equal(number_of(json_object_get(login, "limit"), "burst"), 10);
    assert_int_equal(number_of(json_object_get(login, "limit"), "block_us"), 600000000);
    assert_int_equal(number_of(login, "denied"), 1125);
    assert_int_equal(number_of(json_object_get(login, "wait_us"), "p50"), 1250000);
    json_t *timeline = json_object_get(login, "timeline"), *at_rate = json_object_get(login, "at_this_rate");
    assert_int_equal(json_array_size(json_object_get(timeline, "denied")), REPORT_TIMELINE);
    assert_int_equal(number_of(timeline, "interval_us"), 6 * RIG_MINUTE);
    assert_int_equal(number_of(json_object_get(at_rate, "needed"), "p99_9"), 213);
    assert_int_equal(json_array_size(json_object_get(at_rate, "bins")), 12);
    json_t *grid = json_object_get(login, "grid"), *row = json_array_get(json_object_get(grid, "keys_denied"), 11);
    assert_int_equal(json_array_size(row), REPORT_GRID);
    assert_int_equal(number_of(grid, "rate_at"), 3);
    json_t *choice = json_array_get(json_object_get(login, "choices"), 5);
    assert_true(json_is_true(json_object_get(choice, "suggested")));
    assert_string_equal(string_of(json_object_get(choice, "limit"), "text"), "rate: 20/min, burst: 81");
    assert_int_equal(number_of(json_object_get(login, "against"), "newly_denied"), 2);
    json_decref(root);
}

static void json_is_null_where_nothing_is_known(void **state) {
    json_t *root = json_of(rig_report()), *login = limit_of(root, RIG_LOGIN), *search = limit_of(root, RIG_SEARCH);
    (void)state;
    json_t *key = json_array_get(json_object_get(login, "top_denied"), 1);
    assert_true(json_is_null(json_object_get(key, "needed")));
    assert_true(json_is_null(json_object_get(json_object_get(search, "wait_us"), "max")));
    assert_true(json_is_null(json_object_get(search, "grid")));
    assert_true(json_is_null(json_object_get(search, "against")));
    assert_true(json_is_null(json_object_get(search, "suggestion")));
    json_decref(root);
    root = json_of(rig_one_line());
    assert_true(json_is_null(json_object_get(limit_of(root, 0), "denied")));
    assert_true(json_is_null(json_object_get(limit_of(root, 0), "limit")));
    assert_true(json_is_null(json_object_get(root, "rules_file")));
    json_decref(root);
    root = json_of(rig_empty());
    assert_true(json_is_null(json_object_get(json_object_get(root, "log"), "first")));
    json_decref(root);
}

/* Undoes the escapes of report_piece. */
static size_t unescape(char *out, const char *text) {
    size_t n = 0;
    for (; *text != '\0'; text++) {
        unsigned byte = 0;
        if (text[0] == '\\' && text[1] == 'x' && sscanf(text + 2, "%2x", &byte) == 1) {
            out[n++] = (char)byte;
            text += 3;
        } else {
            out[n++] = *text;
            if (text[0] == '\\') text++;
        }
    }
    return n;
}

static void bytes_of_a_key_can_be_restored(void **state) {
    char bytes[256], back[256], shown[2000];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)i;
    for (int ascii = 0; ascii < 2; ascii++) {
        struct rules_text text = {bytes, sizeof bytes};
        char piece[REPORT_PIECE];
        shown[0] = '\0';
        while (report_piece(&text, piece, ascii != 0))
            strcat(shown, piece);
        assert_int_equal(unescape(back, shown), sizeof bytes);
        assert_memory_equal(back, bytes, sizeof bytes);
    }
    json_t *root = json_of(rig_report());
    json_t *key = json_array_get(json_object_get(limit_of(root, RIG_LOGIN), "top_denied"), 3);
    assert_int_equal(unescape(back, string_of(key, "key")), strlen(RIG_BYTES));
    assert_memory_equal(back, RIG_BYTES, strlen(RIG_BYTES));
    json_decref(root);
}

static void sequence_that_is_not_utf8_is_escaped(void **state) {
    static const char *const wrong[] = {"\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                        "\xe2\x82", "\x80",         "\xf0\x80\x80\x80"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct rules_text text = {wrong[i], strlen(wrong[i])};
        char piece[REPORT_PIECE];
        size_t n = 0;
        while (report_piece(&text, piece, false)) {
            assert_int_equal(strncmp(piece, "\\x", 2), 0);
            n++;
        }
        assert_int_equal(n, strlen(wrong[i]));
    }
}

/* ---- CSV ---- */

static void csv_has_a_row_for_each_denied_key(void **state) {
    struct written out = written_as(rig_report(), CSV);
    size_t rows = 0;
    (void)state;
    assert_int_equal(strncmp(out.text, "limit,key,requests,denied,first_denied,last_denied,needed\r\n", 59), 0);
    for (const char *at = out.text; (at = strstr(at, "\r\n")) != NULL; at += 2)
        rows++;
    assert_int_equal(rows, 1 + 12 + 1);
    assert_has(out.text, "\"login\",\"203.0.113.7\",40000,3000,2026-12-01T14:00:00.000000Z,"
                         "2026-12-01T15:00:00.000000Z,1804\r\n");
    assert_has(out.text, "20000,1500,2026-12-01T14:01:00.000000Z,2026-12-01T15:01:00.000000Z,\r\n");
    free(out.text);
}

static void csv_cell_is_no_formula_and_keeps_its_quotes(void **state) {
    struct written out = written_as(rig_report(), CSV);
    (void)state;
    assert_has(out.text, "\"'=HYPERLINK(\"\"http://192.0.2.1\"\")\"");
    assert_has(out.text, "\"'+198.51.100.4\"");
    assert_has(out.text, "\"a\\\\b\\x1b[31m\\x0d\\x0a\\x09\\xff\\xc3(");
    free(out.text);
}

/* ---- HTML ---- */

static void html_escapes_what_comes_from_a_log(void **state) {
    struct written out = written_as(rig_report(), HTML);
    (void)state;
    assert_lacks(out.text, "<script>window.evil");
    assert_lacks(out.text, "<img");
    assert_lacks(out.text, "@BODY@");
    assert_lacks(out.text, "a<b>");
    assert_has(out.text, "&lt;/script&gt;&lt;script&gt;window.evil=1");
    assert_has(out.text, "<h2>a&lt;b&gt;</h2>");
    assert_has(out.text, "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-");
    free(out.text);
}

static void writer_reports_a_full_disk(void **state) {
    FILE *full = fopen("/dev/full", "w");
    const struct report *report = rig_report();
    (void)state;
    assert_non_null(full);
    assert_false(report_write_text(report, full, 80, false));
    assert_false(report_write_json(report, full));
    assert_false(report_write_csv(report, full));
    assert_false(report_write_html(report, full));
    fclose(full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number_has_a_comma_for_each_thousand),
        cmocka_unit_test(share_is_0_or_100_percent_only_if_it_is_exact),
        cmocka_unit_test(duration_has_its_two_largest_units),
        cmocka_unit_test(time_is_exact_to_the_microsecond_also_before_1970),
        cmocka_unit_test(limit_is_written_as_in_a_rules_file),
        cmocka_unit_test(suggested_rule_reads_as_the_same_limit_with_another_rate),
        cmocka_unit_test(rule_with_tiers_or_exempt_is_not_offered_as_whole),
        cmocka_unit_test(suggestion_without_the_option_keeps_the_rate),
        cmocka_unit_test(text_tells_first_who_would_have_been_denied),
        cmocka_unit_test(limit_that_denied_nothing_says_so),
        cmocka_unit_test(limit_that_counted_for_nothing_says_why),
        cmocka_unit_test(line_is_never_wider_than_the_page),
        cmocka_unit_test(locale_without_utf8_gets_ascii_alone),
        cmocka_unit_test(control_byte_of_a_log_never_reaches_the_terminal),
        cmocka_unit_test(wide_character_counts_as_two_columns),
        cmocka_unit_test(report_of_one_line_or_none_is_complete),
        cmocka_unit_test(burst_that_is_enough_for_more_is_told_once),
        cmocka_unit_test(empty_bins_in_a_row_are_one_line),
        cmocka_unit_test(headline_fits_one_and_all_clients),
        cmocka_unit_test(unused_one_of_many_limits_is_in_the_overview_only),
        cmocka_unit_test(hostile_name_and_note_are_escaped),
        cmocka_unit_test(many_files_are_cut),
        cmocka_unit_test(count_below_its_error_is_not_shown),
        cmocka_unit_test(json_has_each_figure_as_an_integer),
        cmocka_unit_test(json_is_null_where_nothing_is_known),
        cmocka_unit_test(bytes_of_a_key_can_be_restored),
        cmocka_unit_test(sequence_that_is_not_utf8_is_escaped),
        cmocka_unit_test(csv_has_a_row_for_each_denied_key),
        cmocka_unit_test(csv_cell_is_no_formula_and_keeps_its_quotes),
        cmocka_unit_test(html_escapes_what_comes_from_a_log),
        cmocka_unit_test(writer_reports_a_full_disk),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
