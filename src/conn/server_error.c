/* SPDX-License-Identifier: MIT
 * The classes of `-ERR` replies. The server's own words come first; behind them it may quote the request, so only the
 * beginning of a text decides. */
#include "conn/server_error.h"

#include <string.h>

#include "steady.h"

static bool server_error_begins(const char *text, size_t len, const char *part) {
    return len >= strlen(part) && memcmp(text, part, strlen(part)) == 0;
}

static bool server_error_has(const char *text, size_t len, const char *part) {
    return memmem(text, len, part, strlen(part)) != NULL;
}

enum steady__error_class steady__error_class_of(const char *error, size_t len) {
    static const struct {
        const char *word;
        enum steady__error_class error_class;
    } words[] = {
        {"NOSCRIPT", STEADY__ERROR_CLASS_NOSCRIPT},
        {"NOTABUCKET", STEADY__ERROR_CLASS_NOT_A_BUCKET},
        {"WRONGTYPE", STEADY__ERROR_CLASS_NOT_A_BUCKET},
        {"READONLY", STEADY__ERROR_CLASS_READONLY},
        {"MOVED", STEADY__ERROR_CLASS_MOVED},
        {"ASK", STEADY__ERROR_CLASS_MOVED},
        {"CROSSSLOT", STEADY__ERROR_CLASS_CROSS_SLOT},
        {"LOADING", STEADY__ERROR_CLASS_BUSY},
        {"BUSY", STEADY__ERROR_CLASS_BUSY},
        {"MASTERDOWN", STEADY__ERROR_CLASS_BUSY},
        {"OOM", STEADY__ERROR_CLASS_RETRY_LATER},
        {"MISCONF", STEADY__ERROR_CLASS_RETRY_LATER},
        {"NOREPLICAS", STEADY__ERROR_CLASS_RETRY_LATER},
        {"CLUSTERDOWN", STEADY__ERROR_CLASS_RETRY_LATER},
        {"TRYAGAIN", STEADY__ERROR_CLASS_TRY_AGAIN},
        {"NOAUTH", STEADY__ERROR_CLASS_NO_PERMISSION},
        {"WRONGPASS", STEADY__ERROR_CLASS_NO_PERMISSION},
        {"NOPERM", STEADY__ERROR_CLASS_NO_PERMISSION},
        {"DENIED", STEADY__ERROR_CLASS_REJECTED},
    };
    const char *space = memchr(error, ' ', len);
    const size_t word_len = space != NULL ? (size_t)(space - error) : len;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i].word) == word_len && memcmp(words[i].word, error, word_len) == 0)
            return words[i].error_class;
    if (server_error_begins(error, len, "ERR max number of clients ")) return STEADY__ERROR_CLASS_REJECTED;
    if (server_error_begins(error, len, "ERR The user executing the script can't run this command") ||
        server_error_begins(error, len, "ERR ACL failure in script"))
        return STEADY__ERROR_CLASS_NO_PERMISSION;
    return STEADY__ERROR_CLASS_OTHER;
}

bool steady__error_is_forbidden_command(const char *error, size_t len) {
    return steady__error_class_of(error, len) == STEADY__ERROR_CLASS_NO_PERMISSION &&
           server_error_has(error, len, " command");
}

int steady__error_class_code(enum steady__error_class error_class) {
    switch (error_class) {
    case STEADY__ERROR_CLASS_NO_PERMISSION: return STEADY_REFUSED;
    case STEADY__ERROR_CLASS_NOT_A_BUCKET: return STEADY_NOT_A_BUCKET;
    case STEADY__ERROR_CLASS_CROSS_SLOT: return STEADY_UNSUPPORTED;
    case STEADY__ERROR_CLASS_OTHER: return STEADY_SERVER;
    default: return STEADY_UNAVAILABLE;
    }
}
