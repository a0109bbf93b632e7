import RankingCore
import Wire

// What clients ask in a run: a list of requests of every kind, as the bytes of the public API. Each arrival parses one
// of them anew, as a coordinator's server would.

struct Workload {
  static let templates = 96

  struct Template {
    let api: PublicAPI
    let body: [UInt8]
    let request: RankingRequest
    /// The shards that owe something once it is scored.
    let needed: UInt64
    /// Whether vectors have to be fetched before.
    let isLookup: Bool
  }
  let templates: [Template]

  /// - Parameter isPlain: users' own recommendations alone, where latencies are compared.
  init(_ catalogue: Catalogue, isPlain: Bool, generator: inout SeededGenerator) {
    var templates: [Template] = []
    for number in 0..<Self.templates {
      var (api, request) = (PublicAPI.recommend, RankingRequest(subject: .user("u\(number % Catalogue.users)"), k: 10))
      request.timeout = .milliseconds(500)
      if !isPlain { (api, request) = Self.request(catalogue, &generator) }
      request.requestID = "r\(number)"
      templates.append(Self.template(request, api, catalogue))
    }
    self.templates = templates
  }

  func parse(_ index: Int) -> RankingRequest {
    let template = templates[index]
    do throws(RankingError) {
      return try template.api.parse(template.body, requestID: template.request.requestID)
    } catch {
      preconditionFailure("\(String(decoding: template.body, as: UTF8.self)) is not understood: \(error)")
    }
  }

  private static func request(
    _ catalogue: Catalogue, _ generator: inout SeededGenerator
  ) -> (PublicAPI, RankingRequest) {
    func item() -> String { catalogue.ids[generator.below(catalogue.ids.count)] }
    func items(_ count: Int) -> [String] {
      var list: [String] = []
      for _ in 0..<count {
        let id = generator.below(12) == 0 ? "nobody\(generator.below(9))" : item()
        if !list.contains(id) { list.append(id) }
      }
      return list
    }
    var api = PublicAPI.recommend
    var request: RankingRequest
    switch generator.below(10) {
    case 0..<5: request = RankingRequest(subject: .user("u\(generator.below(Catalogue.users + 2))"))
    case 5, 6: request = RankingRequest(subject: .vector(Catalogue.vector(&generator)))
    case 7: request = RankingRequest(subject: .recentItems(items(1 + generator.below(3))))
    case 8:
      api = .similar
      request = RankingRequest(subject: .item(item()))
    default:
      api = .rank
      request = RankingRequest(kind: .rank(items(12)), subject: .user("u\(generator.below(Catalogue.users))"))
    }
    if case .rank(let items) = request.kind { request.k = items.count } else { request.k = 1 + generator.below(10) }
    request.candidates = 3 + generator.below(10)
    if api != .similar, generator.below(3) == 0 { request.excludeSeen = true }
    if generator.below(4) == 0 { request.exclude = [item(), item()] }
    if generator.below(8) == 0 { request.minScore = Float(generator.below(12)) }
    if generator.below(6) == 0 { request.minCoverage = generator.below(2) == 0 ? 1 : 0.5 }
    if generator.below(10) == 0 { request.earlyAt = 0.75 }
    if generator.below(10) == 0 { request.sticky = true }
    if generator.below(20) == 0 { request.priority = .batch }
    // With more than two, versions come and go, and naming one is a gamble.
    if catalogue.versions.count > 1, generator.below(catalogue.versions.count > 2 ? 8 : 2) == 0 {
      request.version = catalogue.versions[generator.below(catalogue.versions.count)].release.id.version
    }
    request.timeout = .milliseconds([500, 500, 500, 300, 30][generator.below(5)])
    return (api, request)
  }

  private static func template(_ request: RankingRequest, _ api: PublicAPI, _ catalogue: Catalogue) -> Template {
    var needed = UInt64.max >> UInt64(64 - catalogue.shards)
    if case .rank(let items) = request.kind {
      needed = items.reduce(0) { $0 | 1 << UInt64(ShardID.owner(of: $1, shards: catalogue.shards).index) }
    }
    var isLookup = false
    switch request.subject {
    case .item, .recentItems: isLookup = true
    case .user, .vector, .anyone: break
    }
    let body = Array(json(request, api).utf8)
    return Template(api: api, body: body, request: request, needed: needed, isLookup: isLookup)
  }

  /// The request as a client would write it. Ids and names here need no escapes.
  static func json(_ request: RankingRequest, _ api: PublicAPI) -> String {
    func list(_ ids: [String]) -> String { "[" + ids.map { "\"\($0)\"" }.joined(separator: ",") + "]" }
    var fields: [String] = []
    switch request.subject {
    case .user(let user): fields.append("\"user\":\"\(user)\"")
    case .vector(let vector): fields.append("\"vector\":[" + vector.map { "\($0)" }.joined(separator: ",") + "]")
    case .recentItems(let ids): fields.append("\"recent_items\":\(list(ids))")
    case .item(let id): fields.append("\"item\":\"\(id)\"")
    case .anyone: break
    }
    if case .rank(let items) = request.kind {
      fields.append("\"items\":\(list(items))")
    } else {
      fields.append("\"k\":\(request.k)")
    }
    if let candidates = request.candidates { fields.append("\"candidates\":\(candidates)") }
    if request.excludeSeen, api != .similar { fields.append("\"exclude_seen\":true") }
    if !request.exclude.isEmpty { fields.append("\"exclude\":\(list(request.exclude))") }
    if let least = request.minScore { fields.append("\"min_score\":\(least)") }
    if request.minCoverage > 0 { fields.append("\"min_coverage\":\(request.minCoverage)") }
    if let early = request.earlyAt { fields.append("\"early_at\":\(early)") }
    if request.sticky { fields.append("\"sticky\":true") }
    if request.priority == .batch { fields.append("\"priority\":\"batch\"") }
    if let version = request.version { fields.append("\"version\":\"\(version)\"") }
    if let timeout = request.timeout { fields.append("\"timeout_ms\":\(timeout.milliseconds)") }
    return "{" + fields.joined(separator: ",") + "}"
  }
}
