/* SPDX-License-Identifier: MIT
 * The mapped file: made whole or not at all, refused and left alone where anything about it is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "assertions.h"
#include "region.h"
#include "table.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define BUCKETS 64
#define HEADER_SIZE 4096
#define NOBODY 65534

static char folder[64];
static char path[128], staging[128], other[128];

static int set_up(void **state) {
    (void)state;
    strcpy(folder, "/tmp/steady-region-XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/store", folder);
    snprintf(staging, sizeof staging, "%s/store.new", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    const char *names[] = {path, staging, other};
    for (size_t i = 0; i < COUNT(names); i++)
        if (remove(names[i]) != 0 && errno != ENOENT) return -1;
    return rmdir(folder);
}

/* ---- Helpers ---- */

static void open_store(struct steady__region *region, uint32_t buckets) {
    steady_message why = {""};
    if (steady__region_file(region, path, buckets, &why) != 0) fail_msg("%s", why.text);
}

static void make_store(void) {
    struct steady__region region;
    open_store(&region, BUCKETS);
    steady__region_close(&region);
}

static void write_file(const char *name, const void *bytes, size_t len) {
    const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

struct snapshot {
    struct stat st;
    size_t len;
    unsigned char bytes[64 * 1024];
};

static void take_snapshot(struct snapshot *s) {
    memset(s, 0, sizeof *s);
    assert_int_equal(lstat(path, &s->st), 0);
    if (!S_ISREG(s->st.st_mode)) return;
    const int fd = open(path, O_RDONLY);
    const ssize_t len = read(fd, s->bytes, sizeof s->bytes);
    close(fd);
    assert_true(len >= 0);
    s->len = (size_t)len;
}

/* What is at `path` is refused with this word in the message, at once, and stays as it is. */
static void assert_refused(int error, const char *word) {
    static struct snapshot before, after;
    struct steady__region region;
    steady_message why = {""};
    take_snapshot(&before);
    assert_int_equal(steady__region_file(&region, path, 0, &why), error);
    if (strstr(why.text, word) == NULL) fail_msg("\"%s\" does not say \"%s\"", why.text, word);
    assert_null(region.map);
    take_snapshot(&after);
    assert_int_equal(before.st.st_ino, after.st.st_ino);
    assert_int_equal(before.st.st_mode, after.st.st_mode);
    assert_int_equal(before.st.st_uid, after.st.st_uid);
    assert_int_equal(before.st.st_size, after.st.st_size);
    assert_int_equal(before.st.st_nlink, after.st.st_nlink);
    assert_memory_equal(&before.st.st_mtim, &after.st.st_mtim, sizeof before.st.st_mtim);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.bytes, after.bytes, before.len);
    assert_int_equal(access(staging, F_OK), -1);
}

/* Changes the header of the store at `path`, and makes its checksum right again. */
static void edit_header(size_t offset, const void *bytes, size_t len) {
    static const unsigned char no_key[STEADY__SIPHASH_KEY];
    unsigned char header[HEADER_SIZE];
    const int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, header, sizeof header, 0), HEADER_SIZE);
    memcpy(header + offset, bytes, len);
    const uint64_t checksum = steady__siphash(no_key, header, HEADER_SIZE - 8).word[0];
    memcpy(header + HEADER_SIZE - 8, &checksum, 8);
    assert_int_equal(pwrite(fd, header, sizeof header, 0), HEADER_SIZE);
    close(fd);
}

static void age_store(void) { edit_header(40, "00000000-0000-4000-8000-000000000000", 36); }

