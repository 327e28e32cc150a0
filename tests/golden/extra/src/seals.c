/* SPDX-License-Identifier: GPL-2.0-only */
/* memfd seals: each kind under live mappings, every order of refusal. */
#include "guest.h"

enum {
	CALL(memfd_create, 319, 279), CALL(fcntl, 72, 25), CALL(fallocate, 285, 47), CALL(pwrite64, 18, 68),
	CALL(mremap, 25, 216), CALL(fchmod, 91, 52), CALL(madvise, 28, 233),
};
enum { F_ADD_SEALS = 1033, F_GET_SEALS };
enum { SEAL = 1, SHRINK = 2, GROW = 4, WRITE = 8, FUTURE_WRITE = 16 };

static long try(const char *what, long result)
{
	if (result < 0 && result > -4096)
		say("  %s: %d\n", what, result);
	else
		say("  %s: ok\n", what);
	return result;
}

static void calls(long fd)
{
	char path[32] = "/proc/self/fd/0";

	path[14] = '0' + fd;
	say("  seals %d\n", sys(fcntl, fd, F_GET_SEALS));
	try("write", sys(pwrite64, fd, "x", 1, 0));
	try("write behind the end", sys(pwrite64, fd, "x", 1, 4 * page));
	try("write across the end", sys(pwrite64, fd, "xy", 2, 4 * page - 1));
	try("shrink", sys(ftruncate, fd, 2 * page));
	try("grow", sys(ftruncate, fd, 4 * page));
	try("same size", sys(ftruncate, fd, 4 * page));
	try("allocate", sys(fallocate, fd, 0, 0, 5 * page));
	try("allocate, keeping the size", sys(fallocate, fd, 1, 5 * page, page));
	try("punch", sys(fallocate, fd, 3, page, page));
	try("zero range", sys(fallocate, fd, 16, 0, page));
	try("collapse", sys(fallocate, fd, 8, 0, page));
	long ro = sys(openat, AT_FDCWD, path, O_RDONLY), rw;

	try("open for reading", ro);
	rw = try("open for writing", sys(openat, AT_FDCWD, path, O_RDWR));
	try("seal through a reader", sys(fcntl, ro, F_ADD_SEALS, 0));
	long shared = try("map shared", sys(mmap, 0, page, RW, MAP_SHARED, fd, 0));
	long reader = try("map shared to read", sys(mmap, 0, page, PROT_READ, MAP_SHARED, fd, 0));
	long private = try("map private", sys(mmap, 0, page, RW, MAP_PRIVATE, fd, 0));
	long other = try("map shared from a reader", sys(mmap, 0, page, PROT_READ, MAP_SHARED, ro, 0));

	if (reader > 0)
		try("make the reader writable", sys(mprotect, reader, page, RW));
	if (other > 0)
		try("make the reader's writable", sys(mprotect, other, page, RW));
	if (shared > 0) {
		*(volatile char *)shared = 1;
		try("seal writes while mapped", sys(fcntl, fd, F_ADD_SEALS, WRITE));
		try("remove", sys(madvise, shared, page, 9));
		sys(munmap, shared, page);
	}
	if (reader > 0)
		sys(munmap, reader, page);
	if (private > 0) {
		*(volatile char *)private = 2;
		sys(munmap, private, page);
	}
	if (other > 0)
		sys(munmap, other, page);
	sys(close, ro);
	if (rw > 0)
		sys(close, rw);
}

static int run(void)
{
	static const u8 kinds[] = { 0, SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, SHRINK | GROW, SHRINK | GROW | WRITE | SEAL };
	long fd, at;

	for (ulong i = 0; i < sizeof kinds; i++) {
		fd = sys(memfd_create, "sealed", 2);
		sys(ftruncate, fd, 4 * page);
		say("seal %d: %d\n", (long)kinds[i], sys(fcntl, fd, F_ADD_SEALS, (long)kinds[i]));
		calls(fd);
		say("  then %d", sys(fcntl, fd, F_ADD_SEALS, WRITE | FUTURE_WRITE));
		say(" %d\n", sys(fcntl, fd, F_ADD_SEALS, SEAL));
		calls(fd);
		sys(close, fd);
	}
	say("without ALLOW_SEALING\n");
	fd = sys(memfd_create, "plain", 0);
	say("  %d %d\n", sys(fcntl, fd, F_GET_SEALS), sys(fcntl, fd, F_ADD_SEALS, SHRINK));
	say("  unknown seal %d, other files %d %d\n", sys(fcntl, fd, F_ADD_SEALS, 32), sys(fcntl, 1, F_GET_SEALS),
	    sys(fcntl, 1, F_ADD_SEALS, 1));
	say("  flags %d %d %d\n", sys(memfd_create, "x", 8), sys(memfd_create, "x", 0x80000000ul), sys(memfd_create, 1, 0));
	say("a page pinned by a mapping that has been moved\n");
	fd = sys(memfd_create, "moved", 2);
	sys(ftruncate, fd, 4 * page);
	at = sys(mmap, 0, 2 * page, RW, MAP_SHARED, fd, 0);
	say("  while mapped %d\n", sys(fcntl, fd, F_ADD_SEALS, WRITE));
	sys(mprotect, at, 2 * page, PROT_READ);
	say("  while mapped to read, once writable %d\n", sys(fcntl, fd, F_ADD_SEALS, WRITE));
	say("  future writes %d\n", sys(fcntl, fd, F_ADD_SEALS, FUTURE_WRITE));
	say("  back to writable %d\n", sys(mprotect, at, 2 * page, RW));
	sys(munmap, at, 2 * page);
	say("  unmapped %d\n", sys(fcntl, fd, F_ADD_SEALS, WRITE));
	return 0;
}
