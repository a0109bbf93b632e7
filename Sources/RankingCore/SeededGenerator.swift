/// The one source of randomness of pure code: SplitMix64 (Steele, Lea, Flood 2014), the same run for the same seed.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  public var state: UInt64
  @inlinable public init(seed: UInt64) { self.state = seed }

  @inlinable
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Uniform in `0..<bound` (bound > 0) by Lemire's multiplication; the bias below 2⁻³² does not matter to a choice of
  /// replica, and one draw is always one draw, so traces stay aligned.
  @inlinable
  public mutating func below(_ bound: Int) -> Int {
    Int(next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// Uniform in `[0, 1)` with 53 bits.
  @inlinable public mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }
}
