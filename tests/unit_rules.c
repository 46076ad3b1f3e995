/* SPDX-License-Identifier: MIT
 * Which limits count for a request, and by what keys. tests/test_rules.py has the rules files that are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "rules/pattern.h"
#include "rules/rules.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct rules_text text_of(const char *text) {
    return (struct rules_text){text, text != NULL ? strlen(text) : 0};
}

static struct rules *rules_of(const char *yaml) {
    struct rules_error error;
    struct rules *rules = rules_read_text("test", yaml, strlen(yaml), &error);
    if (rules == NULL) fail_msg("%s", error.text);
    return rules;
}

struct asked {
    const char *method, *target, *host, *ip;
    const char *fields;  /* "name: value\n..." */
    const char *entries; /* "key=value\n..." */
};

static size_t split(struct rules_field *out, const char *lines, char separator) {
    size_t n = 0;
    for (const char *at = lines; at != NULL && *at != '\0'; n++) {
        const size_t len = strcspn(at, "\n");
        const char *to = memchr(at, separator, len);
        assert_non_null(to);
        out[n].name = (struct rules_text){at, (size_t)(to - at)};
        out[n].value = (struct rules_text){to + 1, len - (size_t)(to - at) - 1};
        at += len + (at[len] == '\n');
    }
    return n;
}

/* "NAME=KEY NAME=KEY", "exempt", "" or "refused: why". */
static const char *matched(const struct rules *rules, const struct asked *asked) {
    static struct rules_match match;
    static char out[sizeof match.keys];
    struct rules_field fields[128], entries[16];
    struct steady__address ip;
    struct rules_request request = {.method = text_of(asked->method),
                                    .target = text_of(asked->target),
                                    .host = text_of(asked->host),
                                    .fields = fields,
                                    .n_fields = split(fields, asked->fields, ':'),
                                    .entries = entries,
                                    .n_entries = split(entries, asked->entries, '=')};
    if (asked->ip != NULL && steady__address_parse(&ip, asked->ip, strlen(asked->ip))) request.ip = &ip;
    if (rules_match(&match, rules, &request) == RULES_REFUSED) {
        snprintf(out, sizeof out, "refused: %s", match.reason.text);
        return out;
    }
    size_t len = 0;
    strcpy(out, match.exempt ? "exempt" : "");
    for (size_t i = 0; i < match.n_parts; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%s=%.*s", i > 0 ? " " : "", match.parts[i].limit->name,
                                (int)match.parts[i].key_len, match.keys + match.parts[i].key_at);
    return out;
}

#define MATCHED(rules, ...) matched(rules, &(struct asked){__VA_ARGS__})

/* ---- Patterns ---- */

static void a_star_matches_any_bytes(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool matches;
    } all[] = {{"", "", true},         {"", "a", false},
               {"a", "", false},       {"*", "", true},
               {"*", "abc", true},     {"**", "", true},
               {"a*", "a", true},      {"a*", "ba", false},
               {"*a", "ba", true},     {"*a", "ab", false},
               {"a*c", "abc", true},   {"a*c", "ac", true},
               {"a*c", "acb", false},  {"a*b*c", "aXbYc", true},
               {"a*b*c", "ac", false}, {"*ab", "aab", true},
               {"*a*", "bab", true},   {"*aab", "aaab", true},
               {"a*a", "a", false},    {"?", "a", false},
               {"[ab]", "a", false},   {"/api/*/x", "/api//x", true},
               {"a.c", "abc", false},  {"A", "a", false}};
    for (size_t i = 0; i < COUNT(all); i++)
        if (pattern_matches(all[i].pattern, text_of(all[i].text), false) != all[i].matches)
            fail_msg("\"%s\" and \"%s\"", all[i].pattern, all[i].text);
    assert_true(pattern_matches("Ab*", text_of("aBc"), true));
}

/* A NUL byte of the text is no end of the pattern. */
static void a_nul_byte_matches_a_star_only(void **state) {
    (void)state;
    char *pattern = strdup("ab"), *star = strdup("a*b"); /* so that AddressSanitizer sees a read behind them */
    assert_false(pattern_matches(pattern, (struct rules_text){"ab\0c", 4}, false));
    assert_false(pattern_matches(pattern, (struct rules_text){"ab\0", 3}, true));
    assert_true(pattern_matches(star, (struct rules_text){"a\0b", 3}, false));
    free(pattern);
    free(star);
}

static void many_stars_take_no_exponential_time(void **state) {
    (void)state;
    char text[4000];
    memset(text, 'a', sizeof text);
    assert_false(pattern_matches("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", (struct rules_text){text, sizeof text}, true));
}

