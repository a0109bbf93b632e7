import Foundation

package enum HTMLReport {
  package static func page(_ report: ChaosReport) -> String { "" }
}
