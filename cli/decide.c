/* SPDX-License-Identifier: MIT
 * steady consume, peek and reset: makes one decision on one key, and prints it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define KEY_MAX 1024

enum verb { CONSUME, PEEK, RESET };

/* ---- Output as text ---- */

static const char *decide_word(enum verb verb, const steady_result *r) {
    static const char *const words[][3] = {{"allowed", "denied", "blocked"}, {"free", "full", "blocked"}, {"reset"}};
    return words[verb][r->success ? 0 : r->blocked_for > 0 ? 2 : 1];
}

static void decide_add_after(struct text *text, const char *before, steady_us wait) {
    text_add(text, "%s", before);
    text_add_wait(text, wait);
}

/* Adds the time to wait, and for what. */
static void decide_add_outlook(struct text *text, int64_t amount, const steady_result *r) {
    if (r->blocked_for > 0) decide_add_after(text, r->success ? "blocked for " : "for ", r->blocked_for);
    if (r->retry_after < 0)
        text_add(text, "%s%" PRId64 " drops never fit", r->blocked_for > 0 ? "; " : "", amount);
    else if (!r->success && r->retry_after != r->blocked_for)
        decide_add_after(text, r->blocked_for > 0 ? "; retry in " : "retry in ", r->retry_after);
    else if (r->success && r->blocked_for == 0 && r->level > 0)
        decide_add_after(text, "next drop in ", r->until_next_drop);
    else if (r->success && r->blocked_for == 0)
        text_add(text, "empty");
}

static void decide_describe(struct text *text, enum verb verb, const struct options *options, const steady_limit *limit,
                            const steady_result *r) {
    text_add(text, "%-7s  ", decide_word(verb, r));
    text_add_key(text, options->operands[0]);
    text_add(text, "  ");
    if (r->source != STEADY_FROM_POLICY && verb != RESET) {
        text_add_bar(text, r->level, limit->max_capacity);
        text_add(text, " %" PRId64 "/%" PRId64 "  ", r->level, limit->max_capacity);
    }
    const bool by_policy = r->source == STEADY_FROM_POLICY;
    if (!by_policy || !r->success) decide_add_outlook(text, options->amount, r);
    if (by_policy) text_add(text, "%sby --on-error", r->success ? "" : "  ");
    if (r->source == STEADY_FROM_LOCAL) text_add(text, "  by --on-error, from a local bucket");
    text_add(text, "\n");
}

/* ---- Output as JSON ---- */

static void decide_add_time(struct text *text, const char *name, bool known, steady_us us) {
    text_add(text, ",\"%s\":", name);
    if (known)
        text_add_seconds(text, us);
    else
        text_add(text, "null");
}

/* Unknown values are null. Without an answer all values but the error are unknown. If a policy answered, the numbers
 * are unknown, except retry_after of a denial. */
static void decide_describe_json(struct text *text, const steady_result *r, bool has_limit) {
    static const char *const sources[] = {"null", "\"store\"", "\"policy\"", "\"local\""};
    const bool answered = r->source != STEADY_FROM_NOWHERE;
    const bool known = r->source == STEADY_FROM_STORE || r->source == STEADY_FROM_LOCAL;
    text_add(text, "{\"success\":%s,\"level\":", !answered ? "null" : r->success ? "true" : "false");
    if (known)
        text_add(text, "%" PRId64, r->level);
    else
        text_add(text, "null");
    decide_add_time(text, "until_next_drop", known && has_limit, r->until_next_drop);
    decide_add_time(text, "blocked_for", known, r->blocked_for);
    decide_add_time(text, "retry_after", answered && (known || !r->success) && r->retry_after >= 0, r->retry_after);
    if (r->error != 0)
        text_add(text, ",\"error\":\"%s\"", steady_error_name(r->error));
    else
        text_add(text, ",\"error\":null");
    text_add(text, ",\"source\":%s}\n", sources[r->source]);
}

/* ---- Deciding ---- */

static int decide_check_key(const struct options *options) {
    const size_t prefix_len = options->prefix != NULL ? strlen(options->prefix) : 0;
    const size_t len = strlen(options->operands[0]);
    if (prefix_len >= KEY_MAX)
        return complain("--prefix is %zu bytes long; it must be at most %d", prefix_len, KEY_MAX - 1);
    if (len >= 1 && prefix_len + len <= KEY_MAX) return ALLOWED;
    return complain("KEY is %zu bytes long; %sit must be 1 .. %zu", len, prefix_len > 0 ? "with this prefix " : "",
                    KEY_MAX - prefix_len);
}

static int decide_call(steady_throttler *throttler, enum verb verb, const char *key, int64_t amount, steady_result *r) {
    switch (verb) {
    case CONSUME: return steady_consume_sync(throttler, key, strlen(key), amount, r);
    case PEEK: return steady_peek_sync(throttler, key, strlen(key), r);
    case RESET: break;
    }
    return steady_reset_sync(throttler, key, strlen(key), r);
}

/* Fills *r; if r->error is not 0, *trouble gets the reason. */
static void decide_one(enum verb verb, const struct options *options, const steady_limit *limit, steady_result *r,
                       steady_message *trouble) {
    const steady_throttler_options throttler_options = {.prefix = options->prefix, .on_error = options->on_error};
    steady_store *store = NULL;
    steady_throttler *throttler = NULL;
    bool embedded = false;
    r->error = open_store(&store, options, NULL, &embedded, trouble);
    if (r->error == 0) r->error = steady_throttler_new(&throttler, store, limit, &throttler_options, trouble);
    if (r->error == 0) {
        decide_call(throttler, verb, options->operands[0], options->amount, r);
        steady_store_last_error(store, trouble);
    }
    steady_throttler_free(&throttler);
    steady_store_close(&store);
}

/* steady_error_text of STEADY_UNKNOWN speaks of charged drops. Only consume charges drops, so the others need another
 * sentence. */
static void decide_complain_lost(enum verb verb, const steady_message *trouble) {
    static const char *const left[] = {[PEEK] = "nothing was changed", [RESET] = "the bucket may have been emptied"};
    complain("the answer was lost; %s%s%s", left[verb], trouble->text[0] != '\0' ? ": " : "", trouble->text);
}

static int decide_run(enum verb verb, const struct options *options) {
    static const steady_limit any = {.max_capacity = 1, .drop_recharge = 1};
    steady_limit limit;
    steady_result r = {0};
    steady_message trouble = {.text = ""};
    struct text text = {0};
    const bool has_limit = options->rate.max_capacity != 0 || options->capacity != 0;
    if (options_limit(options, verb == RESET ? &any : NULL, &limit) != ALLOWED || decide_check_key(options) != ALLOWED)
        return USAGE;
    decide_one(verb, options, &limit, &r, &trouble);
    if (r.error == STEADY_UNKNOWN && verb != CONSUME)
        decide_complain_lost(verb, &trouble);
    else if (r.error != 0)
        complain_error(r.error, &trouble);
    const bool answered = r.source != STEADY_FROM_NOWHERE;
    const int code = !answered ? error_code(r.error) : r.success ? ALLOWED : DENIED;
    if (options->json && code != USAGE)
        decide_describe_json(&text, &r, has_limit);
    else if (answered)
        decide_describe(&text, verb, options, &limit, &r);
    return text_say(&text, code, verb == PEEK || code == UNAVAILABLE ? UNAVAILABLE : UNKNOWN);
}

int run_consume(const struct options *options) { return decide_run(CONSUME, options); }
int run_peek(const struct options *options) { return decide_run(PEEK, options); }
int run_reset(const struct options *options) { return decide_run(RESET, options); }
