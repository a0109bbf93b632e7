import Bundles
import RankingCore
import Synchronization
import Transport

// Where a process finds bundles: in a directory that it sees, or on a web server, by way of a cache of its own.
//
//     directory   <store>/home/v2/…                                                              read where it is
//     HTTP        http://models:8000/store/home/v2/manifest.json, shard-0003.slice, …  ──►  <cache>/home/v2/…
//
// Only what this process needs is fetched: a worker its shards and the rankers, a coordinator the users. A connection
// that breaks is made again and goes on where it was, as long as something still comes.

/// `"bundles"` of a configuration.
public struct BundlesConfiguration: Sendable, Equatable {
  public var origin: FileOrigin
  /// The directory for what has been fetched.
  public var cache: String
  public var cacheMiB = 16_384
  public var rateMiB = 50
  public init(origin: FileOrigin, cache: String) {
    self.origin = origin
    self.cache = cache
  }

  init(_ json: ConfigurationFile) throws(ConfigurationError) {
    try json.allow(["url", "cache", "cache_mib", "rate_mib"])
    do { origin = try FileOrigin(try json.needed("url")) } catch {
      throw (error as? ConfigurationError) ?? ConfigurationError("\(json.place): \"url\": \(error)")
    }
    cache = try json.needed("cache")
    cacheMiB = try json.integer("cache_mib", in: 1...1 << 30) ?? cacheMiB
    rateMiB = try json.integer("rate_mib", in: 1...100_000) ?? rateMiB
  }
}

/// Used on the thread that reads versions, except where it says otherwise.
final class BundleSource: Sendable {
  private enum Place {
    case directory(Store)
    case http(FileOrigin, BundleCache, DownloadPace)
  }
  private let place: Place
  private let name: String
  private let needed = Mutex<Set<ModelVersion>>([])
  /// What came by HTTP, for the metrics.
  private struct Tally {
    var bytes = 0
    var files = 0
    var resumed = 0
    var failures = 0
    /// What lies in the cache: looking is not for the loop, which is asked for the metrics.
    var cacheBytes = 0
  }
  private let tally = Mutex(Tally())
  /// Since when attempts fail and nothing comes; `nil` = something does.
  private let quietSince = Mutex<Instant?>(nil)

  /// When nothing has come for so long, fetches are given up; each later one is tried once, until something comes.
  private static let patience: Duration = .seconds(60)
  private static let pauseFirst: Duration = .milliseconds(100)
  private static let pauseMax: Duration = .seconds(3)

  /// - Parameter name: of the process, for its log.
  init(store: String, bundles: BundlesConfiguration?, name: String) throws {
    self.name = name
    if let bundles {
      let cache = try BundleCache(path: bundles.cache, limit: bundles.cacheMiB << 20)
      place = .http(bundles.origin, cache, DownloadPace(bytesPerSecond: Double(bundles.rateMiB) * 1_048_576))
      count(cache)
    } else {
      place = .directory(Store(store))
    }
  }

  private func count(_ cache: BundleCache) {
    let bytes = cache.bytes
    tally.withLock { $0.cacheBytes = bytes }
  }

  /// Whether bundles come over the network.
  var isRemote: Bool { if case .http = place { true } else { false } }

  /// Whether parts of a bundle are here.
  func has(_ parts: [BundlePart], of id: ModelVersion) -> Bool {
    guard case .http(_, let cache, _) = place else { return true }
    guard let bundle = try? Bundle.open(cache.directory(of: id)) else { return false }
    return parts.allSatisfy { part in
      (try? bundle.files(of: part))?.allSatisfy { cache.has(id, $0.name, size: $0.size) } ?? false
    }
  }

  /// Ends what is being fetched; from any thread.
  func stop() { if case .http(_, _, let pace) = place { pace.stop() } }

  /// What must stay in the cache, whatever else needs room; from any thread.
  func keep(_ ids: Set<ModelVersion>) { needed.withLock { $0 = ids } }

  /// Has parts of a bundle come, where they are not here.
  func fetch(_ parts: [BundlePart], of id: ModelVersion) throws {
    guard case .http(let origin, let cache, let pace) = place else { return }
    defer { count(cache) }
    let fetch = Fetch(source: self, origin: origin, cache: cache, pace: pace, id: id)
    for part in parts { _ = try fetch.bring(part) }
  }

  /// Works with a part of a bundle, which is fetched if need be.
  ///
  /// What turns out to be damaged in the cache is fetched once more: a disk may have aged since it came.
  func with<Result>(_ part: BundlePart, of id: ModelVersion, _ body: (Bundle) throws -> Result) throws -> Result {
    switch place {
    case .directory(let store): return try body(try Bundle.open(store.path(of: id)))
    case .http(let origin, let cache, let pace):
      defer { count(cache) }
      let fetch = Fetch(source: self, origin: origin, cache: cache, pace: pace, id: id)
      let bundle = try fetch.bring(part)
      do { return try body(bundle) } catch let error as InputError {
        Log.line(name, "fetched once more: \(error)")
        try fetch.discard(part)
        return try body(try fetch.bring(part))
      }
    }
  }

  func write(into text: inout MetricsText) {
    guard isRemote else { return }
    let tally = tally.withLock { $0 }
    text.counter("shortlist_bundle_fetched_bytes_total", "Bytes of bundles that came by HTTP.", UInt64(tally.bytes))
    text.counter("shortlist_bundle_fetched_files_total", "Files of bundles that came whole.", UInt64(tally.files))
    text.counter("shortlist_bundle_fetch_resumed_total", "Files that went on where they were.", UInt64(tally.resumed))
    text.counter("shortlist_bundle_fetch_failures_total", "Attempts that broke off.", UInt64(tally.failures))
    text.gauge("shortlist_bundle_cache_bytes", "What lies in the cache.", Double(tally.cacheBytes))
  }

