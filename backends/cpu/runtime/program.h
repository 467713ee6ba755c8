/* What the generated tables look like: internal to a package. */
#ifndef PRUNEC_PROGRAM_H
#define PRUNEC_PROGRAM_H

#include "prunec.h"

/* The calling convention of TVM's packed functions (tvm/ffi/c_api.h, dlpack.h), as far as kernels need it. */
typedef struct {
    int32_t device_type, device_id;
} dl_device;
typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} dl_dtype;
typedef struct {
    void *data;
    dl_device device;
    int32_t ndim;
    dl_dtype dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dl_tensor;
typedef struct {
    int32_t type_index;
    uint32_t padding;
    union {
        int64_t v_int64;
        double v_float64;
        void *v_ptr;
    } value;
} ffi_any;
typedef int (*packed_function)(void *self, ffi_any *args, int32_t count, ffi_any *result);

enum { PLACE_ARENA, PLACE_WEIGHTS, PLACE_INPUT, PLACE_OUTPUT };
enum {
    CALL_KERNEL, CALL_BORDER, CALL_FILL, CALL_GATHER, CALL_GATHER_ROWS, CALL_GATHER_ND, CALL_SCATTER_ND,
    CALL_SCATTER_ROWS, CALL_ARG_EXTREME, CALL_TOP_K, CALL_CUM_SUM
};
#define MOST_ROUTINE_ARGUMENTS 3

/* `offset`: bytes from the start of its place, or the number of the input or output. */
typedef struct {
    int32_t place;
    uint64_t offset;
    int64_t elements;
    uint8_t code, bits;
} program_argument;

/* `values` are the numbers of a routine: routines.c says which. */
typedef struct {
    int32_t call;
    packed_function function;
    int32_t first, count;
    int64_t values[12];
    const char *name;
} program_step;

/* What runs for inputs of one shape: a part of the steps. */
typedef struct {
    const prunec_tensor *inputs, *outputs;
    int32_t first_step, step_count;
} program_shape;

typedef struct {
    const program_shape *shapes;
    int32_t shape_count, input_count, output_count;
    const program_argument *arguments;
    int32_t argument_count;
    const program_step *steps;
    uint64_t arena_bytes, weights_bytes;
    uint64_t weights_halves; /* numbers behind the header that take two bytes in the file, and four in memory */
    uint8_t weights_id[32];
    const char *isa;
    const char *const *flags; /* of /proc/cpuinfo, NULL at the end */
} prunec_program;

extern const prunec_program prunec_the_program;

/* runtime.c: remembers what went wrong, and returns `code` */
#define fail prunec_fail
int fail(int code, const char *format, ...);

/* routines.c */
int prunec_routine(int32_t call, void *const *data, int32_t count, const program_argument *last, const int64_t *values);

/* routines.c: weights as they are stored become weights as kernels read them; `from` may lie at the end of `to` */
void prunec_widen(uint8_t *to, const uint8_t *from);

/* cpu.c */
int prunec_cpu_is_able(const char **missing);

/* threads.c */
typedef struct prunec_pool prunec_pool;
prunec_pool *prunec_pool_create(int threads);
void prunec_pool_destroy(prunec_pool *pool);
void prunec_pool_enter(prunec_pool *pool); /* parallel loops of this thread's kernels now use this pool */
void prunec_pool_leave(prunec_pool *pool);

#endif
