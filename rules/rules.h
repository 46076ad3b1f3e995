/* SPDX-License-Identifier: MIT
 * The rules file: which requests count against which limits, and by what key. It is shared by `steady serve`,
 * `steady check` and `steady replay`. It does no I/O, except that rules_read reads the files.
 *
 * Rules do not change once they are read. Any number of threads may match against them. Free them when no thread uses
 * them any more. */
#ifndef STEADY_RULES_H
#define STEADY_RULES_H

#include <steady.h>

#include "core/address.h"

/* ---- Requests ---- */

/* Bytes with a length. Those of HTTP have no NUL; Envoy's may. */
struct rules_text {
    const char *bytes;
    size_t len;
};

struct rules_field {
    struct rules_text name, value;
};

/* What is known of a request. Empty: not known. Everything belongs to the caller. */
struct rules_request {
    struct rules_text method, host;
    struct rules_text target; /* path and query, as on the request line */
    const struct steady__address *ip;
    const struct rules_field *fields; /* header fields */
    size_t n_fields;
    struct rules_text domain;          /* of Envoy's request */
    const struct rules_field *entries; /* of one descriptor of Envoy */
    size_t n_entries;
};

/* ---- Rules ---- */

enum rules_key_kind {
    RULES_KEY_IP,
    RULES_KEY_HEADER,
    RULES_KEY_COOKIE,
    RULES_KEY_QUERY,
    RULES_KEY_PATH,
    RULES_KEY_HOST,
    RULES_KEY_METHOD,
    RULES_KEY_DESCRIPTOR
};

/* One part of a key. */
struct rules_key {
    enum rules_key_kind kind;
    bool hashed;
    unsigned prefix;  /* RULES_KEY_IP: so many bits of an IPv6 address count */
    const char *name; /* of the header, the cookie, the query parameter or the entry */
};

/* What a request must have: a field with one of these values. A value may contain `*`. A path, the host and the method
 * match in either case of ASCII. */
struct rules_condition {
    enum rules_key_kind kind; /* RULES_KEY_IP: one of `networks` */
    const char *name;
    const char *const *values;
    size_t n_values;
    const struct steady__network *networks;
    size_t n_networks;
};

struct rules_conditions {
    const struct rules_condition *all; /* of each kind and name one */
    size_t n;
};

enum rules_missing {
    RULES_MISSING_IP,   /* the key is the address */
    RULES_MISSING_SKIP, /* the limit does not count */
    RULES_MISSING_REFUSE
};

enum rules_cost { RULES_COST_NUMBER, RULES_COST_HEADER, RULES_COST_AFTER };

struct rules_tier {
    const char *value; /* of the header */
    size_t rate;       /* index into `rates` */
};

struct rules_limit {
    const char *name;
    const char *stored_name; /* at the end of the stored key: the name; of Envoy's files the unit */
    int line;                /* in `file` */
    size_t column;
    const char *file;
    struct rules_conditions match;
    const struct rules_condition *exempt; /* any of them */
    size_t n_exempt;
    const struct rules_key *keys;
    size_t n_keys;
    enum rules_missing missing;
    steady_limit *rates; /* the first is the usual one, the others are those of the tiers */
    size_t n_rates;
    const char *tier_header;
    const struct rules_tier *tiers;
    size_t n_tiers;
    enum rules_cost cost;
    int64_t amount;          /* RULES_COST_NUMBER */
    const char *cost_header; /* RULES_COST_HEADER */
    bool shadow;
    steady_us max_ahead;
    bool by_descriptor; /* it counts for requests of Envoy only; the others for all other requests */
    bool of_domain;     /* it belongs to a file of envoyproxy/ratelimit: rules_find_descriptor finds it */
    size_t index;       /* in rules->limits */
};

/* A limit that rules_match looks at. Most do not match; the first bytes of the path tell that. */
struct rules_candidate {
    uint64_t begins, mask; /* the first bytes that each path of its match begins with, in lower case */
    const struct rules_limit *limit;
};

/* A descriptor of a file of envoyproxy/ratelimit. */
struct rules_descriptor {
    const char *key;
    const char *value;                    /* NULL: any */
    bool shares;                          /* `value` is a pattern, and all values that it matches share a bucket */
    const struct rules_descriptor *exact; /* those with a value, and those without, by key and value */
    size_t n_exact;
    const struct rules_descriptor *patterns; /* in the order of the file */
    size_t n_patterns;
    const struct rules_limit *limit; /* NULL: none at this depth */
    const char *limit_name;          /* of `replaces` and of the answer; NULL: none */
    const char *const *replaces;     /* names of limits that do not count if this one does */
    size_t n_replaces;
    bool unlimited;
    bool never; /* 0 requests per unit */
    int line;
    int64_t requests_per_unit;
    int unit; /* of Envoy: 1 second, 2 minute, 3 hour, 4 day, 5 month, 6 year, 7 week */
};

struct rules_domain {
    const char *name;
    struct rules_descriptor root; /* only its children count */
    bool after;                   /* its limits have cost: after */
};

