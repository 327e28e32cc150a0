/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Priority inversion: a low real-time thread holds a lock, a high one waits for it, and a middle one computes. With a plain
 * futex the high one waits for the middle one; with FUTEX_LOCK_PI the low one runs first, at the high one's priority.
 */
#include "guest.h"
#include "thread.h"

enum {
	CALL(futex, 202, 98), CALL(gettid, 186, 178), CALL(sched_setscheduler, 144, 119),
};
enum { WAIT = 128, WAKE, LOCK_PI = 134, UNLOCK_PI };

static u8 stacks[3][16384] __attribute__((aligned(64)));
static volatile int tids[3], join_word[3];
static volatile u32 lock, go;
static volatile int inherit;
static volatile char order[32];
static volatile int ordered;

static void note(char c)
{
	order[ordered++] = c;
}
static void acquire(void)
{
	if (inherit) {
		sys(futex, &lock, LOCK_PI, 0, 0, 0, 0);
		return;
	}
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
		sys(futex, &lock, WAIT, 1, 0, 0, 0);
}
static void release(void)
{
	if (inherit) {
		sys(futex, &lock, UNLOCK_PI, 0, 0, 0, 0);
		return;
	}
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	sys(futex, &lock, WAKE, 1, 0, 0, 0);
}
static void compute(long loops)
{
	for (volatile long i = 0; i < loops; i++)
		;
}
static void low(void)
{
	acquire();
	note('l');
	sys(futex, &go, WAIT, 0, 0, 0, 0);
	compute(100000);
	note('L');
	release();
	note('.');
}
static void middle(void)
{
	sys(futex, &go, WAIT, 0, 0, 0, 0);
	note('m');
	compute(300000);
	note('M');
}
static void high(void)
{
	note('h');
	acquire();
	note('H');
	release();
}
static void start(int slot, void (*function)(void), int priority)
{
	join_word[slot] = 1;
	CHECK(spawn(function, stacks[slot] + sizeof stacks[slot], &tids[slot], &join_word[slot]) > 0);
	CHECK(sys(sched_setscheduler, tids[slot], 1, &priority) == 0);
	sleep_ms(20);
}
static void scene(const char *name, int with)
{
	int top = 50, none = 0;

	inherit = with;
	lock = go = 0;
	ordered = 0;
	start(0, low, 10);
	start(1, middle, 20);
	start(2, high, 30);
	/* Nobody runs before all have been woken: we are the most urgent. */
	CHECK(sys(sched_setscheduler, 0, 1, &top) == 0);
	go = 1;
	sys(futex, &go, WAKE, 9, 0, 0, 0);
	CHECK(sys(sched_setscheduler, 0, 0, &none) == 0);
	for (int i = 0; i < 3; i++)
		while (join_word[i])
			sys(futex, &join_word[i], 0, 1, 0, 0, 0);
	say("%s: ", name);
	for (int i = 0; i < ordered; i++)
		put(order[i]);
	say("\n");
}
static int run(void)
{
	scene("plain", 0);
	scene("inherited", 1);
	return 0;
}
