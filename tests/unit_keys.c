/* SPDX-License-Identifier: MIT
 * The buckets of all keys in bounded memory, and the texts that come most often. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "random.h"
#include "replay/heavy.h"
#include "replay/histogram.h"
#include "replay/keys.h"

#define MIB ((size_t)1024 * 1024)

static bool forgets;

static bool forget(void *data, const struct keys_entry *entry) {
    uint64_t *n = data;
    assert_true(entry->pending == 0 && entry->denial == KEYS_NONE && !entry->shared);
    *n += forgets;
    return forgets;
}

static struct keys *begin(size_t memory, uint64_t *forgotten) {
    const struct keys_options options = {.memory = memory, .n_limits = 3, .forget = forget, .data = forgotten};
    struct keys *keys = keys_new(&options);
    assert_non_null(keys);
    *forgotten = 0;
    return keys;
}

static uint32_t find(struct keys *keys, size_t limit, const char *key, size_t len, uint64_t *hash) {
    return keys_find(keys, limit, (struct rules_text){key, len}, hash);
}

static size_t key_text(char *out, size_t room, unsigned number) {
    return (size_t)snprintf(out, room, "client-%u%.*s", number, (int)(number % 40),
                            "........................................");
}

static void a_key_of_a_limit_has_one_entry(void **state) {
    (void)state;
    char text[80];
    uint64_t forgotten, hash, again;
    struct keys *keys = begin(64 * MIB, &forgotten);
    uint32_t *ids = calloc(3 * 20000, sizeof *ids);
    for (unsigned i = 0; i < 60000; i++) {
        const size_t len = key_text(text, sizeof text, i / 3);
        ids[i] = find(keys, i % 3, text, len, &hash);
        assert_true(ids[i] >= 3);
        keys_at(keys, ids[i])->requests = i;
    }
    for (unsigned i = 0; i < 60000; i++) {
        const size_t len = key_text(text, sizeof text, i / 3);
        const uint32_t id = find(keys, i % 3, text, len, &hash);
        const struct keys_entry *entry = keys_at(keys, id);
        assert_int_equal(id, ids[i]);
        assert_int_equal(entry->requests, i);
        assert_int_equal(entry->limit, i % 3);
        assert_int_equal(keys_text(keys, entry).len, len);
        assert_memory_equal(keys_text(keys, entry).bytes, text, len);
        find(keys, (i + 1) % 3, text, len, &again);
        assert_true(hash != again);
    }
    assert_int_equal(find(keys, 1, "", 0, &hash), find(keys, 1, "", 0, &hash));
    assert_true(find(keys, 1, "a\0b", 3, &hash) != find(keys, 1, "a\0c", 3, &hash));
    free(ids);
    keys_free(keys);
}

/* A million keys in 4 MiB: all beyond the room share the entry of their limit. Their hashes differ nevertheless. */
static void keys_without_room_share_an_entry(void **state) {
    (void)state;
    char text[80];
    uint64_t forgotten, hash, other = 0;
    struct keys *keys = begin(4 * MIB, &forgotten);
    size_t shared = 0;
    forgets = false;
    for (unsigned i = 0; i < 1000000; i++) {
        const uint32_t id = find(keys, i % 3, text, key_text(text, sizeof text, i), &hash);
        assert_true(keys_at(keys, id)->shared == (id < 3) && (id >= 3 || id == i % 3));
        shared += id < 3;
        assert_true(hash != other);
        other = hash;
    }
    assert_true(keys_memory(keys) <= 4 * MIB);
    assert_between(1000000 - shared, 20000, 60000);
    for (unsigned i = 0; i < 20000; i++) /* those that have an entry keep it */
        assert_true(find(keys, i % 3, text, key_text(text, sizeof text, i), &hash) >= 3);
    keys_free(keys);
}

/* Idle keys make room. Keys with a denial, and those with events that wait, stay. */
static void idle_keys_are_forgotten_first(void **state) {
    (void)state;
    char text[80];
    uint64_t forgotten, hash;
    struct keys *keys = begin(4 * MIB, &forgotten);
    forgets = true;
    for (unsigned i = 0; i < 200; i++) {
        struct keys_entry *entry = keys_at(keys, find(keys, 0, text, key_text(text, sizeof text, i), &hash));
        if (i % 2 == 0)
            keys_denial(keys, entry)->denied = i + 1;
        else
            entry->pending = i;
    }
    for (unsigned i = 200; i < 500000; i++)
        assert_true(find(keys, 0, text, key_text(text, sizeof text, i), &hash) >= 3);
    assert_true(forgotten > 400000);
    assert_true(keys_memory(keys) <= 5 * MIB);
    for (unsigned i = 0; i < 200; i++) {
        struct keys_entry *entry = keys_at(keys, find(keys, 0, text, key_text(text, sizeof text, i), &hash));
        assert_int_equal(entry->pending, i % 2 == 0 ? 0 : i);
        if (i % 2 == 0) assert_int_equal(keys_denial(keys, entry)->denied, i + 1);
    }
    keys_free(keys);
}

