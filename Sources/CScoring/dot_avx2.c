// AVX2 + FMA: a row's 16 lanes are two registers, 4 rows are in flight, and their reduction trees run together:
//
//   4 × [acc 0…7 | acc 8…15]  →  4 × [s8]  →  2 × [s4 | s4]  →  1 × [s2 s2 | s2 s2]  →  4 scores

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma STDC FP_CONTRACT OFF

#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) AVX2

INLINE __m256 halves(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

INLINE __m128 reduce4(const __m256 low[4], const __m256 high[4]) {
  __m256 c0 = halves(_mm256_add_ps(low[0], high[0]), _mm256_add_ps(low[1], high[1]));
  __m256 c1 = halves(_mm256_add_ps(low[2], high[2]), _mm256_add_ps(low[3], high[3]));
  __m256 s2 = _mm256_add_ps(_mm256_shuffle_ps(c0, c1, 0x44), _mm256_shuffle_ps(c0, c1, 0xEE));
  __m256 s1 = _mm256_add_ps(s2, _mm256_permute_ps(s2, 0xB1));
  // s1 is [s0 s0 s2 s2 | s1 s1 s3 s3].
  __m128 scores = _mm_unpacklo_ps(_mm256_castps256_ps128(s1), _mm256_extractf128_ps(s1, 1));
  __m128 rest = _mm_unpackhi_ps(_mm256_castps256_ps128(s1), _mm256_extractf128_ps(s1, 1));
  return _mm_add_ps(_mm_movelh_ps(scores, rest), _mm_setzero_ps());
}

INLINE float reduce1(__m256 low, __m256 high) {
  __m256 s8 = _mm256_add_ps(low, high);
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  __m128 s1 = _mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1));
  return _mm_cvtss_f32(_mm_add_ss(s1, _mm_setzero_ps()));
}

INLINE void dot4(const float *const row[4], size_t stride, const float *query, float *scores, size_t ahead) {
  __m256 low[4], high[4];
#pragma clang loop unroll(full)
  for (int r = 0; r < 4; r++) low[r] = high[r] = _mm256_setzero_ps();
  for (size_t j = 0; j < stride; j += CSCORING_LANES) {
    __m256 q0 = _mm256_loadu_ps(query + j);
    __m256 q1 = _mm256_loadu_ps(query + j + 8);
#pragma clang loop unroll(full)
    for (int r = 0; r < 4; r++) {
      if (ahead) _mm_prefetch((const char *)(row[r] + j + ahead), _MM_HINT_T0);
      low[r] = _mm256_fmadd_ps(_mm256_loadu_ps(row[r] + j), q0, low[r]);
      high[r] = _mm256_fmadd_ps(_mm256_loadu_ps(row[r] + j + 8), q1, high[r]);
    }
  }
  _mm_storeu_ps(scores, reduce4(low, high));
}

INLINE float dot1(const float *row, size_t stride, const float *query) {
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
  for (size_t j = 0; j < stride; j += CSCORING_LANES) {
    low = _mm256_fmadd_ps(_mm256_loadu_ps(row + j), _mm256_loadu_ps(query + j), low);
    high = _mm256_fmadd_ps(_mm256_loadu_ps(row + j + 8), _mm256_loadu_ps(query + j + 8), high);
  }
  return reduce1(low, high);
}

AVX2 static void dot_rows(const float *rows, size_t stride, size_t count, const float *query, float *scores) {
  size_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const float *b = rows + r * stride;
    const float *const row[4] = {b, b + stride, b + 2 * stride, b + 3 * stride};
    dot4(row, stride, query, scores + r, CSCORING_PREFETCH);
  }
  for (; r < count; r++) scores[r] = dot1(rows + r * stride, stride, query);
}

AVX2 static void dot_gather(const float *rows, size_t stride, const uint32_t *numbers, size_t count, const float *query,
                            float *scores) {
  size_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const float *row[4];
    for (int i = 0; i < 4; i++) row[i] = rows + numbers[r + i] * stride;
    dot4(row, stride, query, scores + r, 0);
  }
  for (; r < count; r++) scores[r] = dot1(rows + numbers[r] * stride, stride, query);
}

const cscoring_kernels cscoring_avx2_kernels = {CSCORING_ISA_AVX2, dot_rows, dot_gather, &cscoring_avx2_bytes,
                                                &cscoring_avx2_layers};

#else
typedef int cscoring_no_avx2;
#endif
