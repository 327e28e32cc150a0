/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Futexes: names and kinds of words, waking and moving waiters; with priority inheritance locking, what is refused,
 * timeouts, signals, deadlocks, priorities lent and given back, moving to a lock, owners that die, robust lists.
 * Errors are shown as numbers, thread ids as the letter of the thread.
 */
#include "guest.h"
#include "thread.h"

enum {
	CALL(futex, 202, 98), CALL(gettid, 186, 178), CALL(set_robust_list, 273, 99), CALL(get_robust_list, 274, 100),
	CALL(sched_setscheduler, 144, 119), CALL(setpriority, 141, 140), CALL(tgkill, 234, 131), CALL(exit, 60, 93),
	CALL(clock_settime, 227, 112), CALL(memfd_create, 319, 279), CALL(getpriority, 140, 141),
};
enum {
	WAIT, WAKE, FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_BITSET, WAKE_BITSET,
	WAIT_REQUEUE_PI, CMP_REQUEUE_PI, PRIVATE = 128, REALTIME = 256
};
enum { MS = 1000000, SLOTS = 6 };
#define WAITERS 0x80000000u
#define DIED 0x40000000u
typedef struct { long s, ns; } timespec;

static u8 stacks[SLOTS][16384] __attribute__((aligned(64)));
static volatile int tids[SLOTS], join_word[SLOTS];
static long me;
static volatile long results[SLOTS], order[SLOTS * 2], ordered;
static volatile u32 a, b, c, d, w, w2;
static volatile int stop;

/* Start a thread, and give it time to come to where it waits. */
static void start(int slot, void (*function)(void))
{
	join_word[slot] = 1;
	results[slot] = 999;
	CHECK(spawn(function, stacks[slot] + sizeof stacks[slot], &tids[slot], &join_word[slot]) > 0);
	sleep_ms(20);
}
static void join(int slot)
{
	while (join_word[slot])
		sys(futex, &join_word[slot], WAIT, 1, 0, 0, 0);
}
static int slot_of(void)
{
	long tid = sys(gettid);

	for (int i = 0; i < SLOTS; i++)
		if (tids[i] == tid && join_word[i])
			return i;
	return -1;
}
static long fx(volatile u32 *word, int op, long value, void *time, volatile void *word2, u32 value3)
{
	return sys(futex, word, op | PRIVATE, value, time, word2, value3);
}
/* A word in letters: W waiters, D owner died; M the main thread, a number one of the others, . nobody, ? somebody else. */
static void show(volatile u32 *word)
{
	u32 tid = *word & 0x3fffffff;
	char who = tid == me ? 'M' : tid ? '?' : '.';

	for (int i = 0; i < SLOTS; i++)
		if (tid && tid == (u32)tids[i])
			who = '0' + i;
	say(" %s%s%c", *word & WAITERS ? "W" : "", *word & DIED ? "D" : "", who);
}
static timespec *in_ms(int clock, long ms)
{
	static timespec t[4];
	static int next;
	timespec *p = &t[next++ % 4];

	sys(clock_gettime, clock, p);
	p->ns += ms * MS;
	p->s += p->ns / 1000000000;
	p->ns %= 1000000000;
	return p;
}
/* What /proc says of a thread: field 18 (priority) or 19 (nice). */
static long stat_field(long tid, int wanted)
{
	char path[64] = "/proc/self/task/", *p = path + 16, digits[12];
	int n = 0, negative;
	char *text;

	do
		digits[n++] = '0' + tid % 10;
	while (tid /= 10);
	while (n)
		*p++ = digits[--n];
	memcpy(p, "/stat", 6);
	for (text = read_file(path); *text != ')'; text++)
		;
	for (int i = 2; i < wanted; i++)
		while (*++text != ' ')
			;
	text++;
	negative = *text == '-';
	text += negative;
	return negative ? -(long)number(&text, 10) : (long)number(&text, 10);
}
static void policy(long tid, int kind, int priority)
{
	CHECK(sys(sched_setscheduler, tid, kind, &priority) == 0);
}

/* ---- what is refused */

