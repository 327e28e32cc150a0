/* SPDX-License-Identifier: GPL-2.0-only */
/* POSIX message queues: names, limits, order, waiting, notification, the file system. */
#include "guest.h"

enum {
	CALL(mq_open, 240, 180), CALL(mq_unlink, 241, 181), CALL(mq_timedsend, 242, 182), CALL(mq_timedreceive, 243, 183),
	CALL(mq_notify, 244, 184), CALL(mq_getsetattr, 245, 185), CALL(setresuid, 117, 147), CALL(mount, 165, 40),
	CALL(umount2, 166, 39), CALL(mkdirat, 258, 34), CALL(unlinkat, 263, 35), CALL(fstat, 5, 80), CALL(statfs, 137, 43),
	CALL(ppoll, 271, 73), CALL(getdents64, 217, 61), CALL(fcntl, 72, 25), CALL(umask, 95, 166), CALL(lseek, 8, 62),
	CALL(linkat, 265, 37), CALL(mknodat, 259, 33), CALL(unshare, 272, 97), CALL(chdir, 80, 49), CALL(renameat2, 316, 276),
	CALL(fsync, 74, 82), CALL(readlinkat, 267, 78),
};
enum { O_WRONLY = 1, O_EXCL = 0200, O_NONBLOCK = 04000, NONE = 1, SIGNAL = 0, THREAD = 2 };
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

static long attr[8];
static long queue(const char *name, int flags, int mode, long most, long size)
{
	attr[0] = 0;
	attr[1] = most;
	attr[2] = size;
	return sys(mq_open, name, flags, mode, most ? attr : NULL);
}
static long send(long q, const char *text, u32 prio)
{
	long n = 0;

	while (text[n])
		n++;
	return sys(mq_timedsend, q, text, n, prio, 0);
}
static void receive(long q)
{
	u32 prio = 77;
	long r = sys(mq_timedreceive, q, buffer, 8192, &prio, 0);

	buffer[r > 0 ? r : 0] = 0;
	say("received %d: %s with %d\n", r, buffer, (long)prio);
}
static void show_attr(long q)
{
	long r = sys(mq_getsetattr, q, 0, attr);

	say("attributes %d: %x %d %d %d\n", r, attr[0], attr[1], attr[2], attr[3]);
}
static void show_file(long q)
{
	long r = sys(lseek, q, 0, 0), owner = 0;
	char *p;

	r = sys(read, q, buffer, 200);
	buffer[r > 0 ? r : 0] = 0;
	for (p = buffer; *p && !same("PID:", (char[]){ p[0], p[0] ? p[1] : 0, p[0] && p[1] ? p[2] : 0, p[0] && p[1] && p[2] ? p[3] : 0, 0 }); p++)
		;
	if (*p) {
		p += 4;
		owner = *p != '0';
		*p = 0;
	}
	say("read %d: %s %s\n", r, buffer, owner ? "somebody" : "nobody");
}
static void set(const char *path, const char *text)
{
	long fd = sys(openat, AT_FDCWD, path, 1, 0), n = 0;

	while (text[n])
		n++;
	say("%s <- %s: %d\n", path, text, sys(write, fd, text, n));
	sys(close, fd);
}
static void notified(int signo, struct siginfo *info, u8 *context UNUSED)
{
	say("signal %d code %d from %s uid %d value %x\n", (long)signo, (long)info->code, (info->address & 0xFFFFFFFF) == (ulong)me ? "me" : "a child",
	    (long)(info->address >> 32), (&info->address)[1]);
}
static long ask(long q, int kind, int signo, ulong value)
{
	ulong event[8] = { value, (ulong)(u32)signo | (ulong)kind << 32 };

	return sys(mq_notify, q, event);
}
static void ready(long q)
{
	struct { int fd; short events, revents; } poll = { q, 0x1ff, 0 };
	long now[2] = { 0, 0 };
	long r = sys(ppoll, &poll, 1, now, 0, 8);

	say("poll %d: %x\n", r, (ulong)poll.revents);
}
static void list(const char *path)
{
	long fd = sys(openat, AT_FDCWD, path, 0200000 & 0, 0), r = sys(getdents64, fd, buffer, sizeof buffer);

	say("%s:", path);
	for (long at = 0; at < r; at += *(unsigned short *)(buffer + at + 16))
		say(" %s", buffer + at + 19);
	say("\n");
	sys(close, fd);
}
static void stat_of(long fd)
{
	long st[18];
	u8 *b = (u8 *)st;
	long r = sys(fstat, fd, st);
#ifdef __x86_64__
	say("stat %d: mode %x links %d uid %d size %d blocks %d\n", r, (ulong)*(u32 *)(b + 24), *(long *)(b + 16), (long)*(u32 *)(b + 28), *(long *)(b + 48), *(long *)(b + 64));
#else
	say("stat %d: mode %x links %d uid %d size %d blocks %d\n", r, (ulong)*(u32 *)(b + 16), (long)*(u32 *)(b + 20), (long)*(u32 *)(b + 24), *(long *)(b + 48), *(long *)(b + 64));
#endif
}

