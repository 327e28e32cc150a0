/* SPDX-License-Identifier: GPL-2.0-only */
/* What each memory operation adds to the counters of /proc/vmstat and /proc/meminfo. */
#include "guest.h"

enum {
	CALL(memfd_create, 319, 279), CALL(madvise, 28, 233), CALL(mlock, 149, 228), CALL(munlock, 150, 229),
	CALL(mremap, 25, 216), CALL(pwrite64, 18, 68), CALL(shmget, 29, 194), CALL(shmat, 30, 196), CALL(shmdt, 67, 197),
	CALL(shmctl, 31, 195), CALL(fallocate, 285, 47),
};
enum { MADV_DONTNEED = 4, MADV_FREE = 8, MADV_HUGEPAGE = 14, MADV_COLD = 20, MADV_PAGEOUT = 21 };

/* Counters that what this program does decides. Which list a page is on is not among them: the batches of pages on
 * their way to a list are filled by everybody. */
static const char *const names[] = {
	"nr_mlock", "nr_page_table_pages", "nr_anon_pages", "nr_mapped", "nr_file_pages", "nr_shmem",
	"nr_shmem_hugepages", "nr_shmem_pmdmapped", "nr_anon_transparent_hugepages", "nr_isolated_anon", "nr_dirty",
	"nr_foll_pin_acquired", "pgfault", "pgmajfault", "pgreuse", "pglazyfree", "pglazyfreed", "oom_kill",
	"unevictable_pgs_mlocked", "unevictable_pgs_munlocked", "unevictable_pgs_culled", "unevictable_pgs_rescued",
	"unevictable_pgs_cleared", "unevictable_pgs_stranded", "thp_fault_alloc", "thp_fault_fallback",
	"thp_zero_page_alloc", "thp_split_page", "thp_split_pmd", "nr_unevictable",
	"Committed_AS:", "CommitLimit:", "Mlocked:", "Unevictable:", "AnonPages:", "Mapped:", "Shmem:",
	"PageTables:", "Cached:",
	"AnonHugePages:", "ShmemHugePages:", "ShmemPmdMapped:", "FileHugePages:", "HugePages_Total:", "HugePages_Rsvd:",
};
enum { COUNT = sizeof names / sizeof *names };
static long before[COUNT], after[COUNT];
static u8 *spare; /* an area without a page */
static char text[32768];

static void slurp(const char *path)
{
	long fd = sys(openat, AT_FDCWD, path, O_RDONLY), n, size = 0;

	while ((n = sys(read, fd, text + size, sizeof text - 1 - size)) > 0)
		size += n;
	text[size] = 0;
	sys(close, fd);
}

static void look(long *values)
{
	sys(madvise, spare, page, MADV_COLD); /* lru_add_drain() */
	for (int file = 0; file < 2; file++) {
		long fd = sys(openat, AT_FDCWD, "/proc/sys/vm/stat_refresh", O_RDONLY);

		sys(read, fd, text, sizeof text);
		sys(close, fd);
		slurp(file ? "/proc/meminfo" : "/proc/vmstat");
		for (int i = 0; i < COUNT; i++) {
			ulong size = 0;

			while (names[i][size])
				size++;
			if ((names[i][size - 1] == ':') != file)
				continue;
			for (char *line = text; *line;) {
				ulong at = 0;

				while (at < size && line[at] == names[i][at])
					at++;
				if (at == size && (line[at] == ' ')) {
					char *rest = line + at;

					while (*rest == ' ')
						rest++;
					values[i] = (long)number(&rest, 10);
					break;
				}
				while (*line && *line++ != '\n')
					;
			}
		}
	}
}

static void start(void)
{
	look(before);
	look(before);
}

static void report(const char *what)
{
	look(after); /* after a fork this takes copies of our own pages */
	look(after);
	say("%s:", what);
	for (int i = 0; i < COUNT; i++)
		if (after[i] != before[i])
			say(" %s %d", names[i], after[i] - before[i]);
	say("\n");
	flush();
	start();
}

static void touch(u8 *from, ulong pages)
{
	for (ulong i = 0; i < pages; i++)
		*(volatile u8 *)(from + i * page) = 1;
}

static void peek(u8 *from, ulong pages)
{
	for (ulong i = 0; i < pages; i++)
		(void)*(volatile u8 *)(from + i * page);
}

