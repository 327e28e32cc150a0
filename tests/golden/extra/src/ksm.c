/* SPDX-License-Identifier: GPL-2.0-only */
/* KSM: what is merged and what is not, what happens to merged pages, and the settings. Looked at while ksmd stands still. */
#include "guest.h"

enum {
	CALL(pread64, 17, 67), CALL(madvise, 28, 233), CALL(mlock, 149, 228), CALL(munlock, 150, 229), CALL(mremap, 25, 216),
};
enum { MADV_DONTNEED = 4, MERGEABLE = 12, UNMERGEABLE = 13 };
#define KSM "/sys/kernel/mm/ksm/"
static char path[100];

static const char *in_ksm(const char *name)
{
	char *end = path;

	for (const char *s = KSM; *s; s++)
		*end++ = *s;
	while ((*end++ = *name++))
		;
	return path;
}

static long get(const char *name)
{
	char *text = read_file(in_ksm(name));

	return number(&text, 10);
}

static long set(const char *name, const char *value)
{
	long fd = sys(openat, AT_FDCWD, in_ksm(name), 1), length = 0, done;

	if (fd < 0)
		return fd;
	while (value[length])
		length++;
	done = sys(write, fd, value, length);
	sys(close, fd);
	return done;
}

/* Three passes over everything, and the counters. */
static void scan(const char *what)
{
	long end;

	set("run", "1");
	end = get("full_scans") + 3;
	for (int tries = 0; get("full_scans") < end && tries < 100; tries++)
		sleep_ms(30);
	set("run", "0");
	say("%s: %d shared, %d sharing, %d unshared, %d volatile, %d chains, %d dups\n", what, get("pages_shared"),
	    get("pages_sharing"), get("pages_unshared"), get("pages_volatile"), get("stable_node_chains"),
	    get("stable_node_dups"));
}

/* What kpageflags and kpagecount say of each page; which list it is on decide the other processes, too. */
static void pages(const char *what, const u8 *at, int count)
{
	long pagemap = sys(openat, AT_FDCWD, "/proc/self/pagemap", 0), fd[2];
	ulong entry = 0, word[2] = { 0, 0 };

	fd[0] = sys(openat, AT_FDCWD, "/proc/kpageflags", 0);
	fd[1] = sys(openat, AT_FDCWD, "/proc/kpagecount", 0);
	say("%s:", what);
	for (int i = 0; i < count; i++) {
		sys(pread64, pagemap, &entry, 8, ((ulong)at / page + i) * 8);
		if (!(entry >> 63)) {
			say(" -");
			continue;
		}
		for (int k = 0; k < 2; k++)
			sys(pread64, fd[k], &word[k], 8, (entry & ((1ul << 55) - 1)) * 8);
		say(" %x*%d", word[0] & ~0x40064ul, word[1]); /* without referenced, lru, active, unevictable */
	}
	say("\n");
	for (int k = 0; k < 2; k++)
		sys(close, fd[k]);
	sys(close, pagemap);
}

static void fill(u8 *at, int count, int byte)
{
	for (ulong i = 0; i < count * page; i++)
		at[i] = byte;
}

static void smaps(const char *what)
{
	static const char *keys[] = { "Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty",
				      "Referenced", "Anonymous", "Locked" };

	say("%s:", what);
	for (unsigned k = 0; k < sizeof keys / sizeof *keys; k++)
		say(" %s %d", keys[k], field("/proc/self/smaps_rollup", keys[k]));
	say("\n");
}

static void merged(u8 *a, u8 *b)
{
	fill(a, 4, 1), fill(a + 4 * page, 4, 2), fill(b, 4, 1), fill(b + 4 * page, 4, 3);
	b[5 * page] = 9;
	fill(a + 6 * page, 1, 0), fill(b + 6 * page, 1, 0);
	say("advice: %d %d\n", sys(madvise, a, 12 * page, MERGEABLE), sys(madvise, b, 12 * page, MERGEABLE));
	scan("two areas");
	pages("a", a, 9), pages("b", b, 9);
	smaps("all");
	a[0] = 1; /* the same byte: a copy all the same */
	pages("written to", a, 2);
	scan("merged again");
	for (int i = 0; i < 3; i++)
		a[i * page + 7] = i;
	scan("three pages changed");
	say("unmergeable: %d\n", sys(madvise, b, 2 * page, UNMERGEABLE));
	pages("b", b, 4);
	scan("b begins later");
	say("dontneed: %d\n", sys(madvise, b + 2 * page, page, MADV_DONTNEED));
	scan("a page dropped");
	sys(mprotect, b + 3 * page, page, PROT_READ);
	pages("read-only", b + 3 * page, 1);
	set("run", "2");
	pages("unmerged", b + 3 * page, 1);
	scan("merged again");
	sys(mprotect, b + 3 * page, page, RW);
}

