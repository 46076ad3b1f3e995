/* SPDX-License-Identifier: MIT
 * The options that describe a request, and the document of explain.h as text. */
#include "explain_text.h"

#include <stdio.h>
#include <string.h>

bool explain_text_option(json_t *request, int option, const char *value) {
    static const struct {
        const char *member;
        int option;
        bool list;
    } options[] = {{"request", 'r', false}, {"host", 'o', false},   {"ip", 'i', false},
                   {"headers", 'H', true},  {"domain", 'd', false}, {"entries", 'e', true}};
    size_t i = 0;
    while (i < sizeof options / sizeof options[0] && options[i].option != option)
        i++;
    if (i == sizeof options / sizeof options[0]) return false;
    json_t *text = json_string_nocheck(value); /* a header need not be UTF-8 */
    if (!options[i].list) {
        json_object_set_new(request, options[i].member, text);
        return true;
    }
    json_t *list = json_object_get(request, options[i].member);
    if (list == NULL) json_object_set_new(request, options[i].member, list = json_array());
    json_array_append_new(list, text);
    return true;
}

/* ---- Printing ---- */

static const char *explain_text_of(const json_t *object, const char *member) {
    const char *text = json_string_value(json_object_get(object, member));
    return text != NULL ? text : "";
}

static bool explain_text_is(const json_t *object, const char *member) {
    return json_is_true(json_object_get(object, member));
}

static double explain_text_number(const json_t *object, const char *member) {
    return json_number_value(json_object_get(object, member));
}

/* A text of the request, without codes for the terminal (also those of two bytes, from U+0080 on). */
static void explain_text_put(const char *text) {
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        const bool c1 = c == 0xc2 && (unsigned char)text[1] < 0xa0;
        putchar(c < ' ' || c == 0x7f || c1 ? '?' : c);
        if (c1) text++;
    }
}

static void explain_text_print_limit(const json_t *limit) {
    static const struct {
        const char *kind, *text;
    } kinds[] = {{"take", ""},
                 {"look", " (looked at; the cost comes after)"},
                 {"charge", " (charged)"},
                 {"shadow", " (shadow: it denies nothing)"}};
    const json_t *rate = json_object_get(limit, "rate");
    const double block = explain_text_number(rate, "block"), cost = explain_text_number(limit, "cost");
    if (explain_text_is(limit, "unlimited")) {
        printf("  line %.0f: unlimited\n", explain_text_number(limit, "line"));
        return;
    }
    printf("  %-20s ", explain_text_of(limit, "name"));
    if (explain_text_is(limit, "never")) {
        printf("0 requests: always denied\n");
        return;
    }
    printf("%.0f in %.10g s, burst %.0f", explain_text_number(rate, "drops"), explain_text_number(rate, "seconds"),
           explain_text_number(rate, "burst"));
    if (block > 0) printf(", block %.10g s", block);
    if (cost != 1) printf(", cost %.0f", cost);
    if (*explain_text_of(limit, "tier") != '\0') printf(", tier %s", explain_text_of(limit, "tier"));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].kind, explain_text_of(limit, "kind")) == 0) printf("%s", kinds[i].text);
    printf("\n  %-20s key ", "");
    explain_text_put(explain_text_of(limit, "key"));
    printf(", stored as ");
    explain_text_put(explain_text_of(limit, "stored"));
    printf("\n");
    if (explain_text_is(limit, "key_is_missing"))
        printf("  %-20s (a field of its key is missing or comes twice, so the key is the address)\n", "");
    if (json_object_get(limit, "says") != NULL) printf("  %-20s %s\n", "", explain_text_of(limit, "says"));
}

static void explain_text_print_client(const json_t *document) {
    const json_t *client = json_object_get(document, "client");
    const char *address = explain_text_of(client, "address"), *peer = explain_text_of(client, "peer");
    if (*address == '\0') {
        if (!explain_text_is(document, "envoy")) printf("The address is not known; add --ip ADDRESS.\n");
    } else if (strcmp(explain_text_of(client, "from"), "x-forwarded-for") == 0) {
        printf("client %s, of X-Forwarded-For: ", address);
        printf(*peer != '\0' ? "the peer %s is trusted\n" : "without --ip the peer counts as a trusted proxy\n", peer);
    } else if (explain_text_is(client, "is_forwarded")) {
        printf("client %s, the peer: ", address);
        printf(explain_text_is(client, "peer_is_trusted") ? "X-Forwarded-For names no other client\n"
                                                          : "X-Forwarded-For does not count, because the peer is not "
                                                            "trusted\n");
    }
}

/* What the daemon would answer now. */
static void explain_text_print_answer(const json_t *answer) {
    const char *code = explain_text_of(answer, "code"), *name, *source = explain_text_of(answer, "source");
    const double wait = explain_text_number(answer, "wait");
    json_t *value;
    if (answer == NULL) return;
    if (*code != '\0')
        printf("answer: %s", code);
    else
        printf("answer: %.0f", explain_text_number(answer, "status"));
    if (wait > 0) printf(", held for %.10g s", wait);
    if (strcmp(source, "none") == 0 || strcmp(source, "policy") == 0)
        printf(", without a verdict of the store: %s", explain_text_of(answer, "error"));
    if (strcmp(source, "local") == 0)
        printf(", by the local share, because the store has no verdict: %s", explain_text_of(answer, "error"));
    printf("\n");
    json_object_foreach(json_object_get(answer, "fields"), name, value) {
        printf("  %s: %s\n", name, json_string_value(value));
    }
}

void explain_text_print(const json_t *document) {
    const json_t *limits = json_object_get(document, "limits"), *others = json_object_get(document, "others");
    const char *outcome = explain_text_of(document, "outcome");
    if (strcmp(outcome, "refused") == 0)
        printf("the request is refused: %s\n", explain_text_of(document, "reason"));
    else
        printf(strcmp(outcome, "exempt") == 0   ? "the request is exempt from all limits\n"
               : strcmp(outcome, "limits") == 0 ? "limits that count:\n"
                                                : "no limit counts for the request\n");
    for (size_t i = 0; i < json_array_size(limits); i++)
        explain_text_print_limit(json_array_get(limits, i));
    if (json_array_size(others) > 0) printf("limits that do not count:\n");
    for (size_t i = 0; i < json_array_size(others); i++)
        printf("  %-20s %s\n", explain_text_of(json_array_get(others, i), "name"),
               explain_text_of(json_array_get(others, i), "why"));
    explain_text_print_client(document);
    explain_text_print_answer(json_object_get(document, "answer"));
}

void explain_text_print_json(const json_t *document) {
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    printf("\n");
}
