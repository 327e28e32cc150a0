/* SPDX-License-Identifier: GPL-2.0-only */
/* The stack grows a page at a time as it is touched, down to RLIMIT_STACK and not a page further. */
#include "guest.h"

static jmp_buf back;
static u8 alternate[65536] __attribute__((aligned(16)));

static void on_fault(int signo, struct siginfo *info, u8 *context)
{
	(void)signo, (void)context;
	say("no more: code %d\n", (long)info->code);
	longjmp(back, 1);
}
/* Size of the area that holds `address`. */
static ulong size_around(ulong address)
{
	ulong start, end;
	char *text = read_file("/proc/self/maps"), prot[5];

	while ((text = area(text, &start, &end, prot)))
		if (start <= address && address < end)
			return end - start;
	return 0;
}

static int run(void)
{
	static volatile ulong touched;
	ulong limit[2], here = (ulong)__builtin_frame_address(0), before;
	struct { void *sp; int flags, pad; ulong size; } stack = { alternate, 0, 0, sizeof alternate };

	CHECK(sys(prlimit64, 0, RLIMIT_STACK, 0, limit) == 0);
	before = size_around(here);
	say("limit %d KiB, at first %d KiB\n", limit[0] >> 10, before >> 10);
	CHECK(sys(sigaltstack, &stack, 0) == 0);
	handle(SIGSEGV, on_fault, SA_ONSTACK | SA_NODEFER, 0);
	for (touched = 0; touched < 10; touched++)
		*(volatile u8 *)(here - touched * page) = 1;
	say("ten pages touched: %d KiB\n", size_around(here) >> 10);
	limit[0] = 1 << 20;
	CHECK(sys(prlimit64, 0, RLIMIT_STACK, limit, 0) == 0);
	if (!setjmp(back))
		for (;; touched++)
			*(volatile u8 *)(here - touched * page) = 1;
	say("limit 1024 KiB, reached %d KiB\n", size_around(here) >> 10);
	CHECK(size_around(here) == 1 << 20);
	limit[0] = 2 << 20;
	CHECK(sys(prlimit64, 0, RLIMIT_STACK, limit, 0) == 0);
	if (!setjmp(back))
		for (;; touched++)
			*(volatile u8 *)(here - touched * page) = 1;
	say("limit 2048 KiB, reached %d KiB\n", size_around(here) >> 10);
	CHECK(size_around(here) == 2 << 20);
	return 0;
}
