/* A plugin for qemu-user that counts instructions between the readings of the clock around each step of a model.
 *
 *     qemu-aarch64 -plugin count.so,out=FILE runner WEIGHTS 1 1
 *
 * FILE gets a line for every reading: instructions so far, of these multiply-adds of vectors (FMLA), and loads and
 * stores. The interface is that of qemu's TCG plugins, version 1; the declarations are those of what is used of it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t));
#define ADD_U64 0
#define CLOCK_GETTIME 113 /* of Linux on AArch64 */

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t instructions, multiply_adds, memory;
static FILE *out;

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    uint64_t products = 0, accesses = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        /* Arm ARM C4.1: FMLA (vector) and FMLA (by element), single precision; loads and stores are x1x0 in 28..25. */
        products += (word & 0xBFE0FC00) == 0x0E20CC00 || (word & 0xBFC0F400) == 0x0F801000;
        accesses += (word & 0x0A000000) == 0x08000000;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, count);
    if (products) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &multiply_adds, products);
    if (accesses) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &memory, accesses);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != CLOCK_GETTIME) return;
    fprintf(out, "%llu %llu %llu\n", (unsigned long long)instructions, (unsigned long long)multiply_adds,
            (unsigned long long)memory);
    fflush(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w"))) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
