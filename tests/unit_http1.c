/* SPDX-License-Identifier: MIT
 * The reader of HTTP/1.1: what is accepted, what is refused, and that the arrival of the bytes makes no difference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "server/http1.h"

enum { ROOM = 512 * 1024 };

struct read {
    enum http1_outcome outcome;
    struct http1_request request;
    struct http1_error error;
    size_t len;
};

static struct rules_field *fields;
static char *bytes;

static int begin(void **state) {
    (void)state;
    fields = calloc(HTTP1_FIELDS_MOST, sizeof *fields);
    bytes = malloc(ROOM);
    return fields == NULL || bytes == NULL;
}

static int end(void **state) {
    (void)state;
    free(fields);
    free(bytes);
    return 0;
}

/* Reads the bytes as a connection does: `step` more at a time, and only if enough have come. */
static struct read read_in_steps(const char *text, size_t len, size_t step) {
    struct read read = {.outcome = HTTP1_MORE, .request.fields = fields};
    struct http1_progress progress = {0};
    memcpy(bytes, text, len);
    for (size_t have = step < len ? step : len;; have = have + step < len ? have + step : len) {
        read.len = have;
        if (have >= progress.needs) read.outcome = http1_read(&read.request, bytes, &read.len, &progress, &read.error);
        if (read.outcome != HTTP1_MORE || have == len) return read;
    }
}

static struct read read_all(const char *text) { return read_in_steps(text, strlen(text), strlen(text)); }

static bool is(struct rules_text text, const char *expected) {
    return text.len == strlen(expected) && memcmp(text.bytes, expected, text.len) == 0;
}

/* A request, and one more behind it, which must not be touched. */
static void assert_read(const char *text, const char *target, const char *body) {
    char both[4096];
    const int len = snprintf(both, sizeof both, "%sGET /next HTTP/1.1\r\nHost: h\r\n\r\n", text);
    for (size_t step = 1; step <= (size_t)len; step += step < 8 ? 1 : 37) {
        const struct read read = read_in_steps(both, (size_t)len, step);
        assert_int_equal(read.outcome, HTTP1_READ);
        assert_int_equal(read.len, strlen(text));
        assert_true(is(read.request.target, target));
        assert_true(is(read.request.body, body));
    }
}

static void assert_fails(const char *text, int status) {
    for (size_t step = 1; step <= strlen(text); step += step < 8 ? 1 : 37)
        assert_int_equal(read_in_steps(text, strlen(text), step).outcome, HTTP1_FAILED);
    const struct read read = read_all(text);
    assert_int_equal(read.error.status, status);
    assert_true(strlen(read.error.text) > 10);
}

#define GET "GET /a?b HTTP/1.1\r\nHost: h\r\n"
#define POST "POST /a HTTP/1.1\r\nHost: h\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static void requests_are_read(void **state) {
    (void)state;
    assert_read(GET "\r\n", "/a?b", "");
    assert_read(POST "Content-Length: 5\r\n\r\nhello", "/a", "hello");
    assert_read(POST "Content-Length: 000\r\n\r\n", "/a", "");
    assert_read("GET / HTTP/1.0\r\n\r\n", "/", "");
    assert_read("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", "*", "");
    assert_read(GET "X:\t a \t\r\nY: \xc3\xa4\xff\r\nZ:\r\n\r\n", "/a?b", "");
    const struct read read = read_all(GET "X:\t a b \t\r\n\r\n");
    assert_int_equal(read.request.n_fields, 2);
    assert_true(is(read.request.method, "GET"));
    assert_true(is(read.request.fields[1].name, "X") && is(read.request.fields[1].value, "a b"));
}

