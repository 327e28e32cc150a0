#!/bin/sh
# Rebuild the guests of src/ for both architectures: needs gcc and gcc-aarch64-linux-gnu. They stand on images/src/guest.h.
cd "$(dirname "$0")" || exit 1
flags="-std=gnu11 -O2 -g0 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-pic -no-pie -fno-stack-protector
 -fomit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-tree-loop-distribute-patterns -nostdlib
 -static -Wl,--build-id=none -Wl,-z,max-page-size=65536 -Wl,-z,noexecstack -s -I../../../images/src"
for source in src/*.c; do
	name=$(basename "$source" .c)
	gcc $flags -fcf-protection=none "$source" -o "x86_64/$name" || exit 1
	aarch64-linux-gnu-gcc $flags -mno-outline-atomics "$source" -o "aarch64/$name" || exit 1
done
