/* SPDX-License-Identifier: MIT
 * Tells whether the server survives when the module is unloaded.
 *
 * Servers keep pointers to the commands of a module after it is unloaded. They crash when they use one:
 *
 *   - A transaction has pointers to its queued commands (redis/redis#4826), also while it runs.
 *   - A connection has a pointer to its last command. CLIENT LIST shows its name, Redis 8 calls it again without a
 *     look-up, and a paused call continues with it.
 *   - I/O threads, and servers that read ahead, look commands up before they are executed.
 *   - ACL rules name commands. Redis 7.0 describes the rules when it unloads; later servers apply them again
 *     (valkey-io/valkey#2797). The server stops with a failed assertion if a command is gone.
 *
 * So unloading reads CLIENT LIST and ACL LIST. Their lines are words with blanks between them. */
#include "unload.h"

#include <string.h>
#include <strings.h>

struct word {
    const char *at;
    size_t len;
};

/* Returns the next word of the line, and moves *line behind it. Empty after the last. */
static struct word unload_next_word(const char **line, const char *end) {
    while (*line < end && **line == ' ')
        ++*line;
    struct word word = {*line, 0};
    while (*line < end && **line != ' ')
        ++*line;
    word.len = (size_t)(*line - word.at);
    return word;
}

static bool unload_skip_prefix(struct word *word, const char *prefix) {
    const size_t len = strlen(prefix);
    if (word->len < len || memcmp(word->at, prefix, len) != 0) return false;
    word->at += len;
    word->len -= len;
    return true;
}

static bool unload_is(struct word word, const char *text) {
    return strlen(text) == word.len && memcmp(word.at, text, word.len) == 0;
}

static const char *unload_find_command(struct word word, const char *const *commands) {
    for (; *commands != NULL; commands++)
        if (strlen(*commands) == word.len && strncasecmp(*commands, word.at, word.len) == 0) return *commands;
    return NULL;
}

static server_reply *unload_list(server_context *context, const char *command) {
    server_reply *list = steady__server.Call(context, command, "c", "LIST");
    if (list == NULL) steady__server.Log(context, "warning", "steady: %s LIST cannot be read: not unloaded", command);
    return list;
}

/* ---- ACL rules: "user app on ~rl:* -@all +steady.consume (%R~* +steady.peek)" ---- */

static const char *unload_command_of_rule(struct word rule, const char *const *commands) {
    unload_skip_prefix(&rule, "(");
    if (!unload_skip_prefix(&rule, "+") && !unload_skip_prefix(&rule, "-")) return NULL;
    for (size_t i = 0; i < rule.len; i++)
        if (rule.at[i] == '|' || rule.at[i] == ')') rule.len = i;
    return unload_find_command(rule, commands);
}

static const char *unload_command_of_line(const char *line, const char *end, const char *const *commands) {
    const char *name = NULL;
    for (struct word word; name == NULL && (word = unload_next_word(&line, end)).len > 0;)
        name = unload_command_of_rule(word, commands);
    return name;
}

/* blind: the result if the rules cannot be read. */
static bool unload_acl_is_safe(server_context *context, const char *const *commands, bool blind) {
    const struct server_functions *s = &steady__server;
    const char *name = NULL;
    server_reply *users = unload_list(context, "ACL");
    if (users == NULL) return blind;
    const size_t count = s->CallReplyLength(users);
    for (size_t i = 0; i < count && name == NULL; i++) {
        size_t len = 0;
        const char *line = s->CallReplyStringPtr(s->CallReplyArrayElement(users, i), &len);
        if (line != NULL) name = unload_command_of_line(line, line + len, commands);
    }
    s->FreeCallReply(users);
    if (name == NULL) return true;
    s->Log(context, "warning", "steady: ACL rules name %s: not unloaded; remove these rules first", name);
    return false;
}

/* ---- Connections: "id=7 addr=127.0.0.1:4711 ... multi=-1 ... argv-mem=0 ... cmd=steady.consume ... io-thread=0" ----
 */

/* The argv-mem of a connection with MODULE UNLOAD steady, and no further command read ahead. */
#define UNLOAD_BYTES "18"

static const char *unload_danger_of_connection(const char *line, const char *end, const char *const *commands) {
    bool queued = false, called_module = false, under_way = false, threaded = false, unload = false,
         unload_alone = false;
    for (struct word word; (word = unload_next_word(&line, end)).len > 0;) {
        if (unload_skip_prefix(&word, "multi=")) {
            queued = !unload_is(word, "-1") && !unload_is(word, "0");
        } else if (unload_skip_prefix(&word, "argv-mem=")) {
            under_way = !unload_is(word, "0");
            unload_alone = unload_is(word, UNLOAD_BYTES);
        } else if (unload_skip_prefix(&word, "cmd=")) {
            called_module = unload_find_command(word, commands) != NULL;
            unload = unload_is(word, "module|unload");
        } else if (unload_skip_prefix(&word, "io-thread=")) {
            threaded = !unload_is(word, "0");
        }
    }
    if (queued) return "is queuing a transaction";
    if (called_module) return "has called the module last";
    if (unload && unload_alone) return NULL; /* the connection that unloads */
    if (under_way) return "has a call under way";
    return threaded ? "is read by an I/O thread" : NULL; /* Redis 8: it may read a command at any time */
}

/* The danger of the first dangerous connection, and its id; NULL if there is none. */
static const char *unload_first_danger(const char *list, size_t len, const char *const *commands, struct word *id) {
    const char *danger = NULL;
    for (const char *end = list + len; list < end && danger == NULL;) {
        const char *line_end = memchr(list, '\n', (size_t)(end - list)), *line = list;
        if (line_end == NULL) line_end = end;
        danger = unload_danger_of_connection(line, line_end, commands);
        *id = unload_next_word(&line, line_end);
        list = line_end < end ? line_end + 1 : end;
    }
    return danger;
}

static bool unload_connections_are_safe(server_context *context, const char *const *commands) {
    const struct server_functions *s = &steady__server;
    const char *danger = NULL;
    struct word id = {"", 0};
    size_t len = 0;
    server_reply *list = unload_list(context, "CLIENT");
    if (list == NULL) return false;
    const char *text = s->CallReplyStringPtr(list, &len);
    if (text != NULL) danger = unload_first_danger(text, len, commands, &id);
    if (danger != NULL)
        s->Log(context, "warning", "steady: connection %.*s %s, so the server could crash: not unloaded", (int)id.len,
               id.at, danger);
    s->FreeCallReply(list);
    return danger == NULL;
}

bool steady__unload_is_safe(server_context *context, const char *const *commands, bool undone) {
    return unload_acl_is_safe(context, commands, undone) && (undone || unload_connections_are_safe(context, commands));
}
