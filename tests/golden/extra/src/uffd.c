/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * userfaultfd: every refusal of its ioctls, areas registered, split and merged, and faults that one thread serves for
 * another: by user code, inside system calls, missing, write-protected, woken, interrupted, killed; and all events.
 */
#include "guest.h"

enum {
	CALL(userfaultfd, 323, 282), CALL(ioctl, 16, 29), CALL(futex, 202, 98), CALL(exit, 60, 93), CALL(gettid, 186, 178),
	CALL(tgkill, 234, 131), CALL(madvise, 28, 233), CALL(mremap, 25, 216), CALL(memfd_create, 319, 279),
	CALL(fcntl, 72, 25), CALL(ppoll, 271, 73), CALL(mlock, 149, 228), CALL(mincore, 27, 232),
	CALL(process_vm_readv, 310, 270), CALL(setuid, 105, 146), CALL(mlockall, 151, 230), CALL(pwrite64, 18, 68),
	CALL(shmget, 29, 194), CALL(shmat, 30, 196), CALL(shmdt, 67, 197), CALL(sched_yield, 24, 124),
};
#define NONBLOCK 04000
#define API 0xc018aa3ful
#define REGISTER 0xc020aa00ul
#define UNREGISTER 0x8010aa01ul
#define WAKE 0x8010aa02ul
#define COPY 0xc028aa03ul
#define ZEROPAGE 0xc020aa04ul
#define WRITEPROTECT 0xc018aa06ul
enum { MISSING = 1, WP = 2 };
enum { EVENT_FORK = 2, EVENT_REMAP = 4, EVENT_REMOVE = 8, EVENT_UNMAP = 64, FEATURE_SIGBUS = 128, THREAD_ID = 256 };

static long try(const char *what, long result)
{
	if (result < 0 && result > -4096)
		say("  %s: %d\n", what, result);
	else
		say("  %s: ok\n", what);
	return result;
}

/* ioctls; what they write back is in `io` */
static ulong io[5];
static long call(long fd, ulong cmd, ulong a, ulong b, ulong c, ulong d)
{
	io[0] = a, io[1] = b, io[2] = c, io[3] = d, io[4] = 77;
	return sys(ioctl, fd, cmd, io);
}
#define register_(fd, start, length, mode) call(fd, REGISTER, (ulong)(start), length, mode, 99)
#define unregister(fd, start, length) call(fd, UNREGISTER, (ulong)(start), length, 0, 0)
#define wake(fd, start, length) call(fd, WAKE, (ulong)(start), length, 0, 0)
#define copy(fd, to, from, length, mode) call(fd, COPY, (ulong)(to), (ulong)(from), length, mode)
#define zeropage(fd, start, length, mode) call(fd, ZEROPAGE, (ulong)(start), length, mode, 99)
#define protect(fd, start, length, mode) call(fd, WRITEPROTECT, (ulong)(start), length, mode, 0)

static long uffd(long flags, ulong features)
{
	long fd = sys(userfaultfd, flags);

	CHECK(fd >= 0);
	CHECK(call(fd, API, 0xaa, features, 0, 0) == 0);
	return fd;
}

/* threads: start(function), join() */
#define THREADS (0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x100000 | 0x200000)
static u8 stacks[4][8192] __attribute__((aligned(64)));
static int tids[4];
static u8 *base;	 /* the area the tests are about */
static volatile ulong value; /* what the thread saw, or what its call returned */
static ulong usage[2][18];

