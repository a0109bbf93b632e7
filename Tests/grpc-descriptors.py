"""Prints Sources/Wire/ProtoDescriptors.swift: what `protoc` makes of Sources/Wire/Proto, for server reflection.

python grpc-descriptors.py DIRECTORY, in an environment that has grpcio-tools. Tests/grpc compares it with the file.
"""

import base64
import pathlib
import sys
import tempfile
import textwrap

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

root = pathlib.Path(sys.argv[1])
names = sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))
with tempfile.NamedTemporaryFile() as out:
    assert protoc.main(["protoc", f"-I{root}", f"--descriptor_set_out={out.name}", *names]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes()).file

print("// Made by Tests/grpc-descriptors.py from the .proto files; Tests/grpc sees to it that it is what they say.")
print()
print("/// The .proto files of this package, as protobuf's FileDescriptorProto in base64.")
print("enum ProtoDescriptors {")
print("  static let files: [(name: String, base64: String)] = [")
for file in sorted(files, key=lambda file: file.name):
    assert not file.dependency, f"{file.name}: imports are not followed by the server's reflection"
    text = base64.b64encode(file.SerializeToString(deterministic=True)).decode()
    print("    (")
    print(f'      "{file.name}",')
    print('      """')
    print("\\\n".join(f"      {line}" for line in textwrap.wrap(text, 108)))
    print('      """')
    print("    ),")
print("  ]")
print("}")
