import ClusterHarness
import Foundation
import RankingCore
import Testing

@testable import Transport

@Suite struct FileDownloadTests {
  /// A server of one file of a megabyte.
  private final class Place {
    let directory = FileManager.default.temporaryDirectory.path + "/shortlist-download-\(UUID().uuidString)"
    let bytes: [UInt8]
    let server: FileServer
    let origin: FileOrigin
    init() throws {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      var generator = SeededGenerator(seed: 4)
      bytes = (0..<1 << 20).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
      try Data(bytes).write(to: URL(fileURLWithPath: directory + "/file"))
      server = FileServer(directory)
      origin = try FileOrigin(server.url)
    }
    deinit {
      server.close()
      try? FileManager.default.removeItem(atPath: directory)
    }
    /// What came, in addition to what was there, and why no more did.
    func get(
      _ path: String = "/file", from offset: Int = 0, pace: DownloadPace = DownloadPace(bytesPerSecond: 1e12)
    ) -> (head: FileDownload.Head?, bytes: [UInt8], error: DownloadError?) {
      var head: FileDownload.Head?
      var come: [UInt8] = []
      do {
        try FileDownload.get(path, of: origin, from: offset, pace: pace) {
          head = $0
        } sink: {
          come += $0
        }
        return (head, come, nil)
      } catch { return (head, come, error as? DownloadError) }
    }
  }

  @Test func comesWholeAndFromAnyByteOn() throws {
    let place = try Place()
    let whole = place.get()
    #expect(whole.bytes == place.bytes && whole.error == nil && whole.head == .init(offset: 0, size: 1 << 20))
    for offset in [1, 65_535, place.bytes.count - 1] {
      let rest = place.get(from: offset)
      #expect(rest.bytes == Array(place.bytes[offset...]) && rest.error == nil, "\(offset)")
      #expect(rest.head == .init(offset: offset, size: 1 << 20))
    }
  }

  @Test func goesOnWhereItBroke() throws {
    let place = try Place()
    var trouble = FileServer.Trouble()
    trouble.cutAfter = 100_000
    place.server.set(trouble)
    var come: [UInt8] = []
    var breaks = 0
    while come.count < place.bytes.count {
      let (_, more, error) = place.get(from: come.count)
      come += more
      if error != nil {
        #expect(error?.kind == .passing && error?.description.contains("bytes early") == true, "\(error!)")
        breaks += 1
      }
      try #require(breaks < 20)
    }
    #expect(come == place.bytes && breaks == 10)
    #expect(place.server.seen.map(\.offset) == (0...10).map { $0 * 100_000 })
  }

  @Test func aServerWithoutRangesIsNoticed() throws {
    let place = try Place()
    var trouble = FileServer.Trouble()
    trouble.ignoresRanges = true
    place.server.set(trouble)
    let (head, bytes, error) = place.get(from: 500)
    #expect(head == .init(offset: 0, size: 1 << 20) && bytes == place.bytes && error == nil)
  }

  @Test func whatMayPassIsToldFromWhatWillNot() throws {
    let place = try Place()
    #expect(place.get("/none").error?.kind == .refused)
    var trouble = FileServer.Trouble()
    for (status, kind) in [(503, DownloadError.Kind.passing), (429, .passing), (403, .refused), (302, .refused)] {
      trouble.status = status
      place.server.set(trouble)
      let error = place.get().error
      #expect(error?.kind == kind && error?.description.contains("\(status)") == true, "\(status): \(error as Any)")
    }
    place.server.close()
    #expect(place.get().error?.kind == .passing)
  }

  /// It comes no faster than it may.
  @Test func keepsThePace() throws {
    let place = try Place()
    let start = EventLoop.clock()
    let (_, bytes, error) = place.get(pace: DownloadPace(bytesPerSecond: 8 * 1_048_576))
    #expect(error == nil && bytes == place.bytes)
    #expect(EventLoop.clock() - start >= .milliseconds(120))
  }

  @Test func aProcessThatLeavesDoesNotWaitForAServer() throws {
    let place = try Place()
    var trouble = FileServer.Trouble()
    trouble.isSilent = true
    place.server.set(trouble)
    let pace = DownloadPace(bytesPerSecond: 1e12)
    Thread { pace.stop() }.start()
    #expect(place.get(pace: pace).error?.kind == .stopped)
  }

  @Test(arguments: [
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "two lengths"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "how long"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "how long"),
    ("HTTP/1.1 200 OK\r\n\r\n", "how long"),
    ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "how long"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "how long"),
    ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", "gzip"),
    ("HTTP/1.1 206 Some\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/10\r\n\r\n", "it sends others"),
    ("HTTP/1.1 206 Some\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/11\r\n\r\n", "it sends others"),
    ("HTTP/1.1 206 Some\r\nContent-Length: 4\r\nContent-Range: bytes 5-9/10\r\n\r\n", "it sends others"),
    ("HTTP/1.1 206 Some\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/*\r\n\r\n", "it sends others"),
    ("HTTP/1.1 206 Some\r\nContent-Length: 5\r\n\r\n", "none"),
    ("HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\n\r\n", "http://elsewhere/"),
    ("HTTP/1.1 416 Range\r\n\r\n", "before byte 5"),
    ("HTTP/2 200\r\n\r\n", "does not answer in HTTP/1.1"),
    ("HTTP/1.1 2000 OK\r\n\r\n", "does not answer in HTTP/1.1"),
    ("220 smtp.example.com ESMTP\r\n\r\n", "does not answer in HTTP/1.1"),
    ("HTTP/1.1 200 OK\r\nContent-Length 5\r\n\r\n", "no colon"),
    ("\r\n\r\n", "does not answer in HTTP/1.1"),
  ])
  func aStrangeAnswerIsRefused(text: String, part: String) throws {
    let error = #expect(throws: DownloadError.self) {
      let bytes = Array(text.utf8)
      _ = try bytes.withUnsafeBytes { try FileDownload.ResponseText($0) }.read(asked: 5)
    }
    #expect(error?.description.contains(part) == true && error?.kind == .refused, "\(error as Any)")
  }

  @Test func readsAddresses() throws {
    let plain = try FileOrigin("http://models.internal/store//")
    #expect(plain.host == "models.internal" && plain.port == 80 && plain.path == "/store")
    #expect("\(try FileOrigin("http://[2001:db8::1]:8000"))" == "http://[2001:db8::1]:8000")
    #expect(try FileOrigin("http://[::1]").port == 80)
    for (text, part) in [
      ("https://models/store", "TLS"), ("/srv/store", "not an address"), ("http://", "no host"),
      ("http://models:0/", "no port"), ("http://models:http/", "no port"), ("http://models/a b", "a space"),
      ("http://models/x?y=1", "a space, ?"), ("http://user@models/", "no host"),
    ] {
      let error = #expect(throws: DownloadError.self) { try FileOrigin(text) }
      #expect(error?.description.contains(part) == true, "\(error as Any)")
    }
  }
}
