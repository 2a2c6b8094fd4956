/* Crashes in a comparison that the system's qsort calls, and has the handler write a dump of it.
 *
 *     crash TO_HANDLER FROM_HANDLER      descriptors; exit status: what symcache_marshal returned
 */
#include "symcache_marshal.h"

#include <signal.h>
#include <stdlib.h>

static int to_handler, from_handler;
static const char *executable;

static void on_signal(int number) {
    (void)number;
    _exit(symcache_marshal(to_handler, from_handler, 0, executable, "1.0"));
}

__attribute__((noinline)) static int compare_entries(const void *one, const void *other) {
    volatile int *nowhere = (volatile int *)8;
    *nowhere = *(const int *)one < *(const int *)other;
    return 0;
}

__attribute__((noinline)) int LKBookSort(int *entries, size_t count) {
    qsort(entries, count, sizeof *entries, compare_entries);
    return entries[0];
}

int main(int argc, char **argv) {
    int entries[] = {5, 3, 8, 1};
    if (argc != 3) return 64;
    executable = argv[0];
    to_handler = atoi(argv[1]);
    from_handler = atoi(argv[2]);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    return LKBookSort(entries, sizeof entries / sizeof *entries) ? 1 : 2;
}
