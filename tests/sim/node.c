/* SPDX-License-Identifier: MIT
 * Simulated servers: sessions, and refusals in the order in which a real server checks them. */
#include "node.h"

#include <stdio.h>
#include <string.h>

#include "../packed.h"
#include "client.h"
#include "journal.h"
#include "keys.h"
#include "leases.h"
#include "redis/command.h"
#include "several.h"
#include "sim_cluster.h"
#include "words.h"

struct node nodes[NODES];

void nodes_begin(void) {
    for (int i = 0; i < NODES; i++)
        nodes[i] = (struct node){.index = i, .has_module = one_in(3)};
    nodes[0].primary = true;
    nodes[0].hangs_up = !nodes[0].has_module && one_in(10);
}

bool node_suffers(const struct node *node, enum trouble trouble) { return node->until[trouble] > world.now; }
bool node_listens(const struct node *node) { return !node_suffers(node, TROUBLE_DOWN); }
steady_us node_dark_until(const struct node *node) { return node->until[TROUBLE_DARK]; }

/* ---- Replies ---- */

static void say(struct conn *conn, const char *text, size_t *end) { conn_say(conn, text, strlen(text), end); }

/* The integers of a decision. Returns the end of the reply, or 0 if it was cut off. */
static size_t say_integers(struct conn *conn, const int64_t *numbers, size_t count) {
    char text[4096];
    size_t end = 0;
    int n = count == 1 ? 0 : snprintf(text, sizeof text, "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, ":%lld\r\n", (long long)numbers[i]);
    say(conn, text, &end);
    if (conn->heeded_at == 0) conn->heeded_at = end;
    return end;
}

static void say_garbage(struct conn *conn) {
    static const char *const garbage[] = {"$-1\r\n",      "*-1\r\n",         ">2\r\n+a\r\n+b\r\n",
                                          ":1x\r\n",      "_\r\n",           "*3\r\n:-1\r\n:2\r\n:3\r\n",
                                          "\r\n",         "+OK\r\n",         ":+1\r\n",
                                          "*1\r\n:1\r\n", "*2147483648\r\n", ":-0\r\n",
                                          "#t\r\n",       "HTTP/1.1 400\r\n"};
    const size_t i = (size_t)between(0, (int64_t)(sizeof garbage / sizeof garbage[0]) - 1);
    size_t end = 0;
    note("garbage", conn->fd, (int64_t)i, 0);
    say(conn, garbage[i], &end);
    if (end > 0) conn->garbage_at = end;
}

/* ---- Scripts ---- */

/* The arguments must be those of the decision. */
static void check_script_arguments(const struct decision *d, const struct words *words) {
    const struct steady__rate *rate = &d->place->rate;
    char packed[PACKED_PART];
    const size_t len = packed_shortest(packed, rate, d->amount, STEADY__TAKE, false);
    if (!word_is(&words->at[2], "1") || words->count != 5 || words->at[4].len != len ||
        memcmp(words->at[4].bytes, packed, len) != 0)
        broken("decision %lld goes out with other arguments than its own", (long long)d->id);
}

static void expect_number(const struct decision *d, const struct words *words, size_t *i, const char *option,
                          int64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)number);
    if ((option != NULL && (*i >= words->count || !word_is(&words->at[(*i)++], option))) || *i >= words->count ||
        !word_is(&words->at[(*i)++], text))
        broken("decision %lld goes to the module with other arguments than its own", (long long)d->id);
}

static void check_module_arguments(const struct decision *d, const struct words *words) {
    static const char *const names[3] = {"STEADY.CONSUME", "STEADY.PEEK", "STEADY.RESET"};
    const struct steady__rate *rate = &d->place->rate;
    size_t i = 2;
    if (!word_is(&words->at[0], names[d->verb])) broken("decision %lld calls another command", (long long)d->id);
    if (d->verb != STEADY__RESET) {
        expect_number(d, words, &i, NULL, rate->capacity);
        expect_number(d, words, &i, NULL, rate->recharge);
        if (rate->drops != 1) expect_number(d, words, &i, "DROPS", rate->drops);
    }
    if (d->verb == STEADY__CONSUME && rate->block != 0) expect_number(d, words, &i, "BLOCK", rate->block);
    if (d->verb == STEADY__CONSUME && d->amount != 1) expect_number(d, words, &i, "AMOUNT", d->amount);
    if (i != words->count) broken("decision %lld has words too many", (long long)d->id);
}

