// Which path this machine takes, decided once.

#include "kernels.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const cscoring_kernels *cscoring_kernels_for(cscoring_isa isa) {
  switch (isa) {
  case CSCORING_ISA_SCALAR: return &cscoring_scalar_kernels;
#if defined(__x86_64__)
  case CSCORING_ISA_AVX2:
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &cscoring_avx2_kernels : NULL;
  case CSCORING_ISA_AVX512:
    if (!__builtin_cpu_supports("avx512f")) return NULL;
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") ? &cscoring_avx512_kernels
                                                                                       : &cscoring_avx512f_kernels;
#elif defined(__aarch64__)
  case CSCORING_ISA_NEON: return &cscoring_neon_kernels;
#endif
  default: return NULL;
  }
}

static const cscoring_kernels *choose(void) {
  static const struct {
    const char *name;
    cscoring_isa isa;
  } paths[] = {
      {"avx512", CSCORING_ISA_AVX512},
      {"avx2", CSCORING_ISA_AVX2},
      {"neon", CSCORING_ISA_NEON},
      {"scalar", CSCORING_ISA_SCALAR},
  };
  const char *wanted = getenv("SHORTLIST_ISA");
  const cscoring_kernels *best = NULL, *named = NULL;
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    const cscoring_kernels *kernels = cscoring_kernels_for(paths[i].isa);
    if (!best) best = kernels;
    if (wanted && !strcmp(wanted, paths[i].name)) named = kernels;
  }
  if (named) return named;
  if (wanted && *wanted)
    fprintf(stderr, "SHORTLIST_ISA=%.16s is not one of scalar, avx2, avx512, neon, or not on this machine: ignored\n",
            wanted);
  return best;
}

static _Atomic(const cscoring_kernels *) active;

const cscoring_kernels *cscoring_active(void) {
  const cscoring_kernels *kernels = atomic_load_explicit(&active, memory_order_relaxed);
  if (kernels) return kernels;
  const cscoring_kernels *none = NULL;
  kernels = choose();
  return atomic_compare_exchange_strong(&active, &none, kernels) ? kernels : none;
}

bool cscoring_force_isa(cscoring_isa isa) {
  const cscoring_kernels *kernels = cscoring_kernels_for(isa);
  if (kernels) atomic_store_explicit(&active, kernels, memory_order_relaxed);
  return kernels != NULL;
}
