/* SPDX-License-Identifier: MIT
 *
 * Steady: rate limiting for programs that run an event loop. This header is the manual of the C library. It is for
 * developers who call the library.
 *
 * A throttler puts drops into leaky buckets, one bucket for each key. A bucket holds up to max_capacity drops. The
 * drops leak out evenly: `drops` of them in each drop_recharge. steady_consume(key, n) puts n drops in if they all fit.
 * The answer says whether they fit, the level, when the next drop leaks, and how long to wait.
 *
 * The buckets live in a store. In Redis or Valkey, all processes of a fleet share them. In an embedded store they
 * belong to this process, or the processes of one host share them in a file.
 *
 *     #include <steady.h>
 *     #include <stdio.h>
 *     #include <threads.h>
 *
 *     int main(void) {
 *         steady_store *store = NULL;
 *         steady_throttler *throttler = NULL;
 *         steady_limit limit = {.max_capacity = 10, .drop_recharge = 5 * STEADY_SECOND};
 *         steady_how how = {.max_wait = STEADY_SECOND / 2};
 *         steady_call call = {.key = "user:42", .key_len = 7, .amount = 1, .how = &how};
 *         steady_result r = {0};
 *
 *         if (steady_store_open(&store, "memory:", NULL, NULL) == 0 &&
 *             steady_throttler_new(&throttler, store, &limit, NULL, NULL) == 0 &&
 *             steady_decide_sync(throttler, &call, &r) == 0) {
 *             if (r.success) thrd_sleep(&(struct timespec){.tv_nsec = r.must_wait * 1000}, NULL);
 *             puts(r.success ? "go ahead" : "not now");
 *         }
 *         steady_throttler_free(&throttler);
 *         steady_store_close(&store);
 *     }
 *
 * Build with `cc demo.c $(pkg-config --cflags --libs steady)`.
 *
 * UNITS. Each time is a steady_us, in whole microseconds. Each level and amount is a whole number of drops. Nothing is
 * floating point, and nothing depends on the locale.
 *
 * TWO KINDS OF CALL
 *   - The asynchronous calls (steady_consume, steady_peek, steady_reset) take a callback and never block. They need a
 *     store that was opened with an event loop.
 *   - Each has a blocking twin, ..._sync. On an embedded store the twin is a plain function call. It allocates only for
 *     several buckets, and for options. On Redis it uses a connection of its own, and returns by the deadline (the
 *     option `timeout`).
 *
 * CALLBACKS
 *   - If an asynchronous call returns an error, its callback never runs.
 *   - If it returns 0, its callback runs exactly once: with the answer, with an error by the deadline, or with
 *     STEADY_CANCELLED if the store is closed first. Exception: after steady_cancel it does not run.
 *   - A callback never runs inside the call that started it, and never after steady_store_close has returned.
 *   - Inside a callback you may make any call of this header, steady_store_close included.
 *   - A callback must return. Do not leave it by longjmp or by a C++ exception. A callback that blocks, blocks the
 * loop.
 *
 * DENIED IS NOT AN ERROR. If `error` is 0, the store gave a verdict, and `success` is that verdict. If `error` is not
 * 0, the store gave no verdict, and the policy (the option on_error) may have answered. `source` says which.
 *
 * THREADS. A store and its throttlers belong to the thread that opened the store. This must be the thread of its loop.
 * An asynchronous or blocking call from another thread returns STEADY_WRONG_THREAD, and charges nothing. Exceptions:
 *   - Any thread may call steady_store_stats, steady_store_last_error and steady_store_state, until the store is
 * closed.
 *   - On an embedded store and on a pool (steady_pool_open), any thread may make the ..._sync calls, and make and free
 *     throttlers.
 *   - steady_poller_wake may be called from any thread.
 *   - Calls without a store, a throttler or a poller (limits, texts) may be made from any thread.
 *
 * THE PROCESS. The library prints nothing and never exits. It changes no signal handler and no signal mask, and never
 * raises SIGPIPE. Exception: for an attached store hiredis writes, and hiredis 0.14 uses write(2); ignore SIGPIPE
 * there. The library starts a short-lived thread to look up a host name, and no other thread. This thread may outlive
 * the last store, so libsteady.so stays loaded after dlclose. Link a plug-in that contains libsteady.a with
 * -Wl,-z,nodelete.
 *
 * FORK
 *   - The child may go on with `file:` stores and with pools.
 *   - Another Redis store stays with the parent. In the child its calls return STEADY_UNAVAILABLE.
 *     Open a new store there. Closing the old one in the child does not disturb the parent.
 *   - If the child keeps using its copy of the loop, close the store first, before event_reinit, uv_loop_fork or
 *     ev_loop_fork. Otherwise the loop spins when the server closes the connection.
 *   - A little memory that the loop may still read is not freed in a child.
 *
 * FILES. The file of a `file:` store has mode 0600 and belongs to one user.
 *   - It is created if it does not exist. After a reboot it is created again, with the same size unless you set
 * another.
 *   - A file with anything wrong is refused (STEADY_BAD_FILE) and left as it is. No other file is touched.
 *   - Several processes may open it at once. A process that is killed or stopped while it creates the file delays no
 *     other process. If it is killed after a reboot, it may leave a file .steady-NUMBER there; delete that file.
 *   - A process that is killed or stopped in a decision delays no other process, and costs at most that decision.
 *   - Its space is allocated at open. A full disk, a quota or a limit (ulimit -f) is an error of steady_store_open.
 *   - Keep it on a local file system with O_TMPFILE or RENAME_NOREPLACE, such as ext4, XFS, Btrfs, tmpfs, overlayfs.
 *   - Times in it count from boot. A process in a time namespace with another boot time is refused, because the file
 *     would not limit there. Do not share the file with a container that has its own boot_id: each would replace it.
 *   - Do not truncate it while it is in use. The next decision that touches the missing part raises SIGBUS.
 *   - You may delete it. Processes that have it open go on with it. A process that opens the path next begins with
 *     empty buckets.
 *
 * STRUCTS. Zero-initialise each struct that you fill (`= {0}` in C, `= {}` in C++). A zero field means the default. For
 * options, NULL means all defaults. The `reserved` fields must be zero: a call refuses a struct in which they are not.
 * Within one SONAME no function is removed, no struct changes its size and no field moves. New fields are taken out of
 * `reserved`. docs/reference/compatibility.md has the whole rule. */
