/* SPDX-License-Identifier: MIT
 * RESP2 and RESP3 (the protocol of Redis): CL.THROTTLE of redis-cell, and the commands of our module. The arguments and
 * their errors are those of the module, by its own code; docs/reference/module.md describes them.
 *
 * Requests may be sent one behind the other (pipelining). The answers come in their order. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "client.h"
#include "module/parts_arguments.h"

enum { WORDS_MOST = 1024, REQUEST_MOST = 256 * 1024 };

/* A word of a request. */
struct server_string {
    const char *bytes;
    size_t len;
};

static const char *resp_bytes(const server_string *string, size_t *len) {
    *len = string->len;
    return string->bytes;
}

/* As in the server: the shortest form of a number, and nothing else. */
static int resp_number(const server_string *string, long long *number) {
    const bool negative = string->len > 0 && string->bytes[0] == '-';
    const char *at = string->bytes + negative, *end = string->bytes + string->len;
    unsigned long long n = 0;
    if (at == end || end - at > 19 || (*at == '0' && (negative || end - at > 1))) return 1;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9') return 1;
        n = n * 10 + (unsigned long long)(*at - '0');
    }
    if (n > (unsigned long long)INT64_MAX + negative) return 1;
    *number = negative ? (long long)(0 - n) : (long long)n;
    return SERVER_OK;
}

struct server_functions steady__server = {.StringPtrLen = resp_bytes, .StringToLongLong = resp_number};

/* A request, and who answers it. */
struct resp_request {
    struct exchange *exchange;
    server_string **argv;
    int argc;
};

/* ---- Replies ---- */

static void resp_reply(struct exchange *exchange, const char *text) {
    buffer_add_text(client_reply(exchange), text);
    client_answered(exchange);
}

static void resp_error(struct exchange *exchange, const char *text) {
    struct buffer *out = client_reply(exchange);
    buffer_add(out, "-", 1);
    for (; *text != '\0'; text++)
        buffer_add(out, *text == '\r' || *text == '\n' ? " " : text, 1);
    buffer_add(out, "\r\n", 2);
    client_answered(exchange);
}

static void resp_wrong(struct exchange *exchange, const steady_message *why) {
    char text[sizeof why->text + 4];
    snprintf(text, sizeof text, "ERR %s", why->text);
    metrics_add(&exchange->client->worker->metrics.refused, 1);
    resp_error(exchange, text);
}

static void resp_integers(struct exchange *exchange, const int64_t *values, size_t n) {
    struct buffer *out = client_reply(exchange);
    buffer_add(out, "*", 1);
    buffer_add_number(out, (int64_t)n);
    buffer_add(out, "\r\n", 2);
    for (size_t i = 0; i < n; i++) {
        buffer_add(out, ":", 1);
        buffer_add_number(out, values[i]);
        buffer_add(out, "\r\n", 2);
    }
    client_answered(exchange);
}

static void resp_bulk(struct buffer *out, const char *bytes, size_t len) {
    buffer_add(out, "$", 1);
    buffer_add_number(out, (int64_t)len);
    buffer_add(out, "\r\n", 2);
    buffer_add(out, bytes, len);
    buffer_add(out, "\r\n", 2);
}

/* A decision without a verdict is an error reply. If a policy has answered, its numbers are made up. */
static bool resp_has_numbers(struct exchange *exchange, const steady_result *result) {
    char text[200];
    if (result->parts != NULL) return true;
    const char *class = result->error == STEADY_NOT_A_BUCKET ? "NOTABUCKET" : "UNAVAILABLE";
    snprintf(text, sizeof text, "%s %s", class, steady_error_text(result->error));
    resp_error(exchange, text);
    return false;
}

