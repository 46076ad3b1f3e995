/* SPDX-License-Identifier: MIT
 * The addresses of clients, as keys of limits.
 *
 * A customer has a whole IPv6 network, so an IPv6 address counts as its network. Some IPv6 addresses stand for one IPv4
 * address, and many of them share a /64. They count as that IPv4 address:
 *
 *     ::ffff:0:0/96       IPv4-mapped (RFC 4291, 2.5.5.2)
 *     ::/96               IPv4-compatible (RFC 4291, 2.5.5.1), except ::/112, which has :: and ::1
 *     ::ffff:0:0:0/96     IPv4-translated (RFC 2765, 2.1)
 *     64:ff9b::/96        behind a translator, such as NAT64 or SIIT-DC (RFC 6052, 2.1)
 *     2002::/16           6to4: the site of one IPv4 address (RFC 3056, 2)
 *     2001::/32           Teredo: the host behind one IPv4 address (RFC 4380, 4)
 *
 * In 64:ff9b:1::/48 (RFC 8215) the operator chooses the position of the IPv4 address, so each address there counts
 * alone. An ISATAP address (RFC 5214) needs no rule: its /64 belongs to one site. */
#ifndef STEADY__ADDRESS_H
#define STEADY__ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An IPv4 address is an IPv4-mapped one, so ::ffff:192.0.2.1 is the same as 192.0.2.1. */
struct steady__address {
    uint8_t bytes[16];
};

/* The addresses whose first `prefix` bits are those of `address`. */
struct steady__network {
    struct steady__address address;
    unsigned prefix; /* 0 .. 128; of an IPv4 network 96 more than in its text */
};

/* Reads an address, such as "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "fe80::1%eth0" or "[2001:db8::1]:80". The port
 * and the zone are not looked at. */
bool steady__address_parse(struct steady__address *address, const char *text, size_t len);

/* Reads a network, such as "10.0.0.0/8" or "2001:db8::/32", or one address. The bits after the prefix must be 0. */
bool steady__network_parse(struct steady__network *network, const char *text);

bool steady__network_has(const struct steady__network *network, const struct steady__address *address);

#define STEADY__ADDRESS_KEY_MAX 48

/* Writes the key: an IPv4 address, or an IPv6 network with a prefix of 1 to 128 bits, such as "2001:db8:1:2::/64".
 * Returns its length. */
size_t steady__address_key(char key[STEADY__ADDRESS_KEY_MAX], const struct steady__address *address, unsigned prefix);

/* The address at a place of X-Forwarded-For, counted from the right, from 1 on. `text` points into the field. False if
 * the field has fewer addresses. An address that the field has may be empty, or no address. */
bool steady__address_forwarded(const char *field, size_t len, size_t place, const char **text, size_t *text_len);

#endif
