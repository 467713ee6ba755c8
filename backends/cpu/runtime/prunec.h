/* The C interface of a package that prunec compiled. Plain C99; needs neither Python nor TVM. What this model takes and
 * gives stands at the end.
 *
 *     prunec_model *model;
 *     if (prunec_model_create("model.weights", 1, &model)) { puts(prunec_last_error()); return 1; }
 *     const void *inputs[] = {image};  void *outputs[] = {scores};
 *     if (prunec_model_run(model, inputs, outputs)) puts(prunec_last_error());
 *     prunec_model_destroy(model);
 *
 * Arrays are dense and row-major, in the order, shapes and types that prunec_input and prunec_output describe; bools are
 * bytes. They are read and written in place and need no alignment beyond that of their elements.
 *
 * A package may be compiled for several shapes of its inputs, numbered from 0. prunec_model_run and functions without a
 * `shape` mean shape 0; the others take the number, which prunec_find_shape finds. All shapes of a model share its
 * weights, its threads and the memory for intermediate results.
 *
 * Threads: any number of models may exist and run at once. One model runs one call at a time; further calls of
 * prunec_model_run on it wait for their turn. A model must not be destroyed while a call runs.
 */
#ifndef PRUNEC_H
#define PRUNEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PRUNEC_OK = 0,
    PRUNEC_BAD_ARGUMENT = 1, /* a null pointer, or a number of threads below 1 or above 256 */
    PRUNEC_BAD_CPU = 2,      /* this processor lacks instructions that the kernels use */
    PRUNEC_BAD_FILE = 3,     /* the weights cannot be read, are cut short, or belong to another model */
    PRUNEC_NO_MEMORY = 4,
    PRUNEC_BAD_INDEX = 5,    /* an index in the input lies outside the table it selects from */
    PRUNEC_KERNEL = 6,       /* a kernel refused its buffers: a defect of the package */
    PRUNEC_NO_THREADS = 7
};

typedef struct prunec_model prunec_model;

typedef struct {
    const char *name;
    const char *dtype; /* float32, int32, int64 or uint8 (bools) */
    int32_t rank;
    const int64_t *shape;
    size_t bytes;
} prunec_tensor;

/* `weights` is the package's weights file, which is mapped into memory; `threads` counts the calling one. */
int prunec_model_create(const char *weights, int threads, prunec_model **model);
int prunec_model_run(prunec_model *model, const void *const *inputs, void *const *outputs);
void prunec_model_destroy(prunec_model *model);

int prunec_input_count(void);
int prunec_output_count(void);
const prunec_tensor *prunec_input(int number);  /* NULL if there is none of this number */
const prunec_tensor *prunec_output(int number);
const char *prunec_isa(void);
size_t prunec_arena_bytes(void);

int prunec_shape_count(void);
int prunec_find_shape(const int64_t *const *shapes); /* those of all inputs, as long as their ranks; -1: not compiled */
int prunec_model_run_shape(prunec_model *model, int shape, const void *const *inputs, void *const *outputs);
const prunec_tensor *prunec_input_of(int shape, int number);
const prunec_tensor *prunec_output_of(int shape, int number);

/* Nanoseconds that each step of one run took; `times` has prunec_step_count elements. */
int prunec_step_count(int shape);
const char *prunec_step_name(int shape, int number);
int prunec_model_profile(prunec_model *model, int shape, const void *const *inputs, void *const *outputs, int64_t *times);

/* What went wrong in the last failed call of this thread; empty if none did. */
const char *prunec_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
