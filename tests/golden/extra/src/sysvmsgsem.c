/* SPDX-License-Identifier: GPL-2.0-only */
/* System V messages and semaphores: what is refused, who waits and who is woken, SEM_UNDO, limits, /proc, namespaces. */
#include "guest.h"

enum {
	CALL(msgget, 68, 186), CALL(msgsnd, 69, 189), CALL(msgrcv, 70, 188), CALL(msgctl, 71, 187),
	CALL(semget, 64, 190), CALL(semop, 65, 193), CALL(semctl, 66, 191), CALL(semtimedop, 220, 192),
	CALL(setresuid, 117, 147), CALL(unshare, 272, 97), CALL(getuid, 102, 174),
};
enum { RMID, SET, STAT, INFO, GETPID = 11, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO, SEM_STAT_ANY };
enum { MSG_STAT = 11, MSG_INFO, MSG_STAT_ANY, CREAT = 01000, EXCL = 02000, NOWAIT = 04000, NOERROR = 010000, EXCEPT = 020000, COPY = 040000 };
enum { UNDO = 0x1000 };
struct message { long type; char text[9000]; };
struct sembuf { unsigned short num; short op, flg; };
static struct message one, got;
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

static void numbers(const u32 *n, int count)
{
	for (int i = 0; i < count; i++)
		say(" %d", (long)n[i]);
	say("\n");
}
static const char *who(long pid) { return pid == 0 ? "nobody" : pid == me ? "parent" : "child"; }

static void set(const char *path, const char *text)
{
	long fd = sys(openat, AT_FDCWD, path, 1, 0), n = 0;

	while (text[n])
		n++;
	say("%s <- %s: %d\n", path, text, sys(write, fd, text, n));
	sys(close, fd);
}
static void show(const char *path)
{
	char *text = read_file(path);

	say("%s: %s", path, text);
}
/* /proc/sysvipc without pids (of messages) and times, the last words */
static void show_ipc(const char *path)
{
	long word = 0, last = path[14] == 'm' ? 11 : 8, line = 0;

	for (char *p = read_file(path); *p; p++) {
		if (*p == '\n')
			word = 0, line++;
		if (*p == ' ' && p[1] != ' ')
			word++;
		if (line && *p >= ' ' && (word > last || (word == last && *p == ' ')))
			continue;
		put(line && *p > ' ' && last == 11 && (word == 6 || word == 7) ? '#' : *p);
	}
}
static long send(long q, long type, long n, int flags)
{
	one.type = type;
	for (long i = 0; i < n && i < 9000; i++)
		one.text[i] = 'a' + (type + i) % 26;
	return sys(msgsnd, q, &one, n, flags);
}
static void receive(const char *what, long q, long n, long type, int flags)
{
	long r;

	got.type = -7;
	memset(got.text, 0, 16);
	r = sys(msgrcv, q, &got, n, type, flags);
	got.text[r > 0 ? r < 8 ? r : 8 : 0] = 0;
	say("receive %s: %d type %d %s\n", what, r, got.type, r >= 0 ? got.text : "-");
}
static void stat_msg(long q)
{
	u8 ds[120];
	long r = sys(msgctl, q, STAT, ds);

	say("queue: %d key %x mode %x uid %d cuid %d bytes %d messages %d most %d sent by %s received by %s\n", r,
	    (ulong)*(u32 *)ds, (ulong)*(u32 *)(ds + 20), (long)*(u32 *)(ds + 4), (long)*(u32 *)(ds + 12), *(long *)(ds + 72),
	    *(long *)(ds + 80), *(long *)(ds + 88), who(*(u32 *)(ds + 96)), who(*(u32 *)(ds + 100)));
}
static long ended(const char *what, long pid)
{
	int status = wait_for(pid);

	say("%s ended with %d\n", what, (long)status);
	return status;
}
static void nothing(int signo UNUSED, struct siginfo *info UNUSED, u8 *context UNUSED) {}

