/* SPDX-License-Identifier: MIT
 *
 * Steady: rate limiting for programs that run an event loop.
 *
 * A throttler puts drops into leaky buckets, one bucket a key. A bucket holds up to max_capacity drops, and they leak
 * out one at a time, evenly, `drops` of them every drop_recharge. steady_consume(key, n) puts n drops in if they all
 * fit, and says at once whether they did, the level, when the next drop leaks, and how long to wait. The buckets live
 * in a store: in Redis or Valkey, shared by a fleet, or embedded, in this process or in a file that the processes of
 * one host share.
 *
 *     #include <steady.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         steady_store *store = NULL;
 *         steady_throttler *throttler = NULL;
 *         steady_limit limit = {.max_capacity = 10, .drop_recharge = 5 * STEADY_SECOND};
 *         steady_result r = {0};
 *
 *         if (steady_store_open(&store, "memory:", NULL, NULL) == 0 &&
 *             steady_throttler_new(&throttler, store, &limit, NULL, NULL) == 0 &&
 *             steady_consume_sync(throttler, "user:42", 7, 1, &r) == 0)
 *             puts(r.success ? "go ahead" : "not now");
 *         steady_throttler_free(&throttler);
 *         steady_store_close(&store);
 *     }
 *
 * Build with `cc demo.c $(pkg-config --cflags --libs steady)`.
 *
 * UNITS. Every time is a steady_us: whole microseconds. Every level and amount is a whole number of drops. Nothing
 * here is floating point.
 *
 * THE TWO KINDS OF CALL. steady_consume, steady_peek and steady_reset are asynchronous: they take a callback, need a
 * store that was opened with an event loop, and never block. Each has a blocking twin ..._sync. On the embedded store
 * the twin is a plain function call without allocation; on Redis it uses a connection of its own, and returns by the
 * deadline (steady_store_options.timeout).
 *
 * CALLBACKS. Where an asynchronous call returns non-zero, its callback never runs. Where it returns zero, its callback
 * runs exactly once: with the answer, by the deadline with an error, or with STEADY_CANCELLED when the store is closed
 * first; never inside the call that started it, and never after steady_store_close has returned. Every call of this
 * header may be made inside a callback, steady_store_close included. A callback must return: no longjmp, no C++
 * exception may leave it. A callback that blocks, blocks your loop.
 *
 * DENIED IS NOT AN ERROR. error is 0 where the store gave a verdict, and `success` is that verdict. Where it gave none,
 * error says why, and steady_throttler_options.on_error says what you want to be answered then; `source` always says
 * who answered.
 *
 * THREADS. A store and its throttlers belong to the thread that opened the store, which is the thread of its loop. One
 * exception: on an embedded store the ..._sync calls and steady_store_stats may be made from any thread at once. The
 * library starts no thread but a short-lived one to look up a host name, touches no signal handler or signal mask,
 * prints nothing and never exits. It never raises SIGPIPE; but for a store attached to a hiredis context hiredis
 * writes, 0.14 with write(2), so ignore the signal there. The look-up of a host name may outlive the last store, so
 * libsteady.so stays loaded after dlclose. Link a plug-in that contains libsteady.a with -Wl,-z,nodelete.
 *
 * FORK. After fork() the child may keep using `file:` stores. A Redis store is the parent's: calls on it fail with
 * STEADY_UNAVAILABLE in the child until it opens its own; closing it there does not disturb the parent, and is the
 * first thing for a child that goes on with its copy of the loop: before event_reinit, uv_loop_fork or ev_loop_fork. A
 * loop that is made anew before that, or in which a store is never closed, finds the connection ready for ever once the
 * server hangs up, and spins. A little memory that the loop may still look at is not freed in a child.
 *
 * FILES. The file of a `file:` store has mode 0600 and belongs to one user. It is made if there is none. It is made
 * anew after a reboot: as large as it was, unless another size is asked for. A file with anything wrong about it is
 * refused (STEADY_BAD_FILE) and left alone. No other file is touched.
 *   - Several processes may open it at once. A process that is killed, slow or stopped while it makes the file hinders
 *     no other process. If it is killed after a reboot, it may leave a file .steady-NUMBER there; delete that.
 *   - A process that is killed or stopped in a decision hinders no other process and costs at most that decision.
 *   - Its space is allocated at open. A full disk, a quota or a limit (ulimit -f) is an error of steady_store_open.
 *   - Keep it on a local file system that has O_TMPFILE or RENAME_NOREPLACE, as ext4, XFS, Btrfs, tmpfs and overlayfs.
 *   - Times in it count from boot. A process in a time namespace whose boot time differs is refused: it would not
 * limit. Do not share the file with a container that has a boot_id of its own, either: each would replace it.
 *   - Do not truncate it while it is in use: the next decision that touches the missing part raises SIGBUS, as with any
 *     mapping.
 *   - Deleting it is safe: processes that have it open go on with it. A process that opens the path next begins with
 *     empty buckets.
 *
 * STRUCTS. Options are zero-initialised structs in which zero is the default; NULL is all defaults. `reserved` must be
 * zero. What may change between releases is written in docs/reference/compatibility.md: within one SONAME nothing here
 * is removed or moved, and new fields are only ever taken out of `reserved`. */
