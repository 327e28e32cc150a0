// Namespaces of process ids: what each level sees, their init, the end of it. Every line is the kernel's answer.
#define _GNU_SOURCE
#include <errno.h>
#include "ename.h"
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int *shared;
static void say(const char *what, long r) {
    if (r < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, r);
    fflush(stdout);
}
static long clone_flags(unsigned long flags) { return syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0); }
static long clone3_tid(unsigned long flags, int *tids, int n) {
    struct clone_args a = {.flags = flags, .exit_signal = SIGCHLD, .set_tid = (long)tids, .set_tid_size = n};
    return syscall(SYS_clone3, &a, sizeof a);
}
static int reap(int pid) {
    int st = -1, r; while ((r = waitpid(pid, &st, __WALL)) < 0 && errno == EINTR);
    if (r < 0) { printf("wait: %s\n", strerrorname_np(errno)); return -1; }
    if (WIFEXITED(st)) printf("exited %d\n", WEXITSTATUS(st)); else if (WIFSIGNALED(st)) printf("killed by %d\n", WTERMSIG(st)); else printf("status %x\n", st);
    fflush(stdout);
    return st;
}
static void status_of(const char *path, int base) {
    FILE *f = fopen(path, "r"); char line[256];
    if (!f) { printf("%s: %s\n", path, strerrorname_np(errno)); return; }
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "NS", 2) || !strncmp(line, "Tgid", 4) || !strncmp(line, "Pid", 3) || !strncmp(line, "PPid", 4)) {
            char *tok = strtok(line, "\t\n"); printf("  %s", tok);
            while ((tok = strtok(NULL, "\t\n"))) { int v = atoi(tok); printf(" %d", v >= base && base ? v - base + 1000 : v); }
            puts("");
        }
    fclose(f); fflush(stdout);
}
static siginfo_t got;
static volatile int count;
static void handler(int s, siginfo_t *i, void *c) { got = *i; count++; }
static void catch(int s) { struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}; sigaction(s, &a, 0); }
static char link_text[64];
static const char *nslink(const char *name) {
    char p[64]; snprintf(p, sizeof p, "/proc/self/ns/%s", name);
    int n = readlink(p, link_text, 63);
    if (n < 0) return strerrorname_np(errno);
    link_text[n] = 0; return link_text;
}