static ino_t inode(void) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* The exit status of a child, 128 + n if signal n ended it. */
static int wait_for(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- What is made ---- */

static void test_makes_a_file(void **state) {
    (void)state;
    const mode_t masks[] = {0, 0777};
    for (size_t i = 0; i < COUNT(masks); i++) {
        struct steady__region a, b;
        struct stat st;
        const mode_t old = umask(masks[i]);
        open_store(&a, BUCKETS + 1);
        umask(old);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(st.st_size, HEADER_SIZE + (off_t)steady__table_bytes(2 * BUCKETS));
        assert_true(st.st_blocks * 512 >= st.st_size);
        assert_int_equal((uintptr_t)a.bytes % STEADY__TABLE_ALIGN, 0);
        open_store(&b, 0);
        assert_int_equal(b.buckets, 2 * BUCKETS);
        assert_memory_equal(a.key, b.key, sizeof a.key);
        memset(a.bytes, 7, 3);
        assert_memory_equal(b.bytes, "\7\7\7\0", 4);
        steady__region_close(&a);
        steady__region_close(&a);
        steady__region_close(&b);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(access(staging, F_OK), -1);
    }
}

static void test_keys_differ(void **state) {
    (void)state;
    struct steady__region a, b;
    open_store(&a, 0);
    assert_int_equal(a.buckets, STEADY__FILE_BUCKETS);
    assert_int_equal(unlink(path), 0);
    open_store(&b, 0);
    assert_memory_not_equal(a.key, b.key, sizeof a.key);
    steady__region_close(&a);
    steady__region_close(&b);
}

static void test_a_file_keeps_its_size(void **state) {
    (void)state;
    struct steady__region region;
    steady_message why;
    make_store();
    assert_int_equal(steady__region_file(&region, path, 128, &why), STEADY_BAD_FILE);
    assert_non_null(strstr(why.text, "has 64 buckets; 128 were asked for"));
    open_store(&region, BUCKETS);
    steady__region_close(&region);
}

static void test_lives_on_without_its_name(void **state) {
    (void)state;
    struct steady__region region;
    open_store(&region, BUCKETS);
    assert_int_equal(unlink(path), 0);
    memset(region.bytes, 1, steady__table_bytes(BUCKETS));
    steady__region_close(&region);
}

static void test_leftover_of_a_dead_maker_is_used_up(void **state) {
    (void)state;
    struct steady__region region;
    write_file(staging, "half a header", 13);
    open_store(&region, BUCKETS);
    assert_int_equal(access(staging, F_OK), -1);
    for (size_t i = 0; i < steady__table_bytes(BUCKETS); i++)
        assert_int_equal(((unsigned char *)region.bytes)[i], 0);
    steady__region_close(&region);
}

/* ---- Another boot ---- */

static void test_file_of_another_boot_is_replaced(void **state) {
    (void)state;
    struct steady__region before, after;
    open_store(&before, BUCKETS);
    memset(before.bytes, 7, 100);
    const ino_t old = inode();
    age_store();
    open_store(&after, 0);
    assert_int_not_equal(inode(), old);
    assert_int_equal(((unsigned char *)after.bytes)[0], 0);
    assert_int_equal(((unsigned char *)before.bytes)[0], 7);
    steady__region_close(&before);
    steady__region_close(&after);
}

/* Whoever comes first after a boot, and says no number of buckets, makes it as large as it was. */
static void test_a_file_keeps_its_size_over_a_boot(void **state) {
    (void)state;
    static const uint32_t wanted[] = {0, BUCKETS, 4 * BUCKETS};
    static const uint32_t found[] = {2 * BUCKETS, BUCKETS, 4 * BUCKETS};
    for (size_t i = 0; i < COUNT(wanted); i++) {
        struct steady__region region;
        struct stat st;
        open_store(&region, 2 * BUCKETS);
        steady__region_close(&region);
        age_store();
        open_store(&region, wanted[i]);
        assert_int_equal(region.buckets, found[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, HEADER_SIZE + (off_t)steady__table_bytes(found[i]));
        steady__region_close(&region);
        assert_int_equal(unlink(path), 0);
    }
}

static void test_waits_a_second_for_another_maker(void **state) {
    (void)state;
    struct steady__region region;
    steady_message why;
    make_store();
    age_store();
    const ino_t old = inode();
    write_file(staging, "", 0);
    const int fd = open(staging, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    const int64_t start = now_ms();
    assert_int_equal(steady__region_file(&region, path, 0, &why), STEADY_SYSTEM);
    assert_non_null(strstr(why.text, "another process"));
    assert_between(now_ms() - start, 900, 10000);
    assert_int_equal(inode(), old);
    close(fd);
    open_store(&region, 0);
    steady__region_close(&region);
}

/* Adds one to a counter in the store, whichever store that is. */
static pid_t fork_counter(int start) {
    const pid_t child = fork();
    if (child != 0) return child;
    struct steady__region region;
    char byte;
    while (read(start, &byte, 1) < 0)
        ;
    if (steady__region_file(&region, path, 0, NULL) != 0) _exit(1);
    __atomic_fetch_add((uint64_t *)region.bytes, 1, __ATOMIC_SEQ_CST);
    _exit(0);
}

static void test_makers_at_once_share_one_file(void **state) {
    (void)state;
    enum { MAKERS = 6 };
    for (int round = 0; round < 20; round++) {
        struct steady__region region;
        pid_t children[MAKERS];
        int start[2];
        if (round % 2) {
            make_store();
            age_store();
        }
        assert_int_equal(pipe(start), 0);
        for (int i = 0; i < MAKERS; i++)
            children[i] = fork_counter(start[0]);
        assert_int_equal(write(start[1], "......", MAKERS), MAKERS);
        for (int i = 0; i < MAKERS; i++)
            assert_int_equal(wait_for(children[i]), 0);
        close(start[0]);
        close(start[1]);
        open_store(&region, 0);
        assert_int_equal(*(uint64_t *)region.bytes, MAKERS);
        steady__region_close(&region);
        assert_int_equal(unlink(path), 0);
    }
}

/* One may take longer: the new file is written to the disk, which other programs write to as well. */
static void test_maker_killed_anywhere(void **state) {
    unsigned slow = 0;
    (void)state;
    for (int round = 0; round < 60; round++) {
        struct steady__region region;
        const struct timespec moment = {.tv_nsec = round * 20000};
        const pid_t child = fork();
        if (child == 0) _exit(steady__region_file(&region, path, BUCKETS, NULL) != 0);
        nanosleep(&moment, NULL);
        kill(child, SIGKILL);
        wait_for(child);
        const int64_t begin = now_ms();
        open_store(&region, BUCKETS);
        const int64_t took = now_ms() - begin;
        assert_between(took, 0, 1000);
        slow += took >= 100;
        steady__region_close(&region);
        assert_int_equal(unlink(path), 0);
    }
    assert_true(slow <= 1);
}

/* ---- What is refused ---- */

static void put_nothing(void) { write_file(path, "", 0); }
static void put_half_a_header(void) { assert_int_equal(truncate(path, HEADER_SIZE / 2), 0); }
static void put_header_only(void) { assert_int_equal(truncate(path, HEADER_SIZE), 0); }
static void cut_a_byte(void) {
    assert_int_equal(truncate(path, HEADER_SIZE + (off_t)steady__table_bytes(BUCKETS) - 1), 0);
}
static void add_a_byte(void) {
    assert_int_equal(truncate(path, HEADER_SIZE + (off_t)steady__table_bytes(BUCKETS) + 1), 0);
}
static void put_sqlite(void) {
    unsigned char bytes[8192] = "SQLite format 3";
    write_file(path, bytes, sizeof bytes);
}
static void put_noise(void) {
    unsigned char bytes[8192];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * i >> 3);
    write_file(path, bytes, sizeof bytes);
}
static void turn_byte_order(void) { edit_header(8, "\x0a\x0b\x0c\x0d", 4); }
static void make_newer(void) { edit_header(12, "\2\0\0\0", 4); }
static void make_older(void) { edit_header(12, "\0\0\0\0", 4); }
static void make_slots_larger(void) { edit_header(16, "\x40\0\0\0", 4); }
static void make_groups_larger(void) { edit_header(20, "\x10\0\0\0", 4); }
static void claim_65_buckets(void) { edit_header(24, "\x41\0\0\0", 4); }
static void claim_many_buckets(void) { edit_header(24, "\xff\xff\xff\xff", 4); }
static void claim_128_buckets(void) { edit_header(24, "\x80\0\0\0\x18\0\0\0\3\0\0\0", 12); }
static void claim_more_groups(void) { edit_header(28, "\x0d\0\0\0", 4); }
static void claim_more_overflow(void) { edit_header(32, "\x02\0\0\0", 4); }
static void open_to_group(void) { assert_int_equal(chmod(path, 0640), 0); }
static void open_to_all(void) { assert_int_equal(chmod(path, 0666), 0); }
static void add_a_name(void) { assert_int_equal(link(path, other), 0); }
static void put_symlink(void) {
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
}
static void put_dangling_symlink(void) {
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(other, path), 0);
}
static void put_fifo(void) {
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
}
static void put_folder(void) {
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
}

static const struct {
    void (*spoil)(void);
    const char *word;
} faults[] = {
    {put_nothing, "too short"},
    {put_half_a_header, "too short"},
    {put_header_only, "size is wrong"},
    {cut_a_byte, "size is wrong"},
    {add_a_byte, "size is wrong"},
    {put_sqlite, "not a Steady store"},
    {put_noise, "not a Steady store"},
    {turn_byte_order, "byte order"},
    {make_newer, "another version"},
    {make_older, "another version"},
    {make_slots_larger, "another build"},
    {make_groups_larger, "another build"},
    {claim_65_buckets, "another build"},
    {claim_many_buckets, "another build"},
    {claim_128_buckets, "size is wrong"},
    {claim_more_groups, "another build"},
    {claim_more_overflow, "another build"},
    {open_to_group, "mode must be 0600"},
    {open_to_all, "mode must be 0600"},
    {add_a_name, "hard link"},
    {put_symlink, "symbolic link"},
    {put_dangling_symlink, "symbolic link"},
    {put_fifo, "not a regular file"},
    {put_folder, "not a regular file"},
};

static void test_refuses_whatever_is_wrong(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        make_store();
        faults[i].spoil();
        assert_refused(STEADY_BAD_FILE, faults[i].word);
        assert_int_equal(remove(path), 0);
        remove(other);
    }
}

