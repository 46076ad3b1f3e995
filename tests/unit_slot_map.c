/* SPDX-License-Identifier: MIT
 * Hash slots, redirects and maps: the examples of the specification, and what no good server sends. The memory of a
 * text ends with the text, so that AddressSanitizer detects a read beyond it. */
#include "support.h"

#include <stdlib.h>

#include "random.h"
#include "redis/slot_map.h"

/* ---- Keys ---- */

static void slot_of_a_key_is_as_specified(void **state) {
    static const struct {
        const char *key;
        unsigned slot;
    } keys[] = {
        {"123456789", 0x31c3},          {"foo", 12182},     {"bar", 5061},        {"{user1000}.following", 3443},
        {"{user1000}.followers", 3443}, {"user1000", 3443}, {"foo{}{bar}", 8363}, {"foo{{bar}}zap", 4015},
        {"foo{bar}{zap}", 5061},        {"{", 4092},        {"}{bar", 13139},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(keys); i++)
        if (steady__slot_of(keys[i].key, strlen(keys[i].key)) != keys[i].slot)
            fail_msg("%s: %u", keys[i].key, steady__slot_of(keys[i].key, strlen(keys[i].key)));
    assert_int_equal(steady__slot_of("\0{\0}\0", 5), steady__slot_of("\0", 1));
}

/* ---- Redirects ---- */

static bool read_flush(struct steady__redirect *redirect, const char *text, size_t len) {
    char *exact = malloc(len > 0 ? len : 1);
    assert_non_null(exact);
    memcpy(exact, text, len);
    const bool read = steady__redirect_read(redirect, exact, len);
    free(exact);
    return read;
}

