/* SPDX-License-Identifier: MIT
 * JSON lines: an object a line. Caddy, Traefik, Envoy, nginx with escape=json, our decision log, and any other whose
 * fields have usual names.
 *
 * The names that are looked for form a tree. The scanner walks over the line and the tree at once, checks the syntax,
 * and decodes only the values that are used. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "format_names.h"
#include "format_use.h"
#include "rules/memory.h"

enum { DEPTH_MAX = 64, PREFIX_MAX = 256, BUCKETS = 64, ANY_INDEX = -1, NO_INDEX = -2 };

/* A value that is looked for, or an object or array around it. */
struct format_json_node {
    char *key;
    size_t len;
    int index;             /* of an element of an array; NO_INDEX: it is a member of an object */
    bool begins_part;      /* each element is a part of a decision */
    unsigned seen, hidden; /* in the first lines; hidden: its value is not logged */
    struct format_uses uses;
    const struct format_use *natural;
    const char *header;                /* the value is this header field */
    struct format_json_node *next;     /* of the same bucket, or of the elements */
    struct format_json_node **members; /* BUCKETS of them; NULL: none */
    struct format_json_node *elements;
    struct format_json_node *all; /* the list of all nodes */
    const char *path;             /* as the user wrote it; NULL: the user did not */
};

struct format_json {
    struct format *format;
    struct format_json_node root;
    struct format_json_node *all;
    bool counts; /* the first lines are read, to see which fields there are */
    /* Of this line. */
    const char *at, *end;
    bool escapes;
    const char *fault;
};

/* ---- The tree ---- */

static unsigned format_json_bucket(const char *key, size_t len) {
    if (len == 0) return 0;
    const unsigned first = (unsigned char)key[0] | 0x20, last = (unsigned char)key[len - 1] | 0x20;
    return (unsigned)(len * 7 + first * 3 + last) % BUCKETS;
}

static struct format_json_node *format_json_member(const struct format_json_node *node, const char *key, size_t len) {
    if (node->members == NULL) return NULL;
    for (struct format_json_node *at = node->members[format_json_bucket(key, len)]; at != NULL; at = at->next) {
        if (at->len != len) continue;
        if (memcmp(at->key, key, len) == 0) return at;
        if (!format_use_alike(at->key, len, key, len)) continue;
        memcpy(at->key, key, len); /* the next line has the same spelling */
        return at;
    }
    return NULL;
}

static struct format_json_node *format_json_element(const struct format_json_node *node, int index) {
    struct format_json_node *at = node->elements;
    while (at != NULL && at->index != index && at->index != ANY_INDEX)
        at = at->next;
    return at;
}

static struct format_json_node *format_json_child(struct format_json *json, struct format_json_node *node,
                                                  const char *key, size_t len, int index) {
    struct rules_memory *memory = json->format->memory;
    struct format_json_node *child =
        index == NO_INDEX ? format_json_member(node, key, len) : format_json_element(node, index);
    if (child != NULL) return child;
    if (index == NO_INDEX && node->members == NULL)
        node->members = memory_take(memory, BUCKETS * sizeof(struct format_json_node *));
    child = memory_take(memory, sizeof *child);
    if (child == NULL || (index == NO_INDEX && node->members == NULL)) return NULL;
    child->key = memory_copy(memory, key, len);
    child->len = len;
    child->index = index;
    struct format_json_node **head = index == NO_INDEX ? &node->members[format_json_bucket(key, len)] : &node->elements;
    child->next = *head;
    *head = child;
    child->all = json->all;
    json->all = child;
    return child->key == NULL ? NULL : child;
}

/* The node of a path: `.request.headers.X-Api-Key[0]`, `.["a.b"]`; `name` is a member of the line itself, whatever
 * bytes it has. NULL: it is no path, and *fault is the place; or out of memory, and *fault is NULL. */
