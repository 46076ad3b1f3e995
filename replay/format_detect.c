/* SPDX-License-Identifier: MIT
 * The formats by name, and which one a log has. */
#include "format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "format_use.h"
#include "rules/memory.h"

/* In the order in which they are tried: a format comes before those that also read its lines. */
#define DETECT_COMBINED                                                                                                \
    "$remote_addr $ident $remote_user [$time_local] \"$request\" $status $bytes \"$http_referer\" "                    \
    "\"$http_user_agent\""
static const struct format_kind format_detect_kinds[] = {
    {"traefik", "Traefik's text format",
     "$remote_addr - $remote_user [${begun-at}] \"$request\" $status $bytes \"$http_referer\" \"$http_user_agent\" "
     "${a-number} "
     "\"$router\" \"$server\" ${duration-ms}ms",
     format_string_make},
    {"vcombined", "Apache's vhost_combined: COMBINED after the host and the port", "$host:${a-number} " DETECT_COMBINED,
     format_string_make},
    {"main", "the format main of nginx's own packages: COMBINED and X-Forwarded-For",
     DETECT_COMBINED " \"${forwarded-for}\"", format_string_make},
    {"combined", "nginx's default, Apache's combined", DETECT_COMBINED, format_string_make},
    {"common", "the Common Log Format", "$remote_addr $ident $remote_user [$time_local] \"$request\" $status $bytes",
     format_string_make},
    {"json", "an object of JSON a line: Caddy, Traefik, Envoy, nginx, and others with usual names", NULL,
     format_json_make},
    {"decisions", "the decision log of steady serve", NULL, format_json_make},
    {"istio", "Istio's default format of Envoy",
     "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
     "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" "
     "%BYTES_RECEIVED% "
     "%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
     "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% "
     "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%",
     format_string_make},
    {"envoy", "Envoy's default text format",
     "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
     "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" "
     "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"",
     format_string_make},
    {"haproxy", "HAProxy's option httplog",
     "${address-port} [${begun-at}] $frontend $backend $tq/$tw/$tc/$tr/${duration-ms} $status ${a-number} $cc $cs $end "
     "$connections $queues \"$request\"",
     format_string_make},
    {"alb", "AWS Application Load Balancer",
     "$type ${time-end} $elb ${address-port} $target ${duration-part} ${duration-part} ${duration-part} $status "
     "$from_target "
     "${a-number} ${a-number} \"$request\" \"$http_user_agent\" $cipher $protocol $group \"$trace\" \"$domain\" "
     "\"$certificate\" $rule ${time-begin}",
     format_string_make},
    {"w3c", "W3C Extended: IIS, CloudFront, and others with a line #Fields:", NULL, format_columns_make},
    {"csv", "columns with commas or semicolons, and a line of column names", NULL, format_columns_make},
    {"tsv", "columns with tabs, and a line of column names", NULL, format_columns_make},
};
enum { KINDS = sizeof format_detect_kinds / sizeof format_detect_kinds[0] };

const char *format_known_name(size_t i) { return i < KINDS ? format_detect_kinds[i].name : NULL; }
const char *format_known_text(size_t i) { return i < KINDS ? format_detect_kinds[i].text : NULL; }

static bool format_detect_copy_list(struct rules_memory *memory, const char *const **to, const char *const *from,
                                    size_t n) {
    const char **copy = memory_take(memory, (n + 1) * sizeof *copy);
    for (size_t i = 0; copy != NULL && i < n; i++)
        if ((copy[i] = memory_copy(memory, from[i], strlen(from[i]))) == NULL) return false;
    *to = copy;
    return copy != NULL;
}

/* A format that can read nothing yet. NULL: out of memory. */
static struct format *format_detect_empty(const struct format_options *options) {
    struct rules_memory *memory = memory_new();
    struct format *format = memory == NULL ? NULL : memory_take(memory, sizeof *format);
    if (format != NULL) {
        format->memory = memory;
        format->options = *options;
        format->mapped = memory_take(memory, options->n_maps + 1);
        format->found = memory_take(memory, options->n_wanted + 1);
        format->lacks = memory_take(memory, (options->n_wanted + 1) * sizeof *format->lacks);
        const char *time = options->time_field;
        if (time != NULL) format->options.time_field = memory_copy(memory, time, strlen(time));
        const bool copied =
            format_detect_copy_list(memory, &format->options.maps, options->maps, options->n_maps) &&
            format_detect_copy_list(memory, &format->options.wanted, options->wanted, options->n_wanted);
        if (copied && format->mapped != NULL && format->found != NULL && format->lacks != NULL &&
            (time == NULL || format->options.time_field != NULL))
            return format;
    }
    memory_free(memory);
    return NULL;
}

