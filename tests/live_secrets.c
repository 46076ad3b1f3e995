/* SPDX-License-Identifier: MIT
 * A password and a key must not be shown. The tests look for them in logs and errors, and after closing look for the
 * password in all memory of the process. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_server.h"
#include "names.h"
#include "redis/slot_map.h"

#define HIDDEN_BY 0x5a
static const char hidden[] =
    "9;4;(#\000-c+\0261\016i,\0028m\0274\010o9\003>h\012)"; /* the program must not hold the password as text */
#define LENGTH (sizeof hidden - 1)
#define KEY "a-key-that-is-nobodys-business"

__attribute__((noinline)) static void reveal(char password[LENGTH + 1]) {
    for (size_t i = 0; i < LENGTH; i++)
        password[i] = (char)(hidden[i] ^ HIDDEN_BY);
    password[LENGTH] = '\0';
}

/* The pattern with the password for each "%s", and the slot of the key for "%d". */
static void fill(char *out, const char *pattern) {
    for (; *pattern != '\0'; pattern++) {
        if (strncmp(pattern, "%s", 2) == 0) {
            reveal(out);
            out += LENGTH;
            pattern++;
        } else if (strncmp(pattern, "%d", 2) == 0) {
            out += sprintf(out, "%u", (unsigned)steady__slot_of(KEY, strlen(KEY)));
            pattern++;
        } else {
            *out++ = *pattern;
        }
    }
    *out = '\0';
}

/* ---- Texts ---- */

static void assert_clean(const char *text) {
    char password[LENGTH + 1];
    reveal(password);
    if (strstr(text, password) != NULL) fail_msg("the password is in: %s", text);
    if (strstr(text, KEY) != NULL) fail_msg("the key is in: %s", text);
}

static void assert_texts_clean(void) {
    assert_clean(rig.log.all);
    assert_clean(last_error_of(rig.store));
}

static void open_with_password(int port, const char *user) {
    char password[LENGTH + 1], url[160];
    reveal(password);
    snprintf(url, sizeof url, "redis://%s:%s@127.0.0.1:%d", user, password, port);
    rig_open_at(url, TIMEOUT);
    explicit_bzero(url, sizeof url);
    explicit_bzero(password, sizeof password);
}

