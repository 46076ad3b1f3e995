/* SPDX-License-Identifier: MIT
 * The mapped file: made whole or not at all; refused and left alone if anything about it is wrong. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "assertions.h"
#include "local/region.h"
#include "local/table.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define BUCKETS 64
#define HEADER_SIZE 4096
#define OFFSET_AT 80
#define CHECKSUM_AT 4080
#define SUCCESSOR_AT 4088
#define OTHER_USER 65534

static char folder[64];
static char path[128], beside[128], other[128];

static pid_t parent;

static int set_up(void **state) {
    (void)state;
    parent = getpid();
    strcpy(folder, "/tmp/steady-region-XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof path, "%s/store", folder);
    snprintf(beside, sizeof beside, "%s/store.new", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    if (getpid() != parent) _exit(99); /* an assertion failed in a child */
    const char *names[] = {path, beside, other};
    for (size_t i = 0; i < COUNT(names); i++)
        if (remove(names[i]) != 0 && errno != ENOENT) return -1;
    return rmdir(folder);
}

/* ---- Helpers ---- */

/* The number of files in the folder. */
static int files(void) {
    DIR *open_folder = opendir(folder);
    int count = -2; /* . and .. */
    assert_non_null(open_folder);
    while (readdir(open_folder) != NULL)
        count++;
    closedir(open_folder);
    return count;
}

static void open_store(struct steady__region *region, uint32_t buckets) {
    steady_message why = {.text = ""};
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

/* The file at `path` is refused with this word in the message, at once, and stays as it is. */
static void assert_refused(int error, const char *word) {
    static struct snapshot before, after;
    struct steady__region region;
    steady_message why = {.text = ""};
    const int files_before = files();
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
    assert_int_equal(files(), files_before);
}

/* Changes the header of the store at `path`, and corrects its checksum. */
static void edit_header(size_t offset, const void *bytes, size_t len) {
    static const unsigned char no_key[STEADY__SIPHASH_KEY];
    unsigned char header[HEADER_SIZE];
    const int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, header, sizeof header, 0), HEADER_SIZE);
    memcpy(header + offset, bytes, len);
    const uint64_t checksum = steady__siphash(no_key, header, CHECKSUM_AT).word[0];
    memcpy(header + CHECKSUM_AT, &checksum, 8);
    assert_int_equal(pwrite(fd, header, sizeof header, 0), HEADER_SIZE);
    close(fd);
}

static void age_store(void) { edit_header(40, "00000000-0000-4000-8000-000000000000", 36); }

static ino_t inode(void) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* The exit status of a child, or 128 + n if signal n ended it. */
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

/* ---- New files ---- */

static void new_file_has_mode_0600_and_its_whole_size(void **state) {
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
        assert_int_equal(files(), 1);
        assert_int_equal(unlink(path), 0);
    }
}

static void each_new_file_has_its_own_hash_key(void **state) {
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

static void file_of_another_size_is_refused(void **state) {
    (void)state;
    struct steady__region region;
    steady_message why;
    make_store();
    assert_int_equal(steady__region_file(&region, path, 128, &why), STEADY_BAD_FILE);
    assert_non_null(strstr(why.text, "has 64 buckets; 128 were requested"));
    open_store(&region, BUCKETS);
    steady__region_close(&region);
}

static void unlinked_file_stays_usable(void **state) {
    (void)state;
    struct steady__region region;
    open_store(&region, BUCKETS);
    assert_int_equal(unlink(path), 0);
    memset(region.bytes, 1, steady__table_bytes(BUCKETS));
    steady__region_close(&region);
}

/* Makes a store at `path`, then replaces it as one of an earlier boot. */
static void make_and_replace(void) {
    struct steady__region region;
    make_store();
    age_store();
    open_store(&region, 0);
    steady__region_close(&region);
    assert_int_equal(unlink(path), 0);
}

static void other_files_in_the_folder_are_left_alone(void **state) {
    (void)state;
    static const char notes[] = "a shopping list\n";
    char text[64] = "";
    struct stat before, after;
    write_file(beside, notes, sizeof notes);
    assert_int_equal(stat(beside, &before), 0);
    make_and_replace();
    assert_int_equal(stat(beside, &after), 0);
    const int fd = open(beside, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), sizeof notes);
    close(fd);
    assert_string_equal(text, notes);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(files(), 1);
}

