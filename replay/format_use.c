/* SPDX-License-Identifier: MIT
 * How the fields of a line become a record. */
#include "format_use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rules/memory.h"

/* ---- When a format is made ---- */

static int format_use_fold(char c) {
    if (c == '_') return '-';
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

bool format_use_alike(const char *a, size_t a_len, const char *b, size_t b_len) {
    if (a_len != b_len) return false;
    for (size_t i = 0; i < a_len; i++)
        if (format_use_fold(a[i]) != format_use_fold(b[i])) return false;
    return true;
}

const char *format_use_header(const char *wanted) { return strncmp(wanted, "header:", 7) == 0 ? wanted + 7 : wanted; }

static const struct {
    const char *name;
    struct format_use use;
} format_use_names[] = {
    {"time", {.role = ROLE_TIME, .form = TIME_ANY}},
    {"ip", {.role = ROLE_ADDRESS, .form = ADDRESS_LAST}},
    {"method", {.role = ROLE_METHOD}},
    {"path", {.role = ROLE_TARGET}},
    {"host", {.role = ROLE_HOST}},
    {"request", {.role = ROLE_REQUEST}},
    {"status", {.role = ROLE_STATUS}},
    {"user_agent", {.role = ROLE_AGENT}},
    {"duration", {.role = ROLE_DURATION, .form = LOG_TIME_S}},
    {"duration_ms", {.role = ROLE_DURATION, .form = LOG_TIME_MS}},
    {"duration_us", {.role = ROLE_DURATION, .form = LOG_TIME_US}},
    {"duration_ns", {.role = ROLE_DURATION, .form = LOG_TIME_NS}},
};

const char *format_use_map(struct format_use *use, const char *map, char *why, size_t room) {
    const char *equals = strchr(map, '=');
    const size_t len = equals == NULL ? 0 : (size_t)(equals - map);
    const bool header = strncmp(map, "header:", 7) == 0, cookie = strncmp(map, "cookie:", 7) == 0;
    if (equals != NULL && equals[1] != '\0') {
        if ((header || cookie) && len > 7) {
            *use = (struct format_use){.role = header ? ROLE_FIELD : ROLE_COOKIE, .name = map + 7, .name_len = len - 7};
            use->rank = RANK_ASKED;
            return equals + 1;
        }
        for (size_t i = 0; i < sizeof format_use_names / sizeof format_use_names[0]; i++) {
            if (strlen(format_use_names[i].name) != len || memcmp(format_use_names[i].name, map, len) != 0) continue;
            *use = format_use_names[i].use;
            use->rank = RANK_ASKED;
            return equals + 1;
        }
    }
    snprintf(why, room,
             "--field %s: write NAME=FIELD. NAME is time, ip, method, path, host, request, status, user_agent, "
             "duration (seconds), duration_ms, duration_us, duration_ns, header:X or cookie:X",
             map);
    return NULL;
}

/* A field of a format string may be named with its $, a field of JSON with its dot. */
static bool format_use_names_field(const char *name, const char *field) {
    if (strcasecmp(name, field) == 0) return true;
    return (field[0] == '$' || field[0] == '%' || field[0] == '.') && strcasecmp(name, field + 1) == 0;
}

static bool format_use_wants_cookies(struct format *format) {
    for (size_t i = 0; i < format->options.n_wanted; i++)
        if (strcasecmp(format_use_header(format->options.wanted[i]), "cookie") == 0) return format->found[i] = true;
    return false;
}

bool format_use_all(struct format *format, struct format_uses *uses, const char *field,
                    const struct format_use *natural, size_t n_natural, const char *header) {
    const struct format_options *options = &format->options;
    struct format_use *at =
        memory_take(format->memory, (n_natural + options->n_maps + options->n_wanted + 1) * sizeof *at);
    size_t n = 0;
    char why[2];
    if (at == NULL) return false;
    for (size_t i = 0; i < n_natural; i++)
        if (natural[i].role != ROLE_COOKIE || format_use_wants_cookies(format)) at[n++] = natural[i];
    for (size_t i = 0; i < options->n_maps; i++) {
        struct format_use use;
        const char *from = format_use_map(&use, options->maps[i], why, sizeof why);
        if (from == NULL || !format_use_names_field(from, field)) continue;
        format->mapped[i] = true;
        at[n++] = use;
    }
    if (options->time_field != NULL && format_use_names_field(options->time_field, field)) {
        format->time_mapped = true;
        at[n++] = (struct format_use){.role = ROLE_TIME, .form = TIME_ANY, .rank = RANK_ASKED};
        for (size_t i = 0; i < n_natural; i++)
            if (natural[i].role == ROLE_TIME)
                at[n - 1].form = natural[i].form, at[n - 1].at_begin = natural[i].at_begin;
    }
    for (size_t i = 0; i < options->n_wanted; i++) {
        const char *wanted = format_use_header(options->wanted[i]);
        const size_t len = strlen(wanted);
        bool asked = false; /* a map says where it is */
        for (size_t k = 0; k < options->n_maps && !asked; k++) {
            struct format_use use;
            const char *from = format_use_map(&use, options->maps[k], why, sizeof why);
            asked = from != NULL && use.role == ROLE_FIELD && format_use_alike(use.name, use.name_len, wanted, len);
            if (asked && format_use_names_field(from, field)) format->found[i] = true;
        }
        const bool here = header != NULL && format_use_alike(header, strlen(header), wanted, len);
        const bool named = format_use_names_field(wanted + (wanted[0] == '.' ? 1 : 0), field);
        if (asked || (!here && !named)) continue;
        format->found[i] = true;
        at[n++] = (struct format_use){.role = ROLE_FIELD, .rank = RANK_USUAL, .name = wanted, .name_len = len};
    }
    *uses = (struct format_uses){at, n};
    return true;
}

/* ---- When a line is read ---- */

/* The bytes of a field without its escapes. Each field is decoded at most once, so the memory of format_use_begin is
 * enough. */
static struct rules_text format_use_decode(struct format *format, struct rules_text raw, enum format_escape escape) {
    if (escape == ESCAPE_NONE || raw.len == 0) return raw;
    if (memchr(raw.bytes, format_escape_mark(escape), raw.len) == NULL) return raw;
    if (raw.len > format->decoded_room - format->decoded_len) return raw;
    const struct rules_text text = format_escape_undo(format->decoded + format->decoded_len, raw, escape);
    format->decoded_len += text.len;
    return text;
}

enum { ROOM_FOR_NAMES = 4096, ROOM_USUAL = 256 * 1024 }; /* names of cookies, and the ? of queries */

/* A field may be decoded, and then be copied twice to join it with another one. */
static void format_use_make_room(struct format *format, size_t len) {
    const size_t needs = 3 * len + ROOM_FOR_NAMES;
    const bool large = format->decoded_room > ROOM_USUAL && needs <= ROOM_USUAL; /* a long line came before */
    if (needs <= format->decoded_room && !large) return;
    const size_t room = needs + needs / 2;
    char *bytes = realloc(format->decoded, room);
    if (bytes == NULL) return; /* then texts keep their escapes */
    format->decoded = bytes;
    format->decoded_room = room;
}

void format_use_begin(struct format *format, struct rules_text line) {
    struct record *record = format->record;
    record->time = -1;
    record->duration = -1;
    record->whole_second = record->at_begin = record->has_address = false;
    record->method = record->host = record->target = record->user_agent = (struct rules_text){0};
    record->status = 0;
    record->n_fields = record->n_parts = 0;
    format->reason[0] = '\0';
    memset(format->ranks, 0, sizeof format->ranks);
    format->path = format->query = (struct rules_text){0};
    format->decoded_len = 0;
    format_use_make_room(format, line.len);
}

enum format_outcome format_use_bad(struct format *format, const char *reason) {
    snprintf(format->reason, sizeof format->reason, "%s", reason);
    return FORMAT_BAD;
}

__attribute__((noinline)) static bool format_use_fault(struct format *format, const char *what,
                                                       struct rules_text text) {
    const int len = text.len > 60 ? 60 : (int)text.len;
    snprintf(format->reason, sizeof format->reason, "%s: %.*s", what, len == 0 ? 11 : len,
             len == 0 ? "it is empty" : text.bytes);
    return false;
}

static bool format_use_unknown(struct rules_text text) {
    return text.len == 0 || (text.len == 1 && text.bytes[0] == '-');
}

static struct rules_text format_use_known(struct rules_text text) {
    if (format_use_unknown(text)) text.len = 0;
    return text;
}

__attribute__((noinline)) static bool format_use_time(struct format *format, const struct format_use *use,
                                                      struct rules_text text) {
    struct log_time time;
    const bool read = use->form == TIME_CLF   ? log_time_clf(&time, &format->times, text)
                      : use->form == TIME_ISO ? log_time_iso(&time, text)
                      : use->form == TIME_ANY ? log_time_any(&time, &format->times, text)
                                              : log_time_number(&time, text, (enum log_time_unit)use->form);
    if (!read) return format_use_fault(format, "not a time", text);
    format->record->time = time.us;
    format->record->whole_second = time.whole_second;
    format->record->at_begin = use->at_begin;
    return true;
}

/* -1 is how HAProxy and ALB say that there is none. HAProxy writes a + if it logs before the end. */
__attribute__((noinline)) static bool format_use_duration(struct format *format, const struct format_use *use,
                                                          struct rules_text text) {
    int64_t us;
    if (!log_time_duration(&us, text, (enum log_time_unit)use->form)) return false;
    if (use->role == ROLE_DURATION_PART && format->record->duration >= 0) us += format->record->duration;
    format->record->duration = us;
    return true;
}

/* The target of a request. An absolute one has the host (RFC 9112, 3.2.2). */
static void format_use_target(struct format *format, struct rules_text text) {
    struct record *record = format->record;
    if (format_use_unknown(text)) return;
    record->target = text;
    if (text.bytes[0] == '/' || text.len < 8) return;
    const size_t scheme = strncasecmp(text.bytes, "http://", 7) == 0    ? 7
                          : strncasecmp(text.bytes, "https://", 8) == 0 ? 8
                                                                        : 0;
    if (scheme == 0) return;
    const char *slash = memchr(text.bytes + scheme, '/', text.len - scheme);
    const size_t end = slash == NULL ? text.len : (size_t)(slash - text.bytes);
    record->host = (struct rules_text){text.bytes + scheme, end - scheme};
    format->ranks[ROLE_HOST] = RANK_BEST;
    record->target = slash == NULL ? (struct rules_text){"/", 1} : (struct rules_text){slash, text.len - end};
}

/* "GET /path HTTP/1.1". A line that is none is still a request: of a client that spoke another protocol. */
static void format_use_request(struct format *format, struct rules_text text) {
    struct record *record = format->record;
    const char *const end = text.bytes + text.len, *space = format_use_find(text.bytes, end, ' ');
    if (space == NULL || space == text.bytes || (space == text.bytes + 1 && text.bytes[0] == '-')) return;
    record->method = (struct rules_text){text.bytes, (size_t)(space - text.bytes)};
    struct rules_text target = {space + 1, (size_t)(end - space - 1)};
    if (target.len >= 9 && memcmp(end - 9, " HTTP/1.", 8) == 0) {
        target.len -= 9;
    } else {
        const char *last = target.len == 0 ? NULL : memrchr(target.bytes, ' ', target.len);
        if (last != NULL && end - last >= 6 && memcmp(last + 1, "HTTP/", 5) == 0)
            target.len = (size_t)(last - target.bytes);
    }
    format_use_target(format, target);
}

/* "192.0.2.1": most addresses are so. Others are left to steady__address_parse. */
static bool format_use_ipv4(struct steady__address *address, struct rules_text text) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const char *at = text.bytes, *const end = text.bytes + text.len;
    if (text.len < 7 || text.len > 15) return false;
    for (int i = 0; i < 4; i++) {
        unsigned value = 0;
        const char *begin = at;
        for (; at < end && *at >= '0' && *at <= '9' && at - begin < 3; at++)
            value = value * 10 + (unsigned)(*at - '0');
        if (at == begin || value > 255 || (*begin == '0' && at - begin > 1)) return false;
        if (i < 3 && (at == end || *at++ != '.')) return false;
        address->bytes[12 + i] = (uint8_t)value;
    }
    memcpy(address->bytes, mapped, sizeof mapped);
    return at == end;
}