static struct format_json_node *format_json_path(struct format_json *json, const char *path, const char **fault) {
    struct format_json_node *node = &json->root;
    const char *at = path;
    *fault = NULL;
    if (*path != '.' && *path != '[') return format_json_child(json, node, path, strlen(path), NO_INDEX);
    while (*at != '\0' && node != NULL) {
        const char *const begin = at;
        const bool bracket = *at == '[' || (*at == '.' && at[1] == '[');
        if (!bracket && *at != '.') break;
        if (bracket) {
            at = strchr(at, '[') + 1;
            const char quote = *at == '"' ? '"' : ']';
            at += quote == '"';
            const char *close = strchr(at, quote);
            const size_t len = close == NULL ? 0 : (size_t)(close - at);
            if (close == NULL || (quote == '"' && close[1] != ']') ||
                (quote == ']' && (strspn(at, "0123456789") != len || len > 6))) {
                *fault = begin;
                return NULL;
            }
            int index = len == 0 ? ANY_INDEX : 0;
            for (size_t i = 0; i < len && quote == ']'; i++)
                index = index * 10 + (at[i] - '0');
            node = format_json_child(json, node, at, len, quote == '"' ? NO_INDEX : index);
            at = close + (quote == '"' ? 2 : 1);
        } else {
            const size_t len = strcspn(at + 1, ".[");
            if (len == 0) break;
            node = format_json_child(json, node, at + 1, len, NO_INDEX);
            at += 1 + len;
        }
    }
    if (*at != '\0' && node != NULL) {
        *fault = at;
        return NULL;
    }
    return node;
}

/* ---- Reading a line ---- */

static bool format_json_fault(struct format_json *json, const char *fault) {
    if (json->fault == NULL) json->fault = fault;
    return false;
}

static inline void format_json_blanks(struct format_json *json) {
    while (json->at < json->end && (unsigned char)*json->at <= ' ' &&
           (*json->at == ' ' || *json->at == '\t' || *json->at == '\r' || *json->at == '\n'))
        json->at++;
}

static inline bool format_json_byte(struct format_json *json, char byte) {
    format_json_blanks(json);
    if (json->at == json->end || *json->at != byte) return false;
    json->at++;
    return true;
}

/* A string; `at` is behind its first quote. A quote after an odd number of backslashes is a part of it. */
static bool format_json_string(struct format_json *json, struct rules_text *text) {
    const char *const begin = json->at;
    for (const char *from = begin;;) {
        const char *quote = format_use_find(from, json->end, '"');
        if (quote == NULL) return format_json_fault(json, "a string is not closed");
        json->at = from = quote + 1;
        if (json->escapes) {
            const char *slash = quote;
            while (slash > begin && slash[-1] == '\\')
                slash--;
            if ((quote - slash) % 2 == 1) continue;
        }
        *text = (struct rules_text){begin, (size_t)(quote - begin)};
        return true;
    }
}

/* A value that is neither an object nor an array. Of what Caddy and Traefik hide, nothing is known. */
static bool format_json_scalar(struct format_json *json, struct format_json_node *node, struct rules_text text,
                               enum format_escape escape) {
    if (node == NULL) return true;
    const bool hidden = format_use_is(text, "REDACTED", 8);
    if (json->counts) {
        node->seen++;
        node->hidden += hidden;
        return true;
    }
    if (hidden || text.len == 0 || format_use_take(json->format, &node->uses, text, escape)) return true;
    return format_json_fault(json, json->format->reason);
}

/* A number, true, false or null. */
static bool format_json_word(struct format_json *json, struct format_json_node *node) {
    const char *const begin = json->at;
    for (char c; json->at < json->end && (c = *json->at) > ' ' && c != ',' && c != '}' && c != ']' && c != ':';)
        json->at++;
    struct rules_text text = {begin, (size_t)(json->at - begin)};
    const bool null = format_use_is(text, "null", 4);
    const bool number = text.len > 0 && (*begin == '-' || (*begin >= '0' && *begin <= '9'));
    if (!null && !number && !format_use_is(text, "true", 4) && !format_use_is(text, "false", 5))
        return format_json_fault(json, "a value is missing, or is not of JSON");
    if (null) text.len = 0;
    return format_json_scalar(json, node, text, ESCAPE_NONE);
}

