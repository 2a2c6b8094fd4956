/* Threads: `thread_start` is where the kernel begins a thread. */
#include "system.h"

extern void __bsdthread_register(void (*)(void));
extern int __bsdthread_create(void *(*)(void *), void *, void *, pthread_t, unsigned);
extern int __psynch_cvwait(pthread_cond_t *, unsigned long long, unsigned, pthread_mutex_t *);
extern void thread_start(void);

#if defined(__x86_64__)
__asm__(".text\n.p2align 4\n.globl _thread_start\n_thread_start:\n"
        "\tpushq $0\n\tpushq $0\n\tmovq %rsp, %rbp\n\tcallq __pthread_start\n\tud2\n");
#else
__asm__(".text\n.p2align 2\n.globl _thread_start\n_thread_start:\n"
        "\tstp xzr, xzr, [sp, #-16]!\n\tmov x29, sp\n\tbl __pthread_start\n\tbrk #1\n");
#endif

void _pthread_start(pthread_t thread, unsigned port, void *(*function)(void *), void *argument) {
    thread->port = port;
    thread->result = function(argument);
    thread->done = 1;
}

int pthread_create(pthread_t *thread, const void *attributes, void *(*function)(void *), void *argument) {
    static int registered;
    (void)attributes;
    if (!registered) {
        registered = 1;
        __bsdthread_register(thread_start);
    }
    pthread_t created = calloc(1, sizeof *created);
    if (!created) return 12;
    *thread = created;
    return __bsdthread_create(function, argument, 0, created, 0);
}

__attribute__((noinline)) static int _pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    condition->waiters += 1;
    mutex->owner = 0;
    int status = __psynch_cvwait(condition, (unsigned long long)condition->waiters << 32, 0, mutex);
    condition->waiters -= 1;
    return status;
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    return _pthread_cond_wait(condition, mutex);
}