static void check_arguments(const struct request *r, const struct words *words, enum form form) {
    struct group_words group;
    if (r->lease != NULL) {
        group_words_read(&group, words, form);
        leases_check_arguments(r, &group);
    } else if (r->decision->several != NULL) {
        group_words_read(&group, words, form);
        several_check_arguments(r, &group);
    } else if (form == FORM_MODULE) {
        check_module_arguments(r->decision, words);
    } else {
        if (words_verb(words, form) != r->verb)
            broken("decision %lld calls another script", (long long)r->decision->id);
        check_script_arguments(r->decision, words);
    }
}

/* The error of a server that lacks the module or forbids its commands. */
static const char *module_refusal(const struct node *node) {
    if (!node->has_module) return "-ERR unknown command 'STEADY.', with args beginning with: ";
    if (node_suffers(node, TROUBLE_NOLOAD)) return "-NOPERM no STEADY: no permissions to run the 'steady.' command";
    return NULL;
}

static const char *script_refusal(struct node *node, enum steady__verb verb, bool eval) {
    if (node_suffers(node, TROUBLE_FORGETS) && one_in(2)) node->has_script[verb] = false;
    if (!eval && !node->has_script[verb]) return "-NOSCRIPT No matching script. Please use EVAL.";
    if (eval) node->has_script[verb] = true;
    return NULL;
}

/* The error with which a server refuses a decision before it executes it; NULL: it executes it. */
static const char *refusal(const struct conn *conn, const struct request *r, enum form form) {
    struct node *node = conn->node;
    const bool writes = r->verb != STEADY__PEEK && r->verb != STEADY__PEEK_ALL;
    if (form != FORM_MODULE && node_suffers(node, TROUBLE_NOCALL))
        return "-NOPERM this user has no permissions to run the 'eval' command";
    if (form == FORM_EVALSHA && node_suffers(node, TROUBLE_RENAMED))
        return "-ERR unknown command 'EVALSHA', with args beginning with: ";
    const char *why = form == FORM_MODULE ? module_refusal(node) : NULL;
    if (why != NULL) return why;
    if (node_suffers(node, TROUBLE_LOADING)) return "-LOADING Redis is loading the dataset in memory";
    if (node_suffers(node, TROUBLE_BUSY)) return "-BUSY Redis is busy running a script.";
    if (node_suffers(node, TROUBLE_NOPERM)) return "-NOPERM No permissions to access a key";
    if (sim_cluster.on) why = sim_cluster_redirect(node, r, conn->asking);
    if (why != NULL) return why;
    why = form != FORM_MODULE ? script_refusal(node, r->verb, form == FORM_EVAL) : NULL;
    if (why != NULL) return why;
    if (writes && !node->primary) return "-READONLY You can't write against a read only replica.";
    if (writes && node_suffers(node, TROUBLE_OOM)) return "-OOM command not allowed when used memory > 'maxmemory'.";
    if (writes && node_suffers(node, TROUBLE_MISCONF)) return "-MISCONF Errors writing to the AOF file";
    if (writes && node_suffers(node, TROUBLE_NOREPLICAS)) return "-NOREPLICAS Not enough good replicas to write.";
    return NULL;
}

/* A real server also replaces line ends in an error. */
static void without_line_ends(char *text) {
    for (; *text != '\0'; text++)
        if (*text == '\r' || *text == '\n') *text = ' ';
}

static void miss(struct conn *conn, enum steady__verb verb) {
    conn->client->noscripts++;
    conn->missed[verb] = true;
}