/* ---- Paths ---- */

static void every_spelling_of_a_path_matches(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, match: { path: /login }, rate: 1/s }]");
    static const char *const same[] = {"/login",
                                       "/login/",
                                       "/login//",
                                       "/LOGIN",
                                       "/Login?x=1",
                                       "/login#x",
                                       "/login?",
                                       "/%6cogin",
                                       "/%6Cogin",
                                       "/log%69n/",
                                       "//login",
                                       "///login",
                                       "/./login",
                                       "/login/.",
                                       "/x/../login",
                                       "/x/..//login",
                                       "/../login",
                                       "/login/x/..",
                                       "/%2e/login",
                                       "/x/%2e%2E/login",
                                       "/x%2f..%2flogin",
                                       "/%2flogin",
                                       "%2flogin",
                                       "/login%2f",
                                       "/login;jsessionid=1",
                                       "/login;",
                                       "/;x/login",
                                       "/x/..;/login",
                                       "/x;y=/../login",
                                       "/login/;x",
                                       "login",
                                       "http://h/login",
                                       "http://h:80/login?x",
                                       "https://h//login",
                                       "/.\\login",
                                       "\\login",
                                       "/x\\..\\login",
                                       "//host/login",
                                       "/login//..",
                                       "/login//../",
                                       "/login/x/./.."};
    static const char *const others[] = {"",           "/",         "/logi",     "/login2",   "/login/x",  "/x/login",
                                         "/%256cogin", "/login%00", "/login%20", "/lögin",    "/x?/login", "/x#/login",
                                         "*",          "?/login",   "/login/..", "/login%3f", "/login.",   "/login%"};
    for (size_t i = 0; i < COUNT(same); i++)
        if (strcmp(MATCHED(rules, .target = same[i], .ip = "192.0.2.1"), "a=192.0.2.1") != 0)
            fail_msg("%s is not /login", same[i]);
    for (size_t i = 0; i < COUNT(others); i++)
        if (*MATCHED(rules, .target = others[i], .ip = "192.0.2.1") != '\0') fail_msg("%s is /login", others[i]);
    rules_free(rules);
}

/* Some servers resolve "..", others do not. So a pattern cannot be passed in either way. */
static void an_unusual_path_matches_in_each_reading(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits:\n"
                                   "  - { name: api, match: { path: '/api/*' }, rate: 1/s }\n"
                                   "  - { name: exact, match: { path: /a%2fb }, rate: 1/s }\n"
                                   "  - { name: slash, match: { path: /dir/ }, rate: 1/s }\n"
                                   "  - { name: root, match: { path: / }, rate: 1/s }\n");
    static const struct {
        const char *target, *limits;
    } all[] = {{"/api/x", "api=k"},
               {"/api", "api=k"},
               {"/api/", "api=k"},
               {"/apix", ""},
               {"/api/..", "api=k root=k"},
               {"/api/x/../../y", "api=k"},
               {"/api/%2e%2e/y", "api=k"},
               {"/api/..;/y", "api=k"},
               {"/api%2fx", "api=k"},
               {"/api%2f..%2fy", "api=k"},
               {"/x/../api/y", "api=k"},
               {"/a%2fb", "exact=k"},
               {"/A%2FB", "exact=k"},
               {"/a/b", ""},
               {"/dir", "slash=k"},
               {"/dir/", "slash=k"},
               {"/%64ir/..;/..", "slash=k root=k"},
               {"/", "root=k"},
               {"//", "root=k"},
               {"http://h", "root=k"},
               {"http://h?x", "root=k"},
               {"?x", "root=k"},
               {"", ""}};
    for (size_t i = 0; i < COUNT(all); i++) {
        char wanted[80];
        const char *found = MATCHED(rules, .target = all[i].target, .ip = "192.0.2.1");
        size_t len = 0;
        for (const char *c = all[i].limits; *c != '\0'; c++)
            len += (size_t)snprintf(wanted + len, sizeof wanted - len, *c == 'k' ? "192.0.2.1" : "%c", *c);
        wanted[len] = '\0';
        if (strcmp(found, wanted) != 0) fail_msg("%s: \"%s\", not \"%s\"", all[i].target, found, wanted);
    }
    rules_free(rules);
}

