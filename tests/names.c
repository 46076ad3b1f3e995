/* SPDX-License-Identifier: MIT
 * A fake resolver. */
#include "names.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support.h"

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char addresses[16384];
    int error;
    steady_us after;
} answer;
static unsigned asked;

void names_say(const char *addresses, int error, steady_us after) {
    pthread_mutex_lock(&lock);
    snprintf(answer.addresses, sizeof answer.addresses, "%s", addresses);
    answer.error = error;
    answer.after = after;
    pthread_mutex_unlock(&lock);
}

unsigned names_asked(void) {
    pthread_mutex_lock(&lock);
    const unsigned n = asked;
    pthread_mutex_unlock(&lock);
    return n;
}

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list) {
    char addresses[16384], *rest = NULL;
    if ((hints->ai_flags & AI_NUMERICHOST) != 0 || strcmp(host, "localhost") == 0)
        return __real_getaddrinfo(host, port, hints, list);
    pthread_mutex_lock(&lock);
    asked++;
    memcpy(addresses, answer.addresses, sizeof addresses);
    const int error = answer.error;
    const steady_us after = answer.after;
    pthread_mutex_unlock(&lock);
    if (after > 0) sleep_us(after);
    *list = NULL;
    for (char *a = strtok_r(addresses, " ", &rest); a != NULL && error == 0; a = strtok_r(NULL, " ", &rest)) {
        const int wrong = __real_getaddrinfo(a, port, hints, list);
        if (wrong != 0) return wrong;
        while (*list != NULL)
            list = &(*list)->ai_next;
    }
    return error;
}