/* Checks that each loss of the scripts causes one SCRIPT LOAD. A load that the last connection missed may come
 * first. */
static void check_load(struct conn *conn, enum steady__verb verb) {
    if (++conn->client->loads > conn->client->noscripts || (conn->loaded[verb] && !conn->missed[verb]))
        broken("a client loads a script that is not missing");
    conn->loaded[verb] = true;
    conn->missed[verb] = false;
}

static const char *quoted_key(const struct decision *d) {
    return d->several != NULL ? d->several->members[0].key : d->key;
}

static void refuse(struct conn *conn, struct request *r, const char *why) {
    char text[1400];
    const bool quotes = strncmp(why, "-ERR unknown", 12) == 0;
    journal_refused(r, why);
    note(why, r->decision->id, conn->fd, 0);
    snprintf(text, sizeof text - 2, "%s%s%s%s", why, quotes ? "'" : "", quotes ? quoted_key(r->decision) : "",
             quotes ? "' " : "");
    without_line_ends(text);
    strcat(text, "\r\n");
    if (strncmp(why, "-NOSCRIPT", 9) == 0) miss(conn, r->verb);
    const bool readonly = strncmp(why, "-READONLY", 9) == 0;
    say(conn, text, readonly ? &conn->readonly_at : &conn->heeded_at);
    if (strncmp(why, "-LOADING", 8) == 0 || strncmp(why, "-BUSY", 5) == 0) conn->busy_at = conn->down.total;
}

/* The error of the script, or the integers of the reply. */
static const char *run(struct node *node, struct request *r, const struct words *words, enum form form, int64_t *values,
                       size_t *count) {
    struct group_words group;
    if (r->decision->several != NULL || r->lease != NULL) {
        group_words_read(&group, words, form);
        return keys_run_group(node, r, &group, form == FORM_MODULE, values, count);
    }
    return form == FORM_MODULE ? keys_run_module(node, r->decision, values, count)
                               : keys_run(node, r->decision, values, count);
}

static void make(struct conn *conn, struct request *r, const struct words *words, enum form form) {
    int64_t values[STEADY__REPLY_MAX];
    size_t count = 0;
    const char *error = run(conn->node, r, words, form, values, &count);
    if (error != NULL) {
        refuse(conn, r, error);
        return;
    }
    note("made", r->decision->id, values[0], (int64_t)count);
    if (node_suffers(conn->node, TROUBLE_GARBAGE) && one_in(4))
        say_garbage(conn);
    else
        r->answered_at = say_integers(conn, values, count);
}

static void decide(struct conn *conn, struct request *r, const struct words *words) {
    const enum form form = words_form(words);
    if (conn->db != (long)conn->client->url.db)
        broken("decision %lld is made in database %ld", (long long)r->decision->id, conn->db);
    check_arguments(r, words, form);
    journal_seen(r, form);
    if (form == FORM_MODULE && conn->node->hangs_up) {
        conn->client->was_hung_up_on = true;
        conn_end(conn, END_EOF);
        return;
    }
    const char *why = refusal(conn, r, form);
    conn->asking = false;
    if (why != NULL)
        refuse(conn, r, why);
    else
        make(conn, r, words, form);
}

static void load(struct conn *conn, const struct words *words) {
    char text[64];
    if (words->count != 3 || !word_is(&words->at[1], "LOAD")) broken("a client sends a SCRIPT it should not");
    const enum steady__verb verb = words_script(&words->at[2], true);
    check_load(conn, verb);
    note("SCRIPT LOAD", conn->fd, (int64_t)verb, 0);
    if (node_suffers(conn->node, TROUBLE_LOADING)) {
        say(conn, "-LOADING Redis is loading the dataset in memory\r\n", &conn->heeded_at);
    } else if (node_suffers(conn->node, TROUBLE_NOPERM) || node_suffers(conn->node, TROUBLE_NOLOAD)) {
        say(conn, "-NOPERM this user has no permissions to run the 'script|load' command\r\n", &conn->heeded_at);
    } else {
        conn->node->has_script[verb] = true;
        snprintf(text, sizeof text, "$40\r\n%s\r\n", steady__scripts[verb].sha1);
        say(conn, text, &conn->heeded_at);
    }
}

