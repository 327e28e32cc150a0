/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the guest programs stand on: no C library, so that every system call and every page they touch is written down
 * in the program itself. System calls, a small printf, checks, signal handlers, and /proc/self/maps as a picture.
 *
 * A program defines run(), returns its exit status (0: the behaviour held), and is built for both architectures.
 */
typedef unsigned long ulong;
typedef unsigned char u8;
typedef unsigned int u32;

#define NULL ((void *)0)
#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define RW (PROT_READ | PROT_WRITE)
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_FIXED 16
#define MAP_ANONYMOUS 32
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define O_RDONLY 0
#define O_RDWR 2
#define O_CREAT 0100
#define O_TRUNC 01000
#define AT_FDCWD -100
#define EINTR 4
#define ENOMEM 12
#define EFAULT 14
#define SIGILL 4
#define SIGBUS 7
#define SIGUSR1 10
#define SIGSEGV 11
#define SIGUSR2 12
#define SIGCHLD 17
#define SA_SIGINFO 4ul
#define SA_RESTORER 0x04000000ul
#define SA_ONSTACK 0x08000000ul
#define SA_RESTART 0x10000000ul
#define SA_NODEFER 0x40000000ul
#define RLIMIT_STACK 3

/* One name, two numbers: x86-64's and arm64's. */
#ifdef __x86_64__
#define CALL(name, x86, arm) SYS_##name = x86
#define ARCH "x86-64"
#else
#define CALL(name, x86, arm) SYS_##name = arm
#define ARCH "arm64"
#endif
enum {
	CALL(read, 0, 63), CALL(write, 1, 64), CALL(close, 3, 57), CALL(mmap, 9, 222), CALL(mprotect, 10, 226),
	CALL(munmap, 11, 215), CALL(brk, 12, 214), CALL(rt_sigaction, 13, 134), CALL(rt_sigprocmask, 14, 135),
	CALL(rt_sigreturn, 15, 139), CALL(nanosleep, 35, 101), CALL(getpid, 39, 172), CALL(clone, 56, 220),
	CALL(execve, 59, 221), CALL(wait4, 61, 260), CALL(kill, 62, 129), CALL(ftruncate, 77, 46), CALL(getrusage, 98, 165),
	CALL(getppid, 110, 173), CALL(sigaltstack, 131, 132), CALL(clock_gettime, 228, 113), CALL(exit_group, 231, 94),
	CALL(openat, 257, 56), CALL(pipe2, 293, 59), CALL(prlimit64, 302, 261),
};

#ifdef __x86_64__
static long syscall6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long result;

	asm volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
}
asm(".globl _start\n"
    "_start: xor %ebp, %ebp\n"
    "	mov %rsp, %rdi\n"
    "	and $-16, %rsp\n"
    "	call guest_main\n"
    "	hlt\n"
    "sigreturn: mov $15, %eax\n"
    "	syscall\n"
    "setjmp: mov (%rsp), %rax\n"
    "	mov %rbx, (%rdi)\n	mov %rbp, 8(%rdi)\n	mov %r12, 16(%rdi)\n	mov %r13, 24(%rdi)\n"
    "	mov %r14, 32(%rdi)\n	mov %r15, 40(%rdi)\n	mov %rsp, 48(%rdi)\n	mov %rax, 56(%rdi)\n"
    "	xor %eax, %eax\n"
    "	ret\n"
    "longjmp: mov %esi, %eax\n"
    "	mov (%rdi), %rbx\n	mov 8(%rdi), %rbp\n	mov 16(%rdi), %r12\n	mov 24(%rdi), %r13\n"
    "	mov 32(%rdi), %r14\n	mov 40(%rdi), %r15\n	mov 48(%rdi), %rsp\n	mov 56(%rdi), %rdx\n"
    "	mov %rdx, (%rsp)\n"
    "	ret\n");
/* Offsets in the ucontext a handler gets. */
enum { UC_PC = 168, UC_ERROR_CODE = 192, UC_FAULT_ADDRESS = 216 };
#else
static long syscall6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 asm("x8") = n, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c, x3 asm("x3") = d,
		      x4 asm("x4") = e, x5 asm("x5") = f;

	asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
