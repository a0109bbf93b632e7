// Who took what, as two sparse matrices of the same numbers: one by user, one by item.

/// Rows of (column, weight), row r owning `columns[starts[r]..<starts[r + 1]]`, columns ascending.
public struct SparseRows: Sendable {
  public var starts: [Int]
  public var columns: [UInt32]
  public var weights: [Float]
  public var rows: Int { starts.count - 1 }

  /// Groups triples by row; equal (row, column) pairs are one entry whose weight is their sum in the order given.
  init(rows: Int, row: [UInt32], column: [UInt32], weight: [Float]) {
    // A stable counting sort by column, then by row, keeps the order of equal pairs.
    let columnCount = Int(column.max() ?? 0) + 1
    let byColumn = Self.stableOrder(keys: column, count: columnCount, of: Array(0..<column.count))
    let order = Self.stableOrder(keys: row, count: rows, of: byColumn)
    starts = [0]
    columns = []
    weights = []
    columns.reserveCapacity(order.count)
    weights.reserveCapacity(order.count)
    var current = 0
    for index in order {
      while current < Int(row[index]) {
        starts.append(columns.count)
        current += 1
      }
      if columns.count > starts[current], columns.last == column[index] {
        weights[weights.count - 1] += weight[index]
      } else {
        columns.append(column[index])
        weights.append(weight[index])
      }
    }
    while starts.count <= rows { starts.append(columns.count) }
  }

  private static func stableOrder(keys: [UInt32], count: Int, of order: [Int]) -> [Int] {
    var next = [Int](repeating: 0, count: count + 1)
    for key in keys { next[Int(key) + 1] += 1 }
    for index in 1..<max(1, next.count) { next[index] += next[index - 1] }
    var out = [Int](repeating: 0, count: order.count)
    for index in order {
      let key = Int(keys[index])
      out[next[key]] = index
      next[key] += 1
    }
    return out
  }

  subscript(row: Int) -> Range<Int> { starts[row]..<starts[row + 1] }

  /// The same entries, grouped by column.
  func transposed(columnCount: Int) -> SparseRows {
    var row: [UInt32] = []
    row.reserveCapacity(columns.count)
    for index in 0..<rows { row.append(contentsOf: repeatElement(UInt32(index), count: self[index].count)) }
    return SparseRows(rows: columnCount, row: columns, column: row, weight: weights)
  }
}

public struct Interactions: Sendable {
  /// External ids in the order of first appearance; the positions are the rows of the factors.
  public var users: [String]
  public var items: [String]
  public var byUser: SparseRows
  /// Distinct (user, item) pairs.
  public var pairs: Int { byUser.columns.count }

  /// - Parameters: `user`, `item` index into the ids; all three columns have one length.
  public init(users: [String], items: [String], user: [UInt32], item: [UInt32], weight: [Float]) {
    self.users = users
    self.items = items
    byUser = SparseRows(rows: users.count, row: user, column: item, weight: weight)
  }
}

/// Gives each new text the next number.
struct Numbering {
  private(set) var texts: [String] = []
  private var numbers: [String: UInt32] = [:]
  mutating func number(_ text: String) -> UInt32 {
    if let number = numbers[text] { return number }
    let number = UInt32(texts.count)
    numbers[text] = number
    texts.append(text)
    return number
  }
}
