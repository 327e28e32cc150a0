/* SPDX-License-Identifier: GPL-2.0-only */
/* Job control on a pseudo-terminal: sessions, foreground and background groups, stops, orphans, hangups. */
#include "guest.h"

enum {
	CALL(ioctl, 16, 29), CALL(mkdirat, 258, 34), CALL(mount, 165, 40), CALL(setsid, 112, 157), CALL(setpgid, 109, 154),
	CALL(getsid, 124, 156), CALL(getpgid, 121, 155), CALL(rt_sigsuspend, 130, 133), CALL(rt_sigtimedwait, 128, 137),
	CALL(vhangup, 153, 58),
};
enum {
	TCGETS = 0x5401, TCSETS, TIOCSCTTY = 0x540e, TIOCGPGRP, TIOCSPGRP, TIOCSTI = 0x5412, TIOCGWINSZ, TIOCSWINSZ,
	TIOCNOTTY = 0x5422, TIOCGSID = 0x5429, TIOCGPTPEER = 0x5441,
};
#define TIOCSPTLCK 0x40045431ul
#define TIOCSIG 0x40045436ul
enum { O_NONBLOCK = 04000, O_NOCTTY = 0400, TOSTOP = 0400 };
enum { SIGHUP = 1, SIGINT, SIGQUIT, SIGKILL = 9, SIGCONT = 18, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH = 28 };
enum { WNOHANG = 1, WUNTRACED = 2, WCONTINUED = 8 };

static long master;
static int ready[2], go[2];
static volatile int last_signal, last_code;

static void caught(int signo, struct siginfo *info, u8 *context)
{
	(void)context;
	last_signal = signo;
	last_code = info->code;
}
static void act(int signo, ulong handler)
{
	ulong action[4] = { handler, 0, 0, 0 };

	sys(rt_sigaction, signo, action, 0, 8);
}
static void ignore(int signo)
{
	act(signo, 1);
}
static void settle(void)
{
	sleep_ms(20);
}
static void new_master(void)
{
	int zero = 0;

	master = sys(openat, AT_FDCWD, "/dev/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
	CHECK(master >= 0);
	sys(ioctl, master, TIOCSPTLCK, &zero);
}
static long open_slave(ulong flags)
{
	return sys(ioctl, master, TIOCGPTPEER, O_RDWR | flags);
}
static void say_status(const char *who, long pid, int options)
{
	int status = -1;
	long got = sys(wait4, pid, &status, options, 0);

	say("%s: %s status %x\n", who, got == pid ? "child" : got == 0 ? "none" : "error", (ulong)(u32)status);
}
/* Processes tell each other how far they are by bytes in pipes. */
static void tell(int *fds)
{
	sys(write, fds[1], "x", 1);
}
static void await(int *fds)
{
	char c;

	sys(read, fds[0], &c, 1);
}

static void control(void)
{
	long slave, tty, me = sys(getpid), id;
	int number = 0;
	char buffer[64];

	say("no terminal: /dev/tty %d", sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0));
	id = sys(setsid);
	say(" setsid %d leader again %d", (long)(id == me), sys(setsid));
	slave = open_slave(O_NOCTTY);
	say(" noctty: gsid %d", sys(ioctl, slave, TIOCGSID, &number));
	say(" sctty %d again %d", sys(ioctl, slave, TIOCSCTTY, 0), sys(ioctl, slave, TIOCSCTTY, 0));
	sys(ioctl, slave, TIOCGSID, &number);
	say(" sid %d", (long)(number == me));
	sys(ioctl, slave, TIOCGPGRP, &number);
	say(" pgrp %d", (long)(number == me));
	sys(ioctl, master, TIOCGPGRP, &number);
	say(" master's view %d", (long)(number == me));
	sys(ioctl, master, TIOCGSID, &number);
	say(" %d\n", (long)(number == me));
	tty = sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0);
	say("/dev/tty %d write %d", (long)(tty >= 0), sys(write, tty, "tty\n", 4));
	settle();
	say(" read %d", sys(read, master, buffer, 64));
	number = -5;
	say(" spgrp -5: %d", sys(ioctl, slave, TIOCSPGRP, &number));
	number = 3999;
	say(" nobody: %d", sys(ioctl, slave, TIOCSPGRP, &number));
	number = 1;
	say(" other session: %d fault %d", sys(ioctl, slave, TIOCSPGRP, &number), sys(ioctl, slave, TIOCSPGRP, 1));
	number = me;
	say(" mine: %d by master: %d\n", sys(ioctl, slave, TIOCSPGRP, &number), sys(ioctl, master, TIOCSPGRP, &number));
	handle(SIGWINCH, caught, 0, 0);
	{
		short size[4] = { 10, 20, 0, 0 };

		sys(ioctl, master, TIOCSWINSZ, size);
		say("winch %d code %x", (long)last_signal, (ulong)last_code);
		last_signal = 0;
		sys(ioctl, master, TIOCSWINSZ, size);
		say(" same size %d\n", (long)last_signal);
	}
	handle(SIGINT, caught, 0, 0);
	handle(SIGQUIT, caught, 0, 0);
	sys(write, master, "\x03", 1);
	settle();
	say("^C %d code %x", (long)last_signal, (ulong)last_code);
	sys(write, master, "\x1c", 1);
	settle();
	say(" ^\\ %d", (long)last_signal);
	last_signal = 0;
	say(" TIOCSIG %d", sys(ioctl, master, TIOCSIG, SIGINT));
	say(" %d\n", (long)last_signal);
}

