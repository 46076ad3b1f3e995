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

/* Reads standard input to its end, without the line end. NULL after an error message. */
static char *settle_read_input(void) {
    char *text = malloc(TEXT_MAX + 1);
    size_t len = 0;
    ssize_t n = text != NULL ? 1 : -1;
    while (n > 0 && len < TEXT_MAX) {
        n = read(STDIN_FILENO, text + len, TEXT_MAX - len);
        if (n > 0) len += (size_t)n;
        if (n < 0 && errno == EINTR) n = 1;
    }
    if (n < 0) {
        complain("cannot read standard input: %s", strerror(errno));
        free(text);
        return NULL;
    }
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    text[len] = '\0';
    return text;
}

static int settle_parse(steady_reservation **reservation, const char *text) {
    steady_message why;
    const int error = steady_reservation_parse(reservation, text, &why);
    if (error == STEADY_BAD_ARGUMENT) complain("RESERVATION: \"%s\": %s", quoted(text).text, why.text);
    if (error != 0 && error != STEADY_BAD_ARGUMENT) complain("%s", why.text);
    return error_code(error);
}

/* Reads the operand; "-" is standard input. ALLOWED, or an exit code after an error message. */
static int settle_read_reservation(steady_reservation **reservation, const char *operand) {
    if (strcmp(operand, "-") != 0) return settle_parse(reservation, operand);
    char *text = settle_read_input();
    const int code = text != NULL ? settle_parse(reservation, text) : USAGE;
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

static void settle_complain(const steady_result *r, const steady_message *trouble) {
    if (r->error == STEADY_UNKNOWN)
        complain("the answer was lost; the reservation may be settled, so do not settle it again%s%s",
                 trouble->text[0] != '\0' ? ": " : "", trouble->text);
    else if (r->error != 0)
        complain_error(r->error, trouble);
}

static int settle_ask(const struct options *options, steady_reservation *reservation, const struct actuals *actuals) {
    steady_part_result parts[LIMITS_MAX];
    steady_store *store = NULL;
    steady_message trouble = {.text = ""}, why = {.text = ""};
    steady_result r = {0};
    struct text text = {0};
    bool embedded = false;
    r.error = open_store(&store, options, NULL, &embedded, &trouble);
    if (r.error == 0) {
        const steady_settlement settlement = {.reservation = reservation,
                                              .actuals = actuals->all,
                                              .store = store,
                                              .parts = parts,
                                              .parts_room = LIMITS_MAX,
                                              .why = &why};
        steady_settle_sync(&settlement, &r);
        trouble = why;
        if (why.text[0] == '\0') steady_store_last_error(store, &trouble);
    }
    settle_complain(&r, &trouble);
    const bool answered = r.source != STEADY_FROM_NOWHERE;
    const int code = answered ? ALLOWED : error_code(r.error);
    if (options->json && code != USAGE)
        describe_settled_json(&text, reservation, parts, &r);
    else if (answered)
        describe_settled(&text, reservation, parts, r.n_parts);
    steady_store_close(&store);
    return text_say(&text, code, code == UNAVAILABLE ? UNAVAILABLE : UNKNOWN);
}

int run_settle(const struct options *options) {
    steady_reservation *reservation = NULL;
    struct actuals actuals;
    int code = settle_read_reservation(&reservation, options->operands[0]);
    if (code == ALLOWED) code = settle_read_actuals(&actuals, options, reservation);
    if (code == ALLOWED) code = settle_ask(options, reservation, &actuals);
    steady_reservation_free(&reservation);
    return code;
}
