/* SPDX-License-Identifier: MIT
 * The directory of a user's own file, for a command without a store.
 *
 * All sessions, cron jobs and services of a user share it, so no variable of the environment is used:
 * XDG_RUNTIME_DIR ends with a session, and HOME may be another user's. A directory of the user named steady-UID or
 * steady-UID-XXXXXX is used, the oldest if there are several. If there is none, steady-UID is made, or, if another user
 * has taken that name, steady-UID-XXXXXX. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

/* In order of preference. Not /dev/shm, which logind empties at the last logout of a user. Not the home directory,
 * which several hosts may share. */
static const char *const places[] = {"/var/tmp", "/tmp"};
enum { N_PLACES = sizeof places / sizeof places[0] };

/* A directory that exists, and when it was made. */
struct candidate {
    char path[OWN_SIZE];
    struct statx_timestamp made;
};

/* Whether no other user can rename or delete our files in it. */
static bool own_is_safe(const char *place) {
    struct stat st;
    if (stat(place, &st) != 0) return false;
    if (!S_ISDIR(st.st_mode)) errno = ENOTDIR;
    if (!S_ISDIR(st.st_mode)) return false;
    const bool safe = (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (st.st_mode & S_ISVTX) != 0;
    if (!safe) errno = EPERM;
    return safe;
}

/* Whether it is a directory of this user that no other user can use. A symbolic link is not accepted. */
static bool own_is_ours(const char *path, struct statx_timestamp *made) {
    struct statx st;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st) != 0) return false;
    *made = (st.stx_mask & STATX_BTIME) != 0 ? st.stx_btime : (struct statx_timestamp){0};
    return S_ISDIR(st.stx_mode) && st.stx_uid == geteuid() && (st.stx_mode & (S_IRWXG | S_IRWXO)) == 0;
}

static bool own_is_before(const struct candidate *a, const struct candidate *b) {
    if (a->made.tv_sec != b->made.tv_sec) return a->made.tv_sec < b->made.tv_sec;
    if (a->made.tv_nsec != b->made.tv_nsec) return a->made.tv_nsec < b->made.tv_nsec;
    return strcmp(a->path, b->path) < 0;
}

/* Whether it is NAME, or NAME-XXXXXX as mkdtemp makes it. */
static bool own_has_name(const char *entry, const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t len = strlen(name);
    if (strncmp(entry, name, len) != 0) return false;
    return entry[len] == '\0' || (entry[len] == '-' && entry[len + 1 + strspn(entry + len + 1, letters)] == '\0');
}

/* Finds the oldest directory of this user there. */
static bool own_find_in(const char *place, const char *name, char path[OWN_SIZE]) {
    struct candidate best = {.path = ""}, next;
    const struct dirent *entry;
    DIR *directory = own_is_safe(place) ? opendir(place) : NULL;
    if (directory == NULL) return false;
    while ((entry = readdir(directory)) != NULL) {
        if (!own_has_name(entry->d_name, name)) continue;
        const int len = snprintf(next.path, sizeof next.path, "%s/%s", place, entry->d_name);
        if (len >= OWN_SIZE || !own_is_ours(next.path, &next.made)) continue;
        if (best.path[0] == '\0' || own_is_before(&next, &best)) best = next;
    }
    closedir(directory);
    memcpy(path, best.path, OWN_SIZE);
    return best.path[0] != '\0';
}

/* Makes the directory. 0 or an errno. */
static int own_make_in(const char *place, const char *name) {
    char path[OWN_SIZE];
    if (!own_is_safe(place)) return errno;
    snprintf(path, sizeof path, "%s/%s", place, name);
    if (mkdir(path, S_IRWXU) == 0) return 0;
    if (errno != EEXIST) return errno;
    snprintf(path, sizeof path, "%s/%s-XXXXXX", place, name);
    return mkdtemp(path) != NULL ? 0 : errno;
}

/* Whether the error will last. Only then is the next place tried. Otherwise a disk that is full now would lead to a
 * second file. */
static bool own_is_lasting(int error) {
    return error == ENOENT || error == ENOTDIR || error == EROFS || error == EACCES || error == EPERM;
}

int own_directory(char path[OWN_SIZE], steady_message *why) {
    char name[40];
    int error = ENOENT;
    snprintf(name, sizeof name, "steady-%lu", (unsigned long)geteuid());
    umask(S_IRWXG | S_IRWXO);
    for (int i = 0; i < N_PLACES; i++)
        if (own_find_in(places[i], name, path)) return 0;
    for (int i = 0; i < N_PLACES && own_is_lasting(error); i++) {
        error = own_make_in(places[i], name);
        if (error == 0 && own_find_in(places[i], name, path))
            return 0; /* perhaps an older one, made at the same time */
        snprintf(why->text, sizeof why->text, "no directory for your own file: %s: %s; use --store file:PATH",
                 places[i], strerror(error));
    }
    return STEADY_SYSTEM;
}
