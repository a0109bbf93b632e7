import Foundation
import RankingCore

/// A network from a seed, as a trainer would save it: every kind of layer and input.
enum TestNetwork {
  static func safetensors(seed: UInt64) throws -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    var header: [String: Any] = [:]
    var data: [UInt8] = []
    func tensor(_ name: String, _ shape: [Int], around middle: Float = 0) {
      let start = data.count
      for _ in 0..<shape.reduce(1, *) {
        let value = middle + Float(generator.unit()) - 0.5
        withUnsafeBytes(of: value.bitPattern.littleEndian) { data += $0 }
      }
      header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, data.count]] as [String: Any]
    }
    tensor("mean", [6])
    tensor("scale", [6], around: 8)
    tensor("0.weight", [40, 6])
    tensor("0.bias", [40])
    tensor("2.weight", [40], around: 1)
    tensor("2.bias", [40])
    tensor("3.weight", [19, 40])
    tensor("5.weight", [9, 19])
    tensor("5.bias", [9])
    tensor("7.weight", [1, 9], around: 1)
    header["__metadata__"] = [
      "shortlist": """
      {"features": ["retrieval_score", {"feature": "item.price", "missing": 20}, "context.hour", "item.new",
        {"feature": "item.kind", "one_hot": ["cup", "pot"]}],
       "mean": "mean", "scale": "scale", "layers": [
        {"type": "dense", "weight": "0.weight", "bias": "0.bias"}, {"type": "relu"},
        {"type": "layer_norm", "weight": "2.weight", "bias": "2.bias"},
        {"type": "dense", "weight": "3.weight"}, {"type": "gelu"},
        {"type": "dense", "weight": "5.weight", "bias": "5.bias"}, {"type": "sigmoid"},
        {"type": "dense", "weight": "7.weight"}]}
      """
    ]
    let json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
    return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json + data
  }
}
