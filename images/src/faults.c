/* SPDX-License-Identifier: GPL-2.0-only */
/* A counter of page faults: what each kind of access costs, from getrusage. */
#include "guest.h"

enum { PAGES = 32 };
static u8 *a;
static long counted;

static void begin(void) { counted = minor_faults(); }
static void end(const char *what) { say("%s %d\n", what, minor_faults() - counted); }

static int run(void)
{
	static volatile u8 sink;
	long fd, child;

	a = map(NULL, PAGES, RW, ANON);
	begin(); end("nothing                     ");
	begin();
	for (int i = 0; i < PAGES; i++)
		sink = a[i * page];
	end("first read, 32 pages        ");
	begin();
	for (int i = 0; i < PAGES; i++)
		sink = a[i * page + 1];
	end("second read                 ");
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 1;
	end("first write after a read    ");
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 2;
	end("second write                ");
	CHECK(sys(munmap, a, PAGES * page) == 0);
	a = map(NULL, PAGES, RW, ANON);
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 1;
	end("first write, nothing before ");
	child = fork();
	if (!child)
		finish(0);
	CHECK(wait_for(child) == 0);
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 3;
	end("write after a child is gone ");
	fd = sys(openat, AT_FDCWD, "/tmp/faults", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(sys(ftruncate, fd, PAGES * page) == 0);
	for (int i = 0; i < PAGES; i++)
		CHECK(sys(write, fd, a, page) == (long)page);
	a = (u8 *)sys(mmap, 0, PAGES * page, RW, MAP_PRIVATE, fd, 0);
	begin();
	for (int i = 0; i < PAGES; i++)
		sink = a[i * page];
	end("read of a cached file       "); /* neighbours are mapped along */
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 1;
	end("write to it, private        ");
	a = (u8 *)sys(mmap, 0, PAGES * page, RW, MAP_SHARED, fd, 0);
	begin();
	for (int i = 0; i < PAGES; i++)
		a[i * page] = 1;
	end("write to it, shared         ");
	(void)sink;
	return 0;
}
