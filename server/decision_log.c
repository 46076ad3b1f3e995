/* SPDX-License-Identifier: MIT
 * The decision log. */
#include "decision_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"

enum { DECISION_LOG_FLAGS = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC };
enum { FLUSH_AT = 64 * 1024, WAITING_MOST = 4 * 1024 * 1024 };

/* A FIFO without a reader is an error here; without O_NONBLOCK, opening it would wait. Later writes may block: they run
 * on threads. */
static int decision_log_open_file(const struct server *server) {
    const int fd = open(server->options.log, DECISION_LOG_FLAGS | O_NONBLOCK, 0640);
    if (fd >= 0) fcntl(fd, F_SETFL, O_APPEND);
    return fd;
}

const char *decision_log_open(struct server *server) {
    static char reason[400];
    server->log_fd = -1;
    if (server->options.log == NULL) return NULL;
    server->log_fd = decision_log_open_file(server);
    if (server->log_fd >= 0) return NULL;
    snprintf(reason, sizeof reason, "the decision log %s: %s", server->options.log,
             errno == ENXIO ? "this FIFO has no reader" : strerror(errno));
    return reason;
}

/* The workers write to one descriptor. It is replaced in one step, so no line is lost. */
void decision_log_look(struct server *server) {
    struct stat named, open_file;
    if (server->log_fd < 0 || fstat(server->log_fd, &open_file) != 0 || !S_ISREG(open_file.st_mode)) return;
    if (stat(server->options.log, &named) == 0 && named.st_dev == open_file.st_dev && named.st_ino == open_file.st_ino)
        return;
    const int fd = decision_log_open_file(server);
    const bool failed = fd < 0 || dup3(fd, server->log_fd, O_CLOEXEC) < 0;
    if (failed && !server->log_lost) server_log("error: the decision log %s: %s", server->options.log, strerror(errno));
    if (!failed) server_log("the decision log was opened anew: %s", server->options.log);
    server->log_lost = failed;
    if (fd >= 0) close(fd);
}

static bool decision_log_takes(struct worker *worker) {
    const double share = worker->server->options.log_share;
    if (share >= 1) return true;
    return (double)worker_random(worker) / 2147483648.0 < share;
}

static void decision_log_add_time(struct worker *worker) {
    struct buffer *out = &worker->log;
    struct timeval now;
    struct tm utc;
    char fraction[] = ".000000Z\"";
    gettimeofday(&now, NULL);
    if (now.tv_sec != worker->log_second) { /* its text is made once */
        worker->log_second = now.tv_sec;
        strftime(worker->log_time, sizeof worker->log_time, "{\"ts\": \"%Y-%m-%dT%H:%M:%S",
                 gmtime_r(&now.tv_sec, &utc));
    }
    buffer_add_text(out, worker->log_time);
    for (char *at = fraction + 6; at > fraction; at--, now.tv_usec /= 10)
        *at = (char)('0' + now.tv_usec % 10);
    buffer_add_text(out, fraction);
}

