// The layers by lanes, for whichever instruction set the including file names:
//
//   TARGET        of its functions
//   TILE_ROWS     rows × TILE_PANELS panels of 16 outputs that stay in registers while the inputs go by
//   LONE_PANELS   the same for one row
//
//            panel 0      panel 1           a step: one input's weights of each panel, and that input
//   row 0   [16 sums]    [16 sums]          of each row, broadcast
//   row 1   [16 sums]    [16 sums]

#include "mlp_values.h"

#pragma STDC FP_CONTRACT OFF

#define INLINE static inline __attribute__((always_inline)) TARGET
#define UNROLLED _Pragma("clang loop unroll(full)")

typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef int32_t masks __attribute__((vector_size(64), aligned(4)));
typedef float singles __attribute__((vector_size(32), aligned(4)));
typedef double doubles __attribute__((vector_size(64), aligned(8)));
typedef int64_t words __attribute__((vector_size(64), aligned(8)));

// Not functions: they would pass vectors wider than what the baseline has registers for.
#define RELU(x) ((lanes)((masks)(x) & ~((x) < (lanes){0})))
#define ALL(x) ((doubles){x, x, x, x, x, x, x, x})
#define ALL16(x) ((lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x})
#define CHOICE(mask, yes, no) ((doubles)(((mask) & (words)(yes)) | (~(mask) & (words)(no))))
#define FMA __builtin_elementwise_fma

INLINE void tile(const int tall, const int wide, const float *rows, size_t stride, size_t inputs, const float *weights,
                 const float *biases, bool relu, float *outputs, size_t width) {
  for (size_t start = 0; start < inputs; start += CSCORING_PART) {
    const size_t end = start + CSCORING_PART < inputs ? start + CSCORING_PART : inputs;
    lanes part[TILE_ROWS][LONE_PANELS > TILE_PANELS ? LONE_PANELS : TILE_PANELS];
    UNROLLED for (int r = 0; r < tall; r++) UNROLLED for (int p = 0; p < wide; p++) part[r][p] = (lanes){0};
    for (size_t k = start; k < end; k++) {
      lanes weight[LONE_PANELS > TILE_PANELS ? LONE_PANELS : TILE_PANELS];
      UNROLLED for (int p = 0; p < wide; p++) weight[p] =
          *(const lanes *)(weights + ((size_t)p * inputs + k) * CSCORING_PANEL);
      UNROLLED for (int r = 0; r < tall; r++) {
        const float x = rows[(size_t)r * stride + k];
        const lanes input = ALL16(x);
        UNROLLED for (int p = 0; p < wide; p++) part[r][p] = FMA(input, weight[p], part[r][p]);
      }
    }
    UNROLLED for (int r = 0; r < tall; r++) UNROLLED for (int p = 0; p < wide; p++) {
      lanes *const output = (lanes *)(outputs + (size_t)r * width + CSCORING_PANEL * p);
      const lanes sum = (start ? *output : *(const lanes *)(biases + CSCORING_PANEL * p)) + part[r][p];
      *output = relu && end == inputs ? RELU(sum) : sum;
    }
  }
}

INLINE void panels_of(const int wide, const float *rows, size_t stride, size_t count, size_t inputs,
                      const float *weights, const float *biases, bool relu, float *outputs, size_t width) {
  size_t r = 0;
  for (; r + TILE_ROWS <= count; r += TILE_ROWS)
    tile(TILE_ROWS, wide, rows + r * stride, stride, inputs, weights, biases, relu, outputs + r * width, width);
  for (; r < count; r++)
    tile(1, wide, rows + r * stride, stride, inputs, weights, biases, relu, outputs + r * width, width);
}

TARGET static void dense(const float *rows, size_t stride, size_t count, size_t inputs, const float *weights,
                         const float *biases, size_t panels, bool relu, float *outputs) {
  const size_t width = CSCORING_PANEL * panels;
  size_t p = 0;
#define AT(p)                                                                                                          \
  weights + (p) * CSCORING_PANEL * inputs, biases + (p) * CSCORING_PANEL, relu, outputs + (p) * CSCORING_PANEL
  if (count < TILE_ROWS)
    for (; p + LONE_PANELS <= panels; p += LONE_PANELS)
      for (size_t r = 0; r < count; r++)
        tile(1, LONE_PANELS, rows + r * stride, stride, inputs, AT(p) + r * width, width);
  for (; p + TILE_PANELS <= panels; p += TILE_PANELS)
    panels_of(TILE_PANELS, rows, stride, count, inputs, AT(p), width);
  for (; p < panels; p++) panels_of(1, rows, stride, count, inputs, AT(p), width);
#undef AT
}

