/* SPDX-License-Identifier: MIT
 * A cluster of six servers. */
#include "redis_cluster.h"

#include <stdlib.h>

#include "redis/slot_map.h"

static void start_node(struct cluster *cluster, unsigned i, const char *options) {
    char text[sizeof cluster->nodes[i].options], tls[64] = "";
    if (options == NULL) options = "";
    cluster->tls_ports[i] = strstr(options, "--tls-cert-file") != NULL ? free_port() : 0;
    if (cluster->tls_ports[i] != 0) snprintf(tls, sizeof tls, "--tls-cluster yes --tls-port %d", cluster->tls_ports[i]);
    snprintf(text, sizeof text,
             "--cluster-enabled yes --cluster-port %d --cluster-replica-validity-factor 0 "
             "--repl-diskless-sync yes --repl-diskless-sync-delay 0 --repl-ping-replica-period 1 %s %s",
             free_port(), tls, options);
    server_start(&cluster->nodes[i], text);
}

static int bus_port(const struct server *node) {
    int port = 0;
    const char *at = strchr(server_ask(node, "CLUSTER NODES"), '@');
    assert_non_null(at);
    sscanf(at + 1, "%d", &port);
    return port;
}

static void join(struct cluster *cluster) {
    for (unsigned i = 0; i < cluster->count; i++) {
        snprintf(cluster->ids[i], sizeof cluster->ids[i], "%s", server_ask(&cluster->nodes[i], "CLUSTER MYID"));
        server_ask(&cluster->nodes[i], "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
        if (i < PRIMARIES)
            server_ask(&cluster->nodes[i], "CLUSTER ADDSLOTSRANGE %u %u", i * 16384 / PRIMARIES,
                       (i + 1) * 16384 / PRIMARIES - 1);
    }
    for (unsigned i = 1; i < cluster->count; i++)
        server_ask(&cluster->nodes[0], "CLUSTER MEET 127.0.0.1 %d %d",
                   cluster->tls_ports[i] != 0 ? cluster->tls_ports[i] : cluster->nodes[i].port,
                   bus_port(&cluster->nodes[i]));
}

/* A node can become a replica only after it has heard of its primary. */
static void replicate(const struct cluster *cluster) {
    const steady_us until = now_us() + 20 * STEADY_SECOND;
    for (unsigned i = PRIMARIES; i < cluster->count;) {
        if (strcmp(server_ask(&cluster->nodes[i], "CLUSTER REPLICATE %s", cluster->ids[i - PRIMARIES]), "OK") == 0)
            i++;
        else if (now_us() > until)
            fail_msg("no replica: %s", server_ask(&cluster->nodes[i], "CLUSTER NODES"));
        else
            sleep_us(20 * STEADY_MILLISECOND);
    }
}

static bool is_well(const struct cluster *cluster, unsigned i) {
    const struct server *node = &cluster->nodes[i];
    if (strstr(server_ask(node, "CLUSTER INFO"), "cluster_state:ok") == NULL) return false;
    if (strstr(server_ask(node, "CLUSTER INFO"), "cluster_slots_ok:16384") == NULL) return false;
    return i < PRIMARIES || strstr(server_ask(node, "INFO REPLICATION"), "master_link_status:down") == NULL;
}

void cluster_await(const struct cluster *cluster) {
    const steady_us until = now_us() + 30 * STEADY_SECOND;
    for (unsigned i = 0; i < cluster->count;) {
        if (cluster->nodes[i].pid == 0 || is_well(cluster, i))
            i++;
        else if (now_us() > until)
            fail_msg("not well: %s", server_ask(&cluster->nodes[i], "CLUSTER NODES"));
        else
            sleep_us(20 * STEADY_MILLISECOND);
    }
}

void cluster_start(struct cluster *cluster, unsigned count, const char *options) {
    memset(cluster, 0, sizeof *cluster);
    cluster->count = count;
    snprintf(cluster->options, sizeof cluster->options, "%s", options != NULL ? options : "");
    for (unsigned i = 0; i < count; i++)
        start_node(cluster, i, options);
    join(cluster);
    replicate(cluster);
    cluster_await(cluster);
}

void cluster_stop(struct cluster *cluster) {
    for (unsigned i = 0; i < cluster->count; i++)
        server_stop(&cluster->nodes[i]);
    cluster->count = 0;
}

void cluster_ensure(struct cluster *cluster, unsigned count, const char *options) {
    if (cluster->count == count && strcmp(cluster->options, options) == 0) return;
    cluster_stop(cluster);
    cluster_start(cluster, count, options);
}

long long cluster_stat(const struct cluster *cluster, const char *field) {
    long long sum = 0;
    for (unsigned i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].pid != 0) sum += server_stat(&cluster->nodes[i], field);
    return sum;
}

unsigned cluster_owner(unsigned slot) {
    for (unsigned i = PRIMARIES - 1; i > 0; i--)
        if (slot >= i * 16384 / PRIMARIES) return i;
    return 0;
}

void cluster_tag(char out[16], unsigned owner, unsigned number) {
    for (unsigned i = 0;; i++) {
        const int len = snprintf(out, 16, "%u", i);
        if (cluster_owner(steady__slot_of(out, (size_t)len)) == owner && number-- == 0) return;
    }
}

static void must(const struct server *node, const char *reply) {
    if (strcmp(reply, "OK") != 0 && strcmp(reply, "NOKEY") != 0) fail_msg("port %d: %s", node->port, reply);
}

void cluster_migrate_begin(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to) {
    const struct server *source = &cluster->nodes[from], *target = &cluster->nodes[to];
    must(target, server_ask(target, "CLUSTER SETSLOT %u IMPORTING %s", slot, cluster->ids[from]));
    must(source, server_ask(source, "CLUSTER SETSLOT %u MIGRATING %s", slot, cluster->ids[to]));
}

void cluster_migrate_keys(const struct cluster *cluster, unsigned slot, unsigned from, unsigned to) {
    char key[256];
    const char *found;
    while (*(found = server_ask(&cluster->nodes[from], "CLUSTER GETKEYSINSLOT %u 1", slot)) != '\0') {
        snprintf(key, sizeof key, "%s", found);
        must(&cluster->nodes[from],
             server_ask(&cluster->nodes[from], "MIGRATE 127.0.0.1 %d %s 0 5000", cluster->nodes[to].port, key));
    }
}

void cluster_migrate_end(const struct cluster *cluster, unsigned slot, unsigned to) {
    must(&cluster->nodes[to], server_ask(&cluster->nodes[to], "CLUSTER SETSLOT %u NODE %s", slot, cluster->ids[to]));
    for (unsigned i = 0; i < PRIMARIES; i++)
        if (i != to && cluster->nodes[i].pid != 0)
            must(&cluster->nodes[i],
                 server_ask(&cluster->nodes[i], "CLUSTER SETSLOT %u NODE %s", slot, cluster->ids[to]));
}
