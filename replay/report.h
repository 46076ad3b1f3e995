/* SPDX-License-Identifier: MIT
 * What a replay found, and the forms in which it is written. The writers only read. All texts may hold any bytes: each
 * writer escapes them for its form. */
#ifndef STEADY_REPLAY_REPORT_H
#define STEADY_REPLAY_REPORT_H

#include <stdio.h>

#include "rules/rules.h"

enum {
    REPORT_TOP = 20,       /* denied keys, and lines of the other lists */
    REPORT_TIMELINE = 240, /* intervals at most */
    REPORT_BINS = 33,      /* of needed capacities: bin i counts keys with needed in (2^(i-1), 2^i]; bin 0: 1 */
    REPORT_LADDER = 24,    /* rates at most */
    REPORT_GRID = 12,      /* rates and capacities of the heat map at most */
    REPORT_BAD = 3,
    REPORT_QUANTILES = 6 /* p50, p90, p99, p99.9, max, and P of --suggest */
};

struct report_text {
    char *bytes; /* NULL: not known */
    size_t len;
};

struct report_bad_line {
    const char *file;
    uint64_t line;
    char text[160], reason[160]; /* cut */
};

struct report_count {
    struct report_text name;
    uint64_t n;
    uint64_t error; /* the true count is at most this much higher or lower (bounded memory); 0: exact */
};

struct report_list {
    struct report_count items[REPORT_TOP]; /* most first */
    size_t n;
};

/* A key that was denied. */
struct report_key {
    struct report_text key; /* as clients know it; hashed if --hash-keys */
    uint64_t requests, denied;
    int64_t first_denied, last_denied; /* us since 1970 */
    int64_t needed; /* drops: the smallest capacity at this rate that denies the key nothing; -1: none does */
};

struct report_interval {
    uint64_t requests, denied;
};

/* A rate, and the capacities that it needs. */
struct report_rate {
    steady_limit rate;                /* max_capacity is not used */
    int64_t needed[REPORT_QUANTILES]; /* drops: this share of the keys needs at most so many. -1: over 2^31-1 */
    uint64_t bins[REPORT_BINS];
};

/* A limit that --suggest offers: a rate of the ladder with the capacity that denies at most 1-P of the keys. */
struct report_choice {
    steady_limit limit;
    uint64_t keys_denied, requests_denied; /* exact for this limit alone */
    bool suggested;
};

struct report_heat {
    size_t n_rates, n_capacities;
    steady_limit rates[REPORT_GRID]; /* max_capacity is not used */
    int64_t capacities[REPORT_GRID]; /* ascending */
    uint64_t keys_denied[REPORT_GRID][REPORT_GRID], requests_denied[REPORT_GRID][REPORT_GRID]; /* [rate][capacity] */
    size_t rate_at, capacity_at; /* the limit of the rules; SIZE_MAX: there is none */
};

struct report_change {
    struct report_text key;
    uint64_t requests, denied, denied_against;
    int64_t first_changed; /* us: the first request with another verdict */
};

/* With --against: the limit of the same name there. */
struct report_against {
    bool missing; /* there is no limit of this name */
    steady_limit limit;
    uint64_t denied, keys_denied;
    uint64_t keys_changed;                    /* keys with at least one other verdict */
    uint64_t newly_hit, freed;                /* keys that are denied only there, and only here */
    struct report_change changes[REPORT_TOP]; /* most changed first */
    size_t n_changes;
};

struct report_limit {
    const struct rules_limit *limit;
    bool from_rules; /* false: of --limit, or only --suggest without a limit: then the verdicts are all 0 */
    bool has_verdicts;
    uint64_t requests;                 /* that the limit counted for */
    uint64_t allowed, denied, blocked; /* blocked: denied by a block; part of denied. Of a shadow limit: would be */
    uint64_t never;                    /* their amount is over the capacity; part of denied */
    uint64_t other;                    /* that another limit denied, and this one did not */
    uint64_t keys, keys_denied;
    bool by_fallback;                      /* no request has the key, so the address stands for it */
    uint64_t keys_merged, requests_merged; /* for lack of room these share one bucket */
    uint64_t keys_forgotten; /* an idle key with an empty bucket made room; if it came back it counts once more */
    uint64_t half_of_denied; /* so many keys have half of the denied requests */
    int64_t wait_p50, wait_p99, wait_max;            /* us: retry_after of the denied; -1: none */
    struct report_list by_status, by_path, by_agent; /* of the denied requests */
    struct report_key top[REPORT_TOP];
    size_t n_top;
    struct report_interval timeline[REPORT_TIMELINE];
    struct report_rate needed; /* at the rate of the limit */
    bool has_heat;
    struct report_heat heat;
    size_t n_ladder;
    struct report_rate ladder[REPORT_LADDER];
    size_t n_choices;
    struct report_choice choices[REPORT_LADDER];
    bool has_against;
    struct report_against against;
};

struct report {
    const char *rules_file; /* NULL: of the command line */
    const char *against_file;
    const char *const *files;
    size_t n_files;
    const char *const *unread; /* files that could not be read */
    size_t n_unread;
    const char *format;                     /* "combined"; "combined, json (caddy)" if files differ */
    uint64_t lines, bad_lines, other_lines; /* other: comments and column names */
    uint64_t late_lines;                    /* over 60 s out of order: left out */
    uint64_t cut_lines;
    uint64_t bytes; /* of the lines */
    struct report_bad_line bad[REPORT_BAD];
    size_t n_bad;
    int64_t first, last; /* us since 1970, of the requests; first > last: there is none */
    int64_t interval;    /* us: of the timelines; they begin at `begin` */
    int64_t begin;
    size_t n_intervals;
    bool whole_seconds;                  /* some lines tell only the second */
    bool spread;                         /* --spread */
    bool begun_known;                    /* durations were subtracted */
    bool at_ends;                        /* some times may be those of the end of a request */
    bool partial;                        /* Ctrl-C, or an input that ended early */
    double share;                        /* P of --suggest: 0.999; 0: not asked */
    uint64_t requests, allowed, denied;  /* of the rules as a whole */
    uint64_t exempt, unmatched, refused; /* refused: no key, a bad cost */
    uint64_t without_address;
    const char *const *notes; /* whole sentences: what the reader has to know, and no other field tells */
    size_t n_notes;
    struct report_limit *limits;
    size_t n_limits;
    bool hashed; /* --hash-keys */
};

/* Each writes the whole report. They return false if `to` has an error. columns: 72 to 120; 0: 80. */
bool report_write_text(const struct report *report, FILE *to, unsigned columns, bool color);
bool report_write_json(const struct report *report, FILE *to);
bool report_write_csv(const struct report *report, FILE *to);
bool report_write_html(const struct report *report, FILE *to);

/* A limit as it stands in a rules file: "rate: 20/s", "rate: 5/7s", "rate: 100/min, burst: 20, block: 10m". Burst and
 * block are left out if they are the default. */
void report_limit_text(const steady_limit *limit, char *text, size_t room);

#endif
