/// eˣ and log(1 + x) in float64 by additions and multiplications alone, so that every machine gives the same bits.
/// Within 4e-15 of the true value, relatively.
public enum Exponential {
  /// eˣ: x = n · log 2 + r with |r| ≤ log 2 / 2, eʳ by its series.
  public static func of(_ x: Double) -> Double {
    guard x < 709.782712893384 else { return x.isNaN ? x : .infinity }
    guard x > -745.2 else { return 0 }
    let count = (x * 1.4426950408889634).rounded(.toNearestOrEven)
    // log 2 in two parts: the first has so few bits that its product with `count` is exact.
    let rest = (x - count * 0.6931471803691238) - count * 1.9082149292705877e-10
    var sum = 0.0
    for term in stride(from: 14.0, through: 1, by: -1) { sum = (1 + sum) * rest / term }
    // In two steps, as 2ⁿ alone may be too small for a normal number.
    let half = Int(count) / 2
    return (1 + sum) * Double(sign: .plus, exponent: half, significand: 1)
      * Double(sign: .plus, exponent: Int(count) - half, significand: 1)
  }

  /// log(1 + x) for x ≥ 0: Newton's method on eʸ = 1 + x.
  public static func logOnePlus(_ x: Double) -> Double {
    guard x > 0 else { return x == 0 ? 0 : .nan }
    guard x < .infinity else { return x }
    // For small x the series is nearer than 1 + x can say.
    if x < 1e-4 { return x * (1 - x * (0.5 - x * (1.0 / 3 - x * 0.25))) }
    let value = 1 + x
    var y = Double(value.exponent) * 0.6931471805599453 + (value.significand - 1) * 0.6931471805599453
    for _ in 0..<6 {
      let power = of(y)
      y += 2 * (value - power) / (value + power)
    }
    return y
  }
}
