/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A garbage collector's write barrier: the heap is write-protected, and each first store to a page raises a signal whose
 * handler marks the page dirty and opens it. After a round the collector looks at the dirty pages only.
 */
#include "guest.h"

enum { PAGES = 32 };
static u8 *heap;
static char card[PAGES + 1];
static int traps;

static void on_fault(int signo, struct siginfo *info, u8 *context)
{
	ulong index = (info->address - (ulong)heap) / page;

	(void)signo, (void)context;
	CHECK(index < PAGES);
	card[index] = 'D';
	traps++;
	CHECK(sys(mprotect, heap + index * page, page, RW) == 0);
}

static int run(void)
{
	u32 random = 12345;

	heap = map(NULL, PAGES, RW, ANON);
	for (int i = 0; i < PAGES; i++)
		heap[i * page] = 1; /* pages of one anon_vma, so that the areas can become one again */
	handle(SIGSEGV, on_fault, 0, 0);
	for (int round = 0; round < 4; round++) {
		int dirty = 0;

		for (int i = 0; i < PAGES; i++)
			card[i] = '.';
		traps = 0;
		CHECK(sys(mprotect, heap, PAGES * page, PROT_READ) == 0); /* all of it one area again */
		for (int store = 0; store < 12; store++) {
			random = random * 1103515245 + 12345;
			((volatile u8 *)heap)[(random >> 8) % (PAGES * page)] = store;
		}
		for (int i = 0; i < PAGES; i++)
			dirty += card[i] == 'D';
		CHECK(traps == dirty); /* one trap a page, however often it was stored to */
		say("round %d  %s  ", (long)round, card);
		draw(heap, PAGES);
		say("\n");
	}
	return 0;
}
