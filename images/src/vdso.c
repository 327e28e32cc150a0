/* SPDX-License-Identifier: GPL-2.0-only */
/* The vDSO: found through the auxiliary vector, an ELF image in memory; its clock and the system call's are one clock. */
#include "guest.h"

struct ehdr { u8 ident[16]; unsigned short type, machine; u32 version; ulong entry, phoff, shoff; u32 flags; unsigned short ehsize, phentsize, phnum; };
struct phdr { u32 type, flags; ulong offset, vaddr, paddr, filesz, memsz, align; };
struct sym { u32 name; u8 info, other; unsigned short shndx; ulong value, size; };

/* The address of function `name`, by the image's own dynamic section. */
static void *lookup(ulong base, const char *name)
{
	struct ehdr *eh = (void *)base;
	struct phdr *ph = (void *)(base + eh->phoff);
	ulong *dynamic = NULL;
	struct sym *symbols = NULL;
	char *strings = NULL;
	u32 *hash = NULL;

	for (int i = 0; i < eh->phnum; i++)
		if (ph[i].type == 2)
			dynamic = (void *)(base + ph[i].vaddr);
	for (; dynamic[0]; dynamic += 2) {
		if (dynamic[0] == 4)
			hash = (void *)(base + dynamic[1]);
		if (dynamic[0] == 5)
			strings = (void *)(base + dynamic[1]);
		if (dynamic[0] == 6)
			symbols = (void *)(base + dynamic[1]);
	}
	for (u32 i = 0; i < hash[1]; i++)
		if (same(strings + symbols[i].name, name))
			return (void *)(base + symbols[i].value);
	return NULL;
}

static int run(void)
{
#ifdef __x86_64__
	const char *name = "__vdso_clock_gettime";
#else
	const char *name = "__kernel_clock_gettime";
#endif
	ulong *aux = (ulong *)arguments, base = 0;
	long a[2], b[2], c[2];
	int (*clock)(int, long *);

	for (int nulls = 0; nulls < 2; aux++) /* behind argv and the environment */
		nulls += !*aux;
	for (; aux[0]; aux += 2)
		if (aux[0] == 33)
			base = aux[1];
	CHECK(base && !(base & (page - 1)));
	clock = lookup(base, name);
	CHECK(clock);
	CHECK(sys(clock_gettime, 1, a) == 0 && clock(1, b) == 0 && sys(clock_gettime, 1, c) == 0);
	CHECK(a[0] < b[0] || (a[0] == b[0] && a[1] <= b[1]));
	CHECK(b[0] < c[0] || (b[0] == c[0] && b[1] <= c[1]));
	CHECK(clock(1000, b) == -22);
	say("%s agrees with the system call\n", name);
	return 0;
}
