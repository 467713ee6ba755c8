/* Runs a package on zeros and prints the first numbers of every output.
 *
 *     cc -std=c99 example.c ./libmodel.so -Wl,-rpath,'$ORIGIN' -o example && ./example model.weights
 */
#include "prunec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    prunec_model *model = NULL;
    if (prunec_model_create(argc > 1 ? argv[1] : "model.weights", argc > 2 ? atoi(argv[2]) : 1, &model)) {
        fprintf(stderr, "%s\n", prunec_last_error());
        return 1;
    }
    int inputs = prunec_input_count(), outputs = prunec_output_count();
    const void **in = calloc((size_t)inputs + 1, sizeof *in);
    void **out = calloc((size_t)outputs + 1, sizeof *out);
    for (int i = 0; i < inputs; i++) in[i] = calloc(1, prunec_input(i)->bytes);
    for (int i = 0; i < outputs; i++) out[i] = calloc(1, prunec_output(i)->bytes);
    int status = prunec_model_run(model, in, out);
    if (status) fprintf(stderr, "%s\n", prunec_last_error());
    for (int i = 0; i < outputs && !status; i++) {
        const prunec_tensor *tensor = prunec_output(i);
        printf("%s:", tensor->name);
        if (!strcmp(tensor->dtype, "float32"))
            for (size_t k = 0; k < tensor->bytes / 4 && k < 8; k++) printf(" %.6g", ((float *)out[i])[k]);
        printf("\n");
    }
    for (int i = 0; i < inputs; i++) free((void *)in[i]);
    for (int i = 0; i < outputs; i++) free(out[i]);
    free(in);
    free(out);
    prunec_model_destroy(model);
    return status;
}