static void test_refuses_any_flipped_bit_of_the_header(void **state) {
    (void)state;
    make_store();
    const int fd = open(path, O_RDWR);
    for (off_t at = 0; at < HEADER_SIZE; at++) {
        struct steady__region region;
        unsigned char byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        for (int bit = 0; bit < 8; bit++) {
            flipped = byte ^ (unsigned char)(1 << bit);
            assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
            assert_int_equal(steady__region_file(&region, path, 0, NULL), STEADY_BAD_FILE);
        }
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
    make_store();
}

static void test_refuses_the_file_of_another_user(void **state) {
    (void)state;
    if (geteuid() != 0) skip_because("takes root");
    make_store();
    assert_int_equal(chown(path, NOBODY, NOBODY), 0);
    assert_refused(STEADY_BAD_FILE, "owned by another user");
}

static void test_says_what_the_system_says(void **state) {
    (void)state;
    struct steady__region region;
    steady_message why;
    assert_int_equal(steady__region_file(&region, "/nonexistent/folder/store", 0, &why), STEADY_SYSTEM);
    assert_non_null(strstr(why.text, "store.new: No such file or directory"));
}

/* The new file's name in use for something else. */
static void assert_cannot_be_made(const char *text) {
    struct steady__region region;
    steady_message why;
    assert_int_equal(steady__region_file(&region, path, 0, &why), STEADY_BAD_FILE);
    assert_non_null(strstr(why.text, text));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(remove(staging), 0);
}

static void test_refuses_whatever_stands_where_it_is_made(void **state) {
    (void)state;
    assert_int_equal(symlink(other, staging), 0);
    assert_cannot_be_made("store.new: a symbolic link");
    assert_int_equal(mkfifo(staging, 0600), 0);
    assert_cannot_be_made("store.new: not a regular file");
    assert_int_equal(mkdir(staging, 0700), 0);
    assert_cannot_be_made("store.new: not a regular file");
}

static void test_says_when_access_is_denied(void **state) {
    (void)state;
    if (geteuid() != 0) skip_because("takes root");
    make_store();
    const pid_t child = fork();
    if (child == 0) {
        struct steady__region region;
        steady_message why;
        if (setuid(NOBODY) != 0) _exit(1);
        if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) _exit(2);
        _exit(strstr(why.text, "Permission denied") != NULL ? 0 : 3);
    }
    assert_int_equal(wait_for(child), 0);
}

