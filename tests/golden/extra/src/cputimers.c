/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Clocks of CPU time: which numbers name one, sleeps and timers on them, overruns, and what setting CLOCK_REALTIME does
 * to timers that end at a time of day. Errors are shown as numbers; times only as whether they are what they should be.
 */
#include "guest.h"

enum {
	CALL(timer_create, 222, 107), CALL(timer_settime, 223, 110), CALL(timer_gettime, 224, 108),
	CALL(timer_getoverrun, 225, 109), CALL(timer_delete, 226, 111), CALL(clock_settime, 227, 112),
	CALL(clock_getres, 229, 114), CALL(clock_nanosleep, 230, 115), CALL(rt_sigtimedwait, 128, 137),
	CALL(timerfd_create, 283, 85), CALL(timerfd_settime, 286, 86), CALL(timerfd_gettime, 287, 87),
};
enum { MS = 1000000 };
typedef struct { long s, ns; } timespec;
typedef struct { timespec interval, value; } itimerspec;
typedef struct { long value; int signo, notify, tid, pad[11]; } sigevent;
typedef struct { int signo, error, code, pad, id, overrun; long value; char rest[96]; } info;

static volatile long got, code, value;

static void handler(int signo UNUSED, struct siginfo *si, u8 *context UNUSED)
{
	info *i = (info *)si;

	got++;
	code = i->code;
	value = i->value;
}
static long now(int clock)
{
	timespec t = { 0, 0 };

	sys(clock_gettime, clock, &t);
	return t.s * 1000000000 + t.ns;
}
static void burn(long ms)
{
	long end = now(2) + ms * MS;
	volatile int i;

	while (now(2) < end)
		for (i = 0; i < 50000; i++)
			;
}
static long set(int id, int flags, long first, long interval, itimerspec *old)
{
	itimerspec s = { { 0, interval }, { first / 1000000000, first % 1000000000 } };

	return sys(timer_settime, id, flags, &s, old);
}
static void clock_number(const char *name, int clock)
{
	timespec t = { 0, 0 }, zero = { 0, 0 }, wrong = { 0, 1000000000 };
	sigevent none = { .notify = 1 };
	int id = -7;

	say("%s: get %d", name, sys(clock_gettime, clock, &t));
	say(" res %d", sys(clock_getres, clock, &t));
	say(" set %d %d", clock ? sys(clock_settime, clock, &zero) : 0L, sys(clock_settime, clock, 8));
	say(" sleep %d %d %d", sys(clock_nanosleep, clock, 1, &zero, 0), sys(clock_nanosleep, clock, 0, &wrong, 0),
	       sys(clock_nanosleep, clock, 0, 8, 0));
	say(" timer %d %d", sys(timer_create, clock, &none, 0), sys(timer_create, clock, 8, &id));
	say(" %d\n", sys(timer_create, clock, &none, &id));
	if (id >= 0)
		sys(timer_delete, id);
}
static void timer(const char *name, int clock)
{
	sigevent event = { .value = 77, .signo = SIGUSR1 };
	ulong mask = 1ul << (SIGUSR1 - 1);
	timespec nap = { 0, 200 * MS };
	itimerspec old;
	info i;
	long start, used;
	int id;

	say("%s: create %d", name, sys(timer_create, clock, &event, &id));
	got = 0;
	start = now(clock);
	say(" set %d", set(id, 0, 50 * MS, 0, 0));
	sys(nanosleep, &nap, 0);
	say(" asleep %d", got);
	while (!got)
		burn(1);
	used = now(clock) - start;
	say(" got %d code %d value %d after %s", got, code, value, used > 40 * MS && used < 90 * MS ? "50 ms" : "?");
	set(id, 0, 50 * MS, 20 * MS, 0);
	for (got = 0; got < 4;)
		burn(1);
	sys(rt_sigprocmask, 0, &mask, 0, 8);
	set(id, 1, 1, 10 * MS, &old);
	say(" interval %d", old.interval.ns);
	burn(120);
	say(" wait %d", sys(rt_sigtimedwait, &mask, &i, 0, 8));
	say(" overruns %d %d\n", (long)(i.overrun > 8), (long)(sys(timer_getoverrun, id) == i.overrun));
	sys(timer_delete, id);
	sys(rt_sigprocmask, 1, &mask, 0, 8);
}
static void overruns(void)
{
	sigevent event = { .signo = SIGUSR1 };
	timespec nap = { 0, 105 * MS };
	ulong mask = 1ul << (SIGUSR1 - 1);
	info i;
	int id;

	sys(timer_create, 1, &event, &id);
	sys(rt_sigprocmask, 0, &mask, 0, 8);
	set(id, 0, 10 * MS, 10 * MS, 0);
	sys(nanosleep, &nap, 0);
	say("overruns: %d", sys(rt_sigtimedwait, &mask, &i, 0, 8));
	say(" %d %d", (long)(i.overrun == 9 || i.overrun == 10), (long)(sys(timer_getoverrun, id) == i.overrun));
	set(id, 1, 1, 1, 0);
	sys(nanosleep, &nap, 0);
	say(" %d", sys(rt_sigtimedwait, &mask, &i, 0, 8));
	say(" many %d\n", (long)(i.overrun > 100 * MS));
	sys(timer_delete, id);
	sys(rt_sigprocmask, 1, &mask, 0, 8);
}
static void time_of_day(void)
{
	sigevent event = { .signo = SIGUSR1 };
	timespec t, nap = { 0, MS };
	itimerspec s = { { 0, 0 }, { 0, 0 } };
	long ticks;
	int absolute, relative, told, silent, status;
	long pid;

	sys(clock_gettime, 0, &t);
	sys(timer_create, 0, &event, &absolute);
	sys(timer_create, 0, &event, &relative);
	s.value.s = t.s + 1000;
	sys(timer_settime, absolute, 1, &s, 0);
	set(relative, 0, 1000l * 1000 * MS, 0, 0);
	told = sys(timerfd_create, 0, 04000);
	silent = sys(timerfd_create, 0, 04000);
	sys(timerfd_settime, told, 3, &s, 0);
	sys(timerfd_settime, silent, 1, &s, 0);
	t.s += 990;
	say("time of day: set %d", sys(clock_settime, 0, &t));
	sys(timer_gettime, absolute, &s);
	say(" absolute %d", (long)(s.value.s < 11));
	sys(timer_gettime, relative, &s);
	say(" relative %d", (long)(s.value.s > 990));
	say(" told %d", sys(read, told, &ticks, 8));
	say(" %d silent %d", sys(read, told, &ticks, 8), sys(read, silent, &ticks, 8));
	sys(timerfd_gettime, silent, &s);
	say(" left %d", (long)(s.value.s < 11));
	got = 0;
	t.s += 20;
	sys(clock_settime, 0, &t);
	sys(nanosleep, &nap, 0);
	say(" got %d read %d\n", got, sys(read, silent, &ticks, 8));
	pid = fork();
	if (!pid) {
		t.s += 500;
		say("slept %d\n", sys(clock_nanosleep, 0, 1, &t, 0));
		finish(0);
	}
	sys(nanosleep, &nap, 0);
	t.s += 600;
	sys(clock_settime, 0, &t);
	sys(wait4, pid, &status, 0, 0);
	say("status %d soon %d\n", (long)status, (long)(now(0) / 1000000000 - t.s < 5));
}
static void before_the_start(void)
{
	sigevent event = { .signo = SIGUSR1 };
	timespec t = { 1000000000, 0 };
	itimerspec s = { { 1, 0 }, { t.s - 100000, 0 } };
	ulong mask = 1ul << (SIGUSR1 - 1);
	long ticks = 0;
	info i;
	int id, fd;

	sys(rt_sigprocmask, 0, &mask, 0, 8);
	sys(clock_settime, 0, &t);
	sys(timer_create, 0, &event, &id);
	say("from before the start: %d", sys(timer_settime, id, 1, &s, 0));
	say(" %d", sys(rt_sigtimedwait, &mask, &i, 0, 8));
	say(" overruns %d", (long)(i.overrun >= 100000 && i.overrun - 100000 <= 5));
	sys(timer_delete, id);
	fd = sys(timerfd_create, 0, 0);
	sys(timerfd_settime, fd, 1, &s, 0);
	say(" read %d", sys(read, fd, &ticks, 8));
	say(" ticks %d\n", (long)(ticks - 100001 <= 5 && ticks > 100000));
	sys(rt_sigprocmask, 1, &mask, 0, 8);
}
static void sleeper(int other, int signal)
{
	timespec t = { 0, 100 * MS }, rest = { -1, -1 };
	int pid = fork(), status;

	if (!pid) {
		long e = sys(clock_nanosleep, other, 0, &t, &rest);

		say("sleep on another's time: %d rest %d\n", e, (long)(rest.s == 0 && rest.ns <= 100 * MS));
		finish(0);
	}
	burn(signal ? 20 : 150);
	if (signal)
		sys(kill, pid, SIGUSR1);
	sys(wait4, pid, &status, 0, 0);
	say("status %d\n", (long)status);
}
static int run(void)
{
	int self = sys(getpid), dead = fork(), status, own;

	if (!dead)
		sys(exit_group, 0);
	sys(wait4, dead, &status, 0, 0);
	handle(SIGUSR1, handler, 0, 0);
	clock_number("realtime", 0), clock_number("monotonic", 1), clock_number("process", 2), clock_number("thread", 3), clock_number("raw", 4);
	clock_number("realtime coarse", 5), clock_number("monotonic coarse", 6), clock_number("boottime", 7), clock_number("realtime alarm", 8);
	clock_number("boottime alarm", 9), clock_number("none", 10), clock_number("tai", 11), clock_number("twelve", 12), clock_number("sixteen", 16);
	clock_number("dynamic", -5), clock_number("wrong kind", -1), clock_number("own thread", -2), clock_number("own process", -6);
	clock_number("own process, user", -7), clock_number("own process, ticks", -8), clock_number("own pid", (~self * 8) | 2);
	clock_number("own tid", (~self * 8) | 6), clock_number("dead", (~dead * 8) | 2), clock_number("init", (~1 * 8) | 2);
	clock_number("init's thread", (~1 * 8) | 6);
	timer("process", 2), timer("thread", 3), timer("user", (~0 * 8) | 1), timer("by pid", (~self * 8) | 2);
	overruns();
	own = (~self * 8) | 2;
	sleeper(own, 0);
	sleeper(own, 1);
	time_of_day();
	before_the_start();
	return 0;
}
