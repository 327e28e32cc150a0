/* SPDX-License-Identifier: GPL-2.0-only */
/* What a task asks of the scheduler and what its child gets of it; waits by pidfd; fs.nr_open; pid 1, traced. */
#include "guest.h"

enum {
	CALL(sched_setattr, 314, 274), CALL(sched_getattr, 315, 275), CALL(sched_setscheduler, 144, 119),
	CALL(sched_setparam, 142, 118), CALL(sched_getparam, 143, 121), CALL(setresuid, 117, 147), CALL(prctl, 157, 167),
	CALL(pidfd_open, 434, 434), CALL(waitid, 247, 95), CALL(dup3, 292, 24), CALL(fcntl, 72, 25), CALL(unshare, 272, 97),
	CALL(ptrace, 101, 117), CALL(sched_rr_get_interval, 148, 127),
};
enum { UNTRACED = 2, CONTINUED = 8, SUBREAPER = 36, ENDED = 4, NOHANG = 1, NOWAIT = 0x1000000, P_PIDFD = 3, NONBLOCK = 04000, FILES = 0x400, SLACK_SET = 29, SLACK_GET };
enum { ATTACH = 16, DETACH = 17, CONT = 7, GETSIGINFO = 0x4202, NOFILE = 7, WRITING = 1, CHILD = 17 };
enum { NORMAL, FIFO, RR, BATCH, IDLE = 5, DEADLINE, RESET = 1, KEEP_POLICY = 8, KEEP_PARAMS = 16, MS = 1000000 };
#define DO(call) say("%s: %d\n", #call, (long)(call))

struct attr {
	u32 size, policy;
	unsigned long long flags;
	int nice;
	u32 priority;
	unsigned long long runtime, deadline, period;
	u32 least, most, more[4];
};

static void show(const char *what)
{
	struct attr a = { 0 };
	long result = sys(sched_getattr, 0, &a, 56, 0);

	say("%s: %d size %d policy %d flags %x nice %d priority %d", what, result, (long)a.size, (long)a.policy, a.flags, (long)a.nice,
	    (long)a.priority);
	say(" %d/%d/%d %d-%d\n", a.runtime, a.deadline, a.period, (long)a.least, (long)a.most);
}
static long set(int size, int policy, int flags, int nice, int priority)
{
	struct attr a = { size, policy, flags, nice, priority, 0, 0, 0, 0, 0, { 0 } };

	return sys(sched_setattr, 0, &a, 0);
}
static long deadline(int flags, long runtime, long until, long period)
{
	struct attr a = { 48, DEADLINE, flags, 0, 0, runtime, until, period, 0, 0, { 0 } };

	return sys(sched_setattr, 0, &a, 0);
}
static void child(const char *what)
{
	long pid = fork();

	if (!pid) {
		show(what);
		finish(0);
	}
	wait_for(pid);
}

