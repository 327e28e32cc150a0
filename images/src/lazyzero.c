/* SPDX-License-Identifier: GPL-2.0-only */
/* Lazy zero pages: a read of untouched memory maps the one zero page, which is no memory of ours; a write brings a page. */
#include "guest.h"

enum { PAGES = 64 };

/* Resident anonymous KiB. Linux keeps what the last faults added with the task; unmapping a page brings the sum up to date. */
static long resident(void)
{
	u8 *scratch = map((void *)(1ul << 40), 1, RW, ANON);

	scratch[0] = 1;
	CHECK(sys(munmap, scratch, page) == 0);
	return field("/proc/self/status", "RssAnon");
}

static int run(void)
{
	u8 *a = map(NULL, PAGES, RW, ANON);
	long before, faults;
	u8 sum = 0;

	say("pages of anonymous memory\n"); /* the buffers of both become resident by the first call */
	resident();
	before = resident();
	faults = minor_faults();
	for (int i = 0; i < PAGES; i++)
		sum |= a[i * page];
	faults = minor_faults() - faults;
	CHECK(sum == 0);
	say("%d pages read:    %d faults, resident +%d KiB\n", (long)PAGES, faults, resident() - before);
	CHECK(resident() == before);
	faults = minor_faults();
	for (int i = 0; i < PAGES; i += 2)
		a[i * page] = 1;
	faults = minor_faults() - faults;
	say("%d pages written: %d faults, resident +%d pages\n", (long)PAGES / 2, faults, (resident() - before) * 1024 / page);
	for (int i = 0; i < PAGES; i++)
		CHECK(a[i * page] == (i % 2 ? 0 : 1) && a[i * page + 1] == 0);
	CHECK(sys(munmap, a, PAGES * page) == 0);
	say("unmapped:         resident +%d pages\n", (resident() - before) * 1024 / page);
	return 0;
}
