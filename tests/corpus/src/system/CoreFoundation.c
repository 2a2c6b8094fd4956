/* Arrays of pointers. */
#include "CoreFoundation.h"
#include "system.h"

struct __CFArray {
    CFIndex count, capacity;
    const void **values;
};

struct sorting {
    CFComparatorFunction compare;
    void *context;
};

const char *const kCFBundleVersionKey = "CFBundleVersion";

CFMutableArrayRef CFArrayCreateMutable(const void *allocator, CFIndex capacity, const void *callbacks) {
    (void)allocator;
    (void)callbacks;
    CFMutableArrayRef array = calloc(1, sizeof *array);
    array->capacity = capacity;
    array->values = calloc((size_t)capacity, sizeof *array->values);
    return array;
}

void CFArrayAppendValue(CFMutableArrayRef array, const void *value) {
    if (array->count < array->capacity) array->values[array->count++] = value;
}

CFIndex CFArrayGetCount(CFMutableArrayRef array) { return array->count; }

static int __CFSortIndexesCompare(void *sorting, const void *left, const void *right) {
    struct sorting *how = sorting;
    return (int)how->compare(*(const void *const *)left, *(const void *const *)right, how->context);
}

void CFArraySortValues(CFMutableArrayRef array, CFRange range, CFComparatorFunction compare, void *context) {
    struct sorting how = {compare, context};
    qsort_r(array->values + range.location, (size_t)range.length, sizeof *array->values, &how, __CFSortIndexesCompare);
}
