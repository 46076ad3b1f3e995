/* SPDX-License-Identifier: MIT
 * Reads the arguments of the commands on several keys: numkeys, the keys, and a PART for each of them. The daemon reads
 * its RESP commands with it, too. Each function returns false if an argument is wrong, and *why says what. */
#ifndef STEADY__MODULE_PARTS_ARGUMENTS_H
#define STEADY__MODULE_PARTS_ARGUMENTS_H

#include "arguments.h"

#define STEADY__KEYS_MAX STEADY__PARTS_MAX

/* What CONSUMEALL and PEEKALL are asked. The keys are argv[2] and so on. */
struct steady__parts_request {
    size_t n;
    struct steady__how how;
    struct steady__rate rates[STEADY__KEYS_MAX];
    struct steady__part parts[STEADY__KEYS_MAX];
};

bool steady__arguments_request(struct steady__parts_request *request, bool peek, server_string **argv, int argc,
                               steady_message *why);

/* The arguments of SETTLE. `rates` and `settlements` have room for STEADY__KEYS_MAX. */
bool steady__arguments_settlements(struct steady__rate *rates, struct steady__settlement *settlements, int64_t *n,
                                   server_string **argv, int argc, steady_message *why);

/* The n keys of RESET, which are argv[1] and so on. */
bool steady__arguments_reset(server_string **argv, size_t n, steady_message *why);

#endif
