/* SPDX-License-Identifier: MIT
 * A fake server that follows a script, in a thread of its own. */
#include "fake_server.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECEIVED_MAX (1 << 20)

struct fake_server {
    struct fake_step *steps; /* a copy */
    size_t count;
    int listener, fd, port;
    pthread_t thread;
    bool joined;
    size_t received, counted; /* bytes; bytes of the commands that were expected */
    char bytes[RECEIVED_MAX];
};

static void nap(long ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static bool receive(struct fake_server *fake) {
    const ssize_t n = recv(fake->fd, fake->bytes + fake->received, RECEIVED_MAX - fake->received, 0);
    if (n > 0) fake->received += (size_t)n;
    return n > 0;
}

/* The end of the command that begins at `at`, or 0 if it is incomplete. */
static size_t command_end(const struct fake_server *fake, size_t at) {
    const char *p = fake->bytes + at, *end = fake->bytes + fake->received;
    const char *line = memchr(p, '\n', (size_t)(end - p));
    if (line == NULL) return 0;
    long words = strtol(p + 1, NULL, 10);
    for (p = line + 1; words > 0; words--) {
        line = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (line == NULL) return 0;
        p = line + 1 + strtol(p + 1, NULL, 10) + 2;
    }
    return p <= end ? (size_t)(p - fake->bytes) : 0;
}

static void expect(struct fake_server *fake, int commands) {
    while (commands > 0) {
        const size_t end = fake->counted < fake->received ? command_end(fake, fake->counted) : 0;
        if (end > 0) {
            fake->counted = end;
            commands--;
        } else if (!receive(fake)) {
            return;
        }
    }
}

static void drip(int fd, const char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        send(fd, bytes + i, 1, MSG_NOSIGNAL);
        nap(1);
    }
}

static void hang_up(struct fake_server *fake, bool reset) {
    const struct linger at_once = {1, 0};
    if (reset) setsockopt(fake->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    if (fake->fd >= 0) close(fake->fd);
    fake->fd = -1;
    fake->counted = fake->received;
}

static void perform(struct fake_server *fake, const struct fake_step *step) {
    const size_t len = step->bytes == NULL ? 0 : step->len > 0 ? step->len : strlen(step->bytes);
    switch (step->verb) {
    case FAKE_ACCEPT: fake->fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC); break;
    case FAKE_EXPECT: expect(fake, step->number); break;
    case FAKE_SEND: send(fake->fd, step->bytes, len, MSG_NOSIGNAL); break;
    case FAKE_DRIP: drip(fake->fd, step->bytes, len); break;
    case FAKE_SLEEP: nap(step->number); break;
    case FAKE_CLOSE: hang_up(fake, false); break;
    case FAKE_RST: hang_up(fake, true); break;
    case FAKE_AWAIT_CLOSE:
        while (receive(fake)) {
        }
        hang_up(fake, false);
        break;
    }
}

static void *run(void *arg) {
    struct fake_server *fake = arg;
    for (size_t i = 0; i < fake->count; i++)
        perform(fake, &fake->steps[i]);
    return NULL;
}

struct fake_server *fake_start(const struct fake_step *steps, size_t count) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    struct fake_server *fake = calloc(1, sizeof *fake);
    struct fake_step *own = calloc(count + 1, sizeof *own); /* because a test may return before its server is stopped */
    if (fake == NULL || own == NULL) abort();
    if (count > 0) memcpy(own, steps, count * sizeof *own);
    fake->steps = own;
    fake->count = count;
    fake->fd = -1;
    fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fake->listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(fake->listener, 16) != 0) abort();
    if (getsockname(fake->listener, (struct sockaddr *)&a, &len) != 0) abort();
    fake->port = ntohs(a.sin_port);
    if (pthread_create(&fake->thread, NULL, run, fake) != 0) abort();
    return fake;
}

int fake_port(const struct fake_server *fake) { return fake->port; }

const char *fake_finish(struct fake_server *fake, size_t *len) {
    if (!fake->joined) pthread_join(fake->thread, NULL);
    fake->joined = true;
    *len = fake->received;
    return fake->bytes;
}

unsigned fake_count(struct fake_server *fake, const char *text) {
    size_t len, n = strlen(text);
    unsigned count = 0;
    const char *bytes = fake_finish(fake, &len);
    for (const char *p = bytes; (p = memmem(p, len - (size_t)(p - bytes), text, n)) != NULL; p += n)
        count++;
    return count;
}

void fake_stop(struct fake_server *fake) {
    size_t len;
    shutdown(fake->listener, SHUT_RDWR); /* ends an accept that is waiting */
    fake_finish(fake, &len);
    if (fake->fd >= 0) close(fake->fd);
    close(fake->listener);
    free(fake->steps);
    free(fake);
}