static void the_path_of_a_key_has_one_form(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, key: path, rate: 1/s }]");
    static const char *const pairs[][2] = {{"/a/b", "a=/a/b"},
                                           {"/A/b/", "a=/a/b"},
                                           {"//a///b", "a=/a/b"},
                                           {"/a/./b?q", "a=/a/b"},
                                           {"/a/x/../b", "a=/a/b"},
                                           {"/a;v=1/b;w", "a=/a/b"},
                                           {"/%61/%62", "a=/a/b"},
                                           {"/a%2Fb", "a=/a/b"},
                                           {"http://h/a/b", "a=/a/b"},
                                           {"/a/b+c", "a=/a/b%2Bc"},
                                           {"/a/{b}", "a=/a/%7Bb%7D"},
                                           {"/a%25", "a=/a%25"},
                                           {"/a%252f", "a=/a%252f"},
                                           {"/a%00b", "a=/a%2500b"},
                                           {"/%zz", "a=/%25zz"},
                                           {"/", "a=/"},
                                           {"/..", "a=/"},
                                           {"http://h", "a=/"},
                                           {"", "a=+192.0.2.1"}};
    for (size_t i = 0; i < COUNT(pairs); i++)
        assert_string_equal(MATCHED(rules, .target = pairs[i][0], .ip = "192.0.2.1"), pairs[i][1]);
    rules_free(rules);
}

static void a_path_that_is_too_long_is_refused_if_a_limit_reads_it(void **state) {
    (void)state;
    struct rules *by_path = rules_of("limits: [{ name: a, match: { path: '/api/*' }, rate: 1/s }]");
    struct rules *by_ip = rules_of("limits: [{ name: a, rate: 1/s }]");
    static char target[RULES_PATH_MAX + 1000];
    memset(target, 'x', sizeof target);
    memcpy(target, "/api/", 5);
    target[sizeof target - 1] = '\0';
    assert_non_null(strstr(MATCHED(by_path, .target = target), "refused: the path"));
    assert_string_equal(MATCHED(by_ip, .target = target, .ip = "192.0.2.1"), "a=192.0.2.1");
    target[RULES_PATH_MAX] = '\0';
    assert_string_equal(MATCHED(by_path, .target = target, .ip = "192.0.2.1"), "a=192.0.2.1");
    for (size_t i = 5; i + 3 < sizeof target; i += 2) /* its normal form is short, but not every reading is */
        memcpy(target + i, "./", 3);
    assert_non_null(strstr(MATCHED(by_path, .target = target), "refused: the path"));
    rules_free(by_path);
    rules_free(by_ip);
}

/* ---- Conditions ---- */

static void each_kind_of_condition_matches_what_it_names(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits:\n"
                                   "  - { name: method, match: { method: [GET, POST] }, rate: 1/s }\n"
                                   "  - { name: host, match: { host: '*.Example.com' }, rate: 1/s }\n"
                                   "  - { name: ip, match: { ip: [10.0.0.0/8, '2001:db8::/32'] }, rate: 1/s }\n"
                                   "  - { name: header, match: { header: { X-Kind: [slow, 'very *'] } }, rate: 1/s }\n"
                                   "  - { name: query, match: { query: { 'a b': 'x*' } }, rate: 1/s }\n"
                                   "  - { name: cookie, match: { cookie: { s: v } }, rate: 1/s }\n"
                                   "  - { name: both, match: { method: PUT, path: /p }, rate: 1/s }\n");
    static const struct {
        struct asked asked;
        const char *limit;
    } all[] = {
        {{.method = "GET"}, "method"},
        {{.method = "POST"}, "method"},
        {{.method = "HEAD"}, "method"}, /* it is answered as GET */
        {{.method = "get"}, "method"},
        {{.method = "DELETE"}, ""},
        {{.method = "GETS"}, ""},
        {{.host = "a.example.com"}, "host"},
        {{.host = "A.EXAMPLE.COM:8080"}, "host"},
        {{.host = "a.example.com."}, "host"},
        {{.host = "a.example.com.:80"}, "host"},
        {{.host = "example.com"}, ""},
        {{.host = "a.example.com.evil"}, ""},
        {{.ip = "10.255.0.1"}, "ip"},
        {{.ip = "::ffff:10.0.0.1"}, "ip"},
        {{.ip = "11.0.0.1"}, ""},
        {{.ip = "2001:db8:ffff::1"}, "ip"},
        {{.ip = "2001:db9::1"}, ""},
        {{.fields = "x-kind: slow"}, "header"},
        {{.fields = "X-KIND:slow"}, "header"},
        {{.fields = "x-kind: \tslow "}, "header"},
        {{.fields = "x-kind: very slow"}, "header"},
        {{.fields = "x-kind: Slow"}, ""},
        {{.fields = "x-kind: slow2"}, ""},
        {{.fields = "x-kinds: slow"}, ""},
        {{.fields = "x-kind: other\nx-kind: slow"}, "header"}, /* a second value passes no limit */
        {{.target = "/?a+b=x1"}, "query"},
        {{.target = "/?a%20b=x"}, "query"},
        {{.target = "/?%61+b=%78"}, "query"},
        {{.target = "/?c=1&a+b=y&a+b=x"}, "query"},
        {{.target = "/?a+b=y"}, ""},
        {{.target = "/?ab=x"}, ""},
        {{.target = "/?a+b"}, ""},
        {{.target = "/a+b=x"}, ""},
        {{.target = "/#?a+b=x"}, ""},
        {{.fields = "cookie: s=v"}, "cookie"},
        {{.fields = "Cookie: t=1; s=v; u=2"}, "cookie"},
        {{.fields = "cookie: t=1\ncookie: s=v"}, "cookie"},
        {{.fields = "cookie: s=w; s=v"}, "cookie"},
        {{.fields = "cookie: s=\"v\""}, "cookie"},
        {{.fields = "cookie: s=%76"}, "cookie"},
        {{.fields = "cookie: s=\"\\166\""}, "cookie"},
        {{.fields = "cookie: S=v"}, ""},
        {{.fields = "x: s=v"}, ""},
        {{.method = "PUT", .target = "/p"}, "both"},
        {{.method = "PUT", .target = "/q"}, ""},
        {{.method = "DELETE", .target = "/p"}, ""},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        const char *found = matched(rules, &all[i].asked);
        const size_t len = strcspn(found, "=");
        if (len != strlen(all[i].limit) || memcmp(found, all[i].limit, len) != 0 || strchr(found, ' ') != NULL)
            fail_msg("case %zu: \"%s\", not \"%s\"", i, found, all[i].limit);
    }
    rules_free(rules);
}