static void policies(void)
{
	struct attr a = { 72, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0, 0, 0, 1 } };
	int priority = 0;

	show("at first");
	DO(set(48, FIFO, 0, 0, 0));
	DO(set(48, FIFO, 0, 9, 100));
	DO(set(48, FIFO, 0, 9, 50));
	show("fifo");
	DO(set(48, BATCH, RESET, -5, 0));
	show("batch");
	child("its child");
	DO(set(48, RR, RESET, 0, 3));
	child("a child of rr");
	DO(set(48, IDLE, 0, -3, 0));
	show("idle");
	DO(set(48, NORMAL, 0, 7, 0));
	DO(set(48, RR, KEEP_PARAMS, 3, 1));
	DO(set(48, 99, KEEP_POLICY, 3, 0));
	show("kept");
	DO(set(48, 4, 0, 0, 0));
	DO(set(48, -1, 0, 0, 0));
	DO(set(48, NORMAL, 0x80, 0, 0));
	DO(set(48, NORMAL, 0x20, 0, 0));
	DO(set(56, NORMAL, 0x20, 0, 0));
	DO(set(47, NORMAL, 0, 0, 0));
	DO(set(64, NORMAL, 0, 4, 0));
	DO(set(0, NORMAL, 0, 2, 0));
	DO(sys(sched_setattr, 0, &a, 0));
	say("size %d\n", (long)a.size);
	DO(sys(sched_setscheduler, 0, DEADLINE, &priority));
	DO(sys(sched_setscheduler, 0, -1, &priority));
}
static void deadlines(void)
{
	int priority = 9;

	DO(deadline(0, 10 * MS, 30 * MS, 0));
	show("deadline");
	DO(sys(sched_getparam, 0, &priority));
	DO(sys(sched_setparam, 0, &priority));
	DO(fork());
	DO(deadline(RESET, 27 * MS, 30 * MS, 0));
	long pid = fork();
	if (!pid) {
		show("child");
		DO(deadline(0, 3 * MS, 30 * MS, 0));
		finish(0);
	}
	wait_for(pid);
	DO(deadline(0, 29 * MS, 30 * MS, 0));
	DO(deadline(0, 1023, 30 * MS, 0));
	DO(deadline(0, 40 * MS, 30 * MS, 0));
	DO(deadline(0, 10 * MS, 30 * MS, 20 * MS));
	DO(deadline(0, 10 * MS, 30 * MS, 5000L * MS));
	DO(deadline(0, 2000, 99999, 0));
	DO(set(48, IDLE, 0, 0, 0));
}
static void without_rights(void)
{
	long pid = fork();

	if (!pid) {
		sys(setresuid, 1, 1, 1);
		DO(deadline(0, 10 * MS, 30 * MS, 0));
		DO(set(48, NORMAL, 0, 0, 0));
		DO(set(48, IDLE, 0, -4, 0));
		DO(set(48, BATCH, 0, 4, 0));
		DO(set(48, FIFO, 0, 0, 1));
		finish(0);
	}
	wait_for(pid);
	DO(sys(prctl, SLACK_SET, 123));
	if (!(pid = fork())) {
		DO(sys(prctl, SLACK_SET, 7));
		DO(sys(prctl, SLACK_GET));
		DO(sys(prctl, SLACK_SET, 0));
		DO(sys(prctl, SLACK_GET));
		finish(0);
	}
	wait_for(pid);
	DO(sys(prctl, SLACK_SET, 0));
	DO(sys(prctl, SLACK_GET));
}
/* A number for a file below /proc/sys/kernel, and the slice of a SCHED_RR task then. */
static void write_limit(const char *path, const char *number)
{
	long fd = sys(openat, AT_FDCWD, path, WRITING, 0), time[2] = { 0, 0 }, length = 0, result;

	while (number[length])
		length++;
	result = sys(write, fd, number, length);
	sys(close, fd);
	sys(sched_rr_get_interval, 0, time);
	say("%s %s: %d, now %s", path + 17, number, result, read_file(path));
	if (same(path + 17, "sched_rr_timeslice_ms"))
		say("slice %d %d\n", time[0], time[1]);
}
static void limits(void)
{
	static const char runtime[] = "/proc/sys/kernel/sched_rt_runtime_us", period[] = "/proc/sys/kernel/sched_rt_period_us";
	static const char slice[] = "/proc/sys/kernel/sched_rr_timeslice_ms", least[] = "/proc/sys/kernel/sched_deadline_period_min_us";
	static const char *const runtimes[] = { "-2", "-1", "1000001", "1000000", "0", "950000" };
	static const char *const periods[] = { "0", "-1", "900000", "960000", "2000000", "1000000" };
	static const char *const slices[] = { "50", "1", "1000000", "0", "-1", "100" };

	sleep_ms(100); /* what a deadline task had is free some time after it */
	for (int i = 0; i < 6; i++)
		write_limit(runtime, runtimes[i]);
	for (int i = 0; i < 6; i++)
		write_limit(period, periods[i]);
	DO(set(48, RR, 0, 0, 1));
	for (int i = 0; i < 6; i++)
		write_limit(slice, slices[i]);
	write_limit(runtime, "-1");
	DO(deadline(0, 30 * MS, 30 * MS, 0));
	write_limit(runtime, "950000");
	DO(set(48, NORMAL, 0, 0, 0));
	sleep_ms(100);
	write_limit(runtime, "0");
	DO(deadline(0, 10 * MS, 30 * MS, 0));
	write_limit(runtime, "950000");
	write_limit(least, "40000");
	DO(deadline(0, 10 * MS, 30 * MS, 0));
	write_limit(least, "100");
}
static void waits(void)
{
	int info[32] = { 7, 7, 7, 7, 7 };
	long pid = fork();

	if (!pid)
		for (;;)
			sleep_ms(1000);
	long fd = sys(pidfd_open, pid, NONBLOCK);
	DO(sys(waitid, P_PIDFD, fd, info, ENDED, 0));
	say("%d %d\n", (long)info[0], (long)info[4]);
	DO(sys(waitid, P_PIDFD, fd, info, ENDED | NOHANG, 0));
	sys(kill, pid, 9);
	sleep_ms(20);
	DO(sys(waitid, P_PIDFD, fd, info, ENDED, 0));
	say("%d %d\n", (long)info[0], (long)(info[4] == pid));
	info[0] = 7;
	DO(sys(waitid, P_PIDFD, fd, info, ENDED, 0));
	say("%d\n", (long)info[0]);
	info[0] = 7;
	DO(sys(waitid, 9, fd, info, ENDED, 0));
	say("%d\n", (long)info[0]);
	sys(close, fd);
}
/* A parent that looks again and again, and what it finds when something has happened in between. */
static long look(int options)
{
	int status = 0;
	long found = sys(wait4, -1, &status, options, 0);

	say("%s %x: ", found < 0 ? "refused" : found ? "found" : "none", found < 0 ? -found : (long)status);
	return found;
}
static void polls(void)
{
	long first, second, third;

	if (!(first = fork()))
		for (;;)
			sleep_ms(1000);
	DO(look(NOHANG) > 0);
	DO(look(NOHANG | UNTRACED | CONTINUED) > 0);
	sys(kill, first, 19);
	sleep_ms(200);
	DO(look(NOHANG) > 0);
	DO(look(NOHANG | UNTRACED) == first);
	DO(look(NOHANG | UNTRACED) > 0);
	sys(kill, first, 18);
	sleep_ms(200);
	DO(look(NOHANG | CONTINUED) == first);
	DO(look(NOHANG | CONTINUED) > 0);
	if (!(second = fork())) {
		if (!(third = fork())) {
			sleep_ms(400);
			finish(3);
		}
		first = sys(getpid);
		sys(ptrace, 0, 0, 0, 0);
		sys(kill, first, 10);
		finish(4);
	}
	sleep_ms(200);
	DO(look(NOHANG) == second);
	DO(look(NOHANG) > 0);
	DO(sys(ptrace, CONT, second, 0, 0));
	DO(look(0) == second);
	DO(look(NOHANG) > 0);
	sys(prctl, SUBREAPER, 1);
	if (!(second = fork())) {
		if (!(third = fork())) {
			sleep_ms(300);
			finish(5);
		}
		finish(6);
	}
	DO(look(0) == second);
	DO(look(NOHANG) > 0);
	DO(look(0) > 0);
	DO(look(NOHANG) > 0);
	sys(kill, first, 9);
	DO(look(0) == first);
	DO(look(NOHANG) > 0);
}
static void nr_open(const char *number)
{
	long fd = sys(openat, AT_FDCWD, "/proc/sys/fs/nr_open", WRITING, 0);

	say("nr_open %s: %d\n", number, sys(write, fd, number, 7));
	sys(close, fd);
}
static void descriptors(void)
{
	long limit[2] = { 1048577, 1048577 };

	DO(sys(prlimit64, 0, NOFILE, limit, 0));
	nr_open("1049600");
	limit[0] = limit[1] = 1049600;
	DO(sys(prlimit64, 0, NOFILE, limit, 0));
	DO(sys(dup3, 1, 1048640, 0));
	nr_open("1048576");
	DO(fork());
	DO(sys(dup3, 1, 1048650, 0));
	DO(sys(dup3, 1, 1049599, 0));
	DO(sys(fcntl, 1, 0, 1048576));
	long pid = sys(clone, FILES | CHILD, 0, 0, 0, 0);
	if (!pid) {
		DO(sys(unshare, FILES));
		sys(close, 1048640);
		sys(close, 1048650);
		sys(close, 1049599);
		sys(close, 1048576);
		DO(sys(unshare, FILES));
		finish(0);
	}
	wait_for(pid);
}
static void init(void)
{
	int info[32] = { 0 }, status = 0;

	DO(sys(ptrace, ATTACH, 1, 0, 0));
	DO(sys(wait4, 1, &status, 0, 0));
	DO(sys(ptrace, GETSIGINFO, 1, 0, info));
	say("status %x, signal %d code %d\n", (long)status, (long)info[0], (long)info[2]);
	DO(sys(ptrace, ATTACH, 1, 0, 0));
	DO(sys(ptrace, CONT, 1, 0, 0));
	DO(sys(wait4, 1, &status, NOHANG, 0));
	DO(sys(kill, 1, 10));
	DO(sys(wait4, 1, &status, 0, 0));
	say("status %x\n", (long)status);
	DO(sys(ptrace, CONT, 1, 0, 0));
	DO(sys(ptrace, DETACH, 1, 0, 0));
	DO(sys(kill, 1, 28));
	DO(sys(wait4, 1, &status, 0, 0));
	DO(sys(ptrace, DETACH, 1, 0, 0));
	DO(sys(wait4, 1, &status, 0, 0));
	sys(setresuid, 1, 1, 1);
	DO(sys(ptrace, ATTACH, 1, 0, 0));
}

static int run(void)
{
	policies();
	deadlines();
	without_rights();
	limits();
	waits();
	polls();
	descriptors();
	init();
	return 0;
}
