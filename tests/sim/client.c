/* SPDX-License-Identifier: MIT
 * Simulated programs: their decisions, and acts in callbacks that a library has to survive. */
#include "client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/limit.h"
#include "faults.h"
#include "keys.h"
#include "last_error.h"
#include "leases.h"
#include "redis/redis_store.h"
#include "reserved.h"
#include "several.h"
#include "sim_cluster.h"

#define PLACES 16
#define PLACES_PLAIN 9 /* the first ones, with one limit each */
#define PROBE_EVERY (40 * MS)
#define BUDGET 200 /* decisions of a client during the faults, at most */

struct client clients[CLIENTS_MAX];
int client_count;

static struct place places[PLACES];
static int place_count;
static int tags; /* hash tags of the keys: how many slots a cluster has for them, at most */

static void tick(void *arg);

static bool is_calm(void) { return world.now >= world.calm_at; }

/* ---- Places ---- */

static const char *any_name(int index) {
    char *text = keep(1000);
    const int padding = one_in(6) ? (int)between(50, 900) : (int)between(0, 20);
    if (sim_cluster.on)
        snprintf(text, 1000, "{b%d}b%d", index % tags, index);
    else
        snprintf(text, 1000, "b%d", index);
    memset(text + strlen(text), "x\r\n {}\x80$"[between(0, 7)], (size_t)padding);
    return text;
}

static struct place *new_place(steady_limit limit) {
    static const char *const prefixes[] = {"", "", "p:", "{a long prefix that makes a key longer than any near room}:"};
    struct place *place = &places[place_count];
    if (place_count == PLACES) broken("more than %d places", PLACES);
    *place = (struct place){.index = place_count++, .limit = limit, .prefix = prefixes[between(0, 3)], .n_limits = 1};
    if (steady__limit_rate(&place->rate, &limit, NULL) != 0) broken("no limit");
    place->name = any_name(place->index);
    char key[1100];
    snprintf(key, sizeof key, "%s%s", place->prefix, place->name);
    sim_cluster_set_slot(place, key);
    return place;
}

/* The places of a throttler with several limits. Its keys are PREFIX{KEY}NAME, so the slot is that of the prefix. */
static void new_places(const steady_limit *limits, size_t n) {
    static const char *const names[] = {"a", "1s", "a:long-name_of.a,limit"};
    static const char *const tails[] = {"", "{x}", "100%", "}{"};
    char *prefix = keep(20), *name = keep(20);
    snprintf(name, 20, "f%s", tails[between(0, 3)]);
    snprintf(prefix, 20, sim_cluster.on ? "{b%d}:" : "f%d:", place_count % tags);
    for (size_t i = 0; i < n; i++) {
        struct place *place = new_place(limits[i]);
        char key[1200];
        place->limit.name = names[i];
        place->prefix = prefix;
        place->name = name;
        place->n_limits = n;
        snprintf(key, sizeof key, "%s{}", prefix);
        sim_cluster_set_slot(place, key);
    }
}

static steady_limit any_limit(void) {
    return (steady_limit){.max_capacity = between(1, one_in(2) ? 5 : 50),
                          .drop_recharge = any_scale(1000, 10 * STEADY_SECOND),
                          .drops = between(1, 3),
                          .block_duration = one_in(3) ? any_scale(1000, STEADY_SECOND) : 0};
}

/* Only a large capacity has leases. */
static int64_t any_capacity(void) { return leases_on() ? any_scale(32, 3000) : between(1, 50); }

/* The first bucket does not leak during a seed, so its level is the sum of all charges. */
static void make_places(void) {
    place_count = 0;
    tags = one_in(2) ? 1 : (int)between(1, 8);
    new_place((steady_limit){between(1, 400), 3600 * STEADY_SECOND, 1, 0, NULL, {0}});
    new_place((steady_limit){any_capacity(), any_scale(100, STEADY_SECOND), 1, 0, NULL, {0}});
    new_place((steady_limit){any_capacity(), any_scale(100, STEADY_SECOND), between(2, 1000), 0, NULL, {0}});
    new_place((steady_limit){
        between(1, 20), any_scale(1000, STEADY_SECOND), between(1, 3), any_scale(1000, 10 * STEADY_SECOND), NULL, {0}});
    new_place((steady_limit){INT32_MAX, 4000000, 1000000, 0, NULL, {0}});
    new_place((steady_limit){10, STEADY_SECOND, 1, 0, NULL, {0}})->foreign = true;
    keys_plant(place_count - 1, one_in(2) ? "hello" : KEYS_OTHER_TYPE);
    struct place *by_amount = new_place((steady_limit){2000000, 3600 * STEADY_SECOND, 1, 0, NULL, {0}});
    by_amount->by_amount = true;
    by_amount->shares = (uint32_t)between(200, 2000);
    new_place(any_limit());
    new_place(any_limit());
    const steady_limit three[] = {any_limit(), any_limit(), any_limit()};
    new_places(three, (size_t)between(2, 3));
}

