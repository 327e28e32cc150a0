/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a tracer sees: every kind of stop, registers and memory read and changed, signals held back and sent along, wait
 * by tracer and by parent, and what ptrace refuses. Errors are shown as numbers.
 */
#include "guest.h"

typedef int pid_t;
#ifdef __x86_64__
enum { NR_ptrace = 101, NR_getppid = 110, NR_tgkill = 234, NR_vfork = 58, NR_rt_sigqueueinfo = 129, NR_getpid = 39 };
struct regs {
	ulong r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss,
		fs_base, gs_base, ds, es, fs, gs;
};
#define CALL_NR(r) ((long)(r).orig_rax)
#define RESULT(r) ((long)(r).rax)
#define SET_RESULT(r, v) ((r).rax = (v))
#define PC(r) ((r).rip)
#define USER_SIZE 928
#define DEBUGREG(n) (848 + 8 * (n))
#else
enum { NR_ptrace = 117, NR_getppid = 173, NR_tgkill = 131, NR_rt_sigqueueinfo = 138, NR_getpid = 172 };
struct regs {
	ulong regs[31], sp, pc, pstate;
};
#define CALL_NR(r) ((long)(r).regs[8])
#define RESULT(r) ((long)(r).regs[0])
#define SET_RESULT(r, v) ((r).regs[0] = (v))
#define PC(r) ((r).pc)
#endif
typedef struct regs Regs;
enum {
	TRACEME, PEEKTEXT, PEEKDATA, PEEKUSER, POKETEXT, POKEDATA, POKEUSER, CONT, KILL, SINGLESTEP,
	GETFPREGS = 14, SETFPREGS, ATTACH = 16, DETACH, SYSCALL = 24,
	SETOPTIONS = 0x4200, GETEVENTMSG, GETSIGINFO, SETSIGINFO, GETREGSET, SETREGSET, SEIZE, INTERRUPT, LISTEN, PEEKSIGINFO,
	GETSIGMASK, SETSIGMASK, GET_SYSCALL_INFO = 0x420e,
};
enum { O_SYSGOOD = 1, O_FORK = 2, O_VFORK = 4, O_CLONE = 8, O_EXEC = 16, O_VFORKDONE = 32, O_EXIT = 64, O_EXITKILL = 1 << 20 };
enum { EVENT_FORK = 1, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_VFORKDONE, EVENT_EXIT };
enum { SIGTRAP = 5, SIGKILL = 9, SIGTERM = 15, SIGCONT = 18, SIGSTOP = 19, SIGRTMIN = 34 };
enum { WNOHANG = 1, WUNTRACED = 2, WCONTINUED = 8, WALL = 0x40000000 };
struct iovec { void *base; ulong len; };
struct info { int signo, error, code, pad, pid, uid, value, rest[25]; };

static int last_error;
static long result(long r)
{
	if (r < 0 && r > -4096) {
		last_error = -r;
		return -1;
	}
	last_error = 0;
	return r;
}
#define ptrace(request, pid, addr, data) result(S4(NR_ptrace, (long)(request), (long)(pid), (addr), (data)))
static long peek(int request, pid_t pid, const void *addr)
{
	long word = 0;

	return ptrace(request, pid, addr, &word) ? -1 : word;
}
static pid_t waitpid(pid_t pid, int *status, int flags) { return result(sys(wait4, pid, status, flags, 0)); }
static void kill_it(pid_t pid, int signo) { sys(kill, pid, signo); }
static void raise(int signo) { S3(NR_tgkill, sys(getpid), sys(getpid), signo); }
static void leave(int status) { sys(exit_group, status); }
static void catcher(int signo, struct siginfo *info, u8 *context) { (void)signo, (void)info, (void)context; }
static void queue_signal(pid_t pid, int signo, int value)
{
	struct info si = { signo, 0, -1, 0, sys(getpid), 0, value, { 0 } };

	S3(NR_rt_sigqueueinfo, pid, signo, &si);
}