static void refusals(void)
{
	timespec bad = { 0, 1000000000 }, minus = { -1, 0 }, past = { 1, 0 };

	say("clock realtime: wait %d bitset %d lock %d requeue %d", fx(&w, WAIT | REALTIME, 1, &past, 0, 0),
	    fx(&w, WAIT_BITSET | REALTIME, 1, &past, 0, ~0u), fx(&a, LOCK_PI | REALTIME, 0, 0, 0, 0),
	    fx(&w, REQUEUE | REALTIME, 0, 0, &w2, 0));
	say(" wait_requeue_pi %d bad time %d\n", fx(&w, WAIT_REQUEUE_PI | REALTIME, 1, 0, &a, 0),
	    fx(&w, WAIT | REALTIME, 1, &bad, 0, 0));
	say("times: %d %d %d", fx(&a, LOCK_PI, 0, &bad, 0, 0), fx(&a, LOCK_PI, 0, &minus, 0, 0), fx(&a, LOCK_PI, 0, (void *)8, 0, 0));
	say(" %d %d %d", fx(&w, WAIT, 1, &bad, 0, 0), fx(&w, WAIT_BITSET, 0, &past, 0, 0), fx(&w, WAIT, 0, (void *)8, 0, 0));
	say(" trylock ignores %d", fx(&a, TRYLOCK_PI, 0, &bad, 0, 0));
	show(&a);
	a = 0;
	say("\nunknown: %d %d %d %d\n", fx(&w, 2, 0, 0, 0, 0), fx(&w, 13, 0, 0, 0, 0), fx(&w, 0x7f, 0, 0, 0, 0),
	    sys(futex, &w, 0x200, 0, 0, 0, 0));
	say("misaligned: %d %d %d %d", fx((u32 *)((ulong)&a + 1), LOCK_PI, 0, 0, 0, 0), fx((u32 *)((ulong)&a + 2), UNLOCK_PI, 0, 0, 0, 0),
	    fx((u32 *)((ulong)&w + 2), WAKE, 1, 0, 0, 0), fx(&w, CMP_REQUEUE_PI, 1, 0, (u8 *)&a + 2, 0));
	say(" wait %d wake 0 bits %d %d\n", fx((u32 *)((ulong)&w + 1), WAIT, 0, 0, 0, 0), fx(&w, WAKE_BITSET, 1, 0, 0, 0),
	    fx(&w, WAIT_BITSET, 0, 0, 0, 0));
	say("not there: lock %d %d trylock %d unlock %d wait %d wake %d %d", fx((u32 *)8, LOCK_PI, 0, 0, 0, 0),
	    sys(futex, 8, LOCK_PI, 0, 0, 0, 0), fx((u32 *)8, TRYLOCK_PI, 0, 0, 0, 0), fx((u32 *)8, UNLOCK_PI, 0, 0, 0, 0),
	    fx((u32 *)8, WAIT, 0, 0, 0, 0), fx((u32 *)8, WAKE, 1, 0, 0, 0), sys(futex, 8, WAKE, 1, 0, 0, 0));
	say(" requeue %d %d kernel %d %d\n", fx(&w, CMP_REQUEUE_PI, 1, (void *)1, (u32 *)8, 0),
	    sys(futex, &w, REQUEUE, 1, 1, 8, 0), fx((u32 *)-4096, LOCK_PI, 0, 0, 0, 0), fx((u32 *)-4096, WAKE, 1, 0, 0, 0));
	say("owners: mine %d", fx(&a, LOCK_PI, 0, 0, 0, 0));
	show(&a);
	say(" again %d %d", fx(&a, LOCK_PI, 0, 0, 0, 0), fx(&a, TRYLOCK_PI, 0, 0, 0, 0));
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	show(&a);
	say(" again %d\n", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	a = 0x3ffffff0;
	say("nobody: lock %d", fx(&a, LOCK_PI, 0, 0, 0, 0));
	say(" word %x trylock %d unlock %d", (ulong)a, fx(&a, TRYLOCK_PI, 0, 0, 0, 0), fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	a = WAITERS;
	say(" only waiters %d", fx(&a, LOCK_PI, 0, 0, 0, 0));
	show(&a);
	a = DIED;
	say(" only died %d", fx(&a, LOCK_PI, 0, 0, 0, 0));
	show(&a);
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	show(&a);
	a = WAITERS | DIED | me;
	say(" all bits: unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	show(&a);
	a = 0;
	say("\nrequeue counts: %d %d %d", fx(&w, REQUEUE, -1, 0, &w2, 0), fx(&w, REQUEUE, 0, (void *)-1l, &w2, 0),
	    fx(&w, CMP_REQUEUE, 0, 0, &w2, 5));
	say(" pi: two %d zero %d same %d value %d nobody %d", fx(&w, CMP_REQUEUE_PI, 2, 0, &a, 0), fx(&w, CMP_REQUEUE_PI, 0, 0, &a, 0),
	    fx(&w, CMP_REQUEUE_PI, 1, 0, &w, 0), fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 7), fx(&w, CMP_REQUEUE_PI, 1, (void *)5, &a, 0));
	say(" wait: same %d value %d late %d\n", fx(&w, WAIT_REQUEUE_PI, 0, 0, &w, 0), fx(&w, WAIT_REQUEUE_PI, 1, 0, &a, 0),
	    fx(&w, WAIT_REQUEUE_PI, 0, &past, &a, 0));
	say("wake_op:");
	for (int op = 0; op < 8; op++) {
		w2 = 12;
		say(" %d", fx(&w, WAKE_OP, 1, (void *)1, &w2, op << 28 | 5 << 12 | 12));
		say(":%d", (long)w2);
	}
	for (int compare = 0; compare < 8; compare++) {
		w2 = -3;
		say(" %d", fx(&w, WAKE_OP, 1, (void *)1, &w2, 9u << 28 | compare << 24 | 4 << 12 | 0xffd));
		say(":%d", (long)(int)w2);
	}
	w2 = 0;
	say(" faults %d %d\n", fx(&w, WAKE_OP, 1, 0, (u32 *)8, 0), fx((u32 *)8, WAKE_OP, 1, 0, &w, 1 << 28));
}

/* ---- kinds of words */

static void kinds(void)
{
	u8 *read_only = map(NULL, 1, PROT_READ, ANON), *fresh = map(NULL, 3, RW, ANON), *x, *y, *z;
	long fd = sys(memfd_create, "words", 0), before;

	sys(ftruncate, fd, 2 * page);
	x = (u8 *)sys(mmap, 0, page, RW, MAP_SHARED, fd, page);
	y = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_SHARED, fd, page);
	z = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_PRIVATE, fd, page);
	say("read-only: lock %d trylock %d shared %d", fx((u32 *)read_only, LOCK_PI, 0, 0, 0, 0), fx((u32 *)read_only, TRYLOCK_PI, 0, 0, 0, 0),
	    sys(futex, read_only, LOCK_PI, 0, 0, 0, 0));
	say(" wait %d %d wake %d wake_op %d file %d %d", fx((u32 *)read_only, WAIT, 1, 0, 0, 0), sys(futex, read_only, WAIT, 1, 0, 0, 0),
	    sys(futex, read_only, WAKE, 1, 0, 0, 0), fx(&w, WAKE_OP, 1, 0, read_only, 0), sys(futex, y, WAKE, 1, 0, 0, 0),
	    sys(futex, y, LOCK_PI, 0, 0, 0, 0));
	say(" private file %d %d\n", sys(futex, z, WAKE, 1, 0, 0, 0), sys(futex, z, WAIT, 1, 0, 0, 0));
	say("faults:");
	before = minor_faults();
	say(" lock %d", fx((u32 *)fresh, LOCK_PI, 0, 0, 0, 0));
	say(" took %d", minor_faults() - before);
	before = minor_faults();
	say(" wake %d", sys(futex, fresh + page, WAKE, 1, 0, 0, 0));
	say(" took %d", minor_faults() - before);
	before = minor_faults();
	say(" wait %d", fx((u32 *)(fresh + 2 * page), WAIT, 1, 0, 0, 0));
	say(" took %d", minor_faults() - before);
	before = minor_faults();
	say(" wake_op %d", fx(&w, WAKE_OP, 1, 0, fresh + 2 * page, 0));
	say(" took %d\n", minor_faults() - before);
	CHECK(x && y && z);
	sys(munmap, fresh, 3 * page);
}
static u32 *shared_x, *shared_y;
static void waits_x(void)
{
	results[slot_of()] = sys(futex, shared_x, WAIT, 0, 0, 0, 0);
}
static void waits_private(void)
{
	results[slot_of()] = fx(shared_x, WAIT, 0, 0, 0, 0);
}
static void names(void)
{
	long fd = sys(memfd_create, "words", 0);

	sys(ftruncate, fd, page);
	shared_x = (u32 *)sys(mmap, 0, page, RW, MAP_SHARED, fd, 0);
	shared_y = (u32 *)sys(mmap, 0, page, RW, MAP_SHARED, fd, 0);
	start(0, waits_x);
	say("names: file private %d other offset %d other place %d\n", fx(shared_x, WAKE, 9, 0, 0, 0), sys(futex, shared_y + 1, WAKE, 9, 0, 0, 0),
	    sys(futex, shared_y, WAKE, 9, 0, 0, 0));
	join(0);
	shared_x = (u32 *)map(NULL, 1, RW, ANON);
	start(0, waits_x);
	start(1, waits_private);
	say("  anonymous: shared %d", sys(futex, shared_x, WAKE, 9, 0, 0, 0));
	join(0);
	say(" private %d\n", fx(shared_x, WAKE, 9, 0, 0, 0));
	join(1);
}

