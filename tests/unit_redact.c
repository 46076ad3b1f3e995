/* SPDX-License-Identifier: MIT
 * Texts from outside: which parts are shown, and that no secret is shown, wherever it stands. */
#include "support.h"

#include <ctype.h>

#include "core/redact.h"
#include "random.h"

static struct steady__url url_of(const char *user, const char *password, const char *sentinel_password) {
    struct steady__url url = {.host = "h", .path = "", .user = user, .password = password};
    url.sentinel_user = "";
    url.sentinel_password = sentinel_password;
    return url;
}

static const char *redact(const char *text, const char *password, const char *key) {
    static char out[256];
    const struct steady__url url = url_of("", password, "");
    const struct steady__secrets secrets = {.url = &url, .key = key, .key_len = key != NULL ? strlen(key) : 0};
    steady__redact(out, sizeof out, text, strlen(text), &secrets);
    return out;
}

/* ---- Errors of a server ---- */

/* Errors as Redis 6 to 8, Valkey 8, Sentinel and our module send them: all of it can be shown. */
static const char *const real[] = {
    "ERR unknown command 'STEADY.CONSUME'",
    "ERR unknown command `EVALSHA`",
    "ERR unknown subcommand 'load'",
    "ERR This instance has cluster support disabled",
    "ERR max number of clients reached",
    "ERR wrong number of arguments for 'evalsha' command",
    "ERR max_capacity must be an integer",
    "NOSCRIPT No matching script. Please use EVAL.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to access one of the keys used as arguments",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "NOPERM No permissions to access a key",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "LOADING Valkey is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOTABUCKET the key holds something else",
};

static void errors_of_real_servers_are_shown_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(real); i++)
        assert_string_equal(redact(real[i], "", "user:42"), real[i]);
}

static const struct {
    const char *text, *password, *key, *shown;
} cases[] = {
    /* the arguments of a command, which servers quote at the end */
    {"ERR unknown command 'STEADY.CONSUME', with args beginning with: 'k' '10' '5", "", "k",
     "ERR unknown command 'STEADY.CONSUME'"},
    {"ERR unknown command `EVALSHA`, with args beginning with: `abc`, `1`, `some", "", "something",
     "ERR unknown command `EVALSHA`"},
    /* a secret in place of any word, also of the first */
    {"PASSWORD is wrong", "PASSWORD", NULL, "*** is wrong"},
    {"PASSWORD", "PASSWORD", NULL, "an error (the server's text is not shown: it may contain a key or a password)"},
    {"KEY x", "", "KEY", "an error (the server's text is not shown: it may contain a key or a password)"},
    {"ERR do not use PASSWORD here", "PASSWORD", NULL, "ERR do not use ***"},
    {"NOPERM No permissions to access the 'user:42' key", "", "user:42", "NOPERM No permissions to access the *** key"},
    {"NOPERM User app has no permissions to run the 'evalsha' command", "x", "k",
     "NOPERM User *** has no permissions to run the 'evalsha' command"},
    /* a secret that is not known to us */
    {"ERR no such user other:user:7", "", "k", "ERR no such user ***"},
    /* cut, escaped, encoded, in another case */
    {"ERR invalid hunt", "hunter2", NULL, "ERR invalid ***"},
    {"ERR invalid \\x68unter2", "hunter2", NULL, "ERR invalid ***"},
    {"ERR invalid h%75nter2", "hunter2", NULL, "ERR invalid ***"},
    {"ERR invalid HUNTER2", "hunter2", NULL, "ERR invalid ***"},
    {"ERR invalid \x01\xff\r\n key", "hunter2", NULL, "ERR invalid *** key"},
    /* a secret that is a part of a word, or is very short */
    {"ERR unknown thing", "a", "k", "ERR unknown ***"},
    {"ERR a key", "a", NULL, "ERR (the server's text is not shown: it may contain a key or a password)"},
    {"NOPERM no right to a key", "", "key", "NOPERM (the user has no permission for the command or the key)"},
    {"ERR the user is wrong", "user", NULL, "ERR (the server's text is not shown: it may contain a key or a password)"},
    {"ERR the User is wrong", "user is", NULL,
     "ERR (the server's text is not shown: it may contain a key or a password)"},
    /* a text that is the same whatever was sent is shown */
    {"OOM command not allowed when used memory > 'maxmemory'.", "memory", "command",
     "OOM command not allowed when used memory > 'maxmemory'."},
    /* nothing is left to show */
    {"NOPERM", "", NULL, "NOPERM (the user has no permission for the command or the key)"},
    {"ERR", "", NULL, "ERR (the server's text is not shown: it may contain a key or a password)"},
    {"", "", NULL, "an error (the server's text is not shown: it may contain a key or a password)"},
    {"   ", "", NULL, "an error (the server's text is not shown: it may contain a key or a password)"},
    {"MOVED 3999 10.0.0.7:6379", "", NULL, "MOVED (another node serves the key)"},
    {"x y z", "", NULL, "an error (the server's text is not shown: it may contain a key or a password)"},
};

