import FuzzBodies
import Glibc

/// libFuzzer's way in; the environment names the body.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  body.run(UnsafeRawBufferPointer(start: data, count: count))
  return 0
}

private let body: FuzzBody = {
  guard let name = getenv("SHORTLIST_FUZZ"), let body = FuzzBody(rawValue: String(cString: name)) else {
    fputs("SHORTLIST_FUZZ must be one of \(FuzzBody.allCases.map(\.rawValue).joined(separator: ", "))\n", stderr)
    exit(2)
  }
  if let directory = getenv("SHORTLIST_FUZZ_SEEDS") {
    for (number, seed) in body.seeds.enumerated() {
      guard let file = fopen("\(String(cString: directory))/seed-\(number)", "w") else { exit(1) }
      fwrite(seed, 1, seed.count, file)
      fclose(file)
    }
    exit(0)
  }
  return body
}()
