/* SPDX-License-Identifier: MIT
 * Calls on several buckets: what they refuse, and with which text; the keys and names of several limits; and the text
 * of a reservation. Nothing here decides on more than one bucket: see unit_several.c. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assertions.h"
#include "random.h"
#include "steady.h"

#define SECOND STEADY_SECOND
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const steady_limit second = {.max_capacity = 10, .drop_recharge = SECOND, .drops = 10};
static const steady_limit hour = {.max_capacity = 1000, .drop_recharge = 3600 * SECOND, .drops = 1000};

static steady_store *store, *other_store;
static steady_throttler *one, *several, *other, *elsewhere;
static steady_message why;

static steady_throttler *throttler_of(steady_store *s, const steady_limit *limits, size_t n, const char *prefix) {
    steady_throttler *t = NULL;
    const steady_throttler_options options = {.prefix = prefix};
    if (steady_throttler_new_limits(&t, s, limits, n, &options, &why) != 0) fail_msg("%s", why.text);
    return t;
}

static int set_up(void **state) {
    (void)state;
    const steady_limit two[] = {second, hour};
    assert_int_equal(steady_store_open(&store, "memory:", NULL, NULL), 0);
    assert_int_equal(steady_store_open(&other_store, "memory:", NULL, NULL), 0);
    one = throttler_of(store, &second, 1, "one:");
    other = throttler_of(store, &hour, 1, "other:");
    several = throttler_of(store, two, 2, "two:");
    elsewhere = throttler_of(other_store, &second, 1, "one:");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    steady_throttler **all[] = {&one, &several, &other, &elsewhere};
    for (size_t i = 0; i < COUNT(all); i++)
        steady_throttler_free(all[i]);
    steady_store_close(&store);
    steady_store_close(&other_store);
    return 0;
}

static steady_part part(steady_throttler *t, const char *key, int64_t amount, enum steady_kind kind) {
    return (steady_part){.throttler = t, .key = key, .key_len = strlen(key), .amount = amount, .kind = kind};
}

static void assert_untouched(void) {
    steady_result r;
    const char *keys[] = {"a", "b", "k"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        assert_int_equal(steady_peek_sync(one, keys[i], 1, &r), 0);
        assert_int_equal(r.level, 0);
        assert_int_equal(steady_peek_sync(other, keys[i], 1, &r), 0);
        assert_int_equal(r.level, 0);
    }
}

static void assert_refused(const steady_part *parts, size_t n, steady_how how, const char *text) {
    steady_result r;
    how.why = &why;
    why.text[0] = '\0';
    assert_int_equal(steady_consume_all_sync(parts, n, &how, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(r.error, STEADY_BAD_ARGUMENT);
    assert_false(r.success);
    if (strcmp(why.text, text) != 0) fail_msg("it says \"%s\", not \"%s\"", why.text, text);
    why.text[0] = '\0';
    assert_int_equal(steady_peek_all_sync(parts, n, &how, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, text);
    assert_untouched();
}

static void number_of_parts_must_be_1_to_64(void **state) {
    steady_part parts[65];
    char keys[65][8];
    (void)state;
    for (size_t i = 0; i < COUNT(parts); i++) {
        snprintf(keys[i], sizeof keys[i], "k%zu", i);
        parts[i] = part(i == 0 ? one : several, keys[i], 1, STEADY_TAKE);
    }
    assert_refused(parts, 0, (steady_how){0}, "n_parts is 0; it must be 1 .. 64");
    assert_refused(parts, 65, (steady_how){0}, "n_parts is 65; it must be 1 .. 64");
    assert_refused(NULL, 1, (steady_how){0}, "parts is NULL");
    assert_refused(parts, 33, (steady_how){0}, "the parts have 65 buckets together; they must have 1 .. 64");
}

static void wrong_part_is_named_with_its_field_and_range(void **state) {
    (void)state;
    const struct {
        steady_part bad;
        const char *text;
    } cases[] = {
        {part(NULL, "b", 1, STEADY_TAKE), "parts[1]: throttler is NULL"},
        {part(elsewhere, "b", 1, STEADY_TAKE), "parts[1]: its throttler has another store than parts[0]"},
        {{.throttler = other, .key = NULL, .key_len = 1}, "parts[1]: key is NULL"},
        {{.throttler = other, .key = "", .key_len = 0}, "parts[1]: key_len is 0; it must be 1 .. 1024 bytes"},
        {part(other, "b", INT64_C(2147483648), STEADY_TAKE),
         "parts[1]: amount is 2147483648; it must be -2147483647 .. 2147483647"},
        {part(other, "b", INT64_MIN, STEADY_TAKE),
         "parts[1]: amount is -9223372036854775808; it must be -2147483647 .. 2147483647"},
        {part(other, "b", -1, STEADY_LOOK),
         "parts[1]: amount is -1; it must be 0 .. 2147483647 for a look, a charge or a shadow"},
        {part(other, "b", -1, STEADY_CHARGE),
         "parts[1]: amount is -1; it must be 0 .. 2147483647 for a look, a charge or a shadow"},
        {part(other, "b", -1, STEADY_SHADOW),
         "parts[1]: amount is -1; it must be 0 .. 2147483647 for a look, a charge or a shadow"},
        {part(other, "b", 1, (enum steady_kind)4), "parts[1]: kind is 4; it must be a value of enum steady_kind"},
        {{.throttler = other, .key = "b", .key_len = 1, .reserved = {0, 0, 0, 1}},
         "parts[1]: reserved fields of steady_part must be zero"},
        {part(one, "a", 2, STEADY_LOOK), "parts[0] and parts[1] have the same bucket"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const steady_part parts[] = {part(one, "a", 1, STEADY_TAKE), cases[i].bad};
        assert_refused(parts, 2, (steady_how){0}, cases[i].text);
    }
}

static void wrong_option_is_named_with_its_range(void **state) {
    const steady_part parts[] = {part(one, "a", 3, STEADY_TAKE), part(other, "b", 3, STEADY_TAKE)};
    const steady_part unequal[] = {part(one, "a", 3, STEADY_TAKE), part(other, "b", 4, STEADY_TAKE)};
    const steady_part mixed[] = {part(one, "a", 3, STEADY_TAKE), part(other, "b", 3, STEADY_SHADOW)};
    (void)state;
    assert_refused(parts, 2, (steady_how){.max_wait = -1},
                   "max_wait is -1 us; it must be 0 .. 4503599627370496 us (2^52)");
    assert_refused(parts, 2, (steady_how){.max_wait = (INT64_C(1) << 52) + 1},
                   "max_wait is 4503599627370497 us; it must be 0 .. 4503599627370496 us (2^52)");
    assert_refused(parts, 2, (steady_how){.at_least = -1},
                   "at_least is -1; it must be 1 .. the amount, or 0: not given");
    assert_refused(parts, 2, (steady_how){.at_least = 4}, "at_least is 4; it must be 1 .. the amount (3)");
    assert_refused(unequal, 2, (steady_how){.at_least = 1},
                   "parts[1]: amount is 4; with at_least all amounts must be equal (parts[0]: 3)");
    assert_refused(mixed, 2, (steady_how){.at_least = 1}, "parts[1]: with at_least every kind must be take");
    assert_refused(parts, 2, (steady_how){.reserved = {[5] = 1}}, "reserved fields of steady_how must be zero");
}

static void plain_call_that_is_refused_has_a_text(void **state) {
    steady_how how = {.why = &why};
    steady_call call = {.key = "k", .key_len = 0, .amount = 1, .how = &how};
    steady_result r;
    (void)state;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "parts[0]: key_len is 0; it must be 1 .. 1024 bytes");
    call.key_len = 1;
    call.amount = INT64_C(1) << 31;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "parts[0]: amount is 2147483648; it must be -2147483647 .. 2147483647");
    call.amount = 1;
    how.reserved[0] = 1;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "reserved fields of steady_how must be zero");
    how.reserved[0] = 0;
    call.verb = (enum steady_verb)9;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "verb is 9; it must be a value of enum steady_verb");
    call.verb = STEADY_CONSUME;
    call.reserved[1] = 1;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "reserved fields of steady_call must be zero");
    call.reserved[1] = 0;
    call.verb = STEADY_RESET;
    call.kind = (enum steady_kind)77;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "parts[0]: kind is 77; it must be a value of enum steady_kind");
    call.kind = STEADY_TAKE;
    how.max_wait = -1;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    call.verb = STEADY_CONSUME;
    assert_int_equal(steady_decide_sync(one, &call, &r), STEADY_BAD_ARGUMENT);
    assert_string_equal(why.text, "max_wait is -1 us; it must be 0 .. 4503599627370496 us (2^52)");
    assert_untouched();
}

/* ---- Limits ---- */

