/* SPDX-License-Identifier: MIT
 * Hash slots, redirects and the slot map, in the words of the servers. */
#include "redis/slot_map.h"

#include <string.h>

/* ---- Keys ---- */

/* CRC-16/XMODEM, half a byte at a time. */
static uint16_t slot_map_crc16(const char *bytes, size_t len) {
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                       0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    unsigned crc = 0;
    for (size_t i = 0; i < len; i++) {
        const unsigned byte = (unsigned char)bytes[i];
        crc = (crc << 4 & 0xffff) ^ table[(crc >> 12 ^ byte >> 4) & 15];
        crc = (crc << 4 & 0xffff) ^ table[(crc >> 12 ^ byte) & 15];
    }
    return (uint16_t)crc;
}

uint16_t steady__slot_of(const char *key, size_t len) {
    const char *open = memchr(key, '{', len);
    const char *close = open != NULL ? memchr(open, '}', len - (size_t)(open - key)) : NULL;
    if (close != NULL && close > open + 1) {
        key = open + 1;
        len = (size_t)(close - key);
    }
    return slot_map_crc16(key, len) & (STEADY__SLOTS - 1);
}

/* ---- Nodes ---- */

/* Only letters, digits and . - _ : %. A table decides, because a map may hold megabytes of hosts. */
static bool slot_map_is_host(const char *text, size_t len) {
    static const unsigned char may_hold[256] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0,
        0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0,
        0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    unsigned char all = 1;
    for (size_t i = 0; i < len; i++)
        all &= may_hold[(unsigned char)text[i]];
    return all != 0;
}

/* Copies a host without its brackets. False if the text is no host, such as "?". */
static bool slot_map_read_host(char out[STEADY__HOST_MAX + 1], const char *text, size_t len) {
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len > STEADY__HOST_MAX) return false;
    if (!slot_map_is_host(text, len)) return false;
    if (len > 0) memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

/* Reads a decimal number of at most `max`. Returns its bytes, or 0. */
static size_t slot_map_read_digits(const char *text, size_t len, unsigned max, unsigned *number) {
    size_t n = 0;
    for (*number = 0; n < len && text[n] >= '0' && text[n] <= '9'; n++) {
        *number = *number * 10 + (unsigned)(text[n] - '0');
        if (*number > max) return 0;
    }
    return n;
}

/* host:port. The host may hold colons. */
static bool slot_map_read_endpoint(struct steady__redirect *redirect, const char *text, size_t len) {
    const char *colon = memrchr(text, ':', len);
    unsigned port;
    if (colon == NULL) return false;
    const size_t host_len = (size_t)(colon - text), port_len = len - host_len - 1;
    if (port_len == 0 || slot_map_read_digits(colon + 1, port_len, UINT16_MAX, &port) != port_len || port == 0)
        return false;
    redirect->port = (uint16_t)port;
    if (host_len == 1 && *text == '?') {
        memcpy(redirect->host, "?", 2);
        return true;
    }
    return slot_map_read_host(redirect->host, text, host_len);
}

bool steady__redirect_read(struct steady__redirect *redirect, const char *error, size_t len) {
    const bool moved = len > 6 && memcmp(error, "MOVED ", 6) == 0;
    redirect->ask = len > 4 && memcmp(error, "ASK ", 4) == 0;
    if (!moved && !redirect->ask) return false;
    const size_t at = moved ? 6 : 4;
    unsigned slot;
    const size_t digits = slot_map_read_digits(error + at, len - at, STEADY__SLOTS - 1, &slot);
    if (digits == 0 || at + digits == len || error[at + digits] != ' ') return false;
    redirect->slot = (uint16_t)slot;
    return slot_map_read_endpoint(redirect, error + at + digits + 1, len - at - digits - 1);
}

/* ---- CLUSTER SLOTS ---- */

struct range {
    uint16_t first, last;
    bool has_host;
    char host[STEADY__HOST_MAX + 1];
    uint16_t port;
};

static bool slot_map_next_of(struct steady__walk *walk, struct steady__value *value, int kind) {
    return steady__walk_next(walk, value) && (int)value->kind == kind;
}