/* The clock of the store, as far as the daemon knows it. */
static int64_t resp_now(const struct worker *worker) {
    struct timespec now;
    clock_gettime(worker->blocking ? CLOCK_BOOTTIME : CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- Questions ---- */

static steady_limit resp_limit(const struct steady__rate *rate) {
    return (steady_limit){.max_capacity = rate->capacity,
                          .drop_recharge = rate->recharge,
                          .drops = rate->drops,
                          .block_duration = rate->block};
}

static bool resp_add_part(struct question *question, struct worker *worker, const server_string *key,
                          const struct steady__rate *rate, int64_t amount, enum steady_kind kind, steady_message *why) {
    const steady_limit limit = resp_limit(rate);
    struct question_part *part = &question->parts[question->n_parts];
    if (key->len < 1 || key->len > RULES_KEY_MAX) {
        snprintf(why->text, sizeof why->text, "the key must have 1 .. %d bytes", RULES_KEY_MAX);
        return false;
    }
    *part = (struct question_part){.counters = worker->unnamed,
                                   .name = "",
                                   .key = key->bytes,
                                   .key_len = key->len,
                                   .amount = amount,
                                   .kind = kind};
    part->throttler = throttlers_find(worker->throttlers, &limit, why);
    part->limit = part->throttler != NULL ? throttlers_limit(worker->throttlers) : NULL;
    question->n_parts++;
    return part->throttler != NULL;
}

static void resp_ask_one(struct resp_request *r, const struct steady__rate *rate, const struct question *like,
                         int64_t amount, question_answered answered) {
    struct worker *worker = r->exchange->client->worker;
    struct question question = *like;
    steady_message why;
    question.set = worker->set;
    question.parts = worker->parts;
    if (resp_add_part(&question, worker, r->argv[1], rate, amount, STEADY_TAKE, &why))
        question_ask(worker, &question, 0, answered, r->exchange, &r->exchange->waiting);
    else
        resp_wrong(r->exchange, &why);
}

/* ---- STEADY.CONSUME, STEADY.PEEK, CL.THROTTLE ---- */

static void resp_decided(void *to, const struct question *question, const steady_result *result) {
    struct exchange *exchange = to;
    if (exchange == NULL || !resp_has_numbers(exchange, result)) return;
    const steady_part_result *p = &result->parts[0];
    const bool with_options = question->max_wait > 0 || question->at_least > 0;
    const int64_t values[] = {result->success, p->level,          p->until_next_drop, p->blocked_for,
                              p->retry_after,  result->must_wait, p->granted};
    resp_integers(exchange, values, with_options ? 7 : 5);
}

static void resp_consume(struct resp_request *r) {
    static const unsigned allowed = STEADY__BIT(STEADY__WAIT) | STEADY__BIT(STEADY__ATLEAST) |
                                    STEADY__BIT(STEADY__DROPS) | STEADY__BIT(STEADY__BLOCK) |
                                    STEADY__BIT(STEADY__AMOUNT);
    struct steady__arguments arguments = {r->argv + 2, r->argv + r->argc};
    struct steady__options options;
    struct steady__rate rate;
    steady_message why;
    if (!steady__arguments_limit(&arguments, allowed, &options, &rate, &why) ||
        !steady__arguments_end(&arguments, allowed, &why)) {
        resp_wrong(r->exchange, &why);
        return;
    }
    const struct steady__part part = {.rate = &rate, .amount = options.values[STEADY__AMOUNT]};
    const struct question like = {.max_wait = options.values[STEADY__WAIT],
                                  .at_least = options.values[STEADY__ATLEAST]};
    if (like.at_least > 0 && !steady__arguments_at_least(like.at_least, &part, 1, &why))
        resp_wrong(r->exchange, &why);
    else
        resp_ask_one(r, &rate, &like, part.amount, resp_decided);
}

static void resp_peek(struct resp_request *r) {
    struct steady__arguments arguments = {r->argv + 2, r->argv + r->argc};
    struct steady__options options;
    struct steady__rate rate;
    steady_message why;
    if (!steady__arguments_limit(&arguments, STEADY__BIT(STEADY__DROPS), &options, &rate, &why) ||
        !steady__arguments_end(&arguments, STEADY__BIT(STEADY__DROPS), &why))
        resp_wrong(r->exchange, &why);
    else
        resp_ask_one(r, &rate, &(struct question){.verb = QUESTION_PEEK}, 1, resp_decided);
}

static int64_t resp_ceil_seconds(int64_t us) { return us / 1000000 + (us % 1000000 != 0); }

static void resp_throttled(void *to, const struct question *question, const steady_result *result) {
    struct exchange *exchange = to;
    if (exchange == NULL || !resp_has_numbers(exchange, result)) return;
    const steady_part_result *p = &result->parts[0];
    const steady_limit *limit = question->parts[0].limit;
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    const int64_t left = p->level < limit->max_capacity ? limit->max_capacity - p->level : 0;
    const int64_t rest = p->level > 1 ? ((p->level - 1) * limit->drop_recharge + drops - 1) / drops : 0;
    const int64_t empty = p->level > 0 ? p->until_next_drop + rest : 0;
    const int64_t values[] = {!result->success, limit->max_capacity, left,
                              p->retry_after > 0 ? resp_ceil_seconds(p->retry_after) : -1, resp_ceil_seconds(empty)};
    resp_integers(exchange, values, 5);
}

static void resp_throttle(struct resp_request *r) {
    struct steady__rate rate = {0};
    steady_message why;
    int64_t quantity = 1;
    if (steady__arguments_throttle(&rate, &quantity, r->argv, r->argc, &why))
        resp_ask_one(r, &rate, &(struct question){.verb = QUESTION_CONSUME}, quantity, resp_throttled);
    else
        resp_wrong(r->exchange, &why);
}

/* ---- STEADY.CONSUMEALL, STEADY.PEEKALL ---- */

/* The moment of the decision, for STEADY.SETTLE. Of several moments it is the first: then less is given back. */
static int64_t resp_moment(const struct worker *worker, const steady_result *result) {
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(result->reservation, &n);
    int64_t moment = n > 0 ? parts[0].moment : resp_now(worker);
    for (size_t i = 1; i < n; i++)
        if (parts[i].moment < moment) moment = parts[i].moment;
    return moment;
}

static void resp_all_decided(void *to, const struct question *question, const steady_result *result) {
    struct exchange *exchange = to;
    steady_reservation *reservation = result->reservation;
    int64_t values[5 + 6 * RULES_PARTS_MAX], *at = values;
    if (exchange != NULL && resp_has_numbers(exchange, result)) {
        *at++ = result->success;
        *at++ = (int64_t)result->part;
        *at++ = result->must_wait;
        *at++ = result->retry_after;
        *at++ = resp_moment(exchange->client->worker, result);
        for (size_t i = 0; i < question->n_parts; i++) {
            const steady_part_result *p = &result->parts[i];
            *at++ = p->success;
            *at++ = p->granted;
            *at++ = p->level;
            *at++ = p->until_next_drop;
            *at++ = p->blocked_for;
            *at++ = p->retry_after;
        }
        resp_integers(exchange, values, (size_t)(at - values));
    }
    steady_reservation_free(&reservation);
}

static void resp_ask_all(struct resp_request *r, bool peek) {
    struct worker *worker = r->exchange->client->worker;
    struct steady__parts_request request;
    steady_message why;
    if (!steady__arguments_request(&request, peek, r->argv, r->argc, &why)) {
        resp_wrong(r->exchange, &why);
        return;
    }
    struct question question = {.set = worker->set,
                                .verb = peek ? QUESTION_PEEK : QUESTION_CONSUME,
                                .max_wait = request.how.max_wait,
                                .at_least = request.how.at_least,
                                .reserve = !peek,
                                .parts = worker->parts};
    for (size_t i = 0; i < request.n; i++)
        if (!resp_add_part(&question, worker, r->argv[2 + i], &request.rates[i], request.parts[i].amount,
                           (enum steady_kind)request.parts[i].kind, &why)) {
            resp_wrong(r->exchange, &why);
            return;
        }
    question_ask(worker, &question, 0, resp_all_decided, r->exchange, &r->exchange->waiting);
}

static void resp_consume_all(struct resp_request *r) { resp_ask_all(r, false); }
static void resp_peek_all(struct resp_request *r) { resp_ask_all(r, true); }

/* ---- Connection ---- */

static void resp_ping(struct resp_request *r) {
    if (r->argc == 1) {
        resp_reply(r->exchange, "+PONG\r\n");
        return;
    }
    resp_bulk(client_reply(r->exchange), r->argv[1]->bytes, r->argv[1]->len);
    client_answered(r->exchange);
}

static void resp_quit(struct resp_request *r) {
    struct client *client = r->exchange->client;
    resp_reply(r->exchange, "+OK\r\n");
    client_end(client);
}

static bool resp_is(const server_string *word, const char *text) {
    return word->len == strlen(text) && strncasecmp(word->bytes, text, word->len) == 0;
}

/* Client libraries tell their names. */
static void resp_client(struct resp_request *r) {
    if (resp_is(r->argv[1], "setname") || resp_is(r->argv[1], "setinfo"))
        resp_reply(r->exchange, "+OK\r\n");
    else
        resp_error(r->exchange, "ERR the subcommands of client are SETNAME and SETINFO");
}

static void resp_command(struct resp_request *r) { resp_reply(r->exchange, "*0\r\n"); }

/* There is no password. So, as in Redis without one, the user "default" may give any, and there is no other user. */
static bool resp_is_user(struct resp_request *r, const server_string *name) {
    if (name->len == 7 && memcmp(name->bytes, "default", 7) == 0) return true;
    resp_error(r->exchange, "WRONGPASS invalid username-password pair or user is disabled.");
    return false;
}

static void resp_auth(struct resp_request *r) {
    if (r->argc == 2)
        resp_error(r->exchange, "ERR AUTH <password> called without any password configured for the default user. Are "
                                "you sure your configuration is correct?");
    else if (r->argc > 3)
        resp_error(r->exchange, "ERR syntax error");
    else if (resp_is_user(r, r->argv[1]))
        resp_reply(r->exchange, "+OK\r\n");
}

/* AUTH USER PASSWORD, SETNAME NAME. False: it is answered. */
static bool resp_hello_options(struct resp_request *r) {
    char text[200], word[64], quoted[128];
    for (int i = 2; i < r->argc;) {
        const server_string *option = r->argv[i];
        const int words = resp_is(option, "auth") ? 3 : resp_is(option, "setname") ? 2 : 0;
        if (words == 0 || r->argc - i < words) {
            snprintf(word, sizeof word, "%.*s", (int)(option->len < 60 ? option->len : 60), option->bytes);
            steady_quote(quoted, sizeof quoted, word);
            snprintf(text, sizeof text, "ERR Syntax error in HELLO option '%s'", quoted);
            resp_error(r->exchange, text);
            return false;
        }
        if (words == 3 && !resp_is_user(r, r->argv[i + 1])) return false;
        i += words;
    }
    return true;
}

static void resp_hello(struct resp_request *r) {
    long long version = r->exchange->client->state != NULL ? 3 : 2;
    if (r->argc > 1 && resp_number(r->argv[1], &version) != SERVER_OK) {
        resp_error(r->exchange, "ERR Protocol version is not an integer or out of range");
        return;
    }
    if (version != 2 && version != 3) {
        resp_error(r->exchange, "NOPROTO unsupported protocol version");
        return;
    }
    if (!resp_hello_options(r)) return;
    r->exchange->client->state = version == 3 ? r->exchange->client : NULL; /* a flag: see resp.c only */
    struct buffer *out = client_reply(r->exchange);
    buffer_add_format(out, version == 3 ? "%%%d\r\n" : "*%d\r\n", version == 3 ? 4 : 8);
    buffer_add_format(out, "$6\r\nserver\r\n$6\r\nsteady\r\n$7\r\nversion\r\n$%zu\r\n%s\r\n", strlen(steady_version()),
                      steady_version());
    buffer_add_format(out, "$5\r\nproto\r\n:%d\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n", (int)version);
    client_answered(r->exchange);
}

static void resp_info(struct resp_request *r) {
    struct buffer text = {0};
    const struct worker *worker = r->exchange->client->worker;
    buffer_add_format(&text, "# Server\r\nsteady_version:%s\r\nconnected_clients:%u\r\n", steady_version(),
                      atomic_load(&worker->server->connections));
    resp_bulk(client_reply(r->exchange), text.bytes, text.len);
    buffer_free(&text);
    client_answered(r->exchange);
}

/* ---- The table ---- */

static void resp_settle(struct resp_request *r);
static void resp_reset(struct resp_request *r);

static const struct {
    const char *name;
    void (*run)(struct resp_request *r);
    int least, most; /* words */
    bool admin;      /* only on an admin socket without a token */
} commands[] = {{"cl.throttle", resp_throttle, 5, 6, false},
                {"steady.consume", resp_consume, 4, WORDS_MOST, false},
                {"steady.peek", resp_peek, 4, WORDS_MOST, false},
                {"steady.consumeall", resp_consume_all, 3, WORDS_MOST, false},
                {"steady.peekall", resp_peek_all, 3, WORDS_MOST, false},
                {"steady.settle", resp_settle, 3, WORDS_MOST, false},
                {"steady.reset", resp_reset, 2, WORDS_MOST, true},
                {"ping", resp_ping, 1, 2, false},
                {"hello", resp_hello, 1, WORDS_MOST, false},
                {"auth", resp_auth, 2, WORDS_MOST, false},
                {"command", resp_command, 1, WORDS_MOST, false},
                {"client", resp_client, 2, WORDS_MOST, false},
                {"info", resp_info, 1, WORDS_MOST, false},
                {"quit", resp_quit, 1, WORDS_MOST, false}};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void resp_run(struct resp_request *r) {
    char text[200], quoted[64];
    const server_string *name = r->argv[0];
    size_t i = 0;
    while (i < N_COMMANDS && !resp_is(name, commands[i].name))
        i++;
    if (i == N_COMMANDS) {
        snprintf(text, sizeof text, "%.*s", (int)(name->len < 60 ? name->len : 60), name->bytes);
        steady_quote(quoted, sizeof quoted, text);
        snprintf(text, sizeof text, "ERR unknown command '%s'", quoted);
        resp_error(r->exchange, text);
    } else if (r->argc < commands[i].least || r->argc > commands[i].most) {
        snprintf(text, sizeof text, "ERR wrong number of arguments for '%s' command", commands[i].name);
        resp_error(r->exchange, text);
    } else if (r->exchange->admin && r->exchange->client->worker->server->admin_token[0] != '\0') {
        resp_error(r->exchange, "NOPERM the admin port takes HTTP with its token");
    } else if (commands[i].admin && !r->exchange->admin) {
        snprintf(text, sizeof text, "NOPERM %s is for an admin socket at unix:/path", commands[i].name);
        resp_error(r->exchange, text);
    } else {
        commands[i].run(r);
    }
}

/* ---- STEADY.RESET ---- */

static void resp_reset(struct resp_request *r) {
    struct worker *worker = r->exchange->client->worker;
    steady_limit limit = {.max_capacity = 1, .drop_recharge = STEADY_SECOND};
    steady_message why;
    if (!steady__arguments_reset(r->argv, (size_t)r->argc - 1, &why)) {
        resp_wrong(r->exchange, &why);
        return;
    }
    steady_throttler *throttler = throttlers_find(worker->throttlers, &limit, &why);
    for (int i = 1; throttler != NULL && i < r->argc; i++)
        question_reset(worker, throttler, (struct rules_text){r->argv[i]->bytes, r->argv[i]->len});
    struct buffer *out = client_reply(r->exchange);
    buffer_add(out, ":", 1);
    buffer_add_number(out, r->argc - 1);
    buffer_add(out, "\r\n", 2);
    client_answered(r->exchange);
}

/* ---- STEADY.SETTLE ---- */

/* now, then of each part: level until_next_drop blocked_for given_back charged */
static void resp_settled(struct exchange *exchange, const steady_result *result) {
    int64_t values[1 + 5 * RULES_PARTS_MAX], *at = values;
    if (!resp_has_numbers(exchange, result)) return;
    *at++ = resp_now(exchange->client->worker);
    for (size_t i = 0; i < result->n_parts; i++) {
        const steady_part_result *p = &result->parts[i];
        *at++ = p->level;
        *at++ = p->until_next_drop;
        *at++ = p->blocked_for;
        *at++ = p->given_back;
        *at++ = p->charged;
    }
    resp_integers(exchange, values, (size_t)(at - values));
}

static void resp_escape(struct buffer *out, const server_string *key) {
    for (size_t i = 0; i < key->len; i++) {
        const char c = key->bytes[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            (c != '\0' && strchr("-._:/@", c) != NULL))
            buffer_add(out, &c, 1);
        else
            buffer_add_format(out, "%%%02X", (unsigned char)c);
    }
}

/* The call has no reservation, but says what one would hold. So it is written in the text form of reservations. */
static void resp_settle(struct resp_request *r) {
    struct worker *worker = r->exchange->client->worker;
    struct steady__rate rates[STEADY__KEYS_MAX];
    struct steady__settlement settlements[STEADY__KEYS_MAX] = {0};
    int64_t n = 0, actuals[STEADY__KEYS_MAX];
    steady_reservation *reservation = NULL;
    steady_message why = {.text = ""};
    struct buffer text = {0};
    bool right = steady__arguments_settlements(rates, settlements, &n, r->argv, r->argc, &why);
    if (right) buffer_add_format(&text, "r1,%lld,%lld;", (long long)n, (long long)question_store_tag(worker));
    for (int64_t i = 0; i < n && right; i++) {
        const struct steady__settlement *s = &settlements[i];
        actuals[i] = s->actual;
        /* After another rate nothing is given back. That is what settles a reservation of the true cost. */
        const int64_t reserved = s->same_rate || s->actual > s->reserved ? s->reserved : s->actual;
        resp_escape(&text, r->argv[2 + i]);
        buffer_add_format(&text, ",x,0,0,%lld,%lld,%lld,%lld,%lld,%lld;", (long long)rates[i].capacity,
                          (long long)rates[i].recharge, (long long)rates[i].drops, (long long)reserved,
                          (long long)reserved, (long long)s->moment);
    }
    buffer_add(&text, "", 1);
    right = right && !text.lost && steady_reservation_parse(&reservation, text.bytes, &why) == 0;
    buffer_free(&text);
    const steady_settlement settlement = {
        .reservation = reservation, .actuals = actuals, .store = worker->store, .why = &why};
    if (!right || question_settle(r->exchange, &settlement, resp_settled) != 0) resp_wrong(r->exchange, &why);
    steady_reservation_free(&reservation);
}

/* ---- Requests ---- */

enum resp_outcome { RESP_MORE, RESP_READ, RESP_BAD };

/* A line with a number behind its type: *3 or $7. */
static enum resp_outcome resp_read_count(const char *bytes, size_t len, size_t *at, char type, long most, long *count) {
    if (*at == len) return RESP_MORE;
    if (bytes[*at] != type) return RESP_BAD;
    const char *end = memchr(bytes + *at, '\n', len - *at);
    if (end == NULL) return len - *at > 32 ? RESP_BAD : RESP_MORE;
    long n = 0;
    const size_t line = (size_t)(end - (bytes + *at)); /* with its CR */
    if (line < 3 || line > 12 || end[-1] != '\r') return RESP_BAD;
    for (size_t i = 1; i < line - 1; i++) {
        const char c = bytes[*at + i];
        if (c < '0' || c > '9') return RESP_BAD;
        n = n * 10 + (c - '0');
    }
    *at += line + 1;
    *count = n;
    return n > most ? RESP_BAD : RESP_READ;
}

static enum resp_outcome resp_read_request(struct client *client, const char *bytes, size_t len, size_t *used,
                                           server_string words[WORDS_MOST], int *n_words) {
    size_t at = 0;
    long n = 0, size = 0;
    *n_words = 0;
    enum resp_outcome outcome = resp_read_count(bytes, len, &at, '*', WORDS_MOST, &n);
    for (long i = 0; i < n && outcome == RESP_READ; i++) {
        outcome = resp_read_count(bytes, len, &at, '$', REQUEST_MOST, &size);
        if (outcome != RESP_READ) break;
        client->progress.needs = at + (size_t)size + 2;
        if (client->progress.needs > REQUEST_MOST) return RESP_BAD;
        if (len < client->progress.needs) return RESP_MORE;
        if (bytes[at + (size_t)size] != '\r' || bytes[at + (size_t)size + 1] != '\n') return RESP_BAD;
        words[(*n_words)++] = (server_string){bytes + at, (size_t)size};
        at += (size_t)size + 2;
    }
    *used = at;
    return outcome;
}

static ptrdiff_t resp_read(struct client *client, char *bytes, size_t len) {
    server_string words[WORDS_MOST], *argv[WORDS_MOST];
    size_t at = 0;
    while (at < len && client->condition == CLIENT_OPEN && !client_must_wait(client)) {
        size_t used = 0;
        int argc = 0;
        if (len - at < client->progress.needs) break;
        const enum resp_outcome outcome = resp_read_request(client, bytes + at, len - at, &used, words, &argc);
        if (outcome == RESP_MORE) break;
        client->progress = (struct http1_progress){0};
        at += used;
        if (outcome != RESP_BAD && argc < 1) continue; /* an empty request */
        struct exchange *exchange = client_begin(client);
        if (exchange == NULL) return -1;
        if (outcome == RESP_BAD) {
            resp_error(exchange, "ERR Protocol error: a request must be an array of bulk strings");
            return -1;
        }
        for (int i = 0; i < argc; i++)
            argv[i] = &words[i];
        resp_run(&(struct resp_request){exchange, argv, argc});
    }
    return (ptrdiff_t)at;
}

static void resp_drain(struct client *client, bool last) {
    if (last) client_finish(client);
}

const struct protocol client_resp = {
    .name = "resp", .counted_as = METRICS_RESP, .read = resp_read, .drain = resp_drain};
