/* SPDX-License-Identifier: MIT
 * steady check: reads a rules file, and says which limits count for a request. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "rules/rules.h"

enum { RIGHT = 0, WRONG = 2, FIELDS_MOST = 100 };

static const char help[] =
    "usage: steady check FILE [--request 'METHOD TARGET'] [--ip ADDRESS] [--header 'NAME: VALUE']\n"
    "                         [--domain NAME --entry KEY=VALUE ...]\n"
    "\n"
    "Reads a rules file. With a request, says which limits count for it, and with what key.\n"
    "\n"
    "  --request 'POST /login'   the method and the target\n"
    "  --host NAME               the host\n"
    "  --ip ADDRESS              the address of the client\n"
    "  --header 'NAME: VALUE'    a header field; repeat it for more\n"
    "  --domain NAME             of a request of Envoy, with\n"
    "  --entry KEY=VALUE         the entries of its descriptor, in their order\n"
    "  --help\n"
    "\n"
    "Exit codes: 0 the file is right, 2 it is not.\n";

static int explain_complain(const char *what, const char *value) {
    char quoted[200];
    steady_quote(quoted, sizeof quoted, value);
    fprintf(stderr, "steady check: %s: \"%s\"\n", what, quoted);
    return WRONG;
}

static struct rules_text explain_text(const char *text) { return (struct rules_text){text, strlen(text)}; }

static struct rules_text explain_trimmed(struct rules_text text) {
    while (text.len > 0 && text.bytes[0] == ' ')
        text = (struct rules_text){text.bytes + 1, text.len - 1};
    return text;
}

/* NAME, a separator, VALUE */
static bool explain_split(struct rules_field *field, const char *text, char separator) {
    const char *at = strchr(text, separator);
    if (at == NULL || at == text) return false;
    field->name = (struct rules_text){text, (size_t)(at - text)};
    field->value = explain_trimmed(explain_text(at + 1));
    return true;
}

/* ---- The request ---- */

struct asked {
    struct rules_request request;
    struct rules_field fields[FIELDS_MOST], entries[FIELDS_MOST];
    struct steady__address ip;
    bool any;
};

static int explain_read_option(struct asked *asked, int option, const char *value) {
    struct rules_request *request = &asked->request;
    struct rules_field method;
    asked->any = true;
    switch (option) {
    case 'r':
        if (!explain_split(&method, value, ' '))
            return explain_complain("a request is METHOD TARGET, such as POST /login", value);
        request->method = method.name;
        request->target = method.value;
        return RIGHT;
    case 'o': request->host = explain_text(value); return RIGHT;
    case 'i':
        if (!steady__address_parse(&asked->ip, value, strlen(value)))
            return explain_complain("this is no address", value);
        request->ip = &asked->ip;
        return RIGHT;
    case 'H':
        if (request->n_fields == FIELDS_MOST) return explain_complain("too many headers", value);
        if (!explain_split(&asked->fields[request->n_fields], value, ':'))
            return explain_complain("a header is 'NAME: VALUE'", value);
        if (asked->fields[request->n_fields].name.len == 4 && strncasecmp(value, "host", 4) == 0)
            request->host = asked->fields[request->n_fields].value;
        request->n_fields++;
        return RIGHT;
    case 'd': request->domain = explain_text(value); return RIGHT;
    default:
        if (request->n_entries == FIELDS_MOST) return explain_complain("too many entries", value);
        if (!explain_split(&asked->entries[request->n_entries], value, '='))
            return explain_complain("an entry is KEY=VALUE", value);
        request->n_entries++;
        return RIGHT;
    }
}

/* ---- What it says ---- */

static void explain_print_rate(const steady_limit *limit) {
    const int64_t drops = limit->drops > 0 ? limit->drops : 1;
    printf("%lld in %g s, burst %lld", (long long)drops, (double)limit->drop_recharge / 1e6,
           (long long)limit->max_capacity);
    if (limit->block_duration > 0) printf(", block %g s", (double)limit->block_duration / 1e6);
}

static void explain_print_part(const struct rules *rules, const struct rules_limit *limit, size_t rate,
                               struct rules_text key, enum steady_kind kind) {
    static const char *const kinds[] = {"", " (looked at; the cost comes after)", " (charged)",
                                        " (shadow: it denies nothing)"};
    char stored[RULES_KEY_MAX];
    const size_t len = rules_stored_key(stored, rules, limit, key);
    printf("  %-20s ", limit->name);
    explain_print_rate(&limit->rates[rate]);
    printf("%s\n  %-20s key %.*s, stored as %.*s\n", kinds[kind], "", (int)key.len, key.bytes, (int)len, stored);
    if (key.len > 0 && key.bytes[0] == '+')
        printf("  %-20s (a field of its key is missing or comes twice, so the key is the address)\n", "");
}

