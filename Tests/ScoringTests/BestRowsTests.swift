import RankingCore
import Scoring
import Testing

@Suite struct BestRowsTests {
  @Test func keysOrderAsScoresThenOrdinals() {
    let scores: [Float] = [
      .greatestFiniteMagnitude, 1.5, 1, .leastNormalMagnitude, .leastNonzeroMagnitude, 0, -.leastNonzeroMagnitude, -1,
      -1.5, -.greatestFiniteMagnitude,
    ]
    let keys = scores.flatMap { score in [0, 1, UInt32.max].map { RowKey(score: score, rank: $0) } }
    for index in 1..<keys.count { #expect(keys[index - 1].bits > keys[index].bits) }
    for (index, key) in keys.enumerated() {
      #expect(key.score.bitPattern == scores[index / 3].bitPattern)
      #expect(key.rank == [0, 1, UInt32.max][index % 3])
      #expect(key.bits > 0)
    }
  }

  /// With a cap: the list of all keys, walked from the best, without those whose group is full.
  @Test func keepsTheCappedListOfAnyStream() {
    var best = BestRows()
    for seed in 0..<200 as Range<UInt64> {
      var generator = SeededGenerator(seed: seed)
      let count = generator.below(2000) + 1
      let (limit, kinds, most) = (generator.below(100) + 1, generator.below(60) + 1, generator.below(4) + 1)
      let groups = (0..<count).map { _ in generator.below(9) == 0 ? Float.nan : Float(generator.below(kinds)) }
      let keys = (0..<count).map { RowKey(score: Float(generator.below(300)), rank: UInt32($0)).bits }
      var taken: [Float: Int] = [:]
      let expected = keys.sorted(by: >).filter { key in
        let group = groups[Int(RowKey(bits: key).rank)]
        if group.isNaN { return true }
        taken[group, default: 0] += 1
        return taken[group]! <= most
      }.prefix(limit)
      // It keeps the address.
      let kept: [UInt64] = groups.withUnsafeBufferPointer { groups in
        best.begin(limit: limit, of: count, cap: GroupCap(column: 0, max: most), groups: groups.baseAddress)
        for (place, key) in keys.enumerated() {
          best.offer(RowKey(bits: key))
          if place % 64 == 0 { best.tighten() }
        }
        return Array(best.sorted())
      }
      #expect(kept == Array(expected), "seed \(seed)")
    }
    // And the next stream is not capped.
    best.begin(limit: 3, of: 5)
    for rank in 0..<5 as Range<UInt32> { best.offer(RowKey(score: 1, rank: rank)) }
    #expect(best.sorted().count == 3)
  }

  @Test func keepsTheBestOfAnyStream() {
    var best = BestRows()
    for seed in 0..<200 as Range<UInt64> {
      var generator = SeededGenerator(seed: seed)
      let count = generator.below(3000) + 1
      let limit = generator.below(400) + 1
      let kinds = generator.below(50) + 1
      var keys = (0..<count).map { RowKey(score: Float(generator.below(kinds)), rank: UInt32($0)).bits }
      if seed % 4 == 1 { keys.sort() }
      if seed % 4 == 2 { keys.sort(by: >) }
      best.begin(limit: limit, of: count)
      for key in keys {
        if RowKey(bits: key).score >= best.threshold { best.offer(RowKey(bits: key)) }
      }
      let expected = Array(keys.sorted(by: >).prefix(limit))
      #expect(best.chosen().sorted(by: >) == expected, "seed \(seed)")
      #expect(Array(best.sorted()) == expected, "seed \(seed)")
    }
  }

  @Test func nothingOfferedNothingChosen() {
    var best = BestRows()
    best.begin(limit: 10, of: 0)
    #expect(best.chosen().isEmpty)
    #expect(best.threshold == -.infinity)
  }

  /// An order in which the median of first, middle and last is always the second greatest left.
  @Test func unluckyPivotsEndInTime() {
    let count = 4096
    var keys = [UInt64](repeating: 0, count: count)
    var open = Array(0..<count)
    var value = UInt64(count)
    while open.count > 2 {
      keys[open[0]] = value
      keys[open[open.count / 2]] = value - 1
      open.remove(at: open.count / 2)
      open.removeFirst()
      value -= 2
    }
    for place in open {
      keys[place] = value
      value -= 1
    }
    let expected = keys.sorted(by: >)
    for limit in [1, 2, 100, 2048, 4095, 4096] {
      var tried = keys
      tried.withUnsafeMutableBufferPointer {
        BestRows.select($0.baseAddress.unsafelyUnwrapped, count: count, limit: limit)
      }
      #expect(tried[..<limit].sorted(by: >) == Array(expected[..<limit]))
      #expect(tried[limit - 1] == expected[limit - 1])
    }
  }

  @Test func exclusionsAreASet() {
    var set = ExclusionSet()
    for count in [0, 1, 3, 10_000, 2] {
      var generator = SeededGenerator(seed: UInt64(count))
      let ordinals = (0..<count).map { _ in UInt64(generator.below(20_000)) }
      set.begin(count: count)
      for ordinal in ordinals { set.insert(ordinal) }
      let expected = Set(ordinals)
      for ordinal in 0..<20_000 as Range<UInt64> where set.contains(ordinal) != expected.contains(ordinal) {
        Issue.record("\(ordinal) of \(count)")
      }
      #expect(set.isEmpty == ordinals.isEmpty)
    }
  }
}
