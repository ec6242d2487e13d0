/* A wall clock that can be set without touching the machine's: preloaded into a process, it adds the seconds that stand, as
 * a 64-bit number, in the file of $SOAK_CLOCK. The monotonic clock stays what it is, as when a real clock is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t* added;
static int (*real)(clockid_t, struct timespec*);

__attribute__((constructor)) static void prepare(void) {
  const char* path = getenv("SOAK_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  if (file < 0) return;
  void* mapped = mmap(0, sizeof *added, PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) added = mapped;
  close(file);
}

int clock_gettime(clockid_t id, struct timespec* at) {
  if (!real) prepare();
  int result = real(id, at);
  if (!result && added && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += *added;
  return result;
}

int gettimeofday(struct timeval* restrict at, void* restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
  at->tv_sec = exact.tv_sec;
  at->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* at) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
  if (at) *at = exact.tv_sec;
  return exact.tv_sec;
}