static void errors_are_shown_without_secrets(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(redact(cases[i].text, cases[i].password, cases[i].key), cases[i].shown);
}

static void prefix_of_a_key_is_not_secret(void **state) {
    char out[128];
    const struct steady__secrets secrets = {.key = "rl:user", .key_len = 7, .prefix_len = 3};
    (void)state;
    steady__redact(out, sizeof out, "ERR wrong user", 14, &secrets);
    assert_string_equal(out, "ERR (the server's text is not shown: it may contain a key or a password)");
    const struct steady__secrets other = {.key = "user:1", .key_len = 6, .prefix_len = 5};
    steady__redact(out, sizeof out, "ERR wrong user", 14, &other);
    assert_string_equal(out, "ERR wrong user");
}

static void each_key_of_a_call_is_secret(void **state) {
    char out[128];
    static const struct steady__key keys[] = {
        {"rl:user", 7, 3}, {"rl:{limit}1h", 12, 3}, {"rl:drops", 8, 3}, {"bucket", 6, 6}};
    const struct steady__secrets secrets = {.key = "rl:user", .key_len = 7, .prefix_len = 3, .keys = keys, .n_keys = 4};
    static const char *const hidden[] = {"ERR wrong user", "ERR wrong limit", "ERR wrong drops", "ERR wrong bucket"};
    (void)state;
    for (size_t i = 0; i < COUNT(hidden); i++) {
        steady__redact(out, sizeof out, hidden[i], strlen(hidden[i]), &secrets);
        assert_string_equal(out, "ERR (the server's text is not shown: it may contain a key or a password)");
    }
    steady__redact(out, sizeof out, "ERR wrong amount", 16, &secrets);
    assert_string_equal(out, "ERR wrong amount");
    steady__redact_known(out, sizeof out, "of rl:drops and drops", &secrets);
    assert_string_equal(out, "of *** and ***");
    assert_true(steady__host_holds("drops.example", &secrets) && !steady__host_holds("example", &secrets));
}

static void password_of_the_sentinels_is_not_shown(void **state) {
    char out[128];
    const struct steady__url url = url_of("user", "x", "wrong");
    const struct steady__secrets secrets = {.url = &url};
    (void)state;
    steady__redact(out, sizeof out, "ERR this is wrong", 17, &secrets);
    assert_string_equal(out, "ERR (the server's text is not shown: it may contain a key or a password)");
}

static void long_error_is_cut_between_words(void **state) {
    static const char text[] = "NOPERM this user has no permissions to run the 'evalsha' command";
    static const char whole[] = "NOPERM this user has no permissions to run the 'evalsha' command ";
    const struct steady__secrets secrets = {0};
    (void)state;
    for (size_t size = 0; size < 90; size++) {
        char out[100];
        memset(out, 'x', sizeof out);
        steady__redact(out, size, text, sizeof text - 1, &secrets);
        assert_int_equal(out[size], 'x');
        if (size < 8) continue;
        const size_t len = strlen(out);
        assert_true(len < size);
        if (size < 12) continue;
        assert_memory_equal(out, whole, len);
        assert_int_equal(whole[len], ' ');
    }
}

/* ---- Secrets at random, everywhere ---- */

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define ANY ALNUM " '\"`.,:;!?@%/\\()[]<>-_*#"

/* At least one digit, so that it is not a word. */
static size_t make_secret(char out[64], uint64_t *random, const char *from, size_t least, size_t most) {
    const size_t len = least + (size_t)random_in(random, 0, (int64_t)(most - least));
    for (size_t i = 0; i < len; i++)
        out[i] = from[random_in(random, 0, (int64_t)strlen(from) - 1)];
    out[random_in(random, 0, (int64_t)len - 1)] = (char)random_in(random, '0', '9');
    out[len] = '\0';
    return len;
}

