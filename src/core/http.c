/* SPDX-License-Identifier: MIT
 * Rate-limit header fields and problem documents.
 *
 * A bucket of B drops that leaks R drops a second is the quota q=B in the window w=B/R. A field allows r requests
 * within t seconds, with r/t never over R. All products are exact: max_capacity * drop_recharge is below 2^53. */
#include "steady/http.h"

#include <string.h>

/* A text that grows. Beyond its size only the length grows. */
struct http_text {
    char *bytes;
    size_t size, len;
};

/* Inlined, so that the copies of short constants are moves. */
__attribute__((always_inline)) static inline void http_put_bytes(struct http_text *text, const char *from, size_t len) {
    if (len <= text->size && text->len <= text->size - len)
        memcpy(text->bytes + text->len, from, len);
    else if (text->len < text->size)
        memcpy(text->bytes + text->len, from, text->size - text->len);
    text->len += len;
}

__attribute__((always_inline)) static inline void http_put_text(struct http_text *text, const char *from) {
    http_put_bytes(text, from, strlen(from));
}

static void http_put_number(struct http_text *text, int64_t number) {
    enum { MOST = 20 };
    char digits[2 * MOST] = {0}; /* so that MOST bytes are copied at once, from wherever the number begins */
    size_t at = MOST;
    uint64_t rest = (uint64_t)number;
    do
        digits[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (text->size >= MOST && text->len <= text->size - MOST) {
        memcpy(text->bytes + text->len, digits + at, MOST);
        text->len += MOST - at;
    } else {
        http_put_bytes(text, digits + at, MOST - at);
    }
}

/* A String of RFC 9651, which is one of JSON too. */
static void http_put_quoted(struct http_text *text, const char *name) {
    http_put_text(text, "\"");
    for (;;) {
        size_t plain = 0;
        while (name[plain] != '\0' && name[plain] != '"' && name[plain] != '\\')
            plain++;
        http_put_bytes(text, name, plain);
        name += plain;
        if (*name == '\0') break;
        http_put_text(text, "\\");
        http_put_bytes(text, name++, 1);
    }
    http_put_text(text, "\"");
}

static bool http_is_name(const char *name) {
    if (name == NULL || *name == '\0') return false;
    while (*name >= ' ' && *name <= '~')
        name++;
    return *name == '\0';
}

/* ---- Quotas and states ---- */

/* "At most `available` drops within `window` seconds." */
struct http_state {
    int64_t capacity, available, window;
};

static int64_t http_drops(const steady_limit *limit) { return limit->drops > 0 ? limit->drops : 1; }

static int64_t http_divide_up(int64_t a, int64_t b) { return a / b + (a % b > 0); }

int64_t steady_http_retry_after(steady_us retry_after) {
    return retry_after <= STEADY_SECOND ? 1 : http_divide_up(retry_after, STEADY_SECOND);
}

/* The seconds in which `count` drops leak, rounded up; at least 1. */
static int64_t http_leak_time(const steady_limit *limit, int64_t count) {
    return count == 0 ? 1 : http_divide_up(count * limit->drop_recharge, http_drops(limit) * STEADY_SECOND);
}

/* For `window` seconds a request of this cost does not fit. A cheaper one may fit, unless the key is blocked. */
static struct http_state http_state_of(const steady_http_policy *policy) {
    const steady_limit *limit = policy->limit;
    struct http_state state = {.capacity = limit->max_capacity};
    if (policy->level < state.capacity) state.available = state.capacity - (policy->level > 0 ? policy->level : 0);
    const int64_t leak_time = http_leak_time(limit, state.available);
    if (policy->success) {
        state.window = leak_time;
        return state;
    }
    state.window = steady_http_retry_after(policy->retry_after);
    if (policy->blocked_for > 0)
        state.available = 0;
    else if (state.window < leak_time) /* so the product is below 2^53 */
        state.available = state.window * http_drops(limit) * STEADY_SECOND / limit->drop_recharge;
    return state;
}

static bool http_denies(const steady_http_policy *policy) { return !policy->success && policy->retry_after >= 0; }

static bool http_any_denies(const steady_http_policy *policies, size_t n) {
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || http_denies(&policies[i]);
    return any;
}

/* Whether the state of this policy is shown. */
static bool http_is_shown(const steady_http_policy *policy, bool denied) {
    return denied ? http_denies(policy) : policy->success;
}

static bool http_any_shown(const steady_http_policy *policies, size_t n, bool denied) {
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || http_is_shown(&policies[i], denied);
    return any;
}

/* For a form with room for one. Of several policies that deny, it is the one with the longest wait. */
static bool http_tightest(const steady_http_policy *policies, size_t n, bool denied, struct http_state *tightest) {
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        if (!http_is_shown(&policies[i], denied)) continue;
        const struct http_state state = http_state_of(&policies[i]);
        const bool less = !denied && state.available < tightest->available;
        const bool same = denied || state.available == tightest->available;
        if (!found || less || (same && state.window > tightest->window)) *tightest = state;
        found = true;
    }
    return found;
}

/* ---- Fields ---- */

static const char *const http_names[][STEADY_HTTP_FIELDS_MAX] = {
    [STEADY_HTTP_DRAFT_11] = {"ratelimit-policy", "ratelimit", NULL},
    [STEADY_HTTP_DRAFT_07] = {"ratelimit-policy", "ratelimit", NULL},
    [STEADY_HTTP_DRAFT_03] = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"},
    [STEADY_HTTP_X] = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"},
};

