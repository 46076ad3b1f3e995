/* SPDX-License-Identifier: MIT
 * Decisions of the daemon. */
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "decision_log.h"
#include "server.h"

struct waiting {
    struct worker *worker;
    question_answered answered;
    void *to; /* NULL: forgotten */
    uint64_t id;
    steady_us begun;
    uv_timer_t *timer; /* of its deadline; NULL: none */
    struct question question;
    struct question_part parts[];
};

static steady_us question_now(void) { return (steady_us)(uv_hrtime() / 1000); }

/* ---- Counting ---- */

/* A limit is near if less than a fifth of its capacity is left. */
static void question_count_part(struct worker *worker, const struct question_part *part, const steady_result *result,
                                const steady_part_result *r) {
    struct limit_counters *counters = part->counters;
    if (result->error != 0) {
        metrics_add(&counters->no_verdict, 1);
        return;
    }
    if (!r->answered) return; /* another limit denied the request */
    metrics_add(r->success                    ? &counters->allowed
                : part->kind == STEADY_SHADOW ? &counters->shadow_denied
                                              : &counters->denied,
                1);
    if (r->level >= part->limit->max_capacity - part->limit->max_capacity / 5) metrics_add(&counters->near_limit, 1);
    if (worker->server->has_admin) {
        const struct top_bucket bucket = {.level = r->level,
                                          .capacity = part->limit->max_capacity,
                                          .recharge = part->limit->drop_recharge,
                                          .drops = part->limit->drops > 0 ? part->limit->drops : 1,
                                          .retry_after = r->retry_after,
                                          .blocked = r->blocked_for > 0,
                                          .at_ms = worker->now};
        char memory[RULES_KEY_MAX];
        top_count(r->success ? &worker->allowed.now : &worker->denied.now, part->rule != NULL ? part->name : "",
                  question_shown_key(part, memory), &bucket);
    }
}

static int question_hex_digit(char c) { return c <= '9' ? c - '0' : c - 'A' + 10; }

struct rules_text question_shown_key(const struct question_part *part, char memory[RULES_KEY_MAX]) {
    if (part->shown.bytes != NULL) return part->shown;
    const char *open = part->rule != NULL ? memchr(part->key, '{', part->key_len) : NULL;
    const char *close = open != NULL ? memrchr(part->key, '}', part->key_len) : NULL;
    if (close == NULL) return (struct rules_text){part->key, part->key_len};
    const char *from = open + 1;
    const size_t whole = (size_t)(close - from);
    size_t len = 0;
    if (memchr(from, '%', whole) == NULL) return (struct rules_text){from, whole};
    while (from < close) {
        if (*from == '%' && close - from > 2) {
            memory[len++] = (char)(question_hex_digit(from[1]) << 4 | question_hex_digit(from[2]));
            from += 3;
        } else {
            memory[len++] = *from++;
        }
    }
    return (struct rules_text){memory, len};
}

/* A result for each bucket: of a call on one bucket the library gives none. */
static const steady_part_result *question_parts(struct worker *worker, const steady_result *result) {
    if (result->parts != NULL) return result->parts;
    worker->results[0] = (steady_part_result){.success = result->success,
                                              .answered = true,
                                              .granted = result->granted,
                                              .level = result->level,
                                              .until_next_drop = result->until_next_drop,
                                              .blocked_for = result->blocked_for,
                                              .retry_after = result->retry_after};
    return worker->results;
}

static void question_tell(struct worker *worker, const struct question *question, const steady_result *result,
                          steady_us begun, question_answered answered, void *to) {
    steady_result whole = *result;
    if (result->source != STEADY_FROM_NOWHERE && result->source != STEADY_FROM_POLICY) {
        whole.parts = question_parts(worker, result);
        if (whole.n_parts == 0) whole.n_parts = 1;
    }
    if (question->quiet) {
        answered(to, question, &whole);
        return;
    }
    metrics_time(&worker->metrics, (uint64_t)(question_now() - begun));
    if (question->verb == QUESTION_CONSUME)
        metrics_add(&worker->metrics.answers[whole.error != 0 ? METRICS_NONE
                                             : whole.success  ? METRICS_ALLOWED
                                                              : METRICS_DENIED],
                    1);
    for (size_t i = 0; i < question->n_parts && question->verb == QUESTION_CONSUME; i++)
        if (whole.error != 0 || whole.parts != NULL)
            question_count_part(worker, &question->parts[i], &whole, whole.parts != NULL ? &whole.parts[i] : NULL);
    decision_log_add(worker, question, &whole);
    answered(to, question, &whole);
}

