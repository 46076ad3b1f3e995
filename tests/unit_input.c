/* SPDX-License-Identifier: MIT
 * Log files line by line, with the real gzip, zstd and xz. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#include "replay/input.h"

static char dir[] = "/tmp/steady-input-XXXXXX";

static const char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t len) {
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Runs a command of the shell in the directory. */
static void run(const char *what) {
    char command[256];
    snprintf(command, sizeof command, "cd %s && %s", dir, what);
    assert_int_equal(system(command), 0);
}

static struct input *open_file(const char *name) {
    char why[256] = "";
    struct input *input = input_open(path_of(name), why, sizeof why);
    if (input == NULL) fail_msg("%s", why);
    return input;
}

static void expect_line(struct input *input, const char *bytes, size_t len) {
    struct rules_text line;
    assert_int_equal(input_line(input, &line), INPUT_LINE);
    assert_int_equal(line.len, len);
    assert_memory_equal(line.bytes, bytes, len);
}

static void no_program_is_left(void) { assert_true(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD); }

static int setup(void **state) {
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void lines_end_with_lf_or_crlf_and_may_have_nul(void **state) {
    static const char bytes[] = "one\ntwo\r\n\n\r\nn\0l\nlast";
    struct rules_text line;
    (void)state;
    write_file("lines", bytes, sizeof bytes - 1);
    struct input *input = open_file("lines");
    expect_line(input, "one", 3);
    expect_line(input, "two", 3);
    expect_line(input, "", 0);
    expect_line(input, "", 0);
    expect_line(input, "n\0l", 3);
    assert_int_equal(input_line_number(input), 5);
    expect_line(input, "last", 4);
    assert_int_equal(input_line(input, &line), INPUT_END);
    assert_int_equal(input_line(input, &line), INPUT_END);
    assert_null(input_trouble(input));
    assert_int_equal(input_size(input), sizeof bytes - 1);
    assert_int_equal(input_position(input), sizeof bytes - 1);
    input_close(input);
}

static void empty_file_has_no_line(void **state) {
    struct rules_text line;
    (void)state;
    write_file("empty", "", 0);
    struct input *input = open_file("empty");
    assert_int_equal(input_line(input, &line), INPUT_END);
    assert_int_equal(input_line_number(input), 0);
    input_close(input);
}

/* Writes lines of all lengths around those of the buffers, and reads them. */
static void many_lines(const char *compress, const char *ending) {
    char name[32], text[64];
    FILE *file = fopen(path_of("many"), "wb");
    struct rules_text line;
    const size_t lines = 200000;
    for (size_t i = 0; i < lines; i++) {
        fprintf(file, "%zu ", i);
        for (size_t k = i * 7 % (i % 1000 == 0 ? 300000 : 120); k > 0; k--)
            fputc('x', file);
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
    if (compress != NULL) run(compress);
    snprintf(name, sizeof name, "many%s", ending);
    struct input *input = open_file(name);
    for (size_t i = 0; i < lines; i++) {
        assert_int_equal(input_line(input, &line), INPUT_LINE);
        const size_t n = (size_t)snprintf(text, sizeof text, "%zu ", i);
        assert_int_equal(line.len, n + i * 7 % (i % 1000 == 0 ? 300000 : 120));
        assert_memory_equal(line.bytes, text, n);
        assert_true(line.len == n || line.bytes[line.len - 1] == 'x');
    }
    assert_int_equal(input_line(input, &line), INPUT_END);
    assert_null(input_trouble(input));
    assert_int_equal(input_position(input), input_size(input));
    assert_true(input_size(input) > 0);
    input_close(input);
    no_program_is_left();
}

static void long_lines_and_many_lines_are_read_whole(void **state) {
    (void)state;
    many_lines(NULL, "");
}

static void gz_zst_and_xz_are_read(void **state) {
    (void)state;
    many_lines("gzip -1 <many >many.gz", ".gz");
    many_lines("zstd -q -1 -f <many >many.zst", ".zst");
    many_lines("xz -0 <many >many.xz", ".xz");
}

static void line_over_the_most_is_cut_and_counted(void **state) {
    const size_t len = INPUT_LINE_MAX + 600000;
    char *bytes = malloc(len + 3);
    struct rules_text line;
    (void)state;
    memset(bytes, 'a', len);
    memcpy(bytes + len, "\nb\n", 3);
    write_file("long", bytes, len + 3);
    struct input *input = open_file("long");
    expect_line(input, bytes, INPUT_LINE_MAX);
    expect_line(input, "b", 1);
    assert_int_equal(input_line(input, &line), INPUT_END);
    assert_int_equal(input_cut_lines(input), 1);
    assert_int_equal(input_line_number(input), 2);
    input_close(input);
    write_file("long", bytes, len); /* and nothing follows */
    input = open_file("long");
    expect_line(input, bytes, INPUT_LINE_MAX);
    assert_int_equal(input_line(input, &line), INPUT_END);
    input_close(input);
    bytes[INPUT_LINE_MAX] = '\n';
    write_file("long", bytes, INPUT_LINE_MAX + 1);
    input = open_file("long");
    expect_line(input, bytes, INPUT_LINE_MAX);
    assert_int_equal(input_cut_lines(input), 0);
    input_close(input);
    free(bytes);
}

/* Reads all lines; returns their number. The outcome is that at the end. */
static size_t read_all(struct input *input, enum input_outcome *outcome) {
    struct rules_text line;
    size_t n = 0;
    while ((*outcome = input_line(input, &line)) == INPUT_LINE)
        n++;
    return n;
}

static void truncated_file_gives_what_came_before_and_then_an_error(void **state) {
    static const char *const programs[] = {"gzip", "zstd", "xz"};
    enum input_outcome outcome;
    char text[128];
    (void)state;
    for (size_t i = 0; i < COUNT(programs); i++) {
        snprintf(text, sizeof text, "seq 1 1000000 | %s -c | head -c 100000 >cut", programs[i]);
        run(text);
        struct input *input = open_file("cut");
        assert_between(read_all(input, &outcome), 1000, 999999);
        assert_int_equal(outcome, INPUT_ERROR);
        snprintf(text, sizeof text, "%s failed: the file is truncated or damaged", programs[i]);
        assert_string_equal(input_trouble(input), text);
        input_close(input);
        no_program_is_left();
    }
}

static void absent_program_is_an_error_that_names_it(void **state) {
    char why[256], *path = strdup(getenv("PATH"));
    (void)state;
    run("seq 1 10 | gzip -c >little.gz");
    setenv("PATH", dir, 1);
    assert_null(input_open(path_of("little.gz"), why, sizeof why));
    setenv("PATH", path, 1);
    assert_string_equal(why, "it is compressed, and the program gzip is not installed");
    free(path);
    no_program_is_left();
}

static void file_that_is_cut_while_it_is_read_is_an_error(void **state) {
    enum input_outcome outcome;
    struct rules_text line;
    (void)state;
    run("seq 1 1000000 >shrinks");
    struct input *input = open_file("shrinks");
    for (int i = 0; i < 10; i++)
        assert_int_equal(input_line(input, &line), INPUT_LINE);
    assert_int_equal(truncate(path_of("shrinks"), 1000), 0);
    assert_between(read_all(input, &outcome), 1000, 500000);
    assert_int_equal(outcome, INPUT_ERROR);
    assert_non_null(strstr(input_trouble(input), "cut to 1000 bytes while it was read"));
    input_close(input);
}

static void file_that_grows_is_read_to_its_end(void **state) {
    enum input_outcome outcome;
    struct rules_text line;
    (void)state;
    run("seq 1 100000 >grows");
    struct input *input = open_file("grows");
    assert_int_equal(input_line(input, &line), INPUT_LINE);
    run("seq 100001 100010 >>grows");
    assert_int_equal(read_all(input, &outcome), 100009);
    assert_int_equal(outcome, INPUT_END);
    input_close(input);
}

/* Runs `read` with a file as standard input. */
static void with_standard_input(const char *name, bool pipe_it, size_t lines) {
    enum input_outcome outcome;
    char why[256], command[256];
    FILE *cat = NULL;
    const int saved = dup(STDIN_FILENO);
    snprintf(command, sizeof command, "cat %s", path_of(name));
    if (pipe_it) cat = popen(command, "r");
    const int fd = pipe_it ? fileno(cat) : open(path_of(name), O_RDONLY);
    assert_true(dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    struct input *input = input_open("-", why, sizeof why);
    if (input == NULL) fail_msg("%s", why);
    assert_int_equal(read_all(input, &outcome), lines);
    assert_int_equal(outcome, INPUT_END);
    assert_true(input_position(input) > 0);
    input_close(input);
    dup2(saved, STDIN_FILENO);
    close(saved);
    if (pipe_it)
        pclose(cat);
    else
        close(fd);
    no_program_is_left();
}

static void standard_input_is_read_plain_and_compressed(void **state) {
    (void)state;
    run("seq 1 300000 >seq");
    run("gzip -c <seq >seq.gz");
    run("zstd -q -c <seq >seq.zst");
    run("printf 'one' >short");
    with_standard_input("seq", false, 300000);
    with_standard_input("seq", true, 300000);
    with_standard_input("seq.gz", false, 300000);
    with_standard_input("seq.gz", true, 300000);
    with_standard_input("seq.zst", true, 300000);
    with_standard_input("short", true, 1);
}

static void input_that_is_closed_early_leaves_no_program(void **state) {
    char why[256];
    int in[2];
    (void)state;
    run("seq 1 2000000 | gzip -1c >large.gz");
    struct input *input = open_file("large.gz");
    expect_line(input, "1", 1);
    input_close(input);
    no_program_is_left();
    /* Of a standard input that does not end, the thread waits for more. */
    const int saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(in), 0);
    dup2(in[0], STDIN_FILENO);
    const int file = open(path_of("large.gz"), O_RDONLY);
    char bytes[8192];
    const ssize_t n = read(file, bytes, sizeof bytes);
    assert_int_equal(write(in[1], bytes, (size_t)n), n);
    input = input_open("-", why, sizeof why);
    assert_non_null(input);
    input_close(input);
    dup2(saved, STDIN_FILENO);
    close(file);
    close(saved);
    close(in[0]);
    close(in[1]);
    no_program_is_left();
}

static volatile sig_atomic_t alarms;
static void on_alarm(int signal) {
    (void)signal;
    alarms = alarms + 1;
}

static void signals_do_not_end_the_reading(void **state) {
    const struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART */
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    (void)state;
    run("seq 1 300000 | gzip -c >seq.gz");
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    enum input_outcome outcome;
    struct input *input = open_file("seq.gz");
    const size_t n = read_all(input, &outcome);
    input_close(input);
    setitimer(ITIMER_REAL, &never, NULL);
    assert_int_equal(n, 300000);
    assert_int_equal(outcome, INPUT_END);
    assert_true(alarms > 0);
    no_program_is_left();
}

static void absent_file_and_directory_are_errors(void **state) {
    char why[256];
    (void)state;
    assert_null(input_open(path_of("absent"), why, sizeof why));
    assert_string_equal(why, "No such file or directory");
    assert_null(input_open(dir, why, sizeof why));
    assert_non_null(strstr(why, "it is a directory"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_end_with_lf_or_crlf_and_may_have_nul),
        cmocka_unit_test(empty_file_has_no_line),
        cmocka_unit_test(long_lines_and_many_lines_are_read_whole),
        cmocka_unit_test(gz_zst_and_xz_are_read),
        cmocka_unit_test(line_over_the_most_is_cut_and_counted),
        cmocka_unit_test(truncated_file_gives_what_came_before_and_then_an_error),
        cmocka_unit_test(absent_program_is_an_error_that_names_it),
        cmocka_unit_test(file_that_is_cut_while_it_is_read_is_an_error),
        cmocka_unit_test(file_that_grows_is_read_to_its_end),
        cmocka_unit_test(standard_input_is_read_plain_and_compressed),
        cmocka_unit_test(input_that_is_closed_early_leaves_no_program),
        cmocka_unit_test(signals_do_not_end_the_reading),
        cmocka_unit_test(absent_file_and_directory_are_errors),
    };
    return cmocka_run_group_tests_name("input", tests, setup, teardown);
}
