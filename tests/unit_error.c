/* SPDX-License-Identifier: MIT
 * Errors: names and sentences, messages cut to size, and the last error of a store, which other threads read. */
#include "support.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/error.h"

#define TEXT_SIZE sizeof((steady_message *)NULL)->text

/* ---- Names and sentences ---- */

/* Values and words never change: programs and their users compare them. */
static void words_of_all_errors_are_those_of_the_interface(void **state) {
    static const char *const words[] = {"ok",           "unavailable",  "unknown",      "overloaded", "cancelled",
                                        "not_a_bucket", "refused",      "bad_argument", "no_memory",  "closed",
                                        "unsupported",  "bad_file",     "system",       "server",     "wrong_thread",
                                        "no_loop",      "not_in_flight"};
    (void)state;
    for (size_t i = 0; i < COUNT(words); i++)
        assert_string_equal(steady_error_name(-(int)i), words[i]);
    assert_string_equal(steady_error_name(-(int)COUNT(words)), "?");
}

static void sentence_of_each_error_is_that_of_the_header(void **state) {
    (void)state;
#define ENTRY(name, value, word, sentence) assert_string_equal(steady_error_text(STEADY_##name), sentence);
    STEADY_ERRORS(ENTRY)
#undef ENTRY
    assert_string_equal(steady_error_text(STEADY_OK), "no error");
}

static void each_error_has_a_name_and_a_text_of_its_own(void **state) {
    (void)state;
    for (int error = STEADY_NOT_IN_FLIGHT; error <= 0; error++)
        for (int other = STEADY_NOT_IN_FLIGHT; other < error; other++) {
            assert_string_not_equal(steady_error_name(error), steady_error_name(other));
            assert_string_not_equal(steady_error_text(error), steady_error_text(other));
        }
}

static void number_that_is_no_error_has_a_text_of_its_own(void **state) {
    static const int none[] = {1, 16, -17, -1000, INT32_MAX, INT32_MIN};
    (void)state;
    for (size_t i = 0; i < COUNT(none); i++) {
        assert_string_equal(steady_error_name(none[i]), "?");
        assert_string_equal(steady_error_text(none[i]), "unknown error code");
    }
}

static void version_of_the_library_is_that_of_the_header(void **state) {
    (void)state;
    assert_string_equal(steady_version(), STEADY_VERSION);
}

/* ---- Messages ---- */

/* A text of `len` times the same letter. */
static const char *text_of(char letter, size_t len) {
    static char text[2 * TEXT_SIZE];
    assert_true(len < sizeof text);
    memset(text, letter, len);
    text[len] = '\0';
    return text;
}

static void failed_call_returns_its_error_and_writes_the_reason(void **state) {
    steady_message why;
    (void)state;
    memset(&why, 'x', sizeof why);
    assert_int_equal(steady__fail(&why, STEADY_BAD_FILE, "%s: %d", "line", 7), STEADY_BAD_FILE);
    assert_string_equal(why.text, "line: 7");
    assert_int_equal(((char *)why.reserved)[0], 'x');
}

static void failed_call_needs_no_room_for_a_reason(void **state) {
    (void)state;
    assert_int_equal(steady__fail(NULL, STEADY_CLOSED, "%s", "not shown"), STEADY_CLOSED);
}

static void reason_is_cut_to_the_size_of_a_message(void **state) {
    (void)state;
    for (size_t len = TEXT_SIZE - 2; len <= TEXT_SIZE + 1; len++) {
        steady_message why;
        memset(&why, 'x', sizeof why);
        steady__fail(&why, STEADY_SYSTEM, "%s", text_of('a', len));
        assert_string_equal(why.text, text_of('a', len < TEXT_SIZE ? len : TEXT_SIZE - 1));
        assert_int_equal(((char *)why.reserved)[0], 'x');
    }
}

/* Copies `len` bytes into `size` bytes, and fails if a byte beyond them has changed. */
static const char *printable_in(size_t size, const char *bytes, size_t len) {
    static char out[32];
    assert_true(size < sizeof out);
    memset(out, 'x', sizeof out);
    steady__printable(out, size, bytes, len);
    for (size_t i = size; i < sizeof out; i++)
        assert_int_equal(out[i], 'x');
    return out;
}

