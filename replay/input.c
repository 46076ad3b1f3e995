/* SPDX-License-Identifier: MIT
 * Log files, line by line.
 *
 * A compressed file is the standard input of gzip, zstd or xz, and its lines come out of a pipe. Standard input cannot
 * be read twice: if its first bytes tell a compression, they are given to the program by a thread, and the rest of it
 * too. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT_ROOM = 256 * 1024, MAGIC_LEN = 6 };

struct input_magic {
    const char *program;
    size_t len;
    char bytes[MAGIC_LEN + 1];
};

static const struct input_magic input_magics[] = {
    {"gzip", 2, "\x1f\x8b"},
    {"zstd", 4, "\x28\xb5\x2f\xfd"},
    {"xz", 6,
     "\xfd"
     "7zXZ"},
};

struct input {
    char *path;
    int fd;      /* what is read: the file, or the pipe of the program */
    int file_fd; /* the file itself; it may be fd */
    bool regular;
    uint64_t size, position; /* of the file itself */
    char *buffer;            /* bytes begin..end are not yet given away */
    size_t begin, end, room;
    bool ended, skips; /* the end was read; the rest of a line that is too long is skipped */
    uint64_t lines, cut_lines;
    char trouble[320];
    const char *program; /* NULL: the file is not compressed */
    pid_t pid;           /* of the program; 0: it was reaped */
    int feed_fd;         /* -1: nothing is fed */
    pthread_t feeder;
    bool feeding;
    char magic[MAGIC_LEN];
    size_t magic_len;
};

static void input_close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static ssize_t input_read_fd(int fd, char *bytes, size_t len) {
    ssize_t n;
    do
        n = read(fd, bytes, len);
    while (n < 0 && errno == EINTR);
    return n;
}

