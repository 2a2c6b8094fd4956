/* Declarations that the system libraries and the programs share. */
typedef __SIZE_TYPE__ size_t;
typedef struct _pthread { void *result; unsigned port; int done; } *pthread_t;
typedef struct { unsigned long long owner; } pthread_mutex_t;
typedef struct { unsigned long long waiters; } pthread_cond_t;

void *malloc(size_t);
void *calloc(size_t, size_t);
void free(void *);
void qsort_r(void *, size_t, size_t, void *, int (*)(void *, const void *, const void *));
void exit(int);
size_t strlen(const char *);
int pthread_create(pthread_t *, const void *, void *(*)(void *), void *);
int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);