static bool format_use_address(struct format *format, enum format_address_form form, struct rules_text text) {
    struct steady__address address;
    if (form == ADDRESS_LAST) {
        const char *comma = text.len == 0 ? NULL : memrchr(text.bytes, ',', text.len);
        if (comma != NULL) text = (struct rules_text){comma + 1, (size_t)(text.bytes + text.len - comma - 1)};
        while (text.len > 0 && text.bytes[0] == ' ')
            text = (struct rules_text){text.bytes + 1, text.len - 1};
    }
    if (form == ADDRESS_PORT) {
        const char *colon = text.len == 0 ? NULL : memrchr(text.bytes, ':', text.len);
        if (colon != NULL) text.len = (size_t)(colon - text.bytes);
    }
    if (!format_use_ipv4(&address, text) && (text.len == 0 || !steady__address_parse(&address, text.bytes, text.len)))
        return false;
    format->record->address = address;
    format->record->has_address = true;
    return true;
}

static bool format_use_is_forwarded(struct rules_text text) {
    struct steady__address address;
    const char *at = text.bytes, *const end = text.bytes + text.len;
    for (;;) {
        const char *comma = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL;
        const char *stop = comma == NULL ? end : comma;
        while (at < stop && *at == ' ')
            at++;
        if (!format_use_is((struct rules_text){at, (size_t)(stop - at)}, "unknown", 7) &&
            (at == stop || !steady__address_parse(&address, at, (size_t)(stop - at))))
            return false;
        if (comma == NULL) return true;
        at = comma + 1;
    }
}

