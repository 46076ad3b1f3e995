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
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"

/* In order of preference. Not /dev/shm, which logind empties at the last logout of a user. Not the home directory,
 * which several hosts may share. */
static const char *const places[] = {"/var/tmp", "/tmp"};
enum { N_PLACES = sizeof places / sizeof places[0] };

/* statx(2), which musl before 1.2.5 does not declare: the layout and the numbers of Linux. */
struct moment {
    int64_t sec;
    uint32_t nsec;
    int32_t padding;
};
struct extended_stat {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, padding;
    uint64_t ino, size, blocks, attributes_mask;
    struct moment accessed, made, changed, modified;
    uint64_t rest[16];
};
enum { BASIC_STATS = 0x7ff, BIRTH_TIME = 0x800 };
_Static_assert(sizeof(struct extended_stat) == 256, "the kernel writes 256 bytes");

/* A directory that exists, and when it was made. */
struct candidate {
    char path[OWN_SIZE];
    struct moment made;
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
static bool own_is_ours(const char *path, struct moment *made) {
    struct extended_stat st = {0};
    if (syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, BASIC_STATS | BIRTH_TIME, &st) != 0) return false;
    *made = (st.mask & BIRTH_TIME) != 0 ? st.made : (struct moment){0};
    return S_ISDIR(st.mode) && st.uid == geteuid() && (st.mode & (S_IRWXG | S_IRWXO)) == 0;
}

static bool own_is_before(const struct candidate *a, const struct candidate *b) {
    if (a->made.sec != b->made.sec) return a->made.sec < b->made.sec;
    if (a->made.nsec != b->made.nsec) return a->made.nsec < b->made.nsec;
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
