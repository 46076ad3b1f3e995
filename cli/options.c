/* SPDX-License-Identifier: MIT
 * The options of the command: one table, from which they are read, explained and, where mistyped, guessed. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define AMOUNT_MAX INT32_MAX
#define DAY (86400 * STEADY_SECOND)
#define LONGEST (((int64_t)1 << 53) - 1)

enum kind { FLAG, TEXT, INTEGER, DURATION, RATE, POLICY, ENGINE };

struct option {
    const char *name;
    const char *value; /* its placeholder in the help; NULL: a flag */
    int commands;
    enum kind kind;
    size_t field;
    int64_t min, max;
    const char *help;
};

#define FIELD(name) offsetof(struct options, name)

static const struct option table[] = {
    {"capacity", "N", FOR_STORES, INTEGER, FIELD(capacity), 1, INT32_MAX, "drops the bucket can hold"},
    {"recharge", "DURATION", FOR_STORES, DURATION, FIELD(recharge), 1, LONGEST, "the time in which a drop leaks: 5s"},
    {"rate", "RATE", FOR_STORES, RATE, FIELD(rate), 0, 0,
     "sets both: 100/min is 100 drops that leak in a minute;\n"
     "\"100/min burst 20\": a bucket of 20 drops\n"
     "(with --capacity: a bucket of that many drops)"},
    {"block", "DURATION", FOR_STORES, DURATION, FIELD(block), 0, LONGEST / 2,
     "how long an overflow blocks the key (default: no block)"},
    {"amount", "N", FOR_CONSUME, INTEGER, FIELD(amount), -AMOUNT_MAX, AMOUNT_MAX,
     "drops to put in; negative takes some out (default 1)"},
    {"keys", "N", FOR_BENCH, INTEGER, FIELD(keys), 1, 100000000, "number of keys, used at random (default 1000)"},
    {"in-flight", "N", FOR_BENCH, INTEGER, FIELD(in_flight), 1, 65536,
     "decisions in flight at a time, on a server (default 64)"},
    {"seconds", "N", FOR_BENCH, INTEGER, FIELD(seconds), 1, 3600, "how many seconds to measure (default 2)"},
    {"prefix", "TEXT", FOR_STORES, TEXT, FIELD(prefix), 0, 0, "text to put before each key (default: none)"},
    {"store", "URL", FOR_STORES, TEXT, FIELD(store), 0, 0,
     "file:/path, redis://[user:pass@]host[:port][/db],\n"
     "rediss://... (TLS), unix:/path, memory:,\nredis+sentinel://HOST[,HOST]/SERVICE\n"
     "(default: $STEADY_STORE, else your own file)"},
    {"timeout", "DURATION", FOR_STORES, DURATION, FIELD(timeout), 1, DAY,
     "longest time for a decision on a server (default 1s)"},
    {"on-error", "POLICY", FOR_CONSUME | FOR_PEEK, POLICY, FIELD(on_error), 0, 0,
     "what to answer if the server does not: report, deny,\nallow or local (default report)"},
    {"engine", "ENGINE", FOR_STORES, ENGINE, FIELD(engine), 0, 0,
     "what decides on the server: script, module, or auto\n(the module if it is loaded; default auto)"},
    {"json", NULL, FOR_STORES, FLAG, FIELD(json), 0, 0, "print one JSON object on one line"},
    {"help", NULL, FOR_STORES | FOR_OTHERS, FLAG, FIELD(help), 0, 0, "print this help"},
};

enum { N_OPTIONS = sizeof table / sizeof table[0] };

static const char *const policies[] = {
    [STEADY_REPORT] = "report", [STEADY_DENY] = "deny", [STEADY_ALLOW] = "allow", [STEADY_LOCAL] = "local", NULL};
static const char *const engines[] = {
    [STEADY_ENGINE_AUTO] = "auto", [STEADY_ENGINE_SCRIPT] = "script", [STEADY_ENGINE_MODULE] = "module", NULL};

/* ---- Values ---- */

