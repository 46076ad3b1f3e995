/* SPDX-License-Identifier: MIT
 * Fuzzes the matcher: any request against rules with every kind of condition and key. The lines of the input are the
 * target, the method, the host, the address, and fields or entries with a colon. */
#include "rules/rules.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
    "exempt: { ip: [192.0.2.0/24], header: { x-free: 'yes' }, trusted_header: true }\n"
    "limits:\n"
    "  - { name: a, match: { method: [GET, POST], path: ['/a/*', /b], host: '*.example' }, key: ip, rate: 5/min }\n"
    "  - { name: b, match: { header: { h: '*x*' }, cookie: { c: c }, query: { q: ['1', '*'] } }, rate: 5/min,\n"
    "      key: hash:header:h+cookie:c+query:q+path+host+method+ip/56, missing: skip }\n"
    "  - { name: c, match: { ip: [10.0.0.0/8, '2001:db8::/32'] }, key: header:h, rate: 5/s, cost: header:n }\n"
    "  - { name: d, key: query:q, rate: 5/s, missing: refuse, tiers: { header: t, trusted_header: true, p: 9/s } }\n"
    "  - { name: e, match: { descriptor: { k: '*v' } }, key: descriptor:k+descriptor:l, rate: 5/s }\n";
static const char envoy[] = "domain: d\ndescriptors:\n"
                            "  - key: k\n    value: 'v*'\n    rate_limit: { unit: second, requests_per_unit: 1 }\n"
                            "    descriptors:\n"
                            "      - { key: l, rate_limit: { unit: month, requests_per_unit: 0 } }\n"
                            "  - { key: k, rate_limit: { unit: day, requests_per_unit: 7919 } }\n";

enum { FIELDS = 32 };

static struct rules *rules_of(const char *bytes) {
    struct rules_error error;
    struct rules *rules = rules_read_text("fuzz", bytes, strlen(bytes), &error);
    if (rules == NULL) abort();
    return rules;
}

static struct rules_text line(const char **at, const char *end, char stop) {
    const char *begin = *at, *to = begin < end ? memchr(begin, stop, (size_t)(end - begin)) : NULL;
    if (to == NULL) to = end;
    *at = to < end ? to + 1 : end;
    return (struct rules_text){begin, (size_t)(to - begin)};
}

static void match(const struct rules *rules, const struct rules_request *request) {
    static struct rules_match first, second;
    char key[RULES_KEY_MAX];
    const enum rules_outcome outcome = rules_match(&first, rules, request);
    if (outcome != rules_match(&second, rules, request)) abort();
    if (outcome == RULES_REFUSED) {
        if (memchr(first.reason.text, '\0', sizeof first.reason.text) == NULL || first.reason.text[0] == '\0') abort();
        return;
    }
    if (first.n_parts > RULES_PARTS_MAX || first.n_parts != second.n_parts || (first.exempt && first.n_parts > 0))
        abort();
    for (size_t i = 0; i < first.n_parts; i++) {
        const struct rules_part *part = &first.parts[i];
        const struct rules_text whole = {first.keys + part->key_at, part->key_len};
        if (part->key_at + part->key_len > first.keys_len || part->rate >= part->limit->n_rates) abort();
        const size_t len = rules_stored_key(key, rules, part->limit, whole);
        if (len == 0 || len > sizeof key || len != rules_stored_len(rules, part->limit, whole)) abort();
        const char *open = memchr(key, '{', len), *close = memrchr(key, '}', len);
        if (open == NULL || close == NULL || memchr(open + 1, '{', (size_t)(key + len - open - 1)) != NULL ||
            memchr(key, '}', len) != close)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static struct rules *of_limits, *of_envoy;
    char key[RULES_KEY_MAX];
    if (of_limits == NULL) of_limits = rules_of(text);
    if (of_envoy == NULL) of_envoy = rules_of(envoy);
    const char *at = (const char *)bytes, *end = at + len;
    struct rules_field fields[FIELDS];
    struct steady__address address, client;
    struct rules_request request = {.fields = fields};
    request.target = line(&at, end, '\n');
    request.method = line(&at, end, '\n');
    request.host = line(&at, end, '\n');
    const struct rules_text ip = line(&at, end, '\n');
    if (steady__address_parse(&address, ip.bytes, ip.len)) request.ip = &address;
    while (at < end && request.n_fields < FIELDS) {
        const struct rules_text field = line(&at, end, '\n');
        const char *colon = field.bytes;
        const struct rules_text name = line(&colon, field.bytes + field.len, ':');
        fields[request.n_fields++] = (struct rules_field){name, {colon, (size_t)(field.bytes + field.len - colon)}};
    }
    match(of_limits, &request);
    rules_client_address(&client, of_limits, request.ip, fields, request.n_fields);
    request.domain = (struct rules_text){"d", 1};
    request.entries = fields;
    request.n_entries = request.n_fields;
    match(of_limits, &request);
    rules_find_descriptor(of_envoy, &request);
    if (rules_descriptor_key(key, of_envoy, &request) > sizeof key) abort();
    return 0;
}