static pid_t first;

static const char *who(pid_t pid)
{
	return pid == first ? "child" : pid <= 0 ? "none" : "other";
}
static void get(pid_t pid, Regs *r)
{
	struct iovec v = { r, sizeof *r };

	if (ptrace(GETREGSET, pid, 1, &v))
		say("getregset: %d\n", (long)last_error);
}
static void set(pid_t pid, Regs *r)
{
	struct iovec v = { r, sizeof *r };

	if (ptrace(SETREGSET, pid, 1, &v))
		say("setregset: %d\n", (long)last_error);
}
static void act(const char *what, long r)
{
	say("%s: %d\n", what, r == -1 ? (long)-last_error : 0l);
}
static int show(const char *what, pid_t pid, int status)
{
	struct info si = { 0 };

	say("%s: %s ", what, who(pid));
	if (pid <= 0)
		say("%d\n", pid ? (long)-last_error : 0l);
	else if (!(status & 127))
		say("exit %d\n", (long)(status >> 8 & 255));
	else if (status == 0xffff)
		say("continued\n");
	else if ((status & 127) != 127)
		say("killed %d\n", (long)(status & 127));
	else if (ptrace(GETSIGINFO, pid, 0, &si))
		say("stop %x siginfo %d\n", (ulong)(status >> 8), (long)-last_error);
	else
		say("stop %x signo %d code %x pid %s\n", (ulong)(status >> 8), (long)si.signo, (ulong)(u32)si.code, who(si.pid));
	return status;
}
static int stopped(int status)
{
	return (status & 255) == 127;
}
static int wait_show(const char *what, pid_t pid, int flags)
{
	int status = 0;
	pid_t got = waitpid(pid, &status, flags);

	return show(what, got, status);
}
static ulong message(pid_t pid)
{
	ulong word = 0;

	ptrace(GETEVENTMSG, pid, 0, &word);
	return word;
}
static void reap(void)
{
	kill_it(first, SIGKILL);
	while (waitpid(-1, NULL, WALL) > 0)
		;
}
static void start(void (*child)(void))
{
	first = fork();
	if (!first) {
		child();
		leave(7);
	}
}

static volatile long shared = 0x1122334455667788;

static void trace_me(void)
{
	ptrace(TRACEME, 0, 0, 0);
	raise(SIGSTOP);
}

/* Stops before and after calls, and what PTRACE_GET_SYSCALL_INFO tells of them. */
static void calls_child(void)
{
	long time[2] = { 0, 1000 };

	trace_me();
	S0(NR_getppid);
	sys(close, -1);
	S0(999);
	sys(nanosleep, time, 0);
	leave(3);
}
static void calls(long sysgood)
{
	say("-- calls %d\n", sysgood);
	start(calls_child);
	wait_show("start", first, 0);
	if (sysgood)
		act("options", ptrace(SETOPTIONS, first, 0, O_SYSGOOD));
	for (int i = 0; i < 12; i++) {
		char info[128] = { 0 };
		long n, value;
		Regs r;

		ptrace(SYSCALL, first, 0, 0);
		if (!stopped(wait_show("step", first, 0)))
			break;
		get(first, &r);
		n = ptrace(GET_SYSCALL_INFO, first, sizeof info, info);
		value = RESULT(r) < -600 || RESULT(r) > 10 ? 100 : RESULT(r);
		say("  call %d result %d info %d op %d", CALL_NR(r), i % 2 ? value : 0, n, (long)info[0]);
		if (info[0] == 2)
			say(" error %d\n", (long)info[32]);
		else
			say(" call %d\n", info[0] ? *(long *)(info + 24) : 0);
	}
	reap();
}

