/* SPDX-License-Identifier: MIT
 * The client behind trusted proxies. */
#include <string.h>
#include <strings.h>

#include "rules.h"

bool rules_is_trusted(const struct rules *rules, const struct steady__address *address) {
    for (size_t i = 0; i < rules->n_trusted; i++)
        if (steady__network_has(&rules->trusted[i], address)) return true;
    return false;
}

static bool address_is_blank(char c) { return c == ' ' || c == '\t'; }

/* Walks over the entries of a field from the last to the first. False: the walk ends here. */
static bool address_walk(const struct rules *rules, struct steady__address *client, bool *known,
                         struct rules_text list) {
    struct steady__address next;
    size_t end = list.len;
    for (;;) {
        size_t begin = end;
        if (*known && !rules_is_trusted(rules, client)) return false;
        while (begin > 0 && list.bytes[begin - 1] != ',')
            begin--;
        struct rules_text entry = {list.bytes + begin, end - begin};
        while (entry.len > 0 && address_is_blank(entry.bytes[0]))
            entry = (struct rules_text){entry.bytes + 1, entry.len - 1};
        while (entry.len > 0 && address_is_blank(entry.bytes[entry.len - 1]))
            entry.len--;
        if (!steady__address_parse(&next, entry.bytes, entry.len)) return false;
        *client = next;
        *known = true;
        if (begin == 0) return true;
        end = begin - 1;
    }
}

bool rules_client_address(struct steady__address *client, const struct rules *rules, const struct steady__address *peer,
                          const struct rules_field *fields, size_t n_fields) {
    static const char name[] = "x-forwarded-for";
    bool known = peer != NULL;
    if (known) *client = *peer;
    for (size_t i = n_fields; i > 0; i--) {
        const struct rules_field *field = &fields[i - 1];
        if (field->name.len != sizeof name - 1 || strncasecmp(field->name.bytes, name, sizeof name - 1) != 0) continue;
        if (!address_walk(rules, client, &known, field->value)) break;
    }
    return known;
}
