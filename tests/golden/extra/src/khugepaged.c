/* SPDX-License-Identifier: GPL-2.0-only */
/* khugepaged: which small pages become a huge one, and its settings. Looked at after two whole scans each. */
#include "guest.h"

enum { CALL(pread64, 17, 67), CALL(madvise, 28, 233), CALL(mlock, 149, 228) };
enum { DONTNEED = 4, MERGEABLE = 12, HUGEPAGE = 14, NOHUGEPAGE = 15, COLD = 20 };
#define THP "/sys/kernel/mm/transparent_hugepage/"
static char path[100];
static ulong huge, before;

static const char *under(const char *folder, const char *name)
{
	char *end = path;

	while (*folder)
		*end++ = *folder++;
	while ((*end++ = *name++))
		;
	return path;
}

static long set_path(const char *where, const char *value)
{
	long fd = sys(openat, AT_FDCWD, where, 1), length = 0, done;

	if (fd < 0)
		return fd;
	while (value[length])
		length++;
	done = sys(write, fd, value, length);
	sys(close, fd);
	return done;
}

static long get(const char *name)
{
	char *text = read_file(under(THP "khugepaged/", name));

	return number(&text, 10);
}

static long set(const char *name, const char *value)
{
	return set_path(under(THP "khugepaged/", name), value);
}

/* Two whole scans, then a long pause. */
static void scan(const char *what)
{
	ulong end = get("full_scans") + 2;

	set("scan_sleep_millisecs", "10");
	for (int tries = 0; (ulong)get("full_scans") < end && tries < 40; tries++)
		sleep_ms(20);
	set("scan_sleep_millisecs", "1000000");
	say("%s: %d huge, %d collapsed\n", what, field("/proc/self/smaps_rollup", "AnonHugePages") * 1024 / huge,
	    get("pages_collapsed") - before);
}

static void fill(u8 *at, ulong size, int byte)
{
	for (ulong i = 0; i < size; i += page)
		at[i] = byte;
}

static void flags(const char *what, const u8 *at)
{
	long fd = sys(openat, AT_FDCWD, "/proc/self/pagemap", 0);
	ulong entry = 0, word = 0;

	sys(pread64, fd, &entry, 8, (ulong)at / page * 8);
	sys(close, fd);
	fd = sys(openat, AT_FDCWD, "/proc/kpageflags", 0);
	sys(pread64, fd, &word, 8, (entry & ((1ul << 55) - 1)) * 8);
	sys(close, fd);
	say("%s: %x\n", what, word & ~0x40064ul); /* without referenced, lru, active, unevictable */
}

static void refused(void)
{
	say("refused: %d %d %d %d %d %d\n", set("pages_to_scan", "0"), set("defrag", "2"), set("full_scans", "1"),
	    set("max_ptes_swap", "100000"), set("scan_sleep_millisecs", "4294967296"), set("max_ptes_none", "-1"));
}

static void shared(u8 *b)
{
	int ends[2];
	long child;

	fill(b, huge, 4);
	sys(pipe2, ends, 0);
	child = fork();
	if (!child) {
		char byte;

		sys(read, ends[0], &byte, 1);
		finish(0);
	}
	sys(madvise, b, huge, HUGEPAGE);
	scan("all shared");
	fill(b, huge / 2, 9);
	scan("half shared");
	say("%d %d\n", b[0], b[huge - page]);
	sys(write, ends[1], "x", 1);
	wait_for(child);
}

static int run(void)
{
	char *text = read_file(THP "hpage_pmd_size");
	u8 *a, *b;
	volatile u8 unused;

	huge = number(&text, 10);
	say("at first: %d %d %d %d %d %d %d %d %d\n", get("defrag"), get("max_ptes_none"), get("max_ptes_shared"),
	    get("max_ptes_swap"), get("pages_to_scan"), get("scan_sleep_millisecs"), get("alloc_sleep_millisecs"),
	    get("full_scans"), get("pages_collapsed"));
	refused();
	if (huge > 2 << 20)
		return 0;
	set("scan_sleep_millisecs", "1000000");
	before = get("pages_collapsed");
	a = (u8 *)(((ulong)map(0, 20 * huge / page, RW, ANON) + huge - 1) & -huge);
	a[0] = 1, a[5 * page] = 2, unused = a[7 * page];
	fill(a + huge, huge, 6);
	sys(madvise, a, 4 * huge, HUGEPAGE);
	scan("three pages of one, all of another");
	say("%d %d %d %d\n", a[0], a[5 * page], a[7 * page], a[2 * huge - page]);
	flags("head", a), flags("tail", a + page);
	sys(madvise, a + 3 * page, page, DONTNEED);
	scan("a page less");
	sys(munmap, a + huge + 100 * page, page);
	scan("a hole");
	b = a + 4 * huge;
	fill(b, huge / 2, 3);
	say("max_ptes_none: %d %d\n", set("max_ptes_none", "255"), set("max_ptes_none", "512"));
	sys(madvise, b, huge, HUGEPAGE);
	scan("255 may be unused");
	set("max_ptes_none", "256");
	scan("256 may");
	set("max_ptes_none", "511");
	shared(a + 6 * huge);
	b = a + 8 * huge;
	fill(b, huge, 5);
	sys(mprotect, b, huge, PROT_READ);
	sys(madvise, b, huge, HUGEPAGE);
	scan("read-only");
	sys(mprotect, b, huge, RW);
	b[0] = 1;
	scan("one writable");
	b = a + 10 * huge;
	fill(b, huge, 6);
	sys(mlock, b, huge);
	sys(madvise, b, huge, HUGEPAGE);
	scan("locked");
	flags("head", b), flags("tail", b + page);
	b = a + 12 * huge;
	for (ulong i = 0; i < huge; i += page)
		unused = b[i];
	sys(madvise, b, huge, HUGEPAGE);
	scan("zero pages");
	b[0] = 1;
	scan("one of them written to");
	b = a + 14 * huge;
	fill(b, huge, 7);
	sys(madvise, b, huge, COLD);
	sys(madvise, b, huge, HUGEPAGE);
	scan("cold");
	b[0] = 1;
	scan("one of them used");
	b = a + 16 * huge;
	fill(b, huge, 8);
	scan("not advised");
	set_path(THP "enabled", "always");
	scan("always");
	sys(madvise, b, page, NOHUGEPAGE);
	set_path(THP "enabled", "never");
	fill(a + 17 * huge, huge, 8);
	sys(madvise, a + 17 * huge, huge, HUGEPAGE);
	scan("never");
	set_path(THP "enabled", "madvise");
	scan("madvise");
	(void)unused;
	return 0;
}