/* Memory, results and numbers of calls are the tracer's to change. */
static void change_child(void)
{
	trace_me();
	say("getppid gave %d\n", S0(NR_getppid));
	say("getpid gave %d\n", S0(NR_getpid));
	say("shared %x\n", shared);
	flush();
	leave(4);
}
static void change(void)
{
	Regs r;
	int status;

	say("-- change\n");
	start(change_child);
	wait_show("start", first, 0);
	ptrace(SETOPTIONS, first, 0, O_SYSGOOD);
	say("peek %x\n", peek(PEEKDATA, first, (void *)&shared));
	act("poke", ptrace(POKEDATA, first, &shared, 0xabcdef));
	say("peek nowhere %d %d\n", peek(PEEKDATA, first, (void *)8), (long)last_error);
	act("poke nowhere", ptrace(POKEDATA, first, 8, 1));
	act("poke text", ptrace(POKETEXT, first, change, peek(PEEKTEXT, first, change)));
	for (;;) {
		ptrace(SYSCALL, first, 0, 0);
		waitpid(first, &status, 0);
		if (!stopped(status))
			break;
		get(first, &r);
		if (CALL_NR(r) == NR_getppid && message(first) == 2) {
			SET_RESULT(r, 4242);
			set(first, &r);
		}
		if (CALL_NR(r) == NR_getpid && message(first) == 1) {
			SET_RESULT(r, 77);
#ifdef __x86_64__
			r.orig_rax = -1;
			set(first, &r);
#else
			int none = -1;
			struct iovec v = { &none, sizeof none };

			set(first, &r);
			ptrace(SETREGSET, first, 0x404, &v);
#endif
		}
	}
	show("end", first, status);
}

/* Signals are shown before they act; the tracer passes them on, changes them, or keeps them. */
static void signals_child(void)
{
	static const int list[] = { SIGUSR1, SIGUSR2, SIGTERM, SIGSTOP, SIGCHLD, SIGTERM };

	ptrace(TRACEME, 0, 0, 0);
	handle(SIGUSR1, catcher, 0, 0);
	for (int i = 0; i < 6; i++)
		raise(list[i]);
	leave(9);
}
static void signals(void)
{
	ulong mask = 1, got = 0;
	struct info si;

	say("-- signals\n");
	start(signals_child);
	wait_show("usr1", first, 0);
	ptrace(CONT, first, 0, SIGUSR1);
	wait_show("usr2", first, 0);
	ptrace(CONT, first, 0, SIGUSR1);
	wait_show("term", first, 0);
	ptrace(CONT, first, 0, 0);
	wait_show("stop", first, 0);
	act("cont with 65", ptrace(CONT, first, 0, 65));
	ptrace(CONT, first, 0, SIGSTOP);
	wait_show("group stop", first, 0);
	act("siginfo", ptrace(GETSIGINFO, first, 0, &si));
	ptrace(CONT, first, 0, 0);
	wait_show("chld", first, 0);
	ptrace(CONT, first, 0, 0);
	wait_show("term", first, 0);
	act("setsigmask", ptrace(SETSIGMASK, first, 8, &mask));
	act("getsigmask", ptrace(GETSIGMASK, first, 8, &got));
	act("getsigmask of 4", ptrace(GETSIGMASK, first, 4, &got));
	say("mask %x\n", got);
	ptrace(CONT, first, 0, SIGTERM);
	wait_show("end", first, 0);
}