static void valid_redirect_is_read(void **state) {
    static const struct {
        const char *text;
        struct steady__redirect redirect;
    } good[] = {
        {"MOVED 3999 127.0.0.1:6381", {false, 3999, 6381, "127.0.0.1"}},
        {"ASK 16383 127.0.0.1:65535", {true, 16383, 65535, "127.0.0.1"}},
        {"MOVED 0 :7000", {false, 0, 7000, ""}},
        {"ASK 1 ?:7000", {true, 1, 7000, "?"}},
        {"MOVED 1 ::1:7000", {false, 1, 7000, "::1"}},
        {"MOVED 1 [::1]:7000", {false, 1, 7000, "::1"}},
        {"MOVED 1 [fe80::1%eth0]:7000", {false, 1, 7000, "fe80::1%eth0"}},
        {"MOVED 1 node-1.example_x.org:1", {false, 1, 1, "node-1.example_x.org"}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct steady__redirect read;
        if (!read_flush(&read, good[i].text, strlen(good[i].text))) fail_msg("refused: %s", good[i].text);
        assert_int_equal(read.ask, good[i].redirect.ask);
        assert_int_equal(read.slot, good[i].redirect.slot);
        assert_int_equal(read.port, good[i].redirect.port);
        assert_string_equal(read.host, good[i].redirect.host);
    }
}

static void invalid_redirect_is_refused(void **state) {
    static const char *const bad[] = {
        "",
        "MOVED",
        "MOVED ",
        "MOVED x",
        "MOVED 1",
        "MOVED 1 ",
        "MOVED 1 host",
        "MOVED 1 host:",
        "MOVED 1 host:0",
        "MOVED 1 host:65536",
        "MOVED 1 host:-1",
        "MOVED 1 host:+1",
        "MOVED 1 host:70 ",
        "MOVED 1 host: 70",
        "MOVED 16384 host:7000",
        "MOVED -1 host:7000",
        "MOVED 4294967297 host:7000",
        "MOVED 99999999999999999999999 host:7000",
        "MOVED  1 host:7000",
        "MOVED 1  host:7000",
        "MOVED 1 ??:7000",
        "MOVED 1 ho st:7000",
        "MOVED 1 user@host:7000",
        "MOVED 1 host/path:7000",
        "MOVED 1\thost:7000",
        "moved 1 host:7000",
        "MOVEDX 1 host:7000",
        "ASKING 1 host:7000",
        "ASK",
        "ASK ",
        "ASK 1 h:1 extra",
        "ERR MOVED 1 host:7000",
    };
    struct steady__redirect read;
    char long_one[4200];
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (read_flush(&read, bad[i], strlen(bad[i]))) fail_msg("taken: %s", bad[i]);
    assert_false(read_flush(&read, "MOVED 1 ho\0st:7000", 18));
    assert_false(read_flush(&read, "MOVED 1 host:70\0", 16));
    for (size_t host = 255; host <= 4096; host += 4096 - 255) {
        const int len = snprintf(long_one, sizeof long_one, "MOVED 1 %0*d:7000", (int)host, 1);
        assert_int_equal(read_flush(&read, long_one, (size_t)len), host == 255);
    }
}

/* ---- Maps ---- */

struct names {
    unsigned count, most;
    char name[64][300];
};

static uint16_t number(void *arg, const char *host, uint16_t port) {
    struct names *names = arg;
    char name[300];
    snprintf(name, sizeof name, "%s:%u", host, port);
    for (uint16_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0) return i;
    if (names->count == names->most) return STEADY__SLOT_UNKNOWN;
    strcpy(names->name[names->count], name);
    return (uint16_t)names->count++;
}

static struct steady__slot_map map;
static struct names names;

/* Draws a map from a reply, which must be valid RESP. */
static bool draw(const char *bytes, size_t len) {
    struct steady__progress progress = {0};
    struct steady__reply reply;
    char *exact = malloc(len);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    memset(&names, 0, sizeof names);
    names.most = COUNT(names.name);
    assert_int_equal(steady__reply_read_nested(&reply, &progress, exact, len), len);
    const bool drawn = steady__slot_map_draw(&map, &reply, number, &names);
    free(exact);
    return drawn;
}

#define NODE(host, port) "*3\r\n" host "\r\n:" port "\r\n$2\r\nid\r\n"
#define RANGE(first, last, node) "*3\r\n:" first "\r\n:" last "\r\n" node
#define A NODE("$1\r\na", "1")
#define B NODE("$1\r\nb", "2")

static void valid_map_is_drawn(void **state) {
    static const char plain[] = "*3\r\n" RANGE("0", "99", A) RANGE("101", "101", B) RANGE("16000", "16383", A);
    /* as Redis 7 sends it: with replicas, and with metadata behind each id */
    static const char rich[] = "*1\r\n*4\r\n:5\r\n:6\r\n"
                               "*4\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"
                               "*4\r\n$9\r\n127.0.0.1\r\n:7003\r\n$2\r\nid\r\n*0\r\n";
    (void)state;
    assert_true(draw(plain, sizeof plain - 1));
    assert_int_equal(map.node[0], 0);
    assert_int_equal(map.node[99], 0);
    assert_int_equal(map.node[100], STEADY__SLOT_UNKNOWN);
    assert_int_equal(map.node[101], 1);
    assert_int_equal(map.node[16383], 0);
    assert_int_equal(names.count, 2);
    assert_true(draw(rich, sizeof rich - 1));
    assert_int_equal(names.count, 1);
    assert_string_equal(names.name[0], "127.0.0.1:7000");
    assert_int_equal(map.node[5], 0);
    assert_int_equal(map.node[7], STEADY__SLOT_UNKNOWN);
}

/* In a cluster of named nodes, the host of a nameless node is "?", and its address is in the metadata. */
static void nameless_node_gets_its_address_from_the_metadata(void **state) {
#define NAMELESS(host, port, rest) "*4\r\n$1\r\n" host "\r\n:" port "\r\n$2\r\nid\r\n" rest
#define IP(ip) "$2\r\nip\r\n" ip "\r\n"
    static const char all[] = "*6\r\n" RANGE("0", "0", NAMELESS("?", "1", "*2\r\n" IP("$9\r\n127.0.0.1")))
        RANGE("1", "1", NAMELESS("?", "2", "*4\r\n$8\r\nshard-id\r\n$2\r\nip\r\n" IP("$3\r\n::1")))
            RANGE("2", "2", NAMELESS("?", "3", "*2\r\n" IP("$0\r\n"))) /* its own address, which it does not know */
        RANGE("3", "3", NAMELESS("n", "4", "*2\r\n" IP("$9\r\n127.0.0.1")))
            RANGE("4", "4", NAMELESS("?", "5", "*4\r\n*2\r\n" IP("$1\r\na") ":1\r\n" IP("$1\r\nb")))
                RANGE("5", "5", "*5\r\n$1\r\n?\r\n:6\r\n$2\r\nid\r\n*0\r\n*2\r\n" IP("$1\r\nc"));
    static const char *const expected[] = {"127.0.0.1:1", "::1:2", ":3", "n:4", "b:5", "c:6"};
    static const char *const none[] = {
        "*0\r\n",
        "$2\r\nip\r\n",
        ":1\r\n",
        "*1\r\n$2\r\nip\r\n",
        "*2\r\n" IP(":1"),
        "*2\r\n" IP("$-1"),
        "*2\r\n" IP("$1\r\n?"),
        "*2\r\n" IP("*1\r\n$1\r\na"),
        "*3\r\n$1\r\na\r\n" IP("$1\r\na"),
        "*2\r\n$3\r\nip4\r\n$1\r\na\r\n",
    };
    (void)state;
    assert_true(draw(all, sizeof all - 1));
    assert_int_equal(names.count, COUNT(expected));
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_string_equal(names.name[i], expected[i]);
        assert_int_equal(map.node[i], i);
    }
    for (size_t i = 0; i < COUNT(none); i++) {
        char text[256];
        const int len = snprintf(text, sizeof text,
                                 "*2\r\n%s%s"
                                 "%s",
                                 RANGE("0", "0", NAMELESS("?", "1", "")), none[i], RANGE("1", "1", A));
        assert_true(draw(text, (size_t)len));
        assert_int_equal(map.node[0], STEADY__SLOT_UNKNOWN);
        assert_int_equal(map.node[1], 0);
    }
}

