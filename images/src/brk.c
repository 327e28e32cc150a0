/* SPDX-License-Identifier: GPL-2.0-only */
/* The heap: brk grows it, touching fills it, brk shrinks it, and what was given back reads zero when it returns. */
#include "guest.h"

static u8 *brk(void *to) { return (u8 *)sys(brk, to); }

static int run(void)
{
	u8 *start = brk(NULL), *end;

	CHECK(!((ulong)start & (page - 1)));
	end = start + 4 * page;
	CHECK(brk(end) == end);
	say("grown by four    ");
	draw(start, 6);
	for (int i = 0; i < 4; i++)
		start[i * page] = i + 1;
	CHECK(brk(start + page + 1) == start + page + 1); /* not a whole page: the second stays */
	say("\nshrunk into two  ");
	draw(start, 6);
	CHECK(start[0] == 1 && start[page] == 2);
	CHECK(brk(end) == end);
	CHECK(start[page] == 2 && start[2 * page] == 0 && start[3 * page] == 0);
	say("\ngrown again      ");
	draw(start, 6);
	CHECK(brk((void *)1) == end); /* below the start: refused, and the break is where it was */
	CHECK(brk((void *)-1ul) == end);
	CHECK(brk(start) == start);
	say("\ngiven back       ");
	draw(start, 6);
	say("\n");
	return 0;
}
