/* SPDX-License-Identifier: GPL-2.0-only */
/* Guard pages: an overrun of either end of a buffer is caught at its first byte, and nothing else is harmed. */
#include "guest.h"

static jmp_buf back;
static struct siginfo seen;

static void on_fault(int signo, struct siginfo *info, u8 *context)
{
	(void)signo, (void)context;
	seen = *info;
	longjmp(back, 1);
}

static int run(void)
{
	u8 *whole = map(NULL, 8, PROT_NONE, ANON), *buffer = whole + 2 * page;
	static volatile long i;

	CHECK(sys(mprotect, buffer, 4 * page, RW) == 0);
	draw(whole, 8);
	say("\n");
	handle(SIGSEGV, on_fault, SA_NODEFER, 0);
	if (!setjmp(back))
		for (i = 0;; i++)
			buffer[i] = 1;
	say("overrun at byte %d of %d, code %d\n", i, 4 * page, (long)seen.code);
	CHECK(i == (long)(4 * page) && seen.address == (ulong)buffer + i);
	if (!setjmp(back))
		for (i = 4 * page - 1;; i--)
			buffer[i] = 2;
	say("underrun at byte %d, code %d\n", i, (long)seen.code);
	CHECK(i == -1 && seen.address == (ulong)buffer - 1);
	CHECK(sys(munmap, whole, page) == 0);
	if (!setjmp(back))
		whole[0] = 1;
	say("where nothing is mapped, code %d\n", (long)seen.code);
	return 0;
}
