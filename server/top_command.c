/* SPDX-License-Identifier: MIT
 * steady top: a terminal screen with what the daemon does now, through the admin socket. */
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "buffer.h"
#include "commands.h"
#include "remote.h"

enum { DONE = 0, NOT_DONE = 1, WRONG = 2, REFRESH_MS = 1000, BAR = 10 };

/* A list of keys is up to two seconds old. Until then a bucket is shown as it was seen. */
static const double LIST_AGE_S = 2.5;

static const char help[] =
    "usage: steady top [OPTIONS]\n"
    "\n"
    "Shows rates, limits and top keys of a daemon, anew each second. q ends it.\n"
    "\n"
    "  --admin ADDRESS  the admin socket: unix:/path, host:port, or the address of the dashboard\n"
    "                   with its token; by default STEADY_ADMIN. STEADY_ADMIN_TOKEN is the\n"
    "                   token if the address has none.\n"
    "  --once           print one page, after a second\n"
    "  --help\n";

static volatile sig_atomic_t top_command_ended;

static void top_command_on_signal(int number) {
    (void)number;
    top_command_ended = 1;
}

/* ---- One page ---- */

struct page {
    struct buffer out;
    size_t columns, lines;
    size_t n_lines;
    bool colours;
};

/* What the daemon said. */
struct sample {
    json_t *state, *history, *top;
    double at;
};

__attribute__((format(printf, 3, 4))) static void top_command_line(struct page *page, const char *colour,
                                                                   const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (page->n_lines == page->lines) return;
    size_t bytes = 0, columns = 0; /* a character of several bytes has one column */
    for (; text[bytes] != '\0' && columns < page->columns; columns++)
        for (bytes++; ((unsigned char)text[bytes] & 0xc0) == 0x80;)
            bytes++;
    if (page->colours && *colour != '\0') buffer_add_format(&page->out, "\033[%sm", colour);
    buffer_add(&page->out, text, bytes);
    if (page->colours) buffer_add_text(&page->out, *colour != '\0' ? "\033[0m\033[K" : "\033[K");
    buffer_add_text(&page->out, page->colours ? "\r\n" : "\n");
    page->n_lines++;
}

static double top_command_number(const json_t *object, const char *name) {
    return json_number_value(json_object_get(object, name));
}

static const char *top_command_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static const char *top_command_count(char to[32], double n) {
    if (n < 1e6)
        snprintf(to, 32, n > 0 && n < 9.95 && n != floor(n) ? "%.1f" : "%.0f", n);
    else
        snprintf(to, 32, n < 1e9 ? "%.1fM" : "%.1fG", n / (n < 1e9 ? 1e6 : 1e9));
    return to;
}

static const char *top_command_duration(char to[32], double s) {
    const long long n = s < 1e9 ? (long long)s : 1000000000;
    if (s < 60)
        snprintf(to, 32, s < 10 && s != floor(s) ? "%.1fs" : "%.0fs", s);
    else if (n < 3600)
        snprintf(to, 32, "%dm%02ds", (int)(n / 60), (int)(n % 60));
    else if (n < 86400)
        snprintf(to, 32, "%lldh%02lldm", n / 3600, n % 3600 / 60);
    else
        snprintf(to, 32, "%lldd%02lldh", n / 86400, n % 86400 / 3600);
    return to;
}

/* The rates of the last seconds as blocks of eight heights. */
static void top_command_graph(struct page *page, const char *name, const char *colour, const json_t *rates,
                              double highest) {
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    char text[1024] = "", count[32];
    const size_t n = json_array_size(rates), room = page->columns > 22 ? page->columns - 22 : 0;
    const size_t shown = n < room ? n : room < 300 ? room : 300; /* of 3 bytes each */
    size_t len = 0;
    for (size_t i = n - shown; i < n; i++) {
        const double height = ceil(8 * json_number_value(json_array_get(rates, i)) / highest);
        const char *block = blocks[height > 8 ? 8 : (int)height];
        memcpy(text + len, block, strlen(block) + 1);
        len += strlen(block);
    }
    top_command_line(page, colour, "%-10s %8s/s %s", name,
                     top_command_count(count, n > 0 ? json_number_value(json_array_get(rates, n - 1)) : 0), text);
}

