/* SPDX-License-Identifier: MIT
 * Which store the command works on: the one it was told, or a file that is the user's own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

#define FILE_NAME "steady.buckets"

enum { URL_SIZE = 4096 };

/* A directory of ours in which nobody else can put anything. A symbolic link is none. */
static bool is_ours(const char *path, mode_t forbidden) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & forbidden) == 0;
}

/* file:DIRECTORY/steady.buckets, %-encoded; false where that is too long. */
static bool file_url(char url[URL_SIZE], const char *directory) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    size_t n = (size_t)snprintf(url, URL_SIZE, "file:");
    for (; *directory != '\0'; directory++) {
        const unsigned char c = (unsigned char)*directory;
        if (n + sizeof "%00/" FILE_NAME > URL_SIZE) return false;
        n += (size_t)snprintf(url + n, URL_SIZE - n, strchr(plain, c) != NULL ? "%c" : "%%%02X", c);
    }
    snprintf(url + n, URL_SIZE - n, "/%s", FILE_NAME);
    return true;
}

/* XDG_RUNTIME_DIR where it is what the specification says it is; else /tmp/steady-UID. The environment may be that of
 * another user (su, sudo -E) or of a session that is over, so one that is unfit is passed over. */
static int own_file(char url[URL_SIZE], steady_message *why) {
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char directory[64];
    if (runtime != NULL && runtime[0] == '/' && is_ours(runtime, S_IWGRP | S_IWOTH) && file_url(url, runtime)) return 0;
    snprintf(directory, sizeof directory, "/tmp/steady-%lu", (unsigned long)geteuid());
    mkdir(directory, S_IRWXU);
    if (!is_ours(directory, S_IRWXG | S_IRWXO)) {
        snprintf(why->text, sizeof why->text, "%s is not a directory that is yours alone (mode 0700)", directory);
        return STEADY_BAD_FILE;
    }
    file_url(url, directory);
    return 0;
}

static bool is_embedded(const char *url) {
    return strncmp(url, "memory:", strlen("memory:")) == 0 || strncmp(url, "file:", strlen("file:")) == 0;
}

int open_store(steady_store **store, const struct options *options, const steady_loop *loop, bool *embedded,
               steady_message *why) {
    const steady_store_options store_options = {.loop = loop, .timeout = options->timeout, .engine = options->engine};
    const char *url = options->store;
    char own[URL_SIZE];
    if (url != NULL && *url == '\0') {
        snprintf(why->text, sizeof why->text, "--store is empty; leave it out for $STEADY_STORE or a file of your own");
        return STEADY_BAD_ARGUMENT;
    }
    if (url == NULL) url = getenv("STEADY_STORE");
    if (options->store == NULL && (url == NULL || *url == '\0')) {
        const int error = own_file(own, why);
        if (error != 0) return error;
        url = own;
    }
    *embedded = is_embedded(url);
    return steady_store_open(store, url, &store_options, why);
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
