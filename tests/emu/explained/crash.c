/* A position-independent program with DWARF, whose fault must be told by function, file and line:
 *   gcc -g -O1 -nostdlib -static-pie -fno-stack-protector -Wl,--build-id=none -fdebug-prefix-map=$PWD=. -o crash.x86_64 crash.c
 *   aarch64-linux-gnu-gcc (the same) -o crash.aarch64 crash.c
 */
struct node {
    struct node *next;
    long value;
};

static __attribute__((noinline)) long sum(volatile struct node *at)
{
    long total = 0;
    for (int i = 0; i < 2; i++) {
        total += at->value; /* line 14: the second time `at` is null */
        at = at->next;
    }
    return total;
}

static struct node last = {0, 1};

void _start(void)
{
    sum(&last);
    for (;;)
        ;
}
