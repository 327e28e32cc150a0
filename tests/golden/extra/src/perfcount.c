/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * perf_event_open(), counting: what is refused, page faults to the one, context switches, CPU time, groups, enabling and
 * disabling, reset, inheritance, exec. A kernel without performance events (arm64's here) says ENOSYS.
 */
#include "guest.h"

enum {
	CALL(perf_event_open, 298, 241), CALL(ioctl, 16, 29), CALL(prctl, 157, 167), CALL(poll, 7, 73), CALL(setresuid, 117, 147),
	CALL(madvise, 28, 233), CALL(fcntl, 72, 25), CALL(lseek, 8, 62),
};
typedef struct {
	u32 type, size;
	ulong config, period, sample_type, read_format, flags;
	u32 wakeup, bp_type;
	ulong config1, config2, branch, regs_user;
	u32 stack_user;
	int clockid;
	ulong regs_intr;
	u32 aux_watermark;
	unsigned short max_stack, reserved2;
	u32 aux_sample_size, reserved3;
} attr;
enum { CPU_CLOCK, TASK_CLOCK, FAULTS, SWITCHES, MIGRATIONS, FAULTS_MIN, FAULTS_MAJ, ALIGNMENT, EMULATION, DUMMY, BPF, END };
enum { DISABLED = 1, INHERIT = 2, PINNED = 4, EXCLUSIVE = 8, NO_USER = 16, NO_KERNEL = 32, FREQ = 1 << 10, ON_EXEC = 1 << 12 };
enum { ENABLED = 1, RUNNING = 2, ID = 4, GROUP = 8 };
enum { IOC_ENABLE = 0x2400, IOC_DISABLE, IOC_REFRESH, IOC_RESET, IOC_ID = (int)0x80082407 };

static attr make(u32 type, ulong config, ulong flags, ulong format)
{
	return (attr){ .type = type, .size = 120, .config = config, .flags = flags, .read_format = format };
}
static long open_event(ulong config, ulong flags, ulong format, long group)
{
	attr a = make(1, config, flags, format);

	return sys(perf_event_open, &a, 0, -1, group, 0);
}
static long try(u32 type, ulong config, ulong flags, long pid, long cpu, long group, ulong open_flags)
{
	attr a = make(type, config, flags, 0);
	long fd = sys(perf_event_open, &a, pid, cpu, group, open_flags);

	if (fd < 0)
		return fd;
	sys(close, fd);
	return 0;
}
static long count(long fd)
{
	long value = -1, n = sys(read, fd, &value, 8);

	return n == 8 ? value : n;
}
static void refusals(void)
{
	attr a = make(1, FAULTS, 0, 0);
	long fd = open_event(FAULTS, 0, 0, -1), room[4], child;

	say("types:");
	for (int type = 0; type < 8; type++)
		if (type != 5 && type != 6) /* breakpoints; the time stamp counter */
			say(" %d", try(type, 0, 0, 0, -1, -1, 0));
	say("\nsoftware:");
	for (int i = 0; i < 13; i++)
		say(" %d", try(1, i, 0, 0, -1, -1, 0));
	say("\nwhere: %d %d %d %d %d", try(1, FAULTS, 0, -1, -1, -1, 0), try(1, FAULTS, 0, 0, 0, -1, 0), try(1, FAULTS, 0, 0, 9, -1, 0),
	    try(1, FAULTS, 0, -1, 0, -1, 0), try(1, FAULTS, 0, 99999, -1, -1, 0));
	say(" %d %d %d", try(1, FAULTS, 0, 0, -2, -1, 0), try(1, FAULTS, 0, 1, -1, -1, 0), try(1, FAULTS, 0, -5, -1, -1, 0));
	say("\nflags: %d %d %d %d %d", try(1, FAULTS, 0, 0, -1, -1, 1), try(1, FAULTS, 0, 0, -1, fd, 2), try(1, FAULTS, 0, 0, -1, -1, 16),
	    try(1, FAULTS, 0, 0, -1, -1, 8), try(1, FAULTS, 0, -1, 0, -1, 4));
	say(" group %d %d %d %d", try(1, FAULTS, 0, 0, -1, 99, 0), try(1, FAULTS, 0, 0, -1, 1, 0), try(1, SWITCHES, 0, 0, -1, fd, 0),
	    try(1, SWITCHES, INHERIT, 0, -1, fd, 0));
	say(" %d %d %d %d", try(1, SWITCHES, PINNED, 0, -1, fd, 0), try(1, SWITCHES, EXCLUSIVE, 0, -1, fd, 0), try(1, SWITCHES, 0, 0, 0, fd, 0),
	    try(1, SWITCHES, 0, -1, 0, fd, 0));
	say("\nattributes: null %d", sys(perf_event_open, 8, 0, -1, -1, 0));
	for (int i = 0; i < 6; i++) {
		a.size = (u32[]){ 0, 63, 64, 72, 5000, 112 }[i];
		say(" %d", (fd = sys(perf_event_open, &a, 0, -1, -1, 0)) < 0 ? fd : sys(close, fd));
		say(":%d", (long)a.size);
	}
	a = make(1, FAULTS, 1ul << 40, 0);
	say(" reserved %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	a = make(1, FAULTS, 0, 0);
	a.reserved2 = 1;
	say(" %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	a = make(1, FAULTS, 0, 64);
	say(" format %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	a = make(1, FAULTS, 0, 0);
	a.sample_type = 1ul << 30;
	say(" samples %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	a = make(1, FAULTS, FREQ, 0);
	a.period = 10000000;
	say(" rate %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	a = make(1, FAULTS, 0, 0);
	a.period = 1ul << 63;
	say(" period %d", sys(perf_event_open, &a, 0, -1, -1, 0));
	fd = open_event(FAULTS, 0, ENABLED | RUNNING | ID, -1);
	say("\nreading: short %d", sys(read, fd, room, 24));
	say(" %d bad %d write %d seek %d", sys(read, fd, room, 32), sys(read, fd, 8, 32), sys(write, fd, room, 8), sys(lseek, fd, 0, 0));
	say(" ioctl %d %d %d %d", sys(ioctl, fd, 0x5401, 0), sys(ioctl, fd, 0x2409, 1), sys(ioctl, fd, 0x2405, -1l), sys(ioctl, fd, 0x2405, 1));
	say(" refresh %d id %d", sys(ioctl, fd, IOC_REFRESH, 1), sys(ioctl, fd, IOC_ID, 8));
	sys(close, fd);
	child = fork();
	if (!child) {
		sys(setresuid, 1000, 1000, 1000);
		say("\nuser: %d %d %d", try(1, FAULTS, 0, 0, -1, -1, 0), try(1, FAULTS, NO_KERNEL, 0, -1, -1, 0),
		    try(1, FAULTS, NO_KERNEL, -1, 0, -1, 0));
		say(" %d %d\n", try(1, FAULTS, NO_KERNEL, 1, -1, -1, 0), try(0, 0, NO_KERNEL, 0, -1, -1, 0));
		finish(0);
	}
	wait_for(child);
}
static void faults(void)
{
	long all = open_event(FAULTS, 0, 0, -1), small = open_event(FAULTS_MIN, 0, 0, -1), large = open_event(FAULTS_MAJ, 0, 0, -1),
	     user = open_event(FAULTS, NO_KERNEL, 0, -1), kernel = open_event(FAULTS, NO_USER, 0, -1), before;
	volatile u8 *p = map(NULL, 16, RW, ANON);
	long p0, p1, p2, p3, p4;

	count(all), count(small), count(large), count(user), count(kernel);
	p0 = count(all), p1 = count(small), p2 = count(large), p3 = count(user), p4 = count(kernel);
	before = minor_faults();
	for (int i = 0; i < 5; i++)
		p[i * page] = 1;
	say("faults: written %d %d %d %d %d", count(all) - p0, count(small) - p1, count(large) - p2, count(user) - p3, count(kernel) - p4);
	for (int i = 5; i < 8; i++)
		(void)p[i * page];
	for (int i = 5; i < 7; i++)
		p[i * page] = 1;
	say(" read and written %d", count(all) - p0);
	sys(prctl, 16, p + 8 * page, 0, 0, 0); /* PR_GET_NAME */
	say(" by the kernel %d %d %d", count(all) - p0, count(user) - p3, count(kernel) - p4);
	map((void *)p, 16, RW, ANON | 0x8010); /* MAP_FIXED | MAP_POPULATE */
	say(" populated %d", count(all) - p0);
	sys(madvise, p, 16 * page, 4);
	p[0] = 1;
	say(" again %d", count(all) - p0);
	say(" of %d\n", minor_faults() - before);
	sys(ioctl, all, IOC_DISABLE, 0);
	p[page] = 1;
	p0 = count(all);
	sys(ioctl, all, IOC_ENABLE, 0);
	p[2 * page] = 1;
	say("  disabled 0 enabled %d", count(all) - p0);
	sys(ioctl, all, IOC_RESET, 0);
	p[3 * page] = 1, p[4 * page] = 1;
	say(" reset %d", count(all));
	sys(ioctl, all, IOC_DISABLE, 0);
	sys(ioctl, all, IOC_RESET, 0);
	say(" %d", count(all));
	sys(prctl, 31, 0, 0, 0, 0);
	p[5 * page] = 1;
	p1 = count(small);
	p[6 * page] = 1;
	say(" all off %d", count(small) - p1);
	sys(prctl, 32, 0, 0, 0, 0);
	p0 = count(all), p1 = count(small);
	p[7 * page] = 1;
	say(" all on %d %d\n", count(all) - p0, count(small) - p1);
	for (int fd = all; fd <= kernel; fd++)
		sys(close, fd);
}
static long words[16];
static void groups(void)
{
	long leader = open_event(DUMMY, DISABLED, GROUP | ID | ENABLED, -1), first = open_event(FAULTS, 0, GROUP, leader),
	     second = open_event(SWITCHES, 0, 0, leader), ids[3], n;
	volatile u8 *p = map(NULL, 8, RW, ANON);

	sys(ioctl, leader, IOC_ID, ids), sys(ioctl, first, IOC_ID, ids + 1), sys(ioctl, second, IOC_ID, ids + 2);
	p[0] = 1;
	n = sys(read, leader, words, sizeof words);
	say("group: %d", n);
	say(" has %d time %d counts %d %d %d", words[0], words[1], words[2], words[4], words[6]);
	say(" ids %d %d %d", words[3] - ids[0], words[5] - ids[1], words[7] - ids[2]);
	sys(ioctl, leader, IOC_ENABLE, 1);
	p[page] = 1, p[2 * page] = 1;
	sleep_ms(2);
	sleep_ms(2);
	sys(ioctl, leader, IOC_DISABLE, 0);
	p[3 * page] = 1;
	sleep_ms(2);
	n = sys(read, leader, words, sizeof words);
	say("\n  then %d time %d counts %d %d %d", n, (long)(words[1] > 0), words[2], words[4], words[6]);
	n = sys(read, first, words, sizeof words);
	say(" by a sibling %d: %d", n, words[0]);
	say(" alone %d room %d", count(second), sys(read, leader, words, 56));
	sys(ioctl, leader, IOC_RESET, 1);
	say(" reset %d %d", count(second), sys(ioctl, first, IOC_ENABLE, 0));
	p[4 * page] = 1;
	sys(read, leader, words, sizeof words);
	say(" %d", words[4]);
	sys(close, leader);
	sleep_ms(2);
	p[5 * page] = 1;
	n = sys(read, first, words, sizeof words);
	say(" leader closed: %d of %d", n, words[0]);
	say(" %d\n", words[1]);
	sys(close, first), sys(close, second);
}
static void clocks(void)
{
	long task = open_event(TASK_CLOCK, 0, ENABLED | RUNNING, -1), cpu = open_event(CPU_CLOCK, 0, 0, -1), first[3], last[3],
	     a, nothing = open_event(MIGRATIONS, 0, 0, -1);

	sys(read, task, first, 24);
	a = count(cpu);
	for (volatile int i = 0; i < 200000; i++)
		;
	sleep_ms(30);
	sys(read, task, last, 24);
	say("clocks: task %d cpu %d asleep %d times %d %d migrations %d\n", (long)(last[0] > first[0]), (long)(count(cpu) > a),
	    (long)(last[0] - first[0] < 30000000), (long)(last[1] == last[2]), (long)(last[1] > first[1]), count(nothing));
	sys(close, task), sys(close, cpu), sys(close, nothing);
}
static void families(void)
{
	long mine = open_event(FAULTS, NO_KERNEL, 0, -1), all = open_event(FAULTS, NO_KERNEL | INHERIT, 0, -1), child, a, b, of_child, none,
	     kernel = open_event(SWITCHES, NO_KERNEL, 0, -1);
	volatile u8 *p = map(NULL, 100, RW, ANON);
	char *argv[] = { arguments[0], "again", NULL }, *env[] = { NULL };
	attr at = make(1, FAULTS, DISABLED | NO_KERNEL | ON_EXEC, 0);
	int gate[2];

	a = count(mine), b = count(all);
	child = fork();
	if (!child) {
		for (int i = 0; i < 50; i++)
			p[i * page] = 1;
		finish(0);
	}
	wait_for(child);
	a = count(mine) - a;
	b = count(all) - b;
	say("family: child had %s", b - a >= 50 && b - a < 100 ? "50 and its own" : "?");
	sys(ioctl, all, IOC_RESET, 0);
	say(" after reset %s", count(all) >= 50 ? "kept" : "gone");
	sys(pipe2, gate, 0);
	child = fork();
	if (!child) {
		char c;

		sys(read, gate[0], &c, 1);
		sys(execve, arguments[0], argv, env);
		finish(9);
	}
	of_child = sys(perf_event_open, &at, child, -1, -1, 0);
	none = count(of_child);
	sys(write, gate[1], "x", 1);
	say(" exec %d", wait_for(child));
	say(" before %d after %d", none, (long)(count(of_child) > 100));
	say(" switches of user code %d", count(kernel));
	struct { int fd; short events, revents; } poll = { of_child, 1, 0 };
	say(" poll %d %x\n", sys(poll, &poll, 1, 0), (ulong)poll.revents);
}
static int run(void)
{
	if (arguments[1]) {
		volatile u8 *p = map(NULL, 100, RW, ANON);

		for (int i = 0; i < 100; i++)
			p[i * page] = 1;
		return 8;
	}
	if (open_event(FAULTS, 0, 0, -1) == -38) {
		say("none: prctl %d %d\n", sys(prctl, 31, 0, 0, 0, 0), sys(prctl, 32, 0, 0, 0, 0));
		return 0;
	}
	refusals();
	faults();
	groups();
	clocks();
	families();
	return 0;
}
