/* Makes random system calls and touches random memory, for tests/fuzz_engine.py.
 *
 *     fuzz SEED CALLS SPECS
 *
 * SPECS has a line for each call, "NUMBER PER-MILLE WORD...": how often it is really made, and how its arguments are
 * drawn: a letter (see `letter`), a number, {a,b}: one of, <a,b>: the sum of some of, 'text, @structure. No words: six
 * of anything. "@NAME SIZE:WORD..." is a structure, "> FD NUMBER WORD..." a call to begin with: tests/fuzz_structs.py.
 * What a fault would end, the handler of SIGSEGV and SIGBUS steps over, as long as it is still there. */
#define _GNU_SOURCE
#include <signal.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <fcntl.h>
#include <unistd.h>

typedef uint64_t u64;

static u64 state;
static char *scratch, *areas[8], *lines[2048], *structs[64], *beginning[64];
static int n_lines, n_structs, n_begin, sure; /* sure: nothing wild now */
static u64 page, self;
static sigjmp_buf back;
static volatile int faults; /* since the last round */

static const char *const paths[] = {
    "/", ".", "..", "", "/tmp", "/tmp/a", "/tmp/b", "/tmp/dir", "/tmp/dir/x", "/tmp/link", "a", "../..", "/proc",
    "/proc/self/maps", "/proc/self/mem", "/proc/self/pagemap", "/proc/self/fd/3", "/proc/self/status",
    "/proc/self/smaps", "/proc/self/clear_refs", "/proc/meminfo", "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory", "/proc/self/exe", "/proc/self/task", "/proc/self/stat", "/dev/null", "/dev/zero",
    "/dev/full", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/shm/x", "/fuzz", "/nonexistent/x", "\xff\xfe", "user.x",
    "/sys", "/proc/self/mounts", "/proc/thread-self", "/proc/self/numa_maps", "/proc/self/cwd", "/proc/self/environ",
};

static u64 bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1DULL;
}

static u64 below(u64 n) { return (bits() >> 11) % n; }

static u64 wild(void)
{
    switch (below(8)) {
    case 0: return bits();
    case 1: return -below(4096);
    case 2: return (1ULL << below(64)) + below(5) - 2;
    case 3: return 0x7FFFFFFFF000ULL + below(8192) - 4096;
    case 4: return 1ULL << 47 | below(1 << 20);
    case 5: return 1ULL << 48 | below(1 << 20);
    case 6: return 0xFFFF800000000000ULL + below(1 << 30);
    default: return below(1ULL << 32);
    }
}

static u64 pointer(void)
{
    u64 kind = below(100);
    if (kind < 60)
        return (u64)scratch + below(4 * page / 8) * 8;
    if (kind < 66)
        return (u64)scratch + below(8 * page);
    if (kind < 86) {
        const u64 off[] = {0, 1, 8, page - 8, page - 1, page, 2 * page - 4, 2 * page};
        return (u64)areas[below(8)] + off[below(8)];
    }
    return kind < 91 ? 0 : wild();
}

static u64 small(void)
{
    switch (below(4)) {
    case 0: return below(8);
    case 1: return below(130);
    case 2: return below(6) - 3;
    default: return 1ULL << below(32);
    }
}

static u64 size(void)
{
    const u64 n[] = {0, 1, 8, 16, 24, below(200), page - 1, page, page + 1, 3 * page, 65536, 1 << 20, 1 << 21, 1 << 30,
                     0x7FFFFFFF, 1ULL << 31, 1ULL << 32, 1ULL << 40, 1ULL << 46, 1ULL << 62, -1ULL, wild()};
    return n[below(sizeof n / sizeof *n)];
}

static u64 flags(void)
{
    u64 kind = below(10);
    return kind < 4 ? below(64) : kind < 7 ? 1ULL << below(32) | 1ULL << below(32) : kind < 8 ? bits() & 0xFFFFFFFF : 0;
}

static u64 descriptor(void)
{
    const u64 n[] = {below(12), below(12), 3 + below(64), -100, -1, 0x7FFFFFFF, 1023};
    return n[below(7)];
}

static u64 process(void)
{
    const u64 n[] = {0, 0, -1, self, self + 1, -self, 99999, 1};
    return n[below(8)];
}

static u64 path(void)
{
    char *at = scratch + 4 * page + below(64) * 64;
    if (below(100) < 12)
        return pointer();
    strcpy(at, paths[below(sizeof paths / sizeof *paths)]);
    return (u64)at;
}

