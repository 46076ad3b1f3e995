/* SPDX-License-Identifier: MIT
 * Conversions between Python objects and the values of the library: numbers, times, choices, texts, keys and errors.
 *
 * A conversion of an argument returns -1 (or NULL) and sets an exception that names the argument. */
#ifndef AIOSTEADY_CONVERT_H
#define AIOSTEADY_CONVERT_H

#include "src/store.h"
#include "state.h"

/* ---- Errors ---- */

/* The exception for an error of the library. `why` is appended to the text; it may be "" or NULL. Returns NULL and sets
 * an exception if there is no memory. */
PyObject *convert_error(struct core_state *state, int error, const char *why);

/* Raises that exception. Returns NULL. */
PyObject *convert_raise(struct core_state *state, int error, const char *why);

/* Puts the place and ": " before the text of the exception, if it is a TypeError or ValueError of C code. One of Python
 * code, such as an __index__, stays as it is. */
void convert_say_where(const char *format, ...);

/* ---- Arguments ---- */

int convert_int(PyObject *object, const char *name, int64_t min, int64_t max, int64_t *out);

/* `least` is 0 or 1 us. */
int convert_seconds(PyObject *object, const char *name, steady_us least, steady_us *out);

/* Seconds to wait. None, infinity and times beyond the range of max_wait are the longest max_wait. */
int convert_wait(PyObject *object, const char *name, steady_us *out);

/* The index of `given` in `names`, which end with NULL. */
int convert_choice(PyObject *given, const char *name, const char *const *names);

/* Raises the ValueError "NAME is 'GIVEN'; it must be MUST_BE" for a str. A password in it is not shown. Returns -1. */
int convert_bad_text(PyObject *given, const char *name, const char *must_be);

/* 0 if the object is a str. */
int convert_check_str(PyObject *object, const char *name);

/* 1 if the object is a mapping, such as a dict: not a number, a sequence or a text. -1 and an exception on failure. */
int convert_is_mapping(PyObject *object);

/* The UTF-8 of a str. It lives as long as the str. */
const char *convert_utf8(PyObject *text, const char *name, Py_ssize_t *len);

/* The bytes of a key. They live as long as the key. */
int convert_key(PyObject *key, const char **bytes, Py_ssize_t *len);

/* The integers of a reply to a script, which is an int or a list. Their number; -1 if it is something else, or longer
 * than `most`. Sets no exception. */
Py_ssize_t convert_reply(PyObject *reply, int64_t *values, Py_ssize_t most);

/* A new bytes object: the str in ASCII, with backslash escapes. Works for a str that UTF-8 cannot encode, too. */
PyObject *convert_to_ascii(PyObject *text);

/* The str without the secrets. of_server: it may hold words of a server. */
PyObject *convert_redacted(PyObject *text, const struct steady__secrets *secrets, bool of_server);

#endif
