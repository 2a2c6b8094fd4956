/* /usr/lib/system/libsystem_base.dylib: what everything else imports, and what each dylib needs. */
#include "sample.h"

#ifdef __APPLE__
int stub_binder(void) __asm__("dyld_stub_binder");
int stub_binder(void) { return 0; }
void *tlv_bootstrap(void *) __asm__("__tlv_bootstrap");
void *tlv_bootstrap(void *descriptor) { return descriptor; }
#endif

int base_counter = 11;
const char *base_words[4] = {"alpha", "beta", "gamma", "delta"};
static int base_hidden = 5;

APART static int base_helper(int x) { return x * 3 + base_hidden; }
int base_add(int x) { return base_helper(x) + base_counter; }
int base_double(int x) { return 2 * x; }
int base_word(int x) { return base_words[x & 3][x & 1]; }
int *base_counter_address(void) { return &base_counter; }
