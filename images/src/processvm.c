/* SPDX-License-Identifier: GPL-2.0-only */
/* process_vm_readv and writev: copying into another process through holes and protections, and advice to it by a pidfd. */
#include "guest.h"

enum {
	CALL(process_vm_readv, 310, 270), CALL(process_vm_writev, 311, 271), CALL(pidfd_open, 434, 434),
	CALL(process_madvise, 440, 440), CALL(setuid, 105, 146),
};
struct iovec {
	void *base;
	ulong length;
};

static int run(void)
{
	u8 *a = map(NULL, 8, RW, ANON), *b = map(NULL, 8, RW, ANON);
	u8 *ro = map(NULL, 2, RW, ANON);
	struct iovec local[4] = { { b, 3 * page } }, remote[4] = { { a + 10, 3 * page } };
	long child, parent = sys(getpid), fd;
	int ready[2], go[2];
	char c;

	for (int i = 0; i < 4; i++)
		a[i * page + 10] = i + 1;
	ro[0] = 9;
	sys(mprotect, ro, page, PROT_READ);
	sys(munmap, a + 4 * page, page);
	CHECK(!sys(pipe2, ready, 0) && !sys(pipe2, go, 0));
	child = fork();
	if (!child) {
		a[10] = 77;
		sys(write, ready[1], "x", 1);
		sys(read, go[0], &c, 1);
		say("the child sees %d %d %d %d\n", (long)a[0], (long)a[page], (long)a[3 * page + page - 1], (long)ro[0]);
		flush();
		sys(write, ready[1], "x", 1);
		sys(read, go[0], &c, 1);
		finish(0);
	}
	sys(read, ready[0], &c, 1);
	say("read %d: %d %d %d, mine %d\n", sys(process_vm_readv, child, local, 1, remote, 1, 0), (long)b[0], (long)b[page], (long)b[2 * page], (long)a[10]);
	remote[0] = (struct iovec){ a + 3 * page, 3 * page };
	say("up to the hole %d\n", sys(process_vm_readv, child, local, 1, remote, 1, 0));
	remote[0] = (struct iovec){ a + 4 * page, page };
	say("from the hole %d\n", sys(process_vm_readv, child, local, 1, remote, 1, 0));
	remote[0] = (struct iovec){ a + 3 * page + 10, 5 };
	remote[1] = (struct iovec){ a + 4 * page, page };
	remote[2] = (struct iovec){ a, page };
	say("a hole among three %d\n", sys(process_vm_readv, child, local, 1, remote, 3, 0));
	local[0] = (struct iovec){ b + 8 * page - 100, 300 };
	say("local end %d\n", sys(process_vm_readv, child, local, 1, remote + 2, 1, 0));
	local[0] = (struct iovec){ b, 5 };
	local[1] = (struct iovec){ b + 100, 0 };
	local[2] = (struct iovec){ b + 200, 7 };
	say("scattered %d\n", sys(process_vm_readv, child, local, 3, remote + 2, 1, 0));
	say("empty %d %d %d\n", sys(process_vm_readv, child, local, 0, remote, 1, 0), sys(process_vm_readv, child, local, 1, remote, 0, 0),
	    sys(process_vm_readv, 99999, local + 1, 1, remote, 1, 0));
	say("flags %d, nobody %d, count %d %d, arrays %d %d\n", sys(process_vm_readv, child, local, 1, remote, 1, 1),
	    sys(process_vm_readv, 99999, local, 1, remote, 1, 0), sys(process_vm_readv, child, local, 1025, remote, 1, 0),
	    sys(process_vm_readv, child, local, 1, remote, 1025, 0), sys(process_vm_readv, child, 8, 1, remote, 1, 0),
	    sys(process_vm_readv, child, local, 1, 8, 1, 0));
	local[1].length = -1ul;
	say("negative %d, not user memory %d\n", sys(process_vm_readv, child, local, 2, remote, 1, 0),
	    sys(process_vm_readv, child, (&(struct iovec){ (void *)-page, 1 }), 1, remote, 1, 0));

	b[0] = 50, b[1] = 51, b[2] = 52;
	remote[0] = (struct iovec){ a, 1 };
	remote[1] = (struct iovec){ a + page, 1 };
	remote[2] = (struct iovec){ a + 4 * page - 1, 1 };
	local[0] = (struct iovec){ b, 3 };
	say("write %d, read-only %d\n", sys(process_vm_writev, child, local, 1, remote, 3, 0),
	    sys(process_vm_writev, child, local, 1, (&(struct iovec){ ro, 1 }), 1, 0));
	say("mine is still %d %d\n", (long)a[0], (long)a[page]);
	flush();
	sys(write, go[1], "x", 1);
	sys(read, ready[0], &c, 1);

	fd = sys(pidfd_open, child, 0);
	say("advice: flags %d, arrays %d, descriptor %d %d, kind %d %d\n", sys(process_madvise, fd, remote, 1, 20, 1),
	    sys(process_madvise, fd, 8, 1, 20, 0), sys(process_madvise, 99, remote, 1, 20, 0), sys(process_madvise, ready[0], remote, 1, 20, 0),
	    sys(process_madvise, fd, remote, 1, 4, 0), sys(process_madvise, fd, remote, 1, 99, 0));
	remote[0] = (struct iovec){ a, 2 * page };
	remote[1] = (struct iovec){ a + 3 * page, page };
	remote[2] = (struct iovec){ a + 4 * page, 2 * page };
	remote[3] = (struct iovec){ a + 1, page };
	say("cold %d, pageout %d, odd %d, to a hole %d, nothing %d\n", sys(process_madvise, fd, remote, 2, 20, 0),
	    sys(process_madvise, fd, remote, 2, 21, 0), sys(process_madvise, fd, remote + 3, 1, 20, 0),
	    sys(process_madvise, fd, remote, 4, 20, 0), sys(process_madvise, fd, remote, 0, 20, 0));
	if (!(child = fork())) {
		sys(setuid, 1000);
		say("uid 1000: read %d, advise %d\n", sys(process_vm_readv, parent, local, 1, remote, 1, 0),
		    sys(process_madvise, fd, remote, 1, 20, 0));
		finish(0);
	}
	wait_for(child);
	sys(write, go[1], "x", 1);
	sys(wait4, -1, 0, 0, 0);
	say("dead: advise %d\n", sys(process_madvise, fd, remote, 1, 20, 0));
	return 0;
}
