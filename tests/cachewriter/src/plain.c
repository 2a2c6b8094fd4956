/* /usr/lib/libplain.dylib: globals in several segments, local functions, a jump table. */
#include "sample.h"

extern int base_add(int), base_double(int), base_word(int), system_call(int);
extern int base_counter;

int plain_global = 7;
static int plain_local = 3;
static int plain_zero[300];
int plain_tentative;
int *plain_pointer = &plain_global;
operation plain_operations[5] = {base_add, base_double, system_call, base_word, base_add};
static operation *plain_middle = &plain_operations[2];
static const char *const plain_names[] = {"zero", "one", "two"};

APART static int plain_first(int x) { return x + plain_local; }
APART static int plain_second(int x) { plain_zero[x & 255] += x; return plain_zero[x & 255] + *plain_pointer; }
APART int plain_switch(int x) {
    switch (x & 15) {
    case 0: return base_add(x);
    case 1: return plain_first(x) + 9;
    case 2: return base_double(x) * 5;
    case 3: return plain_second(x);
    case 4: return system_call(x);
    case 5: return base_word(x) ^ 77;
    case 6: return base_counter * x;
    case 7: plain_tentative += x; return plain_tentative;
    case 8: return plain_names[x % 3][0];
    case 9: return (*plain_middle)(x);
    }
    return -x;
}
int plain_probe(int x) {
    int sum = 0;
    for (int i = 0; i < 16; i++)
        sum = sum * 31 + plain_switch(x + i);
    for (int i = 0; i < 5; i++)
        sum ^= plain_operations[i](x + i) << i;
    return sum + plain_names[x & 1][1];
}
