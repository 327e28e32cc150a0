/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Asynchronous I/O: what is refused, the ring in memory and in maps, reads and writes of every kind, events taken by call
 * and by hand, polls and their cancellation, eventfds, waiting with a timeout and with signals, slots that run out, mremap,
 * fork, exit. Results are shown as numbers, errors negative.
 */
#include "guest.h"

enum {
	CALL(io_setup, 206, 0), CALL(io_destroy, 207, 1), CALL(io_getevents, 208, 4), CALL(io_submit, 209, 2),
	CALL(io_cancel, 210, 3), CALL(io_pgetevents, 333, 292), CALL(mremap, 25, 216), CALL(eventfd2, 290, 19),
	CALL(pread64, 17, 67), CALL(setitimer, 38, 103), CALL(memfd_create, 319, 279), CALL(timerfd_create, 283, 85),
	CALL(epoll_create1, 291, 20), CALL(socketpair, 53, 199), CALL(lseek, 8, 62), CALL(signalfd4, 289, 74),
	CALL(inotify_init1, 294, 26), CALL(mlockall, 151, 230), CALL(fcntl, 72, 25),
};
enum { PREAD, PWRITE, FSYNC, FDSYNC, POLL = 5, NOOP, PREADV, PWRITEV };
enum { MS = 1000000 };
typedef struct { long s, ns; } timespec;
typedef struct {
	ulong data;
	u32 key, rw_flags;
	unsigned short opcode;
	short prio;
	u32 fd;
	ulong buf, nbytes, offset, reserved;
	u32 flags, resfd;
} iocb;
typedef struct { ulong data, obj; long res, res2; } event;
struct ring { u32 id, nr, head, tail, magic, compat, incompat, header; event events[]; };

static ulong ctx;
static iocb cbs[8];
static iocb *list[8];
static event events[300];
static char buffer[64];
static struct { const void *at; ulong length; } vec[4];

