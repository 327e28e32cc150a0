/* SPDX-License-Identifier: GPL-2.0-only */
/* System V shared memory: one segment in two processes and at two addresses, attached after removal, refused in every way. */
#include "guest.h"

enum {
	CALL(shmget, 29, 194), CALL(shmat, 30, 196), CALL(shmctl, 31, 195), CALL(shmdt, 67, 197), CALL(setuid, 105, 146),
};
enum { IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO, SHM_LOCK = 11, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY };
#define IPC_CREAT 01000
#define IPC_EXCL 02000
#define SHM_RDONLY 010000
#define SHM_RND 020000
#define SHM_REMAP 040000
#define SHM_EXEC 0100000

struct shmid_ds {
	u32 key, uid, gid, cuid, cgid, mode;
	unsigned short seq, pad;
	ulong unused[2], segsz, atime, dtime, ctime;
	u32 cpid, lpid;
	ulong nattch, unused2[2];
};

static void show(const char *when, int id)
{
	struct shmid_ds ds;
	long result = sys(shmctl, id, IPC_STAT, &ds);

	if (result) {
		say("%s: %d\n", when, result);
		return;
	}
	say("%s: key %x owner %d.%d by %d.%d mode %x seq %d size %d attached %d", when, (ulong)ds.key, (long)ds.uid,
	    (long)ds.gid, (long)ds.cuid, (long)ds.cgid, (ulong)ds.mode, (long)ds.seq, ds.segsz, ds.nattch);
	say(" made by me %d, used by me %d\n", (long)(ds.cpid == (u32)sys(getpid)), (long)(ds.lpid == (u32)sys(getpid)));
}

static void maps(const char *when)
{
	char *text = read_file("/proc/self/maps");

	say("%s\n", when);
	for (char *line = text; *line; line++) {
		char *end = line, *p;

		while (*end && *end != '\n')
			end++;
		for (p = line; p + 4 <= end && !(p[0] == 'S' && p[1] == 'Y' && p[2] == 'S' && p[3] == 'V'); p++)
			;
		if (p + 4 <= end) {
			*end = 0;
			say("  %s\n", line);
		}
		line = end;
	}
}

