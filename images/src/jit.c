/* SPDX-License-Identifier: GPL-2.0-only */
/* A JIT: writes machine code, makes it executable and calls it; rewrites it and must never run the old bytes again. */
#include "guest.h"

typedef long function(long);

/* f(x) = x + n */
static void emit(u8 *code, int n)
{
#ifdef __x86_64__
	u8 text[] = { 0x48, 0x8d, 0x87, n, n >> 8, 0, 0, 0xc3 }; /* lea n(%rdi), %rax; ret */

	memcpy(code, text, sizeof text);
#else
	((u32 *)code)[0] = 0x91000000 | n << 10; /* add x0, x0, #n */
	((u32 *)code)[1] = 0xd65f03c0;           /* ret */
#endif
}
/* Make what was written visible to instruction fetch: nothing on x86-64, a duty of the program on arm64. */
static void sync_code(u8 *code, ulong size)
{
#ifdef __aarch64__
	ulong ctr, d, i;

	asm volatile("mrs %0, ctr_el0" : "=r"(ctr));
	d = 4ul << (ctr >> 16 & 15), i = 4ul << (ctr & 15);
	for (ulong p = (ulong)code & -d; p < (ulong)code + size; p += d)
		asm volatile("dc cvau, %0" : : "r"(p) : "memory");
	asm volatile("dsb ish" : : : "memory");
	for (ulong p = (ulong)code & -i; p < (ulong)code + size; p += i)
		asm volatile("ic ivau, %0" : : "r"(p) : "memory");
	asm volatile("dsb ish\n isb" : : : "memory");
#else
	(void)code, (void)size;
#endif
}

static int run(void)
{
	u8 *code = map(NULL, 2, PROT_READ | PROT_WRITE | PROT_EXEC, ANON), *frozen = map(NULL, 1, RW, ANON);
	long sum = 0, child;

	for (int i = 1; i <= 1000; i++) { /* rewritten in place while executable */
		emit(code, i);
		sync_code(code, 8);
		sum += ((function *)code)(0) == i;
	}
	say("%d of 1000 versions ran\n", sum);
	emit(frozen, 5);
	CHECK(sys(mprotect, frozen, page, PROT_READ | PROT_EXEC) == 0); /* write, then execute, never both */
	sync_code(frozen, 8);
	say("frozen: 37 + 5 = %d\n", ((function *)frozen)(37));
	CHECK(sys(mprotect, frozen, page, RW) == 0);
	emit(frozen, 6);
	CHECK(sys(mprotect, frozen, page, PROT_READ | PROT_EXEC) == 0);
	sync_code(frozen, 8);
	say("thawed, changed, frozen: 37 + 6 = %d\n", ((function *)frozen)(37));
	child = fork();
	if (!child) {
		emit(code, 9); /* the child's own copy of the page */
		sync_code(code, 8);
		finish(((function *)code)(0));
	}
	say("child runs %d, ", (long)wait_for(child));
	say("parent still %d\n", ((function *)code)(0));
	CHECK(sys(mprotect, frozen, page, RW) == 0);
	child = fork();
	if (!child)
		finish(((function *)frozen)(0)); /* not executable */
	say("a call into data: status %d\n", (long)wait_for(child));
	return 0;
}
