/* SPDX-License-Identifier: MIT
 * Finds the primary of a service by asking its sentinels.
 *
 * One sentinel is asked at a time, over a connection that is kept: whenever the connection to the primary looks for it,
 * and every LOOK besides. So a switch is noticed even if the old primary still answers, or is silent. If a sentinel
 * does not answer soon, or has no usable answer, the next one is asked too. The sentinel that answers is the one to ask
 * again. The first one is chosen at random, so that clients spread over the sentinels.
 *
 * A round ends without an answer when the time of each sentinel is over. Then the connection to the primary is told.
 * The next round starts after a back-off: 20 to 500 ms, or about a second if all sentinels refuse. Only a connection
 * that has been up does not wait for it.
 *
 * A question whose time is over stays with its connection. That connection may still look up a name, try an address or
 * make a TLS handshake. So that work is not lost. A late answer counts if no better one is known. A connection without
 * a question is parked in its finder, unless it leads to the sentinel that answered last. It is closed only at the
 * end: a lookup that hangs is abandoned with its connection, so there are no more of them than one connection allows.
 *
 * A sentinel may be wrong: cut off from the others, it does not know of a switch. Then its primary cannot be reached or
 * has another role. The connection asks again without having been up, and the next sentinel is asked first.
 *
 * A callback may close everything. So a handler holds the struct (`depth`) and checks `closed`. */
#include "redis/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/backoff.h"
#include "conn/resp.h"
#include "core/error.h"
#include "core/redact.h"

#define LOOK (400 * STEADY_MILLISECOND) /* at most; at least half of it */
#define PATIENCE_LEAST (150 * STEADY_MILLISECOND)
#define HEAD_START (50 * STEADY_MILLISECOND) /* of a sentinel before the next, while the primary is awaited */
#define HOST_MAX 255

struct sentinel {
    struct steady__finder finder; /* of its connection */
    struct sentinels *all;
    struct steady__connection *conn; /* NULL: never asked */
    struct steady__request question;
    bool asked;                           /* the question is in flight */
    bool parked;                          /* the connection waits in its finder */
    steady_us until;                      /* its time to answer */
    int error;                            /* of the last question, if it had no answer */
    struct steady__last_error last_error; /* of its connection */
    struct steady__url url;               /* its strings point into the URL of the service */
};

struct sentinels {
    struct steady__finder finder;
    struct steady__connection_options options; /* of the connections to sentinels */
    const struct steady__url *url;
    struct steady__connection *conn; /* to the primary; NULL: it has not asked yet */
    uint64_t events;                 /* questions that were answered, or failed */
    bool finding;                    /* the connection waits for the answer */
    bool fruitless;                  /* the last answer did not bring the connection up */
    bool gave_up;                    /* the last round gave no answer */
    bool closed;
    unsigned depth;
    unsigned at;                    /* the sentinel that was asked last, or is next */
    unsigned turns;                 /* sentinels asked in this round; 0: not started */
    struct steady__backoff backoff; /* between rounds without an answer */
    steady_us allowed_at;           /* the earliest start of the next round after such a round */
    bool answers;                   /* a sentinel answered in this round; its text is in `why` */
    struct steady__alarm alarm;     /* ask the next one, or end the round */
    steady_message why;
    struct steady__url primary;
    char host[HOST_MAX + 1];
    struct sentinel each[]; /* in the order of the URL */
};

static steady_us sentinel_now(const struct sentinels *s) { return steady__loop_now(&s->options.loop); }

static void sentinel_leave_handler(struct sentinels *s) {
    if (--s->depth == 0 && s->closed) free(s);
}

static void sentinel_schedule_round(struct sentinels *s) {
    steady__alarm_set(&s->alarm, LOOK / 2 + steady__jitter(s->options.net, LOOK / 2));
}

static void sentinel_back_off(struct sentinels *s, bool refused) {
    const steady_us pause = steady__reconnect_pause(&s->backoff, s->options.net, refused);
    s->allowed_at = sentinel_now(s) + pause;
    steady__alarm_set(&s->alarm, pause);
}

/* ---- One sentinel after the other ---- */

/* Drops the connection and waits in the finder. Lookups go on. */
static void sentinel_park(struct sentinel *one) {
    one->until = 0;
    if (one->conn != NULL && !one->parked) steady__connection_server_moved(one->conn);
}

static void sentinel_turn_to_next(struct sentinels *s) { s->at = (s->at + 1) % s->url->n_sentinels; }

static void sentinel_begin_round(struct sentinels *s) {
    s->turns = 0;
    s->answers = false;
}

/* The answer of a sentinel says more than an unreachable one. */
static void sentinel_note_error(struct sentinels *s, bool answered, const char *why) {
    if (answered || !s->answers) steady__fail(&s->why, 0, "sentinel %s", why);
    s->answers = s->answers || answered;
}

