/* Sorting. */
#include "system.h"

extern void *_platform_memmove(void *, const void *, size_t);
extern void __exit(int);

typedef int (*comparator)(void *, const void *, const void *);

__attribute__((noinline)) static void _isort(char *base, size_t count, size_t size, void *context, comparator compare,
                                             char *spare) {
    for (size_t i = 1; i < count; i++) {
        _platform_memmove(spare, base + i * size, size);
        size_t j = i;
        for (; j > 0 && compare(context, spare, base + (j - 1) * size) < 0; j--)
            _platform_memmove(base + j * size, base + (j - 1) * size, size);
        _platform_memmove(base + j * size, spare, size);
    }
}

__attribute__((noinline)) static void _qsort(char *base, size_t count, size_t size, void *context, comparator compare,
                                             char *spare) {
    if (count > 8) {
        size_t half = count / 2;
        _qsort(base, half, size, context, compare, spare);
        _qsort(base + half * size, count - half, size, context, compare, spare);
    }
    _isort(base, count, size, context, compare, spare);
}

void qsort_r(void *base, size_t count, size_t size, void *context, comparator compare) {
    char *spare = malloc(size);
    if (!spare) return;
    _qsort(base, count, size, context, compare, spare);
    free(spare);
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return length;
}

void exit(int status) {
    __exit(status);
    __builtin_trap();
}
