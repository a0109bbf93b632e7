import Foundation
import RankingCore

/// A network in a safetensors file, computed value after value straight from the file's lists: the other opinion on
/// what such a file means. The order of sums is as documented (parts of 32 inputs; eight lanes in a layer norm), and
/// the activations are the words they are in `RankingCore`. As `PlainTrees`, it trusts a file that has been checked.
struct PlainMLP {
  private let layout: [String: Any]
  private let tensors: [String: [Float]]

  /// - Returns: nil when the bytes are no such file.
  init?(_ data: Data) {
    guard data.count > 8 else { return nil }
    let length = (0..<8).reduce(0) { $0 | UInt64(data[$1]) << UInt64(8 * $1) }
    guard length <= UInt64(data.count - 8), data[8] == UInt8(ascii: "{") else { return nil }
    let start = 8 + Int(length)
    guard let header = (try? JSONSerialization.jsonObject(with: data[8..<start])) as? [String: Any],
      let metadata = header["__metadata__"] as? [String: String], let text = metadata["shortlist"],
      let layout = (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any]
    else { return nil }
    var tensors: [String: [Float]] = [:]
    for (name, value) in header where name != "__metadata__" {
      let entry = value as! [String: Any]
      let offsets = entry["data_offsets"] as! [Int]
      let bytes = [UInt8](data[(start + offsets[0])..<(start + offsets[1])])
      let words = stride(from: 0, to: bytes.count, by: 2).map { UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8 }
      switch entry["dtype"] as! String {
      case "F16": tensors[name] = words.map { Float(Float16(bitPattern: $0)) }
      case "BF16": tensors[name] = words.map { Float(bitPattern: UInt32($0) << 16) }
      default:
        tensors[name] = stride(from: 0, to: words.count, by: 2).map {
          Float(bitPattern: UInt32(words[$0]) | UInt32(words[$0 + 1]) << 16)
        }
      }
    }
    self.layout = layout
    self.tensors = tensors
  }

  /// - Parameters:
  ///   - value: of a feature, by its name; NaN = missing.
  ///   - category: of a feature that is one, by its name; nil = missing.
  func score(_ value: (String) -> Float, category: (String) -> String?) -> Float? {
    var x: [Float] = []
    for entry in layout["features"] as! [Any] {
      let object = entry as? [String: Any]
      let name = object?["feature"] as? String ?? entry as! String
      if let categories = object?["one_hot"] as? [String] {
        x += categories.map { category(name) == $0 ? 1 : 0 }
      } else {
        let number = value(name)
        x.append(number.isNaN ? Float(object?["missing"] as? Double ?? 0) : number)
      }
    }
    let mean = tensor(layout["mean"], else: 0, x.count)
    let scale = tensor(layout["scale"], else: 1, x.count)
    for i in x.indices { x[i] = (x[i] - mean[i]) / scale[i] }
    for layer in layout["layers"] as! [[String: Any]] {
      switch layer["type"] as! String {
      case "dense":
        let weight = tensor(layer["weight"], else: 0, 0)
        let outputs = weight.count / x.count
        let bias = tensor(layer["bias"], else: 0, outputs)
        x = (0..<outputs).map { output in
          var sum = bias[output]
          var part: Float = 0
          for i in x.indices {
            part = part.addingProduct(x[i], weight[output * x.count + i])
            if i % 32 == 31 || i == x.count - 1 {
              sum = sum + part
              part = 0
            }
          }
          return sum
        }
      case "layer_norm":
        let (weight, bias) = (tensor(layer["weight"], else: 1, x.count), tensor(layer["bias"], else: 0, x.count))
        let n = Double(x.count)
        var sums = [Double](repeating: 0, count: 8)
        for i in x.indices { sums[i % 8] = sums[i % 8] + Double(x[i]) }
        let average = added(sums) / n
        sums = [Double](repeating: 0, count: 8)
        for i in x.indices {
          let distance = Double(x[i]) - average
          sums[i % 8] = sums[i % 8].addingProduct(distance, distance)
        }
        let r = 1 / (added(sums) / n + (layer["eps"] as? Double ?? 1e-5)).squareRoot()
        for i in x.indices {
          x[i] = Float(Double(bias[i]).addingProduct((Double(x[i]) - average) * r, Double(weight[i])))
        }
      case let name: x = x.map { Activation(rawValue: name)!.of($0) }
      }
    }
    return x[0].isFinite ? x[0] + 0 : nil
  }

  private func tensor(_ name: Any?, else value: Float, _ count: Int) -> [Float] {
    (name as? String).flatMap { tensors[$0] } ?? [Float](repeating: value, count: count)
  }

  private func added(_ lanes: [Double]) -> Double {
    let four = (0..<4).map { lanes[$0] + lanes[$0 + 4] }
    let two = (0..<2).map { four[$0] + four[$0 + 2] }
    return two[0] + two[1]
  }
}
