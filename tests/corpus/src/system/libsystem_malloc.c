/* One zone that only grows. */
#include "system.h"

static unsigned char small_region[0x8000] __attribute__((aligned(16)));

typedef struct {
    const char *name;
    unsigned char *begin;
    size_t used, limit;
} malloc_zone_t;

/* A pointer into another segment, so that the image has something to rebase. */
static malloc_zone_t default_zone = {"DefaultMallocZone", small_region, 0, sizeof small_region};

malloc_zone_t *malloc_default_zone(void) { return &default_zone; }

__attribute__((noinline)) static void *szone_malloc(malloc_zone_t *zone, size_t size) {
    size_t rounded = (size + 15) & ~(size_t)15;
    if (rounded < size || zone->limit - zone->used < rounded) return 0;
    zone->used += rounded;
    return zone->begin + zone->used - rounded;
}

void *malloc(size_t size) { return szone_malloc(malloc_default_zone(), size); }

void *calloc(size_t count, size_t size) {
    if (size && count > (size_t)-1 / size) return 0;
    return malloc(count * size); /* never used before, so it is zero */
}

void free(void *pointer) { (void)pointer; }
