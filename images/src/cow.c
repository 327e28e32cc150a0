/* SPDX-License-Identifier: GPL-2.0-only */
/* Copy-on-write after fork: neither side sees the other's writes, and only written pages are copied. */
#include "guest.h"

enum { PAGES = 8 };

static int run(void)
{
	u8 *a = map(NULL, PAGES, RW, ANON);
	u8 *shared = map(NULL, 1, RW, MAP_SHARED | MAP_ANONYMOUS);
	long child, faults;

	for (int i = 0; i < PAGES; i++)
		a[i * page] = i;
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		faults = minor_faults();
		for (int i = 0; i < PAGES; i++)
			CHECK(a[i * page] == i); /* a read copies nothing, and the page tables came along */
		shared[0] = minor_faults() - faults;
		faults = minor_faults();
		for (int i = 0; i < PAGES; i += 2)
			a[i * page] = 100 + i;
		shared[1] = minor_faults() - faults;
		for (int i = 0; i < PAGES; i++)
			CHECK(a[i * page] == (i % 2 ? i : 100 + i));
		finish(7);
	}
	CHECK(wait_for(child) == 7);
	for (int i = 0; i < PAGES; i++)
		CHECK(a[i * page] == i);
	say("child: %d faults to read %d pages, %d to write half of them\n", (long)shared[0], (long)PAGES, (long)shared[1]);
	faults = minor_faults();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 50 + i; /* the child is gone: these pages are taken back, not copied */
	say("parent: %d faults to write all\n", minor_faults() - faults);
	return 0;
}