/* ---- Sessions ---- */

static void authenticate(struct conn *conn, const struct words *words) {
    const struct word *password = &words->at[words->count - 1];
    note("AUTH", conn->fd, conn->node->index, node_suffers(conn->node, TROUBLE_PASSWORD));
    conn->authed = !node_suffers(conn->node, TROUBLE_PASSWORD) && word_is(password, PASSWORD);
    if (conn->authed) {
        say(conn, "+OK\r\n", NULL);
    } else {
        conn->client->was_refused = true;
        say(conn,
            one_in(2) ? "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
                      : "-WRONGPASS " PASSWORD " is not it\r\n",
            &conn->rejected_at);
    }
}

static void select_db(struct conn *conn, const struct words *words) {
    if (words->count != 2) broken("a client sends a SELECT of %zu words", words->count);
    if (node_suffers(conn->node, TROUBLE_BUSY)) {
        say(conn, "-BUSY Redis is busy running a script.\r\n", NULL);
        return;
    }
    conn->db = (long)word_number(&words->at[1]);
    say(conn, "+OK\r\n", NULL);
}

static void say_role(struct conn *conn) {
    const struct node *node = conn->node;
    const int other = node->index == 0;
    char text[128];
    conn->asked_role = true;
    note("ROLE", conn->fd, node->index, node->primary);
    if (node_suffers(node, TROUBLE_NOPERM)) {
        say(conn, "-NOPERM this user has no permissions to run the 'role' command\r\n", NULL);
    } else if (node->primary && node_suffers(node, TROUBLE_NOREPLICAS)) {
        say(conn, "*3\r\n$6\r\nmaster\r\n:100\r\n*0\r\n", &conn->primary_at);
    } else if (node->primary) {
        snprintf(text, sizeof text,
                 "*3\r\n$6\r\nmaster\r\n:100\r\n*1\r\n*3\r\n$8\r\n10.0.0.%d\r\n$4\r\n7000\r\n$3\r\n100\r\n", other);
        say(conn, text, &conn->primary_at);
    } else {
        snprintf(text, sizeof text, "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.%d\r\n:7000\r\n$9\r\nconnected\r\n:100\r\n",
                 other);
        say(conn, text, NULL);
    }
}

/* The handshake is sent as a whole, so commands may follow a wrong password. A decision must not. */
static void turn_down(struct conn *conn, const struct request *r) {
    if (r != NULL) broken("decision %lld is asked by a client that was not let in", (long long)r->decision->id);
    say(conn, "-NOAUTH Authentication required.\r\n", NULL);
}

static void let_ask(struct conn *conn) {
    conn->asking = true;
    say(conn, "+OK\r\n", &conn->heeded_at);
}

static void say_slots(struct conn *conn) {
    char reply[4096];
    note("CLUSTER SLOTS", conn->fd, conn->node->index, 0);
    if (!sim_cluster.on) broken("a server that is no cluster is asked for its slots");
    if (node_suffers(conn->node, TROUBLE_NOPERM)) {
        say(conn, "-NOPERM this user has no permissions to run the 'cluster|slots' command\r\n", &conn->heeded_at);
        return;
    }
    sim_cluster_slots(reply);
    say(conn, reply, &conn->heeded_at);
}

