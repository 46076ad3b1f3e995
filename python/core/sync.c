/* SPDX-License-Identifier: MIT
 * Decisions of a store for blocking calls.
 *
 * While a call waits without the GIL, another thread may close the store. The throttler of the library keeps its
 * memory, and the caller's frame keeps the Throttler and the key. */
#include "sync.h"

#include "result.h"

static int sync_ask(steady_throttler *throttler, struct request request, const char *key, size_t len,
                    steady_result *result) {
    switch (request.verb) {
    case STEADY__CONSUME: return steady_consume_sync(throttler, key, len, request.amount, result);
    case STEADY__PEEK: return steady_peek_sync(throttler, key, len, result);
    default: return steady_reset_sync(throttler, key, len, result);
    }
}

PyObject *sync_decide(struct throttler *self, struct request request, PyObject *key) {
    char room[STEADY__KEY_MAX];
    const char *bytes = NULL;
    size_t whole = 0;
    Py_ssize_t len = 0;
    struct gil_released released;
    steady_result result = {.error = 0};
    steady_message why = {.text = ""};
    struct loop_store *store = self->store->embedded;
    steady_throttler *throttler = binding_embedded(self);
    if (throttler == NULL || binding_key(self, key, room, &bytes, &whole) != 0 || convert_key(key, &bytes, &len) != 0)
        return NULL;
    loop_store_begin_call(store, &released);
    const int error = sync_ask(throttler, request, bytes, (size_t)len, &result);
    loop_store_end_call(store, &released);
    if (error != 0) result = (steady_result){.error = error};
    tally_plain(&self->tally, request.verb, &result);
    if (gil_raise(&released) != 0) return NULL;
    return error == 0 ? result_from(self->state, &result, PyTuple_GET_ITEM(self->names, 0))
                      : sync_raise(store, error, &why);
}

/* After an error of the server or the network, the last error of the store says why. */
PyObject *sync_raise(const struct loop_store *store, int error, steady_message *why) {
    if (why->text[0] == '\0' && store->is_pool && error != STEADY_CLOSED && error != STEADY_BAD_ARGUMENT)
        steady_store_last_error(store->store, why);
    return convert_raise(store->state, error, why->text);
}

void sync_give_back(struct loop_store *self, steady_reservation *reservation) {
    int64_t actuals[STEADY__PARTS_MAX];
    PyObject *type, *value, *traceback;
    struct gil_released released;
    steady_result result = {.error = 0};
    size_t n = 0;
    const steady_reserved *parts = steady_reservation_parts(reservation, &n);
    steady_store *store = self->store;
    if (store == NULL) return;
    for (size_t i = 0; i < n; i++)
        actuals[i] = parts[i].amount >= 0 ? 0 : -1;
    const steady_settlement settlement = {.reservation = reservation, .actuals = actuals, .store = store};
    PyErr_Fetch(&type, &value, &traceback);
    steady__store_hold(store);
    loop_store_begin_call(self, &released);
    const int error = steady_settle_sync(&settlement, &result);
    loop_store_end_call(self, &released);
    steady__store_release(store);
    if (gil_raise(&released) != 0) loop_store_report(self, self->state->logger);
    if (error != 0 && error != STEADY_CANCELLED && error != STEADY_CLOSED)
        loop_store_log(self, STEADY_LOG_WARNING, "what an interrupted call reserved could not be given back");
    PyErr_Restore(type, value, traceback);
}
