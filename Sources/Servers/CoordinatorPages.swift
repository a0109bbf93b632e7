import Glibc
import Membership
import Nodes
import RankingCore
import Routing
import Transport
import Wire

// What a coordinator shows: the metrics page, and the cluster as it sees it.

enum CoordinatorMetricsPage {
  static func text(
    node: CoordinatorNode, metrics: CoordinatorMetrics, now: Instant
  ) -> MetricsText {
    var text = MetricsText()
    metrics.write(into: &text)
    write(node.router, into: &text)
    write(node, now: now, into: &text)
    ProcessFigures().write(into: &text)
    return text
  }

  private static func write(_ router: Router, into text: inout MetricsText) {
    let counters = router.counters
    text.family("shortlist_legs_total", "counter", "Calls to workers, by kind.")
    for (kind, count) in [
      ("primary", counters.primaryLegs), ("retry", counters.retryLegs), ("hedge", counters.hedgeLegs),
    ] { text.line("shortlist_legs_total", "kind=\"\(kind)\"", "\(count)") }
    text.counter("shortlist_outrun_legs_total", "Legs taken back as another was quicker.", counters.outrunLegs)
    text.counter("shortlist_retries_refused_total", "Retries that the budget did not allow.", counters.retriesRefused)
    text.counter("shortlist_hedges_delayed_total", "Slow legs that found no token at once.", counters.hedgesDelayed)
    text.gauge("shortlist_retry_tokens", "Retries that could be paid for now.", router.retryTokens)
    text.gauge("shortlist_hedge_tokens", "Hedges that could be paid for now.", router.hedgeTokens)
    text.counter("shortlist_late_replies_total", "Replies to legs that nobody waited for.", counters.lateReplies)
    text.counter("shortlist_invalid_replies_total", "Replies that broke the protocol.", counters.invalidReplies)
    text.counter("shortlist_dropped_nan_total", "Items left out because a ranker gave NaN.", counters.droppedNaN)
    text.counter("shortlist_requests_refused_total", "Requests refused at admission.", counters.refused)
    text.counter("shortlist_requests_lowered_total", "Requests admitted with a lower R.", counters.lowered)
    text.family("shortlist_ejections_total", "counter", "Workers ejected, by what was seen.")
    let ejections = router.ejections
    for (reason, count) in [
      ("connection_lost", ejections.lost), ("failures", ejections.failures),
      ("success_rate", ejections.successRate), ("slow", ejections.slow),
    ] { text.line("shortlist_ejections_total", "reason=\"\(reason)\"", "\(count)") }
    text.counter("shortlist_ejections_ignored_total", "Ejections begun in panic mode.", ejections.ignored)
    text.gauge("shortlist_requests_in_flight", "Requests being answered.", Double(router.inFlight))
    text.family("shortlist_shards_ready", "gauge", "Shards with a ready replica, by version.")
    for entry in router.catalog.entries {
      text.line("shortlist_shards_ready", labels(entry.release.id), "\(entry.replicas.readyShards)")
    }
    text.family("shortlist_shards", "gauge", "Shards, by version.")
    for entry in router.catalog.entries {
      text.line("shortlist_shards", labels(entry.release.id), "\(entry.release.shardCount)")
    }
  }

  private static func write(_ node: CoordinatorNode, now: Instant, into text: inout MetricsText) {
    text.family("shortlist_worker_up", "gauge", "1 when the worker may be asked.")
    for member in node.membership.members {
      text.line("shortlist_worker_up", label(member), member.isUsable ? "1" : "0")
    }
    text.family("shortlist_worker_ejected", "gauge", "1 while the worker is ejected.")
    for member in node.membership.members {
      let isEjected = node.router.view(of: member.id, now: now)?.isEjected ?? false
      text.line("shortlist_worker_ejected", label(member), isEjected ? "1" : "0")
    }
    text.family("shortlist_member_transitions_total", "counter", "Changes of workers' states, by the new one.")
    for (state, count) in zip(MemberState.allCases, node.membership.transitions) {
      text.line("shortlist_member_transitions_total", "state=\"\(state.rawValue)\"", "\(count)")
    }
    guard let driver = node.driver else { return }
    text.counter("shortlist_loads_ordered_total", "Load orders given.", driver.loadsOrdered)
    text.counter("shortlist_unloads_ordered_total", "Unload orders given.", driver.unloadsOrdered)
    text.counter("shortlist_stale_orders_total", "Orders that a worker refused as old.", driver.staleOrders)
  }
  private static func label(_ member: Member) -> String { "worker=\"\(MetricsText.escaped(member.name))\"" }
  private static func labels(_ id: ModelVersion) -> String { "model=\"\(id.model)\",version=\"\(id.version)\"" }
}

