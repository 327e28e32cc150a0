/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vDSO of an x86-64 guest: the names a C library looks for, each making the system call of the same name.
 *
 * A call through here returns what the system call returns by construction, and costs what it costs; there is no page of
 * clock data to keep in step. The second, unprefixed name of each function is a weak alias.
 */
#include "note.h"

	.text

.macro call name, number
	.balign 16
	.globl __vdso_\name
	.weak \name
	.type __vdso_\name, @function
	.type \name, @function
__vdso_\name:
\name:
	.cfi_startproc
	mov $\number, %eax
	syscall
	ret
	.cfi_endproc
	.size __vdso_\name, . - __vdso_\name
	.size \name, . - \name
.endm

call clock_gettime, 228
call gettimeofday, 96
call clock_getres, 229
call time, 201
call getcpu, 309

	.section .note.GNU-stack, "", @progbits
