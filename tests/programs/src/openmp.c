/* Loops shared among threads, reductions, tasks and critical sections of libgomp. */
#include <omp.h>
#include <stdio.h>

static int fibonacci(int n)
{
    int a, b;
    if (n < 2)
        return n;
#pragma omp task shared(a)
    a = fibonacci(n - 1);
    b = fibonacci(n - 2);
#pragma omp taskwait
    return a + b;
}

int main(void)
{
    static int seen[4];
    long sum = 0;
    int order = 0, result = 0, critical = 0;

    omp_set_num_threads(4);
#pragma omp parallel
    seen[omp_get_thread_num()] = omp_get_num_threads();
    printf("threads %d %d %d %d\n", seen[0], seen[1], seen[2], seen[3]);
#pragma omp parallel for reduction(+ : sum) schedule(dynamic, 7)
    for (int i = 0; i < 10000; i++)
        sum += (long)i * i % 7;
    printf("sum %ld\n", sum);
#pragma omp parallel for ordered
    for (int i = 0; i < 8; i++)
#pragma omp ordered
        order = order * 10 + i;
    printf("order %d\n", order);
#pragma omp parallel
#pragma omp single
    result = fibonacci(10);
    printf("fibonacci %d\n", result);
#pragma omp parallel
    for (int i = 0; i < 50; i++)
#pragma omp critical
        critical++;
    printf("critical %d\n", critical);
    return 0;
}
