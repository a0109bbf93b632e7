import CScoring

/// The scans of one slice that several legs make together: at each block they take turns in fours, as many as the
/// kernel serves with one read of the rows.
struct ScanTable: ~Copyable {
  private static let four = Int(CSCORING_SCAN_QUERIES)
  // Not private: as the argument of a noncopyable generic, Swift 6.3 then emits a module that LLVM refuses.
  struct Seat {
    var course: UnsafeMutablePointer<ScanCourse>
    /// Kept by the scorer while it scans.
    var lane: Unmanaged<ScoringLane>
    var flag: Unmanaged<CancellationFlag>
  }
  private var seats = ScratchBuffer<Seat>()
  private var count = 0

  // One call of the kernel.
  private var called = ScratchBuffer<Int>()
  private var queries = ScratchBuffer<UnsafePointer<Int8>>()
  private var least = ScratchBuffer<Int32>()
  private var picked = ScratchBuffer<UnsafeMutablePointer<UInt32>>()
  private var products = ScratchBuffer<UnsafeMutablePointer<Int32>>()
  private var found = ScratchBuffer<Int>()

  /// - Parameters: the lanes whose scans were begun, and their legs' flags; both must live until `scan` has ended.
  mutating func seat(_ lanes: [ScoringLane], flags: [CancellationFlag]) {
    count = lanes.count
    let seats = self.seats.room(for: max(1, count))
    for place in lanes.indices {
      seats[place] = Seat(
        course: lanes[place].course, lane: .passUnretained(lanes[place]), flag: .passUnretained(flags[place]))
    }
  }

  /// Looks at every block that somebody needs. Who is cancelled leaves.
  mutating func scan(blocks: Int) {
    let kernels = cscoring_active().pointee.bytes
    let seats = self.seats.room(for: max(1, count))
    let called = self.called.room(for: Self.four)
    let queries = self.queries.room(for: Self.four)
    let least = self.least.room(for: Self.four)
    let picked = self.picked.room(for: Self.four)
    let products = self.products.room(for: Self.four)
    let found = self.found.room(for: Self.four)
    for block in 0..<blocks where count > 0 {
      let isGlance = block % IndexedScan.blocksPerGlance == 0
      let (source, size, groups) = (
        seats[0].course.pointee.source(of: block), seats[0].course.pointee.size,
        seats[0].course.pointee.groups(of: block)
      )
      let first = UInt32(block * ScanIndex.blockRows)
      var waiting = 0
      var place = 0
      while place < count {
        let course = seats[place].course
        if isGlance, seats[place].flag._withUnsafeGuaranteedRef({ $0.isCancelled }) {
          leave(place, seats)
          continue
        }
        var question = IndexedScan.Question.done
        if course.pointee.isFiltered {
          question = seats[place].lane._withUnsafeGuaranteedRef { $0.ask(about: block) }
        } else if let least = course.pointee.least(of: block) {
          question = .scan(least: least)
        }
        switch question {
        case .done:
          leave(place, seats)
          continue
        case .noScan: seats[place].lane._withUnsafeGuaranteedRef { $0.take(0, of: block) }
        case .scan(let product):
          called[waiting] = place
          queries[waiting] = course.pointee.first.bytes
          least[waiting] = product
          picked[waiting] = course.pointee.picked
          products[waiting] = course.pointee.products
          waiting += 1
        }
        place += 1
        if waiting == Self.four {
          kernels.pointee.scan_many(source, size / 4, groups, queries, least, first, picked, products, found)
          for turn in 0..<waiting where found[turn] > 0 {
            seats[called[turn]].lane._withUnsafeGuaranteedRef { $0.take(found[turn], of: block) }
          }
          waiting = 0
        }
      }
      for turn in 0..<waiting {
        let found = kernels.pointee.scan(
          source, size / 4, groups, queries[turn], least[turn], first, picked[turn], products[turn])
        seats[called[turn]].lane._withUnsafeGuaranteedRef { $0.take(found, of: block) }
      }
    }
  }

  /// The last one takes the place.
  private mutating func leave(_ place: Int, _ seats: UnsafeMutablePointer<Seat>) {
    count -= 1
    seats[place] = seats[count]
  }
}
