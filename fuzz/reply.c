/* SPDX-License-Identifier: MIT
 * Fuzzes the replies of a server: any bytes, in any pieces, on a connection with requests in flight. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conn/pipeline.h"
#include "core/redact.h"

#define REQUESTS 64

struct source {
    struct steady__net net;
    const uint8_t *bytes;
    size_t len, piece;
};

static ssize_t take(const struct steady__net *net, int fd, void *bytes, size_t room) {
    struct source *source = (struct source *)(void *)net; /* net is its first member */
    size_t n = source->len < source->piece ? source->len : source->piece;
    (void)fd;
    if (n > room) n = room;
    if (n == 0) return 0;
    memcpy(bytes, source->bytes, n);
    source->bytes += n;
    source->len -= n;
    return (ssize_t)n;
}

static void nothing(const struct steady__net *net, int fd) {
    (void)net;
    (void)fd;
}

/* A walk ends at the end of the reply. */
static void check_nested(const struct steady__reply *reply) {
    struct steady__walk walk = steady__walk_over(reply), skip = walk;
    struct steady__value value;
    while (steady__walk_next(&walk, &value)) {
        if (value.kind == STEADY__VALUE_TEXT && value.text + value.text_len > walk.end) abort();
    }
    steady__walk_skip(&skip);
    if (walk.at != walk.end || skip.at != skip.end) abort();
}

static void check(const struct steady__reply *reply) {
    char text[100];
    if (reply->kind == STEADY__REPLY_INTEGERS) {
        if (reply->count < 1 || reply->count > STEADY__REPLY_MAX) abort();
        return;
    }
    if (reply->kind == STEADY__REPLY_NESTED) {
        check_nested(reply);
        return;
    }
    if (reply->kind != STEADY__REPLY_ERROR) return;
    const struct steady__secrets secrets = {.key = "key:7", .key_len = 5};
    steady__redact(text, sizeof text, reply->text, reply->text_len, &secrets);
    if (*text == '\0' || strstr(text, "key:7") != NULL) abort();
    for (const char *p = text; *p != '\0'; p++)
        if (*p < 0x20 || *p > 0x7e) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct steady__pipeline pipeline;
    struct steady__reply reply;
    static struct steady__request requests[REQUESTS];
    struct steady__request *answered;
    int got = 0;
    if (len == 0) return 0;
    struct source source = {{.recv = take, .close = nothing}, bytes + 1, len - 1, (size_t)bytes[0] + 1};
    if (steady__pipeline_init(&pipeline, &source.net, REQUESTS) != 0) return 0;
    steady__pipeline_open(&pipeline, 0, NULL, STEADY_SECOND, 0);
    for (size_t i = 0; i < REQUESTS; i++) {
        if (steady__pipeline_room(&pipeline, 1, 1) == NULL) abort();
        requests[i].nested = bytes[0] % 2 != 0 && i % 2 != 0 ? STEADY__NESTED_MAP : 0;
        steady__pipeline_put(&pipeline, &requests[i], 1);
    }
    for (size_t next = 0; got >= 0 && steady__pipeline_receive(&pipeline) > 0;)
        while ((got = steady__pipeline_next(&pipeline, &reply, &answered)) > 0) {
            if (answered != &requests[next++]) abort();
            check(&reply);
        }
    steady__pipeline_close(&pipeline);
    steady__pipeline_free(&pipeline);
    return 0;
}
