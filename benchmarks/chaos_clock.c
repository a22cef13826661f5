/* Preloaded into a process, moves its time of day by as many seconds as the file CHAOS_CLOCK says at that moment.
   Steady clocks and sleeps are left alone, as by a real jump. Waits until a time of day are moved back: the kernel,
   which they are handed to, has not jumped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define A_TIME_OF_DAY 1000000000L /* Steady clocks count from the machine's start and never come so far. */

static long jumped(void) {
    char text[32] = {0};
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    return got > 0 ? atol(text) : 0;
}

static struct timespec moved_back(const struct timespec *until) {
    struct timespec moved = *until;
    if (moved.tv_sec > A_TIME_OF_DAY) moved.tv_sec -= jumped();
    return moved;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int status = NEXT(clock_gettime)(id, out);
    if (!status && id == CLOCK_REALTIME) out->tv_sec += jumped();
    return status;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec moved = moved_back(until);
    return NEXT(sem_timedwait)(semaphore, &moved);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec moved = moved_back(until);
    return NEXT(pthread_cond_timedwait)(condition, mutex, &moved);
}