#ifdef __x86_64__
static NOINLINE long spawn(void (*function)(void), u8 *stack, int *tid)
{
	register long r10 asm("r10") = (long)tid, r8 asm("r8") = 0;
	long result;

	stack -= sizeof function;
	memcpy(stack, &function, sizeof function);
	asm volatile("syscall\n	test %%rax, %%rax\n	jnz 1f\n	pop %%rax\n	call *%%rax\n"
		     "	mov $60, %%eax\n	xor %%edi, %%edi\n	syscall\n1:"
		     : "=a"(result) : "a"(56), "D"(THREADS), "S"(stack), "d"(tid), "r"(r10), "r"(r8)
		     : "rcx", "r11", "memory");
	return result;
}
#else
static NOINLINE long spawn(void (*function)(void), u8 *stack, int *tid)
{
	register long x8 asm("x8") = 220, x0 asm("x0") = THREADS, x1 asm("x1") = (long)stack, x2 asm("x2") = (long)tid,
		      x3 asm("x3") = 0, x4 asm("x4") = (long)tid, x5 asm("x5") = (long)function;

	asm volatile("svc #0\n	cbnz x0, 1f\n	blr x5\n	mov x8, #93\n	mov x0, #0\n	svc #0\n1:"
		     : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "x30");
	return x0;
}
#endif
static void start_in(int slot, void (*function)(void))
{
	tids[slot] = -1;
	CHECK(spawn(function, stacks[slot] + sizeof stacks[slot], &tids[slot]) > 0);
}
static void join_in(int slot)
{
	int tid;

	flush();
	while ((tid = *(volatile int *)&tids[slot]))
		sys(futex, &tids[slot], 0, tid, 0);
}
#define start(function) start_in(0, function)
#define join() join_in(0)

/* Read one message and say it; its address. */
static ulong msg[4];
static ulong next(long fd)
{
	static const char *const names[] = { "pagefault", "fork", "remap", "remove", "unmap" };
	flush();
	long n = sys(read, fd, msg, 32);
	int event = msg[0] & 0xff;

	if (n != 32) {
		say("  message: %d\n", n);
		return 0;
	}
	say("  %s", names[event - 0x12]);
	if (event == 0x12) {
		say(" flags %x page %d thread %s\n", msg[1], (long)(msg[2] - (ulong)base) / (long)page,
		    !msg[3] ? "-" : (int)msg[3] == tids[0] ? "its" : "?");
		return msg[2];
	}
	if (event == 0x13)
		say(" fd %d\n", msg[1]);
	else if (event == 0x14)
		say(" from %d to %d length %d\n", (long)(msg[1] - (ulong)base) / (long)page,
		    (long)(msg[2] - (ulong)base) / (long)page, msg[3] / page);
	else
		say(" %d-%d\n", (long)(msg[1] - (ulong)base) / (long)page, (long)(msg[2] - (ulong)base) / (long)page);
	return msg[1];
}

/* VmFlags of the areas of [base, base + 16 pages): m missing, w write-protect, - ordinary; lengths in pages */
static void areas(void)
{
	char *text = read_file("/proc/self/smaps"), prot[5];
	ulong from = 0, to = 0;

	say("  areas:");
	while (*text) {
		if ((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'f')) {
			text = area(text, &from, &to, prot);
			continue;
		}
		if (text[0] == 'V' && text[1] == 'm' && text[2] == 'F' && to > (ulong)base && from < (ulong)base + 16 * page) {
			say(" %s:%d", prot, (to - from) / page);
			for (; *text != '\n'; text++)
				if (text[0] == ' ' && text[1] == 'u')
					say("%c", text[2]);
		}
		while (*text && *text++ != '\n')
			;
	}
	say("\n");
}

static void reset(void)
{
	if (base)
		sys(munmap, base, 16 * page);
	base = map(base, 16, RW, ANON | (base ? MAP_FIXED : 0));
}

