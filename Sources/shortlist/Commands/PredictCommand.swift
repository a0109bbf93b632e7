import Bundles
import Foundation
import Scoring

/// `shortlist predict`: what a trained model says of rows, without a bundle or a cluster.
extension Command {
  static let predict = Command(
    name: "predict",
    summary: "What a tree model says of rows",
    discussion: """
      Prints the model's raw score of each row, before its output transform, in 9 significant digits. The table's header
      names the model's features, in any order; without a header its columns are the features in the model's order. An
      empty cell is a missing value.
      """,
    example: "shortlist predict --model model.txt --rows rows.csv",
    options: [
      .text("model", "FILE", "LightGBM text or XGBoost JSON").required,
      .text("rows", "FILE", "CSV").required,
    ],
    run: { call in
      let ensemble = try RankerModel.trees(call.text("model"))
      let names = ensemble.features.map(\.name)
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
        print(String(format: "%.9g", ensemble.raw(table.header.map { Float($0) ?? .nan })))
      }
      while let row = try table.next() {
        let values = try columns.map { row.isEmpty($0) ? Float.nan : Float(try row.double($0)) }
        print(String(format: "%.9g", ensemble.raw(values)))
      }
      return 0
    })
}
