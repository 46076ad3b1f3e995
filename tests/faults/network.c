/* SPDX-License-Identifier: MIT
 * A server in its own network namespace, and a virtual cable to it that can be pulled. Needs root. */
#include "rig.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t far; /* a process in the namespace of the server */

__attribute__((format(printf, 1, 2))) static int sh(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return system(line);
}

static bool make_network(void) {
    int ready[2];
    char byte = 0;
    if (unshare(CLONE_NEWNET) != 0 || pipe(ready) != 0) return false;
    far = fork();
    if (far == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "", 1) == 1) pause();
        _exit(1);
    }
    close(ready[1]);
    const bool made = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    return made && sh("ip link set lo up && ip link add near type veth peer name far netns %d && "
                      "ip addr add 10.77.0.1/24 dev near && ip link set near up && "
                      "nsenter -t %d -n ip addr add 10.77.0.2/24 dev far && nsenter -t %d -n ip link set far up && "
                      "nsenter -t %d -n ip link set lo up",
                      far, far, far, far) == 0;
}

static int set_up_once(void **state) {
    char program[64];
    (void)state;
    if (!make_network()) return 0;
    snprintf(program, sizeof program, "nsenter -t %d -n redis-server", far);
    return setenv("REDIS_SERVER", program, 1);
}

static int tear_down_once(void **state) {
    (void)state;
    if (far > 0) kill(far, SIGKILL);
    if (far > 0) waitpid(far, NULL, 0);
    return 0;
}

static void pull_the_cable(void) { assert_int_equal(sh("nsenter -t %d -n ip link set far down", far), 0); }
static void plug_it_in(void) { assert_int_equal(sh("nsenter -t %d -n ip link set far up", far), 0); }

static bool start_far_server(void) {
    if (getenv("REDIS_SERVER") == NULL) return false;
    server_kill(&rig.server);
    snprintf(rig.server.options, sizeof rig.server.options, "--bind 10.77.0.2 --protected-mode no");
    server_restart(&rig.server, true);
    snprintf(rig.server.url, sizeof rig.server.url, "redis://10.77.0.2:%d", rig.server.port);
    return true;
}

#define NO_NETWORK "network namespaces take root and the ip command"

static bool listens_at(int fd, int port) {
    struct sockaddr_in at = {0};
    socklen_t len = sizeof at, one = sizeof(int);
    int listens = 0;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &one) == 0 && listens != 0 &&
           getsockname(fd, (struct sockaddr *)&at, &len) == 0 && at.sin_family == AF_INET && ntohs(at.sin_port) == port;
}

/* A descriptor in this process of the listening socket of the server, or -1. */
static int far_listener(void) {
    const int process = (int)syscall(SYS_pidfd_open, rig.server.pid, 0);
    int fd = -1;
    for (int number = 0; number < 64 && process >= 0; number++) {
        fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
        if (fd >= 0 && listens_at(fd, rig.server.port)) break;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    if (process >= 0) close(process);
    return fd;
}

/* The kernel of the server drops each packet for its port without a reply. */
static int drop_what_comes(int listener) {
    struct sock_filter keep_nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    const struct sock_fprog program = {1, &keep_nothing};
    return setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int drop_no_more(int listener) {
    const int unused = 0;
    return setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
}

/* No packet comes back, and no reset either. */
static void black_hole_is_unavailable_in_time_and_used_again(void **state) {
    struct tally tally = {0};
    (void)state;
    if (!start_far_server()) skip_because(NO_NETWORK);
    const int listener = far_listener();
    assert_return_code(listener, errno);
    assert_return_code(drop_what_comes(listener), errno);
    rig_open(TIMEOUT);
    trickle(&tally, MS, how_long(STEADY_SECOND, 5 * STEADY_SECOND));
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_true(tally.slowest >= TIMEOUT); /* without a reply no decision ends before its deadline */
    assert_in_time(&tally);
    assert_return_code(drop_no_more(listener), errno);
    close(listener);
    assert_used_again();
    assert_loop_never_held();
}

/* The hardware address of the server is not found either. After the cable is back, the kernel looks for it once a
 * second, and the test may wait for that. */
static void cable_pulled_before_connecting_is_unavailable_in_time(void **state) {
    struct tally tally = {0}, again = {0};
    (void)state;
    if (!start_far_server()) skip_because(NO_NETWORK);
    pull_the_cable();
    rig_open(TIMEOUT);
    trickle(&tally, MS, how_long(STEADY_SECOND, 5 * STEADY_SECOND));
    assert_int_equal(tally.errors[-STEADY_UNAVAILABLE], tally.called);
    assert_in_time(&tally);
    plug_it_in();
    const steady_us begin = now_us();
    while (again.verdicts == 0) {
        assert_true(now_us() - begin < 2 * STEADY_SECOND);
        consume_counted(rig.throttler, "again", 1, &again);
        run_for(rig.poller, 10 * MS);
    }
    print_message("# used again after %lld ms\n", (long long)((now_us() - begin) / MS));
    run_until_done(rig.poller, &again, STEADY_SECOND);
    assert_loop_never_held();
}

/* Both ends keep a connection that carries no packets. It is replaced each time. */
static void half_open_connection_is_replaced_each_time(void **state) {
    struct tally tally = {0};
    (void)state;
    if (!start_far_server()) skip_because(NO_NETWORK);
    rig_open(TIMEOUT);
    warm_up();
    for (int i = 0; i < 3; i++) {
        load(&tally, 100, 300 * MS);
        const unsigned lines = rig.log.lines;
        pull_the_cable();
        trickle(&tally, MS, 700 * MS);
        assert_true(rig.log.lines > lines); /* the connection is dropped after four timeouts */
        plug_it_in();
        assert_used_again();
    }
    assert_in_time(&tally);
    assert_true(tally.allowed > 0 && tally.errors[-STEADY_UNKNOWN] > 0);
    account(&tally, level("k"));
    assert_loop_never_held();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_RIG(black_hole_is_unavailable_in_time_and_used_again),
        WITH_RIG(cable_pulled_before_connecting_is_unavailable_in_time),
        WITH_RIG(half_open_connection_is_replaced_each_time),
    };
    return cmocka_run_group_tests_name("network", tests, set_up_once, tear_down_once);
}