static void another_store_in_the_folder_is_left_alone(void **state) {
    (void)state;
    struct steady__region used;
    steady_message why = {.text = ""};
    if (steady__region_file(&used, beside, BUCKETS, &why) != 0) fail_msg("%s", why.text);
    make_and_replace();
    memset(used.bytes, 7, steady__table_bytes(BUCKETS)); /* SIGBUS if the file was cut */
    steady__region_close(&used);
}

static void links_fifos_and_folders_in_the_folder_do_no_harm(void **state) {
    (void)state;
    assert_int_equal(symlink(other, beside), 0);
    make_and_replace();
    assert_int_equal(access(other, F_OK), -1);
    assert_int_equal(unlink(beside), 0);
    assert_int_equal(mkfifo(beside, 0600), 0);
    make_and_replace();
    assert_int_equal(unlink(beside), 0);
    assert_int_equal(mkdir(beside, 0700), 0);
    make_and_replace();
}

/* ---- File systems with fewer features ---- */

/* Makes a system call fail if the flags in this argument have any of these bits. */
struct refusal {
    int call;
    unsigned argument;
    uint32_t bits;
    int error;
};

#define AT(member) (uint32_t) offsetof(struct seccomp_data, member)

static bool refuse(const struct refusal *r) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT(nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)r->call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(AT(args) + 8 * r->argument)),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, r->bits, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)r->error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static const struct refusal no_tmpfile = {SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP};
static const struct refusal no_noreplace = {SYS_renameat2, 4, 1, EINVAL};

static void file_system_without_o_tmpfile_can_be_used(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        if (!refuse(&no_tmpfile)) _exit(77);
        if (open(folder, O_TMPFILE | O_RDWR, 0600) >= 0 || errno != EOPNOTSUPP) _exit(1);
        make_and_replace();
        _exit(files() == 0 ? 0 : 2);
    }
    const int status = wait_for(child);
    if (status == 77) skip_because("no seccomp here");
    assert_int_equal(status, 0);
}

static void file_system_without_rename_noreplace_is_refused(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        struct steady__region region;
        steady_message why;
        if (!refuse(&no_tmpfile) || !refuse(&no_noreplace)) _exit(77);
        if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) _exit(1);
        if (strstr(why.text, "RENAME_NOREPLACE") == NULL) _exit(2);
        _exit(files() == 0 ? 0 : 3);
    }
    const int status = wait_for(child);
    if (status == 77) skip_because("no seccomp here");
    assert_int_equal(status, 0);
}

static void *open_in_thread(void *arg) {
    struct steady__region region;
    (void)arg;
    if (steady__region_file(&region, path, BUCKETS, NULL) != 0) _exit(1);
    steady__region_close(&region);
    _exit(0);
}

static void thread_that_outlives_the_main_thread_makes_a_file(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, open_in_thread, NULL) != 0) _exit(2);
        pthread_exit(NULL);
    }
    assert_int_equal(wait_for(child), 0);
}

/* ---- Another boot ---- */

