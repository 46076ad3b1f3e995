/* SPDX-License-Identifier: MIT
 * The handshake of a new connection. */
#include "conn/handshake.h"

#include <stdio.h>
#include <string.h>

#include "conn/resp.h"
#include "core/redact.h"

static size_t handshake_encode_auth(char *out, const struct steady__url *url) {
    if (*url->user != '\0')
        return steady__resp_command(out, 3, (const char *const[]){"AUTH", url->user, url->password});
    return *url->password != '\0' ? steady__resp_command(out, 2, (const char *const[]){"AUTH", url->password}) : 0;
}

static size_t handshake_encode_select(char *out, const struct steady__url *url) {
    char db[16];
    snprintf(db, sizeof db, "%u", (unsigned)url->db);
    return url->db != 0 ? steady__resp_command(out, 2, (const char *const[]){"SELECT", db}) : 0;
}

size_t steady__handshake_encode(char *out, enum steady__handshake_step which, const struct steady__url *url,
                                const char *client_name, enum steady__role role) {
    switch (which) {
    case STEADY__HANDSHAKE_AUTH: return handshake_encode_auth(out, url);
    case STEADY__HANDSHAKE_NAME:
        return client_name != NULL
                   ? steady__resp_command(out, 3, (const char *const[]){"CLIENT", "SETNAME", client_name})
                   : 0;
    case STEADY__HANDSHAKE_SELECT: return handshake_encode_select(out, url);
    default: return role != STEADY__ROLE_ANY ? steady__resp_command(out, 1, (const char *const[]){"ROLE"}) : 0;
    }
}

/* A primary answers "master" and more; a replica "slave", the primary's host and port, the state of that
 * connection, and more. */
static bool handshake_role_matches(const struct steady__reply *reply, enum steady__role role) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value head, value = {0};
    if (!steady__walk_next(&walk, &head) || head.kind != STEADY__VALUE_ARRAY || head.number < 1) return false;
    if (!steady__walk_next(&walk, &value)) return false;
    if (role == STEADY__ROLE_PRIMARY) return steady__value_is(&value, "master");
    if (!steady__value_is(&value, "slave")) return false;
    for (int i = 0; i < 3; i++)
        if (!steady__walk_next(&walk, &value)) return false;
    return steady__value_is(&value, "connected");
}

static enum steady__handshake_outcome handshake_role_replied(enum steady__role role, const struct steady__reply *reply,
                                                             char *why, size_t why_size) {
    if (reply->kind == STEADY__REPLY_NESTED && handshake_role_matches(reply, role)) return STEADY__HANDSHAKE_OK;
    snprintf(why, why_size, "%s",
             reply->kind != STEADY__REPLY_NESTED ? "the server sent an unexpected reply"
             : role == STEADY__ROLE_PRIMARY      ? "the server is not a primary"
                                                 : "the server is not a replica that is connected to its primary");
    return STEADY__HANDSHAKE_FAILED;
}

/* If ROLE is not permitted, the role is unknown until the first READONLY reply. */
static enum steady__handshake_outcome handshake_error_replied(enum steady__handshake_step which,
                                                              const struct steady__url *url,
                                                              const struct steady__reply *reply, char *why,
                                                              size_t why_size) {
    const enum steady__error_class error_class = reply->error_class;
    const struct steady__secrets secrets = {.url = url};
    steady__redact(why, why_size, reply->text, reply->text_len, &secrets);
    if (steady__error_class_is_temporary(error_class)) return STEADY__HANDSHAKE_FAILED;
    if (which != STEADY__HANDSHAKE_ROLE && which != STEADY__HANDSHAKE_NAME) return STEADY__HANDSHAKE_REFUSED;
    const bool no_auth = reply->text_len >= 6 && memcmp(reply->text, "NOAUTH", 6) == 0;
    if (no_auth) return STEADY__HANDSHAKE_REFUSED;
    return which == STEADY__HANDSHAKE_NAME ? STEADY__HANDSHAKE_NAME_REFUSED : STEADY__HANDSHAKE_ROLE_UNKNOWN;
}

enum steady__handshake_outcome steady__handshake_reply(enum steady__handshake_step which, const struct steady__url *url,
                                                       enum steady__role role, const struct steady__reply *reply,
                                                       char *why, size_t why_size) {
    if (reply->kind == STEADY__REPLY_ERROR) return handshake_error_replied(which, url, reply, why, why_size);
    if (which == STEADY__HANDSHAKE_ROLE) return handshake_role_replied(role, reply, why, why_size);
    if (reply->kind == STEADY__REPLY_TEXT) return STEADY__HANDSHAKE_OK;
    snprintf(why, why_size, "the server sent an unexpected reply");
    return STEADY__HANDSHAKE_FAILED;
}

const char *steady__handshake_rejection(const struct steady__reply *reply) {
    if (reply->error_class != STEADY__ERROR_CLASS_REJECTED) return NULL;
    return reply->text[0] == 'D' ? "the server is in protected mode (DENIED)"
                                 : "the server accepts no more connections (max number of clients reached)";
}