/* A child in a group of its own that does one thing to the terminal; what becomes of it. */
static void background(const char *what, int deed, int prepare, int tostop)
{
	long slave = sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0), child;
	u32 termios[16];
	int pgrp;

	sys(ioctl, slave, TCGETS, termios);
	termios[3] = tostop ? termios[3] | TOSTOP : termios[3] & ~TOSTOP;
	sys(ioctl, slave, TCSETS, termios);
	child = fork();
	if (!child) {
		char buffer[16];
		long result = 0;

		sys(setpgid, 0, 0);
		if (prepare == 1)
			ignore(SIGTTIN), ignore(SIGTTOU);
		if (prepare == 2) {
			ulong mask = 1ul << (SIGTTIN - 1) | 1ul << (SIGTTOU - 1);

			sys(rt_sigprocmask, 0, &mask, 0, 8);
		}
		pgrp = sys(getpid);
		if (deed == 0)
			result = sys(read, slave, buffer, 16);
		else if (deed == 1)
			result = sys(write, slave, "bg\n", 3);
		else if (deed == 2)
			result = sys(ioctl, slave, TCSETS, termios);
		else if (deed == 3)
			result = sys(ioctl, slave, TIOCSPGRP, &pgrp);
		finish(result < 0 ? -result : 100 + result);
	}
	say("%s ", what);
	flush();
	sleep_ms(40);
	say_status("then", child, WUNTRACED | WNOHANG);
	sys(kill, -child, SIGKILL);
	sys(wait4, child, 0, 0, 0);
	pgrp = sys(getpid);
	ignore(SIGTTOU);
	sys(ioctl, slave, TIOCSPGRP, &pgrp);
	act(SIGTTOU, 0);
	sys(close, slave);
}

static void stop_and_continue(void)
{
	long slave = sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0), child;
	int pgrp, mine = sys(getpid);

	ignore(SIGTTOU);
	child = fork();
	if (!child) {
		act(SIGINT, 0);
		sys(setpgid, 0, 0);
		for (;;)
			sleep_ms(1000);
	}
	sys(setpgid, child, child);
	pgrp = child;
	say("foreground child %d", sys(ioctl, slave, TIOCSPGRP, &pgrp));
	sys(write, master, "\x1a", 1);
	settle();
	say_status(" ^Z", child, WUNTRACED);
	sys(ioctl, slave, TIOCSPGRP, &mine);
	sys(kill, -child, SIGCONT);
	settle();
	say_status(" cont", child, WCONTINUED);
	sys(ioctl, slave, TIOCSPGRP, &pgrp);
	sys(write, master, "\x03", 1);
	settle();
	say_status(" ^C", child, 0);
	sys(ioctl, slave, TIOCSPGRP, &mine);
	sys(close, slave);
}