static double top_command_highest(const json_t *history) {
    static const char *const verdicts[] = {"allowed", "denied", "none"};
    double highest = 1;
    for (size_t v = 0; v < 3; v++) {
        const json_t *rates = json_object_get(history, verdicts[v]);
        for (size_t i = 0; i < json_array_size(rates); i++)
            highest = fmax(highest, json_number_value(json_array_get(rates, i)));
    }
    return highest;
}

static void top_command_head(struct page *page, const struct sample *now) {
    const json_t *store = json_object_get(now->state, "store"), *rules = json_object_get(now->state, "rules");
    const json_t *connections = json_object_get(now->state, "connections");
    const double highest = top_command_highest(now->history), time = top_command_number(now->state, "now");
    char up[32], loaded[32];
    const bool ready = strcmp(top_command_text(store, "state"), "ready") == 0;
    top_command_line(page, "1", "Steady %s, up %s, %.0f limit%s loaded %s ago, %.0f HTTP %.0f HTTP/2 %.0f RESP",
                     top_command_text(now->state, "version"),
                     top_command_duration(up, time - top_command_number(now->state, "started")),
                     top_command_number(rules, "limits"), top_command_number(rules, "limits") == 1 ? "" : "s",
                     top_command_duration(loaded, time - top_command_number(rules, "loaded")),
                     top_command_number(connections, "http"), top_command_number(connections, "http2"),
                     top_command_number(connections, "resp"));
    top_command_line(page, ready ? "" : "1;31", "store %s (%s) %s", top_command_text(store, "state"),
                     top_command_text(store, "url"), ready ? "" : top_command_text(store, "last_error"));
    if (*top_command_text(rules, "error") != '\0')
        top_command_line(page, "1;31", "NOT RELOADED, the old rules are in force: %s",
                         top_command_text(rules, "error"));
    top_command_line(page, "", "%s", "");
    top_command_graph(page, "allowed", "34", json_object_get(now->history, "allowed"), highest);
    top_command_graph(page, "denied", "31", json_object_get(now->history, "denied"), highest);
    top_command_graph(page, "no verdict", "33", json_object_get(now->history, "none"), highest);
}

/* ---- Limits ---- */

static const json_t *top_command_limit(const json_t *state, const char *name) {
    const json_t *limits = json_object_get(state, "limits");
    for (size_t i = 0; i < json_array_size(limits); i++)
        if (strcmp(top_command_text(json_array_get(limits, i), "name"), name) == 0) return json_array_get(limits, i);
    return NULL;
}

static double top_command_denied(const json_t *limit) {
    return top_command_number(limit, "denied") + top_command_number(limit, "shadow_denied");
}

/* The limits that can be shown. The last one of the list is that of requests; it counts if it was used. */
static size_t top_command_limits_shown(const struct sample *now) {
    const json_t *limits = json_object_get(now->state, "limits");
    const size_t n = json_array_size(limits);
    const json_t *last = n > 0 ? json_array_get(limits, n - 1) : NULL;
    const bool unused = last != NULL && *top_command_text(last, "name") == '\0' &&
                        top_command_number(last, "allowed") + top_command_denied(last) == 0;
    return n - unused;
}

/* Whether the daemon names only some of its limits. */
static bool top_command_limits_hidden(const struct sample *now) {
    return top_command_number(json_object_get(now->state, "rules"), "limits") >=
           (double)json_array_size(json_object_get(now->state, "limits"));
}