static void a_request_is_exempt_by_address_or_by_a_single_header(void **state) {
    (void)state;
    struct rules *rules =
        rules_of("exempt: { ip: [192.0.2.0/24], header: { x-free: 'yes' }, trusted_header: true }\n"
                 "limits:\n"
                 "  - { name: a, rate: 1/s, exempt: { ip: 198.51.100.1 } }\n"
                 "  - { name: b, rate: 1/s, exempt: { header: { x-b: '*' }, trusted_header: true } }\n");
    assert_string_equal(MATCHED(rules, .ip = "192.0.2.9"), "exempt");
    assert_string_equal(MATCHED(rules, .ip = "203.0.113.1", .fields = "x-free: yes"), "exempt");
    assert_string_equal(MATCHED(rules, .ip = "203.0.113.1", .fields = "x-free: no"), "a=203.0.113.1 b=203.0.113.1");
    assert_string_equal(MATCHED(rules, .ip = "203.0.113.1", .fields = "x-free: yes\nx-free: yes"),
                        "a=203.0.113.1 b=203.0.113.1");
    assert_string_equal(MATCHED(rules, .ip = "198.51.100.1"), "b=198.51.100.1");
    assert_string_equal(MATCHED(rules, .ip = "203.0.113.1", .fields = "x-b: 1"), "a=203.0.113.1");
    assert_string_equal(MATCHED(rules, .target = "/"), "a=unknown b=unknown");
    rules_free(rules);
}

/* ---- Keys ---- */

static void a_key_has_the_parts_that_it_names(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, rate: 1/s,"
                                   " key: 'ip/48+header:H+cookie:c+query:q+path+host+method' }]");
    assert_string_equal(MATCHED(rules, .ip = "2001:db8:1:2::3", .method = "post", .target = "/P/?q=%31",
                                .host = "Ex.Com:80", .fields = "h: v\ncookie: c=\"d\""),
                        "a=2001:db8:1::/48+v+d+1+/p+ex.com+POST");
    rules_free(rules);
}

static void an_address_is_a_key_by_its_network(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, rate: 1/s }, { name: b, rate: 1/s, key: ip/128 }]");
    assert_string_equal(MATCHED(rules, .ip = "2001:db8:1:2:3::4"), "a=2001:db8:1:2::/64 b=2001:db8:1:2:3::4/128");
    assert_string_equal(MATCHED(rules, .ip = "::ffff:192.0.2.1"), "a=192.0.2.1 b=192.0.2.1");
    assert_string_equal(MATCHED(rules, .ip = "64:ff9b::192.0.2.1"), "a=192.0.2.1 b=192.0.2.1");
    rules_free(rules);
}

