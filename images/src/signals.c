/* SPDX-License-Identifier: GPL-2.0-only */
/* Signals: blocked and pending, nested, masked while a handler runs, default actions, and calls they interrupt. */
#include "guest.h"

static long self;
static int depth;
static char order[64];
static int ordered;

static void mark(char c) { order[ordered++] = c; }

static void nested(int signo, struct siginfo *info, u8 *context)
{
	(void)info, (void)context;
	mark('A' + depth);
	if (depth++ < 3)
		sys(kill, self, signo); /* SA_NODEFER: delivered inside */
	mark('a' + --depth);
}
static void masked(int signo, struct siginfo *info, u8 *context)
{
	(void)info, (void)context;
	if (signo == SIGUSR1) {
		mark('1');
		sys(kill, self, SIGUSR2); /* in the mask: waits until this handler has returned */
		mark('!');
	} else
		mark('2');
}
/* Read a pipe while a child sends a signal first and a byte later. */
static long interrupted(ulong flags)
{
	int ends[2];
	long child, result;
	u8 byte = 0;

	handle(SIGUSR1, masked, flags, 0);
	CHECK(sys(pipe2, ends, 0) == 0);
	child = fork();
	if (!child) {
		sleep_ms(50);
		sys(kill, self, SIGUSR1);
		sleep_ms(50);
		sys(write, ends[1], "x", 1);
		finish(0);
	}
	result = sys(read, ends[0], &byte, 1);
	CHECK(wait_for(child) == 0);
	sys(close, ends[0]);
	sys(close, ends[1]);
	return result;
}
static void show(const char *what)
{
	order[ordered] = 0;
	ordered = 0;
	say("%s %s\n", what, order);
}

static int run(void)
{
	ulong both = 1ul << (SIGUSR1 - 1) | 1ul << (SIGUSR2 - 1), old;
	long child;

	self = sys(getpid);
	handle(SIGUSR1, nested, SA_NODEFER, 0);
	sys(kill, self, SIGUSR1);
	show("nested           ");
	handle(SIGUSR1, masked, 0, 1ul << (SIGUSR2 - 1));
	handle(SIGUSR2, masked, 0, 0);
	sys(kill, self, SIGUSR1);
	show("masked           ");
	CHECK(sys(rt_sigprocmask, 0, &both, &old, 8) == 0);
	sys(kill, self, SIGUSR2);
	sys(kill, self, SIGUSR2); /* pending already: counts once */
	mark('.');
	CHECK(sys(rt_sigprocmask, 2, &old, 0, 8) == 0);
	show("blocked, then not");
	say("read, SA_RESTART  %d\n", interrupted(SA_RESTART));
	say("read, plain       %d\n", interrupted(0));
	ordered = 0;
	child = fork();
	if (!child) {
		ulong action[4] = { 0 };

		CHECK(sys(rt_sigaction, SIGUSR1, action, 0, 8) == 0);
		self = sys(getpid);
		sys(kill, self, SIGUSR1);
		finish(0);
	}
	say("default action    %d\n", (long)wait_for(child));
	child = fork();
	if (!child) {
		ulong action[4] = { 1 };

		CHECK(sys(rt_sigaction, SIGUSR1, action, 0, 8) == 0);
		self = sys(getpid);
		sys(kill, self, SIGUSR1);
		finish(3);
	}
	say("ignored           %d\n", (long)wait_for(child));
	CHECK(sys(rt_sigaction, 9, &old, 0, 8) < 0);
	return 0;
}