/* A session with a foreground job: what both hear when the master closes, or the leader lets go or ends. */
static void ending(const char *how, int way)
{
	long leader;

	new_master();
	leader = fork();
	if (!leader) {
		long slave, job, pgrp, me;
		ulong mask = 1ul << (SIGHUP - 1) | 1ul << (SIGCONT - 1);

		sys(setsid);
		slave = open_slave(O_NONBLOCK);
		sys(close, master);
		me = sys(getpid);
		handle(SIGHUP, caught, 0, 0);
		handle(SIGCONT, caught, 0, 0);
		sys(rt_sigprocmask, 0, &mask, 0, 8);
		job = fork();
		if (!job) {
			act(SIGHUP, 0);
			act(SIGCONT, 0);
			sys(setpgid, 0, 0);
			await(go);
			for (int signo = 0; signo < 2; signo++) {
				ulong set = 1ul << (SIGHUP - 1) | 1ul << (SIGCONT - 1);
				long time[2] = { 0, 100000000 }, got;
				struct siginfo info = { 0 };
				char c;

				got = sys(rt_sigtimedwait, &set, &info, time, 8);
				say(" job: signal %d code %x", got, (ulong)(u32)info.code);
				if (signo == 1)
					say(" read %d write %d tty %d\n", sys(read, slave, &c, 1), sys(write, slave, &c, 1),
					    sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0));
			}
			finish(0);
		}
		sys(rt_sigprocmask, 1, &mask, 0, 8);
		sys(setpgid, job, job);
		pgrp = job;
		ignore(SIGTTOU);
		{
			int number = pgrp;

			sys(ioctl, slave, TIOCSPGRP, &number);
		}
		tell(ready);
		if (way == 0) {
			sleep_ms(60);
		} else if (way == 1) {
			last_signal = 0;
			sleep_ms(20);
			say("%s: notty %d", how, sys(ioctl, slave, TIOCNOTTY, 0));
			say(" leader's signal %d, /dev/tty %d;", (long)last_signal, sys(openat, AT_FDCWD, "/dev/tty", O_RDWR, 0));
			tell(go);
			flush();
			sleep_ms(100);
		} else if (way == 2) {
			say("%s:", how);
			tell(go);
			finish(7);
		} else {
			say("%s: vhangup %d", how, sys(vhangup));
			say(" leader's signal %d;", (long)last_signal);
			tell(go);
			flush();
			sleep_ms(100);
		}
		if (way == 0)
			say("%s: leader's signal %d code %x read %d;", how, (long)last_signal, (ulong)(u32)last_code,
			    sys(read, slave, &me, 1)), flush(), tell(go), sleep_ms(300);
		finish(7);
	}
	await(ready);
	if (way == 0) {
		sleep_ms(10);
		sys(close, master);
	}
	wait_for(leader);
	sleep_ms(400);
	if (way)
		sys(close, master);
	flush();
}

static int run(void)
{
	long child;

	sys(mkdirat, AT_FDCWD, "/dev/pts", 0755);
	sys(mount, "devpts", "/dev/pts", "devpts", 0, 0);
	sys(pipe2, ready, 0);
	sys(pipe2, go, 0);
	new_master();
	child = fork();
	if (!child) {
		control();
		background("read", 0, 0, 0);
		background("read, SIGTTIN ignored", 0, 1, 0);
		background("read, SIGTTIN blocked", 0, 2, 0);
		background("write", 1, 0, 0);
		background("write, tostop", 1, 0, 1);
		background("write, tostop, SIGTTOU ignored", 1, 1, 1);
		background("tcsetattr", 2, 0, 0);
		background("tcsetattr, SIGTTOU blocked", 2, 2, 0);
		background("tcsetpgrp", 3, 0, 0);
		background("tcsetpgrp, SIGTTOU ignored", 3, 1, 0);
		stop_and_continue();
		finish(0);
	}
	say("session ended with %d\n", (long)wait_for(child));
	sys(close, master);
	ending("master closes", 0);
	ending("leader lets go", 1);
	ending("leader exits", 2);
	ending("vhangup", 3);
	return 0;
}
