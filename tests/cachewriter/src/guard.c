/* First in __data of arm64_32: lld 19 writes the last lazy pointer there with 8 bytes instead of 4. */
__attribute__((used)) static int guard[2] = {1, 1};
