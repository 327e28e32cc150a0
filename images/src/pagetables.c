/* SPDX-License-Identifier: GPL-2.0-only */
/* Page tables come with the pages that need them and go with the areas: pages far apart each need tables of their own. */
#include "guest.h"

/* KiB of page tables. */
static long tables(void) { return field("/proc/self/status", "VmPTE"); }

static int run(void)
{
	long before = tables(), now;
	u8 *at[40];
	int n = 0;

	for (int shift = 24; shift < 46; shift++, n++) {
		at[n] = (u8 *)(1ul << shift);
		CHECK(map(at[n], 1, RW, ANON | MAP_FIXED) == at[n]);
	}
	CHECK(tables() == before); /* an area alone needs none */
	say("before +0");
	for (int i = 0; i < n; i++) {
		now = tables();
		at[i][0] = i;
		say(" 2^%d +%d", (long)i + 24, tables() - now);
	}
	say(" KiB\n%d pages far apart cost %d KiB of tables\n", (long)n, tables() - before);
	for (int i = 0; i < n; i++)
		CHECK(at[i][0] == i);
	for (int i = 0; i < n; i++)
		CHECK(sys(munmap, at[i], page) == 0);
	say("unmapped: %d KiB more than before\n", tables() - before);
	for (int round = 0; round < 200; round++) { /* come and go, and leave nothing */
		u8 *a = map((void *)(1ul << 40), 600, RW, ANON | MAP_FIXED);

		a[round * page] = a[599 * page] = round;
		CHECK(sys(munmap, a, 600 * page) == 0);
	}
	say("after 200 rounds: %d KiB more than before\n", tables() - before);
	return 0;
}
