/* SPDX-License-Identifier: GPL-2.0-only */
/* Leases, RLIMIT_FSIZE, adjtimex, and what the calls of whoever runs the machine check and refuse. */
#include "guest.h"

enum {
	CALL(fcntl, 72, 25), CALL(setresuid, 117, 147), CALL(syslog, 103, 116), CALL(reboot, 169, 142), CALL(swapon, 167, 224),
	CALL(swapoff, 168, 225), CALL(init_module, 175, 105), CALL(finit_module, 313, 273), CALL(delete_module, 176, 106),
	CALL(pivot_root, 155, 41), CALL(adjtimex, 159, 171), CALL(clock_adjtime, 305, 266), CALL(kcmp, 312, 272),
	CALL(epoll_create1, 291, 20), CALL(epoll_ctl, 233, 21), CALL(truncate, 76, 45), CALL(fallocate, 285, 47),
	CALL(pwrite64, 18, 68), CALL(mkdirat, 258, 34), CALL(quotactl, 179, 60), CALL(acct, 163, 89), CALL(semop, 65, 193),
	CALL(semget, 64, 190),
};
enum { SETOWN = 8, SETSIG = 10, SETLEASE = 1024, GETLEASE, NOTIFY, RD = 0, WR, UN, O_WRONLY = 1, NONBLOCK = 04000, O_DIR = 0200000, SIGIO = 29 };
static char buffer[70000];
static long me;