static void assert_no_limits(const steady_limit *limits, size_t n, const char *text) {
    steady_throttler *t = (steady_throttler *)&store;
    why.text[0] = '\0';
    assert_int_equal(steady_throttler_new_limits(&t, store, limits, n, NULL, &why), STEADY_BAD_ARGUMENT);
    assert_null(t);
    if (strcmp(why.text, text) != 0) fail_msg("it says \"%s\", not \"%s\"", why.text, text);
}

static void limits_need_different_names_in_range(void **state) {
    char long_name[66];
    (void)state;
    memset(long_name, 'n', 65);
    long_name[65] = '\0';
    const char *bad[] = {"", "a b", "a{", "a}", "a%", "\x7f", "\n", "\xc3\xa4", long_name};
    for (size_t i = 0; i < COUNT(bad); i++) {
        const steady_limit limits[] = {second, {.max_capacity = 1, .drop_recharge = 1, .name = bad[i]}};
        assert_no_limits(limits, 2, "limits[1]: name must be 1 .. 64 printable ASCII bytes without spaces, %, { and }");
        assert_no_limits(limits + 1, 1, "name must be 1 .. 64 printable ASCII bytes without spaces, %, { and }");
    }
    const steady_limit same[] = {second, hour, second};
    assert_no_limits(same, 3, "limits[2]: the name \"1s\" is that of limits[0]; two limits of one period need names");
    const steady_limit wrong[] = {second, {.max_capacity = 0, .drop_recharge = 1}};
    assert_no_limits(wrong, 2, "limits[1]: max_capacity is 0; it must be 1 .. 2147483647");
    assert_no_limits(same, 0, "n_limits is 0; it must be 1 .. 64");
    assert_no_limits(same, 65, "n_limits is 65; it must be 1 .. 64");
    assert_no_limits(NULL, 1, "limit is NULL");
}