static void messages(void)
{
	u32 info[8];
	u8 ds[120];
	long q, r, pid, pid2;

	say("-- messages: finding\n");
	tell("", sys(msgget, 77, 0), sys(msgget, 77, CREAT | 0640), sys(msgget, 77, CREAT | EXCL | 0600));
	q = sys(msgget, 77, 0);
	tell("", q, sys(msgget, 77, 0777), sys(msgget, 0, 0));
	stat_msg(q);
	say("-- sending: refusals\n");
	tell("", send(q, 0, 1, 0), send(q, -1, 1, 0), send(q, 1, 8193, 0), send(-1, 1, 1, 0));
	tell("", send(q, 1, -1, 0), send(99, 1, 1, 0), sys(msgsnd, q, 0, 1, 0), sys(msgsnd, q, -4096, 1, 0));
	say("-- receiving by type\n");
	for (int i = 0; i < 6; i++)
		say("%d ", send(q, "\3\1\2\3\1\5"[i], 3 + i, 0));
	say("\n");
	receive("too small", q, 2, 0, 0);
	receive("cut", q, 2, 0, NOERROR);
	receive("type 2", q, 100, 2, 0);
	receive("least up to 4", q, 100, -4, 0);
	receive("not 1", q, 100, 1, EXCEPT);
	receive("copy 0", q, 100, 0, COPY | NOWAIT);
	receive("copy 1", q, 100, 1, COPY | NOWAIT);
	receive("copy 2", q, 100, 2, COPY | NOWAIT);
	receive("copy -1", q, 100, -1, COPY | NOWAIT);
	receive("copy too small", q, 2, 0, COPY | NOWAIT);
	receive("copy cut", q, 2, 0, COPY | NOWAIT | NOERROR);
	receive("copy and wait", q, 100, 0, COPY);
	receive("copy except", q, 100, 0, COPY | NOWAIT | EXCEPT);
	receive("type 9", q, 100, 9, NOWAIT);
	receive("least of all", q, 100, 1L << 63, NOWAIT);
	receive("size", q, -1, 0, NOWAIT);
	tell("", sys(msgrcv, -1, &got, 1, 0, 0), sys(msgrcv, 99, &got, 1, 0, NOWAIT));
	stat_msg(q);
	tell("to nowhere", sys(msgrcv, q, 8, 100, 0, NOWAIT));
	stat_msg(q);
	say("-- full\n");
	for (r = 0; send(q, 1, 5000, NOWAIT) == 0; r++)
		;
	tell("fit, another, an empty one", r, send(q, 1, 5000, NOWAIT), send(q, 2, 0, NOWAIT));
	stat_msg(q);
	show_ipc("/proc/sysvipc/msg");
	r = sys(msgctl, 0, INFO, info);
	tell("info", r);
	numbers(info, 7);
	r = sys(msgctl, 0, MSG_INFO, info);
	tell("used", r);
	numbers(info, 7);
	say("-- a sender waits\n");
	if (!(pid = fork()))
		finish(send(q, 4, 8000, 0) & 255);
	sleep_ms(30);
	if (!(pid2 = fork()))
		finish(send(q, 3, 100, 0) ? 9 : 3);
	ended("a small one", pid2);
	receive("5000", q, 9000, 1, 0);
	sleep_ms(30);
	stat_msg(q);
	receive("5000", q, 9000, 1, 0);
	ended("a large one", pid);
	stat_msg(q);
	while (sys(msgrcv, q, &got, 9000, 0, NOWAIT) >= 0)
		;
	say("-- receivers wait\n");
	if (!(pid = fork())) {
		receive("4 or less", q, 100, -4, 0);
		finish(1);
	}
	sleep_ms(30);
	if (!(pid2 = fork())) {
		receive("not 4", q, 2, 4, EXCEPT);
		finish(2);
	}
	sleep_ms(30);
	tell("", send(q, 8, 5, 0));
	ended("without room", pid2);
	tell("", send(q, 4, 5, 0));
	ended("first", pid);
	stat_msg(q);
	receive("8", q, 100, 0, NOWAIT);
	say("-- signals\n");
	handle(SIGUSR1, nothing, SA_RESTART, 0);
	if (!(pid = fork())) {
		r = sys(msgrcv, q, &got, 100, 0, 0);
		finish(-r & 255);
	}
	sleep_ms(30);
	sys(kill, pid, SIGUSR1);
	ended("a receiver with a handler", pid);
	say("-- set\n");
	r = sys(msgctl, q, STAT, ds);
	*(u32 *)(ds + 4) = 5;
	*(u32 *)(ds + 20) = 07604;
	*(long *)(ds + 88) = 100;
	tell("", r, sys(msgctl, q, SET, ds));
	stat_msg(q);
	*(long *)(ds + 88) = 1 << 20;
	tell("more than allowed", sys(msgctl, q, SET, ds));
	if (!(pid = fork())) {
		tell("as 5", sys(setresuid, 5, 5, 5));
		*(long *)(ds + 88) = 1 << 20;
		tell("", sys(msgctl, q, SET, ds), send(q, 1, 1, NOWAIT), sys(msgctl, q, STAT, ds));
		*(u32 *)(ds + 4) = -1;
		*(long *)(ds + 88) = 100;
		tell("", sys(msgctl, q, SET, ds));
		finish(0);
	}
	wait_for(pid);
	if (!(pid = fork())) {
		sys(setresuid, 6, 6, 6);
		tell("as 6", send(q, 1, 1, NOWAIT), sys(msgctl, q, STAT, ds), sys(msgctl, q, RMID, 0), sys(msgget, 77, 0));
		receive("6", q, 100, 0, NOWAIT);
		tell("", sys(msgget, 77, 0600), sys(msgctl, 0, MSG_STAT, ds), sys(msgctl, 0, MSG_STAT_ANY, ds));
		finish(0);
	}
	wait_for(pid);
	say("-- removed\n");
	receive("all", q, 9000, 0, NOWAIT);
	receive("all", q, 9000, 0, NOWAIT);
	if (!(pid = fork()))
		finish(-sys(msgrcv, q, &got, 100, 0, 0) & 255);
	sleep_ms(30);
	tell("", sys(msgctl, q, RMID, 0));
	ended("a receiver", pid);
	tell("", sys(msgctl, q, STAT, ds), sys(msgctl, q, 99, ds), sys(msgctl, q, -1, ds), sys(msgctl, -1, STAT, ds));
	tell("next", sys(msgget, 0, 0), sys(msgget, 0, 0));
	set("/proc/sys/kernel/msg_next_id", "98305");
	tell("wished", sys(msgget, 0, 0), sys(msgget, 0, 0));
	set("/proc/sys/kernel/msgmni", "4");
	set("/proc/sys/kernel/msgmax", "10");
	tell("", sys(msgget, 0, 0), send(1, 1, 11, NOWAIT));
	show_ipc("/proc/sysvipc/msg");
	tell("another namespace", sys(unshare, 0x08000000));
	show_ipc("/proc/sysvipc/msg");
	show("/proc/sys/kernel/msgmax");
	tell("", sys(msgget, 5, CREAT));
}