static bool format_json_value(struct format_json *json, struct format_json_node *node, unsigned depth);

static bool format_json_object(struct format_json *json, struct format_json_node *node, unsigned depth) {
    struct record *record = json->format->record;
    if (node != NULL && node->begins_part && !json->counts) {
        if (record->n_parts == RECORD_PARTS_MAX) return format_json_fault(json, "a decision has too many parts");
        record->parts[record->n_parts++] = (struct record_part){.amount = 1, .kind = STEADY_TAKE};
    }
    if (format_json_byte(json, '}')) return true;
    do {
        struct rules_text key;
        if (!format_json_byte(json, '"')) return format_json_fault(json, "a name is missing in an object");
        if (!format_json_string(json, &key)) return false;
        if (!format_json_byte(json, ':')) return format_json_fault(json, "no : follows a name");
        struct format_json_node *member = node == NULL ? NULL : format_json_member(node, key.bytes, key.len);
        if (!format_json_value(json, member, depth)) return false;
    } while (format_json_byte(json, ','));
    return format_json_byte(json, '}') || format_json_fault(json, "an object is not closed");
}

/* If no element is looked for, a use of the array is one of each element. */
static bool format_json_array(struct format_json *json, struct format_json_node *node, unsigned depth) {
    int index = 0;
    if (format_json_byte(json, ']')) return true;
    do {
        struct format_json_node *element = node == NULL             ? NULL
                                           : node->elements == NULL ? node
                                                                    : format_json_element(node, index);
        if (!format_json_value(json, element, depth)) return false;
        index++;
    } while (format_json_byte(json, ','));
    return format_json_byte(json, ']') || format_json_fault(json, "an array is not closed");
}

static bool format_json_value(struct format_json *json, struct format_json_node *node, unsigned depth) {
    struct rules_text text = {0};
    format_json_blanks(json);
    if (json->at == json->end) return format_json_fault(json, "the line ends too early");
    if (depth == DEPTH_MAX) return format_json_fault(json, "objects are nested too deeply");
    switch (*json->at) {
    case '"':
        json->at++;
        return format_json_string(json, &text) &&
               format_json_scalar(json, node, text, json->escapes ? ESCAPE_JSON : ESCAPE_NONE);
    case '{': json->at++; return format_json_object(json, node, depth + 1);
    case '[': json->at++; return format_json_array(json, node, depth + 1);
    default: return format_json_word(json, node);
    }
}

/* Container runtimes and syslog write something before the object. */
static bool format_json_scan(struct format_json *json, struct rules_text line) {
    json->fault = NULL;
    json->end = line.bytes + line.len;
    json->at = memchr(line.bytes, '{', line.len > PREFIX_MAX ? PREFIX_MAX : line.len);
    if (json->at == NULL) return format_json_fault(json, "there is no object of JSON");
    json->escapes = memchr(line.bytes, '\\', line.len) != NULL;
    if (!format_json_value(json, &json->root, 0)) return false;
    format_json_blanks(json);
    return json->at == json->end || format_json_fault(json, "more follows the object");
}

static enum format_outcome format_json_read(struct format *format, struct rules_text line) {
    struct format_json *json = format->of_kind;
    const struct record *record = format->record;
    format_use_begin(format, line);
    if (!format_json_scan(json, line)) {
        if (json->fault != format->reason) format_use_bad(format, json->fault);
        return FORMAT_BAD;
    }
    /* Servers write other messages into the same log. */
    if (record->method.len == 0 && record->target.len == 0 && format->path.len == 0 && !record->has_address &&
        record->status == 0 && record->n_fields == 0 && record->n_parts == 0)
        return FORMAT_NO_RECORD;
    return format_use_end(format);
}

