/* Steps without generated code: what depends on indices, and filling memory. The numbers are those of routines.py. */
#include "program.h"

#include <string.h>

/* Zeros around images: planes, rows, columns, bytes of a pixel; top, left, bottom, right in pixels. */
static void zero_border(char *image, const int64_t *v) {
    size_t line = (size_t)(v[2] * v[3]), left = (size_t)(v[5] * v[3]), right = (size_t)(v[7] * v[3]);
    for (int64_t plane = 0; plane < v[0]; plane++, image += (size_t)v[1] * line) {
        memset(image, 0, (size_t)v[4] * line);
        memset(image + (size_t)(v[1] - v[6]) * line, 0, (size_t)v[6] * line);
        if (!left && !right) continue;
        for (int64_t row = v[4]; row < v[1] - v[6]; row++) {
            memset(image + (size_t)row * line, 0, left);
            memset(image + (size_t)(row + 1) * line - right, 0, right);
        }
    }
}

/* Index `i` of an array, counted from the end where it is negative; below 0 where it lies outside `length`. */
static int64_t index_at(const void *indices, int64_t i, int is_int64, int64_t length, int *status) {
    int64_t index = is_int64 ? ((const int64_t *)indices)[i] : ((const int32_t *)indices)[i];
    if (index < -length || index >= length) {
        *status = fail(PRUNEC_BAD_INDEX, "index %lld is outside a table of %lld entries", (long long)index,
                       (long long)length);
        return -1;
    }
    return index < 0 ? index + length : index;
}

/* outer, length, count, bytes of one entry, whether indices are int64. */
static int gather(char *y, const char *table, const void *indices, const int64_t *v) {
    size_t inner = (size_t)v[3];
    int status = PRUNEC_OK;
    for (int64_t outer = 0; outer < v[0]; outer++, table += (size_t)v[1] * inner)
        for (int64_t i = 0; i < v[2]; i++, y += inner) {
            int64_t at = index_at(indices, i, (int)v[4], v[1], &status);
            if (at < 0) return status;
            memcpy(y, table + (size_t)at * inner, inner);
        }
    return status;
}

/* As `gather`, but every row has indices of its own. */
static int gather_rows(char *y, const char *x, const void *indices, const int64_t *v) {
    size_t inner = (size_t)v[3];
    int status = PRUNEC_OK;
    for (int64_t outer = 0; outer < v[0]; outer++, x += (size_t)v[1] * inner)
        for (int64_t i = 0; i < v[2]; i++, y += inner) {
            int64_t at = index_at(indices, outer * v[2] + i, (int)v[4], v[1], &status);
            if (at < 0) return status;
            memcpy(y, x + (size_t)at * inner, inner);
        }
    return status;
}

/* The place that `depth` indices from `first` on mean in axes of these lengths. */
static int64_t flat(const void *indices, int64_t first, int64_t depth, int is_int64, const int64_t *lengths,
                    int *status) {
    int64_t place = 0;
    for (int64_t k = 0; k < depth; k++) {
        int64_t at = index_at(indices, first + k, is_int64, lengths[k], status);
        if (at < 0) return -1;
        place = place * lengths[k] + at;
    }
    return place;
}

/* outer, count, depth, bytes of one entry, whether indices are int64, lengths. */
static int gather_nd(char *y, const char *table, const void *indices, const int64_t *v) {
    size_t inner = (size_t)v[3], entries = 1;
    int status = PRUNEC_OK;
    for (int64_t k = 0; k < v[2]; k++) entries *= (size_t)v[5 + k];
    for (int64_t outer = 0; outer < v[0]; outer++, table += entries * inner)
        for (int64_t i = 0; i < v[1]; i++, y += inner) {
            int64_t at = flat(indices, (outer * v[1] + i) * v[2], v[2], (int)v[4], v + 5, &status);
            if (at < 0) return status;
            memcpy(y, table + (size_t)at * inner, inner);
        }
    return status;
}