static u64 vector(void)
{
    u64 *at = (u64 *)(scratch + below(2 * page / 8) * 8);
    for (int i = 0; i < 16; i++) {
        at[2 * i] = pointer();
        at[2 * i + 1] = below(2) ? below(64) : below(3) ? page : size();
    }
    return (u64)at;
}

static u64 open_flags(void)
{
    const u64 n[] = {0, 0, 0x40, 0x40, 0xC0, 0x200, 0x400, 0x800, 0x10000, 0x4000, 0x200000, 0x410000};
    return below(3) | n[below(12)];
}

static u64 letter(char c)
{
    const u64 modes[] = {0, 0400, 0600, 0644, 0755, 0777, 07777}, signals[] = {0, 10, 12, 13, 14, 17, 18, 28, 34, 64};
    u64 *slot = (u64 *)(scratch + 7 * page) + below(2);
    int *lock = (int *)(below(2) ? scratch + 6 * page : areas[4]) + below(4);
    if (!sure && below(100) < 6)
        c = "pnsw"[below(4)];
    switch (c) {
    case 'q': return below(10) ? 40 + below(9) : descriptor();
    case 'u': return sigsetjmp(back, 0) || below(10) || (*lock = 0), (u64)lock;
    case 'C': return sigsetjmp(back, 0) || below(2) || (*slot = 0), (u64)slot;
    case 'c': return *slot;
    case 'a': return below(6) ? (u64)areas[1 + below(7)] + page * (below(4) - 1) : below(2) ? 0 : pointer() & -page;
    case 'l': return below(10) ? page * (const u64[]){1, 1, 2, 3, 4, 8, 16, 600}[below(8)] : size();
    case 'p': return pointer();
    case 'f': case 'e': return descriptor();
    case 'd': return below(3) ? -100 : descriptor();
    case 't': return path();
    case 'i': return process();
    case 'n': return small();
    case 's': return size();
    case 'v': return vector();
    case 'o': return open_flags();
    case 'm': return modes[below(7)];
    case 'g': return below(2) ? signals[below(10)] : below(66);
    case 'w': return wild();
    default: return flags();
    }
}

static u64 argument(const char *word, size_t length);

/* Some bytes that the next calls leave alone. */
static char *room(void)
{
    static char ring[64][256];
    static int next;
    return memset(ring[next++ % 64], 0, 256);
}

/* A new structure of a name. */
static u64 structure(const char *name, size_t length)
{
    char *at = room(), *to = at, *word = "";
    for (int i = 0; i < n_structs; i++)
        if (strncmp(structs[i], name, length) == 0 && structs[i][length] == ' ')
            word = structs[i] + length;
    while (*(word += strspn(word, " "))) {
        u64 size = strtoul(word, &word, 0), value;
        size_t n = strcspn(++word, " ");
        value = !sure && below(50) == 0 ? wild() : argument(word, n);
        memcpy(to, &value, size < 8 ? size : 8);
        to += size;
        word += n;
    }
    return (u64)at;
}

/* One word of a line. */
static u64 argument(const char *word, size_t length)
{
    const char *end = word + length, *choice = word + 1;
    u64 sum = 0;
    int n = 1;
    if (*word == '{' || *word == '<') {
        for (const char *p = word; p < end; p++)
            n += *p == ',';
        for (int take = below(n), i = 0; choice < end; i++) {
            if (*word == '{' && i == take)
                return argument(choice, strcspn(choice, ",}"));
            if (*word == '<' && below(5) < 3)
                sum += strtoull(choice, 0, 0);
            choice += strcspn(choice, ",>}") + 1;
        }
        return sum;
    }
    if (*word == '@')
        return structure(word + 1, length - 1);
    if (*word == '\'') {
        char *text = memcpy(room(), word + 1, length - 1);
        for (char *p = text; *p; p++)
            *p = *p == '~' ? ' ' : *p;
        return (u64)text;
    }
    return *word == 'C' || (*word >= 'a' && *word <= 'z') ? letter(*word) : strtoull(word, 0, 0);
}

/* Fill the beginning of the scratch area with what structures are made of. */
static void scribble(void)
{
    u64 at = (const u64[]){0, 0, 8, 4, 512}[below(5)], narrow = below(2);
    for (int i = 0; i < 64; i++) {
        u64 word = letter("pnsfgiw"[below(7)]);
        if (narrow)
            word = (word & 0xFFFFFFFF) | letter("nfgi"[below(4)]) << 32;
        memcpy(scratch + at + 8 * i, &word, 8);
    }
}

