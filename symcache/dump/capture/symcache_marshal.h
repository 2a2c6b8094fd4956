/* symcache_marshal.h: asks a `symcache dump --handler` for a dump of this process. One file, C99 or C++11.
 *
 * Start the handler early, with a pipe to its standard input and one from its standard output; when the process has
 * crashed, call symcache_marshal() from the signal or exception handler, on the thread that crashed:
 *
 *     int status = symcache_marshal(to_handler, from_handler, 0, "/Applications/My.app/Contents/MacOS/My", "1.2.3");
 *
 * It returns 0 once the dump is written. It allocates nothing, takes no lock of its own, and uses read(2), write(2)
 * and Mach messages only. The wire format is versioned; all numbers are little-endian, as both architectures are.
 *
 * SPDX-License-Identifier: BSL-1.0
 */
#ifndef SYMCACHE_MARSHAL_H
#define SYMCACHE_MARSHAL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define SYMCACHE_WIRE_VERSION 1
#define SYMCACHE_MAX_TEXT 16384
#define SYMCACHE_MAX_NAME 127 /* BOOTSTRAP_MAX_NAME_LEN without its NUL */

enum {
    SYMCACHE_OK = 0,
    SYMCACHE_PIPE_FAILED = 1,   /* the handler is gone */
    SYMCACHE_BAD_ANSWER = 2,    /* it speaks another version, or nonsense */
    SYMCACHE_PORT_FAILED = 3,   /* its Mach port cannot be reached */
    SYMCACHE_HANDLER_FAILED = 4 /* it could not write the dump */
};

struct symcache_hello {
    char magic[4]; /* "SYMC" */
    uint16_t version;
    uint16_t reserved;
    uint64_t thread_id;
    uint32_t executable_size;
    uint32_t bundle_version_size;
}; /* followed by both texts, UTF-8, without NUL */

struct symcache_answer {
    char magic[4]; /* "SYMP": a port's name of `value` bytes follows; "SYMD": `value` is 0 if the dump is written */
    uint16_t version;
    uint16_t value;
};

static inline int symcache_write_all(int fd, const void *data, size_t size) {
    const char *at = (const char *)data;
    while (size > 0) {
        ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return SYMCACHE_PIPE_FAILED;
        at += written;
        size -= (size_t)written;
    }
    return SYMCACHE_OK;
}

static inline int symcache_read_all(int fd, void *data, size_t size) {
    char *at = (char *)data;
    while (size > 0) {
        ssize_t got = read(fd, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return SYMCACHE_PIPE_FAILED;
        at += got;
        size -= (size_t)got;
    }
    return SYMCACHE_OK;
}

static inline int symcache_read_answer(int fd, const char *magic, struct symcache_answer *answer) {
    int status = symcache_read_all(fd, answer, sizeof *answer);
    if (status != SYMCACHE_OK) return status;
    if (memcmp(answer->magic, magic, 4) != 0 || answer->version != SYMCACHE_WIRE_VERSION) return SYMCACHE_BAD_ANSWER;
    return SYMCACHE_OK;
}

/* Sends the request and receives the port's name, with its NUL, into `name` (SYMCACHE_MAX_NAME + 1 bytes). */
static inline int symcache_request(int to_handler, int from_handler, uint64_t thread_id, const char *executable,
                                   const char *bundle_version, char *name) {
    struct symcache_hello hello;
    struct symcache_answer answer;
    size_t executable_size = strlen(executable), bundle_size = strlen(bundle_version);
    int status;
    if (executable_size > SYMCACHE_MAX_TEXT) executable_size = SYMCACHE_MAX_TEXT;
    if (bundle_size > SYMCACHE_MAX_TEXT) bundle_size = SYMCACHE_MAX_TEXT;
    memset(&hello, 0, sizeof hello);
    memcpy(hello.magic, "SYMC", 4);
    hello.version = SYMCACHE_WIRE_VERSION;
    hello.thread_id = thread_id;
    hello.executable_size = (uint32_t)executable_size;
    hello.bundle_version_size = (uint32_t)bundle_size;
    if ((status = symcache_write_all(to_handler, &hello, sizeof hello)) != SYMCACHE_OK) return status;
    if ((status = symcache_write_all(to_handler, executable, executable_size)) != SYMCACHE_OK) return status;
    if ((status = symcache_write_all(to_handler, bundle_version, bundle_size)) != SYMCACHE_OK) return status;
    if ((status = symcache_read_answer(from_handler, "SYMP", &answer)) != SYMCACHE_OK) return status;
    if (answer.value == 0 || answer.value > SYMCACHE_MAX_NAME) return SYMCACHE_BAD_ANSWER;
    if ((status = symcache_read_all(from_handler, name, answer.value)) != SYMCACHE_OK) return status;
    name[answer.value] = 0;
    return SYMCACHE_OK;
}

static inline int symcache_wait(int from_handler) {
    struct symcache_answer answer;
    int status = symcache_read_answer(from_handler, "SYMD", &answer);
    if (status != SYMCACHE_OK) return status;
    return answer.value == 0 ? SYMCACHE_OK : SYMCACHE_HANDLER_FAILED;
}

#ifdef __APPLE__
#include <mach/mach.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C"
#else
extern
#endif
kern_return_t bootstrap_look_up(mach_port_t bootstrap, const char *name, mach_port_t *port); /* <servers/bootstrap.h> */

struct symcache_task_message {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t task;
};

static inline int symcache_send_task(const char *name) {
    struct symcache_task_message message;
    mach_port_t port = MACH_PORT_NULL;
    if (bootstrap_look_up(bootstrap_port, name, &port) != KERN_SUCCESS) return SYMCACHE_PORT_FAILED;
    memset(&message, 0, sizeof message);
    message.header.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0) | MACH_MSGH_BITS_COMPLEX;
    message.header.msgh_size = sizeof message;
    message.header.msgh_remote_port = port;
    message.body.msgh_descriptor_count = 1;
    message.task.name = mach_task_self();
    message.task.disposition = MACH_MSG_TYPE_COPY_SEND;
    message.task.type = MACH_MSG_PORT_DESCRIPTOR;
    if (mach_msg(&message.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, MACH_PORT_NULL, 10000,
                 MACH_PORT_NULL) != MACH_MSG_SUCCESS)
        return SYMCACHE_PORT_FAILED;
    return SYMCACHE_OK;
}

/* `thread_id` is what pthread_threadid_np() gives for the thread that crashed; 0: the calling thread. */
static inline int symcache_marshal(int to_handler, int from_handler, uint64_t thread_id, const char *executable,
                                   const char *bundle_version) {
    char name[SYMCACHE_MAX_NAME + 1];
    int status;
    if (thread_id == 0) pthread_threadid_np(NULL, &thread_id);
    if ((status = symcache_request(to_handler, from_handler, thread_id, executable, bundle_version, name)) != SYMCACHE_OK)
        return status;
    if ((status = symcache_send_task(name)) != SYMCACHE_OK) return status;
    return symcache_wait(from_handler);
}
#endif /* __APPLE__ */

#endif
