/* SPDX-License-Identifier: MIT
 * A region of bytes for a table: private memory, or a mapped file.
 *
 * The file is a header of 4096 bytes and the slots of table.c. Numbers are little-endian.
 *
 *     offset  size
 *          0     8  magic "Steady\x1a\n"
 *          8     4  0x0a0b0c0d, to know a machine of the other byte order by
 *         12     4  version of this format, 1
 *         16     4  bytes of a slot, 32
 *         20     4  slots of a group, 8
 *         24     4  buckets the table was made for: a power of two from 64
 *         28     4  groups
 *         32     4  overflow slots
 *         36     4  0
 *         40    40  /proc/sys/kernel/random/boot_id, padded with zeroes
 *         80    16  key of the hash
 *         96  3992  zeroes
 *       4088     8  checksum: first half of the SipHash, under a key of zeroes, of all before
 *       4096        the groups, then the overflow slots
 *
 * The header is written once, before the file has its name, and never again. A file is valid if it is a regular file of
 * the effective user, closed to group and others, with no second name, of exactly the size that the header implies, and
 * the header is as above. Anything else is refused and left as it is. What the slots hold is not checked: table.c makes
 * do with any bytes. The header is read once, into private memory; what becomes of it later does not matter.
 *
 * BOOTS. Times in the slots count from boot, so a valid file of another boot means nothing. It is replaced by a new
 * one, whole, and as large as it was unless another size is asked for: a process that still had it mapped would go on
 * alone, but none survives a boot.
 *
 * MAKING ONE. The new file is made under the name `path`.new, and renamed when it is complete and on the disk; so no
 * one ever sees half a header at `path`. Whoever makes it holds a flock on `path`.new, from before he looks at `path`
 * for the last time until after the rename. If he is killed, the kernel drops the lock, and the next one starts the
 * leftover `path`.new afresh. Having waited for a lock, one has to look whether the locked file still is the one of
 * that name.
 *
 * LATER. The space is allocated when the file is made, so a full disk shows here and not as a SIGBUS later. Nothing
 * else is locked, or written but by table.c. A process killed at any moment leaves a valid file. A file that is
 * unlinked or renamed lives on for those who have it open. But a file that somebody cuts short under us raises SIGBUS
 * in the next decision that touches the missing part, as with any mapping: the library leaves signal handlers to the
 * program. */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "table.h"

#define HEADER_SIZE 4096
#define MAGIC "Steady\x1a\n"
#define BYTE_ORDER_MARK 0x0a0b0c0du
#define VERSION 1u
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define OPEN_FLAGS (O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)

/* How long to wait for another process that is making the file. */
#define ATTEMPTS 100
#define ATTEMPT_MS 10

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
    char boot_id[40];
    unsigned char key[STEADY__SIPHASH_KEY];
    unsigned char zeroes[3992];
    uint64_t checksum;
};

_Static_assert(sizeof(struct header) == HEADER_SIZE, "the file format says so");
_Static_assert(HEADER_SIZE % STEADY__TABLE_ALIGN == 0, "the table begins after the header");

/* ---- Texts ---- */

static int fail_at(const char *path, steady_message *why, int error, const char *what) {
    char shown[128];
    steady__printable(shown, sizeof shown, path, strlen(path));
    return steady__fail(why, error, "%s: %s", shown, what);
}

static int fail_errno(const char *path, steady_message *why) {
    return fail_at(path, why, STEADY_SYSTEM, strerror(errno));
}

/* ---- The header ---- */

static uint64_t checksum_of(const struct header *h) {
    static const unsigned char no_key[STEADY__SIPHASH_KEY];
    return steady__siphash(no_key, h, offsetof(struct header, checksum)).word[0];
}

static int read_boot_id(char id[40], steady_message *why) {
    const int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    memset(id, 0, 40);
    const ssize_t len = fd < 0 ? -1 : read(fd, id, 36);
    const int error = len == 36 ? 0
                      : len < 0 ? fail_errno(BOOT_ID, why)
                                : fail_at(BOOT_ID, why, STEADY_SYSTEM, "too short for the id of a boot");
    if (fd >= 0) close(fd);
    return error;
}

static int new_key(unsigned char key[STEADY__SIPHASH_KEY], steady_message *why) {
    if (getrandom(key, STEADY__SIPHASH_KEY, 0) == STEADY__SIPHASH_KEY) return 0;
    return fail_errno("getrandom", why);
}

