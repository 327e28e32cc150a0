#!/bin/sh
# Rebuild the guests of src/ for both architectures: needs gcc and gcc-aarch64-linux-gnu. They stand on images/src/guest.h;
# those with <stdio.h> on musl: MUSL is a folder in which amd64/ and arm64/ are Debian's packages musl-dev unpacked.
cd "$(dirname "$0")" || exit 1
flags="-std=gnu11 -O2 -g0 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-pic -no-pie -fno-stack-protector
 -fomit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-tree-loop-distribute-patterns -nostdlib
 -static -Wl,--build-id=none -Wl,-z,max-page-size=65536 -Wl,-z,noexecstack -s -I../../../images/src"
with_musl() { # compiler, musl's name of the architecture, Debian's, the largest page, options
	lib=$MUSL/$3/usr/lib/$2-linux-musl
	include=$(mktemp -d)
	ln -s /usr/include/linux /usr/include/asm-generic "$include"
	ln -s "$(dirname "$(find /usr/include/$2-linux-gnu /usr/$2-linux-gnu/include -name unistd_64.h -o -name bpf_perf_event.h | head -n1)")" "$include/asm"
	"$1" -std=gnu11 -Os -g0 -w $5 -static -no-pie -fno-pic -nostdinc -isystem "$MUSL/$3/usr/include/$2-linux-musl" \
		-isystem "$include" -isystem "$("$1" -print-file-name=include)" -nostdlib -Wl,--build-id=none -s \
		-Wl,-z,max-page-size="$4" -Wl,-z,noexecstack -Wl,--gc-sections -ffunction-sections "$lib/crt1.o" "$lib/crti.o" \
		"$source" "$lib/libc.a" "$("$1" -print-libgcc-file-name)" "$lib/libc.a" "$lib/crtn.o" -o "$2/$name"
}
for source in src/*.c; do
	name=$(basename "$source" .c)
	if grep -q '<stdio.h>' "$source"; then
		[ -n "$MUSL" ] || { echo "$name stays as it is: it needs MUSL"; continue; }
		with_musl gcc x86_64 amd64 4096 || exit 1
		with_musl aarch64-linux-gnu-gcc aarch64 arm64 65536 -mno-outline-atomics || exit 1
		continue
	fi
	gcc $flags -fcf-protection=none "$source" -o "x86_64/$name" || exit 1
	aarch64-linux-gnu-gcc $flags -mno-outline-atomics "$source" -o "aarch64/$name" || exit 1
done