/* Runs no callback: the alarm continues. */
static void sentinel_failed(struct sentinel *one, int error, bool answered, const char *why) {
    struct sentinels *s = one->all;
    sentinel_note_error(s, answered, why);
    one->error = error;
    sentinel_park(one);
    const bool awaited = s->turns == s->url->n_sentinels || (s->turns > 0 && one == &s->each[s->at]);
    if (awaited) steady__alarm_set(&s->alarm, 0);
}

/* ---- The answer ---- */

static bool sentinel_take_text(struct steady__walk *walk, char *out, size_t size) {
    struct steady__value value;
    if (!steady__walk_next(walk, &value) || value.kind != STEADY__VALUE_TEXT) return false;
    if (value.text_len == 0 || value.text_len >= size || memchr(value.text, '\0', value.text_len) != NULL) return false;
    for (size_t i = 0; i < value.text_len; i++)
        if (value.text[i] <= ' ' || value.text[i] >= 0x7f) return false;
    memcpy(out, value.text, value.text_len);
    out[value.text_len] = '\0';
    return true;
}

/* Two texts: the host and the port. */
static bool sentinel_read_address(const struct steady__reply *reply, char host[HOST_MAX + 1], uint16_t *port) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value head;
    char digits[8], *end = NULL;
    if (!steady__walk_next(&walk, &head) || head.kind != STEADY__VALUE_ARRAY || head.number != 2) return false;
    if (!sentinel_take_text(&walk, host, HOST_MAX + 1) || !sentinel_take_text(&walk, digits, sizeof digits))
        return false;
    const unsigned long number = strtoul(digits, &end, 10);
    if (*end != '\0' || number == 0 || number > UINT16_MAX) return false;
    *port = (uint16_t)number;
    return true;
}

/* All other sentinels without a question. */
static void sentinel_park_others(struct sentinel *one) {
    struct sentinels *s = one->all;
    for (unsigned i = 0; i < s->url->n_sentinels; i++)
        if (&s->each[i] != one && !s->each[i].asked) sentinel_park(&s->each[i]);
}

/* Another sentinel answered meanwhile, and its answer still holds. */
static bool sentinel_is_late(const struct sentinel *one) {
    const struct sentinels *s = one->all;
    if (s->finding || one == &s->each[s->at]) return false;
    return !s->fruitless || steady__connection_is_up(s->conn);
}

static void sentinel_found_primary(struct sentinel *one, const char *host, uint16_t port) {
    struct sentinels *s = one->all;
    const bool moved = strcmp(host, s->host) != 0 || port != s->primary.port;
    snprintf(s->host, sizeof s->host, "%s", host);
    s->primary.port = port;
    s->at = (unsigned)(one - s->each);
    sentinel_park_others(one);
    sentinel_begin_round(s);
    s->gave_up = false;
    steady__backoff_reset(&s->backoff);
    sentinel_schedule_round(s);
    if (s->conn != NULL && steady__connection_is_up(s->conn)) s->fruitless = false;
    if (s->finding) {
        s->finding = false;
        steady__connection_found(s->conn, &s->primary);
    } else if (moved && s->conn != NULL) {
        s->fruitless = false; /* the connection will ask again, and this sentinel knows best */
        steady__connection_server_moved(s->conn);
    }
}

static void sentinel_format_error(const struct sentinel *one, char *text, size_t size, const char *why) {
    snprintf(text, size, "%s:%u: %s", one->url.host, (unsigned)one->url.port, why);
}

static void sentinel_fail_with_text(struct sentinel *one, int error, const char *why) {
    char text[200];
    sentinel_format_error(one, text, sizeof text, why);
    sentinel_failed(one, error, true, text);
}

static bool sentinel_is_nil(const struct steady__reply *reply) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value value;
    return steady__walk_next(&walk, &value) && value.kind == STEADY__VALUE_NIL;
}

static void sentinel_process_reply(struct sentinel *one, const struct steady__reply *reply) {
    char host[HOST_MAX + 1], text[160];
    uint16_t port = 0;
    if (sentinel_read_address(reply, host, &port)) {
        if (sentinel_is_late(one))
            sentinel_park(one);
        else
            sentinel_found_primary(one, host, port);
    } else if (sentinel_is_nil(reply)) {
        sentinel_fail_with_text(one, STEADY_UNAVAILABLE, "does not know this service");
    } else if (reply->kind == STEADY__REPLY_ERROR) {
        const struct steady__secrets secrets = {.url = one->all->url};
        steady__redact(text, sizeof text, reply->text, reply->text_len, &secrets);
        sentinel_fail_with_text(one, steady__error_class_code(reply->error_class), text);
    } else {
        sentinel_fail_with_text(one, STEADY_UNAVAILABLE, "sent an unexpected reply");
    }
}

