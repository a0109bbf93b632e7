// AVX-512 VNNI: `dpbusd` multiplies 64 unsigned by 64 signed bytes and adds fours into 16 sums of 32 bits, without
// saturation. A chunk of an interleaved group is one register, and its 16 sums are the group's 16 rows.

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))
#define INLINE static inline __attribute__((always_inline)) VNNI

/// Bytes of groups ahead of the one being read.
#define AHEAD 2048

// Of short rows so many pass that whether a group has one cannot be foreseen: a wrong guess costs more than the work.
INLINE size_t keep(uint32_t *picked, int32_t *products, size_t found, __m512i sums, __m512i limit, uint32_t number,
                   int isShort) {
  const __mmask16 mask = _mm512_cmpge_epi32_mask(sums, limit);
  if (!isShort && __builtin_expect(mask == 0, 1)) return found;
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32((int32_t)number), order);
  _mm512_storeu_si512(picked + found, _mm512_maskz_compress_epi32(mask, numbers));
  _mm512_storeu_si512(products + found, _mm512_maskz_compress_epi32(mask, sums));
  return found + (size_t)__builtin_popcount(mask);
}

// With a constant number of chunks the query stays in registers.
INLINE size_t scan_chunks(const uint8_t *groups, size_t chunks, size_t count, const int8_t *query, int32_t least,
                          uint32_t first, uint32_t *picked, int32_t *products) {
  const __m512i limit = _mm512_set1_epi32(least);
  size_t found = 0;
  for (size_t g = 0; g < count; g++) {
    __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
    const uint8_t *chunk = groups + g * chunks * 64;
    for (size_t c = 0; c < chunks; c++) {
      int32_t four;
      memcpy(&four, query + 4 * c, 4);
      const __m512i rows = _mm512_loadu_si512(chunk + 64 * c);
      _mm_prefetch((const char *)(chunk + 64 * c + AHEAD), _MM_HINT_T0);
      if (c % 2 == 0)
        even = _mm512_dpbusd_epi32(even, rows, _mm512_set1_epi32(four));
      else
        odd = _mm512_dpbusd_epi32(odd, rows, _mm512_set1_epi32(four));
    }
    found = keep(picked, products, found, _mm512_add_epi32(even, odd), limit, first + (uint32_t)(16 * g), chunks <= 8);
  }
  return found;
}

VNNI static size_t scan(const uint8_t *groups, size_t chunks, size_t count, const int8_t *query, int32_t least,
                        uint32_t first, uint32_t *picked, int32_t *products) {
  switch (chunks) {
  case 4: return scan_chunks(groups, 4, count, query, least, first, picked, products);
  case 8: return scan_chunks(groups, 8, count, query, least, first, picked, products);
  case 16: return scan_chunks(groups, 16, count, query, least, first, picked, products);
  default: return scan_chunks(groups, chunks, count, query, least, first, picked, products);
  }
}

// A tile of four queries and four groups: eight loads for sixteen products, which is what the multiplier can keep up
// with. What lies one call further is asked for, as far as the second-level cache: the first may hold this call's rows.
INLINE void scan_four(const uint8_t *groups, size_t chunks, size_t count, const int8_t *const *queries,
                      const int32_t *least, uint32_t first, uint32_t *const *picked, int32_t *const *products,
                      size_t *found) {
  size_t g = 0;
  for (; g + 4 <= count; g += 4) {
    __m512i acc[4][4];
    for (int q = 0; q < 4; q++)
      for (int i = 0; i < 4; i++) acc[q][i] = _mm512_setzero_si512();
    const uint8_t *tile = groups + g * chunks * 64;
    for (size_t c = 0; c < chunks; c++) {
      __m512i rows[4];
      for (size_t i = 0; i < 4; i++) {
        const uint8_t *chunk = tile + (i * chunks + c) * 64;
        rows[i] = _mm512_loadu_si512(chunk);
        _mm_prefetch((const char *)(chunk + count * chunks * 64), _MM_HINT_T1);
      }
      for (int q = 0; q < 4; q++) {
        int32_t four;
        memcpy(&four, queries[q] + 4 * c, 4);
        const __m512i query = _mm512_set1_epi32(four);
        for (int i = 0; i < 4; i++) acc[q][i] = _mm512_dpbusd_epi32(acc[q][i], rows[i], query);
      }
    }
    for (int q = 0; q < 4; q++) {
      const __m512i limit = _mm512_set1_epi32(least[q]);
      for (int i = 0; i < 4; i++)
        found[q] = keep(picked[q], products[q], found[q], acc[q][i], limit, first + (uint32_t)(16 * (g + i)), 0);
    }
  }
  for (int q = 0; q < 4 && g < count; q++)
    found[q] += scan_chunks(groups + g * chunks * 64, chunks, count - g, queries[q], least[q],
                            first + (uint32_t)(16 * g), picked[q] + found[q], products[q] + found[q]);
}

VNNI static void scan_many(const uint8_t *groups, size_t chunks, size_t count, const int8_t *const *queries,
                           const int32_t *least, uint32_t first, uint32_t *const *picked, int32_t *const *products,
                           size_t *found) {
  for (int q = 0; q < CSCORING_SCAN_QUERIES; q++) found[q] = 0;
  switch (chunks) {
  case 4: return scan_four(groups, 4, count, queries, least, first, picked, products, found);
  case 16: return scan_four(groups, 16, count, queries, least, first, picked, products, found);
  default: return scan_four(groups, chunks, count, queries, least, first, picked, products, found);
  }
}

VNNI static void dot_gather(const uint8_t *rows, size_t stride, const uint32_t *numbers, size_t count,
                            const int8_t *query, int32_t *products) {
  if (stride == 16) {
    const __m128i q = _mm_loadu_si128((const __m128i *)query);
    for (size_t i = 0; i < count; i++) {
      const __m128i row = _mm_loadu_si128((const __m128i *)(rows + numbers[i] * stride));
      __m128i s = _mm_dpbusd_epi32(_mm_setzero_si128(), row, q);
      s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
      s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
      products[i] = _mm_cvtsi128_si32(s);
    }
    return;
  }
  for (size_t i = 0; i < count; i++) {
    const uint8_t *row = rows + numbers[i] * stride;
    __m512i acc = _mm512_setzero_si512();
    for (size_t j = 0; j < stride; j += 64)
      acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(row + j), _mm512_loadu_si512(query + j));
    products[i] = _mm512_reduce_add_epi32(acc);
  }
}

const cscoring_bytes cscoring_avx512_bytes = {scan, scan_many, dot_gather};

#else
typedef int cscoring_no_avx512_bytes;
#endif