/// `GET /v1/cluster`: members, and what each says it holds.
enum ClusterJSON {
  static func write(_ node: CoordinatorNode, now: Instant) -> [UInt8] {
    var json = JSONWriter()
    json.literal("{\"drives\":")
    json.boolean(node.driver != nil)
    json.literal(",\"releases\":[")
    for (index, entry) in node.router.catalog.entries.enumerated() {
      json.literal(index == 0 ? "{\"model\":" : ",{\"model\":")
      json.string(entry.release.id.model)
      json.literal(",\"version\":")
      json.string(entry.release.id.version)
      json.literal(",\"shards\":")
      json.number(entry.release.shardCount)
      json.literal(",\"fingerprint\":")
      json.string(String(entry.release.fingerprint, radix: 16))
      json.literal(",\"published\":")
      json.boolean(entry.isPublished)
      json.literal(",\"replicas\":[")
      for (shard, replicas) in entry.replicas.replicas.enumerated() {
        if shard > 0 { json.literal(",") }
        json.number(replicas.count)
      }
      json.literal("]}")
    }
    json.literal("],\"workers\":[")
    for (index, member) in node.membership.members.enumerated() {
      if index > 0 { json.literal(",") }
      write(member, node.router.view(of: member.id, now: now), into: &json)
    }
    json.literal("]}\n")
    return json.bytes
  }

  private static func write(_ member: Member, _ view: Router.WorkerView?, into json: inout JSONWriter) {
    json.literal("{\"name\":")
    json.string(member.name)
    json.literal(",\"address\":")
    json.string(member.address)
    json.literal(",\"state\":")
    json.string(member.state.rawValue)
    json.literal(",\"zone\":")
    json.string(member.status?.zone ?? "")
    json.literal(",\"draining\":")
    json.boolean(member.isDraining)
    json.literal(",\"ejected\":")
    json.boolean(view?.isEjected ?? false)
    json.literal(",\"legs_in_flight\":")
    json.number(view?.legsInFlight ?? 0)
    json.literal(",\"latency_ms\":")
    json.milliseconds((view?.latency ?? .zero).milliseconds)
    if let delay = view?.hedgeDelay {
      json.literal(",\"hedge_delay_ms\":")
      json.milliseconds(delay.milliseconds)
    }
    json.literal(",\"admits\":")
    json.number(member.status?.admits ?? 0)
    json.literal(",\"held_bytes\":")
    json.number(Int(clamping: member.status?.heldBytes ?? 0))
    json.literal(",\"capacity_bytes\":")
    json.number(Int(clamping: member.status?.capacityBytes ?? 0))
    json.literal(",\"holdings\":[")
    for (index, holding) in (member.status?.holdings ?? []).enumerated() {
      json.literal(index == 0 ? "{\"model\":" : ",{\"model\":")
      json.string(holding.release.model)
      json.literal(",\"version\":")
      json.string(holding.release.version)
      for (name, shards) in [
        (",\"ready\":[" as StaticString, holding.ready), (",\"loading\":[", holding.loading),
        (",\"failed\":[", holding.failed),
      ] {
        json.literal(name)
        for (place, shard) in shards.enumerated() {
          if place > 0 { json.literal(",") }
          json.number(shard.index)
        }
        json.literal("]")
      }
      json.literal(",\"fingerprint\":")
      json.string(String(holding.fingerprint, radix: 16))
      json.literal("}")
    }
    json.literal("]}")
  }
}