static int run(void)
{
	long id = sys(shmget, 0x1234, 3 * page + 5, IPC_CREAT | 0640), other, child;
	u8 *a, *b, *c;
	struct shmid_ds ds;
	ulong info[9];

	say("first segment %d, again %d, exclusively %d, larger %d, smaller %d\n", id, sys(shmget, 0x1234, 0, 0),
	    sys(shmget, 0x1234, 1, IPC_CREAT | IPC_EXCL), sys(shmget, 0x1234, 5 * page, 0), sys(shmget, 0x1234, page, 0666));
	show("new", id);
	a = (u8 *)sys(shmat, id, 0, 0);
	b = (u8 *)sys(shmat, id, 0, SHM_RDONLY);
	a[page + 7] = 42;
	say("b shows %d\n", (long)b[page + 7]);
	show("attached twice", id);
	maps("mapped");
	child = fork();
	if (!child) {
		show("in the child", id);
		a[0] = 1;
		say("detach %d %d\n", sys(shmdt, b), sys(shmdt, b));
		finish(3);
	}
	say("child %d, wrote %d\n", (long)wait_for(child), (long)b[0]);
	show("after the child", id);

	say("split: %d", sys(mprotect, a + page, page, PROT_READ));
	show("", id);
	say("hole: %d", sys(munmap, a + page, page));
	show("", id);
	say("in the middle %d, at an odd address %d\n", sys(shmdt, a + 2 * page), sys(shmdt, a + 1));
	say("detach %d\n", sys(shmdt, a));
	show("detached", id);
	maps("left");

	c = map(NULL, 8, RW, ANON);
	say("over memory %d, with remap %d\n", sys(shmat, id, c, 0), (long)(sys(shmat, id, c + page, SHM_REMAP) == (long)(c + page)));
	say("odd %d, rounded %d, nowhere %d, nowhere rounded %d\n", sys(shmat, id, c + 1, SHM_REMAP),
	    (long)(sys(shmat, id, c + page + 1, SHM_REMAP | SHM_RND) == (long)(c + page)), sys(shmat, id, 0, SHM_REMAP),
	    sys(shmat, id, 5, SHM_REMAP | SHM_RND));
	show("remapped", id);
	say("c shows %d %d\n", (long)c[page], (long)c[2 * page + 7]);

	say("lock %d", sys(shmctl, id, SHM_LOCK, 0));
	show("", id);
	say("unlock %d %d", sys(shmctl, id, SHM_UNLOCK, 0), sys(shmctl, id, SHM_UNLOCK, 0));
	show("", id);

	other = sys(shmget, 0, 1, 0600);
	say("second segment %d\n", other);
	say("by index %d %d %d, any %d\n", sys(shmctl, 0, SHM_STAT, &ds), sys(shmctl, 1, SHM_STAT, &ds), sys(shmctl, 2, SHM_STAT, &ds),
	    sys(shmctl, 1, SHM_STAT_ANY, &ds));
	say("info %d:", sys(shmctl, 0, IPC_INFO, info));
	for (int i = 0; i < 9; i++)
		say(" %x", info[i]);
	say("\nshm_info %d:", sys(shmctl, 0, SHM_INFO, info));
	say(" %d %d %d %d\n", info[0] & 0xffffffff, info[1], info[2], info[3]);

	say("remove %d", sys(shmctl, id, IPC_RMID, 0));
	show("", id);
	say("key is free: %d, attach the removed one %d\n", sys(shmget, 0x1234, page, 0),
	    (long)((a = (u8 *)sys(shmat, id, 0, SHM_EXEC)) > (u8 *)0));
	say("it shows %d\n", (long)a[2 * page]);
	maps("mapped");
	say("detach %d %d %d", sys(shmdt, a), sys(shmdt, b), sys(shmdt, c + page));
	show(", gone", id);
	say("gone: attach %d, remove %d, lock %d\n", sys(shmat, id, 0, 0), sys(shmctl, id, IPC_RMID, 0), sys(shmctl, id, SHM_LOCK, 0));

	id = sys(shmget, 0x77, page, IPC_CREAT | 0604);
	say("third %d\n", id);
	ds.uid = 7;
	ds.gid = 8;
	ds.mode = 07642;
	say("set %d", sys(shmctl, id, IPC_SET, &ds));
	show("", id);
	ds.uid = -1;
	say("set %d, bad address %d\n", sys(shmctl, id, IPC_SET, &ds), sys(shmctl, id, IPC_SET, 8));
	say("bad: id %d %d, command %d %d, address %d\n", sys(shmctl, -1, IPC_STAT, &ds), sys(shmctl, 5, IPC_STAT, &ds),
	    sys(shmctl, id, 99, &ds), sys(shmctl, id, -1, &ds), sys(shmctl, id, IPC_STAT, 8));
	say("sizes: %d %d %d\n", sys(shmget, 0, 0, 0600), sys(shmget, 0, -1ul, 0600), sys(shmget, 0, 1ul << 50, 0600));
	child = fork();
	if (!child) {
		sys(setuid, 1000);
		say("uid 1000: stat %d, attach %d, read-only %d, find %d, find for writing %d\n", sys(shmctl, id, IPC_STAT, &ds),
		    sys(shmat, id, 0, 0), (long)(sys(shmat, id, 0, SHM_RDONLY) > 0), sys(shmget, 0x77, 0, 0), sys(shmget, 0x77, 0, 0006));
		say("remove %d, set %d, lock %d, unlock %d\n", sys(shmctl, id, IPC_RMID, 0), sys(shmctl, id, IPC_SET, &ds),
		    sys(shmctl, id, SHM_LOCK, 0), sys(shmctl, id, SHM_UNLOCK, 0));
		say("root's private one: %d %d, any %d\n", sys(shmctl, other, IPC_STAT, &ds), sys(shmat, other, 0, 0),
		    sys(shmctl, 1, SHM_STAT_ANY, &ds));
		id = sys(shmget, 0, 20 * page, 0600);
		say("own %d, lock %d", id, sys(shmctl, id, SHM_LOCK, 0));
		show("", id);
		say("remove %d\n", sys(shmctl, id, IPC_RMID, 0));
		finish(0);
	}
	say("child %d\n", (long)wait_for(child));
	show("third", id);
	say("remove %d %d\n", sys(shmctl, id, IPC_RMID, 0), sys(shmctl, other, IPC_RMID, 0));
	say("shm_info %d:", sys(shmctl, 0, SHM_INFO, info));
	say(" %d %d %d %d\n", info[0] & 0xffffffff, info[1], info[2], info[3]);
	return 0;
}
