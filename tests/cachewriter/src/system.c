/* /usr/lib/libSystem.B.dylib: re-exports libsystem_base whole. */
#include "sample.h"

extern int base_add(int);

int system_call(int x) { return base_add(x) - 1; }
