/* SPDX-License-Identifier: GPL-2.0-only */
/* Work to measure, `bench KIND COUNT`: compute, getppid, faults (first touch of COUNT pages), split (mprotect of every second page). */
#include "guest.h"

static ulong compute(ulong count)
{
	ulong x = 88172645463325252ul, sum = 0;
	static u32 table[1024] = { 1 };

	while (count--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		table[x & 1023] += x >> 32;
		sum += table[x >> 20 & 1023] * 3 + (x & 1 ? count : sum >> 3);
	}
	return sum;
}

static int run(void)
{
	char *kind, *text;
	ulong count, result = 0;

	if (!arguments[1] || !arguments[2]) {
		say("usage: bench compute|getppid|faults|split COUNT\n");
		return 0;
	}
	kind = arguments[1];
	text = arguments[2];
	count = number(&text, 10);
	if (same(kind, "compute"))
		result = compute(count);
	else if (same(kind, "getppid"))
		while (count--)
			result += sys(getppid) >= 0;
	else if (same(kind, "faults")) {
		u8 *a = map(NULL, count + 1, RW, ANON);

		for (ulong i = 0; i < count; i++)
			a[i * page] = 1;
		result = a[0];
	} else if (same(kind, "split")) {
		u8 *a = map(NULL, 2 * count + 1, RW, ANON);

		for (ulong i = 0; i < count; i++)
			CHECK(sys(mprotect, a + (2 * i + 1) * page, page, PROT_READ) == 0);
		result = count;
	} else
		return 2;
	say("%s %d\n", kind, result);
	return 0;
}
