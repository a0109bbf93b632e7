/// The name somebody most likely meant, or `nil` when none is near: at most a third of its letters wrong (one for very
/// short ones), counting insertions, deletions, replacements and swaps of neighbours, or the beginning of exactly one.
package func nearest(to word: String, in names: [String]) -> String? {
  let ranked = names.map { (name: $0, distance: editDistance(word, $0)) }.min { $0.distance < $1.distance }
  if let ranked, ranked.distance <= max(1, max(word.count, ranked.name.count) / 3) { return ranked.name }
  let longer = names.filter { word.count >= 2 && $0.hasPrefix(word) }
  return longer.count == 1 ? longer[0] : nil
}

/// The optimal string alignment distance.
package func editDistance(_ first: String, _ second: String) -> Int {
  let (a, b) = (Array(first.utf8), Array(second.utf8))
  if a.isEmpty || b.isEmpty { return a.count + b.count }
  var rows = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
  for i in 0...a.count { rows[i][0] = i }
  for j in 0...b.count { rows[0][j] = j }
  for i in 1...a.count {
    for j in 1...b.count {
      let replaced = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
      rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, replaced)
      if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
        rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
      }
    }
  }
  return rows[a.count][b.count]
}