#ifndef STEADY_H
#define STEADY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STEADY_VERSION "0.1.0"

#if defined(__GNUC__)
#define STEADY_API __attribute__((visibility("default")))
#else
#define STEADY_API
#endif

/* The version of the library that is linked, which may be newer than STEADY_VERSION. */
STEADY_API const char *steady_version(void);

/* ---- Errors -------------------------------------------------------------------------------------------------- */

/* name, value, word, sentence. Values and words never change. */
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
    X(SERVER, -13, "server", "the server answered with an error; nothing was charged")

enum steady_error {
    STEADY_OK = 0,
#define STEADY_ERROR_ENUM(name, value, word, sentence) STEADY_##name = value,
    STEADY_ERRORS(STEADY_ERROR_ENUM)
#undef STEADY_ERROR_ENUM
};

/* "unavailable", "not_a_bucket", ...; "ok" for 0, "?" for what is no error of ours. Static text. */
STEADY_API const char *steady_error_name(int error);

/* The sentence of the list above. Static text. */
STEADY_API const char *steady_error_text(int error);

/* What went wrong in words: the field, the value and the range, or what the system said. Filled by the calls that take
 * one, where they fail; NULL where you do not want it. Never holds a password. */
typedef struct steady_message {
    char text[256];
} steady_message;

/* ---- Limits -------------------------------------------------------------------------------------------------- */

typedef int64_t steady_us; /* microseconds */

#define STEADY_MILLISECOND ((steady_us)1000)
#define STEADY_SECOND ((steady_us)1000000)

/* Ranges: max_capacity 1 .. 2^31-1; drop_recharge from 1; drops 0 .. 1000000; block_duration 0 .. 2^52-1; and
 * max_capacity * drop_recharge below 2^53. (In the embedded store a block ends 2^50 us, 35 years, after boot at the
 * latest.) A limit outside them is refused by steady_throttler_new. */
typedef struct steady_limit {
    int64_t max_capacity;     /* drops a bucket can hold */
    steady_us drop_recharge;  /* the time in which `drops` drops leak */
    int64_t drops;            /* 0 means 1; 3 with a drop_recharge of a second is 3/s exactly, for ever */
    steady_us block_duration; /* how long an overflow blocks the key; 0: it does not */
} steady_limit;

/* 0, or STEADY_BAD_ARGUMENT and *why names the field, the value and the range. */
STEADY_API int steady_limit_check(const steady_limit *limit, steady_message *why);

/* Reads a rate such as "100/min", "3/s", "1000/1h30m" or "5/250ms" into max_capacity, drop_recharge and drops, with a
 * burst of the whole count; block_duration is left alone. A period takes the units of a duration, and the words
 * microsecond, millisecond, second (sec), minute (min), hour (hr), day and week, each also with an s: "10/minute",
 * "10/2weeks". 0 or STEADY_BAD_ARGUMENT; *limit is changed only on 0. */
