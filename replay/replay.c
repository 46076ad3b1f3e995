/* SPDX-License-Identifier: MIT
 * steady replay: the command. */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "progress.h"
#include "results.h"
#include "setup.h"
#include "sources.h"

enum { RIGHT = 0, MOST_LINES_BAD = 1, WRONG = 2, INTERRUPTED = 130 };
enum { REPLAY_MAPS_MOST = 64, REPLAY_DRAW_EACH = 4096 /* lines */ };

#define MIB ((size_t)1024 * 1024)

static const char help[] =
    "usage: steady replay LOG... --config FILE [OPTIONS]\n"
    "       steady replay LOG... [--key KEY] --limit RATE [OPTIONS]\n"
    "       steady replay LOG... [--key KEY] --suggest P [OPTIONS]\n"
    "\n"
    "Says what limits would have done to the requests of access logs, or which limit fits. A LOG may be\n"
    "compressed with gzip, zstd or xz; - is standard input. Several logs are merged by time.\n"
    "\n"
    "  --config FILE      the rules file of steady serve\n"
    "  --limit RATE       without a rules file: one limit for all requests, such as 100/min\n"
    "  --key KEY          its key: as in a rules file, or a field such as .user.id; default: ip\n"
    "  --suggest P        offer limits that deny nothing to P of the keys, such as 99.9%\n"
    "  --rate RATE        with --suggest: this rate instead of many; repeat it for more\n"
    "  --against FILE     compare with another rules file\n"
    "\n"
    "  --format FORMAT    a name below, or the format string of nginx or Apache; default: found out\n"
    "  --time FIELD       the field with the time\n"
    "  --field NAME=FIELD the field with ip, path, header:NAME ...; repeat it for more\n"
    "  --at begin|end     when a request counts if the log has its duration; default: begin\n"
    "  --spread           space the requests of a second evenly, if the log has whole seconds only\n"
    "\n"
    "  --json             the report as JSON\n"
    "  --csv              the report as CSV\n"
    "  --html FILE        also write the report as a page; - is standard output\n"
    "  --verdicts FILE    also write each verdict as CSV: time,limit,key,amount,verdict,request\n"
    "  --hash-keys        show hashes instead of keys, with a new secret for each run\n"
    "  --memory SIZE      of keys and waiting requests, such as 64M; default: 160M\n"
    "  --help\n"
    "\n"
    "Formats:\n";

static const char help_end[] =
    "\n"
    "Exit codes: 0 done, 1 more than half of the lines do not parse or are late, 2 wrong usage or a file\n"
    "that cannot be read (the other files count), 130 after Ctrl-C, with a report of what was read.\n";

__attribute__((format(printf, 1, 2))) static int replay_complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("steady replay: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    return WRONG;
}

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t replay_interrupted;
static int replay_null = -1;

/* The first Ctrl-C ends the reading; a read of standard input that waits then finds its end. The second one kills. */
static void replay_on_interrupt(int signal_number) {
    const int saved = errno;
    (void)signal_number;
    replay_interrupted = 1;
    if (replay_null >= 0) dup2(replay_null, STDIN_FILENO);
    errno = saved;
}

