import Glibc

/// Names to addresses, by the system's resolver, which may block for many seconds: never called on a loop.
enum HostLookup {
  static func isNumeric(_ host: String) -> Bool {
    var four = in_addr()
    var six = in6_addr()
    return inet_pton(AF_INET, host, &four) == 1 || inet_pton(AF_INET6, host, &six) == 1
  }

  /// The numeric addresses that a name stands for, in ascending order, or why there are none.
  static func addresses(of host: String) -> Result<[String], LookupError> {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    let code = getaddrinfo(host, nil, &hints, &found)
    guard code == 0 else { return .failure(LookupError(description: String(cString: gai_strerror(code)))) }
    defer { freeaddrinfo(found) }
    var addresses: Set<String> = []
    var next = found
    while let entry = next {
      var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
      let length = socklen_t(text.count)
      if getnameinfo(entry.pointee.ai_addr, entry.pointee.ai_addrlen, &text, length, nil, 0, NI_NUMERICHOST) == 0 {
        addresses.insert(String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
      }
      next = entry.pointee.ai_next
    }
    return addresses.isEmpty ? .failure(LookupError(description: "no address")) : .success(addresses.sorted())
  }

  struct LookupError: Error, CustomStringConvertible { let description: String }
}