STEADY_API int steady_limit_parse(steady_limit *limit, const char *rate, steady_message *why);

/* Writes `text` fit to be quoted in a message: bytes that are no printable ASCII as '?', cut to `size` with "..." at its
 * end. Of what is a store URL, or may be one, the user, the password and the values of passwords become "***". Use it
 * for arguments and settings of your program that may hold a store URL by mistake. */
STEADY_API void steady_quote(char *out, size_t size, const char *text);

/* Reads a duration: whole numbers and fractions with the units us ms s m h d, largest first: "5s", "250ms", "1h30m",
 * "0.5s". Not locale-dependent. 0 or STEADY_BAD_ARGUMENT; *duration is changed only on 0. */
STEADY_API int steady_duration_parse(steady_us *duration, const char *text, steady_message *why);

/* ---- Event loops --------------------------------------------------------------------------------------------- */

/* What Steady needs of an event loop: readiness of a descriptor, one-shot timers. Take one from <steady/uv.h>,
 * <steady/event.h> or <steady/ev.h>, or the built-in steady_poller below, or write your own: all calls are made on the
 * loop's thread, and `ready` and `fired` must be called from the loop, not from inside io_want or timer_start. A free
 * may be called inside the very callback of what it frees, and after a free that callback is not called again. */
enum { STEADY_READABLE = 1, STEADY_WRITABLE = 2 };

typedef struct steady_loop_ops {
    const char *name;
    /* Watches fd, for nothing yet; NULL on failure. An error or hang-up on fd is reported as both events. */
    void *(*io_new)(void *loop, int fd, void (*ready)(void *arg, int events), void *arg);
    int (*io_want)(void *io, int events); /* from now on these events, each turn they hold for; 0 or -1 */
    void (*io_free)(void *io);            /* called before fd is closed */
    void *(*timer_new)(void *loop, void (*fired)(void *arg), void *arg);
    /* Fires once; a running one starts anew; 0 or -1. After -1 it is started again when another timer fires, or with
     * the next decision. */
    int (*timer_start)(void *timer, steady_us delay);
    void (*timer_stop)(void *timer);
    void (*timer_free)(void *timer);
    /* us on a clock that never steps; NULL: CLOCK_MONOTONIC. */
    steady_us (*now)(void *loop);
} steady_loop_ops;

typedef struct steady_loop {
    const steady_loop_ops *ops; /* must outlive the store */
    void *loop;                 /* handed to io_new, timer_new and now */
} steady_loop;

/* The built-in loop, on poll(2), for a program that has none. Belongs to one thread. */
typedef struct steady_poller steady_poller;

STEADY_API int steady_poller_new(steady_poller **poller); /* 0, STEADY_NO_MEMORY or STEADY_SYSTEM */
STEADY_API steady_loop steady_poller_loop(steady_poller *poller);

/* Waits at most max_wait (negative: as long as it takes) for something to happen, and runs the callbacks it is for.
 * Returns how many ran, or STEADY_SYSTEM. Returns 0 if none ran: the time is over, a signal handler ran (EINTR), or
 * steady_poller_wake was called. */
STEADY_API int steady_poller_run(steady_poller *poller, steady_us max_wait);

/* Ends the wait of the steady_poller_run that is running, or of the next one if none is: it runs what is due and
 * returns. Any number of calls before that count as one. May be called from any thread and from a signal handler. A
 * handler that only sets a flag is not enough: a signal that comes just before the wait does not end it. The poller
 * must not be freed meanwhile. */
STEADY_API void steady_poller_wake(steady_poller *poller);

/* Close the stores that use it first. NULL and a pointer to NULL are fine; *poller becomes NULL. */
STEADY_API void steady_poller_free(steady_poller **poller);

/* ---- Stores -------------------------------------------------------------------------------------------------- */

typedef struct steady_store steady_store;

enum steady_log_level { STEADY_LOG_INFO = 0, STEADY_LOG_WARNING = 1 };