/* ---- waiting and moving */

static void waits(void)
{
	int i = slot_of();

	results[i] = fx(&w, WAIT_BITSET, 0, 0, 0, 1u << i);
	order[ordered++] = i;
}
static void show_order(const char *what)
{
	say(" %s", what);
	for (int i = 0; i < ordered; i++)
		say("%d", order[i]);
	ordered = 0;
}
static void moving(void)
{
	for (int i = 0; i < 4; i++)
		start(i, waits);
	say("moving: bits %d", fx(&w, WAKE_BITSET, 9, 0, 0, 4));
	join(2);
	say(" requeue %d", fx(&w, CMP_REQUEUE, 1, (void *)1, &w2, 0));
	join(0);
	say(" to itself %d", fx(&w2, REQUEUE, 0, (void *)9, &w2, 0));
	say(" there %d", fx(&w2, WAKE, 9, 0, 0, 0));
	join(1);
	say(" here %d", fx(&w, WAKE, 0, 0, 0, 0));
	join(3);
	show_order("order ");
	for (int i = 0; i < 4; i++) {
		start(i, waits);
		if (i & 1) { /* it must be queued by its new priority: it waits again */
			policy(tids[i], 1, 10 + i);
		}
	}
	say("\nurgent: late %d", fx(&w, WAKE, 1, 0, 0, 0));
	sleep_ms(10);
	show_order("first ");
	say(" rest %d\n", fx(&w, WAKE, 9, 0, 0, 0));
	for (int i = 0; i < 4; i++)
		join(i);
	ordered = 0;
}
static void waits_urgently(void)
{
	int i = slot_of();

	policy(0, 2, 1 + i);
	waits();
}
static void by_priority(void)
{
	start(0, waits);
	start(1, waits_urgently);
	start(3, waits_urgently);
	start(2, waits_urgently);
	say("by priority:");
	for (int i = 0; i < 4; i++) {
		say(" %d", fx(&w, WAKE, 1, 0, 0, 0));
		sleep_ms(10);
	}
	show_order("order ");
	say("\n");
	for (int i = 0; i < 4; i++)
		join(i);
}