static void anonymous(void)
{
	u8 *area = map(0, 64, RW, ANON);

	report("map 64 pages");
	peek(area, 16);
	report("read 16");
	touch(area, 64);
	report("write 64");
	sys(madvise, area, 8 * page, MADV_DONTNEED);
	report("drop 8");
	sys(madvise, area + 8 * page, 8 * page, MADV_FREE);
	report("free 8 lazily");
	touch(area + 8 * page, 2);
	report("write 2 of them");
	sys(madvise, area + 8 * page, 8 * page, MADV_PAGEOUT);
	report("page them out");
	sys(madvise, area + 32 * page, 8 * page, MADV_COLD);
	report("8 are cold");
	sys(mlock, area + 16 * page, 16 * page);
	report("lock 16");
	sys(munlock, area + 16 * page, 8 * page);
	report("unlock 8");
	area = (u8 *)sys(mremap, area, 64 * page, 96 * page, 1);
	report("grow to 96");
	sys(mprotect, area, 96 * page, PROT_READ);
	report("read-only");
	sys(munmap, area, 96 * page);
	report("unmap");
	area = map(0, 16, PROT_READ, ANON);
	peek(area, 16);
	report("map and read 16, read-only");
	sys(munmap, area, 16 * page);
	report("unmap");
}

static void shared(void)
{
	long fd = sys(memfd_create, "m", 0), id;
	u8 *area, *private;

	report("memfd");
	sys(ftruncate, fd, 64 * page);
	report("of 64 pages");
	for (int i = 0; i < 8; i++)
		sys(pwrite64, fd, "x", 1, i * page);
	report("write 8");
	sys(fallocate, fd, 0, 0, 16 * page);
	report("fallocate 16");
	area = map(0, 64, RW, MAP_SHARED | MAP_ANONYMOUS);
	report("map 64 shared");
	touch(area, 32);
	report("write 32");
	sys(munmap, area, 64 * page);
	report("unmap");
	area = (u8 *)sys(mmap, 0, 64 * page, RW, MAP_SHARED, fd, 0);
	report("map the memfd");
	peek(area, 4);
	report("read 4");
	touch(area + 32 * page, 4);
	report("write 4");
	private = (u8 *)sys(mmap, 0, 64 * page, RW, MAP_PRIVATE, fd, 0);
	report("map it private");
	peek(private, 4);
	report("read 4");
	touch(private + 2 * page, 4);
	report("write 4");
	sys(mlock, area, 8 * page);
	report("lock 8 shared");
	sys(mlock, private, 8 * page);
	report("lock 8 private");
	sys(fallocate, fd, 3, 0, 4 * page);
	report("punch 4");
	sys(munmap, private, 64 * page);
	report("unmap private");
	sys(munmap, area, 64 * page);
	report("unmap shared");
	sys(close, fd);
	report("close");
	id = sys(shmget, 0, 32 * page, 01600);
	report("shmget 32");
	area = (u8 *)sys(shmat, id, 0, 0);
	touch(area, 8);
	report("attach, write 8");
	sys(shmctl, id, 11, 0);
	report("SHM_LOCK");
	sys(shmctl, id, 12, 0);
	report("SHM_UNLOCK");
	sys(shmdt, area);
	sys(shmctl, id, 0, 0);
	report("gone");
}

static void family(void)
{
	int down[2], up[2];
	char byte = 0;
	long child;
	u8 *area = map(0, 32, RW, ANON), *shared = map(0, 32, RW, MAP_SHARED | MAP_ANONYMOUS);

	touch(area, 32);
	touch(shared, 8);
	sys(pipe2, down, 0);
	sys(pipe2, up, 0);
	report("32 private, 8 of 32 shared, pipes");
	child = fork();
	if (!child) {
		sys(write, up[1], &byte, 1);
		sys(read, down[0], &byte, 1);
		touch(area, 8);
		touch(shared, 16);
		sys(write, up[1], &byte, 1);
		sys(read, down[0], &byte, 1);
		sys(exit_group, 0);
	}
	sys(read, up[0], &byte, 1);
	report("fork");
	sys(write, down[1], &byte, 1);
	sys(read, up[0], &byte, 1);
	report("the child writes 8 and 16");
	touch(area, 16);
	report("and so do we, 16");
	sys(write, down[1], &byte, 1);
	wait_for(child);
	report("it exits");
	sys(munmap, area, 32 * page);
	sys(munmap, shared, 32 * page);
	report("unmap");
}

static void huge(void)
{
	ulong size = 512 * page;
	u8 *area = map(0, 512 * 4, RW, ANON), *two = (u8 *)(((ulong)area + size - 1) / size * size);

	report("map 2048");
	if (page != 4096)
		return;
	sys(madvise, two, 2 * size, MADV_HUGEPAGE);
	peek(two, 1);
	report("advised, read");
	sys(madvise, two, size, MADV_DONTNEED); /* nothing that khugepaged would like to make huge stays for long */
	report("dropped");
	touch(two + size, 1);
	report("the other one written");
	sys(mlock, two + size, size);
	report("locked");
	sys(munlock, two + size, size);
	report("unlocked");
	sys(madvise, two + size, 8 * page, MADV_DONTNEED);
	report("8 of it dropped");
	sys(munmap, area, 2048 * page);
	report("unmap");
}

static int run(void)
{
	spare = map(0, 1, RW, ANON);
	start();
	report("nothing");
	anonymous();
	shared();
	family();
	huge();
	return 0;
}