/* ---- Called by the connection to a sentinel ---- */

static size_t sentinel_encode(void *owner, struct steady__request *request, struct steady__engines *engines,
                              char *out) {
    const struct sentinel *one = owner;
    (void)request;
    (void)engines;
    return steady__resp_command(out, 3,
                                (const char *const[]){"SENTINEL", "GET-MASTER-ADDR-BY-NAME", one->all->url->service});
}

static enum steady__reply_action sentinel_answered(void *owner, struct steady__request *request,
                                                   struct steady__engines *engines, const struct steady__reply *reply) {
    struct sentinel *one = owner;
    struct sentinels *s = one->all;
    (void)request;
    (void)engines;
    s->depth++;
    s->events++;
    one->asked = false;
    sentinel_process_reply(one, reply);
    sentinel_leave_handler(s);
    return STEADY__REPLY_ACCEPTED;
}

static void sentinel_unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct sentinel *one = owner;
    (void)request;
    (void)written;
    one->all->events++;
    one->asked = false;
    steady_message text;
    steady__last_error_get(&one->last_error, &text);
    sentinel_failed(one, error, error == STEADY_REFUSED, text.text);
}

static const struct steady__connection_owner owner_class = {sentinel_encode, sentinel_answered, sentinel_unanswered};

/* Connects only for a question. Answering inside the call is fine: the connection does nothing after it. */
static void sentinel_find_sentinel(struct steady__finder *finder, struct steady__connection *conn) {
    struct sentinel *one = (struct sentinel *)finder;
    one->parked = !one->asked;
    if (one->asked) steady__connection_found(conn, &one->url);
}

static void sentinel_finder_closed(struct steady__finder *finder) { (void)finder; }

/* ---- Asking ---- */

static bool sentinel_open_connection(struct sentinel *one) {
    if (one->conn != NULL) return true;
    struct steady__connection_options options = one->all->options;
    options.url = &one->url;
    options.finder = &one->finder;
    options.last_error = &one->last_error;
    options.owner = one;
    steady__note_error(&one->last_error, 0, "%s: out of memory", one->url.host);
    one->conn = steady__connection_open(&options);
    return one->conn != NULL;
}

static void sentinel_ask_one(struct sentinel *one) {
    struct sentinels *s = one->all;
    const steady_us patience = 2 * s->options.timeout > PATIENCE_LEAST ? 2 * s->options.timeout : PATIENCE_LEAST;
    one->until = sentinel_now(s) + patience;
    steady__alarm_set(&s->alarm, s->finding ? HEAD_START : patience);
    if (one->asked) return;
    one->error = 0;
    one->asked = sentinel_open_connection(one) && steady__connection_submit(one->conn, &one->question) == 0;
    if (!one->asked) {
        steady_message text;
        steady__last_error_get(&one->last_error, &text);
        sentinel_failed(one, STEADY_UNAVAILABLE, false, text.text);
    } else if (one->parked) {
        one->parked = false;
        steady__connection_found(one->conn, &one->url);
    }
}

/* Notes what the connections of unanswered questions are doing. */
static void sentinel_note_late_ones(struct sentinels *s) {
    char why[80], text[200];
    for (unsigned i = 0; i < s->url->n_sentinels; i++) {
        const struct sentinel *one = &s->each[i];
        if (!one->asked) continue;
        const char *doing =
            one->question.state == STEADY__REQUEST_ON_WIRE ? NULL : steady__connection_activity(one->conn);
        snprintf(why, sizeof why, "%s%s", doing != NULL ? "still " : "", doing != NULL ? doing : "does not answer");
        sentinel_format_error(one, text, sizeof text, why);
        sentinel_note_error(s, false, text);
    }
}

static bool sentinel_all_refuse(const struct sentinels *s) {
    for (unsigned i = 0; i < s->url->n_sentinels; i++)
        if (s->each[i].error != STEADY_REFUSED) return false;
    return true;
}

/* Ends a round without an answer. */
static void sentinel_give_up(struct sentinels *s) {
    const int error = sentinel_all_refuse(s) ? STEADY_REFUSED : STEADY_UNAVAILABLE;
    sentinel_note_late_ones(s);
    sentinel_begin_round(s);
    sentinel_back_off(s, error == STEADY_REFUSED);
    if (!s->finding) return;
    s->finding = false;
    s->gave_up = true;
    steady__connection_not_found(s->conn, error, s->why.text);
}

static steady_us sentinel_time_left(const struct sentinels *s) {
    steady_us left = 0;
    for (unsigned i = 0; i < s->url->n_sentinels; i++)
        if (s->each[i].until - sentinel_now(s) > left) left = s->each[i].until - sentinel_now(s);
    return left;
}

