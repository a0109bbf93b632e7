// From a block of scores to the few rows worth a closer look. Nearly every group of 16 holds none once the threshold
// has risen, so a group is asked as a whole first; plain C, because the scan is bound by the rows' memory, not by this.

#include "kernels.h"

size_t cscoring_select(const float *scores, size_t count, float threshold, uint32_t *picked) {
  size_t found = 0, i = 0;
  for (; i + 16 <= count; i += 16) {
    int any = 0;
    for (size_t l = 0; l < 16; l++) any |= scores[i + l] >= threshold;
    if (!any) continue;
    for (size_t l = 0; l < 16; l++) {
      picked[found] = (uint32_t)(i + l);
      found += scores[i + l] >= threshold;
    }
  }
  for (; i < count; i++) {
    picked[found] = (uint32_t)i;
    found += scores[i] >= threshold;
  }
  return found;
}

uint64_t cscoring_read(const uint64_t *words, size_t count) {
  uint64_t sums[8] = {0};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __builtin_prefetch(words + i + CSCORING_PREFETCH / 2);
    for (size_t l = 0; l < 8; l++) sums[l] ^= words[i + l];
  }
  for (; i < count; i++) sums[0] ^= words[i];
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}
