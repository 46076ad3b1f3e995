/* SPDX-License-Identifier: MIT
 * The options of the command: one table, from which they are read, explained and, where mistyped, guessed. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define AMOUNT_MAX INT32_MAX
#define WAIT_MAX ((int64_t)1 << 52)
#define DAY (86400 * STEADY_SECOND)
#define LONGEST (((int64_t)1 << 53) - 1)

enum kind { FLAG, TEXT, INTEGER, DURATION, RATES, POLICY, ENGINE };

struct option {
    const char *name;  /* a name may have several rows, each for other commands */
    const char *value; /* its placeholder in the help; NULL: a flag */
    int commands;
    enum kind kind;
    size_t field;
    int64_t min, max;
    const char *help;
};

#define FIELD(name) offsetof(struct options, name)

static const struct option table[] = {
    {"capacity", "N", FOR_LIMITS | FOR_SETTLE, INTEGER, FIELD(capacity), 1, INT32_MAX, "drops the bucket can hold"},
    {"recharge", "DURATION", FOR_LIMITS | FOR_SETTLE, DURATION, FIELD(recharge), 1, LONGEST,
     "the time in which a drop leaks: 5s"},
    {"rate", "[NAME=]RATE", FOR_LIMITS, RATES, 0, 0, 0,
     "sets both: 100/min is 100 drops that leak in a minute;\n"
     "\"100/min burst 20\": a bucket of 20 drops\n"
     "(with --capacity: a bucket of that many drops);\n"
     "repeat it for several limits: burst=10/s day=1000/d"},
    {"rate", "[NAME=]RATE", FOR_SETTLE, RATES, 0, 0, 0,
     "the limit of today, if it has changed since; repeat it\nfor several limits (default: as reserved)"},
    {"block", "DURATION", FOR_LIMITS, DURATION, FIELD(block), 0, LONGEST / 2,
     "how long an overflow blocks the key (default: no block)"},
    {"amount", "N", FOR_CONSUME, INTEGER, FIELD(amount), -AMOUNT_MAX, AMOUNT_MAX,
     "drops to put in; negative takes some out (default 1)"},
    {"amount", "N", FOR_WAIT | FOR_RESERVE, INTEGER, FIELD(amount), 1, AMOUNT_MAX, "drops to put in (default 1)"},
    {"max-wait", "DURATION", FOR_CONSUME | FOR_RESERVE, DURATION, FIELD(max_wait), 0, WAIT_MAX,
     "take a place in line: if the drops fit within this\n"
     "time, put them in, and sleep until they fit (default 0s)"},
    {"max-wait", "DURATION", FOR_WAIT, DURATION, FIELD(max_wait), 0, WAIT_MAX,
     "the longest time to wait (default: no bound)"},
    {"at-least", "N", FOR_CONSUME | FOR_RESERVE, INTEGER, FIELD(at_least), 1, AMOUNT_MAX,
     "put in what fits now, if it is this much or more"},
    {"charge", NULL, FOR_CONSUME, FLAG, FIELD(charge), 0, 0, "put the drops in whatever the level, blocked or not"},
    {"keys", "N", FOR_BENCH, INTEGER, FIELD(keys), 1, 100000000, "number of keys, used at random (default 1000)"},
    {"in-flight", "N", FOR_BENCH, INTEGER, FIELD(in_flight), 1, 65536,
     "decisions in flight at a time, on a server (default 64)"},
    {"seconds", "N", FOR_BENCH, INTEGER, FIELD(seconds), 1, 3600, "how many seconds to measure (default 2)"},
    {"prefix", "TEXT", FOR_LIMITS, TEXT, FIELD(prefix), 0, 0, "text to put before each key (default: none)"},
    {"prefix", "TEXT", FOR_SETTLE, TEXT, FIELD(prefix), 0, 0, "the prefix that reserve had; needed only with a limit"},
    {"store", "URL", FOR_STORES, TEXT, FIELD(store), 0, 0,
     "file:/path, redis://[user:pass@]host[:port][/db],\n"
     "rediss://... (TLS), unix:/path, memory:,\nredis+sentinel://HOST[,HOST]/SERVICE\n"
     "(default: $STEADY_STORE, else your own file)"},
    {"timeout", "DURATION", FOR_STORES, DURATION, FIELD(timeout), 1, DAY,
     "longest time for an answer of a server (default 1s)"},
    {"on-error", "POLICY", FOR_CONSUME | FOR_PEEK | FOR_WAIT, POLICY, FIELD(on_error), 0, 0,
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

/* For "0" the library suggests "0s". That is no help if the option does not take 0s. For a number below 0 it names no
 * range. */
static bool options_is_zero(const char *value) { return *value != '\0' && value[strspn(value, "0")] == '\0'; }

static int options_read_duration(const struct option *option, steady_us *duration, const char *value) {
    steady_message why;
    struct text range = {0};
    steady_us us = 0;
    const bool below = value[0] == '-' || (option->min > 0 && options_is_zero(value));
    if (!below && steady_duration_parse(&us, value, &why) != 0) return complain("--%s: %s", option->name, why.text);
    if (!below && us >= option->min && us <= option->max) {
        *duration = us;
        return ALLOWED;
    }
    text_add_exact(&range, option->min);
    text_add(&range, " and ");
    text_add_exact(&range, option->max);
    complain("--%s: \"%s\" is not between %s", option->name, quoted(value).text,
             range.bytes != NULL ? range.bytes : "its bounds");
    text_free(&range);
    return USAGE;
}

/* The reason may quote a part of the value, so it is shown only if steady_quote sees no secret in the whole value. */
static int options_complain_rate(const char *value, const char *reason, bool with_value) {
    const struct quoted whole = quoted(value);
    if (strcmp(whole.text, value) != 0)
        return complain("--rate: \"%s\" is not NAME=RATE, such as burst=10/s", whole.text);
    return with_value ? complain("--rate: \"%s\": %s", value, reason) : complain("--rate: %s", reason);
}

/* NAME=RATE or RATE. */
static int options_read_rate(struct options *options, char *value) {
    char *equals = strchr(value, '=');
    steady_limit *rate = &options->rates[options->n_rates];
    steady_message why;
    if (options->n_rates == LIMITS_MAX) return complain("--rate is given more than %d times", LIMITS_MAX);
    if (steady_limit_parse(rate, equals != NULL ? equals + 1 : value, &why) != 0)
        return equals != NULL ? options_complain_rate(value, why.text, false) : complain("--rate: %s", why.text);
    if (equals != NULL) {
        struct text name = {0};
        text_add(&name, "%.*s", (int)(equals - value), value);
        rate->name = name.bytes;
        const bool valid = steady_limit_check(rate, &why) == 0;
        text_free(&name);
        if (!valid) return options_complain_rate(value, why.text, true);
        *equals = '\0';
        rate->name = value;
    }
    options->n_rates++;
    return ALLOWED;
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

static int options_read_value(const struct option *option, struct options *options, char *value) {
    void *field = (char *)options + option->field;
    switch (option->kind) {
    case FLAG: *(bool *)field = true; break;
    case TEXT: *(const char **)field = value; break;
    case INTEGER: return options_read_integer(option, field, value);
    case DURATION: return options_read_duration(option, field, value);
    case RATES: return options_read_rate(options, value);
    case POLICY: return options_read_policy(option, field, value);
    case ENGINE: return options_read_engine(option, field, value);
    }
    return ALLOWED;
}

/* ---- Names ---- */

/* Finds the row for the command; if there is none, that for another command. */
static const struct option *options_find(const char *name, size_t len, int command) {
    const struct option *found = NULL;
    for (int i = 0; i < N_OPTIONS; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0 &&
            (found == NULL || (table[i].commands & command) != 0))
            found = &table[i];
    return found;
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
    if (strcmp(arg, "-h") == 0) return options_find("help", strlen("help"), command);
    const struct option *option = strncmp(arg, "--", 2) == 0 ? options_find(arg + 2, len - 2, command) : NULL;
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
    char *arg = *(*args)++;
    char *equals = strchr(arg, '=');
    const size_t len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
    char *value = equals != NULL ? equals + 1 : NULL;
    const struct option *option = options_find_for_command(arg, len, command, command_name);
    if (option == NULL) return USAGE;
    const uint32_t bit = (uint32_t)1 << (option - table);
    if ((options->given & bit) != 0 && option->kind != RATES) return complain("--%s is given twice", option->name);
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

/* A number below 0 is an operand of settle, which says why it is wrong. */
static bool options_is_dashed(const char *arg, int command) {
    const bool number = arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9';
    return arg[0] == '-' && arg[1] != '\0' && !(number && command == FOR_SETTLE);
}

int options_read(struct options *options, int command, const char *name, char **args) {
    bool only_operands = false;
    int code = ALLOWED;
    *options = (struct options){
        .amount = 1, .max_wait = -1, .timeout = STEADY_SECOND, .keys = 1000, .in_flight = 64, .seconds = 2};
    while (*args != NULL && code == ALLOWED) {
        const bool dashed = !only_operands && options_is_dashed(*args, command);
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

/* ---- Limits ---- */

static bool options_is_name_taken(const steady_limit *a, const steady_limit *b) {
    if (a->name == NULL && b->name == NULL) return a->drop_recharge == b->drop_recharge;
    return a->name != NULL && b->name != NULL && strcmp(a->name, b->name) == 0;
}

static int options_check_names(const struct options *options) {
    for (int i = 1; i < options->n_rates; i++)
        for (int k = 0; k < i; k++) {
            if (!options_is_name_taken(&options->rates[i], &options->rates[k])) continue;
            if (options->rates[i].name != NULL)
                return complain("--rate: two rates have the name \"%s\"; their names must differ",
                                quoted(options->rates[i].name).text);
            return complain("--rate: number %d and number %d have one period; name them, such as "
                            "--rate burst=10/s --rate average=5/s",
                            k + 1, i + 1);
        }
    return ALLOWED;
}

static int options_several(const struct options *options, struct limits *limits) {
    steady_message why;
    if (options->capacity != 0)
        return complain("--capacity and several --rate cannot be used together; write --rate \"100/min burst 20\"");
    if (options_check_names(options) != ALLOWED) return USAGE;
    limits->n = (size_t)options->n_rates;
    for (int i = 0; i < options->n_rates; i++) {
        limits->all[i] = options->rates[i];
        limits->all[i].block_duration = options->block;
        if (steady_limit_check(&limits->all[i], &why) != 0) return complain("--rate: number %d: %s", i + 1, why.text);
    }
    return ALLOWED;
}

bool options_have_limit(const struct options *options) { return options->n_rates > 0 || options->capacity != 0; }

int options_limits(const struct options *options, const steady_limit *usual, struct limits *limits) {
    steady_limit *limit = &limits->all[0];
    steady_message why;
    limits->n = 1;
    if (options->n_rates > 0 && options->recharge != 0)
        return complain("--rate and --recharge cannot be used together: both set how fast drops leak");
    if (options->n_rates > 1) return options_several(options, limits);
    if (options->n_rates == 0 && (options->capacity == 0 || options->recharge == 0)) {
        if (usual == NULL || options->capacity != 0 || options->recharge != 0)
            return complain("a limit is needed: %s--rate 100/min, or --capacity 10 --recharge 5s",
                            options->capacity != 0   ? "--recharge is missing; use "
                            : options->recharge != 0 ? "--capacity is missing; use "
                                                     : "");
        *limit = *usual;
        return ALLOWED;
    }
    *limit = options->n_rates > 0 ? options->rates[0] : (steady_limit){.drop_recharge = options->recharge};
    if (options->capacity != 0) limit->max_capacity = options->capacity;
    limit->block_duration = options->block;
    return steady_limit_check(limit, &why) == 0 ? ALLOWED : complain("%s", why.text);
}

int options_check_waits(const struct options *options) {
    if (options->charge && options->at_least > 0)
        return complain("--at-least and --charge cannot be used together: a charge always puts in all of --amount");
    if (options->charge && options->max_wait >= 0)
        return complain("--max-wait and --charge cannot be used together: a charge never waits");
    if (options->charge && options->amount < 0)
        return complain("--amount: \"%" PRId64 "\" is not a whole number from 0 to %d, as --charge needs",
                        options->amount, AMOUNT_MAX);
    if (options->at_least > 0 && options->at_least > options->amount)
        return complain("--at-least: \"%" PRId64 "\" is more than --amount, which is %" PRId64
                        "; it must be from 1 to the amount",
                        options->at_least, options->amount);
    return ALLOWED;
}

bool options_read_actual(int64_t *actual, const char *value) {
    return options_parse_integer(actual, value, 0, ACTUAL_MAX);
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
