/* A framework with one segment of each kind. */
#include "sample.h"

extern int plain_switch(int), plain_global, base_add(int);
static int twice(int x) { return 2 * x + plain_global; }
static int thrice(int x) { return 3 * x; }

int ordinary = 21;
SEGMENT("__DATA_DIRTY,__data") int dirty[40] = {4, 5, 6};
SEGMENT("__DATA_DIRTY,__data") int *dirty_pointer = &ordinary;
SEGMENT("__AUTH,__data") operation authentic[3] = {twice, thrice, base_add};
SEGMENT("__AUTH_CONST,__const") operation const authentic_const[2] = {thrice, twice};
SEGMENT("__TPRO_CONST,__data") int *const protected_pointer = &dirty[2];
SEGMENT("__OBJC_CONST,__const") const void *const objective[3] = {&ordinary, 0, authentic};
static operation const constant[3] = {twice, base_add, plain_switch};
SEGMENT("__TEXT,__note") static const char note[] = "read-only bytes";

int segments_probe(int x) {
    int sum = ordinary + dirty[x % 40] + *dirty_pointer + *protected_pointer;
    dirty[3] += x;
    for (int i = 0; i < 3; i++)
        sum = sum * 7 + constant[i](x) + authentic[i](x);
    for (int i = 0; i < 2; i++)
        sum ^= authentic_const[i](x + i);
    return sum + *(const int *)objective[0] + note[x % 15];
}
