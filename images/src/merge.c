/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The eight cases of vma_merge(). Three areas in a row, P (previous), the one that changes, and N (next); each case is
 * set up on its own ground, changed by one call, and read back from /proc/self/maps.
 */
#include "guest.h"

static u8 *ground;

/* Pages [first, first + count) of the ground get protection `prot`, from mmap where nothing is, else from mprotect. */
static void set(int first, int count, int prot, int fresh)
{
	u8 *at = ground + first * page;

	if (fresh)
		CHECK(map(at, count, prot, ANON | MAP_FIXED) == at);
	else
		CHECK(sys(mprotect, at, count * page, prot) == 0);
}
static void begin(const char *name)
{
	ground = map(NULL, 14, PROT_NONE, ANON);
	CHECK(sys(munmap, ground, 14 * page) == 0);
	ground += page;
	say("%s  ", name);
}
static void end(void)
{
	say(" -> ");
}
static void done(void)
{
	draw(ground, 12);
	say("\n");
	CHECK(sys(munmap, ground - page, 14 * page) == 0);
}
/* P is 4 pages, N is 4 pages, both of `prot`s; the middle 4 are a hole or of protection `mid`. */
static void row(int p, int mid, int n)
{
	set(0, 4, p, 1);
	if (mid >= 0)
		set(4, 4, mid, 1);
	set(8, 4, n, 1);
	draw(ground, 12);
}

static int run(void)
{
	const int R = PROT_READ;

	begin("1: the hole joins both       ");
	row(RW, -1, RW); end(); set(4, 4, RW, 1); done();
	begin("2: the hole joins P          ");
	row(RW, -1, R); end(); set(4, 4, RW, 1); done();
	begin("3: the hole joins N          ");
	row(R, -1, RW); end(); set(4, 4, RW, 1); done();
	begin("4: P gives its tail to N     ");
	row(R, R, RW); end(); set(6, 2, RW, 0); done();
	begin("5: N gives its head to P     ");
	row(RW, R, R); end(); set(4, 2, RW, 0); done();
	begin("6: the middle joins both     ");
	row(RW, R, RW); end(); set(4, 4, RW, 0); done();
	begin("7: the middle joins P        ");
	row(RW, R, PROT_NONE); end(); set(4, 4, RW, 0); done();
	begin("8: the middle joins N        ");
	row(PROT_NONE, R, RW); end(); set(4, 4, RW, 0); done();
	return 0;
}
