/* SPDX-License-Identifier: MIT
 * Opens the store of the command: the store of --store or STEADY_STORE, or else the user's own file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"

#define SCHEME "file:"
#define FILE_NAME "steady.buckets"

enum { URL_SIZE = sizeof SCHEME "/" FILE_NAME + OWN_SIZE };

/* The URL of the user's own file. No character of its directory needs an escape in a URL. */
static int store_own_url(char url[URL_SIZE], steady_message *why) {
    char directory[OWN_SIZE];
    const int error = own_directory(directory, why);
    if (error == 0) snprintf(url, URL_SIZE, SCHEME "%s/" FILE_NAME, directory);
    return error;
}

/* systemd-tmpfiles deletes files in /var/tmp that were not used for a time, except files with a sticky bit. */
static void store_set_sticky(const char *url) { (void)chmod(url + strlen(SCHEME), S_ISVTX | S_IRUSR | S_IWUSR); }

static bool store_is_embedded(const char *url) {
    return strncmp(url, "memory:", strlen("memory:")) == 0 || strncmp(url, "file:", strlen("file:")) == 0;
}

int open_store(steady_store **store, const struct options *options, const steady_loop *loop, bool *embedded,
               steady_message *why) {
    const steady_store_options store_options = {.loop = loop, .timeout = options->timeout, .engine = options->engine};
    const char *url = options->store;
    char own[URL_SIZE] = "";
    if (url != NULL && *url == '\0') {
        snprintf(why->text, sizeof why->text, "--store is empty; omit it to use $STEADY_STORE or your own file");
        return STEADY_BAD_ARGUMENT;
    }
    if (url == NULL) url = getenv("STEADY_STORE");
    if (options->store == NULL && (url == NULL || *url == '\0')) {
        const int error = store_own_url(own, why);
        if (error != 0) return error;
        url = own;
    }
    *embedded = store_is_embedded(url);
    const int error = steady_store_open(store, url, &store_options, why);
    if (error == 0 && url == own) store_set_sticky(url);
    return error;
}

void complain_error(int error, const steady_message *why) {
    if (why->text[0] == '\0')
        complain("%s", steady_error_text(error));
    else if (error == STEADY_BAD_ARGUMENT)
        complain("%s", why->text);
    else
        complain("%s: %s", steady_error_text(error), why->text);
}

int error_code(int error) {
    switch (error) {
    case STEADY_OK: return ALLOWED;
    case STEADY_BAD_ARGUMENT: return USAGE;
    case STEADY_UNKNOWN:
    case STEADY_CANCELLED: return UNKNOWN;
    default: return UNAVAILABLE;
    }
}