static int new_header(struct header *h, uint32_t buckets, steady_message *why) {
    memset(h, 0, sizeof *h);
    memcpy(h->magic, MAGIC, sizeof h->magic);
    h->byte_order = BYTE_ORDER_MARK;
    h->version = VERSION;
    h->slot_size = STEADY__SLOT_SIZE;
    h->group_slots = STEADY__GROUP_SLOTS;
    h->buckets = buckets;
    h->groups = steady__table_groups(buckets);
    h->overflow_slots = steady__table_overflow(buckets);
    int error = read_boot_id(h->boot_id, why);
    if (error == 0) error = new_key(h->key, why);
    h->checksum = checksum_of(h);
    return error;
}

static bool has_our_geometry(const struct header *h) {
    return h->slot_size == STEADY__SLOT_SIZE && h->group_slots == STEADY__GROUP_SLOTS &&
           h->buckets <= STEADY__BUCKETS_MAX && h->buckets == steady__table_buckets(h->buckets) &&
           h->groups == steady__table_groups(h->buckets) && h->overflow_slots == steady__table_overflow(h->buckets);
}

static off_t file_size(uint32_t buckets) { return (off_t)(HEADER_SIZE + steady__table_bytes(buckets)); }

/* What is wrong with it; NULL: nothing. */
static const char *header_fault(const struct header *h, off_t size) {
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0) return "not a Steady store";
    if (h->byte_order != BYTE_ORDER_MARK) return "a store of a machine with another byte order";
    if (h->version != VERSION) return "a store of another version of Steady";
    if (h->checksum != checksum_of(h)) return "a damaged store: the checksum of its header is wrong";
    if (!has_our_geometry(h)) return "a store of another build of Steady";
    if (size != file_size(h->buckets)) return "a damaged store: its size is wrong";
    return NULL;
}

/* ---- The file ---- */

enum found { READY, ABSENT, STALE, BUSY, FAULTY };

static const char *file_fault(const struct stat *st) {
    if (!S_ISREG(st->st_mode)) return "not a regular file";
    if (st->st_uid != geteuid()) return "owned by another user";
    if ((st->st_mode & 077) != 0) return "open to group or others; its mode must be 0600";
    if (st->st_nlink > 1) return "it has a second name (a hard link)";
    return NULL;
}

static int fail_open(const char *path, steady_message *why) {
    const char *fault = errno == ELOOP                      ? "a symbolic link"
                        : errno == EISDIR || errno == ENXIO ? "not a regular file"
                                                            : NULL;
    return fault != NULL ? fail_at(path, why, STEADY_BAD_FILE, fault) : fail_errno(path, why);
}

static enum found check_open(int fd, const char *path, struct header *h, steady_message *why, int *error) {
    struct stat st;
    struct header ours;
    const char *fault = fstat(fd, &st) != 0 ? strerror(errno) : file_fault(&st);
    if (fault == NULL && st.st_nlink == 0) return BUSY; /* replaced since it was opened */
    if (fault == NULL && pread(fd, h, sizeof *h, 0) != HEADER_SIZE) fault = "too short for a Steady store";
    if (fault == NULL) fault = header_fault(h, st.st_size);
    *error = fault != NULL ? fail_at(path, why, STEADY_BAD_FILE, fault) : read_boot_id(ours.boot_id, why);
    if (*error != 0) return FAULTY;
    return memcmp(h->boot_id, ours.boot_id, sizeof h->boot_id) == 0 ? READY : STALE;
}

/* READY: *fd is open. FAULTY: *error is set. */
static enum found look(const char *path, int *fd, struct header *h, steady_message *why, int *error) {
    *fd = open(path, OPEN_FLAGS);
    if (*fd < 0 && errno == ENOENT) return ABSENT;
    if (*fd < 0) {
        *error = fail_open(path, why);
        return FAULTY;
    }
    const enum found found = check_open(*fd, path, h, why, error);
    if (found != READY) {
        close(*fd);
        *fd = -1;
    }
    return found;
}

/* ---- Making one ---- */

