/* SPDX-License-Identifier: MIT
 * Forked children: noticed with and without a page that the system wipes, and detached from the parent's connection. */
#include "support.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/fork_guard.h"

static void fork_is_noticed_and_the_parent_keeps_its_connection(void **state) {
    (void)state;
    for (int wipe = 0; wipe < 2; wipe++) {
        struct steady__fork_guard guard;
        int pair[2], status = -1;
        char byte;
        steady__fork_guard_set(&guard, wipe == 1);
        assert_int_equal(guard.page != NULL, wipe);
        assert_false(steady__forked(&guard));
        assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), errno);
        const pid_t pid = fork();
        assert_return_code(pid, errno);
        if (pid == 0) {
            steady__fork_guard_detach(pair[0]);
            _exit(steady__forked(&guard) && recv(pair[0], &byte, 1, 0) < 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_false(steady__forked(&guard));
        assert_int_equal(write(pair[1], "x", 1), 1); /* the parent's socket still works */
        assert_int_equal(read(pair[0], &byte, 1), 1);
        close(pair[0]);
        close(pair[1]);
        steady__fork_guard_clear(&guard);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(fork_is_noticed_and_the_parent_keeps_its_connection)};
    return cmocka_run_group_tests_name("fork guard", tests, NULL, NULL);
}