/* In mounts of its own: a file system without room, and a kernel without a boot id. */
static int without_room_or_boot_id(void) {
    struct steady__region region;
    steady_message why;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", folder, "tmpfs", 0, "size=64k,mode=0700") != 0) return 77;
    if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) return 1;
    if (strstr(why.text, "No space left") == NULL) return 2;
    if (access(path, F_OK) == 0 || access(staging, F_OK) == 0) return 3;
    if (mount("tmpfs", "/proc/sys/kernel/random", "tmpfs", 0, NULL) != 0) return 77;
    if (steady__region_file(&region, path, BUCKETS, &why) != STEADY_SYSTEM) return 4;
    if (strstr(why.text, "boot_id: No such file") == NULL) return 5;
    write_file("/proc/sys/kernel/random/boot_id", "short\n", 6);
    errno = EACCES; /* of something earlier */
    if (steady__region_file(&region, path, BUCKETS, &why) != STEADY_SYSTEM) return 6;
    if (strstr(why.text, "boot_id: too short") == NULL) return 7;
    return 0;
}

static void test_without_room_or_boot_id(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(without_room_or_boot_id());
    const int status = wait_for(child);
    if (status == 77) skip_because("mounts take root");
    assert_int_equal(status, 0);
}

/* ---- Later ---- */

