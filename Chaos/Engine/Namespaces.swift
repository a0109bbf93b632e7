import ClusterHarness
import Foundation
import Terminal

// A network of its own for every node, on one machine: each node's processes live in a network namespace with one
// address, and all of them hang on one bridge. What is dropped is dropped by the node's own kernel, and nothing of it
// touches the machine's network.
//
//     [this process's namespace]      bridge 10.77.0.254
//          │            │             │
//       [w1] 10.77.0.1  [w2] .2  …  [c1] .101  [etcd] .200
//
// A namespace lives as long as the process that holds it: when this one ends, however it ends, everything is gone.

package final class NamespaceNetwork: Sendable {
  package init(nodes: [String]) throws { throw CommandError("no namespaces yet") }
  package func address(of node: String) -> String { "" }
  package func prefix(for node: String) -> [String] { [] }
  package func remove() {}
  func hurt(_ fault: PlannedFault) throws -> () throws -> Void { {} }
}
