/* SPDX-License-Identifier: GPL-2.0-only */
/* The least a program can do: one line, one exit. */
#include "guest.h"

static int run(void)
{
	say("hello from %s with pages of %d bytes\n", ARCH, page);
	return 0;
}