/* The wanted fields that were not found. A field that a map asks for has to be there. */
static bool format_detect_complete(struct format *format, char *why, size_t room) {
    const struct format_options *options = &format->options;
    for (size_t i = 0; i < options->n_maps && !format->lenient; i++) {
        if (format->mapped[i]) continue;
        snprintf(why, room, "--field %s: the format %s has no such field", options->maps[i], format->name);
        return false;
    }
    if (options->time_field != NULL && !format->time_mapped && !format->lenient) {
        snprintf(why, room, "--time %s: the format %s has no such field", options->time_field, format->name);
        return false;
    }
    for (size_t i = 0; i < options->n_wanted; i++)
        if (!format->found[i]) format->lacks[format->n_lacks++] = options->wanted[i];
    return true;
}

static struct format *format_detect_make(const struct format_kind *kind, const struct format_options *options,
                                         bool lenient, const struct rules_text *lines, size_t n, char *why,
                                         size_t room) {
    struct format *format = format_detect_empty(options);
    if (format == NULL) {
        snprintf(why, room, "out of memory");
        return NULL;
    }
    format->lenient = lenient;
    snprintf(format->name, sizeof format->name, "%s", kind->name);
    if (kind->make(format, kind, lines, n, why, room) && format_detect_complete(format, why, room)) return format;
    format_free(format);
    return NULL;
}

/* How well a format reads the lines. A record without an address counts half: the line may be of another format. */
static size_t format_detect_score(struct format *format, const struct rules_text *lines, size_t n) {
    static _Thread_local struct record record;
    size_t score = 0;
    for (size_t i = 0; i < n; i++)
        if (format_read(format, lines[i], &record) == FORMAT_RECORD) score += record.has_address ? 2 : 1;
    return score;
}

/* The first format is taken that reads most lines. A later one has to read a quarter more: some lines of each log are
 * not of its format. */
static const struct format_kind *format_detect_kind(const struct format_options *options,
                                                    const struct rules_text *lines, size_t n) {
    const struct format_kind *best = NULL;
    size_t most = 0;
    char why[256];
    for (size_t i = 0; i < KINDS; i++) {
        struct format *format = format_detect_make(&format_detect_kinds[i], options, true, lines, n, why, sizeof why);
        const size_t score = format == NULL ? 0 : format_detect_score(format, lines, n);
        if (score * 4 > most * 5) {
            best = &format_detect_kinds[i];
            most = score;
        }
        format_free(format);
    }
    return best;
}

static void format_detect_list_names(char *why, size_t room, const char *begin) {
    size_t len = (size_t)snprintf(why, room, "%s", begin);
    for (size_t i = 0; i < KINDS && len < room; i++)
        len += (size_t)snprintf(why + len, room - len, "%s%s", i > 0 ? ", " : "", format_detect_kinds[i].name);
}

/* Other names. Some servers have a text format and one of JSON: the lines tell. */
static const struct {
    const char *name, *kind;
} format_detect_aliases[] = {
    {"iis", "w3c"}, {"cloudfront", "w3c"}, {"caddy", "json"}, {"nginx", "combined"}, {"apache", "combined"}};

static const struct format_kind *format_detect_named(const char *name, const struct rules_text *lines, size_t n) {
    for (size_t i = 0; i < sizeof format_detect_aliases / sizeof format_detect_aliases[0]; i++)
        if (strcasecmp(format_detect_aliases[i].name, name) == 0) name = format_detect_aliases[i].kind;
    for (size_t i = 0; i < KINDS; i++) {
        const struct format_kind *kind = &format_detect_kinds[i];
        if (strcasecmp(kind->name, name) != 0) continue;
        const bool both =
            strcmp(kind->name, "traefik") == 0 || strcmp(kind->name, "envoy") == 0 || strcmp(kind->name, "istio") == 0;
        for (size_t k = 0; k < n && both; k++)
            if (lines[k].len > 0 && lines[k].bytes[0] == '{') return format_detect_named("json", NULL, 0);
        return kind;
    }
    return NULL;
}

/* A mark of UTF-8 stands before the first line of some files from Windows. */
static struct rules_text format_detect_unmarked(struct rules_text line) {
    static const char mark[] = "\xef\xbb\xbf";
    if (line.len < 3 || memcmp(line.bytes, mark, 3) != 0) return line;
    return (struct rules_text){line.bytes + 3, line.len - 3};
}

