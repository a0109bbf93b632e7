import ClusterHarness
import HTTP2
import Terminal

extension Command {
  static let certs = Command(
    name: "certs",
    summary: "Make a CA and certificates for development",
    discussion: """
      Makes DIR/ca.pem and DIR/ca.key, or uses those that are there, and NAME.pem and NAME.key for each name. A
      coordinator's and a worker's certificate name that role in a URI, "urn:shortlist:coordinator"; an operator's opens
      the admin port and the workers' pages; --public makes one for the port that faces clients.
      In production the certificates come from the company's own CA, with the same URIs.
      """,
    example: "shortlist certs --out certs --coordinators c1 --workers w1,w2,w3 --operators ops --hosts 10.0.0.7",
    options: [
      .text("out", "DIR", "where they go; made if need be, and private").required,
      .text("coordinators", "A,B,…", "names of coordinators"),
      .text("workers", "A,B,…", "names of workers"),
      .text("operators", "A,B,…", "names of people and their tools"),
      .text("public", "NAME", "the name of the public port's"),
      .text("hosts", "A,B,…", "DNS names and IP addresses they are reached at (default: localhost,127.0.0.1,::1)"),
      .integer("days", "how long they are good", in: 1...3650, standard: 90),
    ],
    run: { try makeCertificates($0) })

  private static func makeCertificates(_ call: Invocation) throws -> Int32 {
    let directory = CertificateDirectory(path: call.text("out"))
    func list(_ option: String) -> [String] {
      call.optional(option)?.split(separator: ",").map(String.init) ?? []
    }
    let hosts = call.optional("hosts") == nil ? ["localhost", "127.0.0.1", "::1"] : list("hosts")
    let named: [(String, NodeRole)] = [
      ("coordinators", .coordinator), ("workers", .worker), ("operators", .operator), ("public", []),
    ]
    let requests = named.flatMap { option, roles in
      list(option).map { CertificateDirectory.Request($0, roles, hosts: hosts, days: call.integer("days")) }
    }
    guard Set(requests.map(\.name)).count == requests.count else {
      throw UsageError("a name is given twice; each certificate needs a name of its own")
    }
    let isNew = try directory.makeAuthority()
    try directory.issue(requests)
    if call.json {
      try Console.printJSON(["ca": directory.authority, "names": requests.map(\.name).joined(separator: ",")])
    } else {
      Console.print("\(directory.authority): \(isNew ? "made" : "was there, and used")")
      for request in requests {
        Console.print("\(directory.path)/\(request.name).pem and .key: \(request.hosts.joined(separator: ", "))")
      }
    }
    return 0
  }
}
