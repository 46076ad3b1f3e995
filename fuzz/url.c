/* SPDX-License-Identifier: MIT
 * Fuzzes store URLs: any text. */
#include <stdlib.h>
#include <string.h>

#include "core/url.h"

static void check_copy(const struct steady__url *url) {
    static struct steady__url copy;
    steady__url_copy(&copy, url);
    if (strcmp(copy.host, url->host) != 0 || strcmp(copy.path, url->path) != 0) abort();
    if (strcmp(copy.user, url->user) != 0 || strcmp(copy.password, url->password) != 0) abort();
    if (strcmp(copy.service, url->service) != 0 || strcmp(copy.sentinel_password, url->sentinel_password) != 0) abort();
    for (unsigned i = 0; i < url->n_sentinels; i++)
        if (strcmp(copy.sentinels[i].host, url->sentinels[i].host) != 0) abort();
    if (steady__url_is_sentinel(url->scheme) != (url->n_sentinels > 0)) abort();
    steady__url_clear(&copy);
    if (*url->password != '\0' && memmem(copy.bytes, sizeof copy.bytes, url->password, strlen(url->password)) != NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static struct steady__url url;
    steady_message why = {.text = ""};
    char *text = malloc(len + 1);
    if (text == NULL) return 0;
    memcpy(text, bytes, len);
    text[len] = '\0';
    const int error = steady__url_parse(&url, text, &why);
    if (error == 0)
        check_copy(&url);
    else if ((error != STEADY_BAD_ARGUMENT && error != STEADY_UNSUPPORTED) || why.text[0] == '\0')
        abort();
    for (const char *c = why.text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') abort();
    char quoted[60] = "x";
    steady_quote(quoted, len % sizeof quoted, text);
    for (const char *c = quoted; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') abort();
    free(text);
    return 0;
}