static iocb *cb(int i, int opcode, int fd, const void *buf, ulong nbytes, ulong offset)
{
	cbs[i] = (iocb){ .data = 100 + i, .opcode = opcode, .fd = fd, .buf = (ulong)buf, .nbytes = nbytes, .offset = offset };
	cbs[i].key = 7; /* the kernel sets it */
	return list[0] = &cbs[i];
}
static long submit(int n)
{
	return sys(io_submit, ctx, n, list);
}
static long take(long min, long max)
{
	timespec soon = { 0, 50 * MS };

	return sys(io_getevents, ctx, min, max, events, &soon);
}
/* Submit one request, and show what that says and the event: of which request, its result. */
static void got(long min, long max)
{
	long n = take(min, max);

	say(" %d", n);
	for (int i = 0; i < n; i++) {
		say(":%d", events[i].data);
		say("=%d", events[i].res);
	}
}
static void one(const char *name, iocb *c)
{
	long n;

	say(" %s %d", name, submit(1));
	n = take(0, 9);
	for (int i = 0; i < n; i++) {
		say(":%d", events[i].data);
		say("=%d", events[i].res);
		if (events[i].obj != (ulong)c || events[i].res2)
			say("?");
	}
}
static void show_ring(const char *what)
{
	struct ring *r = (struct ring *)ctx;

	say("%s: id %d nr %d head %d tail %d magic %x", what, (long)r->id, (long)r->nr, (long)r->head, (long)r->tail, (ulong)r->magic);
	say(" %d %d %d\n", (long)r->compat, (long)r->incompat, (long)r->header);
}
/* The lines of a file about the ring: of maps without inode, of smaps whole. */
static void show_maps(const char *file, int lines)
{
	char *text = read_file(file);

	while (*text) {
		char *p = text, *end, *name = 0;
		ulong start, last;

		for (end = text; *end != '\n'; end++)
			if (end[0] == '/' && end[1] == '[' && end[2] == 'a')
				name = end;
		if (name) {
			start = number(&p, 16);
			p++;
			last = number(&p, 16);
			say("  %s pages %d", start == ctx ? "ctx" : "elsewhere", (last - start) / page);
			for (int i = 0; i < 5; i++)
				put(*p++);
			put(' ');
			for (; name <= end; name++)
				put(*name);
			for (int i = 0; i < lines; i++)
				do
					put(*++end);
				while (*end != '\n');
		}
		text = end + 1;
	}
}
static long setup(u32 nr)
{
	ctx = 0;
	return sys(io_setup, nr, &ctx);
}
static void refusals(void)
{
	ulong some = 5, zero = 0;
	u8 *read_only = map(NULL, 1, PROT_READ, ANON);

	say("setup: %d %d %d %d", sys(io_setup, 0, &zero), sys(io_setup, 1, &some), sys(io_setup, 1, 8), sys(io_setup, 0, 8));
	say(" %d %d %d %d %d", sys(io_setup, 0x10001, &zero), sys(io_setup, 0x400001, &zero), sys(io_setup, 0xffffffff, &zero),
	    sys(io_setup, 0x80000000, &zero), sys(io_setup, 3, read_only));
	say(" ctx %d aio-nr %s", zero, read_file("/proc/sys/fs/aio-nr"));
	say("no context: %d %d %d %d %d", sys(io_destroy, 0), sys(io_destroy, &zero), sys(io_submit, 0, 1, list), sys(io_getevents, 8, 0, 1, events, 0),
	    sys(io_submit, 0, -1, list));
	cb(0, PREAD, 0, buffer, 1, 0);
	say(" cancel %d %d", sys(io_cancel, 0, &cbs[0], 0), sys(io_cancel, 0, 8, 0));
	cbs[0].key = 0;
	say(" %d timeout %d %d\n", sys(io_cancel, 0, &cbs[0], 0), sys(io_getevents, 0, 0, 1, events, 8), sys(io_pgetevents, 0, 0, 1, events, 0, 8));
	CHECK(setup(1) == 0);
	say("submit: none %d minus %d list %d entry %d", submit(0), submit(-1), sys(io_submit, ctx, 1, 8), (list[0] = (iocb *)8, submit(1)));
	list[0] = NULL;
	say(" null %d", submit(1));
	one("bad fd", cb(0, PREAD, 99, buffer, 1, 0));
	say(" key %d", (long)cbs[0].key);
	one("noop", cb(0, NOOP, 1, 0, 0, 0));
	say(" key %d", (long)cbs[0].key);
	one("opcode", cb(0, 4, 1, 0, 0, 0));
	one("opcode", cb(0, 9, 1, 0, 0, 0));
	cb(0, PREAD, 1, buffer, 1, 0)->reserved = 1;
	one("reserved", cbs);
	one("length", cb(0, PREAD, 1, buffer, -1ul, 0));
	cb(0, PREAD, 1, buffer, 1, 0)->flags = 1, cbs[0].resfd = 99;
	one("resfd", cbs);
	cbs[0].resfd = 1;
	one("resfd", cbs);
	say("\nget: %d %d %d %d", take(1, 0), take(-1, 1), take(0, 0), take(1, 1));
	say(" pget mask %d\n", sys(io_pgetevents, ctx, 0, 1, events, 0, ((ulong[]){ (ulong)&zero, 4 })));
	sys(munmap, read_only, page);
}
static void ring(void)
{
	show_ring("ring");
	show_maps("/proc/self/maps", 0);
	say("  smaps:");
	show_maps("/proc/self/smaps", 22);
	say("  exec %d\n", sys(mprotect, ctx, page, PROT_READ | 4));
}
static void files(void)
{
	long fd = sys(openat, AT_FDCWD, "/tmp/aio", O_RDWR | O_CREAT | O_TRUNC, 0600), ro = sys(openat, AT_FDCWD, "/tmp/aio", O_RDONLY, 0);
	u8 *read_only = map(NULL, 1, PROT_READ, ANON);

	say("files:");
	one("write", cb(0, PWRITE, fd, "hello asynchronous world", 24, 0));
	say(" at %d", sys(lseek, fd, 0, 1));
	one("read", cb(1, PREAD, fd, buffer, 11, 6));
	say(" %s", buffer);
	one("end", cb(1, PREAD, fd, buffer, 50, 20));
	one("behind", cb(1, PREAD, fd, buffer, 50, 100));
	one("none", cb(1, PREAD, fd, buffer, 0, 0));
	one("write none", cb(1, PWRITE, fd, buffer, 0, 0));
	one("minus", cb(1, PREAD, fd, buffer, 1, -1ul));
	one("minus none", cb(1, PREAD, fd, buffer, 0, -1ul));
	one("far", cb(1, PWRITE, fd, buffer, 1, 0x7ffffffffffffffful));
	one("fault", cb(1, PREAD, fd, (void *)8, 5, 0));
	one("read-only memory", cb(1, PREAD, fd, read_only, 5, 0));
	one("kernel", cb(1, PREAD, fd, (void *)-4096, 5, 0));
	one("write fault", cb(1, PWRITE, fd, (void *)8, 5, 0));
	one("not to write", cb(1, PWRITE, ro, buffer, 5, 0));
	vec[0].at = buffer, vec[0].length = 5, vec[1].at = buffer + 8, vec[1].length = 3;
	say("\n ");
	one("readv", cb(2, PREADV, fd, vec, 2, 0));
	one("writev", cb(2, PWRITEV, fd, vec, 2, 30));
	one("vec none", cb(2, PREADV, fd, vec, 0, 0));
	one("vec many", cb(2, PREADV, fd, vec, 1025, 0));
	one("vec fault", cb(2, PREADV, fd, (void *)8, 1, 0));
	cb(3, PWRITE, fd, "end", 3, 0)->rw_flags = 16;
	one("append", &cbs[3]);
	say(" size %d", sys(lseek, fd, 0, 2));
	cb(3, PWRITE, fd, "end", 3, 0)->rw_flags = 7;
	one("sync", &cbs[3]);
	cbs[3].rw_flags = 8;
	one("nowait", &cbs[3]);
	cbs[3].rw_flags = 64;
	one("flags", &cbs[3]);
	for (int class = 0; class < 5; class++) {
		cb(3, PREAD, fd, buffer, 3, 0)->flags = 2;
		cbs[3].prio = class << 13 | (class == 2 ? 9 : class == 0);
		one("prio", &cbs[3]);
	}
	cb(3, PREAD, fd, buffer, 3, 0)->flags = 12;
	one("other flags", &cbs[3]);
	say("\n ");
	cb(4, FSYNC, fd, 0, 0, 0);
	say("fsync %d", submit(1));
	sleep_ms(5);
	got(1, 9);
	one("fdsync arguments", cb(4, FDSYNC, fd, 0, 1, 0));
	one("poll", cb(4, POLL, fd, (void *)1, 0, 0));
	one("poll other", cb(4, POLL, fd, (void *)2, 0, 0));
	one("poll bits", cb(4, POLL, fd, (void *)0x10001, 0, 0));
	one("poll arguments", cb(4, POLL, fd, (void *)1, 0, 1));
	sys(munmap, read_only, page);
	sys(close, fd);
	sys(close, ro);
	say("\n");
}
static void kinds(void)
{
	static const char *const names[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/proc/self/maps", "/proc/version",
					     "/proc/sys/vm/swappiness", "/sys/kernel/mm/transparent_hugepage/enabled", "/tmp" };
	int pair[2];
	ulong mask = 1ul << 9;

	say("kinds:");
	for (int i = 0; i < 9; i++) {
		long fd = sys(openat, AT_FDCWD, names[i], i < 3 ? O_RDWR : O_RDONLY, 0);

		if (fd < 0)
			continue;
		say("%s\n  %s:", i ? "" : "", names[i]);
		one("read", cb(0, PREAD, fd, buffer, 4, 0));
		if (i == 3)
			continue;
		one("write", cb(0, PWRITE, fd, "abcd", 4, 0));
		one("poll", cb(0, POLL, fd, (void *)0x45, 0, 0));
		if (i < 4 || i > 7)
			say(" fsync %d", (cb(0, FSYNC, fd, 0, 0, 0), submit(1)));
		sleep_ms(5);
		take(0, 9);
		sys(close, fd);
	}
	long timer = sys(timerfd_create, 1, 0), epoll = sys(epoll_create1, 0), signals = sys(signalfd4, -1, &mask, 8, 0), efd = sys(eventfd2, 3, 0);

	say("\n  timerfd:");
	one("read", cb(0, PREAD, timer, buffer, 8, 0));
	say(" epoll:");
	one("read", cb(0, PREAD, epoll, buffer, 8, 0));
	say(" signalfd:");
	one("read", cb(0, PREAD, signals, buffer, 128, 0));
	say(" eventfd:");
	one("read", cb(0, PREAD, efd, buffer, 8, 0));
	one("write", cb(0, PWRITE, efd, buffer, 8, 0));
	one("poll", cb(0, POLL, efd, (void *)4, 0, 0));
	one("fsync", cb(0, FSYNC, efd, 0, 0, 0));
	sys(socketpair, 1, 1, 0, pair);
	say("\n  socket:");
	one("write", cb(0, PWRITE, pair[0], "socket", 6, 0));
	one("read", cb(0, PREAD, pair[1], buffer, 9, 0));
	one("read at", cb(0, PREAD, pair[1], buffer, 9, 5));
	one("fsync", cb(0, FSYNC, pair[1], 0, 0, 0));
	sys(pipe2, pair, 0);
	say(" pipe:");
	one("write", cb(0, PWRITE, pair[1], "piped", 5, 77));
	one("read", cb(0, PREAD, pair[0], buffer, 3, 99));
	one("read", cb(0, PREAD, pair[0], buffer, 3, 0));
	one("wrong end", cb(0, PREAD, pair[1], buffer, 3, 0));
	one("fsync", cb(0, FSYNC, pair[1], 0, 0, 0));
	sys(close, pair[0]);
	handle(13, (handler_t *)1, 0, 0);
	one("broken", cb(0, PWRITE, pair[1], "piped", 5, 77));
	say("\n");
}
static void many(void)
{
	int pair[2];

	sys(pipe2, pair, 0);
	say("many:");
	for (int i = 0; i < 3; i++)
		cb(i, PWRITE, pair[1], "abc" + i, 1, 0), list[i] = &cbs[i];
	list[0] = &cbs[0];
	say(" three %d", submit(3));
	cbs[1].fd = 99;
	say(" second bad %d", submit(3));
	list[2] = (iocb *)8;
	cbs[1].fd = pair[1];
	say(" third not there %d", submit(3));
	show_ring("");
	say("  two of them");
	got(1, 2);
	say(" where %d", sys(io_getevents, ctx, 1, 2, 8, 0));
	say(" rest %d\n", take(1, 9));
	show_ring(" ");
}
static void by_hand(void)
{
	struct ring *r = (struct ring *)ctx;
	long fd = sys(openat, AT_FDCWD, "/dev/zero", O_RDWR, 0), n = 0;
	event *e;

	cb(0, PREAD, fd, buffer, 5, 0);
	submit(1);
	e = &r->events[r->head];
	say("by hand: data %d res %d obj %d", e->data, e->res, (long)(e->obj == (ulong)&cbs[0]));
	r->head = (r->head + 1) % r->nr;
	say(" then %d", take(1, 1));
	for (int round = 0; round < 3; round++) {
		for (n = 0; n < 1000 && submit(1) == 1; n++)
			;
		say(" room for %d", n);
		say(" last %d", submit(1));
		r->head = (r->head + 10) % r->nr;
	}
	say(" taken %d", take(1, 300));
	say(" %d", take(1, 9));
	r->head = 100000;
	say(" wild head %d", sys(io_getevents, ctx, 0, 300, events, 0) >= 0);
	r->head = r->tail;
	r->tail = 0xfffffff0;
	r->nr = 3;
	say(" wild tail %d", sys(io_getevents, ctx, 0, 300, events, 0) >= 0);
	submit(1);
	say(" after %d", take(0, 300) >= 0);
	r->id = 77;
	say(" wild id %d", submit(1));
	r->id = 0;
	say(" %d\n", submit(1));
}
static volatile int rang;
static void ring_bell(int signo UNUSED, struct siginfo *info UNUSED, u8 *context UNUSED)
{
	rang++;
}
static void alarm_in(long ms)
{
	long value[4] = { 0, 0, 0, ms * 1000 };

	sys(setitimer, 0, value, 0);
}
static void polls(void)
{
	int p[2], n;
	long efd = sys(eventfd2, 0, 2048), count, child;
	timespec past = { -1, 0 }, zero = { 0, 0 }, odd = { -1, 20 * MS + 1000000000l };
	ulong value = 0;

	CHECK(sys(io_destroy, ctx) == 0);
	CHECK(setup(1) == 0);
	sys(pipe2, p, 0);
	say("polls:");
	one("ready", cb(0, POLL, p[1], (void *)4, 0, 0));
	cb(1, POLL, p[0], (void *)1, 0, 0)->flags = 1;
	cbs[1].resfd = efd;
	one("not yet", &cbs[1]);
	say(" eventfd %d", sys(read, efd, &value, 8));
	sys(write, p[1], "x", 1);
	say(" now");
	got(1, 9);
	say(" eventfd %d", sys(read, efd, &value, 8));
	say(" %d", value);
	one("again", cb(1, POLL, p[0], (void *)1, 0, 0));
	sys(read, p[0], buffer, 9);
	cb(2, POLL, p[0], (void *)1, 0, 0);
	say("\n  cancel: before %d", sys(io_cancel, ctx, &cbs[2], events));
	submit(1);
	say(" %d", sys(io_cancel, ctx, &cbs[2], events));
	sleep_ms(5);
	say(" again %d", sys(io_cancel, ctx, &cbs[2], events));
	got(1, 9);
	submit(1);
	sys(close, p[1]);
	sleep_ms(5);
	say(" closed");
	got(1, 9);
	sys(pipe2, p, 0);
	cb(3, POLL, p[0], (void *)1, 0, 0);
	submit(1);
	sys(close, p[0]); /* the request holds it */
	say(" held %d", sys(write, p[1], "y", 1));
	got(1, 9);
	say("\n");
	sys(close, p[1]);

	sys(pipe2, p, 0);
	cb(4, POLL, p[0], (void *)1, 0, 0);
	for (n = 0; n < 1000 && submit(1) == 1; n++)
		;
	say("  slots %d", (long)n);
	say(" %d", submit(1));
	sys(write, p[1], "z", 1);
	for (count = 0; (n = sys(io_getevents, ctx, 0, 100, events, &zero)) > 0; count += n)
		;
	say(" all %d", count);
	sys(read, p[0], buffer, 9);
	submit(1);
	say("\n  waits: zero %d", sys(io_getevents, ctx, 1, 1, events, &zero));
	say(" late %d", sys(io_getevents, ctx, 1, 1, events, &odd));
	handle(14, ring_bell, 0, 0);
	alarm_in(10);
	say(" negative is for ever %d", sys(io_getevents, ctx, 1, 1, events, &past));
	alarm_in(10);
	say(" signal %d", sys(io_getevents, ctx, 1, 1, events, 0));
	value = 1ul << 13;
	ulong sig[2] = { (ulong)&value, 8 };
	timespec later = { 0, 40 * MS };
	rang = 0;
	alarm_in(10);
	n = sys(io_pgetevents, ctx, 1, 1, events, &later, sig);
	say(" masked %d rang %d", (long)n, (long)rang);
	value = 0;
	sys(rt_sigprocmask, 0, (ulong[]){ 1ul << 13 }, 0, 8);
	alarm_in(1);
	sleep_ms(10);
	rang = 0;
	n = sys(io_pgetevents, ctx, 1, 1, events, &later, sig);
	say(" unmasked %d rang %d", (long)n, (long)rang);
	child = fork();
	if (!child) {
		sleep_ms(20);
		sys(write, p[1], "x", 1);
		finish(submit(1) == -22 && sys(io_destroy, ctx) == -22 ? 5 : 6);
	}
	say(" another process %d", sys(io_getevents, ctx, 1, 1, events, 0));
	say(" %d", wait_for(child));
	cb(5, POLL, p[0], (void *)1, 0, 0)->flags = 0;
	sys(read, p[0], buffer, 9);
	submit(1);
	say(" destroy %d", sys(io_destroy, ctx));
	say(" again %d %d %d\n", sys(io_destroy, ctx), submit(1), take(0, 1));
}
static void moves(void)
{
	ulong contexts[6] = { 0 }, old, there;
	u8 *place = map(NULL, 8, PROT_NONE, ANON);
	long child;

	say("moves: aio-nr %s", read_file("/proc/sys/fs/aio-nr"));
	for (int i = 0; i < 6; i++) {
		say("  %d", sys(io_setup, 50 * (i + 1), &contexts[i]));
		ctx = contexts[i];
		show_ring("");
	}
	say("  aio-nr %s", read_file("/proc/sys/fs/aio-nr"));
	say("  destroy %d", sys(io_destroy, contexts[2]));
	contexts[2] = 0;
	say(" new %d", sys(io_setup, 1, &contexts[2]));
	ctx = contexts[2];
	show_ring("");
	old = ctx;
	there = sys(mremap, old, page, page, 3, place);
	say("  moved %d old %d", (long)(there == (ulong)place), take(0, 1));
	ctx = there;
	say(" new %d larger %d smaller", take(0, 1), sys(mremap, there, page, 2 * page, 1));
	show_ring("");
	show_maps("/proc/self/maps", 0);
	ctx = contexts[5];
	say("  cut %d", sys(mremap, ctx, 6 * page, page, 0));
	show_ring("");
	ctx = there;
	child = fork();
	if (!child) {
		say("child: submit %d move %d", submit(1), sys(mremap, ctx, page, page, 3, place + 2 * page) == (long)place + 2 * (long)page);
		show_ring("");
		say(" %d", setup(1));
		show_ring("");
		show_maps("/proc/self/maps", 0);
		finish(0);
	}
	wait_for(child);
	say("  unmapped %d", sys(munmap, there, page));
	say(" destroy %d", sys(io_destroy, there));
	for (int i = 0; i < 6; i++)
		say(" %d", sys(io_destroy, contexts[i]));
	say(" aio-nr %s", read_file("/proc/sys/fs/aio-nr"));
	long before = minor_faults();
	say("  faults: %d", setup(1));
	((struct ring *)ctx)->head = 0;
	say(" %d", minor_faults() - before - 1);
	before = field("/proc/self/status", "RssFile");
	say(" %d", setup(300));
	say(" read %d", (long)((struct ring *)ctx)->id);
	say(" rss %d pages\n", (field("/proc/self/status", "RssFile") - before) * 1024 / page);
}
/* A request that waits in io_submit() until another process writes. */
static void sleeps(void)
{
	int p[2];
	long child;

	CHECK(setup(4) == 0);
	sys(pipe2, p, 0);
	child = fork();
	if (!child) {
		sleep_ms(20);
		sys(write, p[1], "late", 4);
		finish(0);
	}
	cb(0, PWRITE, p[1], "", 0, 0);
	cb(1, PREAD, p[0], buffer, 4, 0);
	cb(2, PWRITE, p[1], "more", 4, 0);
	list[0] = &cbs[0], list[1] = &cbs[1], list[2] = &cbs[2];
	say("sleeps: %d", submit(3));
	got(3, 9);
	wait_for(child);
	sys(read, p[0], buffer, 9);
	alarm_in(10);
	sys(rt_sigprocmask, 2, (ulong[]){ 0 }, 0, 8);
	list[0] = &cbs[1];
	say(" signal %d", submit(1));
	got(1, 9);
	say("\n");
}

static int run(void)
{
	refusals(), flush();
	ring(), flush();
	files(), flush();
	kinds(), flush();
	many(), flush();
	by_hand(), flush();
	polls(), flush();
	moves(), flush();
	sleeps(), flush();
	return 0;
}
