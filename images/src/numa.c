/* SPDX-License-Identifier: GPL-2.0-only */
/* NUMA calls on a machine with one node: where pages are, where they will not go, and what policies are accepted. */
#include "guest.h"

enum {
	CALL(mbind, 237, 235), CALL(set_mempolicy, 238, 237), CALL(get_mempolicy, 239, 236), CALL(migrate_pages, 256, 238),
	CALL(move_pages, 279, 239), CALL(setuid, 105, 146),
};

static void moves(const char *what, long pid, ulong count, void **pages, int *nodes, int flags)
{
	int status[20];
	long result;

	for (int i = 0; i < 20; i++)
		status[i] = 999;
	result = sys(move_pages, pid, count, pages, nodes, status, flags);
	say("%s: %d:", what, result);
	for (ulong i = 0; i < count; i++)
		say(" %d", (long)status[i]);
	say("\n");
}

static void migrates(const char *what, long pid, ulong max, ulong *from, ulong *to)
{
	say("%s: %d\n", what, sys(migrate_pages, pid, max, from, to));
}

static int run(void)
{
	u8 *a = map(NULL, 8, RW, ANON), *s = map(NULL, 4, RW, MAP_SHARED | MAP_ANONYMOUS);
	void *pages[18] = { a, a + page, a + 2 * page, a + 2 * page + 5, s, s + page, (void *)8, (void *)-page, (void *)run, a + 7 * page };
	int nodes[18] = { 0 };
	ulong one = 1, two = 2, both = 3, none = 0, mask[3] = { -1ul, -1ul, -1ul };
	long child, parent = sys(getpid);
	int policy = 99;

	a[0] = 1;
	(void)*(volatile u8 *)(a + page);
	s[0] = 1;
	moves("where", 0, 10, pages, NULL, 0);
	moves("move", 0, 10, pages, nodes, 2);
	moves("move all", 0, 10, pages, nodes, 4);
	moves("by pid", parent, 2, pages, NULL, 0);
	moves("nobody", 99999, 1, pages, NULL, 0);
	moves("flags", 0, 1, pages, NULL, 1);
	moves("no array", 0, 1, NULL, NULL, 0);
	moves("seventeen", 0, 17, pages, NULL, 0);
	nodes[2] = 1;
	moves("node 1", 0, 4, pages, nodes, 2);
	nodes[2] = -1;
	moves("node -1", 0, 4, pages, nodes, 2);
	nodes[2] = 5000;
	moves("node 5000", 0, 4, pages, nodes, 2);
	say("no status %d\n", sys(move_pages, 0, 1, pages, NULL, NULL, 0));

	migrates("0 to 0", 0, 64, &one, &one);
	migrates("1 to 0", 0, 64, &two, &one);
	migrates("0 to 1", 0, 64, &one, &two);
	migrates("both to both", 0, 64, &both, &both);
	migrates("none to 0", 0, 64, &none, &one);
	migrates("0 to none", 0, 64, &one, &none);
	migrates("nobody", 99999, 64, &one, &one);
	migrates("bad address", 0, 64, (void *)8, &one);
	migrates("all ones", 0, 192, mask, mask);
	migrates("too many", 0, 1ul << 40, mask, mask);

	say("default: %d", sys(get_mempolicy, &policy, mask, 192, 0, 0));
	say(" policy %d nodes %x %x %x\n", (long)policy, mask[0], mask[1], mask[2]);
	for (ulong mode = 0; mode < 6; mode++)
		for (int flag = 0; flag < 4; flag++) {
			long r0, r1, r2;

			r0 = sys(set_mempolicy, mode | flag << 14, 0, 0);
			r1 = sys(set_mempolicy, mode | flag << 14, &one, 64);
			r2 = sys(set_mempolicy, mode | flag << 14, &both, 64);
			mask[0] = policy = 0;
			say("mode %d flags %d: none %d, 0 %d, 0 and 1 %d, 1 %d;", mode, (long)flag, r0, r1, r2, sys(set_mempolicy, mode | flag << 14, &two, 64));
			say(" now %d", sys(get_mempolicy, &policy, mask, 64, 0, 0));
			say(" %x %x, next %d\n", (ulong)policy, mask[0], sys(get_mempolicy, &policy, 0, 0, 0, 1));
		}
	sys(set_mempolicy, 3, &one, 64);
	child = fork();
	if (!child) {
		say("child: %d %d\n", sys(get_mempolicy, &policy, mask, 64, 0, 0), (long)policy);
		sys(set_mempolicy, 0, 0, 0);
		finish(0);
	}
	wait_for(child);
	say("parent: %d %d\n", sys(get_mempolicy, &policy, mask, 64, 0, 0), (long)policy);

	say("bind %d, strict %d, move %d, page of another node strictly %d\n", sys(mbind, a, 8 * page, 2, &one, 64, 0),
	    sys(mbind, a, 8 * page, 2, &one, 64, 1), sys(mbind, a, 8 * page, 2, &one, 64, 2), sys(mbind, a, 8 * page, 1, 0, 0, 1));
	say("at an address: %d", sys(get_mempolicy, &policy, mask, 64, a, 2));
	say(" %d %x, its node %d", (long)policy, mask[0], sys(get_mempolicy, &policy, 0, 0, a, 3));
	say(" %d\n", (long)policy);
	say("faults it in: %d, then", sys(get_mempolicy, &policy, 0, 0, a + 6 * page, 3));
	moves("", 0, 1, (void *[]){ a + 6 * page }, NULL, 0);
	child = fork();
	if (!child) {
		sys(setuid, 1000);
		moves("uid 1000", parent, 1, pages, NULL, 0);
		moves("all", 0, 1, pages, nodes, 4);
		migrates("the parent", parent, 64, &one, &one);
		migrates("to 1", 0, 64, &one, &both);
		say("mbind all %d\n", sys(mbind, a, page, 2, &one, 64, 4));
		finish(0);
	}
	wait_for(child);
	return 0;
}