static int plain(void) {
    int me = getpid();
    printf("== a process of its own namespace\n"); fflush(stdout);
    long p = clone_flags(CLONE_NEWPID);
    if (!p) {
        printf("child pid %d ppid %d tid %ld pgrp %d sid %d\n", getpid(), getppid(), syscall(SYS_gettid), getpgrp(), getsid(0)); fflush(stdout);
        say("getpgid(1)", getpgid(1)); say("getpgid(2)", getpgid(2)); say("kill(parent)", kill(me, 0));
        say("setsid", setsid()); say("getpgrp", getpgrp()); say("getsid(0)", getsid(0));
        int q = fork(); if (!q) { printf("grandchild pid %d ppid %d\n", getpid(), getppid()); fflush(stdout); _exit(3); }
        reap(q); printf("fork %d\n", q);
        say("wait4(none)", wait4(-1, 0, 0, 0)); say("waitpid(5)", waitpid(5, 0, 0));
        status_of("/proc/self/status", me);
        _exit(7);
    }
    reap(p);
    say("CLONE_NEWPID|CLONE_THREAD", syscall(SYS_clone, CLONE_NEWPID | CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, 0, 0, 0, 0));
    say("CLONE_NEWPID|CLONE_VM|CLONE_SIGHAND", clone_flags(CLONE_NEWPID | CLONE_SIGHAND));
    int pp = clone_flags(CLONE_NEWPID); if (!pp) { setuid(1000); say("NEWPID without capability", clone_flags(CLONE_NEWPID)); say("unshare", unshare(CLONE_NEWPID)); _exit(0); } reap(pp);
    return 0;
}
static int signals(void) {
    printf("== signals\n"); fflush(stdout);
    int up[2], down[2]; char c; pipe(up); pipe(down);
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        // its own signals do not end it
        say("kill self TERM", kill(1, SIGTERM)); say("kill self KILL", kill(1, SIGKILL)); say("raise STOP", kill(1, SIGSTOP));
        catch(SIGUSR2);
        int q = fork(); if (!q) { say("child kills init", kill(1, SIGKILL)); say("TERM", kill(1, SIGTERM)); catch(SIGUSR1); kill(getpid(), SIGUSR1); printf("own pid %d\n", got.si_pid); kill(getppid(), SIGUSR2); _exit(0); }
        reap(q); while (!count) usleep(1000);
        printf("from child: pid %d code %d\n", got.si_pid, got.si_code); fflush(stdout);
        count = 0; catch(SIGTERM); catch(SIGCHLD);
        write(up[1], "r", 1); read(down[0], &c, 1);
        printf("from parent: signal %d pid %d code %d n %d\n", got.si_signo, got.si_pid, got.si_code, count); fflush(stdout);
        count = 0; q = fork(); if (!q) _exit(9); while (!count) usleep(1000);
        printf("SIGCHLD: pid %d status %d\n", got.si_pid, got.si_status); reap(q);
        say("kill(-1)", kill(-1, SIGKILL));
        q = fork(); if (!q) { pause(); _exit(1); }
        say("kill(-1) with a child", kill(-1, SIGKILL)); reap(q);
        write(up[1], "r", 1); pause(); pause(); _exit(1);
    }
    read(up[0], &c, 1); kill(p, SIGTERM); write(down[1], "g", 1); read(up[0], &c, 1);
    signal(SIGCHLD, SIG_DFL);
    kill(p, SIGINT); usleep(1000); say("INT without handler, from outside", waitpid(p, 0, WNOHANG));
    catch(SIGCHLD); count = 0; kill(p, SIGKILL); while (!count) usleep(1000);
    printf("SIGCHLD is of it: %d code %d status %d\n", got.si_pid == p, got.si_code, got.si_status); reap(p); signal(SIGCHLD, SIG_DFL);
    return 0;
}
static int orphans(void) {
    printf("== orphans and the end of init\n"); fflush(stdout);
    int pf[2]; char c; pipe(pf);
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        if (!fork()) { if (!fork()) { while (getppid() != 1) usleep(500); _exit(getpid() == 3 ? 5 : 6); } _exit(4); }
        int st, n = 0, r; while ((r = wait(&st)) > 0) { printf("reaped %d: %d\n", r, WEXITSTATUS(st)); fflush(stdout); n++; }
        close(pf[0]);
        for (int i = 0; i < 3; i++) if (!fork()) { if (i == 1) signal(SIGTERM, SIG_IGN); pause(); _exit(0); }
        if (!fork()) _exit(0);  // stays a zombie
        usleep(2000);
        _exit(11);
    }
    close(pf[1]);
    say("read after its end", read(pf[0], &c, 1)); reap(p); close(pf[0]);
    printf("== ENOMEM afterwards\n"); fflush(stdout);
    int q = fork();
    if (!q) {
        say("unshare", unshare(CLONE_NEWPID)); printf("pid_for_children %s, same pid %s\n", nslink("pid_for_children"), strcmp(nslink("pid"), "ENOENT") ? "yes" : "no");
        say("unshare again", unshare(CLONE_NEWPID));
        int t = fork(); if (!t) { printf("first pid %d ppid %d\n", getpid(), getppid()); fflush(stdout); _exit(0); }
        reap(t); t = fork(); say("fork after init's end", t);
        say("unshare after", unshare(CLONE_NEWPID)); say("thread", syscall(SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, 0, 0, 0, 0));
        say("vfork", syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0));
        _exit(0);
    }
    reap(q);
    return 0;
}
static int zombie_outside(void) {
    printf("== init waits for who is reaped outside\n"); fflush(stdout);
    int p = fork();
    if (!p) {
        unshare(CLONE_NEWPID);
        int i = fork(); if (!i) { pause(); _exit(0); }
        int o = fork(); if (!o) { printf("second: pid %d ppid %d\n", getpid(), getppid()); fflush(stdout); pause(); _exit(0); }
        usleep(2000); kill(i, SIGKILL); usleep(2000);
        say("init not yet", waitpid(i, 0, WNOHANG)); printf("the other: "); reap(o); printf("init: "); reap(i);
        _exit(0);
    }
    reap(p);
    return 0;
}
static int tids(void) {
    printf("== set_tid\n"); fflush(stdout);
    int me = getpid();
    int one[3] = {1, 1, 1}, two[2] = {1, 3000}, bad[1] = {0}, big[1] = {1 << 22}, busy[1] = {me}, free_[1] = {3100};
    int p;
#define TRY(what, flags, arr, n) p = clone3_tid(flags, arr, n); if (!p) { printf(what " pid %d\n", getpid()); fflush(stdout); _exit(0); } if (p < 0) say(what, p); else { reap(p); if (p >= 3000) printf(what " is %d\n", p); }
    TRY("one", 0, free_, 1) TRY("zero", 0, bad, 1) TRY("big", 0, big, 1) TRY("busy", 0, busy, 1) TRY("two levels", 0, two, 2)
    TRY("new 1", CLONE_NEWPID, one, 1) TRY("new 1,3000", CLONE_NEWPID, two, 2) TRY("new 2", CLONE_NEWPID, free_, 1) TRY("new 3", CLONE_NEWPID, one, 3)
    int q = clone_flags(CLONE_NEWPID);
    if (!q) {
        int in[2] = {42, 3200}; TRY("in ns 42", 0, in, 1) TRY("in ns 42 and out", 0, in, 2) TRY("again 1", 0, one, 1)
        p = fork(); if (!p) { printf("next is %d\n", getpid()); fflush(stdout); _exit(0); } reap(p);
        int f = open("/proc/sys/kernel/ns_last_pid", O_RDWR); char b[32]; int n = pread(f, b, 31, 0); b[n > 0 ? n : 0] = 0; printf("ns_last_pid %s", b);
        say("write", write(f, "99", 2)); p = fork(); if (!p) { printf("then %d\n", getpid()); fflush(stdout); _exit(0); } reap(p);
        setuid(1000); TRY("no capability", 0, in, 1) say("write", write(f, "99", 2)); say("open", open("/proc/sys/kernel/ns_last_pid", O_RDWR) > 0);
        _exit(0);
    }
    reap(q);
    return 0;
}
static int nested(void) {
    printf("== nested\n"); fflush(stdout);
    int pf[2], back[2]; pipe(pf); pipe(back); shared[4] = getpid();
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        if (fork() == 0) { pause(); _exit(0); }
        int q = clone_flags(CLONE_NEWPID);
        if (!q) {
            char c; if (!fork()) { printf("deep %d of %d\n", getpid(), getppid()); fflush(stdout); status_of("/proc/self/status", shared[4]); int st = getpid(); write(pf[1], &st, 4); shared[2] = 1; pause(); _exit(0); }
            read(back[0], &c, 1); _exit(0);
        }
        while (!shared[2]) usleep(500);
        printf("middle: child %d\n", q); fflush(stdout);
        for (int i = 1; i < 6; i++) { printf("kill(%d): ", i); say("", kill(i, 0)); }
        shared[3] = 1; reap(q); for (int i = 1; i < 6; i++) { printf("kill(%d): ", i); say("", kill(i, 0)); }
        _exit(0);
    }
    int v; read(pf[0], &v, 4); while (!shared[3]) usleep(500);
    printf("said %d\n", v);
    char path[64]; struct stat st; int n = 0;
    for (int i = p + 1; i < p + 4; i++) { snprintf(path, sizeof path, "/proc/%d/status", i); printf("p+%d:\n", i - p); status_of(path, p); }
    write(back[1], "x", 1); reap(p);
    for (int i = p; i < p + 4; i++) n += kill(i, 0) == 0; printf("left: %d\n", n);
    printf("== how deep\n"); fflush(stdout);
    int *depth = shared; *depth = 0;
    p = fork();
    if (!p) {
        for (;;) {
            int q = clone_flags(CLONE_NEWPID);
            if (q < 0) { printf("level %d: %s\n", *depth, strerrorname_np(errno)); fflush(stdout); _exit(0); }
            if (q) { waitpid(q, 0, 0); _exit(0); }
            ++*depth;
        }
    }
    reap(p); *depth = 0;
    return 0;
}
static int credentials(void) {
    printf("== credentials\n"); fflush(stdout);
    int sv[2], on = 1, me = getpid(); socketpair(AF_UNIX, SOCK_DGRAM, 0, sv); setsockopt(sv[0], SOL_SOCKET, SO_PASSCRED, &on, 4); setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, 4);
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        char c, buf[64]; struct iovec iov = {&c, 1}; struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf};
        struct ucred u; socklen_t l = sizeof u; getsockopt(sv[1], SOL_SOCKET, SO_PEERCRED, &u, &l); printf("SO_PEERCRED inside %d\n", u.pid); fflush(stdout);
        recvmsg(sv[1], &m, 0); memcpy(&u, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof u); printf("SCM inside %d\n", u.pid); fflush(stdout);
        send(sv[1], "a", 1, 0);
        u.pid = 1; u.uid = u.gid = 0; m.msg_controllen = CMSG_SPACE(sizeof u); struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_CREDENTIALS; h->cmsg_len = CMSG_LEN(sizeof u);
        memcpy(CMSG_DATA(h), &u, sizeof u); say("as 1", sendmsg(sv[1], &m, 0)); u.pid = me; memcpy(CMSG_DATA(h), &u, sizeof u); say("as parent's number", sendmsg(sv[1], &m, 0));
        int fd = sv[1]; say("F_SETOWN 1", fcntl(fd, F_SETOWN, 1)); say("F_GETOWN", fcntl(fd, F_GETOWN)); say("F_SETOWN 77", fcntl(fd, F_SETOWN, 77)); say("F_SETOWN -1", fcntl(fd, F_SETOWN, -1));
        fd = open("/tmp/lock", O_RDWR | O_CREAT, 0600); struct flock fl = {.l_type = F_WRLCK, .l_len = 10}; say("F_SETLK", fcntl(fd, F_SETLK, &fl));
        int q = fork(); if (!q) { fcntl(fd, F_GETLK, &fl); printf("held by %d\n", fl.l_pid); fflush(stdout); _exit(0); } reap(q);
        shared[1] = 0; shared[0] = 1; while (!shared[1]) usleep(1000); _exit(0);
    }
    send(sv[0], "x", 1, 0);
    while (!shared[0]) usleep(1000);
    for (int i = 0; i < 2; i++) { char c, buf[64]; struct iovec iov = {&c, 1}; struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf}; struct ucred u;
        recvmsg(sv[0], &m, 0); memcpy(&u, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof u); printf("SCM outside is it: %d\n", u.pid == p); }
    printf("F_GETOWN outside is it: %d\n", fcntl(sv[1], F_GETOWN) == p);
    int fd = open("/tmp/lock", O_RDWR); struct flock fl = {.l_type = F_WRLCK, .l_len = 10}; fcntl(fd, F_GETLK, &fl); printf("lock held by it: %d\n", fl.l_pid == p); fflush(stdout);
    shared[1] = 1; reap(p); shared[0] = shared[1] = 0;
    fl.l_type = F_WRLCK; fcntl(fd, F_SETLK, &fl);
    p = clone_flags(CLONE_NEWPID); if (!p) { fl.l_type = F_WRLCK; fcntl(fd, F_GETLK, &fl); printf("lock of outside: %d\n", fl.l_pid); fflush(stdout); _exit(0); } reap(p);
    return 0;
}
static int tree(void) {
    printf("== proc\n"); fflush(stdout);
    mkdir("/tmp/p", 0755); int me = getpid();
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        printf("outer self: %s\n", readlink("/proc/self", link_text, 63) > 0 ? (atoi(link_text) > 1 ? "a number" : "1") : strerrorname_np(errno));
        say("mount", mount("proc", "/tmp/p", "proc", 0, 0));
        memset(link_text, 0, 64); readlink("/tmp/p/self", link_text, 63); printf("inner self %s\n", link_text); memset(link_text, 0, 64); readlink("/tmp/p/thread-self", link_text, 63); printf("inner thread-self %s\n", link_text);
        int q = fork(); if (!q) { pause(); _exit(0); }
        status_of("/tmp/p/1/status", 0); status_of("/tmp/p/2/status", 0); char path[64]; snprintf(path, 64, "/tmp/p/%d", me); say("outer's folder", access(path, F_OK)); say("3", access("/tmp/p/3", F_OK));
        char b[256]; int f = open("/tmp/p/2/stat", O_RDONLY), n = read(f, b, 255); b[n] = 0; int a[5]; char cm[32], s; sscanf(b, "%d %s %c %d %d %d", a, cm, &s, a + 1, a + 2, a + 3); printf("stat %d %d %d %d\n", a[0], a[1], a[2], a[3]);
        f = open("/tmp/p/1/task/1/children", O_RDONLY); n = read(f, b, 255); b[n > 0 ? n : 0] = 0; printf("children %s\n", b);
        f = open("/tmp/p/loadavg", O_RDONLY); n = read(f, b, 255); b[n > 0 ? n : 0] = 0; printf("last pid %s", strrchr(b, ' ') + 1);
        fflush(stdout); shared[0] = 1; while (!shared[1]) usleep(1000);
        kill(q, SIGKILL); reap(q); say("gone", access("/tmp/p/2", F_OK)); _exit(0);
    }
    while (!shared[0]) usleep(1000);
    memset(link_text, 0, 64); printf("inner proc's self from outside: %s\n", readlink("/tmp/p/self", link_text, 63) < 0 ? strerrorname_np(errno) : link_text); say("open self/status", open("/tmp/p/self/status", 0));
    printf("1 is there %d\n", access("/tmp/p/1", F_OK)); fflush(stdout);
    shared[1] = 1; reap(p); shared[0] = shared[1] = 0; say("1 afterwards", access("/tmp/p/1", F_OK)); say("umount", umount("/tmp/p"));
    return 0;
}
static int joins(void) {
    printf("== setns\n"); fflush(stdout);
    char path[64]; int p = clone_flags(CLONE_NEWPID); if (!p) { pause(); _exit(0); }
    snprintf(path, 64, "/proc/%d/ns/pid", p); int fd = open(path, O_RDONLY), own = open("/proc/self/ns/pid", O_RDONLY), uts = open("/proc/self/ns/uts", O_RDONLY);
    struct stat a, b; fstat(fd, &a); fstat(own, &b); printf("same %d\n", a.st_ino == b.st_ino);
    say("type", ioctl(fd, 0xb703) == CLONE_NEWPID); int up = ioctl(fd, 0xb702); fstat(up, &a); printf("parent is ours: %d\n", a.st_ino == b.st_ino);
    say("parent of first", ioctl(own, 0xb702)); say("parent of uts", ioctl(uts, 0xb702)); say("userns", ioctl(fd, 0xb701)); say("owner", ioctl(fd, 0xb704)); say("nonsense", ioctl(fd, 0xb705));
    int q = fork();
    if (!q) {
        say("setns wrong type", setns(fd, CLONE_NEWUTS)); say("setns", setns(fd, CLONE_NEWPID)); printf("still pid %s\n", getpid() > 2 ? "outer" : "inner");
        int t = fork(); if (!t) { printf("in it: pid %d ppid %d\n", getpid(), getppid()); say("back", setns(own, CLONE_NEWPID)); fflush(stdout);
            int g = fork(); if (!g) { printf("below: %d of %d\n", getpid(), getppid()); fflush(stdout); _exit(0); } reap(g); _exit(0); }
        reap(t); printf("outer number differs %d\n", t > 2); say("setns own", setns(own, 0)); t = fork(); if (!t) { printf("outer again %d\n", getpid() > 2); fflush(stdout); _exit(0); } reap(t); _exit(0);
    }
    reap(q);
    int pfd = syscall(SYS_pidfd_open, p, 0);
    q = fork(); if (!q) { say("setns pidfd 0", setns(pfd, 0)); say("pidfd user", setns(pfd, CLONE_NEWUSER)); say("pidfd bits", setns(pfd, 1)); say("pidfd PID|UTS|IPC|NET|NS", setns(pfd, CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS));
        int t = fork(); if (!t) { printf("by pidfd pid %d\n", getpid()); fflush(stdout); _exit(0); } reap(t); setuid(1000); say("no capability", setns(pfd, CLONE_NEWPID)); _exit(0); }
    reap(q); kill(p, SIGKILL); reap(p); say("dead pidfd", setns(pfd, CLONE_NEWPID));
    q = fork(); if (!q) { say("dead namespace", setns(fd, CLONE_NEWPID)); say("fork", fork()); _exit(0); } reap(q);
    say("not a namespace", setns(0, 0)); say("bad", setns(99, 0));
    return 0;
}
static int traced(void) {
    printf("== ptrace, waitid, pidfd\n"); fflush(stdout);
    int p = clone_flags(CLONE_NEWPID);
    if (!p) {
        int q = fork();
        if (!q) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); int t = fork(); if (!t) _exit(0); waitpid(t, 0, 0); _exit(2); }
        int st; waitpid(q, &st, 0); ptrace(PTRACE_SETOPTIONS, q, 0, PTRACE_O_TRACEFORK); ptrace(PTRACE_CONT, q, 0, 0); waitpid(q, &st, 0); long msg = 0; ptrace(PTRACE_GETEVENTMSG, q, 0, &msg); printf("event %x message %ld\n", st >> 8, msg);
        siginfo_t si; ptrace(PTRACE_GETSIGINFO, q, 0, &si); printf("siginfo pid %d\n", si.si_pid); ptrace(PTRACE_DETACH, q, 0, 0); ptrace(PTRACE_DETACH, (int)msg, 0, 0); waitpid(msg, &st, 0); ptrace(PTRACE_DETACH, (int)msg, 0, 0);
        si.si_pid = 0; say("waitid", waitid(P_PID, q, &si, WEXITED)); printf("pid %d status %d\n", si.si_pid, si.si_status);
        q = fork(); if (!q) { pause(); _exit(0); } int fd = syscall(SYS_pidfd_open, q, 0); char path[64], b[256]; snprintf(path, 64, "/proc/self/fdinfo/%d", fd); int f = open(path, O_RDONLY), n = read(f, b, 255); b[n > 0 ? n : 0] = 0; char *s = strstr(b, "NSpid"); int x = 0, y = 0; printf("NSpid fields %d, inner %d\n", s ? sscanf(s, "NSpid:\t%d\t%d", &x, &y) : 0, y);
        say("pidfd kill", syscall(SYS_pidfd_send_signal, fd, SIGKILL, 0, 0)); si.si_pid = 0; say("waitid pidfd", waitid(3, fd, &si, WEXITED)); printf("pid %d status %d\n", si.si_pid, si.si_status);
        say("setpriority 1", setpriority(0, 1, 5)); say("getpriority 1", getpriority(0, 1)); say("sched_getscheduler 9", sched_getscheduler(9)); say("prlimit 1", syscall(SYS_prlimit64, 1, 7, 0, 0)); say("prlimit 9", syscall(SYS_prlimit64, 9, 7, 0, 0));
        fflush(stdout); _exit(0);
    }
    reap(p);
    return 0;
}
static int subreapers(void) {
    printf("== subreaper outside does not count\n"); fflush(stdout);
    int q = fork();
    if (!q) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        int p = clone_flags(CLONE_NEWPID);
        if (!p) { if (!fork()) { if (!fork()) { while (getppid() == 2) usleep(500); printf("to %d\n", getppid()); fflush(stdout); _exit(6); } _exit(0); } int st, r, n = 0; while (wait(&st) > 0) n++; printf("init reaped %d\n", n); fflush(stdout);
            prctl(PR_SET_PDEATHSIG, SIGKILL); _exit(0); }
        reap(p); _exit(0);
    }
    reap(q);
    return 0;
}
#include <sys/resource.h>
static int reboots(void) {
    printf("== reboot within\n"); fflush(stdout);
    static const unsigned cmds[] = {0x01234567, 0xA1B2C3D4, 0xCDEF0123, 0x4321FEDC, 0, 0x89ABCDEF};
    for (int i = 0; i < 6; i++) {
        int p = clone_flags(CLONE_NEWPID);
        if (!p) { int q = fork(); if (!q) { say("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, cmds[i], 0)); _exit(4); } reap(q); if (i < 4) pause(); _exit(3); }
        reap(p);
    }
    int p = clone_flags(CLONE_NEWPID); if (!p) { syscall(SYS_reboot, 0xfee1dead, 672274793, cmds[2], 0); _exit(4); } reap(p);
    return 0;
}
int main(int argc, char **argv) {
    int (*const parts[])(void) = {plain, signals, orphans, zombie_outside, tids, nested, credentials, tree, joins, traced, subreapers, reboots};
    setvbuf(stdout, 0, _IOLBF, 0);
    shared = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        if (argc < 2 || atoi(argv[1]) == (int)i) parts[i]();
    return 0;
}
