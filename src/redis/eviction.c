/* SPDX-License-Identifier: MIT
 * Whether the settings of a server may evict buckets: CONFIG GET maxmemory*, an array of names and values. */
#include "redis/eviction.h"

#include <stdio.h>
#include <string.h>

#include "conn/resp.h"

size_t steady__eviction_query(char *out) {
    return steady__resp_command(out, 3, (const char *const[]){"CONFIG", "GET", "maxmemory*"});
}

static const char *const policies[] = {"allkeys-lru",  "allkeys-lfu",     "allkeys-random", "volatile-lru",
                                       "volatile-lfu", "volatile-random", "volatile-ttl"};

/* Only known names are shown, because a server can send any text. */
static const char *eviction_known_policy(const struct steady__value *value) {
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++)
        if (steady__value_is(value, policies[i])) return policies[i];
    return "unknown";
}

/* A server without a memory limit evicts nothing. With one, each policy except noeviction evicts keys with a time to
 * live, and all buckets have one. */
bool steady__eviction_possible(const struct steady__reply *reply, char *policy, size_t policy_size) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value name, value;
    bool limited = false, evicts = false;
    if (!steady__walk_next(&walk, &value) || value.kind != STEADY__VALUE_ARRAY) return false;
    while (steady__walk_next(&walk, &name) && steady__walk_next(&walk, &value)) {
        if (value.kind != STEADY__VALUE_TEXT) return false;
        if (steady__value_is(&name, "maxmemory")) limited = !steady__value_is(&value, "0");
        if (!steady__value_is(&name, "maxmemory-policy")) continue;
        evicts = !steady__value_is(&value, "noeviction");
        snprintf(policy, policy_size, "%s", eviction_known_policy(&value));
    }
    return limited && evicts;
}