/* fork, vfork, clone and exit as events; the new task is traced from its birth. */
static void events_child(void)
{
	long pid;

	trace_me();
	pid = fork();
	if (!pid)
		leave(11);
	waitpid(pid, NULL, 0);
	/* As vfork, but in memory of its own: there is no stack to share here. */
	pid = sys(clone, 0x4000 | SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		leave(12);
	waitpid(pid, NULL, 0);
	pid = sys(clone, SIGUSR2, 0, 0, 0, 0);
	if (!pid)
		leave(14);
	waitpid(pid, NULL, WALL);
	leave(13);
}
static void events(void)
{
	say("-- events\n");
	start(events_child);
	wait_show("start", first, 0);
	act("options", ptrace(SETOPTIONS, first, 0, O_FORK | O_VFORK | O_CLONE | O_VFORKDONE | O_EXIT));
	act("bad options", ptrace(SETOPTIONS, first, 0, 1 << 15));
	ptrace(CONT, first, 0, 0);
	for (;;) {
		int status = wait_show("event", first, WALL), event = status >> 16;

		if (!stopped(status))
			break;
		if (event == EVENT_EXIT)
			say("exits with %x\n", message(first));
		if (event == EVENT_FORK || event == EVENT_VFORK || event == EVENT_CLONE) {
			pid_t child = message(first);

			wait_show("new", child, WALL);
			ptrace(CONT, child, 0, 0);
			wait_show("new exits", child, WALL);
			say("with %x\n", message(child));
			ptrace(CONT, child, 0, 0);
			wait_show("new ends", child, WALL);
		}
		ptrace(CONT, first, 0, (status >> 8 & 255) == SIGTRAP ? 0 : status >> 8 & 255);
	}
}

/* exec: a SIGTRAP, or an event. */
static void exec_child(void)
{
	char *argv[] = { "/proc/self/exe", "again", NULL }, *env[] = { NULL };

	trace_me();
	sys(execve, argv[0], argv, env);
	leave(1);
}
static void exec_stop(long event)
{
	Regs r;

	say("-- exec %d\n", event);
	start(exec_child);
	wait_show("start", first, 0);
	ptrace(SETOPTIONS, first, 0, event ? O_EXEC : 0);
	ptrace(CONT, first, 0, 0);
	wait_show("exec", first, 0);
	get(first, &r);
#ifdef __x86_64__
	say("orig %d rax %d\n", r.orig_rax, r.rax);
#endif
	say("message %s\n", message(first) ? who(message(first)) : "0");
	act("detach", ptrace(DETACH, first, 0, 0));
	wait_show("end", first, 0);
}

/* One instruction at a time, a call among them. */
static void step_child(void)
{
	trace_me();
	S0(NR_getppid);
	for (volatile int i = 0; i < 10; i++)
		;
	leave(0);
}
static void step(void)
{
	long where = 0, staying = 0, traps = 0, codes[256] = { 0 };
	struct info si;
	Regs r;

	say("-- step\n");
	start(step_child);
	wait_show("start", first, 0);
	for (int i = 0; i < 60; i++) {
		int status;

		ptrace(SINGLESTEP, first, 0, 0);
		waitpid(first, &status, 0);
		if (!stopped(status))
			break;
		ptrace(GETSIGINFO, first, 0, &si);
		codes[si.code & 255]++;
		get(first, &r);
		staying += (long)PC(r) == where;
		where = PC(r);
		traps += status >> 8 == SIGTRAP;
	}
	say("traps %d, twice in one place %d\n", traps, staying);
	for (long i = 0; i < 256; i++)
		if (codes[i])
			say("code %d: %d\n", i, codes[i]);
	reap();
}

/* Attaching to a task that sleeps, and to one that is stopped. */
static void sleep_child(void)
{
	handle(SIGUSR1, catcher, 0, 0);
	for (;;)
		sleep_ms(1000000);
}
static const char *status_of(long pid)
{
	static char path[32];
	char *p = path;

	for (const char *s = "/proc/"; *s; s++)
		*p++ = *s;
	for (long unit = pid < 10 ? 1 : pid < 100 ? 10 : pid < 1000 ? 100 : 1000; unit; unit /= 10)
		*p++ = '0' + pid / unit % 10;
	for (const char *s = "/status"; *s; s++)
		*p++ = *s;
	return path;
}
static void attach(void)
{
	Regs r;

	say("-- attach\n");
	start(sleep_child);
	sleep_ms(10);
	act("peek before", ptrace(PEEKDATA, first, &shared, &r));
	act("attach", ptrace(ATTACH, first, 0, 0));
	act("attach again", ptrace(ATTACH, first, 0, 0));
	act("attach to itself", ptrace(ATTACH, sys(getpid), 0, 0));
	act("attach to nobody", ptrace(ATTACH, 999999, 0, 0));
	wait_show("stop", first, 0);
	get(first, &r);
#ifdef __x86_64__
	say("orig %d rax %d\n", r.orig_rax, r.rax);
#endif
	act("cont", ptrace(CONT, first, 0, 0));
	act("cont running", ptrace(CONT, first, 0, 0));
	sleep_ms(1);
	kill_it(first, SIGUSR1);
	wait_show("usr1", first, 0);
	say("our TracerPid: %d\n", (long)(field(status_of(first), "TracerPid") == (ulong)sys(getpid)));
	act("detach", ptrace(DETACH, first, 0, SIGSTOP));
	wait_show("stopped", first, WUNTRACED);
	act("attach stopped", ptrace(ATTACH, first, 0, 0));
	wait_show("at once", first, WNOHANG);
	ptrace(CONT, first, 0, 0);
	wait_show("its sigstop", first, 0);
	ptrace(CONT, first, 0, 0);
	sleep_ms(1);
	wait_show("nothing", first, WNOHANG);
	kill_it(first, SIGCONT);
	sleep_ms(1);
	wait_show("sigcont", first, WCONTINUED);
	act("kill", ptrace(KILL, first, 0, 0));
	wait_show("end", first, 0);
}

/* PTRACE_SEIZE: no stop of its own, group stops that can be listened to. */
static void seize(void)
{
	say("-- seize\n");
	start(sleep_child);
	sleep_ms(10);
	act("seize addr", ptrace(SEIZE, first, 8, 0));
	act("seize options", ptrace(SEIZE, first, 0, 1 << 15));
	act("seize", ptrace(SEIZE, first, 0, O_SYSGOOD));
	sleep_ms(1);
	wait_show("runs", first, WNOHANG);
	act("listen", ptrace(LISTEN, first, 0, 0));
	act("interrupt", ptrace(INTERRUPT, first, 0, 0));
	wait_show("interrupted", first, 0);
	act("cont", ptrace(CONT, first, 0, 0));
	sleep_ms(1);
	kill_it(first, SIGSTOP);
	wait_show("sigstop", first, 0);
	ptrace(CONT, first, 0, SIGSTOP);
	wait_show("group stop", first, 0);
	act("listen", ptrace(LISTEN, first, 0, 0));
	act("cont listening", ptrace(CONT, first, 0, 0));
	sleep_ms(1);
	wait_show("listens", first, WNOHANG);
	kill_it(first, SIGCONT);
	wait_show("notified", first, 0);
	ptrace(CONT, first, 0, 0);
	wait_show("sigcont", first, 0);
	ptrace(CONT, first, 0, 0);
	sleep_ms(1);
	act("interrupt", ptrace(INTERRUPT, first, 0, 0));
	wait_show("interrupted", first, 0);
	act("detach", ptrace(DETACH, first, 0, 0));
	sleep_ms(1);
	kill_it(first, SIGTERM);
	wait_show("end", first, 0);
}

/* What is queued can be looked at, and a signal's information replaced. */
static void queue(void)
{
	struct { ulong offset; u32 flags; int count; } args = { 1, 1, 10 };
	static struct info si[10];
	long n;

	say("-- queue\n");
	start(sleep_child);
	sleep_ms(10);
	ptrace(SEIZE, first, 0, 0);
	ptrace(INTERRUPT, first, 0, 0);
	wait_show("stop", first, 0);
	for (int i = 0; i < 3; i++)
		queue_signal(first, SIGRTMIN + i, 10 + i);
	n = ptrace(PEEKSIGINFO, first, &args, si);
	say("peeked %d\n", n);
	for (int i = 0; i < n; i++)
		say("  signo %d value %d\n", (long)si[i].signo, (long)si[i].value);
	args.flags = 2;
	act("flags", ptrace(PEEKSIGINFO, first, &args, si));
	args.flags = 0;
	args.count = -1;
	act("count", ptrace(PEEKSIGINFO, first, &args, si));
	ptrace(CONT, first, 0, 0);
	wait_show("first", first, 0);
	ptrace(GETSIGINFO, first, 0, si);
	si->signo = SIGUSR1;
	si->code = 0;
	act("setsiginfo", ptrace(SETSIGINFO, first, 0, si));
	ptrace(CONT, first, 0, SIGUSR1);
	wait_show("second", first, 0);
	reap();
}

/* The parent hears of the end of its child when the tracer, another process, has heard of it. */
static void other_tracer(void)
{
	int ends[2];
	char c;
	pid_t tracer;

	say("-- other tracer\n");
	start(sleep_child);
	sys(pipe2, ends, 0);
	tracer = fork();
	if (!tracer) {
		ptrace(ATTACH, first, 0, 0);
		wait_show("attached", first, 0);
		ptrace(CONT, first, 0, SIGKILL);
		flush();
		sleep_ms(20);
		sys(write, ends[1], "x", 1);
		sleep_ms(20);
		wait_show("tracer reaps", first, 0);
		flush();
		leave(0);
	}
	sys(read, ends[0], &c, 1);
	wait_show("parent not yet", first, WNOHANG);
	flush();
	waitpid(tracer, NULL, 0);
	wait_show("parent reaps", first, 0);
}
static void tracer_ends(long exitkill)
{
	pid_t tracer;

	say("-- tracer ends %d\n", exitkill);
	start(sleep_child);
	tracer = fork();
	if (!tracer) {
		ptrace(SEIZE, first, 0, exitkill ? O_EXITKILL : 0);
		ptrace(INTERRUPT, first, 0, 0);
		waitpid(first, NULL, 0);
		leave(0);
	}
	waitpid(tracer, NULL, 0);
	sleep_ms(1);
	if (!exitkill)
		kill_it(first, SIGTERM);
	wait_show("end", first, 0);
}

/* Register sets, and what is refused. */
static void sets(void)
{
	static char buffer[4096];
	static const int notes[] = { 1, 2, 3, 4, 6, 0x203, 0x999 };
	struct iovec v = { buffer, 7 };

	say("-- register sets\n");
	start(calls_child);
	wait_show("start", first, 0);
	for (int i = 0; i < 7; i++) {
		struct iovec whole = { buffer, sizeof buffer };
		long r = ptrace(GETREGSET, first, notes[i], &whole);

		say("%x: %d, %d bytes\n", (ulong)notes[i], r ? (long)-last_error : 0, whole.len);
	}
	act("odd", ptrace(GETREGSET, first, 1, &v));
	v.len = 8;
	act("one", ptrace(GETREGSET, first, 1, &v));
	say("%d bytes\n", v.len);
	act("bad request", ptrace(12345, first, 0, 0));
#ifdef __x86_64__
	Regs r;
	static u8 fp[512];
	ulong word;

	act("peekuser 1", ptrace(PEEKUSER, first, 1, &word));
	act("peekuser behind", ptrace(PEEKUSER, first, USER_SIZE, &word));
	act("peekuser dr7", ptrace(PEEKUSER, first, DEBUGREG(7), &word));
	act("pokeuser between", ptrace(POKEUSER, first, 784, 1));
	act("pokeuser dr0", ptrace(POKEUSER, first, DEBUGREG(0), 0x400000));
	act("pokeuser dr0", ptrace(POKEUSER, first, DEBUGREG(0), 0xffffffff81000000));
	act("pokeuser dr4", ptrace(POKEUSER, first, DEBUGREG(4), 0));
	say("dr0 %x dr6 %x\n", peek(PEEKUSER, first, (void *)DEBUGREG(0)), peek(PEEKUSER, first, (void *)DEBUGREG(6)));
	get(first, &r);
	say("cs %x ss %x ds %x fs %x\n", r.cs, r.ss, r.ds, r.fs);
	r.cs = 0;
	set(first, &r);
	get(first, &r);
	r.fs_base = -1;
	set(first, &r);
	act("getfpregs", ptrace(GETFPREGS, first, 0, fp));
	say("control %x mxcsr %x\n", (ulong)*(unsigned short *)fp, (ulong)*(u32 *)(fp + 24));
	act("setfpregs", ptrace(SETFPREGS, first, 0, fp));
#endif
	reap();
}

static void trace_me_twice(void)
{
	act("traceme", ptrace(TRACEME, 0, 0, 0));
	act("traceme", ptrace(TRACEME, 0, 0, 0));
	act("cont", ptrace(CONT, S0(NR_getppid), 0, 0));
	act("nobody", ptrace(CONT, -1, 0, 0));
	flush();
	leave(0);
}

#ifdef __x86_64__
/* Hardware breakpoints on code: what may be written to the registers, and stops at a function called three times. */
static NOINLINE void target(void) { asm volatile("nop" ::: "memory"); }
static void target_child(void)
{
	pid_t child;

	trace_me();
	target();
	target();
	child = fork();
	if (!child) {
		target(); /* it has no breakpoints */
		leave(0);
	}
	waitpid(child, NULL, 0);
	target();
	leave(5);
}
static void debug_registers(void)
{
	static const ulong values[] = { 1, 2ul << 24 | 0x10, 13ul << 24 | 0x10, 4ul << 16 | 1, 0 };
	ulong bases[2] = { 0, 0 };

	say("-- debug registers\n");
	start(target_child);
	wait_show("start", first, 0);
	act("dr0", ptrace(POKEUSER, first, DEBUGREG(0), 1));
	act("dr2", ptrace(POKEUSER, first, DEBUGREG(2), 7));
	for (int i = 0; i < 5; i++) {
		say("dr7 %x ", values[i]);
		act("poked", ptrace(POKEUSER, first, DEBUGREG(7), values[i]));
		act("dr0 of the kernel", ptrace(POKEUSER, first, DEBUGREG(0), 0xffff800000000000));
		say("dr7 %x dr0 %x\n", peek(PEEKUSER, first, (void *)DEBUGREG(7)), peek(PEEKUSER, first, (void *)DEBUGREG(0)));
	}
	act("dr3", ptrace(POKEUSER, first, DEBUGREG(3), target));
	act("dr7", ptrace(POKEUSER, first, DEBUGREG(7), 0x40));
	for (int i = 0; i < 4; i++) { /* the third stop is for SIGCHLD */
		ptrace(CONT, first, 0, 0);
		wait_show("stop", first, 0);
		say("there %d dr6 %x\n", (long)(peek(PEEKUSER, first, (void *)128) == (long)target),
		    peek(PEEKUSER, first, (void *)DEBUGREG(6)));
	}
	act("set gs", ptrace(30, first, 0x7000, 0x1001));
	act("get gs", ptrace(30, first, bases, 0x1004));
	act("get fs", ptrace(30, first, bases + 1, 0x1003));
	act("set fs of the kernel", ptrace(30, first, 0xffff800000000000, 0x1002));
	act("no such base", ptrace(30, first, bases, 0x99));
	say("gs %x fs %x\n", bases[0], bases[1]);
	act("dr7", ptrace(POKEUSER, first, DEBUGREG(7), 0));
	ptrace(CONT, first, 0, 0);
	wait_show("end", first, 0);
}
#endif

static int run(void)
{
	if (arguments[1]) {
		say("executed again\n");
		return 21;
	}
	start(trace_me_twice);
	wait_show("end", first, 0);
	calls(0);
	calls(1);
	change();
	signals();
	events();
	exec_stop(0);
	exec_stop(1);
	step();
	attach();
	seize();
	queue();
	other_tracer();
	tracer_ends(0);
	tracer_ends(1);
	sets();
#ifdef __x86_64__
	debug_registers();
#endif
	return 0;
}
