/* The library of loading.c, and the one that LD_PRELOAD puts in front of libc. */
#include <stdio.h>
#include <sys/types.h>

extern int answer __attribute__((weak));
static int hidden = 5, calls;
int *table[2] = {&hidden, &answer}; /* relocations: relative and by name; relative ones are packed (DT_RELR) */
static __thread int own = 9;

int count(void) { return ++calls; }
int *local(void) { return &own; }
pid_t getpid(void) { return 42; }
static void __attribute__((constructor)) opened(void) { puts("opened"); fflush(stdout); }
static void __attribute__((destructor)) closed(void) { puts("closed"); fflush(stdout); }
