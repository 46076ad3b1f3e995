/* SPDX-License-Identifier: MIT
 * A region of bytes for a table: private memory, or a mapped file.
 *
 * The file is a header of 4096 bytes and the slots of table.c. Numbers are little-endian.
 *
 *     offset  size
 *          0     8  magic "Steady\x1a\n"
 *          8     4  0x0a0b0c0d: the byte order of the machine
 *         12     4  version of this format, 3
 *         16     4  bytes of a slot, 32
 *         20     4  slots of a group, 8
 *         24     4  buckets the table was made for: a power of two from 64
 *         28     4  groups
 *         32     4  overflow slots
 *         36     4  0
 *         40    40  /proc/sys/kernel/random/boot_id, padded with zeroes
 *         80    40  offset of CLOCK_BOOTTIME in the time namespace, as text, padded with zeroes: see read_offset
 *        120    16  key of the hash
 *        136  3944  zeroes
 *       4080     8  checksum: first half of the SipHash, under a key of zeroes, of all before
 *       4088     8  successor: 0, or the number in the name of the file that will replace this one
 *       4096        the groups, then the overflow slots
 *
 * A file is valid if all of this holds:
 *   - it is a regular file of the effective user, closed to group and others, with no second name;
 *   - it has exactly the size that the header implies, and the header is as above.
 * Any other file is refused and left as it is. The slots are not checked: table.c accepts any bytes. The header is
 * written before the file has a name. Later only `successor` changes, and only in a file of an earlier boot. The header
 * is read once, into private memory.
 *
 * CLOCKS. Times in the slots count from boot. A file of another boot has no meaning, and is replaced by a new file. The
 * new file is as large as the old one, unless another size is requested. No process that maps the old file can be
 * alive. A file of this boot with another offset is refused: other processes use it, with another clock.
 *
 * MAKING A FILE. The new file has no name until it is complete and on the disk (O_TMPFILE). Then it is linked to
 * `path`, which fails if `path` exists. So the first maker wins, and no maker waits for another one. A file system
 * without O_TMPFILE gets a random name beside `path`, .steady-NUMBER, and a rename that does not replace.
 *
 * REPLACING A FILE. Linux cannot replace a name only if it still is a certain file. So the makers agree first:
 *   1. Each maker gives its complete file a random name, .steady-NUMBER.
 *   2. It writes NUMBER into `successor` of the old file by a compare-and-swap from 0. The first maker wins.
 *   3. Every maker renames the file of the winner to `path`. One rename succeeds. The others fail, as the name is gone.
 * A number is used once, so a late rename finds nothing. A maker that is stopped or killed anywhere hinders no other
 * maker. If it is killed between the steps 1 and 2, its file .steady-NUMBER is left over and may be deleted. If the
 * winner's file was deleted, its number is taken back and the makers begin anew.
 *
 * LATER. The space is allocated at open, so a full disk is an error at open and no SIGBUS later. Nothing is locked. A
 * process killed at any moment leaves a valid file. A file that is unlinked or renamed lives on for the processes that
 * have it open. If another program truncates the file, the next decision that touches the missing part raises SIGBUS,
 * as with any mapping: the library leaves signal handlers to the program. */
#include "local/region.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "local/table.h"

#define HEADER_SIZE 4096
#define MAGIC "Steady\x1a\n"
#define BYTE_ORDER_MARK 0x0a0b0c0du
#define VERSION 3u
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define TIME_NAMESPACE "/proc/thread-self/ns/time"
#define TIME_NAMESPACE_OF_CHILDREN "/proc/thread-self/ns/time_for_children"
#define TIME_OFFSETS "/proc/self/timens_offsets" /* /proc/thread-self has no such file */
#define FIRST_TIME_NAMESPACE "time:[4026531834]" /* of the host: the kernel has this number as a constant */
#define OPEN_FLAGS (O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
#define ATTEMPTS 100 /* each fails only if another process has changed what `path` is */

/* The clock of the times in a file. */
struct clock_id {
    char boot[40];
    char offset[40];
};

struct header {
    char magic[8];
    uint32_t byte_order;
    uint32_t version;
    uint32_t slot_size;
    uint32_t group_slots;
    uint32_t buckets;
    uint32_t groups;
    uint32_t overflow_slots;
    uint32_t zero;
    struct clock_id clock;
    unsigned char key[STEADY__SIPHASH_KEY];
    unsigned char zeroes[3944];
    uint64_t checksum;
    uint64_t successor;
};