#ifndef STEADY_H
#define STEADY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header: year, month, and the number of the release in that month. Compare STEADY_VERSION_NUMBER:
 * it grows with each release. */
#define STEADY_VERSION "26.12.0"
#define STEADY_VERSION_MAJOR 26
#define STEADY_VERSION_MINOR 12
#define STEADY_VERSION_PATCH 0
#define STEADY_VERSION_NUMBER (STEADY_VERSION_MAJOR * 1000000 + STEADY_VERSION_MINOR * 1000 + STEADY_VERSION_PATCH)

#if defined(__GNUC__)
#define STEADY_API __attribute__((visibility("default")))
#else
#define STEADY_API
#endif

/* For the inline functions of the loop headers, which are C and C++. */
#ifdef __cplusplus
#define STEADY_CAST(type, value) (static_cast<type>(value))
#define STEADY_NULL nullptr
#else
#define STEADY_CAST(type, value) ((type)(value))
#define STEADY_NULL NULL
#endif

/* The version of the linked library. It may be newer than STEADY_VERSION. Static text. */
STEADY_API const char *steady_version(void);

/* ---- Errors -------------------------------------------------------------------------------------------------- */

/* name, value, word, sentence. Values and words never change. New errors may be added at the end: treat an unknown
 * negative number as an error without a verdict. */
#define STEADY_ERRORS(X)                                                                                               \
    X(UNAVAILABLE, -1, "unavailable", "the store gave no verdict; nothing was charged")                                \
    X(UNKNOWN, -2, "unknown", "the answer was lost; the drops may have been charged")                                  \
    X(OVERLOADED, -3, "overloaded", "this program is too busy or sends too much; nothing was charged")                 \
    X(CANCELLED, -4, "cancelled", "the store was closed before it answered; the drops may have been charged")          \
    X(NOT_A_BUCKET, -5, "not_a_bucket", "the key holds something that is not a bucket; it was not changed")            \
    X(REFUSED, -6, "refused", "the server refused these credentials or this command; nothing was charged")             \
    X(BAD_ARGUMENT, -7, "bad_argument", "an argument is not valid; nothing was charged")                               \
    X(NO_MEMORY, -8, "no_memory", "out of memory; nothing was charged")                                                \
    X(CLOSED, -9, "closed", "the store is closed; nothing was charged")                                                \
    X(UNSUPPORTED, -10, "unsupported", "this store or this build does not support it; nothing was charged")            \
    X(BAD_FILE, -11, "bad_file", "the file cannot be used as a store; it was not changed")                             \
    X(SYSTEM, -12, "system", "a call of the operating system failed; nothing was charged")                             \
    X(SERVER, -13, "server", "the server answered with an error; nothing was charged")                                 \
    X(WRONG_THREAD, -14, "wrong_thread", "the store belongs to another thread; nothing was charged")                   \
    X(NO_LOOP, -15, "no_loop", "the store was opened without an event loop; nothing was charged")                      \
    X(NOT_IN_FLIGHT, -16, "not_in_flight", "no such decision is in flight: it has ended, or was cancelled")

enum steady_error {
    STEADY_OK = 0,
#define STEADY_ERROR_ENUM(name, value, word, sentence) STEADY_##name = value,
    STEADY_ERRORS(STEADY_ERROR_ENUM)
#undef STEADY_ERROR_ENUM
};

/* The word of an error, such as "unavailable". "ok" for 0, "?" for a number that is no error of ours. Static text. */
STEADY_API const char *steady_error_name(int error);

/* The sentence of an error. Static text. */
STEADY_API const char *steady_error_text(int error);

/* The reason of a failure: the field, the value and the range, or the text of the system. A call that takes a
 * steady_message fills it if the call fails, and leaves it alone otherwise. Pass NULL if you do not need it. The text
 * never holds a password. */
typedef struct steady_message {
    char text[256];
    uint64_t reserved[4];
} steady_message;

/* ---- Limits -------------------------------------------------------------------------------------------------- */

typedef int64_t steady_us; /* microseconds */

#define STEADY_MILLISECOND INT64_C(1000)
#define STEADY_SECOND INT64_C(1000000)

/* The ranges of a limit. steady_throttler_new refuses a limit outside them.
 *
 *     max_capacity                  1 to 2^31-1 drops
 *     drop_recharge                 1 us or more
 *     drops                         0 to 1000000
 *     block_duration                0 to 2^52-1 us; in an embedded store a block ends at most 2^50 us (35 years) after
 *                                   boot
 *     max_capacity * drop_recharge  below 2^53 us */
typedef struct steady_limit {
    int64_t max_capacity;     /* drops that a bucket can hold */
    steady_us drop_recharge;  /* the time in which `drops` drops leak */
    int64_t drops;            /* 0: 1. Example: 3 with a drop_recharge of one second is exactly 3/s */
    steady_us block_duration; /* how long a denied consume blocks the key; 0: it does not */
    const char *name; /* in results, and in the stored key if the throttler has several limits; 1 to 64 printable
                         ASCII bytes without spaces, %, { and }. NULL: the period, such as "1m". Copied */
    uint64_t reserved[3];
} steady_limit;

/* Checks a limit. Returns 0, or STEADY_BAD_ARGUMENT, and *why names the field, the value and the range. */
STEADY_API int steady_limit_check(const steady_limit *limit, steady_message *why);

/* Reads a rate: a count, a slash and a period.
 *
 *     100/min   3/s   1000/1h30m   5/250ms   10/2weeks   100/min burst 20
 *
 * A period is a duration as below, or a word: microsecond, millisecond, second (sec), minute (min), hour (hr), day,
 * week; each may have an s at its end. The count becomes `drops`, and the period drop_recharge. max_capacity is the
 * burst if the rate names one, otherwise the count.
 *
 * Returns 0 or STEADY_BAD_ARGUMENT. *limit changes only if the call returns 0, and then only in these three fields. */
STEADY_API int steady_limit_parse(steady_limit *limit, const char *rate, steady_message *why);

/* Reads a duration: numbers with the units us ms s m h d, the largest first, such as "5s", "250ms", "1h30m", "0.5s".
 * Returns 0 or STEADY_BAD_ARGUMENT. *duration changes only if the call returns 0. */
STEADY_API int steady_duration_parse(steady_us *duration, const char *text, steady_message *why);

