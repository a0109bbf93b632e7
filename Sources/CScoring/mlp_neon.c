#if defined(__aarch64__)
#define TARGET
#define TILE_ROWS 4
#define TILE_PANELS 1
#define LONE_PANELS 4
#include "mlp_lanes.h"
const cscoring_layers cscoring_neon_layers = {dense, activate, layer_norm, multiply_adds};
#else
typedef int cscoring_no_neon_layers;
#endif
