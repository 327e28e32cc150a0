/* SPDX-License-Identifier: GPL-2.0-only */
/* O_ASYNC: who is told by which signal, on pipes, AF_UNIX sockets and terminals; what F_SETOWN and F_SETSIG refuse. */
#include "guest.h"

enum {
	CALL(fcntl, 72, 25), CALL(socketpair, 53, 199), CALL(shutdown, 48, 210), CALL(ioctl, 16, 29),
	CALL(dup3, 292, 24), CALL(mkdirat, 258, 34), CALL(mount, 165, 40), CALL(eventfd2, 290, 19),
};
enum { F_SETFL = 4, F_GETFL = 3, F_SETOWN = 8, F_GETOWN, F_SETSIG, F_GETSIG, F_SETOWN_EX = 15, F_GETOWN_EX };
enum { O_ASYNC = 020000, O_NONBLOCK = 04000, O_NOCTTY = 0400, SIGURG = 23, SIGIO = 29, RT = 35 };
enum { FIOASYNC = 0x5452, TIOCGPTPEER = 0x5441 };
#define TIOCSPTLCK 0x40045431ul

static struct { int signo, code, fd; long band; } seen[32];
static int count;
static long me;
static u8 buffer[70000];

static void caught(int signo, struct siginfo *info, u8 *context)
{
	(void)context;
	if (count < 32) {
		seen[count].signo = signo;
		seen[count].code = info->code;
		seen[count].band = *(long *)((u8 *)info + 16);
		seen[count].fd = *(int *)((u8 *)info + 24);
	}
	count++;
}
static void told(void)
{
	for (int i = 0; i < count && i < 32; i++) {
		say("   signal %d code %d", (long)seen[i].signo, (long)seen[i].code);
		if (seen[i].code > 0 && seen[i].code < 128)
			say(" band %x fd %d", seen[i].band, (long)seen[i].fd);
		say("\n");
	}
	count = 0;
}
/* F_GETOWN with the program's own number told apart from others. */
static long owner(long fd)
{
	long who = sys(fcntl, fd, F_GETOWN);

	return who == me ? 1 : who;
}
#define DO(call) do { say("%s = ", #call); say("%d\n", (long)(int)(call)); told(); } while (0)