static void ask_about_the_key(void) {
    struct tally tally = {0};
    steady_result r;
    consume_counted(rig.throttler, KEY, 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    (void)steady_consume_sync(rig.throttler, KEY, strlen(KEY), 1, &r);
    (void)steady_reset_sync(rig.throttler, KEY, strlen(KEY), &r);
    assert_texts_clean();
}

static void errors_of_a_real_server_show_no_secret(void **state) {
    static const char *const faults[] = {
        "ACL SETUSER app on >another ~* +@all",
        "ACL SETUSER app on >%s resetkeys ~other:* +@all",
        "ACL SETUSER app on >%s ~* -@all",
        "ACL SETUSER app on >%s ~* -@all +evalsha +script|load",
        "ACL SETUSER app on >%s ~* +@all -client",
        "RPUSH " KEY " x",
        "SET " KEY " text",
        "CONFIG SET maxmemory 1",
        "CONFIG SET min-replicas-to-write 3",
        "REPLICAOF 127.0.0.1 1",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        char password[LENGTH + 1];
        reveal(password);
        server_ask(&rig.server, faults[i], password);
        open_with_password(rig.server.port, "app");
        ask_about_the_key();
        rig_close();
    }
    server_kill(&rig.server);
    open_with_password(rig.server.port, "app");
    ask_about_the_key();
}

/* A server that quotes the password and the key in each reply. */
static void reply_that_quotes_a_secret_is_not_shown(void **state) {
    static const char *const formats[] = {
        "-ERR unknown command 'AUTH', with args beginning with: 'app' '%s' \r\n",
        "-WRONGPASS %s\r\n",
        "-%s\r\n",
        "+%s\r\n",
        "$28\r\n%s\r\n",
        "+OK\r\n-ERR I do not like " KEY " of %s\r\n",
        "+OK\r\n-NOPERM " KEY "\r\n",
        "+OK\r\n-" KEY "\r\n",
        "+OK\r\n-MOVED 1 " KEY ":%s\r\n",
        "+OK\r\n+" KEY "\r\n",
        "+OK\r\n-LOADING " KEY " of %s\r\n",
        "+OK\r\n-BUSY " KEY "\r\n",
        "+OK\r\n-DENIED " KEY "\r\n",
        "-DENIED %s\r\n",
        "+OK\r\n-ERR max number of clients reached by " KEY "\r\n",
        "-%s is the wrong password\r\n",
        "-ERR wrong password: %s\r\n",
        "-NOAUTH '%s', \"%s\"\r\n",
        "-LOADING %s\r\n",
        "+OK\r\n-%s\r\n",
        "+OK\r\n-%s x\r\n",
        "+OK\r\n-" KEY " x\r\n",
        "+OK\r\n-ERR it was user %s\r\n",
        "+OK\r\n-OOM %s " KEY "\r\n",
        "+OK\r\n-NOPERM No permissions to access the '" KEY "' key\r\n",
        "+OK\r\n-ERR The user executing the script can't run this command: " KEY "\r\n",
        "+OK\r\n-MISCONF " KEY "\r\n",
        "+OK\r\n-MOVED %d " KEY ":1\r\n",
        "+OK\r\n-ASK %d " KEY ".invalid:1\r\n",
        "+OK\r\n-MOVED %d %s:1\r\n",
        "+OK\r\n-NOSCRIPT " KEY "\r\n-ERR " KEY "\r\n-ERR of %s: " KEY "\r\n",
        "+OK\r\n:1\r\n*4\r\n$9\r\nmaxmemory\r\n$1\r\n9\r\n$16\r\nmaxmemory-policy\r\n$28\r\n%s\r\n",
        "+OK\r\n:1\r\n*4\r\n$9\r\nmaxmemory\r\n$1\r\n9\r\n$16\r\nmaxmemory-policy\r\n$30\r\n" KEY "\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(formats); i++) {
        char reply[256];
        fill(reply, formats[i]);
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},
            {FAKE_EXPECT, 1, NULL, 0},
            {FAKE_SEND, 0, reply, 0},
            {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        struct fake_server *fake = fake_start(steps, COUNT(steps));
        struct tally tally = {0};
        open_with_password(fake_port(fake), "app");
        consume_counted(rig.throttler, KEY, 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        consume_counted(rig.throttler, KEY, 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_texts_clean();
        rig_close();
        fake_stop(fake);
    }
}

/* A word of our own list may be the second key of a call. Without that key the word would be shown. */
static void reply_that_quotes_any_key_of_a_call_is_not_shown(void **state) {
    static const char *const replies[] = {
        "-ERR wrong limit\r\n",
        "-NOPERM no permission for the limit\r\n",
        "-BUSY with the limit\r\n",
        "-OOM limit\r\n",
        "-NOTABUCKET limit holds something else\r\n",
        "-MOVED 16287 limit.invalid:1\r\n", /* the slot of the first key */
    };
    (void)state;
    assert_int_equal(steady__slot_of("x", 1), 16287);
    for (size_t i = 0; i < COUNT(replies); i++) {
        const struct fake_step steps[] = {{FAKE_ACCEPT, 0, NULL, 0},
                                          {FAKE_EXPECT, 1, NULL, 0},
                                          {FAKE_SEND, 0, replies[i], 0},
                                          {FAKE_SEND, 0, replies[i], 0},
                                          {FAKE_AWAIT_CLOSE, 0, NULL, 0}};
        struct fake_server *fake = fake_start(steps, COUNT(steps));
        char url[64];
        struct tally tally = {0};
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", fake_port(fake));
        rig_open_at(url, TIMEOUT);
        const steady_part parts[] = {{.throttler = rig.throttler, .key = "x", .key_len = 1, .amount = 1},
                                     {.throttler = rig.throttler, .key = "limit", .key_len = 5, .amount = 1}};
        assert_int_equal(steady_consume_all(parts, 2, NULL, count_result, expect_result(&tally), NULL), 0);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        assert_true(tally.last.error != 0);
        if (strstr(last_error_of(rig.store), "limit") != NULL || strstr(rig.log.all, "limit") != NULL)
            fail_msg("%s is shown: %s; %s", replies[i], last_error_of(rig.store), rig.log.all);
        rig_close();
        fake_stop(fake);
    }
}

/* ---- A secret at each place of an error ---- */

static const char *const errors[] = {
    "ERR unknown command 'EVALSHA'",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "LOADING Redis is loading the dataset in memory",
    "WRONGPASS invalid username-password pair or user is disabled.",
};

/* The text with `secret` before its word number `place`, after its last one, or in the place of a word. */
static void place_secret(char *out, const char *text, int place, bool instead, const char *secret) {
    const char *at = text;
    for (int i = 0; i < place && at != NULL; i++)
        at = strchr(at, ' ') != NULL ? strchr(at, ' ') + 1 : NULL;
    const char *rest = at != NULL ? strchr(at, ' ') : NULL;
    if (at == NULL)
        sprintf(out, "%s %s", text, secret);
    else
        sprintf(out, "%.*s%s%s%s", (int)(at - text), text, secret, instead ? "" : " ",
                !instead ? at
                : rest   ? rest
                         : "");
}

static void ask_fake(const char *reply) {
    const struct fake_step steps[] = {
        {FAKE_ACCEPT, 0, NULL, 0},
        {FAKE_EXPECT, 1, NULL, 0},
        {FAKE_SEND, 0, reply, 0},
        {FAKE_AWAIT_CLOSE, 0, NULL, 0},
    };
    struct fake_server *fake = fake_start(steps, COUNT(steps));
    struct tally tally = {0};
    open_with_password(fake_port(fake), "app");
    consume_counted(rig.throttler, KEY, 1, &tally);
    run_until_done(rig.poller, &tally, STEADY_SECOND);
    assert_texts_clean();
    assert_true(*last_error_of(rig.store) != '\0');
    rig_close();
    fake_stop(fake);
}

static void secret_at_any_place_of_an_error_is_not_shown(void **state) {
    char password[LENGTH + 1];
    (void)state;
    reveal(password);
    for (size_t i = 0; i < COUNT(errors); i++)
        for (int place = 0; place <= 3; place++)
            for (int how = 0; how < 4; how++) {
                char error[200], reply[256];
                place_secret(error, errors[i], place, (how & 1) != 0, (how & 2) != 0 ? KEY : password);
                snprintf(reply, sizeof reply, "%s-%s\r\n", (how & 2) != 0 ? "+OK\r\n" : "", error);
                ask_fake(reply);
            }
}

/* A sentinel that quotes its password or that of the servers, or names it as the host of the primary. */
static void error_of_a_sentinel_shows_no_secret(void **state) {
    static const char *const replies[] = {
        "-ERR no such service %s\r\n",
        "-%s\r\n",
        "-NOPERM %s\r\n",
        "*2\r\n$28\r\n%s\r\n$1\r\n1\r\n",
        "*2\r\n$36\r\n%s.invalid\r\n$1\r\n1\r\n",
        "*2\r\n$28\r\n%s\r\n$28\r\n%s\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(replies); i++)
        for (int of_server = 0; of_server <= 1; of_server++) {
            char reply[160], url[160], password[LENGTH + 1];
            reveal(password);
            fill(reply, replies[i]);
            const struct fake_step steps[] = {
                {FAKE_ACCEPT, 0, NULL, 0}, {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, "+OK\r\n", 0},
                {FAKE_EXPECT, 1, NULL, 0}, {FAKE_SEND, 0, reply, 0},  {FAKE_AWAIT_CLOSE, 0, NULL, 0},
            };
            struct fake_server *fake = fake_start(steps, COUNT(steps));
            struct tally tally = {0};
            snprintf(url, sizeof url, "redis+sentinel://app:%s@127.0.0.1:%d/s?sentinel_password=%s",
                     of_server ? password : "x", fake_port(fake), of_server ? "x" : password);
            rig_open_at(url, TIMEOUT);
            consume_counted(rig.throttler, KEY, 1, &tally);
            run_until_done(rig.poller, &tally, 3 * STEADY_SECOND);
            run_for(rig.poller, 100 * STEADY_MILLISECOND);
            assert_texts_clean();
            assert_true(*last_error_of(rig.store) != '\0');
            rig_close();
            fake_stop(fake);
        }
}

/* A password of one letter occurs in every text, so the words of the server are not shown. */
static void short_password_hides_the_words_of_the_server(void **state) {
    static const char *const passwords[] = {"a", "is", "the", "user"};
    (void)state;
    for (size_t i = 0; i < COUNT(passwords); i++) {
        char reply[128], url[80], shown[64];
        struct tally tally = {0};
        snprintf(reply, sizeof reply, "-WRONGPASS this %s is not it\r\n", passwords[i]);
        const struct fake_step steps[] = {
            {FAKE_ACCEPT, 0, NULL, 0},
            {FAKE_EXPECT, 1, NULL, 0},
            {FAKE_SEND, 0, reply, 0},
            {FAKE_AWAIT_CLOSE, 0, NULL, 0},
        };
        struct fake_server *fake = fake_start(steps, COUNT(steps));
        snprintf(url, sizeof url, "redis://:%s@127.0.0.1:%d", passwords[i], fake_port(fake));
        rig_open_at(url, TIMEOUT);
        consume_counted(rig.throttler, KEY, 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
        snprintf(shown, sizeof shown, "this %s is not it", passwords[i]);
        assert_null(strstr(last_error_of(rig.store), shown));
        assert_null(strstr(rig.log.all, shown));
        assert_non_null(strstr(last_error_of(rig.store), "WRONGPASS (the user or the password is wrong)"));
        rig_close();
        fake_stop(fake);
    }
}

static void error_of_a_bad_url_shows_no_secret(void **state) {
    static const char *const formats[] = {
        "redis://app:%s@host:0",
        "redis://app:%s@host:99999",
        "redis://app:%s@",
        "redis://app:%s@host/x",
        "http://app:%s@host",
        "redis://app:%s@[::1",
        "redis://app:%s@host?x=%s",
        "redis://%s@@host:x",
        "redis://app:%s%zz@host",
        "unix://app:%s@relative",
        "rediss://app:%s@host?ca=/nonesuch",
        "redis://host?passwd=%s&db=1",
        "redis+sentinel://host/service?sentinel_pasword=%s",
        "http://host?auth=%s",
        "redis:app:%s@host",
        "redis:%s",
        "redis//app:%s@host",
        "app:%s",
        "redis://host:%s",
        "redis://host?%s",
        "rediss://host?tls_ca=/nonesuch/app:%s@host",
        "file:/nonesuch/app:%s@host",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(formats); i++) {
        char url[256];
        steady_message why = {.text = ""};
        fill(url, formats[i]);
        if (steady_store_open(&rig.store, url, NULL, &why) == 0) fail_msg("format %zu was taken", i);
        assert_clean(why.text);
    }
}

/* ---- Memory ---- */

static bool is_hidden_at(const char *at) {
    for (size_t i = 0; i < LENGTH; i++)
        if (at[i] != (hidden[i] ^ HIDDEN_BY)) return false;
    return true;
}

#define PAGE ((uintptr_t)4096)

/* True if memory is mapped there. The guard page of a thread's stack looks like other memory. */
static bool is_there(int memory, uintptr_t at) {
    char byte;
    return pread(memory, &byte, 1, (off_t)at) == 1;
}

/* Searches a page and the bytes across its end. Returns NULL if the password is not there. */
__attribute__((no_sanitize("address", "thread"))) static const char *find_in_page(uintptr_t page, bool goes_on) {
    const uintptr_t end = page + PAGE + (goes_on ? 0 : 1 - (uintptr_t)LENGTH);
    for (uintptr_t at = page; at < end; at++)
        if (*(const char *)at == (hidden[0] ^ HIDDEN_BY) && is_hidden_at((const char *)at)) return (const char *)at;
    return NULL;
}

/* The address of the password in writable memory, or NULL. */
static const char *find_password(void) {
    static char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    const char *found = NULL;
    assert_non_null(maps);
    assert_return_code(memory, errno);
    while (found == NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) != 3 || strncmp(rights, "rw", 2) != 0) continue;
        bool there = is_there(memory, from);
        for (uintptr_t page = from; page < to && found == NULL; page += PAGE) {
            const bool next = page + PAGE < to && is_there(memory, page + PAGE);
            if (there) found = find_in_page(page, next);
            there = next;
        }
    }
    close(memory);
    fclose(maps);
    return found;
}

static void let_in(void) {
    const pid_t pid = fork(); /* a child sends it, because it must not enter the memory of this process */
    assert_return_code(pid, errno);
    if (pid == 0) {
        char password[LENGTH + 1];
        reveal(password);
        server_ask(&rig.server, "ACL SETUSER app on >%s ~* +@all", password);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* Makes `decisions` decisions, closes the store, and searches the memory. */
static void assert_wiped(int port, int decisions) {
    steady_result r;
    open_with_password(port, "app");
    for (int i = 0; i < decisions; i++) {
        (void)ask_one();
        (void)steady_consume_sync(rig.throttler, "k", 1, 1, &r);
    }
    assert_non_null(find_password()); /* an open store needs it to reconnect */
    rig_close();
    if (find_password() != NULL) fail_msg("the password is still there after %d decisions", decisions);
}

static void closed_store_leaves_no_secret_in_memory(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip_because("a sanitizer's own memory is too large to look through");
#endif
    struct fake_server *silent = fake_start(NULL, 0);
    for (int decisions = 0; decisions < 3; decisions++) {
        assert_wiped(rig.server.port, decisions); /* the server refuses the password */
        assert_wiped(free_port(), decisions);
        assert_wiped(fake_port(silent), decisions);
    }
    fake_stop(silent);
    let_in();
    for (int decisions = 0; decisions < 3; decisions++)
        assert_wiped(rig.server.port, decisions);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(closed_store_leaves_no_secret_in_memory),
        WITH_RIG(errors_of_a_real_server_show_no_secret),
        WITH_RIG(reply_that_quotes_any_key_of_a_call_is_not_shown),
        WITH_RIG(reply_that_quotes_a_secret_is_not_shown),
        WITH_RIG(error_of_a_bad_url_shows_no_secret),
        WITH_RIG(secret_at_any_place_of_an_error_is_not_shown),
        WITH_RIG(short_password_hides_the_words_of_the_server),
        WITH_RIG(error_of_a_sentinel_shows_no_secret),
    };
    names_say("", EAI_NONAME, 0);
    return cmocka_run_group_tests_name("secrets", tests, NULL, NULL);
}
