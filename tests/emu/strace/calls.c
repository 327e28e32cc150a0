/* Every kind of argument that strace decodes, through raw system calls, with results any Linux from 5.10 on agrees on.
 * tests/strace_template.py records them under strace 6.1. Rebuild:
 *     gcc -O1 -static -nostdlib -fno-stack-protector -fcf-protection=none -fno-builtin -Wl,--build-id=none -w \
 *         -o calls calls.c && strip calls */
#define _GNU_SOURCE
#include <asm/unistd_64.h>

typedef unsigned long word;

static long call6(long n, word a, word b, word c, word d, word e, word f) {
    long result;
    register word r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define W(x) ((word)(x))
#define NINTH(a, b, c, d, e, f, g, ...) call6(a, b, c, d, e, f, g)
#define S(...) NINTH(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

static char buf[8192] __attribute__((aligned(4096)));
static word words[64];
static int ints[64];

static void files(void) {
    S(__NR_open, W("/nonexist/\tname\n\"q\\\001\0022\377"), 0x8241, 0644);
    S(__NR_openat, -100, W("/tmp/pw-strace"), 0102 | 01000 | 02000000, 0640);
    S(__NR_openat, 77, W("x"), 0x410000 | 2, 07777);
    S(__NR_openat, -100, W("x"), 0x43, 0);
    S(__NR_openat, -100, 1, 3, 0);
    S(__NR_openat, -100, 0, 0x200000, 0);
    S(__NR_write, 3, W("0123456789abcdef0123456789abcdef!"), 33);
    S(__NR_write, 3, W("0123456789abcdef0123456789abcdef"), 32);
    S(__NR_write, 3, 8, 32);
    S(__NR_write, 3, 0, 32);
    S(__NR_write, 99, W("\0\0011\0029\177\200"), 7);
    S(__NR_pwrite64, 3, W("zz"), 2, -1);
    S(__NR_pread64, 3, W(buf), 4, 2);
    S(__NR_lseek, 3, 0, 0);
    S(__NR_lseek, 3, -5, 2);
    S(__NR_lseek, 3, 0, 9);
    S(__NR_read, 3, W(buf), 100);
    S(__NR_read, 3, W(buf), 100);
    S(__NR_read, 3, 8, 1);
    words[0] = W("one"); words[1] = 3; words[2] = W("two\n"); words[3] = 4;
    S(__NR_writev, 3, W(words), 2);
    S(__NR_writev, 3, W(words), 0);
    S(__NR_writev, 3, 8, 2);
    S(__NR_writev, 99, W(words), -1);
    S(__NR_preadv, 3, W(words), 0, 0);
    words[0] = W(buf); words[1] = 3; words[2] = W(buf + 64); words[3] = 100;
    S(__NR_preadv, 3, W(words), 2, 0);
    S(__NR_readv, 99, W(words), 2);
    S(__NR_ftruncate, 3, 10);
    S(__NR_fallocate, 99, 3, 1, 2);
    S(__NR_fallocate, 99, 0x180, 1, 2);
    S(__NR_fcntl, 3, 1, 0); S(__NR_fcntl, 3, 2, 1); S(__NR_fcntl, 3, 1, 0); S(__NR_fcntl, 3, 3, 0);
    S(__NR_fcntl, 3, 4, 0x800); S(__NR_fcntl, 3, 0, 50); S(__NR_fcntl, 99, 1030, 10); S(__NR_fcntl, 3, 77, 5);
    S(__NR_fcntl, 99, 8, 1); S(__NR_fcntl, 99, 10, 1); S(__NR_fcntl, 99, 1033, 3); S(__NR_fcntl, 99, 1031, 4096);
    *(short *)buf = 1; *(short *)(buf + 2) = 0; *(word *)(buf + 8) = 1; *(word *)(buf + 16) = 2; *(int *)(buf + 24) = 0;
    S(__NR_fcntl, 3, 6, W(buf)); S(__NR_fcntl, 3, 5, W(buf)); S(__NR_fcntl, 3, 6, 8); S(__NR_fcntl, 99, 37, W(buf));
    S(__NR_dup2, 3, 60); S(__NR_dup3, 3, 61, 02000000); S(__NR_dup3, 3, 3, 0); S(__NR_dup3, 3, 62, 7); S(__NR_dup, 99);
    S(__NR_close, 60); S(__NR_close, 61); S(__NR_close, -1); S(__NR_close_range, 70, -1, 8); S(__NR_close_range, 9, 8, 1);
    S(__NR_stat, W("/nonexist"), W(buf)); S(__NR_stat, 0, W(buf)); S(__NR_stat, W("/dev/null"), W(buf)); S(__NR_fstat, 3, W(buf));
    S(__NR_newfstatat, -100, W("/dev/zero"), W(buf), 0x100); S(__NR_newfstatat, 3, W(""), W(buf), 0x1000);
    S(__NR_newfstatat, 3, W(""), W(buf), 0x80000000); S(__NR_stat, W("/dev/null"), 8);
    S(__NR_statx, -100, W("/nonexist"), 0x800, 0x7ff, W(buf)); S(__NR_statx, 99, W(""), 0x1000 | 0x2000, 0xfff, W(buf));
    S(__NR_statx, 99, W(""), 0x6000, 0x2000, W(buf));
    S(__NR_access, W("/nonexist"), 0); S(__NR_access, W("/nonexist"), 7); S(__NR_access, W("/"), 8);
    S(__NR_faccessat, -100, W("/nonexist"), 4); S(__NR_faccessat2, -100, W("/nonexist"), 4, 0x300);
    S(__NR_readlink, W("/nonexist"), W(buf), 10); S(__NR_readlinkat, -100, W("/nonexist"), W(buf), 10);
    S(__NR_mkdir, W("/tmp"), 0777); S(__NR_mkdirat, 99, W("x"), 01777); S(__NR_rmdir, W("/nonexist"));
    S(__NR_mknod, W("/nonexist/x"), 0010644, 0); S(__NR_mknodat, -100, W("/nonexist/x"), 0020600, 0x103);
    S(__NR_mknod, W("/nonexist/x"), 0644, 0); S(__NR_mknod, W("/nonexist/x"), 0060000 | 06755, 0x800001);
    S(__NR_unlink, W("/tmp/pw-strace")); S(__NR_unlinkat, -100, W("/nonexist"), 0x200); S(__NR_unlinkat, -100, W("/nonexist"), 1);
    S(__NR_rename, W("/nonexist"), W("/b")); S(__NR_renameat2, -100, W("/nonexist"), -100, W("/b"), 3);
    S(__NR_renameat2, 9, W("/nonexist"), 10, W("/b"), 0); S(__NR_link, W("/nonexist"), W("/b")); S(__NR_linkat, 9, W("a"), 10, W("b"), 0x400);
    S(__NR_symlink, W("to"), W("/nonexist/x")); S(__NR_symlinkat, W("to"), 99, W("x"));
    S(__NR_chmod, W("/nonexist"), 04755); S(__NR_fchmod, 99, 0); S(__NR_fchmodat, -100, W("/nonexist"), 07);
    S(__NR_chown, W("/nonexist"), 1, -1); S(__NR_fchown, 99, -1, 5); S(__NR_fchownat, -100, W("/nonexist"), 0, 0, 0x100);
    words[0] = 1; words[1] = 0x3fffffff; words[2] = 2; words[3] = 0x3ffffffe;
    S(__NR_utimensat, -100, W("/nonexist"), W(words), 0); words[1] = 5; S(__NR_utimensat, -100, W("/nonexist"), W(words), 0x100);
    S(__NR_utimensat, -100, W("/nonexist"), 0, 0);
    S(__NR_utimes, W("/nonexist"), 0); words[0] = 1; words[1] = 2; words[2] = 3; words[3] = 4; S(__NR_utimes, W("/nonexist"), W(words));
    S(__NR_utime, W("/nonexist"), W(words)); S(__NR_futimesat, -100, W("/nonexist"), W(words));
    S(__NR_umask, 077); S(__NR_umask, 022); S(__NR_truncate, W("/nonexist"), -1); S(__NR_chdir, W("/nonexist")); S(__NR_fchdir, 99);
    S(__NR_chroot, W("/nonexist")); S(__NR_getcwd, W(buf), 1); S(__NR_getcwd, 8, 100); S(__NR_flock, 99, 6); S(__NR_flock, 99, 1);
    S(__NR_fadvise64, 99, 0, 4096, 3); S(__NR_readahead, 99, 0, 5); S(__NR_sync_file_range, 99, 0, 1, 7);
    S(__NR_sendfile, 99, 98, 0, 5); words[0] = 7; S(__NR_sendfile, 99, 98, W(words), 5);
    S(__NR_copy_file_range, 99, W(words), 98, 0, 5, 0); S(__NR_splice, 99, 0, 98, W(words), 5, 3); S(__NR_tee, 99, 98, 5, 2);
    S(__NR_memfd_create, W("a name that is longer than thirty-two"), 0x8000); S(__NR_memfd_create, W("m"), 2);
    S(__NR_close, 4); S(__NR_close, 50);
    S(__NR_ioctl, 99, 0x5401, W(buf)); S(__NR_ioctl, 99, 0x5413, W(buf)); S(__NR_ioctl, 99, 0x541b, W(buf)); S(__NR_ioctl, 99, 0x5421, W(ints));
    S(__NR_ioctl, 99, 0x12345678, 5); S(__NR_ioctl, 99, 0x5451, 0); S(__NR_ioctl, 99, 0x80086601, W(buf)); S(__NR_ioctl, 99, 0, 0);
    S(__NR_getdents64, 99, W(buf), 100); S(__NR_statfs, W("/nonexist"), W(buf)); S(__NR_fstatfs, 99, W(buf)); S(__NR_fsync, 99);
    S(__NR_fdatasync, 99); S(__NR_syncfs, 99); S(__NR_pipe2, W(ints), 02004000); S(__NR_pipe, 8); S(__NR_close, 4); S(__NR_close, 5);
}

static void memory(void) {
    S(__NR_mmap, 0x10000000, 8192, 3, 0x32, -1, 0); S(__NR_mmap, 0, 4096, 0, 0x4022, -1, 0); S(__NR_mmap, 0, 0, 7, 0x22, -1, 0);
    S(__NR_mmap, 0, 4096, 1, 0x20, -1, 0); S(__NR_mmap, 0, 4096, 0x1000003, 0x23, 99, 0x1000); S(__NR_mmap, 0, 4096, 1, 0x80002, 99, 0);
    S(__NR_mmap, 0, 4096, 1, 0x100122 | 0x40000, 99, 0x123456789000); S(__NR_mmap, 0, 4096, 8, 0x54040022, 99, 0); S(__NR_mmap, 0, 4096, 0x1000, 2, 99, 0);
    S(__NR_mprotect, 0x10000000, 4096, 5); S(__NR_mprotect, 0x10000000, 4096, 0x1000000); S(__NR_mprotect, 1, 4096, 0x40); S(__NR_mprotect, 0, 4096, 8);
    S(__NR_mremap, 0x10000000, 4096, 8192, 0); S(__NR_mremap, 0x10000000, 4096, 4096, 3, 0x10000000); S(__NR_mremap, 1, 1, 1, 0x18, 5);
    S(__NR_madvise, 0x10000000, 4096, 4); S(__NR_madvise, 0x10000000, 4096, 77); S(__NR_madvise, 1, 4096, 8); S(__NR_madvise, 1, 1, 100);
    S(__NR_mincore, 0x10000000, 8192, W(buf)); S(__NR_mincore, 1, 8192, W(buf)); S(__NR_msync, 1, 4096, 5); S(__NR_msync, 0x10000000, 4096, 4);
    S(__NR_mlock, 0x10000000, 4096); S(__NR_mlock2, 0x10000000, 4096, 1); S(__NR_mlock2, 0, 0, 6); S(__NR_munlock, 0x10000000, 4096);
    S(__NR_mlockall, 0); S(__NR_mlockall, 12); S(__NR_munlockall); S(__NR_remap_file_pages, 1, 4096, 0, 1, 0x10000);
    S(__NR_munmap, 0x10000000, 8192); S(__NR_munmap, 1, 0); S(__NR_brk, 1); S(__NR_pkey_alloc, 1, 0); S(__NR_pkey_alloc, 0, 8); S(__NR_pkey_free, 100);
    S(__NR_pkey_mprotect, 1, 4096, 3, 5);
    words[0] = 3; words[1] = 0;
    S(__NR_set_mempolicy, 5 | 0xc000, W(words), 64); S(__NR_set_mempolicy, 77, W(words), 128); S(__NR_set_mempolicy, 2, W(words), 0); S(__NR_set_mempolicy, 2, 8, 64);
    S(__NR_mbind, 1, 4096, 2, W(words), 64, 3); S(__NR_mbind, 1, 4096, 0x4001, 0, 0, 0x40); S(__NR_get_mempolicy, 8, 0, 0, 0, 0);
    S(__NR_get_mempolicy, W(ints), W(words), 64, 5, 7); S(__NR_migrate_pages, 0x7ffffff0, 64, W(words), W(words + 1));
    words[0] = 0x1000; words[1] = 0; ints[0] = 0; ints[1] = -1;
    S(__NR_move_pages, 0x7ffffff0, 2, W(words), W(ints), W(ints + 2), 2); S(__NR_move_pages, 0x7ffffff0, 0, W(words), 0, 0, 0x11);
    S(__NR_shmget, 0x4d2, 0, 03600); S(__NR_shmget, 0, 0, 077); S(__NR_shmat, 0x7fffffff, 0, 0x9000); S(__NR_shmctl, 0x7fffffff, 2, W(buf)); S(__NR_shmctl, -1, 0, 0);
    S(__NR_shmdt, 5); words[0] = W(buf); words[1] = 5;
    S(__NR_process_vm_readv, 0x7ffffff0, W(words), 1, W(words), 1, 0); S(__NR_process_vm_writev, 0x7ffffff0, W(words), 1, W(words), 1, 9);
    S(__NR_membarrier, 0, 1, 0); S(__NR_membarrier, 1 << 20, 0, 0); S(__NR_membarrier, 8, 3, 0);
}

static void processes(void) {
    S(__NR_execve, W("/nonexist"), 0, 0); words[0] = W("a"); words[1] = W("thirty-two bytes, and one more ..."); words[2] = 0; words[3] = 0;
    S(__NR_execve, W("/nonexist"), W(words), W(words + 3)); S(__NR_execve, W("/nonexist"), W(words), W(words)); S(__NR_execve, 0, 8, 8);
    S(__NR_execveat, -100, W("/nonexist"), W(words), W(words), 0x100);
    S(__NR_wait4, -1, W(ints), 0, 0); S(__NR_wait4, 5, 0, 0x40000003, 8); S(__NR_wait4, -5, W(ints), 8, W(buf)); S(__NR_wait4, 0, 0, 0x80000000, 0);
    S(__NR_waitid, 0, 0, W(buf), 5, 0); S(__NR_waitid, 1, 77, 0, 0x1000004, W(buf)); S(__NR_waitid, 9, 77, 0, 0, 0);
    S(__NR_prctl, 15, W("a comm")); S(__NR_prctl, 16, W(buf)); S(__NR_prctl, 4, 1); S(__NR_prctl, 3); S(__NR_prctl, 38, 1, 0, 0, 1); S(__NR_prctl, 999, 1, 2, 3, 4);
    S(__NR_prctl, 1, 9); S(__NR_prctl, 2, W(ints)); S(__NR_prctl, 23, 5); S(__NR_prctl, 8, 77); S(__NR_prctl, 36, 0); S(__NR_prctl, 37, W(ints)); S(__NR_prctl, 41, 1, 1, 1, 1);
    S(__NR_arch_prctl, 0x1003, W(words)); S(__NR_arch_prctl, 0x9999, 5); S(__NR_arch_prctl, 0x1003, 8);
    S(__NR_getrlimit, 3, 8); words[0] = 1; words[1] = 4096; S(__NR_setrlimit, 99, W(words)); S(__NR_prlimit64, 0x7ffffff0, 7, W(words), 0);
    words[1] = -1; words[0] = 5000; S(__NR_prlimit64, 0x7ffffff0, 15, W(words), W(words + 2)); S(__NR_prlimit64, 0, 99, 0, 0);
    S(__NR_getrusage, 5, W(buf)); S(__NR_getpgid, 0x7ffffff0); S(__NR_setpgid, 0x7ffffff0, 0); S(__NR_getsid, 0x7ffffff0);
    S(__NR_setresuid, -1, -1, -1); S(__NR_setreuid, -1, -1); S(__NR_getresuid, W(ints), W(ints + 1), 8); S(__NR_getresgid, 8, 8, 8);
    ints[0] = 1; ints[1] = 2; S(__NR_setgroups, -1, W(ints)); S(__NR_getgroups, -1, W(ints)); S(__NR_setgroups, 0x20000, W(ints));
    S(__NR_getrandom, 8, 5, 0); S(__NR_getrandom, W(buf), 0, 7); S(__NR_personality, 0xffffffff); S(__NR_capget, 0, 0);
    ints[0] = 0x20080522; ints[1] = 0x7ffffff0; S(__NR_capget, W(ints), W(ints + 4)); ints[0] = 5; S(__NR_capset, W(ints), W(ints + 4));
    S(__NR_clone, 0x80000000 | 0x10000, 0); S(__NR_clone, 0x10011, 0x1000, W(ints), W(ints), 5); S(__NR_clone3, 0, 64);
    S(__NR_clone3, W(words), 8); words[0] = 0x10000; words[4] = 17; S(__NR_clone3, W(words), 64); S(__NR_unshare, 5); S(__NR_setns, 99, 0x20000000);
    S(__NR_set_robust_list, 0, 1); S(__NR_get_robust_list, 0x7ffffff0, W(words), W(words + 1)); S(__NR_sched_yield);
    S(__NR_sched_getaffinity, 0x7ffffff0, 8, W(words)); words[0] = 0x15; S(__NR_sched_setaffinity, 0x7ffffff0, 8, W(words)); S(__NR_sched_getscheduler, 0x7ffffff0);
    ints[0] = 5; S(__NR_sched_setscheduler, 0x7ffffff0, 1, W(ints)); S(__NR_sched_setscheduler, 0x7ffffff0, 0x40000002, W(ints)); S(__NR_sched_get_priority_max, 2); S(__NR_sched_get_priority_max, 77);
    S(__NR_sched_getparam, 0x7ffffff0, W(ints)); S(__NR_sched_setparam, 0x7ffffff0, W(ints)); S(__NR_sched_rr_get_interval, 0x7ffffff0, W(words));
    S(__NR_getpriority, 0, 0x7ffffff0); S(__NR_setpriority, 2, 0x7ffffff0, -5); S(__NR_setpriority, 9, 0, 5); S(__NR_ioprio_get, 1, 0x7ffffff0);
    S(__NR_kcmp, 0x7ffffff0, 0x7ffffff0, 0, 1, 2); S(__NR_pidfd_open, 0x7ffffff0, 0); S(__NR_pidfd_send_signal, 99, 10, 0, 0); S(__NR_ptrace, 16, 0x7ffffff0, 0, 0);
    S(__NR_acct, 8); S(__NR_sethostname, 8, 5); S(999, 1, 2, 3); S(__NR_gettid + 0x10000, 1);
}

static void signals(void) {
    words[0] = 1; words[1] = 0x14000000; words[2] = 0; words[3] = 0x202;
    S(__NR_rt_sigaction, 10, W(words), W(words + 8), 8); words[0] = 0; S(__NR_rt_sigaction, 10, W(words), W(words + 8), 8);
    S(__NR_rt_sigaction, 9, W(words), 0, 8); S(__NR_rt_sigaction, 64, 0, 0, 4); S(__NR_rt_sigaction, 35, 8, 0, 8); S(__NR_rt_sigaction, 99, 0, W(words), 8);
    words[1] = 0xd8000007; S(__NR_rt_sigaction, 0, W(words), 0, 8);
    words[0] = ~0ul; S(__NR_rt_sigprocmask, 0, 0, W(words + 1), 8); S(__NR_rt_sigprocmask, 5, W(words), 0, 8); words[0] = 1ul << 33 | 1; S(__NR_rt_sigprocmask, 1, W(words), 0, 8);
    S(__NR_rt_sigprocmask, 2, 8, 0, 8); S(__NR_rt_sigprocmask, 0, W(words), 0, 4); S(__NR_rt_sigpending, W(words), 8); S(__NR_rt_sigsuspend, 8, 8); S(__NR_rt_sigsuspend, W(words), 4);
    S(__NR_kill, 0x7ffffff0, 0); S(__NR_kill, 0x7ffffff0, 64); S(__NR_tgkill, 0x7ffffff0, 5, 17); S(__NR_tkill, 0x7ffffff0, 32); S(__NR_kill, 0x7ffffff0, 99);
    S(__NR_sigaltstack, 0, W(words)); words[0] = 0x1000; words[1] = 2; words[2] = 5; S(__NR_sigaltstack, W(words), 0); words[1] = 0x80000000u; S(__NR_sigaltstack, W(words), 0);
    S(__NR_sigaltstack, 8, 0); words[0] = 0; words[1] = 0; words[2] = 1; S(__NR_rt_sigtimedwait, W(words + 2), 0, W(words), 4);
    S(__NR_rt_sigtimedwait, W(words + 2), W(buf), W(words), 8); for (int i = 0; i < 128; i++) buf[i] = 0; buf[0] = 10; buf[4] = 5; S(__NR_rt_sigqueueinfo, 0x7ffffff0, 10, W(buf)); S(__NR_rt_tgsigqueueinfo, 5, 0x7ffffff0, 10, 8); S(__NR_signalfd4, 99, W(words + 2), 8, 02004000);
    words[0] = 5; words[1] = 3; S(__NR_nanosleep, W(words + 32), 0); words[1] = 2000000000; S(__NR_nanosleep, W(words), W(words + 2)); S(__NR_nanosleep, 8, 0);
    S(__NR_clock_nanosleep, 99, 1, W(words), 0); words[1] = 5; words[0] = 0; S(__NR_clock_nanosleep, 0, 1, W(words), 0); S(__NR_clock_gettime, 99, W(words)); S(__NR_clock_gettime, -5, 8); S(__NR_clock_getres, 0, 8);
    S(__NR_clock_settime, 99, W(words)); S(__NR_gettimeofday, 8, 0); S(__NR_settimeofday, 8, 0); S(__NR_alarm, 0); S(__NR_getitimer, 0, W(words)); S(__NR_getitimer, 9, W(words)); S(__NR_setitimer, 9, W(words), 0);
    S(__NR_timer_create, 99, 0, W(ints)); S(__NR_timer_delete, 99); S(__NR_timer_gettime, 99, W(words)); S(__NR_timer_settime, 99, 1, W(words), 0); S(__NR_timerfd_create, 1, 02004000); S(__NR_timerfd_settime, 99, 3, W(words), 0); S(__NR_timerfd_gettime, 99, W(words)); S(__NR_close, 4);
    S(__NR_futex, W(ints), 0x81, 5); S(__NR_futex, W(ints), 0, 77, W(words)); S(__NR_futex, W(ints), 0x189, 77, 0, 0, -1); S(__NR_futex, W(ints), 0x89, 77, W(words), 0, 5); S(__NR_futex, W(ints), 0x84, 1, 2, W(ints + 1), 77); S(__NR_futex, W(ints), 3, 1, 2, W(ints + 1)); S(__NR_futex, W(ints), 5, 1, 1, 1, 0x1234);
    S(__NR_futex, 1, 0x86, 0, 0); S(__NR_futex, 1, 7, 0, 0); S(__NR_futex, 1, 77, 1, 2, 3, 4); S(__NR_futex, 1, 10, 1, 0, 0, 3);
    S(__NR_eventfd2, 5, 02004001); S(__NR_close, 4); S(__NR_eventfd, 5); S(__NR_close, 4); S(__NR_inotify_init1, 5); S(__NR_inotify_add_watch, 99, W("/x"), 0x102); S(__NR_inotify_rm_watch, 99, 5);
}

static void descriptors(void) {
    ints[0] = 99; ints[1] = 1; ints[2] = -1; ints[3] = 0x2019; S(__NR_poll, W(ints), 2, 0); S(__NR_poll, 0, 0, 0); S(__NR_poll, 8, 1, 0); S(__NR_poll, W(ints), 0, 0);
    words[0] = words[1] = 0; S(__NR_ppoll, W(ints), 1, W(words), 0, 8); words[2] = 2; S(__NR_ppoll, W(ints), 1, W(words), W(words + 2), 8); S(__NR_ppoll, 0, 0, 8, 0, 0);
    words[4] = 8; S(__NR_select, 4, W(words + 4), 0, 0, W(words)); S(__NR_select, 0, 0, 0, 0, W(words)); S(__NR_select, -1, W(words + 4), 0, 0, 0); words[4] = 0x70; S(__NR_select, 70, 8, W(words + 4), 0, W(words));
    words[8] = 0; words[9] = 8; words[4] = 8; S(__NR_pselect6, 4, 0, W(words + 4), 0, W(words), W(words + 8)); words[8] = W(words + 2); S(__NR_pselect6, 0, 0, 0, 0, W(words), W(words + 8)); S(__NR_pselect6, 0, 0, 0, 0, W(words), 0);
    S(__NR_epoll_create1, 02000000); S(__NR_epoll_ctl, 4, 1, 99, W(words)); ints[0] = 0x80002019; ints[1] = 5; ints[2] = 6; S(__NR_epoll_ctl, 99, 3, 5, W(ints)); S(__NR_epoll_ctl, 99, 2, 5, 0); S(__NR_epoll_ctl, 99, 9, 5, 8);
    S(__NR_epoll_wait, 4, W(buf), 5, 0); S(__NR_epoll_pwait, 4, W(buf), 5, 0, 0, 8); S(__NR_epoll_wait, 99, W(buf), 1, -1); S(__NR_close, 4); S(__NR_epoll_create, 0);
    S(__NR_socket, 1, 02004001, 0); S(__NR_socket, 2, 2, 0); S(__NR_socket, 99, 99, 0); S(__NR_socketpair, 1, 1, 0, W(ints));
    buf[0] = 1; buf[1] = 0; buf[2] = '/'; buf[3] = 'x'; buf[4] = 0; S(__NR_connect, 99, W(buf), 5); S(__NR_connect, 4, W(buf), 2); buf[2] = 0; S(__NR_bind, 99, W(buf), 4); S(__NR_connect, 99, 8, 5);
    buf[0] = 2; buf[2] = 0; buf[3] = 80; buf[4] = 127; buf[5] = 0; buf[6] = 0; buf[7] = 1; S(__NR_connect, 99, W(buf), 16); S(__NR_bind, 99, W(buf), 3);
    buf[0] = 10; for (int i = 4; i < 28; i++) buf[i] = 0; buf[23] = 1; S(__NR_connect, 99, W(buf), 28); buf[0] = 77; S(__NR_connect, 99, W(buf), 6);
    ints[0] = 5; S(__NR_accept, 99, W(buf), W(ints)); S(__NR_accept4, 99, 0, 0, 02000000); S(__NR_getsockname, 99, W(buf), W(ints)); S(__NR_getpeername, 99, W(buf), 0); S(__NR_listen, 99, 5); S(__NR_shutdown, 99, 1); S(__NR_shutdown, 99, 7);
    S(__NR_setsockopt, 99, 1, 2, W(ints), 4); ints[1] = 4; S(__NR_getsockopt, 99, 1, 4, W(ints), W(ints + 1)); S(__NR_setsockopt, 99, 6, 1, W(ints), 4); S(__NR_setsockopt, 99, 41, 26, W(ints), 4); S(__NR_setsockopt, 99, 77, 26, W(ints), 4);
    S(__NR_sendto, 99, W("hello"), 5, 0x4040, 0, 0); S(__NR_sendto, 99, W("hello"), 5, 0, W(buf), 6); S(__NR_recvfrom, 99, W(buf), 5, 2, 0, 0); S(__NR_recvfrom, 99, W(buf), 5, 0x40000000, W(buf), W(ints));
    for (int i = 0; i < 8; i++) words[i] = 0; words[2] = W(words + 10); words[3] = 1; words[10] = W("payload"); words[11] = 7; S(__NR_sendmsg, 99, W(words), 0x4000); S(__NR_recvmsg, 99, W(words), 0x40); S(__NR_sendmsg, 99, 8, 0);
    S(__NR_close, 3);
}

static void ends(void) {
    static int status;
    long child = S(__NR_fork);
    if (child == 0) { S(__NR_getppid); S(__NR_exit_group, 258); }
    S(__NR_wait4, -1, W(&status), 0, 0);
    child = S(__NR_vfork);
    if (child == 0) S(__NR_exit, 5);
    S(__NR_wait4, child, W(&status), 0x40000000, W(buf));
    child = S(__NR_fork);
    if (child == 0) { S(__NR_kill, S(__NR_getpid), 15); }
    S(__NR_wait4, -1, W(&status), 0, 0);
    child = S(__NR_fork);
    if (child == 0) { S(__NR_kill, S(__NR_getpid), 19); }
    S(__NR_wait4, -1, W(&status), 2, 0);
    S(__NR_kill, child, 9);
    S(__NR_waitid, 1, child, W(buf), 4, 0);
    child = S(__NR_fork);
    if (child == 0) *(volatile int *)0x10 = 1;
    S(__NR_waitid, 1, child, W(buf), 4, 0);
    S(__NR_kill, S(__NR_getpid), 23); /* SIGURG: ignored */
    S(__NR_kill, S(__NR_getpid), 18);
    words[0] = 1; words[1] = words[2] = words[3] = 0;
    S(__NR_rt_sigaction, 12, W(words), 0, 8);
    S(__NR_kill, S(__NR_getpid), 12);
    S(__NR_tgkill, S(__NR_getpid), S(__NR_gettid), 12);
}

void start(void) __attribute__((used));
void start(void) {
    files();
    memory();
    processes();
    signals();
    descriptors();
    ends();
    S(__NR_exit_group, 0);
}
__asm__(".globl _start\n_start: xor %ebp,%ebp\n and $-16,%rsp\n call start\n");
