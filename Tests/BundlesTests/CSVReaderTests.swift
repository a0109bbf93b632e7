import Bundles
import Foundation
import Testing

struct CSVReaderTests {
  let scratch = Scratch()

  /// The file's rows as `line:cell|cell`, or the error without the path.
  func read(_ bytes: [UInt8]) throws -> String {
    let path = try scratch.file("t.csv", bytes)
    do {
      var reader = try CSVReader(path: path)
      var lines = [reader.header.joined(separator: "|")]
      while let row = try reader.next() {
        lines.append("\(row.line):" + (0..<row.count).map { row[$0] }.joined(separator: "|"))
      }
      return lines.joined(separator: "\n")
    } catch {
      #expect(error.file == path)
      return "\(error)".replacingOccurrences(of: path, with: "t.csv")
    }
  }

  func check(_ text: String, _ expect: String, _ location: SourceLocation = #_sourceLocation) throws {
    let got = try read(Array(text.utf8))
    #expect(got == expect, sourceLocation: location)
  }

  @Test func cellsAndLines() throws {
    try check("a,b\n1,2\n3,4\n", "a|b\n2:1|2\n3:3|4")
    try check("a,b\n1,2\n3,4", "a|b\n2:1|2\n3:3|4")
    try check("a,b\r\n1,2\r\n,\r\n", "a|b\n2:1|2\n3:|")
    try check("a\nx\n\"\"\ny\n\n\n", "a\n2:x\n3:\n4:y")
    try check("a,b", "a|b")
    try check("\u{FEFF}a,b\n1,é\n", "a|b\n2:1|é")
  }

  @Test func quotes() throws {
    try check("a,b\n\"1,\n2\",\"say \"\"hi\"\"\"\n3,4\n", "a|b\n2:1,\n2|say \"hi\"\n4:3|4")
    try check("\"a\",\"b\"\n\"\",\"\"\"\"\n", "a|b\n2:|\"")
    try check("a\n\"x", "t.csv:2: a quote that is never closed")
    try check("a\n\"x\"y\n", "t.csv:2: column 1: something follows the closing quote")
    try check(
      "a,b\n1,6\" pan\n", "t.csv:2: column 2: a quote inside an unquoted cell (quote the cell, double its quotes)")
  }

  @Test func damageIsNamedByLine() throws {
    try check("", "t.csv: is empty; a CSV file starts with a header line")
    try check("a,b\n1,2\n3\n", "t.csv:3: 1 column where the header has 2")
    try check("a,b\n1,2\n\"x\ny\",2,3\n", "t.csv:3: 3 columns where the header has 2")
    try check("a,b\n1,2\n\n3,4\n", "t.csv:3: an empty line")
    try check("a,b\n1,2\r3,4\n", "t.csv:2: a carriage return without a line feed after it")
    try check("a,a\n", "t.csv:1: the header names the column \"a\" twice")
    #expect(try read(Array("a,b\n1,\"x\n".utf8) + [0xFF] + Array("\"\n".utf8)) == "t.csv:3: invalid UTF-8 (byte 0xff)")
    for overlong: [UInt8] in [[0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82], [0x80]] {
      #expect(try read(Array("a\n".utf8) + overlong + [10]).hasPrefix("t.csv:2: invalid UTF-8"))
    }
    #expect(try read([0x1F, 0x8B, 8, 0]).hasPrefix("t.csv: is gzip-compressed; unpack it first: gunzip -k"))
    #expect(message { _ = try CSVReader(path: "/nowhere/x.csv") }.contains("No such file"))
    #expect(message { _ = try CSVReader(path: scratch.path) }.contains("is not a regular file"))
  }

  /// Rows that straddle the reader's chunks are the same rows.
  @Test func rowsAcrossChunks() throws {
    var text = "id,text\n"
    var expect: [String] = []
    for row in 0..<3000 {
      let cell = String(repeating: "x\"é,\n", count: row % 700)
      text += "\(row),\"\(cell.replacingOccurrences(of: "\"", with: "\"\""))\"\r\n"
      expect.append(cell)
    }
    var reader = try CSVReader(path: try scratch.file("big.csv", text))
    var index = 0
    while let row = try reader.next() {
      if row[0] != "\(index)" || row[1] != expect[index] {
        Issue.record("row \(index) differs")
        return
      }
      index += 1
    }
    #expect(index == 3000)
    #expect(reader.bytesRead == reader.bytesTotal)
  }

  @Test func anEndlessRowIsRefused() throws {
    let path = try scratch.file("t.csv", "a\n\"" + String(repeating: "x", count: CSVReader.rowBytesMax + 5))
    let text = message {
      var reader = try CSVReader(path: path)
      _ = try reader.next()
    }
    #expect(text.hasSuffix("t.csv:2: a row of more than 16 MiB; is a quote never closed?"))
  }

  @Test func cellsAsNumbersAndIDs() throws {
    let long = String(repeating: "x", count: 256)
    let path = try scratch.file("t.csv", "id,n\na,1\n,2x\n\(long),\n\"a\nb\",1\n")
    var reader = try CSVReader(path: path)
    #expect(try reader.column("n") == 1)
    #expect(message { _ = try reader.column("m") }.hasSuffix("t.csv:1: no column \"m\"; the header has \"id\", \"n\""))
    let first = try #require(try reader.next())
    #expect(try first.double(1) == 1)
    #expect(try first.id(0) == "a")
    let second = try #require(try reader.next())
    #expect(message { _ = try second.double(1) }.hasSuffix("t.csv:3: column 2: \"2x\" is not a finite decimal number"))
    #expect(message { _ = try second.id(0) }.hasSuffix("t.csv:3: column 1: empty id; ids have 1–255 bytes"))
    let third = try #require(try reader.next())
    #expect(message { _ = try third.id(0) }.hasSuffix("column 1: an id of 256 bytes; ids have 1–255 bytes"))
    let fourth = try #require(try reader.next())
    #expect(
      message { _ = try fourth.id(0) }.hasSuffix("t.csv:5: column 1: an id with a control character (tab, line end, …)")
    )
  }

  @Test func decimals() {
    for text in [
      "0", "-0", "1", "+1.5", ".5", "5.", "1e3", "1E-3", "123456789012345678901234567890", "0.1", "1e22", "1e23",
      "4.9e-324", "1.7976931348623157e308", "0.000000000000000000000000000001234", "9007199254740993", "1e-400",
    ] {
      let value = DecimalNumber.parse(text)
      #expect(
        value?.bitPattern
          == Double(text.hasPrefix(".") ? "0" + text : text + (text.hasSuffix(".") ? "0" : ""))?.bitPattern, "\(text)")
    }
    for text in ["", "-", ".", "e5", "1e", "1e+", "nan", "inf", "0x10", " 1", "1 ", "1,5", "1e999", "--1", "1.2.3"] {
      #expect(DecimalNumber.parse(text) == nil, "\(text)")
    }
  }
}