/* Different values never make the same key, and a key is never that of another client's address. */
static void no_value_is_written_into_another_key(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, rate: 1/s, key: 'header:x+header:y' }]");
    static const char *const fields[] = {"x: a\ny: b",          "x: a+b\ny: c",  "x: a\ny: b+c", "x: a%2Bb\ny: c",
                                         "x: a}\ny: b",         "x: {a\ny: b",   "x: a\ny: +",   "x: a\ny: %2B",
                                         "x: a%\ny: 2Bb",       "x: a\ny: b%2B", "x: %7D\ny: }", "x: }\ny: %7D",
                                         "x: +192.0.2.1\ny: b", "x: a"};
    char keys[COUNT(fields)][200];
    for (size_t i = 0; i < COUNT(fields); i++) {
        snprintf(keys[i], sizeof keys[i], "%s", MATCHED(rules, .ip = "192.0.2.1", .fields = fields[i]));
        assert_null(strpbrk(keys[i], "{}"));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(keys[i], keys[k]);
    }
    assert_string_equal(keys[COUNT(fields) - 1], "a=+192.0.2.1");
    rules_free(rules);
}

static void a_missing_part_makes_the_key_the_address_or_skips_or_refuses(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits:\n"
                                   "  - { name: ip, key: header:k, rate: 1/s }\n"
                                   "  - { name: skip, key: header:k, rate: 1/s, missing: skip }\n");
    struct rules *refuse = rules_of("limits: [{ name: no, key: header:k, rate: 1/s, missing: refuse }]");
    static const char *const missing[] = {"", "k:", "k: ", "k: a\nk: a", "k: a\nK: b"};
    for (size_t i = 0; i < COUNT(missing); i++) {
        assert_string_equal(MATCHED(rules, .ip = "192.0.2.1", .fields = missing[i]), "ip=+192.0.2.1");
        assert_string_equal(MATCHED(refuse, .ip = "192.0.2.1", .fields = missing[i]),
                            "refused: the request has no key for the limit no");
    }
    assert_string_equal(MATCHED(rules, .ip = "192.0.2.1", .fields = "k: a"), "ip=a skip=a");
    assert_string_equal(MATCHED(rules, .target = "/"), "ip=+unknown");
    rules_free(rules);
    rules_free(refuse);
}

static void one_value_has_one_key_in_every_spelling(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits:\n"
                                   "  - { name: q, key: query:q, rate: 1/s, missing: skip }\n"
                                   "  - { name: c, key: cookie:c, rate: 1/s, missing: skip }\n"
                                   "  - { name: h, key: host, rate: 1/s, missing: skip }\n");
    static const char *const queries[] = {"/?q=a%20b", "/?q=a+b", "/?q=%61%20b", "/?x&q=a+b&y", "/?%71=a+b"};
    for (size_t i = 0; i < COUNT(queries); i++)
        assert_string_equal(MATCHED(rules, .target = queries[i]), "q=a b");
    static const char *const cookies[] = {"cookie: c=a%2Bb",       "cookie: c=a+b",         "cookie: c=\"a+b\"",
                                          "cookie: c=\"\\141+b\"", "cookie: c=\"\\a\\+b\"", "cookie: x=1; c = a+b ;"};
    for (size_t i = 0; i < COUNT(cookies); i++)
        assert_string_equal(MATCHED(rules, .fields = cookies[i]), "c=a%2Bb");
    static const char *const hosts[] = {"a.example", "A.Example", "a.example:80", "a.example.", "a.example:"};
    for (size_t i = 0; i < COUNT(hosts); i++)
        assert_string_equal(MATCHED(rules, .host = hosts[i]), "h=a.example");
    assert_string_equal(MATCHED(rules, .host = "[::1]:80"), "h=[::1]");
    rules_free(rules);
}

static void a_long_key_is_hashed_and_still_limits(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, key: 'header:k+ip', rate: 1/s }]");
    char field[1500], first[200];
    for (size_t len = 900; len < 1400; len++) {
        memcpy(field, "k:", 3);
        memset(field + 2, '%', len); /* each byte is escaped */
        field[len + 2] = '\0';
        const char *key = MATCHED(rules, .ip = "192.0.2.1", .fields = field);
        assert_int_equal(strlen(key), strlen("a=%h") + 64 + strlen("+192.0.2.1"));
        assert_memory_equal(key, "a=%h", 4);
        if (len > 900) assert_string_not_equal(key, first);
        strcpy(first, key);
        assert_string_equal(MATCHED(rules, .ip = "192.0.2.1", .fields = field), first);
    }
    /* A client cannot write itself into that bucket. */
    char forged[200];
    snprintf(forged, sizeof forged, "k: %.66s", first + 2);
    assert_string_not_equal(MATCHED(rules, .ip = "192.0.2.1", .fields = forged), first);
    rules_free(rules);
}

