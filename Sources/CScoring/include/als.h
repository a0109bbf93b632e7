#pragma once
// Dense float32 kernels of implicit ALS. Sums are reassociated for speed, so bits may differ between instruction sets;
// on one machine they are the same for every thread count, because each call is one row or one fixed block.
#include <stddef.h>
#include <stdint.h>

// gram (d × d, row-major) += Σ y yᵀ over `rows` rows of d floats.
void cscoring_als_gramian(const float *y, size_t rows, size_t d, float *gram);

// Improves x (d floats) by `steps` of conjugate gradient on  (w0·gram + lambda·I + Σ a_i y_i y_iᵀ) x = Σ b_i y_i,
// i over `count` rows `index[i]` of y.  scratch: 3 × d floats.
void cscoring_als_solve(float *x, size_t d, const float *gram, float w0, float lambda, const float *y,
                        const uint32_t *index, const float *a, const float *b, size_t count, int steps,
                        float *scratch);

// scores[u * stride + 16·block + lane] = Σ_d users[u * d + k] · items[(block·d + k)·16 + lane], for 8 users at a time.
// items: blocks of 16 items, transposed. users: 8 × d floats.
void cscoring_scores8(const float *users, const float *items, size_t blocks, size_t d, float *scores, size_t stride);
