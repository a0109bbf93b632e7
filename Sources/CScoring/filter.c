#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CLONES __attribute__((target_clones("arch=haswell", "default")))
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
static void range_bits(const float *values, size_t count, float low, float high, uint64_t *words) {
  for (size_t start = 0; start < count; start += 64) {
    const size_t size = count - start < 64 ? count - start : 64;
    uint8_t flags[64] = {0};
    for (size_t i = 0; i < size; i++) flags[i] = (values[start + i] >= low) & (values[start + i] <= high);
    words[start / 64] = packed(flags);
  }
}

CLONES
static void in_bits(const float *values, size_t count, const float *wanted, size_t wanted_count, uint64_t *words) {
  for (size_t start = 0; start < count; start += 64) {
    const size_t size = count - start < 64 ? count - start : 64;
    uint8_t flags[64] = {0};
    for (size_t w = 0; w < wanted_count; w++)
      for (size_t i = 0; i < size; i++) flags[i] |= values[start + i] == wanted[w];
    words[start / 64] = packed(flags);
  }
}

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f")))

// A comparison of 16 floats is 16 bits at once.
AVX512 static inline __m512 some(const float *values, size_t count) {
  return count >= 16 ? _mm512_loadu_ps(values) : _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), values);
}
AVX512 static inline __mmask16 there(size_t count) { return count >= 16 ? 0xFFFF : (__mmask16)((1u << count) - 1); }

AVX512 static void range_bits_avx512(const float *values, size_t count, float low, float high, uint64_t *words) {
  const __m512 least = _mm512_set1_ps(low), most = _mm512_set1_ps(high);
  for (size_t start = 0; start < count; start += 64) {
    uint64_t word = 0;
    for (size_t i = start; i < start + 64 && i < count; i += 16) {
      const __m512 x = some(values + i, count - i);
      const __mmask16 above = _mm512_mask_cmp_ps_mask(there(count - i), x, least, _CMP_GE_OQ);
      word |= (uint64_t)_mm512_mask_cmp_ps_mask(above, x, most, _CMP_LE_OQ) << (i - start);
    }
    words[start / 64] = word;
  }
}

AVX512 static void in_bits_avx512(const float *values, size_t count, const float *wanted, size_t wanted_count,
                                  uint64_t *words) {
  for (size_t start = 0; start < count; start += 64) {
    uint64_t word = 0;
    for (size_t i = start; i < start + 64 && i < count; i += 16) {
      const __m512 x = some(values + i, count - i);
      __mmask16 found = 0;
      for (size_t w = 0; w < wanted_count; w++) found |= _mm512_cmp_ps_mask(x, _mm512_set1_ps(wanted[w]), _CMP_EQ_OQ);
      word |= (uint64_t)(found & there(count - i)) << (i - start);
    }
    words[start / 64] = word;
  }
}
#endif

void cscoring_range_bits(const float *values, size_t count, float low, float high, uint64_t *words) {
#if defined(__x86_64__)
  if (cscoring_active()->isa == CSCORING_ISA_AVX512) return range_bits_avx512(values, count, low, high, words);
#endif
  range_bits(values, count, low, high, words);
}

void cscoring_in_bits(const float *values, size_t count, const float *wanted, size_t wanted_count, uint64_t *words) {
#if defined(__x86_64__)
  if (cscoring_active()->isa == CSCORING_ISA_AVX512) return in_bits_avx512(values, count, wanted, wanted_count, words);
#endif
  in_bits(values, count, wanted, wanted_count, words);
}
