/* /usr/lib/libthreads.dylib: thread-local variables, zero-fill of more than a page, an alias. */
#include "sample.h"

TLS int thread_value = 42;
TLS long thread_zero;
static char large[70000];
int after = 9;

int *thread_address(void) { return &thread_value; }
long thread_add(long x) { return thread_zero += x; }
int threads_probe(int x) {
    large[x % 70000] += (char)x;
    large[69999] = 3;
    return large[x % 70000] + large[69999] + after;
}
