"""What is run of each program: cheap, but no --version; every line of output depends on the program's work.

The script a case hands to its program is the file cases/NAME, its last argument.
"""

import pathlib
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
EVERY_PAGE_SIZE = ("x86_64-4k", "aarch64-4k", "aarch64-16k", "aarch64-64k")
DASH = ("/bin/dash", "-e", "-c")


class Case(NamedTuple):
    """One row of the README's table."""

    name: str
    shows: str  # for the table
    command: tuple[str, ...]
    kernels: tuple[str, ...] = ("x86_64-4k", "aarch64-4k")

    @property
    def argv(self) -> list[str]:
        """The command with its script."""
        return [*self.command, (HERE / "cases" / self.name).read_text(encoding="utf-8")]


CASES = (
    Case(
        "bash-static",
        "arrays, functions, subshells, here-documents, pipes",
        ("/bin/bash-static", "-c"),
        EVERY_PAGE_SIZE,
    ),
    Case("bash", "job control, coprocesses, pipelines, process substitution", ("/bin/bash", "-c")),
    Case("dash", "loops, functions, traps, command substitution", DASH),
    Case("coreutils", "forty commands", DASH),
    Case("findutils", "find with tests and -exec, xargs", DASH),
    Case("grep", "basic, extended and Perl expressions", DASH),
    Case("sed", "substitution, hold space, in place", DASH),
    Case("gawk", "arrays, regular expressions, floating point", ("/usr/bin/gawk",)),
    Case("mawk", "fields, arrays, printf", DASH),
    Case("gzip", "compress and restore", DASH),
    Case("xz", "compress and restore", DASH),
    Case("xz-threads", "`xz -T2`, both ways", DASH),
    Case("sort-parallel", "`sort --parallel`, in memory and by files", DASH),
    Case("bzip2", "compress and restore", DASH),
    Case("tar", "pack, list and unpack through gzip", DASH),
    Case("jq", "filters, reduce, strings", ("/usr/bin/jq", "-nc")),
    Case("lua5.4", "coroutines, metatables, strings", ("/usr/bin/lua5.4", "-e")),
    Case("sqlite3", "a database file with a journal, rollback, index", ("/usr/bin/sqlite3", "/tmp/d.db")),
    Case("sqlite3-killed", "killed in mid-write; the hot journal is rolled back", DASH),
    Case("perl-base", "regular expressions, hashes, closures, fork", ("/usr/bin/perl", "-e")),
    Case("perl-fork", "children, pipes, a socket pair, signals", ("/usr/bin/perl", "-e")),
    Case("python3.11-minimal", "threads, signals, fork, pipes", ("/usr/bin/python3.11", "-Sc")),
    Case(
        "python3.11",
        "its own test_mmap, test_fork1; of test_signal, test_threading, test_subprocess those with few children",
        ("/usr/bin/python3.11", "-c"),
    ),
    Case("openssl", "digests, encryption, signatures, speed", DASH),
    Case("tcc", "compiles a program in the guest, which runs: threads", DASH),
    Case("redis", "server, client and benchmark over the loopback; BGSAVE, started again from it", DASH),
    Case("nginx", "serves a page to a client over the loopback", DASH),
    Case("git", "commits, a merge, log, gc, fsck, grep", DASH),
    Case("vim", "edits a file by commands, reads from a program", DASH),
    Case("ripgrep", "Rust: searches folders with threads, Perl expressions", DASH),
    Case("fzf", "Go: filters 20,000 lines on goroutines", DASH),
    Case("strace", "traces a shell and its child in the guest, injects errors", DASH),
    Case("rsync", "copies folders, from its daemon too", DASH),
    Case("pthread", "gcc: mutexes, conditions, barriers, thread-locals, cancellation", DASH, EVERY_PAGE_SIZE),
    Case("openmp", "gcc: loops, reductions, tasks of libgomp", DASH, EVERY_PAGE_SIZE),
    Case("exceptions", "g++: unwinding, nested and from a thread, terminate", DASH, EVERY_PAGE_SIZE),
    Case("relr", "relative relocations packed (DT_RELR)", DASH, EVERY_PAGE_SIZE),
    Case("loading", "dlopen, dlsym, LD_PRELOAD, constructors, late thread-locals", DASH, EVERY_PAGE_SIZE),
    Case("musl", "dynamic, with musl's loader: threads, fork, popen, regex", DASH, EVERY_PAGE_SIZE),
    Case("musl-static", "the same, static", DASH, EVERY_PAGE_SIZE),
    Case("memtester", "a loop over 64 KiB of locked memory", DASH),
    Case("stress-ng-vm", "vm with each of 32 methods and --verify", DASH),
    Case("stress-ng-memory", "mmap, mremap, brk and 17 more of memory, --verify", DASH),
    Case("stress-ng-tasks", "fork, futex, pipe, 13 of signals and 12 more, --verify", DASH),
    Case("stress-ng-sigfpe", "arm64's CPU raises no SIGFPE", DASH, ("x86_64-4k",)),
)