enum writing { PLAIN, UPPER, LOWER, FRONT, BACK, QUOTED, WRITINGS };

/* Writes a secret as a server might write it. */
static void write_secret(char *out, const char *secret, enum writing writing) {
    const size_t len = strlen(secret);
    switch (writing) {
    case FRONT: sprintf(out, "%.*s", (int)(len - len / 3), secret); return;
    case BACK: strcpy(out, secret + len / 3); return;
    case QUOTED: sprintf(out, "'%s'.", secret); return;
    default: break;
    }
    for (size_t i = 0; i <= len; i++)
        out[i] = (char)(writing == UPPER   ? toupper((unsigned char)secret[i])
                        : writing == LOWER ? tolower((unsigned char)secret[i])
                                           : secret[i]);
}

/* Puts a text between two words of another, or in place of one. */
static void put_in(char *out, const char *text, size_t position, bool instead, const char *what) {
    const char *at = text;
    for (size_t i = 0; i < position; i++)
        at = strchr(at, ' ') + 1;
    const char *rest = strchr(at, ' ');
    sprintf(out, "%.*s%s%s%s", (int)(at - text), text, what, instead ? "" : " ", !instead ? at : rest ? rest : "");
}

static size_t count_words(const char *text) {
    size_t n = 1;
    for (; *text != '\0'; text++)
        n += *text == ' ';
    return n;
}

static bool has_part(const char *text, const char *secret, size_t least) {
    const size_t len = strlen(secret);
    if (len < least) return strcasestr(text, secret) != NULL;
    for (size_t i = 0; i + least <= len; i++) {
        char part[64];
        memcpy(part, secret + i, least);
        part[least] = '\0';
        if (strcasestr(text, part) != NULL) return true;
    }
    return false;
}

/* Whether the secret is known to us or not. */
static void secret_is_not_shown_wherever_it_stands(void **state) {
    uint64_t random = 20240607;
    (void)state;
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < COUNT(real); i++)
            for (size_t position = 0; position < count_words(real[i]); position++) {
                char secret[64], written[80], text[400];
                make_secret(secret, &random, ALNUM, 9, 24);
                write_secret(written, secret, (enum writing)random_in(&random, 0, WRITINGS - 1));
                put_in(text, real[i], position, random_in(&random, 0, 1) == 0, written);
                const bool known = random_in(&random, 0, 1) == 0;
                const char *shown = redact(text, known ? secret : "", known ? NULL : "other");
                if (has_part(shown, secret, 5)) fail_msg("%s is in: %s", secret, shown);
                assert_true(*shown != '\0');
            }
}

/* A known secret of any bytes and any length. */
static void known_secret_of_any_bytes_is_not_shown(void **state) {
    uint64_t random = 20240607;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char secret[64], text[400];
        const char *base = real[random_in(&random, 0, COUNT(real) - 1)];
        const size_t len = make_secret(secret, &random, ANY, 1, 12);
        put_in(text, base, (size_t)random_in(&random, 0, (int64_t)count_words(base) - 1), random_in(&random, 0, 1) == 0,
               secret);
        const bool as_key = random_in(&random, 0, 1) == 0;
        const char *shown = redact(text, as_key ? "" : secret, as_key ? secret : NULL);
        assert_true(*shown != '\0');
        for (const char *p = shown; *p != '\0'; p++)
            assert_between(*p, 0x20, 0x7e);
        if (len > 3 && strstr(shown, secret) != NULL) fail_msg("\"%s\" is in: %s", secret, shown);
    }
}

/* ---- Hosts named by a server ---- */

static void host_named_by_a_server_is_not_shown_if_it_holds_a_secret(void **state) {
    const struct steady__url service = url_of("u", "hunter2", "");
    struct steady__url at = {.scheme = STEADY__URL_TCP, .host = "x.hunter2.example", .port = 7};
    char out[64];
    (void)state;
    steady__redact_place(out, sizeof out, &at, &service);
    assert_string_equal(out, "x.hunter2.example:7"); /* the caller's own host name is shown */
    at.named = true;
    steady__redact_place(out, sizeof out, &at, &service);
    assert_string_equal(out, "***:7");
    at.host = "10.0.0.1";
    steady__redact_place(out, sizeof out, &at, &service);
    assert_string_equal(out, "10.0.0.1:7");
    at.host = "::1";
    steady__redact_place(out, sizeof out, &at, &service);
    assert_string_equal(out, "[::1]:7");
    at.unshown = true;
    steady__redact_place(out, sizeof out, &at, &service);
    assert_string_equal(out, "[***]:7");
}

