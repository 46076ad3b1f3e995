/* SPDX-License-Identifier: MIT
 * Store URLs: what is read from them, what is refused, and that no message shows a secret. */
#include "support.h"

#include <stdlib.h>

#include "core/url.h"

#define SECRET "hunter2"

static const struct {
    const char *text;
    struct {
        enum steady__scheme scheme;
        const char *host, *path, *user, *password;
        unsigned port, db;
    } is;
} accepted[] = {
    {"memory:", {STEADY__URL_MEMORY, "", "", "", "", 6379, 0}},
    {"file:/tmp/x", {STEADY__URL_FILE, "", "/tmp/x", "", "", 6379, 0}},
    {"file:///tmp/x", {STEADY__URL_FILE, "", "/tmp/x", "", "", 6379, 0}},
    {"file:/tmp/with%20space%3Fand%25", {STEADY__URL_FILE, "", "/tmp/with space?and%", "", "", 6379, 0}},
    {"file:/tmp/a@b:c", {STEADY__URL_FILE, "", "/tmp/a@b:c", "", "", 6379, 0}},
    {"redis://localhost", {STEADY__URL_TCP, "localhost", "", "", "", 6379, 0}},
    {"redis://localhost/", {STEADY__URL_TCP, "localhost", "", "", "", 6379, 0}},
    {"valkey://a-b_c.example:1/15", {STEADY__URL_TCP, "a-b_c.example", "", "", "", 1, 15}},
    {"REDIS://127.0.0.1:65535/2147483647", {STEADY__URL_TCP, "127.0.0.1", "", "", "", 65535, INT32_MAX}},
    {"redis://user:pass@h:7", {STEADY__URL_TCP, "h", "", "user", "pass", 7, 0}},
    {"redis://:pass@h", {STEADY__URL_TCP, "h", "", "", "pass", 6379, 0}},
    {"redis://user:@h", {STEADY__URL_TCP, "h", "", "user", "", 6379, 0}},
    {"redis://@h", {STEADY__URL_TCP, "h", "", "", "", 6379, 0}},
    {"redis://u:a:b%40c%2Fd%3a@h/1", {STEADY__URL_TCP, "h", "", "u", "a:b@c/d:", 6379, 1}},
    {"redis://u%3Av:%C3%A9@h", {STEADY__URL_TCP, "h", "", "u:v", "\xc3\xa9", 6379, 0}},
    {"redis://[::1]", {STEADY__URL_TCP, "::1", "", "", "", 6379, 0}},
    {"redis://u:p@[2001:db8::7]:6380/2", {STEADY__URL_TCP, "2001:db8::7", "", "u", "p", 6380, 2}},
    {"redis://[fe80::1%25eth0]:1", {STEADY__URL_TCP, "fe80::1%eth0", "", "", "", 1, 0}},
    {"redis://[fe80::1%eth0]", {STEADY__URL_TCP, "fe80::1%eth0", "", "", "", 6379, 0}},
    {"redis://h:1/2?peek=replica", {STEADY__URL_TCP, "h", "", "", "", 1, 2}},
    {"redis+sentinel://u:p@h:1,g/s/3", {STEADY__URL_SENTINEL, "", "", "u", "p", 26379, 3}},
    {"valkeys+sentinel://h/s", {STEADY__URL_SENTINEL_TLS, "", "", "", "", 26379, 0}},
    {"unix:/run/redis.sock", {STEADY__URL_UNIX, "", "/run/redis.sock", "", "", 6379, 0}},
    {"unix:///run/redis.sock?db=3", {STEADY__URL_UNIX, "", "/run/redis.sock", "", "", 6379, 3}},
    {"unix://u:p@/run/r%3f.sock?db=0", {STEADY__URL_UNIX, "", "/run/r?.sock", "u", "p", 6379, 0}},
    {"unix://:p%40@/run/r", {STEADY__URL_UNIX, "", "/run/r", "", "p@", 6379, 0}},
};