static int run(void)
{
	long a, b, r, pid, pid2, time[2] = { 1, 0 }, fs[16];
	ulong rlim[2] = { 100000, 819200 };
	char name[300];

	me = sys(getpid);
	sys(umask, 022);
	say("-- names\n");
	memset(name, 'x', 299);
	name[256] = 0;
	tell("", queue("a", O_RDWR, 0, 0, 0), queue("/a", O_RDWR | O_CREAT, 0600, 0, 0), queue("", O_RDWR | O_CREAT, 0600, 0, 0),
	    queue("..", O_RDWR | O_CREAT, 0600, 0, 0), queue(name, O_RDWR | O_CREAT, 0600, 0, 0), queue((char *)8, O_RDWR | O_CREAT, 0600, 0, 0));
	tell("", sys(mq_unlink, "a"), sys(mq_unlink, ""), sys(mq_open, "a", O_RDWR | O_CREAT, 0600, 8));
	a = queue("a", O_RDWR | O_CREAT, 0666, 0, 0);
	tell("", a, queue("a", O_RDWR | O_CREAT | O_EXCL, 0600, 0, 0), queue("a", 3, 0, 0, 0), sys(fcntl, a, 1, 0));
	show_attr(a);
	stat_of(a);
	r = sys(readlinkat, AT_FDCWD, "/proc/self/fd/3", buffer, 100);
	buffer[r > 0 ? r : 0] = 0;
	say("%s %x\n", buffer, sys(fcntl, a, 3, 0) & ~0777000);
	say("-- limits\n");
	tell("", queue("b", O_RDWR | O_CREAT, 0600, -1, 10), queue("b", O_RDWR | O_CREAT, 0600, 10, 0), queue("b", O_RDWR | O_CREAT, 0600, 65537, 1),
	    queue("b", O_RDWR | O_CREAT, 0600, 1, 16777217));
	tell("", queue("b", O_RDWR | O_CREAT, 0600, 65536, 16777216), queue("b", O_RDWR | O_CREAT, 0600, 11, 9000));
	sys(prlimit64, 0, 12, rlim, 0);
	b = queue("c", O_RDWR | O_CREAT, 0600, 10, 1200);
	tell("", b, queue("d", O_RDWR | O_CREAT, 0600, 10, 1200));
	sys(close, b);
	tell("", queue("d", O_RDWR | O_CREAT, 0600, 10, 1200));
	tell("", sys(mq_unlink, "b"));
	sys(close, 4);
	tell("", sys(mq_unlink, "c"), queue("d", O_RDWR | O_CREAT, 0600, 10, 100));
	rlim[0] = 819200;
	sys(prlimit64, 0, 12, rlim, 0);
	if (!(pid = fork())) {
		sys(setresuid, 5, 5, 5);
		tell("as 5", queue("e", O_RDWR | O_CREAT, 0600, 11, 10), queue("e", O_RDWR | O_CREAT, 0600, 10, 8193), queue("d", O_RDWR, 0, 0, 0), queue("a", O_RDWR, 0, 0, 0));
		tell("", queue("a", O_RDONLY, 0, 0, 0), sys(mq_unlink, "a"), queue("e", O_RDWR | O_CREAT, 0, 10, 10));
		tell("", queue("e", O_RDWR, 0, 0, 0), sys(mq_unlink, "e"));
		finish(0);
	}
	wait_for(pid);
	set("/proc/sys/fs/mqueue/queues_max", "2");
	tell("root", r = queue("f", O_RDWR | O_CREAT, 0600, 3, 20));
	sys(close, r);
	if (!(pid = fork())) {
		sys(setresuid, 5, 5, 5);
		tell("as 5", queue("g", O_RDWR | O_CREAT, 0600, 3, 20));
		finish(0);
	}
	wait_for(pid);
	set("/proc/sys/fs/mqueue/msg_default", "4");
	set("/proc/sys/fs/mqueue/msgsize_default", "10000");
	r = queue("g", O_RDWR | O_CREAT, 0600, 0, 0);
	show_attr(r);
	sys(close, r);
	say("-- messages\n");
	b = queue("f", O_RDWR, 0, 0, 0);
	tell("", send(b, "one", 1), send(b, "five", 5), send(b, "uno", 1), sys(mq_timedsend, b, "x", 1, 32768, 0));
	tell("", sys(mq_timedsend, b, buffer, 21, 0, 0), sys(mq_timedsend, 0, "x", 1, 0, 0), sys(mq_timedsend, b, 8, 1, 0, 0));
	show_attr(b);
	show_file(b);
	ready(b);
	tell("", sys(mq_timedsend, b, "x", 1, 0, time), (time[1] = -1, sys(mq_timedsend, b, "x", 1, 0, time)));
	tell("", sys(mq_timedreceive, b, buffer, 19, 0, 0));
	receive(b);
	receive(b);
	ready(b);
	receive(b);
	ready(b);
	time[1] = 0;
	tell("", sys(mq_timedreceive, b, buffer, 20, 0, time), sys(mq_timedreceive, b, buffer, 20, 0, 8));
	attr[0] = O_NONBLOCK;
	tell("", sys(mq_getsetattr, b, attr, 0), sys(mq_timedreceive, b, buffer, 20, 0, 0));
	show_attr(b);
	attr[0] = 1;
	tell("", sys(mq_getsetattr, b, attr, 0), sys(mq_getsetattr, b, 8, 0), sys(mq_getsetattr, 0, 0, 0));
	attr[0] = 0;
	sys(mq_getsetattr, b, attr, 0);
	a = queue("f", O_WRONLY, 0, 0, 0);
	r = queue("f", O_RDONLY, 0, 0, 0);
	tell("", sys(mq_timedreceive, a, buffer, 20, 0, 0), sys(mq_timedsend, r, buffer, 1, 0, 0), sys(write, a, "x", 1), sys(read, a, "x", 1));
	tell("lost", send(b, "lost", 0), sys(mq_timedreceive, b, 8, 20, 0, 0));
	show_attr(b);
	say("-- waiting\n");
	if (!(pid = fork())) {
		receive(b);
		finish(1);
	}
	sleep_ms(20);
	if (!(pid2 = fork())) {
		receive(b);
		finish(2);
	}
	sleep_ms(20);
	tell("", send(b, "first", 3));
	wait_for(pid);
	tell("", send(b, "second", 4));
	wait_for(pid2);
	send(b, "1", 1), send(b, "2", 1), send(b, "3", 1);
	if (!(pid = fork()))
		finish(send(b, "high", 9) & 255);
	sleep_ms(20);
	receive(b);
	tell("sender", (long)wait_for(pid));
	show_attr(b);
	receive(b);
	if (!(pid = fork())) {
		send(b, "full", 0);
		finish(-send(b, "interrupted", 0) & 255);
	}
	sleep_ms(20);
	sys(kill, pid, 9);
	tell("killed", (long)wait_for(pid));
	receive(b), receive(b), receive(b);
	show_attr(b);
	say("-- notification\n");
	handle(SIGUSR1, notified, SA_RESTART, 0);
	tell("", ask(b, 3, 0, 0), ask(b, SIGNAL, 65, 0), ask(0, SIGNAL, SIGUSR1, 0), sys(mq_notify, b, 8));
	tell("", ask(b, THREAD, 99, (ulong)buffer), ask(b, THREAD, b, (ulong)buffer), ask(b, THREAD, b, 8));
	tell("", ask(b, SIGNAL, SIGUSR1, 0xabcd), ask(b, SIGNAL, SIGUSR1, 1));
	show_file(b);
	tell("", send(b, "n", 0));
	show_file(b);
	ask(b, SIGNAL, SIGUSR1, 0xbeef);
	tell("not empty", send(b, "n", 0));
	receive(b), receive(b);
	if (!(pid = fork())) {
		tell("busy, not mine", ask(b, NONE, 0, 0), sys(mq_notify, b, 0));
		finish(send(b, "from a child", 0));
	}
	wait_for(pid);
	receive(b);
	ask(b, NONE, 0, 0);
	show_file(b);
	send(b, "n", 0);
	show_file(b);
	receive(b);
	ask(b, SIGNAL, SIGUSR1, 7);
	tell("off", sys(mq_notify, b, 0));
	show_file(b);
	ask(b, SIGNAL, SIGUSR1, 8);
	sys(close, a);
	show_file(b);
	if (!(pid = fork())) {
		ask(b, SIGNAL, SIGUSR1, 8);
		finish(0);
	}
	wait_for(pid);
	show_file(b);
	ask(b, SIGNAL, SIGUSR1, 9);
	if (!(pid = fork())) {
		receive(b);
		finish(0);
	}
	sleep_ms(20);
	tell("to a receiver", send(b, "n", 0));
	wait_for(pid);
	show_file(b);
	say("-- the file system\n");
	sys(mkdirat, AT_FDCWD, "/tmp/m", 0755);
	tell("", sys(mount, "none", "/tmp/m", "mqueue", 0, "x=1"), sys(mount, "none", "/tmp/m", "mqueue", 0, 0));
	list("/tmp/m");
	r = sys(openat, AT_FDCWD, "/tmp/m", 0, 0);
	stat_of(r);
	sys(close, r);
	sys(statfs, "/tmp/m", fs);
	say("magic %x block %d blocks %d names %d\n", fs[0], fs[1] / (long)page, fs[2], fs[8]);
	r = sys(openat, AT_FDCWD, "/tmp/m/f", O_RDWR, 0);
	stat_of(r);
	tell("", send(r, "by name", 0), sys(fsync, r), sys(mmap, 0, page, 1, 2, r, 0));
	receive(b);
	sys(close, r);
	r = sys(openat, AT_FDCWD, "/tmp/m/new", O_RDWR | O_CREAT, 0640);
	show_attr(r);
	stat_of(r);
	sys(close, r);
	tell("", sys(linkat, AT_FDCWD, "/tmp/m/f", AT_FDCWD, "/tmp/m/l", 0), sys(mkdirat, AT_FDCWD, "/tmp/m/d", 0755),
	    sys(mknodat, AT_FDCWD, "/tmp/m/p", 0010600, 0), sys(mknodat, AT_FDCWD, "/tmp/m/r", 0100600, 0), sys(renameat2, AT_FDCWD, "/tmp/m/f", AT_FDCWD, "/tmp/m/g2", 0));
	tell("", sys(unlinkat, AT_FDCWD, "/tmp/m/new", 0), sys(unlinkat, AT_FDCWD, "/tmp/m/none", 0));
	list("/tmp/m");
	if (!(pid = fork())) {
		tell("another namespace", sys(unshare, 0x08000000));
		tell("", queue("f", O_RDWR, 0, 0, 0), queue("f", O_RDWR | O_CREAT, 0600, 2, 20));
		list("/tmp/m");
		finish(0);
	}
	wait_for(pid);
	tell("", sys(mq_unlink, "f"), sys(umount2, "/tmp/m", 0), send(b, "still", 0));
	stat_of(b);
	return 0;
}