_Static_assert(sizeof(struct header) == HEADER_SIZE, "the file format says so");
_Static_assert(offsetof(struct header, checksum) == 4080, "the file format says so");
_Static_assert(HEADER_SIZE % STEADY__TABLE_ALIGN == 0, "the table begins after the header");

/* ---- Texts ---- */

static int region_fail_at(const char *path, steady_message *why, int error, const char *what) {
    char shown[128];
    steady_quote(shown, sizeof shown, path);
    return steady__fail(why, error, "%s: %s", shown, what);
}

static int region_fail_errno(const char *path, steady_message *why) {
    return region_fail_at(path, why, STEADY_SYSTEM, strerror(errno));
}

/* ---- The header ---- */

static uint64_t region_checksum_of(const struct header *h) {
    static const unsigned char no_key[STEADY__SIPHASH_KEY];
    return steady__siphash(no_key, h, offsetof(struct header, checksum)).word[0];
}

static int region_read_boot_id(char id[40], steady_message *why) {
    const int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    const ssize_t len = fd < 0 ? -1 : read(fd, id, 36);
    const int error = len == 36 ? 0
                      : len < 0 ? region_fail_errno(BOOT_ID, why)
                                : region_fail_at(BOOT_ID, why, STEADY_SYSTEM, "too short for a boot id");
    if (fd >= 0) close(fd);
    return error;
}

/* "SECONDS NANOSECONDS" of the time namespace for children, which has to be ours. */
static bool region_read_offset_of_children(char offset[40]) {
    char text[256] = "", seconds[19], ns[19];
    const int fd = open(TIME_OFFSETS, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    const char *line = len > 0 ? strstr(text, "boottime") : NULL;
    if (line == NULL || sscanf(line, "boottime %18s %18s", seconds, ns) != 2) return false;
    memset(offset, 0, 40);
    snprintf(offset, 40, "%s %s", seconds, ns);
    return true;
}

/* A kernel without time namespaces has one clock, as the host has: offset 0. A process that has called
 * unshare(CLONE_NEWTIME) sees only the offset of its children. The name of the namespace has to do. */
static int region_read_offset(char offset[40], steady_message *why) {
    char ours[39] = "", of_children[39] = "";
    if (readlink(TIME_NAMESPACE, ours, sizeof ours - 1) < 0 && errno != ENOENT)
        return region_fail_errno(TIME_NAMESPACE, why);
    snprintf(offset, 40, "%s", ours[0] == '\0' || strcmp(ours, FIRST_TIME_NAMESPACE) == 0 ? "0 0" : ours);
    if (strcmp(offset, ours) != 0) return 0;
    if (readlink(TIME_NAMESPACE_OF_CHILDREN, of_children, sizeof of_children - 1) > 0 && strcmp(ours, of_children) == 0)
        (void)region_read_offset_of_children(offset);
    return 0;
}

static int region_read_clock_id(struct clock_id *id, steady_message *why) {
    memset(id, 0, sizeof *id);
    const int error = region_read_boot_id(id->boot, why);
    return error == 0 ? region_read_offset(id->offset, why) : error;
}

static int region_get_random(void *bytes, size_t len, steady_message *why) {
    return getrandom(bytes, len, 0) == (ssize_t)len ? 0 : region_fail_errno("getrandom", why);
}

static int region_new_header(struct header *h, uint32_t buckets, const struct clock_id *clock, steady_message *why) {
    memset(h, 0, sizeof *h);
    memcpy(h->magic, MAGIC, sizeof h->magic);
    h->byte_order = BYTE_ORDER_MARK;
    h->version = VERSION;
    h->slot_size = STEADY__SLOT_SIZE;
    h->group_slots = STEADY__GROUP_SLOTS;
    h->buckets = buckets;
    h->groups = steady__table_groups(buckets);
    h->overflow_slots = steady__table_overflow(buckets);
    h->clock = *clock;
    const int error = region_get_random(h->key, sizeof h->key, why);
    h->checksum = region_checksum_of(h);
    return error;
}

static bool region_has_our_geometry(const struct header *h) {
    return h->slot_size == STEADY__SLOT_SIZE && h->group_slots == STEADY__GROUP_SLOTS &&
           h->buckets <= STEADY__BUCKETS_MAX && h->buckets == steady__table_buckets(h->buckets) &&
           h->groups == steady__table_groups(h->buckets) && h->overflow_slots == steady__table_overflow(h->buckets);
}

static off_t region_file_size(uint32_t buckets) { return (off_t)(HEADER_SIZE + steady__table_bytes(buckets)); }

/* The fault of a header; NULL: none. */
static const char *region_header_fault(const struct header *h, off_t size) {
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0) return "not a Steady store";
    if (h->byte_order != BYTE_ORDER_MARK) return "a store of a machine with another byte order";
    if (h->version != VERSION) return "a store of another version of Steady";
    if (h->checksum != region_checksum_of(h)) return "a damaged store: the checksum of its header is wrong";
    if (!region_has_our_geometry(h)) return "a store of another build of Steady";
    if (size != region_file_size(h->buckets)) return "a damaged store: its size is wrong";
    return NULL;
}