/* ---- Names ---- */

enum format_json_flavor { JSON_ANY, JSON_CADDY, JSON_TRAEFIK, JSON_ENVOY, JSON_DECISIONS, JSON_NGINX };

struct format_json_name {
    const char *path;
    struct format_use use;
    enum format_json_flavor flavor; /* JSON_ANY: of all */
};

static const struct format_json_name format_json_names[] = {
    {".ts", TIME_OF(TIME_ANY, RANK_GOOD), JSON_CADDY},
    {".request.client_ip", IS(ROLE_ADDRESS, RANK_BEST), JSON_CADDY},
    {".request.remote_ip", IS(ROLE_ADDRESS, RANK_GOOD), JSON_CADDY},
    {".request.remote_addr", IS(ROLE_ADDRESS, RANK_USUAL), JSON_CADDY},
    {".duration", DURATION_OF(LOG_TIME_S), JSON_CADDY},

    {".StartUTC", BEGIN_OF(TIME_ISO, RANK_BEST), JSON_TRAEFIK},
    {".StartLocal", BEGIN_OF(TIME_ISO, RANK_GOOD), JSON_TRAEFIK},
    {".Duration", DURATION_OF(LOG_TIME_NS), JSON_TRAEFIK},
    {".ClientHost", IS(ROLE_ADDRESS, RANK_GOOD), JSON_TRAEFIK},
    {".ClientAddr", IS(ROLE_ADDRESS, RANK_USUAL), JSON_TRAEFIK},
    {".RequestMethod", IS(ROLE_METHOD, RANK_GOOD), JSON_TRAEFIK},
    {".RequestPath", IS(ROLE_TARGET, RANK_GOOD), JSON_TRAEFIK},
    {".RequestHost", IS(ROLE_HOST, RANK_GOOD), JSON_TRAEFIK},
    {".RequestAddr", IS(ROLE_HOST, RANK_USUAL), JSON_TRAEFIK},
    {".DownstreamStatus", IS(ROLE_STATUS, RANK_GOOD), JSON_TRAEFIK},
    {".request_User-Agent", IS(ROLE_AGENT, RANK_GOOD), JSON_TRAEFIK},

    {".start_time", BEGIN_OF(TIME_ANY, RANK_GOOD), JSON_ENVOY},
    {".duration", DURATION_OF(LOG_TIME_MS), JSON_ENVOY},
    {".response_code", IS(ROLE_STATUS, RANK_GOOD), JSON_ENVOY},
    {".authority", IS(ROLE_HOST, RANK_GOOD), JSON_ENVOY},
    {".x_envoy_original_path", IS(ROLE_TARGET, RANK_BEST), JSON_ENVOY},
    {".x-envoy-origin-path", IS(ROLE_TARGET, RANK_BEST), JSON_ENVOY}, /* Envoy Gateway */
    {".:authority", IS(ROLE_HOST, RANK_GOOD), JSON_ENVOY},
    {".downstream_remote_address", IS(ROLE_ADDRESS, RANK_GOOD), JSON_ENVOY},
    {".x_forwarded_for", {.role = ROLE_ADDRESS, .form = ADDRESS_LAST, .rank = RANK_LOW}, JSON_ENVOY},

    {".ts", TIME_OF(TIME_ISO, RANK_GOOD), JSON_DECISIONS},
    {".parts[].limit", IS(ROLE_PART_LIMIT, 0), JSON_DECISIONS},
    {".parts[].key", IS(ROLE_PART_KEY, 0), JSON_DECISIONS},
    {".parts[].amount", IS(ROLE_PART_AMOUNT, 0), JSON_DECISIONS},
    {".parts[].kind", IS(ROLE_PART_KIND, 0), JSON_DECISIONS},

    {".event.duration", DURATION_OF(LOG_TIME_NS), JSON_ANY}, /* ECS */
    {".httpRequest.latency", DURATION_OF(LOG_TIME_GUESS), JSON_ANY},

    {".client.ip", IS(ROLE_ADDRESS, RANK_GOOD), JSON_ANY},
    {".source.ip", IS(ROLE_ADDRESS, RANK_USUAL), JSON_ANY},
    {".req.remoteAddress", IS(ROLE_ADDRESS, RANK_USUAL), JSON_ANY},
    {".request.ip", IS(ROLE_ADDRESS, RANK_USUAL), JSON_ANY},
    {".httpRequest.remoteIp", IS(ROLE_ADDRESS, RANK_GOOD), JSON_ANY},

    {".req.method", IS(ROLE_METHOD, RANK_USUAL), JSON_ANY},
    {".request.method", IS(ROLE_METHOD, RANK_USUAL), JSON_ANY},
    {".http.request.method", IS(ROLE_METHOD, RANK_USUAL), JSON_ANY},
    {".httpRequest.requestMethod", IS(ROLE_METHOD, RANK_USUAL), JSON_ANY},

    {".req.url", IS(ROLE_TARGET, RANK_USUAL), JSON_ANY},
    {".request.url", IS(ROLE_TARGET, RANK_USUAL), JSON_ANY},
    {".request.uri", IS(ROLE_TARGET, RANK_USUAL), JSON_ANY},
    {".request.path", IS(ROLE_PATH, RANK_USUAL), JSON_ANY},
    {".url.original", IS(ROLE_TARGET, RANK_GOOD), JSON_ANY},
    {".url.path", IS(ROLE_PATH, RANK_USUAL), JSON_ANY},
    {".url.query", IS(ROLE_QUERY, RANK_USUAL), JSON_ANY},
    {".httpRequest.requestUrl", IS(ROLE_TARGET, RANK_USUAL), JSON_ANY},

    {".request.host", IS(ROLE_HOST, RANK_GOOD), JSON_ANY},
    {".req.headers.host", IS(ROLE_HOST, RANK_GOOD), JSON_ANY},
    {".url.domain", IS(ROLE_HOST, RANK_USUAL), JSON_ANY},

    {".res.statusCode", IS(ROLE_STATUS, RANK_USUAL), JSON_ANY},
    {".response.status", IS(ROLE_STATUS, RANK_USUAL), JSON_ANY},
    {".http.response.status_code", IS(ROLE_STATUS, RANK_USUAL), JSON_ANY},
    {".httpRequest.status", IS(ROLE_STATUS, RANK_USUAL), JSON_ANY},

    {".headers.user-agent", IS(ROLE_AGENT, RANK_USUAL), JSON_ANY},
    {".req.headers.user-agent", IS(ROLE_AGENT, RANK_USUAL), JSON_ANY},
    {".request.headers.user-agent", IS(ROLE_AGENT, RANK_USUAL), JSON_ANY},
    {".user_agent.original", IS(ROLE_AGENT, RANK_USUAL), JSON_ANY},
    {".httpRequest.userAgent", IS(ROLE_AGENT, RANK_USUAL), JSON_ANY},
};

