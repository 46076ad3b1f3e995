/* SPDX-License-Identifier: MIT
 * steady replay: what a limit would have done to the requests of a log. The map of this folder:
 *
 *     input -> format -> engine -> report
 *
 *     input.c        files, compression, lines
 *     format*.c      a line becomes a record: format_detect.c begins; log_time.c reads times
 *     reorder.c      records of all files in the order of their times
 *     keys.c         the buckets of all keys, in bounded memory
 *     engine.c       matches requests, decides by core/parts.c, counts
 *     series.c       the requests of each key once more, for many rates and capacities: needed capacities, heat map
 *     report*.c      text, JSON, CSV, HTML
 *     progress.c     the bar on a terminal
 *     replay.c       the command: options, the loop over lines */
#ifndef STEADY_REPLAY_REPLAY_H
#define STEADY_REPLAY_REPLAY_H

int replay_main(int argc, char **argv);

#endif