static void explain_print_condition(const struct rules_condition *condition) {
    static const char *const kinds[] = {"ip", "header ", "cookie ", "query ", "path", "host", "method", "descriptor "};
    printf("%s%s is not ", kinds[condition->kind], condition->name != NULL ? condition->name : "");
    if (condition->kind == RULES_KEY_IP) printf("in its networks");
    for (size_t i = 0; i < condition->n_values; i++)
        printf("%s%s", i > 0 ? " or " : "", condition->values[i]);
    printf("\n");
}

/* Why the other limits do not count. */
static void explain_print_others(const struct rules *rules, const struct asked *asked, struct rules_match *match) {
    const bool by_descriptor = asked->request.n_entries > 0;
    bool any = false;
    for (size_t i = 0; i < rules->n_limits && !match->exempt; i++) {
        const struct rules_limit *limit = &rules->limits[i];
        bool counts = limit->of_domain;
        for (size_t k = 0; k < match->n_parts; k++)
            counts = counts || match->parts[k].limit == limit;
        if (counts) continue;
        if (!any) printf("limits that do not count:\n");
        any = true;
        printf("  %-20s ", limit->name);
        const struct rules_condition *condition =
            limit->by_descriptor == by_descriptor ? rules_mismatch(match, limit, &asked->request) : NULL;
        if (limit->by_descriptor != by_descriptor)
            printf(limit->by_descriptor ? "it counts for descriptors of Envoy only: --domain and --entry\n"
                                        : "it does not count for descriptors of Envoy\n");
        else if (condition != NULL)
            explain_print_condition(condition);
        else
            printf("the request is exempt, or has no key\n");
    }
}

static int explain_print_match(const struct rules *rules, const struct asked *asked) {
    static struct rules_match match;
    char key[RULES_KEY_MAX];
    if (rules_match(&match, rules, &asked->request) == RULES_REFUSED) {
        printf("the request is refused: %s\n", match.reason.text);
        return RIGHT;
    }
    const struct rules_descriptor *found =
        asked->request.n_entries > 0 ? rules_find_descriptor(rules, &asked->request) : NULL;
    const size_t n = match.n_parts + (found != NULL);
    printf(match.exempt ? "the request is exempt from all limits\n"
           : n == 0     ? "no limit counts for the request\n"
                        : "limits that count:\n");
    if (found != NULL && found->unlimited) printf("  line %d: unlimited\n", found->line);
    if (found != NULL && found->never) printf("  %-20s 0 requests: always denied\n", found->limit->name);
    if (found != NULL && !found->unlimited && !found->never)
        explain_print_part(rules, found->limit, 0,
                           (struct rules_text){key, rules_descriptor_key(key, rules, &asked->request)},
                           found->limit->shadow ? STEADY_SHADOW : STEADY_TAKE);
    for (size_t i = 0; i < match.n_parts; i++)
        explain_print_part(rules, match.parts[i].limit, match.parts[i].rate,
                           (struct rules_text){match.keys + match.parts[i].key_at, match.parts[i].key_len},
                           match.parts[i].kind);
    explain_print_others(rules, asked, &match);
    if (asked->request.ip == NULL && asked->request.n_entries == 0)
        printf("The address is not known; add --ip ADDRESS.\n");
    return RIGHT;
}

static void explain_print_summary(const char *file, const struct rules *rules) {
    printf("%s is right: %zu limit%s", file, rules->n_limits, rules->n_limits == 1 ? "" : "s");
    if (rules->n_domains > 0) printf(" in %zu domain%s of Envoy", rules->n_domains, rules->n_domains == 1 ? "" : "s");
    if (rules->n_warnings > 0) printf(", %zu warning%s", rules->n_warnings, rules->n_warnings == 1 ? "" : "s");
    printf("\n");
}

int explain_main(int argc, char **argv) {
    static const struct option names[] = {
        {"request", required_argument, NULL, 'r'}, {"host", required_argument, NULL, 'o'},
        {"ip", required_argument, NULL, 'i'},      {"header", required_argument, NULL, 'H'},
        {"domain", required_argument, NULL, 'd'},  {"entry", required_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    static struct asked asked;
    struct rules_error error;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return RIGHT;
        }
        if (c == '?') {
            fprintf(stderr, "steady check --help lists the options\n");
            return WRONG;
        }
        if (explain_read_option(&asked, c, optarg) != RIGHT) return WRONG;
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "steady check: name one FILE; steady check --help explains the rest\n");
        return WRONG;
    }
    asked.request.fields = asked.fields;
    asked.request.entries = asked.entries;
    struct rules *rules = rules_read(argv[optind], &error);
    if (rules == NULL) {
        fprintf(stderr, "%s\n", error.text);
        return WRONG;
    }
    for (size_t i = 0; i < rules->n_warnings; i++)
        fprintf(stderr, "warning: %s\n", rules->warnings[i]);
    if (!asked.any) explain_print_summary(argv[optind], rules);
    const int code = asked.any ? explain_print_match(rules, &asked) : RIGHT;
    rules_free(rules);
    return code;
}
