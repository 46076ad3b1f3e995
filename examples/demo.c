/* SPDX-License-Identifier: MIT
 * The program of `make run`: it draws a limit at work. If REDIS_URL is set, the store is in that Redis; otherwise it is
 * embedded. */
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <steady.h>

/* What the terminal supports. */
struct screen {
    bool moves; /* lines can be redrawn in place, in colour */
    bool utf8;
};

static const char green[] = "\033[32m", red[] = "\033[31m", plain[] = "\033[0m";

static steady_us now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * STEADY_SECOND + t.tv_nsec / 1000;
}

static void rest(steady_us us) {
    const struct timespec t = {.tv_sec = us / STEADY_SECOND, .tv_nsec = us % STEADY_SECOND * 1000};
    fflush(stdout);
    nanosleep(&t, NULL);
}

/* ---- Drawing ---- */

static const char *colour(const struct screen *screen, bool good) { return !screen->moves ? "" : good ? green : red; }
static const char *no_colour(const struct screen *screen) { return screen->moves ? plain : ""; }

/* A bucket that is `part` / `whole` full, `width` characters wide. */
static void draw_bar(const struct screen *screen, int64_t part, int64_t whole, int64_t width) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int64_t filled = (part < whole ? part : whole) * width * 8 / whole;
    int64_t cells = 0;
    printf("%s", screen->utf8 ? "▕" : "[");
    for (; cells < filled / 8; cells++)
        printf("%s", screen->utf8 ? "█" : "#");
    if (filled % 8 != 0) {
        printf("%s", screen->utf8 ? eighths[filled % 8] : filled % 8 < 4 ? "." : "#");
        cells++;
    }
    for (; cells < width; cells++)
        printf("%s", screen->utf8 ? " " : ".");
    printf("%s", screen->utf8 ? "▏" : "]");
}

static void print_wait(steady_us us) {
    const int64_t ms = (us + 999) / 1000;
    if (ms < 1000)
        printf("%" PRId64 " ms", ms);
    else
        printf("%" PRId64 ".%" PRId64 " s", (ms + 99) / 1000, (ms + 99) / 100 % 10);
}

static void print_verdict(const struct screen *screen, const steady_result *r) {
    const bool blocked = r->blocked_for > 0;
    printf("%s%-7s%s  ", colour(screen, r->success),
           r->success ? "allowed"
           : blocked  ? "blocked"
                      : "denied",
           no_colour(screen));
    printf("%s", r->success ? "next drop leaks in " : "retry in ");
    print_wait(r->success ? r->until_next_drop : r->retry_after);
}

/* ---- Scene one: ten at once, then one every five seconds ---- */

static int scene_one(const struct screen *screen, steady_store *store, const char *prefix, steady_message *why) {
    const steady_limit limit = {.max_capacity = 10, .drop_recharge = 5 * STEADY_SECOND};
    const steady_throttler_options options = {.prefix = prefix};
    const char *key = "user:42";
    steady_throttler *throttler = NULL;
    steady_result r = {0};
    int error = steady_throttler_new(&throttler, store, &limit, &options, why);
    if (error == 0) error = steady_reset_sync(throttler, key, strlen(key), &r);
    if (error == 0) printf("user:42 may do 10 things at once, and one more every 5 s. Here are a dozen:\n\n");
    for (int i = 1; i <= 12 && error == 0; i++) {
        error = steady_consume_sync(throttler, key, strlen(key), 1, &r);
        if (error != 0) break;
        printf("  %2d  %s  ", i, key);
        draw_bar(screen, r.level, limit.max_capacity, limit.max_capacity);
        printf(" %2" PRId64 "/%" PRId64 "  ", r.level, limit.max_capacity);
        print_verdict(screen, &r);
        printf("\n");
        rest(150 * STEADY_MILLISECOND);
    }
    if (error == 0) error = steady_reset_sync(throttler, key, strlen(key), &r);
    steady_throttler_free(&throttler);
    return error;
}

/* ---- Scene two: drops leak while requests come ---- */

enum { TRAIL = 24, CLIENTS = 2, SCENE_MS = 5500, FRAME_MS = 40, COLUMNS = 80 };

/* A client: its name, its next request, and its verdicts so far. */
struct client {
    const char *name;
    steady_throttler *throttler;
    steady_us (*gap)(int n); /* between its request n and the next */
    steady_us due;
    int asked, allowed;
    char trail[TRAIL + 1]; /* the last requests, a letter each */
};

/* A person: irregular requests. */
static steady_us gap_of_anna(int n) {
    static const int ms[] = {90, 210, 60, 45, 130, 320, 40, 75, 160, 50, 110, 260};
    return ms[(size_t)n % (sizeof ms / sizeof ms[0])] * STEADY_MILLISECOND;
}

/* A program in an endless loop, with a pause now and then. */
static steady_us gap_of_bot(int n) { return (n % 14 == 13 ? 1400 : 35) * STEADY_MILLISECOND; }

static void remember(struct client *client, const steady_result *r) {
    if (client->asked >= TRAIL) memmove(client->trail, client->trail + 1, TRAIL - 1);
    client->trail[client->asked < TRAIL ? client->asked : TRAIL - 1] = r->success ? '+' : '-';
    client->asked++;
    client->allowed += r->success;
}

static void draw_trail(const struct screen *screen, const char *trail) {
    for (; *trail != '\0'; trail++) {
        const bool good = *trail == '+';
        const char *mark = screen->utf8 ? good ? "●" : "○" : good ? "+" : "-";
        printf("%s%s", colour(screen, good), mark);
    }
    printf("%s", no_colour(screen));
}