/* Whether a server evicts depends on its number. So each client may be warned once. */
static void say_settings(struct conn *conn, const struct words *words) {
    if (words->count != 3 || !word_is(&words->at[1], "GET")) broken("a client sends a CONFIG it should not");
    note("CONFIG GET", conn->fd, conn->node->index, 0);
    if (!conn->closed && conn->client->asked_settings++ == 3) /* the first three replies may be lost */
        broken("client %d asks for settings a fourth time", conn->client->index);
    if (node_suffers(conn->node, TROUBLE_NOPERM))
        say(conn, "-NOPERM this user has no permissions to run the 'config|get' command\r\n", &conn->heeded_at);
    else if (conn->node->index % 2 == 0)
        say(conn, "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n", &conn->heeded_at);
    else
        say(conn, "*4\r\n$9\r\nmaxmemory\r\n$1\r\n1\r\n$16\r\nmaxmemory-policy\r\n$11\r\nallkeys-lru\r\n",
            &conn->heeded_at);
}

static void execute(struct conn *conn, const struct words *words) {
    const struct word *name = &words->at[0];
    struct request *r = journal_of(words);
    if (word_is(name, "AUTH"))
        authenticate(conn, words);
    else if (!conn->authed && *conn->client->url.password != '\0')
        turn_down(conn, r);
    else if (word_is(name, "SELECT"))
        select_db(conn, words);
    else if (r != NULL)
        decide(conn, r, words);
    else if (word_is(name, "ROLE"))
        say_role(conn);
    else if (word_is(name, "CLUSTER") && words->count == 2 && word_is(&words->at[1], "SLOTS"))
        say_slots(conn);
    else if (word_is(name, "ASKING"))
        let_ask(conn);
    else if (word_is(name, "SCRIPT"))
        load(conn, words);
    else if (word_is(name, "CONFIG"))
        say_settings(conn, words);
    else
        broken("a client sends %.*s", (int)name->len, name->bytes);
}

static void expect_work(struct conn *conn, steady_us when);

static void work(void *arg) {
    struct conn *conn = arg;
    struct words words;
    size_t from = 0, len = 0;
    conn->work_due = false;
    if (node_suffers(conn->node, TROUBLE_FROZEN)) {
        expect_work(conn, conn->node->until[TROUBLE_FROZEN]);
        return;
    }
    while (!conn->ended && (len = words_read(&words, conn->in + from, conn->in_len - from)) > 0) {
        execute(conn, &words);
        from += len;
        if (one_in(8)) break;
    }
    memmove(conn->in, conn->in + from, conn->in_len - from);
    conn->in_len -= from;
    if (len > 0) expect_work(conn, world.now + between(1, 20));
}

static void expect_work(struct conn *conn, steady_us when) {
    if (conn->work_due || conn->ended) return;
    conn->work_due = true;
    at(when, work, conn);
}

void node_hear(struct conn *conn, const char *bytes, size_t len) {
    if (len == 0) return;
    if (conn->in_len + len > conn->in_room) {
        const size_t room = 2 * (conn->in_len + len) + 1024;
        char *in = keep(room);
        memcpy(in, conn->in != NULL ? conn->in : "", conn->in_len);
        conn->in = in;
        conn->in_room = room;
    }
    memcpy(conn->in + conn->in_len, bytes, len);
    conn->in_len += len;
    expect_work(conn, world.now + between(1, 20));
}

void node_accept(struct conn *conn) {
    conn->next = conn->node->conns;
    conn->node->conns = conn;
    if (!node_suffers(conn->node, TROUBLE_CLIENTS)) return;
    conn->turned_away = true;
    say(conn, "-ERR max number of clients reached\r\n", &conn->turned_away_at);
    conn_end(conn, one_in(4) ? END_RESET : END_EOF);
}

void node_gone(struct conn *conn) { conn->ended = true; }

/* ---- Troubles that come at once ---- */

static void end_all(struct node *node) {
    for (struct conn *conn = node->conns; conn != NULL; conn = conn->next)
        conn_end(conn, (enum ending)between(END_EOF, END_SILENT));
    node->conns = NULL;
}

void node_crash(struct node *node, steady_us until, bool keeps_keys) {
    note("crash", node->index, until, keeps_keys);
    end_all(node);
    node->until[TROUBLE_DOWN] = until;
    memset(node->has_script, 0, sizeof node->has_script);
    if (!keeps_keys) keys_forget(node);
}
