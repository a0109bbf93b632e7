// AArch64: a row's 16 lanes are four registers, 4 rows are in flight; the reduction of a row is three vector additions
// and one scalar one.

#include "kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#pragma STDC FP_CONTRACT OFF

#define INLINE static inline __attribute__((always_inline))

typedef struct {
  float32x4_t part[4];
} lanes16;

INLINE lanes16 lanes_zero(void) {
  float32x4_t zero = vdupq_n_f32(0);
  return (lanes16){{zero, zero, zero, zero}};
}

INLINE void lanes_fma(lanes16 *acc, const float *row, const float32x4_t query[4]) {
#pragma clang loop unroll(full)
  for (int p = 0; p < 4; p++) acc->part[p] = vfmaq_f32(acc->part[p], vld1q_f32(row + 4 * p), query[p]);
}

INLINE float lanes_reduce(lanes16 acc) {
  float32x4_t s8low = vaddq_f32(acc.part[0], acc.part[2]);
  float32x4_t s8high = vaddq_f32(acc.part[1], acc.part[3]);
  float32x4_t s4 = vaddq_f32(s8low, s8high);
  float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return (vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1)) + 0.0f;
}

INLINE void dot4(const float *const row[4], size_t stride, const float *query, float *scores, size_t ahead) {
  lanes16 acc[4] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
  for (size_t j = 0; j < stride; j += CSCORING_LANES) {
    const float32x4_t q[4] = {vld1q_f32(query + j), vld1q_f32(query + j + 4), vld1q_f32(query + j + 8),
                              vld1q_f32(query + j + 12)};
#pragma clang loop unroll(full)
    for (int r = 0; r < 4; r++) {
      if (ahead) __builtin_prefetch(row[r] + j + ahead);
      lanes_fma(&acc[r], row[r] + j, q);
    }
  }
  for (int r = 0; r < 4; r++) scores[r] = lanes_reduce(acc[r]);
}

INLINE float dot1(const float *row, size_t stride, const float *query) {
  lanes16 acc = lanes_zero();
  for (size_t j = 0; j < stride; j += CSCORING_LANES) {
    const float32x4_t q[4] = {vld1q_f32(query + j), vld1q_f32(query + j + 4), vld1q_f32(query + j + 8),
                              vld1q_f32(query + j + 12)};
    lanes_fma(&acc, row + j, q);
  }
  return lanes_reduce(acc);
}

static void dot_rows(const float *rows, size_t stride, size_t count, const float *query, float *scores) {
  size_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const float *b = rows + r * stride;
    const float *const row[4] = {b, b + stride, b + 2 * stride, b + 3 * stride};
    dot4(row, stride, query, scores + r, CSCORING_PREFETCH);
  }
  for (; r < count; r++) scores[r] = dot1(rows + r * stride, stride, query);
}

static void dot_gather(const float *rows, size_t stride, const uint32_t *numbers, size_t count, const float *query,
                       float *scores) {
  size_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const float *row[4];
    for (int i = 0; i < 4; i++) row[i] = rows + numbers[r + i] * stride;
    dot4(row, stride, query, scores + r, 0);
  }
  for (; r < count; r++) scores[r] = dot1(rows + numbers[r] * stride, stride, query);
}

const cscoring_kernels cscoring_neon_kernels = {CSCORING_ISA_NEON, dot_rows, dot_gather, &cscoring_scalar_bytes,
                                                &cscoring_neon_layers};

#else
typedef int cscoring_no_neon;
#endif
