#pragma once

// What the kernel files share. Each defines one `cscoring_kernels`; `dispatch.c` picks among them.

#include "CScoring.h"

#define CSCORING_LANES 16

// A row's floats ahead of the one being read are asked for this early, in floats: far enough to hide DRAM latency at
// one core's bandwidth, near enough not to be evicted from L1 before use.
#define CSCORING_PREFETCH 2048

extern const cscoring_bytes cscoring_scalar_bytes;
extern const cscoring_layers cscoring_scalar_layers;
extern const cscoring_kernels cscoring_scalar_kernels;
#if defined(__x86_64__)
extern const cscoring_bytes cscoring_avx2_bytes;
extern const cscoring_bytes cscoring_avx512_bytes;
extern const cscoring_layers cscoring_avx2_layers;
extern const cscoring_layers cscoring_avx512_layers;
extern const cscoring_kernels cscoring_avx2_kernels;
extern const cscoring_kernels cscoring_avx512_kernels;
/// For machines with AVX-512F and without VNNI.
extern const cscoring_kernels cscoring_avx512f_kernels;
#elif defined(__aarch64__)
extern const cscoring_layers cscoring_neon_layers;
extern const cscoring_kernels cscoring_neon_kernels;
#endif
