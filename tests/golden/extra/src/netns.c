// Namespaces of networks: abstract names of AF_UNIX, /proc/net, autobind, setns. (The kernel recorded has no INET.)
#define _GNU_SOURCE
#include <errno.h>
#include "ename.h"
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
static void say(const char *what, long r) { if (r < 0) printf("%s: %s\n", what, strerrorname_np(errno)); else printf("%s: %ld\n", what, r); }
static socklen_t named(struct sockaddr_un *a, const char *name) {
    memset(a, 0, sizeof *a); a->sun_family = AF_UNIX;
    if (*name == '@') { memcpy(a->sun_path + 1, name + 1, strlen(name) - 1); return offsetof(struct sockaddr_un, sun_path) + strlen(name); }
    strcpy(a->sun_path, name); return sizeof *a;
}
static int listening(const char *name) { struct sockaddr_un a; int s = socket(AF_UNIX, SOCK_STREAM, 0), r = bind(s, (void *)&a, named(&a, name)); if (r < 0) { say(name, r); close(s); return -1; } listen(s, 5); printf("%s: bound\n", name); return s; }
static void reach(const char *name) { struct sockaddr_un a; int s = socket(AF_UNIX, SOCK_STREAM, 0); char what[64]; snprintf(what, 64, "connect %s", name); say(what, connect(s, (void *)&a, named(&a, name))); close(s); }
static void list(const char *path) { FILE *f = fopen(path, "r"); char line[256], *p; char *names[16]; int n = 0; printf("%s:", path); if (!f) { printf(" %s\n", strerrorname_np(errno)); return; } fgets(line, 256, f); while (fgets(line, 256, f)) { line[strcspn(line, "\n")] = 0; p = strrchr(line, ' '); if (p && (p[1] == '@' || p[1] == '/')) names[n++] = strdup(p + 1); } for (int i = 0; i < n; i++) for (int j = i + 1; j < n; j++) if (strcmp(names[i], names[j]) > 0) { char *t = names[i]; names[i] = names[j]; names[j] = t; } for (int i = 0; i < n; i++) printf(" %s", names[i]); puts(""); fclose(f); }
static void autoname(void) { struct sockaddr_un a = {.sun_family = AF_UNIX}; socklen_t l = sizeof a; int s = socket(AF_UNIX, SOCK_DGRAM, 0); bind(s, (void *)&a, sizeof(sa_family_t)); getsockname(s, (void *)&a, &l); printf("autobound %.5s\n", a.sun_path + 1); }
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    int up[2], down[2]; char c; pipe(up); pipe(down);
    int outer = listening("@name"), file = listening("/tmp/sock"), own = open("/proc/self/ns/net", O_RDONLY);
    list("/proc/net/unix"); say("bind twice", listening("@name")); autoname();
    int p = fork();
    if (!p) {
        say("unshare", unshare(CLONE_NEWNET)); struct stat a, b; fstat(own, &a); stat("/proc/self/ns/net", &b); printf("same %d\n", a.st_ino == b.st_ino);
        list("/proc/net/unix"); reach("@name"); reach("/tmp/sock"); listening("@name"); reach("@name"); autoname(); list("/proc/self/net/unix");
        int s = socket(AF_UNIX, SOCK_DGRAM, 0); say("SIOCGSKNS", ioctl(s, 0x894c) > 0 ? 0 : -1);
        // a socket of the outer network stays there
        struct sockaddr_un n; socklen_t l = named(&n, "@name"); int again = socket(AF_UNIX, SOCK_STREAM, 0); say("setns", setns(own, CLONE_NEWNET)); int mine = socket(AF_UNIX, SOCK_STREAM, 0); say("outer connects", connect(mine, (void *)&n, l)); say("inner connects", connect(again, (void *)&n, l)); close(mine);
        write(up[1], "x", 1); read(down[0], &c, 1); _exit(0);
    }
    read(up[0], &c, 1); list("/proc/net/unix"); write(down[1], "x", 1); waitpid(p, 0, 0);
    p = fork(); if (!p) { setuid(1000); say("no capability", unshare(CLONE_NEWNET)); say("setns", setns(own, 0)); _exit(0); } waitpid(p, 0, 0);
    p = syscall(SYS_clone, CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | 17, 0, 0, 0, 0);
    if (!p) { printf("pid %d\n", getpid()); reach("@name"); reach("/tmp/sock"); listening("@other"); list("/proc/self/net/unix"); _exit(0); }
    waitpid(p, 0, 0); reach("@other"); close(outer); reach("@name"); list("/proc/net/unix");
    return 0;
}
