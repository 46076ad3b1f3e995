/* SPDX-License-Identifier: MIT
 * Fuzzes the text of a reservation: any text. A text that is read is written as it was, and all its numbers are in
 * range. */
#include <stdlib.h>
#include <string.h>

#include "core/limit.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    steady_reservation *reservation = NULL;
    steady_message why = {.text = ""};
    char *text = malloc(len + 1), *again = malloc(len + 1);
    if (text == NULL || again == NULL) abort();
    memcpy(text, bytes, len);
    text[len] = '\0';
    if (steady_reservation_parse(&reservation, text, &why) == 0) {
        size_t n = 0;
        const steady_reserved *parts = steady_reservation_parts(reservation, &n);
        if (n < 1 || n > 64) abort();
        for (size_t i = 0; i < n; i++)
            if (steady_limit_check(&parts[i].limit, NULL) != 0 || parts[i].key_len < 1 || parts[i].key_len > 1024 ||
                parts[i].moment < 0)
                abort();
        if (steady_reservation_text(reservation, again, len + 1) != strlen(text) || strcmp(again, text) != 0) abort();
        steady_reservation_free(&reservation);
    } else if (reservation != NULL || why.text[0] == '\0') {
        abort();
    }
    free(text);
    free(again);
    return 0;
}
