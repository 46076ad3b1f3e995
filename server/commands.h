/* SPDX-License-Identifier: MIT
 * The commands of steadyd. Each gets its arguments from its own name on, and returns the exit code. */
#ifndef STEADY_SERVER_COMMANDS_H
#define STEADY_SERVER_COMMANDS_H

#include <steady.h>

int serve_main(int argc, char **argv);
int check_command_main(int argc, char **argv);
int replay_main(int argc, char **argv); /* replay/replay.c */
int top_command_main(int argc, char **argv);
int admin_command_main(int argc, char **argv);

#endif
