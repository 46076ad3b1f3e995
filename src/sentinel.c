/* SPDX-License-Identifier: MIT
 * The primary of a service, as its sentinels know it.
 *
 * One sentinel is asked at a time, over a link that is kept: whenever the finder's link wants to know, and every LOOK
 * besides. So a switch is noticed also where the old primary goes on answering, or is silent and being waited for. One
 * that does not answer in time, or not usefully, is left for the next in the list; who answers stays the one to ask.
 * Where to begin is chance, so that the clients of a service spread over its sentinels. When none of them is of use
 * they are left alone for as long as a server would be: twice as long each time, up to half a second, or about a second
 * where they all refuse. Only a link that has been up does not wait for that.
 *
 * A sentinel may be wrong: cut off from the others, it does not know of a switch. Its primary then cannot be reached or
 * has another role, the link asks again without having been up in between, and the next sentinel is asked first.
 *
 * What is called back may close everything, so a handler holds the struct (`depth`) and looks at `closed`. */
#include "sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "circuit.h"
#include "error.h"
#include "script.h"

#define LOOK (400 * STEADY_MILLISECOND) /* at most, and half of it at least */
#define PATIENCE_LEAST (150 * STEADY_MILLISECOND)
#define HOST_MAX 255
#define QUESTIONS 8 /* unanswered ones, all but the last given up; the link does not last that long */

struct sentinels {
    struct steady__finder finder;
    struct steady__link_options with; /* of the links to sentinels */
    const struct steady__url *url;
    struct steady__link *link;     /* which it finds for; NULL: not asked yet */
    struct steady__link *sentinel; /* NULL: none */
    struct steady__request question;
    uint64_t questions;
    bool asking;    /* the question is on its way */
    bool stuck;     /* it could not be asked; the alarm is about to say so */
    bool finding;   /* the link waits for the answer */
    bool fruitless; /* the last answer has not brought the link up */
    bool gave_up;   /* there was no answer when the link last wanted one */
    bool closed;
    unsigned depth;
    unsigned at;                    /* the sentinel to ask */
    unsigned in_vain;               /* of how many since the last answer */
    unsigned refusals;              /* of these */
    struct steady__circuit circuit; /* its failures: rounds in which none was of use */
    steady_us allowed_at;           /* the next round, after one of those */
    bool answers;                   /* one of these did answer, and what it said is in `why` */
    struct steady__alarm alarm;     /* asking: give up; else: ask */
    steady_message trouble;         /* of the link to the sentinel */
    steady_message why;
    struct steady__url there; /* the sentinel's; its strings lie in `url` */
    struct steady__url primary;
    char host[HOST_MAX + 1];
};

static void ask(struct sentinels *s);

static void leave(struct sentinels *s) {
    if (--s->depth == 0 && s->closed) free(s);
}

static void rest(struct sentinels *s) {
    steady__alarm_set(&s->alarm, LOOK / 2 + steady__circuit_jitter(&s->circuit, LOOK / 2));
}

static void rest_in_vain(struct sentinels *s, bool refused) {
    const steady_us pause = steady__circuit_failed(&s->circuit, refused);
    s->allowed_at = steady__loop_now(&s->with.loop) + pause;
    steady__alarm_set(&s->alarm, pause);
}

/* ---- One sentinel after the other ---- */

static void hang_up(struct sentinels *s) {
    steady__link_close(s->sentinel);
    s->sentinel = NULL;
    s->question.on_wire = false; /* of that link */
    s->asking = s->stuck = false;
}

static void try_next(struct sentinels *s) {
    hang_up(s);
    s->at = (s->at + 1) % s->url->n_sentinels;
}

static void begin_round(struct sentinels *s) {
    s->in_vain = s->refusals = 0;
    s->answers = false;
}

/* None of them could say. */
static void give_up(struct sentinels *s) {
    const int error = s->refusals == s->url->n_sentinels ? STEADY_REFUSED : STEADY_UNAVAILABLE;
    begin_round(s);
    rest_in_vain(s, error == STEADY_REFUSED);
    if (!s->finding) return;
    s->finding = false;
    s->gave_up = true;
    steady__link_not_found(s->link, error, s->why.text);
}

