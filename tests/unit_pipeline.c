/* SPDX-License-Identifier: MIT
 * A pipeline over a fake network that takes a given number of bytes: which requests count as written, and which reply
 * belongs to which request. */
#include "support.h"

#include <errno.h>
#include <stdlib.h>

#include "conn/pipeline.h"

#define REQUESTS 200 /* more than the ring buffer has room for at first */
#define LEN 10

struct fake_net {
    struct steady__net net;
    size_t budget; /* bytes that it still takes */
    const char *replies;
    size_t replies_len;
};

static ssize_t fake_send(const struct steady__net *net, int fd, const void *bytes, size_t len) {
    struct fake_net *fake = (struct fake_net *)net;
    (void)fd;
    (void)bytes;
    if (fake->budget == 0) {
        errno = EAGAIN;
        return -1;
    }
    const size_t taken = len < fake->budget ? len : fake->budget;
    fake->budget -= taken;
    return (ssize_t)taken;
}

static ssize_t fake_recv(const struct steady__net *net, int fd, void *bytes, size_t room) {
    struct fake_net *fake = (struct fake_net *)net;
    (void)fd;
    const size_t len = fake->replies_len < room ? fake->replies_len : room;
    memcpy(bytes, fake->replies, len);
    fake->replies += len;
    fake->replies_len -= len;
    return (ssize_t)len;
}

static void fake_close(const struct steady__net *net, int fd) {
    (void)net;
    (void)fd;
}

static struct fake_net fake = {.net = {.send = fake_send, .recv = fake_recv, .close = fake_close}};

static void put(struct steady__pipeline *pipeline, struct steady__request *request) {
    char *room = steady__pipeline_room(pipeline, 1, LEN);
    assert_non_null(room);
    memset(room, 'x', LEN);
    steady__pipeline_put(pipeline, request, LEN);
}

/* For each number of bytes that the system may take: a request is written if its first byte was taken. */
static void request_counts_as_written_with_its_first_byte(void **state) {
    struct steady__request requests[8] = {0};
    (void)state;
    for (size_t taken = 0; taken <= sizeof requests / sizeof *requests * LEN; taken++) {
        struct steady__pipeline pipeline;
        struct steady__request *request;
        size_t left = COUNT(requests), first = 0;
        assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, 1024), 0);
        steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
        fake.budget = taken;
        for (size_t i = 0; i < COUNT(requests); i++) {
            put(&pipeline, &requests[i]);
            if (i % 3 == 0) steady__pipeline_flush(&pipeline);
        }
        assert_int_equal(steady__pipeline_flush(&pipeline), taken == COUNT(requests) * LEN);
        steady__pipeline_forget(&pipeline, &requests[2]);
        steady__pipeline_close(&pipeline);
        while ((request = steady__pipeline_take_unwritten(&pipeline)) != NULL) {
            left -= left == 3 ? 2 : 1; /* the last first, without the forgotten one */
            assert_ptr_equal(request, &requests[left]);
            assert_true(left * LEN >= taken);
        }
        for (; steady__pipeline_take_first(&pipeline, &request); first++) {
            assert_ptr_equal(request, first == 2 ? NULL : &requests[first]);
            assert_true(first * LEN < taken);
        }
        assert_true(first == left || (first == 2 && left == 3)); /* the forgotten one may be in either part */
        steady__pipeline_free(&pipeline);
    }
}