static void unprintable_bytes_are_shown_as_question_marks(void **state) {
    (void)state;
    assert_string_equal(printable_in(20, " Az~", 4), " Az~");
    assert_string_equal(printable_in(20, "\x1f\x7f\x80\xff\n\0\033[", 8), "???????[");
    assert_string_equal(printable_in(20, "", 0), "");
}

static void printable_text_is_cut_to_its_room(void **state) {
    (void)state;
    assert_string_equal(printable_in(5, "abcd", 4), "abcd");
    assert_string_equal(printable_in(5, "abcde", 5), "abcd");
    assert_string_equal(printable_in(1, "abc", 3), "");
    printable_in(0, "abc", 3);
}

static void printable_text_ends_where_the_caller_says(void **state) {
    (void)state;
    assert_string_equal(printable_in(20, "abcdef", 3), "abc");
}

/* ---- The last error ---- */

static struct steady__last_error last;

static int set_up(void **state) {
    (void)state;
    memset(&last, 0, sizeof last);
    return 0;
}

static const char *last_text(void) {
    static steady_message message;
    memset(&message, 'x', sizeof message);
    steady__last_error_get(&last, &message);
    for (size_t i = 0; i < COUNT(message.reserved); i++)
        assert_int_equal(message.reserved[i], 0);
    return message.text;
}

static void last_error_is_empty_before_the_first_error(void **state) {
    (void)state;
    assert_string_equal(last_text(), "");
}

static void noted_error_is_returned_and_its_text_kept(void **state) {
    (void)state;
    assert_int_equal(steady__note_error(&last, STEADY_SERVER, "%s %d", "port", 6379), STEADY_SERVER);
    assert_string_equal(last_text(), "port 6379");
    assert_string_equal(last_text(), "port 6379");
}

/* Each text is written beside the one before it. */
static void last_error_is_the_newest_of_many(void **state) {
    char expected[16];
    (void)state;
    for (int i = 0; i < 5; i++) {
        steady__note_error(&last, STEADY_UNAVAILABLE, "error %d", i);
        snprintf(expected, sizeof expected, "error %d", i);
        assert_string_equal(last_text(), expected);
    }
}

static void shorter_error_leaves_nothing_of_a_longer_one(void **state) {
    steady_message message;
    (void)state;
    for (int i = 0; i < 2; i++)
        steady__note_error(&last, STEADY_UNAVAILABLE, "%s", text_of('a', TEXT_SIZE - 1));
    steady__note_error(&last, STEADY_UNAVAILABLE, "short");
    steady__last_error_get(&last, &message);
    for (size_t i = strlen("short"); i < sizeof message.text; i++)
        assert_int_equal(message.text[i], '\0');
}

static void last_error_is_cut_to_the_size_of_a_message(void **state) {
    (void)state;
    for (size_t len = TEXT_SIZE - 2; len <= TEXT_SIZE + 1; len++) {
        steady__note_error(&last, STEADY_UNAVAILABLE, "%s", text_of('b', len));
        assert_string_equal(last_text(), text_of('b', len < TEXT_SIZE ? len : TEXT_SIZE - 1));
    }
}

static void text_that_is_set_without_an_end_is_read_with_one(void **state) {
    steady_message message;
    (void)state;
    memset(message.text, 'c', sizeof message.text);
    steady__last_error_set(&last, &message);
    assert_string_equal(last_text(), text_of('c', TEXT_SIZE - 1));
}

/* A fork in the middle of a write copies such a state to the child. */
static void half_written_error_leaves_the_one_before_it_whole(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        steady__note_error(&last, STEADY_UNAVAILABLE, "whole %d", i);
        const unsigned edition = atomic_load(&last.edition);
        steady__note_error(&last, STEADY_UNAVAILABLE, "%s", text_of('h', TEXT_SIZE - 1));
        atomic_store(&last.edition, edition);
        assert_string_equal(last_text(), i == 0 ? "whole 0" : "whole 1");
    }
}

