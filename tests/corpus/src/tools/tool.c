/* A small program of the host: no dependency but libSystem. */
#include "system.h"

__attribute__((noinline)) static int usage(const char *name) { return (int)strlen(name) & 1; }

int main(int argc, char **argv) { return argc > 9 ? usage(argv[0]) : 0; }
