import Foundation
import RankingCore
import Scoring

/// The file of a list ranker (see `ListPhase`): the linear JSON, LightGBM's text or XGBoost's JSON that rankers have,
/// with `list.*` features instead of the retrieval score.
enum ListRankerFile {
  static func parse(
    _ bytes: [UInt8], path: String, pool: Int, item: [Column], user: [Column], context: [Column]
  ) throws(InputError) -> ListPhase {
    var binding = Binding(item: item, user: user, context: context)
    let model: ListPhase.Model
    if LightGBMFile.isOne(bytes) || XGBoostFile.isOne(bytes) {
      let trees =
        LightGBMFile.isOne(bytes)
        ? try LightGBMFile.parse(bytes, path: path) : try XGBoostFile.parse(bytes, path: path)
      let asked = Set(trees.trees.flatMap { $0.nodes.map(\.feature) })
      model = .trees(
        trees,
        trees.features.enumerated().map { index, feature in
          asked.contains(index) ? binding.source(of: feature.name, allowsCategories: true) : .rank
        })
    } else {
      let file = try RankerFile.linear(bytes, path: path)
      model = .linear(
        intercept: file.intercept ?? 0,
        file.terms.map { term in
          .init(
            binding.source(of: term.feature, allowsCategories: false), weight: term.weight, missing: term.missing ?? 0)
        })
    }
    guard binding.unknown.isEmpty else {
      throw InputError(
        file: path,
        "features that no list has, or that are categories: \(binding.unknown.joined(separator: ", ")); they are named "
          + "list.rank, list.score, list.gap, list.share.COLUMN, item.NAME, user.NAME and context.NAME")
    }
    do {
      return try ListPhase(model, columns: binding.columns, pool: pool)
    } catch { throw InputError(file: path, error.description) }
  }

  /// Names to sources; notes which item columns are needed, and what is unknown.
  private struct Binding {
    let item: [Column]
    let user: [Column]
    let context: [Column]
    var columns: [Int] = []
    var unknown: [String] = []

    mutating func source(of feature: String, allowsCategories: Bool) -> ListPhase.Source {
      switch feature {
      case "list.rank": return .rank
      case "list.score": return .score
      case "list.gap": return .gap
      default: break
      }
      if feature.hasPrefix("list.share.") {
        let name = feature.dropFirst("list.share.".count)
        if let column = item.firstIndex(where: { $0.name == name }) { return .share(place(of: column)) }
      } else {
        switch RankerFile.source(of: feature, item, user, context, allowsCategories: allowsCategories) {
        case .item(let column): return .item(place(of: column))
        case .user(let column): return .user(column)
        case .context(let column): return .context(column)
        case .retrievalScore, .recent, nil: break
        }
      }
      if !unknown.contains(feature) { unknown.append(feature) }
      return .rank
    }

    private mutating func place(of column: Int) -> Int {
      if let place = columns.firstIndex(of: column) { return place }
      columns.append(column)
      return columns.count - 1
    }
  }
}
