/* SPDX-License-Identifier: GPL-2.0-only */
/* mmap and munmap: areas that touch become one, a hole makes two of one, MAP_FIXED replaces, a hint is taken if free. */
#include "guest.h"

static void show(const char *what, u8 *at)
{
	say("%s ", what);
	draw(at, 10);
	say("\n");
}

static int run(void)
{
	u8 *a = map(NULL, 10, PROT_NONE, ANON);

	CHECK(sys(munmap, a, 10 * page) == 0);
	CHECK(map(a, 3, RW, ANON) == a);
	show("three pages at a hint     ", a);
	CHECK(map(a + 3 * page, 3, RW, ANON) == a + 3 * page);
	show("three more behind them    ", a);
	for (int i = 0; i < 6; i++)
		a[i * page] = i + 1;
	CHECK(sys(munmap, a + 2 * page, 2 * page) == 0);
	show("two taken from the middle ", a);
	CHECK(a[page] == 2 && a[4 * page] == 5);
	CHECK(map(a + 2 * page, 1, RW, ANON)[0] == 0);
	show("one put back, it is zero  ", a);
	CHECK(map(a + page, 4, PROT_READ, ANON | MAP_FIXED) == a + page);
	show("read-only over the middle ", a);
	CHECK(a[0] == 1 && a[page] == 0 && a[5 * page] == 6);
	CHECK(map(a, 1, RW, ANON) != a); /* taken: the hint is passed over */
	CHECK(sys(munmap, a + 1, page) == -22 && sys(munmap, a, 0) == -22);
	CHECK(sys(munmap, a, 10 * page) == 0);
	show("all gone, holes included  ", a);
	return 0;
}
