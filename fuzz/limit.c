/* SPDX-License-Identifier: MIT
 * Fuzzes rates and durations: any text. An accepted value is in range; a refused text changes nothing. */
#include <stdlib.h>
#include <string.h>

#include "core/limit.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    steady_us duration = -7;
    steady_limit limit = {-7, -7, -7, 0, NULL, {0}};
    steady_message why = {.text = ""};
    char *text = malloc(len + 1);
    if (text == NULL) return 0;
    memcpy(text, bytes, len);
    text[len] = '\0';
    if (steady_duration_parse(&duration, text, &why) == 0 ? duration < 0 : duration != -7 || why.text[0] == '\0')
        abort();
    why.text[0] = '\0';
    if (steady_limit_parse(&limit, text, &why) == 0) {
        if (steady_limit_check(&limit, &why) != 0) abort();
    } else if (limit.max_capacity != -7 || limit.drop_recharge != -7 || limit.drops != -7 || why.text[0] == '\0') {
        abort();
    }
    free(text);
    return 0;
}