/* ---- The file ---- */

enum found { READY, ABSENT, STALE, REPLACED, FAULTY };

static const char *region_file_fault(const struct stat *st) {
    if (!S_ISREG(st->st_mode)) return "not a regular file";
    if (st->st_uid != geteuid()) return "owned by another user";
    if ((st->st_mode & 077) != 0) return "open to group or others; its mode must be 0600";
    if (st->st_nlink > 1) return "it has more than one name (a hard link)";
    return NULL;
}

static int region_fail_open(const char *path, steady_message *why) {
    const char *fault = errno == ELOOP                      ? "a symbolic link"
                        : errno == EISDIR || errno == ENXIO ? "not a regular file"
                                                            : NULL;
    return fault != NULL ? region_fail_at(path, why, STEADY_BAD_FILE, fault) : region_fail_errno(path, why);
}

/* The fault of a file of this boot; NULL: none. */
static const char *region_use_fault(const struct header *h, const struct clock_id *clock) {
    if (memcmp(h->clock.offset, clock->offset, sizeof clock->offset) != 0)
        return "a store of another time namespace: its clock since boot differs";
    return h->successor != 0 ? "a damaged store: a running system does not replace it" : NULL;
}

static enum found region_check_open(int fd, const char *path, const struct clock_id *clock, struct header *h,
                                    steady_message *why, int *error) {
    struct stat st;
    const char *fault = fstat(fd, &st) != 0 ? strerror(errno) : region_file_fault(&st);
    if (fault == NULL && st.st_nlink == 0) return REPLACED; /* since it was opened */
    if (fault == NULL && pread(fd, h, sizeof *h, 0) != HEADER_SIZE) fault = "too short for a Steady store";
    if (fault == NULL) fault = region_header_fault(h, st.st_size);
    const bool stale = fault == NULL && memcmp(h->clock.boot, clock->boot, sizeof clock->boot) != 0;
    if (fault == NULL && !stale) fault = region_use_fault(h, clock);
    if (fault == NULL) return stale ? STALE : READY;
    *error = region_fail_at(path, why, STEADY_BAD_FILE, fault);
    return FAULTY;
}

/* READY, STALE: *fd is open. FAULTY: *error is set. */
static enum found region_look(const char *path, const struct clock_id *clock, int *fd, struct header *h,
                              steady_message *why, int *error) {
    *fd = open(path, OPEN_FLAGS);
    if (*fd < 0 && errno == ENOENT) return ABSENT;
    if (*fd < 0) {
        *error = region_fail_open(path, why);
        return FAULTY;
    }
    const enum found found = region_check_open(*fd, path, clock, h, why, error);
    if (found != READY && found != STALE) {
        close(*fd);
        *fd = -1;
    }
    return found;
}

/* ---- A new file ---- */

struct fresh {
    int fd;
    uint64_t number; /* in its name; 0: it has none */
};

/* The length of the folder's part of a path, its last slash included. */
static int region_folder_len(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (int)(slash - path) + 1 : 0;
}

static int region_name_of(char name[PATH_MAX], const char *path, uint64_t number, steady_message *why) {
    const int len =
        snprintf(name, PATH_MAX, "%.*s.steady-%016llx", region_folder_len(path), path, (unsigned long long)number);
    if (len < PATH_MAX) return 0;
    return region_fail_at(path, why, STEADY_SYSTEM, strerror(ENAMETOOLONG));
}

