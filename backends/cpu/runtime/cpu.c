/* Which instructions this processor has and the system has switched on (Intel SDM volume 2, CPUID and XGETBV; on ARM
   Linux tells). */
#include "program.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <string.h>

enum { ECX1, EBX7, ECX7, EAX71, WORDS };
#define YMM 0x06u /* XCR0: the system saves these registers */
#define ZMM 0xe6u

static const struct {
    const char *name;
    int word, bit;
    unsigned state;
} known[] = {
    {"fma", ECX1, 12, YMM},      {"avx", ECX1, 28, YMM},      {"f16c", ECX1, 29, YMM},     {"bmi1", EBX7, 3, 0},
    {"avx2", EBX7, 5, YMM},      {"bmi2", EBX7, 8, 0},        {"avx512f", EBX7, 16, ZMM},  {"avx512dq", EBX7, 17, ZMM},
    {"avx512cd", EBX7, 28, ZMM}, {"avx512bw", EBX7, 30, ZMM}, {"avx512vl", EBX7, 31, ZMM},
    {"avx512_vnni", ECX7, 11, ZMM}, {"avx_vnni", EAX71, 4, YMM},
};

static unsigned saved_states(unsigned ecx1) {
    unsigned low, high;
    if (!(ecx1 >> 27 & 1)) return 0; /* OSXSAVE */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

int prunec_cpu_is_able(const char **missing) {
    unsigned a, b, c, d, words[WORDS] = {0}, states = 0;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        words[ECX1] = c;
        states = saved_states(c);
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        words[EBX7] = b;
        words[ECX7] = c;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) words[EAX71] = a;
    }
    for (const char *const *flag = prunec_the_program.flags; *flag; flag++) {
        int has = 0;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (!strcmp(known[i].name, *flag))
                has = words[known[i].word] >> known[i].bit & 1 && (states & known[i].state) == known[i].state;
        if (!has) return *missing = *flag, 0;
    }
    return 1;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <string.h>
#include <sys/auxv.h>

static const struct {
    const char *name;
    unsigned long bit;
} known[] = {{"asimddp", 1ul << 20}}; /* HWCAP_ASIMDDP, the same on every Linux */

int prunec_cpu_is_able(const char **missing) {
    unsigned long has = getauxval(AT_HWCAP);
    for (const char *const *flag = prunec_the_program.flags; *flag; flag++) {
        int is_there = 0;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (!strcmp(known[i].name, *flag)) is_there = (has & known[i].bit) != 0;
        if (!is_there) return *missing = *flag, 0;
    }
    return 1;
}
#else
int prunec_cpu_is_able(const char **missing) { return *missing = NULL, 1; } /* kernels use what all of them have */
#endif
