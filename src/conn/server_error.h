/* SPDX-License-Identifier: MIT
 * The classes of `-ERR` replies. The class of an error decides how its request continues. */
#ifndef STEADY__SERVER_ERROR_H
#define STEADY__SERVER_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* In each class nothing was charged: the scripts write at most once, last. */
enum steady__error_class {
    STEADY__ERROR_CLASS_NONE,          /* no error */
    STEADY__ERROR_CLASS_NOSCRIPT,      /* load the script, send the request again */
    STEADY__ERROR_CLASS_MOVED,         /* wrong node: MOVED, ASK */
    STEADY__ERROR_CLASS_CROSS_SLOT,    /* the keys of the request lie in several slots */
    STEADY__ERROR_CLASS_TRY_AGAIN,     /* the keys of the request are on two nodes, while their slot is moved */
    STEADY__ERROR_CLASS_READONLY,      /* not the primary any more: reconnect */
    STEADY__ERROR_CLASS_BUSY,          /* LOADING, BUSY, MASTERDOWN: no request is served for a while */
    STEADY__ERROR_CLASS_RETRY_LATER,   /* OOM, MISCONF, NOREPLICAS, CLUSTERDOWN */
    STEADY__ERROR_CLASS_NO_PERMISSION, /* NOAUTH, WRONGPASS, NOPERM, and a forbidden command inside a script */
    STEADY__ERROR_CLASS_NOT_A_BUCKET,  /* WRONGTYPE, and NOTABUCKET of our scripts */
    STEADY__ERROR_CLASS_REJECTED, /* DENIED (protected mode), max number of clients: treated as a failed connection */
    STEADY__ERROR_CLASS_OTHER,    /* any other error */
};

/* The class of the text of an error reply, without its leading '-'. */
enum steady__error_class steady__error_class_of(const char *error, size_t len);

/* Whether the error is about the server's state, and passes by itself. */
static inline bool steady__error_class_is_temporary(enum steady__error_class error_class) {
    return error_class == STEADY__ERROR_CLASS_BUSY || error_class == STEADY__ERROR_CLASS_RETRY_LATER ||
           error_class == STEADY__ERROR_CLASS_REJECTED || error_class == STEADY__ERROR_CLASS_TRY_AGAIN;
}

/* The public error code of a decision that ends with an error of this class. */
int steady__error_class_code(enum steady__error_class error_class);

/* Whether the error says that the user may not call the command, or a command inside the script. The right to a key is
 * another matter. */
bool steady__error_is_forbidden_command(const char *error, size_t len);

#endif
