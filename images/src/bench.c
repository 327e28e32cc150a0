/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work to measure, `bench KIND COUNT`:
 *
 *   compute    arithmetic on a table
 *   getppid    the smallest call
 *   faults     first touch of COUNT pages
 *   split      mprotect of every second page
 *   remap      mmap, touch and munmap of one page
 *   move       mremap of 1,000 resident pages to another place and back
 *   fork       fork with 10,000 resident pages, exit of the child, wait
 *   protect    mprotect over 1,000 areas
 *   readfault  first load of a page of a cached file, one in sixteen (fault-around brings the others)
 */
#include "guest.h"

enum { CALL(mremap, 25, 216) };
#define MOVED 1000ul
#define RESIDENT 10000ul
#define AREAS 1000ul
#define CACHED 1024ul
#define AROUND 16ul

static u8 *touched(ulong pages)
{
	u8 *a = map(NULL, pages, RW, ANON);

	for (ulong i = 0; i < pages; i++)
		a[i * page] = 1;
	return a;
}

static void remap(ulong count)
{
	while (count--) {
		u8 *a = map(NULL, 1, RW, ANON);

		a[0] = 1;
		CHECK(sys(munmap, a, page) == 0);
	}
}

static void move(ulong count)
{
	u8 *here = touched(MOVED), *there = map(NULL, MOVED, PROT_NONE, ANON);

	while (count--) {
		u8 *from = here;

		CHECK(sys(mremap, here, MOVED * page, MOVED * page, 3, there) == (long)there);
		here = there;
		there = from;
	}
	CHECK(here[(MOVED - 1) * page] == 1);
}

static void forks(ulong count)
{
	touched(RESIDENT);
	while (count--) {
		long pid = fork();

		if (!pid)
			sys(exit_group, 0);
		CHECK(wait_for(pid) == 0);
	}
}

static void protect(ulong count)
{
	u8 *a = map(NULL, AREAS, RW, ANON);
	int prot = PROT_READ;

	/* Shared with private: areas that never merge. */
	for (ulong i = 1; i < AREAS; i += 2)
		map(a + i * page, 1, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
	while (count--) {
		CHECK(sys(mprotect, a, AREAS * page, prot) == 0);
		prot ^= PROT_WRITE;
	}
}

static ulong readfault(ulong count)
{
	long fd = sys(openat, AT_FDCWD, "/tmp/bench-cache", O_RDWR | O_CREAT | O_TRUNC, 0600);
	ulong sum = 0;
	u8 *a;

	CHECK(fd >= 0 && sys(ftruncate, fd, CACHED * page) == 0);
	a = (u8 *)sys(mmap, 0, CACHED * page, RW, MAP_SHARED, fd, 0);
	for (ulong i = 0; i < CACHED; i++)
		a[i * page] = 1;
	while (count) {
		CHECK(sys(munmap, a, CACHED * page) == 0);
		a = (u8 *)sys(mmap, 0, CACHED * page, PROT_READ, MAP_SHARED, fd, 0);
		for (ulong i = 0; i < CACHED && count; i += AROUND, count--)
			sum += a[i * page];
	}
	return sum;
}

static ulong compute(ulong count)
{
	ulong x = 88172645463325252ul, sum = 0;
	static u32 table[1024] = { 1 };

	while (count--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		table[x & 1023] += x >> 32;
		sum += table[x >> 20 & 1023] * 3 + (x & 1 ? count : sum >> 3);
	}
	return sum;
}

static int run(void)
{
	char *kind, *text;
	ulong count, result = 0;

	if (!arguments[1] || !arguments[2]) {
		say("usage: bench compute|getppid|faults|split|remap|move|fork|protect|readfault COUNT\n");
		return 0;
	}
	kind = arguments[1];
	text = arguments[2];
	count = number(&text, 10);
	if (same(kind, "compute"))
		result = compute(count);
	else if (same(kind, "getppid"))
		while (count--)
			result += sys(getppid) >= 0;
	else if (same(kind, "faults")) {
		u8 *a = map(NULL, count + 1, RW, ANON);

		for (ulong i = 0; i < count; i++)
			a[i * page] = 1;
		result = a[0];
	} else if (same(kind, "split")) {
		u8 *a = map(NULL, 2 * count + 1, RW, ANON);

		for (ulong i = 0; i < count; i++)
			CHECK(sys(mprotect, a + (2 * i + 1) * page, page, PROT_READ) == 0);
		result = count;
	} else if (same(kind, "remap"))
		remap(count);
	else if (same(kind, "move"))
		move(count);
	else if (same(kind, "fork"))
		forks(count);
	else if (same(kind, "protect"))
		protect(count);
	else if (same(kind, "readfault"))
		result = readfault(count);
	else
		return 2;
	say("%s %d\n", kind, result);
	return 0;
}