static void top_command_limits(struct page *page, const struct sample *before, const struct sample *now, size_t most) {
    const json_t *limits = json_object_get(now->state, "limits");
    const bool wide = page->columns >= 120;
    const double total = top_command_number(json_object_get(now->state, "rules"), "limits");
    const size_t n = top_command_limits_shown(now);
    const bool all = n <= most && !top_command_limits_hidden(now);
    const size_t rows = all ? n : n < most ? n : most > 0 ? most - 1 : 0;
    const double seconds = now->at - before->at;
    char allowed_rate[32], denied_rate[32], denied[32], near_limit[32], burst[32], block[32], where[300], name[120];
    top_command_line(page, "", "%s", "");
    top_command_line(page, "7", "%-24s %-14s %8s %10s %10s %9s%s", "LIMIT", "RATE", "BURST", "ALLOWED/S", "DENIED/S",
                     "DENIED", wide ? "  NEAR LIMIT      BLOCK  DEFINED AT" : "");
    for (size_t i = 0; i < rows; i++) {
        const json_t *limit = json_array_get(limits, i),
                     *old = top_command_limit(before->state, top_command_text(limit, "name"));
        const double d = top_command_denied(limit), a = top_command_number(limit, "allowed");
        const double a_rate = old != NULL && seconds > 0 ? (a - top_command_number(old, "allowed")) / seconds : 0;
        const double d_rate = old != NULL && seconds > 0 ? (d - top_command_denied(old)) / seconds : 0;
        const bool of_requests = *top_command_text(limit, "name") == '\0';
        const bool shadow = json_is_true(json_object_get(limit, "shadow"));
        snprintf(name, sizeof name, "%s%s", of_requests ? "(of the request)" : top_command_text(limit, "name"),
                 shadow ? " (shadow)" : "");
        snprintf(where, sizeof where, "  %10s %10s  %s:%.0f",
                 top_command_count(near_limit, top_command_number(limit, "near_limit")),
                 top_command_duration(block, top_command_number(limit, "block")), top_command_text(limit, "file"),
                 top_command_number(limit, "line"));
        top_command_line(page, d_rate > 0 && !shadow ? "31" : "", "%-24.24s %-14.14s %8s %10s %10s %9s%s", name,
                         of_requests ? "-" : top_command_text(limit, "rate"),
                         of_requests ? "-" : top_command_count(burst, top_command_number(limit, "burst")),
                         top_command_count(allowed_rate, a_rate), top_command_count(denied_rate, d_rate),
                         top_command_count(denied, d), wide && !of_requests ? where : "");
    }
    if (!all) top_command_line(page, "2", "%zu of %.0f limits are shown; /metrics has all", rows, total);
}

/* ---- Keys ---- */

/* A key as text of one line: without codes for the terminal (also those of two bytes, from U+0080 on). */
static void top_command_key(char *out, size_t size, const char *key) {
    size_t len = 0;
    for (; *key != '\0' && len + sizeof "\\u0080" <= size; key++) {
        const unsigned char c = (unsigned char)*key;
        if (c == 0xc2 && (unsigned char)key[1] < 0xa0)
            len += (size_t)snprintf(out + len, size - len, "\\u%04x", (unsigned char)*++key);
        else if (c < ' ' || c == 0x7f)
            len += (size_t)snprintf(out + len, size - len, "\\x%02x", c);
        else
            out[len++] = *key;
    }
    out[len] = '\0';
}

static size_t top_command_columns(const char *text) {
    size_t columns = 0;
    for (; *text != '\0'; text++)
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}

static size_t top_command_key_width(const struct page *page) { return page->columns >= 120 ? 64 : 24; }

/* A key that is wider than its column has a line of its own above its figures. */
static size_t top_command_key_lines(const struct page *page, const json_t *entry) {
    char key[1024];
    top_command_key(key, sizeof key, top_command_text(entry, "key"));
    return top_command_columns(key) > top_command_key_width(page) ? 2 : 1;
}