/* ---- Texts of other programs ---- */

static void texts_of_other_programs_are_shown_without_secrets(void **state) {
    char out[128];
    const struct steady__secrets secrets = {.key = "user:42", .key_len = 7};
    (void)state;
    steady__redact_known(out, sizeof out, "Error 111 connecting to localhost:6379. Connection refused.", &secrets);
    assert_string_equal(out, "Error 111 connecting to localhost:6379. Connection refused.");
    steady__redact_known(out, sizeof out, "no user:42 at redis://u:hunter2@h/1\n(no)", &secrets);
    assert_string_equal(out, "no *** at redis://***");
    steady__redact_known(out, sizeof out, "tried redis://u:hunter2@h:7/1 twice", &secrets);
    assert_string_equal(out, "tried redis://***@h:7/1 twice");
    steady__redact_known(out, 12, "connection refused", &secrets);
    assert_string_equal(out, "connection ");
}

/* A token of a cloud provider as the password makes a URL of more than a kilobyte. */
static void long_url_in_a_text_is_hidden(void **state) {
    static const char *const forms[][2] = {{"redis://u:", "@h:7/1"}, {"u:", "@h"}, {"http://h?", ""}};
    const struct steady__secrets none = {0};
    (void)state;
    for (size_t i = 0; i < COUNT(forms); i++)
        for (size_t len = 200; len < 1200; len++) {
            char secret[1200], text[1300], out[2000];
            memset(secret, 'S', len);
            secret[len] = '\0';
            snprintf(text, sizeof text, "lost %s%s%s twice", forms[i][0], secret, forms[i][1]);
            steady__redact_known(out, sizeof out, text, &none);
            if (strchr(out, 'S') != NULL) fail_msg("a secret of %zu bytes is shown: %s", len, out);
            assert_non_null(strstr(out, "lost "));
            assert_non_null(strstr(out, " twice"));
        }
}

/* ---- Arguments ---- */

static const struct {
    const char *text, *quoted;
} arguments[] = {
    {"5x", "5x"},
    {"5\xc2\xb5s\n", "5??s?"},
    {"a:b", "a:b"},
    {"anna@example.com", "***"},
    {"/srv/anna@example.com/x", "/srv/anna@example.com/x"},
    {"/u:SECRET@x", "***"},
    {"redis://localhost:6379/1?peek=replica", "redis://localhost:6379/1?peek=replica"},
    {"redis://u:SECRET@h:7/1", "redis://***@h:7/1"},
    {"redis://:SECRET%40SECRET@h", "redis://***@h"},
    {"REDISS://u:SECRET@h?tls_ca=/x", "REDISS://***@h?tls_ca=/x"},
    {"unix://u:SECRET@/tmp/a@b?db=1", "unix://***@/tmp/a@b?db=1"},
    {"redis+sentinel://u:SECRET@a,b/s/1?sentinel_username=u&sentinel_password=SECRET&peek=replica",
     "redis+sentinel://***@a,b/s/1?sentinel_username=u&sentinel_password=***&peek=replica"},
    {"unix:/@u:SECRET@h", "unix:***"},
    {"redis:u:SECRET@h", "redis:***"},
    {"redis:SECRET", "redis:***"},
    {"redis://h:SECRET", "redis://***"},
    {"redis://h?SECRET", "redis://***"},
    {"redis://h?pasword=SECRET", "redis://***"},
    {"redis//u:SECRET@h", "***"},
    {"http://u:SECRET@h", "http://***"},
    {"http://h?SECRET", "http://***"},
    {"u:SECRET@h", "***"},
    {"redis%3A%2F%2Fu%3ASECRET%40h", "***"},
    {"password=SECRET", "password=***"},
    {"--auth=SECRET", "--auth=***"},
    {"sentinel_password:SECRET", "sentinel_password:***"},
    {"token=SECRET pass=x", "token=***"},
    {"x=1&secret=SECRET&pwd=x", "x=1&secret=***"},
    {"credential: SECRET, auth: x, password: x", "credential:***"},
};