/* The numbers in the order they are written. */
#define tell(text, ...) tell_numbers(text, sizeof((long[]){ __VA_ARGS__ }) / sizeof(long), (long[]){ __VA_ARGS__ })
static void tell_numbers(const char *text, int count, const long *n)
{
	say("%s", text);
	for (int i = 0; i < count; i++)
		say(" %d", n[i]);
	say("\n");
}
static long open(const char *path, int flags) { return sys(openat, AT_FDCWD, path, flags, 0666); }
static void signalled(int signo, struct siginfo *info, u8 *context UNUSED)
{
	if (info->code)
		say("signal %d code %d: %x %d\n", (long)signo, (long)info->code, info->address, (long)(int)(&info->address)[1]);
	else
		say("signal %d from %s\n", (long)signo, info->address == (ulong)me ? "me" : "another");
}
static void set(const char *path, const char *text)
{
	long fd = open(path, O_WRONLY), n = 0;

	while (text[n])
		n++;
	say("%s <- %s: %d\n", path, text, sys(write, fd, text, n));
	sys(close, fd);
}
static void leases(void)
{
	long fd, fd2, pid;

	say("-- leases\n");
	handle(SIGIO, signalled, SA_RESTART, 0);
	handle(SIGUSR1, signalled, SA_RESTART, 0);
	fd = open("/tmp/l", O_CREAT | O_RDWR);
	tell("none", sys(fcntl, fd, GETLEASE, 0), sys(fcntl, fd, SETLEASE, UN), sys(fcntl, fd, SETLEASE, 3), sys(fcntl, fd, SETLEASE, RD));
	tell("write", sys(fcntl, fd, SETLEASE, WR), sys(fcntl, fd, GETLEASE, 0), sys(fcntl, fd, SETLEASE, UN), sys(fcntl, fd, GETLEASE, 0));
	fd2 = open("/tmp/l", O_RDONLY);
	tell("opened twice", sys(fcntl, fd, SETLEASE, WR), sys(fcntl, fd2, SETLEASE, WR), sys(fcntl, fd2, SETLEASE, RD));
	sys(close, fd);
	tell("read", sys(fcntl, fd2, SETLEASE, RD), sys(fcntl, fd2, GETLEASE, 0), sys(fcntl, fd2, SETLEASE, WR), sys(fcntl, fd2, SETLEASE, RD));
	tell("opened to read", fd = open("/tmp/l", O_RDONLY), sys(fcntl, fd, GETLEASE, 0), sys(fcntl, fd, SETLEASE, RD), sys(fcntl, fd, SETLEASE, WR));
	sys(close, fd);
	tell("opened to write", open("/tmp/l", O_WRONLY | NONBLOCK), sys(fcntl, fd2, GETLEASE, 0), open("/tmp/l", O_WRONLY | NONBLOCK));
	tell("given up", sys(fcntl, fd2, SETLEASE, UN), fd = open("/tmp/l", O_WRONLY | NONBLOCK));
	sys(close, fd);
	sys(close, fd2);
	fd = open("/tmp/l", O_RDWR);
	tell("another signal", sys(fcntl, fd, SETSIG, SIGUSR1), sys(fcntl, fd, SETLEASE, WR));
	tell("read", open("/tmp/l", O_RDONLY | NONBLOCK), sys(fcntl, fd, GETLEASE, 0), sys(truncate, "/tmp/l", 5), 0);
	if (!(pid = fork())) {
		long n = open("/tmp/l", O_RDONLY);

		say("the child has it: %d\n", n > 0 ? 1 : n);
		finish(0);
	}
	sleep_ms(30);
	tell("downgraded", sys(fcntl, fd, SETLEASE, UN));
	wait_for(pid);
	tell("again", sys(fcntl, fd, SETLEASE, WR));
	set("/proc/sys/fs/lease-break-time", "1");
	if (!(pid = fork())) {
		long n = open("/tmp/l", O_WRONLY);

		say("after the time: %d\n", n > 0 ? 1 : n);
		finish(0);
	}
	wait_for(pid);
	tell("lost", sys(fcntl, fd, GETLEASE, 0));
	set("/proc/sys/fs/leases-enable", "0");
	tell("not enabled", sys(fcntl, fd, SETLEASE, WR), sys(fcntl, fd, NOTIFY, 1));
	set("/proc/sys/fs/leases-enable", "1");
	fd2 = open("/tmp", O_RDONLY);
	tell("folder", sys(fcntl, fd2, SETLEASE, RD), sys(fcntl, fd2, NOTIFY, 1));
	if (!(pid = fork())) {
		sys(setresuid, 5, 5, 5);
		tell("another's", sys(fcntl, fd, SETLEASE, WR), sys(fcntl, fd, GETLEASE, 0));
		finish(0);
	}
	wait_for(pid);
}
static void sizes(void)
{
	ulong limit[2] = { 1000, -1ul }, none[2] = { -1ul, -1ul };
	long fd = open("/tmp/s", O_CREAT | O_RDWR);

	say("-- RLIMIT_FSIZE\n");
	handle(25, signalled, 0, 0);
	sys(prlimit64, 0, 1, limit, 0);
	tell("write", sys(pwrite64, fd, buffer, 2000, 0), sys(pwrite64, fd, buffer, 1, 1000), sys(pwrite64, fd, buffer, 10, 999));
	tell("truncate", sys(ftruncate, fd, 1001), sys(truncate, "/tmp/s", 1001), sys(ftruncate, fd, 1000), sys(ftruncate, fd, 10));
	tell("fallocate", sys(fallocate, fd, 0, 0, 1000), sys(fallocate, fd, 0, 500, 501), sys(fallocate, fd, 1, 500, 5000), sys(fallocate, fd, 3, 500, 5000));
	sys(prlimit64, 0, 1, none, 0);
	sys(ftruncate, fd, 5000);
	sys(prlimit64, 0, 1, limit, 0);
	tell("beyond", sys(pwrite64, fd, buffer, 10, 2000), sys(ftruncate, fd, 4000), sys(fallocate, fd, 0, 3000, 500));
	sys(prlimit64, 0, 1, none, 0);
}
static long t[26];
static long adjust(u32 modes) { return t[0] = modes, sys(adjtimex, t); }
static void times(void)
{
	long pid;

	say("-- adjtimex\n");
	tell("state", adjust(0), t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[11], t[20] & 0xFFFFFFFF);
	t[11] = 1;
	tell("tick", adjust(0x4000), (t[11] = 10001, adjust(0x4000)), (t[11] = 0, adjust(0)), t[11], (t[11] = 10000, adjust(0x4000)));
	t[2] = 1L << 40;
	tell("frequency", adjust(2), t[2], (t[2] = 1000, adjust(2)), (t[2] = 0, adjust(0)), t[2], (t[2] = 0, adjust(2)));
	t[2] = 1L << 30;
	tell("much", adjust(2), t[2], (t[2] = 0, adjust(2)), t[2]);
	tell("units", adjust(0x2001), t[5], adjust(0x1000), t[5], (t[5] = 0xff41, adjust(0x10)), t[5]);
	t[3] = 7, t[4] = 8, t[6] = 3;
	tell("errors, constant", adjust(4 | 8 | 0x20), t[3], t[4], t[6], (t[6] = 37, adjust(0x80)), t[25 - 5] & 0xFFFFFFFF);
	t[10] = 1000000;
	tell("set", adjust(0x100), (t[10] = -1, adjust(0x100)), adjust(0x8000), adjust(0xa001), adjust(0x10000), sys(adjtimex, 8));
	t[5] = 0x40;
	tell("clocks", adjust(0x10), sys(clock_adjtime, 0, t), sys(clock_adjtime, 1, t), sys(clock_adjtime, 99, t), sys(clock_adjtime, 1, 8));
	if (!(pid = fork())) {
		sys(setresuid, 5, 5, 5);
		tell("user", adjust(0), adjust(0x4000), adjust(0x8001), adjust(0xa001), adjust(0x100));
		finish(0);
	}
	wait_for(pid);
}
static void calls(void)
{
	static const int kinds[] = { -1, 0, 1, 5, 6, 7, 10, 11 };
	u8 elf[80] = { 0 };

	for (int i = 0; i < 8; i++)
		tell("syslog", kinds[i], sys(syslog, kinds[i], buffer, 100));
	tell("log level", sys(syslog, 8, 0, 0), sys(syslog, 8, 0, 9), sys(syslog, 8, 0, 4));
	tell("log", sys(syslog, 3, 0, 10), sys(syslog, 3, buffer, -1), sys(syslog, 3, buffer, 0), sys(syslog, 3, -4096, 10), sys(syslog, 2, buffer, 0));
	tell("reboot", sys(reboot, 1, 2, 3, 0), sys(reboot, 0xfee1dead, 672274793, 77, 0), sys(reboot, 0xfee1dead, 537993216, 0x89ABCDEF, 0),
	     sys(reboot, 0xfee1dead, 85072278, 0, 0), sys(reboot, 0xfee1dead, 672274793, 0xA1B2C3D4, 8), sys(reboot, 0xfee1dead, 672274793, 0xD000FCE2, 0));
	tell("swap", sys(swapon, "/x", 0), sys(swapon, "/x", -1), sys(swapon, "/tmp/s", 0), sys(swapon, "/tmp", 0), sys(swapoff, "/x"), sys(swapoff, "/tmp"), sys(swapoff, "/tmp/s"), sys(swapoff, 8));
	tell("modules", sys(init_module, elf, 10, ""), sys(init_module, elf, 80, ""), sys(init_module, 8, 80, ""), sys(finit_module, -1, "", 0), sys(finit_module, 0, "", 8),
	     sys(delete_module, "xx", 0), sys(delete_module, "", 0), sys(delete_module, 8, 0));
	tell("root", sys(pivot_root, "/x", "/tmp"), sys(pivot_root, "/tmp", "/x"), sys(pivot_root, "/tmp", "/tmp"), sys(pivot_root, "/tmp/s", "/tmp"));
	tell("not built", sys(quotactl, 0, 0, 0, 0), sys(acct, 0));
#ifdef __x86_64__
	tell("ustat", syscall6(136, 0, (long)buffer, 0, 0, 0, 0), syscall6(136, 9999, (long)buffer, 0, 0, 0, 0), syscall6(136, 14, 8, 0, 0, 0, 0), syscall6(136, 14, (long)buffer, 0, 0, 0, 0));
#endif
}
static void compare(void)
{
	int p[2];
	u32 event[4] = { 1 }, slot[3];
	long e = sys(epoll_create1, 0), s = sys(semget, 0, 1, 0600);
	unsigned short op[3] = { 0, 1, 0x1000 };

	say("-- kcmp\n");
	sys(pipe2, p, 0);
	slot[0] = e, slot[1] = p[0], slot[2] = 0;
	tell("epoll", sys(epoll_ctl, e, 1, p[0], event), sys(kcmp, me, me, 7, p[0], slot), sys(kcmp, me, me, 7, 99, slot), sys(kcmp, me, me, 7, p[0], 8));
	tell("semaphores", sys(kcmp, me, me, 6, 0, 0), sys(semop, s, op, 1), sys(kcmp, me, me, 6, 0, 0), sys(kcmp, me, me, 8, 0, 0));
	slot[2] = 1;
	tell("another", sys(kcmp, me, me, 7, p[0], slot), (slot[2] = 0, slot[1] = p[1], sys(kcmp, me, me, 7, p[0], slot)),
	     (slot[0] = p[0], sys(kcmp, me, me, 7, p[0], slot)), (slot[0] = 99, sys(kcmp, me, me, 7, p[0], slot)));
}

static int run(void)
{
	long pid;

	me = sys(getpid);
	sizes();
	leases();
	times();
	compare();
	say("-- root\n");
	calls();
	if (!(pid = fork())) {
		sys(setresuid, 5, 5, 5);
		say("-- user\n");
		calls();
		finish(0);
	}
	return wait_for(pid);
}