static steady_reservation *parsed(const char *text) {
    steady_reservation *r = NULL;
    if (steady_reservation_parse(&r, text, &why) != 0) fail_msg("%s: %s", text, why.text);
    return r;
}

/* A cluster would hash the whole key: the first pair of braces is empty. */
static void prefix_with_empty_braces_is_refused_for_several_limits(void **state) {
    (void)state;
    const steady_limit two[] = {second, hour};
    static const char *const bad[] = {"{}", "a{}", "a{}{y}"}, *const good[] = {"{", "}{", "a{b}", "{a}{}", "{{}"};
    steady_throttler *t = NULL;
    for (size_t i = 0; i < COUNT(bad); i++) {
        const steady_throttler_options options = {.prefix = bad[i]};
        assert_int_equal(steady_throttler_new_limits(&t, store, two, 2, &options, &why), STEADY_BAD_ARGUMENT);
        assert_non_null(strstr(why.text, "prefix has \"{}\""));
        assert_int_equal(steady_throttler_new(&t, store, &second, &options, &why), 0);
        steady_throttler_free(&t);
    }
    for (size_t i = 0; i < COUNT(good); i++) {
        t = throttler_of(store, two, 2, good[i]);
        steady_throttler_free(&t);
    }
}

static void text_about_a_throttler_of_several_limits_names_the_limit(void **state) {
    (void)state;
    const int64_t large[] = {3, INT64_C(1) << 31}, unequal[] = {3, 4};
    steady_part p = part(several, "k", 0, STEADY_TAKE);
    p.amounts = large;
    assert_refused(&p, 1, (steady_how){0},
                   "parts[0], limit \"1h\": amount is 2147483648; it must be -2147483647 .. 2147483647");
    p.amounts = unequal;
    assert_refused(&p, 1, (steady_how){.at_least = 1},
                   "parts[0], limit \"1h\": amount is 4; with at_least all amounts must be equal (parts[0], limit "
                   "\"1s\": 3)");
}

