import Bundles
import RankingCore

// The interactions file from the tables a shop has:
//
//     lines     InvoiceNo,StockCode,Quantity,UnitPrice          536365,85123A,6,2.55
//     invoices  InvoiceNo,InvoiceDate,CustomerID,Country        536365,2010-12-01 08:26,17850,United Kingdom
//       joined by InvoiceNo, one row per (customer, item):
//     out       user,item,weight,timestamp                      17850,85123A,1,2010-12-01 08:26
//
// The weight is 1 for a pair that was bought, however often: on this kind of data what somebody bought says more than
// how much of it (a wholesaler's 600 napkins are one decision). The timestamp is the pair's last.

public struct IngestOptions: Sendable {
  public var lines = ""
  public var invoices = ""
  public var key = "InvoiceNo"
  public var userColumn = "CustomerID"
  public var itemColumn = "StockCode"
  public var timeColumn = "InvoiceDate"
  /// Keep what happened at or after / before this time; compared as text, which orders ISO dates.
  public var from: String?
  public var until: String?
  /// Write how often a pair occurred as its weight, instead of 1.
  public var countsAsWeight = false
  public init() {}
}

public struct IngestSummary: Sendable {
  public var lines = 0
  public var users = 0
  public var items = 0
  public var pairs = 0
  /// Lines outside `from … until`.
  public var outsideTime = 0
}

public enum Ingest {
  public static func run(_ options: IngestOptions, out: String) throws(InputError) -> IngestSummary {
    var invoices: [String: (user: UInt32, time: String)] = [:]
    var users = Numbering()
    var reader = try CSVReader(path: options.invoices)
    let key = try reader.column(options.key)
    let (user, time) = (try reader.column(options.userColumn), try reader.column(options.timeColumn))
    while let row = try reader.next() {
      let id = try row.id(key)
      let number = users.number(try row.id(user))
      guard invoices.updateValue((number, row[time]), forKey: id) == nil else {
        throw row.error("\(options.key) \"\(id)\" is there twice")
      }
    }
    var summary = IngestSummary()
    var items = Numbering()
    var order: [UInt64] = []
    var pairs: [UInt64: (count: Int, time: String)] = [:]
    var seenUsers = Set<UInt32>()
    var lines = try CSVReader(path: options.lines)
    let (lineKey, item) = (try lines.column(options.key), try lines.column(options.itemColumn))
    while let row = try lines.next() {
      summary.lines += 1
      let id = try row.id(lineKey)
      guard let invoice = invoices[id] else {
        throw row.error("\(options.key) \"\(id)\" is not in \(options.invoices)")
      }
      if let from = options.from, invoice.time < from {
        summary.outsideTime += 1
        continue
      }
      if let until = options.until, invoice.time >= until {
        summary.outsideTime += 1
        continue
      }
      seenUsers.insert(invoice.user)
      let pair = UInt64(invoice.user) << 32 | UInt64(items.number(try row.id(item)))
      if let known = pairs[pair] {
        pairs[pair] = (known.count + 1, max(known.time, invoice.time))
      } else {
        order.append(pair)
        pairs[pair] = (1, invoice.time)
      }
    }
    summary.users = seenUsers.count
    summary.items = items.texts.count
    summary.pairs = order.count
    var file = try AtomicFile(path: out)
    try file.write("user,item,weight,timestamp\n")
    for pair in order {
      let (count, time) = pairs[pair]!
      let cells = [
        users.texts[Int(pair >> 32)], items.texts[Int(pair & 0xFFFF_FFFF)], options.countsAsWeight ? "\(count)" : "1",
        time,
      ]
      try file.write(cells.map(quoted).joined(separator: ",") + "\n")
    }
    try file.commit()
    return summary
  }

  private static func quoted(_ cell: String) -> String {
    guard cell.utf8.contains(where: { [0x22, 0x2C, 0x0A, 0x0D].contains($0) }) else { return cell }
    return "\"" + cell.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
  }
}
