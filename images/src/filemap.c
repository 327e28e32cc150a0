/* SPDX-License-Identifier: GPL-2.0-only */
/* A file mapped shared shows every store, and so does the file; mapped private, a store is the mapping's own. */
#include "guest.h"

static int run(void)
{
	long fd = sys(openat, AT_FDCWD, "/tmp/filemap", O_RDWR | O_CREAT | O_TRUNC, 0600), child;
	u8 byte = 'a', *shared, *also, *private;

	CHECK(fd >= 0);
	for (int i = 0; i < 256; i++)
		CHECK(sys(write, fd, &byte, 1) == 1);
	CHECK(sys(ftruncate, fd, 3 * page) == 0);
	shared = (u8 *)sys(mmap, 0, 3 * page, RW, MAP_SHARED, fd, 0);
	also = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_SHARED, fd, page);
	private = (u8 *)sys(mmap, 0, 3 * page, RW, MAP_PRIVATE, fd, 0);
	CHECK((long)shared > 0 && (long)also > 0 && (long)private > 0);
	CHECK(shared[0] == 'a' && shared[255] == 'a' && shared[256] == 0 && private[10] == 'a');
	shared[1] = 'b';
	CHECK(private[1] == 'b'); /* not yet its own page */
	private[2] = 'p';
	shared[2] = 's';
	CHECK(private[2] == 'p' && shared[2] == 's' && private[1] == 'b');
	shared[page + 5] = 'x';
	CHECK(also[5] == 'x' && private[page + 5] == 'x');
	CHECK(sys(close, fd) == 0); /* the mappings hold the file */
	child = fork();
	if (!child) {
		shared[2 * page] = 'c';
		private[2 * page] = 'd';
		finish(0);
	}
	CHECK(wait_for(child) == 0);
	CHECK(shared[2 * page] == 'c' && private[2 * page] == 'c');
	fd = sys(openat, AT_FDCWD, "/tmp/filemap", O_RDONLY, 0);
	for (int i = 0; i < 4; i++) {
		CHECK(sys(read, fd, &byte, 1) == 1);
		put(byte);
	}
	say(" in the file, %c in the private page, %c from the child\n", private[2], shared[2 * page]);
	draw(shared, 3);
	draw(private, 3);
	say("\n");
	return 0;
}