static bool format_use_number(int64_t *number, struct rules_text text) {
    int64_t value = 0;
    if (text.len == 0 || text.len > 18) return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.bytes[i] < '0' || text.bytes[i] > '9') return false;
        value = value * 10 + (text.bytes[i] - '0');
    }
    *number = value;
    return true;
}

/* Three digits; 0: it is none. */
static int format_use_status(struct rules_text text) {
    int status = 0;
    if (text.len != 3) return 0;
    for (int i = 0; i < 3; i++) {
        const unsigned digit = (unsigned char)text.bytes[i] - (unsigned)'0';
        if (digit > 9) return 0;
        status = status * 10 + (int)digit;
    }
    return status;
}

static void format_use_field(struct format *format, struct rules_text name, struct rules_text value) {
    struct record *record = format->record;
    if (format_use_unknown(value) || record->n_fields == RECORD_FIELDS_MAX) return;
    record->fields[record->n_fields++] = (struct rules_field){name, value};
}

/* Puts two texts together, with a byte between them. Empty: there is no room. */
static struct rules_text format_use_join(struct format *format, struct rules_text a, char between,
                                         struct rules_text b) {
    const size_t len = a.len + 1 + b.len;
    if (len > format->decoded_room - format->decoded_len) return (struct rules_text){0};
    char *out = format->decoded + format->decoded_len;
    memcpy(out, a.bytes, a.len);
    out[a.len] = between;
    memcpy(out + a.len + 1, b.bytes, b.len);
    format->decoded_len += len;
    return (struct rules_text){out, len};
}

