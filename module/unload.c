/* SPDX-License-Identifier: MIT
 * Whether the server survives that the module is unloaded.
 *
 * Servers keep pointers to the commands of a module beyond its end, and crash when they follow one:
 *
 *   - a transaction that is being queued, and a paused call, hold the command (redis/redis#4826; all versions);
 *   - Redis 8 does not look a command up that a connection calls twice in a row;
 *   - servers with ACL categories for commands of modules, which we set, apply all ACL rules again at unloading, and
 * stop at one that names what is gone (valkey-io/valkey#2797, since refused there).
 *
 * So we look at CLIENT LIST and ACL LIST, whose lines are words with blanks between them. */
#include "unload.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct word {
    const char *at;
    size_t len;
};

/* The words of a line, one after the other; empty after the last. */
static struct word next_word(const char **line, const char *end) {
    while (*line < end && **line == ' ')
        ++*line;
    struct word word = {*line, 0};
    while (*line < end && **line != ' ')
        ++*line;
    word.len = (size_t)(*line - word.at);
    return word;
}

static bool takes_off(struct word *word, const char *prefix) {
    const size_t len = strlen(prefix);
    if (word->len < len || memcmp(word->at, prefix, len) != 0) return false;
    word->at += len;
    word->len -= len;
    return true;
}

static const char *named(struct word word, const char *const *commands) {
    for (; *commands != NULL; commands++)
        if (strlen(*commands) == word.len && strncasecmp(*commands, word.at, word.len) == 0) return *commands;
    return NULL;
}

/* ---- ACL rules: "user app on ~rl:* -@all +steady.consume (%R~* +steady.peek)" ---- */

static const char *rule_names(struct word rule, const char *const *commands) {
    takes_off(&rule, "(");
    if (!takes_off(&rule, "+") && !takes_off(&rule, "-")) return NULL;
    for (size_t i = 0; i < rule.len; i++)
        if (rule.at[i] == '|' || rule.at[i] == ')') rule.len = i;
    return named(rule, commands);
}

static const char *line_names(const char *line, const char *end, const char *const *commands) {
    const char *name = NULL;
    for (struct word word; name == NULL && (word = next_word(&line, end)).len > 0;)
        name = rule_names(word, commands);
    return name;
}

static bool acl_is_safe(server_context *context, const char *const *commands) {
    const struct server_functions *s = &steady__server;
    const char *name = NULL;
    server_reply *users = s->Call(context, "ACL", "c", "LIST");
    const size_t count = users != NULL ? s->CallReplyLength(users) : 0;
    for (size_t i = 0; i < count && name == NULL; i++) {
        size_t len = 0;
        const char *line = s->CallReplyStringPtr(s->CallReplyArrayElement(users, i), &len);
        if (line != NULL) name = line_names(line, line + len, commands);
    }
    if (users != NULL) s->FreeCallReply(users);
    if (name == NULL) return true;
    s->Log(context, "warning", "steady: ACL rules name %s; take them out before unloading", name);
    return false;
}

/* ---- Connections: "id=7 addr=127.0.0.1:4711 ... flags=N ... multi=-1 ... cmd=steady.consume user=default" ---- */

static bool reuses_commands(server_context *context) {
    long major = 0;
    server_fields *fields = steady__server.GetServerInfo(context, "server");
    const char *version = steady__server.ServerInfoGetFieldC(fields, "redis_version"); /* Valkey's stays at 7.2.4 */
    if (version != NULL) major = strtol(version, NULL, 10);
    steady__server.FreeServerInfo(context, fields);
    return major >= 8;
}

/* EXEC is what this very MODULE UNLOAD is called from, if anything. */
static const char *connection_danger(const char *line, const char *end, const char *const *commands, bool reuses) {
    bool closing = false, waiting = false, queued = false, ours = false, exec = false;
    for (struct word word; (word = next_word(&line, end)).len > 0;) {
        if (takes_off(&word, "flags=")) {
            closing = memchr(word.at, 'A', word.len) != NULL;
            waiting = memchr(word.at, 'b', word.len) != NULL;
        } else if (takes_off(&word, "multi=")) {
            queued = word.len > 0 && word.at[0] != '-' && word.at[0] != '0';
        } else if (takes_off(&word, "cmd=")) {
            ours = named(word, commands) != NULL;
            exec = word.len == 4 && memcmp(word.at, "exec", 4) == 0;
        }
    }
    if (closing) return NULL;
    if (queued && !exec) return "is queuing a transaction";
    return ours && (waiting || reuses) ? "has called the module last" : NULL;
}

/* What is wrong with the first connection that is dangerous, and its first word, the id. */
static const char *first_danger(const char *list, size_t len, const char *const *commands, bool reuses,
                                struct word *id) {
    const char *danger = NULL;
    for (const char *end = list + len; list < end && danger == NULL;) {
        const char *line_end = memchr(list, '\n', (size_t)(end - list)), *line = list;
        if (line_end == NULL) line_end = end;
        danger = connection_danger(line, line_end, commands, reuses);
        *id = next_word(&line, line_end);
        list = line_end < end ? line_end + 1 : end;
    }
    return danger;
}

static bool connections_are_safe(server_context *context, const char *const *commands) {
    const struct server_functions *s = &steady__server;
    const bool reuses = reuses_commands(context);
    const char *danger = NULL;
    struct word id = {"", 0};
    size_t len = 0;
    server_reply *list = s->Call(context, "CLIENT", "c", "LIST");
    const char *text = list != NULL ? s->CallReplyStringPtr(list, &len) : NULL;
    if (text != NULL) danger = first_danger(text, len, commands, reuses, &id);
    if (danger != NULL)
        s->Log(context, "warning", "steady: connection %.*s %s, and the server could crash: not unloaded", (int)id.len,
               id.at, danger);
    if (list != NULL) s->FreeCallReply(list);
    return danger == NULL;
}

bool steady__unload_is_safe(server_context *context, const char *const *commands) {
    if (steady__server.SetCommandACLCategories != NULL && !acl_is_safe(context, commands)) return false;
    return connections_are_safe(context, commands);
}