/* `says` is part of the message. */
static const struct {
    const char *text;
    const char *says;
} refused[] = {
    {"", "empty"},
    {"localhost", "does not begin with"},
    {"localhost:6379", "\"localhost:...\" does not begin with"},
    {"http://h", "http://h"},
    {"memory", "does not begin with"},
    {"memory:x", "after memory:"},
    {"memory://", "after memory:"},
    {" redis://h", "space"},
    {"redis://h\n", "control"},
    {"redis://h\x7f", "control"},
    {"redis://h#x", "%23"},
    {"redis:h", "//"},
    {"redis://", "no host"},
    {"redis:///3", "no host"},
    {"redis://:6379", "no host"},
    {"redis://h:", "port"},
    {"redis://h:0", "port"},
    {"redis://h:65536", "port"},
    {"redis://h:99999999999999999999999", "port"},
    {"redis://h:+1", "port"},
    {"redis://h:%201", "port"},
    {"redis://h:-1", "port"},
    {"redis://h:6379x", "port"},
    {"redis://h:0x1", "port"},
    {"redis://::1", "brackets"},
    {"redis://[::1", "']'"},
    {"redis://[::1]x", "']'"},
    {"redis://[::1]:", "port"},
    {"redis://[::g]", "IPv6"},
    {"redis://[]", "IPv6"},
    {"redis://[fe80::1%]", "zone"},
    {"redis://[fe80::1%25an-interface-too-long]", "zone"},
    {"redis://h%41", "host name"},
    {"redis://h!", "host name"},
    {"redis://h\xc3\xa9", "host name"},
    {"redis://h/x", "database"},
    {"redis://h/-1", "database"},
    {"redis://h/2147483648", "database"},
    {"redis://h/1/2", "database"},
    {"redis://h?db=1", "option db, which works only with unix:"},
    {"redis://" SECRET "@h", "without a password"},
    {"redis://u:" SECRET "@x@h", "%40"},
    {"redis://u:" SECRET "/x@h", "%2F"},
    {"redis://u:" SECRET "%@h", "%25"},
    {"redis://u:" SECRET "%4@h", "%25"},
    {"redis://u:" SECRET "%zz@h", "%25"},
    {"redis://u:" SECRET "%00@h", "%00"},
    {"redis://" SECRET "%00:p@h", "%00"},
    {"redis://u:" SECRET "@h:0", "port"},
    {"redis://u:" SECRET "@", "no host"},
    {"redis://u:" SECRET "@h:" SECRET, "port"},
    {"redis://u:p?" SECRET "@h", "options"},
    {"redis://h/" SECRET "@h", "%2F"},
    {"u:" SECRET "@h:6379", "does not begin with"},
    {"unix:relative", "absolute"},
    {"unix:", "absolute"},
    {"unix://", "absolute"},
    {"unix://host/path", "a host"},
    {"unix://u:" SECRET "@host/path", "a host"},
    {"unix://u:" SECRET "@", "absolute"},
    {"unix:/a?db=1&db=2", "twice"},
    {"unix:/a?db=", "database"},
    {"unix:/a?db=x", "database"},
    {"unix:/a?", "no option after"},
    {"unix:/a?db=1&", "no option after"},
    {"unix:/a?timeout=5",
     "unknown option \"timeout\"; its options are db peek connect_timeout deny_memory lease_age client_name"},
    {"unix://u:p@/a?" SECRET "=5", "unknown option"},
    {"unix:/%00", "%00"},
    {"unix:/"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "108"},
    {"file:relative", "absolute"},
    {"file:", "absolute"},
    {"file://host/path", "absolute"},
    {"file:/a?b", "options"},
    {"redis://h?peek=secondary", "peek"},
    {"redis://h?sentinel_password=" SECRET, "sentinel_password, which works only with redis+sentinel:"},
    {"redis://h?passwd=" SECRET "&db=1", "unknown option \"passwd\""},
    {"redis+sentinel://h/s?sentinel_pasword=" SECRET, "unknown option \"sentinel_pasword\""},
    {"http://h?pass=" SECRET, "\"http://h\" does not begin"},
    {"pass=" SECRET, "\"pass\" does not begin"},
    {"redis+sentinel://h", "service"},
    {"redis+sentinel://h/", "service"},
    {"redis+sentinel://h//1", "service"},
    {"redis+sentinel://h/s/x", "database"},
    {"redis+sentinel://h/s/1/2", "database"},
    {"redis+sentinel:///s", "no host"},
    {"redis+sentinel://a,/s", "no host"},
    {"redis+sentinel://,a/s", "no host"},
    {"redis+sentinel://a:0/s", "port"},
    {"redis+sentinel://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q/s", "16"},
    {"redis+sentinel://a/s?sentinel_username=u", "sentinel_password"},
    {"redis+sentinel://a/s?sentinel_password=", "without a value after"},
    {"redis+sentinel://a/s?sentinel_password=" SECRET "%", "%25"},
    {"redis+sentinel://a/s?sentinel_password=" SECRET "&" SECRET "=1", "unknown option"},
    {"redis+sentinel://a/s?sentinel_password=x&sentinel_password=" SECRET, "twice"},
    {"redis+sentinel://a/s?sentinel_password=" SECRET "@x", "%40"},
    {"redis+sentinel://a/s?tls_ca=x", "tls_ca, which works only with rediss: "},
    {"redis://h?tls_ca=/x", "tls_ca, which works only with rediss: "},
    {"rediss://h?db=1", "works only with unix:"},
    {"rediss://h?tls_verify=no", "unknown option \"tls_verify\""},
    {"rediss://h?tls_ca", "unknown option"},
    {"rediss://h?tls_ca=", "without a value after its '='"},
    {"rediss://h?tls_ca=/x&tls_ca=/y", "tls_ca twice"},
    {"rediss://h?tls_key=/x%0", "%25"},
    {"rediss://h?tls_insecure_skip_verify=true", "yes or no"},
    {"rediss://h?tls_insecure_skip_verify=", "yes or no"},
    {"rediss://u:" SECRET "?x@h", "%3F"},
    {"rediss://h?tls_ca=/" SECRET "@x", "%40"},
};

