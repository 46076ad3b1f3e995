/* SPDX-License-Identifier: MIT
 * The network of the operating system. */
#include "conn/net.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "conn/resolve.h"

/* An idle connection is probed after 15 s, and given up 15 s later if no probe is answered. */
#define KEEPALIVE_IDLE 15
#define KEEPALIVE_INTERVAL 5
#define KEEPALIVE_COUNT 3

static int net_set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value);
}

static int net_set_tcp_options(int fd, steady_us unanswered) {
    const int ms = (int)(unanswered / STEADY_MILLISECOND);
    if (net_set(fd, IPPROTO_TCP, TCP_NODELAY, 1) != 0 || net_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) != 0) return -1;
    if (net_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE) != 0) return -1;
    if (net_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL) != 0) return -1;
    if (net_set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT) != 0) return -1;
    return net_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms);
}

static int net_connect(const struct steady__net *net, const struct steady__address *address, steady_us unanswered) {
    (void)net;
    const struct sockaddr *to = (const struct sockaddr *)&address->bytes;
    const int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if ((to->sa_family == AF_UNIX || net_set_tcp_options(fd, unanswered) == 0) &&
        (connect(fd, to, address->len) == 0 || errno == EINPROGRESS))
        return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* A socket that connects to a local port without a listener may get that port as its own. Then it is connected to
 * itself, and keeps the server from listening there. */
static bool net_is_own_peer(int fd) {
    struct sockaddr_storage here, there;
    socklen_t here_len = sizeof here, there_len = sizeof there;
    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    if (getsockname(fd, (struct sockaddr *)&here, &here_len) != 0) return false;
    if (getpeername(fd, (struct sockaddr *)&there, &there_len) != 0) return false;
    return here.ss_family != AF_UNIX && here_len == there_len && memcmp(&here, &there, here_len) == 0;
}

static int net_connected(const struct steady__net *net, int fd) {
    (void)net;
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) return errno;
    return error == 0 && net_is_own_peer(fd) ? ECONNREFUSED : error;
}

static ssize_t net_send(const struct steady__net *net, int fd, const void *bytes, size_t len) {
    (void)net;
    ssize_t n;
    do
        n = send(fd, bytes, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

static ssize_t net_recv(const struct steady__net *net, int fd, void *bytes, size_t room) {
    (void)net;
    ssize_t n;
    do
        n = recv(fd, bytes, room, 0);
    while (n < 0 && errno == EINTR);
    return n;
}

static void net_close(const struct steady__net *net, int fd) {
    (void)net;
    close(fd);
}

/* If the system has no random numbers yet, the clock is random enough for jitter. */
static uint64_t net_random(const struct steady__net *net) {
    (void)net;
    struct timespec t;
    uint64_t number = 0;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number)
        number = (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u;
    return number >> 1;
}

unsigned steady__net_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > UINT_MAX) return UINT_MAX;
    return (unsigned)limit.rlim_cur;
}

const struct steady__net steady__net_system = {
    .connect = net_connect,
    .connected = net_connected,
    .send = net_send,
    .recv = net_recv,
    .close = net_close,
    .random = net_random,
    .lookup = steady__resolve,
    .lookup_cancel = steady__resolve_cancel,
};
