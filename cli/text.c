/* SPDX-License-Identifier: MIT
 * The output of the command. It is built in memory and written at once, independent of the locale. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* Makes room for `more` bytes and a NUL. False if memory runs out; then the text is lost. */
static bool text_make_room(struct text *text, size_t more) {
    enum { FIRST = 512 };
    size_t room = text->room > 0 ? text->room : FIRST;
    while (room < text->len + more + 1)
        room *= 2;
    if (room == text->room) return true;
    char *bytes = realloc(text->bytes, room);
    text->lost = text->lost || bytes == NULL;
    if (bytes == NULL) return false;
    text->bytes = bytes;
    text->room = room;
    return true;
}

__attribute__((format(printf, 2, 0))) static void text_add_list(struct text *text, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && text_make_room(text, (size_t)n)) {
        vsnprintf(text->bytes + text->len, (size_t)n + 1, format, again);
        text->len += (size_t)n;
    }
    va_end(again);
}

void text_add(struct text *text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    text_add_list(text, format, args);
    va_end(args);
}

void text_free(struct text *text) {
    free(text->bytes);
    *text = (struct text){0};
}

/* ---- Pieces ---- */

void text_add_key(struct text *text, const char *key) {
    const char *at = strchr(key, '@');
    if (strstr(key, "://") != NULL && at != NULL) { /* a store URL in place of a key */
        text_add(text, "%s", quoted(key).text);
        return;
    }
    for (; *key != '\0'; key++) {
        const unsigned char c = (unsigned char)*key;
        if (c == '\\')
            text_add(text, "\\\\");
        else if (c >= 0x20 && c < 0x7f)
            text_add(text, "%c", c);
        else
            text_add(text, "\\x%02x", c);
    }
}

static int64_t text_divide_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

static void text_add_two_units(struct text *text, int64_t value, int64_t small, const char *large_unit,
                               const char *small_unit) {
    text_add(text, "%" PRId64 " %s", value / small, large_unit);
    if (value % small != 0) text_add(text, " %" PRId64 " %s", value % small, small_unit);
}

/* Rounds up: after the printed time, the wait is over. */
void text_add_wait(struct text *text, steady_us wait) {
    const int64_t ms = text_divide_up(wait, 1000), tenths = text_divide_up(wait, 100000),
                  s = text_divide_up(wait, STEADY_SECOND);
    const int64_t minutes = text_divide_up(wait, 60 * STEADY_SECOND),
                  hours = text_divide_up(wait, 3600 * STEADY_SECOND);
    if (wait < 1000)
        text_add(text, "%" PRId64 " us", wait);
    else if (ms < 1000)
        text_add(text, "%" PRId64 " ms", ms);
    else if (tenths < 600 && tenths % 10 != 0)
        text_add(text, "%" PRId64 ".%" PRId64 " s", tenths / 10, tenths % 10);
    else if (tenths < 600)
        text_add(text, "%" PRId64 " s", tenths / 10);
    else if (s < 3600)
        text_add_two_units(text, s, 60, "m", "s");
    else if (minutes < 1440)
        text_add_two_units(text, minutes, 60, "h", "m");
    else
        text_add_two_units(text, hours, 24, "d", "h");
}

void text_add_exact(struct text *text, steady_us us) {
    static const struct {
        const char *name;
        steady_us us;
    } units[] = {{"d", 86400 * STEADY_SECOND}, {"h", 3600 * STEADY_SECOND},  {"m", 60 * STEADY_SECOND},
                 {"s", STEADY_SECOND},         {"ms", STEADY_SECOND / 1000}, {"us", 1}};
    size_t i = 0;
    while (us % units[i].us != 0 || (us == 0 && units[i].us > 1))
        i++;
    text_add(text, "%" PRId64 " %s", us / units[i].us, units[i].name);
}

void text_add_seconds(struct text *text, steady_us us) { text_add_ratio(text, us, STEADY_SECOND, 6); }

void text_add_ratio(struct text *text, int64_t value, int64_t unit, int decimals) {
    char digits[24] = ".";
    int64_t rest = value % unit;
    int len = 0; /* without zeros at the end */
    for (int i = 1; i <= decimals; i++) {
        rest *= 10;
        digits[i] = (char)('0' + rest / unit);
        if (digits[i] != '0') len = i + 1;
        rest %= unit;
    }
    text_add(text, "%" PRId64 "%.*s", value / unit, len, digits);
}