/* Writes `text` to `out` so that a message can quote it. Use it for arguments and settings of your program that may
 * hold a store URL by mistake.
 *   - A byte that is not printable ASCII becomes '?'.
 *   - The user, the password and the values of passwords of what may be a store URL become "***".
 *   - The text is cut to `size` bytes, with "..." at its end. */
STEADY_API void steady_quote(char *out, size_t size, const char *text);

/* ---- Event loops --------------------------------------------------------------------------------------------- */

/* What Steady needs of an event loop: readiness of a descriptor, and one-shot timers. Take a loop from <steady/uv.h>,
 * <steady/event.h> or <steady/ev.h>, take the built-in steady_poller below, or write one:
 *   - Steady makes all calls on the thread of the loop.
 *   - Call `ready` and `fired` from the loop only, not from inside io_want or timer_start.
 *   - io_free and timer_free may be called inside the callback of what they free. After them, do not call it again. */
enum { STEADY_READABLE = 1, STEADY_WRITABLE = 2 };

typedef struct steady_loop_ops {
    const char *name;
    /* Watches fd, for no event yet. NULL on failure. Report an error or a hang-up on fd as both events. */
    void *(*io_new)(void *loop, int fd, void (*ready)(void *arg, int events), void *arg);
    /* From now on watches these events, and reports them in each turn in which they hold. 0 or -1. */
    int (*io_want)(void *io, int events);
    void (*io_free)(void *io); /* called before fd is closed */
    void *(*timer_new)(void *loop, void (*fired)(void *arg), void *arg);
    /* Fires once. If the timer is running, it starts anew. 0 or -1. After -1 Steady starts it again when another timer
     * fires, or with the next decision. */
    int (*timer_start)(void *timer, steady_us delay);
    void (*timer_stop)(void *timer);
    void (*timer_free)(void *timer);
    steady_us (*now)(void *loop); /* microseconds of a clock that never steps; NULL: CLOCK_MONOTONIC */
    void (*reserved[4])(void);    /* must be NULL */
} steady_loop_ops;

typedef struct steady_loop {
    const steady_loop_ops *ops; /* must outlive the store */
    void *loop;                 /* passed to io_new, timer_new and now */
    void *reserved[2];          /* must be NULL */
} steady_loop;

/* The built-in loop, on poll(2), for a program without a loop. It belongs to one thread. */
typedef struct steady_poller steady_poller;

/* Makes a poller. Returns 0, STEADY_NO_MEMORY or STEADY_SYSTEM. */
STEADY_API int steady_poller_new(steady_poller **poller);

/* The loop of a poller, for the option `loop`. It is valid until steady_poller_free. */
STEADY_API steady_loop steady_poller_loop(steady_poller *poller);

/* Waits for at most max_wait us (negative: without end), and runs the callbacks that are due. Returns how many ran, or
 * STEADY_SYSTEM. Returns 0 if none ran: the time is over, a signal handler ran (EINTR), or steady_poller_wake was
 * called. */
STEADY_API int steady_poller_run(steady_poller *poller, steady_us max_wait);

/* Ends the wait of the running steady_poller_run; if none is running, of the next one. That call runs what is due and
 * returns. Several wakes before that count as one. May be called from any thread and from a signal handler. Do not free
 * the poller meanwhile.
 *
 * A signal handler that only sets a flag is not enough: a signal just before the wait does not end the wait. */
STEADY_API void steady_poller_wake(steady_poller *poller);

/* Frees a poller, and sets *poller to NULL. Close the stores that use it first. NULL and a pointer to NULL are fine. */
STEADY_API void steady_poller_free(steady_poller **poller);

/* ---- Stores -------------------------------------------------------------------------------------------------- */

/* A place for buckets. */
typedef struct steady_store steady_store;

enum steady_log_level { STEADY_LOG_INFO = 0, STEADY_LOG_WARNING = 1 };

/* What decides on the server. Both decide the same, on the same keys. */
enum steady_engine {
    STEADY_ENGINE_AUTO = 0,   /* the module, if the server has it and the user may call it; otherwise the scripts. The
                                 first decision of each connection finds out */
    STEADY_ENGINE_SCRIPT = 1, /* the Lua scripts; every server can run them */
    STEADY_ENGINE_MODULE = 2  /* the commands of steady.so; without them decisions end as STEADY_SERVER or
                                 STEADY_REFUSED */
};

/* TLS, for rediss:// and valkeys://; other URLs refuse it. Each field is also an option of the URL (in brackets). The
 * option of the URL wins. Files are PEM, and are read once, when the store is opened. Strings are copied. */
typedef struct steady_tls_options {
    const char *ca_file;       /* [tls_ca] trust only these CAs; NULL: the CAs of the system */
    const char *cert_file;     /* [tls_cert] our certificate, and those between it and its CA; NULL: none */
    const char *key_file;      /* [tls_key] its key, without a passphrase; NULL: the key is in cert_file */
    const char *server_name;   /* [tls_server_name] the name in the server's certificate; NULL: the host of the URL */
    bool insecure_skip_verify; /* [tls_insecure_skip_verify=yes] accept any certificate. A host that can intercept the
                                  connection can then act as the server, and read the password */
    uint64_t reserved[4];
} steady_tls_options;