static void top_command_key_row(struct page *page, const json_t *entry) {
    const size_t width = top_command_key_width(page);
    char count[32], wait[32], level[64], left[32], right[32], key[1024];
    const double ago = top_command_number(entry, "ago"), since = fmax(0, ago - LIST_AGE_S);
    const double capacity = top_command_number(entry, "capacity");
    const double now_level =
        fmax(0, top_command_number(entry, "level") -
                    floor(since * top_command_number(entry, "drops") / top_command_number(entry, "recharge")));
    const double retry = fmax(0, top_command_number(entry, "retry_after") - (since > 0 ? ago : 0));
    const bool never = json_is_null(json_object_get(entry, "retry_after"));
    const bool blocked = retry > 0 && json_is_true(json_object_get(entry, "blocked"));
    const int filled = blocked ? BAR : (int)fmin(BAR, ceil(BAR * now_level / capacity));
    char bar[BAR + 1] = "..........";
    memset(bar, '#', (size_t)filled);
    top_command_key(key, sizeof key, top_command_text(entry, "key"));
    if (top_command_columns(key) > width) {
        top_command_line(page, "", "%s", key);
        *key = '\0';
    }
    if (blocked)
        snprintf(level, sizeof level, "blocked");
    else
        snprintf(level, sizeof level, "%s/%s", top_command_count(left, now_level), top_command_count(right, capacity));
    top_command_line(page, "", "%s%*s %-14.14s %s %11s %8s %8s", key, (int)(width - top_command_columns(key)), "",
                     *top_command_text(entry, "limit") != '\0' ? top_command_text(entry, "limit") : "(of the request)",
                     bar, level,
                     never       ? "never"
                     : retry > 0 ? top_command_duration(wait, retry)
                                 : "-",
                     top_command_count(count, top_command_number(entry, "count")));
}

static void top_command_keys(struct page *page, const struct sample *now, const char *list, const char *title,
                             size_t most) {
    const json_t *top = json_object_get(now->top, list), *keys = json_object_get(top, "keys");
    char count[32];
    top_command_line(page, "", "%s", "");
    top_command_line(page, "7", "%-*s %-14s %-10s %11s %8s %8s", (int)top_command_key_width(page), title, "LIMIT",
                     "LEVEL", "", "WAIT", "COUNT");
    if (json_array_size(keys) == 0)
        top_command_line(page, "2", "none in the last %s",
                         top_command_duration(count, top_command_number(now->top, "seconds")));
    for (size_t i = 0, used = 0; i < json_array_size(keys); i++) {
        used += top_command_key_lines(page, json_array_get(keys, i));
        if (used > most) return;
        top_command_key_row(page, json_array_get(keys, i));
    }
}

/* The lines below the head of a list. */
static size_t top_command_keys_wanted(const struct page *page, const struct sample *now, const char *list) {
    const json_t *keys = json_object_get(json_object_get(now->top, list), "keys");
    size_t lines = 0;
    for (size_t i = 0; i < json_array_size(keys); i++)
        lines += top_command_key_lines(page, json_array_get(keys, i));
    return lines > 0 ? lines : 1;
}

/* The three tables take turns until each has its rows, or no line is left. */
static void top_command_page(struct page *page, const struct sample *before, const struct sample *now) {
    const size_t heads = 6; /* an empty line and a head each */
    const size_t wanted[3] = {top_command_limits_shown(now) + top_command_limits_hidden(now),
                              top_command_keys_wanted(page, now, "denied"),
                              top_command_keys_wanted(page, now, "allowed")};
    size_t rows[3] = {0};
    top_command_head(page, now);
    const size_t left = page->lines > page->n_lines + heads ? page->lines - page->n_lines - heads : 0;
    for (size_t given = 0, before_turn = 1; given < left && given != before_turn;) {
        before_turn = given;
        for (size_t i = 0; i < 3 && given < left; i++)
            if (rows[i] < wanted[i]) rows[i]++, given++;
    }
    top_command_limits(page, before, now, rows[0]);
    top_command_keys(page, now, "denied", "MOST DENIED KEYS", rows[1]);
    top_command_keys(page, now, "allowed", "MOST ALLOWED KEYS", rows[2]);
}

/* ---- The loop ---- */

static void top_command_free(struct sample *sample) {
    json_decref(sample->state);
    json_decref(sample->history);
    json_decref(sample->top);
    *sample = (struct sample){0};
}

