# SPDX-License-Identifier: Apache-2.0
"""Makes the generated part of nsm_sdk/api from nsm_sdk/api/proto/*.proto.

Does:  compiles the .proto files to one descriptor set (protoc of grpcio-tools) and writes nsm_sdk/api/_gen: the
       descriptors as bytes, and for each package a module with its classes and a stub with their full types.
       Run `python tools/generate_api.py`; with `--check` it writes nothing and fails when the files are not up to date.
Place: by hand, after a change of a .proto file; the result is committed.
State: none.
"""

from __future__ import annotations

import importlib.resources
import keyword
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

API = Path(__file__).resolve().parents[1] / "nsm_sdk" / "api"
PROTO = API / "proto"
GENERATED = API / "_gen"
HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Made by tools/generate_api.py from nsm_sdk/api/proto; do not edit.\n"

SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_DOUBLE: "float",
    FieldDescriptorProto.TYPE_ENUM: "int",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_INT32: "int",
    FieldDescriptorProto.TYPE_INT64: "int",
    FieldDescriptorProto.TYPE_STRING: "str",
    FieldDescriptorProto.TYPE_UINT32: "int",
    FieldDescriptorProto.TYPE_UINT64: "int",
}

STUB_IMPORTS = """\
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar

from google.protobuf.internal.containers import (
    MessageMap,
    RepeatedCompositeFieldContainer,
    RepeatedScalarFieldContainer,
    ScalarMap,
)
from google.protobuf.internal.well_known_types import Timestamp as TimestampMethods
from google.protobuf.message import Message
"""


def compile_protos() -> FileDescriptorSet:
    """All .proto files and the well-known ones they import, in an order in which a pool can take them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        common = str(importlib.resources.files("grpc_tools") / "_proto")
        names = sorted(path.name for path in PROTO.glob("*.proto"))
        status = protoc.main(["protoc", f"-I{PROTO}", f"-I{common}", "--include_imports", f"-o{out}", *names])
        if status:
            raise SystemExit(f"protoc failed with status {status}")
        return FileDescriptorSet.FromString(out.read_bytes())


def module_name(file: FileDescriptorProto) -> str:
    """The module of a file: its package; well-known types share one."""
    return "wellknown" if file.package == "google.protobuf" else file.package


class Package:
    """One generated module: the messages and enums of a proto package."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[tuple[str, DescriptorProto]] = []
        self.enums: list[EnumDescriptorProto] = []

    def runtime(self) -> str:
        """Text of the .py file."""
        enums = ["from enum import IntEnum", ""] if self.enums else []
        helpers = "enum_values, message_class" if self.enums else "message_class"
        lines = [HEAD, *enums, f"from nsm_sdk.api._gen.pool import {helpers}", ""]
        lines += [f'{message.name} = message_class("{full}")' for full, message in self.messages]
        lines += [
            f'{enum.name} = IntEnum("{enum.name}", enum_values("{self.name}.{enum.name}"), module=__name__)'
            for enum in self.enums
        ]
        return "\n".join(lines) + "\n"

    def stub(self) -> str:
        """Text of the .pyi file."""
        body: list[str] = []
        for enum in self.enums:
            body += ["", f"class {enum.name}(IntEnum):"]
            body += [f"    {value.name} = {value.number}" for value in enum.value]
        for full, message in self.messages:
            body += ["", *self.message_stub(full, message)]
        others = sorted({word for line in body for word in self.foreign(line)})
        # Under another name: a field called `connection` would hide the module of that name
        imports = [f"from nsm_sdk.api._gen import {other} as _{other}" for other in others]
        return "\n".join([HEAD, STUB_IMPORTS, *imports, *body]) + "\n"

    def foreign(self, line: str) -> list[str]:
        """Sibling modules that a line of the stub speaks of."""
        return re.findall(r"\b_([a-z]+)\.(?=[A-Z])", line)

    def type_name(self, full: str) -> str:
        package, _, name = full.removeprefix(".").rpartition(".")
        package = "wellknown" if package == "google.protobuf" else package
        return name if package == self.name else f"_{package}.{name}"

    def message_stub(self, full: str, message: DescriptorProto) -> Iterator[str]:
        mixin = "TimestampMethods, " if full == "google.protobuf.Timestamp" else ""
        yield f"class {message.name}({mixin}Message):"
        for enum in message.enum_type:
            yield from (f"    {value.name}: ClassVar[int]" for value in enum.value)
        maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        arguments: list[str] = []
        reserved = False
        for field in message.field:
            read, write, plain = self.field_types(field, maps)
            if keyword.iskeyword(field.name):
                # Only getattr/setattr and a ** argument can reach such a field
                reserved = True
                continue
            arguments.append(f"{field.name}: {write} | None = ...")
            if plain:
                yield f"    {field.name}: {read}"
            else:
                yield "    @property"
                yield f"    def {field.name}(self) -> {read}: ..."
        if reserved:
            arguments.append("**kwargs: Any")
        if arguments and not arguments[0].startswith("**"):
            arguments.insert(0, "*")
        yield f"    def __init__({', '.join(['self', *arguments])}) -> None: ..."

    def field_types(self, field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> tuple[str, str, bool]:
        """(type when read, type accepted by the constructor, may be assigned)."""
        repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
        if field.type != FieldDescriptorProto.TYPE_MESSAGE:
            scalar = SCALARS[field.type]
            if repeated:
                return f"RepeatedScalarFieldContainer[{scalar}]", f"Iterable[{scalar}]", False
            return scalar, scalar, True
        entry = maps.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = entry.field
            if value.type == FieldDescriptorProto.TYPE_MESSAGE:
                kind = self.type_name(value.type_name)
                return f"MessageMap[{SCALARS[key.type]}, {kind}]", f"Mapping[{SCALARS[key.type]}, {kind}]", False
            pair = f"{SCALARS[key.type]}, {SCALARS[value.type]}"
            return f"ScalarMap[{pair}]", f"Mapping[{pair}]", False
        kind = self.type_name(field.type_name)
        if repeated:
            return f"RepeatedCompositeFieldContainer[{kind}]", f"Iterable[{kind}]", False
        return kind, kind, False


def descriptors_module(files: FileDescriptorSet) -> str:
    """Text of the module that holds the descriptors, one bytes literal for each file."""
    lines = [HEAD, "FILES: tuple[bytes, ...] = ("]
    for file in files.file:
        data = file.SerializeToString(deterministic=True)
        lines.append(f"    # {file.name}")
        lines.append("    (")
        lines += [f"        {data[at : at + 64]!r}" for at in range(0, len(data), 64)]
        lines.append("    ),")
    lines.append(")")
    return "\n".join(lines) + "\n"


def generate() -> dict[Path, str]:
    """Path -> text of every generated file."""
    files = compile_protos()
    packages: dict[str, Package] = {}
    for file in files.file:
        package = packages.setdefault(module_name(file), Package(module_name(file)))
        package.messages += [(f"{file.package}.{message.name}", message) for message in file.message_type]
        package.enums += file.enum_type
    made = {GENERATED / "descriptors.py": descriptors_module(files)}
    for package in packages.values():
        made[GENERATED / f"{package.name}.py"] = package.runtime()
        made[GENERATED / f"{package.name}.pyi"] = package.stub()
    return made


def main(arguments: Sequence[str]) -> int:
    """Writes the files, or compares them; the exit status tells."""
    made = generate()
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
        for path in stale:
            print(f"{path.relative_to(API.parents[1])} is not what the .proto files give; run tools/generate_api.py")
        return 1 if stale else 0
    for path, text in made.items():
        path.write_text(text)
        print(path.relative_to(API.parents[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
