/* SPDX-License-Identifier: MIT
 * Fuzzes what cluster nodes say about each other: redirects, and maps that arrive in pieces. */
#include "redis/slot_map.h"

#include <stdlib.h>
#include <string.h>

#define NUMBERS 8

/* A host may name a node again, or exceed the number of nodes. */
static uint16_t number(void *arg, const char *host, uint16_t port) {
    unsigned *asked = arg;
    if (strlen(host) > STEADY__HOST_MAX || port == 0) abort();
    ++*asked;
    return strlen(host) % (NUMBERS + 1) == NUMBERS ? STEADY__SLOT_UNKNOWN : (uint16_t)(strlen(host) % (NUMBERS + 1));
}

static void check_map(const struct steady__reply *reply) {
    static struct steady__slot_map map;
    unsigned asked = 0;
    bool any = false;
    const bool drawn = steady__slot_map_draw(&map, reply, number, &asked);
    for (unsigned slot = 0; slot < STEADY__SLOTS; slot++) {
        if (map.node[slot] == STEADY__SLOT_UNKNOWN) continue;
        if (map.node[slot] >= NUMBERS) abort();
        any = true;
    }
    if (drawn && (!any || asked == 0)) abort();
}

static void read_map(const char *bytes, size_t len, size_t piece) {
    struct steady__progress progress = {0};
    struct steady__reply reply;
    ptrdiff_t took = 0;
    for (size_t there = 0; took == 0 && there < len;) {
        there = len - there < piece ? len : there + piece;
        took = steady__reply_read_nested(&reply, &progress, bytes, there);
        if (took > (ptrdiff_t)there) abort();
    }
    if (took > 0 && reply.kind == STEADY__REPLY_NESTED) check_map(&reply);
}

static void read_redirect(const char *bytes, size_t len) {
    struct steady__redirect redirect;
    if (!steady__redirect_read(&redirect, bytes, len)) return;
    if (redirect.slot >= STEADY__SLOTS || redirect.port == 0) abort();
    if (memchr(redirect.host, '\0', sizeof redirect.host) == NULL || strlen(redirect.host) > len) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0) return 0;
    const char *text = (const char *)bytes + 1;
    if (steady__slot_of(text, len - 1) >= STEADY__SLOTS) abort();
    if (bytes[0] == 'M' || bytes[0] == 'A') read_redirect((const char *)bytes, len);
    read_map(text, len - 1, (size_t)bytes[0] + 1);
    return 0;
}
