/* SPDX-License-Identifier: GPL-2.0-only */
/* Stack overflow by endless recursion, survived: the handler runs on the alternate stack, as no room is left on the first. */
#include "guest.h"

static jmp_buf back;
static u8 alternate[65536] __attribute__((aligned(16)));
static volatile long depth;

static void on_fault(int signo, struct siginfo *info, u8 *context)
{
	u8 *here = __builtin_frame_address(0);

	(void)context;
	CHECK(here >= alternate && here < alternate + sizeof alternate);
	say("signal %d code %d, handler on the alternate stack\n", (long)signo, (long)info->code);
	longjmp(back, 1);
}
static NOINLINE long recurse(volatile u8 *before)
{
	volatile u8 frame[1024];

	frame[0] = before[0] + 1;
	depth++;
	return depth < 1l << 40 ? recurse(frame) + frame[0] : 0;
}

static int run(void)
{
	struct { void *sp; int flags, pad; ulong size; } stack = { alternate, 0, 0, sizeof alternate };
	u8 start = 0;
	long child;

	child = fork();
	if (!child) {
		recurse(&start); /* no handler at all */
		finish(0);
	}
	say("without a handler the child dies with status %d\n", (long)wait_for(child));
	child = fork();
	if (!child) {
		handle(SIGSEGV, on_fault, 0, 0);
		recurse(&start); /* a handler, but no stack for it: the kernel cannot build the frame */
		finish(0);
	}
	say("without an alternate stack it dies with status %d\n", (long)wait_for(child));
	CHECK(sys(sigaltstack, &stack, 0) == 0);
	handle(SIGSEGV, on_fault, SA_ONSTACK | SA_NODEFER, 0);
	for (int i = 0; i < 2; i++) {
		depth = 0;
		if (!setjmp(back))
			recurse(&start);
		say("back, deep enough: %s\n", depth > 7000 && depth < 8192 ? "yes" : "no");
	}
	return 0;
}