void text_add_json(struct text *text, const char *string) {
    text_add(text, "\"");
    for (; *string != '\0'; string++)
        text_add(text, *string == '"' || *string == '\\' ? "\\%c" : "%c", *string);
    text_add(text, "\"");
}

void text_add_bar(struct text *text, int64_t level, int64_t capacity) {
    const int64_t width = 10;
    const int64_t filled = level >= capacity ? width : text_divide_up(level * width, capacity);
    text_add(text, "[%.*s%.*s]", (int)filled, "##########", (int)(width - filled), "..........");
}

struct quoted quoted(const char *value) {
    struct quoted q;
    steady_quote(q.text, sizeof q.text, value);
    /* cppcheck-suppress uninitvar ; steady_quote fills it */
    return q;
}

/* A value may be a password, so it is not shown. After a single dash the value begins behind the first letter. */
struct quoted quoted_option(const char *arg) {
    struct quoted q;
    char name[64];
    const bool is_long = strncmp(arg, "--", 2) == 0;
    const size_t end = is_long ? strcspn(arg, "=:/@%?") : 2;
    if (end >= strlen(arg)) return quoted(arg);
    snprintf(name, sizeof name, "%.*s", (int)end, arg);
    q = quoted(name);
    const size_t len = strlen(q.text);
    snprintf(q.text + len, sizeof q.text - len, arg[end] == '=' ? "=..." : "...");
    return q;
}

/* ---- Writing ---- */

/* Blocks, even if the descriptor does not. */
static bool text_wait_for_room(int fd) {
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return poll(&room, 1, -1) > 0 || errno == EINTR;
}

/* Writes a part of the bytes. False: they cannot be written, or a held signal came while the write was blocked. */
static bool text_write_some(int fd, const char **bytes, size_t *len) {
    const ssize_t n = write(fd, *bytes, *len);
    if (n >= 0) {
        *bytes += n;
        *len -= (size_t)n;
        return true;
    }
    const bool full = errno == EAGAIN || errno == EWOULDBLOCK;
    if (full ? !text_wait_for_room(fd) : errno != EINTR) return false;
    errno = EINTR;
    return !pause_signal_came();
}

static bool text_write_all(int fd, const char *bytes, size_t len) {
    bool written = true;
    pause_interrupt_writes(true);
    while (len > 0 && written)
        written = text_write_some(fd, &bytes, &len);
    pause_interrupt_writes(false);
    return written;
}

int text_say(struct text *text, int code, int unsaid) {
    if (text->lost) errno = ENOMEM;
    const bool said = !text->lost && text_write_all(STDOUT_FILENO, text->bytes, text->len);
    const int error = errno;
    text_free(text);
    if (said) return code;
    if (error != EPIPE && error != EINTR) complain("cannot write to standard output: %s", strerror(error));
    return unsaid;
}

void text_warn(struct text *text) {
    (void)text_write_all(STDERR_FILENO, text->bytes, text->len); /* an error here cannot be reported anywhere */
    text_free(text);
}

int complain(const char *format, ...) {
    struct text text = {0};
    va_list args;
    text_add(&text, "steady: ");
    va_start(args, format);
    text_add_list(&text, format, args);
    va_end(args);
    text_add(&text, "\n");
    text_warn(&text);
    return USAGE;
}

/* ---- Did you mean ---- */

static int text_least(int a, int b, int c) {
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* The edit distance of Damerau and Levenshtein: two swapped neighbours count as one. A prefix of the name also counts
 * as one. */
int distance(const char *typed, const char *name) {
    enum { MAX = 24 };
    const size_t rows = strlen(typed), columns = strlen(name);
    int d[MAX + 1][MAX + 1];
    if (rows > MAX || columns > MAX) return MAX;
    if (rows > 1 && strncmp(typed, name, rows) == 0) return columns > rows;
    for (size_t i = 0; i <= rows; i++)
        for (size_t j = 0; j <= columns; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (int)(i + j);
                continue;
            }
            const int change = d[i - 1][j - 1] + (typed[i - 1] != name[j - 1]);
            d[i][j] = text_least(d[i - 1][j] + 1, d[i][j - 1] + 1, change);
            if (i > 1 && j > 1 && typed[i - 1] == name[j - 2] && typed[i - 2] == name[j - 1])
                d[i][j] = text_least(d[i][j], d[i - 2][j - 2] + 1, change);
        }
    return d[rows][columns];
}
