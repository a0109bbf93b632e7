import Bundles
import Foundation
import Scoring
import Terminal

/// `shortlist predict`: what a trained model says of rows, without a bundle or a cluster.
extension Command {
  static let predict = Command(
    name: "predict",
    summary: "What a tree model or a network says of rows",
    discussion: """
      Prints the model's score of each row in 9 significant digits; of trees, the raw one before their output transform.
      The table's header names the model's features, in any order; without a header its columns are the features in the
      model's order. An empty cell is a missing value; where a network lists categories, a cell is one of them.
      """,
    example: "shortlist predict --model model.txt --rows rows.csv",
    options: [
      .text("model", "FILE", "LightGBM text, XGBoost JSON or safetensors").required,
      .text("rows", "FILE", "CSV").required,
    ],
    run: { call in
      let model = try RankerModel.read(call.text("model"))
      let names = model.features
      var table = try CSVReader(path: call.text("rows"))
      let isHeader = table.header.contains { !$0.isEmpty && Float($0) == nil }
      let columns: [Int]
      if isHeader {
        columns = try names.map { try table.column($0) }
      } else {
        guard table.header.count == names.count else {
          throw UsageError(
            "\(call.text("rows")) has no header and \(table.header.count) columns; the model has \(names.count) "
              + "features"
          )
        }
        columns = Array(names.indices)
        print(try model.text(cell: { table.header[$0] }, number: { Float(table.header[$0]) ?? .nan }))
      }
      while let row = try table.next() {
        print(
          try model.text(
            cell: { row[columns[$0]] },
            number: { row.isEmpty(columns[$0]) ? Float.nan : Float(try row.double(columns[$0])) }))
      }
      return 0
    })
}

extension RankerModel {
  /// Each once, in the model's order.
  fileprivate var features: [String] {
    switch self {
    case .trees(let ensemble): ensemble.features.map(\.name)
    case .mlp(let network):
      network.inputs.map(\.feature).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }
  }

  /// A row's score.
  ///
  /// - Parameters: what a feature's cell says, by the feature's place in `features`, as text and as a number.
  fileprivate func text(cell: (Int) -> String, number: (Int) throws -> Float) throws -> String {
    let score: Double
    switch self {
    case .trees(let ensemble): score = ensemble.raw(try ensemble.features.indices.map(number))
    case .mlp(let network):
      let features = features
      let values = try network.inputs.map { input -> Float in
        let place = features.firstIndex(of: input.feature) ?? 0
        return if let category = input.category { cell(place) == category ? 1 : 0 } else { try number(place) }
      }
      score = network.score(values).map(Double.init) ?? .nan
    }
    return String(format: "%.9g", score)
  }
}
