/*
 * extract-cache BUNDLE CACHE FOLDER
 *
 * Has the extractor that comes with macOS (/usr/lib/dsc_extractor.bundle) write the images of one dyld shared cache
 * below FOLDER. Prints N/M for every image, sentences about errors to stderr.
 *
 * Ends with 0; 64 for wrong arguments; 69 when the bundle cannot be loaded into this process, which another
 * architecture's may be able to; 70 when it is no extractor; 255 when it says that it failed. As with
 * dyld_shared_cache_util, 0 says nothing about single images.
 *
 * Declares what it uses of libSystem, so that it can be built where there is no SDK: build.py beside it.
 */

extern void *dlopen(const char *path, int mode);
extern void *dlsym(void *handle, const char *name);
extern const char *dlerror(void);
extern int dprintf(int file, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { STDOUT = 1, STDERR = 2, NOW = 2 /* RTLD_NOW of <dlfcn.h> */ };
enum { USAGE = 64, NOT_LOADED = 69, NO_EXTRACTOR = 70, FAILED = 255 }; /* the first three of <sysexits.h> */

#define FUNCTION "dyld_shared_cache_extract_dylibs_progress"

typedef int (*extract_function)(const char *cache, const char *folder, void (^progress)(unsigned done, unsigned total));

int main(int argc, char **argv) {
    if (argc != 4) {
        dprintf(STDERR, "usage: extract-cache BUNDLE CACHE FOLDER\n");
        return USAGE;
    }
    void *bundle = dlopen(argv[1], NOW);
    if (!bundle) {
        const char *reason = dlerror();
        dprintf(STDERR, "%s cannot be loaded: %s\n", argv[1], reason ? reason : "no reason given");
        return NOT_LOADED;
    }
    extract_function extract = (extract_function)dlsym(bundle, FUNCTION);
    if (!extract) {
        dprintf(STDERR, "%s has no %s\n", argv[1], FUNCTION);
        return NO_EXTRACTOR;
    }
    /* Called from several threads at once: one line is one write. */
    int result = extract(argv[2], argv[3], ^(unsigned done, unsigned total) {
        dprintf(STDOUT, "%u/%u\n", done, total);
    });
    if (result != 0) {
        dprintf(STDERR, "%s returned %d for %s\n", FUNCTION, result, argv[2]);
        return FAILED;
    }
    return 0;
}
