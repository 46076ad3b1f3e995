/* SPDX-License-Identifier: MIT
 * Runs seeds: the asynchronous Redis store, over a simulated network, loop, clock and server, in one thread. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../alloc.h"
#include "client.h"
#include "faults.h"
#include "keys.h"
#include "leases.h"
#include "sim_cluster.h"

#if defined(__SANITIZE_ADDRESS__)
#define SEEDS 1500
#else
#define SEEDS 6000
#endif

static uint64_t run_seed(uint64_t seed, bool verbose) {
    const int64_t blocks = alloc_blocks();
    world_begin(seed, verbose);
    sim_net_begin();
    nodes_begin();
    sim_cluster_begin(one_in(4));
    journal_begin();
    faults_begin();
    clients_begin();
    world_run_until(world.calm_at);
    world_run_until(clients_watched_until());
    clients_end();
    world_run_out();
    leases_end();
    journal_end();
    if (alloc_blocks() != blocks) broken("%" PRId64 " blocks of memory are left", alloc_blocks() - blocks);
    return world.hash;
}

/* A seed must give the same history each time, or a failure could not be reproduced. */
static void check_replay(uint64_t seed) {
    const uint64_t once = run_seed(seed, false);
    if (run_seed(seed, false) != once) broken("the same seed has another history the second time");
}

static int run_seeds(uint64_t first, uint64_t count) {
    const struct journal_totals *t = &journal_totals;
    const struct leases_totals *l = &leases_totals;
    printf("1..2\n");
    for (uint64_t seed = first; seed < first + count; seed++)
        run_seed(seed, false);
    printf("ok 1 - %" PRIu64 " seeds from %" PRIu64 ", %" PRId64 " decisions: %" PRId64 " allowed, %" PRId64
           " denied, %" PRId64 " unknown, %" PRId64 " cancelled, %" PRId64 " not made; %" PRId64
           " on several keys (%" PRId64 " in rounds: %" PRId64 " parts given back, %" PRId64 " lost), %" PRId64
           " settled; %" PRId64 " denied from memory (%" PRId64 " on several keys) in %" PRId64 " seeds (%" PRId64
           " looks); %" PRId64 " leases in %" PRId64 " seeds: %" PRId64 " allowed from them, %" PRId64
           " denied, %" PRId64 " settled, %" PRId64 " settles lost; %" PRId64 " windows (%" PRId64 " need the age)\n",
           count, first, t->asked, t->allowed, t->denied, t->unknown, t->cancelled, t->other, t->several, t->in_rounds,
           t->given_back, t->not_given_back, t->settled, denials_totals.from_memory, denials_totals.on_several,
           denials_totals.seeds, denials_totals.looks, l->takes, l->seeds, l->spent, l->denied, l->settles,
           l->settles_lost, l->windows, l->windows_that_need_the_age);
    for (uint64_t i = 0; i < 20; i++)
        check_replay(first + i);
    printf("ok 2 - the same seed has the same history\n");
    return 0;
}

static int usage(void) {
    fputs("usage: sim [--seeds COUNT] [--from SEED] | --seed SEED [--verbose]\n", stderr);
    return 2;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"seeds", required_argument, NULL, 'n'},
                                            {"from", required_argument, NULL, 'f'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    uint64_t from = 1, count = SEEDS;
    bool verbose = false, one = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n': count = strtoull(optarg, NULL, 10); break;
        case 's': one = true; /* fall through */
        case 'f': from = strtoull(optarg, NULL, 10); break;
        case 'v': verbose = true; break;
        default: return usage();
        }
    }
    keys_open();
    if (one)
        printf("seed %" PRIu64 ": %016" PRIx64 "\n", from, run_seed(from, verbose));
    else
        run_seeds(from, count);
    keys_close();
    return 0;
}
