# SPDX-License-Identifier: Apache-2.0
"""Messages as nobody in their right mind would send them.

Does:  builds any message of the API from its descriptor, so that no field is forgotten: absent and doubled
       sub-messages, numbers at and beyond the edges, unknown enum values, texts that mean something somewhere (paths,
       addresses, templates, URLs, tokens), and long ones. `mangled` takes a good message and spoils some of it.
Place: tests of untrusted input.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

NAMES = ("nsc", "nsmgr", "forwarder", "fwd", "nse", "registry", "svc", "other", "id-0", "id-1")
"""Names and ids that mean something in the mesh under test."""

TEXTS = (
    "",
    *NAMES,
    "svc@far",
    "@",
    "a@b@c",
    "KERNEL",
    "VXLAN",
    "LOCAL",
    "REMOTE",
    "IP",
    "ETHERNET",
    "nsm-1",
    "sixteen-letters-",
    "..",
    "a/b",
    "\x00",
    "a\x00b",
    "\n\r\t",
    "%d%n%s",
    "\U0001f600" * 4,
    "\u202e\u200b",
    "eyJ" * 200,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.AAAA",
    "10.0.0.1/32",
    "172.16.0.1/32",
    "172.16.0.0/24",
    "0.0.0.0/0",
    "::/0",
    "fe80::1%eth0/64",
    "::ffff:10.0.0.1/128",
    "10.0.0.1/99",
    "10.0.0.1/-1",
    "300.0.0.1/8",
    "02:00:00:00:00:01",
    "ff:ff:ff:ff:ff:ff",
    "80",
    "80-70",
    "0-99999",
    "-1",
    "4294967296",
    "9" * 400,
    "1e999",
    "file:///run/netns/a",
    "file:///proc/self/ns/net",
    "file:///dev/zero",
    "file://",
    "file:///a\x00b",
    "inode://4/4026531840",
    "inode://" + "9" * 60 + "/1",
    "unix:///tmp/nowhere.sock",
    "tcp://127.0.0.1:1",
    "tcp://:99999",
    "inproc://nobody",
    "bogus:address",
    "{{ .app }}",
    "{{ index . `app` }}",
    "{{",
    "{{ end }}",
    "{{ if .a }}{{ else if .b }}",
    "{{ printf `%d` . }}",
    "{{ " + "(" * 64 + " }}",
    "{{ if . }}" * 64,
    "2030-01-01T00:00:00Z",
    "\ufeff\ufffe",
)

LONG = st.builds(
    lambda text, times: text * times, st.sampled_from(("x", "{{", "eyJ", "%", "../", "::")), st.integers(300, 3000)
)

texts = st.one_of(
    st.sampled_from(TEXTS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    LONG,
)

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _numbers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 3), st.sampled_from((low, high, high // 2)), st.integers(low, high))


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in INTEGERS:
        return _numbers(*INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _numbers(-(2**31), 2**31 - 1)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=12) if field.type == FieldDescriptor.TYPE_BYTES else texts
    return st.floats(width=32)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return contents(field.message_type, depth - 1)
    return _scalars(field)


def _content(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field):
        entry: Any = field.message_type
        key, value = (entry.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_scalars(key), _values(value, depth), max_size=3)
    if field.is_repeated:
        return st.lists(_values(field, depth), max_size=3)
    return _values(field, depth)


def contents(descriptor: Descriptor, depth: int = 5) -> st.SearchStrategy[dict[str, Any]]:
    """What to put into the fields of a message, by name; any field may be left out."""

    fields = [field for field in descriptor.fields if depth > 0 or field.message_type is None]
    return st.deferred(
        lambda: st.fixed_dictionaries({}, optional={field.name: _content(field, depth) for field in fields})
    )


def fill(message: Any, content: dict[str, Any]) -> Any:
    """Put `content` into a message, over what is there; lists are appended to."""
    for name, value in content.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if _is_map(field):
            for key, one in value.items():
                if field.message_type.fields_by_name["value"].message_type is not None:
                    fill(getattr(message, name)[key], one)
                else:
                    getattr(message, name)[key] = one
        elif field.is_repeated:
            for one in value:
                if field.message_type is not None:
                    fill(getattr(message, name).add(), one)
                else:
                    getattr(message, name).append(one)
        elif field.message_type is not None:
            inner = getattr(message, name)
            inner.SetInParent()
            fill(inner, value)
        else:
            setattr(message, name, value)
    return message


def messages(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any message of a class."""
    return contents(kind.DESCRIPTOR).map(lambda content: fill(kind(), content))


