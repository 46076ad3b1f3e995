/* SPDX-License-Identifier: MIT
 * A client of the admin socket. */
#include "remote.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <steady.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "buffer.h"

enum { ANSWER_MOST = 16 * 1024 * 1024, TIMEOUT_S = 5 };

static bool remote_fail(struct remote *remote, const char *what, const char *why) {
    snprintf(remote->why, sizeof remote->why, "%s%s%s", what, *why != '\0' ? ": " : "", why);
    return false;
}

static bool remote_copy(char *to, size_t size, const char *from, size_t len) {
    if (len == 0 || len >= size) return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

bool remote_read(struct remote *remote, const char *address) {
    static const char forms[] = "give the admin address as --admin or STEADY_ADMIN: unix:/path, host:port, or the "
                                "address of the dashboard in the log of the daemon";
    const char *token = getenv("STEADY_ADMIN_TOKEN");
    *remote = (struct remote){0};
    if (address == NULL) address = getenv("STEADY_ADMIN");
    if (address == NULL) return remote_fail(remote, forms, "");
    if (strncmp(address, "unix:", 5) == 0)
        return remote_copy(remote->path, sizeof remote->path, address + 5, strlen(address + 5)) ||
               remote_fail(remote, forms, "");
    if (strncmp(address, "http://", 7) == 0) address += 7;
    const size_t len = strcspn(address, "/#");
    const char *mark = strstr(address + len, "token="), *colon = memrchr(address, ':', len);
    if (mark != NULL) token = mark + 6;
    if (token != NULL && *token != '\0' && !remote_copy(remote->token, sizeof remote->token, token, strlen(token)))
        return remote_fail(remote, "the token is too long", "");
    const bool bracket = colon != NULL && *address == '[' && colon > address + 2 && colon[-1] == ']';
    const char *host = bracket ? address + 1 : address;
    if (colon == NULL || !remote_copy(remote->host, sizeof remote->host, host, (size_t)(colon - host) - bracket) ||
        !remote_copy(remote->port, sizeof remote->port, colon + 1, (size_t)(address + len - colon) - 1))
        return remote_fail(remote, forms, "");
    return true;
}

static int remote_connect_path(struct remote *remote) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, remote->path, sizeof remote->path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    remote_fail(remote, remote->path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

static int remote_connect(struct remote *remote) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (remote->path[0] != '\0') return remote_connect_path(remote);
    const int error = getaddrinfo(remote->host, remote->port, &hints, &found);
    char where[sizeof remote->host + sizeof remote->port + 1];
    int fd = -1;
    snprintf(where, sizeof where, "%s:%s", remote->host, remote->port);
    if (error != 0) remote_fail(remote, where, gai_strerror(error));
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        remote_fail(remote, where, strerror(errno));
        if (fd >= 0) close(fd);
        fd = -1;
    }
    if (found != NULL) freeaddrinfo(found);
    return fd;
}

static bool remote_send(int fd, const struct buffer *request) {
    size_t at = 0;
    while (at < request->len) {
        const ssize_t n = send(fd, request->bytes + at, request->len - at, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}

/* Reads until the daemon closes the connection. */
static bool remote_receive(int fd, struct buffer *answer) {
    for (;;) {
        char *to = buffer_reserve(answer, 64 * 1024);
        const ssize_t n = to != NULL ? recv(fd, to, 64 * 1024, 0) : -1;
        if (n < 0 || answer->len > ANSWER_MOST) return false;
        if (n == 0) return true;
        answer->len += (size_t)n;
    }
}

static bool remote_exchange(struct remote *remote, const char *path, const char *body, struct buffer *answer) {
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    struct buffer request = {0};
    const int fd = remote_connect(remote);
    if (fd < 0) return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    buffer_add_format(&request, "%s %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n",
                      body != NULL ? "POST" : "GET", path);
    if (remote->token[0] != '\0') buffer_add_format(&request, "authorization: Bearer %s\r\n", remote->token);
    if (body != NULL) buffer_add_format(&request, "content-length: %zu\r\n", strlen(body));
    buffer_add_text(&request, "\r\n");
    if (body != NULL) buffer_add_text(&request, body);
    const bool done = !request.lost && remote_send(fd, &request) && remote_receive(fd, answer);
    if (!done) remote_fail(remote, "the daemon does not answer", strerror(errno));
    buffer_free(&request);
    close(fd);
    return done;
}

json_t *remote_ask(struct remote *remote, const char *path, json_t *body) {
    struct buffer answer = {0};
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_t *document = NULL;
    if (remote_exchange(remote, path, text, &answer)) {
        buffer_add(&answer, "", 1);
        const long status =
            answer.len > 13 && strncmp(answer.bytes, "HTTP/1.1 ", 9) == 0 ? strtol(answer.bytes + 9, NULL, 10) : 0;
        const char *end = status != 0 ? strstr(answer.bytes, "\r\n\r\n") : NULL;
        if (end != NULL) document = json_loads(end + 4, 0, NULL);
        const char *title = json_string_value(json_object_get(document, "title"));
        if (status != 200 || document == NULL) {
            const bool none = title == NULL || status == 404; /* the port for clients has no such path */
            remote_fail(remote, none ? "this is no admin socket of steady serve; see its option --admin" : title, "");
            json_decref(document);
            document = NULL;
        }
    }
    free(text);
    buffer_free(&answer);
    return document;
}
