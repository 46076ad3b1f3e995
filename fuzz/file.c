/* SPDX-License-Identifier: MIT
 * Fuzzes a mapped file: any content is refused, or decisions on it end with a valid result. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/siphash.h"
#include "steady.h"

#define BUCKETS 64

#define HEADER 4096
#define CHECKSUM 4080
#define FILE_MOST 65536

/* The first three bytes say how a good file is changed, and where the other bytes overwrite it. */
enum { WHOLE_FILE, HEADER_ALONE, HEADER_WITH_CHECKSUM, SLOTS, WAYS };

static size_t read_good_file(const char *path, const char *url, uint8_t *file) {
    const steady_store_options options = {.buckets = BUCKETS};
    steady_store *store = NULL;
    unlink(path);
    if (steady_store_open(&store, url, &options, NULL) != 0) abort();
    steady_store_close(&store);
    const int fd = open(path, O_RDONLY);
    const ssize_t size = fd < 0 ? -1 : read(fd, file, FILE_MOST);
    if (size <= HEADER || size == FILE_MOST) abort();
    close(fd);
    return (size_t)size;
}

static size_t damage(uint8_t *file, size_t size, const uint8_t *bytes, size_t len) {
    static const uint8_t no_key[STEADY__SIPHASH_KEY];
    const int way = bytes[0] % WAYS;
    const size_t begin = way == SLOTS ? HEADER : 0;
    const size_t end = way == SLOTS ? size : way == HEADER_ALONE ? HEADER : CHECKSUM;
    const size_t at = begin + (size_t)(bytes[1] | bytes[2] << 8) % (end - begin);
    bytes += 3;
    len -= 3;
    if (way == WHOLE_FILE) {
        memcpy(file, bytes, len);
        return len;
    }
    memcpy(file + at, bytes, len < end - at ? len : end - at);
    const uint64_t checksum = steady__siphash(no_key, file, CHECKSUM).word[0];
    if (way == HEADER_WITH_CHECKSUM) memcpy(file + CHECKSUM, &checksum, sizeof checksum);
    return size;
}

static void make_file(const char *path, const char *url, const uint8_t *bytes, size_t len) {
    static uint8_t good[FILE_MOST], file[FILE_MOST];
    static size_t good_size;
    if (good_size == 0) good_size = read_good_file(path, url, good);
    memcpy(file, good, good_size);
    const size_t size = damage(file, good_size, bytes, len);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, file, size) != (ssize_t)size) abort();
    close(fd);
}

static void decide(steady_store *store) {
    const steady_limit limit = {10, STEADY_SECOND, 3, STEADY_SECOND, NULL, {0}};
    steady_throttler *throttler = NULL;
    if (steady_throttler_new(&throttler, store, &limit, NULL, NULL) != 0) abort();
    for (int i = 0; i < 2 * BUCKETS; i++) {
        steady_result r;
        const int error = i % 16 == 9  ? steady_reset_sync(throttler, &i, sizeof i, &r)
                          : i % 4 == 3 ? steady_peek_sync(throttler, &i, sizeof i, &r)
                                       : steady_consume_sync(throttler, &i, sizeof i, i % 12 - 1, &r);
        if (error == 0 && (r.level < 0 || r.until_next_drop < 0 || r.blocked_for < 0 || r.retry_after < -1)) abort();
        if (strcmp(steady_error_name(error), "?") == 0) abort();
    }
    steady_throttler_free(&throttler);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    char path[64], url[80];
    steady_store *store = NULL;
    snprintf(path, sizeof path, "/dev/shm/steady-fuzz-%d", (int)getpid());
    snprintf(url, sizeof url, "file:%s", path);
    if (len < 3 || len > FILE_MOST) return 0;
    make_file(path, url, bytes, len);
    if (steady_store_open(&store, url, NULL, NULL) == 0) decide(store);
    steady_store_close(&store);
    unlink(path);
    return 0;
}