static void arguments_are_quoted_without_secrets(void **state) {
    char out[128];
    (void)state;
    for (size_t i = 0; i < COUNT(arguments); i++) {
        steady_quote(out, sizeof out, arguments[i].text);
        assert_string_equal(out, arguments[i].quoted);
    }
    steady_quote(out, sizeof out, NULL);
    assert_string_equal(out, "");
}

/* Every scheme, every place, every typo of one byte. */
static void url_with_a_typo_is_shown_without_its_password(void **state) {
    static const char *const schemes[] = {"redis", "valkey",         "rediss", "valkeys",
                                          "unix",  "redis+sentinel", "http",   "rdis"};
    static const char *const rests[] = {"://u:SECRET@h/1", "://:SECRET@h:7", "://u:SECRET@/x",
                                        "://h/s?sentinel_password=SECRET",
                                        "://u:SECRET@h/s?sentinel_username=u&sentinel_password=SECRET&peek=replica"};
    (void)state;
    for (size_t s = 0; s < COUNT(schemes); s++)
        for (size_t r = 0; r < COUNT(rests); r++) {
            char text[160], slip[160], out[80];
            sprintf(text, "%s%s", schemes[s], rests[r]);
            const char *secret = strstr(text, "SECRET");
            for (size_t i = 0; i < strlen(text); i++)
                for (const char *c = ":/@?&=%# x\x01"; *c != '\0'; c++)
                    for (int how = 0; how < 3; how++) { /* a byte removed, replaced, added */
                        if (&text[i] > secret && &text[i] < secret + 6 && how < 2) continue;
                        sprintf(slip, "%.*s%.*s%s", (int)i, text, how > 0, c, text + i + (how < 2));
                        steady_quote(out, sizeof out, slip);
                        if (strstr(out, "SECRET") != NULL) fail_msg("%s is shown as %s", slip, out);
                        steady_message why = {.text = ""};
                        struct steady__url url;
                        if (steady__url_parse(&url, slip, &why) != 0 && strstr(why.text, "SECRET") != NULL)
                            fail_msg("%s is refused with %s", slip, why.text);
                    }
        }
}

static void quotation_fits_into_any_buffer(void **state) {
    static const char *const texts[] = {"0123456789", "redis://u:SECRET@a-long-host-name.example:6379/1",
                                        "password=SECRET"};
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        for (size_t size = 0; size < 60; size++) {
            char out[61];
            memset(out, 'x', sizeof out);
            steady_quote(out, size, texts[i]);
            assert_int_equal(out[size], 'x');
            if (size > 0) assert_true(strlen(out) < size);
            assert_null(size > 0 ? strstr(out, "SECRET") : NULL);
            if (i == 0 && size == 8) assert_string_equal(out, "0123...");
        }
}

/* The value of an option may hold "//" and "@", which is no authority. */
static void value_of_an_option_is_not_taken_for_an_authority(void **state) {
    static const char *const texts[] = {"unix:/C?client_name=tls//@9", "unix:/C?client_name=//@"};
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        char out[64];
        steady_quote(out, sizeof out, texts[i]);
        assert_string_equal(out, texts[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(value_of_an_option_is_not_taken_for_an_authority),
        cmocka_unit_test(errors_of_real_servers_are_shown_whole),
        cmocka_unit_test(errors_are_shown_without_secrets),
        cmocka_unit_test(prefix_of_a_key_is_not_secret),
        cmocka_unit_test(each_key_of_a_call_is_secret),
        cmocka_unit_test(password_of_the_sentinels_is_not_shown),
        cmocka_unit_test(long_error_is_cut_between_words),
        cmocka_unit_test(secret_is_not_shown_wherever_it_stands),
        cmocka_unit_test(known_secret_of_any_bytes_is_not_shown),
        cmocka_unit_test(host_named_by_a_server_is_not_shown_if_it_holds_a_secret),
        cmocka_unit_test(texts_of_other_programs_are_shown_without_secrets),
        cmocka_unit_test(long_url_in_a_text_is_hidden),
        cmocka_unit_test(arguments_are_quoted_without_secrets),
        cmocka_unit_test(url_with_a_typo_is_shown_without_its_password),
        cmocka_unit_test(quotation_fits_into_any_buffer),
    };
    return cmocka_run_group_tests_name("redact", tests, NULL, NULL);
}
