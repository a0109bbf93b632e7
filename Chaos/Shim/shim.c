// What a process under test is told about time and disks, other than the truth. Preloaded (LD_PRELOAD) into one
// process; the machine's own clock and disks are left alone. What it says is read from a shared file that the chaos
// engine writes:
//
//   offset 0   int64   nanoseconds added to the wall clock
//          8   int32   1 = the monotonic clock is the wall clock: what a program would see that had not used it
//         12   int32   errno of every fsync; 0 = none
//         16   int32   milliseconds that every fsync takes longer
//         20   int32   errno of every write and rename; 0 = none
//         24   int32   1 = the disk lies: writes, renames and fsyncs say that they were done and were not
//
// The last four are of files below one directory. CHAOS_SHIM names the shared file, CHAOS_SHIM_DIRECTORY the directory.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct orders {
  volatile int64_t wall_nanoseconds;
  volatile int32_t monotonic_jumps, sync_errno, sync_milliseconds, write_errno, lies;
};

static struct orders none;
static struct orders *orders = &none;
static const char *directory = "";

static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_timeofday)(struct timeval *, void *);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void begin(void) {
  real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  real_timeofday = dlsym(RTLD_NEXT, "gettimeofday");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite");
  real_rename = dlsym(RTLD_NEXT, "rename");
  const char *path = getenv("CHAOS_SHIM");
  if (getenv("CHAOS_SHIM_DIRECTORY")) directory = getenv("CHAOS_SHIM_DIRECTORY");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(NULL, sizeof(struct orders), PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) orders = page;
  close(file);
}

static int is_below(const char *path) {
  size_t length = strlen(directory);
  return length > 0 && strncmp(path, directory, length) == 0;
}

static int concerns(int descriptor) {
  char link[32], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int disk_is_odd(void) { return orders->write_errno || orders->lies; }

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_gettime) begin();
  int result = real_gettime(clock, time);
  int jumps = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ||
              (orders->monotonic_jumps && (clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME));
  if (result == 0 && jumps && orders->wall_nanoseconds) {
    int64_t all = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + orders->wall_nanoseconds;
    if (all < 0) all = 0;
    time->tv_sec = all / 1000000000;
    time->tv_nsec = all % 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0 || (zone && real_timeofday(time, zone) != 0)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

static int sync_as(int descriptor, int (*real)(int)) {
  if ((orders->sync_errno || orders->sync_milliseconds || orders->lies) && concerns(descriptor)) {
    if (orders->sync_milliseconds) usleep((useconds_t)orders->sync_milliseconds * 1000);
    if (orders->lies) return 0;
    if (orders->sync_errno) {
      errno = orders->sync_errno;
      return -1;
    }
  }
  return real(descriptor);
}
int fsync(int descriptor) { return sync_as(descriptor, real_fsync); }
int fdatasync(int descriptor) { return sync_as(descriptor, real_fdatasync); }

ssize_t write(int descriptor, const void *bytes, size_t count) {
  if (!real_write) begin();
  if (disk_is_odd() && concerns(descriptor)) {
    if (orders->lies) return (ssize_t)count;
    errno = orders->write_errno;
    return -1;
  }
  return real_write(descriptor, bytes, count);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
  if (disk_is_odd() && concerns(descriptor)) {
    if (orders->lies) return (ssize_t)count;
    errno = orders->write_errno;
    return -1;
  }
  return real_pwrite(descriptor, bytes, count, offset);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t offset) {
  return pwrite(descriptor, bytes, count, offset);
}

int rename(const char *from, const char *to) {
  if (disk_is_odd() && is_below(to)) {
    if (orders->lies) return 0;
    errno = orders->write_errno;
    return -1;
  }
  return real_rename(from, to);
}