typedef struct steady_store_options {
    const steady_loop *loop; /* for the asynchronous calls; copied. NULL: only the ..._sync calls */

    /* Redis: the time from a call to its answer, all included; 1 us to 24 h. 0: 100 ms. */
    steady_us timeout;

    /* The most decisions in flight; at most 2^24. 0: 65536. One more is STEADY_OVERLOADED. It bounds the asynchronous
     * calls of embedded stores, too. Steady does not send what the server cannot answer in time. Exception: an attached
     * store sends all; set max_in_flight there to what the server answers within a timeout. */
    uint32_t max_in_flight;

    /* Embedded: the number of live buckets that fit; at most 2^30, of 49 bytes each. 0: 2^20 (memory:), 2^16 (file:).
     * It is rounded up to a power of two, and to at least 64. An existing file keeps its number; another number is
     * STEADY_BAD_FILE. */
    uint32_t buckets;

    /* Called when the state changes, not for each decision: connection lost; server loading or busy; server refuses
     * (out of memory, no permission); recovered. `text` is valid during the call. It holds no password and no key.
     * NULL: no log. */
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;

    enum steady_engine engine;     /* Redis only */
    const steady_tls_options *tls; /* copied; NULL: the options of the URL, and defaults */

    /* Redis: the time for an address to accept a connection, again for its TLS, and again for its handshake; 1 us to
     * 24 h. 0: four times `timeout`, and at least 250 ms. [connect_timeout=500ms] of the URL wins. */
    steady_us connect_timeout;

    /* Redis: the name that CLIENT LIST shows; 1 to 64 printable ASCII bytes without spaces. Copied. NULL: CLIENT
     * SETNAME is not sent. If the server refuses it, the store goes on without a name, and the log says so once for
     * each connection. [client_name=api] of the URL wins. */
    const char *client_name;

    /* memory: the clock of the buckets, in us, in place of CLOCK_BOOTTIME: for tests, and to replay recorded calls.
     * file: and servers refuse it, because other processes use their buckets, too. NULL: CLOCK_BOOTTIME.
     *   - It may count from any moment. Only the time since the opening of the store matters, up to 2^49 us (17 years)
     *     before and after it. A time beyond that counts as the last one within, and a block ends there.
     *   - If it goes back, the clock of the store stepped back (`clock_steps`), and buckets move back with it. A bucket
     *     that had emptied may then count again.
     *   - The store reads it when it is opened, and in each call at least once, on the thread of the call. If several
     *     threads make calls, it must be safe to call on several threads at once.
     *   - It must not call the store. It must stay valid until the store is closed and all calls have returned.
     *   - Times in results are times of this clock. Steady does not sleep for them: wait on this clock, or set it.
     *     Callbacks come in the next turn of the loop, whatever the clock says. */
    steady_us (*clock)(void *data);
    void *clock_data;

    /* Redis: for how long this process may deny a call by what it remembers, counted from an earlier request; at most
     * 60 s. 0: 1 s. Set deny_memory_off to ask the server for each decision. [deny_memory=1s] or [deny_memory=0] of the
     * URL wins.
     *   - It answers a consume if the call is certain to be denied: the drops of others only raise the level. Then
     *     `source` is STEADY_FROM_MEMORY, and no request is sent. Of several buckets, one that is full is enough: the
     *     answer is about this one, and the others have answered false.
     *   - All stores and threads of a process share one memory. It has room for 8,192 keys that are over their limit.
     *   - Within this time it may deny falsely if another process gives drops back or resets the key, if the server
     *     loses the bucket, or if its clock steps. A give-back or a reset of this process counts at once, unless its
     *     store has no memory.
     *   - A limit with a block is denied from memory only while it is blocked; then the server has no block to start.
     *     Calls with a max_wait or at_least, and stores on a client of yours, ask the server each time. */
    steady_us deny_memory;
    bool deny_memory_off;

    /* Redis: leases, for hot keys; 1 ms to 60 s, such as 100 ms. 0: none. [lease_age=100ms] of the URL wins.
     *   - A call on a key with many decisions takes more drops than its own: as many as the store used in the last
     *     lease_age, at most 1/16 of the capacity. They are a lease.
     *   - The store spends it without requests for lease_age, counted from the sending. Then `source` is
     *     STEADY_FROM_LEASE, and the level is that after the call that took the lease.
     *   - The drops allowed in any time W are at most max_capacity + (W + lease_age) * drops / drop_recharge, for any
     *     number of processes.
     *   - If a lease gets less than it asked for, the bucket is full. Then the store denies until what it asked for has
     *     leaked, at the latest until lease_age after the sending.
     *   - What is left is given back after lease_age, after a quarter of it without a use, when the limit changes, and
     *     when the store is closed. A store that makes only ..._sync calls gives it back at its next request.
     *   - Calls with a block, a max_wait, an at_least, a kind, a reservation or several buckets use no lease. If the
     *     server takes lease_age / 2 to answer, there is none. */
    steady_us lease_age;
    uint64_t reserved[3];
} steady_store_options;

/* Opens a store. url is one of:
 *
 *     memory:                              buckets of this process. NULL is the same
 *     file:/path                           buckets in a mapped file, shared by the processes of one user on this host
 *     redis://[user:pass@]host[:port][/db] a Redis (7.0 or newer) or Valkey (7.2 or newer) server, or a node of a
 *                                          cluster, which is detected; valkey:// is the same
 *     rediss://...                         the same over TLS; valkeys:// is the same
 *     unix:/path[?db=N]                    the same over a Unix socket; with credentials unix://user:pass@/path
 *     redis+sentinel://[user:pass@]host[:port][,host[:port]...]/service[/db]
 *                                          the primary that the sentinels name (port 26379). user:pass is for the
 *                                          servers; the options sentinel_username and sentinel_password are for the
 *                                          sentinels. rediss+sentinel:// is the same over TLS, for both
 *
 * Percent-encode characters such as '@', '/' and ':' in user and pass. Options follow as ?option=value&option=value;
 * docs/reference/url.md lists them. With peek=replica, steady_peek asks a replica while there is one. Its answer may be
 * late by the replication, or by more if the replica has lost its primary.
 *
 * In a cluster a decision goes to the node of its key. If a node is down, only its own keys are unavailable. See
 * docs/how-to/cluster-sentinels-tls.md.
 *
 * Opening a Redis store does not wait for the server. The store connects in the background, and reconnects by itself.
 *
 * Returns 0 and a store in *store. Otherwise *store is NULL, and the call returns STEADY_BAD_ARGUMENT (the URL or an
 * option), STEADY_UNSUPPORTED (TLS without OpenSSL; memory: and file: in a build for 32 bits), STEADY_BAD_FILE,
 * STEADY_SYSTEM or STEADY_NO_MEMORY. Close the store with steady_store_close. */
STEADY_API int steady_store_open(steady_store **store, const char *url, const steady_store_options *options,
                                 steady_message *why);

