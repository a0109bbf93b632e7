// Counts the allocations of a process, for Tests/bench: preloaded, it keeps its counters in a file that the bench reads
// while the process runs.
//
//     MALLOC_COUNT_DIR=DIR LD_PRELOAD=malloc_count.so program     →  DIR/PID: 18 little-endian 64-bit numbers
//
// Number 0 counts every allocation, number 1 the bytes asked for; number 2 + n counts those of at most 16 << n bytes
// (the last one: all that are larger), so that objects, small arrays and message bodies can be told apart.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// glibc's own, under their second names: `dlsym` would allocate.
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

enum { NUMBERS = 18 };
static _Atomic uint64_t before_start[NUMBERS];
static _Atomic uint64_t *numbers = before_start;

__attribute__((constructor)) static void open_file(void) {
  const char *directory = getenv("MALLOC_COUNT_DIR");
  char path[4096];
  if (!directory || snprintf(path, sizeof path, "%s/%d", directory, getpid()) >= (int)sizeof path) return;
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof before_start) != 0) return;
  void *memory = mmap(0, sizeof before_start, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory != MAP_FAILED) numbers = memory;
}

static void count(size_t size) {
  int class = 0;
  while (class < NUMBERS - 3 && size > (size_t)16 << class) class++;
  atomic_fetch_add_explicit(&numbers[0], 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&numbers[1], size, memory_order_relaxed);
  atomic_fetch_add_explicit(&numbers[2 + class], 1, memory_order_relaxed);
}

void *malloc(size_t size) { return count(size), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(n * size), __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return count(size), __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return count(size), __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return count(size), __libc_memalign(alignment, size); }
int posix_memalign(void **out, size_t alignment, size_t size) {
  count(size);
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : ENOMEM;
}
