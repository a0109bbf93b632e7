// The definition of the integer products, and what a bundle's rows are rounded with when they are loaded.

#include "kernels.h"

#include <math.h>

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONES
#endif

static size_t scan(const uint8_t *groups, size_t chunks, size_t count, const int8_t *query, int32_t least,
                   uint32_t first, uint32_t *picked, int32_t *products) {
  size_t found = 0;
  for (size_t g = 0; g < count; g++) {
    int32_t acc[16] = {0};
    for (size_t c = 0; c < chunks; c++) {
      const uint8_t *chunk = groups + (g * chunks + c) * 64;
      for (size_t r = 0; r < 16; r++)
        for (size_t b = 0; b < 4; b++) acc[r] += (int32_t)chunk[4 * r + b] * query[4 * c + b];
    }
    for (size_t r = 0; r < 16; r++) {
      if (acc[r] < least) continue;
      picked[found] = first + (uint32_t)(16 * g + r);
      products[found++] = acc[r];
    }
  }
  return found;
}

static void dot_gather(const uint8_t *rows, size_t stride, const uint32_t *numbers, size_t count, const int8_t *query,
                       int32_t *products) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t *row = rows + numbers[i] * stride;
    int32_t sum = 0;
    for (size_t j = 0; j < stride; j++) sum += (int32_t)row[j] * query[j];
    products[i] = sum;
  }
}

static void scan_many(const uint8_t *groups, size_t chunks, size_t count, const int8_t *const *queries,
                      const int32_t *least, uint32_t first, uint32_t *const *picked, int32_t *const *products,
                      size_t *found) {
  for (size_t q = 0; q < CSCORING_SCAN_QUERIES; q++)
    found[q] = scan(groups, chunks, count, queries[q], least[q], first, picked[q], products[q]);
}

const cscoring_bytes cscoring_scalar_bytes = {scan, scan_many, dot_gather};

CLONES
void cscoring_quantize(const float *values, size_t count, double scale, uint8_t *bytes, double *error, double *norm) {
  double errors[8] = {0}, norms[8] = {0};
  const double inverse = scale > 0 ? 1 / scale : 0;
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t l = 0; l < 8; l++) {
      double rounded = rint(values[i + l] * inverse);
      rounded = rounded > 127 ? 127 : rounded < -127 ? -127 : rounded;
      bytes[i + l] = (uint8_t)((int32_t)rounded + 128);
      const double kept = rounded * scale, lost = values[i + l] - kept;
      errors[l] += lost * lost;
      norms[l] += kept * kept;
    }
  }
  for (; i < count; i++) {
    double rounded = rint(values[i] * inverse);
    rounded = rounded > 127 ? 127 : rounded < -127 ? -127 : rounded;
    bytes[i] = (uint8_t)((int32_t)rounded + 128);
    const double kept = rounded * scale, lost = values[i] - kept;
    errors[0] += lost * lost;
    norms[0] += kept * kept;
  }
  *error = *norm = 0;
  for (size_t l = 0; l < 8; l++) {
    *error += errors[l];
    *norm += norms[l];
  }
}

CLONES
float cscoring_greatest(const float *values, size_t count) {
  float most[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t l = 0; l < 16; l++) {
      const float value = fabsf(values[i + l]);
      most[l] = value > most[l] ? value : most[l];
    }
  for (; i < count; i++) most[0] = fabsf(values[i]) > most[0] ? fabsf(values[i]) : most[0];
  for (size_t l = 1; l < 16; l++) most[0] = most[l] > most[0] ? most[l] : most[0];
  return most[0];
}

CLONES
double cscoring_square(const float *values, size_t count) {
  double sums[8] = {0};
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (size_t l = 0; l < 8; l++) sums[l] += (double)values[i + l] * values[i + l];
  for (; i < count; i++) sums[0] += (double)values[i] * values[i];
  double sum = 0;
  for (size_t l = 0; l < 8; l++) sum += sums[l];
  return sum;
}
