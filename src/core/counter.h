/* SPDX-License-Identifier: MIT
 * A number that one thread writes and any thread reads. */
#ifndef STEADY__COUNTER_H
#define STEADY__COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef atomic_uint_fast64_t steady__counter;

static inline uint64_t steady__counter_get(const steady__counter *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A load and a store, because there is only one writer: an atomic addition would lock the bus. */
static inline void steady__counter_add(steady__counter *counter, uint64_t by) {
    atomic_store_explicit(counter, steady__counter_get(counter) + by, memory_order_relaxed);
}

#endif
