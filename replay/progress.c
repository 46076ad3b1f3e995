/* SPDX-License-Identifier: MIT
 * The progress of a replay. The line is redrawn in place five times a second. The cursor is never hidden or moved to
 * another line, so an end at any moment leaves a usable terminal. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PROGRESS_EACH = 200 * 1000, PROGRESS_BAR = 24, PROGRESS_LINE = 160 };

static int64_t progress_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void progress_begin(struct progress *progress) {
    *progress = (struct progress){.shown = isatty(STDERR_FILENO) == 1, .begun = progress_now()};
    progress->next = progress->begun + PROGRESS_EACH;
}

bool progress_is_due(struct progress *progress) { return progress->shown && progress_now() >= progress->next; }

static unsigned progress_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void progress_draw(struct progress *progress, uint64_t position, uint64_t size, uint64_t lines, uint64_t bytes) {
    const int64_t now = progress_now();
    const double seconds = (double)(now - progress->begun) / 1e6;
    const double share = size > 0 && position < size ? (double)position / (double)size : 1;
    char line[PROGRESS_LINE], left[32] = "";
    size_t at = 0;
    progress->next = now + PROGRESS_EACH;
    if (size > 0) {
        const int filled = (int)(share * PROGRESS_BAR);
        at = (size_t)snprintf(line, sizeof line, "[%.*s%*s] %3.0f %%  ", filled, "########################",
                              PROGRESS_BAR - filled, "", share * 100);
        if (share > 0) snprintf(left, sizeof left, "  %.0f s left", seconds / share - seconds);
    }
    snprintf(line + at, sizeof line - at, "%.1f million lines, %.0f lines/s, %.0f MB/s%s", (double)lines / 1e6,
             (double)lines / seconds, (double)bytes / 1e6 / seconds, left);
    fprintf(stderr, "\r%.*s\033[K", (int)progress_columns() - 1, line);
    fflush(stderr);
    progress->drawn = true;
}

void progress_end(struct progress *progress) {
    if (progress->drawn) fputs("\r\033[K", stderr);
    progress->drawn = false;
    fflush(stderr);
}