static int region_new_name(char name[PATH_MAX], uint64_t *number, const char *path, steady_message *why) {
    const int error = region_get_random(number, sizeof *number, why);
    if (*number == 0) *number = 1;
    return error == 0 ? region_name_of(name, path, *number, why) : error;
}

static int region_create_named(struct fresh *fresh, const char *path, steady_message *why) {
    char name[PATH_MAX];
    uint64_t number;
    const int error = region_new_name(name, &number, path, why);
    if (error != 0) return error;
    fresh->fd = open(name, OPEN_FLAGS | O_CREAT | O_EXCL, 0600);
    if (fresh->fd < 0) return region_fail_errno(path, why);
    fresh->number = number;
    return 0;
}

static int region_create(struct fresh *fresh, const char *path, steady_message *why) {
    char folder[PATH_MAX];
    *fresh = (struct fresh){.fd = -1};
    const int len = snprintf(folder, sizeof folder, "%.*s.", region_folder_len(path), path);
    if (len < PATH_MAX) fresh->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fresh->fd >= 0 ? 0 : region_create_named(fresh, path, why);
}

static void region_discard(struct fresh *fresh, const char *path) {
    char name[PATH_MAX];
    if (fresh->number != 0 && region_name_of(name, path, fresh->number, NULL) == 0) unlink(name);
    if (fresh->fd >= 0) close(fresh->fd);
}

/* Beyond the limit the kernel would send SIGXFSZ, which ends the process. */
static int region_check_limit(off_t size, const char *path, steady_message *why) {
    struct rlimit limit;
    char fault[120];
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || (rlim_t)size <= limit.rlim_cur)
        return 0;
    snprintf(fault, sizeof fault, "%s: the store needs %lld bytes; the limit (ulimit -f) is %llu", strerror(EFBIG),
             (long long)size, (unsigned long long)limit.rlim_cur);
    return region_fail_at(path, why, STEADY_SYSTEM, fault);
}

static int region_allocate(int fd, off_t size) {
    do
        errno = posix_fallocate(fd, 0, size);
    while (errno == EINTR);
    return errno;
}

static int region_fill(int fd, const char *path, uint32_t buckets, const struct clock_id *clock, steady_message *why) {
    struct header h;
    int error = region_new_header(&h, buckets, clock, why);
    if (error == 0) error = region_check_limit(region_file_size(buckets), path, why);
    if (error != 0) return error;
    if (fchmod(fd, 0600) != 0 || region_allocate(fd, region_file_size(buckets)) != 0 ||
        pwrite(fd, &h, sizeof h, 0) != HEADER_SIZE || fdatasync(fd) != 0)
        return region_fail_errno(path, why);
    return 0;
}

static int region_create_full(struct fresh *fresh, const char *path, uint32_t buckets, const struct clock_id *clock,
                              steady_message *why) {
    const int error = region_create(fresh, path, why);
    return error == 0 ? region_fill(fresh->fd, path, steady__table_buckets(buckets), clock, why) : error;
}

/* Links a file without a name. It works in a thread that has outlived the first one, too. */
static int region_link_to(int fd, const char *name) {
    char link[48];
    snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
    return linkat(AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

/* ---- Making a file ---- */

/* musl 1.2.3 has neither renameat2 nor its flag. */
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#endif
static int region_rename_to_free(const char *name, const char *path) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, name, AT_FDCWD, path, RENAME_NOREPLACE);
}

static int region_make(const char *path, uint32_t wanted, const struct clock_id *clock, steady_message *why) {
    struct fresh fresh;
    char name[PATH_MAX];
    int error = region_create_full(&fresh, path, wanted != 0 ? wanted : STEADY__FILE_BUCKETS, clock, why);
    if (error == 0 && fresh.number != 0) error = region_name_of(name, path, fresh.number, why);
    if (error == 0) {
        const int done = fresh.number == 0 ? region_link_to(fresh.fd, path) : region_rename_to_free(name, path);
        if (done != 0 && errno == EINVAL)
            error =
                region_fail_at(path, why, STEADY_SYSTEM, "the file system has no O_TMPFILE and no RENAME_NOREPLACE");
        else if (done != 0 && errno != EEXIST)
            error = region_fail_errno(path, why);
    }
    region_discard(&fresh, path);
    return error;
}

