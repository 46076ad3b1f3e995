/* SPDX-License-Identifier: MIT
 * Fuzzes rules files: any bytes. An error names the file and a reason; accepted limits are in range and have names. */
#include "rules/rules.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct rules_error error = {.text = ""};
    steady_message why;
    struct rules *rules = rules_read_text("fuzz", (const char *)bytes, len, &error);
    if (rules == NULL) {
        if (strncmp(error.text, "fuzz:", 5) != 0 || strlen(error.text) < 8) abort();
        return 0;
    }
    for (size_t i = 0; i < rules->n_limits; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        if (limit->index != i || limit->name == NULL || limit->stored_name == NULL || limit->n_rates == 0) abort();
        for (size_t k = 0; k < limit->n_rates; k++)
            if (steady_limit_check(&limit->rates[k], &why) != 0) abort();
        for (size_t k = 0; k < limit->n_tiers; k++)
            if (limit->tiers[k].rate >= limit->n_rates) abort();
    }
    rules_free(rules);
    return 0;
}
