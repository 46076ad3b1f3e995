/* SPDX-License-Identifier: MIT
 * Fuzzes the meaning of replies: any text of an error, and any integers for any limit. */
#include <stdlib.h>
#include <string.h>

#include "conn/reply.h"
#include "core/limit.h"
#include "redis/command.h"

#define VALUES 5 /* the most of a reply to a call on one bucket */

struct input {
    int64_t capacity, recharge, drops, block, amount;
    int64_t values[VALUES];
    uint8_t count, verb;
};

static void read_integers(const struct input *in) {
    const steady_limit limit = {
        .max_capacity = in->capacity, .drop_recharge = in->recharge, .drops = in->drops, .block_duration = in->block};
    struct steady__terms terms;
    steady_result result;
    bool stepped;
    if (steady__limit_rate(&terms.rate, &limit, NULL) != 0) return;
    if (in->amount > STEADY__AMOUNT_MAX || in->amount < -STEADY__AMOUNT_MAX) return;
    steady__command_encode_limit(&terms);
    const struct steady__call call = {
        .verb = in->verb % 3, .amount = in->amount, .key = "k", .key_len = 1, .terms = &terms};
    char command[STEADY__COMMAND_MAX];
    if (steady__command_evalsha(command, &call) > sizeof command) abort();
    if (steady__command_module(command, &call) > sizeof command) abort();
    if (steady__command_module_reply(&call, in->values, in->count % (VALUES + 1), &result))
        if (result.level < 0 || result.success != (result.retry_after == 0)) abort();
    if (!steady__command_script_reply(&call, in->values, in->count % (VALUES + 1), &result, &stepped)) return;
    if (result.level < 0 || result.until_next_drop < 0 || result.blocked_for < 0) abort();
    if (result.success && result.retry_after != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct input in;
    const int error = steady__error_class_code(steady__error_class_of((const char *)bytes, len));
    if (strcmp(steady_error_name(error), "?") == 0 || error == 0) abort();
    if (len >= sizeof in) {
        memcpy(&in, bytes, sizeof in);
        read_integers(&in);
    }
    return 0;
}
