/* A wall clock that jumps, for clock_jump: preloaded, it adds the seconds that the first eight bytes
 * of $ERMGAP_CLOCK hold. Monotonic clocks and sleeps are left alone, as in a real jump (libfaketime
 * breaks Python's sleep, which waits for an absolute monotonic time). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("ERMGAP_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) ahead = page;
  if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int wrong = (int)syscall(SYS_clock_gettime, clock, now);
  if (!wrong && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += *ahead;
  return wrong;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec told;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &told);
  now->tv_sec = told.tv_sec;
  now->tv_usec = told.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *where) {
  struct timespec told;
  clock_gettime(CLOCK_REALTIME, &told);
  if (where) *where = told.tv_sec;
  return told.tv_sec;
}