/* ---- An embedded store ---- */

static size_t question_to_parts(const struct question *question, steady_part parts[RULES_PARTS_MAX]) {
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *part = &question->parts[i];
        parts[i] = (steady_part){.throttler = part->throttler,
                                 .key = part->key,
                                 .key_len = part->key_len,
                                 .amount = part->amount,
                                 .kind = part->kind};
    }
    return question->n_parts;
}

/* The usual call on one bucket takes no memory. */
static bool question_is_plain(const struct question *question) {
    return question->n_parts == 1 && question->parts[0].kind == STEADY_TAKE && question->max_wait == 0 &&
           question->at_least == 0 && !question->reserve && question->verb == QUESTION_CONSUME;
}

static void question_ask_now(struct worker *worker, const struct question *question, steady_result *result) {
    steady_part parts[RULES_PARTS_MAX];
    const struct question_part *first = &question->parts[0];
    const steady_how how = {.max_wait = question->max_wait,
                            .at_least = question->at_least,
                            .reserve = question->reserve,
                            .parts = worker->results,
                            .parts_room = RULES_PARTS_MAX};
    *result = (steady_result){0};
    if (question_is_plain(question)) {
        steady_consume_sync(first->throttler, first->key, first->key_len, first->amount, result);
        return;
    }
    question_to_parts(question, parts);
    if (question->verb == QUESTION_PEEK)
        steady_peek_all_sync(parts, question->n_parts, &how, result);
    else
        steady_consume_all_sync(parts, question->n_parts, &how, result);
}

/* ---- Another store ---- */

static void question_free(struct waiting *waiting) {
    ruleset_leave(waiting->question.set);
    free(waiting);
}

static void question_timer_closed(uv_handle_t *handle) { free(handle); }

static void question_stop_timer(struct waiting *waiting) {
    if (waiting->timer != NULL) uv_close((uv_handle_t *)waiting->timer, question_timer_closed);
    waiting->timer = NULL;
}

static void question_settled(const steady_result *result, void *data) {
    (void)result;
    (void)data;
}

/* If the client has gone, its place in line is given back. */
void question_give_back(struct worker *worker, steady_reservation *reservation) {
    if (reservation == NULL) return;
    const steady_settlement settlement = {.reservation = reservation, .actual = 0, .store = worker->store};
    if (worker->blocking)
        steady_settle_sync(&settlement, &(steady_result){0});
    else
        steady_settle(&settlement, question_settled, NULL, NULL);
    steady_reservation_free(&reservation);
}

static void question_arrived(const steady_result *result, void *data) {
    struct waiting *waiting = data;
    steady_result whole = *result;
    question_stop_timer(waiting);
    if (waiting->to == NULL) {
        question_give_back(waiting->worker, whole.reservation);
        whole.reservation = NULL;
    }
    question_tell(waiting->worker, &waiting->question, &whole, waiting->begun, waiting->answered, waiting->to);
    question_free(waiting);
}

/* The client waits no longer than this. Then the policy answers. */
static void question_timed_out(uv_timer_t *timer) {
    const struct waiting *waiting = timer->data;
    steady_expire(waiting->worker->any, waiting->id);
}

static void question_set_deadline(struct waiting *waiting, steady_us deadline) {
    if (deadline <= 0) return;
    waiting->timer = calloc(1, sizeof *waiting->timer);
    if (waiting->timer == NULL || uv_timer_init(&waiting->worker->loop, waiting->timer) != 0) {
        free(waiting->timer);
        waiting->timer = NULL; /* then the timeout of the store is its deadline */
        return;
    }
    waiting->timer->data = waiting;
    uv_timer_start(waiting->timer, question_timed_out, (uint64_t)((deadline + 999) / 1000), 0);
}

