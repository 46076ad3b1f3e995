/* SPDX-License-Identifier: MIT
 * Formats of logs: lines of each, as its documentation writes them, and the records that they have to become. */
#include <stdlib.h>

#include "support.h"

#include "replay/format.h"

enum { LINES_MAX = 8, MAPS_MAX = 3 };

/* A log, and its records: TIME[s][b] DURATION METHOD HOST TARGET STATUS ADDRESS AGENT, then fields and parts. s: the
 * time is a whole second; b: it is that of the beginning; -: not known. Instead of a record: "none" or "bad". */
struct example {
    const char *name;   /* of the format that is found */
    const char *format; /* NULL: it is detected */
    const char *lines[LINES_MAX], *records[LINES_MAX];
    const char *time_field, *maps[MAPS_MAX];
};

static const char *const wanted[] = {"x-api-key", "header:referer", "cookie", ".user.id"};

static size_t put(char *out, size_t room, size_t len, struct rules_text text) {
    if (text.len == 0) return len + (size_t)snprintf(out + len, room - len, " -");
    return len + (size_t)snprintf(out + len, room - len, " %.*s", (int)text.len, text.bytes);
}

static const char *shown(const struct record *record) {
    static char out[2048];
    const size_t room = sizeof out;
    char address[STEADY__ADDRESS_KEY_MAX];
    size_t len = (size_t)snprintf(out, room, "%lld%s%s %lld", (long long)record->time, record->whole_second ? "s" : "",
                                  record->at_begin ? "b" : "", (long long)record->duration);
    len = put(out, room, len, record->method);
    len = put(out, room, len, record->host);
    len = put(out, room, len, record->target);
    len += (size_t)snprintf(out + len, room - len, " %d", record->status);
    const size_t n = record->has_address ? steady__address_key(address, &record->address, 128) : 0;
    len = put(out, room, len, (struct rules_text){address, n});
    len = put(out, room, len, record->user_agent);
    for (size_t i = 0; i < record->n_fields; i++) {
        len = put(out, room, len, record->fields[i].name);
        out[len++] = '=';
        len = put(out, room, len, record->fields[i].value);
    }
    for (size_t i = 0; i < record->n_parts; i++) {
        len = put(out, room, len, record->parts[i].limit);
        len = put(out, room, len, record->parts[i].key);
        len += (size_t)snprintf(out + len, room - len, " %lld %d", (long long)record->parts[i].amount,
                                (int)record->parts[i].kind);
    }
    return out;
}

static struct rules_text text_of(const char *text) { return (struct rules_text){text, strlen(text)}; }

static size_t count(const char *const *list, size_t most) {
    size_t n = 0;
    while (n < most && list[n] != NULL)
        n++;
    return n;
}

static void check(const struct example *example) {
    struct rules_text lines[LINES_MAX] = {0};
    static struct record record;
    char why[512];
    const size_t n = count(example->lines, LINES_MAX);
    const struct format_options options = {.format = example->format,
                                           .time_field = example->time_field,
                                           .maps = example->maps,
                                           .n_maps = count(example->maps, MAPS_MAX),
                                           .wanted = wanted,
                                           .n_wanted = COUNT(wanted)};
    for (size_t i = 0; i < n; i++)
        lines[i] = text_of(example->lines[i]);
    struct format *format = format_new(&options, lines, n, why, sizeof why);
    if (format == NULL) fail_msg("%s: %s", example->name, why);
    assert_string_equal(format_name(format), example->name);
    for (size_t i = 0; i < n; i++) {
        /* The bytes behind the line are not there. */
        char *copy = malloc(lines[i].len);
        memcpy(copy, lines[i].bytes, lines[i].len);
        const enum format_outcome outcome = format_read(format, (struct rules_text){copy, lines[i].len}, &record);
        const char *found = outcome == FORMAT_RECORD ? shown(&record) : outcome == FORMAT_BAD ? "bad" : "none";
        if (strcmp(found, example->records[i]) != 0)
            fail_msg("%s, %s\n  %s\nis %s %s\nnot %s", example->name, example->lines[i], "", found,
                     outcome == FORMAT_BAD ? format_reason(format) : "", example->records[i]);
        free(copy);
    }
    format_free(format);
}

#define CHECK_ALL(examples)                                                                                            \
    for (size_t i = 0; i < COUNT(examples); i++)                                                                       \
    check(&(examples)[i])