static void refusals(void)
{
	long fd, other;
	u8 *area, *shared;

	say("refusals\n");
	try("flags", sys(userfaultfd, 1));
	fd = sys(userfaultfd, 02000000 | NONBLOCK);
	try("read before API", sys(read, fd, msg, 32));
	try("register before API", register_(fd, base, page, MISSING));
	try("unknown ioctl before API", call(fd, 0xaa55, 0, 0, 0, 0));
	try("API of another version", call(fd, API, 0xab, 0, 5, 0));
	say("  %x %x %x\n", io[0], io[1], io[2]);
	try("API with an unknown feature", call(fd, API, 0xaa, 1 << 9, 5, 0));
	say("  %x %x %x\n", io[0], io[1], io[2]);
	try("API", call(fd, API, 0xaa, 0, 5, 0));
	say("  %x %x %x\n", io[0], io[1], io[2]);
	try("API again", call(fd, API, 0xaa, 0, 5, 0));
	say("  %x %x %x\n", io[0], io[1], io[2]);
	try("unknown ioctl", call(fd, 0xaa55, 0, 0, 0, 0));
	try("bad pointer", sys(ioctl, fd, REGISTER, 8));
	try("read nothing", sys(read, fd, msg, 32));
	try("read too little", sys(read, fd, msg, 31));
	try("write", sys(write, fd, msg, 32));
	try("mmap", sys(mmap, 0, page, RW, MAP_PRIVATE, fd, 0));

	reset();
	try("no mode", register_(fd, base, page, 0));
	try("unknown mode", register_(fd, base, page, 4));
	try("unaligned start", register_(fd, base + 1, page, MISSING));
	try("unaligned length", register_(fd, base, page + 1, MISSING));
	try("length 0", register_(fd, base, 0, MISSING));
	try("above the end", register_(fd, -page, page, MISSING));
	try("across the end", register_(fd, base, -page, MISSING));
	try("nothing above", register_(fd, 0x7ffffffff000ul & -page, page, MISSING));
	sys(munmap, base + 4 * page, 4 * page);
	try("a hole", register_(fd, base + 4 * page, 2 * page, MISSING));
	try("across a hole", register_(fd, base, 10 * page, MISSING));
	say("  ioctls %x\n", io[3]);
	areas();
	other = uffd(0, 0);
	try("another's", register_(other, base, page, MISSING));
	try("unregister another's", unregister(other, base + page, page));
	areas();
	try("write-protect", register_(fd, base, 4 * page, MISSING | WP));
	say("  ioctls %x\n", io[3]);
	areas();
	area = map(0, 4, PROT_READ, MAP_SHARED | MAP_ANONYMOUS);
	try("shmem", register_(fd, area, page, MISSING));
	say("  ioctls %x\n", io[3]);
	try("shmem, write-protect", register_(fd, area, page, WP));
	long mem = sys(memfd_create, "m", 0);

	sys(ftruncate, mem, 4 * page);
	long file = sys(openat, AT_FDCWD, "/proc/self/fd/3", O_RDONLY, 0);
	char path[32] = "/proc/self/fd/0";

	path[14] = '0' + mem;
	if (file >= 0)
		sys(close, file);
	file = sys(openat, AT_FDCWD, path, O_RDONLY, 0);
	shared = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_SHARED, file, 0);
	try("a file one may not write", register_(fd, shared, page, MISSING));
	try("unregister it", unregister(fd, shared, page));
	sys(munmap, shared, page);
	shared = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_PRIVATE, file, 0);
	try("a file, private", register_(fd, shared, page, MISSING));
	sys(munmap, shared, page);
	sys(close, file);
	sys(close, mem);
	sys(munmap, area, 4 * page);

	try("copy unaligned", copy(fd, base + 1, area, page, 0));
	try("copy nothing", copy(fd, base, out.text, 0, 0));
	try("copy, unknown mode", copy(fd, base, out.text, page, 4));
	try("copy, source wraps", copy(fd, base, -page, page, 0));
	try("copy from nowhere", copy(fd, base, 8, page, 0));
	say("  copied %d\n", io[4]);
	try("copy to a hole", copy(fd, base + 4 * page, file_text, page, 0));
	say("  copied %d\n", io[4]);
	try("copy across areas", copy(fd, base, file_text, 5 * page, 0));
	try("copy to an ordinary area", copy(fd, stacks, file_text, page, 0));
	try("zero, unknown mode", zeropage(fd, base, page, 2));
	try("zero, ordinary area", zeropage(fd, file_text + (-(ulong)file_text & (page - 1)), page, 0));
	say("  zeroed %d\n", io[3]);
	try("zero 2", zeropage(fd, base, 2 * page, 0));
	say("  zeroed %d\n", io[3]);
	try("zero again", zeropage(fd, base + page, 2 * page, 0));
	say("  zeroed %d\n", io[3]);
	try("copy over it", copy(fd, base, file_text, 2 * page, 0));
	say("  copied %d\n", io[4]);
	try("zero up to one", zeropage(fd, base + 2 * page, page, 0));
	try("copy, write-protected, not so registered", copy(fd, base + 8 * page, file_text, page, 2));
	say("  copied %d\n", io[4]);
	try("copy two", copy(fd, base + 8 * page, out.text, 2 * page, 0));
	say("  copied %d\n", io[4]);
	try("protect, mode", protect(fd, base, page, 4));
	try("protect and do not wake", protect(fd, base, page, 3));
	try("protect, not so registered", protect(fd, base + 8 * page, page, 1));
	try("protect a hole", protect(fd, base + 4 * page, page, 1));
	try("protect", protect(fd, base, 4 * page, 1));
	try("protect, unaligned", protect(fd, base, page + 1, 1));
	try("wake nothing", wake(fd, base, 0));
	try("wake nobody", wake(fd, base, page));
	u8 vec[16];

	sys(mincore, base, 4 * page, vec);
	say("  mincore %d %d %d %d\n", vec[0], vec[1], vec[2], vec[3]);
	sys(close, fd);
	areas();
	sys(close, other);
}

