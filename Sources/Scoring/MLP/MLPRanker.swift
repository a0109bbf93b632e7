import CScoring
import RankingCore

// A network, quickly: the same scores as `MLPNetwork.score`, for blocks of rows.
//
//     candidates ─► per input: its values of 60 rows ─► rows × inputs ─► layer ─► rows × outputs ─► … ─► scores
//                                                       two buffers take turns
//
// The weights are laid out once, sixteen outputs side by side, so that the kernels (CScoring/mlp.h) fill their lanes
// with outputs: a block of any number of rows, one included, is the same sums.

public final class MLPRanker: Sendable {
  /// Where an input comes from.
  public struct Source: Sendable, Equatable {
    public var feature: FeatureSource
    /// Of an input that stands for a category: its place in the schema's list, −1 where it is not in it.
    public var category: Float?
    public init(_ feature: FeatureSource, category: Float? = nil) {
      self.feature = feature
      self.category = category
    }
  }
  private enum Step: Sendable {
    /// The panels at `weights`, then as many biases; floats from the start of the memory.
    case dense(inputs: Int, panels: Int, weights: Int, biases: Int, relu: Bool)
    case layerNorm(width: Int, weights: Int, biases: Int, epsilon: Double)
    case activation(cscoring_activation)
  }

  public let network: MLPNetwork
  /// One per input.
  public let sources: [Source]
  public let itemColumns: Int
  public let userColumns: Int
  public let contextColumns: Int
  private let steps: [Step]
  private let memory: AlignedMemory
  /// Floats between the rows of a buffer, at most.
  private let strideMax: Int

  /// A multiple of what the kernels keep in registers.
  static let blockRows = 60

  /// - Parameters: `sources`: one per input of the network; the column counts of the schema they were bound to.
  /// - Throws: when a source points past its columns.
  public init(
    _ network: MLPNetwork, sources: [Source], itemColumns: Int, userColumns: Int, contextColumns: Int
  ) throws(RankerError) {
    guard sources.count == network.inputs.count else {
      throw RankerError("\(sources.count) sources for \(network.inputs.count) inputs")
    }
    for (source, input) in zip(sources, network.inputs) {
      if let fault = source.feature.fault(
        itemColumns: itemColumns, userColumns: userColumns, contextColumns: contextColumns)
      {
        throw RankerError("feature \"\(input.feature)\": \(fault)")
      }
    }
    self.network = network
    self.sources = sources
    self.itemColumns = itemColumns
    self.userColumns = userColumns
    self.contextColumns = contextColumns
    strideMax = Self.padded(network.widthMax)
    (steps, memory) = Self.packed(network)
  }

  private static func padded(_ width: Int) -> Int { (width + 15) & ~15 }

  private static func packed(_ network: MLPNetwork) -> ([Step], AlignedMemory) {
    var floats = 0
    func room(_ count: Int) -> Int {
      defer { floats += count }
      return floats
    }
    var steps: [Step] = []
    var width = network.inputs.count
    var layers = network.layers[...]
    while let layer = layers.popFirst() {
      switch layer {
      case .activation(let kind): steps.append(.activation(kind.kernel))
      case .dense(_, let biases):
        let relu = layers.first == .activation(.relu)
        if relu { layers.removeFirst() }
        let outputs = padded(biases.count)
        steps.append(
          .dense(
            inputs: width, panels: outputs / 16, weights: room(outputs * width), biases: room(outputs), relu: relu))
        width = biases.count
      case .layerNorm(_, _, let epsilon):
        steps.append(
          .layerNorm(width: width, weights: room(padded(width)), biases: room(padded(width)), epsilon: epsilon))
      }
    }
    let memory = AlignedMemory(byteCount: floats * 4)
    let target = memory.bytes.bindMemory(to: Float.self)
    target.update(repeating: 0)
    var numbers = network.layers.compactMap { layer -> (weights: [Float], biases: [Float])? in
      switch layer {
      case .activation: nil
      case .dense(let weights, let biases): (weights, biases)
      case .layerNorm(let weights, let biases, _): (weights, biases)
      }
    }[...]
    for step in steps {
      switch step {
      case .activation: break
      case .dense(let inputs, _, let place, let biasPlace, _):
        let (weights, biases) = numbers.removeFirst()
        for output in biases.indices {
          let panel = place + output / 16 * 16 * inputs + output % 16
          for input in 0..<inputs { target[panel + 16 * input] = weights[output * inputs + input] }
          target[biasPlace + output] = biases[output]
        }
      case .layerNorm(_, let place, let biasPlace, _):
        let (weights, biases) = numbers.removeFirst()
        for index in weights.indices {
          target[place + index] = weights[index]
          target[biasPlace + index] = biases[index]
        }
      }
    }
    return (steps, memory)
  }

  /// Scores `count` candidates.
  ///
  /// - Parameters:
  ///   - candidates: their rows, retrieval scores and what the request says.
  ///   - scores: out; not finite where there is no score.
  func score(
    count: Int, candidates: CandidateFeatures, memory: inout MLPMemory, scores: UnsafeMutablePointer<Float>
  ) {
    score(count: count, memory: &memory, scores: scores) { input, start, size, values in
      candidates.read(sources[input].feature, from: start, count: size, into: values)
      guard let category = sources[input].category else { return }
      for index in 0..<size { values[index] = values[index] == category ? 1 : 0 }
    }
  }

  /// Scores rows whose inputs the caller has: `inputs` gives an input's values of the rows from a start on.
  package func score(
    count: Int, memory: inout MLPMemory, scores: UnsafeMutablePointer<Float>,
    inputs: (_ input: Int, _ start: Int, _ size: Int, _ values: UnsafeMutablePointer<Float>) -> Void
  ) {
    let layers = cscoring_active().pointee.layers.pointee
    let weights = UnsafePointer(self.memory.bytes.bindMemory(to: Float.self).baseAddress.unsafelyUnwrapped)
    let values = memory.values.room(for: Self.blockRows)
    for start in Swift.stride(from: 0, to: count, by: Self.blockRows) {
      let size = min(Self.blockRows, count - start)
      var rows = memory.rows.room(for: Self.blockRows * strideMax)
      var next = memory.next.room(for: Self.blockRows * strideMax)
      var stride = Self.padded(network.inputs.count)
      for input in network.inputs.indices {
        inputs(input, start, size, values)
        cscoring_place(
          values, size, network.inputs[input].missing, network.means[input], network.scales[input], rows + input, stride
        )
      }
      for step in steps {
        switch step {
        case .activation(let kind): layers.activate(kind, rows, size * stride)
        case .layerNorm(let width, let place, let biases, let epsilon):
          layers.layer_norm(rows, stride, size, width, weights + place, weights + biases, epsilon)
        case .dense(let inputs, let panels, let place, let biases, let relu):
          layers.dense(rows, stride, size, inputs, weights + place, weights + biases, panels, relu, next)
          swap(&rows, &next)
          stride = 16 * panels
        }
      }
      for index in 0..<size { scores[start + index] = rows[index * stride] + 0 }
    }
  }
}

extension Activation {
  var kernel: cscoring_activation {
    switch self {
    case .relu: .relu
    case .gelu: .gelu
    case .geluTanh: .geluTanh
    case .sigmoid: .sigmoid
    }
  }
}

/// What a network keeps between blocks; one per compute thread.
package struct MLPMemory: ~Copyable {
  var values = ScratchBuffer<Float>()
  var rows = ScratchBuffer<Float>()
  var next = ScratchBuffer<Float>()
  package init() {}
}