#define EXPONENTIAL(result, argument)                                                                                  \
  do {                                                                                                                 \
    doubles x_ = (argument);                                                                                           \
    x_ = CHOICE(x_ < ALL(-EXP_MAX), ALL(-EXP_MAX), x_);                                                                \
    x_ = CHOICE(x_ > ALL(EXP_MAX), ALL(EXP_MAX), x_);                                                                  \
    const doubles shifted_ = FMA(x_, ALL(LOG2_E), ALL(SHIFT));                                                         \
    const doubles whole_ = shifted_ - ALL(SHIFT);                                                                      \
    const doubles rest_ = FMA(whole_, ALL(-LN2_LOW), FMA(whole_, ALL(-LN2_HIGH), x_));                                 \
    doubles sum_ = ALL(EXP_TERMS[0]);                                                                                  \
    UNROLLED for (int i = 1; i < EXP_COUNT; i++) sum_ = FMA(sum_, rest_, ALL(EXP_TERMS[i]));                           \
    const words power_ = ((words)shifted_ << 52) + 0x3FF0000000000000;                                                 \
    result = sum_ * (doubles)power_;                                                                                   \
  } while (0)

TARGET static void activate(cscoring_activation kind, float *values, size_t count) {
  if (kind == CSCORING_RELU) {
    for (size_t i = 0; i < count; i += 16) {
      const lanes x = *(const lanes *)(values + i);
      *(lanes *)(values + i) = RELU(x);
    }
    return;
  }
  for (size_t i = 0; i < count; i += 8) {
    const doubles x = __builtin_convertvector(*(const singles *)(values + i), doubles);
    doubles y;
    if (kind == CSCORING_GELU) {
      const doubles half = ALL(0.5) * x, z = x * ALL(ROOT_HALF), w = z * z;
      doubles above = ALL(ERF_ABOVE[0]), below = ALL(ERF_BELOW[0]);
      UNROLLED for (int j = 1; j < ERF_COUNT; j++) above = FMA(above, w, ALL(ERF_ABOVE[j]));
      UNROLLED for (int j = 1; j < ERF_COUNT; j++) below = FMA(below, w, ALL(ERF_BELOW[j]));
      const doubles one = CHOICE(z < ALL(0.0), ALL(-1.0), ALL(1.0));
      const words inside = (z < ALL(ERF_MAX)) & (z > ALL(-ERF_MAX));
      const doubles ratio = z * above / below;
      y = FMA(half, CHOICE(inside, ratio, one), half);
    } else {
      doubles argument = -x, power;
      if (kind == CSCORING_GELU_TANH) argument = argument * FMA(x * x, ALL(GELU_CUBE), ALL(GELU_LINE));
      EXPONENTIAL(power, argument);
      y = (kind == CSCORING_GELU_TANH ? x : ALL(1.0)) / (ALL(1.0) + power);
    }
    *(singles *)(values + i) = __builtin_convertvector(y, singles);
  }
}

INLINE double added(const double part[8]) {
  double s4[4];
  for (int l = 0; l < 4; l++) s4[l] = part[l] + part[l + 4];
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}

TARGET static void layer_norm(float *rows, size_t stride, size_t count, size_t width, const float *weights,
                              const float *biases, double epsilon) {
  const size_t full = width & ~(size_t)7;
  for (size_t r = 0; r < count; r++) {
    float *const row = rows + r * stride;
    double part[8] __attribute__((aligned(64)));
    doubles sum = {0};
    for (size_t i = 0; i < full; i += 8) sum += __builtin_convertvector(*(const singles *)(row + i), doubles);
    *(doubles *)part = sum;
    for (size_t i = full; i < width; i++) part[i - full] += row[i];
    const double mean = added(part) / (double)width;
    doubles square = {0};
    for (size_t i = 0; i < full; i += 8) {
      const doubles distance = __builtin_convertvector(*(const singles *)(row + i), doubles) - ALL(mean);
      square = FMA(distance, distance, square);
    }
    *(doubles *)part = square;
    for (size_t i = full; i < width; i++) part[i - full] = fma(row[i] - mean, row[i] - mean, part[i - full]);
    const double reciprocal = 1 / sqrt(added(part) / (double)width + epsilon);
    for (size_t i = 0; i < width; i += 8) {
      const doubles distance = __builtin_convertvector(*(const singles *)(row + i), doubles) - ALL(mean);
      const doubles weight = __builtin_convertvector(*(const singles *)(weights + i), doubles);
      const doubles bias = __builtin_convertvector(*(const singles *)(biases + i), doubles);
      *(singles *)(row + i) = __builtin_convertvector(FMA(distance * ALL(reciprocal), weight, bias), singles);
    }
  }
}

TARGET static double multiply_adds(size_t count) {
  enum { REGISTERS = TILE_ROWS * TILE_PANELS };
  lanes sums[REGISTERS];
  UNROLLED for (int i = 0; i < REGISTERS; i++) sums[i] = ALL16((float)i);
  for (size_t n = 0; n < count; n++)
    UNROLLED for (int i = 0; i < REGISTERS; i++) sums[i] = FMA(sums[i], ALL16(0.999f), ALL16(0.001f));
  lanes all = {0};
  UNROLLED for (int i = 0; i < REGISTERS; i++) all += sums[i];
  return all[0] > 1e30f ? 0 : (double)count * REGISTERS * 16;
}
