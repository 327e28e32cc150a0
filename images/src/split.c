/* SPDX-License-Identifier: GPL-2.0-only */
/* mprotect of every second page splits one area into hundreds; the same call on all of them makes one again. */
#include "guest.h"

enum { PAGES = 400 };

static int run(void)
{
	u8 *a = map(NULL, PAGES, RW, ANON);
	long before = count_areas();

	for (int i = 0; i < PAGES; i++)
		a[i * page] = i;
	for (int i = 1; i < PAGES; i += 2)
		CHECK(sys(mprotect, a + i * page, page, PROT_READ) == 0);
	say("every second page: %d areas more\n", count_areas() - before);
	for (int i = 1; i < PAGES; i += 4)
		CHECK(sys(munmap, a + i * page, page) == 0);
	say("holes:             %d areas more\n", count_areas() - before);
	for (int i = 1; i < PAGES; i += 4)
		CHECK(map(a + i * page, 1, RW, ANON | MAP_FIXED) == a + i * page);
	say("holes filled:      %d areas more\n", count_areas() - before);
	CHECK(sys(mprotect, a, PAGES * page, RW) == 0);
	say("all writable:      %d areas more\n", count_areas() - before);
	for (int i = 0; i < PAGES; i++)
		CHECK(a[i * page] == (i % 4 == 1 ? 0 : (u8)i));
	return 0;
}
