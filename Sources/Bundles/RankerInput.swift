/// A ranker that goes into a bundle, and what its score is multiplied with.
///
///     model.txt        weight 1
///     net.safetensors:0.5
///
/// What follows the last colon is a weight when it is a number, and part of the path otherwise: a path that ends like a
/// weight is given with one.
public struct RankerInput: Sendable, Equatable {
  public var file: String
  public var weight: Double
  public init(_ file: String, weight: Double = 1) {
    self.file = file
    self.weight = weight
  }

  public init(parsing text: String) {
    self.init(text)
    guard let colon = text.lastIndex(of: ":"), colon > text.startIndex else { return }
    let number = Array(text[text.index(after: colon)...].utf8)
    guard let weight = number.withUnsafeBytes({ DecimalNumber.parse($0) }) else { return }
    self.init(String(text[..<colon]), weight: weight)
  }
}
