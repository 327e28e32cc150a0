/* SPDX-License-Identifier: GPL-2.0-only */
/* openat2's rules of resolution, files without a name reached through /proc/PID/map_files, programs that are busy. */
#include "guest.h"

enum {
	CALL(openat2, 437, 437), CALL(mkdirat, 258, 34), CALL(symlinkat, 266, 36), CALL(readlinkat, 267, 78),
	CALL(shmget, 29, 194), CALL(shmat, 30, 196), CALL(shmctl, 31, 195), CALL(fstat, 5, 80), CALL(pwrite64, 18, 68),
	CALL(pread64, 17, 67), CALL(chdir, 80, 49), CALL(chroot, 161, 51),
};
enum { NO_XDEV = 1, NO_MAGICLINKS = 2, NO_SYMLINKS = 4, BENEATH = 8, IN_ROOT = 16, CACHED = 32 };
enum { O_PATH = 010000000, O_NOFOLLOW_X86 = 0400000, O_NOFOLLOW_ARM = 0100000, O_EXCL = 0200 };
#ifdef __x86_64__
enum { O_NOFOLLOW = O_NOFOLLOW_X86, O_DIRECTORY = 0200000 };
#else
enum { O_NOFOLLOW = O_NOFOLLOW_ARM, O_DIRECTORY = 040000 };
#endif
static ulong how[4];

static long open2(long dfd, const char *path, ulong flags, ulong resolve)
{
	how[0] = flags;
	how[1] = flags & O_CREAT ? 0600 : 0;
	how[2] = resolve;
	return sys(openat2, dfd, path, how, 24);
}

/* One path under each rule, from one folder. */
static void rules(long dfd, const char *path, ulong flags)
{
	say("%s (%x):", path, flags);
	for (ulong resolve = 1; resolve <= 32; resolve *= 2) {
		long fd = open2(dfd, path, flags, resolve);

		say(" %d", fd < 0 ? fd : 0);
		if (fd >= 0)
			sys(close, fd);
	}
	say("\n");
}

static void resolution(void)
{
	static const char *paths[] = {
		"f", "./f", "d/../f", "..", "../f", "d/../../a/f", "/tmp/a/f", "/f", "in", "out", "abs", "loop", "d/up", "d/dd/f",
		"none", "d/", "f/", "", ".", "/", "proc", "proc/self/root", "proc/self/cwd/f", "pfd", "d/dd/../../../../f",
	};
	long a;

	sys(mkdirat, AT_FDCWD, "/tmp/a", 0755);
	sys(mkdirat, AT_FDCWD, "/tmp/a/d", 0755);
	a = sys(openat, AT_FDCWD, "/tmp/a", O_RDONLY, 0);
	sys(openat, a, "f", O_RDWR | O_CREAT, 0644);
	sys(openat, AT_FDCWD, "/tmp/f", O_RDWR | O_CREAT, 0644);
	sys(symlinkat, "f", a, "in");
	sys(symlinkat, "../f", a, "out");
	sys(symlinkat, "/tmp/a/f", a, "abs");
	sys(symlinkat, "loop", a, "loop");
	sys(symlinkat, "../..", a, "d/up");
	sys(symlinkat, "..", a, "d/dd");
	sys(symlinkat, "/proc", a, "proc");
	sys(symlinkat, "/proc/self/fd/0", a, "pfd");
	for (ulong i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		rules(a, paths[i], O_RDONLY);
		rules(a, paths[i], O_PATH | O_NOFOLLOW);
	}
	say("from the working directory\n");
	sys(chdir, "/tmp/a");
	rules(AT_FDCWD, "d/../f", O_RDONLY);
	rules(AT_FDCWD, "../f", O_RDONLY);
	rules(AT_FDCWD, "/f", O_RDONLY);
	say("from /\n");
	sys(chdir, "/");
	rules(AT_FDCWD, "tmp/a/f", O_RDONLY);
	rules(AT_FDCWD, "proc/self/stat", O_RDONLY);
	rules(AT_FDCWD, "proc/self/exe", O_RDONLY);
	rules(AT_FDCWD, "..", O_RDONLY);
	say("creating\n");
	rules(a, "new", O_RDWR | O_CREAT);
	rules(a, "../new", O_RDWR | O_CREAT);
	rules(a, "d", 020000000 | O_DIRECTORY | O_RDWR);
	rules(a, "f", O_RDWR | O_TRUNC);
	say("refused %d %d %d %d %d %d\n", open2(a, "f", 0, 64), open2(a, "f", 0, BENEATH | IN_ROOT),
	    open2(a, "f", O_PATH | O_RDWR, 0), open2(99, "f", 0, BENEATH), open2(99, "/f", 0, BENEATH),
	    open2(99, "/f", 0, IN_ROOT));
	how[3] = 1;
	say("size %d %d %d\n", sys(openat2, a, "f", how, 16), sys(openat2, a, "f", how, 32), sys(openat2, a, "f", 8, 24));
	how[1] = 0600;
	say("mode without O_CREAT %d\n", sys(openat2, a, "f", how, 24));
}