static void layout(void)
{
	long fd = uffd(0, 0), other = uffd(0, 0);

	say("areas\n");
	reset();
	areas();
	register_(fd, base + 4 * page, 4 * page, MISSING);
	areas();
	register_(fd, base + 8 * page, 2 * page, MISSING);
	areas();
	register_(fd, base + 2 * page, 4 * page, WP);
	areas();
	register_(other, base + 12 * page, 2 * page, MISSING);
	areas();
	register_(other, base + 10 * page, 2 * page, MISSING);
	areas();
	sys(mprotect, base + 9 * page, page, PROT_READ);
	areas();
	sys(mprotect, base + 9 * page, page, RW);
	areas();
	unregister(fd, base, 6 * page);
	areas();
	unregister(fd, base + 7 * page, 2 * page);
	areas();
	sys(madvise, base, 16 * page, 1);
	areas();
	sys(madvise, base, 16 * page, 0);
	areas();
	sys(close, other);
	areas();
	sys(close, fd);
	areas();
}

static void touch_read(void) { value = base[0]; }
static void touch_write(void) { base[page] = 5; value = base[page + 1]; }
static void touch_many(void)
{
	sys(getrusage, 1, usage[0]);
	for (int i = 0; i < 4; i++)
		value += base[i * page + 8];
	sys(getrusage, 1, usage[1]);
}
static long pipe_fds[2];
static int fds[2];
static void call_read(void) { value = sys(read, pipe_fds[0], base + page - 4, 8); }
static void call_write(void) { value = sys(write, pipe_fds[1], base + page - 4, 8); }
static void call_open(void) { value = sys(openat, AT_FDCWD, base + 64, O_RDONLY, 0); }
static void call_futex(void) { value = sys(futex, base, 0, 1234, 0); }
static void call_mlock(void) { value = sys(mlock, base, 2 * page); }
static char remote[8192 * 16];
static void call_vm_readv(void)
{
	ulong here[2] = { (ulong)remote, 2 * page }, there[2] = { (ulong)base, 2 * page };

	long pid = sys(getpid);

	value = sys(process_vm_readv, pid, here, 1, there, 1, 0);
}
static char source[4 * 65536];
static void fill(int n)
{
	for (ulong i = 0; i < sizeof source; i++)
		source[i] = n + i / page;
}

static void serve(const char *what, long fd, void (*function)(void), int messages)
{
	say("%s\n", what);
	value = 0;
	start(function);
	while (messages--) {
		ulong at = next(fd);

		if (at)
			copy(fd, at, source, page, 0);
		if (io[4] != page)
			say("  copied %d\n", io[4]);
	}
	join();
	say("  value %d\n", value);
}

static void again(long fd)
{
	sys(madvise, base, 16 * page, 4);
	(void)fd;
}