/* Every key of a match can be stored, and no brace but the two of the tag is in it. */
static void every_key_can_be_stored(void **state) {
    (void)state;
    struct rules *rules = rules_of("prefix: 'p:'\nlimits: [{ name: a, key: header:k, rate: 1/s }]");
    struct rules_match *match = malloc(sizeof *match);
    char field[1200], stored[RULES_KEY_MAX];
    memset(field, '{', sizeof field);
    for (size_t len = 1; len < sizeof field; len++) {
        const struct rules_field fields = {text_of("k"), {field, len}};
        const struct rules_request request = {.fields = &fields, .n_fields = 1};
        assert_int_equal(rules_match(match, rules, &request), RULES_MATCHED);
        const struct rules_text key = {match->keys + match->parts[0].key_at, match->parts[0].key_len};
        const size_t n = rules_stored_key(stored, rules, &rules->limits[0], key);
        assert_true(n > 0);
        assert_int_equal(n, rules_stored_len(rules, &rules->limits[0], key));
        assert_memory_equal(stored, "p:{", 3);
        assert_memory_equal(stored + n - 2, "}a", 2);
        assert_null(memchr(stored + 3, '{', n - 3));
        assert_ptr_equal(memchr(stored, '}', n), stored + n - 2);
    }
    free(match);
    rules_free(rules);
}

static void a_secret_is_hashed_as_the_python_middleware_does(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits: [{ name: a, key: hash:header:k, rate: 1/s }]");
    /* hashlib.blake2b(b"secret", digest_size=32, person=b"aiosteady").hexdigest() */
    assert_string_equal(MATCHED(rules, .fields = "k: secret"),
                        "a=01dbb8f66f5502749d016b13aa7ed1885b415ed71c0b18d4fa24148125f90b9c");
    rules_free(rules);
}

/* ---- Costs, tiers, kinds ---- */

static const struct rules_part *part_of(struct rules_match *match, const struct rules *rules, const char *fields) {
    struct rules_field all[8];
    const struct rules_request request = {.fields = all, .n_fields = split(all, fields, ':')};
    return rules_match(match, rules, &request) == RULES_MATCHED ? &match->parts[0] : NULL;
}

static void a_cost_is_a_number_or_a_header(void **state) {
    (void)state;
    struct rules_match *match = malloc(sizeof *match);
    struct rules *number = rules_of("limits: [{ name: a, rate: 10/s, cost: 3 }]");
    struct rules *header = rules_of("limits: [{ name: a, rate: 10/s, cost: header:x-cost }]");
    struct rules *after = rules_of("limits: [{ name: a, rate: 10/s, cost: after }]");
    assert_int_equal(part_of(match, number, "")->amount, 3);
    assert_int_equal(part_of(match, header, "")->amount, 1);
    assert_int_equal(part_of(match, header, "X-Cost: 7 ")->amount, 7);
    assert_int_equal(part_of(match, header, "x-cost: 0")->amount, 0);
    assert_int_equal(part_of(match, header, "x-cost: 2147483647")->amount, INT32_MAX);
    static const char *const bad[] = {"x-cost:",
                                      "x-cost: -1",
                                      "x-cost: 1.5",
                                      "x-cost: x",
                                      "x-cost: 2147483648",
                                      "x-cost: 99999999999",
                                      "x-cost: 1\nx-cost: 0",
                                      "x-cost: +1",
                                      "x-cost: 1 2"};
    for (size_t i = 0; i < COUNT(bad); i++)
        if (part_of(match, header, bad[i]) != NULL) fail_msg("%s is a cost", bad[i]);
    assert_int_equal(part_of(match, after, "")->kind, STEADY_LOOK);
    free(match);
    rules_free(number);
    rules_free(header);
    rules_free(after);
}

