// Names of the errors that are met here; musl has no strerrorname_np().
static const char *strerrorname_np(int number) {
    static const struct { int number; const char *name; } names[] = {
#define E(name) {name, #name},
        E(EPERM) E(ENOENT) E(ESRCH) E(EINTR) E(EIO) E(ENXIO) E(E2BIG) E(ENOEXEC) E(EBADF) E(ECHILD) E(EAGAIN) E(ENOMEM) E(EACCES)
        E(EFAULT) E(ENOTBLK) E(EBUSY) E(EEXIST) E(EXDEV) E(ENODEV) E(ENOTDIR) E(EISDIR) E(EINVAL) E(ENFILE) E(EMFILE) E(ENOTTY)
        E(EFBIG) E(ENOSPC) E(ESPIPE) E(EROFS) E(EMLINK) E(EPIPE) E(ERANGE) E(EDEADLK) E(ENAMETOOLONG) E(ENOSYS) E(ENOTEMPTY)
        E(ELOOP) E(ENODATA) E(EOVERFLOW) E(EUSERS) E(EMSGSIZE) E(EOPNOTSUPP) E(EADDRINUSE) E(EADDRNOTAVAIL) E(ENETDOWN)
        E(ENETUNREACH) E(ECONNREFUSED) E(ENOTCONN) E(ETIMEDOUT) E(EAFNOSUPPORT) E(EPROTONOSUPPORT) E(EALREADY)
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) if (names[i].number == number) return names[i].name;
    return "another error";
}
