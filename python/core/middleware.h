/* SPDX-License-Identifier: MIT
 * For the middlewares: header fields, problem documents, and the addresses of clients as keys. */
#ifndef AIOSTEADY_MIDDLEWARE_H
#define AIOSTEADY_MIDDLEWARE_H

#include "state.h"

/* The number of a form, such as "draft-11". -1 and an exception if there is none. */
int middleware_form(PyObject *name);

/* Functions of the module; see _core.pyi. */
PyObject *middleware_http_fields(PyObject *module, PyObject *args);
PyObject *middleware_http_problem(PyObject *module, PyObject *args);
PyObject *middleware_http_retry_after(PyObject *module, PyObject *seconds);
PyObject *middleware_address_key(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