static bool top_command_ask(struct remote *remote, struct sample *sample) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *sample = (struct sample){.at = (double)now.tv_sec + (double)now.tv_nsec / 1e9};
    sample->state = remote_ask(remote, "/admin/state", NULL);
    sample->history = sample->state != NULL ? remote_ask(remote, "/admin/history", NULL) : NULL;
    sample->top = sample->history != NULL ? remote_ask(remote, "/admin/top", NULL) : NULL;
    if (sample->top != NULL) return true;
    top_command_free(sample);
    return false;
}

static size_t top_command_setting(const char *name, size_t usual) {
    const char *text = getenv(name);
    const long n = text != NULL ? strtol(text, NULL, 10) : 0;
    return n > 0 && n <= 10000 ? (size_t)n : usual;
}

static void top_command_size(struct page *page, bool once) {
    struct winsize size = {0};
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    page->columns = known ? size.ws_col : top_command_setting("COLUMNS", 80);
    page->lines = known && !once ? size.ws_row : top_command_setting("LINES", 40);
    if (page->columns > 500) page->columns = 500;
}

/* Waits for a second, or for a key. True: it goes on. */
static bool top_command_wait(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char key = 0;
    if (poll(&input, 1, REFRESH_MS) > 0 && read(STDIN_FILENO, &key, 1) <= 0) return false;
    return key != 'q' && key != 'Q' && key != 3 && !top_command_ended;
}

static int top_command_once(struct remote *remote) {
    struct sample before, now;
    struct page page = {0};
    bool done = top_command_ask(remote, &before);
    if (done) {
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        done = top_command_ask(remote, &now);
        if (done) {
            top_command_size(&page, true);
            top_command_page(&page, &before, &now);
            fwrite(page.out.bytes, 1, page.out.len, stdout);
            top_command_free(&now);
        }
        top_command_free(&before);
    }
    buffer_free(&page.out);
    if (!done) fprintf(stderr, "steady top: %s\n", remote->why);
    return done ? DONE : NOT_DONE;
}

static int top_command_follow(struct remote *remote) {
    static const char begin[] = "\033[?1049h\033[?25l", end[] = "\033[?25h\033[?1049l";
    struct sample before = {0}, now = {0};
    struct termios usual, raw;
    if (!top_command_ask(remote, &before)) {
        fprintf(stderr, "steady top: %s\n", remote->why);
        return NOT_DONE;
    }
    const bool terminal = tcgetattr(STDIN_FILENO, &usual) == 0;
    if (terminal) {
        raw = usual;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    signal(SIGINT, top_command_on_signal);
    signal(SIGTERM, top_command_on_signal);
    fputs(begin, stdout);
    do {
        struct page page = {.colours = true};
        top_command_size(&page, false);
        page.lines -= page.lines > 1; /* the last line has no end, so that nothing scrolls */
        buffer_add_text(&page.out, "\033[H");
        if (top_command_ask(remote, &now)) {
            top_command_page(&page, &before, &now);
            top_command_free(&before);
            before = now;
        } else {
            top_command_line(&page, "1;31", "No answer: %s. Trying again...", remote->why);
        }
        buffer_add_text(&page.out, "\033[J");
        fwrite(page.out.bytes, 1, page.out.len, stdout);
        fflush(stdout);
        buffer_free(&page.out);
    } while (top_command_wait());
    fputs(end, stdout);
    fflush(stdout);
    if (terminal) tcsetattr(STDIN_FILENO, TCSANOW, &usual);
    top_command_free(&before);
    return DONE;
}

int top_command_main(int argc, char **argv) {
    static const struct option names[] = {{"admin", required_argument, NULL, 'a'},
                                          {"once", no_argument, NULL, 'o'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *address = NULL;
    struct remote remote;
    bool once = false;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'a': address = optarg; break;
        case 'o': once = true; break;
        case 'h': fputs(help, stdout); return DONE;
        default: fprintf(stderr, "steady top --help lists the options\n"); return WRONG;
        }
    }
    if (optind < argc || !remote_read(&remote, address)) {
        fprintf(stderr, "steady top: %s\n",
                optind < argc ? "it takes options only; see steady top --help" : remote.why);
        return WRONG;
    }
    return once || !isatty(STDOUT_FILENO) ? top_command_once(&remote) : top_command_follow(&remote);
}
