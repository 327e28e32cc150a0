/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vDSO of an arm64 guest: the signal trampoline, and the time functions, each making the system call of the same name.
 *
 * __kernel_rt_sigreturn is where a handler returns to. Unwinders know it by its two instructions, not by a frame
 * description: libgcc and libunwind then take every register from the signal frame, which no description
 * of this function could say, so it has none, as in Linux. The instruction before it belongs to it for unwinders
 * that look up the return address less one.
 */
#include "note.h"

	/* The linker script puts this where the trampoline lies 0x7b0 bytes behind the start of [vdso], as in Linux 5.10. */
	.section .sigtramp, "ax", %progbits

	nop
	.globl __kernel_rt_sigreturn
	.type __kernel_rt_sigreturn, %function
__kernel_rt_sigreturn:
	mov x8, #139
	svc #0
	.size __kernel_rt_sigreturn, . - __kernel_rt_sigreturn

	.text

.macro call name, number
	.balign 16
	.globl __kernel_\name
	.type __kernel_\name, %function
__kernel_\name:
	.cfi_startproc
	mov x8, #\number
	svc #0
	ret
	.cfi_endproc
	.size __kernel_\name, . - __kernel_\name
.endm

call clock_gettime, 113
call gettimeofday, 169
call clock_getres, 114

	.section .note.GNU-stack, "", %progbits