static void file_of_another_boot_is_replaced(void **state) {
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

/* The first process after a boot makes the file again. If it asks for no number of buckets, the file keeps its size. */
static void file_of_another_boot_passes_its_size_on(void **state) {
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

/* Forks a child that adds one to a counter in whatever store is at `path`. */
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

static void processes_that_open_at_once_share_one_file(void **state) {
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

static void process_killed_at_any_time_leaves_a_file_that_opens_at_once(void **state) {
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
    assert_true(slow <= 1); /* other programs may delay the write of the new file to the disk */
}

/* ---- A process that stops or dies at each system call ---- */

/* Forks a child that adds one to a counter in the store, like fork_counter, traced by us. */
static pid_t fork_maker(void) {
    const pid_t child = fork();
    if (child != 0) return child;
    struct steady__region region;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
    raise(SIGSTOP);
    if (steady__region_file(&region, path, 0, NULL) != 0) _exit(1);
    __atomic_fetch_add((uint64_t *)region.bytes, 1, __ATOMIC_SEQ_CST);
    _exit(0);
}

/* Starts the child and stops it at its nth entry to or exit from a system call. False: it ended before. */
static bool stop_at(pid_t maker, int nth) {
    int status;
    assert_int_equal(waitpid(maker, &status, 0), maker);
    for (int i = 0; i < nth && WIFSTOPPED(status); i++) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, maker, NULL, NULL), 0);
        assert_int_equal(waitpid(maker, &status, 0), maker);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip_because("no ptrace here");
    assert_true(WIFSTOPPED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSTOPPED(status);
}

static void remove_leftovers(void) {
    DIR *open_folder = opendir(folder);
    struct dirent *entry;
    while ((entry = readdir(open_folder)) != NULL)
        if (strncmp(entry->d_name, ".steady-", 8) == 0) unlinkat(dirfd(open_folder), entry->d_name, 0);
    closedir(open_folder);
}

/* Another process opens the store meanwhile, at once and whole. Returns the time that it took, in ms. */
static int64_t open_meanwhile(bool old, bool ends) {
    const int64_t begin = now_ms();
    struct steady__region region;
    open_store(&region, 0);
    const int64_t took = now_ms() - begin;
    __atomic_fetch_add((uint64_t *)region.bytes, 1, __ATOMIC_SEQ_CST);
    assert_int_equal(region.buckets, old ? BUCKETS : STEADY__FILE_BUCKETS);
    steady__region_close(&region);
    assert_between(files(), 1, ends ? 2 : 3);
    return took;
}

/* At each system call the child stops or dies, and another process opens the store. Returns how often that took over
 * 100 ms. */
static int stop_everywhere(bool old, bool dies) {
    int slow = 0, stopped = 1;
    for (int nth = 1; stopped; nth++) {
        struct steady__region region;
        if (old) make_store();
        if (old) age_store();
        const pid_t maker = fork_maker();
        stopped = stop_at(maker, nth);
        if (stopped && dies) {
            kill(maker, SIGKILL);
            assert_int_equal(wait_for(maker), 128 + SIGKILL);
        }
        slow += open_meanwhile(old, dies) > 100;
        if (stopped && !dies) {
            ptrace(PTRACE_DETACH, maker, NULL, NULL);
            assert_int_equal(wait_for(maker), 0);
            assert_int_equal(files(), 1);
        }
        open_store(&region, 0);
        const uint64_t counted = *(uint64_t *)region.bytes;
        assert_true(counted == 2 || (counted == 1 && dies));
        steady__region_close(&region);
        assert_int_equal(unlink(path), 0);
        remove_leftovers();
    }
    return slow;
}

static void process_stopped_at_any_system_call_does_not_block_another(void **state) {
    (void)state;
    assert_true(stop_everywhere(false, false) <= 2);
    assert_true(stop_everywhere(true, false) <= 2);
}

static void process_killed_at_any_system_call_does_not_block_another(void **state) {
    (void)state;
    assert_true(stop_everywhere(false, true) <= 2);
    assert_true(stop_everywhere(true, true) <= 2);
}

/* The file that was chosen as successor is deleted before it is installed, for example by a cleaner. */
static void deleted_successor_file_is_made_again(void **state) {
    (void)state;
    struct steady__region region;
    make_store();
    age_store();
    const ino_t old = inode();
    const int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "12345678", 8, SUCCESSOR_AT), 8);
    close(fd);
    open_store(&region, 0);
    assert_int_not_equal(inode(), old);
    assert_int_equal(files(), 1);
    steady__region_close(&region);
}

/* ---- Files that are refused ---- */

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
static void make_newer(void) { edit_header(12, "\4\0\0\0", 4); }
static void make_older(void) { edit_header(12, "\2\0\0\0", 4); }
static void make_slots_larger(void) { edit_header(16, "\x40\0\0\0", 4); }
static void make_groups_larger(void) { edit_header(20, "\x10\0\0\0", 4); }
static void claim_65_buckets(void) { edit_header(24, "\x41\0\0\0", 4); }
static void claim_many_buckets(void) { edit_header(24, "\xff\xff\xff\xff", 4); }
static void claim_128_buckets(void) { edit_header(24, "\x80\0\0\0\x18\0\0\0\3\0\0\0", 12); }
static void claim_more_groups(void) { edit_header(28, "\x0d\0\0\0", 4); }
static void claim_more_overflow(void) { edit_header(32, "\x02\0\0\0", 4); }
static void shift_clock(void) { edit_header(OFFSET_AT, "1 0\0", 4); }
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
    {shift_clock, "time namespace"},
    {open_to_group, "mode must be 0600"},
    {open_to_all, "mode must be 0600"},
    {add_a_name, "hard link"},
    {put_symlink, "symbolic link"},
    {put_dangling_symlink, "symbolic link"},
    {put_fifo, "not a regular file"},
    {put_folder, "not a regular file"},
};

static void damaged_file_is_refused_and_left_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        make_store();
        faults[i].spoil();
        assert_refused(STEADY_BAD_FILE, faults[i].word);
        assert_int_equal(remove(path), 0);
        remove(other);
    }
}