struct rules {
    const char *store; /* a URL */
    enum steady_policy on_error;
    uint32_t local_share;
    const char *prefix;
    const struct steady__network *trusted;
    size_t n_trusted;
    const struct rules_condition *exempt; /* any of them exempts a request from all limits */
    size_t n_exempt;
    const struct rules_limit *limits;
    size_t n_limits;
    struct rules_candidate *of_requests, *of_descriptors; /* those of `limits` that rules_match looks at */
    size_t n_of_requests, n_of_descriptors;
    const struct rules_domain *domains;
    size_t n_domains;
    const char *const *warnings;
    size_t n_warnings;
    struct rules_memory *memory;
};

struct rules_error {
    char text[512]; /* FILE:LINE:COLUMN: what is wrong, and the correct form */
};

/* The patterns of `include`, for glob. Begin with zeros. */
struct rules_includes {
    char **patterns;
    size_t n;
};

/* Reads a file and what it includes. NULL on an error. Free the result with rules_free. */
struct rules *rules_read(const char *path, struct rules_error *error);

/* The same. `includes` has the patterns that were looked for, also after an error. Free it in both cases. */
struct rules *rules_read_noting(const char *path, struct rules_includes *includes, struct rules_error *error);
void rules_includes_free(struct rules_includes *includes);

/* The same of a text in memory; `name` is for messages. `include` is an error, because there is no folder. */
struct rules *rules_read_text(const char *name, const char *bytes, size_t len, struct rules_error *error);

/* The rules of one limit for all requests, by address. NULL on an error. */
struct rules *rules_of_limit(const char *rate, const char *store, struct rules_error *error);

void rules_free(struct rules *rules);

/* ---- Matching ---- */

enum { RULES_PARTS_MAX = 64, RULES_KEY_MAX = 1024, RULES_PATH_MAX = 64 * 1024, RULES_READINGS_MAX = 5 };

/* The path of a request. Servers disagree about %2F, "..", "//", ";x" and "\\", so an unusual path has several
 * readings, without duplicates. All are in lower case, and without a slash at the end. The first one is the normal
 * form: percent-decoded, without path parameters, empty segments, "." and "..". */
struct rules_path {
    size_t n; /* 0: the target is not known */
    size_t len[RULES_READINGS_MAX];
    char bytes[RULES_READINGS_MAX][RULES_PATH_MAX + 9]; /* after the path are a slash and eight NUL bytes */
};

/* A limit that counts for a request. */
struct rules_part {
    const struct rules_limit *limit;
    size_t rate; /* index into limit->rates */
    int64_t amount;
    enum steady_kind kind;
    size_t key_at; /* in rules_match.keys: the key, without prefix and name */
    size_t key_len;
};

/* The caller provides it, and may use it again. */
struct rules_match {
    struct rules_part parts[RULES_PARTS_MAX];
    size_t n_parts;
    bool exempt;                                /* the request is exempt from all limits */
    char keys[RULES_PARTS_MAX * RULES_KEY_MAX]; /* of the parts */
    size_t keys_len;
    struct rules_error reason; /* if the request is refused: why */
    struct rules_path path;    /* if a limit looked at it */
    char value[RULES_PATH_MAX];
};

enum rules_outcome {
    RULES_MATCHED, /* perhaps no limit */
    RULES_REFUSED  /* the request is not valid for a limit: no key, a bad cost, too many limits */
};

enum rules_outcome rules_match(struct rules_match *match, const struct rules *rules,
                               const struct rules_request *request);

/* The first condition of a limit that a request does not meet; NULL: it meets all. The parts of `match` stay. */
const struct rules_condition *rules_mismatch(struct rules_match *match, const struct rules_limit *limit,
                                             const struct rules_request *request);

/* The descriptor of a file that counts for the entries of a request; NULL: none. */
const struct rules_descriptor *rules_find_descriptor(const struct rules *rules, const struct rules_request *request);

/* The key of a descriptor: the domain and all entries, joined. For an entry that a pattern with share_threshold
 * matches, the value is the pattern. Returns its length; it is hashed if it is too long. */
size_t rules_descriptor_key(char out[RULES_KEY_MAX], const struct rules *rules, const struct rules_request *request);

bool rules_has_domain(const struct rules *rules, struct rules_text name);

/* The limit of N requests per unit, in lowest terms. If that is out of range, the nearest slower rate that is not; then
 * *exact is false. N is at least 1. */
void rules_requests_per_unit(steady_limit *limit, int64_t requests, int unit, bool *exact);

/* The key of a bucket as it is stored: PREFIX{KEY}NAME, with the bytes %, { and } of KEY as %25, %7B and %7D. So all
 * limits of a key lie in one slot of a cluster. Returns its length, or 0 if it is over RULES_KEY_MAX; no key of a match
 * is. */
size_t rules_stored_key(char out[RULES_KEY_MAX], const struct rules *rules, const struct rules_limit *limit,
                        struct rules_text key);
size_t rules_stored_len(const struct rules *rules, const struct rules_limit *limit, struct rules_text key);
bool rules_key_fits(const struct rules *rules, const struct rules_limit *limit, struct rules_text key);

/* ---- Addresses ---- */

bool rules_is_trusted(const struct rules *rules, const struct steady__address *address);

/* The address of a client behind trusted proxies: the last address of the X-Forwarded-For fields that is not trusted.
 * If an entry is no address, it is the one before. peer: who sent the request; NULL: a trusted proxy on a Unix socket.
 * False: no address is known. */
bool rules_client_address(struct steady__address *client, const struct rules *rules, const struct steady__address *peer,
                          const struct rules_field *fields, size_t n_fields);

#endif
