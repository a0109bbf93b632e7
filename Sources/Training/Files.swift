import Bundles
import Foundation
import RankingCore

// The files that training reads and writes; all of them either whole or not there.

extension Interactions {
  /// Reads `user,item[,weight][,timestamp]` with a header. Equal pairs are one entry whose weight is their sum.
  ///
  /// - Throws: with the line of the first row that is wrong: an empty or overlong id, a weight that is no number or not
  ///   above zero.
  public static func load(
    path: String, progress: (_ bytesRead: Int, _ bytesTotal: Int) -> Void = { _, _ in }
  )
    throws(InputError) -> Interactions
  {
    var reader = try CSVReader(path: path)
    let (userColumn, itemColumn) = (try reader.column("user"), try reader.column("item"))
    let weightColumn = reader.header.firstIndex(of: "weight")
    var users = Numbering()
    var items = Numbering()
    var user: [UInt32] = []
    var item: [UInt32] = []
    var weight: [Float] = []
    while let row = try reader.next() {
      user.append(users.number(try row.id(userColumn)))
      item.append(items.number(try row.id(itemColumn)))
      if let weightColumn {
        let value = try row.double(weightColumn)
        guard value > 0, value <= 1e6 else { throw row.error("weight \(value) must be above 0 and at most 1000000") }
        weight.append(Float(value))
      } else {
        weight.append(1)
      }
      if user.count % 65_536 == 0 { progress(reader.bytesRead, reader.bytesTotal) }
    }
    guard !user.isEmpty else { throw InputError(file: path, "holds no interactions") }
    return Interactions(users: users.texts, items: items.texts, user: user, item: item, weight: weight)
  }
}

/// (user, item) pairs as they stand in a file; equal ones are kept.
public func loadPairs(path: String) throws(InputError) -> [(user: String, item: String)] {
  var reader = try CSVReader(path: path)
  let (user, item) = (try reader.column("user"), try reader.column("item"))
  var pairs: [(user: String, item: String)] = []
  while let row = try reader.next() { pairs.append((try row.id(user), try row.id(item))) }
  return pairs
}

extension Factors {
  /// Writes `items.npy users.npy items.ids users.ids training.json` as one directory. An earlier training's directory
  /// is replaced; anything else is left alone and refused.
  public func write(to directory: String, summary: String) throws(InputError) {
    let exists = FileManager.default.fileExists(atPath: directory)
    if exists, !FileManager.default.fileExists(atPath: directory + "/training.json") {
      throw InputError(file: directory, "is there and is no output of training; name another directory")
    }
    let output = try AtomicDirectory(path: directory)
    let place = output.temporary
    try NumPyFile.write(
      Matrix(rows: itemIDs.count, columns: dimension, values: items), to: place + "/items.npy")
    try NumPyFile.write(
      Matrix(rows: userIDs.count, columns: dimension, values: users), to: place + "/users.npy")
    try IDFile.write(itemIDs, to: place + "/items.ids")
    try IDFile.write(userIDs, to: place + "/users.ids")
    try AtomicFile.write(Array(summary.utf8), to: place + "/training.json")
    try output.commit(replacing: exists)
  }

  public static func load(_ directory: String) throws(InputError) -> Factors {
    let items = try NumPyFile.read(directory + "/items.npy")
    let users = try NumPyFile.read(directory + "/users.npy")
    let itemIDs = try IDFile.read(directory + "/items.ids")
    let userIDs = try IDFile.read(directory + "/users.ids")
    guard items.columns == users.columns else {
      throw InputError(
        file: directory + "/users.npy", "has \(users.columns) columns, items.npy has \(items.columns)")
    }
    guard items.rows == itemIDs.count else {
      throw InputError(file: directory + "/items.ids", "names \(itemIDs.count) items, items.npy has \(items.rows) rows")
    }
    guard users.rows == userIDs.count else {
      throw InputError(file: directory + "/users.ids", "names \(userIDs.count) users, users.npy has \(users.rows) rows")
    }
    return Factors(
      dimension: items.columns, userIDs: userIDs, itemIDs: itemIDs, users: users.values, items: items.values)
  }
}
