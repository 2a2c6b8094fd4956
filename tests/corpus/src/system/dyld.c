/* The dynamic linker's end of a program's start: find LC_MAIN and call it. The images are bound already.
   The kernel leaves on the stack: the executable's header, argc, argv. */
typedef unsigned int uint32;
typedef unsigned long long uint64;

struct mach_header { uint32 magic, cputype, cpusubtype, filetype, ncmds, sizeofcmds, flags, reserved; };
struct load_command { uint32 cmd, cmdsize; };
struct entry_point_command { uint32 cmd, cmdsize; uint64 entryoff, stacksize; };
struct kernel_args { const struct mach_header *executable; uint64 argc; const char *argv[]; };

#if defined(__x86_64__)
__asm__(".text\n.p2align 4\n.globl __dyld_start\n__dyld_start:\n"
        "\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\txorl %ebp, %ebp\n\tpushq $0\n\tjmp start\n"
        ".globl ___exit\n___exit:\n\tmovl $0x2000001, %eax\n\tsyscall\n\tud2\n");
#else
__asm__(".text\n.p2align 2\n.globl __dyld_start\n__dyld_start:\n"
        "\tmov x0, sp\n\tand sp, x0, #0xfffffffffffffff0\n\tmov x29, #0\n\tmov x30, #0\n\tb start\n"
        ".globl ___exit\n___exit:\n\tmov x16, #1\n\tsvc #0x80\n\tbrk #1\n");
#endif

extern void __exit(int);
void start(struct kernel_args *args) __asm__("start");

__attribute__((noinline)) static uint64 entry_offset(const struct mach_header *header) {
    const char *at = (const char *)(header + 1);
    for (uint32 i = 0; i < header->ncmds; i++) {
        const struct load_command *command = (const void *)at;
        if (command->cmd == 0x80000028) return ((const struct entry_point_command *)command)->entryoff;
        at += command->cmdsize;
    }
    return 0;
}

void start(struct kernel_args *args) {
    int (*entry)(int, const char **) = (void *)((const char *)args->executable + entry_offset(args->executable));
    __exit(entry((int)args->argc, args->argv));
}
