/* SPDX-License-Identifier: MIT
 * The state of the extension in one interpreter. */
#include "state.h"

const char state_module_name[] = "aiosteady._core";

struct core_state *state_of(PyTypeObject *type) {
    for (; type != NULL; type = type->tp_base) {
        if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) continue;
        PyObject *module = PyType_GetModule(type);
        if (module == NULL)
            PyErr_Clear(); /* a subclass made in Python */
        else if (PyModule_GetDef(module) != NULL && PyModule_GetDef(module)->m_name == state_module_name)
            return PyModule_GetState(module);
    }
    Py_FatalError("aiosteady: the type belongs to another module");
}

pid_t state_pid(struct core_state *state) {
    if (steady__forked(&state->fork_guard)) {
        steady__fork_guard_clear(&state->fork_guard);
        steady__fork_guard_set(&state->fork_guard, true);
    }
    return state->fork_guard.pid;
}
