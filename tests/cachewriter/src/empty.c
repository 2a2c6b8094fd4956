/* A dylib with code alone. */
int lonely(int x) { return x ^ 0x55; }
