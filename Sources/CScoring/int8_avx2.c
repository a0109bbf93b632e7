// AVX2 has no product of bytes that cannot saturate (`maddubs` adds pairs in 16 bits), so bytes are widened first:
//
//   16 bytes of 4 rows → 16 × int16 → madd with the query's 4 numbers, repeated → 2 partial sums a row, in 32 bits

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,fma")))

AVX2 static size_t scan(const uint8_t *groups, size_t chunks, size_t count, const int8_t *query, int32_t least,
                        uint32_t first, uint32_t *picked, int32_t *products) {
  size_t found = 0;
  for (size_t g = 0; g < count; g++) {
    __m256i acc[4];
    for (int i = 0; i < 4; i++) acc[i] = _mm256_setzero_si256();
    const uint8_t *chunk = groups + g * chunks * 64;
    for (size_t c = 0; c < chunks; c++, chunk += 64) {
      int32_t four;
      memcpy(&four, query + 4 * c, 4);
      const __m256i q = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
      for (int i = 0; i < 4; i++) {
        const __m256i rows = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(chunk + 16 * i)));
        acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(rows, q));
      }
    }
    // Pairs of partial sums become a row's; lanes come out as rows 0 1 4 5 | 2 3 6 7.
    const __m256i limit = _mm256_set1_epi32(least);
    int32_t sums16[16];
    unsigned mask = 0;
    for (int i = 0; i < 2; i++) {
      const __m256i sums =
          _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[2 * i], acc[2 * i + 1]), _MM_SHUFFLE(3, 1, 2, 0));
      _mm256_storeu_si256((__m256i *)(sums16 + 8 * i), sums);
      const __m256i below = _mm256_cmpgt_epi32(limit, sums);
      mask |= (~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(below)) & 0xFF) << (8 * i);
    }
    for (; mask; mask &= mask - 1) {
      const int r = __builtin_ctz(mask);
      picked[found] = first + (uint32_t)(16 * g) + (uint32_t)r;
      products[found++] = sums16[r];
    }
  }
  return found;
}

AVX2 static void dot_gather(const uint8_t *rows, size_t stride, const uint32_t *numbers, size_t count,
                            const int8_t *query, int32_t *products) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t *row = rows + numbers[i] * stride;
    __m256i acc = _mm256_setzero_si256();
    for (size_t j = 0; j < stride; j += 16) {
      const __m256i values = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + j)));
      const __m256i q = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(query + j)));
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(values, q));
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    products[i] = _mm_cvtsi128_si32(s);
  }
}

// A block of rows stays in the first-level cache from one query to the next.
AVX2 static void scan_many(const uint8_t *groups, size_t chunks, size_t count, const int8_t *const *queries,
                           const int32_t *least, uint32_t first, uint32_t *const *picked, int32_t *const *products,
                           size_t *found) {
  for (size_t q = 0; q < CSCORING_SCAN_QUERIES; q++)
    found[q] = scan(groups, chunks, count, queries[q], least[q], first, picked[q], products[q]);
}

const cscoring_bytes cscoring_avx2_bytes = {scan, scan_many, dot_gather};

#else
typedef int cscoring_no_avx2_bytes;
#endif
