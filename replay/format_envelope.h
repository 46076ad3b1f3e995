/* SPDX-License-Identifier: MIT
 * What stands around a line: runtimes of containers and syslog keep the lines of a server inside of their own. */
#ifndef STEADY_REPLAY_FORMAT_ENVELOPE_H
#define STEADY_REPLAY_FORMAT_ENVELOPE_H

#include "rules/rules.h"

enum format_envelope {
    ENVELOPE_NONE,
    ENVELOPE_DOCKER,  /* {"log":"LINE\n","stream":"stdout","time":"..."}: the driver json-file of Docker */
    ENVELOPE_CRI,     /* 2026-12-01T08:00:00.1Z stdout F LINE: containerd, CRI-O */
    ENVELOPE_COMPOSE, /* web-1  | LINE: docker compose logs */
    ENVELOPE_SYSLOG,  /* <190>Dec  1 08:00:00 host nginx: LINE, with or without <190>; or RFC 5424 */
    ENVELOPE_COUNT
};

/* Bytes for a line whose escapes are decoded. Zero it once; free `bytes`. */
struct format_envelope_room {
    char *bytes;
    size_t len;
};

extern const char *const format_envelope_names[ENVELOPE_COUNT];

/* Takes the line out of its envelope. False: it is in none of this kind. */
bool format_envelope_open(enum format_envelope envelope, struct rules_text *line, struct format_envelope_room *room);

#endif