static void faults(ulong features)
{
	long fd = uffd(0, features);

	reset();
	register_(fd, base, 8 * page, MISSING);
	fill(50);
	serve("read", fd, touch_read, 1);
	serve("write", fd, touch_write, 1);
	again(fd);
	serve("four pages", fd, touch_many, 4);
	say("  faults: minor %d major %d\n", usage[1][8] - usage[0][8], usage[1][9] - usage[0][9]);
	again(fd);
	sys(pipe2, fds, 0);
	pipe_fds[0] = fds[0], pipe_fds[1] = fds[1];
	sys(write, fds[1], "abcdefghijkl", 12);
	serve("read(2) into two pages", fd, call_read, 2);
	say("  %c%c%c%c%c\n", base[page - 4], base[page - 1], base[page], base[page + 3], base[page + 4]);
	again(fd);
	serve("write(2) from two pages", fd, call_write, 2);
	say("  left: %d\n", sys(read, fds[0], remote, 64));
	again(fd);
	source[64] = '/', source[65] = 0;
	serve("openat(2)", fd, call_open, 1);
	again(fd);
	serve("futex(2)", fd, call_futex, 1);
	again(fd);
	serve("mlock(2)", fd, call_mlock, 2);
	sys(munmap, base, page);
	reset();
	register_(fd, base, 8 * page, MISSING);
	serve("process_vm_readv(2)", fd, call_vm_readv, 2);
	say("  %d %d\n", remote[0], remote[page]);
	again(fd);

	say("woken, and no page\n");
	start(touch_read);
	next(fd);
	wake(fd, base + page, page);
	wake(fd, base, page);
	next(fd);
	try("copy, do not wake", copy(fd, base, source, page, 1));
	char path[40] = "/proc/self/fdinfo/0", *text;

	path[18] = '0' + fd;
	for (text = read_file(path); *text && (text[0] != 'p' || text[1] != 'e'); text++)
		;
	say("%s", text);
	wake(fd, base, 4 * page);
	join();
	say("  value %d\n", value);
	again(fd);

	say("zeroed\n");
	start(touch_write);
	zeropage(fd, next(fd), page, 0);
	join();
	say("  value %d\n", value);
	again(fd);
	say("unregistered\n");
	start(touch_read);
	next(fd);
	unregister(fd, base, page);
	join();
	say("  value %d\n", value);
	areas();
	register_(fd, base, page, MISSING);
	say("closed\n");
	start(touch_write);
	next(fd);
	sys(close, fd);
	join();
	say("  value %d\n", value);
	areas();
	sys(close, fds[0]);
	sys(close, fds[1]);
}

static volatile int handled;
static void on_signal(int signo UNUSED, struct siginfo *info UNUSED, u8 *context UNUSED) { handled++; }
static jmp_buf bus_jump;
static void on_bus(int signo UNUSED, struct siginfo *info, u8 *context UNUSED)
{
	say("  SIGBUS code %d page %d\n", (long)info->code, (info->address - (ulong)base) / page);
	longjmp(bus_jump, 1);
}

static void signals(void)
{
	long fd = uffd(0, 0), pid = sys(getpid);

	say("a signal for who waits\n");
	reset();
	register_(fd, base, 8 * page, MISSING);
	handle(SIGUSR1, on_signal, SA_RESTART, 0);
	handled = 0;
	start(touch_read);
	next(fd);
	sys(tgkill, pid, tids[0], SIGUSR1);
	next(fd);
	say("  handled %d\n", (long)handled);
	copy(fd, base, source, page, 0);
	join();
	say("  value %d\n", value);
	again(fd);

	say("SIGBUS instead of a message\n");
	sys(close, fd);
	fd = uffd(NONBLOCK, FEATURE_SIGBUS);
	register_(fd, base, 8 * page, MISSING | WP);
	handle(SIGBUS, on_bus, SA_NODEFER, 0);
	if (!setjmp(bus_jump))
		value = base[3 * page];
	if (!setjmp(bus_jump))
		base[4 * page] = 1;
	long file = sys(openat, AT_FDCWD, "/proc/self/status", O_RDONLY, 0);

	try("read(2)", sys(read, file, base, 8));
	sys(close, file);
	copy(fd, base, source, page, 2);
	if (!setjmp(bus_jump)) {
		base[4] = 1;
		say("  written\n");
	}
	say("  value %d\n", (long)base[4]);
	try("message", sys(read, fd, msg, 32));
	sys(close, fd);
	base[5 * page] = 1;

	say("killed while it waits\n");
	long child = fork();

	if (!child) {
		fd = uffd(0, 0);
		register_(fd, base + 8 * page, 8 * page, MISSING);
		base += 8 * page;
		start(touch_read);
		next(fd);
		start_in(1, call_futex);
		next(fd);
		finish(7);
	}
	say("  status %d\n", (long)wait_for(child));
}

