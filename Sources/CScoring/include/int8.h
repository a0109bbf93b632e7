#pragma once

// Integer inner products of rows of bytes with a query of bytes: exact, so every path gives the same numbers.
//
//   row byte    u8 = value + 128, value −127…127: the unsigned side of the machine's u8 × s8 products
//   query byte  s8, −127…127
//   product     Σ u8 · s8 = Σ value · s8 + 128 Σ s8        the caller takes 128 Σ s8 off, once per query
//
// In 32 bits; at most 255 · 127 · 4096 < 2³¹ for 4096 bytes a row.
//
// Interleaved rows, for scanning: groups of 16 rows, of each row four bytes at a time.
//
//   group   | r0 bytes 0–3 | r1 bytes 0–3 | … | r15 bytes 0–3 || r0 bytes 4–7 | … | r15 bytes 4–7 || …
//           |<------------------ a chunk: 64 bytes ----------->|
//
// Lying rows, for looking single ones up: `stride` bytes each, 16 or a multiple of 64, padded with 128 against zeros.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Rows found by a scan and the room they are written to: 16 more than can be found, as whole registers are stored.
#define CSCORING_PICK_SPARE 16
#define CSCORING_SCAN_QUERIES 4

typedef struct cscoring_bytes {
  /// Writes the numbers (`first` for the first row, ascending) and the products of the rows whose product is at least
  /// `least`; returns how many. groups: `count` groups of `chunks` chunks; query: 4 · chunks bytes, 4-byte aligned.
  size_t (*_Nonnull scan)(const uint8_t *_Nonnull groups, size_t chunks, size_t count, const int8_t *_Nonnull query,
                          int32_t least, uint32_t first, uint32_t *_Nonnull picked,
                          int32_t *_Nonnull products);
  /// `scan` for CSCORING_SCAN_QUERIES queries at once, each with a least product and room of its own, so that a group
  /// is read once for all of them.
  void (*_Nonnull scan_many)(const uint8_t *_Nonnull groups, size_t chunks, size_t count,
                             const int8_t *_Nonnull const *_Nonnull queries, const int32_t *_Nonnull least,
                             uint32_t first, uint32_t *_Nonnull const *_Nonnull picked,
                             int32_t *_Nonnull const *_Nonnull products, size_t *_Nonnull found);
  /// The products of the lying rows with the given numbers, in their order.
  void (*_Nonnull dot_gather)(const uint8_t *_Nonnull rows, size_t stride, const uint32_t *_Nonnull numbers,
                              size_t count, const int8_t *_Nonnull query, int32_t *_Nonnull products);
} cscoring_bytes;

/// Rounds `count` values to bytes: value ≈ scale · (byte − 128). `error` and `norm` get Σ (value − rounded)² and
/// Σ rounded², in float64 summed in one order. With scale 0 every byte is 128 and the error is the values' own.
void cscoring_quantize(const float *_Nonnull values, size_t count, double scale, uint8_t *_Nonnull bytes,
                       double *_Nonnull error, double *_Nonnull norm);

/// The greatest absolute value; 0 of none.
float cscoring_greatest(const float *_Nonnull values, size_t count);

/// Σ value², in float64.
double cscoring_square(const float *_Nonnull values, size_t count);

/// Asks for the cache lines of a row before it is read.
static inline void cscoring_prefetch(const void *_Nonnull address) { __builtin_prefetch(address); }

#ifdef __cplusplus
}
#endif