/* ---- Frequent texts ---- */

static void few_texts_are_counted_exactly(void **state) {
    (void)state;
    struct heavy *heavy = heavy_new();
    struct heavy_item items[20];
    uint64_t error, seed = 3;
    uint64_t counts[HEAVY_MOST] = {0};
    char text[16];
    for (int i = 0; i < 50000; i++) {
        const unsigned which =
            (unsigned)(random_next(&seed) % HEAVY_MOST * (random_next(&seed) % HEAVY_MOST) / HEAVY_MOST);
        counts[which]++;
        heavy_add(heavy, (struct rules_text){text, (size_t)snprintf(text, sizeof text, "%u", which)});
    }
    assert_int_equal(heavy_list(heavy, items, 20, &error), 20);
    assert_int_equal(error, 0);
    uint64_t before = UINT64_MAX;
    for (size_t i = 0; i < 20; i++) {
        memcpy(text, items[i].text.bytes, items[i].text.len);
        text[items[i].text.len] = '\0';
        assert_int_equal(items[i].n, counts[atoi(text)]);
        assert_true(items[i].n <= before);
        before = items[i].n;
    }
    uint64_t over = 0; /* no text that is more frequent is left out */
    for (size_t i = 0; i < HEAVY_MOST; i++)
        over += counts[i] > before;
    assert_true(over < 20);
    heavy_free(heavy);
}

/* Of 40 frequent texts among a hundred thousand others, each is found, and the error is as large as it says. */
static void frequent_texts_are_found_among_many(void **state) {
    (void)state;
    struct heavy *heavy = heavy_new();
    struct heavy_item items[40];
    uint64_t error;
    char text[32];
    for (unsigned i = 0; i < 100000; i++) {
        heavy_add(heavy, (struct rules_text){text, (size_t)snprintf(text, sizeof text, "other-%u", i)});
        if (i % 2 == 0)
            heavy_add(heavy, (struct rules_text){text, (size_t)snprintf(text, sizeof text, "%u", i / 2 % 40)});
    }
    assert_int_equal(heavy_list(heavy, items, 40, &error), 40);
    assert_between(error, 1, 150000 / (HEAVY_MOST + 1));
    for (size_t i = 0; i < 40; i++) {
        assert_true(items[i].text.len <= 2);
        assert_true(items[i].n <= 1250 && items[i].n + error >= 1250);
    }
    heavy_free(heavy);
}

/* ---- Histograms ---- */

static void the_rank_of_a_histogram_is_exact_or_a_little_high(void **state) {
    (void)state;
    struct histogram *histogram = calloc(1, sizeof *histogram);
    int64_t values[999];
    uint64_t seed = 9;
    for (int i = 0; i < 999; i++) {
        values[i] = random_edgy(&seed, 0, INT64_C(1) << 53);
        histogram_add(histogram, values[i]);
    }
    for (int i = 1; i < 999; i++)
        for (int k = i; k > 0 && values[k - 1] > values[k]; k--) {
            const int64_t swap = values[k];
            values[k] = values[k - 1];
            values[k - 1] = swap;
        }
    for (uint64_t rank = 1; rank <= 999; rank++) {
        const int64_t found = histogram_rank(histogram, rank), exact = values[rank - 1];
        assert_between(found, exact, exact < HISTOGRAM_EXACT ? exact : exact + exact / 128);
    }
    assert_int_equal(histogram_rank(histogram, 999), values[998]);
    assert_int_equal(histogram_rank_of(1000, 0.999), 999);
    assert_int_equal(histogram_rank_of(1000, 0.9991), 1000);
    assert_int_equal(histogram_rank_of(10, 0.0001), 1);
    assert_int_equal(histogram_rank_of(10, 1), 10);
    free(histogram);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_key_of_a_limit_has_one_entry),
                                       cmocka_unit_test(keys_without_room_share_an_entry),
                                       cmocka_unit_test(idle_keys_are_forgotten_first),
                                       cmocka_unit_test(few_texts_are_counted_exactly),
                                       cmocka_unit_test(frequent_texts_are_found_among_many),
                                       cmocka_unit_test(the_rank_of_a_histogram_is_exact_or_a_little_high)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
