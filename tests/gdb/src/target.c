/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the scripted gdb sessions debug: target WHAT, one behaviour each. Built with symbols by tests/gdb/build.py.
 */
#include "guest.h"

#define SYS_gettid (sizeof(long) == 8 && SYS_read == 0 ? 186 : 178)
#define SYS_exit (SYS_read == 0 ? 60 : 93)
#define SYS_sched_yield (SYS_read == 0 ? 24 : 124)
enum { CLONE_VM_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 };

volatile long counter, other, sum;
volatile u8 bytes[16];
long table[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
const char readonly[] = "read only";
volatile int ready, done;
static u8 stack[16384] __attribute__((aligned(16)));

NOINLINE long add(long a, long b)
{
	long result = a + b;

	sum = result;
	return result;
}

NOINLINE void count(void)
{
	for (int i = 0; i < 5; i++) {
		counter = counter + 1;
		other = other + 10;
		bytes[3] = i;
		bytes[4] = i + 1;
	}
}

NOINLINE void crash(long where)
{
	*(volatile int *)where = 7;
}

NOINLINE void worker(void)
{
	ready = 1;
	while (!done)
		syscall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	counter = 99;
	syscall6(SYS_exit, 0, 0, 0, 0, 0, 0);
}

NOINLINE void start_thread(void)
{
	long *top = (long *)(stack + sizeof(stack));
#ifdef __x86_64__
	*--top = (long)worker;
	long result;

	register long r10 asm("r10") = 0, r8 asm("r8") = 0;
	asm volatile("syscall\n test %%rax, %%rax\n jnz 1f\n ret\n1:"
		     : "=a"(result) : "a"(56), "D"((long)CLONE_VM_FLAGS), "S"(top), "d"(0), "r"(r10), "r"(r8)
		     : "rcx", "r11", "memory");
#else
	register long x8 asm("x8") = 220, x0 asm("x0") = CLONE_VM_FLAGS, x1 asm("x1") = (long)top, x2 asm("x2") = 0,
		      x3 asm("x3") = 0, x4 asm("x4") = 0, x9 asm("x9") = (long)worker;
	asm volatile("svc #0\n cbnz x0, 1f\n br x9\n1:" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9)
		     : "memory");
#endif
}

NOINLINE void threads(void)
{
	start_thread();
	while (!ready)
		syscall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	add(1, 2); /* both threads are there */
	done = 1;
	while (counter != 99)
		syscall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

NOINLINE void child(void)
{
	add(30, 3);
	sys(exit_group, 4);
}

NOINLINE void forks(void)
{
	long pid = fork();

	if (!pid)
		child();
	add(wait_for(pid), 1);
}

/* A signal with a handler, then one without. */
static void on_signal(int signo, struct siginfo *info, u8 *context)
{
	(void)info;
	(void)context;
	other = signo;
}

static int run(void)
{
	char what = arguments[1] ? arguments[1][0] : 'c';
	char *again[] = { arguments[0], "c", NULL };

	switch (what) {
	case 'c':
		add(2, 3);
		count();
		table[2] = add(counter, other);
		say("counter %d other %d sum %d\n", counter, other, sum);
		break;
	case 's':
		crash(0x1234);
		break;
	case 'u':
		handle(SIGUSR1, on_signal, 0, 0);
		{
			long me = sys(getpid);

			sys(kill, me, SIGUSR1);
		}
		say("handled %d\n", other);
		break;
	case 't':
		threads();
		break;
	case 'f':
		forks();
		break;
	case 'p':
		sys(getppid);
		sys(getpid);
		break;
	case 'l':
		for (;;)
			counter = counter + 1;
	case 'i':
		sys(read, 0, file_text, 16);
		say("read %s", file_text);
		break;
	case 'e':
		sys(execve, "/proc/self/exe", again, again + 2);
	}
	return what == 'c' ? 3 : 0;
}
