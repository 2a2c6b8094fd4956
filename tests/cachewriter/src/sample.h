/* What the samples share. On other systems than Apple's they make one library, which tells the right answers. */
#if defined(__APPLE__) && !defined(__i386__)
#define SEGMENT(where) __attribute__((section(where)))
#define TLS __thread
#else
#define SEGMENT(where)
#define TLS
#endif
#define WEAK __attribute__((weak))
#define HIDDEN __attribute__((visibility("hidden")))
#define APART __attribute__((noinline))

typedef int (*operation)(int);
