/* Runs a lowered program inside a WebAssembly instance. Everything lies in static memory, whose size the linker knows:
 * weights, intermediate results, inputs, outputs and what kernels ask for. Nothing is allocated after instantiation,
 * and nothing is imported from the host. One instance is one model; it has one thread.
 */
#include "program.h"
#include "sizes.h" /* generated */

#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define ALIGNED _Alignas(64)
#define TENSOR_TYPE 7 /* kTVMFFIDLTensorPtr */
#define SLOTS 64      /* blocks that a kernel holds at once */

/* Where the weights are put as they are stored: in halves they lie at the end of their place until they are widened. */
#ifdef WEIGHTS_BESIDE
static ALIGNED uint8_t weights[WEIGHTS_BYTES];
#define STORED (weights + 2 * (size_t)prunec_the_program.weights_halves)
#elif WEIGHTS_HALVES
extern uint8_t stored[];
static ALIGNED uint8_t weights[WEIGHTS_BYTES];
#define STORED stored
#else
extern uint8_t stored[];
#define weights stored
#define STORED stored
#endif
static ALIGNED uint8_t arena[ARENA_BYTES];
static ALIGNED uint8_t values[VALUES_BYTES];
static ALIGNED uint8_t workspace[WORKSPACE_BYTES];
static dl_tensor tensors[ARGUMENTS];
static ffi_any arguments[ARGUMENTS];
static char message[256];

/* Of a format that knows %lld, %llu, %d and %s: the C library's own would be half of a small model's code. */
static char *put(char *to, const char *end, const char *text) {
    while (*text && to < end) *to++ = *text++;
    return to;
}

static char *put_number(char *to, const char *end, int64_t number) {
    char digits[24], *at = digits + sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    *--at = 0;
    do *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0) *--at = '-';
    return put(to, end, at);
}

int fail(int code, const char *format, ...) {
    __builtin_va_list list;
    __builtin_va_start(list, format);
    char *to = message, *end = message + sizeof message - 1;
    for (; *format && to < end; format++) {
        if (*format != '%') {
            *to++ = *format;
            continue;
        }
        int longs = 0;
        while (*++format == 'l') longs++;
        if (*format == 's')
            to = put(to, end, __builtin_va_arg(list, const char *));
        else
            to = put_number(to, end, longs > 1 ? __builtin_va_arg(list, int64_t) : __builtin_va_arg(list, int));
    }
    *to = 0;
    __builtin_va_end(list);
    return code;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    char *end = message + sizeof message - 1, *to = put(message, end, kind);
    for (int32_t i = 0; i < count; i++) to = put(to, end, parts[i]);
    *to = 0;
}

/* Blocks that the running kernel holds, the last one on top; freed ones go as soon as nothing is above them. */
static struct {
    size_t start;
    int freed;
} blocks[SLOTS];
static int held;
static size_t used;

static void *allocate(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    if (held == SLOTS || bytes > WORKSPACE_BYTES - used) return NULL;
    blocks[held].start = used;
    blocks[held++].freed = 0;
    used += (size_t)(bytes + 63) / 64 * 64;
    return workspace + blocks[held - 1].start;
}

static int release(int device, int id, void *memory) {
    (void)device, (void)id;
    for (int i = held - 1; i >= 0; i--)
        if (workspace + blocks[i].start == memory) blocks[i].freed = 1;
    while (held && blocks[held - 1].freed) used = blocks[--held].start;
    return 0;
}

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

/* Inputs, then outputs, one after the other. */
static uint8_t *value_at(int number) {
    const program_shape *shape = prunec_the_program.shapes;
    size_t at = 0;
    for (int i = 0; i < number; i++) {
        int inputs = prunec_the_program.input_count;
        size_t bytes = i < inputs ? shape->inputs[i].bytes : shape->outputs[i - inputs].bytes;
        at += (bytes + 63) / 64 * 64;
    }
    return values + at;
}

static uint8_t *place_of(const program_argument *argument) {
    switch (argument->place) {
    case PLACE_ARENA: return arena + argument->offset;
    case PLACE_WEIGHTS: return weights + argument->offset;
    case PLACE_INPUT: return value_at((int)argument->offset);
    default: return value_at(prunec_the_program.input_count + (int)argument->offset);
    }
}

EXPORT(prunec_weights) uint8_t *prunec_weights(void) { return STORED; }
EXPORT(prunec_input) uint8_t *prunec_wasm_input(int number) { return value_at(number); }
EXPORT(prunec_output) uint8_t *prunec_wasm_output(int number) {
    return value_at(prunec_the_program.input_count + number);
}
EXPORT(prunec_message) const char *prunec_wasm_message(void) { return message; }

/* Once the weights are there. */
EXPORT(prunec_create) int prunec_wasm_create(void) {
    const prunec_program *program = &prunec_the_program;
    if (memcmp(STORED, "PRUNECW1", 8) || memcmp(STORED + 16, program->weights_id, sizeof program->weights_id))
        return fail(PRUNEC_BAD_FILE, "not the weights of this model");
    if (program->weights_halves) prunec_widen(weights, STORED);
    for (int32_t i = 0; i < program->argument_count; i++) {
        const program_argument *argument = &program->arguments[i];
        tensors[i].data = place_of(argument);
        tensors[i].device.device_type = 1; /* kDLCPU */
        tensors[i].ndim = 1;
        tensors[i].dtype = (dl_dtype){argument->code, argument->bits, 1};
        tensors[i].shape = (int64_t *)&argument->elements;
        arguments[i].type_index = TENSOR_TYPE;
        arguments[i].value.v_ptr = &tensors[i];
    }
    return PRUNEC_OK;
}

static int call(const program_step *step) {
    ffi_any result = {0};
    if (step->call == CALL_KERNEL) {
        int failed = step->function(NULL, arguments + step->first, step->count, &result);
        used = 0, held = 0;
        return failed ? PRUNEC_KERNEL : PRUNEC_OK;
    }
    void *data[MOST_ROUTINE_ARGUMENTS];
    for (int32_t i = 0; i < step->count; i++) data[i] = tensors[step->first + i].data;
    const program_argument *last = &prunec_the_program.arguments[step->first + step->count - 1];
    return prunec_routine(step->call, data, step->count, last, step->values);
}

/* Steps `first` to `end` − 1: all of them, or some whom somebody times. */
EXPORT(prunec_run) int prunec_wasm_run(int first, int end) {
    int status = PRUNEC_OK;
    for (int step = first; step < end && !status; step++) status = call(&prunec_the_program.steps[step]);
    return status;
}