static void a_tier_is_chosen_by_one_exact_header(void **state) {
    (void)state;
    struct rules_match *match = malloc(sizeof *match);
    struct rules *rules = rules_of("limits: [{ name: a, rate: 10/s, burst: 20, block: 5s,"
                                   " tiers: { header: x-plan, trusted_header: true, pro: 100/s, max: 1000/s } }]");
    assert_int_equal(rules->n_warnings, 1);
    static const struct {
        const char *fields;
        int64_t burst;
    } all[] = {{"", 20},
               {"x-plan: pro", 100},
               {"X-Plan: max", 1000},
               {"x-plan: Pro", 20},
               {"x-plan: none", 20},
               {"x-plan: pro\nx-plan: max", 20}};
    for (size_t i = 0; i < COUNT(all); i++) {
        const struct rules_part *part = part_of(match, rules, all[i].fields);
        assert_int_equal(part->limit->rates[part->rate].max_capacity, all[i].burst);
        assert_int_equal(part->limit->rates[part->rate].block_duration, 5 * STEADY_SECOND);
    }
    free(match);
    rules_free(rules);
}

static void sixty_four_limits_count_and_one_more_is_refused(void **state) {
    (void)state;
    char yaml[65 * 80], field[1000] = "k:";
    size_t len = (size_t)snprintf(yaml, sizeof yaml, "limits:\n");
    memset(field + 2, '{', 300);
    for (int i = 0; i < 65; i++) {
        if (i == 64) {
            struct rules *rules = rules_of(yaml);
            const char *found = MATCHED(rules, .fields = field);
            int n = 0;
            for (const char *at = found; (at = strchr(at, '=')) != NULL; at++)
                n++;
            assert_int_equal(n, 64);
            rules_free(rules);
        }
        len += (size_t)snprintf(yaml + len, sizeof yaml - len, "  - { name: l%d, key: header:k, rate: 1/s }\n", i);
    }
    struct rules *rules = rules_of(yaml);
    assert_string_equal(MATCHED(rules, .fields = field), "refused: more than 64 limits match the request");
    rules_free(rules);
}

/* ---- Descriptors ---- */

static void a_limit_by_descriptor_counts_for_envoy_only(void **state) {
    (void)state;
    struct rules *rules = rules_of("limits:\n"
                                   "  - { name: http, rate: 1/s }\n"
                                   "  - { name: user, key: 'descriptor:user+descriptor:path', rate: 1/s }\n"
                                   "  - { name: free, match: { descriptor: { plan: free } }, key: descriptor:user,"
                                   " rate: 1/s }\n");
    assert_string_equal(MATCHED(rules, .ip = "192.0.2.1"), "http=192.0.2.1");
    assert_string_equal(MATCHED(rules, .entries = "user=u\npath=/a+b"), "user=u+/a%2Bb");
    assert_string_equal(MATCHED(rules, .entries = "user=u\nplan=free"), "free=u");
    assert_string_equal(MATCHED(rules, .entries = "plan=free"), "");
    assert_string_equal(MATCHED(rules, .entries = "user=u\nuser=v\nplan=free\npath=p"), "");
    rules_free(rules);
}

static const char *key_of(const struct rules *rules, const struct rules_field *entries, size_t n) {
    static char out[RULES_KEY_MAX + 1];
    const struct rules_request request = {.domain = text_of("d"), .entries = entries, .n_entries = n};
    out[rules_descriptor_key(out, rules, &request)] = '\0';
    return out;
}

static void descriptors_that_differ_have_other_keys(void **state) {
    (void)state;
    struct rules *rules = rules_of("domain: d\ndescriptors:\n  - { key: a, value: 'f*', share_threshold: true,"
                                   " rate_limit: { unit: day, requests_per_unit: 1 } }");
    static const char *const all[] = {"a=b",     "a=b+c", "a=b%2Bc", "a=",  "a=b\nc=d",
                                      "a=b+c+d", "a+b=c", "b=a",     "a=}", "a={"};
    char keys[COUNT(all)][RULES_KEY_MAX + 1];
    struct rules_field entries[4];
    for (size_t i = 0; i < COUNT(all); i++) {
        strcpy(keys[i], key_of(rules, entries, split(entries, all[i], '=')));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(keys[i], keys[k]);
    }
    assert_string_equal(keys[0], "d+a+b");
    split(entries, "a=f1", '=');
    assert_string_equal(key_of(rules, entries, 1), "d+a+f*");
    const struct rules_field nul = {{"a", 1}, {"b\0c", 3}};
    assert_string_equal(key_of(rules, &nul, 1), "d+a+b%00c");
    char value[600];
    memset(value, 'x', sizeof value);
    const struct rules_field first = {{"a", 1}, {value, 500}}, second = {{"a", 1}, {value, 501}};
    char key[RULES_KEY_MAX + 1];
    strcpy(key, key_of(rules, &first, 1));
    assert_int_equal(strlen(key), 64);
    assert_string_not_equal(key, key_of(rules, &second, 1));
    rules_free(rules);
}

/* ---- Rates of Envoy ---- */

