/* SPDX-License-Identifier: GPL-2.0-only */
/* execve: a new address space and the same process; what was mapped, written or handled before is gone. */
#include "guest.h"

static u8 *brk(void *to) { return (u8 *)sys(brk, to); }
static int global = 1;

static int run(void)
{
	static char *argv[] = { "again", "one", "two words", "", NULL }, *envp[] = { "KEY=value", NULL };
	char **p = arguments;
	long child;

	if (!same(p[0], "again")) {
		global = 2;
		CHECK((long)map((void *)0x10000000, 1, RW, ANON | MAP_FIXED) == 0x10000000);
		CHECK(brk(brk(NULL) + 8 * page) != NULL);
		child = fork();
		if (!child) {
			sys(execve, "/proc/self/exe", argv, envp);
			finish(99);
		}
		say("status %d\n", (long)wait_for(child));
		CHECK(sys(execve, "/tmp/none", argv, envp) == -2 && sys(execve, "/tmp", argv, envp) == -13);
		say("and this one goes on: %d\n", (long)global);
		return 0;
	}
	for (; *p; p++)
		say("(%s) ", *p);
	for (p++; *p; p++)
		say("env (%s)", *p);
	say("\nglobal %d, areas %d, old mapping ", (long)global, count_areas());
	draw((u8 *)0x10000000, 1);
	say("\n");
	return 42;
}