/* ---- Reservations ---- */

#define WHOLE "r1,2,77;two:%7Ba%2525%7D1s,1s,4,1,10,100000,1,5,5,1234;two:%7Bk%7Dday,day,4,1,1000,3600000,1,-7,-7,0;"

static void reservation_text_is_read_back_as_it_was(void **state) {
    char text[sizeof WHOLE + 10];
    size_t n = 0;
    (void)state;
    steady_reservation *r = parsed(WHOLE);
    const steady_reserved *parts = steady_reservation_parts(r, &n);
    assert_int_equal(n, 2);
    assert_int_equal(parts[0].key_len, strlen("two:{a%25}1s"));
    assert_memory_equal(parts[0].key, "two:{a%25}1s", parts[0].key_len);
    assert_string_equal(parts[0].name, "1s");
    assert_int_equal(parts[0].granted, 5);
    assert_int_equal(parts[0].moment, 1234);
    assert_int_equal(parts[1].amount, -7);
    assert_int_equal(parts[1].granted, -7);
    assert_int_equal(parts[1].limit.max_capacity, 1000);
    assert_int_equal(steady_reservation_text(r, text, sizeof text), strlen(WHOLE));
    assert_string_equal(text, WHOLE);
    for (size_t size = 0; size < sizeof WHOLE; size++) { /* a text that is cut has its NUL, and is refused */
        memset(text, '#', sizeof text);
        assert_int_equal(steady_reservation_text(r, text, size), strlen(WHOLE));
        assert_int_equal(text[size], '#');
        if (size == 0) continue;
        assert_int_equal(strlen(text), size - 1);
        assert_memory_equal(text, WHOLE, size - 1);
    }
    steady_reservation_free(&r);
    assert_null(r);
    steady_reservation_free(&r);
    steady_reservation_free(NULL);
}

static void assert_no_reservation(const char *text) {
    steady_reservation *r = (steady_reservation *)&store;
    why.text[0] = '\0';
    if (steady_reservation_parse(&r, text, &why) != STEADY_BAD_ARGUMENT) fail_msg("it reads \"%s\"", text);
    assert_null(r);
    assert_string_equal(why.text, "the text is not a reservation, or a part of it is missing");
}

