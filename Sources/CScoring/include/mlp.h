#pragma once

// Layers of a small network, many rows at a time: the same bits on every machine and in every batch.
//
//   rows      `count` rows of float32, `stride` apart, 64-byte aligned, stride a multiple of 16; what lies behind a
//             row's values up to the stride is there to be overwritten and reaches no result
//   weights   panels of 16 outputs, input after input; outputs that are none have weights and biases of zero
//
//     panel 0   | o0 … o15 of input 0 | o0 … o15 of input 1 | …        panel 1   | o16 … o31 of input 0 | …
//
// A lane is an output (or a value), never an input, so no path may sum otherwise than this:
//
//   dense       sum = bias;  for each 32 inputs in order:  part = +0;  part = fma(input, weight, part) for each of them
//               in order;  sum = sum + part
//   relu        x < 0 ? 0 : x
//   layer norm  in float64: mean = S(x) / n, d = x − mean, r = 1 / √(S(d·d, fused) / n + epsilon),
//               y = fma(d · r, weight, bias), rounded once; S adds value i to lane i mod 8 in order, then the lanes:
//               l + (l + 4), l + (l + 2), l + (l + 1)
//   others      `Activation` in RankingCore, whose Swift is their definition, step by step
//
// Parts of 32 keep the error of long sums down: some 6e-7 at most on a network of 50 → 256 → 128 → 64 → 1, where plain
// sums reach 1.1e-6. Every operation rounds once, to nearest even; subnormals are kept; a NaN's payload is anyone's.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CSCORING_PANEL 16
#define CSCORING_PART 32

typedef enum __attribute__((enum_extensibility(closed))) cscoring_activation : uint32_t {
  CSCORING_RELU __attribute__((swift_name("relu"))) = 0,
  CSCORING_GELU __attribute__((swift_name("gelu"))) = 1,
  CSCORING_GELU_TANH __attribute__((swift_name("geluTanh"))) = 2,
  CSCORING_SIGMOID __attribute__((swift_name("sigmoid"))) = 3,
} cscoring_activation;

typedef struct cscoring_layers {
  /// `outputs` gets count × (16 · panels); `relu`: followed by one. biases: 16 · panels.
  void (*_Nonnull dense)(const float *_Nonnull rows, size_t stride, size_t count, size_t inputs,
                         const float *_Nonnull weights, const float *_Nonnull biases, size_t panels, bool relu,
                         float *_Nonnull outputs);
  /// In place, value by value; `count` is a multiple of 16.
  void (*_Nonnull activate)(cscoring_activation kind, float *_Nonnull values, size_t count);
  /// In place, each row of `width` values by itself. weights, biases: as many as the stride.
  void (*_Nonnull layer_norm)(float *_Nonnull rows, size_t stride, size_t count, size_t width,
                              const float *_Nonnull weights, const float *_Nonnull biases, double epsilon);
  /// Nothing but fused multiply-adds, `count` rounds of them, on registers that do not wait for each other: what the
  /// machine can do at most. Returns how many values were computed.
  double (*_Nonnull multiply_adds)(size_t count);
} cscoring_layers;

/// Puts one input of `count` rows in its place, `stride` apart: NaN → missing, then (x − mean) / scale.
void cscoring_place(const float *_Nonnull values, size_t count, float missing, float mean, float scale,
                    float *_Nonnull rows, size_t stride);

#ifdef __cplusplus
}
#endif
