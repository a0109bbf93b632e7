#include "trees.h"

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=haswell", "default")))
#else
#define CLONES
#endif

#define ROWS CSCORING_TREE_ROWS

typedef uint8_t bytes64 __attribute__((vector_size(ROWS), aligned(ROWS)));

CLONES
void cscoring_ranks(const float *values, size_t count, const float *thresholds, uint32_t levels, uint8_t missing,
                    uint8_t *ranks) {
  for (size_t start = 0; start < count; start += ROWS) {
    const size_t size = count - start < ROWS ? count - start : ROWS;
    uint32_t place[ROWS] = {0};
    for (uint32_t level = levels; level > 0; level--) {
      const uint32_t half = 1u << (level - 1);
      for (size_t i = 0; i < size; i++) place[i] += thresholds[place[i] + half - 1] < values[start + i] ? half : 0;
    }
    for (size_t i = 0; i < size; i++)
      ranks[start + i] = values[start + i] != values[start + i] ? missing : (uint8_t)place[i];
  }
}

// Not a function: it would pass a vector wider than what the baseline has registers for.
#define ALL(value) ((bytes64){0} + (uint8_t)(value))

CLONES
void cscoring_bit_trees(const cscoring_bit_tree *trees, size_t count, const cscoring_condition *conditions,
                        const double *values, const uint8_t *ranks, int single, double *sums) {
  const bytes64 *const features = (const bytes64 *)ranks;
  for (size_t t = 0; t < count; t++) {
    const cscoring_bit_tree *tree = trees + t;
    const int planes = (tree->leaves + 7) / 8;
    bytes64 bits[8];
    for (int p = 0; p < planes; p++) bits[p] = ALL(0xFF);
    const cscoring_condition *c = conditions + tree->conditions;
    for (int i = 0; i < tree->one; i++, c++) {
      const bytes64 holds = (bytes64)(features[c->feature] > ALL(c->rank));
      bits[c->plane] &= ~holds | ALL(c->keep);
    }
    for (int i = 0; i < tree->two; i++, c++) {
      const bytes64 holds = (bytes64)(features[c->feature] > ALL(c->rank));
      bits[c->plane] &= ~holds | ALL(c->keep);
      bits[c->plane + 1] &= ~holds | ALL(c->keep_last);
    }
    for (int i = 0; i < tree->more; i++, c++) {
      const bytes64 holds = (bytes64)(features[c->feature] > ALL(c->rank));
      const int last = c->plane + c->planes - 1;
      bits[c->plane] &= ~holds | ALL(c->keep);
      for (int p = c->plane + 1; p < last; p++) bits[p] &= ~holds;
      bits[last] &= ~holds | ALL(c->keep_last);
    }
    // The first plane with a bit left, and its lowest bit.
    bytes64 byte = bits[planes - 1], base = ALL(8 * (planes - 1));
    for (int p = planes - 2; p >= 0; p--) {
      const bytes64 some = (bytes64)(bits[p] != ALL(0));
      byte = (some & bits[p]) | (~some & byte);
      base = (some & ALL(8 * p)) | (~some & base);
    }
    const bytes64 lowest = byte & -byte;
    const bytes64 ones = (bytes64)((lowest & ALL(0xAA)) != ALL(0)) & ALL(1);
    const bytes64 twos = (bytes64)((lowest & ALL(0xCC)) != ALL(0)) & ALL(2);
    const bytes64 fours = (bytes64)((lowest & ALL(0xF0)) != ALL(0)) & ALL(4);
    const bytes64 leaf = base + (ones | twos | fours);
    const double *value = values + tree->values;
    uint8_t leaves[ROWS] __attribute__((aligned(ROWS)));
    *(bytes64 *)leaves = leaf;
    if (single)
      for (int r = 0; r < ROWS; r++) sums[r] = (float)(sums[r] + value[leaves[r]]);
    else
      for (int r = 0; r < ROWS; r++) sums[r] += value[leaves[r]];
  }
}

// Eight trees at a time: each step of one waits for memory, and the others do not wait for it.
double cscoring_walk_trees(const cscoring_walk_tree *trees, size_t count, const cscoring_node *nodes,
                           const double *values, const uint8_t *ranks, size_t stride, int single, double sum) {
  enum { WIDE = 8 };
  size_t t = 0;
  for (; t + WIDE <= count; t += WIDE) {
    const cscoring_node *base[WIDE];
    int place[WIDE];
    for (int i = 0; i < WIDE; i++) {
      base[i] = nodes + trees[t + i].nodes;
      place[i] = trees[t + i].node_count ? 0 : ~0;
    }
    int open;
    do {
      open = -1;
      for (int i = 0; i < WIDE; i++) {
        const cscoring_node *node = base[i] + (place[i] < 0 ? 0 : place[i]);
        const int next = node->kids[ranks[node->feature * stride] > node->rank];
        place[i] = place[i] < 0 ? place[i] : next;
        open &= place[i];
      }
    } while (open >= 0);
    for (int i = 0; i < WIDE; i++) {
      sum += values[trees[t + i].values + (uint32_t)~place[i]];
      if (single) sum = (float)sum;
    }
  }
  for (; t < count; t++) {
    int place = trees[t].node_count ? 0 : ~0;
    while (place >= 0) {
      const cscoring_node *node = nodes + trees[t].nodes + place;
      place = node->kids[ranks[node->feature * stride] > node->rank];
    }
    sum += values[trees[t].values + (uint32_t)~place];
    if (single) sum = (float)sum;
  }
  return sum;
}