/* Reads digits, with a minus sign before them or not, and nothing else. */
static bool options_parse_integer(int64_t *number, const char *text, int64_t min, int64_t max) {
    const bool negative = *text == '-';
    const char *at = negative ? text + 1 : text;
    int64_t n = 0;
    if (*at == '\0') return false;
    for (; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || n > (INT64_MAX - 9) / 10) return false;
        n = n * 10 + (*at - '0');
    }
    if (negative) n = -n;
    if (n < min || n > max) return false;
    *number = n;
    return true;
}

static int options_read_integer(const struct option *option, int64_t *number, const char *value) {
    if (options_parse_integer(number, value, option->min, option->max)) return ALLOWED;
    return complain("--%s: \"%s\" is not a whole number from %" PRId64 " to %" PRId64, option->name, quoted(value).text,
                    option->min, option->max);
}

/* For "0" the library suggests "0s". That is no help if the option does not take 0s. */
static bool options_is_zero(const char *value) { return *value != '\0' && value[strspn(value, "0")] == '\0'; }

static int options_read_duration(const struct option *option, steady_us *duration, const char *value) {
    steady_message why;
    struct text range = {0};
    steady_us us = 0;
    if ((option->min == 0 || !options_is_zero(value)) && steady_duration_parse(&us, value, &why) != 0)
        return complain("--%s: %s", option->name, why.text);
    if (us >= option->min && us <= option->max) {
        *duration = us;
        return ALLOWED;
    }
    text_add_wait(&range, option->max);
    return complain("--%s: \"%s\" is not between %d us and %s", option->name, quoted(value).text, (int)option->min,
                    range.bytes);
}

static int options_read_rate(const struct option *option, steady_limit *rate, const char *value) {
    steady_message why;
    if (steady_limit_parse(rate, value, &why) == 0) return ALLOWED;
    return complain("--%s: %s", option->name, why.text);
}

/* The index of a value in a list of words; -1 after an error message that names the words. */
static int options_read_word(const struct option *option, const char *const *words, const char *value) {
    char list[80] = "";
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], value) == 0) return i;
        const size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    complain("--%s: \"%s\" is not one of %s", option->name, quoted(value).text, list);
    return -1;
}

static int options_read_policy(const struct option *option, enum steady_policy *policy, const char *value) {
    const int word = options_read_word(option, policies, value);
    if (word >= 0) *policy = (enum steady_policy)word;
    return word >= 0 ? ALLOWED : USAGE;
}

static int options_read_engine(const struct option *option, enum steady_engine *engine, const char *value) {
    const int word = options_read_word(option, engines, value);
    if (word >= 0) *engine = (enum steady_engine)word;
    return word >= 0 ? ALLOWED : USAGE;
}

static int options_read_value(const struct option *option, struct options *options, const char *value) {
    void *field = (char *)options + option->field;
    switch (option->kind) {
    case FLAG: *(bool *)field = true; break;
    case TEXT: *(const char **)field = value; break;
    case INTEGER: return options_read_integer(option, field, value);
    case DURATION: return options_read_duration(option, field, value);
    case RATE: return options_read_rate(option, field, value);
    case POLICY: return options_read_policy(option, field, value);
    case ENGINE: return options_read_engine(option, field, value);
    }
    return ALLOWED;
}

/* ---- Names ---- */

static const struct option *options_find(const char *name, size_t len) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0) return &table[i];
    return NULL;
}

static void options_complain_unknown(const char *arg, size_t len, int command, const char *command_name) {
    char typed[32] = "";
    const struct option *best = NULL;
    int best_distance = FAR;
    if (len > 2 && len - 2 < sizeof typed) memcpy(typed, arg + 2, len - 2);
    for (int i = 0; i < N_OPTIONS; i++) {
        const int d = (table[i].commands & command) != 0 ? distance(typed, table[i].name) : FAR;
        if (d < best_distance) {
            best = &table[i];
            best_distance = d;
        }
    }
    if (best != NULL)
        complain("unknown option \"%s\"; did you mean --%s?", quoted_option(arg).text, best->name);
    else
        complain("unknown option \"%s\"; see steady help %s", quoted_option(arg).text, command_name);
}

/* ---- Reading options ---- */