/* What decides on the server. Both do the same, on the same keys. */
enum steady_engine {
    STEADY_ENGINE_AUTO = 0,   /* the module where it is loaded and the user may call it, found out once a connection */
    STEADY_ENGINE_SCRIPT = 1, /* the Lua scripts, which every server can run */
    STEADY_ENGINE_MODULE = 2  /* the commands of steady.so; without them decisions end as STEADY_SERVER or _REFUSED */
};

/* TLS, for rediss:// and valkeys://. Each field is also an option of the URL, which goes first; with any other URL they
 * are refused. Files are PEM, and read once, when the store is opened. Strings are copied. */
typedef struct steady_tls_options {
    const char *ca_file;       /* tls_ca: trust these certificates and no others; NULL: what the system trusts */
    const char *cert_file;     /* tls_cert: our certificate, and those between it and the CA; NULL: none */
    const char *key_file;      /* tls_key: its key, without a passphrase; NULL: it is in cert_file, too */
    const char *server_name;   /* tls_server_name: who the server's certificate must be for; NULL: the URL's host */
    bool insecure_skip_verify; /* tls_insecure_skip_verify=yes: take any certificate. Whoever can intercept the
                                  connection can then be the server, and read the password */
    uint64_t reserved[4];
} steady_tls_options;

typedef struct steady_store_options {
    const steady_loop *loop; /* for the asynchronous calls; copied. NULL: only the ..._sync calls */
    steady_us timeout;       /* from the call to its answer, all included; 0: 100 ms. Redis only. 1 .. 24 h */
    uint32_t max_in_flight;  /* decisions waiting for an answer; more are STEADY_OVERLOADED. 0: 65536; at most 2^24.
                                What the server cannot answer in time is not sent to it, but by an attached store:
                                there, choose what it answers within a timeout, or less */
    uint32_t buckets;        /* embedded: how many live buckets it has room for. 0: 2^20 (memory:), 2^16 (file:).
                                Rounded up to a power of two, at least 64, at most 2^30; 49 bytes each. A file that
                                exists keeps its own number: another one asked for is STEADY_BAD_FILE */
    /* Called when the store loses its server, or that decides nothing or refuses (out of memory, no permission), and
     * when decisions are made again; not for each of them. `text` is valid during the call only, and holds no password
     * and no key. NULL: no log. */
    void (*log)(void *data, enum steady_log_level level, const char *text);
    void *log_data;
    enum steady_engine engine;     /* Redis only */
    const steady_tls_options *tls; /* copied; NULL: all defaults, and what the URL says */
    uint64_t reserved[4];
} steady_store_options;

/* Opens a store. url is one of
 *     memory:                              buckets private to this process
 *     file:/path                           buckets in a mapped file, shared by the processes of one user on this host
 *     redis://[user:pass@]host[:port][/db] a Redis (7.0+) or Valkey (7.2+) server; valkey:// is the same
 *     rediss://...[?option=value&...]      the same over TLS, with the options of steady_tls_options; valkeys://, too
 *     unix:/path[?db=N]                    the same over a Unix socket; unix://user:pass@/path with credentials
 *     redis+sentinel://[user:pass@]host[:port][,host[:port]...]/service[/db][?option=value&...]
 *                                          the primary of a service, as its sentinels (port 26379) know it. user:pass
 *                                          is for the servers; the options sentinel_username and sentinel_password are
 *                                          for the sentinels. rediss+sentinel:// is the same over TLS, to both
 * With the option peek=replica, in any of the last four, steady_peek asks a replica while there is one: it may answer
 * with what was true a moment ago, or longer where it has lost its primary. See docs/how-to/cluster-sentinels-tls.md.
 *
 * A server of a Redis or Valkey Cluster is recognised as such: a decision goes to the node that has its key, with the
 * same credentials, and a node that is gone takes only its own keys with it. See docs/how-to/cluster-sentinels-tls.md.
 *
 * NULL is memory:. Bytes of user and pass that mean something in a URL are %-encoded. Opening a Redis store does not
 * wait for the server: it connects in the background, and again by itself whenever it has to.
 *
 * Returns 0 and a store in *store, or, with *store NULL, STEADY_BAD_ARGUMENT (the URL or an option),
 * STEADY_UNSUPPORTED, STEADY_BAD_FILE, STEADY_SYSTEM or STEADY_NO_MEMORY. */