asm(".globl _start\n"
    "_start: mov x29, #0\n"
    "	mov x30, #0\n"
    "	mov x0, sp\n"
    "	bl guest_main\n"
    "setjmp: stp x19, x20, [x0]\n	stp x21, x22, [x0, #16]\n	stp x23, x24, [x0, #32]\n"
    "	stp x25, x26, [x0, #48]\n	stp x27, x28, [x0, #64]\n	stp x29, x30, [x0, #80]\n"
    "	mov x1, sp\n	str x1, [x0, #96]\n	mov w0, #0\n	ret\n"
    "longjmp: ldp x19, x20, [x0]\n	ldp x21, x22, [x0, #16]\n	ldp x23, x24, [x0, #32]\n"
    "	ldp x25, x26, [x0, #48]\n	ldp x27, x28, [x0, #64]\n	ldp x29, x30, [x0, #80]\n"
    "	ldr x2, [x0, #96]\n	mov sp, x2\n	mov w0, w1\n	ret\n");
enum { UC_FAULT_ADDRESS = 176, UC_PC = 440 };
#endif
typedef ulong jmp_buf[13];
int setjmp(jmp_buf) __attribute__((returns_twice));
void longjmp(jmp_buf, int) __attribute__((noreturn));

#define SELECT(_0, _1, _2, _3, _4, _5, _6, name, ...) name
#define S0(n) syscall6(n, 0, 0, 0, 0, 0, 0)
#define S1(n, a) syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define S2(n, a, b) syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define S3(n, a, b, c) syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define S4(n, a, b, c, d) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define S5(n, a, b, c, d, e) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define S6(n, a, b, c, d, e, f) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* sys(name, arguments...) */
#define sys(...) SELECT(__VA_ARGS__, S6, S5, S4, S3, S2, S1, S0)(SYS_##__VA_ARGS__)

#define UNUSED __attribute__((unused))
#define NOINLINE __attribute__((noinline))

/* The compiler may call these two on its own. */
void *memset(void *to, int c, ulong n)
{
	u8 *p = to;

	while (n--)
		*p++ = c;
	return to;
}
void *memcpy(void *to, const void *from, ulong n)
{
	u8 *p = to;
	const u8 *q = from;

	while (n--)
		*p++ = *q++;
	return to;
}
static UNUSED int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Output is gathered and written in one call, at the end or by flush(). Initialised, so that it lies in the data segment. */
static struct {
	int used;
	char text[8188];
} out = { 0, "-" };

static void flush(void)
{
	sys(write, 1, out.text, out.used);
	out.used = 0;
}
static void put(char c)
{
	if (out.used == sizeof out.text)
		flush();
	out.text[out.used++] = c;
}
static void put_number(ulong value, int base)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n)
		put(digits[--n]);
}
/* say(format, ...): %d long, %x ulong, %s text, %c character */
static void say(const char *format, ...)
{
	__builtin_va_list ap;

	__builtin_va_start(ap, format);
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		switch (*++format) {
		case 'd': {
			long value = __builtin_va_arg(ap, long);

			if (value < 0)
				put('-');
			put_number(value < 0 ? -value : value, 10);
			break;
		}
		case 'x':
			put_number(__builtin_va_arg(ap, ulong), 16);
			break;
		case 'c':
			put(__builtin_va_arg(ap, int));
			break;
		case 's':
			for (const char *s = __builtin_va_arg(ap, const char *); *s; s++)
				put(*s);
		}
	}
	__builtin_va_end(ap);
}
static void __attribute__((noreturn)) finish(int status)
{
	flush();
	for (;;)
		sys(exit_group, status);
}
/* CHECK(condition): or say where and end with status 1. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			say("line %d: not so: %s\n", (long)__LINE__, #condition); \
			finish(1); \
		} \
	} while (0)

static ulong page; /* the running page size, from the auxiliary vector */

static UNUSED u8 *map(void *address, ulong pages, int prot, int flags)
{
	long result = sys(mmap, address, pages * page, prot, flags, -1, 0);

	CHECK(result >= 0);
	return (u8 *)result;
}
static UNUSED long fork(void)
{
	flush();
	return sys(clone, SIGCHLD, 0, 0, 0, 0);
}
/* Wait for one child; its status as the shell counts it. */
static UNUSED int wait_for(long pid)
{
	int status = 0;

	CHECK(sys(wait4, pid, &status, 0, 0) == pid);
	return status & 127 ? 128 + (status & 127) : status >> 8 & 255;
}
static UNUSED void sleep_ms(long ms)
{
	long time[2] = { ms / 1000, ms % 1000 * 1000000 };

	sys(nanosleep, time, 0);
}