/* ---- Decisions ---- */

/* A timer may be late. A late timer may be started again once, for a decision that fails at once. */
steady_us client_slack(const struct client *client, const struct decision *d) {
    return 2 * client->loop.late + client->loop.stalled - d->stalled_before + MS / 20;
}

bool client_has_links(const struct client *client) { return sim_cluster.on || client->peeks_at_replica; }

bool client_finds_out(const struct client *client) {
    return client->options.timeout <= 50 * MS && !client_has_links(client); /* an idle connection may stay idle there */
}

steady_us client_patience(const struct client *client) {
    const steady_us stall = 4 * client->options.timeout;
    return (stall > 250 * MS ? stall : 250 * MS) + 2 * (client->loop.late + MS); /* the end takes one more turn */
}

/* The time by which decisions must be made: a second after the end of all faults. A client that the server rejected
 * waits up to 1.5 s more. A client that lost a connection over the probe for the module may need two pauses. */
static steady_us well_at(const struct client *client) {
    return world.calm_at + STEADY_SECOND + (client->was_refused ? 700 * MS : 0) +
           (client->was_hung_up_on ? 700 * MS : 0);
}

bool client_is_well(const struct client *client, steady_us when) { return when >= well_at(client); }

steady_us clients_watched_until(void) {
    steady_us until = 0;
    for (int i = 0; i < client_count; i++)
        if (well_at(&clients[i]) > until) until = well_at(&clients[i]);
    return until + 6 * PROBE_EVERY;
}

static void check_stats(const struct client *client) {
    const steady_stats *e = &client->expected;
    steady_stats stats;
    if (client->store == NULL) return;
    steady_store_stats(client->store, &stats);
    if (stats.decisions != e->decisions || stats.allowed != e->allowed || stats.denied != e->denied ||
        stats.blocked != e->blocked || stats.unavailable != e->unavailable || stats.unknown != e->unknown ||
        stats.clock_steps < e->clock_steps || stats.clock_steps > e->clock_steps + client->rounds_stepped ||
        stats.in_flight != e->in_flight || stats.from_memory != e->from_memory || stats.from_lease != e->from_lease)
        broken("the counters of client %d do not add up: %" PRIu64 " = %" PRIu64 " allowed + %" PRIu64
               " denied + %" PRIu64 " unavailable + %" PRIu64 " unknown + %" PRIu64 " in flight",
               client->index, stats.decisions, stats.allowed, stats.denied, stats.unavailable, stats.unknown,
               stats.in_flight);
}

