/* SPDX-License-Identifier: MIT
 * A primary, two replicas and three sentinels that watch over them as the service "main". */
#include "sentinels.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MS STEADY_MILLISECOND
#define USER "--user app on '>sesame' '~*' -@all +evalsha '+script|load' +get +set +del +time +role "

/* A sentinel that reports failures sooner makes the test shorter. On a busy machine it may be wrong, and switch once
 * more than the test expects. */
static const char watching[] = "sentinel down-after-milliseconds main 1000\n"
                               "sentinel failover-timeout main 1000\n"
                               "sentinel parallel-syncs main 2\n"
                               "user probe on >speak ~* -@all +sentinel|get-master-addr-by-name\n";

static void exec_sentinel(const char *dir, const char *conf) {
    char log[96];
    const char *program = getenv("REDIS_SERVER");
    if (program == NULL) program = "redis-server";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(log, sizeof log, "%s/log", dir);
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execlp(program, program, conf, "--sentinel", (char *)NULL);
    _exit(127);
}

/* A sentinel rewrites its file, and does not start without one. */
void sentinel_start(struct server *sentinel, int port, const char *conf) {
    char path[96];
    memset(sentinel, 0, sizeof *sentinel);
    snprintf(sentinel->dir, sizeof sentinel->dir, "/tmp/steady-test-XXXXXX");
    assert_non_null(mkdtemp(sentinel->dir));
    sentinel->port = free_port();
    snprintf(path, sizeof path, "%s/conf", sentinel->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "port %d\nbind 127.0.0.1\ndir %s\nunixsocket %s/s\nsentinel monitor main 127.0.0.1 %d 2\n%s",
            sentinel->port, sentinel->dir, sentinel->dir, port, conf);
    fclose(file);
    sentinel_restart(sentinel);
}

void sentinel_restart(struct server *sentinel) {
    char path[96];
    const steady_us until = now_us() + 10 * STEADY_SECOND;
    snprintf(path, sizeof path, "%s/s", sentinel->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/conf", sentinel->dir);
    sentinel->pid = fork();
    assert_return_code(sentinel->pid, errno);
    if (sentinel->pid == 0) exec_sentinel(sentinel->dir, path);
    snprintf(path, sizeof path, "%s/s", sentinel->dir);
    while (access(path, F_OK) != 0 && now_us() < until)
        sleep_us(5 * MS);
}

int sentinel_port(const struct server *sentinel) {
    char answer[128];
    snprintf(answer, sizeof answer, "%s", server_ask(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME main"));
    const char *space = strchr(answer, ' ');
    return space != NULL ? atoi(space + 1) : 0;
}

struct server *fleet_node(struct fleet *fleet, int port) {
    for (int i = 0; i < FLEET_NODES; i++)
        if (fleet->nodes[i].port == port) return &fleet->nodes[i];
    fail_msg("no node has port %d", port);
    return NULL;
}

static bool is_settled(const struct fleet *fleet, const struct server *sentinel) {
    char text[8192];
    const struct server *primary = fleet_node((struct fleet *)fleet, sentinel_port(sentinel));
    if (strncmp(server_ask(sentinel, "SENTINEL CKQUORUM main"), "OK 3", 4) != 0) return false;
    snprintf(text, sizeof text, "%s", server_ask(sentinel, "SENTINEL MASTER main"));
    if (strstr(text, "flags master link") == NULL || strstr(text, "num-slaves 2") == NULL) return false;
    return server_stat(primary, "connected_slaves") > 0 &&
           strstr(server_ask(primary, "INFO replication"), "wait_bgsave") == NULL;
}

void fleet_settle(struct fleet *fleet) {
    const steady_us until = now_us() + 30 * STEADY_SECOND;
    for (int i = 0; i < SENTINELS; i++)
        while (!is_settled(fleet, &fleet->sentinels[i])) {
            if (now_us() > until)
                fail_msg("sentinel %d: %s", i, server_ask(&fleet->sentinels[i], "SENTINEL MASTER main"));
            sleep_us(20 * MS);
        }
}

void fleet_start(struct fleet *fleet) {
    char options[400];
    for (int i = 0; i < FLEET_NODES; i++) {
        size_t n = (size_t)snprintf(options, sizeof options, USER "--repl-diskless-sync-delay 0 --repl-timeout 3 ");
        if (i > 0) snprintf(options + n, sizeof options - n, "--replicaof 127.0.0.1 %d", fleet->nodes[0].port);
        server_start(&fleet->nodes[i], options);
    }
    size_t n = (size_t)snprintf(fleet->url, sizeof fleet->url, "redis+sentinel://" NODE_USER "@");
    for (int i = 0; i < SENTINELS; i++) {
        sentinel_start(&fleet->sentinels[i], fleet->nodes[0].port, watching);
        n += (size_t)snprintf(fleet->url + n, sizeof fleet->url - n, "%s127.0.0.1:%d", i > 0 ? "," : "",
                              fleet->sentinels[i].port);
    }
    snprintf(fleet->url + n, sizeof fleet->url - n, "/main?" SENTINEL_USER);
    fleet_settle(fleet);
}

void fleet_stop(struct fleet *fleet) {
    for (int i = 0; i < SENTINELS; i++)
        server_stop(&fleet->sentinels[i]);
    for (int i = 0; i < FLEET_NODES; i++)
        server_stop(&fleet->nodes[i]);
}