  /// One version's files on their way.
  private struct Fetch {
    let source: BundleSource
    let origin: FileOrigin
    let cache: BundleCache
    let pace: DownloadPace
    let id: ModelVersion

    private func url(_ file: String) -> String { origin.description + path(file) }
    private func path(_ file: String) -> String { "/\(id.model)/\(id.version)/\(file)" }

    func bring(_ part: BundlePart) throws -> Bundle {
      let bundle = try open()
      for file in try bundle.files(of: part) where !cache.has(id, file.name, size: file.size) { try bring(file) }
      return bundle
    }

    /// A manifest that is here and cannot be read is fetched once more.
    private func open() throws -> Bundle {
      if cache.has(id, BundleCache.manifestName, size: nil) {
        do { return try Bundle.open(cache.directory(of: id)) } catch {
          Log.line(source.name, "fetched once more: \(error)")
        }
      }
      return try bringManifest()
    }

    /// Its manifest, too: what was built anew under an old name has another.
    func discard(_ part: BundlePart) throws {
      if let bundle = try? Bundle.open(cache.directory(of: id)) {
        for file in try bundle.files(of: part) { cache.discard(id, file.name) }
      }
      cache.discard(id, BundleCache.manifestName)
    }

    /// It has no sum of its own: it is kept when it reads as this version's, and what it says of the others is checked.
    private func bringManifest() throws -> Bundle {
      let url = url(BundleCache.manifestName)
      var bytes: [UInt8] = []
      try patiently(BundleCache.manifestName) {
        bytes = []
        try FileDownload.get(path(BundleCache.manifestName), of: origin, from: 0, pace: pace) { head in
          guard head.size <= BundleCache.manifestBytesMax else {
            throw InputError(
              file: url, "is \(head.size) bytes, at most \(BundleCache.manifestBytesMax) are allowed")
          }
        } sink: {
          bytes += $0
        }
      }
      try makeRoom(for: bytes.count)
      try cache.keep(bytes, as: BundleCache.manifestName, of: id)
      do {
        let bundle = try Bundle.open(cache.directory(of: id))
        guard bundle.manifest.release == id else { throw InputError(file: url, "is of \(bundle.manifest.release)") }
        return bundle
      } catch let error as InputError {
        cache.discard(id, BundleCache.manifestName)
        throw InputError(file: url, error.reason)
      }
    }

    /// What is other than the manifest says is fetched once more from its beginning; then it is at fault.
    private func bring(_ file: BundleManifest.File) throws {
      do {
        try bring(file, into: try cache.part(file, of: id))
      } catch let error as InputError {
        Log.line(source.name, "fetched once more: \(error)")
        cache.discard(id, file.name)
        do {
          try bring(file, into: try cache.part(file, of: id))
        } catch let error as InputError {
          cache.discard(id, file.name)
          cache.discard(id, BundleCache.manifestName)
          throw InputError(file: url(file.name), "fetched twice, and wrong both times: \(error.reason)")
        }
      }
    }

    private func bring(_ file: BundleManifest.File, into part: PartialFile) throws {
      let start = EventLoop.clock()
      try makeRoom(for: file.size - part.count)
      try patiently(file.name) {
        guard part.count < file.size else { return }
        if part.count > 0 { source.tally.withLock { $0.resumed += 1 } }
        try FileDownload.get(path(file.name), of: origin, from: part.count, pace: pace) { head in
          guard head.size == file.size else {
            throw InputError(file: url(file.name), "is \(head.size) bytes, the manifest says \(file.size)")
          }
          if head.offset < part.count { try part.restart() }
        } sink: { piece in
          try part.append(piece)
          source.tally.withLock { $0.bytes += piece.count }
        }
      }
      try part.finish()
      source.tally.withLock { $0.files += 1 }
      let took = Int((EventLoop.clock() - start).milliseconds)
      Log.line(source.name, "\(id): \(file.name) has come, \(file.size) bytes in \(took) ms")
    }

    private func makeRoom(for bytes: Int) throws {
      do {
        try cache.makeRoom(for: bytes, of: id, needed: source.needed.withLock { $0 })
      } catch { throw FetchError(description: error.description) }
    }

    /// Tries again, with growing pauses, while there is hope.
    private func patiently(_ file: String, _ attempt: () throws -> Void) throws {
      var pause = BundleSource.pauseFirst
      var attempts = 0
      while true {
        let before = source.tally.withLock { $0.bytes }
        attempts += 1
        do {
          try attempt()
          return source.quietSince.withLock { $0 = nil }
        } catch let error as DownloadError {
          source.tally.withLock { $0.failures += 1 }
          let now = EventLoop.clock()
          let hasCome = source.tally.withLock { $0.bytes } > before
          if hasCome { pause = BundleSource.pauseFirst }
          let since = source.quietSince.withLock { since in
            since = hasCome ? nil : since ?? now
            return since ?? now
          }
          guard error.kind == .passing, now - since < BundleSource.patience else {
            throw FetchError(
              description: "\(url(file)): \(error)" + (attempts > 1 ? " (\(attempts) attempts)" : ""))
          }
          if attempts == 1 { Log.line(source.name, "\(url(file)): \(error); trying again") }
          do { try pace.wait(until: now + pause) } catch {
            throw FetchError(description: "\(url(file)): \(error)")
          }
          pause = min(pause * 2, BundleSource.pauseMax)
        }
      }
    }
  }
}

/// Why a bundle's file is not here.
private struct FetchError: Error, CustomStringConvertible { let description: String }