__attribute__((noinline)) static bool format_use_part(struct format *format, const struct format_use *use,
                                                      struct rules_text text) {
    static const char *const kinds[] = {"take", "look", "charge", "shadow"};
    struct record *record = format->record;
    if (record->n_parts == 0) return true;
    struct record_part *part = &record->parts[record->n_parts - 1];
    switch (use->role) {
    case ROLE_PART_LIMIT: part->limit = text; return true;
    case ROLE_PART_KEY: part->key = text; return true;
    case ROLE_PART_AMOUNT:
        return format_use_number(&part->amount, text) || format_use_fault(format, "not an amount", text);
    default:
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            if (!format_use_is(text, kinds[i], strlen(kinds[i]))) continue;
            part->kind = (enum steady_kind)i;
            return true;
        }
        return format_use_fault(format, "not a kind", text);
    }
}

/* One use. False: the field is not what it has to be. */
static bool format_use_one(struct format *format, const struct format_use *use, struct rules_text text) {
    struct record *record = format->record;
    int64_t number;
    bool whole;
    switch (use->role) {
    case ROLE_TIME: return format_use_time(format, use, text);
    case ROLE_DATE: return log_time_date(&format->date, text) || format_use_fault(format, "not a date", text);
    case ROLE_CLOCK:
        if (!log_time_of_day(&format->clock, &whole, text)) return format_use_fault(format, "not a time of day", text);
        format->clock_whole = whole;
        break;
    case ROLE_DURATION: return format_use_duration(format, use, text);
    case ROLE_DURATION_PART: return format_use_duration(format, use, text) || true;
    case ROLE_REQUEST: format_use_request(format, text); break;
    case ROLE_METHOD:
        if (!format_use_unknown(text)) record->method = text;
        break;
    case ROLE_TARGET: format_use_target(format, text); break;
    case ROLE_PATH: format->path = format_use_known(text); break;
    case ROLE_QUERY: format->query = format_use_known(text); break;
    case ROLE_HOST:
        if (!format_use_unknown(text)) record->host = text;
        break;
    case ROLE_ADDRESS: return format_use_address(format, (enum format_address_form)use->form, text);
    case ROLE_STATUS: record->status = format_use_status(text); break;
    case ROLE_AGENT:
        if (!format_use_unknown(text)) record->user_agent = text;
        break;
    case ROLE_NUMBER:
        return format_use_unknown(text) || format_use_number(&number, text) ||
               format_use_fault(format, "not a number", text);
    case ROLE_FORWARDED: /* clients may send anything, so only to detect the format */
        return !format->lenient || format_use_unknown(text) || format_use_is_forwarded(text) ||
               format_use_fault(format, "not addresses", text);
    case ROLE_FIELD: format_use_field(format, (struct rules_text){use->name, use->name_len}, text); break;
    case ROLE_COOKIE:
        if (format_use_unknown(text)) break;
        format_use_field(format, (struct rules_text){"cookie", 6},
                         format_use_join(format, (struct rules_text){use->name, use->name_len}, '=', text));
        break;
    default: return format_use_part(format, use, text);
    }
    return true;
}

