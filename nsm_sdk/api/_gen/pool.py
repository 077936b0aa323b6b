# SPDX-License-Identifier: Apache-2.0
"""The descriptor pool that the SDK's messages live in.

Does:  loads the descriptors into a pool of their own and gives the classes and enum values of a full name.
Place: below the generated modules.
State: the pool, filled once at import and not changed after.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nsm_sdk.api._gen.descriptors import FILES

# The default pool refuses a second file that defines `connection.Connection`; an application may have loaded one.
POOL = DescriptorPool()
for _file in FILES:
    POOL.AddSerializedFile(_file)


def message_class(full_name: str) -> type[Message]:
    """The class of the message `full_name` ("connection.Path"); the same one each time."""
    found: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(full_name))
    return found


def enum_values(full_name: str) -> list[tuple[str, int]]:
    """Names and numbers of the enum `full_name`, in the order they were declared."""
    return [(value.name, value.number) for value in POOL.FindEnumTypeByName(full_name).values]