static char path[80];

/* The link of an area. */
static void name_of(ulong start, ulong end)
{
	char *p = path;
	ulong at[2] = { start, end };

	for (const char *s = "/proc/self/map_files/"; *s; s++)
		*p++ = *s;
	for (int i = 0; i < 2; i++) {
		char digits[16];
		int n = 0;

		do
			digits[n++] = "0123456789abcdef"[at[i] & 15];
		while (at[i] >>= 4);
		while (n)
			*p++ = digits[--n];
		*p++ = i ? 0 : '-';
	}
}

static void look(const char *what, ulong start, ulong size)
{
	char text[100];
	u32 status[40];
	long n, fd;
	u8 *at;

	name_of(start, start + size);
	n = sys(readlinkat, AT_FDCWD, path, text, 99);
	text[n < 0 ? 0 : n] = 0;
	say("%s -> %d %s\n", what, n, text);
	fd = sys(openat, AT_FDCWD, path, O_RDWR, 0);
	say("open %d\n", fd < 0 ? fd : 0);
	if (fd < 0)
		return;
	sys(fstat, fd, status);
	say("mode %x size %d\n", status[ARCH[0] == 'x' ? 6 : 4], (long)status[12]);
	say("write %d read %d %c\n", sys(pwrite64, fd, "ab", 2, 0), sys(pread64, fd, text, 2, 0), text[1]);
	at = (u8 *)sys(mmap, 0, page, PROT_READ, MAP_SHARED, fd, 0);
	say("mapped %c, truncated %d\n", at[1], sys(ftruncate, fd, 3 * size));
	sys(fstat, fd, status);
	say("size %d\n", (long)status[12]);
	sys(munmap, at, page);
	sys(close, fd);
}

static void write_to(const char *name)
{
	long fd = sys(openat, AT_FDCWD, name, 1, 0);

	say("%s %d\n", name, fd < 0 ? fd : 0);
	if (fd >= 0)
		sys(close, fd);
}

static void execute(const char *name)
{
	char *argv[] = { "self", "x", NULL };
	long pid;

	flush();
	if (!(pid = fork())) {
		say("execve %d\n", sys(execve, name, argv, argv + 2));
		finish(9);
	}
	wait_for(pid);
}

/* A program that runs cannot be written to, and can be again afterwards. */
static void busy(void)
{
	long from = sys(openat, AT_FDCWD, "/proc/self/exe", O_RDONLY, 0);
	long to = sys(openat, AT_FDCWD, "/tmp/self", O_RDWR | O_CREAT, 0755), n;

	while ((n = sys(read, from, file_text, sizeof(file_text))) > 0)
		sys(write, to, file_text, n);
	execute("/tmp/self");
	sys(close, to);
	execute("/tmp/self");
	write_to("/tmp/self");
	to = sys(openat, AT_FDCWD, "/tmp/script", O_RDWR | O_CREAT, 0755);
	sys(write, to, "#!/tmp/self x\n", 14);
	sys(close, to);
	execute("/tmp/script");
	write_to("/tmp/self");
	write_to("/tmp/script");
}

static int run(void)
{
	long id = sys(shmget, 1234, 2 * page, 01600), at = sys(shmat, id, 0, 0);
	long zero = sys(mmap, 0, 2 * page, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (arguments[1]) {
		write_to("/tmp/self");
		write_to("/proc/self/exe");
		return 0;
	}
	resolution();
	look("segment", at, 2 * page);
	sys(shmctl, id, 0, 0);
	look("removed segment", at, 2 * page);
	look("shared memory", zero, 2 * page);
	look("private memory", (ulong)map(0, 1, RW, ANON), page);
	busy();
	return 0;
}
