/* What a small libc (musl) does differently: its own malloc, stdio, threads, locale, printf of floats, qsort, regex. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int by_length(const void *a, const void *b) { return strlen(*(char *const *)a) - strlen(*(char *const *)b); }

static void *work(void *argument)
{
    char *block = malloc(200000); /* its own mapping */
    memset(block, 1, 200000);
    long sum = (long)argument;
    for (int i = 0; i < 200000; i += 1000)
        sum += block[i];
    free(block);
    return (void *)sum;
}

int main(int argc, char **argv)
{
    char *words[] = {"ccc", "a", "bb"}, text[64];
    pthread_t threads[3];
    void *result;
    long sum = 0;
    regex_t regex;
    regmatch_t match[2];
    jmp_buf place;
    int status;

    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], &result), sum += (long)result;
    qsort(words, 3, sizeof *words, by_length);
    printf("%ld %s %s %s %.17g %a\n", sum, words[0], words[1], words[2], 0.1, 1.5);
    regcomp(&regex, "b(c+)d", REG_EXTENDED);
    status = regexec(&regex, "abccd", 2, match, 0);
    printf("match %d at %d\n", status, (int)match[1].rm_so);
    if (setjmp(place) == 0)
        longjmp(place, 1);
    time_t when = 86400;
    strftime(text, sizeof text, "%Y-%m-%d", gmtime(&when));
    printf("%s, %s, %d\n", text, strerror(ENOENT), argc);
    fflush(stdout);
    if (argc > 1)
        return 5;
    if (fork() == 0)
        execl(argv[0], argv[0], "child", (char *)NULL), _exit(1);
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
    FILE *pipe = popen("echo from the shell", "r");
    if (pipe && fgets(text, sizeof text, pipe))
        fputs(text, stdout);
    return 0;
}