static void protection(void)
{
	long fd = uffd(NONBLOCK, 0);
	struct { int fd; short events, revents; } poll = { fd, 1, 0 };
	long second[2] = { 0, 0 };

	say("write protection\n");
	reset();
	base[0] = 1, base[page] = 2, value = base[2 * page];
	register_(fd, base, 8 * page, WP);
	protect(fd, base, 8 * page, 1);
	say("  polled %d\n", sys(ppoll, &poll, 1, second, 0, 8));
	sys(close, fd);
	fd = uffd(0, 0);
	register_(fd, base, 8 * page, WP);
	protect(fd, base, 3 * page, 1);
	start(touch_write);
#ifdef __x86_64__
	next(fd);
	protect(fd, base + page, page, 0);
#endif
	join();
	say("  value %d\n", value);
	areas();
	say("  free to read %d, and to write\n", (long)base[0]);
	base[2 * page + 4 * page] = 7;
	register_(fd, base, 8 * page, WP | MISSING);
	copy(fd, base + 7 * page, source, page, 2);
	sys(mprotect, base, 8 * page, PROT_READ);
	sys(mprotect, base, 8 * page, RW);
	base += 6 * page;
	start(touch_write);
#ifdef __x86_64__
	next(fd);
	protect(fd, base + page, page, 0);
#endif
	join();
	base -= 6 * page;
	say("  value %d\n", value);
	protect(fd, base, page, 1);
	long child = fork();

	if (!child) {
		base[0] = 9;
		say("  the child writes\n");
		areas();
		finish(0);
	}
	wait_for(child);
	sys(close, fd);
	base[0] = 10;
	base[page] = 11;
	say("  closed: free\n");
}

static long the_fd, child_status;
static void do_fork(void)
{
	long child = sys(clone, SIGCHLD, 0, 0, 0, 0);

	if (!child) {
		value = base[0];
		for (;;)
			sys(exit_group, base[page]);
	}
	child_status = 0;
	sys(wait4, child, &child_status, 0, 0);
}
static void do_remap(void)
{
	u8 *to = (u8 *)sys(mremap, base, 2 * page, 2 * page, 3, base + 12 * page);

	value = to[0];
}
static void do_remove(void) { value = sys(madvise, base + 4 * page, 4 * page, 4); }
static void do_free(void) { value = sys(madvise, base + 4 * page, 2 * page, 8); }
static void do_unmap(void) { value = sys(munmap, base + page, 6 * page); }
static void do_map(void) { value = sys(mmap, base, 2 * page, RW, ANON | MAP_FIXED, -1, 0) > 0; }
static void do_hole(void) { value = sys(madvise, base, 2 * page, 9); }

static void events(void)
{
	long fd = uffd(0, EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP), child;

	say("events: fork\n");
	reset();
	fill(60);
	register_(fd, base, 8 * page, MISSING);
	copy(fd, base, source, page, 0);
	the_fd = fd;
	value = 0;
	start(do_fork);
	next(fd);
	child = msg[1] & 0xffffffff;
	ulong at = next(child);

	copy(child, at, source + page, page, 0);
	join();
	say("  the child ended with %d\n", child_status >> 8);
	sys(close, child);

	say("events: remap\n");
	start(do_remap);
	next(fd);
	next(fd);
	join();
	say("  value %d\n", value);
	areas();
	say("events: remove\n");
	copy(fd, base + 4 * page, source, 4 * page, 0);
	start(do_remove);
	next(fd);
	join();
	start(do_free);
	next(fd);
	join();
	say("  value %d\n", value);
	try("zero the first", zeropage(fd, base + 4 * page, page, 0));
	say("events: unmap\n");
	start(do_unmap);
	next(fd);
	join();
	say("  value %d\n", value);
	areas();
	say("events: unmapped by a mapping above\n");
	start(reset);
	next(fd);
	join();
	register_(fd, base, 4 * page, MISSING);
	start(do_map);
	next(fd);
	try("copy after that", copy(fd, base + 3 * page, source, page, 0));
	join();
	areas();
	say("events: nobody reads\n");
	start(do_remove);
	sys(close, fd);
	join();
	say("  value %d\n", value);
	areas();
	fd = uffd(0, 0);
	register_(fd, base, 4 * page, MISSING);
	say("no events: remap\n");
	copy(fd, base, source, page, 0);
	do_remap();
	areas();
	say("no events: fork\n");
	child = fork();
	if (!child) {
		areas();
		value = base[3 * page];
		say("  value %d\n", value);
		finish(0);
	}
	wait_for(child);
	sys(close, fd);
}

