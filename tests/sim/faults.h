/* SPDX-License-Identifier: MIT
 * The faults of a seed. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include <stdbool.h>

/* Chooses the kinds of faults of this seed. They occur until world.calm_at, when all end. */
void faults_begin(void);

/* True if an allocation has failed. */
bool faults_memory(void);

#endif
