import Foundation
import RankingCore
import Scoring

// A network in the safetensors format: its tensors, and under the metadata's key "shortlist" what they are:
//
//     {"features": ["retrieval_score", {"feature": "item.price", "missing": 2.1},
//                   {"feature": "item.kind", "one_hot": ["tea", "cup"]}],
//      "mean": "input.mean", "scale": "input.scale",
//      "layers": [{"type": "dense", "weight": "0.weight", "bias": "0.bias"}, {"type": "relu"},
//                 {"type": "layer_norm", "weight": "2.weight", "bias": "2.bias", "eps": 1e-5},
//                 {"type": "dense", "weight": "3.weight"}]}
//
// A feature is one input, a "one_hot" one as many as it lists categories. `missing` stands in for a value that is not
// there, 0 when not given; then (x − mean) / scale, if there are such tensors, of one number per input. A dense weight
// is [outputs, inputs]. Weights of layer_norm, biases, mean and scale may be left out. Tensors are F32, F16 or BF16;
// each is used once, so that none is forgotten.

enum MLPFile {
  static let key = "shortlist"
  /// Numbers in all tensors together: 256 MiB of float32.
  static let numbersMax = 64 << 20

  static func isOne(_ bytes: [UInt8]) -> Bool { Safetensors.isOne(bytes) }

  /// - Throws: with the layer, tensor or field that is wrong, and what is allowed.
  static func parse(_ bytes: [UInt8], path: String) throws(InputError) -> MLPNetwork {
    let file = try Safetensors(bytes, path: path)
    guard let text = file.header.metadata[key] else {
      throw InputError(
        file: path,
        "its metadata has no text \"\(key)\", which says what the tensors are: {\"features\": […], \"layers\": […]}")
    }
    guard let root = (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any] else {
      throw InputError(file: path, "the metadata's \"\(key)\" is not a JSON object")
    }
    var reader = Reader(file: file, path: path)
    try reader.check(root, allowed: ["features", "layers", "mean", "scale"], "\"\(key)\"")
    let inputs = try reader.inputs(root["features"])
    let means = try reader.numbers(root["mean"], inputs.count, "mean")
    let scales = try reader.numbers(root["scale"], inputs.count, "scale")
    guard let list = root["layers"] as? [[String: Any]], list.count <= MLPNetwork.layersMax else {
      throw InputError(
        file: path,
        "\"layers\" is not a list of at most \(MLPNetwork.layersMax) objects like {\"type\": \"relu\"}")
    }
    var width = inputs.count
    var layers: [MLPNetwork.Layer] = []
    for (index, layer) in list.enumerated() { layers.append(try reader.layer(layer, index, &width)) }
    let unused = file.header.names.filter { !reader.used.contains($0) }
    guard unused.isEmpty else {
      throw InputError(
        file: path, "tensors that no layer uses: \(unused.prefix(20).joined(separator: ", "))")
    }
    do { return try MLPNetwork(inputs: inputs, means: means ?? [], scales: scales ?? [], layers: layers) } catch {
      throw InputError(file: path, error.description)
    }
  }

  private struct Reader {
    let file: Safetensors
    let path: String
    var used: Set<String> = []
    var numbers = 0

    func error(_ reason: String) -> InputError { InputError(file: path, reason) }

    func check(_ object: [String: Any], allowed: [String], _ place: String) throws(InputError) {
      if let key = object.keys.filter({ !allowed.contains($0) }).sorted().first {
        throw error("\(place): unknown field \"\(key)\"; allowed: \(allowed.joined(separator: ", "))")
      }
    }