static bool slot_map_next_number(struct steady__walk *walk, int64_t least, int64_t most, uint16_t *number) {
    struct steady__value value;
    if (!slot_map_next_of(walk, &value, STEADY__VALUE_INTEGER) || value.number < least || value.number > most)
        return false;
    *number = (uint16_t)value.number;
    return true;
}

static void slot_map_skip(struct steady__walk *walk, int64_t values) {
    while (values-- > 0)
        steady__walk_skip(walk);
}

/* Finds the address in the metadata of a node: an array of names and values. */
static bool slot_map_read_ip(struct range *range, struct steady__walk walk, int64_t values) {
    struct steady__value value, name;
    for (; values > 0; values--) {
        struct steady__walk entry = walk;
        steady__walk_skip(&walk);
        if (!slot_map_next_of(&entry, &value, STEADY__VALUE_ARRAY)) continue;
        for (int64_t i = 0; i + 1 < value.number; i += 2) {
            struct steady__walk at = entry;
            slot_map_skip(&entry, 2);
            if (!slot_map_next_of(&at, &name, STEADY__VALUE_TEXT) || name.text_len != 2 ||
                memcmp(name.text, "ip", 2) != 0)
                continue;
            return slot_map_next_of(&at, &value, STEADY__VALUE_TEXT) &&
                   slot_map_read_host(range->host, value.text, value.text_len);
        }
    }
    return false;
}

/* host, port, and more that depends on the version. A node that does not know its address sends nil. A node that
 * prefers host names and has none sends "?". */
static bool slot_map_read_node(struct range *range, struct steady__walk *walk) {
    struct steady__value node, host;
    if (!slot_map_next_of(walk, &node, STEADY__VALUE_ARRAY) || node.number < 2 || !steady__walk_next(walk, &host))
        return false;
    if (host.kind != STEADY__VALUE_TEXT && host.kind != STEADY__VALUE_NIL) return false;
    range->has_host = slot_map_read_host(range->host, host.text, host.kind == STEADY__VALUE_TEXT ? host.text_len : 0);
    if (!slot_map_next_number(walk, 0, UINT16_MAX, &range->port)) return false;
    if (!range->has_host) range->has_host = slot_map_read_ip(range, *walk, node.number - 2);
    slot_map_skip(walk, node.number - 2);
    return true;
}

/* first, last, the primary, the replicas. */
static bool slot_map_read_range(struct range *range, struct steady__walk *walk) {
    struct steady__value head;
    if (!slot_map_next_of(walk, &head, STEADY__VALUE_ARRAY) || head.number < 3) return false;
    if (!slot_map_next_number(walk, 0, STEADY__SLOTS - 1, &range->first)) return false;
    if (!slot_map_next_number(walk, range->first, STEADY__SLOTS - 1, &range->last)) return false;
    if (!slot_map_read_node(range, walk)) return false;
    slot_map_skip(walk, head.number - 3);
    return true;
}

static bool slot_map_assign(struct steady__slot_map *map, const struct range *range, uint16_t node) {
    for (unsigned slot = range->first; slot <= range->last; slot++) {
        if (map->node[slot] != STEADY__SLOT_UNKNOWN) return false;
        map->node[slot] = node;
    }
    return true;
}

bool steady__slot_map_draw(struct steady__slot_map *map, const struct steady__reply *reply,
                           uint16_t (*number)(void *arg, const char *host, uint16_t port), void *arg) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value ranges;
    bool any = false;
    memset(map->node, 0xff, sizeof map->node);
    if (!slot_map_next_of(&walk, &ranges, STEADY__VALUE_ARRAY)) return false;
    for (int64_t i = 0; i < ranges.number; i++) {
        struct range range;
        if (!slot_map_read_range(&range, &walk)) return false;
        const bool usable = range.has_host && range.port != 0;
        const uint16_t node = usable ? number(arg, range.host, range.port) : STEADY__SLOT_UNKNOWN;
        if (!slot_map_assign(map, &range, node)) return false;
        any = any || node != STEADY__SLOT_UNKNOWN;
    }
    return any;
}

void steady__slot_map_complete(struct steady__slot_map *map, const struct steady__slot_map *before) {
    for (unsigned slot = 0; slot < STEADY__SLOTS; slot++)
        if (map->node[slot] == STEADY__SLOT_UNKNOWN) map->node[slot] = before->node[slot];
}