static void header_with_a_flipped_bit_is_refused(void **state) {
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

static void file_of_another_user_is_refused(void **state) {
    (void)state;
    if (geteuid() != 0) skip_because("takes root");
    make_store();
    assert_int_equal(chown(path, OTHER_USER, OTHER_USER), 0);
    assert_refused(STEADY_BAD_FILE, "owned by another user");
}

static void error_of_the_system_is_reported(void **state) {
    (void)state;
    struct steady__region region;
    steady_message why;
    assert_int_equal(steady__region_file(&region, "/nonexistent/folder/store", 0, &why), STEADY_SYSTEM);
    assert_non_null(strstr(why.text, "store: No such file or directory"));
}

static void denied_access_is_reported(void **state) {
    (void)state;
    if (geteuid() != 0) skip_because("takes root");
    make_store();
    const pid_t child = fork();
    if (child == 0) {
        struct steady__region region;
        steady_message why;
        if (setuid(OTHER_USER) != 0) _exit(1);
        if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) _exit(2);
        _exit(strstr(why.text, "Permission denied") != NULL ? 0 : 3);
    }
    assert_int_equal(wait_for(child), 0);
}

/* In a mount namespace: a file system without room, and a kernel without a boot id. */
static int without_room_or_boot_id(void) {
    struct steady__region region;
    steady_message why;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", folder, "tmpfs", 0, "size=64k,mode=0700") != 0) return 77;
    if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) return 1;
    if (strstr(why.text, "No space left") == NULL) return 2;
    if (files() != 0) return 3;
    if (mount("tmpfs", "/proc/sys/kernel/random", "tmpfs", 0, NULL) != 0) return 77;
    if (steady__region_file(&region, path, BUCKETS, &why) != STEADY_SYSTEM) return 4;
    if (strstr(why.text, "boot_id: No such file") == NULL) return 5;
    write_file("/proc/sys/kernel/random/boot_id", "short\n", 6);
    errno = EACCES; /* left from an earlier error */
    if (steady__region_file(&region, path, BUCKETS, &why) != STEADY_SYSTEM) return 6;
    if (strstr(why.text, "boot_id: too short") == NULL) return 7;
    return 0;
}

static void full_disk_and_missing_boot_id_are_errors(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(without_room_or_boot_id());
    const int status = wait_for(child);
    if (status == 77) skip_because("mounts take root");
    assert_int_equal(status, 0);
}

/* ---- Limits ---- */

/* In a child: opens the store under this limit of file sizes. Returns 0, or the number of the check that failed. */
static int open_limited(rlim_t bytes, bool fits) {
    const struct rlimit limit = {bytes, bytes};
    struct steady__region region;
    steady_message why = {.text = ""};
    signal(SIGXFSZ, SIG_DFL);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    const int error = steady__region_file(&region, path, BUCKETS, &why);
    if (fits) return error == 0 ? 0 : 2;
    if (error != STEADY_SYSTEM || strstr(why.text, "File too large") == NULL) return 3;
    if (strstr(why.text, "ulimit -f") == NULL) return 4;
    return files() == 0 ? 0 : 5;
}

static void limit_of_file_sizes_is_an_error_without_a_signal(void **state) {
    (void)state;
    const rlim_t size = HEADER_SIZE + (rlim_t)steady__table_bytes(BUCKETS);
    const rlim_t limits[] = {0, 1, HEADER_SIZE, size - 1, size, size + 1};
    for (size_t i = 0; i < COUNT(limits); i++) {
        const bool fits = limits[i] >= size;
        const pid_t child = fork();
        if (child == 0) _exit(open_limited(limits[i], fits));
        assert_int_equal(wait_for(child), 0);
        if (fits) assert_int_equal(unlink(path), 0);
    }
    make_store(); /* an existing file needs no more room */
    const pid_t child = fork();
    if (child == 0) _exit(open_limited(0, true));
    assert_int_equal(wait_for(child), 0);
}

/* A copy without its zeros, which are holes. */
static void make_holes(void) {
    make_store();
    assert_int_equal(truncate(path, HEADER_SIZE), 0);
    assert_int_equal(truncate(path, HEADER_SIZE + (off_t)steady__table_bytes(BUCKETS)), 0);
}

static void holes_of_a_file_are_filled(void **state) {
    (void)state;
    struct steady__region region;
    struct stat st;
    make_holes();
    open_store(&region, 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 >= st.st_size);
    steady__region_close(&region);
}

