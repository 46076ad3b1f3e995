/* SPDX-License-Identifier: MIT
 * What goes wrong, and when. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include <stdbool.h>

/* Chooses the kinds of faults of this seed, and lets them come until world.calm_at, when all is well again. */
void faults_begin(void);

/* Has memory been short? */
bool faults_memory(void);

#endif
