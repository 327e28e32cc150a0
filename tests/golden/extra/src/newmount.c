// Mounting in steps, and the mount table: what each call answers, the messages of a context, what is seen afterwards.
#define _GNU_SOURCE
#include <errno.h>
#include "ename.h"
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
enum { FLAG, STRING, BINARY, PATH, PATH_EMPTY, FD, CREATE, RECONF };
static void say(const char *what, long r) { if (r < 0) printf("%s: %s\n", what, strerrorname_np(errno)); else printf("%s: %ld\n", what, r); }
static void ok(const char *what, long r) { say(what, r < 0 ? r : 0); }
static int fsopen_(const char *n, unsigned f) { return syscall(SYS_fsopen, n, f); }
static int config(int fd, unsigned cmd, const char *k, const void *v, int aux) { return syscall(SYS_fsconfig, fd, cmd, k, v, aux); }
static int fsmount_(int fd, unsigned f, unsigned a) { return syscall(SYS_fsmount, fd, f, a); }
static int pick(int d, const char *p, unsigned f) { return syscall(SYS_fspick, d, p, f); }
static int tree(int d, const char *p, unsigned f) { return syscall(SYS_open_tree, d, p, f); }
static int move(int a, const char *p, int b, const char *q, unsigned f) { return syscall(SYS_move_mount, a, p, b, q, f); }
static void drain(int fd) { char b[256]; int n; while ((n = read(fd, b, 255)) >= 0) { b[n] = 0; printf("  <%.*s>\n", b[n - 1] == '\n' ? n - 1 : n, b); } if (errno != ENODATA) printf("  %s\n", strerrorname_np(errno)); }
// lines of mountinfo below /tmp, without numbers
static void table(const char *who) {
    FILE *f = fopen("/proc/self/mountinfo", "r"); char line[512], root[128], at[128], opt[128], rest[256]; int id, up; char dev[32];
    printf("%s:\n", who);
    while (fgets(line, 512, f)) if (sscanf(line, "%d %d %31s %127s %127s %127s %255[^\n]", &id, &up, dev, root, at, opt, rest) == 7 && !strncmp(at, "/tmp/", 5)) printf("  %s %s %s %s\n", root, at, opt, rest);
    fclose(f);
}
static void mounts_line(const char *dir) { FILE *f = fopen("/proc/mounts", "r"); char line[512], at[128]; while (fgets(line, 512, f)) if (sscanf(line, "%*s %127s", at) == 1 && !strcmp(at, dir)) printf("  %s", line); fclose(f); }
static void make(const char *p) { int fd = open(p, O_CREAT | O_RDWR, 0644); if (fd < 0) say(p, fd); close(fd); }