/* Opens a store for blocking calls from any thread, such as those of a pool of workers. url and options are those of
 * steady_store_open. `loop` must be NULL: a pool has only ..._sync calls.
 *
 * On a Redis server the threads share `connections` connections; at most 64. 0: 1. In a cluster that is the number for
 * each node. They are made when they are needed. max_in_flight is for each of them. memory: and file: give an embedded
 * store.
 *   - The pool has no thread of its own. One of the threads that wait serves the connection for all of them.
 *   - A call returns by its deadline, as on another store. If the thread that serves is kept from running, the calls of
 *     its connection return later by that time.
 *   - A thread must not be cancelled (pthread_cancel) in a call.
 *   - The log callback runs on a thread that is in a call. With several connections it may run on two threads at once.
 *     While it runs, the calls of its connection wait: it must not wait for a thread that is in a call. It may make any
 *     call, also on this pool.
 *   - steady_store_close may be called while other threads are in calls. It ends these as STEADY_CANCELLED, or as
 *     STEADY_CLOSED if they were not sent. One thread may close, once.
 *   - A throttler may be freed when no thread is about to use it. Calls in progress hold it; exception: with memory:
 * and file:, wait for them.
 *   - After fork the child may go on, whatever the threads of the parent did. It counts from zero, connects with its
 *     first call, and reads the files of TLS again. If that fails, its calls end as STEADY_UNAVAILABLE. It keeps one
 *     descriptor and the memory of each connection of the parent.
 *   - steady_store_state is STEADY_READY if a connection is. The last error is that of the call that failed last.
 *
 * Returns 0 and a store in *store. Otherwise *store is NULL, and the errors are those of steady_store_open. */
STEADY_API int steady_pool_open(steady_store **store, const char *url, uint32_t connections,
                                const steady_store_options *options, steady_message *why);

/* <steady/hiredis.h> makes a store on a hiredis context of yours, and <steady/client.h> on any other client. */

/* Closes a store, and sets *store to NULL. Decisions in flight end as STEADY_CANCELLED inside this call; no callback
 * runs after it. Throttlers of the store stay valid until you free them; their calls return STEADY_CLOSED. NULL and a
 * pointer to NULL are fine. */
STEADY_API void steady_store_close(steady_store **store);

/* Counters of one handle since it was opened. */
typedef struct steady_stats {
    uint64_t decisions;    /* asked of the store: consume and peek */
    uint64_t allowed;      /* verdicts with success */
    uint64_t denied;       /* verdicts without success, blocked ones included */
    uint64_t blocked;      /* of the denied: the key was blocked, or is blocked from now on */
    uint64_t unavailable;  /* ended without a verdict, nothing charged: every error but STEADY_UNKNOWN and
                              STEADY_CANCELLED, errors that a call returned directly included */
    uint64_t unknown;      /* ended without a verdict, perhaps charged: STEADY_UNKNOWN and STEADY_CANCELLED */
    uint64_t overflowed;   /* embedded: decisions on an overflow bucket. If the neighbourhood of a new key is full, the
                              keys of limits with the same leak rate share one bucket */
    uint64_t clock_steps;  /* buckets that were ahead of the store's clock; INFO steady shows those of the module */
    uint64_t reconnects;   /* connections after the first */
    uint64_t script_loads; /* SCRIPT LOADs sent */
    uint64_t in_flight;    /* decisions that wait now */
    uint64_t timeouts;     /* decisions that ended at their deadline */
    uint64_t from_memory;  /* of the denied: denied by the memory of denials, without a request */
    uint64_t from_lease;   /* of the allowed and the denied: answered from a lease, without a request */
    uint64_t reserved[10];
} steady_stats;

/* Fills *stats. A NULL store has only zeros. May be called from any thread, on every store. The counters are read one
 * by one, so a decision that ends meanwhile may be in some of them only. */
STEADY_API void steady_store_stats(const steady_store *store, steady_stats *stats);

/* Copies the text of the last error into *last, for a log: what the server, the network or the system said, cut and
 * escaped. "" if there was no error yet, or if the store is NULL. The text holds no password and no key. It is yours.
 * May be called from any thread, on every store. */
STEADY_API void steady_store_last_error(const steady_store *store, steady_message *last);

/* Whether a store can make decisions. An embedded store is always ready. */
enum steady_state {
    STEADY_CONNECTING = 0, /* no connection yet, and no failed attempt; or a connection was lost just now */
    STEADY_READY = 1,      /* connected, and the server makes decisions. In a cluster: at least one node */
    STEADY_DOWN = 2        /* the last attempt failed, or the server makes no decisions (loading, busy); or the store is
                              NULL, closed, or of the parent of this process */
};

/* The state of a store, for a health check. It sends nothing and never blocks. May be called from any thread. A store
 * without a loop connects in its first blocking call, so it is STEADY_CONNECTING before. A store on a client of yours
 * is STEADY_CONNECTING until the first reply. */
STEADY_API enum steady_state steady_store_state(const steady_store *store);

/* ---- Throttlers ---------------------------------------------------------------------------------------------- */

/* A store, a key prefix, and one limit or several. */
typedef struct steady_throttler steady_throttler;

/* The answer if the store gives none: if a decision ends as unavailable, unknown, refused, server or overloaded. Other
 * errors are always reported. An error of a reset is always reported, too.
 *
 * The policy does not apply to errors returned directly by an asynchronous call, such as STEADY_OVERLOADED. No callback
 * runs; the caller decides. */
enum steady_policy {
    STEADY_REPORT = 0, /* the error */
    STEADY_DENY = 1,   /* denied, with a retry_after of STEADY_DENY_RETRY */
    STEADY_ALLOW = 2,  /* allowed. Exception: denied if the decision ends as overloaded, because a client can cause an
                          overload by asking for much */
    STEADY_LOCAL = 3   /* the verdict of an embedded bucket with 1/local_share of the limit, and at least one drop. Each
                          store has its own bucket */
};

typedef struct steady_throttler_options {
    const char *prefix; /* put before each key; NULL: none. Copied. Prefix and key have at most 1024 bytes together */
    enum steady_policy on_error;
    uint32_t local_share; /* STEADY_LOCAL: how many stores of all processes share the limit; 0: 1 */
    steady_us max_ahead;  /* a longer max_wait of a call counts as this one; 0: no bound. It bounds the queue */
    bool clamp;           /* an amount over the capacity counts as the capacity, so an empty bucket always allows it */
    uint64_t reserved[6];
} steady_throttler_options;

/* Makes a throttler, without I/O. The limit and the options are copied. Throttlers are cheap, and any number may share
 * a store and its keys. Returns 0. Otherwise *throttler is NULL, and the call returns STEADY_BAD_ARGUMENT,
 * STEADY_CLOSED, STEADY_NO_MEMORY or STEADY_UNSUPPORTED (STEADY_LOCAL in a build for 32 bits). Free the throttler with
 * steady_throttler_free. */
