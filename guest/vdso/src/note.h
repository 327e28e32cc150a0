/* SPDX-License-Identifier: GPL-2.0-only */
/* The note from which a C library learns the kernel's version: owner "Linux", type 0, LINUX_VERSION_CODE of 5.10.262.
 * The patch level saturates at 255, as in the kernel's own version header. */
	.section .note.version, "a", %note
	.balign 4
	.long 2f - 1f, 4, 0
1:	.asciz "Linux"
2:	.balign 4
	.long (5 << 16) + (10 << 8) + 255
