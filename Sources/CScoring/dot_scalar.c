// The definition of a score, one operation a line: the oracle for every other path.

#include "kernels.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

static float dot(const float *row, const float *query, size_t stride) {
  float acc[CSCORING_LANES] = {0};
  for (size_t j = 0; j < stride; j += CSCORING_LANES)
    for (size_t l = 0; l < CSCORING_LANES; l++) acc[l] = fmaf(row[j + l], query[j + l], acc[l]);
  for (size_t width = CSCORING_LANES / 2; width > 0; width /= 2)
    for (size_t l = 0; l < width; l++) acc[l] = acc[l] + acc[l + width];
  return acc[0] + 0.0f;
}

static void dot_rows(const float *rows, size_t stride, size_t count, const float *query, float *scores) {
  for (size_t r = 0; r < count; r++) scores[r] = dot(rows + r * stride, query, stride);
}

static void dot_gather(const float *rows, size_t stride, const uint32_t *numbers, size_t count, const float *query,
                       float *scores) {
  for (size_t r = 0; r < count; r++) scores[r] = dot(rows + numbers[r] * stride, query, stride);
}

const cscoring_kernels cscoring_scalar_kernels = {CSCORING_ISA_SCALAR, dot_rows, dot_gather, &cscoring_scalar_bytes,
                                                  &cscoring_scalar_layers};
