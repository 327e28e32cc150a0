/* SPDX-License-Identifier: GPL-2.0-only */
/* A page of a mapping that lies wholly behind the end of the file: SIGBUS, BUS_ADRERR; the rest of the last page is zero. */
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
	long fd = sys(openat, AT_FDCWD, "/tmp/bus", O_RDWR | O_CREAT | O_TRUNC, 0600);
	volatile u8 *a;

	handle(SIGBUS, on_fault, SA_NODEFER, 0);
	CHECK(sys(ftruncate, fd, page + 10) == 0);
	a = (u8 *)sys(mmap, 0, 4 * page, RW, MAP_SHARED, fd, 0);
	CHECK((long)a > 0);
	for (int i = 0; i < 4; i++)
		if (setjmp(back))
			say("page %d: signal %d code %d at its byte %d\n", (long)i, (long)seen.signo, (long)seen.code,
			    seen.address - (ulong)(a + i * page));
		else {
			a[i * page + 20] = 1;
			say("page %d: stored\n", (long)i);
		}
	CHECK(sys(ftruncate, fd, 10) == 0); /* takes the second page away, mapped as it was */
	CHECK(setjmp(back) || (a[page], 0));
	say("after truncation, page 1: signal %d code %d\n", (long)seen.signo, (long)seen.code);
	CHECK(a[0] == 0 && a[20] == 0); /* what lay behind the new end was wiped */
	return 0;
}
