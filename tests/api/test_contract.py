# SPDX-License-Identifier: Apache-2.0
"""Our descriptors are the wire contract: nothing missing, nothing extra, in both directions."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from nsm_sdk.api import METHODS, EventType, PrefixType, State
from nsm_sdk.api._gen.descriptors import FILES
from nsm_sdk.api._gen.pool import POOL

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parent / "wire_contract.json").read_text())["packages"]

SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_UINT32: "uint32",
}


def type_text(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The type as the contract writes it."""
    name = SCALARS.get(field.type, field.type_name.removeprefix("."))
    if field.label != FieldDescriptorProto.LABEL_REPEATED:
        return name
    for nested in message.nested_type:
        if nested.options.map_entry and name.endswith(f".{message.name}.{nested.name}"):
            key, value = (type_text(part, nested) for part in nested.field)
            return f"map<{key}, {value}>"
    return f"repeated {name}"


def package(file: FileDescriptorProto) -> dict[str, Any]:
    """A .proto file in the form of the contract."""
    enums = {enum.name: enum for enum in file.enum_type}
    enums |= {f"{message.name}.{enum.name}": enum for message in file.message_type for enum in message.enum_type}
    return {
        "messages": {
            message.name: {
                field.name: {"number": field.number, "type": type_text(field, message)} for field in message.field
            }
            for message in file.message_type
        },
        "enums": {name: {value.name: value.number for value in enum.value} for name, enum in enums.items()},
        "services": {
            service.name: {
                method.name: {
                    "request": "stream " * method.client_streaming + method.input_type.removeprefix("."),
                    "response": "stream " * method.server_streaming + method.output_type.removeprefix("."),
                    "path": f"/{file.package}.{service.name}/{method.name}",
                }
                for method in service.method
            }
            for service in file.service
        },
    }


FILES_BY_PACKAGE = {file.package: file for file in map(FileDescriptorProto.FromString, FILES)}


def test_the_same_packages() -> None:
    assert set(FILES_BY_PACKAGE) - {"google.protobuf"} == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_package_equals_contract(name: str) -> None:
    assert package(FILES_BY_PACKAGE[name]) == CONTRACT[name]


@pytest.mark.parametrize("name", CONTRACT)
def test_every_field_is_in_the_pool_as_in_the_contract(name: str) -> None:
    """The classes come from the pool, so the pool is looked at too, not only the bytes it was filled from."""
    for message, fields in CONTRACT[name]["messages"].items():
        found = POOL.FindMessageTypeByName(f"{name}.{message}").fields_by_name
        assert {field.name: field.number for field in found.values()} == {
            field: facts["number"] for field, facts in fields.items()
        }


def test_proto3_json_names_are_the_default_ones() -> None:
    names = {
        f"{file.package}.{message.name}.{field.name}": field.json_name
        for file in FILES_BY_PACKAGE.values()
        for message in file.message_type
        for field in message.field
    }
    assert names["connectioncontext.ConnectionContext.MTU"] == "MTU"
    assert names["connectioncontext.Route.nextHop"] == "nextHop"
    assert names["connection.Connection.network_service_endpoint_name"] == "networkServiceEndpointName"
    assert {file.syntax for file in FILES_BY_PACKAGE.values()} == {"proto3"}


def test_methods_are_those_of_the_contract() -> None:
    contract = {
        facts["path"]: (facts["request"], facts["response"])
        for content in CONTRACT.values()
        for methods in content["services"].values()
        for facts in methods.values()
    }
    ours = {
        path: (
            "stream " * method.client_streaming + method.request.DESCRIPTOR.full_name,
            "stream " * method.server_streaming + method.response.DESCRIPTOR.full_name,
        )
        for path, method in METHODS.items()
    }
    assert ours == contract
    assert all(str(method) == method.path == path for path, method in METHODS.items())


@pytest.mark.parametrize(("ours", "name"), [(State, "State"), (EventType, "ConnectionEventType"), (PrefixType, "Type")])
def test_enums_are_those_of_the_contract(ours: Any, name: str) -> None:
    where = "ipam" if name == "Type" else "connection"
    assert {value.name: value.value for value in ours} == CONTRACT[where]["enums"][name]


def test_generated_code_is_up_to_date() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: cannot compile the .proto files")
    script = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "generate_api.py"))
    assert script["main"](["--check"]) == 0