static int holes_without_room(void) {
    struct steady__region region;
    steady_message why;
    char full[8192] = {1};
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", folder, "tmpfs", 0, "size=64k,mode=0700") != 0) return 77;
    make_holes();
    const int fd = open(other, O_WRONLY | O_CREAT, 0600);
    while (write(fd, full, 4096) == 4096)
        ;
    close(fd);
    if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) return 1;
    return strstr(why.text, "No space left") != NULL ? 0 : 2;
}

static void holes_on_a_full_disk_are_an_error(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(holes_without_room());
    const int status = wait_for(child);
    if (status == 77) skip_because("mounts take root");
    assert_int_equal(status, 0);
}

static int over_quota(void) {
    struct steady__region region;
    steady_message why;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", folder, "tmpfs", 0, "mode=0777,usrquota,usrquota_block_hardlimit=64k") != 0) return 78;
    if (setuid(OTHER_USER) != 0) return 1; /* root has no quota */
    if (steady__region_file(&region, path, 0, &why) != STEADY_SYSTEM) return 2;
    if (strstr(why.text, "quota") == NULL) return 3;
    return files() == 0 ? 0 : 4;
}

static void exceeded_quota_is_an_error(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(over_quota());
    const int status = wait_for(child);
    if (status == 77) skip_because("mounts take root");
    if (status == 78) skip_because("this kernel has no quotas of a tmpfs");
    assert_int_equal(status, 0);
}

/* At each limit that makes the opening fail: an error, and no file is left over. */
static int open_below(__rlimit_resource_t resource, rlim_t bound, int expected) {
    const struct rlimit limit = {bound, bound};
    struct steady__region region;
    steady_message why = {.text = ""};
    if (setrlimit(resource, &limit) != 0) return 1;
    if (steady__region_file(&region, path, 1 << 20, &why) != expected) return 2;
    if (expected == 0) return 0;
    return why.text[0] != '\0' && region.map == NULL ? 0 : 3;
}

static void other_resource_limits_are_errors_or_have_no_effect(void **state) {
    (void)state;
    const struct {
        __rlimit_resource_t resource;
        rlim_t bound;
        int expected;
    } limits[] = {{RLIMIT_AS, 1 << 20, STEADY_SYSTEM},
                  {RLIMIT_NOFILE, 3, STEADY_SYSTEM},
                  {RLIMIT_MEMLOCK, 0, 0},
                  {RLIMIT_NPROC, 0, 0}};
    for (size_t i = 0; i < COUNT(limits); i++) {
        const pid_t child = fork();
        if (child == 0) _exit(open_below(limits[i].resource, limits[i].bound, limits[i].expected));
        assert_int_equal(wait_for(child), 0);
        if (unlink(path) != 0) assert_int_equal(errno, ENOENT);
        assert_int_equal(files(), 0);
    }
}

/* ---- Time namespaces ---- */

/* In a child: enters a time namespace whose boot clock is `ahead` seconds ahead. Calls `then` in a child of it. */
static int in_time_namespace(int ahead, int (*then)(void)) {
    char text[64];
    const int len = snprintf(text, sizeof text, "boottime %d 0", ahead);
    if (unshare(CLONE_NEWTIME) != 0) return 77;
    const int fd = open("/proc/self/timens_offsets", O_WRONLY);
    if (fd < 0 || write(fd, text, (size_t)len) != len) return 77;
    close(fd);
    const pid_t child = fork();
    if (child == 0) _exit(then());
    return wait_for(child);
}

static int is_refused(void) {
    assert_refused(STEADY_BAD_FILE, "time namespace");
    return 0;
}

static int is_opened(void) {
    struct steady__region region;
    return steady__region_file(&region, path, 0, NULL);
}

static void run_in_time_namespace(int ahead, int (*then)(void)) {
    const pid_t child = fork();
    if (child == 0) _exit(in_time_namespace(ahead, then));
    const int status = wait_for(child);
    if (status == 77) skip_because("no time namespaces here");
    assert_int_equal(status, 0);
}

static void file_of_another_time_namespace_is_refused(void **state) {
    (void)state;
    make_store();
    run_in_time_namespace(100, is_refused);
    assert_int_equal(is_opened(), 0);
    assert_int_equal(unlink(path), 0);
    run_in_time_namespace(100, is_opened); /* this makes the file */
    assert_int_equal(is_refused(), 0);
    run_in_time_namespace(100, is_opened);
    run_in_time_namespace(101, is_refused);
}