STEADY_API int steady_store_open(steady_store **store, const char *url, const steady_store_options *options,
                                 steady_message *why);

/* A Redis store on a connection of yours: a hiredis context, connecting or connected, attached to an event loop by any
 * adapter (but hiredis's poll.h, which looks for itself in the context). You go on owning it: you may send your own
 * commands on it, you reconnect, you free it, and it has to be a RESP2 connection. When it is disconnected or freed,
 * what is in flight ends as STEADY_UNKNOWN and later calls as STEADY_UNAVAILABLE, until you close the store.
 * options->loop is required, for deadlines, and must be the loop the context is attached to. The ..._sync calls are
 * STEADY_UNSUPPORTED. Errors as above. */
struct redisAsyncContext;
STEADY_API int steady_store_attach(steady_store **store, struct redisAsyncContext *context,
                                   const steady_store_options *options, steady_message *why);

/* Closes: every decision still in flight ends as STEADY_CANCELLED, inside this call, and no callback runs after it.
 * Throttlers of the store stay valid, and answer STEADY_CLOSED, until they are freed. NULL and a pointer to NULL are
 * fine; *store becomes NULL. */
STEADY_API void steady_store_close(steady_store **store);

/* Counters since the store was opened, by this handle. */
typedef struct steady_stats {
    uint64_t decisions;    /* asked of the store: consume and peek */
    uint64_t allowed;      /* verdicts with success */
    uint64_t denied;       /* verdicts without, the blocked included */
    uint64_t blocked;      /* of these, because the key was blocked or became so */
    uint64_t unavailable;  /* ended without a verdict, nothing charged: every error but the next two, and what was
                              turned away at once: overloaded, no memory, no timer, a forked child */
    uint64_t unknown;      /* ended without a verdict, perhaps charged: as STEADY_UNKNOWN or STEADY_CANCELLED */
    uint64_t overflowed;   /* embedded: decisions on an overflow bucket, which new keys of limits that leak at the same
                              rate share where the neighbourhood is full */
    uint64_t clock_steps;  /* buckets found ahead of the store's clock; those the module finds are in INFO steady */
    uint64_t reconnects;   /* connections made after the first */
    uint64_t script_loads; /* SCRIPT LOADs sent */
    uint64_t in_flight;    /* decisions waiting now */
    uint64_t timeouts;     /* decisions that ended at their deadline */
    uint64_t reserved[4];
} steady_stats;

STEADY_API void steady_store_stats(const steady_store *store, steady_stats *stats); /* a NULL store: all zero */

/* The last trouble in words, for a log: what the server, the network or the system said, cut and escaped. "" where
 * there was none. Valid until the next call on the store; holds no password and no key. */
STEADY_API const char *steady_store_trouble(const steady_store *store);

/* ---- Throttlers ---------------------------------------------------------------------------------------------- */

/* A store and a limit. */
typedef struct steady_throttler steady_throttler;

/* What to answer when the store does not: when a decision ends as unavailable, unknown, refused, server or
 * overloaded. The other errors are always reported, and so is a reset that did not happen.
 *
 * STEADY_ALLOW does not allow a decision that ends as overloaded: a client can cause an overload by asking for much. It
 * gets success false.
 *
 * The policy does not apply to errors returned directly by an asynchronous call, such as STEADY_OVERLOADED. No callback
 * runs; the caller decides. */
enum steady_policy {
    STEADY_REPORT = 0, /* the error */
    STEADY_DENY = 1,   /* success false, and retry_after STEADY_DENY_RETRY */
    STEADY_ALLOW = 2,  /* success true; if overloaded as STEADY_DENY */
    STEADY_LOCAL = 3   /* the verdict of an embedded bucket with 1/local_share of the limit, but room for at least one
                        * drop; each store has its own */
};

typedef struct steady_throttler_options {
    const char *prefix; /* put before every key; NULL: none. Copied. Prefix and key: 1024 bytes together */
    enum steady_policy on_error;
    uint32_t local_share; /* STEADY_LOCAL: how many stores share the limit, in all processes; 0: 1 */
    uint64_t reserved[4];
} steady_throttler_options;

