/* Runs a lowered program: maps the weights, owns the arena, calls one kernel after the other. */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEADER_BYTES 64
#define ALIGNMENT 64
#define HUGE_PAGE (2u << 20)
#define TENSOR_TYPE 7 /* kTVMFFIDLTensorPtr */

static _Thread_local char last_error[512];

struct prunec_model {
    void *weights;
    size_t mapped_bytes; /* of weights that are a file in memory; 0 where they are a block of their own */
    void *arena;
    dl_tensor *tensors; /* one for each argument of the program */
    ffi_any *values;
    prunec_pool *pool;
    pthread_mutex_t turn;
};

int fail(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return code;
}

const char *prunec_last_error(void) { return last_error; }

/* Kernels report what they find wrong with their buffers through this function. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    size_t used = (size_t)snprintf(last_error, sizeof last_error, "%s: ", kind);
    for (int32_t i = 0; i < count && used < sizeof last_error; i++)
        used += (size_t)snprintf(last_error + used, sizeof last_error - used, "%s", parts[i]);
}

/* From the file in memory to a block of their own. */
static int widen_weights(prunec_model *model) {
    size_t bytes = (size_t)(prunec_the_program.weights_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *wide = aligned_alloc(ALIGNMENT, bytes);
    if (!wide) return fail(PRUNEC_NO_MEMORY, "no memory for %zu bytes of weights", bytes);
    prunec_widen(wide, model->weights);
    munmap(model->weights, model->mapped_bytes);
    model->weights = wide;
    model->mapped_bytes = 0;
    return PRUNEC_OK;
}

static int map_weights(prunec_model *model, const char *path) {
    const prunec_program *program = &prunec_the_program;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return fail(PRUNEC_BAD_FILE, "%s: %s", path, strerror(errno));
    struct stat status;
    if (fstat(file, &status) || !S_ISREG(status.st_mode)) {
        close(file);
        return fail(PRUNEC_BAD_FILE, "%s: not a regular file", path);
    }
    uint64_t stored = program->weights_bytes - 2 * program->weights_halves;
    if ((uint64_t)status.st_size != stored) {
        close(file);
        return fail(PRUNEC_BAD_FILE, "%s: %lld bytes, not the %llu of this model's weights: cut short, or another file",
                    path, (long long)status.st_size, (unsigned long long)stored);
    }
    model->mapped_bytes = (size_t)status.st_size;
    model->weights = mmap(NULL, model->mapped_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (model->weights == MAP_FAILED) {
        model->weights = NULL, model->mapped_bytes = 0;
        return fail(errno == ENOMEM ? PRUNEC_NO_MEMORY : PRUNEC_BAD_FILE, "%s: %s", path, strerror(errno));
    }
    const uint8_t *header = model->weights;
    if (memcmp(header, "PRUNECW1", 8) || memcmp(header + 16, program->weights_id, sizeof program->weights_id))
        return fail(PRUNEC_BAD_FILE, "%s: not the weights of this model", path);
    return program->weights_halves ? widen_weights(model) : PRUNEC_OK;
}

static int bind_arguments(prunec_model *model) {
    const prunec_program *program = &prunec_the_program;
    size_t count = (size_t)program->argument_count;
    model->tensors = calloc(count ? count : 1, sizeof *model->tensors);
    model->values = calloc(count ? count : 1, sizeof *model->values);
    if (!model->tensors || !model->values) return fail(PRUNEC_NO_MEMORY, "no memory for %zu arguments", count);
    for (size_t i = 0; i < count; i++) {
        const program_argument *argument = &program->arguments[i];
        dl_tensor *tensor = &model->tensors[i];
        tensor->device.device_type = 1; /* kDLCPU */
        tensor->ndim = 1;
        tensor->dtype = (dl_dtype){argument->code, argument->bits, 1};
        tensor->shape = (int64_t *)&argument->elements;
        if (argument->place == PLACE_ARENA) tensor->data = (char *)model->arena + argument->offset;
        if (argument->place == PLACE_WEIGHTS) tensor->data = (char *)model->weights + argument->offset;
        model->values[i].type_index = TENSOR_TYPE;
        model->values[i].value.v_ptr = tensor;
    }
    return PRUNEC_OK;
}

static int create(prunec_model *model, const char *path, int threads) {
    const prunec_program *program = &prunec_the_program;
    int status = map_weights(model, path);
    if (status) return status;
    size_t alignment = program->arena_bytes < HUGE_PAGE ? ALIGNMENT : HUGE_PAGE;
    size_t arena = (size_t)((program->arena_bytes + alignment - 1) / alignment * alignment);
    model->arena = aligned_alloc(alignment, arena ? arena : alignment);
#ifdef MADV_HUGEPAGE
    /* Large pages save address translations; a system without them says no, and nothing is lost. */
    if (model->arena && alignment == HUGE_PAGE) madvise(model->arena, arena, MADV_HUGEPAGE);
#endif
    if (!model->arena) return fail(PRUNEC_NO_MEMORY, "no memory for %zu bytes of intermediate results", arena);
    status = bind_arguments(model);
    if (status) return status;
    model->pool = prunec_pool_create(threads);
    if (!model->pool) return fail(PRUNEC_NO_THREADS, "cannot start %d threads", threads);
    return PRUNEC_OK;
}

int prunec_model_create(const char *weights, int threads, prunec_model **result) {
    if (!weights || !result) return fail(PRUNEC_BAD_ARGUMENT, "a null pointer");
    *result = NULL;
    if (threads < 1 || threads > 256) return fail(PRUNEC_BAD_ARGUMENT, "cannot run on %d threads", threads);
    const char *missing = NULL;
    if (!prunec_cpu_is_able(&missing))
        return fail(PRUNEC_BAD_CPU, "made for %s, and this processor lacks %s", prunec_the_program.isa, missing);
    prunec_model *model = calloc(1, sizeof *model);
    if (!model) return fail(PRUNEC_NO_MEMORY, "no memory");
    pthread_mutex_init(&model->turn, NULL);
    int status = create(model, weights, threads);
    if (status)
        prunec_model_destroy(model);
    else
        *result = model;
    return status;
}

void prunec_model_destroy(prunec_model *model) {
    if (!model) return;
    if (model->pool) prunec_pool_destroy(model->pool);
    if (model->mapped_bytes)
        munmap(model->weights, model->mapped_bytes);
    else
        free(model->weights);
    free(model->arena);
    free(model->tensors);
    free(model->values);
    pthread_mutex_destroy(&model->turn);
    free(model);
}

static int call(prunec_model *model, const program_step *step) {
    ffi_any result = {0};
    if (step->call == CALL_KERNEL)
        return step->function(NULL, model->values + step->first, step->count, &result) ? PRUNEC_KERNEL : PRUNEC_OK;
    void *data[MOST_ROUTINE_ARGUMENTS];
    for (int32_t i = 0; i < step->count; i++) data[i] = model->tensors[step->first + i].data;
    const program_argument *last = &prunec_the_program.arguments[step->first + step->count - 1];
    return prunec_routine(step->call, data, step->count, last, step->values);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static const program_shape *shape_of(int shape) {
    return shape < 0 || shape >= prunec_the_program.shape_count ? NULL : &prunec_the_program.shapes[shape];
}

int prunec_model_profile(prunec_model *model, int number, const void *const *inputs, void *const *outputs,
                         int64_t *times) {
    const prunec_program *program = &prunec_the_program;
    const program_shape *shape = shape_of(number);
    if (!model || (!inputs && program->input_count) || (!outputs && program->output_count))
        return fail(PRUNEC_BAD_ARGUMENT, "a null pointer");
    if (!shape) return fail(PRUNEC_BAD_ARGUMENT, "shape %d of %d", number, (int)program->shape_count);
    for (int32_t i = 0; i < program->input_count; i++)
        if (!inputs[i]) return fail(PRUNEC_BAD_ARGUMENT, "input %d is a null pointer", (int)i);
    for (int32_t i = 0; i < program->output_count; i++)
        if (!outputs[i]) return fail(PRUNEC_BAD_ARGUMENT, "output %d is a null pointer", (int)i);
    pthread_mutex_lock(&model->turn);
    for (int32_t i = 0; i < program->argument_count; i++) {
        const program_argument *argument = &program->arguments[i];
        if (argument->place == PLACE_INPUT) model->tensors[i].data = (void *)inputs[argument->offset];
        if (argument->place == PLACE_OUTPUT) model->tensors[i].data = outputs[argument->offset];
    }
    prunec_pool_enter(model->pool);
    int status = PRUNEC_OK;
    const program_step *steps = program->steps + shape->first_step;
    for (int32_t i = 0; i < shape->step_count && !status; i++) {
        int64_t start = times ? now() : 0;
        status = call(model, &steps[i]);
        if (times) times[i] = now() - start;
    }
    prunec_pool_leave(model->pool);
    pthread_mutex_unlock(&model->turn);
    return status;
}

int prunec_model_run_shape(prunec_model *model, int shape, const void *const *inputs, void *const *outputs) {
    return prunec_model_profile(model, shape, inputs, outputs, NULL);
}

int prunec_model_run(prunec_model *model, const void *const *inputs, void *const *outputs) {
    return prunec_model_profile(model, 0, inputs, outputs, NULL);
}

int prunec_input_count(void) { return prunec_the_program.input_count; }
int prunec_output_count(void) { return prunec_the_program.output_count; }
int prunec_shape_count(void) { return prunec_the_program.shape_count; }
const char *prunec_isa(void) { return prunec_the_program.isa; }
size_t prunec_arena_bytes(void) { return (size_t)prunec_the_program.arena_bytes; }

const prunec_tensor *prunec_input_of(int shape, int number) {
    const program_shape *found = shape_of(shape);
    return !found || number < 0 || number >= prunec_the_program.input_count ? NULL : &found->inputs[number];
}

const prunec_tensor *prunec_output_of(int shape, int number) {
    const program_shape *found = shape_of(shape);
    return !found || number < 0 || number >= prunec_the_program.output_count ? NULL : &found->outputs[number];
}

const prunec_tensor *prunec_input(int number) { return prunec_input_of(0, number); }
const prunec_tensor *prunec_output(int number) { return prunec_output_of(0, number); }

int prunec_find_shape(const int64_t *const *shapes) {
    for (int shape = 0; shape < prunec_the_program.shape_count; shape++) {
        int fits = 1;
        for (int i = 0; i < prunec_the_program.input_count && fits; i++) {
            const prunec_tensor *input = prunec_input_of(shape, i);
            for (int32_t axis = 0; axis < input->rank; axis++) fits &= shapes[i][axis] == input->shape[axis];
        }
        if (fits) return shape;
    }
    return -1;
}

int prunec_step_count(int shape) {
    const program_shape *found = shape_of(shape);
    return found ? found->step_count : 0;
}

const char *prunec_step_name(int shape, int number) {
    const program_shape *found = shape_of(shape);
    if (!found || number < 0 || number >= found->step_count) return NULL;
    return prunec_the_program.steps[found->first_step + number].name;
}