/* A field that only one kind of server writes. */
static const struct {
    const char *path;
    enum format_json_flavor flavor;
} format_json_marks[] = {
    {".parts[].limit", JSON_DECISIONS},   {".request.remote_ip", JSON_CADDY},
    {".request.remote_addr", JSON_CADDY}, {".request.uri", JSON_CADDY},
    {".StartUTC", JSON_TRAEFIK},          {".DownstreamStatus", JSON_TRAEFIK},
    {".RequestAddr", JSON_TRAEFIK},       {".ClientHost", JSON_TRAEFIK},
    {".response_flags", JSON_ENVOY},      {".upstream_cluster", JSON_ENVOY},
    {".upstream_host", JSON_ENVOY},       {".bytes_received", JSON_ENVOY},
    {".response_code", JSON_ENVOY},       {".time_iso8601", JSON_NGINX},
    {".time_local", JSON_NGINX},          {".msec", JSON_NGINX},
    {".body_bytes_sent", JSON_NGINX},     {".request_time", JSON_NGINX},
    {".remote_addr", JSON_NGINX},
};

/* Where a header field usually is. */
static const char *const format_json_headers[] = {".%s",
                                                  ".http_%s",
                                                  ".request_%s",
                                                  ".req_%s",
                                                  ".header_%s",
                                                  ".headers.%s",
                                                  ".request.headers.%s",
                                                  ".req.headers.%s",
                                                  ".request_headers.%s",
                                                  ".http.request.headers.%s"};

