// Shared mounts: peers, slaves, unbindable ones; what mounting, unmounting, moving and namespaces do to each.
#define _GNU_SOURCE
#include <errno.h>
#include "ename.h"
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void say(const char *what, long r) { if (r < 0) printf("%s: %s\n", what, strerrorname_np(errno)); else printf("%s: %ld\n", what, r); }
static int groups[64], n_groups;
static int name_of(int id) { for (int i = 0; i < n_groups; i++) if (groups[i] == id) return i + 1; groups[n_groups++] = id; return n_groups; }
static void table(const char *who) {
    FILE *f = fopen("/proc/self/mountinfo", "r"); char line[512], at[128], *p, *e, *lines[64]; int n = 0;
    while (fgets(line, 512, f)) if (sscanf(line, "%*d %*d %*s %*s %127s", at) == 1 && !strncmp(at, "/tmp/", 5)) lines[n++] = strdup(line);
    fclose(f); printf("%s:\n", who);
    for (int i = 0; i < n; i++) {
        sscanf(lines[i], "%*d %*d %*s %*s %127s", at); e = strstr(lines[i], " - "); *e = 0; printf("  %s", at);
        for (p = strtok(strstr(lines[i], at) + strlen(at), " "); p; p = strtok(0, " ")) { char *c = strchr(p, ':'); if (c) printf(" %.*s:%d", (int)(c - p), p, name_of(atoi(c + 1))); else if (!strcmp(p, "unbindable")) printf(" %s", p); }
        puts(""); free(lines[i]);
    }
}
#define DIR(p) mkdir("/tmp/" p, 0755)
#define TMPFS(p) say("tmpfs " p, mount("x", "/tmp/" p, "tmpfs", 0, 0))
#define BIND(a, b) say("bind " a " " b, mount("/tmp/" a, "/tmp/" b, 0, MS_BIND, 0))
#define KIND(p, k) say(#k " " p, mount(0, "/tmp/" p, 0, k, 0))
#define UMOUNT(p) say("umount " p, umount("/tmp/" p))
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    DIR("a"); DIR("b"); DIR("c"); DIR("d"); DIR("e"); TMPFS("a"); KIND("a", MS_SHARED); mkdir("/tmp/a/x", 0755); mkdir("/tmp/a/y", 0755); table("shared");
    BIND("a", "b"); table("peers"); TMPFS("a/x"); table("on a"); mkdir("/tmp/b/x/in", 0755); say("same", access("/tmp/a/x/in", F_OK)); TMPFS("b/y"); table("on b");
    UMOUNT("b/x"); table("gone"); BIND("a", "c"); KIND("c", MS_SLAVE); table("slave"); TMPFS("c/x"); table("only slave"); TMPFS("a/x"); table("under the slave's"); UMOUNT("a/x"); table("from under it"); UMOUNT("c/x");
    KIND("c", MS_SHARED); BIND("c", "d"); table("slaves that share"); TMPFS("a/x"); table("three deep"); TMPFS("d/x/.."); table("on d"); UMOUNT("d"); UMOUNT("a/x"); table("taken back");
    KIND("b", MS_PRIVATE); table("private"); TMPFS("b/x"); TMPFS("a/x"); table("apart"); UMOUNT("b/x"); UMOUNT("a/x"); KIND("a", MS_SLAVE); table("last peer slave"); UMOUNT("d"); UMOUNT("c"); UMOUNT("b");
    KIND("a", MS_UNBINDABLE); table("unbindable"); BIND("a", "b"); KIND("a", MS_SHARED); BIND("a", "b"); table("again");
    BIND("a/x", "c"); table("part"); mkdir("/tmp/a/x/sub", 0755); TMPFS("a/x/sub"); table("in part"); TMPFS("a/y/."); table("outside part"); int fd = open("/tmp/c/sub", O_RDONLY); UMOUNT("a/x/sub"); close(fd); UMOUNT("a/x/sub"); table("part gone");
    DIR("m"); TMPFS("m"); mkdir("/tmp/m/q", 0755); TMPFS("m/q"); say("move into shared", mount("/tmp/m", "/tmp/a/x", 0, MS_MOVE, 0)); table("moved"); say("move from shared", mount("/tmp/a/x", "/tmp/m", 0, MS_MOVE, 0)); TMPFS("m"); KIND("m", MS_UNBINDABLE); say("unbindable into shared", mount("/tmp/m", "/tmp/a/y", 0, MS_MOVE, 0)); UMOUNT("m"); say("detach", umount2("/tmp/a/x", MNT_DETACH)); table("detached");
    int up[2], down[2]; char c; pipe(up); pipe(down); int p = fork();
    if (!p) { say("unshare", unshare(CLONE_NEWNS)); table("child"); write(up[1], "x", 1); read(down[0], &c, 1); table("child sees"); TMPFS("b/x"); KIND("b", MS_SLAVE); say("rslave", mount(0, "/", 0, MS_SLAVE | MS_REC, 0)); table("child slave"); write(up[1], "x", 1); read(down[0], &c, 1); table("child hears"); _exit(0); }
    read(up[0], &c, 1); TMPFS("a/x"); write(down[1], "x", 1); read(up[0], &c, 1); table("parent"); TMPFS("a/x"); UMOUNT("b/x"); table("parent 2"); write(down[1], "x", 1); waitpid(p, 0, 0);
    fd = syscall(SYS_open_tree, AT_FDCWD, "/tmp/a", 1); DIR("z"); say("open_tree", fd < 0 ? -1 : 0); say("move_mount", syscall(SYS_move_mount, fd, "", AT_FDCWD, "/tmp/z", 4)); close(fd); table("by descriptor"); UMOUNT("z");
    TMPFS("e"); mkdir("/tmp/e/sub", 0755); KIND("e", MS_SHARED); BIND("e", "d"); KIND("d", MS_PRIVATE); say("set group", syscall(SYS_move_mount, AT_FDCWD, "/tmp/e", AT_FDCWD, "/tmp/d", 0x100)); table("group"); say("again", syscall(SYS_move_mount, AT_FDCWD, "/tmp/e", AT_FDCWD, "/tmp/d", 0x100)); say("other", syscall(SYS_move_mount, AT_FDCWD, "/tmp/a", AT_FDCWD, "/tmp/d", 0x100)); say("no root", syscall(SYS_move_mount, AT_FDCWD, "/tmp/e/sub", AT_FDCWD, "/tmp/d", 0x100));
    say("two kinds", mount(0, "/tmp/e", 0, MS_SHARED | MS_SLAVE, 0)); say("with other flags", mount(0, "/tmp/e", 0, MS_SHARED | MS_RDONLY, 0)); say("no mount", mount(0, "/tmp/e/sub", 0, MS_SHARED, 0));
    return 0;
}
