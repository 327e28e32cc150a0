/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Debug registers that watch data: what DR7 takes, which accesses of which thread stop a task and where, DR6, single steps
 * and steps by blocks along with them, calls that touch the data, exec, fork, and a task that is not traced any more.
 * Nothing of it on arm64, where a kernel without performance events has none; there its sets are asked for.
 */
#include "guest.h"

typedef int pid_t;
enum { NR_ptrace = 1, CONT = 7, SINGLESTEP = 9, SINGLEBLOCK = 33 };
#ifdef __x86_64__
enum { CALL(ptrace, 101, 117), CALL(uname, 63, 160) };
enum { PEEKUSER = 3, POKEUSER = 6, DETACH = 17, GETSIGINFO = 0x4202, SETOPTIONS = 0x4200 };
enum { CALL(sync, 162, 81) };
#define DR(n) (848 + 8 * (n))
static volatile u8 data[64] __attribute__((aligned(64)));
static pid_t child;

static long peek(long offset)
{
	long word = 0;

	CHECK(sys(ptrace, PEEKUSER, child, offset, &word) == 0);
	return word;
}
static long poke(long offset, ulong value)
{
	return sys(ptrace, POKEUSER, child, offset, value);
}
/* The next stop: signal, si_code, DR6, the byte that the instruction to come begins with. */
static int stop(void)
{
	int status = 0, info[32] = { 0 };

	CHECK(sys(wait4, child, &status, 0x40000000, 0) == child);
	if ((status & 0xff) != 0x7f) {
		say(" end %x\n", (ulong)status);
		flush();
		return 0;
	}
	sys(ptrace, GETSIGINFO, child, 0, info);
	say(" [%d %d %x", (long)(status >> 8), (long)info[2], (ulong)peek(DR(6)) & 0xffff);
	say(" %x", (ulong)*(u8 *)peek(128));
	flush();
	sys(sync); /* the machine Linux was recorded on sometimes hangs: then this much is known */
	say("%s]", *(long *)(info + 4) == peek(128) ? "" : " elsewhere");
	return 1;
}
static int go(int request)
{
	CHECK(sys(ptrace, request, child, 0, 0) == 0);
	return stop();
}
static void stop_myself(void)
{
	long me = sys(getpid);

	sys(kill, me, 19);
}
static void start(void (*program)(void))
{
	child = fork();
	if (!child) {
		sys(ptrace, 0, 0, 0, 0);
		stop_myself();
		program();
		finish(3);
	}
	CHECK(stop());
}
/* Every access is followed by an instruction whose first byte tells where it was: 90 nop, f8 clc, f9 stc, fc cld, f5 cmc. */
static void accesses(void)
{
	asm volatile("movb $1, %0\n	nop\n" : "=m"(data[0]) : : "memory");
	asm volatile("movb %0, %%al\n	clc\n" : : "m"(data[0]) : "rax", "memory");
	asm volatile("movq $2, %0\n	stc\n" : "=m"(data[8]) : : "memory");
	asm volatile("movb $3, %0\n	cmc\n" : "=m"(data[15]) : : "memory");
	asm volatile("movb $4, %0\n	nop\n" : "=m"(data[16]) : : "memory");
	asm volatile("incl %0\n	stc\n" : "+m"(data[8]) : : "memory");
	asm volatile("xchgb %%al, %0\n	cmc\n" : "+m"(data[0]) : : "rax", "memory");
}
static void refusals(void)
{
	static const ulong values[] = {
		0x10001, 0x30001, 0x20001, 0x50001, 0xd0001, 0x90001, 0x40000, 0x20000, 0x90000, 0xffff0000, 0xfc01, 0x10003, 0x400,
	};

	say("refused:");
	start(accesses);
	say(" %x %x %x", (ulong)peek(DR(7)), (ulong)peek(DR(0)), (ulong)peek(DR(6)));
	for (int i = 0; i < 13; i++) {
		say("\n  %x: %d", values[i], poke(DR(7), values[i]));
		say(" at %d %d %d %d", poke(DR(0), (ulong)data), poke(DR(0), (ulong)data + 1), poke(DR(0), (ulong)data + 4),
		    poke(DR(0), (ulong)data + 2));
		say(" kernel %d", poke(DR(0), -8ul));
		say(" is %x at %d", (ulong)peek(DR(7)), (long)(peek(DR(0)) - (ulong)data));
		poke(DR(7), 0);
		poke(DR(0), (ulong)data);
	}
	say("\n  dr4 %d dr5 %d dr6 %d", poke(DR(4), 0), poke(DR(5), 0), poke(DR(6), 0xffff0ff1));
	say(" %x", (ulong)peek(DR(6)));
	go(CONT);
}
static void lengths(void)
{
	static const ulong values[] = { 0x10001, 0x30001, 0x50001, 0xd0001, 0x90001, 0xb0002, 0x90003 };

	for (int i = 0; i < 7; i++) {
		say("dr7 %x:", values[i]);
		start(accesses);
		poke(DR(0), (ulong)data + 8 * (i > 2));
		CHECK(poke(DR(7), values[i]) == 0);
		while (go(CONT))
			;
	}
	say("several:");
	start(accesses);
	poke(DR(0), (ulong)data), poke(DR(1), (ulong)data + 8), poke(DR(2), (ulong)data + 4), poke(DR(3), (ulong)data + 16);
	say(" %d", poke(DR(7), 0x1d9b0055));
	while (go(CONT))
		;
	say("stepping:");
	start(accesses); /* without a watch: the recording machine's processor cannot do both */
	for (int i = 0; i < 12; i++)
		go(SINGLESTEP);
	say("\n  blocks:");
	for (int i = 0; i < 3; i++)
		go(SINGLEBLOCK);
	while (go(CONT))
		;
}
/* Calls write and read it, a copy on write moves it, a child has its own. */
static void calls(void)
{
	long pid;
	ulong time[2] = { 0, 1 };

	sys(uname, data - 0 + 0 * time[0]);
	asm volatile("movb $1, %0\n	nop\n" : "=m"(data[0]) : : "memory");
	sys(clock_gettime, 1, data);
	pid = sys(clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid) {
		data[0] = 5;
		finish(0);
	}
	sys(wait4, pid, 0, 0, 0);
	asm volatile("movb $2, %0\n	clc\n" : "=m"(data[0]) : : "memory");
	sys(mprotect, (ulong)data & -page, page, PROT_READ);
	sys(mprotect, (ulong)data & -page, page, RW);
	asm volatile("movb $3, %0\n	stc\n" : "=m"(data[0]) : : "memory");
}
static u8 big[400];
static void strings(void)
{
	u8 *to = big, *from = big + 200;
	ulong n = 40;

	asm volatile("rep movsb\n	nop\n" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	for (volatile int i = 0; i < 20000; i++)
		;
	asm volatile("movb $1, %0\n	clc\n" : "=m"(big[20]) : : "memory");
}
static void handler_runs(int signo UNUSED, struct siginfo *info, u8 *context)
{
	say(" handled: code %d at %x", (long)info->code, (ulong)*(u8 *)context_word(context, UC_PC));
}
static void untraced(void)
{
	handle(5, handler_runs, 0, 0);
	stop_myself();
	accesses();
	flush();
}
static void again(void)
{
	char *argv[] = { arguments[0], "again", NULL }, *env[] = { NULL };

	accesses();
	sys(execve, arguments[0], argv, env);
}
static int run(void)
{
	if (arguments[1]) {
		accesses();
		finish(7);
	}
	refusals();
	lengths();
	say("calls:");
	start(calls);
	poke(DR(0), (ulong)data);
	poke(DR(7), 0x30001);
	while (go(CONT))
		;
	say("strings:");
	start(strings);
	poke(DR(1), (ulong)big + 20);
	poke(DR(7), 0x100004);
	for (int i = 0; i < 5 && go(CONT); i++)
		;
	say("exec:");
	start(again);
	poke(DR(0), (ulong)data);
	poke(DR(7), 0x10001);
	while (go(CONT))
		say(" %x %d", (ulong)peek(DR(7)), (long)(peek(DR(0)) != 0));
	say("untraced:");
	start(untraced);
	go(CONT);
	poke(DR(0), (ulong)data);
	poke(DR(7), 0x10001);
	flush();
	CHECK(sys(ptrace, DETACH, child, 0, 0) == 0);
	stop();
	return 0;
}
#else
enum { CALL(ptrace, 101, 117) };
static int run(void)
{
	long child = fork(), buffer[64];
	struct { void *base; ulong length; } vec;
	int status;

	if (!child) {
		sys(ptrace, 0, 0, 0, 0);
		buffer[0] = sys(getpid);
		sys(kill, buffer[0], 19);
		finish(3);
	}
	CHECK(sys(wait4, child, &status, 0, 0) == child);
	for (int note = 0x402; note < 0x404; note++) {
		vec.base = buffer, vec.length = sizeof buffer;
		say("set %x: get %d", (ulong)note, sys(ptrace, 0x4204, child, note, &vec));
		say(" set %d\n", sys(ptrace, 0x4205, child, note, &vec));
	}
	say("block %d\n", sys(ptrace, SINGLEBLOCK, child, 0, 0));
	sys(ptrace, CONT, child, 0, 0);
	say("end %d\n", (long)wait_for(child));
	return 0;
}
#endif
