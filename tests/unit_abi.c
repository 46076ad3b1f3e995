/* SPDX-License-Identifier: MIT
 * The layout of the public structs, and the numbers of the enums. A program that is already linked depends on both, so
 * a change of one is a break of the ABI: see docs/reference/compatibility.md. tests/test_headers.py checks that no
 * field, no struct and no enumerator is missing here. The sizes are those of LP64 systems. */
#include <stddef.h>
#include <stdint.h>

#include "assertions.h"
#include "steady.h"
#include "steady/client.h"
#include "steady/http.h"

struct place {
    const char *name;
    size_t offset;
    size_t expected;
};

#define SIZE(type, size)                                                                                               \
    { "sizeof " #type, sizeof(type), size }
#define FIELD(type, field, offset)                                                                                     \
    { #type "." #field, offsetof(type, field), offset }

static const struct place places[] = {
    SIZE(steady_message, 288),
    FIELD(steady_message, text, 0),
    FIELD(steady_message, reserved, 256),

    SIZE(steady_limit, 64),
    FIELD(steady_limit, max_capacity, 0),
    FIELD(steady_limit, drop_recharge, 8),
    FIELD(steady_limit, drops, 16),
    FIELD(steady_limit, block_duration, 24),
    FIELD(steady_limit, name, 32),
    FIELD(steady_limit, reserved, 40),

    SIZE(steady_client_ops, 56),
    FIELD(steady_client_ops, name, 0),
    FIELD(steady_client_ops, send, 8),
    FIELD(steady_client_ops, detach, 16),
    FIELD(steady_client_ops, reserved, 24),

    SIZE(steady_http_policy, 80),
    FIELD(steady_http_policy, name, 0),
    FIELD(steady_http_policy, limit, 8),
    FIELD(steady_http_policy, success, 16),
    FIELD(steady_http_policy, level, 24),
    FIELD(steady_http_policy, blocked_for, 32),
    FIELD(steady_http_policy, retry_after, 40),
    FIELD(steady_http_policy, reserved, 48),

    SIZE(steady_http_field, 40),
    FIELD(steady_http_field, name, 0),
    FIELD(steady_http_field, value, 8),
    FIELD(steady_http_field, value_len, 16),
    FIELD(steady_http_field, reserved, 24),

    SIZE(steady_loop_ops, 104),
    FIELD(steady_loop_ops, name, 0),
    FIELD(steady_loop_ops, io_new, 8),
    FIELD(steady_loop_ops, io_want, 16),
    FIELD(steady_loop_ops, io_free, 24),
    FIELD(steady_loop_ops, timer_new, 32),
    FIELD(steady_loop_ops, timer_start, 40),
    FIELD(steady_loop_ops, timer_stop, 48),
    FIELD(steady_loop_ops, timer_free, 56),
    FIELD(steady_loop_ops, now, 64),
    FIELD(steady_loop_ops, reserved, 72),

    SIZE(steady_loop, 32),
    FIELD(steady_loop, ops, 0),
    FIELD(steady_loop, loop, 8),
    FIELD(steady_loop, reserved, 16),

    SIZE(steady_tls_options, 72),
    FIELD(steady_tls_options, ca_file, 0),
    FIELD(steady_tls_options, cert_file, 8),
    FIELD(steady_tls_options, key_file, 16),
    FIELD(steady_tls_options, server_name, 24),
    FIELD(steady_tls_options, insecure_skip_verify, 32),
    FIELD(steady_tls_options, reserved, 40),

    SIZE(steady_store_options, 136),
    FIELD(steady_store_options, loop, 0),
    FIELD(steady_store_options, timeout, 8),
    FIELD(steady_store_options, max_in_flight, 16),
    FIELD(steady_store_options, buckets, 20),
    FIELD(steady_store_options, log, 24),
    FIELD(steady_store_options, log_data, 32),
    FIELD(steady_store_options, engine, 40),
    FIELD(steady_store_options, tls, 48),
    FIELD(steady_store_options, connect_timeout, 56),
    FIELD(steady_store_options, client_name, 64),
    FIELD(steady_store_options, clock, 72),
    FIELD(steady_store_options, clock_data, 80),
    FIELD(steady_store_options, deny_memory, 88),
    FIELD(steady_store_options, deny_memory_off, 96),
    FIELD(steady_store_options, lease_age, 104),
    FIELD(steady_store_options, reserved, 112),

    SIZE(steady_stats, 192),
    FIELD(steady_stats, decisions, 0),
    FIELD(steady_stats, allowed, 8),
    FIELD(steady_stats, denied, 16),
    FIELD(steady_stats, blocked, 24),
    FIELD(steady_stats, unavailable, 32),
    FIELD(steady_stats, unknown, 40),
    FIELD(steady_stats, overflowed, 48),
    FIELD(steady_stats, clock_steps, 56),
    FIELD(steady_stats, reconnects, 64),
    FIELD(steady_stats, script_loads, 72),
    FIELD(steady_stats, in_flight, 80),
    FIELD(steady_stats, timeouts, 88),
    FIELD(steady_stats, from_memory, 96),
    FIELD(steady_stats, from_lease, 104),
    FIELD(steady_stats, reserved, 112),

    SIZE(steady_throttler_options, 80),
    FIELD(steady_throttler_options, prefix, 0),
    FIELD(steady_throttler_options, on_error, 8),
    FIELD(steady_throttler_options, local_share, 12),
    FIELD(steady_throttler_options, max_ahead, 16),
    FIELD(steady_throttler_options, clamp, 24),
    FIELD(steady_throttler_options, reserved, 32),

    SIZE(steady_result, 160),
    FIELD(steady_result, error, 0),
    FIELD(steady_result, source, 4),
    FIELD(steady_result, must_wait, 8),
    FIELD(steady_result, success, 16),
    FIELD(steady_result, atomic, 17),
    FIELD(steady_result, granted, 24),
    FIELD(steady_result, level, 32),
    FIELD(steady_result, until_next_drop, 40),
    FIELD(steady_result, blocked_for, 48),
    FIELD(steady_result, retry_after, 56),
    FIELD(steady_result, part, 64),
    FIELD(steady_result, n_parts, 72),
    FIELD(steady_result, parts, 80),
    FIELD(steady_result, reservation, 88),
    FIELD(steady_result, reserved, 96),

    SIZE(steady_call, 104),
    FIELD(steady_call, verb, 0),
    FIELD(steady_call, key, 8),
    FIELD(steady_call, key_len, 16),
    FIELD(steady_call, amount, 24),
    FIELD(steady_call, amounts, 32),
    FIELD(steady_call, kind, 40),
    FIELD(steady_call, how, 48),
    FIELD(steady_call, reserved, 56),

    SIZE(steady_part_result, 112),
    FIELD(steady_part_result, name, 0),
    FIELD(steady_part_result, part, 8),
    FIELD(steady_part_result, success, 16),
    FIELD(steady_part_result, answered, 17),
    FIELD(steady_part_result, granted, 24),
    FIELD(steady_part_result, level, 32),
    FIELD(steady_part_result, until_next_drop, 40),
    FIELD(steady_part_result, blocked_for, 48),
    FIELD(steady_part_result, retry_after, 56),
    FIELD(steady_part_result, charged, 64),
    FIELD(steady_part_result, given_back, 72),
    FIELD(steady_part_result, reserved, 80),

    SIZE(steady_how, 96),
    FIELD(steady_how, max_wait, 0),
    FIELD(steady_how, at_least, 8),
    FIELD(steady_how, reserve, 16),
    FIELD(steady_how, parts, 24),
    FIELD(steady_how, parts_room, 32),
    FIELD(steady_how, why, 40),
    FIELD(steady_how, reserved, 48),

    SIZE(steady_part, 80),
    FIELD(steady_part, throttler, 0),
    FIELD(steady_part, key, 8),
    FIELD(steady_part, key_len, 16),
    FIELD(steady_part, amount, 24),
    FIELD(steady_part, amounts, 32),
    FIELD(steady_part, kind, 40),
    FIELD(steady_part, reserved, 48),

    SIZE(steady_reserved, 144),
    FIELD(steady_reserved, name, 0),
    FIELD(steady_reserved, key, 8),
    FIELD(steady_reserved, key_len, 16),
    FIELD(steady_reserved, amount, 24),
    FIELD(steady_reserved, granted, 32),
    FIELD(steady_reserved, moment, 40),
    FIELD(steady_reserved, limit, 48),
    FIELD(steady_reserved, reserved, 112),

    SIZE(steady_settlement, 96),
    FIELD(steady_settlement, reservation, 0),
    FIELD(steady_settlement, actual, 8),
    FIELD(steady_settlement, actuals, 16),
    FIELD(steady_settlement, throttlers, 24),
    FIELD(steady_settlement, n_throttlers, 32),
    FIELD(steady_settlement, why, 40),
    FIELD(steady_settlement, store, 48),
    FIELD(steady_settlement, parts, 56),
    FIELD(steady_settlement, parts_room, 64),
    FIELD(steady_settlement, reserved, 72),
};

static void no_field_of_a_public_struct_has_moved(void **state) {
    (void)state;
    if (sizeof(void *) != 8 || sizeof(long) != 8) skip();
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (places[i].offset != places[i].expected)
            fail_msg("%s is %zu; it was %zu", places[i].name, places[i].offset, places[i].expected);
}

static const struct {
    const char *name;
    int value, expected;
} numbers[] = {
#define NUMBER(name, expected)                                                                                         \
    { #name, name, expected }
    NUMBER(STEADY_HTTP_DRAFT_11, 0),
    NUMBER(STEADY_HTTP_DRAFT_07, 1),
    NUMBER(STEADY_HTTP_DRAFT_03, 2),
    NUMBER(STEADY_HTTP_X, 3),
    NUMBER(STEADY_HTTP_FIELDS_MAX, 3),

    NUMBER(STEADY_OK, 0),
    NUMBER(STEADY_UNAVAILABLE, -1),
    NUMBER(STEADY_UNKNOWN, -2),
    NUMBER(STEADY_OVERLOADED, -3),
    NUMBER(STEADY_CANCELLED, -4),
    NUMBER(STEADY_NOT_A_BUCKET, -5),
    NUMBER(STEADY_REFUSED, -6),
    NUMBER(STEADY_BAD_ARGUMENT, -7),
    NUMBER(STEADY_NO_MEMORY, -8),
    NUMBER(STEADY_CLOSED, -9),
    NUMBER(STEADY_UNSUPPORTED, -10),
    NUMBER(STEADY_BAD_FILE, -11),
    NUMBER(STEADY_SYSTEM, -12),
    NUMBER(STEADY_SERVER, -13),
    NUMBER(STEADY_WRONG_THREAD, -14),
    NUMBER(STEADY_NO_LOOP, -15),
    NUMBER(STEADY_NOT_IN_FLIGHT, -16),
    NUMBER(STEADY_READABLE, 1),
    NUMBER(STEADY_WRITABLE, 2),
    NUMBER(STEADY_LOG_INFO, 0),
    NUMBER(STEADY_LOG_WARNING, 1),
    NUMBER(STEADY_ENGINE_AUTO, 0),
    NUMBER(STEADY_ENGINE_SCRIPT, 1),
    NUMBER(STEADY_ENGINE_MODULE, 2),
    NUMBER(STEADY_CONNECTING, 0),
    NUMBER(STEADY_READY, 1),
    NUMBER(STEADY_DOWN, 2),
    NUMBER(STEADY_CONSUME, 0),
    NUMBER(STEADY_PEEK, 1),
    NUMBER(STEADY_RESET, 2),
    NUMBER(STEADY_TAKE, 0),
    NUMBER(STEADY_LOOK, 1),
    NUMBER(STEADY_CHARGE, 2),
    NUMBER(STEADY_SHADOW, 3),
    NUMBER(STEADY_REPORT, 0),
    NUMBER(STEADY_DENY, 1),
    NUMBER(STEADY_ALLOW, 2),
    NUMBER(STEADY_LOCAL, 3),
    NUMBER(STEADY_FROM_NOWHERE, 0),
    NUMBER(STEADY_FROM_STORE, 1),
    NUMBER(STEADY_FROM_POLICY, 2),
    NUMBER(STEADY_FROM_LOCAL, 3),
    NUMBER(STEADY_FROM_MEMORY, 4),
    NUMBER(STEADY_FROM_LEASE, 5),
};

static void no_public_number_has_changed(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i].value != numbers[i].expected)
            fail_msg("%s is %d; it was %d", numbers[i].name, numbers[i].value, numbers[i].expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_field_of_a_public_struct_has_moved),
        cmocka_unit_test(no_public_number_has_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