STEADY_API int steady_throttler_new(steady_throttler **throttler, steady_store *store, const steady_limit *limit,
                                    const steady_throttler_options *options, steady_message *why);

/* Makes a throttler with 1 to 64 limits: each key has a bucket for each of them. A call is allowed if all limits allow
 * it; otherwise none is charged. Their names must differ, so two limits of one period need names.
 *
 * With one limit a bucket has the key PREFIX KEY. With several it has PREFIX{KEY}NAME, in which the bytes %, { and } of
 * KEY are written %25, %7B and %7D. So in a cluster all buckets of a key lie in one slot. Adding a second limit
 * therefore begins new buckets: what is in the old one no longer counts.
 *
 * If keys come from users, give each throttler a prefix of its own. */
STEADY_API int steady_throttler_new_limits(steady_throttler **throttler, steady_store *store,
                                           const steady_limit *limits, size_t n_limits,
                                           const steady_throttler_options *options, steady_message *why);

/* Frees a throttler, and sets *throttler to NULL. Its decisions in flight still run their callbacks. NULL and a pointer
 * to NULL are fine. */
STEADY_API void steady_throttler_free(steady_throttler **throttler);

/* ---- Decisions ----------------------------------------------------------------------------------------------- */

enum steady_source {
    STEADY_FROM_NOWHERE = 0, /* no answer: see error */
    STEADY_FROM_STORE = 1,
    STEADY_FROM_POLICY = 2, /* STEADY_DENY or STEADY_ALLOW; error says why the store gave no verdict */
    STEADY_FROM_LOCAL = 3,  /* STEADY_LOCAL; the same */
    STEADY_FROM_MEMORY = 4, /* denied by what this process remembers of an earlier answer: see deny_memory */
    STEADY_FROM_LEASE = 5   /* allowed by drops that the store took before, or denied until it may take more: see
                               lease_age */
};

/* The retry_after of a denial by policy. A store reconnects within a second after its server returned. */
#define STEADY_DENY_RETRY STEADY_SECOND

/* The result for one bucket of a call. */
typedef struct steady_part_result {
    const char *name; /* of the limit; valid as long as its throttler, or its reservation */
    size_t part;      /* the index of the caller's steady_part; 0 for a call on one key */
    bool success;     /* the bucket has nothing against the call */
    bool answered;    /* false: another bucket denied the call, and this one was not asked or did not answer. Then
                         success is false, and the numbers are 0 */
    int64_t granted;  /* drops that the call put in; below 0: that it took out; 0 if the call was denied */
    int64_t level;    /* as in steady_result, for this bucket */
    steady_us until_next_drop;
    steady_us blocked_for;
    steady_us retry_after;
    int64_t charged;    /* steady_settle: drops that were put in, because the cost was higher */
    int64_t given_back; /* steady_settle: what was taken out, in 1/drops us of the limit in lowest terms */
    uint64_t reserved[4];
} steady_part_result;

/* A reservation: see "Reserve, then settle" below. */
typedef struct steady_reservation steady_reservation;

/* The numbers are valid if source is STEADY_FROM_STORE, _LOCAL, _MEMORY or _LEASE; otherwise they are 0. Exception:
 * retry_after of a denial by policy is STEADY_DENY_RETRY, or -1 if the amount is over the capacity.
 *
 * If the call has several buckets, level and the times are those of the bucket that `part` names: of a denied call the
 * one with the longest wait, of an allowed call the one into which the fewest further calls fit. */
typedef struct steady_result {
    int error; /* enum steady_error */
    enum steady_source source;
    steady_us must_wait;       /* wait this long before you go ahead, although success is true. 0 unless the call had a
                                  max_wait */
    bool success;              /* consume: the drops are in. peek: they would fit */
    bool atomic;               /* all buckets were decided at one moment */
    int64_t granted;           /* drops that the named bucket got */
    int64_t level;             /* drops in the bucket after the call, also if it was denied or the key is blocked */
    steady_us until_next_drop; /* until the next drop leaks, rounded up; a full recharge if the bucket is empty */
    steady_us blocked_for;     /* the rest of the block; 0: not blocked */
    steady_us retry_after;     /* 0 on success. Otherwise the exact wait after which the same call succeeds, if no other
                                  call comes first. -1: never, because the amount is over the capacity (STEADY_LOCAL:
                                  over the share; the store may allow it when it answers again) */
    size_t part;               /* the bucket that the answer names: an index into `parts` */
    size_t n_parts;            /* buckets of the call */
    const steady_part_result *parts; /* n_parts of them, valid while the callback runs. Of a ..._sync call: the memory
                                        of the caller, with at most how.parts_room of them. NULL: not asked for, or no
                                        answer of a store */
    steady_reservation *reservation; /* if the call asked for one and was allowed, otherwise NULL. It is yours: free it
                                        with steady_reservation_free */
    uint64_t reserved[8];
} steady_result;

/* `result` is valid while the callback runs. `data` is the pointer that was given to the call. */
typedef void (*steady_callback)(const steady_result *result, void *data);

/* The calls below make a decision on a key. A key has 1 to 1024 bytes, of any value. It is copied and never cut. An
 * amount is at most 2^31-1 drops, in either direction.
 *
 * An asynchronous call returns 0, or one of these errors; then nothing is charged and no callback runs:
 *
 *     STEADY_BAD_ARGUMENT   a NULL, the length of the key, or the amount
 *     STEADY_NO_LOOP        the store has no event loop
 *     STEADY_WRONG_THREAD   the store belongs to another thread
 *     STEADY_CLOSED         the store is closed
 *     STEADY_OVERLOADED     max_in_flight decisions are in flight
 *     STEADY_UNAVAILABLE    the store belongs to the parent of this process
 *     STEADY_SYSTEM         the loop starts no timer
 *     STEADY_NO_MEMORY
 *
 * A ..._sync call always fills *result. It returns 0 if there is an answer: result->success is the verdict. Otherwise
 * it returns result->error. STEADY_UNSUPPORTED: an attached store has no blocking calls. */

/* Puts `amount` drops in if they all fit and the key is not blocked.
 *   - A denied amount takes nothing. If the limit has a block_duration, it blocks the key, unless the amount could
 * never fit.
 *   - A negative amount takes drops out, down to zero. It always succeeds, also if the key is blocked.
 *   - 0 changes nothing, and succeeds if the key is not blocked.
 *   - In an embedded store with a full neighbourhood (`overflowed`), a negative amount succeeds and changes nothing. */
