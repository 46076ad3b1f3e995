/* SPDX-License-Identifier: MIT
 * What the readers of rules files share. Each call does nothing useful after an error: check `failed`. */
#ifndef STEADY_RULES_READ_H
#define STEADY_RULES_READ_H

#include <yaml.h>

#include "rules.h"

struct reader {
    struct rules *rules;
    const char *file;
    yaml_document_t document; /* while its file is read */
    struct rules_error *error;
    struct rules_includes *includes; /* NULL: not needed */
    bool is_included;
    bool in_memory; /* there is no file */
    bool is_envoy;  /* a file of envoyproxy/ratelimit, which is read as leniently as there */
    size_t visited; /* values; an anchor can be repeated */
    bool failed;    /* the first error is in `error` */
};

/* A key of a mapping. */
struct reader_entry {
    const char *name; /* NULL: the end of the table */
    void (*read)(struct reader *r, const yaml_node_t *node, void *to);
};

/* node: where the error is; NULL: in the whole file. */
__attribute__((format(printf, 3, 4))) void reader_fail(struct reader *r, const yaml_node_t *node, const char *format,
                                                       ...);
__attribute__((format(printf, 3, 4))) void reader_warn(struct reader *r, const yaml_node_t *node, const char *format,
                                                       ...);

void *reader_take(struct reader *r, size_t size);
const char *reader_copy(struct reader *r, const char *bytes, size_t len);
void reader_append(struct reader *r, void *array, size_t *n, const void *item, size_t size);

yaml_node_t *reader_node(struct reader *r, int id);
const char *reader_text(struct reader *r, const yaml_node_t *node, const char *what);
/* A whole number in decimal digits. */
int64_t reader_number(struct reader *r, const yaml_node_t *node, const char *what, int64_t least, int64_t most);
bool reader_bool(struct reader *r, const yaml_node_t *node, const char *what);
int reader_choice(struct reader *r, const yaml_node_t *node, const char *what, const char *const *words);
steady_us reader_duration(struct reader *r, const yaml_node_t *node, const char *what);
void reader_mapping(struct reader *r, const yaml_node_t *node, const char *what, const struct reader_entry *entries,
                    void *to);
void reader_list(struct reader *r, const yaml_node_t *node, void (*read)(struct reader *, const yaml_node_t *, void *),
                 void *to);

/* Reads a file of envoyproxy/ratelimit. `after` has the domains whose cost is known afterwards. */
void reader_envoy(struct reader *r, const yaml_node_t *root, const char *const *after, size_t n_after);

#endif
