import RankingCore

// How workers become known and are forgotten, beside those that the configuration names when a coordinator starts.
//
//     Join(name, incarnation, address) ─► new name?      a member, connected to
//                                         known name?    the same member: perhaps at another address, perhaps back
//     DNS name ─► its addresses now    ─► new address?   a member named by its address
//                                         no longer there? gone once it does not answer; one that does stays, so that a
//                                                          resolver's hiccup costs nothing

/// What came of a join.
public enum JoinOutcome: Sendable, Equatable {
  case accepted
  /// Why not, in one sentence.
  case refused(String)
}

extension Membership {
  /// A worker that the configuration names.
  public mutating func configured(
    name: String, address: String, now: Instant, into effects: inout [Effect]
  ) -> WorkerID {
    let id = byName[name] ?? newMember(name: name, address: address, origin: .configured, now: now, into: &effects)
    members[id.index].address = address
    effects.append(.connect(id, address: address))
    return id
  }

  /// A worker says that it is there.
  public mutating func joined(_ request: JoinRequest, now: Instant, into effects: inout [Effect]) -> JoinOutcome {
    guard let id = byName[request.name] else {
      guard members.count < policy.membersMax || reusable(now) != nil else {
        return .refused("\(policy.membersMax) workers are known, the most one coordinator takes")
      }
      let id = newMember(name: request.name, address: request.address, origin: .joined, now: now, into: &effects)
      effects.append(.connect(id, address: request.address))
      refreshDue()
      return .accepted
    }
    let member = members[id.index]
    if member.address == request.address {
      if member.state == .gone, !member.isLinked, member.origin == .joined {
        setState(id, .joining, now: now, into: &effects)
        effects.append(.connect(id, address: request.address))
      }
      return .accepted
    }
    guard !member.isUsable || member.status?.incarnation == request.incarnation else {
      return .refused(
        "a worker named \"\(request.name)\" is alive at \(member.address); names must differ within a cluster")
    }
    members[id.index].address = request.address
    members[id.index].origin = .joined
    members[id.index].isLinked = false
    members[id.index].isLeaving = false
    setState(id, .joining, now: now, into: &effects)
    effects.append(.disconnect(id))
    effects.append(.connect(id, address: request.address))
    refreshDue()
    return .accepted
  }

  /// A worker says that it wants to go: from now on it is asked only where nobody else can be.
  /// - Returns: the members that are that process: more than one when it is known by join and by DNS.
  public mutating func leaving(_ request: LeaveRequest, into effects: inout [Effect]) -> [WorkerID] {
    var leaving: [WorkerID] = []
    for member in members where member.status?.incarnation == request.incarnation {
      guard member.name == request.name || member.status?.name == request.name else { continue }
      leaving.append(member.id)
      if !member.isLeaving {
        members[member.id.index].isLeaving = true
        effects.append(.changed(member.id))
      }
    }
    return leaving
  }

  /// A DNS name stands for these addresses (host:port) now. An empty list is a resolver's failure, not news.
  public mutating func resolved(
    source: String, addresses: [String], now: Instant, into effects: inout [Effect]
  ) {
    guard !addresses.isEmpty else { return }
    for address in addresses {
      if let id = byName[address], members[id.index].origin == .resolved(source) {
        members[id.index].isListed = true
        if members[id.index].state == .gone, !members[id.index].isLinked {
          setState(id, .joining, now: now, into: &effects)
          effects.append(.connect(id, address: address))
        }
      } else if byName[address] == nil, members.count < policy.membersMax || reusable(now) != nil {
        let id = newMember(name: address, address: address, origin: .resolved(source), now: now, into: &effects)
        effects.append(.connect(id, address: address))
      }
    }
    for index in members.indices
    where members[index].origin == .resolved(source) && !addresses.contains(members[index].address) {
      members[index].isListed = false
      if !members[index].isUsable { retire(members[index].id, now: now, into: &effects) }
    }
    refreshDue()
  }

  /// Gives a member up for good, unless it comes back.
  mutating func retire(_ id: WorkerID, now: Instant, into effects: inout [Effect]) {
    guard members[id.index].state != .gone else { return }
    members[id.index].downSince = now
    setState(id, .gone, now: now, into: &effects)
    effects.append(.disconnect(id))
  }

  /// A number whose worker has been gone for so long that no request remembers it.
  private func reusable(_ now: Instant) -> WorkerID? {
    members.first { member in
      guard member.state == .gone, !member.isLinked, member.origin != .configured, let since = member.downSince else {
        return false
      }
      return now >= since + policy.forgottenAfter
    }?.id
  }

  private mutating func newMember(
    name: String, address: String, origin: MemberOrigin, now: Instant, into effects: inout [Effect]
  ) -> WorkerID {
    let id: WorkerID
    if let old = reusable(now) {
      id = old
      byName[members[old.index].name] = nil
      members[old.index] = Member(id: old, name: name, address: address, origin: origin, now: now)
      effects.append(.renewed(old))
    } else {
      id = WorkerID(members.count)
      members.append(Member(id: id, name: name, address: address, origin: origin, now: now))
    }
    byName[name] = id
    return id
  }

  /// One process may be known by join and by DNS: the member with the smaller number is used.
  mutating func findDuplicates(of id: WorkerID) {
    guard let status = members[id.index].status else { return }
    members[id.index].isDuplicate = members[..<id.index].contains { other in
      other.isLinked && other.state != .gone && other.status?.incarnation == status.incarnation
        && other.status?.name == status.name
    }
  }
}
