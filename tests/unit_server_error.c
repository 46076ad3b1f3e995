/* SPDX-License-Identifier: MIT
 * The classes of `-ERR` replies, by the texts that servers send. */
#include "support.h"

#include "conn/server_error.h"

static void each_error_reply_has_its_class_and_code(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum steady__error_class error_class;
        int error;
    } rows[] = {
        {"NOSCRIPT No matching script. Please use EVAL.", STEADY__ERROR_CLASS_NOSCRIPT, STEADY_UNAVAILABLE},
        {"NOSCRIPT No matching script.", STEADY__ERROR_CLASS_NOSCRIPT, STEADY_UNAVAILABLE},
        {"READONLY You can't write against a read only replica. script: 1, on @user_script:1.",
         STEADY__ERROR_CLASS_READONLY, STEADY_UNAVAILABLE},
        {"LOADING Redis is loading the dataset in memory", STEADY__ERROR_CLASS_BUSY, STEADY_UNAVAILABLE},
        {"BUSY Redis is busy running a script.", STEADY__ERROR_CLASS_BUSY, STEADY_UNAVAILABLE},
        {"MASTERDOWN Link with MASTER is down", STEADY__ERROR_CLASS_BUSY, STEADY_UNAVAILABLE},
        {"OOM command not allowed when used memory > 'maxmemory'.", STEADY__ERROR_CLASS_RETRY_LATER,
         STEADY_UNAVAILABLE},
        {"MOVED 3999 127.0.0.1:6381", STEADY__ERROR_CLASS_MOVED, STEADY_UNAVAILABLE},
        {"NOAUTH Authentication required.", STEADY__ERROR_CLASS_NO_PERMISSION, STEADY_REFUSED},
        {"NOPERM this user has no permissions", STEADY__ERROR_CLASS_NO_PERMISSION, STEADY_REFUSED},
        {"ERR The user executing the script can't run this command or subcommand", STEADY__ERROR_CLASS_NO_PERMISSION,
         STEADY_REFUSED},
        {"ERR ACL failure in script: User app has no permissions to run the 'get' command",
         STEADY__ERROR_CLASS_NO_PERMISSION, STEADY_REFUSED},
        {"ERR max number of clients reached", STEADY__ERROR_CLASS_REJECTED, STEADY_UNAVAILABLE},
        {"ERR max number of clients + cluster connections reached", STEADY__ERROR_CLASS_REJECTED, STEADY_UNAVAILABLE},
        {"WRONGTYPE Operation against a key", STEADY__ERROR_CLASS_NOT_A_BUCKET, STEADY_NOT_A_BUCKET},
        {"ERR unknown command 'STEADY.CONSUME', with args beginning with: 'ERR max number of clients reached' '1' ",
         STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
        {"ERR unknown command 'STEADY.PEEK', with args beginning with: 'The user executing the script can't run this "
         "command' '1' ",
         STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
        {"ERR unknown command 'STEADY.PEEK', with args beginning with: 'ERR ACL failure in script' '1' ",
         STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
        {"OOMPH", STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
        {"ERR", STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
        {"", STEADY__ERROR_CLASS_OTHER, STEADY_SERVER},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const enum steady__error_class error_class = steady__error_class_of(rows[i].text, strlen(rows[i].text));
        assert_int_equal(error_class, rows[i].error_class);
        assert_int_equal(steady__error_class_code(error_class), rows[i].error);
    }
}

/* A forbidden command can be replaced by another engine. A forbidden key is forbidden to each engine. */
static void forbidden_command_is_told_from_a_forbidden_key(void **state) {
    static const struct {
        bool command;
        const char *text;
    } rows[] = {
        {true, "NOPERM this user has no permissions to run the 'evalsha' command"},
        {true, "NOPERM User app has no permissions to run the 'steady.consume' command"},
        {true, "ERR The user executing the script can't run this command or subcommand script: 1"},
        {true, "ERR ACL failure in script: User app has no permissions to run the 'get' command"},
        {false, "NOPERM this user has no permissions to access one of the keys used as arguments"},
        {false, "NOPERM No permissions to access a key"},
        {false, "NOAUTH Authentication required."},
        {false, "ERR unknown command 'STEADY.CONSUME'"},
        {false, ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (steady__error_is_forbidden_command(rows[i].text, strlen(rows[i].text)) != rows[i].command)
            fail_msg("row %zu", i);
}

/* A temporary error is about the state of the server, so the same request may succeed later. */
static void busy_retry_later_and_rejected_are_temporary(void **state) {
    (void)state;
    for (int error_class = STEADY__ERROR_CLASS_NONE; error_class <= STEADY__ERROR_CLASS_OTHER; error_class++)
        assert_int_equal(steady__error_class_is_temporary((enum steady__error_class)error_class),
                         error_class == STEADY__ERROR_CLASS_BUSY || error_class == STEADY__ERROR_CLASS_RETRY_LATER ||
                             error_class == STEADY__ERROR_CLASS_TRY_AGAIN ||
                             error_class == STEADY__ERROR_CLASS_REJECTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_error_reply_has_its_class_and_code),
        cmocka_unit_test(forbidden_command_is_told_from_a_forbidden_key),
        cmocka_unit_test(busy_retry_later_and_rejected_are_temporary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