static void replay_catch_interrupt(void) {
    struct sigaction action = {.sa_handler = replay_on_interrupt, .sa_flags = (int)SA_RESETHAND};
    replay_null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

/* ---- Options ---- */

struct command {
    const char *config, *limit, *key, *against, *html, *verdicts;
    struct format_options format;
    const char *maps[REPLAY_MAPS_MOST];
    double share;
    steady_limit rates[REPORT_LADDER];
    size_t n_rates;
    bool at_end, spread, json, csv, hash_keys, help;
    size_t memory;
    const char *const *paths;
    size_t n_paths;
};

/* "99.9%" or "0.999" */
static int replay_read_share(double *share, const char *text) {
    char *end;
    *share = strtod(text, &end);
    if (strcmp(end, "%") == 0) *share /= 100;
    if (end == text || (*end != '\0' && strcmp(end, "%") != 0) || !(*share > 0 && *share <= 1))
        return replay_complain("--suggest takes a share of the keys over 0%% and at most 100%%, such as 99.9%%");
    return RIGHT;
}

/* "64M", "64MiB" or "1G" */
static int replay_read_size(size_t *size, const char *text) {
    char *end;
    errno = 0;
    const unsigned long long n = strtoull(text, &end, 10);
    const char *units = "KMG", *unit = *end != '\0' ? strchr(units, *end) : NULL;
    const size_t factor = unit != NULL ? (size_t)1 << 10 * (unit - units + 1) : 0;
    const bool right = errno == 0 && text[0] >= '0' && text[0] <= '9' && factor > 0 &&
                       (strcmp(end + 1, "") == 0 || strcmp(end + 1, "iB") == 0) && n <= SIZE_MAX / 2 / factor;
    if (!right || n * factor < 4 * MIB)
        return replay_complain("--memory takes a size of at least 4M, such as 64M or 1G");
    *size = (size_t)n * factor;
    return RIGHT;
}

static int replay_add_rate(struct command *command, const char *text) {
    steady_message why;
    if (command->n_rates == REPORT_LADDER) return replay_complain("--rate: at most %d times", REPORT_LADDER);
    steady_limit *rate = &command->rates[command->n_rates++];
    *rate = (steady_limit){0};
    if (steady_limit_parse(rate, text, &why) != 0 || steady_limit_check(rate, &why) != 0)
        return replay_complain("--rate: %s", why.text);
    return RIGHT;
}

static int replay_read_at(bool *at_end, const char *text) {
    *at_end = strcmp(text, "end") == 0;
    return *at_end || strcmp(text, "begin") == 0 ? RIGHT : replay_complain("--at takes begin or end");
}

static int replay_read_option(struct command *command, int option, const char *value) {
    switch (option) {
    case 'c': command->config = value; return RIGHT;
    case 'l': command->limit = value; return RIGHT;
    case 'k': command->key = value; return RIGHT;
    case 's': return replay_read_share(&command->share, value);
    case 'r': return replay_add_rate(command, value);
    case 'a': command->against = value; return RIGHT;
    case 'f': command->format.format = value; return RIGHT;
    case 't': command->format.time_field = value; return RIGHT;
    case 'm':
        if (command->format.n_maps == REPLAY_MAPS_MOST)
            return replay_complain("--field: at most %d times", REPLAY_MAPS_MOST);
        command->maps[command->format.n_maps++] = value;
        return RIGHT;
    case 'A': return replay_read_at(&command->at_end, value);
    case 'S': command->spread = true; return RIGHT;
    case 'j': command->json = true; return RIGHT;
    case 'v': command->csv = true; return RIGHT;
    case 'H': command->html = value; return RIGHT;
    case 'V': command->verdicts = value; return RIGHT;
    case 'K': command->hash_keys = true; return RIGHT;
    case 'M': return replay_read_size(&command->memory, value);
    case 'h': command->help = true; return RIGHT;
    default: return replay_complain("steady replay --help lists the options");
    }
}

/* `--limit 100/min burst 20` without quotes: the rest of the limit looks like names of logs. */
static int replay_check_quotes(const struct command *command) {
    for (size_t i = 0; i + 1 < command->n_paths && command->limit != NULL; i++) {
        const char *word = command->paths[i];
        if ((strcmp(word, "burst") != 0 && strcmp(word, "block") != 0) || access(word, F_OK) == 0) continue;
        return replay_complain("unexpected argument \"%s\"; write the limit in quotes: --limit '%s %s %s'", word,
                               command->limit, word, command->paths[i + 1]);
    }
    return RIGHT;
}

/* What does not go together. */
static int replay_check(const struct command *command) {
    if (command->n_paths == 0) return replay_complain("name a log, or - for standard input");
    if (command->config != NULL && (command->limit != NULL || command->key != NULL))
        return replay_complain("--config has the limits and keys; use it without --limit and --key");
    if (command->config == NULL && command->limit == NULL && command->share <= 0)
        return replay_complain("say which limits: --config FILE, --limit RATE or --suggest P");
    if (command->against != NULL && command->config == NULL) return replay_complain("--against needs --config");
    if (command->n_rates > 0 && command->share <= 0) return replay_complain("--rate needs --suggest");
    if (command->json && command->csv) return replay_complain("use --json or --csv");
    if (command->html != NULL && strcmp(command->html, "-") == 0 && (command->json || command->csv))
        return replay_complain("--html - takes standard output, as --json and --csv do");
    if (replay_check_quotes(command) != RIGHT) return WRONG;
    bool has_input = false;
    for (size_t i = 0; i < command->n_paths; i++) {
        if (strcmp(command->paths[i], "-") != 0) continue;
        if (has_input) return replay_complain("standard input can be read once");
        has_input = true;
    }
    return RIGHT;
}

static int replay_read_options(struct command *command, int argc, char **argv) {
    static const struct option names[] = {{"config", required_argument, NULL, 'c'},
                                          {"limit", required_argument, NULL, 'l'},
                                          {"key", required_argument, NULL, 'k'},
                                          {"suggest", required_argument, NULL, 's'},
                                          {"rate", required_argument, NULL, 'r'},
                                          {"against", required_argument, NULL, 'a'},
                                          {"format", required_argument, NULL, 'f'},
                                          {"time", required_argument, NULL, 't'},
                                          {"field", required_argument, NULL, 'm'},
                                          {"at", required_argument, NULL, 'A'},
                                          {"spread", no_argument, NULL, 'S'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"csv", no_argument, NULL, 'v'},
                                          {"html", required_argument, NULL, 'H'},
                                          {"verdicts", required_argument, NULL, 'V'},
                                          {"hash-keys", no_argument, NULL, 'K'},
                                          {"memory", required_argument, NULL, 'M'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (replay_read_option(command, c, optarg) != RIGHT) return WRONG;
        if (command->help) return RIGHT;
    }
    command->format.maps = command->maps;
    command->paths = (const char *const *)&argv[optind];
    command->n_paths = (size_t)(argc - optind);
    return replay_check(command);
}

static void replay_print_help(void) {
    fputs(help, stdout);
    for (size_t i = 0; format_known_name(i) != NULL; i++)
        printf("  %-12s %s\n", format_known_name(i), format_known_text(i));
    fputs(help_end, stdout);
}

/* ---- A replay ---- */

struct replay {
    const struct command *command;
    struct rules *rules, *against;
    struct setup_fields fields, bare;
    struct format_options format;
    struct sources *sources;
    struct series *series;
    struct engine *engine;
    struct results results;
    FILE *verdicts;
};

static int replay_read_rules(struct replay *replay) {
    const struct command *command = replay->command;
    struct rules_error error;
    replay->rules = command->config != NULL ? rules_read(command->config, &error)
                                            : setup_rules(command->limit, command->key, &replay->bare, &error);
    if (replay->rules != NULL && command->against != NULL) replay->against = rules_read(command->against, &error);
    if (replay->rules == NULL || (command->against != NULL && replay->against == NULL)) {
        fprintf(stderr, "%s%s\n", command->config == NULL ? "steady replay: " : "", error.text);
        return WRONG;
    }
    for (size_t i = 0; i < replay->rules->n_warnings; i++)
        fprintf(stderr, "warning: %s\n", replay->rules->warnings[i]);
    if (!setup_add_fields(&replay->fields, replay->rules) ||
        (replay->against != NULL && !setup_add_fields(&replay->fields, replay->against)))
        return replay_complain("out of memory");
    return RIGHT;
}

/* /tmp is often in memory, so /var/tmp comes before it. */
static const char *replay_folder(void) {
    const char *folder = getenv("TMPDIR");
    if (folder != NULL && folder[0] != '\0') return folder;
    return access("/var/tmp", W_OK | X_OK) == 0 ? "/var/tmp" : "/tmp";
}

static int replay_open_verdicts(struct replay *replay) {
    const char *path = replay->command->verdicts;
    if (path == NULL) return RIGHT;
    replay->verdicts = fopen(path, "we");
    if (replay->verdicts == NULL) return replay_complain("--verdicts %s: %s", path, strerror(errno));
    fputs("time,limit,key,amount,verdict,request\n", replay->verdicts);
    return RIGHT;
}

/* A key without a dot is often a mistake: some log has to have a field of this name. */
static int replay_check_key(const struct replay *replay) {
    for (size_t i = 0; i < replay->bare.n; i++) {
        const char *name = replay->bare.names[i];
        if (sources_have(replay->sources, name)) continue;
        return replay_complain("--key: \"%s\" is no key, and the log has no field of this name; use ip, ip/48, "
                               "header:NAME, cookie:NAME, query:NAME, path, host or method, joined with +, or a field "
                               "such as .user.id",
                               name + (name[0] == '.' ? 1 : 0));
    }
    return RIGHT;
}

static int replay_begin(struct replay *replay) {
    const struct command *command = replay->command;
    char why[400];
    if (replay_read_rules(replay) != RIGHT || replay_open_verdicts(replay) != RIGHT) return WRONG;
    replay->format = command->format;
    replay->format.wanted = replay->fields.names;
    replay->format.n_wanted = replay->fields.n;
    const struct sources_options sources = {.paths = command->paths, .n = command->n_paths, .format = &replay->format};
    replay->sources = sources_new(&sources);
    if (replay->sources == NULL || !results_new(&replay->results)) return replay_complain("out of memory");
    if (sources_usable(replay->sources) == 0 || replay_check_key(replay) != RIGHT) return WRONG;
    if (command->share > 0 || command->json || command->html != NULL) {
        replay->series = series_new(replay_folder());
        if (replay->series == NULL) return replay_complain("out of memory");
    }
    const struct engine_options options = {.rules = replay->rules,
                                           .against = replay->against,
                                           .by_name = command->config == NULL,
                                           .no_verdicts = command->config == NULL && command->limit == NULL,
                                           .at_end = command->at_end,
                                           .spread = command->spread,
                                           .hash_keys = command->hash_keys,
                                           .memory = command->memory,
                                           .verdicts = replay->verdicts,
                                           .series = replay->series};
    replay->engine = engine_new(&options, why, sizeof why);
    return replay->engine != NULL ? RIGHT : replay_complain("%s", why);
}

static void replay_read(struct replay *replay) {
    static struct record record;
    struct progress progress;
    struct report lines;
    uint64_t position, size, until_draw = REPLAY_DRAW_EACH;
    enum sources_outcome outcome;
    progress_begin(&progress);
    while (!replay_interrupted && (outcome = sources_next(replay->sources, &record)) != SOURCES_END) {
        if (outcome == SOURCES_RECORD) {
            engine_take(replay->engine, &record);
            engine_advance(replay->engine, sources_newest(replay->sources));
        }
        if (--until_draw > 0) continue;
        until_draw = REPLAY_DRAW_EACH;
        if (!progress_is_due(&progress)) continue;
        sources_progress(replay->sources, &position, &size);
        sources_report(replay->sources, &lines);
        progress_draw(&progress, position, size, lines.lines, lines.bytes);
    }
    engine_end(replay->engine);
    progress_end(&progress);
    signal(SIGINT, SIG_DFL); /* the report is the rest */
}

/* ---- The report ---- */

static int replay_write_html(const struct report *report, const char *path) {
    FILE *to = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    bool written = to != NULL && report_write_html(report, to);
    if (to != NULL) written = (to == stdout ? fflush(to) : fclose(to)) == 0 && written;
    return written ? RIGHT : replay_complain("--html %s: %s", path, strerror(errno));
}

static unsigned replay_columns(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 0;
}

static int replay_write(const struct replay *replay) {
    const struct command *command = replay->command;
    const struct report *report = &replay->results.report;
    const char *no_color = getenv("NO_COLOR");
    const bool color = isatty(STDOUT_FILENO) == 1 && (no_color == NULL || no_color[0] == '\0');
    if (command->html != NULL && replay_write_html(report, command->html) != RIGHT) return WRONG;
    if (command->html != NULL && strcmp(command->html, "-") == 0) return RIGHT;
    const bool written = command->json  ? report_write_json(report, stdout)
                         : command->csv ? report_write_csv(report, stdout)
                                        : report_write_text(report, stdout, replay_columns(), color);
    if (fflush(stdout) == 0 && written) return RIGHT;
    return replay_complain("the report cannot be written: %s", strerror(errno));
}

static int replay_report(struct replay *replay) {
    const struct command *command = replay->command;
    struct report *report = &replay->results.report;
    const struct results_options options = {.share = command->share,
                                            .rates = command->rates,
                                            .n_rates = command->n_rates,
                                            .heat = command->json || command->html != NULL};
    const char *note;
    sources_report(replay->sources, report);
    report->rules_file = command->config;
    report->against_file = command->against;
    for (size_t i = 0; (note = sources_note(replay->sources, i)) != NULL; i++)
        results_note(&replay->results, "%s", note);
    report->partial = replay_interrupted || sources_is_partial(replay->sources);
    if (command->hash_keys) /* a line that cannot be read may have a key anywhere */
        for (size_t i = 0; i < report->n_bad; i++)
            report->bad[i].text[0] = '\0';
    if (!results_fill(&replay->results, replay->engine, replay->series, &options))
        return replay_complain("out of memory");
    if (replay->verdicts != NULL) {
        const bool failed = ferror(replay->verdicts) != 0;
        const bool closed = fclose(replay->verdicts) == 0;
        replay->verdicts = NULL;
        if (failed || !closed) return replay_complain("--verdicts %s: %s", command->verdicts, strerror(errno));
    }
    if (replay_write(replay) != RIGHT) return WRONG;
    if (replay_interrupted) return INTERRUPTED;
    if (command->share > 0 && series_error(replay->series) != NULL)
        return replay_complain("--suggest: %s", series_error(replay->series));
    if (sources_failed(replay->sources) > 0) return WRONG;
    const uint64_t lines = report->lines - report->other_lines;
    return 2 * (report->bad_lines + report->late_lines) > lines ? MOST_LINES_BAD : RIGHT;
}

static void replay_end(struct replay *replay) {
    if (replay->verdicts != NULL) fclose(replay->verdicts);
    results_free(&replay->results);
    engine_free(replay->engine);
    series_free(replay->series);
    sources_free(replay->sources);
    free(replay->fields.names);
    free(replay->bare.names);
    rules_free(replay->against);
    rules_free(replay->rules);
}

int replay_main(int argc, char **argv) {
    static struct command command = {.memory = 160 * MIB};
    static struct replay replay;
    if (replay_read_options(&command, argc, argv) != RIGHT) return WRONG;
    if (command.help) {
        replay_print_help();
        return RIGHT;
    }
    if (sodium_init() < 0) return replay_complain("libsodium cannot begin");
    replay.command = &command;
    replay_catch_interrupt();
    int code = replay_begin(&replay);
    if (code == RIGHT) {
        replay_read(&replay);
        code = replay_report(&replay);
    }
    replay_end(&replay);
    return code;
}