static void children(u8 *a)
{
	fill(a, 8, 5);
	scan("eight alike");
	for (int i = 0; i < 3; i++) {
		long child = fork();

		if (!child) {
			a[i * page] = 1;
			if (i)
				scan("in the child");
			pages("child", a, 4);
			finish(0);
		}
		say("%d\n", wait_for(child));
	}
	pages("parent", a, 4);
	scan("children gone");
}

static void moved_and_locked(u8 *a)
{
	u8 *to = map(0, 4, PROT_NONE, ANON);

	say("moved: %d\n", sys(mremap, a, 4 * page, 4 * page, 3, to) == (long)to);
	pages("there", to, 4);
	scan("and merged");
	pages("there", to, 4);
	sys(mremap, to, 4 * page, 4 * page, 3, a);
	scan("moved back");
	say("mlock: %d\n", sys(mlock, a, 3 * page));
	pages("locked", a, 5);
	scan("merged locked");
	pages("locked", a, 5);
	say("munlock: %d\n", sys(munlock, a, page));
	pages("one not", a, 5);
	set("run", "2");
	pages("unmerged", a, 5);
	say("munlock: %d\n", sys(munlock, a, 3 * page));
}

static void settings(u8 *a)
{
	scan("merged");
	say("while merged: %d %d %d\n", set("max_page_sharing", "3"), set("merge_across_nodes", "0"),
	    set("max_page_sharing", "256"));
	say("run 2: %d\n", set("run", "2"));
	say("unmerged: %d %d %d\n", set("max_page_sharing", "3"), set("merge_across_nodes", "0"), get("full_scans"));
	fill(a, 8, 5);
	scan("three for each page");
	pages("a", a, 8);
	a[0] = a[page] = a[2 * page] = 7;
	scan("three written to");
	set("run", "2");
	say("back: %d %d\n", set("max_page_sharing", "256"), set("merge_across_nodes", "1"));
	say("use_zero_pages: %d\n", set("use_zero_pages", "yes"));
	fill(a, 3, 0);
	scan("three of zeroes");
	pages("a", a, 8);
	a[0] = 1;
	pages("written to", a, 2);
	say("use_zero_pages: %d\n", set("use_zero_pages", "0"));
	set("run", "2");
	say("refused: %d %d %d %d %d %d", set("run", "3"), set("run", "-1"), set("run", ""), set("run", "1 "),
	    set("sleep_millisecs", "4294967296"), set("pages_to_scan", "18446744073709551616"));
	say(" %d %d %d %d %d\n", set("merge_across_nodes", "2"), set("merge_across_nodes", "18446744073709551616"),
	    set("max_page_sharing", "1"), set("max_page_sharing", "2147483648"), set("use_zero_pages", "maybe"));
	say("taken: %d %d %d\n", set("sleep_millisecs", "+7\n"), set("stable_node_chains_prune_millisecs", "100"),
	    set("max_page_sharing", "300"));
	say("now: %d %d %d %d\n", get("sleep_millisecs"), get("stable_node_chains_prune_millisecs"), get("max_page_sharing"),
	    get("use_zero_pages"));
	say("counters: %d %d\n", set("full_scans", "0"), set("pages_shared", "0"));
}

static int run(void)
{
	u8 *a = map(0, 12, RW, ANON), *b, *shared;

	map(0, 1, PROT_NONE, ANON);
	b = map(0, 12, RW, ANON);
	say("at first: %d %d %d %d %d %d %d %d\n", get("run"), get("pages_to_scan"), get("sleep_millisecs"),
	    get("merge_across_nodes"), get("max_page_sharing"), get("use_zero_pages"),
	    get("stable_node_chains_prune_millisecs"), get("full_scans"));
	set("sleep_millisecs", "4");
	set("pages_to_scan", "1000");
	merged(a, b);
	sys(munmap, b, 12 * page);
	scan("one area");
	children(a);
	moved_and_locked(a);
	settings(a);
	shared = map(0, 2, RW, MAP_SHARED | MAP_ANONYMOUS);
	fill(shared, 2, 5), fill(a, 8, 5);
	say("shared memory: %d\n", sys(madvise, shared, 2 * page, MERGEABLE));
	scan("not merged");
	sys(munmap, a, 12 * page);
	set("run", "1");
	sleep_ms(100); /* who has nothing to merge is forgotten, and there will be no three passes */
	say("nothing left: %d %d\n", get("pages_shared"), get("full_scans") > 0);
	say("run 2: %d\n", set("run", "2"));
	return 0;
}