static long semop(long s, long num, long op, long flg)
{
	struct sembuf b = { num, op, flg };

	return sys(semop, s, &b, 1);
}
static void values(long s)
{
	unsigned short all[4] = { 0 };

	tell("values", sys(semctl, s, 0, GETALL, all));
	for (int i = 0; i < 4; i++)
		say(" %d(%d,%d,%s)", (long)all[i], sys(semctl, s, i, GETNCNT, 0), sys(semctl, s, i, GETZCNT, 0), who(sys(semctl, s, i, GETPID, 0)));
	say("\n");
}
static long child_op(long s, struct sembuf *ops, long n)
{
	long pid = fork();

	if (!pid)
		finish(-sys(semop, s, ops, n) & 255);
	sleep_ms(20);
	return pid;
}
#ifdef __x86_64__
enum { NSEMS = 80, SIZE = 104 };
#else
enum { NSEMS = 64, SIZE = 88 };
#endif

static void semaphores(void)
{
	long s, r, pid, pid2, pid3, time[2] = { 0, 20000000 };
	u8 ds[SIZE];
	u32 info[10];
	unsigned short all[4] = { 5, 6, 7, 40000 };

	say("-- semaphores: finding\n");
	tell("", sys(semget, 9, 1, 0), sys(semget, 9, 0, CREAT), sys(semget, 9, -1, CREAT), sys(semget, 9, 32001, CREAT), sys(semget, 9, 4, CREAT | 0600));
	s = sys(semget, 9, 0, 0);
	tell("", s, sys(semget, 9, 5, 0), sys(semget, 9, 4, CREAT | EXCL));
	values(s);
	say("-- one\n");
	tell("", semop(s, 0, 3, 0), semop(s, 0, -2, 0), semop(s, 0, -2, NOWAIT), semop(s, 0, 0, NOWAIT));
	tell("", semop(s, 4, 1, 0), semop(s, 0, 32767, 0), semop(-1, 0, 1, 0), semop(99, 0, 1, 0));
	struct sembuf two[3] = { { 0, 1, 0 }, { 1, -1, NOWAIT }, { 0, -2, 0 } };
	tell("", sys(semop, s, two, 0), sys(semop, s, two, 501), sys(semop, s, 8, 1), sys(semop, s, two, 2));
	values(s);
	two[1].op = 2;
	tell("", sys(semop, s, two, 3));
	values(s);
	say("-- semctl\n");
	tell("", sys(semctl, s, 1, SETVAL, 32768), sys(semctl, s, 1, SETVAL, -1), sys(semctl, s, 4, SETVAL, 1), sys(semctl, s, 1, SETVAL, 9));
	tell("", sys(semctl, s, 0, SETALL, all), sys(semctl, s, 0, SETALL, 8), sys(semctl, s, 0, GETALL, 8));
	tell("", sys(semctl, s, 4, GETVAL, 0), sys(semctl, s, 1, GETVAL, 0), sys(semctl, s, 0, 77, 0), sys(semctl, -1, 0, GETVAL, 0));
	all[3] = 8;
	tell("", sys(semctl, s, 0, SETALL, all));
	values(s);
	r = sys(semctl, s, 0, STAT, ds);
	say("%d: mode %x, %d semaphores\n", r, (ulong)*(u32 *)(ds + 20), *(long *)(ds + NSEMS));
	r = sys(semctl, 0, 0, INFO, info);
	tell("info", r);
	numbers(info, 10);
	r = sys(semctl, 0, 0, SEM_INFO, info);
	tell("used", r);
	numbers(info, 10);
	tell("", sys(semctl, 0, 0, SEM_STAT, ds), sys(semctl, 1, 0, SEM_STAT, ds), sys(semctl, 0, 0, SEM_STAT_ANY, ds));
	show_ipc("/proc/sysvipc/sem");
	say("-- waiting\n");
	memset(all, 0, 8);
	sys(semctl, s, 0, SETALL, all);
	struct sembuf minus2 = { 0, -2, 0 }, minus1 = { 0, -1, 0 }, zero = { 0, 0, 0 }, both[2] = { { 0, -1, 0 }, { 1, -1, 0 } };
	pid = child_op(s, &minus2, 1);
	pid2 = child_op(s, &minus1, 1);
	values(s);
	tell("", semop(s, 0, 1, 0));
	ended("-1", pid2);
	values(s);
	pid3 = child_op(s, both, 2);
	pid2 = child_op(s, &minus1, 1);
	values(s);
	tell("", semop(s, 0, 3, 0));
	ended("-2", pid);
	sleep_ms(20);
	ended("-1", pid2);
	values(s);
	semop(s, 0, 1, 0);
	pid = child_op(s, &zero, 1);
	values(s);
	tell("", semop(s, 1, 1, 0));
	ended("both", pid3);
	ended("zero", pid);
	values(s);
	handle(SIGUSR1, nothing, SA_RESTART, 0);
	pid = child_op(s, &minus1, 1);
	sys(kill, pid, SIGUSR1);
	ended("interrupted", pid);
	pid = child_op(s, &minus1, 1);
	sys(kill, pid, 9);
	ended("killed", pid);
	values(s);
	tell("in time", sys(semtimedop, s, &minus1, 1, time));
	time[1] = 1000000000;
	tell("", sys(semtimedop, s, &minus1, 1, time), sys(semtimedop, s, &minus1, 1, 8));
	time[1] = 0;
	tell("", sys(semtimedop, s, &minus1, 1, time), sys(semtimedop, s, &zero, 1, time));
	say("-- undo\n");
	sys(semctl, s, 0, SETALL, (all[0] = 5, all[1] = 1, all));
	if (!(pid = fork())) {
		tell("", semop(s, 0, -3, UNDO), semop(s, 1, 4, UNDO), semop(s, 2, 7, UNDO), semop(s, 3, 1, 0));
		semop(s, 1, -5, 0);
		sys(semctl, s, 2, SETVAL, 4);
		values(s);
		finish(0);
	}
	wait_for(pid);
	values(s);
	if (!(pid = fork())) {
		/* a child that shares the list of undos, one that does not */
		semop(s, 0, -1, UNDO);
		if (!(pid2 = sys(clone, SIGCHLD | 0x40000, 0, 0, 0, 0))) {
			semop(s, 0, -1, UNDO);
			finish(0);
		}
		wait_for(pid2);
		values(s);
		if (!(pid2 = fork())) {
			semop(s, 0, -1, UNDO);
			finish(0);
		}
		wait_for(pid2);
		values(s);
		tell("range", (sys(semctl, s, 3, SETVAL, 32767), semop(s, 3, -32767, UNDO)));
		tell("", (sys(semctl, s, 2, SETVAL, 0), semop(s, 2, 32767, UNDO)), semop(s, 2, -32767, 0));
		tell("", semop(s, 2, 2, UNDO));
		tell("unshare", sys(unshare, 0x40000));
		values(s);
		finish(0);
	}
	wait_for(pid);
	values(s);
	pid = child_op(s, &(struct sembuf){ 0, -30, 0 }, 1);
	if (!(pid2 = fork())) {
		semop(s, 0, -1, UNDO);
		semop(s, 0, 26, 0);
		finish(0);
	}
	wait_for(pid2);
	ended("served by an undo", pid);
	values(s);
	say("-- permissions\n");
	if (!(pid = fork())) {
		sys(setresuid, 6, 6, 6);
		tell("", semop(s, 0, 1, 0), semop(s, 0, 0, 0), sys(semctl, s, 0, GETVAL, 0), sys(semctl, s, 0, SETVAL, 1), sys(semctl, s, 0, RMID, 0));
		tell("", sys(semctl, s, 0, STAT, ds), sys(semctl, 0, 0, SEM_STAT_ANY, ds), sys(semget, 9, 0, 0400));
		finish(0);
	}
	wait_for(pid);
	*(u32 *)(ds + 4) = 5;
	*(u32 *)(ds + 20) = 0604;
	tell("", sys(semctl, s, 0, SET, ds));
	show_ipc("/proc/sysvipc/sem");
	say("-- removed\n");
	pid = child_op(s, &(struct sembuf){ 0, -100, UNDO }, 1);
	tell("", sys(semctl, s, 0, RMID, 0));
	ended("a sleeper", pid);
	tell("", sys(semctl, s, 0, STAT, ds), sys(semget, 0, 2, 0));
	show("/proc/sys/kernel/sem");
	set("/proc/sys/kernel/sem", "10 12 2 3");
	show("/proc/sys/kernel/sem");
	tell("", sys(semget, 0, 11, 0), sys(semget, 0, 10, 0), sys(semget, 0, 1, 0), sys(semop, s, two, 3), sys(semget, 0, 0, 0));
	set("/proc/sys/kernel/sem", "10 12 2 40000");
}

static int run(void)
{
	me = sys(getpid);
	semaphores();
	messages();
	return 0;
}
