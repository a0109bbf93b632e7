#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define TILE_ROWS 6
#define TILE_PANELS 1
#define LONE_PANELS 4
#include "mlp_lanes.h"
const cscoring_layers cscoring_avx2_layers = {dense, activate, layer_norm, multiply_adds};
#else
typedef int cscoring_no_avx2_layers;
#endif