static void common_and_combined_are_detected(void **state) {
    static const struct example examples[] = {
        {.name = "common",
         .lines = {"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326",
                   "::1 - - [10/Oct/2000:13:55:36 -0700] \"-\" 408 -"},
         .records = {"971211336000000s -1 GET - /apache_pb.gif 200 127.0.0.1 -",
                     "971211336000000s -1 - - - 408 ::1/128 -"}},
        {.name = "combined",
         .lines = {"garbage",
                   "127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326 "
                   "\"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"",
                   "", "\xef\xbb\xbf"},
         .records = {"bad",
                     "971211336000000s -1 GET - /apache_pb.gif 200 127.0.0.1 Mozilla/4.08 [en] (Win98; I ;Nav) "
                     "referer= http://www.example.com/start.html",
                     "none", "none"}},
        {.name = "combined", /* a user with a space, an agent with a quote, a name instead of an address */
         .lines = {"host.example.com - John Doe [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 1 \"-\" "
                   "\"a \\\"b\\\" \\\\\"",
                   "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a\\x22b\\xC3\\xA9?c HTTP/1.1\" 200 1 \"-\" \"-\"",
                   "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"\\x16\\x03\\x01\" 400 1 \"-\" \"-\"",
                   "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET http://Example.com HTTP/1.1\" 200 1 \"-\" \"-\"",
                   "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a b HTTP/1.1\" 200 1 \"-\" \"-\" \"10.1.1.1\""},
         .records = {"971211336000000s -1 GET - /a 200 - a \"b\" \\",
                     "971211336000000s -1 GET - /a\"b\xc3\xa9?c 200 10.0.0.1 -",
                     "971211336000000s -1 - - - 400 10.0.0.1 -", "971211336000000s -1 GET Example.com / 200 10.0.0.1 -",
                     "971211336000000s -1 GET - /a b 200 10.0.0.1 -"}},
        {.name = "vcombined",
         .lines =
             {"www.example.com:443 2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1 \"-\" \"x\""},
         .records = {"971211336000000s -1 GET www.example.com / 200 2001:db8::1/128 x"}},
        {.name = "traefik",
         .lines =
             {"10.0.0.1 - - [10/Oct/2000:20:55:36 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"curl\" 7 \"web@docker\" "
              "\"http://10.0.0.2:80\" 12ms"},
         .records = {"971211336000000sb 12000 GET - /a 200 10.0.0.1 curl"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void json_of_servers_is_detected(void **state) {
    static const struct example examples[] = {
        {.name = "json (caddy)",
         .lines =
             {"{\"level\":\"info\",\"ts\":1646861401.5241029,\"logger\":\"http.log.access\",\"msg\":\"handled "
              "request\",\"request\":{\"remote_ip\":\"127.0.0.1\",\"remote_port\":\"41342\",\"client_ip\":"
              "\"127.0.0.1\",\"proto\":\"HTTP/2.0\",\"method\":\"GET\",\"host\":\"localhost\",\"uri\":\"/\","
              "\"headers\":{\"User-Agent\":[\"curl/7.82.0\"],\"X-Api-Key\":[\"a\",\"b\"],\"Cookie\":[\"REDACTED\"]},"
              "\"tls\":{\"resumed\":false,\"version\":772}},\"bytes_read\":0,\"user_id\":\"\",\"duration\":"
              "0.000929675,\"size\":10900,\"status\":200,\"resp_headers\":{\"Server\":[\"Caddy\"]}}",
              "{\"level\":\"info\",\"ts\":1646861401.6,\"logger\":\"admin\",\"msg\":\"stopped\"}"},
         .records = {"1646861401524102 929 GET localhost / 200 127.0.0.1 curl/7.82.0 x-api-key= a x-api-key= b",
                     "none"}},
        {.name = "json (nginx)",
         .lines =
             {"{\"time_local\":\"10/Oct/2000:13:55:36 -0700\",\"msec\":\"971211336.500\",\"remote_addr\":\"1.2.3.4\","
              "\"request\":\"GET /x\\u00e9\\\"\\\\ HTTP/1.1\",\"status\": 200,\"request_time\":\"0.012\","
              "\"http_x_api_key\":\"\\ud83d\\ude00 \\ud83d\",\"user\":{\"id\":42}}"},
         .records =
             {"971211336500000 12000 GET - /x\xc3\xa9\"\\ 200 1.2.3.4 - x-api-key= \xf0\x9f\x98\x80 \xef\xbf\xbd "
              ".user.id= 42"}},
        {.name = "decisions",
         .lines = {"{\"ts\": \"2026-12-01T01:02:03.123456Z\", \"allowed\": true, \"parts\": [{\"limit\": \"login\", "
                   "\"key\": \"192.0.2.1\", \"amount\": 1, \"kind\": \"take\", \"allowed\": true, \"level\": 3}, "
                   "{\"limit\": \"newer\", \"key\": \"k\", \"amount\": 5, \"kind\": \"shadow\"}]}"},
         .records = {"1796086923123456 -1 - - - 0 - - login 192.0.2.1 1 0 newer k 5 3"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void broken_json_is_a_bad_line(void **state) {
    static const char *const broken[] = {
        "{",
        "{}}",
        "{\"ts\"}",
        "{\"ts\":}",
        "{\"ts\":1,}",
        "{\"ts\":1 \"status\":200}",
        "{\"ts\":[1,2}",
        "{\"ts\":\"1",
        "{\"ts\":\"1\\\"}",
        "{\"ts\":tru,\"status\":200}",
        "{\"ts\":\"yesterday\",\"status\":200}",
        "{\"status\":200}",
        "[1]",
        "no object",
    };
    const struct rules_text good = text_of("{\"ts\":1646861401,\"status\":200}");
    static struct record record;
    char why[256], deep[400];
    struct format *format = format_new(&(struct format_options){0}, &good, 1, why, sizeof why);
    (void)state;
    assert_non_null(format);
    assert_int_equal(format_read(format, good, &record), FORMAT_RECORD);
    for (size_t i = 0; i < COUNT(broken); i++) {
        if (format_read(format, text_of(broken[i]), &record) != FORMAT_BAD) fail_msg("%s is not bad", broken[i]);
        assert_true(strlen(format_reason(format)) > 0);
    }
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"a\":", 5);
    assert_int_equal(format_read(format, (struct rules_text){deep, sizeof deep}, &record), FORMAT_BAD);
    assert_string_equal(format_reason(format), "objects are nested too deeply");
    format_free(format);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(common_and_combined_are_detected),
        cmocka_unit_test(json_of_servers_is_detected),
        cmocka_unit_test(broken_json_is_a_bad_line),
    };
    return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
