/* SPDX-License-Identifier: MIT
 * Fuzzes the command line: the name of a command and its arguments, a line each. It parses them and runs nothing. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define ARGS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const int commands[] = {FOR_CONSUME, FOR_PEEK,   FOR_RESET, FOR_WAIT,
                                   FOR_RESERVE, FOR_SETTLE, FOR_BENCH, FOR_OTHERS};
    static const steady_limit usual = {10, STEADY_SECOND, 0, 0, NULL, {0}};
    struct options options;
    struct limits limits;
    char *args[ARGS_MAX + 1] = {NULL};
    char *text = malloc(len + 1), *rest = NULL;
    if (text == NULL || len == 0) {
        free(text);
        return 0;
    }
    memcpy(text, bytes, len);
    text[len] = '\0';
    int argc = 0;
    for (char *arg = strtok_r(text + 1, "\n", &rest); arg != NULL && argc < ARGS_MAX; arg = strtok_r(NULL, "\n", &rest))
        args[argc++] = arg;
    if (options_read(&options, commands[bytes[0] % 8], "consume", args) == ALLOWED && !options.help &&
        options_limits(&options, bytes[0] % 2 != 0 ? &usual : NULL, &limits) == ALLOWED && bytes[0] % 2 != 0 &&
        limits.all[0].max_capacity < 1)
        abort();
    free(text);
    return 0;
}
