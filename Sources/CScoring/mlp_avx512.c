#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f")))
#define TILE_ROWS 4
#define TILE_PANELS 4
#define LONE_PANELS 8
#include "mlp_lanes.h"
const cscoring_layers cscoring_avx512_layers = {dense, activate, layer_norm, multiply_adds};
#else
typedef int cscoring_no_avx512_layers;
#endif
