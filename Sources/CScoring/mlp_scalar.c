// The layers by their definition, a value after the other.

#include "mlp_values.h"

#pragma STDC FP_CONTRACT OFF

static void dense(const float *rows, size_t stride, size_t count, size_t inputs, const float *weights,
                  const float *biases, size_t panels, bool relu, float *outputs) {
  const size_t width = CSCORING_PANEL * panels;
  for (size_t r = 0; r < count; r++)
    for (size_t o = 0; o < width; o++) {
      const float *row = rows + r * stride;
      const float *weight = weights + o / CSCORING_PANEL * CSCORING_PANEL * inputs + o % CSCORING_PANEL;
      float sum = biases[o];
      for (size_t start = 0; start < inputs; start += CSCORING_PART) {
        float part = 0;
        for (size_t k = start; k < inputs && k < start + CSCORING_PART; k++)
          part = fmaf(row[k], weight[k * CSCORING_PANEL], part);
        sum = sum + part;
      }
      outputs[r * width + o] = relu && sum < 0 ? 0 : sum;
    }
}

static double exponential(double x) {
  x = x < -EXP_MAX ? -EXP_MAX : x;
  x = x > EXP_MAX ? EXP_MAX : x;
  const double shifted = fma(x, LOG2_E, SHIFT);
  const double whole = shifted - SHIFT;
  const double rest = fma(whole, -LN2_LOW, fma(whole, -LN2_HIGH, x));
  double sum = EXP_TERMS[0];
  for (int i = 1; i < EXP_COUNT; i++) sum = fma(sum, rest, EXP_TERMS[i]);
  union {
    double value;
    uint64_t bits;
  } power = {shifted};
  power.bits = (power.bits << 52) + 0x3FF0000000000000;
  return sum * power.value;
}

static double error_function(double z) {
  if (!(fabs(z) < ERF_MAX)) return z < 0 ? -1 : 1;
  const double w = z * z;
  double above = ERF_ABOVE[0], below = ERF_BELOW[0];
  for (int i = 1; i < ERF_COUNT; i++) above = fma(above, w, ERF_ABOVE[i]);
  for (int i = 1; i < ERF_COUNT; i++) below = fma(below, w, ERF_BELOW[i]);
  return z * above / below;
}

static float activated(cscoring_activation kind, float value) {
  const double x = value;
  switch (kind) {
  case CSCORING_RELU: return value < 0 ? 0 : value;
  case CSCORING_GELU: {
    const double half = 0.5 * x;
    return (float)fma(half, error_function(x * ROOT_HALF), half);
  }
  case CSCORING_GELU_TANH: return (float)(x / (1 + exponential(-x * fma(x * x, GELU_CUBE, GELU_LINE))));
  case CSCORING_SIGMOID: return (float)(1 / (1 + exponential(-x)));
  }
  return value;
}

static void activate(cscoring_activation kind, float *values, size_t count) {
  for (size_t i = 0; i < count; i++) values[i] = activated(kind, values[i]);
}

static double added(const double lanes[8]) {
  double s4[4];
  for (int l = 0; l < 4; l++) s4[l] = lanes[l] + lanes[l + 4];
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}

static void layer_norm(float *rows, size_t stride, size_t count, size_t width, const float *weights,
                       const float *biases, double epsilon) {
  for (size_t r = 0; r < count; r++) {
    float *row = rows + r * stride;
    double sums[8] = {0}, squares[8] = {0};
    for (size_t i = 0; i < width; i++) sums[i % 8] += row[i];
    const double mean = added(sums) / (double)width;
    for (size_t i = 0; i < width; i++) squares[i % 8] = fma(row[i] - mean, row[i] - mean, squares[i % 8]);
    const double reciprocal = 1 / sqrt(added(squares) / (double)width + epsilon);
    for (size_t i = 0; i < width; i++) row[i] = (float)fma((row[i] - mean) * reciprocal, weights[i], biases[i]);
  }
}

static double multiply_adds(size_t count) {
  float sum = 1;
  for (size_t n = 0; n < count; n++) sum = fmaf(sum, 0.999f, 0.001f);
  return sum > 1e30f ? 0 : (double)count;
}

const cscoring_layers cscoring_scalar_layers = {dense, activate, layer_norm, multiply_adds};

void cscoring_place(const float *values, size_t count, float missing, float mean, float scale, float *rows,
                    size_t stride) {
  if (mean == 0 && scale == 1) {
    for (size_t i = 0; i < count; i++) rows[i * stride] = values[i] != values[i] ? missing : values[i];
  } else {
    for (size_t i = 0; i < count; i++)
      rows[i * stride] = ((values[i] != values[i] ? missing : values[i]) - mean) / scale;
  }
}
