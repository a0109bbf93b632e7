import Transport

/// What the calls in flight are for: a token for the transport to carry, and back, without hashing. A token is a place
/// in the table and is given again once its call has ended; every call ends exactly once, so it cannot be mistaken.
struct CallTable<Purpose> {
  private var entries: [(purpose: Purpose?, call: CallID?)] = []
  private var free: [UInt64] = []

  mutating func open(_ purpose: Purpose) -> UInt64 {
    guard let token = free.popLast() else {
      entries.append((purpose, nil))
      return UInt64(entries.count - 1)
    }
    entries[Int(token)] = (purpose, nil)
    return token
  }
  mutating func started(_ token: UInt64, _ call: CallID) { entries[Int(token)].call = call }

  mutating func close(_ token: UInt64) -> Purpose {
    guard let purpose = entries[Int(token)].purpose else { preconditionFailure("call \(token) ended twice") }
    entries[Int(token)] = (nil, nil)
    free.append(token)
    return purpose
  }

  /// The call that is for this; a search, as cancelling is rare beside calling.
  func call(where isMeant: (Purpose) -> Bool) -> CallID? {
    entries.first { $0.purpose.map(isMeant) ?? false }?.call
  }
}
