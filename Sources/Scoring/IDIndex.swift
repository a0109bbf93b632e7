import RankingCore

// From an item's id to its row: an open-addressing table of row numbers, and nothing else.
//
//     home = top bits of xxh64(id)        (the low bits are the same for all items of a shard: shard = hash mod S)
//     table   … | 7 | – | 3 | 9 | – | …   probed from home upwards until the id itself or a free place
//
// The ids are compared where they lie in the slice. At most two thirds of the places are taken, so a probe always ends.

final class IDIndex: @unchecked Sendable {
  private static let free = UInt32.max
  private let places: UnsafeMutablePointer<UInt32>
  private let mask: Int
  private let shift: UInt64

  /// - Parameters:
  ///   - count: rows, fewer than 2³² − 1.
  ///   - id: a row's id. Of equal ids the first row is found.
  init(count: Int, id: (Int) -> UnsafeRawBufferPointer) {
    precondition(count < Int(IDIndex.free), "a slice holds fewer than \(IDIndex.free) rows, not \(count)")
    var bits = 4
    while 1 << bits < count + count / 2 + 1 { bits += 1 }
    mask = 1 << bits - 1
    shift = UInt64(64 - bits)
    places = .allocate(capacity: mask + 1)
    places.initialize(repeating: IDIndex.free, count: mask + 1)
    for row in 0..<count {
      var place = Int(StableHash.xxh64(id(row)) >> shift)
      while places[place] != IDIndex.free { place = (place + 1) & mask }
      places[place] = UInt32(row)
    }
  }

  deinit { places.deallocate() }

  var memoryFootprint: Int { (mask + 1) * MemoryLayout<UInt32>.stride }

  func row(of wanted: UnsafeRawBufferPointer, id: (Int) -> UnsafeRawBufferPointer) -> Int? {
    var place = Int(StableHash.xxh64(wanted) >> shift)
    while places[place] != IDIndex.free {
      let row = Int(places[place])
      if id(row).elementsEqual(wanted) { return row }
      place = (place + 1) & mask
    }
    return nil
  }
}