/* The node of a path of ours. */
static struct format_json_node *format_json_own(struct format_json *json, const char *path) {
    const char *fault;
    return format_json_path(json, path, &fault);
}

/* The first lines, to see which fields there are. False: none is an object of JSON. */
static bool format_json_look(struct format_json *json, const struct rules_text *lines, size_t n) {
    bool found = false;
    json->counts = true;
    for (size_t i = 0; i < n; i++)
        found |= lines[i].len > 0 && format_json_scan(json, lines[i]);
    json->counts = false;
    return found;
}

static enum format_json_flavor format_json_detect(struct format_json *json) {
    for (size_t i = 0; i < sizeof format_json_marks / sizeof format_json_marks[0]; i++) {
        const struct format_json_node *node = format_json_own(json, format_json_marks[i].path);
        if (node != NULL && node->seen > 0) return format_json_marks[i].flavor;
    }
    return JSON_ANY;
}

/* ---- Making the format ---- */

static bool format_json_memory(char *why, size_t room) {
    snprintf(why, room, "out of memory");
    return false;
}

/* A path that the user gave. */
static bool format_json_asked(struct format_json *json, const char *path, const char *option, char *why, size_t room) {
    const char *fault;
    struct format_json_node *node = format_json_path(json, path, &fault);
    if (node != NULL && node->path == NULL) node->path = path;
    if (node != NULL) return true;
    if (fault == NULL) return format_json_memory(why, room);
    snprintf(why, room, "%s %s, column %zu: write a path such as .user.id, .headers.X-Api-Key[0] or .[\"a.b\"]", option,
             path, (size_t)(fault - path) + 1);
    return false;
}

static bool format_json_add_asked(struct format_json *json, char *why, size_t room) {
    const struct format_options *options = &json->format->options;
    struct format_use use;
    if (options->time_field != NULL && !format_json_asked(json, options->time_field, "--time", why, room)) return false;
    for (size_t i = 0; i < options->n_maps; i++)
        if (!format_json_asked(json, format_use_map(&use, options->maps[i], why, room), "--field", why, room))
            return false;
    for (size_t i = 0; i < options->n_wanted; i++)
        if (options->wanted[i][0] == '.' && !format_json_asked(json, options->wanted[i], "--key", why, room))
            return false;
    return true;
}

/* All places where a wanted header field may be. */
static bool format_json_add_headers(struct format_json *json) {
    struct format *format = json->format;
    for (size_t i = 0; i < format->options.n_wanted; i++) {
        const char *name = format_use_header(format->options.wanted[i]);
        if (name[0] == '.') continue;
        for (size_t k = 0; k < sizeof format_json_headers / sizeof format_json_headers[0]; k++) {
            const char *at = strstr(format_json_headers[k], "%s");
            const size_t lead = (size_t)(at - format_json_headers[k]), len = strlen(name);
            char *path = memory_take(format->memory, lead + len + 1);
            if (path == NULL) return false;
            memcpy(path, format_json_headers[k], lead);
            memcpy(path + lead, name, len + 1);
            struct format_json_node *node = format_json_own(json, path);
            if (node != NULL) node->header = name;
        }
    }
    return true;
}

