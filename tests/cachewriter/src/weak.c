/* /usr/lib/libweak.dylib: weak definitions and weak imports, one of which nobody has. */
#include "sample.h"

extern int base_double(int);
WEAK int weak_value = 17;
WEAK int weak_function(int x) { return x + 100; }
extern int never_there(int) __attribute__((weak_import));
HIDDEN int weak_hidden(int x) { return x - 1; }
int weak_probe(int x) {
#ifdef __APPLE__
    if (never_there)
        return never_there(x);
#endif
    return weak_function(x) + weak_value + base_double(weak_hidden(x));
}
