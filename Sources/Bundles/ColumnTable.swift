import Foundation
import RankingCore

/// A CSV of columns by id, laid out by the rows of the factors: what is not there is missing (NaN).
struct ColumnTable {
  var columns: [Column] = []
  /// Per column one value per row.
  var values: [[Float]] = []
  /// Rows of the file whose id the factors do not know.
  var ignored = 0

  static let categoriesMax = 65_536

  init() {}

  /// - Parameters:
  ///   - kinds: the schema's, by column name; nil = inferred: all numbers → number, all true/false → boolean, else
  ///     category.
  ///   - row: the row of an id.
  init(path: String, kinds: [Column]?, rows: Int, row rowOf: (String) -> Int?) throws(InputError) {
    var reader = try CSVReader(path: path)
    let names = Array(reader.header.dropFirst())
    var cells = [[String]](repeating: [String](repeating: "", count: rows), count: names.count)
    var seen = Set<Int>()
    while let line = try reader.next() {
      let id = try line.id(0)
      guard let row = rowOf(id) else {
        ignored += 1
        continue
      }
      guard seen.insert(row).inserted else { throw line.error("id \"\(id)\" is there twice") }
      for index in names.indices { cells[index][row] = line[index + 1] }
    }
    let order = names.indices.sorted { names[$0] < names[$1] }
    for index in order {
      let name = names[index]
      let column: Column
      if let kinds {
        guard let known = kinds.first(where: { $0.name == name }) else { continue }
        column = known
      } else {
        column = Column(name: name, kind: Self.inferred(cells[index]))
      }
      try append(column, cells[index], path: path)
    }
    for column in kinds ?? [] where !names.contains(column.name) {
      throw InputError(file: path, "has no column \"\(column.name)\", which the schema names")
    }
  }

  private static func inferred(_ cells: [String]) -> ColumnKind {
    let given = cells.filter { !$0.isEmpty }
    if given.allSatisfy({ DecimalNumber.parse($0) != nil }) { return .number }
    if given.allSatisfy({ $0 == "true" || $0 == "false" }) { return .boolean }
    return .category
  }

  private mutating func append(_ column: Column, _ cells: [String], path: String) throws(InputError) {
    var column = column
    var numbers = [Float](repeating: .nan, count: cells.count)
    func wrong(_ cell: String, _ must: String) -> InputError {
      InputError(file: path, "column \"\(column.name)\": \"\(cell)\" is not \(must)")
    }
    switch column.kind {
    case .number:
      for (row, cell) in cells.enumerated() where !cell.isEmpty {
        guard let value = DecimalNumber.parse(cell), Float(value).isFinite else { throw wrong(cell, "a number") }
        numbers[row] = Float(value)
      }
    case .boolean:
      for (row, cell) in cells.enumerated() where !cell.isEmpty {
        guard cell == "true" || cell == "false" else { throw wrong(cell, "true or false") }
        numbers[row] = cell == "true" ? 1 : 0
      }
    case .category:
      if column.categories.isEmpty { column.categories = Set(cells.filter { !$0.isEmpty }).sorted() }
      guard column.categories.count <= Self.categoriesMax else {
        throw InputError(
          file: path, "column \"\(column.name)\" has \(column.categories.count) values, at most \(Self.categoriesMax)")
      }
      let places = Dictionary(zip(column.categories, 0...), uniquingKeysWith: { first, _ in first })
      for (row, cell) in cells.enumerated() where !cell.isEmpty {
        guard let place = places[cell] else { throw wrong(cell, "one of the schema's values") }
        numbers[row] = Float(place)
      }
    }
    columns.append(column)
    values.append(numbers)
  }
}

/// The schema file: `{"item": {"price": "number", "category": "category"}, "user": {…}, "context": {"device":
/// ["app"]}}`.
struct SchemaFile {
  var item: [Column]
  var user: [Column]
  var context: [Column]

  init(path: String) throws(InputError) {
    let bytes = try InputFile.readAll(path: path, limit: 1 << 20)
    guard let object = (try? JSONSerialization.jsonObject(with: Data(bytes))) as? [String: Any] else {
      throw InputError(file: path, "must be one JSON object")
    }
    for key in object.keys where !["item", "user", "context"].contains(key) {
      throw InputError(file: path, "unknown key \"\(key)\"; allowed: item, user, context")
    }
    func columns(_ key: String) throws(InputError) -> [Column] {
      guard let value = object[key] else { return [] }
      guard let entries = value as? [String: Any] else {
        throw InputError(file: path, "\"\(key)\" must be an object of column names")
      }
      var columns: [Column] = []
      for (name, kind) in entries.sorted(by: { $0.key < $1.key }) {
        if let text = kind as? String, let kind = ColumnKind(rawValue: text) {
          columns.append(Column(name: name, kind: kind))
        } else if let values = kind as? [String] {
          columns.append(Column(name: name, kind: .category, categories: values))
        } else {
          throw InputError(
            file: path, "\"\(key).\(name)\" must be \"number\", \"boolean\", \"category\" or a list of values")
        }
      }
      return columns
    }
    item = try columns("item")
    user = try columns("user")
    context = try columns("context")
  }
}