/* The format that the options name, or that the lines have. NULL: there is none. */
static const struct format_kind *format_detect_choose(struct format_kind *pasted, const struct format_options *options,
                                                      const struct rules_text *lines, size_t n, char *why,
                                                      size_t room) {
    const struct format_kind *kind = NULL;
    char begin[160] =
        "the format of these lines is not known. Name it with --format, or paste the format string of nginx or "
        "Apache. The names are ";
    if (options->format == NULL) {
        kind = format_detect_kind(options, lines, n);
    } else if (strpbrk(options->format, "$%") != NULL) {
        *pasted = (struct format_kind){"", "", options->format, format_string_make};
        kind = pasted;
    } else {
        kind = format_detect_named(options->format, lines, n);
        snprintf(begin, sizeof begin, "--format %.60s: there is no format of this name. The names are ",
                 options->format);
    }
    if (kind == NULL) format_detect_list_names(why, room, begin);
    if (kind == NULL && options->format == NULL && n > 0 && lines[0].len > 0 && lines[0].bytes[0] == '{')
        snprintf(why, room,
                 "these objects have no time under a usual name. Name its field with --time, such as "
                 "--time .created");
    return kind;
}

/* Lines out of their envelopes, in memory of their own. */
struct format_detect_lines {
    struct rules_text *at;
    struct format_envelope_room *rooms;
    size_t n;
};

static void format_detect_free(struct format_detect_lines *lines) {
    for (size_t i = 0; lines->rooms != NULL && i < lines->n; i++)
        free(lines->rooms[i].bytes);
    free(lines->rooms);
    free(lines->at);
}

/* False: fewer than half of the lines are in such an envelope, or there is no memory. */
static bool format_detect_open(struct format_detect_lines *inner, enum format_envelope envelope,
                               const struct rules_text *lines, size_t n) {
    size_t opened = 0;
    *inner = (struct format_detect_lines){calloc(n + 1, sizeof *inner->at), calloc(n + 1, sizeof *inner->rooms), n};
    if (inner->at == NULL || inner->rooms == NULL) return false;
    for (size_t i = 0; i < n; i++) {
        inner->at[i] = format_detect_unmarked(lines[i]);
        opened += format_envelope_open(envelope, &inner->at[i], &inner->rooms[i]);
    }
    return envelope == ENVELOPE_NONE || (opened > 0 && opened * 2 >= n);
}

/* Tries one envelope. */
static struct format *format_detect_in(enum format_envelope envelope, const struct format_options *options,
                                       const struct rules_text *lines, size_t n, char *why, size_t room) {
    struct format_detect_lines inner;
    struct format_kind pasted;
    struct format *format = NULL;
    snprintf(why, room, "out of memory");
    if (format_detect_open(&inner, envelope, lines, n)) {
        const struct format_kind *kind = format_detect_choose(&pasted, options, inner.at, n, why, room);
        if (kind != NULL) format = format_detect_make(kind, options, false, inner.at, n, why, room);
    }
    format_detect_free(&inner);
    if (format == NULL || envelope == ENVELOPE_NONE) return format;
    const size_t len = strlen(format->name);
    snprintf(format->name + len, sizeof format->name - len, " in %s", format_envelope_names[envelope]);
    format->envelope = envelope;
    return format;
}

/* A format in an envelope is only taken if it reads the lines better. */
struct format *format_new(const struct format_options *options, const struct rules_text *lines, size_t n, char *why,
                          size_t room) {
    struct format_use use;
    char other[64];
    for (size_t i = 0; i < options->n_maps; i++)
        if (format_use_map(&use, options->maps[i], why, room) == NULL) return NULL;
    struct format *best = format_detect_in(ENVELOPE_NONE, options, lines, n, why, room);
    size_t most = best == NULL ? 0 : format_detect_score(best, lines, n);
    for (enum format_envelope envelope = ENVELOPE_NONE + 1; envelope < ENVELOPE_COUNT; envelope++) {
        struct format *format = format_detect_in(envelope, options, lines, n, other, sizeof other);
        const size_t score = format == NULL ? 0 : format_detect_score(format, lines, n);
        format_free(score > most ? best : format);
        if (score <= most) continue;
        best = format;
        most = score;
    }
    return best;
}

const char *format_name(const struct format *format) { return format->name; }

enum format_outcome format_read(struct format *format, struct rules_text line, struct record *record) {
    line = format_detect_unmarked(line);
    if (format->envelope != ENVELOPE_NONE) format_envelope_open(format->envelope, &line, &format->unwrapped);
    if (line.len == 0) return FORMAT_NO_RECORD;
    format->record = record;
    return format->read(format, line);
}

const char *format_reason(const struct format *format) { return format->reason; }

const char *format_lacks(const struct format *format, size_t i) {
    return i < format->n_lacks ? format->lacks[i] : NULL;
}

void format_free(struct format *format) {
    if (format == NULL) return;
    free(format->decoded);
    free(format->unwrapped.bytes);
    memory_free(format->memory);
}