static void text_is_found_when_the_number_of_texts_overflows(void **state) {
    char expected[16];
    (void)state;
    atomic_store(&last.edition, UINT_MAX - 1);
    for (int i = 0; i < 4; i++) {
        steady__note_error(&last, STEADY_UNAVAILABLE, "error %d", i);
        snprintf(expected, sizeof expected, "error %d", i);
        assert_string_equal(last_text(), expected);
    }
}

static atomic_bool read_enough;

/* Writes texts of one letter each, as long as a message can be, and as fast as possible. */
static void *write_last_error(void *arg) {
    steady_message messages[26];
    (void)arg;
    memset(messages, 0, sizeof messages);
    for (size_t i = 0; i < COUNT(messages); i++)
        memset(messages[i].text, 'a' + (int)i, TEXT_SIZE - 1);
    for (size_t i = 0; !atomic_load(&read_enough); i = (i + 1) % COUNT(messages))
        steady__last_error_set(&last, &messages[i]);
    return NULL;
}

static void last_error_read_during_writes_is_one_whole_text(void **state) {
    const steady_us begun_at = now_us();
    pthread_t writer;
    char torn[TEXT_SIZE] = "";
    unsigned long changes = 0;
    char before = '\0';
    (void)state;
    steady__note_error(&last, STEADY_UNAVAILABLE, "%s", text_of('z', TEXT_SIZE - 1));
    atomic_store(&read_enough, false);
    assert_int_equal(pthread_create(&writer, NULL, write_last_error, NULL), 0);
    /* At least 300 ms, and until the writer has had a processor. */
    while (*torn == '\0' && now_us() - begun_at < (changes < 100 ? 20 * STEADY_SECOND : 300 * STEADY_MILLISECOND)) {
        steady_message read;
        steady__last_error_get(&last, &read);
        const char first = read.text[0];
        if (first < 'a' || first > 'z' || strcmp(read.text, text_of(first, TEXT_SIZE - 1)) != 0)
            memcpy(torn, read.text, sizeof torn);
        changes += first != before;
        before = first;
    }
    atomic_store(&read_enough, true);
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_string_equal(torn, "");
    assert_true(changes >= 100);
}

#define WITH_LAST_ERROR(test) cmocka_unit_test_setup(test, set_up)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_all_errors_are_those_of_the_interface),
        cmocka_unit_test(sentence_of_each_error_is_that_of_the_header),
        cmocka_unit_test(each_error_has_a_name_and_a_text_of_its_own),
        cmocka_unit_test(number_that_is_no_error_has_a_text_of_its_own),
        cmocka_unit_test(version_of_the_library_is_that_of_the_header),
        cmocka_unit_test(failed_call_returns_its_error_and_writes_the_reason),
        cmocka_unit_test(failed_call_needs_no_room_for_a_reason),
        cmocka_unit_test(reason_is_cut_to_the_size_of_a_message),
        cmocka_unit_test(unprintable_bytes_are_shown_as_question_marks),
        cmocka_unit_test(printable_text_is_cut_to_its_room),
        cmocka_unit_test(printable_text_ends_where_the_caller_says),
        WITH_LAST_ERROR(last_error_is_empty_before_the_first_error),
        WITH_LAST_ERROR(noted_error_is_returned_and_its_text_kept),
        WITH_LAST_ERROR(last_error_is_the_newest_of_many),
        WITH_LAST_ERROR(shorter_error_leaves_nothing_of_a_longer_one),
        WITH_LAST_ERROR(last_error_is_cut_to_the_size_of_a_message),
        WITH_LAST_ERROR(text_that_is_set_without_an_end_is_read_with_one),
        WITH_LAST_ERROR(half_written_error_leaves_the_one_before_it_whole),
        WITH_LAST_ERROR(text_is_found_when_the_number_of_texts_overflows),
        WITH_LAST_ERROR(last_error_read_during_writes_is_one_whole_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
