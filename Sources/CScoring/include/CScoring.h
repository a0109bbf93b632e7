#pragma once
#include "als.h"
#include "int8.h"
#include "filter.h"
#include "mlp.h"
#include "trees.h"

// Inner products of many rows with one query: the same bits on every machine.
//
//   rows    count × stride float32, stride a multiple of 16, the padding of every row zero
//   query   stride float32, padded with zeros likewise
//   scores  count float32 out
//
// Accumulator: float32, 16 lanes, fused multiply-add, in ONE order on every path:
//
//   acc[l] = fma(row[16j + l], query[16j + l], acc[l])       j ascending, l = 0…15, acc starts at +0
//   s8[l]  = acc[l] + acc[l + 8]                             l < 8
//   s4[l]  = s8[l]  + s8[l + 4]                              l < 4
//   s2[l]  = s4[l]  + s4[l + 2]                              l < 2
//   score  = (s2[0] + s2[1]) + 0                             so that −0 becomes +0
//
// Every operation rounds once, to nearest even; subnormals are kept. No contraction, no fast-math. The scalar path is
// the definition; the others are equal to it bit for bit, a NaN's payload apart.
//
// Bounds: |score − Σ row·query| ≤ γ ‖row‖‖query‖ + stride · 2⁻¹⁴⁹, γ = n u / (1 − n u), u = 2⁻²⁴, n = stride / 16 + 4.
// No intermediate overflows while ‖row‖ and ‖query‖ are at most 1e18 (then |score| ≤ 1.01e36).
//
// Alignment: any address that a float may have; 64-byte alignment of `rows` and `query` keeps each load in one cache
// line. Reads exactly count × stride floats of `rows` (prefetches reach further and never fault) and stride of `query`.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum __attribute__((enum_extensibility(closed))) cscoring_isa : uint32_t {
  CSCORING_ISA_SCALAR __attribute__((swift_name("scalar"))) = 0,
  CSCORING_ISA_AVX2 __attribute__((swift_name("avx2"))) = 1,   // AVX2 and FMA3
  CSCORING_ISA_AVX512 __attribute__((swift_name("avx512"))) = 2, // AVX-512F alone
  CSCORING_ISA_NEON __attribute__((swift_name("neon"))) = 3,   // AArch64
} cscoring_isa;

typedef struct cscoring_kernels {
  cscoring_isa isa;
  /// Scores `count` consecutive rows.
  void (*_Nonnull dot_rows)(const float *_Nonnull rows, size_t stride, size_t count, const float *_Nonnull query,
                            float *_Nonnull scores);
  /// Scores the rows with the given numbers, in their order; the caller has checked that each number exists.
  void (*_Nonnull dot_gather)(const float *_Nonnull rows, size_t stride, const uint32_t *_Nonnull numbers, size_t count,
                              const float *_Nonnull query, float *_Nonnull scores);
  /// The integer side.
  const cscoring_bytes *_Nonnull bytes;
  /// The layers of networks.
  const cscoring_layers *_Nonnull layers;
} cscoring_kernels;

/// The kernels of one path, or NULL where the machine (or the build) lacks it.
const cscoring_kernels *_Nullable cscoring_kernels_for(cscoring_isa isa);

/// The kernels in use: the widest path of the machine, or the one that the environment variable SHORTLIST_ISA
/// (scalar | avx2 | avx512 | neon) names; read once, at the first call. Safe from any thread.
const cscoring_kernels *_Nonnull cscoring_active(void);

/// Makes one path the one in use, for tests and measurements; false, and nothing changes, where it does not exist.
bool cscoring_force_isa(cscoring_isa isa);

/// Writes the indices of the scores that are at least `threshold` (never those of a NaN) to `picked`, ascending, and
/// returns how many. `picked` has room for `count`.
size_t cscoring_select(const float *_Nonnull scores, size_t count, float threshold, uint32_t *_Nonnull picked);

/// Reads `count` words and returns their exclusive or: what a plain pass over the same memory costs.
uint64_t cscoring_read(const uint64_t *_Nonnull words, size_t count);

#ifdef __cplusplus
}
#endif
