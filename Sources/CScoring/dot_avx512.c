// AVX-512F: a row's 16 lanes are one register, 8 rows are in flight, and their reduction trees run together:
//
//   8 × [acc 0…15]  →  4 × [s8 row | s8 row]  →  2 × [s4 | s4 | s4 | s4]  →  1 × [s2 s2 | …]  →  8 scores
//
// Each arrow is one addition of two shuffles, so a lane meets exactly the partner that the scalar tree gives it.

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma STDC FP_CONTRACT OFF

#define AVX512 __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline)) AVX512

INLINE __m512 halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}

INLINE __m512 quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

INLINE __m256 reduce8(const __m512 acc[8]) {
  __m512 c0 = quarters(halves(acc[0], acc[1]), halves(acc[2], acc[3]));
  __m512 c1 = quarters(halves(acc[4], acc[5]), halves(acc[6], acc[7]));
  __m512 s2 = _mm512_add_ps(_mm512_shuffle_ps(c0, c1, 0x44), _mm512_shuffle_ps(c0, c1, 0xEE));
  __m512 s1 = _mm512_add_ps(s2, _mm512_permute_ps(s2, 0xB1));
  __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14);
  __m512 scores = _mm512_permutexvar_ps(order, s1);
  return _mm512_castps512_ps256(_mm512_add_ps(scores, _mm512_setzero_ps()));
}

INLINE float reduce1(__m512 acc) {
  __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(acc), 1));
  __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(acc), high);
  __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  __m128 s1 = _mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1));
  return _mm_cvtss_f32(_mm_add_ss(s1, _mm_setzero_ps()));
}

INLINE void dot8(const float *const row[8], size_t stride, const float *query, float *scores, size_t ahead) {
  __m512 acc[8];
#pragma clang loop unroll(full)
  for (int r = 0; r < 8; r++) acc[r] = _mm512_setzero_ps();
  for (size_t j = 0; j < stride; j += CSCORING_LANES) {
    __m512 q = _mm512_loadu_ps(query + j);
#pragma clang loop unroll(full)
    for (int r = 0; r < 8; r++) {
      if (ahead) _mm_prefetch((const char *)(row[r] + j + ahead), _MM_HINT_T0);
      acc[r] = _mm512_fmadd_ps(_mm512_loadu_ps(row[r] + j), q, acc[r]);
    }
  }
  _mm256_storeu_ps(scores, reduce8(acc));
}

INLINE float dot1(const float *row, size_t stride, const float *query) {
  __m512 acc = _mm512_setzero_ps();
  for (size_t j = 0; j < stride; j += CSCORING_LANES)
    acc = _mm512_fmadd_ps(_mm512_loadu_ps(row + j), _mm512_loadu_ps(query + j), acc);
  return reduce1(acc);
}

AVX512 static void dot_rows(const float *rows, size_t stride, size_t count, const float *query, float *scores) {
  size_t r = 0;
  for (; r + 8 <= count; r += 8) {
    const float *b = rows + r * stride;
    const float *const row[8] = {b,
                                 b + stride,
                                 b + 2 * stride,
                                 b + 3 * stride,
                                 b + 4 * stride,
                                 b + 5 * stride,
                                 b + 6 * stride,
                                 b + 7 * stride};
    dot8(row, stride, query, scores + r, CSCORING_PREFETCH);
  }
  for (; r < count; r++) scores[r] = dot1(rows + r * stride, stride, query);
}

AVX512 static void dot_gather(const float *rows, size_t stride, const uint32_t *numbers, size_t count,
                              const float *query, float *scores) {
  size_t r = 0;
  for (; r + 8 <= count; r += 8) {
    const float *row[8];
    for (int i = 0; i < 8; i++) row[i] = rows + numbers[r + i] * stride;
    dot8(row, stride, query, scores + r, 0);
  }
  for (; r < count; r++) scores[r] = dot1(rows + numbers[r] * stride, stride, query);
}

const cscoring_kernels cscoring_avx512_kernels = {CSCORING_ISA_AVX512, dot_rows, dot_gather, &cscoring_avx512_bytes,
                                                  &cscoring_avx512_layers};
const cscoring_kernels cscoring_avx512f_kernels = {CSCORING_ISA_AVX512, dot_rows, dot_gather, &cscoring_avx2_bytes,
                                                   &cscoring_avx512_layers};

#else
typedef int cscoring_no_avx512;
#endif