static void http_put_policies(struct http_text *text, bool named, const steady_http_policy *policies, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const steady_limit *limit = policies[i].limit;
        if (i > 0) http_put_text(text, ", ");
        if (named) {
            http_put_quoted(text, policies[i].name);
            http_put_text(text, ";q=");
        }
        http_put_number(text, limit->max_capacity);
        http_put_text(text, ";w=");
        http_put_number(text, http_leak_time(limit, limit->max_capacity));
    }
}

static void http_put_states(struct http_text *text, bool denied, const steady_http_policy *policies, size_t n) {
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (!http_is_shown(&policies[i], denied)) continue;
        const struct http_state state = http_state_of(&policies[i]);
        if (!first) http_put_text(text, ", ");
        http_put_quoted(text, policies[i].name);
        http_put_text(text, ";r=");
        http_put_number(text, state.available);
        http_put_text(text, ";t=");
        http_put_number(text, state.window);
        first = false;
    }
}

static void http_put_tightest(struct http_text *text, const struct http_state *state) {
    http_put_text(text, "limit=");
    http_put_number(text, state->capacity);
    http_put_text(text, ", remaining=");
    http_put_number(text, state->available);
    http_put_text(text, ", reset=");
    http_put_number(text, state->window);
}

static void http_begin_field(steady_http_field *fields, int *n, const char *name, const struct http_text *text) {
    fields[*n] = (steady_http_field){.name = name, .value_len = text->len};
    fields[*n].value = text->len < text->size ? text->bytes + text->len : NULL;
    ++*n;
}

static void http_end_field(steady_http_field *field, struct http_text *text) {
    field->value_len = text->len - field->value_len;
    http_put_bytes(text, "", 1);
}

static bool http_are_valid(const steady_http_policy *policies, size_t n) {
    static const uint64_t zero[sizeof policies->reserved / sizeof policies->reserved[0]] = {0};
    for (size_t i = 0; i < n; i++)
        if (!http_is_name(policies[i].name) || steady_limit_check(policies[i].limit, NULL) != 0 ||
            memcmp(policies[i].reserved, zero, sizeof zero) != 0)
            return false;
    return n > 0;
}

int steady_http_fields(enum steady_http_form form, const steady_http_policy *policies, size_t n,
                       steady_http_field *fields, char *made, size_t size) {
    struct http_text text = {.size = size};
    struct http_state tightest = {0};
    int count = 0;
    if ((unsigned)form > STEADY_HTTP_X || policies == NULL || fields == NULL || made == NULL ||
        !http_are_valid(policies, n))
        return STEADY_BAD_ARGUMENT;
    text.bytes = made;
    const char *const *names = http_names[form];
    const bool denied = http_any_denies(policies, n);
    const bool known = form == STEADY_HTTP_DRAFT_11 ? http_any_shown(policies, n, denied)
                                                    : http_tightest(policies, n, denied, &tightest);
    if (form == STEADY_HTTP_DRAFT_11 || form == STEADY_HTTP_DRAFT_07) {
        http_begin_field(fields, &count, names[0], &text);
        http_put_policies(&text, form == STEADY_HTTP_DRAFT_11, policies, n);
        http_end_field(&fields[0], &text);
        if (known) {
            http_begin_field(fields, &count, names[1], &text);
            if (form == STEADY_HTTP_DRAFT_11)
                http_put_states(&text, denied, policies, n);
            else
                http_put_tightest(&text, &tightest);
            http_end_field(&fields[1], &text);
        }
    } else if (known) {
        const int64_t numbers[] = {tightest.capacity, tightest.available, tightest.window};
        for (int i = 0; i < STEADY_HTTP_FIELDS_MAX; i++) {
            http_begin_field(fields, &count, names[i], &text);
            http_put_number(&text, numbers[i]);
            http_end_field(&fields[i], &text);
        }
    }
    return text.len <= text.size ? count : STEADY_NO_MEMORY;
}

/* ---- Problems ---- */

#define TYPES "https://iana.org/assignments/http-problem-types#"

static const struct http_problem {
    int status;
    const char *type, *title;
} http_problems[] = {
    {400, "about:blank", "The key of the rate limit cannot be used"},
    {422, "about:blank", "The request costs more than its quota ever holds"},
    {429, TYPES "quota-exceeded", "Request cannot be satisfied as assigned quota has been exceeded"},
    {503, TYPES "temporary-reduced-capacity",
     "Request cannot be satisfied due to temporary server capacity constraints"},
};

size_t steady_http_problem(char *out, size_t size, int status, const char *const *names, size_t n) {
    struct http_text text = {.bytes = out, .size = size};
    const struct http_problem *problem = NULL;
    for (size_t i = 0; i < sizeof http_problems / sizeof http_problems[0]; i++)
        if (http_problems[i].status == status) problem = &http_problems[i];
    for (size_t i = 0; i < n; i++)
        if (names == NULL || !http_is_name(names[i])) problem = NULL;
    if (size > 0) out[0] = '\0';
    if (problem == NULL) return 0;
    http_put_text(&text, "{\"type\": ");
    http_put_quoted(&text, problem->type);
    http_put_text(&text, ", \"title\": ");
    http_put_quoted(&text, problem->title);
    http_put_text(&text, ", \"status\": ");
    http_put_number(&text, status);
    for (size_t i = 0; i < n; i++) {
        http_put_text(&text, i == 0 ? ", \"violated-policies\": [" : ", ");
        http_put_quoted(&text, names[i]);
    }
    http_put_text(&text, n > 0 ? "]}" : "}");
    if (size > 0) out[text.len < size ? text.len : size - 1] = '\0';
    return text.len;
}
