#include "als.h"

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONES
#endif
#pragma clang fp contract(fast) reassociate(on)

CLONES
void cscoring_als_gramian(const float *y, size_t rows, size_t d, float *gram) {
  for (size_t r = 0; r < rows; r++) {
    const float *row = y + r * d;
    for (size_t i = 0; i < d; i++) {
      float *restrict out = gram + i * d;
      const float value = row[i];
      for (size_t j = 0; j < d; j++) out[j] += value * row[j];
    }
  }
}

// out = (w0·gram + lambda·I + Σ a y yᵀ) v
CLONES
static void apply(const float *restrict v, size_t d, const float *gram, float w0, float lambda, const float *y,
                  const uint32_t *index, const float *a, size_t count, float *restrict out) {
  for (size_t j = 0; j < d; j++) out[j] = lambda * v[j];
  for (size_t i = 0; i < d; i++) {
    const float value = w0 * v[i];
    const float *restrict row = gram + i * d;
    for (size_t j = 0; j < d; j++) out[j] += value * row[j];
  }
  for (size_t n = 0; n < count; n++) {
    const float *restrict row = y + (size_t)index[n] * d;
    float dot = 0;
    for (size_t j = 0; j < d; j++) dot += row[j] * v[j];
    dot *= a[n];
    for (size_t j = 0; j < d; j++) out[j] += dot * row[j];
  }
}

CLONES
void cscoring_als_solve(float *x, size_t d, const float *gram, float w0, float lambda, const float *y,
                        const uint32_t *index, const float *a, const float *b, size_t count, int steps,
                        float *scratch) {
  float *restrict r = scratch, *restrict p = scratch + d, *restrict q = scratch + 2 * d;
  apply(x, d, gram, w0, lambda, y, index, a, count, q);
  for (size_t j = 0; j < d; j++) r[j] = -q[j];
  for (size_t n = 0; n < count; n++) {
    const float *restrict row = y + (size_t)index[n] * d;
    for (size_t j = 0; j < d; j++) r[j] += b[n] * row[j];
  }
  float rr = 0;
  for (size_t j = 0; j < d; j++) {
    p[j] = r[j];
    rr += r[j] * r[j];
  }
  for (int step = 0; step < steps && rr > 1e-20f; step++) {
    apply(p, d, gram, w0, lambda, y, index, a, count, q);
    float pq = 0;
    for (size_t j = 0; j < d; j++) pq += p[j] * q[j];
    if (!(pq > 0)) return;
    const float alpha = rr / pq;
    float next = 0;
    for (size_t j = 0; j < d; j++) {
      x[j] += alpha * p[j];
      r[j] -= alpha * q[j];
      next += r[j] * r[j];
    }
    const float beta = next / rr;
    for (size_t j = 0; j < d; j++) p[j] = r[j] + beta * p[j];
    rr = next;
  }
}

CLONES
void cscoring_scores8(const float *users, const float *items, size_t blocks, size_t d, float *scores, size_t stride) {
  for (size_t block = 0; block < blocks; block++) {
    float acc[8][16] = {{0}};
    const float *restrict item = items + block * d * 16;
    for (size_t k = 0; k < d; k++) {
#pragma clang loop unroll(full)
      for (size_t u = 0; u < 8; u++) {
        const float value = users[u * d + k];
#pragma clang loop vectorize(enable) unroll(full)
        for (size_t lane = 0; lane < 16; lane++) acc[u][lane] += value * item[k * 16 + lane];
      }
    }
    for (size_t u = 0; u < 8; u++)
      for (size_t lane = 0; lane < 16; lane++) scores[u * stride + block * 16 + lane] = acc[u][lane];
  }
}