static void owners(long fd)
{
	int who[2] = { 7, 0 };

	DO(sys(fcntl, fd, F_GETOWN));
	DO(sys(fcntl, fd, F_GETSIG));
	DO(sys(fcntl, fd, F_SETSIG, 65));
	DO(sys(fcntl, fd, F_SETSIG, -1));
	DO(sys(fcntl, fd, F_SETOWN, 99999));
	DO(sys(fcntl, fd, F_SETOWN, -99999));
	DO(sys(fcntl, fd, F_SETOWN, 0x80000000));
	DO(sys(fcntl, fd, F_SETOWN, 0));
	DO(sys(fcntl, fd, F_SETOWN_EX, who));
	for (who[0] = 0; who[0] < 3; who[0]++) {
		who[1] = 99999;
		DO(sys(fcntl, fd, F_SETOWN_EX, who));
		who[1] = 0;
		DO(sys(fcntl, fd, F_SETOWN_EX, who));
		int back[2] = { 9, 9 };

		DO(sys(fcntl, fd, F_GETOWN_EX, back));
		say("  kind %d of %d\n", (long)back[0], (long)back[1]);
	}
	DO(sys(fcntl, fd, F_SETOWN_EX, 8));
	DO(sys(fcntl, fd, F_SETOWN, me));
	DO(owner(fd));
}
static void pipes(void)
{
	int fds[2], on = 0, who[2] = { 0, (int)me };

	sys(pipe2, fds, 0);
	long in = fds[0], out = fds[1];

	DO(sys(fcntl, in, F_SETFL, O_ASYNC));
	DO(sys(fcntl, in, F_GETFL));
	DO(sys(write, out, "a", 1));
	owners(in);
	DO(sys(write, out, "a", 1));
	static const int signals[] = { RT, SIGIO, SIGUSR1, SIGCHLD, SIGURG, 0 };

	for (int i = 0; i < 6; i++) {
		DO(sys(fcntl, in, F_SETSIG, signals[i]));
		DO(sys(write, out, "b", 1));
	}
	DO(sys(fcntl, in, F_SETOWN_EX, who));
	DO(sys(write, out, "t", 1));
	long copy = sys(dup3, in, 50, 0);

	DO(sys(fcntl, copy, F_SETFL, 0));
	DO(sys(write, out, "c", 1));
	DO(sys(fcntl, copy, F_SETFL, O_ASYNC));
	DO(sys(fcntl, copy, F_SETSIG, RT));
	DO(sys(write, out, "c", 1));
	DO(sys(close, in));
	DO(sys(write, out, "c", 1));
	DO(sys(ioctl, copy, FIOASYNC, &on));
	DO(sys(fcntl, copy, F_GETFL));
	DO(sys(write, out, "c", 1));
	on = 1;
	DO(sys(ioctl, copy, FIOASYNC, &on));
	DO(sys(write, out, "c", 1));
	DO(sys(fcntl, out, F_SETOWN, me));
	DO(sys(fcntl, out, F_SETFL, O_ASYNC | O_NONBLOCK));
	DO(sys(read, copy, buffer, 100));
	DO(sys(write, out, buffer, 65536));
	DO(sys(read, copy, buffer, 1));
	DO(sys(read, copy, buffer, 65535));
	DO(sys(close, out));
	DO(sys(close, copy));
}
static void others(void)
{
	int on = 1;
	long fd = sys(openat, AT_FDCWD, "/dev/null", O_RDWR | O_ASYNC, 0);

	DO(sys(fcntl, fd, F_GETFL) & O_ASYNC);
	DO(sys(fcntl, fd, F_SETFL, 0));
	DO(sys(fcntl, fd, F_GETFL) & O_ASYNC);
	DO(sys(ioctl, fd, FIOASYNC, &on));
	sys(close, fd);
	fd = sys(eventfd2, 0, 0);
	DO(sys(fcntl, fd, F_SETFL, O_ASYNC));
	DO(sys(fcntl, fd, F_GETFL) & O_ASYNC);
	sys(close, fd);
}
static void sockets(int kind)
{
	int fds[2], drained = 0;

	say("AF_UNIX, type %d\n", (long)kind);
	sys(socketpair, 1, kind | O_NONBLOCK, 0, fds);
	long mine = fds[0], peer = fds[1];

	DO(sys(fcntl, mine, F_SETOWN, me));
	DO(sys(fcntl, mine, F_SETSIG, RT));
	DO(sys(fcntl, mine, F_SETFL, O_ASYNC | O_NONBLOCK));
	DO(sys(write, peer, "x", 1));
	DO(sys(write, peer, "x", 1));
	DO(sys(read, mine, buffer, 1));
	DO(sys(read, mine, buffer, 1));
	while (sys(write, mine, buffer, 1000) > 0)
		;
	told();
	while (sys(read, peer, buffer, 1000) > 0)
		drained++;
	say("room again\n");
	told();
	DO(sys(shutdown, peer, 1));
	DO(sys(shutdown, mine, 1));
	DO(sys(close, peer));
	DO(sys(close, mine));
}
static void terminals(void)
{
	int zero = 0;

	sys(mkdirat, AT_FDCWD, "/dev/pts", 0755);
	sys(mount, "x", "/dev/pts", "devpts", 0, 0);
	long master = sys(openat, AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, 0);

	CHECK(master >= 0);
	sys(ioctl, master, TIOCSPTLCK, &zero);
	long fd = sys(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY);

	DO(sys(fcntl, fd, F_SETSIG, RT));
	DO(owner(fd));
	DO(sys(fcntl, fd, F_SETFL, O_ASYNC));
	DO(owner(fd));
	DO(sys(write, master, "q", 1));
	sleep_ms(20);
	told();
	DO(sys(write, master, "\n", 1));
	sleep_ms(20);
	told();
	DO(sys(read, fd, buffer, 10));
	DO(sys(close, fd));
	DO(sys(close, master));
}
static int run(void)
{
	me = sys(getpid);
	static const int signals[] = { SIGIO, SIGURG, RT, SIGUSR1, SIGCHLD };

	for (int i = 0; i < 5; i++)
		handle(signals[i], caught, SA_SIGINFO, 0);
	pipes();
	others();
	sockets(1);
	sockets(2);
	terminals();
	return 0;
}
