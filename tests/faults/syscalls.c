/* SPDX-License-Identifier: MIT
 * Each system call of the Redis store fails once, at each place, with each error that it can have. Each decision
 * ends, no descriptor stays open, and decisions are made within the next second. */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

/* The call that fails, and its number from 1; 0: no call fails. */
enum call { SOCKET, CONNECT, SETSOCKOPT, GETSOCKOPT, SEND, RECV, EVENTFD, THREAD, CALLS };
static const char *const names[] = {"socket", "connect", "setsockopt", "getsockopt",
                                    "send",   "recv",    "eventfd",    "thread"};
static const int errors[CALLS][5] = {
    [SOCKET] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES},
    [CONNECT] = {ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, ETIMEDOUT, EAGAIN},
    [SETSOCKOPT] = {EINVAL, ENOPROTOOPT, ENOBUFS},
    [GETSOCKOPT] = {EINVAL, ENOBUFS},
    [SEND] = {EPIPE, ECONNRESET, ENOBUFS, EINTR, EAGAIN},
    [RECV] = {ECONNRESET, ETIMEDOUT, ENOMEM, EINTR, EAGAIN},
    [EVENTFD] = {EMFILE, ENOMEM},
    [THREAD] = {EAGAIN},
};
static struct {
    enum call call;
    int error;
    unsigned nth, seen;
} fault;

static bool fails(enum call call) {
    if (fault.nth == 0 || fault.call != call || ++fault.seen != fault.nth) return false;
    errno = fault.error;
    return true;
}

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol) {
    return fails(SOCKET) ? -1 : __real_socket(domain, type, protocol);
}

int __real_connect(int fd, const struct sockaddr *to, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t len) {
    return fails(CONNECT) ? -1 : __real_connect(fd, to, len);
}

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return fails(SETSOCKOPT) ? -1 : __real_setsockopt(fd, level, name, value, len);
}

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    return fails(GETSOCKOPT) ? -1 : __real_getsockopt(fd, level, name, value, len);
}

ssize_t __real_send(int fd, const void *bytes, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags) {
    return fails(SEND) ? -1 : __real_send(fd, bytes, len, flags);
}

ssize_t __real_recv(int fd, void *bytes, size_t room, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t room, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t room, int flags) {
    return fails(RECV) ? -1 : __real_recv(fd, bytes, room, flags);
}

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags) { return fails(EVENTFD) ? -1 : __real_eventfd(count, flags); }

int __real_pthread_create(pthread_t *id, const pthread_attr_t *with, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *with, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *with, void *(*run)(void *), void *arg) {
    return fails(THREAD) ? fault.error : __real_pthread_create(id, with, run, arg);
}

/* Returns false if there is no n-th call. */
static bool fail_nth(enum call call, int error, unsigned nth) {
    char url[64];
    struct tally tally = {0};
    steady_result r;
    snprintf(url, sizeof url, "redis://localhost:%d", rig.server.port);
    server_ask(&rig.server, "FLUSHALL");
    server_ask(&rig.server, "SCRIPT FLUSH");
    fault.seen = 0;
    fault.call = call;
    fault.error = error;
    fault.nth = nth;
    rig_open_at(url, TIMEOUT);
    for (int i = 0; i < 3; i++) {
        consume_counted(rig.throttler, "k", 1, &tally);
        consume_counted(rig.throttler, "k", 1, &tally);
        run_until_done(rig.poller, &tally, STEADY_SECOND);
    }
    (void)steady_consume_sync(rig.throttler, "sync", 4, 1, &r);
    const bool happened = fault.seen >= nth;
    fault.nth = 0;
    if (r.error != 0 && r.error != STEADY_UNAVAILABLE && r.error != STEADY_UNKNOWN && r.error != STEADY_NO_MEMORY)
        fail_msg("%s, number %u, error %d: %s", names[call], nth, error, steady_error_name(r.error));
    if (tally.verdicts + tally.errors[-STEADY_UNKNOWN] + tally.errors[-STEADY_UNAVAILABLE] != tally.called)
        fail_msg("%s, number %u, error %d: %s", names[call], nth, error, steady_error_name(tally.last.error));
    assert_used_again();
    rig_close();
    account(&tally, level("k"));
    return happened;
}

static void store_survives_each_failed_system_call(void **state) {
    unsigned faults = 0;
    (void)state;
    for (enum call call = 0; call < CALLS; call++)
        for (size_t i = 0; i < COUNT(errors[call]) && errors[call][i] != 0; i++)
            for (unsigned nth = 1; fail_nth(call, errors[call][i], nth); nth++)
                faults++;
    print_message("# %u calls failed\n", faults);
    assert_true(faults > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {WITH_RIG(store_survives_each_failed_system_call)};
    return cmocka_run_group_tests_name("syscalls", tests, NULL, NULL);
}
