/* SPDX-License-Identifier: MIT
 * The command `steady`: the table of its commands, their help, and main. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static int main_run_help(const struct options *options);
static int main_run_version(const struct options *options);

static const struct command {
    const char *name;
    int (*run)(const struct options *options);
    int options; /* its options, as a bit of options.c */
    int min_operands, max_operands;
    const char *operands;
    const char *help;
} commands[] = {
    {"consume", run_consume, FOR_CONSUME, 1, 1, " KEY", "put drops into the bucket of KEY if they fit"},
    {"peek", run_peek, FOR_PEEK, 1, 1, " KEY", "look at the bucket of KEY; change nothing"},
    {"reset", run_reset, FOR_RESET, 1, 1, " KEY", "empty the bucket of KEY and lift its block"},
    {"wait", run_wait, FOR_WAIT, 1, 1, " KEY", "take a place in line and wait for it"},
    {"reserve", run_reserve, FOR_RESERVE, 1, 1, " KEY", "put an estimate in; print a reservation"},
    {"settle", run_settle, FOR_SETTLE, 2, LIMITS_MAX + 1, " RESERVATION ACTUAL",
     "correct a reservation to its true cost"},
    {"bench", run_bench, FOR_BENCH, 0, 0, "", "measure decisions a second on the store"},
    {"version", main_run_version, FOR_OTHERS, 0, 0, "", "print the version"},
    {"help", main_run_help, FOR_OTHERS, 0, 1, " [COMMAND]", "print this help, or the options of a command"},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *main_find(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int main_complain_unknown(const char *name) {
    int best = -1, best_distance = FAR;
    if (*name == '-')
        return complain("\"%s\" is not a command; write options after the command", quoted_option(name).text);
    for (int i = 0; i < N_COMMANDS; i++) {
        const int d = distance(name, commands[i].name);
        if (d < best_distance) {
            best = i;
            best_distance = d;
        }
    }
    if (best >= 0) return complain("unknown command \"%s\"; did you mean %s?", quoted(name).text, commands[best].name);
    return complain("unknown command \"%s\"; see steady help", quoted(name).text);
}

/* ---- help, version ---- */

static const char exit_codes[] = "Exit codes: 0 allowed, 1 denied, 2 wrong usage, 3 no answer and nothing charged,\n"
                                 "4 answer lost and drops perhaps charged.\n";

static void main_add_usage(struct text *text) {
    text_add(text, "usage: steady COMMAND [KEY] [OPTIONS]\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        const size_t start = text->len;
        text_add(text, "  steady %s%s", commands[i].name, commands[i].operands);
        text_add(text, "%*s%s\n", 36 - (int)(text->len - start), "", commands[i].help);
    }
    text_add(text,
             "\n  steady serve                      answer HTTP, gRPC and RESP by rules\n"
             "  steady check FILE                 check rules; say what counts for a request\n"
             "  steady replay LOG...              say what limits would have done to a log\n"
             "  steady top                        show rates, limits and top keys of a daemon\n"
             "  steady admin VERB                 reset, ban, unban, reload, explain\n"
             "\nsteady help COMMAND shows its options. For example, at most once in ten minutes:\n\n"
             "  steady consume deploy --capacity 1 --recharge 10m && ./deploy\n\n%s",
             exit_codes);
}

static int main_help_on(const struct command *command) {
    struct text text = {0};
    text_add(&text, "usage: steady %s%s [OPTIONS]\n\nsteady %s: %s\n\n", command->name, command->operands,
             command->name, command->help);
    options_help(&text, command->options);
    if (command->options != FOR_OTHERS)
        text_add(&text, "\nDurations: 250ms, 5s, 1h30m; units us ms s m h d.\n%s", exit_codes);
    return text_say(&text, ALLOWED, UNAVAILABLE);
}

static int main_run_help(const struct options *options) {
    struct text text = {0};
    if (options->n_operands > 0) {
        const char *name = options->operands[0];
        const struct command *command = main_find(name);
        if (daemon_has(name)) return daemon_run((char *[]){NULL, (char *)name, "--help", NULL});
        return command != NULL ? main_help_on(command) : main_complain_unknown(name);
    }
    main_add_usage(&text);
    return text_say(&text, ALLOWED, UNAVAILABLE);
}

static int main_run_version(const struct options *options) {
    struct text text = {0};
    (void)options;
    text_add(&text, "steady %s\n", steady_version());
    return text_say(&text, ALLOWED, UNAVAILABLE);
}

static int main_complain_missing(void) {
    struct text text = {0};
    main_add_usage(&text);
    complain("a command is needed\n\n%.*s", (int)text.len - 1, text.bytes);
    text_free(&text);
    return USAGE;
}

/* ---- main ---- */

/* Opens descriptors 0 to 2 if they are closed. Otherwise the file of a store could get one of these numbers, and output
 * would be written into it. */
static bool main_open_standard(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return false;
    return true;
}

static int main_run(const struct command *command, char **args) {
    struct options options;
    if (options_read(&options, command->options, command->name, args) != ALLOWED) return USAGE;
    if (options.help) return main_help_on(command);
    if (options.n_operands < command->min_operands)
        return complain("%s needs %s; usage: steady %s%s", command->name,
                        command->min_operands == 1 ? "a KEY" : "a RESERVATION and an ACTUAL", command->name,
                        command->operands);
    if (options.n_operands > command->max_operands) {
        const char *extra = options.operands[command->max_operands];
        if (options.n_rates > 0 && (strcmp(extra, "burst") == 0 || strcmp(extra, "block") == 0))
            return complain("unexpected argument \"%s\"; write the rate in quotes: --rate '100/min %s ...'", extra,
                            extra);
        return complain("unexpected argument \"%s\"; usage: steady %s%s", quoted(extra).text, command->name,
                        command->operands);
    }
    return command->run(&options);
}

int main(int argc, char **argv) {
    if (!main_open_standard()) return UNAVAILABLE;
    if (argc > 1 && daemon_has(argv[1])) return daemon_run(argv);
    signal(SIGPIPE, SIG_IGN); /* write(2) fails instead: the exit code says so */
    signal(SIGXFSZ, SIG_IGN); /* the same for a file at its limit, ulimit -f */
    if (argc < 2) return main_complain_missing();
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0) name = "version";
    const struct command *command = main_find(name);
    return command != NULL ? main_run(command, argv + 2) : main_complain_unknown(name);
}
