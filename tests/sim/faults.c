/* SPDX-License-Identifier: MIT
 * The faults: each seed has some kinds of faults. They begin at random times and last for random times. */
#include "faults.h"

#include <string.h>

#include "../alloc.h"
#include "client.h"
#include "denials.h"
#include "keys.h"
#include "sim_cluster.h"

static steady_us until_some_time(void) {
    const steady_us until = world.now + any_scale(MS, 600 * MS);
    return until < world.calm_at ? until : world.calm_at;
}

static struct node *any_node(void) { return &nodes[between(0, sim_cluster.on ? NODES - 1 : 1)]; }

/* A random node, in most cases the one in use. */
static struct node *a_node(void) {
    if (sim_cluster.on || one_in(5)) return any_node();
    return nodes[0].primary ? &nodes[0] : &nodes[1];
}

static struct conn *a_conn(void) {
    struct client *client = &clients[between(0, client_count - 1)];
    return client->conn != NULL && client->conn->state == CONN_UP && !client->conn->ended ? client->conn : NULL;
}

static void suffer(enum trouble trouble) {
    struct node *node = a_node();
    node->until[trouble] = until_some_time();
    note("trouble", node->index, trouble, node->until[trouble]);
}

/* ---- Kinds ---- */

static void cut_connection(void) {
    struct conn *conn = a_conn();
    if (conn == NULL) return;
    switch (between(1, 3)) {
    case 1: conn->up.cut = conn->up.total + (size_t)between(0, one_in(2) ? 300 : 6000); break;
    case 2: conn->down.cut = conn->down.total + (size_t)between(0, 100); break;
    default: conn_end(conn, (enum ending)between(END_EOF, END_SILENT)); break;
    }
}

static void darken_connection(void) {
    struct conn *conn = a_conn();
    if (conn != NULL) conn_darken(conn, until_some_time());
}

static void darken_node(void) {
    struct node *node = a_node();
    node->until[TROUBLE_DARK] = until_some_time();
    note("dark", node->index, node->until[TROUBLE_DARK], 0);
    for (struct conn *conn = node->conns; conn != NULL; conn = conn->next)
        conn_darken(conn, node->until[TROUBLE_DARK]);
}

static void crash(void) { node_crash(a_node(), until_some_time(), one_in(2)); }

static void restart(void) {
    struct node *node = a_node();
    node_crash(node, until_some_time(), one_in(2));
    node->until[TROUBLE_LOADING] = node->until[TROUBLE_DOWN] + any_scale(MS, 100 * MS);
    if (node->until[TROUBLE_LOADING] > world.calm_at) node->until[TROUBLE_LOADING] = world.calm_at;
}

static void flush_scripts(void) {
    struct node *node = a_node();
    note("SCRIPT FLUSH", node->index, 0, 0);
    memset(node->has_script, 0, sizeof node->has_script);
}

static void flush_keys(void) { keys_forget(a_node()); }

static void freeze(void) { suffer(TROUBLE_FROZEN); }
static void be_busy(void) { suffer(one_in(2) ? TROUBLE_BUSY : TROUBLE_LOADING); }
static void be_full(void) { suffer((enum trouble)between(TROUBLE_OOM, TROUBLE_NOREPLICAS)); }
static void be_strict(void) { suffer((enum trouble)between(TROUBLE_NOPERM, TROUBLE_RENAMED)); }
static void change_password(void) { suffer(TROUBLE_PASSWORD); }
static bool short_of_memory;

bool faults_memory(void) { return short_of_memory; }

/* Makes a random later allocation fail, of the library or of the test itself. */
static void run_out_of_memory(void) {
    const uint64_t nth = (uint64_t)between(1, 30);
    note("an allocation will fail", (int64_t)nth, 0, 0);
    alloc_fail(nth);
    short_of_memory = true;
}

static void move_slot(void) {
    if (sim_cluster.on) sim_cluster_move_slot(until_some_time());
}

static void be_cut_off(void) { suffer(TROUBLE_CLUSTERDOWN); }
static void be_crowded(void) { suffer(TROUBLE_CLIENTS); }
static void be_forgetful(void) { suffer(TROUBLE_FORGETS); }
static void talk_nonsense(void) { suffer(TROUBLE_GARBAGE); }