static void sentinel_ask_next(struct sentinels *s) {
    if (s->turns < s->url->n_sentinels) {
        if (s->turns++ > 0) sentinel_turn_to_next(s);
        sentinel_ask_one(&s->each[s->at]);
    } else if (sentinel_time_left(s) > 0) {
        steady__alarm_set(&s->alarm, sentinel_time_left(s));
    } else {
        sentinel_give_up(s);
    }
}

/* Reads answers that have arrived. True: there was one, and the next step is set; or the store was closed, and with it
 * the URL. */
static bool sentinel_catch_up(struct sentinels *s) {
    const uint64_t events = s->events;
    size_t left = STEADY__CATCH_UP;
    for (unsigned i = 0; !s->closed && s->events == events && i < s->url->n_sentinels; i++)
        if (s->each[i].asked) steady__connection_catch_up(s->each[i].conn, &left);
    return s->closed || (s->events != events && s->alarm.set);
}

static void sentinel_on_alarm(void *arg) {
    struct sentinels *s = arg;
    if (steady__forked(s->options.fork_guard) || !steady__alarm_rang(&s->alarm)) return;
    s->depth++;
    if (!sentinel_catch_up(s)) sentinel_ask_next(s);
    sentinel_leave_handler(s);
}

/* ---- The finder ---- */

static void sentinel_find_primary(struct steady__finder *finder, struct steady__connection *conn) {
    struct sentinels *s = (struct sentinels *)finder;
    s->conn = conn;
    s->finding = true;
    sentinel_begin_round(s);
    if (s->fruitless) sentinel_turn_to_next(s);
    s->fruitless = true;
    const bool paused = s->gave_up && sentinel_now(s) < s->allowed_at;
    if (!paused) steady__alarm_set(&s->alarm, 0);
}

/* A forked child leaves the parent's loop, and the memory that it points at. */
static void sentinel_close_finder(struct steady__finder *finder) {
    struct sentinels *s = (struct sentinels *)finder;
    for (unsigned i = 0; i < s->url->n_sentinels; i++)
        steady__connection_close(s->each[i].conn);
    if (steady__forked(s->options.fork_guard)) return;
    steady__alarm_free(&s->alarm);
    s->depth++;
    s->closed = true;
    sentinel_leave_handler(s);
}

static void sentinel_set_up(struct sentinels *s, unsigned number) {
    struct sentinel *one = &s->each[number];
    one->finder = (struct steady__finder){sentinel_find_sentinel, sentinel_finder_closed};
    one->all = s;
    one->question.nested = STEADY__NESTED;
    steady__list_init(&one->question.place);
    one->url = s->primary;
    one->url.host = s->url->sentinels[number].host;
    one->url.port = s->url->sentinels[number].port;
    one->url.user = s->url->sentinel_user;
    one->url.password = s->url->sentinel_password;
}

static struct sentinels *sentinel_open_sentinels(const struct steady__connection_options *options) {
    const unsigned n = options->url->n_sentinels;
    struct sentinels *s = calloc(1, sizeof *s + n * sizeof s->each[0]);
    if (s == NULL) return NULL;
    s->finder = (struct steady__finder){sentinel_find_primary, sentinel_close_finder};
    s->url = options->url;
    s->backoff = STEADY__RECONNECT_BACKOFF;
    s->options = (struct steady__connection_options){.net = options->net,
                                                     .loop = options->loop,
                                                     .tls = options->tls,
                                                     .fork_guard = options->fork_guard,
                                                     .timeout = options->timeout,
                                                     .connect_timeout = options->connect_timeout,
                                                     .client_name = options->client_name,
                                                     .max_unanswered = 1,
                                                     .patient = true,
                                                     .owner_class = &owner_class};
    s->primary.scheme = steady__url_has_tls(s->url->scheme) ? STEADY__URL_TLS : STEADY__URL_TCP;
    for (unsigned i = 0; i < n; i++)
        sentinel_set_up(s, i);
    s->primary.host = s->host;
    s->primary.named = true;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): the URL names at least one sentinel */
    s->at = (unsigned)(options->net->random(options->net) % n);
    if (steady__alarm_new(&s->alarm, &s->options.loop, sentinel_on_alarm, s) == 0) return s;
    free(s);
    return NULL;
}

struct steady__connection *steady__sentinels_link(const struct steady__connection_options *options) {
    struct sentinels *s = sentinel_open_sentinels(options);
    if (s == NULL) return NULL;
    struct steady__connection_options of_primary = *options;
    of_primary.finder = &s->finder;
    of_primary.role = STEADY__ROLE_PRIMARY;
    struct steady__connection *conn = steady__connection_open(&of_primary);
    if (conn == NULL) sentinel_close_finder(&s->finder);
    return conn;
}
