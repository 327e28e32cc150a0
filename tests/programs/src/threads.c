/* Threads with everything they synchronise by; each line printed depends on all of them having worked. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t table_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static sem_t items;
static __thread int own = 7;
static int turn, onces, destroyed, table[THREADS], cleaned;
static volatile sig_atomic_t caught;

static void run_once(void) { onces++; }
static void destroy(void *value) { __atomic_add_fetch(&destroyed, *(int *)value, __ATOMIC_SEQ_CST); free(value); }
static void clean(void *unused) { (void)unused; cleaned = 1; }
static void handler(int signo) { caught = signo; }

static void *work(void *argument)
{
    int me = (int)(long)argument;
    int *value = malloc(sizeof *value);
    *value = me;
    pthread_setspecific(key, value);
    pthread_once(&once, run_once);
    own += me;
    pthread_mutex_lock(&lock); /* strictly in order: 0, 1, 2, ... */
    while (turn != me)
        pthread_cond_wait(&turned, &lock);
    turn++;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 200; i++) {
        pthread_rwlock_wrlock(&table_lock);
        table[i % THREADS] += me;
        pthread_rwlock_unlock(&table_lock);
        sem_post(&items);
    }
    pthread_barrier_wait(&barrier);
    return (void *)(long)own;
}

static void *endless(void *unused)
{
    pthread_cleanup_push(clean, unused);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS], victim;
    long sum = 0;
    int taken = 0;
    void *result;
    struct timespec until;

    pthread_key_create(&key, destroy);
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    sem_init(&items, 0, 0);
    signal(SIGUSR1, handler);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    while (sem_trywait(&items) == 0)
        taken++;
    printf("turn %d, once %d, destroyed %d, own %d, sum %ld, taken %d\n", turn, onces, destroyed, own, sum, taken);
    printf("table %d %d %d %d\n", table[0], table[1], table[2], table[3]);

    pthread_create(&victim, NULL, endless, NULL);
    pthread_kill(victim, SIGUSR1);
    while (!caught)
        usleep(1000);
    pthread_cancel(victim);
    pthread_join(victim, &result);
    printf("caught %d, cancelled %d, cleaned %d\n", (int)caught, result == PTHREAD_CANCELED, cleaned);

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    if (until.tv_nsec >= 1000000000)
        until.tv_nsec -= 1000000000, until.tv_sec++;
    pthread_mutex_lock(&lock);
    printf("timed wait: %s\n", pthread_cond_timedwait(&turned, &lock, &until) == ETIMEDOUT ? "timed out" : "woken");
    return 0;
}