/* Step over; or give up, when even that faults (the thread pointer may be gone by now). */
static void on_fault(int signo)
{
    if (++faults > 100)
        _exit(9);
    siglongjmp(back, signo);
}

static void on_signal(int signo) { (void)signo; }

/* Touch memory as a program does, good and bad. */
static void touch(void)
{
    volatile char *at = (volatile char *)(below(8) ? (u64)areas[below(8)] + below(6 * page) : wild());
    if (sigsetjmp(back, 0))
        return;
    switch (below(8)) {
    case 0: *at; break;
    case 1: memset((char *)at, 1, below(3 * page)); break;
    case 2: *(volatile u64 *)at; break;
    case 3: __atomic_add_fetch((int *)((u64)at & -4), 1, __ATOMIC_SEQ_CST); break;
    case 4: memcpy(scratch, (char *)at, below(page)); break;
    case 5: if (below(4) == 0) { ((void (*)(void))at)(); break; } /* fall through */
    default: *at = 1;
    }
}

static void one_call(char *line)
{
    char *word;
    int to = -1;
    if (*line == '>')
        to = strtol(line + 1, &line, 0);
    long number = strtol(line, &word, 0), mille = sure ? 1000 : strtol(word, &word, 0);
    u64 args[6] = {0};
    if ((long)below(1000) >= mille)
        return;
    int i = 0;
    for (; i < 6 && *(word += strspn(word, " ")); i++, word += strcspn(word, " "))
        args[i] = argument(word, strcspn(word, " "));
    if (i == 0 && !sure)
        for (; i < 6; i++)
            args[i] = letter("pnsftiz"[below(7)]);
    if (sigsetjmp(back, 0))
        return;
    long result = syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    if (to >= 0 && result >= 0) {
        dup2(result, to);
        close(result);
    }
}

static void prepare(void)
{
    struct sigaction fault = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER};
    struct sigaction other = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct itimerval often = {{0, 20000}, {0, 20000}};
    int fds[2];
    page = sysconf(_SC_PAGESIZE);
    self = getpid();
    sigaltstack(&stack, 0);
    for (int i = 1; i < 32; i++)
        sigaction(i, i == SIGSEGV || i == SIGBUS || i == SIGILL || i == SIGTRAP || i == SIGFPE ? &fault : &other, 0);
    setitimer(ITIMER_REAL, &often, 0); /* what sleeps for ever is woken */
    scratch = areas[0] = mmap(0, 8 * page, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    areas[1] = mmap(0, 2 * page, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(areas[1] + page, page);
    areas[2] = mmap(0, 2 * page, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    areas[3] = mmap(0, 2 * page, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    areas[4] = mmap(0, 4 * page, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    areas[5] = mmap(0, 1 << 27, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    areas[6] = mmap(0, 16 * page, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mkdir("/tmp/dir", 0755);
    int fd = open("/tmp/a", O_RDWR | O_CREAT, 0644);
    if (ftruncate(fd, 3 * page + 5) == 0)
        areas[7] = mmap(0, 4 * page, 3, MAP_SHARED, fd, 0);
    if (pipe(fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
        _exit(3);
}

/* The calls for descriptors of every kind. */
static void begin(void)
{
    sure = 1;
    for (int i = 0; i < n_begin; i++)
        one_call(beginning[i]);
    sure = 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    state = strtoull(argv[1], 0, 0) * 0x9E3779B97F4A7C15ULL + 1;
    long calls = strtol(argv[2], 0, 0);
    prepare();
    for (char *line = strtok(argv[3], "\n"); line && n_lines < 2048; line = strtok(0, "\n")) {
        if (*line == '>' && n_begin < 64)
            beginning[n_begin++] = line;
        else if (*line == '@' && n_structs < 64)
            structs[n_structs++] = line + 1;
        else
            lines[n_lines++] = line;
    }
    begin();
    for (long i = 0; i < calls; i++) {
        faults = 0;
        if (below(10) == 0 && mprotect(scratch, 8 * page, 3))
            mmap(scratch, 8 * page, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (below(100) == 0)
            begin();
        if (below(10) < 3 && !sigsetjmp(back, 0))
            scribble();
        if (below(10) < 2)
            touch();
        one_call(lines[below(n_lines)]);
    }
    return 0;
}