/* A node that cannot be reached leaves its slots unknown, and all other slots as they are. */
static void unreachable_node_leaves_only_its_slots_unknown(void **state) {
    static const char *const partial[] = {
        "*2\r\n" RANGE("1", "1", NODE("$1\r\n?", "1")) RANGE("2", "2", A),
        "*2\r\n" RANGE("1", "1", NODE("$3\r\na b", "1")) RANGE("2", "2", A),
        "*2\r\n" RANGE("1", "1", NODE("$1\r\na", "0")) RANGE("2", "2", A),
    };
    static struct steady__slot_map before;
    static const char own[] = "*2\r\n" RANGE("1", "1", NODE("$-1", "7")) RANGE("2", "2", NODE("$0\r\n", "8"));
    (void)state;
    for (size_t i = 0; i < COUNT(partial); i++) {
        assert_true(draw(partial[i], strlen(partial[i])));
        assert_int_equal(map.node[1], STEADY__SLOT_UNKNOWN);
        assert_int_equal(map.node[2], 0);
    }
    memset(before.node, 0xff, sizeof before.node);
    before.node[1] = before.node[2] = 5;
    steady__slot_map_complete(&map, &before);
    assert_int_equal(map.node[1], 5);
    assert_int_equal(map.node[2], 0);
    assert_int_equal(map.node[3], STEADY__SLOT_UNKNOWN);
    assert_true(draw(own, sizeof own - 1));
    assert_string_equal(names.name[0], ":7");
    assert_string_equal(names.name[1], ":8");
}

