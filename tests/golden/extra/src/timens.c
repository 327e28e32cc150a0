// Namespaces of clocks: offsets, who sees them, sleeps and timers by them, and what is refused.
#define _GNU_SOURCE
#include <errno.h>
#include "ename.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
static void say(const char *what, long r) {
    if (r < 0) printf("%s: %s\n", what, strerrorname_np(errno)); else printf("%s: %ld\n", what, r);
}
static void reap(int pid) {
    int st = -1;
    if (waitpid(pid, &st, 0) < 0) printf("wait: %s\n", strerrorname_np(errno));
    else if (WIFEXITED(st)) printf("exited %d\n", WEXITSTATUS(st)); else printf("killed %d\n", WTERMSIG(st));
}
static long put(const char *text) {
    int fd = open("/proc/self/timens_offsets", O_WRONLY); long r = write(fd, text, strlen(text)); int e = errno; close(fd); errno = e; return r;
}
static void offsets(void) {
    char b[256]; int fd = open("/proc/self/timens_offsets", O_RDONLY), n = read(fd, b, 255); b[n > 0 ? n : 0] = 0; close(fd); fputs(b, stdout);
}
static const char *link_of(const char *name) {
    static char t[2][64]; static int w; char p[64], *o = t[w ^= 1]; snprintf(p, 64, "/proc/self/ns/%s", name);
    int n = readlink(p, o, 63); o[n > 0 ? n : 0] = 0; return o;
}
static long clock_s(int which) { struct timespec t; syscall(SYS_clock_gettime, which, &t); return t.tv_sec; }
static void clocks(const char *who) {
    static const int which[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    printf("%s:", who);
    for (int i = 0; i < 4; i++) { struct timespec t; syscall(SYS_clock_gettime, which[i], &t); printf(" %ld", (long)t.tv_sec / 1000 * 1000); }
    struct timespec a, b; syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a); clock_gettime(CLOCK_MONOTONIC, &b);
    printf(" vdso %s", labs(b.tv_sec - a.tv_sec) < 2 ? "agrees" : "differs");
    struct sysinfo si; sysinfo(&si); printf(" sysinfo %ld", si.uptime / 1000 * 1000);
    char t[64]; int fd = open("/proc/uptime", O_RDONLY), n = read(fd, t, 63); t[n] = 0; close(fd); printf(" uptime %ld", atol(t) / 1000 * 1000);
    printf(" real %s\n", clock_s(CLOCK_REALTIME) > 0 ? "ok" : "?");
}
static void *idle(void *x) { pause(); return x; }
static sig_atomic_t rang;
static void ring(int s) { rang++; }

