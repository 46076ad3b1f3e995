/* SPDX-License-Identifier: MIT
 * What all formats share: what a field of a line is used for, and how it becomes a part of the record. A format cuts a
 * line into fields. For each field it has a list of uses, which is made once, and hands the bytes of the field to it.
 */
#ifndef STEADY_REPLAY_FORMAT_USE_H
#define STEADY_REPLAY_FORMAT_USE_H

#include "format.h"
#include "format_envelope.h"
#include "format_escape.h"
#include "log_time.h"

struct rules_memory;

enum format_role {
    ROLE_TIME,
    ROLE_DATE, /* a column with the date, and another one with the time of the day */
    ROLE_CLOCK,
    ROLE_DURATION,
    ROLE_REQUEST, /* METHOD TARGET PROTOCOL */
    ROLE_METHOD,
    ROLE_TARGET,
    ROLE_PATH, /* of a target whose query is another field */
    ROLE_QUERY,
    ROLE_HOST,
    ROLE_ADDRESS,
    ROLE_STATUS,
    ROLE_AGENT,
    /* Of those before this one, the field with the highest rank counts. All of those below count. */
    ROLE_DURATION_PART, /* the duration is the sum of several fields */
    ROLE_NUMBER,        /* it is not used, but a line without a number here is of another format */
    ROLE_FORWARDED,     /* the same of addresses with commas between them */
    ROLE_FIELD,         /* under `name` */
    ROLE_COOKIE,        /* the cookie `name`, as a field `cookie` */
    ROLE_PART_LIMIT,
    ROLE_PART_KEY,
    ROLE_PART_AMOUNT,
    ROLE_PART_KIND,
    ROLE_COUNT
};

enum format_time_form { TIME_CLF = LOG_TIME_GUESS + 1, TIME_ISO, TIME_ANY }; /* or an enum log_time_unit */
enum format_address_form {
    ADDRESS_PLAIN,
    ADDRESS_PORT,
    ADDRESS_LAST
}; /* a port follows always; the last of a list, or the only one */

/* Of two fields with the same role the one with the higher rank counts; of equals the first. */
enum format_rank { RANK_LOW = 1, RANK_USUAL = 2, RANK_GOOD = 3, RANK_BEST = 4, RANK_ASKED = 5 };

struct format_use {
    uint8_t role, form, rank;
    bool at_begin; /* of a time */
    const char *name;
    size_t name_len;
};

/* For tables of fields and their uses. */
#define TIME_OF(unit, rank_)                                                                                           \
    { .role = ROLE_TIME, .form = (unit), .rank = (rank_) }
#define BEGIN_OF(unit, rank_)                                                                                          \
    { .role = ROLE_TIME, .form = (unit), .rank = (rank_), .at_begin = true }
#define DURATION_OF(unit)                                                                                              \
    { .role = ROLE_DURATION, .form = (unit), .rank = RANK_USUAL }
#define IS(role_, rank_)                                                                                               \
    { .role = (role_), .rank = (rank_) }

struct format_uses {
    const struct format_use *at;
    size_t n;
};

struct format {
    enum format_outcome (*read)(struct format *format, struct rules_text line);
    char name[64], reason[160];
    struct rules_memory *memory; /* of the format, of copies of the options, and of *this */
    struct format_options options;
    bool lenient;       /* to detect: a map of a field that the format does not have is no error */
    bool *mapped;       /* of options.maps: a field was found */
    bool time_mapped;   /* options.time_field was found */
    bool *found;        /* of options.wanted */
    const char **lacks; /* those of options.wanted that were not found */
    size_t n_lacks;
    void *of_kind; /* of the kind that made it */
    struct log_time_cache times;

    /* Of this line. */
    struct record *record;
    uint8_t ranks[ROLE_COUNT];
    struct rules_text path, query;
    int64_t date, clock;
    bool clock_whole; /* a whole second */
    struct log_time_parts time_parts;
    char *decoded; /* texts without their escapes */
    size_t decoded_len, decoded_room;
    enum format_envelope envelope;
    struct format_envelope_room unwrapped;
};

/* A kind of format, which format_new can make. */
struct format_kind {
    const char *name, *text;
    const char *string; /* of format_string_new: the format string */
    /* lines: the first lines of the file. False: the lines are not of this kind; `why` says what is wrong. */
    bool (*make)(struct format *format, const struct format_kind *kind, const struct rules_text *lines, size_t n,
                 char *why, size_t room);
};

bool format_columns_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines,
                         size_t n, char *why, size_t room);
bool format_json_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines, size_t n,
                      char *why, size_t room);
bool format_string_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines, size_t n,
                        char *why, size_t room);

/* ---- When a format is made ---- */

/* The uses of a field: those that it has by nature, and those that the options ask for.
 * header: the name of the header field that it is; NULL: none. False: out of memory. */
bool format_use_all(struct format *format, struct format_uses *uses, const char *field,
                    const struct format_use *natural, size_t n_natural, const char *header);

/* The header field of a wanted name: without `header:`. */
const char *format_use_header(const char *wanted);

/* Reads a map: NAME=FIELD. NULL: it has no `=`, or NAME is not known; then `why` gets a line. */
const char *format_use_map(struct format_use *use, const char *map, char *why, size_t room);

/* True if the names are equal; `-` and `_` are the same, and so are the cases of ASCII. */
bool format_use_alike(const char *a, size_t a_len, const char *b, size_t b_len);

/* ---- When a line is read ---- */

void format_use_begin(struct format *format, struct rules_text line);

/* Takes a field. False: it is not what it has to be; format->reason says why. */
bool format_use_take(struct format *format, const struct format_uses *uses, struct rules_text raw,
                     enum format_escape escape);

/* The end of the line: puts together what consists of several fields. */
enum format_outcome format_use_end(struct format *format);

enum format_outcome format_use_bad(struct format *format, const char *reason);

/* memchr for fields that are mostly short. */
static inline const char *format_use_find(const char *at, const char *end, char byte) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7, all = ones * (unsigned char)byte;
    for (int i = 0; i < 2 && end - at >= 8; i++, at += 8) {
        uint64_t word;
        __builtin_memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        word ^= all;
        const uint64_t found = (word - ones) & ~word & high; /* its lowest bit is right, others may not be */
        if (found != 0) return at + (__builtin_ctzll(found) >> 3);
#else
        for (int k = 0; k < 8; k++)
            if (at[k] == byte) return at + k;
        (void)all, (void)high;
#endif
    }
    return at < end ? __builtin_memchr(at, byte, (size_t)(end - at)) : NULL;
}

static inline bool format_use_is(struct rules_text text, const char *other, size_t len) {
    return text.len == len && __builtin_memcmp(text.bytes, other, len) == 0;
}

#endif
