#pragma once

// Regression trees on ranks. A row's value of a feature is replaced by its rank among the feature's thresholds in the
// model, a byte, and a condition "value > threshold" becomes "rank > number of the threshold", for 64 rows at once.
//
// A tree of at most 64 leaves is not walked. It starts with a bit per leaf, all set, in planes of 8 leaves by 64 rows;
// every condition that holds for a row (it goes right) clears the leaves of the node's left side, in any order; the
// lowest bit that is left is the row's leaf.
//
//               x > 3 ?            holds: clear leaves 0 1              0 1 2 3
//              /      \            y > 7 holds: clear leaf 0     row a  1 1 1 1 → x holds → 0 0 1 1 → leaf 2
//          y > 7 ?   z > 1 ?       z > 1 holds: clear leaf 2     row b  1 1 1 1 → y, z hold → 0 1 0 1 → leaf 1
//          /   \      /   \.
//         0     1    2     3
//
// (Lucchese et al., "QuickScorer", SIGIR 2015; Ye et al., "RapidScorer", KDD 2018, for the planes.)

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CSCORING_TREE_ROWS 64

/// A condition and the planes it clears: `keep` is what is left of the first, `keep_last` of the last; those between
/// are cleared whole.
typedef struct cscoring_condition {
  uint16_t feature;
  uint8_t rank;
  uint8_t plane;
  uint8_t planes;
  uint8_t keep;
  uint8_t keep_last;
  uint8_t unused;
} cscoring_condition;

/// A tree's part of the conditions, those that touch one plane first, then those that touch two, then the others; and
/// of the leaves.
typedef struct cscoring_bit_tree {
  uint32_t conditions;
  uint16_t one, two, more;
  uint16_t leaves;
  uint32_t values;
} cscoring_bit_tree;

/// A node to walk: `kids` are nodes of the tree, or ~leaf.
typedef struct cscoring_node {
  uint16_t feature;
  uint8_t rank;
  uint8_t unused;
  int16_t kids[2];
} cscoring_node;

/// A tree to walk; without nodes it has leaf 0 only.
typedef struct cscoring_walk_tree {
  uint32_t nodes;
  uint32_t node_count;
  uint32_t values;
} cscoring_walk_tree;

/// How many of the thresholds (ascending, 2^levels − 1 of them, filled up with +∞) are less than each value; `missing`
/// for a NaN.
void cscoring_ranks(const float *_Nonnull values, size_t count, const float *_Nonnull thresholds, uint32_t levels,
                    uint8_t missing, uint8_t *_Nonnull ranks);

/// Adds each tree's leaf value to the sums of 64 rows, tree after tree; with `single`, every sum is rounded to float32.
/// ranks: features × 64, 64-byte aligned.
void cscoring_bit_trees(const cscoring_bit_tree *_Nonnull trees, size_t count,
                        const cscoring_condition *_Nonnull conditions, const double *_Nonnull values,
                        const uint8_t *_Nonnull ranks, int single, double *_Nonnull sums);

/// The same for one row, whose ranks lie `stride` apart; any number of leaves.
double cscoring_walk_trees(const cscoring_walk_tree *_Nonnull trees, size_t count,
                           const cscoring_node *_Nonnull nodes, const double *_Nonnull values,
                           const uint8_t *_Nonnull ranks, size_t stride, int single, double sum);

#ifdef __cplusplus
}
#endif
