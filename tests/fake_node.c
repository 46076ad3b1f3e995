/* SPDX-License-Identifier: MIT
 * A fake node of a cluster, in a thread of its own. */
#include "fake_node.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS 16
#define SAYINGS 32
#define ROOM 65536

struct saying {
    char word[24];
    const char *reply;
    size_t len;
    unsigned times; /* 0: always */
};

struct connection {
    int fd;
    bool silent;
    size_t len;
    char bytes[ROOM];
};

struct fake_node {
    int listener, port;
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows */
    bool stopping;
    struct saying sayings[SAYINGS]; /* the last that matches is used */
    const char *slow;               /* the command that takes time; NULL: none */
    unsigned takes_us;
    unsigned count, accepted;
    struct connection connections[CONNECTIONS];
    char words[ROOM], copy[ROOM];
    char commands[ROOM]; /* as many as have room, each followed by a line feed */
};

/* ---- Commands ---- */

/* The end of the command that begins the bytes, or 0 if it is incomplete. */
static size_t command_end(const struct connection *c) {
    const char *p = c->bytes, *end = c->bytes + c->len;
    const char *line = memchr(p, '\n', c->len);
    if (line == NULL) return 0;
    long words = strtol(p + 1, NULL, 10);
    for (p = line + 1; words > 0; words--) {
        line = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (line == NULL) return 0;
        p = line + 1 + strtol(p + 1, NULL, 10) + 2;
    }
    return p <= end ? (size_t)(p - c->bytes) : 0;
}

static void first_word(const struct connection *c, char out[24]) {
    const char *p = strchr(strchr(c->bytes, '\n') + 1, '\n') + 1;
    snprintf(out, 24, "%.*s", (int)strcspn(p, "\r"), p);
}

/* Keeps the words of a command. */
static void keep_command(struct fake_node *node, const struct connection *c) {
    const char *p = strchr(c->bytes, '\n') + 1;
    size_t n = strlen(node->commands);
    for (long words = strtol(c->bytes + 1, NULL, 10); words > 0; words--) {
        char *text;
        const size_t len = (size_t)strtol(p + 1, &text, 10);
        if (n + len + 3 > ROOM) return;
        memcpy(node->commands + n, text + 2, len);
        node->commands[n += len] = words > 1 ? ' ' : '\n';
        node->commands[++n] = '\0';
        p = text + 2 + len + 2;
    }
}

static const struct saying *find(struct fake_node *node, const char *word) {
    for (unsigned i = node->count; i-- > 0;)
        if (strcmp(node->sayings[i].word, word) == 0) return &node->sayings[i];
    return strcmp(word, "*") != 0 ? find(node, "*") : NULL;
}

static void forget(struct fake_node *node, const struct saying *saying) {
    const size_t i = (size_t)(saying - node->sayings);
    memmove(&node->sayings[i], &node->sayings[i + 1], (--node->count - i) * sizeof *saying);
}

static void hang_up(struct connection *c) {
    close(c->fd);
    *c = (struct connection){.fd = -1};
}

static void take_time(struct fake_node *node) {
    const useconds_t time = node->takes_us;
    pthread_mutex_unlock(&node->lock);
    usleep(time);
    pthread_mutex_lock(&node->lock);
}

static void answer(struct fake_node *node, struct connection *c, const char *word) {
    const struct saying *saying = find(node, word);
    const struct saying copy = saying != NULL ? *saying : (struct saying){.reply = "+OK\r\n", .len = 5};
    if (copy.times == 1) forget(node, saying);
    if (copy.times > 1) node->sayings[saying - node->sayings].times--;
    if (node->slow != NULL && strcmp(node->slow, word) == 0) take_time(node);
    if (copy.reply == FAKE_SILENCE)
        c->silent = true;
    else if (copy.len == 0)
        hang_up(c);
    else if (!c->silent)
        send(c->fd, copy.reply, copy.len, MSG_NOSIGNAL);
}

static void obey(struct fake_node *node, struct connection *c) {
    char word[24];
    size_t end;
    while (c->fd >= 0 && (end = command_end(c)) > 0) {
        first_word(c, word);
        keep_command(node, c);
        const size_t n = strlen(node->words);
        snprintf(node->words + n, ROOM - n, "%s ", word);
        memmove(c->bytes, c->bytes + end, c->len -= end);
        answer(node, c, word);
    }
}

/* ---- The thread ---- */

