/* System calls. A thread that waits or starts another is stopped just behind the instruction that calls the kernel. */

#if defined(__x86_64__)
#define SYSTEM_CALL(name, number)                                                                                      \
    __asm__(".text\n.p2align 4\n.globl " name "\n" name ":\n"                                                          \
            "\tmovl $(0x2000000 + " #number "), %eax\n\tmovq %rcx, %r10\n\tsyscall\n\tretq\n")
#else
#define SYSTEM_CALL(name, number)                                                                                      \
    __asm__(".text\n.p2align 2\n.globl " name "\n" name ":\n"                                                          \
            "\tmov x16, #" #number "\n\tsvc #0x80\n\tret\n")
#endif

SYSTEM_CALL("___exit", 1);
SYSTEM_CALL("___psynch_cvwait", 305);
SYSTEM_CALL("___bsdthread_create", 360);
SYSTEM_CALL("___bsdthread_register", 366);
