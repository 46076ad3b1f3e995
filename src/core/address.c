/* SPDX-License-Identifier: MIT
 * Reads addresses and networks, and makes keys of them. */
#include "core/address.h"

#include <arpa/inet.h>
#include <string.h>

#define IPV4_BEGIN 96 /* the bits before the IPv4 address in an IPv4-mapped one */

static const uint8_t address_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* ---- Reading ---- */

/* Without port, brackets and zone. */
static void address_trim(const char **text, size_t *len) {
    const char *end = memchr(*text, '%', *len);
    if (end != NULL) *len = (size_t)(end - *text);
    if (*len > 0 && **text == '[') {
        end = memchr(*text, ']', *len);
        if (end != NULL) *len = (size_t)(end - *text);
        ++*text;
        --*len;
        return;
    }
    const char *colon = memchr(*text, ':', *len);
    if (colon != NULL && memchr(colon + 1, ':', *len - (size_t)(colon - *text) - 1) == NULL)
        *len = (size_t)(colon - *text);
}

/* Four numbers up to 255 without zeros before them, as inet_pton reads them, with a third of its instructions. */
static bool address_read_ipv4(uint8_t ipv4[4], const char *text, size_t len) {
    size_t at = 0;
    for (size_t i = 0; i < 4; i++) {
        unsigned number = 0;
        const size_t begin = at + (i > 0);
        if (i > 0 && (at == len || text[at] != '.')) return false;
        for (at = begin; at < len && at < begin + 3 && text[at] >= '0' && text[at] <= '9'; at++)
            number = number * 10 + (unsigned)(text[at] - '0');
        if (at == begin || number > 255 || (text[begin] == '0' && at > begin + 1)) return false;
        ipv4[i] = (uint8_t)number;
    }
    return at == len;
}

static bool address_read(struct steady__address *address, const char *text, size_t len) {
    char copy[INET6_ADDRSTRLEN];
    memcpy(address->bytes, address_mapped, sizeof address_mapped);
    if (address_read_ipv4(address->bytes + 12, text, len)) return true;
    if (len >= sizeof copy || memchr(text, '\0', len) != NULL) return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return inet_pton(AF_INET6, copy, address->bytes) == 1;
}

bool steady__address_parse(struct steady__address *address, const char *text, size_t len) {
    address_trim(&text, &len);
    return address_read(address, text, len);
}

static void address_mask(struct steady__address *address, unsigned prefix) {
    if (prefix % 8 != 0) address->bytes[prefix / 8] &= (uint8_t)(0xff00 >> prefix % 8);
    const unsigned whole = (prefix + 7) / 8;
    memset(address->bytes + whole, 0, sizeof address->bytes - whole);
}

bool steady__network_parse(struct steady__network *network, const char *text) {
    const char *slash = strchr(text, '/');
    const size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    const unsigned before = memchr(text, ':', len) != NULL ? 0 : IPV4_BEGIN, most = 128 - before;
    unsigned bits = 0, digits = 0;
    if (!address_read(&network->address, text, len)) return false;
    for (const char *at = slash; at != NULL && at[1] != '\0'; at++, digits++) {
        if (at[1] < '0' || at[1] > '9' || digits == 3) return false;
        bits = bits * 10 + (unsigned)(at[1] - '0');
    }
    if (slash == NULL) bits = most;
    if ((slash != NULL && digits == 0) || bits > most) return false;
    network->prefix = before + bits;
    return steady__network_has(network, &network->address);
}

bool steady__network_has(const struct steady__network *network, const struct steady__address *address) {
    struct steady__address masked = *address;
    address_mask(&masked, network->prefix);
    return memcmp(&masked, &network->address, sizeof masked) == 0;
}

bool steady__address_forwarded(const char *field, size_t len, size_t place, const char **text, size_t *text_len) {
    const char *end = field + len, *begin = end;
    for (size_t at = 1;; at++) {
        while (begin > field && begin[-1] != ',')
            begin--;
        if (at == place) break;
        if (begin == field) return false;
        end = --begin;
    }
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (begin < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *text = begin;
    *text_len = (size_t)(end - begin);
    return true;
}

/* ---- Keys ---- */

static bool address_begins(const struct steady__address *address, const uint8_t *with, size_t len) {
    return memcmp(address->bytes, with, len) == 0;
}

/* Whether it stands for an IPv4 address. */
static bool address_ipv4(const struct steady__address *address, uint8_t ipv4[4]) {
    static const uint8_t zero[14] = {0}, translated[12] = {[8] = 0xff, [9] = 0xff}, nat64[12] = {0, 0x64, 0xff, 0x9b},
                         teredo[4] = {0x20, 0x01, 0, 0}, sixtofour[2] = {0x20, 0x02};
    if (address_begins(address, zero, sizeof zero)) return false;
    if (address_begins(address, address_mapped, sizeof address_mapped) ||
        address_begins(address, translated, sizeof translated) || address_begins(address, nat64, sizeof nat64) ||
        address_begins(address, zero, 12)) {
        memcpy(ipv4, address->bytes + 12, 4);
        return true;
    }
    if (address_begins(address, teredo, sizeof teredo)) {
        for (size_t i = 0; i < 4; i++)
            ipv4[i] = address->bytes[12 + i] ^ 0xff;
        return true;
    }
    memcpy(ipv4, address->bytes + 2, 4);
    return address_begins(address, sixtofour, sizeof sixtofour);
}

static char *address_put_number(char *at, unsigned number, unsigned base) {
    char digits[8];
    size_t n = 0;
    do
        digits[n++] = "0123456789abcdef"[number % base];
    while ((number /= base) > 0);
    while (n > 0)
        *at++ = digits[--n];
    return at;
}

/* Writes an IPv6 address as RFC 5952 asks. inet_ntop took half of the time of a key. */
static char *address_put_ipv6(char *at, const uint8_t bytes[16]) {
    unsigned words[8], gap = 8, gap_len = 1; /* a gap has 2 words or more */
    for (unsigned i = 0; i < 8; i++)
        words[i] = (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
    for (unsigned i = 0, len; i < 8; i += len + 1) {
        for (len = 0; i + len < 8 && words[i + len] == 0;)
            len++;
        if (len > gap_len) {
            gap = i;
            gap_len = len;
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        if (i == gap) {
            *at++ = ':';
            i += gap_len - 1;
            if (i == 7) *at++ = ':';
            continue;
        }
        if (i > 0) *at++ = ':';
        at = address_put_number(at, words[i], 16);
    }
    return at;
}

size_t steady__address_key(char key[STEADY__ADDRESS_KEY_MAX], const struct steady__address *address, unsigned prefix) {
    static const uint8_t translated_locally[6] = {0, 0x64, 0xff, 0x9b, 0, 1};
    struct steady__address network = *address;
    uint8_t ipv4[4];
    char *at = key;
    if (address_ipv4(address, ipv4)) {
        for (size_t i = 0; i < 4; i++) {
            if (i > 0) *at++ = '.';
            at = address_put_number(at, ipv4[i], 10);
        }
    } else {
        if (address_begins(address, translated_locally, sizeof translated_locally)) prefix = 128;
        address_mask(&network, prefix);
        at = address_put_ipv6(at, network.bytes);
        *at++ = '/';
        at = address_put_number(at, prefix, 10);
    }
    *at = '\0';
    return (size_t)(at - key);
}