static void assert_says(const steady_message *why, const char *part, const char *about) {
    if (strstr(why->text, part) == NULL) fail_msg("for %s: \"%s\" does not say \"%s\"", about, why->text, part);
    if (strstr(why->text, SECRET) != NULL) fail_msg("for %s: \"%s\" shows a secret", about, why->text);
}

static void valid_url_is_read(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        struct steady__url url, copy;
        steady_message why = {.text = ""};
        if (steady__url_parse(&url, accepted[i].text, &why) != 0) fail_msg("%s: %s", accepted[i].text, why.text);
        steady__url_copy(&copy, &url);
        steady__url_clear(&url);
        assert_int_equal(copy.scheme, accepted[i].is.scheme);
        assert_string_equal(copy.host, accepted[i].is.host);
        assert_string_equal(copy.path, accepted[i].is.path);
        assert_string_equal(copy.user, accepted[i].is.user);
        assert_string_equal(copy.password, accepted[i].is.password);
        assert_int_equal(copy.port, accepted[i].is.port);
        assert_int_equal(copy.db, accepted[i].is.db);
    }
}

static void invalid_url_is_refused_with_a_reason_and_no_secret(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct steady__url url;
        steady_message why = {.text = ""};
        if (steady__url_parse(&url, refused[i].text, &why) != STEADY_BAD_ARGUMENT)
            fail_msg("%s was not refused", refused[i].text);
        assert_says(&why, refused[i].says, refused[i].text);
        assert_int_equal(steady__url_parse(&url, refused[i].text, NULL), STEADY_BAD_ARGUMENT);
    }
}

static void sentinel_url_is_read(void **state) {
    static const char text[] = "rediss+sentinel://u:p%40@a,b.example:1,[::1]:2,[::2]/the%20main/7?sentinel_username=su&"
                               "sentinel_password=s%26p&peek=replica&tls_ca=/ca";
    struct steady__url url, copy;
    steady_message why = {.text = ""};
    (void)state;
    assert_int_equal(steady__url_parse(&url, text, &why), 0);
    steady__url_copy(&copy, &url);
    steady__url_clear(&url);
    assert_int_equal(copy.scheme, STEADY__URL_SENTINEL_TLS);
    assert_int_equal(copy.n_sentinels, 4);
    assert_string_equal(copy.sentinels[0].host, "a");
    assert_int_equal(copy.sentinels[0].port, 26379);
    assert_string_equal(copy.sentinels[1].host, "b.example");
    assert_int_equal(copy.sentinels[1].port, 1);
    assert_string_equal(copy.sentinels[2].host, "::1");
    assert_int_equal(copy.sentinels[2].port, 2);
    assert_int_equal(copy.sentinels[3].port, 26379);
    assert_string_equal(copy.service, "the main");
    assert_int_equal(copy.db, 7);
    assert_string_equal(copy.user, "u");
    assert_string_equal(copy.password, "p@");
    assert_string_equal(copy.sentinel_user, "su");
    assert_string_equal(copy.sentinel_password, "s&p");
    assert_string_equal(copy.tls_ca, "/ca");
    assert_true(copy.peek_replica);
}

