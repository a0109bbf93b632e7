import RankingCore

// A small feed-forward network as a trainer wrote it. How it is evaluated is in MLPRanker.swift; what it means is here,
// and `score` says it as plainly as can be:
//
//     inputs ─► missing ones replaced ─► (x − mean) / scale ─► layer ─► layer ─► … ─► one output ─► score
//
// Everything between layers is float32. The order of each sum is part of the definition: see CScoring/mlp.h.

public struct MLPNetwork: Sendable, Equatable {
  public struct Input: Sendable, Equatable {
    /// The feature it reads.
    public var feature: String
    /// Not nil: the input is 1 where the feature is this category, and 0 where it is another one or missing.
    public var category: String?
    /// Stands in for a value that is not there, before mean and scale.
    public var missing: Float
    public init(_ feature: String, category: String? = nil, missing: Float = 0) {
      self.feature = feature
      self.category = category
      self.missing = missing
    }
  }
  public enum Layer: Sendable, Equatable {
    /// weights: outputs × inputs, row after row, as PyTorch's nn.Linear has them; one bias per output.
    case dense(weights: [Float], biases: [Float])
    /// Over a row's values; weights and biases one per value.
    case layerNorm(weights: [Float], biases: [Float], epsilon: Double)
    case activation(Activation)
  }

  public let inputs: [Input]
  /// One per input.
  public let means: [Float]
  public let scales: [Float]
  public let layers: [Layer]
  /// The greatest number of values between two layers, inputs included.
  let widthMax: Int

  public static let layersMax = 256
  /// So many values in a layer: with 60 rows at a time that is 4 MiB.
  public static let layerWidthMax = 16_384

  /// - Parameters: `means`, `scales`: one per input, or empty: none.
  /// - Throws: when a layer does not fit the one before, or a number is not finite; says which.
  public init(
    inputs: [Input], means: [Float] = [], scales: [Float] = [], layers: [Layer]
  ) throws(RankerError) {
    let means = means.isEmpty ? [Float](repeating: 0, count: inputs.count) : means
    let scales = scales.isEmpty ? [Float](repeating: 1, count: inputs.count) : scales
    guard means.count == inputs.count, scales.count == inputs.count else {
      throw RankerError("\(means.count) means and \(scales.count) scales for \(inputs.count) inputs")
    }
    for (index, input) in inputs.enumerated() {
      let name = input.category.map { "\(input.feature) = \($0)" } ?? input.feature
      guard input.missing.isFinite, means[index].isFinite, scales[index].isFinite, scales[index] != 0 else {
        throw RankerError(
          "input \(index), \(name): missing \(input.missing), mean \(means[index]) and scale \(scales[index]) must be "
            + "finite, the scale not 0")
      }
    }
    guard 1...Self.layersMax ~= layers.count else {
      throw RankerError("\(layers.count) layers; allowed: 1 to \(Self.layersMax)")
    }
    var width = inputs.count
    var widest = width
    for (index, layer) in layers.enumerated() {
      guard 1...Self.layerWidthMax ~= width else {
        throw RankerError("layer \(index) is given \(width) values; allowed: 1 to \(Self.layerWidthMax)")
      }
      switch layer {
      case .activation: continue
      case .dense(let weights, let biases):
        guard weights.count == width * biases.count else {
          throw RankerError(
            "layer \(index) has \(weights.count) weights and \(biases.count) biases for \(width) values")
        }
        try Self.check(weights + biases, index)
        width = biases.count
      case .layerNorm(let weights, let biases, let epsilon):
        guard weights.count == width, biases.count == width else {
          throw RankerError(
            "layer \(index) has \(weights.count) weights and \(biases.count) biases for \(width) values")
        }
        guard epsilon.isFinite, epsilon >= 0 else { throw RankerError("layer \(index): epsilon is \(epsilon)") }
        try Self.check(weights + biases, index)
      }
      widest = max(widest, width)
    }
    guard width == 1 else { throw RankerError("the last layer gives \(width) values, not one score") }
    self.inputs = inputs
    self.means = means
    self.scales = scales
    self.layers = layers
    widthMax = widest
  }

  private static func check(_ numbers: [Float], _ layer: Int) throws(RankerError) {
    if let number = numbers.first(where: { !$0.isFinite }) {
      throw RankerError("layer \(layer) has the number \(number)")
    }
  }

  /// Multiplications a row.
  public var products: Int {
    layers.reduce(0) { if case .dense(let weights, _) = $1 { $0 + weights.count } else { $0 } }
  }

  /// The definition: one row's score. `nil` when it is no finite float32.
  ///
  /// - Parameter values: one per input, NaN = not there.
  public func score(_ values: [Float]) -> Float? {
    var row = inputs.indices.map { index -> Float in
      let value = values[index].isNaN ? inputs[index].missing : values[index]
      return (value - means[index]) / scales[index]
    }
    for layer in layers {
      switch layer {
      case .activation(let activation): row = row.map(activation.of)
      case .dense(let weights, let biases):
        row = biases.indices.map { output in
          var sum = biases[output]
          for start in stride(from: 0, to: row.count, by: 32) {
            var part: Float = 0
            for input in start..<min(start + 32, row.count) {
              part = part.addingProduct(row[input], weights[output * row.count + input])
            }
            sum = sum + part
          }
          return sum
        }
      case .layerNorm(let weights, let biases, let epsilon):
        let mean = Self.sum(row) { $0 + $1 } / Double(row.count)
        let variance = Self.sum(row) { $0.addingProduct($1 - mean, $1 - mean) } / Double(row.count)
        let reciprocal = 1 / (variance + epsilon).squareRoot()
        row = row.indices.map {
          Float(Double(biases[$0]).addingProduct((Double(row[$0]) - mean) * reciprocal, Double(weights[$0])))
        }
      }
    }
    let score = row[0] + 0
    return score.isFinite ? score : nil
  }

  /// In eight lanes, then the lanes.
  private static func sum(_ row: [Float], _ add: (Double, Double) -> Double) -> Double {
    var lanes = [Double](repeating: 0, count: 8)
    for (index, value) in row.enumerated() { lanes[index % 8] = add(lanes[index % 8], Double(value)) }
    let s4 = (0..<4).map { lanes[$0] + lanes[$0 + 4] }
    return (s4[0] + s4[2]) + (s4[1] + s4[3])
  }
}