static void text_that_is_no_reservation_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "r1",
        "r1,",
        "r1,1;k,1s,0,0,1,1,1,1,1,1;", /* no store */
        "r1,1,9007199254740992;k,1s,0,0,1,1,1,1,1,1;",
        "r1,0,0;",
        "r1,65,0;",
        "r2,1;k,1s,0,0,1,1,1,1,1,1;",
        "hello",
        "r1,1,0;k,1s,0,0,1,1,1,1,1,1",                       /* cut */
        "r1,1,0;k,1s,0,0,1,1,1,1,1,1;;",                     /* more */
        "r1,2,0;k,1s,0,0,1,1,1,1,1,1;",                      /* a part is missing */
        "r1,1,0;,1s,0,0,1,1,1,1,1,1;",                       /* no key */
        "r1,1,0;k k,1s,0,0,1,1,1,1,1,1;",                    /* not escaped */
        "r1,1,0;k,1%00s,0,0,1,1,1,1,1,1;",                   /* the name of a limit has no NUL */
        "r1,1,0;%4,1s,0,0,1,1,1,1,1,1;",                     /* half an escape */
        "r1,1,0;%6b,1s,0,0,1,1,1,1,1,1;",                    /* another form of the same */
        "r1,2,0;k,1s,0,0,1,1,1,1,1,1;k,1h,0,0,1,1,1,1,1,1;", /* one bucket twice */
        "r1,1,0;k,1s,1,0,1,1,1,1,1,1;",                      /* no key after the prefix */
        "r1,1,0;k,1s,0,2,1,1,1,1,1,1;",                      /* several is 0 or 1 */
        "r1,1,0;k,1s,0,0,0,1,1,1,1,1;",                      /* capacity */
        "r1,1,0;k,1s,0,0,1,0,1,1,1,1;",                      /* recharge */
        "r1,1,0;k,1s,0,0,1,1,0,1,1,1;",                      /* drops */
        "r1,1,0;k,1s,0,0,1,1,1000001,1,1,1;",
        "r1,1,0;k,1s,0,0,2147483647,9007199254740991,1,1,1,1;", /* their product */
        "r1,1,0;k,1s,0,0,1,1,1,2147483648,1,1;",
        "r1,1,0;k,1s,0,0,1,1,1,1,-2147483648,1;",
        "r1,1,0;k,1s,0,0,1,1,1,1,2,1;", /* more than was asked for */
        "r1,1,0;k,1s,0,0,1,1,1,1,-1,1;",
        "r1,1,0;k,1s,0,0,1,1,1,-1,1,1;",
        "r1,1,0;k,1s,0,0,1,1,1,-1,-2,1;",
        "r1,1,0;k,1s,0,0,1,1,1,1,1,-1;",
        "r1,1,0;k,1s,0,0,1,1,1,1,1,9007199254740992;",
        "r1,1,0;k,1s,0,0,1,1,1,1,01,1;",
        "r1,1,0;k,1s,0,0,1,1,1,-0,1,1;",
        "r1,1,0;k,1s,0,0,1,1,1, 1,1,1;",
        "r1,1,0;k,1s,0,0,1,1,1,,1,1;",
        "r1,1,0;k,1 s,0,0,1,1,1,1,1,1;",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_no_reservation(bad[i]);
    char *cut = strdup(WHOLE);
    for (size_t len = strlen(cut); len-- > 0;) {
        cut[len] = '\0';
        assert_no_reservation(cut);
    }
    free(cut);
    steady_reservation *r = NULL;
    assert_int_equal(steady_reservation_parse(NULL, WHOLE, &why), STEADY_BAD_ARGUMENT);
    assert_int_equal(steady_reservation_parse(&r, NULL, &why), STEADY_BAD_ARGUMENT);
}

/* Any bytes are refused, or read as a reservation that is written as these bytes. */
static void random_text_is_refused_or_has_one_form(void **state) {
    static const char letters[] = "0123456789,;-%r7Bak{} \n:";
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        char text[sizeof WHOLE + 8], again[sizeof text];
        strcpy(text, WHOLE);
        for (int64_t changes = random_in(&seed, 1, 3); changes > 0; changes--)
            text[random_in(&seed, 0, sizeof WHOLE - 2)] = letters[random_in(&seed, 0, sizeof letters - 2)];
        steady_reservation *r = NULL;
        if (steady_reservation_parse(&r, text, NULL) != 0) continue;
        assert_int_equal(steady_reservation_text(r, again, sizeof again), strlen(text));
        assert_string_equal(again, text);
        steady_reservation_free(&r);
    }
}

