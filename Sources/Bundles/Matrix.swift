/// Vectors as rows of float32, one after the other.
public struct Matrix: Sendable, Equatable {
  public var rows: Int
  public var columns: Int
  /// rows × columns, row after row.
  public var values: [Float]

  /// Traps when `values` has another length: that is the caller's own mistake.
  public init(rows: Int, columns: Int, values: [Float]) {
    precondition(values.count == rows * columns, "\(values.count) values for \(rows) × \(columns)")
    self.rows = rows
    self.columns = columns
    self.values = values
  }

  public func row(_ index: Int) -> ArraySlice<Float> { values[index * columns..<(index + 1) * columns] }
}