/* Not a wish, but what happens, and what the manual says. */
static void test_cut_file_raises_sigbus(void **state) {
    (void)state;
    struct steady__region region;
    open_store(&region, BUCKETS);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGBUS, SIG_DFL);
        if (truncate(path, 0) != 0) _exit(1);
        memset(region.bytes, 1, 1);
        _exit(2);
    }
    assert_int_equal(wait_for(child), 128 + SIGBUS);
    steady__region_close(&region);
    assert_refused(STEADY_BAD_FILE, "too short");
}

/* ---- Private memory ---- */

static void test_private_memory(void **state) {
    (void)state;
    struct steady__region region;
    assert_int_equal(steady__region_private(&region, 1000, NULL), 0);
    assert_int_equal(region.buckets, 1024);
    assert_int_equal((uintptr_t)region.bytes % STEADY__TABLE_ALIGN, 0);
    for (size_t i = 0; i < steady__table_bytes(1024); i++)
        assert_int_equal(((unsigned char *)region.bytes)[i], 0);
    steady__region_close(&region);
    steady__region_close(&region);
}

static void test_no_memory(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit little = {1 << 20, 1 << 20};
        struct steady__region region;
        steady_message why = {""};
        if (setrlimit(RLIMIT_AS, &little) != 0) _exit(1);
        if (steady__region_private(&region, 1 << 20, &why) != STEADY_NO_MEMORY) _exit(2);
        _exit(strstr(why.text, "1048576 buckets") != NULL && region.map == NULL ? 0 : 3);
    }
    assert_int_equal(wait_for(child), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_makes_a_file),
        TEST(test_keys_differ),
        TEST(test_a_file_keeps_its_size),
        TEST(test_lives_on_without_its_name),
        TEST(test_leftover_of_a_dead_maker_is_used_up),
        TEST(test_file_of_another_boot_is_replaced),
        TEST(test_a_file_keeps_its_size_over_a_boot),
        TEST(test_waits_a_second_for_another_maker),
        TEST(test_makers_at_once_share_one_file),
        TEST(test_maker_killed_anywhere),
        TEST(test_refuses_whatever_is_wrong),
        TEST(test_refuses_any_flipped_bit_of_the_header),
        TEST(test_refuses_the_file_of_another_user),
        TEST(test_says_what_the_system_says),
        TEST(test_says_when_access_is_denied),
        TEST(test_refuses_whatever_stands_where_it_is_made),
        TEST(test_without_room_or_boot_id),
        TEST(test_cut_file_raises_sigbus),
        TEST(test_private_memory),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
