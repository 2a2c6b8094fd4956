/* What programs may ask of dyld. */
static const char *const kinds[] = {"dyld", "executable", "dylib"};

const char *_dyld_kind(unsigned index) { return index < 3 ? kinds[index] : 0; }

unsigned _dyld_image_count(void) { return 1; }
