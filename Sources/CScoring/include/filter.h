#pragma once

// Which rows of a column pass a comparison: a bit a row, 64 rows a word, the lowest bit the first. NaN passes none.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// low ≤ value ≤ high. Writes (count + 63) / 64 words; bits beyond `count` are 0.
void cscoring_range_bits(const float *_Nonnull values, size_t count, float low, float high, uint64_t *_Nonnull words);

/// value is one of `wanted`.
void cscoring_in_bits(const float *_Nonnull values, size_t count, const float *_Nonnull wanted, size_t wanted_count,
                      uint64_t *_Nonnull words);

#ifdef __cplusplus
}
#endif