bool format_use_take(struct format *format, const struct format_uses *uses, struct rules_text raw,
                     enum format_escape escape) {
    if (uses->n == 0) return true;
    const struct rules_text text = format_use_decode(format, raw, escape);
    for (size_t i = 0; i < uses->n; i++) {
        const struct format_use *use = &uses->at[i];
        const bool ranked = use->role < ROLE_DURATION_PART;
        if (ranked && (use->rank <= format->ranks[use->role] || format_use_unknown(text))) continue;
        const bool good = format_use_one(format, use, text);
        if (ranked && good) format->ranks[use->role] = use->rank; /* otherwise another field may have it */
        if (!ranked && !good) return false;
    }
    return true;
}

enum format_outcome format_use_end(struct format *format) {
    struct record *record = format->record;
    if (format->path.len > 0 && record->target.len == 0) {
        struct rules_text query = format->query;
        if (query.len > 0 && query.bytes[0] == '?') query = (struct rules_text){query.bytes + 1, query.len - 1};
        format_use_target(format, query.len == 0 ? format->path : format_use_join(format, format->path, '?', query));
    }
    if (format->ranks[ROLE_DATE] > 0 && format->ranks[ROLE_CLOCK] > 0 && format->ranks[ROLE_TIME] == 0)
        record->time = format->date + format->clock, record->whole_second = format->clock_whole;
    if (record->time < 0)
        return format->reason[0] != '\0' ? FORMAT_BAD : format_use_bad(format, "the line has no time");
    return FORMAT_RECORD;
}
