/* SPDX-License-Identifier: MIT
 * Which ACL rules name a command, out of ACL LIST. */
#include "rights.h"

#include <string.h>
#include <strings.h>

static bool begins_rule(char c) { return c == ' ' || c == '('; }
static bool ends_name(char c) { return c == ' ' || c == ')' || c == '|'; }

/* A line such as "user app on ~rl:* -@all +steady.consume (%R~* +steady.peek)". No pattern in it contains a blank. */
static bool line_names(const char *line, size_t len, const char *command, size_t command_len) {
    for (size_t at = 2; at + command_len <= len; at++) {
        const size_t after = at + command_len;
        if ((line[at - 1] == '+' || line[at - 1] == '-') && begins_rule(line[at - 2]) &&
            strncasecmp(line + at, command, command_len) == 0 && (after == len || ends_name(line[after])))
            return true;
    }
    return false;
}

bool steady__rights_name(server_context *context, const char *command) {
    const struct server_functions *s = &steady__server;
    server_reply *users = s->Call(context, "ACL", "c", "LIST");
    bool found = false;
    if (users == NULL) return false;
    const size_t count = s->CallReplyLength(users);
    for (size_t i = 0; i < count && !found; i++) {
        size_t len = 0;
        const char *line = s->CallReplyStringPtr(s->CallReplyArrayElement(users, i), &len);
        found = line != NULL && line_names(line, len, command, strlen(command));
    }
    s->FreeCallReply(users);
    return found;
}