static void tls_url_is_read(void **state) {
    static const char text[] = "rediss://u:p@h:1/2?tls_ca=/a%20b&tls_cert=/c&tls_key=/k%26&tls_server_name=n.example&"
                               "tls_insecure_skip_verify=yes";
    struct steady__url url, copy;
    (void)state;
    assert_int_equal(steady__url_parse(&url, text, NULL), 0);
    steady__url_copy(&copy, &url);
    steady__url_clear(&url);
    assert_string_equal(url.tls_key, "");
    assert_int_equal(copy.scheme, STEADY__URL_TLS);
    assert_string_equal(copy.host, "h");
    assert_int_equal(copy.db, 2);
    assert_string_equal(copy.tls_ca, "/a b");
    assert_string_equal(copy.tls_cert, "/c");
    assert_string_equal(copy.tls_key, "/k&");
    assert_string_equal(copy.tls_server_name, "n.example");
    assert_true(copy.tls_insecure);
    assert_int_equal(steady__url_parse(&url, "valkeys://h?tls_insecure_skip_verify=no", NULL), 0);
    assert_false(url.tls_insecure);
    assert_string_equal(url.tls_ca, "");
}

static void url_over_the_longest_length_is_refused(void **state) {
    struct steady__url url;
    steady_message why = {.text = ""};
    char *text = malloc(65536 + 1);
    (void)state;
    assert_non_null(text);
    memset(text, 'a', 65536);
    text[65536] = '\0';
    memcpy(text, "file:/", 6);
    assert_int_equal(steady__url_parse(&url, text, &why), STEADY_BAD_ARGUMENT);
    assert_says(&why, "65536 bytes", "64 KiB");
    text[STEADY__URL_MAX + 1] = '\0';
    assert_int_equal(steady__url_parse(&url, text, &why), STEADY_BAD_ARGUMENT);
    text[STEADY__URL_MAX] = '\0';
    assert_int_equal(steady__url_parse(&url, text, &why), 0);
    assert_int_equal(strlen(url.path), STEADY__URL_MAX - strlen("file:"));
    free(text);
}

static void clear_wipes_the_password(void **state) {
    struct steady__url url;
    (void)state;
    assert_int_equal(steady__url_parse(&url, "redis://u:" SECRET "@h", NULL), 0);
    steady__url_clear(&url);
    assert_null(memmem(&url, sizeof url, SECRET, strlen(SECRET)));
    assert_string_equal(url.password, "");
}

/* Each byte of each URL is changed to each value. Under the sanitizers, nothing but a result is expected. */
static void url_with_any_byte_changed_is_read_or_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        for (size_t at = 0; at < strlen(accepted[i].text); at++) {
            for (int byte = 0; byte < 256; byte++) {
                struct steady__url url;
                char text[128];
                snprintf(text, sizeof text, "%s", accepted[i].text);
                text[at] = (char)byte;
                const int error = steady__url_parse(&url, text, NULL);
                assert_true(error == 0 || error == STEADY_BAD_ARGUMENT || error == STEADY_UNSUPPORTED);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_url_is_read),
        cmocka_unit_test(invalid_url_is_refused_with_a_reason_and_no_secret),
        cmocka_unit_test(sentinel_url_is_read),
        cmocka_unit_test(tls_url_is_read),
        cmocka_unit_test(url_over_the_longest_length_is_refused),
        cmocka_unit_test(clear_wipes_the_password),
        cmocka_unit_test(url_with_any_byte_changed_is_read_or_refused),
    };
    return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