static void opening(void) {
    puts("== fsopen");
    int fd = fsopen_("tmpfs", 0); ok("tmpfs", fd); char p[64], b[64]; snprintf(p, 64, "/proc/self/fd/%d", fd); int n = readlink(p, b, 63); b[n > 0 ? n : 0] = 0; puts(b); printf("cloexec %d flags %x\n", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL) & 3);
    say("write", write(fd, "x", 1)); say("lseek", lseek(fd, 0, SEEK_SET)); say("read", read(fd, b, 8)); close(fd);
    fd = fsopen_("tmpfs", 1); printf("cloexec %d\n", fcntl(fd, F_GETFD)); close(fd);
    say("flags", fsopen_("tmpfs", 2)); say("nosuch", fsopen_("nosuch", 0)); say("empty", fsopen_("", 0)); say("null", fsopen_(0, 0)); say("fault", fsopen_((char *)1, 0));
    static const char *all[] = {"sysfs", "proc", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "ramfs", "ext2"};
    for (int i = 0; i < 8; i++) { fd = fsopen_(all[i], 0); ok(all[i], fd); ok("  create", config(fd, CREATE, 0, 0, 0)); drain(fd); close(fd); }
}
static void configuring(void) {
    puts("== fsconfig");
    int fd = fsopen_("tmpfs", 0);
    say("bad fd", config(-1, FLAG, "ro", 0, 0)); say("closed", config(99, FLAG, "ro", 0, 0)); say("other file", config(0, FLAG, "ro", 0, 0)); say("cmd", config(fd, 77, 0, 0, 0));
    say("flag with value", config(fd, FLAG, "ro", "x", 0)); say("flag with aux", config(fd, FLAG, "ro", 0, 1)); say("no key", config(fd, FLAG, 0, 0, 0)); say("string no value", config(fd, STRING, "size", 0, 0)); say("binary 0", config(fd, BINARY, "size", "x", 0)); say("binary big", config(fd, BINARY, "size", "x", (1 << 20) + 1)); say("path aux", config(fd, PATH, "size", "/", -5)); say("fd aux", config(fd, FD, "size", 0, -1)); say("create with key", config(fd, CREATE, "x", 0, 0)); say("reconf aux", config(fd, RECONF, 0, 0, 3));
    say("ro", config(fd, FLAG, "ro", 0, 0)); say("rw", config(fd, FLAG, "rw", 0, 0)); say("sync string", config(fd, STRING, "sync", "yes", 0)); say("async", config(fd, FLAG, "async", 0, 0)); drain(fd);
    say("unknown", config(fd, FLAG, "nosuch", 0, 0)); say("size as flag", config(fd, FLAG, "size", 0, 0)); say("size bad", config(fd, STRING, "size", "12q", 0)); say("size empty", config(fd, STRING, "size", "", 0)); say("uid bad", config(fd, STRING, "uid", "x", 0)); say("mode bad", config(fd, STRING, "mode", "9", 0)); say("inode64 value", config(fd, STRING, "inode64", "1", 0)); drain(fd);
    say("binary", config(fd, BINARY, "size", "4k", 2)); say("path", config(fd, PATH, "size", "/tmp", AT_FDCWD)); say("path empty", config(fd, PATH, "size", "", AT_FDCWD)); say("path_empty", config(fd, PATH_EMPTY, "size", "", AT_FDCWD)); say("fd", config(fd, FD, "size", 0, 0)); say("fd closed", config(fd, FD, "size", 0, 99)); drain(fd);
    say("source flag", config(fd, FLAG, "source", 0, 0)); say("source", config(fd, STRING, "source", "mine", 0)); say("again", config(fd, STRING, "source", "yours", 0)); drain(fd);
    static char longkey[300]; memset(longkey, 'k', 299); say("long key", config(fd, FLAG, longkey, 0, 0)); say("long value", config(fd, STRING, "size", longkey, 0)); say("fault", config(fd, FLAG, (char *)1, 0, 0)); say("huge", config(fd, STRING, "huge", "sometimes", 0)); say("mpol", config(fd, STRING, "mpol", "nonsense", 0)); drain(fd);
    char key[16]; for (int i = 0; i < 10; i++) { sprintf(key, "k%d", i); config(fd, FLAG, key, 0, 0); } char b[8]; say("short read", read(fd, b, 8)); drain(fd);
    say("reconfigure", config(fd, RECONF, 0, 0, 0)); say("mount too early", fsmount_(fd, 0, 0));
    say("size", config(fd, STRING, "size", "64k", 0)); say("mode", config(fd, STRING, "mode", "700", 0)); say("uid", config(fd, STRING, "uid", "0x10", 0)); say("gid", config(fd, STRING, "gid", "012", 0)); say("nr_inodes", config(fd, STRING, "nr_inodes", "1k", 0));
    say("create", config(fd, CREATE, 0, 0, 0)); say("create twice", config(fd, CREATE, 0, 0, 0)); say("param now", config(fd, FLAG, "ro", 0, 0)); say("reconf now", config(fd, RECONF, 0, 0, 0));
    say("fsmount flags", fsmount_(fd, 2, 0)); say("attr", fsmount_(fd, 0, 0x1000)); say("atime", fsmount_(fd, 0, 0x30)); say("fd", fsmount_(99, 0, 0)); say("other", fsmount_(0, 0, 0));
    int m = fsmount_(fd, 1, 2 | 4 | 8 | 0x10 | 0x80); ok("fsmount", m); say("twice", fsmount_(fd, 0, 0)); printf("cloexec %d path %d\n", fcntl(m, F_GETFD), !!(fcntl(m, F_GETFL) & O_PATH));
    struct stat st; fstat(m, &st); printf("mode %o uid %d gid %d\n", st.st_mode, st.st_uid, st.st_gid); struct statfs sf; fstatfs(m, &sf); printf("blocks %ld files %ld flags %lx\n", (long)(sf.f_blocks * sf.f_bsize), (long)sf.f_files, (long)sf.f_flags);
    char p[64], q[128]; snprintf(p, 64, "/proc/self/fd/%d", m); int n = readlink(p, q, 127); q[n > 0 ? n : 0] = 0; puts(q);
    int f = openat(m, "inside", O_CREAT | O_RDWR, 0600); ok("file in it", f); say("write 64k", ({ static char big[80000]; write(f, big, 80000); })); say("more", write(f, "x", 1)); close(f);
    say("mkdirat", mkdirat(m, "dir", 0755)); mkdir("/tmp/a", 0755); mkdir("/tmp/b", 0755); make("/tmp/plain");
    say("to a file", move(m, "", AT_FDCWD, "/tmp/plain", 4)); say("no empty", move(m, "", AT_FDCWD, "/tmp/a", 0)); say("bad flags", move(m, "", AT_FDCWD, "/tmp/a", 0x200)); say("nowhere", move(m, "", AT_FDCWD, "/tmp/nowhere", 4)); say("move a sub", move(m, "dir", AT_FDCWD, "/tmp/a", 0));
    say("move", move(m, "", AT_FDCWD, "/tmp/a", 4)); say("again", move(m, "", AT_FDCWD, "/tmp/a", 4)); table("after"); mounts_line("/tmp/a"); say("there", access("/tmp/a/inside", F_OK)); say("move elsewhere", move(m, "", AT_FDCWD, "/tmp/b", 4)); table("moved"); say("into itself", move(m, "", AT_FDCWD, "/tmp/b/dir", 4));
    // the context is one for changes now
    say("size 32k", config(fd, STRING, "size", "32k", 0)); say("reconf", config(fd, RECONF, 0, 0, 0)); drain(fd); say("after failure", config(fd, FLAG, "ro", 0, 0)); close(fd); close(m);
    say("umount", umount("/tmp/b"));
    fd = fsopen_("tmpfs", 0); config(fd, CREATE, 0, 0, 0); m = fsmount_(fd, 0, 0x20); table("detached"); close(m); say("again", fsmount_(fd, 0, 0)); say("create", config(fd, CREATE, 0, 0, 0)); close(fd);
}
static void picking(void) {
    puts("== fspick");
    say("mount", mount("src", "/tmp/a", "tmpfs", MS_NOSUID, "size=128k,mode=0711")); make("/tmp/a/f"); mkdir("/tmp/a/d", 0755); table("tmpfs");
    say("not a root", pick(AT_FDCWD, "/tmp/a/d", 0)); say("no such", pick(AT_FDCWD, "/tmp/none", 0)); say("flags", pick(AT_FDCWD, "/tmp/a", 0x10)); say("empty", pick(AT_FDCWD, "", 0));
    int d = open("/tmp/a", O_RDONLY), fd = pick(d, "", 8); ok("empty path", fd); close(d); say("create", config(fd, CREATE, 0, 0, 0)); say("ro", config(fd, FLAG, "ro", 0, 0)); int w = open("/tmp/a/f", O_RDWR); say("with a writer", config(fd, RECONF, 0, 0, 0)); close(w); say("phase", config(fd, FLAG, "ro", 0, 0)); close(fd);
    fd = pick(AT_FDCWD, "/tmp/a", 1); say("ro", config(fd, FLAG, "ro", 0, 0)); say("size", config(fd, STRING, "size", "256k", 0)); say("reconf", config(fd, RECONF, 0, 0, 0)); table("ro"); mounts_line("/tmp/a"); say("open", open("/tmp/a/f", O_RDWR)); say("mkdir", mkdir("/tmp/a/e", 0755)); say("access", access("/tmp/a/f", W_OK)); say("fsmount", fsmount_(fd, 0, 0)); say("rw", config(fd, FLAG, "rw", 0, 0)); say("reconf", config(fd, RECONF, 0, 0, 0)); say("mkdir", mkdir("/tmp/a/e", 0755)); drain(fd); close(fd);
    say("remount", mount(0, "/tmp/a", 0, MS_REMOUNT | MS_NOEXEC, "size=512k")); table("remounted"); say("too small", mount(0, "/tmp/a", 0, MS_REMOUNT, "nr_inodes=1")); say("bind ro", mount(0, "/tmp/a", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)); table("bind ro"); say("open", open("/tmp/a/f", O_RDWR)); say("not a root", mount(0, "/tmp/a/d", 0, MS_REMOUNT, 0)); say("rw", mount(0, "/tmp/a", 0, MS_REMOUNT | MS_BIND, 0));
    say("umount", umount("/tmp/a")); say("umount", umount("/tmp/a"));
}
static void trees(void) {
    puts("== open_tree, bind and move");
    mkdir("/tmp/t", 0755); say("t", mount("t", "/tmp/t", "tmpfs", 0, 0)); mkdir("/tmp/t/in", 0755); mkdir("/tmp/t/in/x", 0755); say("in", mount("in", "/tmp/t/in", "tmpfs", 0, 0)); mkdir("/tmp/t/in/y", 0755);
    int fd = tree(AT_FDCWD, "/tmp/t", 0); ok("open_tree", fd); printf("path %d cloexec %d\n", !!(fcntl(fd, F_GETFL) & O_PATH), fcntl(fd, F_GETFD)); say("move it", move(fd, "", AT_FDCWD, "/tmp/a", 4)); table("moved"); say("back", move(AT_FDCWD, "/tmp/a", AT_FDCWD, "/tmp/t", 0)); close(fd);
    say("flags", tree(AT_FDCWD, "/tmp/t", 2)); say("recursive alone", tree(AT_FDCWD, "/tmp/t", AT_RECURSIVE)); say("none", tree(AT_FDCWD, "/tmp/none", 1)); say("empty", tree(AT_FDCWD, "", 1));
    fd = tree(AT_FDCWD, "/tmp/t", 1 | O_CLOEXEC); ok("clone", fd); say("in it", faccessat(fd, "in/y", F_OK, 0)); say("to b", move(fd, "", AT_FDCWD, "/tmp/b", 4)); table("clone"); close(fd); say("umount", umount("/tmp/b"));
    fd = tree(AT_FDCWD, "/tmp/t", 1 | AT_RECURSIVE); say("in it", faccessat(fd, "in/y", F_OK, 0)); say("to b", move(fd, "", AT_FDCWD, "/tmp/b", 4)); table("recursive"); say("busy", umount("/tmp/b")); close(fd); say("detach", umount2("/tmp/b", MNT_DETACH)); table("detached");
    fd = tree(AT_FDCWD, "/tmp/t/in/y", 1); say("a folder", move(fd, "", AT_FDCWD, "/tmp/b", 4)); table("folder"); close(fd); umount("/tmp/b");
    fd = tree(AT_FDCWD, "/tmp/plain", 1); say("a file over a file", ({ make("/tmp/plain2"); move(fd, "", AT_FDCWD, "/tmp/plain2", 4); })); table("file"); close(fd); say("umount", umount("/tmp/plain2"));
    fd = tree(AT_FDCWD, "/tmp/t", 1); close(fd); table("closed");
    say("bind", mount("/tmp/t", "/tmp/b", 0, MS_BIND, 0)); say("bind twice", mount("/tmp/t", "/tmp/b", 0, MS_BIND, 0)); say("rbind", mount("/tmp/t", "/tmp/a", 0, MS_BIND | MS_REC, 0)); table("bound"); say("rmdir", rmdir("/tmp/b")); say("umount b", umount("/tmp/b")); say("umount b", umount("/tmp/b")); say("move", mount("/tmp/a", "/tmp/b", 0, MS_MOVE, 0)); table("moved"); say("move no mount", mount("/tmp/t/in/y", "/tmp/a", 0, MS_MOVE, 0)); say("loop", mount("/tmp/t", "/tmp/t/in/y", 0, MS_MOVE, 0)); say("detach", umount2("/tmp/b", MNT_DETACH));
    say("private", mount(0, "/tmp/t", 0, MS_PRIVATE, 0)); say("rprivate", mount(0, "/", 0, MS_PRIVATE | MS_REC, 0)); say("slave", mount(0, "/tmp/t", 0, MS_SLAVE, 0)); say("two", mount(0, "/tmp/t", 0, MS_SLAVE | MS_PRIVATE, 0)); say("no root", mount(0, "/tmp/t/in/y", 0, MS_PRIVATE, 0)); say("unbindable", mount(0, "/tmp/t", 0, MS_UNBINDABLE, 0)); table("unbindable"); say("bind", mount("/tmp/t", "/tmp/b", 0, MS_BIND, 0)); say("open_tree", tree(AT_FDCWD, "/tmp/t", 1)); say("private", mount(0, "/tmp/t", 0, MS_PRIVATE, 0));
    say("expire busy", umount2("/tmp/t", MNT_EXPIRE)); say("expire", umount2("/tmp/t/in", MNT_EXPIRE)); say("expire", umount2("/tmp/t/in", MNT_EXPIRE)); say("flags", umount2("/tmp/t", 0x40)); say("expire detach", umount2("/tmp/t", MNT_EXPIRE | MNT_DETACH)); say("no mount", umount("/tmp/a"));
    int h = open("/tmp/t/in", O_RDONLY); say("busy", umount("/tmp/t")); close(h); symlink("/tmp/t", "/tmp/link"); say("nofollow", umount2("/tmp/link", UMOUNT_NOFOLLOW)); say("umount", umount("/tmp/link"));
}
static void flags(void) {
    puts("== what a mount's flags do");
    say("mount", mount("f", "/tmp/a", "tmpfs", MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_NOATIME, 0)); table("flags");
    mknod("/tmp/a/null", S_IFCHR | 0666, makedev(1, 3)); say("nodev", open("/tmp/a/null", O_RDWR)); int s = open("/proc/self/exe", O_RDONLY), d = open("/tmp/a/prog", O_CREAT | O_WRONLY, 0755); char b[4096]; int n; while ((n = read(s, b, 4096)) > 0) write(d, b, n); close(d); close(s);
    char *args[] = {"prog", "x", 0}; say("noexec", execv("/tmp/a/prog", args)); d = open("/tmp/a/prog", O_RDONLY); void *p = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, d, 0); say("mmap exec", p == MAP_FAILED ? -1 : 0); p = mmap(0, 4096, PROT_READ, MAP_PRIVATE, d, 0); say("mmap read", p == MAP_FAILED ? -1 : 0); say("mprotect", mprotect(p, 4096, PROT_READ | PROT_EXEC)); munmap(p, 4096); close(d);
    say("nosymfollow", mount(0, "/tmp/a", 0, MS_REMOUNT | 256, 0)); symlink("prog", "/tmp/a/l"); say("through a link", open("/tmp/a/l", O_RDONLY)); struct statfs sf; statfs("/tmp/a", &sf); printf("f_flags %lx\n", (long)sf.f_flags); table("nosymfollow");
    say("umount", umount("/tmp/a")); say("strictatime", mount("f", "/tmp/a", "tmpfs", MS_STRICTATIME | MS_NODIRATIME | MS_SYNCHRONOUS | MS_DIRSYNC, 0)); table("strict"); mounts_line("/tmp/a"); say("umount", umount("/tmp/a"));
    say("ro", mount("f", "/tmp/a", "tmpfs", MS_RDONLY, 0)); table("ro"); say("write", open("/tmp/a/x", O_CREAT | O_WRONLY, 0644)); umount("/tmp/a");
    say("ramfs", mount("r", "/tmp/a", "ramfs", 0, "mode=1755,anything=5")); table("ramfs"); umount("/tmp/a"); say("bad option", mount("r", "/tmp/a", "tmpfs", 0, "anything=5")); say("type", mount("r", "/tmp/a", "nosuch", 0, 0)); say("no type", mount("r", "/tmp/a", 0, 0, 0)); say("on a file", mount("r", "/tmp/plain", "tmpfs", 0, 0)); say("nowhere", mount("r", "/tmp/nowhere", "tmpfs", 0, 0)); say("fault", mount("r", (char *)1, "tmpfs", 0, 0)); say("ext2", mount("/tmp/plain", "/tmp/a", "ext2", 0, 0)); say("ext2 nothing", mount(0, "/tmp/a", "ext2", 0, 0));
    say("devpts", mount("p", "/tmp/a", "devpts", 0, "mode=620,ptmxmode=666,gid=5,max=1")); table("devpts"); int m = open("/tmp/a/ptmx", O_RDWR | O_NOCTTY); ok("ptmx", m); struct stat st; stat("/tmp/a/0", &st); printf("%o gid %d\n", st.st_mode, st.st_gid); say("one more", open("/tmp/a/ptmx", O_RDWR | O_NOCTTY)); close(m); say("gone", access("/tmp/a/0", F_OK)); say("bad option", mount("p", "/tmp/b", "devpts", 0, "what")); umount("/tmp/a");
}
static void spaces(void) {
    puts("== namespaces of mounts");
    int a[2], b[2]; char c; pipe(a); pipe(b); int p = fork();
    if (!p) {
        chdir("/tmp/t"); say("unshare", unshare(CLONE_NEWNS)); say("inside", mount("inside", "/tmp/a", "tmpfs", 0, 0)); mkdir("/tmp/a/only", 0755); say("umount t", umount2("/tmp/t", MNT_DETACH)); table("child"); fflush(stdout); write(a[1], "x", 1); read(b[0], &c, 1);
        say("outside's", access("/tmp/b/new", F_OK)); mkdir("/tmp/a/root", 0755); mkdir("/tmp/a/root/old", 0755); say("bind", mount("/tmp/a/root", "/tmp/a/root", 0, MS_BIND, 0)); say("pivot on the rootfs", syscall(SYS_pivot_root, "/tmp/a/root", "/tmp/a/root/old")); say("chroot", chroot("/tmp/a")); say("pivot", syscall(SYS_pivot_root, "/root", "/root/old")); say("old", access("/old/only", F_OK)); say("here", access("/tmp", F_OK)); fflush(stdout); _exit(0);
    }
    read(a[0], &c, 1); mkdir("/tmp/t", 0755); say("mount t", mount("t", "/tmp/t", "tmpfs", 0, 0)); table("parent"); say("only", access("/tmp/a/only", F_OK)); mount("out", "/tmp/b", "tmpfs", 0, 0); mkdir("/tmp/b/new", 0755); fflush(stdout);
    char path[64]; snprintf(path, 64, "/proc/%d/mountinfo", p); FILE *f = fopen(path, "r"); int n = 0; while (fgets(path, 64, f)) n += !!strstr(path, " /tmp/a "); printf("seen from here %d\n", n); fclose(f);
    snprintf(path, 64, "/proc/%d/ns/mnt", p); int fd = open(path, O_RDONLY); int q = fork(); if (!q) { say("setns", setns(fd, 0)); say("only", access("/tmp/a/only", F_OK)); char w[64]; puts(getcwd(w, 64)); table("joined"); fflush(stdout); _exit(0); } waitpid(q, 0, 0);
    q = fork(); if (!q) { if (!syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0)) { say("shared fs", setns(fd, 0)); fflush(stdout); _exit(0); } wait(0); _exit(0); } waitpid(q, 0, 0);
    write(b[1], "y", 1); waitpid(p, 0, 0); umount("/tmp/b"); umount("/tmp/t"); table("end");
    fd = open("/proc/self/mounts", O_RDONLY); struct pollfd pf = {fd, POLLPRI, 0}; printf("poll %d", poll(&pf, 1, 0)); printf(" %x\n", pf.revents); mount("x", "/tmp/a", "tmpfs", 0, 0); printf("changed %d", poll(&pf, 1, 0)); printf(" %x\n", pf.revents); printf("again %d\n", poll(&pf, 1, 0)); umount("/tmp/a");
    p = fork(); if (!p) { setuid(1000); say("fsopen", fsopen_("tmpfs", 0)); say("fspick", pick(AT_FDCWD, "/tmp", 0)); say("fsmount", fsmount_(0, 0, 0)); say("clone", tree(AT_FDCWD, "/tmp", 1)); ok("open_tree", tree(AT_FDCWD, "/tmp", 0)); say("move", move(0, "", 0, "", 0)); say("mount", mount("x", "/tmp/a", "tmpfs", 0, 0)); say("umount", umount("/tmp")); say("unshare", unshare(CLONE_NEWNS)); fflush(stdout); _exit(0); } waitpid(p, 0, 0);
}
static void hidden(void) {
    puts("== proc that hides");
    mkdir("/tmp/p", 0755); int me = getpid(); char path[64], b[64];
    static const char *kinds[] = {"hidepid=0", "hidepid=1", "hidepid=invisible", "hidepid=ptraceable", "hidepid=2,gid=77", "subset=pid", "hidepid=3", "hidepid=x", "subset=pid,x", "gid=5,hidepid=off", "what"};
    for (int i = 0; i < 11; i++) {
        printf("%s ", kinds[i]); int r = mount("p", "/tmp/p", "proc", 0, kinds[i]); say("mount", r); if (r < 0) continue; mounts_line("/tmp/p");
        snprintf(path, 64, "/tmp/p/%d/status", me); if (i != 3) say("root", access(path, R_OK)); say("uptime", access("/tmp/p/uptime", F_OK)); if (i != 3) say("self", access("/tmp/p/self", F_OK)); fflush(stdout);
        int q = fork(); if (!q) { if (i == 4) { int g = 77; syscall(SYS_setgroups, 1, &g); } setuid(1000); say("open", open(path, O_RDONLY) < 0 ? -1 : 0); snprintf(b, 64, "/tmp/p/%d", me); struct stat st; say("stat", stat(b, &st)); say("own", access("/tmp/p/self/status", R_OK)); fflush(stdout); execl("/proc/self/exe", "newmount", "list", b + 7, (char *)0); _exit(0); } waitpid(q, 0, 0);
        if (i == 1) { say("remount", mount(0, "/tmp/p", 0, MS_REMOUNT, "hidepid=off")); mounts_line("/tmp/p"); }
        umount("/tmp/p");
    }
}
#include <dirent.h>
#include <signal.h>
int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (argc > 1 && *argv[1] == 'x') return 0;
    if (argc > 2) { DIR *d = opendir("/tmp/p"); struct dirent *e; int there = 0, fixed = 0; while (d && (e = readdir(d))) there += !strcmp(e->d_name, argv[2]), fixed += !strcmp(e->d_name, "uptime"); printf("listed %d uptime %d\n", there, fixed); return 0; }
    void (*const parts[])(void) = {opening, configuring, picking, trees, flags, spaces, hidden};
    mkdir("/tmp/a", 0755); mkdir("/tmp/b", 0755); make("/tmp/plain");
    for (int i = 0; i < 7; i++) if (argc < 2 || atoi(argv[1]) == i) parts[i]();
    return 0;
}
