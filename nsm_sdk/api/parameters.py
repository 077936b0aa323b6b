# SPDX-License-Identifier: Apache-2.0
"""Typed access to one mechanism parameter.

Does:  each class is a descriptor that reads a parameter's text as a value (whatever a peer wrote: what cannot be read
       is as if absent), writes a value as its text, and can say what is wrong with a text. Writing None removes the
       parameter; writing a value out of range raises InvalidRequest.
Place: the views of nsm_sdk.api.mechanism.
State: none; the values are in the mechanism message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from nsm_sdk.api._gen.connection import Mechanism
from nsm_sdk.errors import InvalidRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class HasMechanism(Protocol):
    """What a parameter is read from."""

    @property
    def mechanism(self) -> Mechanism:
        """The message that holds the parameters."""
        ...


class Parameter(Generic[T]):
    """One parameter, stored under `key`, of a view that has a `mechanism`."""

    def __init__(self, key: str, absent: T, check: Callable[[str], None] | None = None) -> None:
        self.key = key
        self.absent = absent
        self._check = check

    @overload
    def __get__(self, view: None, owner: type[Any]) -> Parameter[T]: ...
    @overload
    def __get__(self, view: HasMechanism, owner: type[Any]) -> T: ...
    def __get__(self, view: HasMechanism | None, owner: type[Any]) -> T | Parameter[T]:
        if view is None:
            return self
        # `.get`: subscripting a map of a message would insert the key
        text = view.mechanism.parameters.get(self.key)
        return self.absent if text is None else self.read(text)

    def __set__(self, view: HasMechanism, value: T | None) -> None:
        if value is None:
            view.mechanism.parameters.pop(self.key, None)
        else:
            view.mechanism.parameters[self.key] = self.write(value)

    def read(self, text: str) -> T:
        """The value of a text; `absent` if it has none."""
        raise NotImplementedError

    def write(self, value: T) -> str:
        """The text of a value; InvalidRequest if it has none."""
        return str(value)

    def validate(self, text: str) -> None:
        """Raises InvalidRequest unless the text is in order."""
        if self._check is not None:
            self._check(text)

    def refuse(self, text: str, wanted: str) -> InvalidRequest:
        """The error for a text or value that is not what is wanted."""
        return InvalidRequest(f"mechanism parameter {self.key} is {text[:64]!r}", hint=f"give {wanted}")


class Text(Parameter[str]):
    """A text; empty if absent."""

    def __init__(self, key: str, check: Callable[[str], None] | None = None) -> None:
        super().__init__(key, "", check)

    def read(self, text: str) -> str:
        return text


class Number(Parameter[int]):
    """A decimal number from 0 to `largest`; 0 if absent."""

    def __init__(self, key: str, largest: int) -> None:
        super().__init__(key, 0)
        self.largest = largest

    def read(self, text: str) -> int:
        # The length bounds the work: Python refuses to convert thousands of digits, with a ValueError
        if not (text.isascii() and text.isdigit()) or len(text) > 32:
            return 0
        value = int(text)
        return value if value <= self.largest else 0

    def write(self, value: int) -> str:
        text = str(int(value))
        self.validate(text)
        return text

    def validate(self, text: str) -> None:
        if self.read(text) == 0 and (not text or text.strip("0") or len(text) > 32):
            raise self.refuse(text, f"a decimal number from 0 to {self.largest}")


class Flag(Parameter[bool]):
    """A truth value; false if absent."""

    def __init__(self, key: str) -> None:
        super().__init__(key, False)

    def read(self, text: str) -> bool:
        return text in _TRUE

    def write(self, value: bool) -> str:
        return "true" if value else "false"

    def validate(self, text: str) -> None:
        if text not in _TRUE and text not in _FALSE:
            raise self.refuse(text, "true or false")


class Address(Parameter[IPAddress | None]):
    """An IP address without mask; None if absent. An IPv4 address in IPv6 notation is read as IPv4."""

    def __init__(self, key: str) -> None:
        super().__init__(key, None)

    def read(self, text: str) -> IPAddress | None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                return None
            return address.ipv4_mapped or address
        return address

    def validate(self, text: str) -> None:
        if self.read(text) is None:
            raise self.refuse(text, "an IP address without mask")


class Lines(Parameter[Sequence[str] | None]):
    """Several texts joined by ";"; None if absent."""

    def __init__(self, key: str) -> None:
        super().__init__(key, None)

    def read(self, text: str) -> Sequence[str] | None:
        return text.split(";")

    def write(self, value: Sequence[str] | None) -> str:
        return ";".join(value or ())


def matching(key: str, pattern: str, wanted: str) -> Callable[[str], None]:
    """A check for texts that may be empty or must match the whole pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> None:
        if text and compiled.fullmatch(text) is None:
            raise InvalidRequest(f"mechanism parameter {key} is {text[:64]!r}", hint=f"give {wanted}")

    return check