static void sleeps(void) {
    struct timespec now, t; int fd; unsigned long long ticks;
    clock_gettime(CLOCK_MONOTONIC, &now); t = now; t.tv_nsec += 20000000; if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    say("clock_nanosleep abs", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0)); clock_gettime(CLOCK_MONOTONIC, &now); printf("slept %d\n", now.tv_sec > t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec >= t.tv_nsec));
    t.tv_sec = 5; say("in the past", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0)); say("in the past, boottime", clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &t, 0));
    clock_gettime(CLOCK_BOOTTIME, &t); t.tv_sec += 1; t.tv_nsec = 0; fd = timerfd_create(CLOCK_BOOTTIME, 0); struct itimerspec it = {.it_value = t}, left;
    say("timerfd", timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, 0)); timerfd_gettime(fd, &left); printf("left %d\n", left.it_value.tv_sec < 2); say("read", read(fd, &ticks, 8)); printf("ticks %llu\n", ticks);
    it.it_value.tv_sec = 3; say("timerfd past", timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, 0)); say("read", read(fd, &ticks, 8));
    timer_t tm; signal(SIGALRM, ring); struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM}; timer_create(CLOCK_MONOTONIC, &ev, &tm); clock_gettime(CLOCK_MONOTONIC, &t); t.tv_nsec += 5000000; if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    it.it_value = t; rang = 0; say("timer", timer_settime(tm, TIMER_ABSTIME, &it, 0)); timer_gettime(tm, &left); printf("left %d\n", left.it_value.tv_sec == 0); while (!rang) usleep(500);
    int word = 0; clock_gettime(CLOCK_MONOTONIC, &t); t.tv_nsec += 5000000; if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    say("futex", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &t, 0, ~0)); t.tv_sec = 5; say("futex past", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &t, 0, ~0)); t.tv_sec = 0; t.tv_nsec = 1000000; say("futex relative", syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, 0, 0));
}
static void vvar(void) {
    FILE *f = fopen("/proc/self/maps", "r"); char line[256]; unsigned long a = 0, b = 0;
    while (fgets(line, 256, f)) if (strstr(line, "[vvar]")) sscanf(line, "%lx-%lx", &a, &b);
    fclose(f); long page = sysconf(_SC_PAGESIZE); printf("vvar pages %ld\n", (b - a) / page);
#ifdef __x86_64__
    unsigned *d = (unsigned *)(a + 128); unsigned long other = a + 3 * page;
#else
    unsigned *d = (unsigned *)a; unsigned long other = a + page;
#endif
    printf("mode is timens %d", d[1] == 0x7fffffff);
    if (d[1] == 0x7fffffff) { long *o = (long *)((char *)d + 32); printf(" seq %u monotonic %ld.%ld boottime %ld.%ld raw %ld real %ld second %ld", d[0], o[2], o[3], o[14], o[15], o[8], o[0], o[30 + 2]); }
    fflush(stdout); puts("");
    int q = fork(); if (!q) { *(volatile int *)other; _exit(0); } printf("other page: "); reap(q);
}
int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1) { clocks("after exec"); vvar(); kill(0, SIGKILL); return 0; }
    offsets(); say("first, write", put("monotonic 1 1\n")); clocks("first");
    int p = fork();
    if (!p) {
        setuid(1000); say("no capability", unshare(CLONE_NEWTIME)); _exit(0);
    }
    reap(p);
    p = fork();
    if (!p) {
        say("unshare", unshare(CLONE_NEWTIME)); printf("time %s, for children %s\n", strcmp(link_of("time"), link_of("time_for_children")) ? "differs" : "same", strncmp(link_of("time_for_children"), "time:[", 6) ? "?" : "time");
        say("nonsense", put("nonsense")); say("one word", put("monotonic")); say("two", put("monotonic 1")); say("bad clock", put("realtime 1 1")); say("nsec", put("monotonic 1 1000000000")); say("negative nsec", put("monotonic 1 -1"));
        say("tail", put("monotonic 1 1 x\n")); say("number", put("1 10000 5")); offsets(); say("7", put("7 20000 0\n1 10000 7\n")); offsets(); say("too far", put("monotonic 9223372037 0")); say("too far", put("monotonic 4611686018 0")); say("negative", put("monotonic -100000 0")); say("three", put("monotonic 30000 3\nboottime 50000 4\nmonotonic 1 1\n")); offsets();
        say("empty", put("")); say("newlines", put("\n")); say("both lines, second bad", put("monotonic 1 1\nboottime 1\n")); offsets();
        int fd = open("/proc/self/timens_offsets", O_RDWR); char c[8]; read(fd, c, 8); say("not at 0", write(fd, "monotonic 1 1", 13)); close(fd);
        clocks("parent"); say("vfork", syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0)); say("thread", syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0));
        say("CLONE_VM", syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0));
        int q = fork();
        if (!q) { clocks("child"); offsets(); say("write now", put("monotonic 1 1")); printf("%s\n", strcmp(link_of("time"), link_of("time_for_children")) ? "differs" : "same"); sleeps(); vvar();
            if (!fork()) { clocks("grandchild"); _exit(0); } wait(0);
            say("nested", unshare(CLONE_NEWTIME)); offsets(); say("add", put("monotonic 70000 0")); if (!fork()) { clocks("nested child"); vvar(); _exit(0); } wait(0);
            _exit(0); }
        reap(q); say("frozen", put("monotonic 1 1"));
        int own = open("/proc/self/ns/time", O_RDONLY), theirs = open("/proc/self/ns/time_for_children", O_RDONLY);
        say("setns", setns(theirs, CLONE_NEWTIME)); clocks("after setns"); say("back", setns(own, CLONE_NEWTIME)); clocks("back");
        pthread_t t; pthread_create(&t, 0, idle, 0); say("with threads", setns(theirs, 0)); say("unshare with threads", unshare(CLONE_NEWTIME)); _exit(0);
    }
    reap(p);
    struct clone_args a = {.flags = CLONE_NEWTIME, .exit_signal = SIGCHLD}; p = syscall(SYS_clone3, &a, sizeof a);
    if (!p) { printf("clone3: %s\n", strcmp(link_of("time"), link_of("time_for_children")) ? "differs" : "same"); say("write", put("monotonic 1 1")); offsets(); _exit(0); }
    if (p < 0) say("clone3", p); else reap(p);
    p = fork(); if (!p) { setpgid(0, 0); unshare(CLONE_NEWTIME); put("monotonic 90000 0"); int q = fork(); if (!q) { pause(); _exit(0); } usleep(1000); int fd = syscall(SYS_pidfd_open, q, 0); say("setns by pidfd", setns(fd, CLONE_NEWTIME)); clocks("by pidfd"); execl("/proc/self/exe", "timens", "x", (char *)0); kill(q, 9); _exit(0); }
    if (p > 0) reap(p);
    return 0;
}
