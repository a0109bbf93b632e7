// nghttp2, and the memory its sessions use.
//
// A session allocates some ten small blocks for every stream and frees them a moment later. The pool keeps such blocks
// in lists by size, so that in the steady state a stream costs no allocation. A pool belongs to one thread, serves all
// sessions of that thread, and keeps at most CNGHTTP2_KEPT_MAX bytes that nobody uses: a burst leaves no lasting trace.
//
//     block = | class (16 bytes, keeps alignment) | what the session sees … |
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <nghttp2/nghttp2.h>

enum {
  CNGHTTP2_HEADER = 16,
  CNGHTTP2_SMALLEST = 32,
  CNGHTTP2_CLASSES = 10,  // 32 bytes … 16 KiB
  CNGHTTP2_LARGE = CNGHTTP2_CLASSES,
  CNGHTTP2_KEPT_MAX = 4 << 20,
};

typedef struct cnghttp2_block {
  size_t class_;
  struct cnghttp2_block *next;  // while free
} cnghttp2_block;

typedef struct {
  cnghttp2_block *free[CNGHTTP2_CLASSES];
  size_t kept;
} cnghttp2_pool;

static inline void *cnghttp2_pool_malloc(size_t size, void *context) {
  cnghttp2_pool *pool = (cnghttp2_pool *)context;
  size_t class_ = 0;
  while (class_ < CNGHTTP2_CLASSES && size > (size_t)CNGHTTP2_SMALLEST << class_) class_++;
  cnghttp2_block *block;
  if (class_ == CNGHTTP2_LARGE) {
    if (size > SIZE_MAX - CNGHTTP2_HEADER) return 0;
    block = (cnghttp2_block *)malloc(CNGHTTP2_HEADER + size);
  } else if ((block = pool->free[class_])) {
    pool->free[class_] = block->next;
    pool->kept -= (size_t)CNGHTTP2_SMALLEST << class_;
  } else {
    block = (cnghttp2_block *)malloc(CNGHTTP2_HEADER + ((size_t)CNGHTTP2_SMALLEST << class_));
  }
  if (!block) return 0;
  block->class_ = class_;
  return (char *)block + CNGHTTP2_HEADER;
}

static inline void cnghttp2_pool_free(void *memory, void *context) {
  if (!memory) return;
  cnghttp2_pool *pool = (cnghttp2_pool *)context;
  cnghttp2_block *block = (cnghttp2_block *)((char *)memory - CNGHTTP2_HEADER);
  size_t class_ = block->class_, size = (size_t)CNGHTTP2_SMALLEST << class_;
  if (class_ == CNGHTTP2_LARGE || pool->kept + size > CNGHTTP2_KEPT_MAX) {
    free(block);
    return;
  }
  block->next = pool->free[class_];
  pool->free[class_] = block;
  pool->kept += size;
}

static inline void *cnghttp2_pool_calloc(size_t count, size_t size, void *context) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return 0;
  void *memory = cnghttp2_pool_malloc(bytes, context);
  return memory ? memset(memory, 0, bytes) : 0;
}

static inline void *cnghttp2_pool_realloc(void *memory, size_t size, void *context) {
  if (!memory) return cnghttp2_pool_malloc(size, context);
  cnghttp2_block *block = (cnghttp2_block *)((char *)memory - CNGHTTP2_HEADER);
  if (block->class_ == CNGHTTP2_LARGE) {
    // A block of malloc stays one, whatever its size becomes.
    if (size > SIZE_MAX - CNGHTTP2_HEADER) return 0;
    block = (cnghttp2_block *)realloc(block, CNGHTTP2_HEADER + size);
    return block ? (char *)block + CNGHTTP2_HEADER : 0;
  }
  size_t room = (size_t)CNGHTTP2_SMALLEST << block->class_;
  if (size <= room) return memory;
  void *moved = cnghttp2_pool_malloc(size, context);
  if (!moved) return 0;
  memcpy(moved, memory, room);
  cnghttp2_pool_free(memory, context);
  return moved;
}

static inline nghttp2_mem cnghttp2_pool_mem(cnghttp2_pool *pool) {
  nghttp2_mem mem = {
      pool, cnghttp2_pool_malloc, cnghttp2_pool_free, cnghttp2_pool_calloc, cnghttp2_pool_realloc};
  return mem;
}

static inline void cnghttp2_pool_drain(cnghttp2_pool *pool) {
  for (int class_ = 0; class_ < CNGHTTP2_CLASSES; class_++) {
    while (pool->free[class_]) {
      cnghttp2_block *block = pool->free[class_];
      pool->free[class_] = block->next;
      free(block);
    }
  }
  pool->kept = 0;
}
