/* SPDX-License-Identifier: GPL-2.0-only */
/* mprotect and a SIGSEGV handler that repairs: the faulting store is made again after the handler returns, and succeeds. */
#include "guest.h"

static u8 *area_start;
static int repairs;

static void on_fault(int signo, struct siginfo *info, u8 *context)
{
	ulong offset = info->address - (ulong)area_start;

	say("signal %d code %d at page %d offset %d\n", (long)signo, (long)info->code, offset / page, offset % page);
	CHECK(info->signo == signo && offset < 4 * page);
	CHECK(context_word(context, UC_FAULT_ADDRESS) == info->address);
	CHECK(sys(mprotect, area_start + offset / page * page, page, RW) == 0);
	repairs++;
}

static int run(void)
{
	area_start = map(NULL, 4, RW, ANON);
	for (int i = 0; i < 4; i++)
		area_start[i * page] = i;
	CHECK(sys(mprotect, area_start, 4 * page, PROT_READ) == 0);
	handle(SIGSEGV, on_fault, 0, 0);
	for (int i = 3; i >= 0; i--) {
		volatile u8 *byte = area_start + i * page + i;

		*byte = 40 + i;
		CHECK(*byte == 40 + i);
	}
	CHECK(repairs == 4);
	CHECK(area_start[page] == 1);
	draw(area_start, 4);
	say(" after %d repairs\n", (long)repairs);
	CHECK(sys(mprotect, area_start, page, PROT_NONE) == 0);
	say("a load: ");
	CHECK(*(volatile u8 *)area_start == 40); /* code 2 again: mapped, but not for this */
	return 0;
}