    func inputs(_ value: Any?) throws(InputError) -> [MLPNetwork.Input] {
      guard let list = value as? [Any] else { throw error("\"features\" is not a list of names") }
      var inputs: [MLPNetwork.Input] = []
      for (index, entry) in list.enumerated() {
        if let name = entry as? String {
          inputs.append(MLPNetwork.Input(name))
          continue
        }
        guard let object = entry as? [String: Any], let name = object["feature"] as? String else {
          throw error("feature \(index) is neither a name nor an object with \"feature\": a name")
        }
        try check(object, allowed: ["feature", "missing", "one_hot"], "feature \"\(name)\"")
        if let one = object["one_hot"] {
          guard let categories = one as? [String], !categories.isEmpty, Set(categories).count == categories.count,
            object["missing"] == nil
          else {
            throw error(
              "feature \"\(name)\": \"one_hot\" must be a list of different categories, and goes without \"missing\"")
          }
          inputs += categories.map { MLPNetwork.Input(name, category: $0) }
        } else {
          let missing = object["missing"] == nil ? 0 : object["missing"] as? Double
          guard let missing, Float(missing).isFinite else {
            throw error("feature \"\(name)\": \"missing\" must be a number")
          }
          inputs.append(MLPNetwork.Input(name, missing: Float(missing)))
        }
      }
      return inputs
    }

    private mutating func tensor(
      _ value: Any?, _ place: String
    ) throws(InputError) -> (
      name: String, shape: [Int], values: [Float]
    ) {
      guard let name = value as? String else { throw error("\(place) must be the name of a tensor") }
      guard used.insert(name).inserted else { throw error("\(place): tensor \"\(name)\" is used already") }
      let entry = try file.header.tensor(name, kinds: [.float32, .float16, .bfloat16])
      numbers += entry.count
      guard numbers <= numbersMax else { throw error("more than \(numbersMax) numbers in all tensors together") }
      let (shape, values) = try file.floats(name)
      return (name, shape, values)
    }

    /// A list of `count` numbers; nil when it is left out.
    mutating func numbers(_ value: Any?, _ count: Int, _ place: String) throws(InputError) -> [Float]? {
      guard let value, !(value is NSNull) else { return nil }
      let (name, shape, values) = try tensor(value, place)
      guard shape == [count] else {
        throw error("\(place): tensor \"\(name)\" is \(shape), expected [\(count)]")
      }
      return values
    }

    mutating func layer(
      _ layer: [String: Any], _ index: Int, _ width: inout Int
    ) throws(InputError) -> MLPNetwork.Layer {
      guard let type = layer["type"] as? String else { throw error("layer \(index) has no \"type\"") }
      let place = "layer \(index), \(type)"
      switch type {
      case "dense":
        try check(layer, allowed: ["type", "weight", "bias"], place)
        let (name, shape, weights) = try tensor(layer["weight"], "\(place): weight")
        guard shape.count == 2, shape[1] == width, 1...MLPNetwork.layerWidthMax ~= shape[0] else {
          throw error(
            "\(place): tensor \"\(name)\" is \(shape), expected [outputs, \(width)] with at most "
              + "\(MLPNetwork.layerWidthMax) outputs")
        }
        width = shape[0]
        let biases = try numbers(layer["bias"], width, "\(place): bias") ?? [Float](repeating: 0, count: width)
        return .dense(weights: weights, biases: biases)
      case "layer_norm":
        try check(layer, allowed: ["type", "weight", "bias", "eps"], place)
        let weights = try numbers(layer["weight"], width, "\(place): weight")
        let biases = try numbers(layer["bias"], width, "\(place): bias")
        let epsilon = layer["eps"] == nil ? 1e-5 : layer["eps"] as? Double
        guard let epsilon, epsilon >= 0 else { throw error("\(place): \"eps\" must be a number of at least 0") }
        return .layerNorm(
          weights: weights ?? [Float](repeating: 1, count: width),
          biases: biases ?? [Float](repeating: 0, count: width), epsilon: epsilon)
      default:
        guard let activation = Activation(rawValue: type) else {
          throw error(
            "layer \(index): \"\(type)\" is not supported; allowed are dense, layer_norm, "
              + Activation.allCases.map(\.rawValue).joined(separator: ", "))
        }
        try check(layer, allowed: ["type"], place)
        return .activation(activation)
      }
    }
  }
}