/* Draws the bucket at this instant. The part of the next drop that has leaked is left out. */
static void draw_client(const struct screen *screen, const struct client *client, const steady_limit *limit,
                        const steady_result *r) {
    const steady_us drop = limit->drop_recharge / limit->drops;
    const steady_us content = r->level > 0 ? (r->level - 1) * drop + r->until_next_drop : 0;
    printf("  %-5s ", client->name);
    draw_bar(screen, content, limit->max_capacity * drop, 3 * limit->max_capacity);
    printf(" %" PRId64 "/%" PRId64 "  ", r->level, limit->max_capacity);
    if (!screen->moves) {
        print_verdict(screen, r);
        return;
    }
    draw_trail(screen, client->trail);
    if (r->blocked_for > 0) {
        printf("  %sblocked%s for ", red, plain);
        print_wait(r->blocked_for);
    }
    printf("\033[K");
}

/* Sends the requests that are due. If the terminal cannot redraw, each gets a line. */
static int ask(const struct screen *screen, struct client *client, const steady_limit *limit, steady_us elapsed) {
    steady_result r;
    while (client->due <= elapsed) {
        const int error = steady_consume_sync(client->throttler, client->name, strlen(client->name), 1, &r);
        if (error != 0) return error;
        client->due += client->gap(client->asked);
        remember(client, &r);
        if (screen->moves) continue;
        printf("  %" PRId64 ".%02" PRId64 " s", elapsed / STEADY_SECOND, elapsed % STEADY_SECOND / 10000);
        draw_client(screen, client, limit, &r);
        printf("\n");
    }
    return 0;
}

static int draw_frame(const struct screen *screen, const struct client *clients, const steady_limit *limit) {
    steady_result r;
    for (int i = 0; i < CLIENTS; i++) {
        const int error = steady_peek_sync(clients[i].throttler, clients[i].name, strlen(clients[i].name), &r);
        if (error != 0) return error;
        draw_client(screen, &clients[i], limit, &r);
        printf("\n");
    }
    return 0;
}

static int play(const struct screen *screen, struct client *clients, const steady_limit *limit) {
    const steady_us start = now();
    int error = 0;
    for (steady_us elapsed = 0; elapsed < SCENE_MS * STEADY_MILLISECOND && error == 0; elapsed = now() - start) {
        for (int i = 0; i < CLIENTS && error == 0; i++)
            error = ask(screen, &clients[i], limit, elapsed);
        if (screen->moves) {
            if (elapsed > 0) printf("\033[%dA\r", CLIENTS);
            if (error == 0) error = draw_frame(screen, clients, limit);
        }
        rest(FRAME_MS * STEADY_MILLISECOND);
    }
    return error;
}

static int scene_two(const struct screen *screen, steady_store *store, const char *prefix, steady_message *why) {
    const steady_throttler_options options = {.prefix = prefix};
    struct client clients[CLIENTS] = {{.name = "anna", .gap = gap_of_anna}, {.name = "bot", .gap = gap_of_bot}};
    steady_limit limit = {.block_duration = 0};
    steady_result r = {0};
    int error = steady_limit_parse(&limit, "8/s", why);
    limit.max_capacity = 6;
    limit.block_duration = 800 * STEADY_MILLISECOND;
    for (int i = 0; i < CLIENTS && error == 0; i++)
        error = steady_throttler_new(&clients[i].throttler, store, &limit, &options, why);
    if (error == 0) {
        printf("\nBuckets of 6 drops that leak 8 a second; an overflow blocks for 800 ms:\n\n");
        error = play(screen, clients, &limit);
    }
    for (int i = 0; i < CLIENTS && error == 0; i++)
        error = steady_reset_sync(clients[i].throttler, clients[i].name, strlen(clients[i].name), &r);
    if (error == 0)
        printf("\nanna got %d of %d requests through, the bot %d of %d.\n", clients[0].allowed, clients[0].asked,
               clients[1].allowed, clients[1].asked);
    for (int i = 0; i < CLIENTS; i++)
        steady_throttler_free(&clients[i].throttler);
    return error;
}

/* ---- main ---- */

static struct screen look_at_screen(void) {
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    struct winsize size = {0};
    struct screen screen = {0};
    setlocale(LC_CTYPE, "");
    screen.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    screen.moves = isatty(STDOUT_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0 &&
                   (no_color == NULL || *no_color == '\0') && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
                   size.ws_col >= COLUMNS;
    return screen;
}

int main(void) {
    const struct screen screen = look_at_screen();
    const steady_store_options options = {.timeout = 2 * STEADY_SECOND};
    const char *url = getenv("REDIS_URL");
    const bool redis = url != NULL && *url != '\0';
    steady_store *store = NULL;
    steady_message why = {.text = ""};
    char prefix[64]; /* keeps the keys of the demo apart from other keys */
    snprintf(prefix, sizeof prefix, "steady-demo:%ld:", (long)getpid());

    int error = steady_store_open(&store, redis ? url : "memory:", &options, &why);
    if (error == 0) error = scene_one(&screen, store, prefix, &why);
    if (error == 0) error = scene_two(&screen, store, prefix, &why);
    if (error != 0) {
        if (why.text[0] == '\0') steady_store_last_error(store, &why);
        fprintf(stderr, "demo: %s%s%s%s\n", redis ? "the Redis of REDIS_URL: " : "", steady_error_text(error),
                why.text[0] != '\0' ? ": " : "", why.text);
    }
    steady_store_close(&store);
    return error == 0 ? 0 : 3;
}