static void point_name_at(const struct node *node) {
    server_name.local = node->index;
    server_name.count = (size_t)between(1, 4);
    for (size_t i = 0; i < server_name.count; i++)
        server_name.hosts[i] = world.now >= world.calm_at || one_in(2) ? ADDRESS_CLOSED : ADDRESS_DARK;
    server_name.hosts[between(0, (int64_t)server_name.count - 1)] = (uint8_t)node->index;
}

static void rename_primary(void *node) {
    if (world.now < world.calm_at) point_name_at(node);
}

/* The old primary stays up and refuses writes. The name changes late, and some keys have old values. */
static void fail_over(void) {
    if (sim_cluster.on) {
        sim_cluster_take_over();
        return;
    }
    struct node *from = nodes[0].primary ? &nodes[0] : &nodes[1];
    struct node *to = nodes[0].primary ? &nodes[1] : &nodes[0];
    note("failover", from->index, to->index, 0);
    denials_lost(NULL);
    if (!one_in(3)) keys_copy(to, from);
    to->primary = true;
    from->primary = one_in(8); /* both nodes are primaries for a time */
    at(until_some_time(), rename_primary, to);
}

static void lose_name(void) {
    if (one_in(2))
        server_name.fails_until = until_some_time();
    else
        server_name.slow_until = until_some_time();
}

static void step_clock(void) {
    const int64_t by = any_scale(1, 3600 * STEADY_SECOND);
    keys_step_clock(a_node(), one_in(2) ? by : -by);
}

static void stall_loop(void) { sim_loop_block(&clients[between(0, client_count - 1)].loop, any_scale(MS, 500 * MS)); }

static void change_network(void) {
    net_weather.slow_one_in = one_in(2) ? 0 : between(5, 200);
    net_weather.slow = any_scale(MS, 500 * MS);
    net_weather.slice = one_in(3) ? (size_t)between(1, 8) : 1460;
    net_weather.window = one_in(3) ? (size_t)between(1, 400) : 65536;
    net_weather.short_one_in = one_in(2) ? 0 : between(1, 10);
    net_weather.refuses_one_in = one_in(4) ? between(1, 4) : 0;
    net_weather.no_lookup_one_in = one_in(4) ? between(1, 4) : 0;
    for (int i = 0; i < client_count; i++)
        clients[i].loop.io_fails_one_in = one_in(4) ? between(1, 6) : 0;
}

/* ---- When ---- */

static void (*const kinds[])(void) = {
    cut_connection,    cut_connection, darken_connection, darken_node,    crash,        restart,         flush_scripts,
    flush_keys,        freeze,         be_busy,           be_full,        be_strict,    change_password, be_crowded,
    run_out_of_memory, move_slot,      move_slot,         be_cut_off,     be_forgetful, talk_nonsense,   fail_over,
    lose_name,         step_clock,     stall_loop,        change_network,
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static void (*chosen[KINDS])(void);
static size_t chosen_count;

static void strike(void *arg) {
    (void)arg;
    if (chosen_count == 0 || world.now >= world.calm_at) return;
    chosen[between(0, (int64_t)chosen_count - 1)]();
    at(world.now + any_scale(MS, 200 * MS), strike, NULL);
}

/* Ends all faults. */
static void calm_down(void *arg) {
    (void)arg;
    note("all is well", 0, 0, 0);
    alloc_fail(0);
    net_weather = (struct net_weather){.latency = 60, .slice = 1460, .window = 65536};
    struct node *node = nodes[0].primary ? &nodes[0] : &nodes[1];
    if (!sim_cluster.on) nodes[1 - node->index].primary = false;
    denials_lost(NULL); /* those of a second primary */
    for (int i = 1; i < NODES; i++)
        nodes[i].has_module = nodes[0].has_module;
    server_name = (struct name){.count = 0};
    point_name_at(node);
    for (int i = 0; i < client_count; i++)
        clients[i].loop.io_fails_one_in = 0;
    conns_calm_down();
}

void faults_begin(void) {
    net_weather = (struct net_weather){.latency = any_scale(20, 2 * MS), .slice = 1460, .window = 65536};
    world.calm_at = between(100 * MS, 1500 * MS);
    point_name_at(&nodes[0]);
    short_of_memory = false;
    chosen_count = 0;
    for (size_t i = 0; i < KINDS; i++)
        if (one_in(4)) chosen[chosen_count++] = kinds[i];
    at(between(0, 50 * MS), strike, NULL);
    at(world.calm_at, calm_down, NULL);
}