static void assert_no_settlement(steady_settlement s, const char *text) {
    steady_result r;
    why.text[0] = '\0';
    s.why = &why;
    assert_int_equal(steady_settle_sync(&s, &r), STEADY_BAD_ARGUMENT);
    assert_int_equal(r.error, STEADY_BAD_ARGUMENT);
    if (strcmp(why.text, text) != 0) fail_msg("it says \"%s\", not \"%s\"", why.text, text);
}

static void wrong_settlement_is_refused(void **state) {
    (void)state;
    steady_throttler *of_one[] = {one}, *of_two[] = {one, elsewhere}, *of_none[] = {NULL}, *of_several[] = {several};
    steady_reservation *r = parsed("r1,1,0;one:k,1s,4,0,10,100000,1,5,5,1;");
    steady_reservation *unequal = parsed("r1,2,0;two:%7Bk%7D1s,1s,4,1,10,100000,1,5,5,1;"
                                         "two:%7Bk%7D1h,1h,4,1,1000,3600000,1,6,6,1;");
    steady_reservation *drain = parsed("r1,1,0;one:k,1s,4,0,10,100000,1,-5,-5,1;");
    const int64_t below[] = {-2}, none[] = {-1}, zero[] = {0};
    const steady_settlement good = {.reservation = r, .throttlers = of_one, .n_throttlers = 1};
    steady_settlement s = good;
    s.reservation = NULL;
    assert_no_settlement(s, "reservation is NULL");
    s = good;
    s.actual = -1;
    assert_no_settlement(s, "actual is -1; it must be 0 or more");
    s = good;
    s.actuals = below;
    assert_no_settlement(s, "actuals[0] is -2; it must be 0 or more, or -1");
    s.actuals = none;
    assert_no_settlement(s, "actuals names no part of the reservation");
    s = good;
    s.throttlers = of_none;
    assert_no_settlement(s, "throttlers[0] is NULL");
    s.throttlers = of_two;
    s.n_throttlers = 2;
    assert_no_settlement(s, "throttlers[1] has another store than throttlers[0]");
    s = good;
    s.throttlers = of_several;
    assert_no_settlement(s, "part 0 of the reservation (limit \"1s\") belongs to none of the throttlers");
    s = good;
    s.reservation = unequal;
    s.throttlers = of_several;
    assert_no_settlement(s, "the reservation asked 5 of part 0 and 6 of part 1; give each its actual");
    s = good;
    s.reservation = drain;
    s.actuals = zero;
    assert_no_settlement(s, "part 0 took drops out; it cannot be settled");
    s = good;
    s.reserved[2] = 1;
    assert_no_settlement(s, "reserved fields of steady_settlement must be zero");
    s = good;
    s.n_throttlers = 0;
    assert_no_settlement(s, "n_throttlers is 0 and store is NULL; name the throttlers that reserved, or their store");
    s = good;
    s.throttlers = NULL;
    assert_no_settlement(s, "throttlers is NULL");
    s = good;
    s.store = other_store;
    assert_no_settlement(s, "throttlers[0] has another store than `store`");
    steady_reservation_free(&r);
    steady_reservation_free(&unequal);
    steady_reservation_free(&drain);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(number_of_parts_must_be_1_to_64),
        TEST(wrong_part_is_named_with_its_field_and_range),
        TEST(wrong_option_is_named_with_its_range),
        TEST(plain_call_that_is_refused_has_a_text),
        TEST(limits_need_different_names_in_range),
        TEST(prefix_with_empty_braces_is_refused_for_several_limits),
        TEST(text_about_a_throttler_of_several_limits_names_the_limit),
        TEST(reservation_text_is_read_back_as_it_was),
        TEST(text_that_is_no_reservation_is_refused),
        TEST(random_text_is_refused_or_has_one_form),
        TEST(wrong_settlement_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
