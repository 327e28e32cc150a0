/* SPDX-License-Identifier: GPL-2.0-only */
/* Pipes and processes: a chain of children, each adding one to every byte that passes; end of file walks down the chain. */
#include "guest.h"

enum { LENGTH = 5, BYTES = 100000 };
static u8 buffer[4096];

static int run(void)
{
	int in[2], next[2];
	long children[LENGTH], n, total = 0;
	ulong sum = 0;

	CHECK(sys(pipe2, in, 0) == 0);
	children[0] = fork();
	if (!children[0]) { /* the source */
		sys(close, in[0]);
		for (int i = 0; i < BYTES; i += n) {
			for (int j = 0; j < 1000; j++)
				buffer[j] = (i + j) % 7;
			n = sys(write, in[1], buffer, 1000);
			CHECK(n > 0);
		}
		finish(10);
	}
	sys(close, in[1]);
	for (int i = 1; i < LENGTH; i++) {
		CHECK(sys(pipe2, next, 0) == 0);
		children[i] = fork();
		if (!children[i]) {
			sys(close, next[0]);
			while ((n = sys(read, in[0], buffer, sizeof buffer)) > 0) {
				for (int j = 0; j < n; j++)
					buffer[j]++;
				for (long done = 0, m; done < n; done += m) {
					m = sys(write, next[1], buffer + done, n - done);
					CHECK(m > 0);
				}
			}
			finish(10 + i);
		}
		sys(close, in[0]);
		sys(close, next[1]);
		in[0] = next[0];
	}
	while ((n = sys(read, in[0], buffer, sizeof buffer)) > 0) {
		total += n;
		for (int j = 0; j < n; j++)
			sum += buffer[j];
	}
	say("%d bytes, sum %d\n", total, sum);
	for (int i = LENGTH - 1; i >= 0; i--)
		say("child %d: status %d\n", (long)i, (long)wait_for(children[i]));
	CHECK(sys(wait4, -1, 0, 0, 0) == -10);
	sys(close, in[0]);
	CHECK(sys(pipe2, in, 0) == 0);
	sys(close, in[0]);
	children[0] = fork();
	if (!children[0])
		finish(sys(write, in[1], buffer, 1) == 1); /* no reader: SIGPIPE */
	say("writer without a reader: status %d\n", (long)wait_for(children[0]));
	return 0;
}