/* Copies all that the answer needs. The limits and names may belong to the request. */
static struct waiting *question_copy(struct worker *worker, const struct question *question) {
    size_t texts = 0;
    for (size_t i = 0; i < question->n_parts; i++)
        texts += question->parts[i].key_len + strlen(question->parts[i].name) + 1;
    const size_t each = sizeof(struct question_part) + sizeof(steady_limit);
    struct waiting *waiting = calloc(1, sizeof *waiting + question->n_parts * each + texts);
    if (waiting == NULL) return NULL;
    steady_limit *limits = (steady_limit *)&waiting->parts[question->n_parts];
    char *at = (char *)&limits[question->n_parts];
    waiting->worker = worker;
    waiting->question = *question;
    waiting->question.parts = waiting->parts;
    waiting->question.set = ruleset_use(question->set);
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct question_part *from = &question->parts[i];
        const size_t name = strlen(from->name) + 1;
        limits[i] = *from->limit;
        waiting->parts[i] = *from;
        waiting->parts[i].shown = (struct rules_text){0}; /* it belongs to the request */
        waiting->parts[i].limit = &limits[i];
        waiting->parts[i].name = memcpy(at, from->name, name);
        waiting->parts[i].key = memcpy(at + name, from->key, from->key_len);
        at += name + from->key_len;
    }
    return waiting;
}

void question_forget(struct waiting *waiting) { waiting->to = NULL; }

void question_ask(struct worker *worker, const struct question *question, steady_us deadline,
                  question_answered answered, void *to, struct waiting **waiting) {
    const steady_us begun = question_now();
    steady_part parts[RULES_PARTS_MAX];
    steady_result result = {0};
    *waiting = NULL;
    if (worker->blocking) {
        question_ask_now(worker, question, &result);
        question_tell(worker, question, &result, begun, answered, to);
        return;
    }
    struct waiting *later = question_copy(worker, question);
    const steady_how how = {
        .max_wait = question->max_wait, .at_least = question->at_least, .reserve = question->reserve};
    int error = STEADY_NO_MEMORY;
    if (later != NULL) {
        later->answered = answered;
        later->to = to;
        later->begun = begun;
        question_to_parts(question, parts);
        error = question->verb == QUESTION_PEEK
                    ? steady_peek_all(parts, question->n_parts, &how, question_arrived, later, &later->id)
                    : steady_consume_all(parts, question->n_parts, &how, question_arrived, later, &later->id);
    }
    if (error == 0) {
        question_set_deadline(later, deadline);
        *waiting = later;
        return;
    }
    if (later != NULL) question_free(later);
    result.error = error;
    question_tell(worker, question, &result, begun, answered, to);
}

/* ---- Reset ---- */

void question_reset(struct worker *worker, steady_throttler *throttler, struct rules_text key) {
    if (worker->blocking)
        steady_reset_sync(throttler, key.bytes, key.len, &(steady_result){0});
    else
        steady_reset(throttler, key.bytes, key.len, question_settled, NULL);
}

/* ---- Settling ---- */

struct settling {
    struct exchange *exchange; /* NULL: the client has gone */
    void (*answered)(struct exchange *exchange, const steady_result *result);
};

static void question_on_settled(const steady_result *result, void *data) {
    struct settling *settling = data;
    if (settling->exchange != NULL) {
        settling->exchange->settling = NULL;
        settling->answered(settling->exchange, result);
    }
    free(settling);
}

void question_forget_settling(struct settling *settling) { settling->exchange = NULL; }

int question_settle(struct exchange *exchange, const steady_settlement *settlement,
                    void (*answered)(struct exchange *exchange, const steady_result *result)) {
    struct worker *worker = exchange->client->worker;
    steady_settlement whole = *settlement;
    steady_result result = {0};
    if (worker->blocking) {
        whole.parts = worker->results;
        whole.parts_room = RULES_PARTS_MAX;
        if (steady_settle_sync(&whole, &result) == STEADY_BAD_ARGUMENT) return STEADY_BAD_ARGUMENT;
        answered(exchange, &result);
        return 0;
    }
    struct settling *settling = calloc(1, sizeof *settling);
    const int error = settling != NULL ? steady_settle(&whole, question_on_settled, settling, NULL) : STEADY_NO_MEMORY;
    if (error == 0) {
        *settling = (struct settling){exchange, answered};
        exchange->settling = settling;
        return 0;
    }
    free(settling);
    if (error == STEADY_BAD_ARGUMENT) return error;
    result.error = error;
    answered(exchange, &result);
    return 0;
}

