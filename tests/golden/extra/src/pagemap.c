/* SPDX-License-Identifier: GPL-2.0-only */
/* pagemap bits, soft-dirty and clear_refs over areas of each kind; frame numbers hidden from an ordinary user. */
#include "guest.h"

enum {
	CALL(pread64, 17, 67), CALL(pwrite64, 18, 68), CALL(memfd_create, 319, 279), CALL(madvise, 28, 233),
	CALL(mlock, 149, 228), CALL(setuid, 105, 146), CALL(mremap, 25, 216),
};
static long map_fd = -1;

/* One letter a page: present, swapped, file or shared, exclusive, soft-dirty, frame shown. */
static void show(const char *what, long at, int pages)
{
	ulong entry = 0;

	say("%s\n ", what);
	for (int i = 0; i < pages; i++) {
		long n = sys(pread64, map_fd, &entry, 8, ((ulong)at / page + i) * 8);

		if (n != 8) {
			say(" (%d)", n);
			continue;
		}
		say(" %c%c%c%c%c", entry >> 63 & 1 ? 'p' : '-', entry >> 61 & 1 ? 'f' : '-', entry >> 56 & 1 ? 'x' : '-',
		    entry >> 55 & 1 ? 's' : '-', entry & ((1ul << 55) - 1) ? '#' : '-');
	}
	say("\n");
}

static void clear(const char *how)
{
	long fd = sys(openat, AT_FDCWD, "/proc/self/clear_refs", 1);

	say("clear_refs %s: %d\n", how, sys(write, fd, how, 1));
	sys(close, fd);
}

static int run(void)
{
	long anon = sys(mmap, 0, 8 * page, RW, ANON, -1, 0), shared, file, private, fd;

	map_fd = sys(openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY);
	for (int i = 0; i < 4; i++)
		((volatile char *)anon)[i * page] = 1;
	(void)*(volatile char *)(anon + 4 * page);
	show("anonymous: 4 written, 1 read", anon, 8);
	shared = sys(mmap, 0, 4 * page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*(volatile char *)shared = 1;
	(void)*(volatile char *)(shared + page);
	show("shared: 1 written, 1 read", shared, 4);
	fd = sys(memfd_create, "m", 0);
	sys(ftruncate, fd, 8 * page);
	sys(pwrite64, fd, "x", 1, 2 * page);
	file = sys(mmap, 0, 8 * page, RW, MAP_SHARED, fd, 0);
	(void)*(volatile char *)(file + 2 * page);
	show("file, a written page read", file, 8);
	private = sys(mmap, 0, 8 * page, RW, MAP_PRIVATE, fd, 0);
	(void)*(volatile char *)(private + 2 * page);
	show("private, the same read", private, 8);
	*(volatile char *)(private + 2 * page) = 3;
	show("private, the same written", private, 8);
	clear("4");
	show("anonymous", anon, 8);
	show("shared", shared, 4);
	show("private", private, 8);
	*(volatile char *)anon = 2;
	*(volatile char *)(shared + page) = 2;
	*(volatile char *)(private + 2 * page) = 4;
	show("anonymous, 1 written again", anon, 8);
	show("shared, 1 written again", shared, 4);
	show("private, written again", private, 8);
	sys(mprotect, anon, page, PROT_READ);
	sys(mprotect, anon + page, page, PROT_READ);
	sys(mprotect, anon, 2 * page, RW);
	show("after protecting twice", anon, 8);
	anon = sys(mremap, anon, 8 * page, 16 * page, 1);
	show("moved", anon, 16);
	sys(madvise, anon + 2 * page, page, 8);
	sys(madvise, anon + 3 * page, page, 4);
	show("one freed, one dropped", anon, 6);
	clear("1");
	clear("2");
	clear("3");
	clear("5");
	clear("6");
	show("anonymous", anon, 6);
	flush();
	long child = sys(clone, SIGCHLD, 0, 0, 0, 0);

	if (!child) {
		sys(close, map_fd);
		map_fd = sys(openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY);
		show("in a child", anon, 6);
		*(volatile char *)anon = 5;
		show("in a child, written", anon, 6);
		sys(setuid, 1000);
		show("an ordinary user, file opened before", anon, 6);
		flush();
		sys(exit_group, 0);
	}
	sys(wait4, child, 0, 0, 0);
	show("in the parent", anon, 6);
	ulong entry;

	say("bad reads: %d %d %d %d %d\n", sys(pread64, map_fd, &entry, 7, 0), sys(pread64, map_fd, &entry, 8, 4),
	    sys(pread64, map_fd, &entry, 0, 0), sys(pread64, map_fd, 8, 8, (ulong)anon / page * 8),
	    sys(pread64, map_fd, &entry, 8, 1ul << 60));
	return 0;
}