STEADY_API int steady_consume(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                              steady_callback callback, void *data);
STEADY_API int steady_consume_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                                   steady_result *result);

/* Looks, and changes nothing. */
STEADY_API int steady_peek(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback,
                           void *data);
STEADY_API int steady_peek_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result);

/* Forgets the bucket. The result is that of an empty bucket that is not blocked.
 *   - A key that holds something else is left as it is: STEADY_NOT_A_BUCKET.
 *   - In an embedded store with a full neighbourhood, the shared bucket does not change. */
STEADY_API int steady_reset(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback,
                            void *data);
STEADY_API int steady_reset_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result);

/* Puts `amount` drops in whatever the level, also if the key is blocked. Use it for a cost that has already arisen. The
 * level can pass the capacity, up to 2^31-1 drops, with level * drop_recharge below 2^53. result->granted says how many
 * drops went in. A negative amount is STEADY_BAD_ARGUMENT. */
STEADY_API int steady_charge(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                             steady_callback callback, void *data);
STEADY_API int steady_charge_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                                  steady_result *result);

/* ---- The long form, and cancelling --------------------------------------------------------------------------- */

enum steady_verb { STEADY_CONSUME = 0, STEADY_PEEK = 1, STEADY_RESET = 2 };

/* What a bucket does in a call. A bucket votes if its denial denies the call.
 *
 *     STEADY_TAKE    it votes, and the drops go in. A negative amount takes drops out, and does not vote
 *     STEADY_LOOK    it votes, and nothing goes in
 *     STEADY_CHARGE  it does not vote. The drops go in whatever its level, blocked or not
 *     STEADY_SHADOW  it does not vote. The drops go in if they fit. `success` of the bucket says what it would have
 *                    said: use it to try a limit without enforcing it */
enum steady_kind { STEADY_TAKE = 0, STEADY_LOOK = 1, STEADY_CHARGE = 2, STEADY_SHADOW = 3 };

/* Options of a call. */
typedef struct steady_how {
    /* Take drops that do not fit yet, if they will fit within this time; 0 to 2^52 us. Then the call succeeds at once,
     * and result->must_wait says how long to wait before you go ahead. That is a place in line: all processes are
     * served first come, first served, without another call. While such a queue stands, calls without a max_wait are
     * denied. A call with a max_wait starts no block. */
    steady_us max_wait;
    /* Take as much as fits now, if it is at least this; 1 to the amount. If it does not fit now, but fits within
     * max_wait, exactly this is taken. result->granted says how much. 0: all of the amount or nothing. Otherwise every
     * bucket must be of kind STEADY_TAKE, and all must have one amount. */
    int64_t at_least;
    bool reserve;              /* result->reservation holds what was taken, for steady_settle */
    steady_part_result *parts; /* a ..._sync call fills these, one for each bucket; NULL: none. Others ignore it */
    size_t parts_room;         /* how many of them there are; further buckets are left out */
    steady_message *why;       /* gets the reason of a STEADY_BAD_ARGUMENT; NULL: none */
    uint64_t reserved[6];
} steady_how;

/* A decision in one struct. steady_consume, steady_peek and steady_reset are its short forms. */
typedef struct steady_call {
    enum steady_verb verb;
    const void *key; /* copied */
    size_t key_len;
    int64_t amount;         /* STEADY_CONSUME, and STEADY_PEEK, which would otherwise look for 0 drops. If the throttler
                               has several limits, of each */
    const int64_t *amounts; /* one for each limit of the throttler, in their order; NULL: `amount` */
    enum steady_kind kind;  /* of all its buckets */
    const steady_how *how;  /* NULL: the defaults */
    uint64_t reserved[6];
} steady_call;

/* Makes a decision. Errors, callback and result are those of the short form. If the call returns 0 and id is not NULL,
 * *id names the decision for steady_cancel. */
STEADY_API int steady_decide(steady_throttler *throttler, const steady_call *call, steady_callback callback, void *data,
                             uint64_t *id);
STEADY_API int steady_decide_sync(steady_throttler *throttler, const steady_call *call, steady_result *result);

/* Cancels one decision, for example because the client hung up. After the call its callback does not run.
 *   - `throttler` may be any throttler of the same store.
 *   - Drops that were on their way may be charged. The decision is counted as unknown or unavailable; in an embedded
 *     store as the verdict that it had.
 *   - It may be called inside any callback, also while steady_store_close cancels the other decisions.
 *   - An id is a number, not a pointer: an old one is safe. Its decision has ended or was cancelled:
 *     STEADY_NOT_IN_FLIGHT, and nothing happens.
 * Returns 0, STEADY_NOT_IN_FLIGHT, STEADY_WRONG_THREAD, or STEADY_BAD_ARGUMENT (a NULL). */
STEADY_API int steady_cancel(steady_throttler *throttler, uint64_t id);

/* Moves the deadline of one decision up to now, for a caller that cannot wait as long as the store. Its callback runs
 * from the loop soon: with an answer that has arrived by then, or as after a timeout. The policy answers then, such as
 * STEADY_LOCAL with the verdict of the embedded share. An embedded store has its verdict already: 0, and nothing
 * happens. Arguments and other returns are those of steady_cancel. */
STEADY_API int steady_expire(steady_throttler *throttler, uint64_t id);

/* ---- Several keys in one decision ---------------------------------------------------------------------------- */

/* A key, with the throttler that has its limits. */
typedef struct steady_part {
    steady_throttler *throttler;
    const void *key; /* copied */
    size_t key_len;
    int64_t amount;
    const int64_t *amounts; /* one for each limit of the throttler, in their order; NULL: `amount` */
    enum steady_kind kind;
    uint64_t reserved[4];
} steady_part;