/* `count` elements of `size` bytes; all joins but the first are for float32. */
static void join(char *y, const char *update, int64_t count, int64_t size, int64_t how) {
    if (!how) {
        memcpy(y, update, (size_t)(count * size));
        return;
    }
    float *to = (float *)y;
    const float *from = (const float *)update;
    for (int64_t i = 0; i < count; i++) {
        float a = to[i], b = from[i];
        to[i] = how == 1 ? a + b : how == 2 ? a * b : (how == 3 ? b > a : b < a) || b != b ? b : a;
    }
}

/* count, depth, elements of one entry, bytes of an element, whether indices are int64, join, lengths. */
static int scatter_nd(char *y, const void *indices, const char *updates, const int64_t *v) {
    int status = PRUNEC_OK;
    for (int64_t i = 0; i < v[0]; i++) {
        int64_t at = flat(indices, i * v[1], v[1], (int)v[4], v + 6, &status);
        if (at < 0) return status;
        join(y + at * v[2] * v[3], updates + i * v[2] * v[3], v[2], v[3], v[5]);
    }
    return status;
}

/* outer, length, count, bytes of an element, whether indices are int64, join. */
static int scatter_rows(char *y, const void *indices, const char *updates, const int64_t *v) {
    int status = PRUNEC_OK;
    for (int64_t outer = 0; outer < v[0]; outer++)
        for (int64_t i = 0; i < v[2]; i++) {
            int64_t at = index_at(indices, outer * v[2] + i, (int)v[4], v[1], &status);
            if (at < 0) return status;
            join(y + (outer * v[1] + at) * v[3], updates + (outer * v[2] + i) * v[3], 1, v[3], v[5]);
        }
    return status;
}

enum { FLOAT32, INT64, INT32, UINT8 };

/* Whether element `a` is larger than `b` (or smaller, for the smallest ones). */
static int is_ahead(const void *row, int64_t a, int64_t b, int type, int is_max) {
    if (!is_max) {
        int64_t other = a;
        a = b, b = other;
    }
    switch (type) {
    case FLOAT32: return ((const float *)row)[a] > ((const float *)row)[b];
    case INT64: return ((const int64_t *)row)[a] > ((const int64_t *)row)[b];
    case INT32: return ((const int32_t *)row)[a] > ((const int32_t *)row)[b];
    default: return ((const uint8_t *)row)[a] > ((const uint8_t *)row)[b];
    }
}

static size_t bytes_of(int64_t type) { return type == INT64 ? 8 : type == UINT8 ? 1 : 4; }

/* outer, length, whether the largest, whether the last of equals, type. */
static void arg_extreme(int64_t *y, const char *x, const int64_t *v) {
    for (int64_t outer = 0; outer < v[0]; outer++, x += (size_t)v[1] * bytes_of(v[4])) {
        int64_t best = 0;
        for (int64_t i = 1; i < v[1]; i++)
            if (v[3] ? !is_ahead(x, best, i, (int)v[4], (int)v[2]) : is_ahead(x, i, best, (int)v[4], (int)v[2])) best = i;
        y[outer] = best;
    }
}

/* Whether `a` comes before `b` in the result: larger, or equal and earlier. */
static int precedes(const void *row, int64_t a, int64_t b, int type, int is_max) {
    if (is_ahead(row, a, b, type, is_max)) return 1;
    return !is_ahead(row, b, a, type, is_max) && a < b;
}

/* The heap's root is the last one of those it holds. */
static void sift(int64_t *heap, int64_t count, int64_t at, const void *row, int type, int is_max) {
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && precedes(row, heap[child], heap[child + 1], type, is_max)) child++;
        if (!precedes(row, heap[at], heap[child], type, is_max)) return;
        int64_t held = heap[at];
        heap[at] = heap[child], heap[child] = held;
    }
}

