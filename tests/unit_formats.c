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

static const char *const wanted[] = {"x-api-key", "x-forwarded-for", "header:referer", "cookie", ".user.id"};

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
#define MAIN(forwarded)                                                                                                \
    "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"-\" \"u\" \"" forwarded "\""
        {.name = "main", /* of the packages of nginx */
         .lines = {MAIN("192.0.2.1, ::1"), MAIN("-"), MAIN("-"), MAIN("unknown"), MAIN("other")},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.1 u x-forwarded-for= 192.0.2.1, ::1",
                     "971211336000000s -1 GET - /a 200 10.0.0.1 u", "971211336000000s -1 GET - /a 200 10.0.0.1 u",
                     "971211336000000s -1 GET - /a 200 10.0.0.1 u x-forwarded-for= unknown",
                     "971211336000000s -1 GET - /a 200 10.0.0.1 u x-forwarded-for= other"}},
        {.name = "combined",
         .lines = {MAIN("192.0.2.1"), MAIN("request-1"), MAIN("request-2")},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.1 u", "971211336000000s -1 GET - /a 200 10.0.0.1 u",
                     "971211336000000s -1 GET - /a 200 10.0.0.1 u"}},
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
        {.name = "json (traefik)",
         .lines =
             {"{\"ClientAddr\":\"198.19.0.163:22147\",\"ClientHost\":\"198.19.0.163\",\"ClientUsername\":\"-\","
              "\"DownstreamStatus\":200,\"Duration\":3000999,\"OriginStatus\":502,\"RequestAddr\":\"shop.example\","
              "\"RequestHost\":\"shop.example\",\"RequestMethod\":\"GET\",\"RequestPath\":\"/api?a\",\"StartUTC\":"
              "\"2026-12-01T08:00:00.000551999Z\",\"request_User-Agent\":\"agent\",\"request_X-Api-Key\":\"k\","
              "\"time\":\"2026-12-01T08:00:01Z\"}"},
         .records = {"1796112000000551b 3000 GET shop.example /api?a 200 198.19.0.163 agent x-api-key= k"}},
        {.name = "json (envoy)", /* Istio's names, and those of Envoy Gateway */
         .lines =
             {"{\"start_time\":\"2026-12-01T08:00:00.000Z\",\"method\":\"GET\",\"path\":\"/a\",\"authority\":\"h\","
              "\"response_code\":200,\"response_flags\":\"-\",\"duration\":3,\"x_forwarded_for\":\"10.0.0.1\","
              "\"user_agent\":null,\"downstream_remote_address\":\"[2001:db8::1]:22147\"}",
              "{\"start_time\":\"2026-12-01T08:00:00.000Z\",\"method\":\"GET\",\"x-envoy-origin-path\":\"/a\","
              "\":authority\":\"h\",\"response_code\":200,\"duration\":3,\"x-forwarded-for\":\"1.1.1.1, 10.0.0.1\","
              "\"user-agent\":\"agent\",\"x-api-key\":\"k\"}"},
         .records =
             {"1796112000000000b 3000 GET h /a 200 2001:db8::1/128 - x-forwarded-for= 10.0.0.1",
              "1796112000000000b 3000 GET h /a 200 10.0.0.1 agent x-forwarded-for= 1.1.1.1, 10.0.0.1 x-api-key= k"}},
        {.name = "json", /* pino-http, ECS, and a container runtime before the object */
         .lines =
             {"{\"level\":30,\"time\":1796112000123,\"req\":{\"method\":\"GET\",\"url\":\"/"
              "a\",\"headers\":{\"host\":\"h\","
              "\"user-agent\":\"u\",\"x-api-key\":\"k\"},\"remoteAddress\":\"::ffff:10.0.0.1\"},\"res\":{"
              "\"statusCode\":"
              "200},\"responseTime\":12}",
              "2026-12-01T08:00:00.1Z stdout F {\"@timestamp\":\"2026-12-01T08:00:00.123Z\",\"http\":{\"request\":{"
              "\"method\":\"GET\"},\"response\":{\"status_code\":200}},\"url\":{\"path\":\"/a\",\"query\":\"b\"},"
              "\"event\":{\"duration\":12000000},\"source\":{\"ip\":\"10.0.0.1\"}}"},
         .records = {"1796112000123000 12000 GET h /a 200 10.0.0.1 u x-api-key= k",
                     "1796112000123000 12000 GET - /a?b 200 10.0.0.1 -"}},
        {.name = "json",
         .time_field = ".meta.when[1]",
         .maps = {"ip=.[\"client.addr\"]", "header:x-api-key=.k[0]", "duration_ms=took"},
         .lines = {"{\"meta\":{\"when\":[7,1796112000.5]},\"client.addr\":\"10.0.0.1\",\"k\":[\"a\",\"b\"],\"took\":12,"
                   "\"ts\":1,\"user\":{\"id\":\"u\"}}"},
         .records = {"1796112000500000 12000 - - - 0 10.0.0.1 - x-api-key= a .user.id= u"}},
        {.name = "decisions",
         .lines = {"{\"ts\": \"2026-12-01T01:02:03.123456Z\", \"allowed\": true, \"parts\": [{\"limit\": \"login\", "
                   "\"key\": \"192.0.2.1\", \"amount\": 1, \"kind\": \"take\", \"allowed\": true, \"level\": 3}, "
                   "{\"limit\": \"newer\", \"key\": \"k\", \"amount\": 5, \"kind\": \"shadow\"}]}"},
         .records = {"1796086923123456 -1 - - - 0 - - login 192.0.2.1 1 0 newer k 5 3"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void text_formats_of_proxies_are_detected(void **state) {
    static const struct example examples[] = {
        {.name = "envoy",
         .lines = {"[2016-04-15T20:17:00.310Z] \"POST /api/v1/locations HTTP/2\" 204 - 154 0 226 100 \"198.51.100.7, "
                   "10.0.35.28\" \"nsq2http\" \"cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2\" \"locations\" "
                   "\"tcp://10.0.2.1:80\"",
                   "[2016-04-15T20:17:00.310Z] \"- - -\" 0 - 0 0 - - \"-\" \"-\" \"-\" \"-\" \"-\""},
         .records = {"1460751420310000b 226000 POST locations /api/v1/locations 204 10.0.35.28 nsq2http "
                     "x-forwarded-for= 198.51.100.7, 10.0.35.28",
                     "1460751420310000b -1 - - - 0 - -"}},
        {.name = "istio",
         .lines = {"[2020-11-25T21:26:18.409Z] \"GET /status/418 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 4 4 \"-\" "
                   "\"curl/7.73.0-DEV\" \"84961386-6d84-929d-98bd-c5aee93b5c88\" \"httpbin:8000\" \"127.0.0.1:80\" "
                   "inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 "
                   "outbound_.8000_._.httpbin.foo.svc.cluster.local default"},
         .records = {"1606339578409000b 4000 GET httpbin:8000 /status/418 418 10.44.1.23 curl/7.73.0-DEV"}},
        {.name = "haproxy",
         .lines =
             {"Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in "
              "static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} \"GET /index.html "
              "HTTP/1.1\"",
              "2001:db8::1:33317 [09/Dec/2013:12:59:46.633] http-in static/<NOSRV> -1/-1/-1/-1/-1 400 187 - - PR-- "
              "1/1/0/0/0 0/0 \"<BADREQ>\"",
              "<134>Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in "
              "static/srv1 10/0/30/69/+109 200 2750 - - ---- 1/1/1/1/0 0/0 \"GET /a#22b?c=#7Bd and so on"},
         .records = {"1233922454655000b 109000 GET - /index.html 200 10.0.1.2 -",
                     "1386593986633000b -1 - - - 400 2001:db8::1/128 -",
                     "1233922454655000b 109000 GET - /a\"b?c={d and so on 200 10.0.1.2 -"}},
        {.name = "alb",
         .lines =
             {"http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 "
              "0.000 0.001 0.000 200 200 34 366 \"GET http://www.example.com:80/ HTTP/1.1\" \"curl/7.46.0\" - - "
              "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "
              "\"Root=1-58337262-36d228ad5d99923122bbe354\" \"-\" \"-\" 0 2018-07-02T22:22:48.364000Z \"forward\" "
              "\"-\" \"-\" \"10.0.0.1:80\" \"200\" \"-\" \"-\"",
              "h2 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 [2001:db8::1]:48160 - -1 -1 -1 400 "
              "- 0 0 \"- http://my-loadbalancer:80- -\" \"-\" - - - \"-\" \"-\" \"-\" - "
              "2018-07-02T22:22:48.364000Z \"-\""},
         .records = {"1530570168364000b 1000 GET www.example.com:80 / 200 192.168.131.39 curl/7.46.0",
                     "1530570168364000b -1 - - - 400 2001:db8::1/128 -"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void columns_are_found_by_their_names(void **state) {
    static const struct example examples[] = {
        {.name = "w3c (iis)",
         .lines = {"\xef\xbb\xbf#Software: Microsoft Internet Information Services 10.0", "#Version: 1.0",
                   "#Date: 2022-01-22 00:00:01",
                   "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) "
                   "cs(Referer) sc-status sc-substatus sc-win32-status time-taken",
                   "2022-01-22 00:00:01 10.142.0.2 POST /member/a.ashx pid=1&lid=2 443 d@example.com 172.69.69.207 "
                   "Mozilla/5.0+(Windows+NT+10.0) https://m.example.com/a+b 200 0 0 31",
                   "2022-01-22 00:00:01 10.142.0.2 GET / - 443 - 172.69.69.207 - - 200 0 0",
                   "#Fields: time date c-ip cs-method cs-uri-stem", "00:00:02.5 2022-01-22 ::1 GET /b"},
         .records =
             {"none", "none", "none", "none",
              "1642809601000000s 31000 POST - /member/a.ashx?pid=1&lid=2 200 172.69.69.207 Mozilla/5.0 (Windows NT "
              "10.0) referer= https://m.example.com/a b",
              "bad", "none", "1642809602500000 -1 GET - /b 0 ::1/128 -"}},
        {.name = "w3c (cloudfront)",
         .lines =
             {"#Version: 1.0",
              "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) "
              "cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol "
              "cs-bytes time-taken",
              "2015-01-28\t18:41:47\tLHR5\t4082\t195.214.31.26\tGET\te3lkfdfzknjs2t.cloudfront.net\t/a/b%2520c.jpg\t"
              "200\t-\tMozilla/5.0%20(X11)\tx=1\tsession=7\tHit\tgq6q==\twww.example.com\thttps\t154\t0.001"},
         .records =
             {"none", "none",
              "1422470507000000s 1000 GET www.example.com /a/b%2520c.jpg?x=1 200 195.214.31.26 Mozilla/5.0 (X11) "
              "cookie= session=7"}},
        {.name = "csv",
         .lines = {"# made by a script",
                   "\xef\xbb\xbftimestamp,client_ip,method,path,status,X-Api-Key,\"a \"\"note\"\"\"",
                   "2024-02-29T00:00:00Z,192.0.2.1,GET,/a,200,k1,",
                   "1709164800.5,192.0.2.1,GET,\"/a,\"\"b\"\"\",200,\"\",x", "2024-02-29T00:00:00Z,192.0.2.1,GET",
                   "2024-02-29T00:00:00Z,192.0.2.1,\"GET", "1,2,3,4,5,6,7,8"},
         .records = {"bad", "none", "1709164800000000s -1 GET - /a 200 192.0.2.1 - x-api-key= k1",
                     "1709164800500000 -1 GET - /a,\"b\" 200 192.0.2.1 -", "bad", "bad", "bad"}},
        {.name = "csv",
         .time_field = "when",
         .maps = {"ip=who", "path=what", "header:x-api-key=token"},
         .lines = {"when;who;what;token", "1709164800500;192.0.2.1;/a;k"},
         .records = {"none", "1709164800500000 -1 - - /a 0 192.0.2.1 - x-api-key= k"}},
        {.name = "tsv",
         .lines = {"time\trequest_time\tremote_addr\trequest", "1709164800\t0.5\t192.0.2.1\tGET /a HTTP/1.1"},
         .records = {"none", "1709164800000000s 500000 GET - /a 0 192.0.2.1 -"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void pasted_format_strings_are_read(void **state) {
    static const char line[] =
        "192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"-\" \"x\" 0.012 \"k\"";
    static const struct example examples[] = {
        {.name = "format string",
         .format = "log_format  main '$remote_addr - $remote_user [$time_local] \"$request\" '\n"
                   "                  '$status $body_bytes_sent \"$http_referer\" '\n"
                   "                  '\"$http_user_agent\" $request_time \"$http_x_api_key\"';",
         .lines = {line},
         .records = {"971211336000000s 12000 GET - /a 200 192.0.2.7 x x-api-key= k"}},
        {.name = "format string",
         .format = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" "
                   "\"$http_user_agent\" $request_time \"$http_x_api_key\"",
         .lines = {line,
                   "192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"-\" \"x\" 0.012 \"k\" more"},
         .records = {"971211336000000s 12000 GET - /a 200 192.0.2.7 x x-api-key= k", "bad"}},
        {.name = "format string",
         .format = "log_format j escape=json "
                   "'{\"t\":\"$msec\",\"u\":\"$scheme://$host$request_uri\",\"m\":\"$request_method\",'\n"
                   "'\"ip\":\"${remote_addr}\",\"s\":$status,\"k\":\"$http_x_api_key\",\"c\":\"$cookie_session\"}';",
         .lines = {"{\"t\":\"1380355802.123\",\"u\":\"https://h/a\\\"b\",\"m\":\"GET\",\"ip\":\"::1\",\"s\":200,\"k\":"
                   "\"\\u00e9\",\"c\":\"7\"}"},
         .records = {"1380355802123000 -1 GET h /a\"b 200 ::1/128 - x-api-key= \xc3\xa9 cookie= session=7"}},
        {.name = "format string",
         .format = "$time_iso8601|$uri$is_args$args|$remote_addr|$upstream_response_time",
         .lines = {"2013-09-28T12:10:02+04:00|/a?b=1|10.0.0.1|0.1, 0.2"},
         .records = {"1380355802000000s -1 - - /a?b=1 0 10.0.0.1 -"}},
        {.name = "format string",
         .format = "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %b \\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\" %D "
                   "\\\"%{X-Api-Key}i\\\"\" "
                   "main",
         .lines = {"10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"r\" \"u\" 1234 \"-\""},
         .records = {"971211336000000sb 1234 GET - /a 200 10.0.0.1 u referer= r"}},
        {.name = "format string", /* the example of a time with a fraction in Apache's documentation */
         .format = "%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t %a %v %m %U%q %{ms}T %400,501{X-Api-Key}i %{session}C",
         .lines = {"10/Oct/2000 13:55:36.250 -0700 ::1 h GET /a?b 12 - -",
                   "10/Oct/2000 13:55:36.250 -0700 ::1 h GET /a 12 k x"},
         .records = {"971211336250000b 12000 GET h /a?b 0 ::1/128 -",
                     "971211336250000b 12000 GET h /a 0 ::1/128 - x-api-key= k cookie= session=x"}},
        {.name = "format string",
         .format = "%{sec}t.%{usec_frac}t %h",
         .lines = {"971211336.000250 10.0.0.1"},
         .records = {"971211336000250b -1 - - - 0 10.0.0.1 -"}},
        {.name = "format string",
         .format = "%{end:usec}t %{c}a %h %V %T %% \"%!200{Host}i\"",
         .lines = {"971211336250001 10.0.0.9 10.0.0.1 h 2 % \"-\""},
         .records = {"971211336250001 2000000 - h - 0 10.0.0.1 -"}},
        {.name = "format string",
         .format = "[%START_TIME(%Y-%m-%dT%H:%M:%S%z)%] %REQ(:METHOD)% %REQ(:PATH):40% %RESPONSE_CODE% %DURATION% "
                   "%REQ(x-api-key?x-other)% %DOWNSTREAM_REMOTE_ADDRESS%",
         .lines = {"[2000-10-10T20:55:36+0000] GET /a 200 7 k 10.0.0.1:80"},
         .records = {"971211336000000sb 7000 GET - /a 200 10.0.0.1 - x-api-key= k"}},
        {.name = "combined",
         .maps = {"ip=$remote_user", "header:x-api-key=http_referer"},
         .lines = {"10.0.0.1 - 10.0.0.9, 10.0.0.2 [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"r\" \"u\""},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.2 u x-api-key= r referer= r"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void errors_name_the_place_and_the_correct_form(void **state) {
    static const char *const maps[] = {"ip=.a[", "adress=x", "ip", "ip=x"};
    static const struct {
        struct format_options options;
        const char *error;
    } cases[] = {
        {{.format = "foo"},
         "--format foo: there is no format of this name. The names are traefik, vcombined, main, combined"},
        {{.format = "$remote_addr $status"},
         "--format, column 1: the format has no time: log $time_local or $msec too"},
        {{.format = "%h %>s"}, "--format, column 1: the format has no time: log %t too"},
        {{.format = "$time_local$status"},
         "--format, column 12: nothing stands between this variable and the one before"},
        {{.format = "$time_local ${status"}, "--format, column 13: the brace is not closed: write ${name}"},
        {{.format = "$time_local $"}, "--format, column 13: no name follows the $: write $name or ${name}"},
        {{.format = "log_format x '$time_local '\n '$status$request';"}, "--format, column 38: nothing stands between"},
        {{.format = "log_format x '$time_local"}, "--format, column 14: this quote is not closed"},
        {{.format = "log_format x '$time_local' $status;"}, "--format, column 28: a quote or ; should stand here"},
        {{.format = "%h %Z %t"}, "--format, column 4: there is no directive %Z: write %h, %t, %r"},
        {{.format = "LogFormat \"%h \\\"%{X-Api-Key\\\" %t\" x"},
         "--format, column 17: the brace is not closed: write %{name}i"},
        {{.format = "%{%Q}t"}, "--format, column 1: %Q in a time cannot be read; %Y %m"},
        {{.format = "[%START_TIME"}, "--format, column 2: the operator does not end with %"},
        {{.format = "json", .time_field = ".a..b"}, "--time .a..b, column 3: write a path such as .user.id"},
        {{.format = "json", .time_field = ".a[x]"}, "--time .a[x], column 3: write a path such as .user.id"},
        {{.format = "json", .maps = maps + 0, .n_maps = 1}, "--field .a[, column 3: write a path"},
        {{.maps = maps + 1, .n_maps = 1}, "--field adress=x: write NAME=FIELD. NAME is time, ip"},
        {{.maps = maps + 2, .n_maps = 1}, "--field ip: write NAME=FIELD."},
        {{.format = "combined", .maps = maps + 3, .n_maps = 1}, "--field ip=x: the format combined has no such field"},
        {{.format = "combined", .time_field = "x"}, "--time x: the format combined has no such field"},
        {{.format = "w3c"}, "w3c: the first lines have no line #Fields:"},
        {{.format = "csv"}, "csv: none of the first lines has names of columns, with a time"},
        {{0}, "the format of these lines is not known. Name it with --format, or paste the format string"},
    };
    const struct rules_text lines[] = {{"garbage, and more", 17}, {"", 0}};
    char why[512];
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_null(format_new(&cases[i].options, lines, 2, why, sizeof why));
        if (strncmp(why, cases[i].error, strlen(cases[i].error)) != 0) fail_msg("%s\nnot %s", why, cases[i].error);
    }
    assert_null(format_new(&(struct format_options){0}, lines, 0, why, sizeof why));
    const struct rules_text object = {"{\"at\": 1796112000}", 18};
    assert_null(format_new(&(struct format_options){0}, &object, 1, why, sizeof why));
    assert_string_equal(
        why, "these objects have no time under a usual name. Name its field with --time, such as --time .created");
}

static size_t lacks(const struct format_options *options, const char *line, char *list, size_t room) {
    const struct rules_text text = text_of(line);
    char why[256];
    size_t n = 0, len = 0;
    struct format *format = format_new(options, &text, 1, why, sizeof why);
    if (format == NULL) fail_msg("%s", why);
    list[0] = '\0';
    for (; format_lacks(format, n) != NULL; n++)
        len += (size_t)snprintf(list + len, room - len, "%s ", format_lacks(format, n));
    format_free(format);
    return n;
}

static void fields_that_can_never_be_there_are_named(void **state) {
    static const char *const names[] = {"header:x-api-key", "cookie", "referer", "user-agent", "authorization"};
    const struct format_options options = {.wanted = names, .n_wanted = COUNT(names)};
    struct format_options pasted = options;
    char list[256];
    (void)state;
    lacks(&options, "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\" 200 5 \"r\" \"u\"", list,
          sizeof list);
    assert_string_equal(list, "header:x-api-key cookie authorization ");
    pasted.format = "%t %{x_api_key}i %{a}C %{Authorization}i";
    lacks(&pasted, "", list, sizeof list);
    assert_string_equal(list, "referer user-agent ");
    /* Caddy logs a field only if the request has it; but some it hides. */
    lacks(&options,
          "{\"ts\":1646861401.5,\"request\":{\"remote_ip\":\"::1\",\"headers\":{\"Authorization\":[\"REDACTED\"]}}}",
          list, sizeof list);
    assert_string_equal(list, "authorization ");
    lacks(&options, "{\"msec\":\"1.5\",\"status\":200,\"http_x_api_key\":\"\",\"http_referer\":\"\"}", list,
          sizeof list);
    assert_string_equal(list, "cookie user-agent authorization ");
}

/* A line of each format, from the tests above. */
static const char *const good_lines[] = {
    "127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326",
    "127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /a\\x22 HTTP/1.0\" 200 2326 \"r\" \"a \\\"b\\\"\"",
    "h:80 ::1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.0\" 200 2326 \"r\" \"a\"",
    "{\"ts\":1646861401.5,\"request\":{\"remote_ip\":\"::1\",\"uri\":\"/"
    "\\u00e9\",\"headers\":{\"X-Api-Key\":[\"a\",null]}}}",
    "{\"ts\": \"2026-12-01T01:02:03.123456Z\", \"parts\": [{\"limit\": \"l\", \"key\": \"k\", \"amount\": 1, \"kind\": "
    "\"take\"}]}",
    "[2016-04-15T20:17:00.310Z] \"POST /a HTTP/2\" 204 - 154 0 226 100 \"10.0.35.28\" \"u\" \"i\" \"h\" "
    "\"tcp://10.0.2.1:80\"",
    "haproxy[1]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] f b/s 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {#22} "
    "\"GET /#22\"",
    "http 2018-07-02T22:23:00.186641Z app/a 192.168.131.39:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 \"GET "
    "http://h:80/ HTTP/1.1\" \"u\" - - arn \"Root\" \"-\" \"-\" 0 2018-07-02T22:22:48.364000Z \"forward\"",
};

static void every_part_of_a_line_is_read_or_bad(void **state) {
    static struct record record;
    char why[256];
    (void)state;
    for (size_t i = 0; i < COUNT(good_lines); i++) {
        const struct rules_text line = text_of(good_lines[i]);
        const struct format_options options = {.wanted = wanted, .n_wanted = COUNT(wanted)};
        struct format *format = format_new(&options, &line, 1, why, sizeof why);
        if (format == NULL) fail_msg("%s: %s", good_lines[i], why);
        assert_int_equal(format_read(format, line, &record), FORMAT_RECORD);
        for (size_t len = 0; len < line.len; len++) {
            char *copy = malloc(len); /* AddressSanitizer sees a byte that is read behind it */
            memcpy(copy, line.bytes, len);
            const enum format_outcome outcome = format_read(format, (struct rules_text){copy, len}, &record);
            assert_true(outcome != FORMAT_BAD || strlen(format_reason(format)) > 0);
            free(copy);
            copy = strdup(line.bytes);
            copy[len] = i % 2 == 0 ? '\0' : '\xff';
            format_read(format, (struct rules_text){copy, line.len}, &record);
            free(copy);
        }
        assert_int_equal(format_read(format, line, &record), FORMAT_RECORD);
        format_free(format);
    }
}

static void field_of_a_megabyte_is_decoded_whole(void **state) {
    static struct record record;
    enum { LEN = 1024 * 1024 };
    const struct rules_text sample = text_of(good_lines[1]);
    char why[256], *line = malloc(8 * LEN), *at = line;
    struct format *format = format_new(&(struct format_options){0}, &sample, 1, why, sizeof why);
    (void)state;
    at += sprintf(at, "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /");
    for (int i = 0; i < LEN; i++)
        at += sprintf(at, "\\xff");
    at += sprintf(at, " HTTP/1.1\" 200 1 \"-\" \"\\\"\"");
    assert_non_null(format);
    assert_int_equal(format_read(format, (struct rules_text){line, (size_t)(at - line)}, &record), FORMAT_RECORD);
    assert_int_equal(record.target.len, LEN + 1);
    assert_int_equal((unsigned char)record.target.bytes[LEN], 0xff);
    assert_int_equal(record.user_agent.len, 1);
    memset(line, '"', 4 * LEN);
    assert_int_equal(format_read(format, (struct rules_text){line, 4 * LEN}, &record), FORMAT_BAD);
    memset(line, '\\', 4 * LEN);
    assert_int_equal(format_read(format, (struct rules_text){line, 4 * LEN}, &record), FORMAT_BAD);
    free(line);
    format_free(format);
}

static void lines_in_envelopes_are_found(void **state) {
#define INSIDE "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "
    static const struct example examples[] = {
        {.name = "combined in docker",
         .lines = {"{\"log\":\"10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \\\"GET /\\\\x22 HTTP/1.1\\\" 200 5 \\\"-\\\" "
                   "\\\"u\\\"\\n\","
                   "\"stream\":\"stdout\",\"time\":\"2000-10-10T20:55:36.1Z\"}",
                   "{\"log\":\"starting\\n\",\"stream\":\"stderr\",\"time\":\"2000-10-10T20:55:36.1Z\"}",
                   "{\"log\":\"x"},
         .records = {"971211336000000s -1 GET - /\" 200 10.0.0.1 u", "bad", "bad"}},
        {.name = "json in docker",
         .lines = {"{\"log\":\"{\\\"ts\\\":1646861401.5,\\\"path\\\":\\\"/"
                   "\\\\u00e9\\\"}\\r\\n\",\"stream\":\"stdout\",\"time\":\"x\"}"},
         .records = {"1646861401500000 -1 - - /\xc3\xa9 0 - -"}},
        {.name = "common in cri",
         .lines = {"2016-10-06T00:17:09.669794202Z stdout F " INSIDE "\"GET /a HTTP/1.1\" 200 5",
                   "2016-10-06T00:17:09.669794202Z stderr F starting"},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.1 -", "bad"}},
        {.name = "common in compose",
         .lines = {"web-1    | " INSIDE "\"GET /a HTTP/1.1\" 200 5", "db-1     | ready"},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.1 -", "bad"}},
        {.name = "common in syslog",
         .lines = {"<190>Oct 10 13:55:36 host nginx: " INSIDE "\"GET /a HTTP/1.1\" 200 5",
                   "Oct  1 13:55:36 host nginx[7]: " INSIDE "\"GET /b HTTP/1.1\" 200 5",
                   "2000-10-10T13:55:36-07:00 host nginx: " INSIDE "\"GET /c HTTP/1.1\" 200 5",
                   "<190>1 2000-10-10T13:55:36Z host nginx 7 - - " INSIDE "\"GET /d HTTP/1.1\" 200 5"},
         .records = {"971211336000000s -1 GET - /a 200 10.0.0.1 -", "971211336000000s -1 GET - /b 200 10.0.0.1 -",
                     "971211336000000s -1 GET - /c 200 10.0.0.1 -", "971211336000000s -1 GET - /d 200 10.0.0.1 -"}},
        {.name = "format string in compose",
         .format = "%h %t \"%r\"",
         .lines = {"web | 10.0.0.1 [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.1\""},
         .records = {"971211336000000sb -1 GET - /a 0 10.0.0.1 -"}},
    };
    (void)state;
    CHECK_ALL(examples);
}

static void name_of_a_server_chooses_its_format_by_the_lines(void **state) {
    static const struct {
        const char *name, *line, *found;
    } cases[] = {
        {"traefik", "{\"StartUTC\":\"2026-12-01T08:00:00Z\",\"DownstreamStatus\":200}", "json (traefik)"},
        {"traefik", "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700]", "traefik"},
        {"Caddy", "{\"ts\":1646861401.5,\"request\":{\"remote_ip\":\"::1\"}}", "json (caddy)"},
        {"iis", "#Fields: date time c-ip sc-win32-status", "w3c (iis)"},
        {"cloudfront", "#Fields: date time x-edge-location", "w3c (cloudfront)"},
        {"nginx", "", "combined"},
    };
    char why[256];
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct rules_text line = text_of(cases[i].line);
        struct format *format =
            format_new(&(struct format_options){.format = cases[i].name}, &line, 1, why, sizeof why);
        if (format == NULL) fail_msg("%s: %s", cases[i].name, why);
        assert_string_equal(format_name(format), cases[i].found);
        format_free(format);
    }
}

static void format_of_most_lines_is_taken(void **state) {
    static const char *const log[] = {
        "",
        "Starting up ...",
        "127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326",
        "{\"level\":\"info\"}",
        "::1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 2 \"r\" \"a\"",
        "::1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 2 \"r\" \"a\""};
    struct rules_text lines[COUNT(log)];
    char why[256];
    (void)state;
    for (size_t i = 0; i < COUNT(log); i++)
        lines[i] = text_of(log[i]);
    struct format *format = format_new(&(struct format_options){0}, lines, COUNT(log), why, sizeof why);
    assert_non_null(format);
    assert_string_equal(format_name(format), "common"); /* it reads COMBINED too */
    format_free(format);
    format = format_new(&(struct format_options){0}, lines + 3, COUNT(log) - 3, why, sizeof why);
    assert_non_null(format);
    assert_string_equal(format_name(format), "combined");
    format_free(format);
}

static void known_formats_can_be_named(void **state) {
    char why[256];
    size_t n = 0;
    (void)state;
    for (; format_known_name(n) != NULL; n++) {
        const struct format_options options = {.format = format_known_name(n)};
        assert_true(strlen(format_known_text(n)) > 0);
        struct format *format = format_new(&options, NULL, 0, why, sizeof why);
        /* W3C and columns need their line of names. */
        if (format == NULL) assert_non_null(strstr(why, "the first lines"));
        format_free(format);
    }
    assert_true(n > 10);
    assert_null(format_known_text(n));
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
        cmocka_unit_test(text_formats_of_proxies_are_detected),
        cmocka_unit_test(columns_are_found_by_their_names),
        cmocka_unit_test(pasted_format_strings_are_read),
        cmocka_unit_test(errors_name_the_place_and_the_correct_form),
        cmocka_unit_test(fields_that_can_never_be_there_are_named),
        cmocka_unit_test(every_part_of_a_line_is_read_or_bad),
        cmocka_unit_test(field_of_a_megabyte_is_decoded_whole),
        cmocka_unit_test(lines_in_envelopes_are_found),
        cmocka_unit_test(name_of_a_server_chooses_its_format_by_the_lines),
        cmocka_unit_test(format_of_most_lines_is_taken),
        cmocka_unit_test(known_formats_can_be_named),
        cmocka_unit_test(broken_json_is_a_bad_line),
    };
    return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