static void take_in(struct fake_node *node) {
    const int fd = accept4(node->listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* as real servers do */
    for (int i = 0; i < CONNECTIONS && fd >= 0; i++)
        if (node->connections[i].fd < 0) {
            node->connections[i] = (struct connection){.fd = fd};
            node->accepted++;
            return;
        }
    if (fd >= 0) close(fd);
}

static void take_bytes(struct fake_node *node, struct connection *c) {
    const ssize_t n = recv(c->fd, c->bytes + c->len, ROOM - c->len, 0);
    if (n <= 0) {
        hang_up(c);
        return;
    }
    c->len += (size_t)n;
    obey(node, c);
}

static bool turn(struct fake_node *node) {
    struct pollfd fds[CONNECTIONS + 1] = {{.fd = node->listener, .events = POLLIN}};
    for (int i = 0; i < CONNECTIONS; i++)
        fds[i + 1] = (struct pollfd){.fd = node->connections[i].fd, .events = POLLIN};
    poll(fds, CONNECTIONS + 1, 10);
    pthread_mutex_lock(&node->lock);
    for (int i = 0; i < CONNECTIONS; i++)
        if (fds[i + 1].revents != 0) take_bytes(node, &node->connections[i]);
    if (fds[0].revents != 0) take_in(node);
    const bool go_on = !node->stopping;
    pthread_mutex_unlock(&node->lock);
    return go_on;
}

static void *run(void *arg) {
    while (turn(arg)) {
    }
    return NULL;
}

/* ---- Called by the test ---- */

static int listen_on(bool ipv6, int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr *address = ipv6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a;
    socklen_t len = ipv6 ? sizeof a6 : sizeof a;
    const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, len) != 0 || listen(fd, 16) != 0 || getsockname(fd, address, &len) != 0) abort();
    *port = ntohs(ipv6 ? a6.sin6_port : a.sin_port);
    return fd;
}

struct fake_node *fake_node_start(bool ipv6) {
    struct fake_node *node = calloc(1, sizeof *node);
    if (node == NULL) abort();
    for (int i = 0; i < CONNECTIONS; i++)
        node->connections[i].fd = -1;
    node->listener = listen_on(ipv6, &node->port);
    pthread_mutex_init(&node->lock, NULL);
    if (pthread_create(&node->thread, NULL, run, node) != 0) abort();
    return node;
}

int fake_node_port(const struct fake_node *node) { return node->port; }

void fake_node_stop(struct fake_node *node) {
    pthread_mutex_lock(&node->lock);
    node->stopping = true;
    pthread_mutex_unlock(&node->lock);
    pthread_join(node->thread, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        if (node->connections[i].fd >= 0) close(node->connections[i].fd);
    close(node->listener);
    free(node);
}

void fake_node_says(struct fake_node *node, const char *word, const char *reply, size_t len, unsigned times) {
    pthread_mutex_lock(&node->lock);
    struct saying *saying = &node->sayings[node->count];
    if (node->count++ == SAYINGS) abort();
    snprintf(saying->word, sizeof saying->word, "%s", word);
    saying->reply = reply;
    saying->len = reply != NULL && len == 0 ? strlen(reply) : len;
    saying->times = times;
    pthread_mutex_unlock(&node->lock);
}

void fake_node_is_slow(struct fake_node *node, const char *word, unsigned takes_us) {
    pthread_mutex_lock(&node->lock);
    node->slow = word;
    node->takes_us = takes_us;
    pthread_mutex_unlock(&node->lock);
}

void fake_node_says_nothing_more(struct fake_node *node) {
    pthread_mutex_lock(&node->lock);
    node->count = 0;
    pthread_mutex_unlock(&node->lock);
}

const char *fake_node_words(struct fake_node *node) {
    pthread_mutex_lock(&node->lock);
    memcpy(node->copy, node->words, strlen(node->words) + 1);
    pthread_mutex_unlock(&node->lock);
    return node->copy;
}

unsigned fake_node_heard(struct fake_node *node, const char *word) {
    unsigned count = 0;
    const size_t len = strlen(word);
    for (const char *p = fake_node_words(node); *p != '\0'; p = strchr(p, ' ') + 1)
        if (len == 0 || (strncmp(p, word, len) == 0 && p[len] == ' ')) count++;
    return count;
}

const char *fake_node_last(struct fake_node *node, const char *word) {
    const char *last = "";
    pthread_mutex_lock(&node->lock);
    for (const char *p = node->commands; *p != '\0'; p = strchr(p, '\n') + 1)
        if (strncmp(p, word, strlen(word)) == 0 && p[strlen(word)] == ' ') last = p;
    snprintf(node->copy, ROOM, "%.*s", (int)strcspn(last, "\n"), last);
    pthread_mutex_unlock(&node->lock);
    return node->copy;
}

unsigned fake_node_open(struct fake_node *node) {
    unsigned count = 0;
    pthread_mutex_lock(&node->lock);
    for (int i = 0; i < CONNECTIONS; i++)
        if (node->connections[i].fd >= 0) count++;
    pthread_mutex_unlock(&node->lock);
    return count;
}

unsigned fake_node_accepted(struct fake_node *node) {
    pthread_mutex_lock(&node->lock);
    const unsigned count = node->accepted;
    pthread_mutex_unlock(&node->lock);
    return count;
}
