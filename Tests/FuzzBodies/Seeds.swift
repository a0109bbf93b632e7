import RankingCore
import Wire

/// What a fuzzer begins with: things that are as they should be.
extension FuzzBody {
  public var seeds: [[UInt8]] {
    switch self {
    case .protobuf: Self.messages
    case .json: Self.requests.map { [0] + Array($0.utf8) }
    case .http1: Self.http1Seeds.map { [40] + Array($0.utf8) }
    case .http2: Self.http2Seeds.map { [200] + $0 }
    case .bundle: [[0] + Array("{\"format\": 3, \"model\": \"home\", \"version\": \"v1\", \"files\": []}".utf8)]
    case .model: Self.models.map { Array($0.utf8) }
    }
  }

  private static let messages: [[UInt8]] = {
    var query = ScoreQuery(
      release: ModelVersion(model: "home", version: "v1"), mode: .retrieve, vector: [1, -2, 0.5], k: 10,
      candidates: 200,
      minScore: 0.5, userValues: [1], contextValues: [.nan])
    query.filter = FilterProgram(steps: [.range(column: 0, low: 1, high: 2), .not])
    let task = ShardTask(shard: ShardID(3), excludedOrdinals: [], excludedIDs: ["i1"], items: ["i2"])
    let status = WorkerStatus(
      name: "w1", incarnation: 7,
      holdings: [
        .init(
          release: query.release, shardCount: 16, ready: [ShardID(0)], loading: [], failed: [ShardID(2)], failure: "x")
      ], queued: 1, running: 2, admits: 3, capacityBytes: 4, heldBytes: 5, zone: "a")
    let order = ShardOrder(
      term: DriverTerm(epoch: 1, revision: 2), release: query.release, shards: [ShardID(0), ShardID(9)])
    var ask = ProtoWriter()
    ask.string(1, "u1")
    ask.uint(6, 5)
    ask.message(31) {
      $0.message(4) {
        $0.string(1, "price"); $0.double(4, 5)
      }
    }
    ask.message(25) {
      $0.string(1, "hour"); $0.message(2) { $0.double(1, 20) }
    }
    var reflect = ProtoWriter()
    reflect.string(4, "shortlist.v1.Ranking")
    return [
      [0] + ScoreRequest(query: query, tasks: [task]).encoded(), [4] + status.encoded(),
      [5] + JoinRequest(name: "w1", incarnation: 1, address: "a:1").encoded(), [7] + order.encoded(),
      [9] + ask.bytes, [12] + reflect.bytes, [13] + GRPC.frame([1, 2, 3]),
      [13] + Array("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".utf8),
    ]
  }()

  private static let requests = [
    #"{"user":"u1","k":5,"exclude_seen":true,"exclude":["i1"],"context":{"hour":20,"app":true,"city":"x"}}"#,
    #"{"vector":[1,-2.5e3,0],"min_score":0.1,"filter":{"all":[{"field":"p","lte":5},"#
      + #"{"not":{"field":"b","in":["a"]}}]}}"#,
    #"{"recent_items":["i1","i2"],"mmr":{"lambda":0.5,"pool":9},"diversity":{"field":"b","max":2},"priority":"batch"}"#,
    #"{"items":[{"id":"i1","score":1.5}],"coverage":{"shards":1,"answered":1,"items":1.0,"missing":[]}}"#,
    "{\"user\":\"\\u00e9\\ud83d\\ude00\\n\"}",
  ]

  private static let http1Seeds = [
    "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
      + "GET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
  ]

  private static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt8, _ payload: [UInt8]) -> [UInt8] {
    [0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags, 0, 0, 0, stream] + payload
  }
  private static let http2Seeds: [[UInt8]] = {
    let hello = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + frame(4, 0, 0, []) + frame(4, 1, 0, [])
    let get: [UInt8] = [0x82, 0x84, 0x86, 0x41, 1, 120]
    let post: [UInt8] = [0x83, 0x86, 0x41, 1, 120, 0x44, 2, 47, 115]
    return [
      hello + frame(1, 5, 1, get) + frame(6, 0, 0, [0, 1, 2, 3, 4, 5, 6, 7]) + frame(1, 5, 3, get),
      hello + frame(1, 4, 1, post) + frame(0, 0, 1, [1, 2, 3]) + frame(0, 1, 1, [4]) + frame(8, 0, 0, [0, 0, 1, 0]),
      hello + frame(1, 5, 1, get) + frame(3, 0, 1, [0, 0, 0, 8]) + frame(7, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ]
  }()

  private static let models = [
    """
    tree
    version=v4
    num_class=1
    num_tree_per_iteration=1
    max_feature_idx=1
    objective=regression
    feature_names=item.price context.hour
    feature_infos=[0:1] [0:1]
    tree_sizes=300

    Tree=0
    num_leaves=2
    num_cat=0
    split_feature=0
    split_gain=1
    threshold=0.5
    decision_type=2
    left_child=-1
    right_child=-2
    leaf_value=0.1 0.2
    leaf_weight=1 1
    leaf_count=1 1
    internal_value=0
    internal_weight=0
    internal_count=2
    is_linear=0
    shrinkage=1


    end of trees

    """,
    #"{"learner":{"feature_names":["a"],"gradient_booster":{"name":"gbtree","model":{"trees":[],"tree_info":[]}},"#
      + #""learner_model_param":{"base_score":"5E-1","num_feature":"1","num_class":"0"},"#
      + #""objective":{"name":"reg:squarederror"}},"#
      + #""version":[2,0,0]}"#,
  ]
}