void decision_log_add(struct worker *worker, const struct question *question, const steady_result *result) {
    static const char *const kinds[] = {", \"kind\": \"take\"", ", \"kind\": \"look\"", ", \"kind\": \"charge\"",
                                        ", \"kind\": \"shadow\""};
    struct buffer *out = &worker->log;
    if (worker->server->log_fd < 0 || !decision_log_takes(worker)) return;
    const size_t before = out->len;
    if (out->len > WAITING_MOST) {
        metrics_add(&worker->metrics.log_dropped, 1);
        return;
    }
    decision_log_add_time(worker);
    buffer_add_text(out, result->success ? ", \"allowed\": true" : ", \"allowed\": false");
    if (result->error != 0) buffer_add_format(out, ", \"error\": \"%s\"", steady_error_name(result->error));
    if (result->source != STEADY_FROM_NOWHERE && result->source != STEADY_FROM_STORE)
        buffer_add_format(out, ", \"source\": \"%s\"", answer_source(result));
    buffer_add_text(out, ", \"parts\": [");
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *part = &question->parts[i];
        char memory[RULES_KEY_MAX];
        const struct rules_text key = question_shown_key(part, memory);
        const enum steady_kind kind = question->verb == QUESTION_PEEK ? STEADY_LOOK : part->kind;
        buffer_add_text(out, i > 0 ? ", {\"limit\": " : "{\"limit\": ");
        if (part->rule != NULL && part->name == part->rule->name)
            buffer_add(out, part->counters->json.bytes, part->counters->json.len);
        else
            buffer_add_json(out, part->name, strlen(part->name));
        buffer_add_text(out, ", \"key\": ");
        buffer_add_json(out, key.bytes, key.len);
        buffer_add_text(out, ", \"amount\": ");
        buffer_add_number(out, part->amount);
        buffer_add_text(out, kinds[kind]);
        if (question->at_least > 0 && result->parts != NULL && result->parts[i].granted < part->amount)
            buffer_add_format(out, ", \"granted\": %lld", (long long)result->parts[i].granted);
        if (result->parts != NULL && result->parts[i].answered) {
            buffer_add_text(out, result->parts[i].success ? ", \"allowed\": true, \"level\": "
                                                          : ", \"allowed\": false, \"level\": ");
            buffer_add_number(out, result->parts[i].level);
        }
        buffer_add_text(out, "}");
    }
    buffer_add_text(out, "]}\n");
    if (out->lost) {
        out->len = before;
        out->lost = false;
        metrics_add(&worker->metrics.log_dropped, 1);
    }
    if (out->len >= FLUSH_AT) decision_log_flush(worker);
}

/* If the disk takes a part only, the rest is lost. Then the next write begins with the end of the line that was cut. */
static void decision_log_written(uv_fs_t *write) {
    struct worker *worker = write->data;
    const struct buffer *sent = &worker->log_sent;
    const size_t end = worker->log_cut ? 1 : 0, all = write->result > 0 ? (size_t)write->result : 0;
    const size_t written = all > end ? all - end : 0;
    const bool failed = written < sent->len;
    if (failed && !worker->log_failed)
        server_log("error: the decision log, lines are lost: %s",
                   write->result < 0 ? uv_strerror((int)write->result) : "the file takes no more");
    if (!failed && worker->log_failed) server_log("the decision log is written again");
    worker->log_failed = failed;
    for (size_t i = written; i < sent->len; i++)
        if (sent->bytes[i] == '\n') metrics_add(&worker->metrics.log_dropped, 1);
    if (written > 0)
        worker->log_cut = failed && sent->bytes[written - 1] != '\n';
    else if (all > 0)
        worker->log_cut = false;
    uv_fs_req_cleanup(write);
    worker->log_writing = false;
    worker->log_sent.len = 0;
}

/* One write at a time. The lines of a write are whole, and the file is opened to append. libuv copies `bytes`, and not
 * what they point to. */
void decision_log_flush(struct worker *worker) {
    static char line_end[] = "\n";
    if (worker->log.len == 0 || worker->log_writing) return;
    const struct buffer spare = worker->log_sent;
    worker->log_sent = worker->log;
    worker->log = spare;
    const uv_buf_t bytes[] = {uv_buf_init(line_end, 1),
                              uv_buf_init(worker->log_sent.bytes, (unsigned)worker->log_sent.len)};
    const unsigned first = worker->log_cut ? 0 : 1;
    worker->log_write.data = worker;
    worker->log_writing = uv_fs_write(&worker->loop, &worker->log_write, worker->server->log_fd, &bytes[first],
                                      2 - first, -1, decision_log_written) == 0;
    if (!worker->log_writing) worker->log_sent.len = 0;
}

void decision_log_end(struct worker *worker) {
    while (worker->log_writing)
        uv_run(&worker->loop, UV_RUN_ONCE);
    decision_log_flush(worker);
    while (worker->log_writing)
        uv_run(&worker->loop, UV_RUN_ONCE);
    buffer_free(&worker->log);
    buffer_free(&worker->log_sent);
}

void decision_log_close(struct server *server) {
    if (server->log_fd >= 0) close(server->log_fd);
    server->log_fd = -1;
}
