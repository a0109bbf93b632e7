/// What a network does with each value between its sums, in float64, rounded once: defined step by step, so that every
/// machine gives the same bits (CScoring/mlp.h does the same steps for many values at once).
///
///     relu       x < 0 ? 0 : x
///     gelu       h + h · erf(x / √2), h = x / 2
///     gelu_tanh  h + h · tanh(√(2/π) · (x + 0.044715 x³)), as x / (1 + e^(−2 …))
///     sigmoid    1 / (1 + e^(−x))
public enum Activation: String, Sendable, CaseIterable {
  case relu, gelu, sigmoid
  case geluTanh = "gelu_tanh"

  public func of(_ value: Float) -> Float {
    let x = Double(value)
    switch self {
    case .relu: return value < 0 ? 0 : value
    case .gelu:
      let half = 0.5 * x
      return Float(half.addingProduct(half, Self.errorFunction(x * 0.7071067811865476)))
    case .geluTanh:
      // 2 √(2/π), and 0.044715 times that.
      let factor = 1.5957691216057308.addingProduct(x * x, 0.07135481627159875)
      return Float(x / (1 + Self.exponential(-x * factor)))
    case .sigmoid: return Float(1 / (1 + Self.exponential(-x)))
    }
  }

  /// eˣ for |x| ≤ 708, that of ±708 beyond; within 1e-12 of the true value, relatively. Made for lanes: unlike
  /// `Exponential.of` it neither divides nor branches.
  static func exponential(_ x: Double) -> Double {
    let x = x < -708 ? -708 : x > 708 ? 708 : x
    // Adding 1.5 · 2⁵² rounds to a whole number and leaves it in the lowest bits.
    let shift = 6755399441055744.0
    let shifted = shift.addingProduct(x, 1.4426950408889634)
    let count = shifted - shift
    let rest = x.addingProduct(count, -0.6931471803691238).addingProduct(count, -1.9082149292705877e-10)
    var sum = terms[0]
    for term in terms.dropFirst() { sum = term.addingProduct(sum, rest) }
    return sum * Double(bitPattern: shifted.bitPattern << 52 &+ 0x3FF0_0000_0000_0000)
  }

  /// erf z = z · above(z²) / below(z²) for |z| < 5, ±1 beyond; within 4e-10 of the true value. (Fitted to the least
  /// greatest error.)
  static func errorFunction(_ z: Double) -> Double {
    guard z.magnitude < 5 else { return z < 0 ? -1 : 1 }
    let w = z * z
    var (above, below) = (Self.above[0], Self.below[0])
    for term in Self.above.dropFirst() { above = term.addingProduct(above, w) }
    for term in Self.below.dropFirst() { below = term.addingProduct(below, w) }
    return z * above / below
  }

  /// 1 / 10! … 1 / 0!
  private static let terms = [
    2.7557319223985893e-07, 2.7557319223985893e-06, 2.48015873015873e-05, 0.0001984126984126984, 0.001388888888888889,
    0.008333333333333333, 0.041666666666666664, 0.16666666666666666, 0.5, 1, 1,
  ]
  private static let above = [
    3.3824463357131285e-09, 1.364771382275244e-06, 5.253327665134055e-05, 0.0008057511688921035, 0.008775076932289736,
    0.07109023264694253, 0.2761585165427435, 1.1283791639054133,
  ]
  private static let below = [
    1.0340481898357014e-07, 1.0347995441588358e-05, 0.00021255424669558404, 0.0028383700562731873, 0.025676037172951173,
    0.1556931530107746, 0.5780723943225321, 1,
  ]
}