static void each_reply_is_matched_to_its_request(void **state) {
    static struct steady__request requests[REQUESTS];
    static char replies[REQUESTS * 8];
    struct steady__pipeline pipeline;
    struct steady__reply reply;
    struct steady__request *request;
    (void)state;
    assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, REQUESTS), 0);
    steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
    for (int round = 0; round < 3; round++) { /* so that the ring buffer wraps */
        fake.budget = SIZE_MAX;
        fake.replies = replies;
        fake.replies_len = 0;
        for (int i = 0; i < REQUESTS; i++) {
            put(&pipeline, &requests[i]);
            fake.replies_len += (size_t)sprintf(replies + fake.replies_len, ":%d\r\n", i);
        }
        assert_null(steady__pipeline_room(&pipeline, 1, LEN)); /* as many as may be unanswered */
        assert_true(steady__pipeline_flush(&pipeline));
        for (int i = 0; i < REQUESTS; i += 7)
            steady__pipeline_forget(&pipeline, &requests[i]);
        assert_true(steady__pipeline_receive(&pipeline) > 0);
        for (int i = 0; i < REQUESTS; i++) {
            assert_int_equal(steady__pipeline_next(&pipeline, &reply, &request), 1);
            assert_int_equal(reply.values[0], i);
            assert_ptr_equal(request, i % 7 == 0 ? NULL : &requests[i]);
        }
        assert_int_equal(steady__pipeline_next(&pipeline, &reply, &request), 0);
        assert_true(steady__pipeline_idle(&pipeline));
    }
    steady__pipeline_free(&pipeline);
}

/* A map of a cluster may be longer than all other replies. Its buffer grows, and shrinks afterwards. */
static void long_reply_is_read_and_its_memory_given_back(void **state) {
    enum { RANGES = 16384 };
    static const char range[] = "*3\r\n:1\r\n:2\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n";
    struct steady__request requests[2] = {{.nested = STEADY__NESTED_MAP}, {.nested = 0}};
    struct steady__pipeline pipeline;
    struct steady__reply reply;
    struct steady__request *request = NULL;
    char *bytes = malloc(RANGES * sizeof range + 32);
    (void)state;
    assert_non_null(bytes);
    assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, 8), 0);
    steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
    put(&pipeline, &requests[0]);
    put(&pipeline, &requests[1]);
    size_t len = (size_t)sprintf(bytes, "*%d\r\n", RANGES);
    for (int i = 0; i < RANGES; i++, len += sizeof range - 1)
        memcpy(bytes + len, range, sizeof range);
    fake.replies = bytes;
    fake.replies_len = len + (size_t)sprintf(bytes + len, ":7\r\n");
    while (request == NULL) {
        assert_true(steady__pipeline_receive(&pipeline) > 0);
        assert_true(steady__pipeline_next(&pipeline, &reply, &request) >= 0);
    }
    assert_ptr_equal(request, &requests[0]);
    assert_int_equal(reply.text_len, len);
    while (steady__pipeline_next(&pipeline, &reply, &request) == 0)
        assert_true(steady__pipeline_receive(&pipeline) > 0);
    assert_ptr_equal(request, &requests[1]);
    assert_int_equal(steady__pipeline_receive(&pipeline), 0);
    assert_int_equal(pipeline.in_room, STEADY__PIPELINE_IN);
    steady__pipeline_free(&pipeline);
    free(bytes);
}

/* Receives an array of texts of 4,000 bytes, for a request whose reply may have `nested` bytes. */
static void refuse_more_than(uint32_t nested) {
    struct steady__request request = {.nested = nested}, *whose;
    struct steady__pipeline pipeline;
    struct steady__reply reply;
    const size_t len = nested + 1;
    char *bytes = malloc(len + 4096);
    size_t written = (size_t)sprintf(bytes, "*16384\r\n");
    ssize_t n;
    assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, 8), 0);
    steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
    put(&pipeline, &request);
    while (written < len)
        written += (size_t)sprintf(bytes + written, "$4000\r\n%04000d\r\n", 0);
    fake.replies = bytes;
    fake.replies_len = len;
    while ((n = steady__pipeline_receive(&pipeline)) > 0)
        assert_int_equal(steady__pipeline_next(&pipeline, &reply, &whose), 0);
    assert_int_equal(n, -1);
    assert_int_equal(errno, ENOBUFS);
    assert_int_equal(pipeline.in_room, nested);
    steady__pipeline_free(&pipeline);
    free(bytes);
}

static void reply_over_its_limit_is_refused(void **state) {
    (void)state;
    refuse_more_than(STEADY__NESTED);
    refuse_more_than(STEADY__NESTED_MAP);
}

