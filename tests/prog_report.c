/* SPDX-License-Identifier: MIT
 * Writes a report of report_rig.h: prog_report all|login|... text|json|csv|html [COLUMNS] [color] */
#include "report_rig.h"

/* NULL: there is no report of this name. */
static struct report *named(const char *name) {
    static const char *const names[] = {"login", "search", "unused", "shadow"};
    for (size_t i = 0; i < RIG_LIMITS; i++)
        if (strcmp(name, names[i]) == 0) return rig_alone(i);
    return strcmp(name, "all") == 0     ? rig_report()
           : strcmp(name, "empty") == 0 ? rig_empty()
           : strcmp(name, "line") == 0  ? rig_one_line()
                                        : NULL;
}

int main(int argc, char **argv) {
    const struct report *report = argc >= 3 ? named(argv[1]) : NULL;
    if (report == NULL) return 2;
    if (strcmp(argv[2], "text") == 0)
        return !report_write_text(report, stdout, argc > 3 ? (unsigned)atoi(argv[3]) : 80, argc > 4);
    if (strcmp(argv[2], "json") == 0) return !report_write_json(report, stdout);
    if (strcmp(argv[2], "csv") == 0) return !report_write_csv(report, stdout);
    return !report_write_html(report, stdout);
}