/* Decides on several keys: all or nothing. It is allowed if every bucket that votes allows it. If it is denied, nothing
 * is put in or taken out anywhere. A bucket of kind STEADY_TAKE or STEADY_SHADOW that denies starts its block.
 *   - All throttlers belong to one store, and the call has at most 64 buckets. No bucket may come twice.
 *   - On a Redis server the call is one script, and atomic. So it is in a cluster if all keys lie in one slot: put the
 *     common part into braces, "{user:42}:requests".
 *   - In several slots of a cluster the call looks at all buckets, then takes them: at most two round trips more. It
 *     never allows more than the limits. If another call takes the last room meanwhile, the call is denied, and what it
 *     took is given back. If that may still be charged, the call ends as STEADY_UNKNOWN. result->atomic is false. Only
 *     an attached store needs one slot: STEADY_UNSUPPORTED otherwise.
 *   - An embedded store looks at all buckets, then takes them one by one. It never allows more than the limits, and
 *     denies only if at some moment of the call there was no room. result->atomic is false.
 *   - An error without a verdict is answered by the strictest policy of the throttlers: STEADY_DENY, STEADY_REPORT,
 *     STEADY_LOCAL, STEADY_ALLOW, in this order. A STEADY_LOCAL decides on all buckets in the embedded store.
 *   - how->why names the part, the field and the range of what is wrong.
 * Errors, callback and id are those of steady_decide. */
STEADY_API int steady_consume_all(const steady_part *parts, size_t n_parts, const steady_how *how,
                                  steady_callback callback, void *data, uint64_t *id);
STEADY_API int steady_consume_all_sync(const steady_part *parts, size_t n_parts, const steady_how *how,
                                       steady_result *result);

/* What steady_consume_all would answer now. It changes nothing and starts no block; levels are those before the call.
 */
STEADY_API int steady_peek_all(const steady_part *parts, size_t n_parts, const steady_how *how,
                               steady_callback callback, void *data, uint64_t *id);
STEADY_API int steady_peek_all_sync(const steady_part *parts, size_t n_parts, const steady_how *how,
                                    steady_result *result);

/* ---- Reserve, then settle ------------------------------------------------------------------------------------ */

/* For a cost that is known only afterwards: tokens, bytes, "count only failures", or a place in line that is given up.
 * Reserve an estimate: consume with how.reserve, and keep result->reservation. When the cost is known, settle.
 *   - A cost below the reserved amount is given back, except for what has leaked meanwhile. So to settle never lets
 *     more through than if the cost had been known at the start.
 *   - A higher cost is charged, whatever the level.
 *   - A reservation that is never settled stays charged and leaks away.
 *   - Settle once. A second settle would give back, or charge, again. After STEADY_UNKNOWN do not repeat it.
 *
 * A reservation is a value. It has a text form, so another process can settle it. Nothing else is stored. It may be
 * used from any thread, by one thread at a time. Its text holds the keys: treat it as you treat them. Take a text only
 * from where you would take a key and a limit: a forged one can take drops out of any bucket of the store. */

/* What a reservation holds of one bucket. */
typedef struct steady_reserved {
    const char *name; /* of the limit; valid until the reservation is freed */
    const char *key;  /* as stored; the same */
    size_t key_len;
    int64_t amount;     /* drops that were asked for, before the option clamp */
    int64_t granted;    /* drops that were put in; 0 for STEADY_LOOK */
    steady_us moment;   /* of the clock of its store; with the option `clock` it is 2^49 us at the opening */
    steady_limit limit; /* in lowest terms */
    uint64_t reserved[4];
} steady_reserved;

/* The buckets of a reservation, and their number: in the order of result->parts. */
STEADY_API const steady_reserved *steady_reservation_parts(const steady_reservation *reservation, size_t *n_parts);

/* Writes the text form, printable ASCII without spaces, and cuts it to `size` bytes with its NUL. Returns the length of
 * the whole text, as snprintf does. */
STEADY_API size_t steady_reservation_text(const steady_reservation *reservation, char *text, size_t size);

/* Reads the text form. Returns 0, STEADY_BAD_ARGUMENT (it is no reservation) or STEADY_NO_MEMORY; then *reservation is
 * NULL. */
STEADY_API int steady_reservation_parse(steady_reservation **reservation, const char *text, steady_message *why);

/* Frees a reservation, and sets *reservation to NULL. It does not settle. NULL and a pointer to NULL are fine. */
STEADY_API void steady_reservation_free(steady_reservation **reservation);

/* The true cost of the buckets of a reservation. */
typedef struct steady_settlement {
    steady_reservation *reservation; /* copied; you may free it when the call has returned */
    int64_t actual;                  /* drops, of every bucket; over 2^31-1 counts as 2^31-1. A bucket that got none
                                        (STEADY_LOOK; a shadow that did not fit) is charged all of it, too */
    const int64_t *actuals;          /* one for each bucket, in their order; -1: it stays charged. NULL: `actual`, which
                                        is refused if the buckets were asked for different amounts */
    steady_throttler *const *throttlers; /* those that reserved; the limits of today decide. Throttlers with one prefix
                                            are told apart by the names of their limits, then by the rates */
    size_t n_throttlers;
    steady_message *why; /* gets the reason of a STEADY_BAD_ARGUMENT; NULL: none */
    steady_store *store; /* a bucket that belongs to none of the throttlers is settled in this store, by the limit of
                            the reservation; NULL: it is refused */
    steady_part_result *parts; /* steady_settle_sync fills these, one for each bucket that is settled; NULL: none */
    size_t parts_room;         /* how many of them there are; further buckets are left out */
    uint64_t reserved[3];
} steady_settlement;

/* Settles a reservation. A bucket whose limit leaks at another rate today gets nothing back. Blocks stay. The result
 * has success, and its parts say what was charged or given back. Errors, callback and id are those of steady_decide.
 * Besides, STEADY_BAD_ARGUMENT: the reservation was settled before, or a bucket belongs to none of the throttlers and
 * `store` is NULL. No policy applies.
 *
 * Name the throttlers, `store`, or both. With `store` alone a process can settle reservations of limits that it does
 * not know. If a limit leaks at another rate today, name its throttler: only then nothing is given back.
 *
 * Settle in the store that made the reservation. Another embedded store, or a server instead of one, gives nothing
 * back. Two servers are not told apart.
 *
 * In an embedded store with a full neighbourhood (`overflowed`), a bucket gets nothing back: the shared bucket may not
 * hold its drops. A higher cost is charged. */
STEADY_API int steady_settle(const steady_settlement *settlement, steady_callback callback, void *data, uint64_t *id);
STEADY_API int steady_settle_sync(const steady_settlement *settlement, steady_result *result);

#ifdef __cplusplus
}
#endif

#endif