def mangled(good: Callable[[], Any]) -> st.SearchStrategy[Any]:
    """A good message with something else written over parts of it."""
    return contents(good().DESCRIPTOR).map(lambda content: fill(good(), content))


def _set(message: Any, at: Sequence[Any], value: Any) -> Any:
    """Set one field deep inside; `at` are names and list positions."""
    *way, last = at
    for step in way:
        message = getattr(message, step) if isinstance(step, str) else message[step]
    setattr(message, last, value)
    return message


@st.composite
def spoiled(draw: st.DrawFn, good: Callable[[], Any], keep: Sequence[str] = ("path", "id")) -> Any:
    """A good message in which just a few fields, anywhere inside, are something else.

    Fields named in `keep` mostly stay: without them nothing gets past the first element.
    """
    message = good()
    for _ in range(draw(st.integers(1, 3))):
        target = message
        kept = set(keep) if draw(st.integers(0, 7)) else set()
        while True:
            fields = [field for field in target.DESCRIPTOR.fields if field.name not in kept]
            field = draw(st.sampled_from(fields))
            inner = getattr(target, field.name)
            if field.message_type is not None and not _is_map(field) and draw(st.integers(0, 5)) != 0:
                if not field.is_repeated:
                    target = inner
                    continue
                if len(inner):
                    target = inner[draw(st.integers(0, len(inner) - 1))]
                    continue
            break
        match draw(st.sampled_from(("clear", "fill", "double"))):
            case "clear":
                target.ClearField(field.name)
            case "double" if field.is_repeated and not _is_map(field) and len(inner):
                inner.extend(list(inner) * draw(st.integers(1, 40)))
            case _:
                fill(target, {field.name: draw(_content(field, 3))})
    return message


wire_bytes = st.one_of(
    st.binary(max_size=64),
    # A length-delimited field with bytes that are no UTF-8, alone and nested.
    st.binary(min_size=1, max_size=20).map(lambda raw: bytes([10, len(raw) + 2, 10, len(raw)]) + raw),
    st.integers(1, 120).map(lambda depth: b"\x0b" * depth),
    st.integers(1, 400).map(lambda depth: b"\x0a\x7f" * depth),
)
"""What is no message, or hardly one."""

TOKEN = "nsm-client-token"
EXPIRES = "nsm-client-token-expires"
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def metadata(good: str, until: str) -> st.SearchStrategy[dict[str, str]]:
    """What goes beside a message: mostly the good token, else something odd."""
    right = st.just({TOKEN: good, EXPIRES: until})
    odd = st.fixed_dictionaries(
        {},
        optional={
            TOKEN: st.one_of(
                printable,
                st.sampled_from((good, "a.b.c", f"{good},{good}", "eyJ" * 3000, "..", "a." + "A" * 99 + ".b")),
            ),
            EXPIRES: st.one_of(
                printable,
                st.sampled_from(
                    (
                        until,
                        "0001-01-01T00:00:00Z",
                        "9999-12-31T23:59:59.999999999Z",
                        "0000-00-00T00:00:00Z",
                        "9999-12-31T23:59:59-23:59",
                    )
                ),
            ),
            "path": st.one_of(
                printable,
                st.sampled_from(
                    (
                        "null",
                        "{}",
                        '{"Index":0,"PathSegments":null}',
                        '{"Index":4294967295,"PathSegments":[{"token":"x"}]}',
                        '{"Index":-1,"PathSegments":[]}',
                        '{"Index":1e400,"PathSegments":[]}',
                        '{"Index":1,"PathSegments":[null,{"token":null},{"token":1}]}',
                        "[" * 3000,
                        '{"Index":0,"PathSegments":[' + ",".join(["{}"] * 300) + "]}",
                        '{"Index":0,"PathSegments":[{"token":"\\ud800"}]}',
                        '{"Index":0,"index":true}',
                    )
                ),
            ),
        },
    )
    return st.one_of(right, right, odd)