/* What a sentinel answered says more than that another could not be reached. */
static void failed(struct sentinels *s, int error, bool answered, const char *why) {
    if (answered || !s->answers) steady__fail(&s->why, 0, "sentinel %s", why);
    s->answers = s->answers || answered;
    if (error == STEADY_REFUSED) s->refusals++;
    s->in_vain++;
    try_next(s);
    if (s->in_vain >= s->url->n_sentinels)
        give_up(s);
    else
        ask(s);
}

/* ---- The answer ---- */

static bool take_text(struct steady__walk *walk, char *out, size_t size) {
    struct steady__value value;
    if (!steady__walk_next(walk, &value) || value.kind != STEADY__VALUE_TEXT) return false;
    if (value.text_len == 0 || value.text_len >= size || memchr(value.text, '\0', value.text_len) != NULL) return false;
    steady__printable(out, size, value.text, value.text_len);
    return true;
}

/* Two texts: the host and the port. */
static bool read_address(const struct steady__reply *reply, char host[HOST_MAX + 1], uint16_t *port) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value head;
    char digits[8], *end = NULL;
    if (!steady__walk_next(&walk, &head) || head.kind != STEADY__VALUE_ARRAY || head.number != 2) return false;
    if (!take_text(&walk, host, HOST_MAX + 1) || !take_text(&walk, digits, sizeof digits)) return false;
    const unsigned long number = strtoul(digits, &end, 10);
    if (*end != '\0' || number == 0 || number > UINT16_MAX) return false;
    *port = (uint16_t)number;
    return true;
}

static void knows(struct sentinels *s, const char *host, uint16_t port) {
    const bool moved = strcmp(host, s->host) != 0 || port != s->primary.port;
    snprintf(s->host, sizeof s->host, "%s", host);
    s->primary.port = port;
    begin_round(s);
    s->gave_up = false;
    s->circuit.failures = 0;
    rest(s);
    if (s->link != NULL && steady__link_is_up(s->link)) s->fruitless = false;
    if (s->finding) {
        s->finding = false;
        steady__link_found(s->link, &s->primary);
    } else if (moved && s->link != NULL) {
        s->fruitless = false; /* the link is about to ask again, and this one knows better than the others */
        steady__link_moved(s->link);
    }
}

static void complain(struct sentinels *s, int error, bool answered, const char *why) {
    char text[200];
    const struct steady__url_host *at = &s->url->sentinels[s->at];
    snprintf(text, sizeof text, "%s:%u: %s", at->host, (unsigned)at->port, why);
    failed(s, error, answered, text);
}

static bool is_nil(const struct steady__reply *reply) {
    struct steady__walk walk = steady__walk_over(reply);
    struct steady__value value;
    return steady__walk_next(&walk, &value) && value.kind == STEADY__VALUE_NIL;
}

static void heard(struct sentinels *s, const struct steady__reply *reply) {
    char host[HOST_MAX + 1], text[160];
    uint16_t port = 0;
    if (read_address(reply, host, &port)) {
        knows(s, host, port);
    } else if (is_nil(reply)) {
        complain(s, STEADY_UNAVAILABLE, true, "knows no such service");
    } else if (reply->kind == STEADY__REPLY_ERROR) {
        const char *secret = s->there.password;
        steady__reply_excuse(text, sizeof text, reply, secret, strlen(secret));
        complain(s, steady__refusal_error(steady__script_refusal(reply->text, reply->text_len)), true, text);
    } else {
        complain(s, STEADY_UNAVAILABLE, true, "answers with what is no answer");
    }
}

/* ---- What the link to a sentinel asks ---- */

static size_t encode(void *owner, struct steady__request *request, struct steady__dialect *dialect, char *out) {
    static const char command[] = "*3\r\n$8\r\nSENTINEL\r\n$23\r\nGET-MASTER-ADDR-BY-NAME\r\n";
    const struct sentinels *s = owner;
    (void)request;
    (void)dialect;
    return (size_t)snprintf(out, STEADY__REQUEST_MAX, "%s$%zu\r\n%s\r\n", command, strlen(s->url->service),
                            s->url->service);
}

static enum steady__heed answered(void *owner, struct steady__request *request, struct steady__dialect *dialect,
                                  const struct steady__reply *reply) {
    struct sentinels *s = owner;
    (void)request;
    (void)dialect;
    s->depth++;
    s->asking = false;
    heard(s, reply);
    leave(s);
    return STEADY__HEED_NOTHING;
}