static void shmem(void)
{
	long fd = uffd(0, EVENT_REMOVE), mem = sys(memfd_create, "m", 0);
	u8 *view;

	say("shmem\n");
	sys(munmap, base, 16 * page);
	sys(ftruncate, mem, 4 * page);
	sys(mmap, base, 8 * page, RW, MAP_SHARED | MAP_FIXED, mem, 0);
	view = (u8 *)sys(mmap, 0, 4 * page, RW, MAP_SHARED, mem, 0);
	register_(fd, base, 8 * page, MISSING);
	say("  ioctls %x\n", io[3]);
	fill(70);
	serve("shmem read", fd, touch_read, 1);
	serve("shmem write", fd, touch_write, 1);
	say("  the file has %d %d\n", (long)view[0], (long)view[page]);
	view[2 * page] = 3;
	try("cached", copy(fd, base + 2 * page, source, page, 0));
	say("  %d\n", io[4]);
	say("  %d\n", (long)base[2 * page]);
	try("beyond the end", copy(fd, base + 5 * page, source, page, 0));
	say("  %d\n", io[4]);
	try("zero", zeropage(fd, base + 3 * page, page, 0));
	say("  %d %d\n", (long)view[3 * page], (long)base[3 * page]);
	start(do_hole);
	next(fd);
	join();
	say("  value %d\n", value);
	handle(SIGBUS, on_bus, SA_NODEFER, 0);
	if (!setjmp(bus_jump))
		value = base[5 * page];
	sys(mmap, base, 4 * page, RW, MAP_PRIVATE | MAP_FIXED, mem, 0);
	register_(fd, base, 4 * page, MISSING);
	serve("shmem, private", fd, touch_write, 1);
	serve("shmem, private, read", fd, touch_read, 1);
	say("  the file has %d %d\n", (long)view[0], (long)view[page]);
	sys(close, fd);
	sys(munmap, view, 4 * page);
	sys(close, mem);
	areas();
	reset();
}

static void privileges(void)
{
	long fd = sys(openat, AT_FDCWD, "/proc/sys/vm/unprivileged_userfaultfd", O_RDWR, 0), child = fork();

	say("privileges\n");
	if (!child) {
		sys(setuid, 1000);
		long user = try("an ordinary user", sys(userfaultfd, 0));

		try("who wants to follow forks", call(user, API, 0xaa, EVENT_FORK, 0, 0));
		say("  %x %x %x\n", io[0], io[1], io[2]);
		finish(0);
	}
	wait_for(child);
	sys(write, fd, "0", 1);
	child = fork();
	if (!child) {
		try("root", sys(userfaultfd, 0));
		sys(setuid, 1000);
		try("an ordinary user", sys(userfaultfd, 0));
		finish(0);
	}
	wait_for(child);
	sys(write, fd, "1", 1);
	sys(close, fd);
}

static int run(void)
{
	base = map(0, 24, RW, ANON);
	sys(munmap, base, 24 * page);
	base += 4 * page;
	map(base, 16, RW, ANON | MAP_FIXED);
	refusals();
	layout();
	faults(0);
	faults(THREAD_ID);
	signals();
	protection();
	events();
	shmem();
	privileges();
	return 0;
}
