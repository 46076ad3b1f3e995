/* SPDX-License-Identifier: MIT
 * steady settle: corrects the buckets of a reservation when the cost is known. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { TEXT_MAX = 1 << 18 }; /* more than the longest reservation has */

/* ---- The reservation ---- */

/* Reads standard input to its end. A negative length, with errno, if that fails. */
static ssize_t settle_read_all(char *text, size_t size) {
    size_t len = 0;
    ssize_t n = 1;
    while (n > 0 && len < size) {
        n = read(STDIN_FILENO, text + len, size - len);
        if (n > 0) len += (size_t)n;
        if (n < 0 && errno == EINTR) n = 1;
    }
    return n < 0 ? n : (ssize_t)len;
}

static int settle_parse(steady_reservation **reservation, const char *text) {
    steady_message why;
    const int error = steady_reservation_parse(reservation, text, &why);
    if (error == STEADY_BAD_ARGUMENT) complain("RESERVATION: \"%s\": %s", quoted(text).text, why.text);
    if (error != 0 && error != STEADY_BAD_ARGUMENT) complain("%s", why.text);
    return error_code(error);
}

/* Takes the text without its line end. One byte more than the longest text fits: that one is too many. */
static int settle_parse_input(steady_reservation **reservation, char text[TEXT_MAX + 1]) {
    ssize_t len = settle_read_all(text, TEXT_MAX + 1);
    if (len < 0) return complain("cannot read standard input: %s", strerror(errno));
    if (len > TEXT_MAX) return complain("RESERVATION: standard input has more than %d bytes", TEXT_MAX);
    if (memchr(text, '\0', (size_t)len) != NULL)
        return complain("RESERVATION: standard input has a NUL byte; a reservation has none");
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    text[len] = '\0';
    return settle_parse(reservation, text);
}

/* Reads the operand; "-" is standard input. ALLOWED, or an exit code after an error message. */
static int settle_read_reservation(steady_reservation **reservation, const char *operand) {
    static const steady_message none = {.text = ""};
    if (strcmp(operand, "-") != 0) return settle_parse(reservation, operand);
    char *text = malloc(TEXT_MAX + 1);
    if (text == NULL) {
        complain_error(STEADY_NO_MEMORY, &none);
        return error_code(STEADY_NO_MEMORY);
    }
    const int code = settle_parse_input(reservation, text);
    free(text);
    return code;
}

/* ---- The actuals ---- */

struct actuals {
    int64_t all[LIMITS_MAX]; /* one for each bucket; -1: not named */
    bool by_name;
};

/* Shows the whole operand: steady_quote sees no secret in a part of a URL. */
static int settle_complain_number(const char *operand) {
    return complain("ACTUAL: \"%s\" is not a whole number from 0 to %" PRId64 ", or NAME= and such a number",
                    quoted(operand).text, ACTUAL_MAX);
}

static int settle_complain_name(const char *operand, const steady_reserved *parts, size_t n) {
    struct text names = {0};
    for (size_t i = 0; i < n; i++)
        text_add(&names, "%s%s", i > 0 ? ", " : "", parts[i].name);
    complain("\"%s\": the reservation has no limit of this name; it has %s", quoted(operand).text,
             names.bytes != NULL ? names.bytes : "none");
    text_free(&names);
    return USAGE;
}

/* NAME=ACTUAL. A name may hold a "=", a number cannot. */
static int settle_read_named(struct actuals *actuals, const char *operand, const steady_reserved *parts, size_t n) {
    const char *equals = strrchr(operand, '=');
    const size_t len = (size_t)(equals - operand);
    int64_t actual = 0;
    bool found = false;
    if (!options_read_actual(&actual, equals + 1)) return settle_complain_number(operand);
    for (size_t i = 0; i < n; i++) {
        if (strlen(parts[i].name) != len || memcmp(parts[i].name, operand, len) != 0) continue;
        if (actuals->all[i] >= 0) return complain("\"%s\": this limit is named twice", quoted(operand).text);
        actuals->all[i] = actual;
        found = true;
    }
    return found ? ALLOWED : settle_complain_name(operand, parts, n);
}

/* One number for all limits. */
static int settle_read_one(struct actuals *actuals, const char *operand, const steady_reserved *parts, size_t n) {
    int64_t actual = 0;
    if (!options_read_actual(&actual, operand)) return settle_complain_number(operand);
    for (size_t i = 0; i < n; i++) {
        if (parts[i].amount != parts[0].amount)
            return complain("the reservation has %lld of limit %s and %lld of limit %s; write NAME=ACTUAL for each",
                            (long long)parts[0].amount, parts[0].name, (long long)parts[i].amount, parts[i].name);
        actuals->all[i] = actual;
    }
    return ALLOWED;
}