/* Bytes that were received but not read are kept. */
static void memory_of_a_long_reply_is_given_back_on_demand(void **state) {
    struct steady__request requests[2] = {{.nested = STEADY__NESTED}, {.nested = 0}}, *whose = NULL;
    struct steady__pipeline pipeline;
    struct steady__reply reply;
    char bytes[40000];
    (void)state;
    assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, 8), 0);
    steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
    put(&pipeline, &requests[0]);
    put(&pipeline, &requests[1]);
    size_t len = (size_t)sprintf(bytes, "*9\r\n");
    for (int i = 0; i < 9; i++)
        len += (size_t)sprintf(bytes + len, "$4000\r\n%04000d\r\n", 0);
    fake.replies = bytes;
    fake.replies_len = len + (size_t)sprintf(bytes + len, ":7\r\n");
    while (whose == NULL) {
        assert_true(steady__pipeline_receive(&pipeline) > 0);
        assert_true(steady__pipeline_next(&pipeline, &reply, &whose) >= 0);
    }
    while (fake.replies_len > 0)
        assert_true(steady__pipeline_receive(&pipeline) > 0);
    steady__pipeline_shrink(&pipeline);
    assert_true(steady__pipeline_unread(&pipeline) && pipeline.in_room > STEADY__PIPELINE_IN);
    assert_int_equal(steady__pipeline_next(&pipeline, &reply, &whose), 1);
    assert_ptr_equal(whose, &requests[1]);
    assert_int_equal(reply.values[0], 7);
    steady__pipeline_shrink(&pipeline);
    assert_int_equal(pipeline.in_room, STEADY__PIPELINE_IN);
    steady__pipeline_free(&pipeline);
}

/* Other requests never use its memory. What the system has not taken keeps its place. */
static void long_request_gets_a_longer_buffer_for_itself(void **state) {
    enum { LONG = STEADY__PIPELINE_OUT + 20000 };
    struct steady__request requests[3] = {0};
    struct steady__pipeline pipeline;
    (void)state;
    assert_int_equal(steady__pipeline_init(&pipeline, &fake.net, 8), 0);
    steady__pipeline_open(&pipeline, 7, NULL, HOUR, 0);
    fake.budget = 3;
    put(&pipeline, &requests[0]);
    assert_null(steady__pipeline_room(&pipeline, 1, LONG)); /* the buffer is not empty */
    assert_false(steady__pipeline_flush(&pipeline));
    assert_null(steady__pipeline_room(&pipeline, 1, LONG));
    assert_int_equal(pipeline.out_room, STEADY__PIPELINE_OUT);
    fake.budget = LEN;
    assert_true(steady__pipeline_flush(&pipeline));
    char *room = steady__pipeline_room(&pipeline, 1, LONG);
    assert_non_null(room);
    memset(room, 'y', LONG);
    steady__pipeline_put(&pipeline, &requests[1], LONG);
    steady__pipeline_shrink(&pipeline); /* not yet */
    assert_int_equal(pipeline.out_room, LONG);
    assert_null(steady__pipeline_room(&pipeline, 1, LEN));
    fake.budget = LONG;
    assert_true(steady__pipeline_flush(&pipeline));
    assert_int_equal(pipeline.sent, LEN + LONG);
    put(&pipeline, &requests[2]);
    assert_null(steady__pipeline_room(&pipeline, 1, STEADY__PIPELINE_OUT));
    fake.budget = LEN;
    assert_true(steady__pipeline_flush(&pipeline));
    steady__pipeline_shrink(&pipeline);
    assert_int_equal(pipeline.out_room, STEADY__PIPELINE_OUT);
    steady__pipeline_free(&pipeline);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_counts_as_written_with_its_first_byte),
        cmocka_unit_test(each_reply_is_matched_to_its_request),
        cmocka_unit_test(long_reply_is_read_and_its_memory_given_back),
        cmocka_unit_test(reply_over_its_limit_is_refused),
        cmocka_unit_test(memory_of_a_long_reply_is_given_back_on_demand),
        cmocka_unit_test(long_request_gets_a_longer_buffer_for_itself),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
