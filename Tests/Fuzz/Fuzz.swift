import FuzzBodies
import Glibc

/// libFuzzer's driver, which takes the one body that the environment names.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ count: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
  _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// What the package manager calls this program's `main`; libFuzzer's own would get in its way.
@_cdecl("Fuzz_main")
public func fuzzMain(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
  var (count, arguments) = (count, arguments)
  return runDriver(&count, &arguments) { data, size in
    body.run(UnsafeRawBufferPointer(start: data, count: size))
    return 0
  }
}

private let body: FuzzBody = {
  guard let name = getenv("SHORTLIST_FUZZ"), let body = FuzzBody(rawValue: String(cString: name)) else {
    print("SHORTLIST_FUZZ must be one of \(FuzzBody.allCases.map(\.rawValue).joined(separator: ", "))")
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
