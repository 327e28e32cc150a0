/* SPDX-License-Identifier: GPL-2.0-only */
/* Core files: what is in one, where it goes, what the parent hears; by RLIMIT_CORE, core_pattern and coredump_filter. */
#include "guest.h"

enum {
	CALL(chdir, 80, 49), CALL(lseek, 8, 62), CALL(unlinkat, 263, 35), CALL(symlinkat, 266, 36), CALL(mkdirat, 258, 34),
	CALL(umask, 95, 166), CALL(prctl, 157, 167), CALL(madvise, 28, 233), CALL(tgkill, 234, 131),
	CALL(waitid, 247, 95),
};
enum { SIGQUIT = 3, SIGABRT = 6, SIGFPE = 8, SIGTERM = 15, RLIMIT_CORE = 4, DONTDUMP = 16, DODUMP = 17, DIRECTORY = 0200 };
static u8 core[1 << 22] __attribute__((aligned(65536))); /* not dumped itself */
static u8 *mine, *shared;

static void set(const char *path, const char *text)
{
	long fd = sys(openat, AT_FDCWD, path, 1, 0), n = 0;

	while (text[n])
		n++;
	say("%s <- %s: %d\n", path, text, sys(write, fd, text, n));
	sys(close, fd);
}

static void limit(ulong most)
{
	ulong rlim[2] = { most, -1ul };

	sys(prlimit64, 0, RLIMIT_CORE, rlim, 0);
}

static int holds(long size, u8 mark)
{
	long run = 0;

	for (long i = 0; i < size; i++) {
		run = core[i] == mark ? run + 1 : 0;
		if (run == 600)
			return 1;
	}
	return 0;
}

static u32 word(const u8 *at) { return *(const u32 *)at; }

/* The notes up to the one of the mapped files: which register sets follow is the CPU's affair. */
static void notes(const u8 *at, const u8 *end)
{
	while (at < end) {
		u32 name = word(at), length = word(at + 4), type = word(at + 8);
		const u8 *data = at + 12 + (name + 3) / 4 * 4;

		say("  note %s %x", at + 12, type);
		if (type == 1)
			say(": signal %d %d %d, %d bytes", word(data), word(data + 4), word(data + 12) & 0xFFFF, length);
		if (type == 3)
			say(": %s, %s, %d bytes", data + 40, data + 56, length);
		if (type == 0x53494749)
			say(": %d %d %d", word(data), word(data + 4), (int)word(data + 8));
		say("\n");
		if (type == 0x46494c45)
			return;
		at = data + (length + 3) / 4 * 4;
	}
}

static void look(const char *path)
{
	long fd = sys(openat, AT_FDCWD, path, O_RDONLY, 0), size, n;
	int areas = 0, aligned = 1, inside = 1;

	if (fd < 0) {
		say("  %s: %d\n", path, fd);
		return;
	}
	for (size = 0; (n = sys(read, fd, core + size, sizeof core - size)) > 0; size += n)
		;
	sys(close, fd);
	sys(unlinkat, AT_FDCWD, path, 0);
	say("  %s: private page %d, shared page %d\n", path, holds(size, 0xb7), holds(size, 0xc9));
	for (u8 *head = core + 64; size > 64 && head < core + 64 + 56 * (word(core + 56) & 0xFFFF); head += 56) {
		ulong *at = (ulong *)(head + 8); /* offset, virtual, physical, size in the file and in memory, alignment */

		if (word(head) == 4) {
			notes(core + at[0], core + at[0] + at[3]);
			continue;
		}
		areas++;
		aligned &= at[0] % page == 0 && at[5] == page;
		inside &= at[0] + at[3] <= (ulong)size;
		if (at[1] == (ulong)mine)
			say("  my area: access %d, %d of %d pages\n", word(head + 4), at[3] / page, at[4] / page);
	}
	say("  more than four areas %d, aligned %d, inside %d\n", areas > 4, aligned, inside);
}

/* A child dies of `signo`; its pid. */
static long die(int signo, int advice, int dumpable)
{
	u32 info[32] = { 0 };
	long child = fork();

	if (child == 0) {
		if (advice)
			sys(madvise, mine, 3 * page, advice);
		if (!dumpable)
			sys(prctl, 4, 0);
		if (signo == SIGSEGV)
			*(volatile int *)(page >> 8) = 1;
		child = sys(getpid);
		sys(tgkill, child, child, signo);
		finish(9);
	}
	sys(waitid, 1, child, info, 4, 0);
	say("signal %d: code %d, status %d\n", signo, info[2], info[6]);
	return child;
}

/* Whether "/tmp/NAME-SIGNAL-PID%" is there: made from a pattern. */
static void named(const char *before, long pid)
{
	char path[64], *end = path;
	long digits = 1;

	while (*before)
		*end++ = *before++;
	while (digits * 10 <= pid)
		digits *= 10;
	for (; digits; digits /= 10)
		*end++ = '0' + pid / digits % 10;
	*end = 0;
	say("named after the process: %d\n", sys(unlinkat, AT_FDCWD, path, 0));
}

static int run(void)
{
	mine = map(NULL, 3, RW | PROT_EXEC, ANON);
	shared = map(NULL, 1, RW, MAP_SHARED | MAP_ANONYMOUS);
	for (ulong i = 0; i < 2 * page; i++)
		mine[i] = 0xb7;
	for (ulong i = 0; i < page; i++)
		shared[i] = 0xc9;
	sys(madvise, core, sizeof core, DONTDUMP);
	sys(chdir, "/tmp");

	die(SIGABRT, 0, 1); /* the limit is 0 */
	look("core");
	limit(-1ul);
	die(SIGABRT, 0, 1);
	look("core");
	die(SIGSEGV, 0, 1);
	look("core");
	die(SIGTERM, 0, 1);
	look("core");
	die(SIGABRT, 0, 0);
	look("core");
	die(SIGABRT, DONTDUMP, 1);
	look("core");
	die(SIGABRT, DODUMP, 1);
	look("core");
	set("/proc/self/coredump_filter", "0x2");
	die(SIGQUIT, 0, 1);
	look("core");
	set("/proc/self/coredump_filter", "0x33");

	limit(page - 1);
	die(SIGABRT, 0, 1);
	look("core");
	limit(-1ul);

	sys(symlinkat, "/tmp/elsewhere", AT_FDCWD, "core"); /* replaced, not followed */
	die(SIGABRT, 0, 1);
	look("elsewhere");
	look("core");
	sys(mkdirat, AT_FDCWD, "core", 0755);
	die(SIGABRT, 0, 1);
	sys(unlinkat, AT_FDCWD, "core", DIRECTORY);
	sys(umask, 0277); /* a file whose mode is not 0600 stays empty */
	die(SIGABRT, 0, 1);
	sys(umask, 0);
	look("core");

	set("/proc/sys/kernel/core_pattern", "/tmp/%e-%s%z-%p");
	named("/tmp/coredump-6-", die(SIGABRT, 0, 1));
	set("/proc/sys/kernel/core_pattern", "/tmp/missing/core");
	die(SIGABRT, 0, 1);
	set("/proc/sys/kernel/core_pattern", "100%%");
	set("/proc/sys/kernel/core_uses_pid", "1");
	named("100%.", die(SIGFPE, 0, 1));
	return 0;
}
