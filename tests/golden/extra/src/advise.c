/* SPDX-License-Identifier: GPL-2.0-only */
/* pkeys on a CPU without them, process_madvise, membarrier, mincore and mprotect's errors in order. */
#include "guest.h"

enum {
	CALL(pkey_mprotect, 329, 288), CALL(pkey_alloc, 330, 289), CALL(pkey_free, 331, 290), CALL(process_madvise, 440, 440),
	CALL(pidfd_open, 434, 434), CALL(membarrier, 324, 283), CALL(setuid, 105, 146), CALL(process_vm_readv, 310, 270),
	CALL(userfaultfd, 323, 282), CALL(madvise, 28, 233),
};
struct iovec { long base; ulong len; };

static int run(void)
{
	long at = sys(mmap, 0, 16 * page, RW, ANON, -1, 0);
	struct iovec one = { at, 4 * page }, many[3] = { { at, page }, { at + 20 * page, page }, { at + page, page } };
	struct iovec odd = { at + 1, page }, hole[2] = { { at + 15 * page, 4 * page }, { at, page } }, none = { at, 0 };

	for (int i = 0; i < 16; i++)
		((volatile char *)at)[i * page] = 1;
	say("pkey_alloc %d %d %d %d\n", sys(pkey_alloc, 0, 0), sys(pkey_alloc, 1, 0), sys(pkey_alloc, 0, 4), sys(pkey_alloc, 0, 1));
	say("pkey_free %d %d %d\n", sys(pkey_free, 0), sys(pkey_free, 1), sys(pkey_free, -1));
	say("pkey_mprotect %d %d %d %d %d\n", sys(pkey_mprotect, at, page, PROT_READ, -1), sys(pkey_mprotect, at, page, RW, 0),
	    sys(pkey_mprotect, at, page, RW, 1), sys(pkey_mprotect, at + 1, page, RW, -1), sys(pkey_mprotect, at, page, 64, -1));
	long me = sys(getpid), self = sys(pidfd_open, me, 0);

	say("process_madvise on oneself\n");
	static const u8 advice[] = { 0, 1, 3, 4, 8, 9, 10, 12, 14, 20, 21, 100, 101 };
	for (ulong i = 0; i < sizeof advice; i++)
		say("  %d: %d\n", (long)advice[i], sys(process_madvise, self, &one, 1, (long)advice[i], 0));
	say("  several %d, odd %d, across a hole %d, nothing %d\n", sys(process_madvise, self, many, 3, 20, 0),
	    sys(process_madvise, self, &odd, 1, 20, 0), sys(process_madvise, self, hole, 2, 20, 0),
	    sys(process_madvise, self, &none, 1, 20, 0));
	say("  no vector %d, flags %d, bad vector %d, too long %d, bad fd %d, no pidfd %d\n",
	    sys(process_madvise, self, 0, 0, 20, 0), sys(process_madvise, self, &one, 1, 20, 1),
	    sys(process_madvise, self, 8, 1, 20, 0), sys(process_madvise, self, &one, 1025, 20, 0),
	    sys(process_madvise, 77, &one, 1, 20, 0), sys(process_madvise, 1, &one, 1, 20, 0));
	flush();
	long child = sys(clone, SIGCHLD, 0, 0, 0, 0);

	if (!child) {
		long parent = sys(pidfd_open, me, 0);

		say("on the parent, as root: %d %d %d\n", sys(process_madvise, parent, &one, 1, 20, 0),
		    sys(process_madvise, parent, many, 3, 21, 0), sys(process_madvise, parent, &one, 1, 4, 0));
		sys(setuid, 1000);
		say("as a user: %d %d\n", sys(process_madvise, parent, &one, 1, 20, 0), sys(process_madvise, parent, 0, 0, 20, 0));
		say("its memory: %d\n", sys(process_vm_readv, me, many, 1, &one, 1, 0));
		flush();
		sys(exit_group, 0);
	}
	sys(wait4, child, 0, 0, 0);
	odd.base = -1;
	say("read from the last address on: %d\n", sys(process_vm_readv, me, many, 1, &odd, 1, 0));
	say("membarrier query %x\n", sys(membarrier, 0, 0, 0));
	for (int i = 0; i < 10; i++)
		say("  %d: %d\n", 1l << i, sys(membarrier, 1 << i, 0, 0));
	say("  again, now registered\n");
	for (int i = 0; i < 10; i++)
		say("  %d: %d\n", 1l << i, sys(membarrier, 1 << i, 0, 0));
	say("  flags %d %d %d\n", sys(membarrier, 0, 1, 0), sys(membarrier, 128, 1, 0), sys(membarrier, 3, 0, 0));
	return 0;
}