static void check_secrets(const char *text) {
    if (strstr(text, PASSWORD) != NULL) broken("a password in a text: %s", text);
    if (strchr(text, '#') != NULL) broken("a key in a text: %s", text);
    for (const char *c = text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') broken("a byte %d in a text: %s", *c, text);
}

static void compose_key(struct decision *d) {
    const struct place *place = d->place;
    char *key = keep(1100);
    if (place->by_amount)
        snprintf(key, 1100, "%s%s", place->prefix, place->name);
    else
        snprintf(key, 1100, "%s%s#%" PRId64, place->prefix, place->name, d->id);
    d->key = key;
    d->key_len = strlen(key);
}

static int64_t any_amount(const struct place *place) {
    switch (between(1, 12)) {
    case 1: return 0;
    case 2: return -between(1, 5);
    case 3: return between(1, place->rate.capacity);
    case 4: return place->rate.capacity < INT32_MAX ? place->rate.capacity + 1 : 1;
    default: return between(1, 3);
    }
}

static int submit(const struct tap *tap, struct decision *d) {
    const size_t skipped = strlen(d->place->prefix);
    const char *key = d->key + skipped;
    const size_t len = d->key_len - skipped;
    static const enum steady_verb verbs[] = {STEADY_CONSUME, STEADY_PEEK, STEADY_RESET};
    const steady_call call = {.verb = verbs[d->verb], .key = key, .key_len = len, .amount = d->amount};
    if (d->id % 2 == 0) return steady_decide(tap->throttler, &call, client_called, d, &d->call_id);
    switch (d->verb) {
    case STEADY__PEEK: return steady_peek(tap->throttler, key, len, client_called, d);
    case STEADY__RESET: return steady_reset(tap->throttler, key, len, client_called, d);
    default: return steady_consume(tap->throttler, key, len, d->amount, client_called, d);
    }
}

void client_asks(struct client *client, struct decision *d) {
    d->stalled_before = client->loop.stalled;
    d->submitted = sim_loop_now(&client->loop);
    d->deadline = d->submitted + client->options.timeout;
    denials_asks(d);
    client->submitting = true;
}

/* A call on several keys may find no memory before the store knows of it. */
static bool is_unknown_to_store(const struct client *client, const struct decision *d, int error) {
    steady_stats stats;
    steady_store_stats(client->store, &stats);
    return d->several != NULL && error == STEADY_NO_MEMORY && stats.decisions == client->expected.decisions;
}

void client_asked(struct client *client, struct decision *d, int error) {
    const bool full = client->expected.in_flight >= client->options.max_in_flight;
    client->submitting = false;
    note("asked", d->id, client->index, error);
    if (error != (full ? STEADY_OVERLOADED : 0) && !(error == STEADY_NO_MEMORY && faults_memory()))
        broken("submitting says %s", steady_error_name(error));
    d->accepted = error == 0;
    client->expected.in_flight += d->accepted;
    if (!steady__verb_decides(d->verb) || is_unknown_to_store(client, d, error)) return;
    client->expected.decisions++;
    client->expected.unavailable += !d->accepted;
}

static void ask(struct client *client, struct tap *tap, enum steady__verb verb, int64_t amount) {
    struct decision *d = journal_open(client, tap->place, verb, amount);
    d->policy = tap->policy;
    compose_key(d);
    client_asks(client, d);
    client_asked(client, d, submit(tap, d));
}

/* Returns NULL if there is no memory. */
static struct tap *make_throttler(struct client *client, struct tap *tap) {
    const struct place *place = tap->place;
    const steady_throttler_options options = {.prefix = place->prefix,
                                              .on_error = tap->policy,
                                              .local_share = tap->shares,
                                              .max_ahead = tap->max_ahead,
                                              .clamp = tap->clamp};
    steady_message why = {.text = ""};
    steady_limit limits[MEMBERS_MAX];
    for (size_t i = 0; i < place->n_limits; i++)
        limits[i] = place[i].limit;
    const int error =
        steady_throttler_new_limits(&tap->throttler, client->store, limits, place->n_limits, &options, &why);
    if (error != 0 && !(error == STEADY_NO_MEMORY && faults_memory())) broken("no throttler: %s", why.text);
    tap->life = client->life;
    return error == 0 ? tap : NULL;
}

/* A throttler of a closed store answers "closed". */
struct tap *client_tap(struct client *client, int i) {
    struct tap *tap = &client->taps[i];
    if (tap->throttler != NULL && tap->life != client->life) {
        const int error = steady_consume(tap->throttler, "key", 3, 1, client_called, NULL);
        if (error != STEADY_CLOSED) broken("a closed store says %s", steady_error_name(error));
        steady_throttler_free(&tap->throttler);
    }
    return tap->throttler != NULL ? tap : make_throttler(client, tap);
}

/* For a call on one key. */
static struct tap *any_tap(struct client *client) {
    return client_tap(client, client->hot < TAPS ? client->hot : (int)between(0, TAPS_PLAIN - 1));
}

static void ask_something(struct client *client) {
    if (client->store == NULL || client->budget == 0) return;
    client->budget--;
    if ((client->crowds || (client->hot == TAPS && one_in(3))) && several_ask(client)) return;
    struct tap *tap = any_tap(client);
    if (tap == NULL) return;
    enum steady__verb verb = STEADY__CONSUME;
    if (client->hot < TAPS && !one_in(10)) {
        ask(client, tap, verb, between(1, 3));
        return;
    }
    if (!tap->place->by_amount && one_in(5)) verb = one_in(3) ? STEADY__RESET : STEADY__PEEK;
    ask(client, tap, verb, verb == STEADY__CONSUME ? any_amount(tap->place) : verb == STEADY__PEEK ? 1 : 0);
}

/* ---- Lives ---- */

static void close_store(struct client *client) {
    if (client->store == NULL) return;
    note("close store", client->index, 0, 0);
    client->closing = true;
    steady_store_close(&client->store);
    steady_store_close(&client->store);
    client->closing = false;
    if (client->expected.in_flight != 0) broken("a store is closed, and decisions are in flight");
    client->life++;
}

static void free_throttler(struct client *client) {
    struct tap *tap = &client->taps[between(0, TAPS - 1)];
    note("free throttler", client->index, 0, 0);
    steady_throttler_free(&tap->throttler);
}

/* A cancelled decision is counted as unknown or unavailable. Which of them shows whether it may have been charged. */
static void cancel_one(struct client *client) {
    struct decision *d = journal_in_flight(client);
    steady_stats before = {.decisions = 0}, after = {.decisions = 0};
    struct tap *tap = NULL;
    for (int i = 0; i < TAPS; i++)
        if (client->taps[i].throttler != NULL && client->taps[i].life == client->life) tap = &client->taps[i];
    if (d == NULL || tap == NULL) return;
    steady_store_stats(client->store, &before);
    if (steady_cancel(tap->throttler, d->call_id) != 0) broken("decision %" PRId64 " cannot be cancelled", d->id);
    if (steady_cancel(tap->throttler, d->call_id) != STEADY_NOT_IN_FLIGHT)
        broken("decision %" PRId64 " is cancelled twice", d->id);
    steady_store_stats(client->store, &after);
    journal_cancelled(d, after.unavailable > before.unavailable ? STEADY_UNAVAILABLE : STEADY_UNKNOWN);
}

/* Acts that a program may do in a callback. The second half is bad practice, but permitted. */
static void do_mischief(struct client *client) {
    switch (is_calm() ? between(1, 12) : between(1, 60)) {
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: ask_something(client); break;
    case 9:
        check_stats(client);
        denials_look_around(client);
        break;
    case 10: check_secrets(last_error_of(client->store)); break;
    case 11: free_throttler(client); break;
    case 13: close_store(client); break;
    case 15:
    case 16: cancel_one(client); break;
    case 14: sim_loop_block(&client->loop, any_scale(1, 300 * MS)); break;
    default: break;
    }
}

void client_called(const steady_result *result, void *data) {
    struct decision *d = data;
    journal_told(d, result);
    if (!d->client->closing)
        do_mischief(d->client);
    else if (one_in(4))
        cancel_one(d->client);
}

static void logged(void *data, enum steady_log_level level, const char *text) {
    struct client *client = data;
    const bool lost = level == STEADY_LOG_WARNING, evicts = strstr(text, "may evict") != NULL;
    note(evicts ? "log: evicts" : lost ? "log: lost" : "log: found", client->index, 0, 0);
    check_secrets(text);
    if (evicts) {
        if (client->warned_of_eviction) broken("the log is told twice: %s", text);
        client->warned_of_eviction = true;
        do_mischief(client);
        return;
    }
    const bool refused = strstr(text, "the server refuses decisions") != NULL;
    const bool twice = lost == client->lost_logged && (refused || !client->refusals_logged);
    if (twice && !client_has_links(client)) broken("the log is told twice: %s", text);
    if (client->store == NULL) broken("the log is told after the store was closed");
    client->lost_logged = lost;
    client->refusals_logged = refused; /* the connection may be lost meanwhile */
    do_mischief(client);
}

static void open_store(struct client *client) {
    steady_message why = {.text = ""};
    client->local_level = 0;
    client->lost_logged = client->refusals_logged = false;
    client->asked_settings = 0;
    client->warned_of_eviction = false;
    client->dialed_at = NEVER;
    client->failures = 0;
    client->conn = NULL;
    client->expected = (steady_stats){.decisions = 0};
    client->owing = NULL;
    client->rounds_stepped = 0;
    struct steady__leases *leases = leases_open(client);
    if (client->options.lease_age > 0 && leases == NULL) {
        if (!faults_memory()) broken("no leases");
        return;
    }
    const int error = steady__redis_open_over(&client->store, &client->net.api, client->process->denials, leases,
                                              &client->url, &client->options, &why);
    steady__leases_release(leases); /* the store holds them */
    if (error != 0 && !(error == STEADY_NO_MEMORY && faults_memory())) broken("no store: %s", why.text);
    note("open store", client->index, client->options.timeout, client->options.max_in_flight);
}

/* ---- Attempts to connect ---- */

static bool heard(const struct conn *conn, size_t reply_end) { return reply_end > 0 && conn->read >= reply_end; }

/* The shortest pause after `failures` failures: see backoff.c. */
static steady_us least_rest(unsigned failures) {
    steady_us nominal = failures > 0 ? 20 * MS : 0;
    for (unsigned i = 1; i < failures && nominal < 500 * MS; i++)
        nominal *= 2;
    return (nominal < 500 * MS ? nominal : 500 * MS) / 2;
}

/* Checks the pause before a new connection, which depends on the last one. There is no pause if the server worked,
 * if it first said that it is no primary, or if it may have hung up on the probe for the module. The pause is a
 * second if the server rejected the client. */
void client_dials(struct client *client) {
    const steady_us now = sim_loop_now(&client->loop);
    const struct conn *last = client->conn;
    const bool rejected = last != NULL && heard(last, last->rejected_at);
    const bool moved = last != NULL && heard(last, last->readonly_at);
    const bool doubted = last != NULL && last->asked_role && !heard(last, last->primary_at);
    const bool asked = last != NULL && last->asked_module && client->options.engine == STEADY_ENGINE_AUTO;
    const bool in_question = asked && !heard(last, last->heeded_at);
    if ((last != NULL && heard(last, last->heeded_at)) || (moved && !doubted))
        client->failures = 0;
    else if (!rejected && !in_question && client->dialed_at != NEVER)
        client->failures++;
    note("dial", client->index, client->failures, rejected);
    steady_us least = rejected ? STEADY_SECOND : least_rest(client->failures);
    if (in_question && !rejected) least = 0;
    if (client->dialed_at != NEVER && now - client->dialed_at < least && !client_has_links(client))
        broken("client %d connects again after %" PRId64 " us, having failed %u times", client->index,
               now - client->dialed_at, client->failures);
    client->dialed_at = now;
    client->conn = NULL;
}

/* ---- Time passes ---- */

static void probe(struct client *client) {
    if (client->store == NULL) open_store(client);
    if (client->store != NULL && one_in(3) && several_ask(client)) return;
    struct tap *tap = client->store != NULL ? any_tap(client) : NULL;
    if (tap == NULL) return; /* this allocation failed; it was the last to fail */
    for (int n = client->options.deny_memory > 0 && one_in(3) ? 3 : 0; n > 0; n--)
        ask(client, tap, STEADY__CONSUME, between(1, 3)); /* the last ones may have to wait for the first one */
    const bool peeks = !tap->place->by_amount && one_in(4);
    ask(client, tap, peeks ? STEADY__PEEK : STEADY__CONSUME, 1);
}

static void work(struct client *client) {
    if (client->store == NULL && one_in(3)) open_store(client);
    client->crowds = one_in(8);
    if ((client->options.deny_memory > 0 || client->options.lease_age > 0) && one_in(2))
        client->hot = (int)between(0, TAPS_PLAIN - 1);
    for (int64_t n = client->crowds || client->hot < TAPS || one_in(4) ? between(1, 40) : between(1, 3); n > 0; n--)
        ask_something(client);
    client->crowds = false;
    client->hot = TAPS;
    if (one_in(10) && client->store != NULL) cancel_one(client);
    if (one_in(60)) close_store(client);
    if (one_in(30)) free_throttler(client);
}

static void tick(void *arg) {
    struct client *client = arg;
    check_stats(client);
    denials_look_around(client);
    if (client->store != NULL) check_secrets(last_error_of(client->store));
    if (is_calm())
        probe(client);
    else
        work(client);
    client->loop.api.ops->timer_start(client->timer, is_calm() ? PROBE_EVERY : any_scale(100, 200 * MS));
}

/* ---- Beginning and ending ---- */

static void make_url(struct client *client, bool local) {
    static const char *const credentials[] = {"", ":" PASSWORD "@", "user:" PASSWORD "@"};
    const char *who = credentials[between(0, 2)];
    char text[160];
    steady_message why = {.text = ""};
    if (local)
        snprintf(text, sizeof text, "unix:%s%s/run/server.sock%s", *who != '\0' ? "//" : "", who,
                 client->process->has_db ? "?db=3" : "");
    else
        snprintf(text, sizeof text, "redis://%sserver.test:7000%s%s", who,
                 !sim_cluster.on && client->process->has_db ? "/3" : "",
                 client->peeks_at_replica ? "?peek=replica" : "");
    if (steady__url_parse(&client->url, text, &why) != 0) broken("no URL: %s", why.text);
}

static enum steady_engine any_engine(void) {
    return (enum steady_engine)between(STEADY_ENGINE_AUTO,
                                       nodes[0].has_module ? STEADY_ENGINE_MODULE : STEADY_ENGINE_SCRIPT);
}

static void choose_tap(struct tap *tap, bool plain) {
    const int last = plain ? PLACES_PLAIN - 1 : place_count - 1;
    tap->place = &places[between(0, last)];
    while (tap->place > places && tap->place->n_limits > 1 && tap->place->name == (tap->place - 1)->name)
        tap->place--;
    const bool local = tap->place->by_amount || !plain;
    tap->policy = (enum steady_policy)between(STEADY_REPORT, local ? STEADY_LOCAL : STEADY_ALLOW);
    tap->shares = tap->place->by_amount ? tap->place->shares : plain ? 1 : (uint32_t)between(1, 10);
    if (plain) return;
    tap->clamp = one_in(4);
    tap->max_ahead = one_in(4) ? any_scale(MS, 10 * STEADY_SECOND) : 0;
}

static void make_client(struct client *client, bool local) {
    static const steady_us timeouts[] = {2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS, 100 * MS, 100 * MS, 400 * MS};
    sim_loop_init(&client->loop, one_in(2) ? any_scale(10, 5 * MS) : 0);
    sim_net_init(&client->net, client, &client->loop);
    client->peeks_at_replica = !local && one_in(6);
    client->process = denials_process();
    client->hot = TAPS;
    make_url(client, local);
    client->budget = (int)between(1, BUDGET);
    client->options = (steady_store_options){.loop = &client->loop.api,
                                             .timeout = timeouts[between(0, 7)],
                                             .max_in_flight = one_in(4) ? (uint32_t)between(1, 9) : 1000,
                                             .buckets = 4096,
                                             .engine = any_engine(),
                                             .deny_memory = denials_any_time(),
                                             .lease_age = leases_any_age(),
                                             .log = logged,
                                             .log_data = client};
    client->options.deny_memory_off = client->options.deny_memory == 0;
    for (int i = 0; i < TAPS; i++)
        do
            choose_tap(&client->taps[i], i < TAPS_PLAIN);
        while (client->options.lease_age > 0 && client->taps[i].place->by_amount); /* leases are told by numbers */
    if (steady__deny_memory_open(&client->memory, client->process->denials, &client->url, &client->options) != 0)
        broken("no memory of denials");
    client->timer = client->loop.api.ops->timer_new(&client->loop, tick, client);
    open_store(client);
    client->loop.api.ops->timer_start(client->timer, between(0, 10 * MS));
}

void clients_begin(void) {
    const bool local = !sim_cluster.on && one_in(6);
    memset(clients, 0, sizeof clients);
    reserved_begin();
    denials_begin();
    leases_begin();
    make_places();
    client_count = (int)between(1, CLIENTS_MAX);
    for (int i = 0; i < client_count; i++) {
        clients[i].index = i;
        make_client(&clients[i], local);
    }
}

void clients_end(void) {
    reserved_end();
    for (int i = 0; i < client_count; i++) {
        struct client *client = &clients[i];
        check_stats(client);
        close_store(client);
        for (int j = 0; j < TAPS; j++)
            steady_throttler_free(&client->taps[j].throttler);
        client->loop.api.ops->timer_free(client->timer);
        if (client->loop.io_count != 0 || client->loop.timer_count != 0 || client->net.open_fds != 0 ||
            client->net.lookups != 0)
            broken("client %d leaves %" PRId64 " watches, %" PRId64 " timers, %" PRId64 " descriptors, %" PRId64
                   " lookups behind",
                   i, client->loop.io_count, client->loop.timer_count, client->net.open_fds, client->net.lookups);
        steady__deny_memory_close(&client->memory);
        steady__url_clear(&client->url);
    }
    denials_end();
}
