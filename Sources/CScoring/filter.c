#include "filter.h"

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=haswell", "default")))
#else
#define CLONES
#endif

// Bytes of 0 and 1 become bits: a multiplication gathers eight of them in the top byte.
static inline uint64_t packed(const uint8_t *flags) {
  uint64_t word = 0;
  for (int i = 0; i < 8; i++) {
    uint64_t eight;
    __builtin_memcpy(&eight, flags + 8 * i, 8);
    word |= (eight * 0x0102040810204080ull >> 56) << (8 * i);
  }
  return word;
}

CLONES
void cscoring_range_bits(const float *values, size_t count, float low, float high, uint64_t *words) {
  for (size_t start = 0; start < count; start += 64) {
    const size_t size = count - start < 64 ? count - start : 64;
    uint8_t flags[64] = {0};
    for (size_t i = 0; i < size; i++) flags[i] = (values[start + i] >= low) & (values[start + i] <= high);
    words[start / 64] = packed(flags);
  }
}

CLONES
void cscoring_in_bits(const float *values, size_t count, const float *wanted, size_t wanted_count, uint64_t *words) {
  for (size_t start = 0; start < count; start += 64) {
    const size_t size = count - start < 64 ? count - start : 64;
    uint8_t flags[64] = {0};
    for (size_t w = 0; w < wanted_count; w++)
      for (size_t i = 0; i < size; i++) flags[i] |= values[start + i] == wanted[w];
    words[start / 64] = packed(flags);
  }
}
