/* The thread pool behind parallel loops, and the other functions that kernels call. */
#define _GNU_SOURCE
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4 /* blocks that a kernel has at the same time, at most; more come from the heap */
#define SPINS 20000 /* some tens of microseconds: longer than the pause between two kernels of a run */
#define PARTS 8 /* of a thread's share of a loop: what is left of it can go to a thread that is done */

typedef struct {
    void *sync_handle;
    int32_t num_task;
} parallel_group;
typedef int (*parallel_body)(int task, parallel_group *group, void *data);

/* A block that kernels of one thread use in turn: fresh memory would cost more page faults than they compute. */
typedef struct {
    void *memory;
    size_t bytes;
    int used;
} block;

typedef struct {
    prunec_pool *pool;
    pthread_t thread;
    int number;
    _Alignas(64) atomic_int next; /* part of its share that nobody has begun */
    block blocks[SLOTS];
} worker;

struct prunec_pool {
    int threads, started;
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint round;   /* counts parallel loops */
    atomic_int running, sleeping, stopping, failed;
    parallel_body body;
    void *data;
};

static _Thread_local prunec_pool *current;
static _Thread_local block *own_blocks;

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Its own share first, in order, so that from kernel to kernel a thread finds its part of a tensor in its cache. */
static void work(prunec_pool *pool, int number) {
    parallel_group group = {NULL, pool->threads * PARTS};
    for (int i = 0; i < pool->threads; i++) {
        int share = (number + i) % pool->threads;
        for (int part; (part = atomic_fetch_add(&pool->workers[share].next, 1)) < PARTS;)
            if (pool->body(share * PARTS + part, &group, pool->data)) atomic_store(&pool->failed, 1);
    }
}

static unsigned wait_for_round(prunec_pool *pool, unsigned seen) {
    for (int spin = 0; spin < SPINS; spin++, relax())
        if (atomic_load(&pool->round) != seen) return atomic_load(&pool->round);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleeping, 1);
    while (atomic_load(&pool->round) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
    return atomic_load(&pool->round);
}

static void next_round(prunec_pool *pool) {
    atomic_fetch_add(&pool->round, 1);
    if (!atomic_load(&pool->sleeping)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument) {
    worker *self = argument;
    prunec_pool *pool = self->pool;
    unsigned seen = 0;
    own_blocks = self->blocks;
    for (;;) {
        seen = wait_for_round(pool, seen);
        if (atomic_load(&pool->stopping)) return NULL;
        work(pool, self->number);
        atomic_fetch_sub(&pool->running, 1);
    }
}

prunec_pool *prunec_pool_create(int threads) {
    prunec_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    size_t bytes = (size_t)threads * sizeof *pool->workers;
    pool->workers = aligned_alloc(_Alignof(worker), bytes);
    if (pool->workers) memset(pool->workers, 0, bytes);
    for (int i = 1; pool->workers && i < threads; i++) {
        worker *one = &pool->workers[i];
        one->pool = pool;
        one->number = i;
        if (pthread_create(&one->thread, NULL, worker_main, one)) break;
        pool->started++;
    }
    if (pool->workers && pool->started == threads - 1) return pool;
    prunec_pool_destroy(pool);
    return NULL;
}

void prunec_pool_destroy(prunec_pool *pool) {
    atomic_store(&pool->stopping, 1);
    next_round(pool);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    for (int i = 0; pool->workers && i < pool->threads; i++)
        for (int slot = 0; slot < SLOTS; slot++) free(pool->workers[i].blocks[slot].memory);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
}

void prunec_pool_enter(prunec_pool *pool) {
    current = pool;
    own_blocks = pool->workers[0].blocks;
}

void prunec_pool_leave(prunec_pool *pool) {
    (void)pool;
    current = NULL;
    own_blocks = NULL;
}

static int launch(parallel_body body, void *data, int tasks) {
    (void)tasks;
    prunec_pool *pool = current;
    if (pool->threads == 1) {
        parallel_group group = {NULL, 1};
        return body(0, &group, data);
    }
    pool->body = body;
    pool->data = data;
    atomic_store(&pool->failed, 0);
    for (int i = 0; i < pool->threads; i++) atomic_store(&pool->workers[i].next, 0);
    atomic_store(&pool->running, pool->threads - 1);
    next_round(pool);
    work(pool, 0);
    while (atomic_load(&pool->running)) relax();
    return atomic_load(&pool->failed);
}

static void *allocate(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    size_t size = (size_t)((bytes + 63) / 64 * 64);
    for (block *own = own_blocks; own && own < own_blocks + SLOTS; own++) {
        if (own->used) continue;
        if (own->bytes < size) {
            free(own->memory);
            own->memory = aligned_alloc(64, size);
            own->bytes = own->memory ? size : 0;
        }
        own->used = own->memory != NULL;
        return own->memory;
    }
    return aligned_alloc(64, size);
}

static int release(int device, int id, void *memory) {
    (void)device, (void)id;
    for (block *own = own_blocks; own && own < own_blocks + SLOTS; own++)
        if (own->memory == memory && own->used) return own->used = 0;
    free(memory);
    return 0;
}

/* Objects declare these as weak variables: the definitions here fill them in. */
int (*__TVMBackendParallelLaunch)(parallel_body, void *, int) = launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;
