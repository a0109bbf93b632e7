import RankingCore

// What a tree's score is made of: the mean of the leaves that may still be reached changes from node to node, and each
// change is the doing of the feature that the node asks (Saabas, "Interpreting random forests", 2014).
//
//              price > 3 ?  mean 0.2                a row of price 5, age 40:   base   0.2
//             /            \                                                     price  0.8 − 0.2 =  0.6
//        leaf −0.4      age > 30 ?  mean 0.8                                     age    0.5 − 0.8 = −0.3
//                        /        \                                              raw    0.5
//                    leaf 1.1   leaf 0.5
//
// A mean is weighted by how often the leaves were reached in training, where the model's file says that (LightGBM's
// leaf_count, XGBoost's sum_hessian); else every leaf counts once. XGBoost's `approx_contribs` are these numbers.
//
// The order of additions is part of the definition. The base starts with the ensemble's own; then come the trees in
// their order, of each the root's mean to the base, then the changes from the root down to their features; at the end
// every sum is multiplied with the ensemble's factor. Where sums of scores are rounded to float32 after each tree, a
// leaf counts as what the sum has moved by: the rounding goes with the last question, and the whole adds up to the raw
// score.

extension TreeEnsemble.Tree {
  /// By node, the weighted mean of the leaves below it:
  ///
  ///     mean = (mean(left) · cover(left) + mean(right) · cover(right)) / (cover(left) + cover(right))
  ///
  /// Where no leaf below was ever reached, each counts once.
  func means() -> [Double] {
    var order: [Int] = []
    var open = nodes.isEmpty ? [] : [0]
    while let place = open.popLast() {
      order.append(place)
      open += [nodes[place].left, nodes[place].right].filter { $0 >= 0 }
    }
    var all = [(mean: Double, cover: Double, leaves: Double)](repeating: (0, 0, 0), count: nodes.count)
    func side(_ place: Int) -> (mean: Double, cover: Double, leaves: Double) {
      place >= 0 ? all[place] : (leaves[~place], covers.isEmpty ? 1 : covers[~place], 1)
    }
    // Children stand behind their parents.
    for place in order.reversed() {
      let (left, right) = (side(nodes[place].left), side(nodes[place].right))
      let (cover, count) = (left.cover + right.cover, left.leaves + right.leaves)
      let mean =
        cover > 0
        ? (left.mean * left.cover + right.mean * right.cover) / cover
        : (left.mean * left.leaves + right.mean * right.leaves) / count
      all[place] = (mean, cover, count)
    }
    return all.map(\.mean)
  }
}

extension TreeRanker {
  /// Fills the account of one row, walking its trees as they score it.
  ///
  /// - Parameter features: the row's value of a feature.
  package func explain(memory: inout TreeMemory, into account: inout ItemAccount, features: (_ feature: Int) -> Float) {
    let value = memory.values.room(for: Self.rows)
    let ranks = memory.ranks.room(for: max(1, inputs.count) * Self.rows)
    for feature in inputsOfFeature.indices where !inputsOfFeature[feature].isEmpty {
      value[0] = features(feature)
      read(feature, value, 1, into: ranks)
    }
    let places = account.places
    let base = ContributionLayout.base
    var sum = ensemble.base
    places[base] = sum
    for tree in walkTrees {
      let start = Int(tree.nodes)
      var place = tree.node_count > 0 ? 0 : ~0
      var mean = 0.0
      var feature = base
      if place >= 0 {
        mean = means[start]
        places[base] += mean
      }
      while place >= 0 {
        let node = nodes[start + place]
        feature = contributionPlaces[Int(node.feature)]
        place = Int(ranks[Int(node.feature) * Self.rows] > node.rank ? node.kids.1 : node.kids.0)
        if place >= 0 {
          places[feature] += means[start + place] - mean
          mean = means[start + place]
        }
      }
      let leaf = values[Int(tree.values) + ~place]
      let next = ensemble.isSingle ? Double(Float(sum + leaf)) : sum + leaf
      places[feature] += (ensemble.isSingle ? next - sum : leaf) - mean
      sum = next
    }
    if ensemble.factor != 1 {
      for place in 0..<account.layout.width { places[place] *= ensemble.factor }
    }
    account.raw = sum * ensemble.factor
    account.outputs.append(ensemble.finished(sum) ?? .nan)
  }
}