/* ---- Actions of the admin socket ---- */

/* The steps for each key. A ban goes through all: a consume fills the bucket, and the next one is denied and blocks it.
 * A ban lasts at least as long as the drop needs to leak. So the key is free when it ends. */
enum { ACTION_RESET, ACTION_FILL, ACTION_BLOCK };

struct action {
    struct settling *settling;
    steady_throttler *throttler; /* of its own, so that it lives long enough */
    int last;                    /* step */
    int step;
    size_t at; /* in `keys` */
    struct question_keys keys;
};

static void question_end_action(struct action *action) {
    if (action != NULL) steady_throttler_free(&action->throttler);
    free(action);
}

/* Whether it goes on after a result. */
static bool question_next_step(struct action *action, const steady_result *result) {
    if (result->error != 0 || (action->step == ACTION_BLOCK && result->success)) return false;
    if (action->step++ < action->last) return true;
    action->step = ACTION_RESET;
    return ++action->at < action->keys.n;
}

static void question_on_step(const steady_result *result, void *data);

static void question_begin_step(struct action *action) {
    const char *key = action->keys.bytes[action->at];
    const size_t len = action->keys.len[action->at];
    const int error = action->step == ACTION_RESET
                          ? steady_reset(action->throttler, key, len, question_on_step, action)
                          : steady_consume(action->throttler, key, len, 1, question_on_step, action);
    if (error != 0) question_on_step(&(steady_result){.error = error}, action);
}

static void question_on_step(const steady_result *result, void *data) {
    struct action *action = data;
    if (question_next_step(action, result)) {
        question_begin_step(action);
        return;
    }
    question_on_settled(result, action->settling);
    question_end_action(action);
}

static void question_act_now(struct action *action, steady_result *result) {
    do {
        const char *key = action->keys.bytes[action->at];
        const size_t len = action->keys.len[action->at];
        if (action->step == ACTION_RESET)
            steady_reset_sync(action->throttler, key, len, result);
        else
            steady_consume_sync(action->throttler, key, len, 1, result);
    } while (question_next_step(action, result));
}

void question_act(struct exchange *exchange, const struct question_keys *keys, steady_us ban,
                  void (*answered)(struct exchange *exchange, const steady_result *result)) {
    const struct worker *worker = exchange->client->worker;
    const steady_limit limit = {.max_capacity = 1, .drop_recharge = STEADY_SECOND, .block_duration = ban};
    steady_result result = {.error = STEADY_NO_MEMORY};
    struct action *action = calloc(1, sizeof *action);
    struct settling *settling = worker->blocking ? NULL : calloc(1, sizeof *settling);
    if (action == NULL || (settling == NULL && !worker->blocking) ||
        steady_throttler_new(&action->throttler, worker->store, &limit, NULL, NULL) != 0) {
        free(settling);
        question_end_action(action);
        answered(exchange, &result);
        return;
    }
    action->keys = *keys;
    action->last = ban > 0 ? ACTION_BLOCK : ACTION_RESET;
    if (worker->blocking) {
        question_act_now(action, &result);
        question_end_action(action);
        answered(exchange, &result);
        return;
    }
    *settling = (struct settling){exchange, answered};
    exchange->settling = action->settling = settling;
    question_begin_step(action);
}

/* A charge of 0 changes nothing, and a block does not deny it. Its reservation has the tag: r1,PARTS,TAG;... */
int64_t question_store_tag(struct worker *worker) {
    static const steady_limit limit = {.max_capacity = 1, .drop_recharge = STEADY_SECOND};
    const steady_how how = {.reserve = true};
    char text[200] = "";
    steady_result result = {0};
    steady_message why;
    if (!worker->blocking) return 0;
    const steady_call call = {.key = "x", .key_len = 1, .kind = STEADY_CHARGE, .how = &how};
    steady_throttler *throttler = throttlers_find(worker->throttlers, &limit, &why);
    if (throttler == NULL || steady_decide_sync(throttler, &call, &result) != 0) return 0;
    steady_reservation_text(result.reservation, text, sizeof text);
    steady_reservation_free(&result.reservation);
    const char *tag = strchr(text, ',') != NULL ? strchr(strchr(text, ',') + 1, ',') : NULL;
    return tag != NULL ? strtoll(tag + 1, NULL, 10) : 0;
}
