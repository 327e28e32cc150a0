/* SPDX-License-Identifier: GPL-2.0-only */
/* A page that got another frame is read in every part of it: an MMU may have remembered the parts one by one. */
#include "guest.h"

enum { CALL(fallocate, 285, 47), CALL(mremap, 25, 216), CALL(madvise, 28, 233) };

static u8 filler[65536];

static void look(volatile u8 *at)
{
	for (ulong i = 0; i < page; i += 256)
		(void)at[i];
}

/* The kernel writes the whole page: the program's own stores would mend what it remembers. */
static void fill(const volatile u8 *at, int value)
{
	for (ulong i = 0; i < page; i++)
		filler[i] = value;
	long ends[1];

	sys(pipe2, ends, 0);
	int *end = (int *)ends;

	for (ulong done = 0; done < page; done += 4096) {
		sys(write, end[1], filler + done, 4096);
		sys(read, end[0], at + done, 4096);
	}
	sys(close, end[0]);
	sys(close, end[1]);
}

static void parts(const char *what, const volatile u8 *at, int value)
{
	ulong wrong = 0;

	for (ulong i = 0; i < page; i += 256)
		wrong += at[i] != value;
	say("%s: %d parts wrong\n", what, wrong);
}

static int run(void)
{
	volatile u8 *at = map(NULL, 1, RW, ANON);

	look(at);
	at[5] = 1;
	fill(at, 'a');
	parts("the zero page, then one of its own", at, 'a');
	long file = sys(openat, AT_FDCWD, "/tmp/stale", O_RDWR | O_CREAT | O_TRUNC, 0600);

	sys(ftruncate, file, 2 * page);
	at = (u8 *)sys(mmap, NULL, page, RW, MAP_PRIVATE, file, 0);
	look(at);
	at[page - 1] = 1;
	fill(at, 'b');
	parts("a file's page, then one of its own", at, 'b');
	sys(madvise, at, page, 4);
	parts("after MADV_DONTNEED", at, 0);
	u8 *other = map(NULL, 1, RW, ANON);

	fill(other, 'c');
	look(at);
	sys(mremap, other, page, page, 3, at);
	parts("another page moved there", at, 'c');
	volatile u8 *shared = (u8 *)sys(mmap, NULL, page, RW, MAP_SHARED, file, page);

	fill(shared, 'd');
	parts("a shared page", shared, 'd');
	sys(fallocate, file, 3, page, page);
	parts("a hole punched into it", shared, 0);
	fill(at, 'e');
	long child = fork();

	if (!child) {
		look(at);
		at[0] = 'e';
		fill(at, 'f');
		parts("the child's copy", at, 'f');
		flush();
		finish(0);
	}
	wait_for(child);
	parts("the parent's", at, 'e');
	child = fork();
	if (!child) {
		look(at);
		at[700] = 'e';
		sleep_ms(20);
		parts("the child's copy after the parent wrote", at, 'e');
		flush();
		finish(0);
	}
	sleep_ms(10);
	for (ulong i = 0; i < page; i += 256)
		at[i] = 'g';
	wait_for(child);
	parts("the parent's", at, 'g');
	return 0;
}