static bool is_named(int fd, const char *name) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(name, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int allocate(int fd, off_t size) {
    do
        errno = posix_fallocate(fd, 0, size);
    while (errno == EINTR);
    return errno;
}

static int fill(int fd, const char *path, uint32_t buckets, steady_message *why) {
    struct header h;
    const int error = new_header(&h, buckets, why);
    if (error != 0) return error;
    if (fchmod(fd, 0600) != 0 || ftruncate(fd, 0) != 0 || allocate(fd, file_size(buckets)) != 0 ||
        pwrite(fd, &h, sizeof h, 0) != HEADER_SIZE || fdatasync(fd) != 0)
        return fail_errno(path, why);
    return 0;
}

static uint32_t buckets_to_make(uint32_t wanted, enum found found, const struct header *h) {
    if (wanted == 0) wanted = found == STALE ? h->buckets : STEADY__FILE_BUCKETS;
    return steady__table_buckets(wanted);
}

/* With the lock on `staging` held: makes the file, unless it is there by now. */
static int make_locked(int fd, const char *staging, const char *path, uint32_t wanted, steady_message *why) {
    struct header h = {0};
    int other = -1, error = 0;
    const enum found found = look(path, &other, &h, why, &error);
    if (found == ABSENT || found == STALE) {
        error = fill(fd, path, buckets_to_make(wanted, found, &h), why);
        if (error == 0 && rename(staging, path) == 0) return 0;
        if (error == 0) error = fail_errno(path, why);
    }
    if (other >= 0) close(other);
    unlink(staging);
    return error;
}

/* READY: look at `path` again. BUSY: somebody else is at it. FAULTY: *error is set. */
static enum found make(const char *path, uint32_t wanted, steady_message *why, int *error) {
    char staging[PATH_MAX + 8];
    struct stat st;
    enum found found = BUSY;
    snprintf(staging, sizeof staging, "%s.new", path);
    const int fd = open(staging, OPEN_FLAGS | O_CREAT, 0600);
    if (fd < 0) {
        *error = fail_open(staging, why);
        return FAULTY;
    }
    const char *fault = fstat(fd, &st) != 0 ? strerror(errno) : file_fault(&st);
    if (fault != NULL) {
        *error = fail_at(staging, why, STEADY_BAD_FILE, fault);
        found = FAULTY;
    } else if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(fd, staging)) {
        *error = make_locked(fd, staging, path, wanted, why);
        found = *error == 0 ? READY : FAULTY;
    }
    close(fd);
    return found;
}

static void pause_a_moment(void) {
    const struct timespec moment = {.tv_nsec = ATTEMPT_MS * 1000000};
    nanosleep(&moment, NULL);
}

static int map_file(struct steady__region *region, int fd, const char *path, const struct header *h,
                    steady_message *why) {
    const size_t size = (size_t)file_size(h->buckets);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return fail_errno(path, why);
    region->map = map;
    region->map_size = size;
    region->bytes = (unsigned char *)map + HEADER_SIZE;
    region->buckets = h->buckets;
    memcpy(region->key, h->key, sizeof region->key);
    return 0;
}

static int use(struct steady__region *region, int fd, const char *path, const struct header *h, uint32_t wanted,
               steady_message *why) {
    int error = 0;
    if (wanted != 0 && steady__table_buckets(wanted) != h->buckets)
        error = steady__fail(why, STEADY_BAD_FILE, "the store has %lu buckets; %lu were asked for",
                             (unsigned long)h->buckets, (unsigned long)steady__table_buckets(wanted));
    if (error == 0) error = map_file(region, fd, path, h, why);
    close(fd);
    return error;
}

int steady__region_file(struct steady__region *region, const char *path, uint32_t buckets, steady_message *why) {
    memset(region, 0, sizeof *region);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct header h = {0};
        int fd = -1, error = 0;
        enum found found = look(path, &fd, &h, why, &error);
        if (found == READY) return use(region, fd, path, &h, buckets, why);
        if (found == ABSENT || found == STALE) found = make(path, buckets, why, &error);
        if (found == FAULTY) return error;
        if (found == BUSY) pause_a_moment();
    }
    return fail_at(path, why, STEADY_SYSTEM, "another process has been making it for a second");
}

/* ---- Private memory ---- */

int steady__region_private(struct steady__region *region, uint32_t buckets, steady_message *why) {
    memset(region, 0, sizeof *region);
    buckets = steady__table_buckets(buckets);
    const size_t size = steady__table_bytes(buckets);
    const int error = new_key(region->key, why);
    if (error != 0) return error;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return steady__fail(why, STEADY_NO_MEMORY, "no memory for %lu buckets", (unsigned long)buckets);
    madvise(map, size, MADV_HUGEPAGE); /* most of a decision is waiting for a random cache line */
    region->map = map;
    region->map_size = size;
    region->bytes = map;
    region->buckets = buckets;
    return 0;
}

void steady__region_close(struct steady__region *region) {
    if (region->map != NULL) munmap(region->map, region->map_size);
    region->map = NULL;
}
