/* SPDX-License-Identifier: MIT
 * Reads the rules again. They are read aside, and replace the old ones as a whole. */
#include "reload.h"

#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "worker.h"

enum { WATCH_MS = 1000 };

static struct rules *reload_read(const struct server *server, struct rules_includes *includes,
                                 struct rules_error *error) {
    const struct server_options *options = &server->options;
    return options->config != NULL ? rules_read_noting(options->config, includes, error)
                                   : rules_of_limit(options->limit, options->store, error);
}

static void reload_log_warnings(const struct rules *rules) {
    for (size_t i = 0; i < rules->n_warnings; i++)
        server_log("warning: %s", rules->warnings[i]);
}

static uint64_t reload_mix(uint64_t stamp, uint64_t part) {
    return (stamp ^ part) * UINT64_C(0x9e3779b97f4a7c15) + (stamp >> 29);
}

/* What tells one content of a file from another. */
static uint64_t reload_stamp_file(uint64_t stamp, const char *path) {
    struct stat found;
    memset(&found, 0, sizeof found);
    stat(path, &found); /* all zero if it is not there */
    const uint64_t parts[] = {(uint64_t)found.st_dev, (uint64_t)found.st_ino, (uint64_t)found.st_size,
                              (uint64_t)found.st_mtim.tv_sec, (uint64_t)found.st_mtim.tv_nsec};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        stamp = reload_mix(stamp, parts[i]);
    return stamp;
}

/* The names count, too: the included files are read in their order. */
static uint64_t reload_stamp(const struct server *server) {
    if (server->options.config == NULL) return 0;
    uint64_t stamp = reload_stamp_file(1, server->options.config);
    for (size_t i = 0; i < server->includes.n; i++) {
        glob_t found;
        if (glob(server->includes.patterns[i], 0, NULL, &found) != 0) continue;
        for (size_t k = 0; k < found.gl_pathc; k++) {
            for (const char *name = found.gl_pathv[k]; *name != '\0'; name++)
                stamp = reload_mix(stamp, (unsigned char)*name);
            stamp = reload_stamp_file(stamp, found.gl_pathv[k]);
        }
        globfree(&found);
    }
    return stamp;
}

const char *reload_first(struct server *server) {
    struct rules *rules = reload_read(server, &server->includes, &server->load_error);
    if (rules == NULL) return server->load_error.text;
    reload_log_warnings(rules);
    server->stamp = reload_stamp(server);
    server->rules = shared_rules_new(rules);
    server->rules_version = 1;
    server->loaded_at = time(NULL);
    return server->rules != NULL ? NULL : "out of memory";
}

static void reload_failed(struct server *server) {
    server->loads_failed++;
    server_log("error: the rules were not reloaded, the old ones stay: %s", server->load_error.text);
}

const char *reload_now(struct server *server) {
    struct rules_includes includes = {.patterns = NULL};
    const uint64_t stamp = reload_stamp(server);
    struct rules *rules = reload_read(server, &includes, &server->load_error);
    const bool changed = reload_stamp(server) != stamp; /* while it was read: it is read again */
    rules_includes_free(&server->includes);
    server->includes = includes; /* also after an error, which may be in a file that is new */
    server->stamp = changed ? 0 : reload_stamp(server);
    if (rules != NULL && server->options.store == NULL && strcmp(rules->store, server->rules->rules->store) != 0) {
        rules_free(rules);
        rules = NULL;
        snprintf(server->load_error.text, sizeof server->load_error.text,
                 "the store has changed; a reload cannot change it: restart the daemon");
    }
    if (rules == NULL) {
        reload_failed(server);
        return server->load_error.text;
    }
    struct shared_rules *next = shared_rules_new(rules), *before = server->rules;
    if (next == NULL) {
        snprintf(server->load_error.text, sizeof server->load_error.text, "out of memory");
        reload_failed(server);
        return server->load_error.text;
    }
    uv_rwlock_wrlock(&server->rules_lock);
    server->rules = next;
    server->rules_version++;
    uv_rwlock_wrunlock(&server->rules_lock);
    server->loaded_at = time(NULL);
    server->load_error.text[0] = '\0';
    reload_log_warnings(rules);
    server_log("the rules were reloaded: %zu limits", rules->n_limits);
    shared_rules_leave(before);
    for (int i = 0; i < server->n_workers; i++)
        worker_wake(&server->workers[i]);
    return NULL;
}

/* A file that is being written is not read: first it must stay the same from one look to the next. */
static void reload_look(uv_timer_t *timer) {
    struct server *server = timer->data;
    const uint64_t stamp = reload_stamp(server);
    const bool stays = stamp == server->last_stamp;
    server->last_stamp = stamp;
    if (stamp != server->stamp && stays) reload_now(server);
}

void reload_watch(struct server *server) {
    if (server->options.config == NULL) return;
    uv_timer_init(&server->workers[0].loop, &server->watch);
    server->watch.data = server;
    uv_timer_start(&server->watch, reload_look, WATCH_MS, WATCH_MS);
}

void reload_stop(struct server *server) {
    if (server->options.config != NULL) uv_close((uv_handle_t *)&server->watch, NULL);
}