static bool format_json_add_names(struct format_json *json) {
    size_t n;
    const struct format_name *names = format_names_usual(&n);
    for (size_t i = 0; i < sizeof format_json_names / sizeof format_json_names[0]; i++)
        if (format_json_own(json, format_json_names[i].path) == NULL) return false;
    for (size_t i = 0; i < sizeof format_json_marks / sizeof format_json_marks[0]; i++)
        if (format_json_own(json, format_json_marks[i].path) == NULL) return false;
    for (size_t i = 0; i < n; i++) {
        struct format_json_node *node =
            format_json_child(json, &json->root, names[i].name, strlen(names[i].name), NO_INDEX);
        if (node == NULL) return false;
        if (node->natural == NULL) node->natural = &names[i].use;
    }
    struct format_json_node *parts = format_json_own(json, ".parts[]");
    if (parts == NULL) return false;
    parts->begins_part = true;
    return format_json_add_headers(json);
}

/* The names of a kind of server come before the usual ones. */
static void format_json_set_natural(struct format_json *json, enum format_json_flavor flavor) {
    for (size_t i = 0; i < sizeof format_json_names / sizeof format_json_names[0]; i++) {
        const struct format_json_name *name = &format_json_names[i];
        struct format_json_node *node = format_json_own(json, name->path);
        if (name->flavor == flavor || (name->flavor == JSON_ANY && node->natural == NULL)) node->natural = &name->use;
    }
}

/* A header field is there if a line had it. Caddy and Traefik log it only if the request has it. */
static void format_json_find(struct format_json *json, enum format_json_flavor flavor) {
    struct format *format = json->format;
    for (size_t i = 0; i < format->options.n_wanted; i++) {
        const char *wanted = format_use_header(format->options.wanted[i]);
        bool seen = false, hidden = false;
        for (const struct format_json_node *node = json->all; node != NULL; node = node->all)
            for (size_t k = 0; k < node->uses.n; k++) {
                const struct format_use *use = &node->uses.at[k];
                const bool same = use->role == ROLE_FIELD
                                      ? format_use_alike(use->name, use->name_len, wanted, strlen(wanted))
                                      : use->role == ROLE_COOKIE && strcasecmp(wanted, "cookie") == 0;
                seen |= same && node->seen > node->hidden;
                hidden |= same && node->hidden > 0;
            }
        const bool optional = (flavor == JSON_CADDY || flavor == JSON_TRAEFIK) && wanted[0] != '.';
        format->found[i] = seen || (optional && !hidden);
    }
}

bool format_json_make(struct format *format, const struct format_kind *kind, const struct rules_text *lines, size_t n,
                      char *why, size_t room) {
    static const char *const flavors[] = {"json",         "json (caddy)", "json (traefik)",
                                          "json (envoy)", "decisions",    "json (nginx)"};
    struct format_json *json = memory_take(format->memory, sizeof *json);
    if (json == NULL) return format_json_memory(why, room);
    json->format = format;
    json->root.index = NO_INDEX;
    if (!format_json_add_names(json)) return format_json_memory(why, room);
    if (!format_json_add_asked(json, why, room)) return false;
    if (!format_json_look(json, lines, n) && format->options.format == NULL) {
        snprintf(why, room, "no line has an object of JSON");
        return false;
    }
    const enum format_json_flavor flavor =
        strcmp(kind->name, "decisions") == 0 ? JSON_DECISIONS : format_json_detect(json);
    format_json_set_natural(json, flavor);
    for (struct format_json_node *node = json->all; node != NULL; node = node->all)
        if (!format_use_all(format, &node->uses, node->path == NULL ? "" : node->path, node->natural,
                            node->natural == NULL ? 0 : 1, node->header))
            return format_json_memory(why, room);
    format_json_find(json, flavor);
    snprintf(format->name, sizeof format->name, "%s", flavors[flavor]);
    format->of_kind = json;
    format->read = format_json_read;
    return true;
}