/* outer, length, count, whether the largest, type. A heap in the result itself. */
static void top_k(int64_t *y, const char *x, const int64_t *v) {
    int type = (int)v[4], is_max = (int)v[3];
    int64_t count = v[2];
    for (int64_t outer = 0; outer < v[0]; outer++, y += count, x += (size_t)v[1] * bytes_of(type)) {
        for (int64_t i = 0; i < count; i++) y[i] = i;
        for (int64_t i = count / 2 - 1; i >= 0; i--) sift(y, count, i, x, type, is_max);
        for (int64_t i = count; i < v[1]; i++)
            if (precedes(x, i, y[0], type, is_max)) {
                y[0] = i;
                sift(y, count, 0, x, type, is_max);
            }
        for (int64_t left = count - 1; left > 0; left--) {
            int64_t held = y[0];
            y[0] = y[left], y[left] = held;
            sift(y, left, 0, x, type, is_max);
        }
    }
}

/* outer, length, exclusive, reverse, type. */
static void cum_sum(char *y, const char *x, const int64_t *v) {
    size_t size = bytes_of(v[4]);
    for (int64_t outer = 0; outer < v[0]; outer++, x += (size_t)v[1] * size, y += (size_t)v[1] * size) {
        double real = 0;
        int64_t whole = 0;
        for (int64_t k = 0; k < v[1]; k++) {
            int64_t i = v[3] ? v[1] - 1 - k : k;
            double real_before = real;
            int64_t whole_before = whole;
            if (v[4] == FLOAT32) {
                real += ((const float *)x)[i];
                ((float *)y)[i] = (float)(v[2] ? real_before : real);
            } else if (v[4] == INT64) {
                whole += ((const int64_t *)x)[i];
                ((int64_t *)y)[i] = v[2] ? whole_before : whole;
            } else {
                whole += ((const int32_t *)x)[i];
                ((int32_t *)y)[i] = (int32_t)(v[2] ? whole_before : whole);
            }
        }
    }
}

int prunec_routine(int32_t call, void *const *data, int32_t count, const program_argument *last, const int64_t *values) {
    void *y = data[count - 1];
    switch (call) {
    case CALL_BORDER: zero_border(y, values); return PRUNEC_OK;
    case CALL_FILL: memset(y, 0, (size_t)last->elements * last->bits / 8); return PRUNEC_OK;
    case CALL_GATHER: return gather(y, data[0], data[1], values);
    case CALL_GATHER_ROWS: return gather_rows(y, data[0], data[1], values);
    case CALL_GATHER_ND: return gather_nd(y, data[0], data[1], values);
    case CALL_SCATTER_ND: return scatter_nd(y, data[0], data[1], values);
    case CALL_SCATTER_ROWS: return scatter_rows(y, data[0], data[1], values);
    case CALL_ARG_EXTREME: arg_extreme(y, data[0], values); return PRUNEC_OK;
    case CALL_TOP_K: top_k(y, data[0], values); return PRUNEC_OK;
    case CALL_CUM_SUM: cum_sum(y, data[0], values); return PRUNEC_OK;
    default: return fail(PRUNEC_KERNEL, "no routine of number %d", (int)call);
    }
}

/* Half precision has 5 bits of exponent and 10 of fraction. Shifted into those of single precision it is 2^112 times
 * too small, which a product sets right, exactly and for subnormal numbers too. */
static float widened(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7FFF) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    return half & 0x8000 ? -value : value;
}

void prunec_widen(uint8_t *to, const uint8_t *from) {
    const prunec_program *program = &prunec_the_program;
    size_t halves = (size_t)program->weights_halves, rest = 64 + 4 * halves;
    memmove(to, from, 64);
    for (size_t i = 0; i < halves; i++) { /* upwards: what is written never reaches what is still to be read */
        uint16_t half;
        memcpy(&half, from + 64 + 2 * i, sizeof half);
        float value = widened(half);
        memcpy(to + 64 + 4 * i, &value, sizeof value);
    }
    if (from + 2 * halves != to + 4 * halves) memcpy(to + rest, from + 64 + 2 * halves, program->weights_bytes - rest);
}
