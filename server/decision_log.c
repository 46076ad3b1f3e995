/* SPDX-License-Identifier: MIT
 * The decision log. */
#include "decision_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { FLUSH_AT = 64 * 1024, WAITING_MOST = 4 * 1024 * 1024 };

const char *decision_log_open(struct server *server) {
    static char reason[400];
    server->log_fd = -1;
    if (server->options.log == NULL) return NULL;
    server->log_fd = open(server->options.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (server->log_fd >= 0) return NULL;
    snprintf(reason, sizeof reason, "the decision log %s: %s", server->options.log, strerror(errno));
    return reason;
}

static bool decision_log_takes(struct worker *worker) {
    const double share = worker->server->options.log_share;
    if (share >= 1) return true;
    worker->chance = worker->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(worker->chance >> 11) / 9007199254740992.0 < share;
}

static void decision_log_add_time(struct buffer *out) {
    struct timeval now;
    struct tm utc;
    char text[32];
    gettimeofday(&now, NULL);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &utc));
    buffer_add_format(out, "{\"ts\": \"%s.%06ldZ\"", text, (long)now.tv_usec);
}

void decision_log_add(struct worker *worker, const struct question *question, const steady_result *result) {
    static const char *const kinds[] = {"take", "look", "charge", "shadow"};
    struct buffer *out = &worker->log;
    if (worker->server->log_fd < 0 || !decision_log_takes(worker)) return;
    if (out->len > WAITING_MOST) {
        metrics_add(&worker->metrics.log_dropped, 1);
        return;
    }
    decision_log_add_time(out);
    buffer_add_format(out, ", \"allowed\": %s", result->success ? "true" : "false");
    if (result->error != 0) buffer_add_format(out, ", \"error\": \"%s\"", steady_error_name(result->error));
    buffer_add_text(out, ", \"parts\": [");
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *part = &question->parts[i];
        const struct rules_text key = question_shown_key(part);
        buffer_add_text(out, i > 0 ? ", {\"limit\": " : "{\"limit\": ");
        buffer_add_json(out, part->name, strlen(part->name));
        buffer_add_text(out, ", \"key\": ");
        buffer_add_json(out, key.bytes, key.len);
        buffer_add_format(out, ", \"amount\": %lld", (long long)part->amount);
        if (part->kind != STEADY_TAKE) buffer_add_format(out, ", \"kind\": \"%s\"", kinds[part->kind]);
        if (result->parts != NULL)
            buffer_add_format(out, ", \"allowed\": %s, \"level\": %lld", result->parts[i].success ? "true" : "false",
                              (long long)result->parts[i].level);
        buffer_add_text(out, "}");
    }
    buffer_add_text(out, "]}\n");
    if (out->len >= FLUSH_AT) decision_log_flush(worker);
}

static void decision_log_written(uv_fs_t *write) {
    struct worker *worker = write->data;
    if (write->result < 0 && !worker->log_failed)
        server_log("error: the decision log: %s", uv_strerror((int)write->result));
    worker->log_failed = write->result < 0;
    uv_fs_req_cleanup(write);
    worker->log_writing = false;
    worker->log_sent.len = 0;
}

/* One write at a time. The lines of a write are whole, and the file is opened to append. */
void decision_log_flush(struct worker *worker) {
    if (worker->log.len == 0 || worker->log_writing) return;
    const struct buffer spare = worker->log_sent;
    worker->log_sent = worker->log;
    worker->log = spare;
    worker->log.lost = false;
    const uv_buf_t bytes = uv_buf_init(worker->log_sent.bytes, (unsigned)worker->log_sent.len);
    worker->log_write.data = worker;
    worker->log_writing = uv_fs_write(&worker->loop, &worker->log_write, worker->server->log_fd, &bytes, 1, -1,
                                      decision_log_written) == 0;
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