/* Finds the option that the first `len` bytes of an argument name. NULL after an error message. */
static const struct option *options_find_for_command(const char *arg, size_t len, int command,
                                                     const char *command_name) {
    if (strcmp(arg, "-h") == 0) return options_find("help", strlen("help"));
    const struct option *option = strncmp(arg, "--", 2) == 0 ? options_find(arg + 2, len - 2) : NULL;
    if (option == NULL) {
        options_complain_unknown(arg, len, command, command_name);
    } else if ((option->commands & command) == 0) {
        complain("%s has no option --%s; see steady help %s", command_name, option->name, command_name);
        option = NULL;
    }
    return option;
}

/* Reads an option and its value: after "=", or the next argument. Moves *args past them. */
static int options_read_one(struct options *options, int command, const char *command_name, char ***args) {
    const char *arg = *(*args)++;
    const char *equals = strchr(arg, '=');
    const size_t len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
    const char *value = equals != NULL ? equals + 1 : NULL;
    const struct option *option = options_find_for_command(arg, len, command, command_name);
    if (option == NULL) return USAGE;
    const uint32_t bit = (uint32_t)1 << (option - table);
    if ((options->given & bit) != 0) return complain("--%s is given twice", option->name);
    options->given |= bit;
    if (option->kind == FLAG) {
        if (value != NULL) return complain("--%s takes no value", option->name);
    } else if (value == NULL) {
        value = **args;
        if (value == NULL) return complain("--%s needs a value: --%s %s", option->name, option->name, option->value);
        (*args)++;
    }
    return options_read_value(option, options, value);
}

int options_read(struct options *options, int command, const char *name, char **args) {
    bool only_operands = false;
    int code = ALLOWED;
    *options = (struct options){.amount = 1, .timeout = STEADY_SECOND, .keys = 1000, .in_flight = 64, .seconds = 2};
    while (*args != NULL && code == ALLOWED) {
        const bool dashed = !only_operands && (*args)[0] == '-' && (*args)[1] != '\0';
        if (dashed && strcmp(*args, "--") == 0) {
            only_operands = true;
            args++;
        } else if (dashed) {
            code = options_read_one(options, command, name, &args);
        } else {
            if (options->n_operands < OPERANDS_KEPT) options->operands[options->n_operands] = *args;
            options->n_operands++;
            args++;
        }
    }
    return code;
}

int options_limit(const struct options *options, const steady_limit *usual, steady_limit *limit) {
    const bool with_rate = options->rate.max_capacity != 0;
    steady_message why;
    if (with_rate && options->recharge != 0)
        return complain("--rate and --recharge cannot be used together: both set how fast drops leak");
    if (!with_rate && (options->capacity == 0 || options->recharge == 0)) {
        if (usual == NULL || options->capacity != 0 || options->recharge != 0)
            return complain("a limit is needed: %s--rate 100/min, or --capacity 10 --recharge 5s",
                            options->capacity != 0   ? "--recharge is missing; use "
                            : options->recharge != 0 ? "--capacity is missing; use "
                                                     : "");
        *limit = *usual;
        return ALLOWED;
    }
    *limit = with_rate ? options->rate : (steady_limit){.drop_recharge = options->recharge};
    if (options->capacity != 0) limit->max_capacity = options->capacity;
    limit->block_duration = options->block;
    return steady_limit_check(limit, &why) == 0 ? ALLOWED : complain("%s", why.text);
}

/* ---- Help ---- */

static void options_add_help(struct text *text, const struct option *option) {
    const char *rest = option->help;
    const size_t start = text->len;
    text_add(text, "  --%s%s%s", option->name, option->value != NULL ? " " : "",
             option->value != NULL ? option->value : "");
    int column = (int)(text->len - start);
    for (const char *end = NULL; rest != NULL; rest = end != NULL ? end + 1 : NULL) {
        end = strchr(rest, '\n');
        text_add(text, "%*s%.*s\n", 24 - column, "", (int)(end != NULL ? end - rest : (long)strlen(rest)), rest);
        column = 0;
    }
}

void options_help(struct text *text, int command) {
    for (int i = 0; i < N_OPTIONS; i++)
        if ((table[i].commands & command) != 0) options_add_help(text, &table[i]);
}