/* ---- Replacing a file of an earlier boot ---- */

static bool region_is_named(int fd, const char *name) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(name, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Makes a complete file and proposes it. *chosen: the number of the file that will be the next one. */
static int region_propose(struct header *old, struct fresh *fresh, const char *path, uint32_t buckets,
                          const struct clock_id *clock, uint64_t *chosen, steady_message *why) {
    char name[PATH_MAX];
    uint64_t number;
    int error = region_create_full(fresh, path, buckets, clock, why);
    if (error == 0 && fresh->number == 0) {
        error = region_new_name(name, &number, path, why);
        if (error == 0 && region_link_to(fresh->fd, name) != 0) error = region_fail_errno(path, why);
        if (error == 0) fresh->number = number;
    }
    if (error != 0) return error;
    *chosen = 0;
    if (__atomic_compare_exchange_n(&old->successor, chosen, fresh->number, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        *chosen = fresh->number;
    return 0;
}

/* Puts the chosen file at `path`, unless that has been done. */
static int region_install(struct header *old, uint64_t chosen, int stale, const char *path, steady_message *why) {
    char name[PATH_MAX];
    const int error = region_name_of(name, path, chosen, why);
    if (error != 0 || !region_is_named(stale, path) || rename(name, path) == 0) return error;
    if (errno != ENOENT) return region_fail_errno(path, why);
    if (region_is_named(stale, path)) /* the chosen file was deleted */
        __atomic_compare_exchange_n(&old->successor, &chosen, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return 0;
}

static int region_replace(int stale, const char *path, uint32_t buckets, const struct clock_id *clock,
                          steady_message *why) {
    struct fresh fresh = {.fd = -1};
    struct header *h = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, stale, 0);
    if (h == MAP_FAILED) return region_fail_errno(path, why);
    uint64_t chosen = __atomic_load_n(&h->successor, __ATOMIC_SEQ_CST);
    int error = chosen == 0 ? region_propose(h, &fresh, path, buckets, clock, &chosen, why) : 0;
    if (error == 0) error = region_install(h, chosen, stale, path, why);
    region_discard(&fresh, path);
    munmap(h, HEADER_SIZE);
    return error;
}

/* ---- Using a file ---- */

/* Fills the holes of a file. A copied or restored file may have holes, and touching a hole on a full disk raises
 * SIGBUS. posix_fallocate is not used: if the file system cannot allocate, it writes into bytes that other processes
 * use. */
static int region_fill_holes(int fd, const char *path, off_t size, steady_message *why) {
    struct stat st;
    if (fstat(fd, &st) != 0) return region_fail_errno(path, why);
    if (st.st_blocks * 512 >= size) return 0;
    while (fallocate(fd, 0, 0, size) != 0)
        if (errno == EOPNOTSUPP)
            return 0;
        else if (errno != EINTR)
            return region_fail_errno(path, why);
    return 0;
}

static int region_map_file(struct steady__region *region, int fd, const char *path, const struct header *h,
                           steady_message *why) {
    const size_t size = (size_t)region_file_size(h->buckets);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return region_fail_errno(path, why);
    region->map = map;
    region->map_size = size;
    region->bytes = (unsigned char *)map + HEADER_SIZE;
    region->buckets = h->buckets;
    memcpy(region->key, h->key, sizeof region->key);
    return 0;
}

static int region_use(struct steady__region *region, int fd, const char *path, const struct header *h, uint32_t wanted,
                      steady_message *why) {
    int error = 0;
    if (wanted != 0 && steady__table_buckets(wanted) != h->buckets)
        error = steady__fail(why, STEADY_BAD_FILE, "the store has %lu buckets; %lu were requested",
                             (unsigned long)h->buckets, (unsigned long)steady__table_buckets(wanted));
    if (error == 0) error = region_fill_holes(fd, path, region_file_size(h->buckets), why);
    if (error == 0) error = region_map_file(region, fd, path, h, why);
    return error;
}

int steady__region_file(struct steady__region *region, const char *path, uint32_t buckets, steady_message *why) {
    struct clock_id clock;
    memset(region, 0, sizeof *region);
    int error = region_read_clock_id(&clock, why);
    for (int attempt = 0; attempt < ATTEMPTS && error == 0; attempt++) {
        struct header h = {0};
        int fd = -1;
        const enum found found = region_look(path, &clock, &fd, &h, why, &error);
        if (found == READY) error = region_use(region, fd, path, &h, buckets, why);
        if (found == ABSENT) error = region_make(path, buckets, &clock, why);
        if (found == STALE) error = region_replace(fd, path, buckets != 0 ? buckets : h.buckets, &clock, why);
        if (fd >= 0) close(fd);
        if (found == READY) return error;
    }
    return error != 0 ? error
                      : region_fail_at(path, why, STEADY_SYSTEM, "other processes keep replacing it; try again");
}

/* ---- Private memory ---- */

/* HUGE PAGES. A decision on a random key waits for memory most of the time, and less with huge pages. But with huge
 * pages from the beginning each of the first keys takes 2 MiB. So the memory begins with small pages. From buckets/64
 * keys on the slots in use lie in most small pages, so that huge pages take little more. Then the memory is changed
 * over, a huge page at a time: one copy takes well under a millisecond, all of them would hold an event loop for too
 * long. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM 64 /* a 64th of the buckets */
#define THP_SETTING "/sys/kernel/mm/transparent_hugepage/enabled"
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; before, the kernel changes over in the background */
#endif

static unsigned char *region_first_huge_page(const struct steady__region *region) {
    const uintptr_t begin = (uintptr_t)region->map;
    return (unsigned char *)region->map + (HUGE_PAGE - begin % HUGE_PAGE) % HUGE_PAGE;
}

static uint32_t region_count_huge_pages(const struct steady__region *region) {
    const size_t before = (size_t)(region_first_huge_page(region) - (unsigned char *)region->map);
    return region->map_size > before ? (uint32_t)((region->map_size - before) / HUGE_PAGE) : 0;
}

/* MADV_COLLAPSE ignores the setting of the system, so check it here. */
static bool region_are_huge_pages_allowed(void) {
    char setting[64] = "[never]";
    const int fd = open(THP_SETTING, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t len = read(fd, setting, sizeof setting - 1);
    close(fd);
    return len > 0 && strstr(setting, "[never]") == NULL;
}

void steady__region_grew(const struct steady__region *region, uint32_t slots) {
    const uint32_t from = region->buckets / HUGE_FROM;
    if (slots < from || region->huge_pages == 0) return;
    const uint32_t step = from > region->huge_pages ? from / region->huge_pages : 1;
    if ((slots - from) % step != 0 || (slots - from) / step >= region->huge_pages) return;
    const int saved = errno;
    unsigned char *page = region_first_huge_page(region) + (slots - from) / step * HUGE_PAGE;
    if (region_are_huge_pages_allowed() && madvise(page, HUGE_PAGE, MADV_HUGEPAGE) == 0)
        (void)madvise(page, HUGE_PAGE, MADV_COLLAPSE);
    errno = saved;
}

/* at NULL: anywhere. */
static void *region_map_private(void *at, size_t size) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at != NULL ? MAP_FIXED : 0);
    void *map = mmap(at, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (map != MAP_FAILED) madvise(map, size, MADV_NOHUGEPAGE); /* even if the system uses huge pages for all memory */
    return map;
}

int steady__region_private(struct steady__region *region, uint32_t buckets, steady_message *why) {
    memset(region, 0, sizeof *region);
    buckets = steady__table_buckets(buckets);
    const size_t size = steady__table_bytes(buckets);
    const int error = region_get_random(region->key, sizeof region->key, why);
    if (error != 0) return error;
    void *map = region_map_private(NULL, size);
    if (map == MAP_FAILED)
        return steady__fail(why, STEADY_NO_MEMORY, "no memory for %lu buckets", (unsigned long)buckets);
    region->is_private = true;
    region->map = map;
    region->map_size = size;
    region->bytes = map;
    region->buckets = buckets;
    region->huge_pages = region_count_huge_pages(region);
    return 0;
}

int steady__region_clear(struct steady__region *region) {
    return region_map_private(region->map, region->map_size) != MAP_FAILED ? 0 : STEADY_NO_MEMORY;
}

void steady__region_close(struct steady__region *region) {
    if (region->map != NULL) munmap(region->map, region->map_size);
    region->map = NULL;
}