static void chunks_are_joined(void **state) {
    (void)state;
    assert_read(CHUNKED "0\r\n\r\n", "/a", "");
    assert_read(CHUNKED "5\r\nhello\r\n000A;x=\"y;z\";v\r\n, 12345678\r\n0;last\r\n\r\n", "/a", "hello, 12345678");
    assert_read(CHUNKED "5\r\n\r\n0\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "/a", "\r\n0\r\nx");
}

static void the_target_may_be_a_url_of_the_same_host(void **state) {
    (void)state;
    assert_read("GET http://h/a?b HTTP/1.1\r\nHost: h\r\n\r\n", "/a?b", "");
    assert_read("GET HTTP://[::1]:80/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/", "");
    assert_read("GET https://h HTTP/1.1\r\nHost: H\r\n\r\n", "/", "");
    assert_fails("GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    assert_fails("GET http://h@x/a HTTP/1.1\r\nHost: h@x\r\n\r\n", 400);
}

static void connections_are_kept_as_the_version_and_the_field_say(void **state) {
    (void)state;
    assert_true(read_all(GET "\r\n").request.keep_alive);
    assert_false(read_all(GET "Connection: close\r\n\r\n").request.keep_alive);
    assert_false(read_all(GET "Connection: x ,\tCLOSE\r\n\r\n").request.keep_alive);
    assert_true(read_all(GET "Connection: closed\r\n\r\n").request.keep_alive);
    assert_false(read_all("GET / HTTP/1.0\r\n\r\n").request.keep_alive);
    assert_true(read_all("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").request.keep_alive);
}

static void a_request_that_could_hide_another_one_is_refused(void **state) {
    (void)state;
    assert_fails(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    assert_fails(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400);
    assert_fails(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400);
    assert_fails(POST "Content-Length: 5, 5\r\n\r\nhello", 400);
    assert_fails(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501);
    static const char *const lengths[] = {"+5", "-5", "0x5", "5 5", "5;", "", "five", "5\t6", "\xb2"};
    static const char *const codings[] = {"gzip", "gzip, chunked", "chunked, identity", "xchunked", "chunked;a",
                                          "",     "\"chunked\""};
    char text[200];
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        snprintf(text, sizeof text, POST "Content-Length: %s\r\n\r\nhello", lengths[i]);
        assert_fails(text, 400);
    }
    for (size_t i = 0; i < sizeof codings / sizeof codings[0]; i++) {
        snprintf(text, sizeof text, POST "Transfer-Encoding: %s\r\n\r\n0\r\n\r\n", codings[i]);
        assert_fails(text, 501);
    }
    assert_fails("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

static void lines_must_have_their_form(void **state) {
    (void)state;
    static const char *const heads[] = {
        "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        "GET / http/1.1\r\nHost: h\r\n\r\n",
        "GET /\r\nHost: h\r\n\r\n",
        "GET\r\nHost: h\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        GET "X: a\n\r\n",
        GET "X: a\rY: b\r\n\r\n",
        GET "X: a\r\r\n\r\n",
        GET "X: a\r\n b\r\n\r\n",
        GET "X: a\r\n\tb\r\n\r\n",
        GET "X : a\r\n\r\n",
        GET ": a\r\n\r\n",
        GET "X\r\n\r\n",
        GET "X y: a\r\n\r\n",
        GET "X: a\x01\r\n\r\n",
        GET "X: a\x7f\r\n\r\n",
        GET "Host: h\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        assert_fails(heads[i], 400);
    assert_fails("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    assert_fails("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    assert_fails("GET / HTTP/1.11\r\nHost: h\r\n\r\n", 400);
    assert_fails(GET "Expect: 200-ok\r\n\r\n", 417);
    static const char nul[] = GET "X: a\0b\r\n\r\n";
    assert_int_equal(read_in_steps(nul, sizeof nul - 1, sizeof nul).outcome, HTTP1_FAILED);
}

/* The reader looks at several bytes at once. */
static void a_control_character_is_found_at_any_place(void **state) {
    (void)state;
    for (int c = 1; c < 256; c++)
        for (size_t at = 0; at < 20; at++) {
            char value[21], text[100];
            memset(value, 'v', 20);
            value[20] = '\0';
            value[at] = (char)c;
            snprintf(text, sizeof text, GET "X: v%sv\r\n\r\n", value);
            const struct read read = read_all(text);
            const bool control = (c < ' ' && c != '\t') || c == 0x7f;
            assert_int_equal(read.outcome, control ? HTTP1_FAILED : HTTP1_READ);
            if (control) assert_int_equal(read.error.status, 400);
        }
}

static void chunks_must_have_their_form(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "\r\n\r\n",
        "x\r\n\r\n",
        "-1\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n",
        "1\r\nx0\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
        "0\r\n X: a\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX: \x01\r\n\r\n",
        "0\n\r\n",
    };
    char text[4096];
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        snprintf(text, sizeof text, CHUNKED "%s", bodies[i]);
        assert_fails(text, 400);
    }
    assert_fails(CHUNKED "10001\r\n", 413);
    assert_fails(CHUNKED "fffffffffffffffffffffff\r\n", 413);
    snprintf(text, sizeof text, CHUNKED "1;%01500d\r\nx\r\n0\r\n\r\n", 0);
    assert_fails(text, 400);
}

/* The size of a request is in its last field or in its body. */
static struct read read_large(const char *head, const char *tail, size_t n, char fill, const char *rest, size_t step) {
    static char text[ROOM];
    const size_t a = strlen(head), b = strlen(tail), c = strlen(rest);
    memcpy(text, head, a);
    memcpy(text + a, tail, b);
    memset(text + a + b, fill, n);
    memcpy(text + a + b + n, rest, c);
    return read_in_steps(text, a + b + n + c, step);
}

static void the_head_has_64_kib(void **state) {
    (void)state;
    const size_t rest = HTTP1_HEAD_MOST - strlen(GET "X: \r\n\r\n");
    for (size_t step = 1000; step <= ROOM; step += ROOM - 1000) {
        assert_int_equal(read_large(GET, "X: ", rest, 'x', "\r\n\r\n", step).outcome, HTTP1_READ);
        const struct read read = read_large(GET, "X: ", rest + 1, 'x', "\r\n\r\n", step);
        assert_int_equal(read.outcome, HTTP1_FAILED);
        assert_int_equal(read.error.status, 431);
        assert_true(is(read.request.target, "/a?b")); /* the answer depends on it */
    }
    const struct read read = read_large("GET /", "", HTTP1_HEAD_MOST, 'x', "", 5000);
    assert_int_equal(read.error.status, 414);
}

static void the_body_has_64_kib(void **state) {
    (void)state;
    assert_int_equal(read_large(POST, "Content-Length: 65536\r\n\r\n", 65536, 'x', "", 4096).request.body.len, 65536);
    assert_int_equal(read_all(POST "Content-Length: 65537\r\n\r\n").error.status, 413);
    assert_int_equal(read_all(POST "Content-Length: 99999999999999999999999999\r\n\r\n").error.status, 413);
    const struct read read = read_large(CHUNKED, "10000\r\n", 65536, 'x', "\r\n0\r\n\r\n", 4096);
    assert_int_equal(read.outcome, HTTP1_READ);
    assert_int_equal(read.request.body.len, 65536);
    assert_int_equal(read_large(CHUNKED, "10000\r\n", 65536, 'x', "\r\n1\r\nx\r\n0\r\n\r\n", 4096).error.status, 413);
}

/* 64 KiB as chunks of a byte take 384 KiB. */
static void tiny_chunks_are_refused_and_many_steps_read_each_byte_once(void **state) {
    static char text[ROOM];
    (void)state;
    size_t len = (size_t)snprintf(text, sizeof text, "%s", CHUNKED);
    for (int i = 0; i < 65536; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "1\r\nx\r\n");
    const struct read read = read_in_steps(text, len, 2);
    assert_int_equal(read.outcome, HTTP1_FAILED);
    assert_int_equal(read.error.status, 413);
    assert_true(read.len < 200 * 1024);
    len = (size_t)snprintf(text, sizeof text, CHUNKED "0\r\n");
    while (len < 20 * 1024)
        len += (size_t)snprintf(text + len, sizeof text - len, "X: y\r\n");
    assert_int_equal(read_in_steps(text, len, 3).error.status, 431);
}

static void a_line_that_cannot_be_read_has_a_target(void **state) {
    (void)state;
    static const char *const lines[] = {"G(T /t HTTP/1.1", "GET  /t HTTP/1.1", "GET\t/t HTTP/1.1",
                                        "GET /t HTTP/9.9", "GET /t",           "GET /t HTTP/1.1\nX: y"};
    char text[200];
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        snprintf(text, sizeof text, "%s\r\nHost: h\r\n\r\n", lines[i]);
        const struct read read = read_all(text);
        assert_int_equal(read.outcome, HTTP1_FAILED);
        assert_true(is(read.request.target, "/t"));
    }
}

static void a_body_is_waited_for_with_the_head_known(void **state) {
    (void)state;
    const struct read read = read_all(POST "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhell");
    assert_int_equal(read.outcome, HTTP1_MORE);
    assert_true(read.request.continues && is(read.request.method, "POST"));
    assert_int_equal(read_all(POST "Content-Le").request.method.len, 0);
    assert_false(read_all("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").request.continues);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_read),
        cmocka_unit_test(chunks_are_joined),
        cmocka_unit_test(the_target_may_be_a_url_of_the_same_host),
        cmocka_unit_test(connections_are_kept_as_the_version_and_the_field_say),
        cmocka_unit_test(a_request_that_could_hide_another_one_is_refused),
        cmocka_unit_test(lines_must_have_their_form),
        cmocka_unit_test(a_control_character_is_found_at_any_place),
        cmocka_unit_test(chunks_must_have_their_form),
        cmocka_unit_test(the_head_has_64_kib),
        cmocka_unit_test(the_body_has_64_kib),
        cmocka_unit_test(tiny_chunks_are_refused_and_many_steps_read_each_byte_once),
        cmocka_unit_test(a_line_that_cannot_be_read_has_a_target),
        cmocka_unit_test(a_body_is_waited_for_with_the_head_known),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
