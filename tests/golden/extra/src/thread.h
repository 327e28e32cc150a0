/* SPDX-License-Identifier: GPL-2.0-only */
/* A thread without a C library: clone with CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID, CHILD_CLEARTID. */
enum { THREADS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x100000 | 0x200000 };

#ifdef __x86_64__
static NOINLINE long spawn(void (*function)(void), u8 *stack, volatile int *tid, volatile int *clear)
{
	register long r10 asm("r10") = (long)clear, r8 asm("r8") = 0;
	long result;

	stack -= sizeof function;
	memcpy(stack, &function, sizeof function);
	asm volatile("syscall\n	test %%rax, %%rax\n	jnz 1f\n	pop %%rax\n	call *%%rax\n"
		     "	mov $60, %%eax\n	xor %%edi, %%edi\n	syscall\n1:"
		     : "=a"(result) : "a"(56), "D"(THREADS), "S"(stack), "d"(tid), "r"(r10), "r"(r8)
		     : "rcx", "r11", "memory");
	return result;
}
#else
static NOINLINE long spawn(void (*function)(void), u8 *stack, volatile int *tid, volatile int *clear)
{
	register long x8 asm("x8") = 220, x0 asm("x0") = THREADS, x1 asm("x1") = (long)stack, x2 asm("x2") = (long)tid,
		      x3 asm("x3") = 0, x4 asm("x4") = (long)clear, x5 asm("x5") = (long)function;

	asm volatile("svc #0\n	cbnz x0, 1f\n	blr x5\n	mov x8, #93\n	mov x0, #0\n	svc #0\n1:"
		     : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "x30");
	return x0;
}
#endif
