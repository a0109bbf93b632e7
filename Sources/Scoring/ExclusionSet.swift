import RankingCore

// The items a shard must leave out, asked inside the scan for every row that would otherwise enter: one probe, whatever
// the number of exclusions and the order of the rows. Ordinals, not rows, because that is how they arrive: nothing is
// looked up for the thousands of a long history, most of which never come near the top.

package struct ExclusionSet: ~Copyable {
  private var buffer = ScratchBuffer<UInt64>()
  /// Ordinal + 1 by open addressing, 0 = free; at most half full.
  private var places: UnsafeMutablePointer<UInt64>
  private var shift: UInt64 = 63
  private var mask = 0
  package private(set) var isEmpty = true

  package init() { places = buffer.room(for: 1) }

  /// Forgets everything and makes room for `count` ordinals.
  package mutating func begin(count: Int) {
    isEmpty = true
    guard count > 0 else { return }
    var bits = 4
    while 1 << bits < 2 * count { bits += 1 }
    mask = 1 << bits - 1
    shift = UInt64(64 - bits)
    places = buffer.room(for: mask + 1)
    places.update(repeating: 0, count: mask + 1)
  }

  package mutating func insert(_ ordinal: UInt64) {
    let entry = ordinal &+ 1
    // No item has the greatest ordinal: ordinals are positions in a catalogue.
    guard entry != 0 else { return }
    var place = home(ordinal)
    while places[place] != 0 {
      if places[place] == entry { return }
      place = (place + 1) & mask
    }
    places[place] = entry
    isEmpty = false
  }

  @inline(__always)
  package func contains(_ ordinal: UInt64) -> Bool {
    if isEmpty { return false }
    let entry = ordinal &+ 1
    var place = home(ordinal)
    while places[place] != 0 {
      if places[place] == entry { return true }
      place = (place + 1) & mask
    }
    return false
  }

  @inline(__always)
  private func home(_ ordinal: UInt64) -> Int { Int(StableHash.mix(ordinal) >> shift) }
}
