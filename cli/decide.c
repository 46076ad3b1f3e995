/* SPDX-License-Identifier: MIT
 * steady consume, peek, reset, wait and reserve: makes a decision on one key, prints it, and sleeps for a place in
 * line. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define KEY_MAX 1024
#define WAIT_MAX ((int64_t)1 << 52)

/* A command on its way. */
struct asking {
    enum verb verb;
    const struct options *options;
    struct limits limits;
    steady_store *store;
    steady_throttler *throttler;
    steady_us started;
    steady_result result;
    steady_part_result parts[LIMITS_MAX];
    steady_message trouble; /* if result.error is not 0: the reason */
};

/* ---- Asking ---- */

/* With several limits the stored key has braces, names and escapes, too: then the library checks the length. */
static int decide_check_key(const struct options *options, bool several) {
    const size_t prefix_len = options->prefix != NULL ? strlen(options->prefix) : 0;
    const size_t len = strlen(options->operands[0]);
    if (prefix_len >= KEY_MAX)
        return complain("--prefix is %zu bytes long; it must be at most %d", prefix_len, KEY_MAX - 1);
    if (len >= 1 && (several || prefix_len + len <= KEY_MAX)) return ALLOWED;
    return complain("KEY is %zu bytes long; %sit must be 1 .. %zu", len, prefix_len > 0 ? "with this prefix " : "",
                    KEY_MAX - prefix_len);
}

static void decide_open_throttler(struct asking *asking) {
    const steady_throttler_options options = {.prefix = asking->options->prefix, .on_error = asking->options->on_error};
    steady_result *r = &asking->result;
    bool embedded = false;
    r->error = open_store(&asking->store, asking->options, NULL, &embedded, &asking->trouble);
    if (r->error == 0)
        r->error = steady_throttler_new_limits(&asking->throttler, asking->store, asking->limits.all, asking->limits.n,
                                               &options, &asking->trouble);
}

/* The longest wait that the call may still bring: for `wait`, without what has passed. */
static steady_us decide_max_wait(const struct asking *asking) {
    const steady_us most = asking->options->max_wait;
    if (asking->verb != WAIT) return most > 0 ? most : 0;
    if (most < 0) return WAIT_MAX;
    const steady_us passed = pause_now() - asking->started;
    return passed < most ? most - passed : 0;
}

static bool decide_may_sleep(const struct asking *asking) {
    return asking->verb == WAIT || asking->options->max_wait > 0;
}

/* A call with a max_wait starts no block. But when the time of `wait` is used up, 0 is left. */
static void decide_never_block(struct limits *limits) {
    for (size_t i = 0; i < limits->n; i++)
        limits->all[i].block_duration = 0;
}

/* Fills the result. A call that may bring a place in line keeps its reservation, to give the place up. */
static void decide_ask(struct asking *asking) {
    static const enum steady_verb verbs[] = {[CONSUME] = STEADY_CONSUME,
                                             [PEEK] = STEADY_PEEK,
                                             [RESET] = STEADY_RESET,
                                             [WAIT] = STEADY_CONSUME,
                                             [RESERVE] = STEADY_CONSUME};
    const struct options *options = asking->options;
    const char *key = options->operands[0];
    steady_message why = {.text = ""};
    const steady_how how = {.max_wait = decide_max_wait(asking),
                            .at_least = options->at_least,
                            .reserve = asking->verb == RESERVE || decide_may_sleep(asking),
                            .parts = asking->limits.n > 1 ? asking->parts : NULL,
                            .parts_room = LIMITS_MAX,
                            .why = &why};
    const steady_call call = {.verb = verbs[asking->verb],
                              .key = key,
                              .key_len = strlen(key),
                              .amount = options->amount,
                              .kind = options->charge ? STEADY_CHARGE : STEADY_TAKE,
                              .how = &how};
    steady_decide_sync(asking->throttler, &call, &asking->result);
    asking->trouble = why;
    if (why.text[0] == '\0') steady_store_last_error(asking->store, &asking->trouble);
}

static void decide_release(struct asking *asking) {
    steady_reservation_free(&asking->result.reservation);
    steady_throttler_free(&asking->throttler);
    steady_store_close(&asking->store);
}

/* ---- Saying ---- */

/* The library numbers parts; the command has one. */
static const char *decide_reason(const steady_message *trouble) {
    static const char part[] = "parts[0]: ";
    return strncmp(trouble->text, part, sizeof part - 1) == 0 ? trouble->text + sizeof part - 1 : trouble->text;
}

/* steady_error_text of STEADY_UNKNOWN speaks of charged drops. Peek and reset charge none, so they need another
 * sentence. */
static void decide_complain(const struct asking *asking) {
    static const char *const left[] = {[PEEK] = "nothing was changed", [RESET] = "the bucket may have been emptied"};
    const int error = asking->result.error;
    const steady_message *trouble = &asking->trouble;
    if (error == STEADY_UNKNOWN && (asking->verb == PEEK || asking->verb == RESET)) {
        complain("the answer was lost; %s%s%s", left[asking->verb], trouble->text[0] != '\0' ? ": " : "",
                 trouble->text);
    } else if (error != 0) {
        steady_message reason = {.text = ""};
        snprintf(reason.text, sizeof reason.text, "%s", decide_reason(trouble));
        complain_error(error, &reason);
    }
}