static void unanswered(void *owner, struct steady__request *request, bool written, int error) {
    struct sentinels *s = owner;
    (void)request;
    (void)written;
    s->depth++;
    s->asking = false;
    failed(s, error, error == STEADY_REFUSED, s->trouble.text);
    leave(s);
}

static const struct steady__link_owner owner_class = {encode, answered, unanswered};

/* ---- Asking ---- */

static bool call(struct sentinels *s) {
    if (s->sentinel != NULL) return true;
    s->there.host = s->url->sentinels[s->at].host;
    s->there.port = s->url->sentinels[s->at].port;
    steady__fail(&s->trouble, 0, "%s: out of memory", s->there.host);
    s->sentinel = steady__link_open(&s->with);
    return s->sentinel != NULL;
}

/* Calls nothing back: what fails at once is left to the alarm. */
static void ask(struct sentinels *s) {
    const steady_us patience = 2 * s->with.timeout;
    s->questions++;
    s->asking = call(s) && steady__link_submit(s->sentinel, &s->question) == 0;
    s->stuck = !s->asking;
    steady__alarm_set(&s->alarm, s->stuck ? 0 : patience > PATIENCE_LEAST ? patience : PATIENCE_LEAST);
}

/* There was time enough, if the answer is not lying there. */
static void take_back(struct sentinels *s) {
    const uint64_t question = s->questions;
    steady__link_catch_up(s->sentinel);
    if (s->closed || !s->asking || s->questions != question) return;
    steady__link_forget(s->sentinel, &s->question);
    complain(s, STEADY_UNAVAILABLE, false, "does not answer");
}

static void alarmed(void *arg) {
    struct sentinels *s = arg;
    if (steady__forked(s->with.birthmark) || !steady__alarm_rang(&s->alarm)) return;
    s->depth++;
    if (s->asking)
        take_back(s);
    else if (s->stuck)
        failed(s, STEADY_UNAVAILABLE, false, s->trouble.text);
    else
        ask(s);
    leave(s);
}

/* ---- The finder ---- */

static void find(struct steady__finder *finder, struct steady__link *link) {
    struct sentinels *s = (struct sentinels *)finder;
    s->link = link;
    s->finding = true;
    begin_round(s);
    if (s->fruitless && s->url->n_sentinels > 1) try_next(s);
    s->fruitless = true;
    const bool paused = s->gave_up && steady__loop_now(&s->with.loop) < s->allowed_at;
    if (!s->asking && !s->stuck && !paused) ask(s);
}

/* A child leaves the parent's loop alone, and the memory that it points at. */
static void close_finder(struct steady__finder *finder) {
    struct sentinels *s = (struct sentinels *)finder;
    if (steady__forked(s->with.birthmark)) {
        steady__link_close(s->sentinel);
        return;
    }
    s->depth++;
    s->closed = true;
    hang_up(s);
    steady__alarm_free(&s->alarm);
    leave(s);
}

static struct sentinels *open_sentinels(const struct steady__link_options *options) {
    struct sentinels *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->finder = (struct steady__finder){find, close_finder};
    s->url = options->url;
    s->circuit.net = options->net;
    s->with = (struct steady__link_options){.net = options->net,
                                            .loop = options->loop,
                                            .url = &s->there,
                                            .tls = options->tls,
                                            .birthmark = options->birthmark,
                                            .trouble = &s->trouble,
                                            .timeout = options->timeout,
                                            .max_unanswered = QUESTIONS,
                                            .owner_class = &owner_class,
                                            .owner = s};
    s->primary.scheme = steady__url_has_tls(s->url->scheme) ? STEADY__URL_TLS : STEADY__URL_TCP;
    s->primary.host = s->host;
    s->there = s->primary;
    s->there.user = s->url->sentinel_user;
    s->there.password = s->url->sentinel_password;
    s->question.nested = true;
    steady__list_init(&s->question.place);
    s->at = (unsigned)(options->net->random(options->net) % s->url->n_sentinels);
    if (steady__alarm_new(&s->alarm, &s->with.loop, alarmed, s) == 0) return s;
    free(s);
    return NULL;
}

struct steady__link *steady__sentinels_link(const struct steady__link_options *options) {
    struct sentinels *s = open_sentinels(options);
    if (s == NULL) return NULL;
    struct steady__link_options with = *options;
    with.finder = &s->finder;
    with.role = STEADY__ROLE_PRIMARY;
    struct steady__link *link = steady__link_open(&with);
    if (link == NULL) close_finder(&s->finder);
    return link;
}
