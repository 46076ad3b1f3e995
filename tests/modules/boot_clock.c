/* SPDX-License-Identifier: MIT
 * For LD_PRELOAD: the file $BOOT_CLOCK sets the clock of the embedded store, and the time in the decision log. It has
 * the time in microseconds since 1970. The machine was then started a day before. All other clocks go on. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DAY_US INT64_C(86400000000)

static volatile int64_t *now_us;
static int64_t booted_us;

__attribute__((constructor)) static void map_clock(void) {
    const char *path = getenv("BOOT_CLOCK");
    const int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, sizeof *now_us, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (page == MAP_FAILED) abort();
    close(fd);
    now_us = page;
    booted_us = *now_us - DAY_US;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    if (id != CLOCK_BOOTTIME || now_us == NULL) return (int)syscall(SYS_clock_gettime, id, t);
    const int64_t since = *now_us - booted_us;
    *t = (struct timespec){since / 1000000, since % 1000000 * 1000};
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    *t = (struct timeval){*now_us / 1000000, *now_us % 1000000};
    return 0;
}