static void invalid_map_is_refused(void **state) {
    static const char *const bad[] = {
        "*0\r\n",
        "*-1\r\n",
        "$-1\r\n",
        "$4\r\nabcd\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*0\r\n",
        "*1\r\n*2\r\n:1\r\n:2\r\n",
        "*1\r\n" RANGE("2", "1", A),
        "*1\r\n" RANGE("-1", "1", A),
        "*1\r\n" RANGE("0", "16384", A),
        "*1\r\n" RANGE("9223372036854775807", "9223372036854775807", A),
        "*2\r\n" RANGE("0", "5", A) RANGE("5", "9", B),
        "*2\r\n" RANGE("0", "5", A) RANGE("0", "5", A),
        "*1\r\n*3\r\n$1\r\n0\r\n:5\r\n" A,
        "*1\r\n*3\r\n:0\r\n$1\r\n5\r\n" A,
        "*1\r\n*3\r\n:0\r\n:5\r\n*-1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*0\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n:1\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n*0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n",
        "*1\r\n" RANGE("0", "5", NODE("$1\r\na", "65536")),
        "*1\r\n" RANGE("0", "5", NODE("$1\r\na", "-1")),
        "*1\r\n" RANGE("0", "5", NODE("$1\r\n?", "1")),
        "*2\r\n" RANGE("0", "5", A) "*1\r\n*1\r\n*1\r\n*0\r\n",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (draw(bad[i], strlen(bad[i]))) fail_msg("drawn: %s", bad[i]);
}

static size_t put_ranges(char *out, int ranges) {
    size_t len = (size_t)sprintf(out, "*%d\r\n", ranges);
    for (int i = 0; i < ranges; i++)
        len += (size_t)sprintf(out + len, "*3\r\n:%d\r\n:%d\r\n*2\r\n$5\r\nn%04d\r\n:1\r\n", i, i, i % 100);
    return len;
}

/* Each slot is a range of its own, with more nodes than there are numbers. One range more than there are slots is
 * refused. */
static void map_with_a_range_for_each_slot_is_drawn(void **state) {
    char *bytes = malloc(17000 * 48);
    struct steady__progress progress = {0};
    struct steady__reply reply;
    (void)state;
    assert_non_null(bytes);
    assert_true(draw(bytes, put_ranges(bytes, 16384)));
    assert_int_equal(names.count, COUNT(names.name));
    assert_int_equal(map.node[63], 63);
    assert_int_equal(map.node[64], STEADY__SLOT_UNKNOWN);
    assert_int_equal(map.node[16363], 63);
    assert_int_equal(map.node[16383], STEADY__SLOT_UNKNOWN);
    assert_int_equal(steady__reply_read_nested(&reply, &progress, bytes, put_ranges(bytes, 16385)), -1);
    free(bytes);
}

/* Random bytes of a valid reply are changed. A map is drawn or not, but nothing is read beyond the bytes. */
static void randomly_changed_map_is_read_within_its_bounds(void **state) {
    static const char good[] = "*3\r\n" RANGE("0", "99", A) RANGE("101", "101", B) RANGE("16000", "16383", A);
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 50000; i++) {
        struct steady__progress progress = {0};
        struct steady__reply reply;
        char *bytes = malloc(sizeof good - 1);
        assert_non_null(bytes);
        memcpy(bytes, good, sizeof good - 1);
        for (int64_t changes = random_in(&seed, 1, 4); changes > 0; changes--)
            bytes[random_in(&seed, 0, sizeof good - 2)] = "0123456789*$:-\r\nx"[random_in(&seed, 0, 16)];
        memset(&names, 0, sizeof names);
        names.most = COUNT(names.name);
        if (steady__reply_read_nested(&reply, &progress, bytes, sizeof good - 1) > 0)
            steady__slot_map_draw(&map, &reply, number, &names);
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_of_a_key_is_as_specified),
        cmocka_unit_test(valid_redirect_is_read),
        cmocka_unit_test(invalid_redirect_is_refused),
        cmocka_unit_test(valid_map_is_drawn),
        cmocka_unit_test(nameless_node_gets_its_address_from_the_metadata),
        cmocka_unit_test(unreachable_node_leaves_only_its_slots_unknown),
        cmocka_unit_test(invalid_map_is_refused),
        cmocka_unit_test(map_with_a_range_for_each_slot_is_drawn),
        cmocka_unit_test(randomly_changed_map_is_read_within_its_bounds),
    };
    return cmocka_run_group_tests_name("slot map", tests, NULL, NULL);
}