static int decide_code(const steady_result *r) {
    if (r->source == STEADY_FROM_NOWHERE) return error_code(r->error);
    return r->success ? ALLOWED : DENIED;
}

/* What reserve prints: the reservation alone. A script keeps it in a variable, so a denial goes to standard error. */
static void decide_describe_reserve(struct text *text, const struct decision *d) {
    if (d->result->reservation != NULL) {
        describe_reservation(text, d->result->reservation);
        text_add(text, "\n");
    } else {
        struct text denial = {0};
        describe(&denial, d);
        text_warn(&denial);
    }
}

/* Prints the result. Returns the exit code. */
static int decide_say(const struct asking *asking, bool asks_again) {
    const struct decision d = {asking->verb, asking->options, &asking->limits, &asking->result, asks_again};
    const bool answered = asking->result.source != STEADY_FROM_NOWHERE;
    const int code = decide_code(&asking->result);
    struct text text = {0};
    if (asking->options->json && code != USAGE)
        describe_json(&text, &d);
    else if (answered && asking->verb == RESERVE)
        decide_describe_reserve(&text, &d);
    else if (answered)
        describe(&text, &d);
    return text_say(&text, code, asking->verb == PEEK || code == UNAVAILABLE ? UNAVAILABLE : UNKNOWN);
}

/* ---- Waiting ---- */

/* Gives back the place in line, as far as it has not leaked. */
static void decide_give_up(struct asking *asking) {
    steady_message why = {.text = ""};
    steady_result r;
    const steady_settlement settlement = {
        .reservation = asking->result.reservation, .throttlers = &asking->throttler, .n_throttlers = 1, .why = &why};
    if (asking->result.reservation == NULL || steady_settle_sync(&settlement, &r) == 0) return;
    if (why.text[0] == '\0') steady_store_last_error(asking->store, &why);
    complain("the place in line could not be given up: %s%s%s", steady_error_text(r.error),
             why.text[0] != '\0' ? ": " : "", why.text);
}

/* wait asks again after a block. Without --max-wait it also asks again when the line is as long as can be counted. */
static bool decide_asks_again(const struct asking *asking) {
    const steady_result *r = &asking->result;
    const bool denied = !r->success && r->source != STEADY_FROM_NOWHERE && r->source != STEADY_FROM_POLICY;
    if (asking->verb != WAIT || !denied || r->retry_after <= 0) return false;
    return asking->options->max_wait < 0 ||
           (r->retry_after == r->blocked_for && r->retry_after <= decide_max_wait(asking));
}

/* For `wait`. Returns 0, or the signal that ended it. */
static int decide_ask_until_answered(struct asking *asking) {
    for (;;) {
        decide_ask(asking);
        if (!decide_asks_again(asking)) return 0;
        if (!asking->options->json) decide_say(asking, true);
        const int signal_number = pause_for(asking->result.retry_after);
        if (signal_number != 0) return signal_number;
    }
}

static int decide_pause(const struct asking *asking, steady_us us) {
    return decide_may_sleep(asking) ? pause_for(us) : 0;
}

/* Prints the result and sleeps for the place in line. The reservation is printed last: it is of no use before. What
 * cannot be printed, or waited for, is given up. */
static int decide_say_and_wait(struct asking *asking, int *signal_number) {
    const bool says_first = asking->verb != RESERVE;
    const int decided = decide_code(&asking->result);
    int code = says_first ? decide_say(asking, false) : decided;
    if (code == decided) *signal_number = decide_pause(asking, asking->result.must_wait);
    if (code == decided && *signal_number == 0 && !says_first) code = decide_say(asking, false);
    if (code != decided) *signal_number = decide_pause(asking, 0); /* it may have ended the write */
    if (code != decided || *signal_number != 0) decide_give_up(asking);
    return code;
}

static int decide_run(enum verb verb, const struct options *options) {
    static const steady_limit any = {.max_capacity = 1, .drop_recharge = 1};
    struct asking asking = {.verb = verb, .options = options, .started = pause_now()};
    int code = USAGE, signal_number = 0;
    if (options_limits(options, verb == RESET ? &any : NULL, &asking.limits) != ALLOWED ||
        options_check_waits(options) != ALLOWED || decide_check_key(options, asking.limits.n > 1) != ALLOWED)
        return USAGE;
    if (decide_may_sleep(&asking)) pause_hold_signals();
    if (verb == WAIT) decide_never_block(&asking.limits);
    decide_open_throttler(&asking);
    if (asking.result.error == 0) signal_number = decide_ask_until_answered(&asking);
    if (signal_number == 0) {
        decide_complain(&asking);
        code = decide_say_and_wait(&asking, &signal_number);
    }
    decide_release(&asking);
    return signal_number == 0 ? code : pause_end_by(signal_number);
}

int run_consume(const struct options *options) { return decide_run(CONSUME, options); }
int run_peek(const struct options *options) { return decide_run(PEEK, options); }
int run_reset(const struct options *options) { return decide_run(RESET, options); }
int run_wait(const struct options *options) { return decide_run(WAIT, options); }
int run_reserve(const struct options *options) { return decide_run(RESERVE, options); }
