/* SPDX-License-Identifier: MIT
 * steady replay: what a limit would have done to the requests of a log. The map of this folder:
 *
 *     sources (input -> format) -> engine (reorder, keys) -> results (series, suggest) -> report
 *
 *     input.c        files, compression, lines
 *     format*.c      a line becomes a record; log_time.c reads times
 *     sources.c      several files as one stream of records
 *     reorder.c      requests in the order of their times
 *     keys.c         the buckets of all keys, in bounded memory
 *     engine.c       matches requests, decides by core/parts.c, counts; heavy.c and histogram.c count in bounded memory
 *     series.c       the requests of each key once more, for many rates and capacities; needed.h has the arithmetic
 *     suggest.c      well-rounded rates and capacities, and the choice among them
 *     results.c      fills the report
 *     report*.c      text, JSON, CSV, HTML
 *     progress.c     the bar on a terminal
 *     setup.c        the rules of --limit and --key
 *     replay.c       the command */
#ifndef STEADY_REPLAY_REPLAY_H
#define STEADY_REPLAY_REPLAY_H

int replay_main(int argc, char **argv);

#endif
