/* SPDX-License-Identifier: MIT
 * What goes wrong, and when. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

/* Chooses the kinds of faults of this seed, and lets them come until world.calm_at, when all is well again. */
void faults_begin(void);

#endif