struct siginfo {
	int signo, error, code, pad;
	ulong address;
};
typedef void handler_t(int signo, struct siginfo *info, u8 *context);
#ifdef __x86_64__
void sigreturn(void);
#endif
/* rt_sigaction; arm64 returns through the vDSO's trampoline. */
static UNUSED void handle(int signo, handler_t *handler, ulong flags, ulong mask)
{
#ifdef __x86_64__
	ulong action[4] = { (ulong)handler, flags | SA_SIGINFO | SA_RESTORER, (ulong)sigreturn, mask };
#else
	ulong action[4] = { (ulong)handler, flags | SA_SIGINFO, 0, mask };
#endif
	CHECK(sys(rt_sigaction, signo, action, 0, 8) == 0);
}
static UNUSED ulong context_word(const u8 *context, int offset)
{
	return *(const ulong *)(context + offset);
}

/* /proc files, read whole. */
static char file_text[65536];
static UNUSED char *read_file(const char *path)
{
	long fd = sys(openat, AT_FDCWD, path, O_RDONLY, 0), n, used = 0;

	CHECK(fd >= 0);
	while ((n = sys(read, fd, file_text + used, sizeof file_text - 1 - used)) > 0)
		used += n;
	sys(close, fd);
	file_text[used] = 0;
	return file_text;
}
static UNUSED ulong number(char **text, int base)
{
	ulong value = 0;

	for (;; ++*text) {
		int c = **text, digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;

		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}
/* The number behind `key` in a file of "Key:   123 kB" lines. */
static UNUSED ulong field(const char *path, const char *key)
{
	for (char *p = read_file(path); *p; p++) {
		const char *k = key;
		char *q = p;

		while (*k && *k == *q)
			k++, q++;
		if (!*k) {
			while (*q == ':' || *q == ' ' || *q == '\t')
				q++;
			return number(&q, 10);
		}
		while (*p && *p != '\n')
			p++;
		if (!*p)
			break;
	}
	return -1ul;
}
/* One area of /proc/self/maps: start, end, four letters of protection; returns the text behind the line, or NULL. */
static UNUSED char *area(char *text, ulong *start, ulong *end, char prot[5])
{
	if (!*text)
		return NULL;
	*start = number(&text, 16);
	text++;
	*end = number(&text, 16);
	text++;
	for (int i = 0; i < 4; i++)
		prot[i] = *text++;
	prot[4] = 0;
	while (*text && *text++ != '\n')
		;
	return text;
}
/*
 * Draw the areas of [from, from + pages): a letter a page, neighbours divided by '|'.
 * '.' nothing mapped, '-' no access, r read, w write, x execute, R and W likewise when shared.
 */
static UNUSED void draw(const u8 *from, ulong pages)
{
	ulong at = (ulong)from, to = at + pages * page, last = 0, start, end;
	char *text = read_file("/proc/self/maps"), prot[5];

	put('[');
	while ((text = area(text, &start, &end, prot)) && start < to) {
		char c = prot[2] == 'x' ? 'x' : prot[1] == 'w' ? 'w' : prot[0] == 'r' ? 'r' : '-';

		if (end <= at)
			continue;
		for (; at < start; at += page)
			put('.');
		if (last == start && last > (ulong)from)
			put('|');
		for (; at < end && at < to; at += page)
			put(prot[3] == 's' && c != '-' ? c - 32 : c);
		last = end;
	}
	for (; at < to; at += page)
		put('.');
	put(']');
}
static UNUSED long count_areas(void)
{
	ulong start, end;
	char *text = read_file("/proc/self/maps"), prot[5];
	long n = 0;

	while ((text = area(text, &start, &end, prot)))
		n++;
	return n;
}
/* Page faults without input or output of this process so far (getrusage). */
static UNUSED long minor_faults(void)
{
	long usage[18];

	sys(getrusage, 0, usage);
	return usage[8];
}

static char **arguments; /* argv */
static int run(void);

void __attribute__((noreturn, used)) guest_main(ulong *stack)
{
	ulong *aux = stack + stack[0] + 2;

	arguments = (char **)(stack + 1);
	while (*aux++)
		;
	for (; aux[0]; aux += 2)
		if (aux[0] == 6)
			page = aux[1];
	finish(run());
}