/* Makes a throttler; does no I/O. The limit is copied. 0, or with *throttler NULL STEADY_BAD_ARGUMENT, STEADY_CLOSED or
 * STEADY_NO_MEMORY. Throttlers are cheap, and any number may share a store and its keys. */
STEADY_API int steady_throttler_new(steady_throttler **throttler, steady_store *store, const steady_limit *limit,
                                    const steady_throttler_options *options, steady_message *why);

/* Decisions in flight still run their callbacks. NULL and a pointer to NULL are fine; *throttler becomes NULL. */
STEADY_API void steady_throttler_free(steady_throttler **throttler);

enum steady_source {
    STEADY_FROM_NOWHERE = 0, /* no answer: see error */
    STEADY_FROM_STORE = 1,
    STEADY_FROM_POLICY = 2, /* STEADY_DENY or STEADY_ALLOW; error says what the store's trouble was */
    STEADY_FROM_LOCAL = 3   /* STEADY_LOCAL; error likewise */
};

/* The retry_after of a denial by policy. The store connects again within a second of its server's return. */
#define STEADY_DENY_RETRY STEADY_SECOND

/* The numbers are valid if source is STEADY_FROM_STORE or STEADY_FROM_LOCAL; otherwise they are 0. Exception:
 * retry_after of a denial by policy is STEADY_DENY_RETRY, or -1 if the amount is over the capacity. */
typedef struct steady_result {
    int error; /* enum steady_error */
    enum steady_source source;
    bool success;              /* consume: the drops are in. peek: one drop would fit */
    int64_t level;             /* drops in the bucket after the call, also where it failed or is blocked */
    steady_us until_next_drop; /* until the next drop leaks, rounded up; a full recharge when the bucket is empty */
    steady_us blocked_for;     /* what is left of the block; 0: not blocked */
    steady_us retry_after;     /* 0 on success; else the exact wait after which this same call would succeed if nobody
                                  else came; -1: never, as the amount is over the capacity (of STEADY_LOCAL: over
                                  the share; the store may take it once it answers) */
} steady_result;

typedef void (*steady_callback)(const steady_result *result, void *data);

/* The calls below return 0, or an error at once and nothing is charged: STEADY_BAD_ARGUMENT (a NULL, a key not of 1 ..
 * 1024 bytes, an amount beyond +-(2^31-1), no loop, another thread), STEADY_OVERLOADED, STEADY_NO_MEMORY,
 * STEADY_CLOSED, STEADY_UNSUPPORTED, STEADY_SYSTEM (the loop starts no timer). Keys are bytes with a length, any bytes,
 * never cut; they are copied. *result lives as long as the callback runs.
 *
 * A ..._sync call fills *result in any case, and returns 0 where someone answered (result->success is the verdict),
 * else result->error.
 *
 * consume puts `amount` drops in if they all fit and the key is not blocked. A negative amount takes drops out, down to
 * zero, blocked or not, and always succeeds. 0 changes nothing, and succeeds when the key is not blocked.
 *
 * Where the neighbourhood of a key is full in the embedded store (`overflowed` counts these), neither a negative amount
 * nor a reset changes the bucket that is shared there: the one succeeds and reports it, the other an empty one. */
STEADY_API int steady_consume(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                              steady_callback callback, void *data);
STEADY_API int steady_consume_sync(steady_throttler *throttler, const void *key, size_t key_len, int64_t amount,
                                   steady_result *result);

/* Looks, and changes nothing. */
STEADY_API int steady_peek(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback,
                           void *data);
STEADY_API int steady_peek_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result);

/* Forgets the bucket: empty, not blocked. The result is that of the empty bucket. A key that holds something else is
 * left alone: STEADY_NOT_A_BUCKET. */
STEADY_API int steady_reset(steady_throttler *throttler, const void *key, size_t key_len, steady_callback callback,
                            void *data);
STEADY_API int steady_reset_sync(steady_throttler *throttler, const void *key, size_t key_len, steady_result *result);

#ifdef __cplusplus
}
#endif

#endif