static void time_namespace_with_the_same_clock_is_accepted(void **state) {
    (void)state;
    make_store();
    run_in_time_namespace(0, is_opened);
}

static int is_opened_unshared(void) { return unshare(CLONE_NEWTIME) == 0 ? is_opened() : 77; }

static void own_time_namespace_is_known_after_unshare(void **state) {
    (void)state;
    make_store();
    const pid_t child = fork();
    if (child == 0) _exit(is_opened_unshared());
    const int status = wait_for(child);
    if (status == 77) skip_because("no time namespaces here");
    assert_int_equal(status, 0);
}

/* In a mount namespace without /proc/self/ns/time, like a kernel without time namespaces. */
static int without_time_namespaces(void) {
    struct steady__region region;
    char of_boot[64];
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    const ssize_t len = read(fd, of_boot, sizeof of_boot);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return 77;
    if (mount("tmpfs", "/proc", "tmpfs", 0, "mode=0755") != 0) return 77;
    mkdir("/proc/sys", 0755), mkdir("/proc/sys/kernel", 0755), mkdir("/proc/sys/kernel/random", 0755);
    write_file("/proc/sys/kernel/random/boot_id", of_boot, (size_t)len);
    return steady__region_file(&region, path, 0, NULL);
}

static void kernel_without_time_namespaces_opens_the_file(void **state) {
    (void)state;
    make_store();
    const pid_t child = fork();
    if (child == 0) _exit(without_time_namespaces());
    const int status = wait_for(child);
    if (status == 77) skip_because("mounts take root");
    assert_int_equal(status, 0);
}

/* ---- After opening ---- */

/* Not a feature, but the documented effect. */
static void file_cut_while_mapped_raises_sigbus(void **state) {
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

static void private_memory_is_zeroed_and_aligned(void **state) {
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

static void private_memory_over_the_limit_is_no_memory(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit little = {1 << 20, 1 << 20};
        struct steady__region region;
        steady_message why = {.text = ""};
        if (setrlimit(RLIMIT_AS, &little) != 0) _exit(1);
        if (steady__region_private(&region, 1 << 20, &why) != STEADY_NO_MEMORY) _exit(2);
        _exit(strstr(why.text, "1048576 buckets") != NULL && region.map == NULL ? 0 : 3);
    }
    assert_int_equal(wait_for(child), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(new_file_has_mode_0600_and_its_whole_size),
        TEST(each_new_file_has_its_own_hash_key),
        TEST(file_of_another_size_is_refused),
        TEST(unlinked_file_stays_usable),
        TEST(other_files_in_the_folder_are_left_alone),
        TEST(another_store_in_the_folder_is_left_alone),
        TEST(links_fifos_and_folders_in_the_folder_do_no_harm),
        TEST(file_system_without_o_tmpfile_can_be_used),
        TEST(file_system_without_rename_noreplace_is_refused),
        TEST(thread_that_outlives_the_main_thread_makes_a_file),
        TEST(file_of_another_boot_is_replaced),
        TEST(file_of_another_boot_passes_its_size_on),
        TEST(processes_that_open_at_once_share_one_file),
        TEST(process_killed_at_any_time_leaves_a_file_that_opens_at_once),
        TEST(process_stopped_at_any_system_call_does_not_block_another),
        TEST(process_killed_at_any_system_call_does_not_block_another),
        TEST(deleted_successor_file_is_made_again),
        TEST(damaged_file_is_refused_and_left_alone),
        TEST(header_with_a_flipped_bit_is_refused),
        TEST(file_of_another_user_is_refused),
        TEST(error_of_the_system_is_reported),
        TEST(denied_access_is_reported),
        TEST(full_disk_and_missing_boot_id_are_errors),
        TEST(limit_of_file_sizes_is_an_error_without_a_signal),
        TEST(holes_of_a_file_are_filled),
        TEST(holes_on_a_full_disk_are_an_error),
        TEST(exceeded_quota_is_an_error),
        TEST(other_resource_limits_are_errors_or_have_no_effect),
        TEST(file_of_another_time_namespace_is_refused),
        TEST(time_namespace_with_the_same_clock_is_accepted),
        TEST(own_time_namespace_is_known_after_unshare),
        TEST(kernel_without_time_namespaces_opens_the_file),
        TEST(file_cut_while_mapped_raises_sigbus),
        TEST(private_memory_is_zeroed_and_aligned),
        TEST(private_memory_over_the_limit_is_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