static const int64_t seconds_of[] = {0, 1, 60, 3600, 86400, 30 * 86400, 365 * 86400, 7 * 86400};

/* a/b <= c/d */
static bool at_most(int64_t a, int64_t b, int64_t c, int64_t d) { return (__int128)a * d <= (__int128)c * b; }

/* The largest p/q <= n/d within the bounds, by trying every p. */
static void by_brute_force(int64_t n, int64_t d, int64_t q_most, int64_t *best_p, int64_t *best_q) {
    *best_p = 0;
    *best_q = 1;
    for (int64_t p = 1; p <= 1000000; p++) {
        const __int128 q = ((__int128)p * d + n - 1) / n; /* the smallest q with p/q <= n/d */
        if (q > q_most) break;
        if (!at_most(p, (int64_t)q, *best_p, *best_q)) {
            *best_p = p;
            *best_q = (int64_t)q;
        }
    }
}

static void a_rate_is_exact_or_the_nearest_slower_one(void **state) {
    (void)state;
    static const int64_t requests[] = {1,       2,       3,        5,        7,        10,         60,        100,
                                       286,     287,     293,      3499,     3511,     3600,       7919,      9973,
                                       86400,   86399,   99991,    999999,   1000000,  1000001,    1000003,   1234567,
                                       2592000, 2592001, 15485863, 32452843, 86028121, 2147483647, 4294967295};
    size_t n_exact = 0, n_slower = 0;
    for (int unit = 1; unit <= 7; unit++)
        for (size_t i = 0; i < COUNT(requests); i++) {
            steady_limit limit = {0};
            bool exact;
            const int64_t us = seconds_of[unit] * STEADY_SECOND,
                          capacity = requests[i] < INT32_MAX ? requests[i] : INT32_MAX;
            rules_requests_per_unit(&limit, requests[i], unit, &exact);
            assert_int_equal(steady_limit_check(&limit, NULL), 0);
            assert_int_equal(limit.max_capacity, capacity);
            assert_true(at_most(limit.drops, limit.drop_recharge, requests[i], us));
            if (exact) {
                assert_true(at_most(requests[i], us, limit.drops, limit.drop_recharge));
                n_exact++;
                continue;
            }
            n_slower++;
            if (i % 3 != 0) continue; /* brute force takes its time */
            int64_t p, q;
            by_brute_force(requests[i], us, ((INT64_C(1) << 53) - 1) / capacity, &p, &q);
            if (!at_most(p, q, limit.drops, limit.drop_recharge))
                fail_msg("%lld per unit %d: %lld in %lld us is slower than %lld in %lld us", (long long)requests[i],
                         unit, (long long)limit.drops, (long long)limit.drop_recharge, (long long)p, (long long)q);
        }
    assert_true(n_exact > 50 && n_slower > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_star_matches_any_bytes),
        cmocka_unit_test(a_nul_byte_matches_a_star_only),
        cmocka_unit_test(many_stars_take_no_exponential_time),
        cmocka_unit_test(every_spelling_of_a_path_matches),
        cmocka_unit_test(an_unusual_path_matches_in_each_reading),
        cmocka_unit_test(the_path_of_a_key_has_one_form),
        cmocka_unit_test(a_path_that_is_too_long_is_refused_if_a_limit_reads_it),
        cmocka_unit_test(each_kind_of_condition_matches_what_it_names),
        cmocka_unit_test(a_request_is_exempt_by_address_or_by_a_single_header),
        cmocka_unit_test(a_key_has_the_parts_that_it_names),
        cmocka_unit_test(an_address_is_a_key_by_its_network),
        cmocka_unit_test(no_value_is_written_into_another_key),
        cmocka_unit_test(a_missing_part_makes_the_key_the_address_or_skips_or_refuses),
        cmocka_unit_test(one_value_has_one_key_in_every_spelling),
        cmocka_unit_test(a_long_key_is_hashed_and_still_limits),
        cmocka_unit_test(every_key_can_be_stored),
        cmocka_unit_test(a_secret_is_hashed_as_the_python_middleware_does),
        cmocka_unit_test(a_cost_is_a_number_or_a_header),
        cmocka_unit_test(a_tier_is_chosen_by_one_exact_header),
        cmocka_unit_test(sixty_four_limits_count_and_one_more_is_refused),
        cmocka_unit_test(a_limit_by_descriptor_counts_for_envoy_only),
        cmocka_unit_test(descriptors_that_differ_have_other_keys),
        cmocka_unit_test(a_rate_is_exact_or_the_nearest_slower_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