static bool input_write_all(int fd, const char *bytes, size_t len) {
    while (len > 0) {
        const ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

/* A thread that hands standard input to the program. It ends with its input, or when the program takes no more. */
static void *input_feed(void *arg) {
    struct input *input = arg;
    static _Thread_local char bytes[64 * 1024];
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* SIGPIPE too; and signals are for the main thread */
    bool taken = input_write_all(input->feed_fd, input->magic, input->magic_len);
    while (taken) {
        const ssize_t n = input_read_fd(input->file_fd, bytes, sizeof bytes);
        if (n <= 0) break;
        __atomic_fetch_add(&input->position, (uint64_t)n, __ATOMIC_RELAXED);
        taken = input_write_all(input->feed_fd, bytes, (size_t)n);
    }
    input_close_fd(&input->feed_fd);
    return NULL;
}

/* Runs the program with `in` as its standard input. Its error messages are dropped: the trouble says the same. */
static bool input_spawn(struct input *input, int in, int out, char *why, size_t room) {
    char program[8];
    char *const argv[] = {program, (char[]){"-dc"}, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    snprintf(program, sizeof program, "%s", input->program);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    /* A group of its own: Ctrl-C ends the replay, which then still reads what is in the pipe. */
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    const int error = posix_spawnp(&input->pid, program, &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error == 0) return true;
    input->pid = 0;
    if (error == ENOENT)
        snprintf(why, room, "it is compressed, and the program %s is not installed", program);
    else
        snprintf(why, room, "the program %s does not start: %s", program, strerror(error));
    return false;
}

/* Reads through the program. The file is at its beginning, or its first bytes are in input->magic. */
static bool input_decompress(struct input *input, bool feed, char *why, size_t room) {
    int out[2] = {-1, -1}, in[2] = {-1, -1};
    const bool piped = pipe2(out, O_CLOEXEC) == 0 && (!feed || pipe2(in, O_CLOEXEC) == 0);
    bool started = piped && input_spawn(input, feed ? in[0] : input->file_fd, out[1], why, room);
    if (!piped) snprintf(why, room, "%s", strerror(errno));
    input_close_fd(&out[1]);
    input_close_fd(&in[0]);
    input->fd = out[0];
    input->feed_fd = in[1];
    if (started && feed) {
        const int error = pthread_create(&input->feeder, NULL, input_feed, input);
        input->feeding = started = error == 0;
        if (error != 0) snprintf(why, room, "%s", strerror(error));
    }
    if (started && !feed) fcntl(input->fd, F_SETPIPE_SZ, 1024 * 1024); /* if it may not, a small pipe does too */
    return started;
}

static bool input_begin(struct input *input, char *why, size_t room) {
    struct stat file;
    const bool standard = strcmp(input->path, "-") == 0;
    input->file_fd = standard ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(input->path, O_RDONLY | O_CLOEXEC);
    if (input->file_fd < 0 || fstat(input->file_fd, &file) != 0) {
        snprintf(why, room, "%s", strerror(errno));
        return false;
    }
    if (S_ISDIR(file.st_mode)) {
        snprintf(why, room, "it is a directory; name its files");
        return false;
    }
    input->regular = S_ISREG(file.st_mode) && !standard;
    if (S_ISREG(file.st_mode)) input->size = (uint64_t)file.st_size;
    while (input->magic_len < MAGIC_LEN) {
        const ssize_t n = input_read_fd(input->file_fd, input->magic + input->magic_len, MAGIC_LEN - input->magic_len);
        if (n < 0) snprintf(why, room, "%s", strerror(errno));
        if (n < 0) return false;
        if (n == 0) break;
        input->magic_len += (size_t)n;
    }
    input->position = input->magic_len;
    for (size_t i = 0; i < sizeof input_magics / sizeof input_magics[0]; i++)
        if (input->magic_len >= input_magics[i].len &&
            memcmp(input->magic, input_magics[i].bytes, input_magics[i].len) == 0)
            input->program = input_magics[i].program;
    if (input->program != NULL) {
        const bool again = input->regular && lseek(input->file_fd, 0, SEEK_SET) == 0;
        return input_decompress(input, !again, why, room);
    }
    memcpy(input->buffer, input->magic, input->magic_len);
    input->end = input->magic_len;
    input->fd = input->file_fd;
    if (input->regular) posix_fadvise(input->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return true;
}

struct input *input_open(const char *path, char *why, size_t room) {
    struct input *input = calloc(1, sizeof *input);
    if (input != NULL) {
        input->fd = input->file_fd = input->feed_fd = -1;
        input->room = INPUT_ROOM;
        input->buffer = malloc(input->room);
        input->path = strdup(path);
        if (input->buffer == NULL || input->path == NULL)
            snprintf(why, room, "out of memory");
        else if (input_begin(input, why, room))
            return input;
    } else {
        snprintf(why, room, "out of memory");
    }
    input_close(input);
    return NULL;
}

__attribute__((format(printf, 2, 3))) static void input_fail(struct input *input, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(input->trouble, sizeof input->trouble, format, list);
    va_end(list);
}

/* Waits for the program. It fails if the file is truncated or damaged. */
static void input_reap(struct input *input) {
    int status = 0;
    if (input->pid == 0) return;
    while (waitpid(input->pid, &status, 0) < 0)
        if (errno != EINTR) break;
    input->pid = 0;
    if (WIFSIGNALED(status))
        input_fail(input, "%s was ended by signal %d", input->program, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && !(WEXITSTATUS(status) == 2 && strcmp(input->program, "gzip") == 0))
        input_fail(input, "%s failed: the file is truncated or damaged", input->program); /* 2 of gzip is a warning */
}

/* The end of the input, or a read error. */
static void input_end(struct input *input, int error) {
    struct stat file;
    input->ended = true;
    if (error != 0) input_fail(input, "%s", strerror(error));
    if (input->program != NULL) {
        input_reap(input);
    } else if (input->regular && fstat(input->fd, &file) == 0 &&
               ((uint64_t)file.st_size < input->position || input->position < input->size)) {
        input_fail(input, "the file was cut to %llu bytes while it was read", (unsigned long long)file.st_size);
    }
}

/* Reads more bytes behind those that are there. */
static void input_fill(struct input *input) {
    if (input->begin > 0 && input->begin == input->end) input->begin = input->end = 0;
    if (input->room - input->end < INPUT_ROOM / 4 && input->begin > 0) {
        memmove(input->buffer, input->buffer + input->begin, input->end - input->begin);
        input->end -= input->begin;
        input->begin = 0;
    }
    if (input->end == input->room) {
        const size_t room = 2 * input->room;
        char *more = room == 0 ? NULL : realloc(input->buffer, room);
        if (more == NULL) {
            input_end(input, ENOMEM);
            return;
        }
        input->buffer = more;
        input->room = room;
    }
    const ssize_t n = input_read_fd(input->fd, input->buffer + input->end, input->room - input->end);
    if (n <= 0) {
        input_end(input, n < 0 ? errno : 0);
        return;
    }
    input->end += (size_t)n;
    if (input->program == NULL) input->position += (uint64_t)n;
}

/* The bytes that are there are longer than a line may be. The rest of the line, up to its LF, is skipped. */
static enum input_outcome input_cut(struct input *input, struct rules_text *line) {
    *line = (struct rules_text){input->buffer + input->begin, INPUT_LINE_MAX};
    input->cut_lines++;
    input->lines++;
    input->begin += INPUT_LINE_MAX;
    input->skips = true;
    return INPUT_LINE;
}

enum input_outcome input_line(struct input *input, struct rules_text *line) {
    size_t seen = 0; /* bytes without an LF */
    for (;;) {
        const char *at = input->buffer + input->begin;
        const size_t len = input->end - input->begin;
        const char *lf = len > seen ? memchr(at + seen, '\n', len - seen) : NULL;
        size_t n = lf != NULL ? (size_t)(lf - at) : len;
        if (input->skips) {
            input->begin += lf != NULL ? n + 1 : n;
            input->skips = lf == NULL && !input->ended;
            if (lf == NULL && !input->ended) input_fill(input);
            seen = 0;
            continue;
        }
        if (n > INPUT_LINE_MAX) return input_cut(input, line);
        if (lf == NULL && !input->ended) {
            seen = len;
            input_fill(input);
            continue;
        }
        if (lf == NULL && len == 0) return input->trouble[0] != '\0' ? INPUT_ERROR : INPUT_END;
        input->begin += lf != NULL ? n + 1 : n;
        input->lines++;
        if (n > 0 && at[n - 1] == '\r') n--;
        *line = (struct rules_text){at, n};
        return INPUT_LINE;
    }
}

const char *input_trouble(const struct input *input) { return input->trouble[0] != '\0' ? input->trouble : NULL; }

const char *input_path(const struct input *input) { return input->path; }

uint64_t input_line_number(const struct input *input) { return input->lines; }

/* The program shares the offset of the file. */
uint64_t input_position(const struct input *input) {
    if (input->program == NULL) return input->position;
    if (input->feeding) return __atomic_load_n(&input->position, __ATOMIC_RELAXED);
    const off_t at = lseek(input->file_fd, 0, SEEK_CUR);
    return at < 0 ? 0 : (uint64_t)at;
}

uint64_t input_size(const struct input *input) { return input->size; }

uint64_t input_cut_lines(const struct input *input) { return input->cut_lines; }

void input_close(struct input *input) {
    if (input == NULL) return;
    if (input->fd != input->file_fd) input_close_fd(&input->fd); /* the program ends when its pipe has no reader */
    if (input->pid > 0) {
        kill(input->pid, SIGKILL);
        input_reap(input);
    }
    if (input->feeding) {
        pthread_cancel(input->feeder); /* it may wait for standard input */
        pthread_join(input->feeder, NULL);
    }
    input_close_fd(&input->feed_fd);
    input_close_fd(&input->file_fd);
    free(input->buffer);
    free(input->path);
    free(input);
}
