/* SPDX-License-Identifier: GPL-2.0-only */
/* A store through a null pointer and nobody to handle it: killed by SIGSEGV, which a shell shows as 139. */
#include "guest.h"

static int run(void)
{
	volatile u8 *nowhere = NULL;

	say("about to fall\n");
	flush();
	asm volatile("" : "+r"(nowhere));
	*nowhere = 1;
	return 0;
}