/* ---- locks */

static timespec *volatile limit;
static void locks(void)
{
	int i = slot_of();

	results[i] = fx(&a, LOCK_PI, 0, limit, 0, 0);
	order[ordered++] = i;
	if (!results[i])
		results[i] = 1000 + fx(&a, UNLOCK_PI, 0, 0, 0, 0);
}
static void locks_nice(void)
{
	sys(setpriority, 0, 0, 5 - slot_of());
	locks();
}
static void contended(void)
{
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	start(0, locks);
	say("contended:");
	show(&a);
	start(1, locks);
	say(" plain wake %d %d requeue %d wake_op %d", fx(&a, WAKE, 1, 0, 0, 0), fx(&a, WAKE_BITSET, 1, 0, 0, 1),
	    fx(&a, REQUEUE, 0, (void *)1, &w, 0), fx(&a, WAKE_OP, 1, 0, &w, 0));
	say(" pi requeue from it %d\n", fx(&a, CMP_REQUEUE_PI, 1, (void *)1, &b, a));
	say("  fiddled:");
	for (int i = 0; i < 5; i++) {
		u32 old = a;

		a = (u32[]){ 0, me, DIED | WAITERS, WAITERS | tids[0], WAITERS | 0x3ffffff0 }[i];
		say(" %d", fx(&a, TRYLOCK_PI, 0, 0, 0, 0));
		say("/%d", i == 1 || i == 2 ? 0l : fx(&a, UNLOCK_PI, 0, 0, 0, 0));
		a = old;
	}
	say("\n  unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	sleep_ms(20);
	show(&a);
	join(0), join(1);
	show_order("order ");
	say(" results %d %d\n", results[0], results[1]);

	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	for (int i = 0; i < 4; i++)
		start(i, locks_nice);
	fx(&a, UNLOCK_PI, 0, 0, 0, 0);
	for (int i = 0; i < 4; i++)
		join(i);
	show_order("  by nice value ");
	show(&a);
	say("\n");
}
static void in_time(void)
{
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	limit = in_ms(0, 60);
	start(0, locks);
	say("in time:");
	show(&a);
	join(0);
	say(" result %d", results[0]);
	show(&a);
	ordered = 0;
	limit = in_ms(0, -5);
	start(0, locks);
	join(0);
	say(" late %d", results[0]);
	limit = in_ms(1, 100000); /* of the wrong clock: long ago */
	start(0, locks);
	join(0);
	say(" wrong clock %d", results[0]);
	limit = NULL;
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	show(&a);
	a = 0;
	ordered = 0;
	say("\n");
}
static void tries(void)
{
	results[slot_of()] = fx(&a, TRYLOCK_PI, 0, 0, 0, 0);
}
static void nothing(int signo UNUSED, struct siginfo *info UNUSED, u8 *context UNUSED)
{
	stop++;
}
static void signals(void)
{
	handle(SIGUSR1, nothing, 0, 0);
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	start(0, tries);
	join(0);
	say("try: %d", results[0]);
	show(&a);
	start(0, locks);
	stop = 0;
	sys(tgkill, me, tids[0], SIGUSR1);
	sleep_ms(20);
	say(" signal: handled %d still", (long)stop);
	show(&a);
	say(" %d", results[0]);
	fx(&a, UNLOCK_PI, 0, 0, 0, 0);
	join(0);
	say(" then %d", results[0]);
	show(&a);
	ordered = 0;
	say("\n");
}

/* ---- chains */

static volatile u32 *const words[] = { &a, &b, &c, &d };
static void chained(void) /* takes the lock of its number, then waits for the one before */
{
	int i = slot_of();

	CHECK(fx(words[i], LOCK_PI, 0, 0, 0, 0) == 0);
	results[i] = fx(words[i - 1], LOCK_PI, 0, 0, 0, 0);
	order[ordered++] = i;
	if (!results[i])
		fx(words[i - 1], UNLOCK_PI, 0, 0, 0, 0);
	fx(words[i], UNLOCK_PI, 0, 0, 0, 0);
}
static void boosts(void)
{
	policy(0, 1, 20);
	results[4] = fx(&d, LOCK_PI, 0, limit, 0, 0);
	if (!results[4])
		fx(&d, UNLOCK_PI, 0, 0, 0, 0);
}
static void priorities(const char *what)
{
	say(" %s:%d", what, stat_field(me, 18));
	for (int i = 1; i < 4; i++)
		say(" %d", stat_field(tids[i], 18));
}
static void chains(void)
{
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	start(1, chained);
	sys(setpriority, 0, tids[1], 3);
	start(2, chained);
	start(3, chained);
	say("chain:");
	priorities("alone");
	sys(setpriority, 0, tids[3], -4);
	priorities("nice -4");
	policy(tids[2], 1, 5);
	priorities("fifo 5 in the middle");
	policy(tids[3], 2, 9);
	priorities("rr 9 at the end");
	policy(tids[3], 0, 0);
	priorities("given back");
	policy(tids[2], 0, 0);
	say("\n  lent");
	limit = in_ms(0, 100);
	start(4, boosts);
	priorities("by 20");
	say(" nice %d", stat_field(tids[1], 19));
	join(4);
	say(" result %d", results[4]);
	priorities("after");
	say("\n  circle: %d %d", fx(&d, LOCK_PI, 0, 0, 0, 0), fx(&b, LOCK_PI, 0, 0, 0, 0));
	priorities("after");
	show(&d);
	limit = NULL;
	start(4, boosts);
	priorities("lent");
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	for (int i = 1; i < 5; i++)
		join(i);
	show_order("order ");
	say(" %d %d %d %d", results[1], results[2], results[3], results[4]);
	for (int i = 0; i < 4; i++)
		show(words[i]);
	say(" %d\n", stat_field(me, 18));
}

/* ---- moving to a lock */

static void waits_requeue(void)
{
	int i = slot_of();

	results[i] = fx(&w, WAIT_REQUEUE_PI, 0, limit, &a, 0);
	order[ordered++] = i;
	if (!results[i])
		results[i] = 1000 + fx(&a, UNLOCK_PI, 0, 0, 0, 0);
}
static void waits_plain(void)
{
	results[slot_of()] = fx(&w, WAIT, 0, 0, 0, 0);
}
static void holds(void)
{
	int i = slot_of();

	results[i] = fx(&a, LOCK_PI, 0, 0, 0, 0);
	while (!stop)
		sleep_ms(1);
	results[i] = 1000 + fx(&a, UNLOCK_PI, 0, 0, 0, 0);
}
static void to_lock(void)
{
	limit = NULL;
	a = 0;
	start(0, waits_requeue);
	say("to lock: wake %d requeue %d other lock %d", fx(&w, WAKE, 1, 0, 0, 0), fx(&w, REQUEUE, 0, (void *)1, &w2, 0),
	    fx(&w, CMP_REQUEUE_PI, 1, 0, &b, 0));
	say(" free %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	show(&a);
	join(0);
	say(" %d", results[0]);
	show(&a);
	for (int i = 0; i < 4; i++)
		start(i, waits_requeue);
	ordered = 0;
	say("\n  free, all %d", fx(&w, CMP_REQUEUE_PI, 1, (void *)0x7fffffff, &a, 0));
	show(&a);
	for (int i = 0; i < 4; i++)
		join(i);
	show_order("order ");
	show(&a);
	for (int i = 0; i < 4; i++)
		start(i, waits_requeue);
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	say("\n  held by me: one %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	show(&a);
	say(" two %d", fx(&w, CMP_REQUEUE_PI, 1, (void *)1, &a, 0));
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	sleep_ms(20);
	show_order("order ");
	show(&a);
	say(" last %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	for (int i = 0; i < 4; i++)
		join(i);
	show_order("order ");
	show(&a);
	stop = 0;
	start(5, holds);
	start(0, waits_requeue);
	start(1, waits_plain);
	say("\n  mixed: %d", fx(&w, CMP_REQUEUE_PI, 1, (void *)9, &a, 0));
	show(&a);
	say(" wake %d", fx(&w, WAKE, 9, 0, 0, 0));
	join(1);
	stop = 1;
	join(5), join(0);
	say(" %d %d", results[0], results[5]);
	start(1, waits_plain);
	say(" plain first %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	fx(&w, WAKE, 9, 0, 0, 0);
	join(1);
	show(&a);
	ordered = 0;
	start(0, waits_requeue);
	a = 0x3ffffff0;
	say(" dead owner %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	a = tids[0];
	say(" its own %d", fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0));
	a = 0;
	fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0);
	join(0);
	ordered = 0;
	say("\n");
}
static void to_lock_late(void)
{
	limit = in_ms(1, 40);
	start(0, waits_requeue);
	join(0);
	say("to lock, late: before %d", results[0]);
	CHECK(fx(&a, LOCK_PI, 0, 0, 0, 0) == 0);
	limit = in_ms(1, 60);
	start(0, waits_requeue);
	fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0);
	join(0);
	say(" after %d", results[0]);
	show(&a);
	limit = NULL;
	start(0, waits_requeue);
	sys(tgkill, me, tids[0], SIGUSR1);
	sleep_ms(10);
	say(" signal before: %d", results[0]);
	fx(&w, CMP_REQUEUE_PI, 1, 0, &a, 0);
	sys(tgkill, me, tids[0], SIGUSR1);
	join(0);
	say(" after: %d", results[0]);
	say(" unlock %d", fx(&a, UNLOCK_PI, 0, 0, 0, 0));
	show(&a);
	ordered = 0;
	say("\n");
}

/* ---- owners that die */

static ulong head[3];
static void dies_holding(void)
{
	fx(&a, LOCK_PI, 0, 0, 0, 0);
	while (!stop)
		sleep_ms(1);
}
static struct { ulong next; u32 word, pad; } node[4];
static void dies_with_list(void)
{
	int i = slot_of();

	CHECK(sys(set_robust_list, head, 24) == 0);
	head[0] = (ulong)&node[0] | 1;
	head[1] = 8;
	head[2] = (ulong)&node[2] | 1;
	node[0].next = (ulong)&node[1];
	node[1].next = (ulong)&node[3] | 1;
	node[3].next = (ulong)head;
	for (int k = 0; k < 3; k++)
		CHECK(fx(&node[k].word, LOCK_PI, 0, 0, 0, 0) == 0);
	node[3].word = 12345;
	results[i] = 0;
	while (!stop)
		sleep_ms(1);
}
static void locks_node(void)
{
	int i = slot_of();

	results[i] = fx(&node[i].word, LOCK_PI, 0, 0, 0, 0);
}
static void waits_node(void)
{
	int i = slot_of();

	results[i] = sys(futex, &node[i].word, WAIT, node[i].word, 0, 0, 0);
}
static void deaths(void)
{
	stop = 0;
	a = 0;
	limit = NULL;
	start(5, dies_holding);
	start(0, locks);
	start(1, locks);
	say("deaths: held");
	show(&a);
	stop = 1;
	join(5);
	join(0), join(1);
	show_order("order ");
	show(&a);
	say(" %d %d", results[0], results[1]);
	stop = 0;
	a = 0;
	start(5, dies_holding);
	stop = 1;
	join(5);
	show(&a);
	say(" lock %d", fx(&a, LOCK_PI, 0, 0, 0, 0));
	a = 0;
	stop = 0;
	start(5, dies_with_list);
	start(0, locks_node);
	node[1].word |= WAITERS;
	start(1, waits_node);
	say("\n  robust:");
	for (int i = 0; i < 4; i++)
		show(&node[i].word);
	stop = 1;
	join(5);
	join(0), join(1);
	say(" dead:");
	for (int i = 0; i < 4; i++)
		show(&node[i].word);
	say(" results %d %d", results[0], results[1]);
	/* Thread 0 is gone too, with the lock it was given; nobody says so. */
	say(" lock %d %d %d", fx(&node[0].word, LOCK_PI, 0, 0, 0, 0), fx(&node[1].word, LOCK_PI, 0, 0, 0, 0), fx(&node[2].word, LOCK_PI, 0, 0, 0, 0));
	for (int i = 0; i < 3; i++)
		show(&node[i].word);
	say(" unlock %d\n", fx(&node[1].word, UNLOCK_PI, 0, 0, 0, 0));
}
/* The process of another address space, killed while it holds one lock and waits for another. */
static void killed(void)
{
	u32 *words = (u32 *)sys(mmap, 0, page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long child;

	CHECK(sys(futex, words, LOCK_PI, 0, 0, 0, 0) == 0);
	child = fork();
	if (!child) {
		ulong list[4] = { (ulong)list, (ulong)words + 4 - (ulong)(list + 3), (ulong)(list + 3) | 1, 0 };

		sys(set_robust_list, list, 24);
		sys(futex, words + 1, LOCK_PI, 0, 0, 0, 0);
		sys(futex, words, LOCK_PI, 0, 0, 0, 0);
		finish(9);
	}
	tids[0] = child;
	sleep_ms(30);
	say("killed: words");
	show(words), show(words + 1);
	say(" circle %d", sys(futex, words + 1, LOCK_PI, 0, 0, 0, 0));
	sys(kill, child, 9);
	say(" status %d words", wait_for(child));
	show(words), show(words + 1);
	say(" lock %d", sys(futex, words + 1, TRYLOCK_PI, 0, 0, 0, 0));
	show(words + 1);
	say(" unlock %d %d\n", sys(futex, words, UNLOCK_PI, 0, 0, 0, 0), sys(futex, words + 1, UNLOCK_PI, 0, 0, 0, 0));
}

static int run(void)
{
	me = sys(gettid);
	refusals();
	kinds();
	names();
	moving();
	by_priority();
	contended();
	in_time();
	signals();
	chains();
	to_lock();
	to_lock_late();
	deaths();
	killed();
	return 0;
}