static int settle_read_actuals(struct actuals *actuals, const struct options *options,
                               const steady_reservation *reservation) {
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    const char *const *operands = &options->operands[1];
    const int n_operands = options->n_operands - 1;
    for (size_t i = 0; i < LIMITS_MAX; i++)
        actuals->all[i] = -1;
    if (strchr(operands[0], '=') == NULL && n_operands == 1) return settle_read_one(actuals, operands[0], parts, n);
    for (int i = 0; i < n_operands; i++) {
        if (strchr(operands[i], '=') == NULL)
            return complain("\"%s\" is not NAME=ACTUAL; write one ACTUAL for all limits, or NAME=ACTUAL for each",
                            quoted(operands[i]).text);
        if (settle_read_named(actuals, operands[i], parts, n) != ALLOWED) return USAGE;
    }
    return ALLOWED;
}

/* ---- Settling ---- */

/* The library does not know the options. */
static void settle_complain(const steady_result *r, const steady_message *trouble, bool with_limits) {
    if (r->error == STEADY_UNKNOWN)
        complain("the answer was lost; the reservation may be settled, so do not settle it again%s%s",
                 trouble->text[0] != '\0' ? ": " : "", trouble->text);
    else if (r->error == STEADY_BAD_ARGUMENT && with_limits)
        complain("%s; give all limits and the --prefix that reserve had", trouble->text);
    else if (r->error != 0)
        complain_error(r->error, trouble);
}

/* A settlement on its way. */
struct settling {
    const struct options *options;
    struct limits limits; /* those of today; none: those of the reservation */
    steady_reservation *reservation;
    struct actuals actuals;
    steady_part_result parts[LIMITS_MAX];
    steady_result result;
    steady_message trouble; /* if result.error is not 0: the reason */
};

/* With limits the buckets belong to a throttler that has them; otherwise the reservation says what is needed. */
static void settle_in_store(struct settling *s, steady_store *store, steady_throttler *throttler) {
    steady_message why = {.text = ""};
    const steady_settlement settlement = {.reservation = s->reservation,
                                          .actuals = s->actuals.all,
                                          .throttlers = &throttler,
                                          .n_throttlers = throttler != NULL,
                                          .store = throttler == NULL ? store : NULL,
                                          .parts = s->parts,
                                          .parts_room = LIMITS_MAX,
                                          .why = &why};
    steady_settle_sync(&settlement, &s->result);
    s->trouble = why;
    if (why.text[0] == '\0') steady_store_last_error(store, &s->trouble);
    settle_complain(&s->result, &s->trouble, throttler != NULL);
}

static void settle_ask(struct settling *s) {
    const steady_throttler_options options = {.prefix = s->options->prefix};
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    bool embedded = false;
    int error = open_store(&store, s->options, NULL, &embedded, &s->trouble);
    if (error == 0 && s->limits.n > 0)
        error = steady_throttler_new_limits(&throttler, store, s->limits.all, s->limits.n, &options, &s->trouble);
    if (error == 0) {
        settle_in_store(s, store, throttler);
    } else {
        s->result.error = error;
        complain_error(error, &s->trouble);
    }
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

static int settle_say(const struct settling *s) {
    const bool answered = s->result.source != STEADY_FROM_NOWHERE;
    const int code = answered ? ALLOWED : error_code(s->result.error);
    struct text text = {0};
    if (s->options->json && code != USAGE)
        describe_settled_json(&text, s->reservation, s->parts, &s->result);
    else if (answered)
        describe_settled(&text, s->reservation, &s->limits, s->parts, s->result.n_parts);
    return text_say(&text, code, code == UNAVAILABLE ? UNAVAILABLE : UNKNOWN);
}

/* No limit is needed, but a part of one is refused. */
static int settle_read_limits(struct limits *limits, const struct options *options) {
    static const steady_limit any = {.max_capacity = 1, .drop_recharge = 1};
    const int code = options_limits(options, &any, limits);
    if (!options_have_limit(options)) limits->n = 0;
    return code;
}

int run_settle(const struct options *options) {
    struct settling settling = {.options = options};
    int code = settle_read_limits(&settling.limits, options);
    if (code == ALLOWED) code = settle_read_reservation(&settling.reservation, options->operands[0]);
    if (code == ALLOWED) code = settle_read_actuals(&settling.actuals, options, settling.reservation);
    if (code == ALLOWED) {
        settle_ask(&settling);
        code = settle_say(&settling);
    }
    steady_reservation_free(&settling.reservation);
    return code;
}
