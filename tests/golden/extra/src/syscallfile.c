/* SPDX-License-Identifier: GPL-2.0-only */
/* /proc/PID/syscall: of a task that sleeps in a call, of one that is stopped, of the reader, of a zombie. */
#include "guest.h"


/* Without stack pointer and program counter, the last two words. */
static void show(const char *what, long pid)
{
	char path[40] = "/proc/", *p = path + 6, digits[12];
	long n = 0, words = 0, left;

	do
		digits[n++] = '0' + pid % 10;
	while (pid /= 10);
	while (n)
		*p++ = digits[--n];
	for (const char *s = "/syscall"; (*p = *s); p++, s++)
		;
	for (p = read_file(path); *p; p++)
		words += *p == ' ';
	say("%s:", what);
	left = words - 1;
	for (p = file_text; *p && left > 0; p++) {
		if (*p == ' ' && !--left)
			break;
		put(*p);
	}
	say(" and %d words in all\n", words + 1);
}

static int run(void)
{
	int p[2];
	long pid;

	sys(pipe2, p, 0);
	if (!(pid = fork())) {
		sys(read, p[0], 0x1234, 77);
		finish(0);
	}
	sleep_ms(20);
	show("reading", pid);
	sys(kill, pid, 19);
	sleep_ms(20);
	sys(kill, pid, 9);
	sleep_ms(20);
	show("a zombie", pid);
	wait_for(pid);
	if (!(pid = fork())) {
		long time[2] = { 5, 0 };

		syscall6(SYS_nanosleep, (long)time, 0, 3, 4, 5, 6);
		finish(0);
	}
	sleep_ms(20);
	show("sleeping", pid);
	sys(kill, pid, 9);
	wait_for(pid);
	return 0;
}
