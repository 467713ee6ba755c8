/* Runs a package on files of raw numbers, and times it.
 *
 *     runner WEIGHTS [THREADS [RUNS [INPUT … OUTPUT …]]]
 *
 * One file for every input and output, in the order of prunec.h; without files the inputs are zeros. With RUNS it prints
 * a table (number,nodes,best_ns) with a line for every step, one called run for the whole model (its median), and one
 * called device with the name of the device and the threads.
 */
#include "prunec.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int refuse(const char *what) {
    fprintf(stderr, "%s\n", what);
    return 2;
}

static int transfer(const char *path, void *data, size_t bytes, int writes) {
    FILE *file = fopen(path, writes ? "wb" : "rb");
    size_t done = !file ? 0 : writes ? fwrite(data, 1, bytes, file) : fread(data, 1, bytes, file);
    int is_longer = file && !writes && fgetc(file) != EOF;
    if (file && fclose(file)) done = 0;
    if (done == bytes && !is_longer) return 0;
    fprintf(stderr, "%s does not hold the %zu bytes of its tensor\n", path, bytes);
    return 1;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void quoted(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"') putchar('"');
        putchar(*text);
    }
    putchar('"');
}

/* Of the board where the system knows it, else of the first processor; no name of the host. */
static const char *device_name(void) {
    static char name[128];
    FILE *file = fopen("/proc/device-tree/model", "r");
    if (file) {
        size_t length = fread(name, 1, sizeof name - 1, file);
        fclose(file);
        name[length] = 0;
    }
    if (!*name && (file = fopen("/proc/cpuinfo", "r"))) {
        char line[128], maker[16] = "", part[16] = "";
        while (fgets(line, sizeof line, file)) {
            sscanf(line, "CPU implementer : %15s", maker);
            sscanf(line, "CPU part : %15s", part);
        }
        fclose(file);
        if (*part) snprintf(name, sizeof name, "CPU %s part %s", maker, part);
    }
    for (char *at = name; *at; at++)
        if (*at == '\n') *at = ' ';
    return name;
}

static int measure(prunec_model *model, const void *const *in, void *const *out, int runs, int threads) {
    int steps = prunec_step_count(0);
    int64_t *times = calloc((size_t)steps + 1, sizeof *times), *best = calloc((size_t)steps + 1, sizeof *best);
    int64_t *whole = calloc((size_t)runs, sizeof *whole);
    if (!times || !best || !whole) return refuse("no memory");
    for (int i = 0; i < runs; i++) {
        int64_t start = now();
        if (prunec_model_run(model, in, out)) return refuse(prunec_last_error());
        whole[i] = now() - start;
        if (prunec_model_profile(model, 0, in, out, times)) return refuse(prunec_last_error());
        for (int k = 0; k < steps; k++)
            if (!i || times[k] < best[k]) best[k] = times[k];
    }
    qsort(whole, (size_t)runs, sizeof *whole, ascending);
    printf("number,nodes,best_ns\n");
    for (int k = 0; k < steps; k++) {
        printf("%d,", k);
        quoted(prunec_step_name(0, k));
        printf(",%lld\n", (long long)best[k]);
    }
    printf("run,,%lld\n", (long long)whole[runs / 2]);
    printf("device,");
    quoted(device_name());
    printf(",%d\n", threads);
    free(times);
    free(best);
    free(whole);
    return 0;
}

int main(int argc, char **argv) {
    int threads = argc > 2 ? atoi(argv[2]) : 1, runs = argc > 3 ? atoi(argv[3]) : 0;
    int inputs = prunec_input_count(), outputs = prunec_output_count(), files = argc > 4 ? argc - 4 : 0;
    if (argc < 2) return refuse("runner WEIGHTS [THREADS [RUNS [INPUT ... OUTPUT ...]]]");
    if (files && files != inputs + outputs) return refuse("as many files as inputs and outputs, or none");
    prunec_model *model = NULL;
    if (prunec_model_create(argv[1], threads, &model)) return refuse(prunec_last_error());
    const void **in = calloc((size_t)inputs + 1, sizeof *in);
    void **out = calloc((size_t)outputs + 1, sizeof *out);
    if (!in || !out) return refuse("no memory");
    for (int i = 0; i < inputs; i++) {
        size_t bytes = prunec_input(i)->bytes;
        void *data = calloc(bytes ? bytes : 1, 1);
        if (!data) return refuse("no memory");
        if (files && transfer(argv[4 + i], data, bytes, 0)) return 2;
        in[i] = data;
    }
    for (int i = 0; i < outputs; i++) {
        out[i] = calloc(prunec_output(i)->bytes + 1, 1);
        if (!out[i]) return refuse("no memory");
    }
    if (prunec_model_run(model, in, out)) return refuse(prunec_last_error());
    for (int i = 0; files && i < outputs; i++)
        if (transfer(argv[4 + inputs + i], out[i], prunec_output(i)->bytes, 1)) return 2;
    int status = runs > 0 ? measure(model, in, out, runs, threads) : 0;
    prunec_model_destroy(model);
    for (int i = 0; i < inputs; i++) free((void *)in[i]);
    for (int i = 0; i < outputs; i++) free(out[i]);
    free(in);
    free(out);
    return status;
}
