# SPDX-License-Identifier: Apache-2.0
"""Chains as text, against recorded files; regenerate with NSM_UPDATE_GOLDEN=1."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import END, Call, Chain, Element, Next, Role, Secret, Slot, where
from nsm_sdk.errors import Unavailable
from nsm_sdk.testing import sample_request
from tests.core.elements import Branches, Closes, Keeps, Last, Opens, Passive, Table, Tags, UsesTable

GOLDEN = Path(__file__).parent / "golden"


class Configured(Element):
    """Has all sorts of configuration."""

    def __init__(self, fn: object = len, *, password: str = "") -> None:
        self.names = ["a", 'with "quotes"']
        self.seconds = 1.5
        self.fn = fn
        self.kind = Tags
        self.password = Secret(password)
        self.long = "x" * 100
        self.slot = Slot[int]("public slot")
        self._private = "not shown"


def sample() -> Chain[Next]:
    return Chain(
        "nse",
        Opens(),
        Chain("inner", Tags("a"), Keeps(), Chain("deeper", Closes())),
        UsesTable(Table()),
        Branches(Chain("left way", Tags('say "l"'), Passive()), Branches(Passive(), Tags("r"))),
        Configured(password="hunter2"),
        Last(),
    )


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("NSM_UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()


def test_tree_as_recorded() -> None:
    compare("tree.txt", sample().tree())


def test_mermaid_as_recorded() -> None:
    compare("mermaid.txt", sample().mermaid())


def test_an_empty_chain() -> None:
    assert Chain[Next]("empty").tree() == "empty"
    assert Chain[Next]("empty").mermaid() == 'flowchart TD\n  subgraph n1["empty"]\n  end'


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Passive(), "Passive()"),
        (Tags("a"), "Tags(tag='a')"),
        (Keeps(), "Keeps()"),
        (UsesTable(Table()), "UsesTable()"),
        (Branches(Passive(), Passive()), "Branches()"),
        (Chain[Next]("name"), "name"),
    ],
)
def test_repr_is_one_line_of_public_configuration(layer: Element, text: str) -> None:
    assert repr(layer) == text


def test_functions_classes_and_long_values() -> None:
    text = repr(Configured(print))
    assert "fn=print, kind=Tags" in text
    assert "_private" not in text
    assert "not shown" not in text
    assert "public slot" not in text
    assert len(text) < 300
    assert "fn=compare" in repr(Configured(compare))


def test_messages_are_shown_on_one_line() -> None:
    layer = Tags("a")
    layer.tag = [Mechanism(cls="LOCAL", type="KERNEL")]  # type: ignore[assignment]
    assert repr(layer) == """Tags(tag=[cls: "LOCAL" type: "KERNEL" ])"""
    assert len(Chain("all", layer).tree().splitlines()) == 2


def test_a_flowchart_has_no_markup_of_ours() -> None:
    text = Chain("a <b> #1", Configured(lambda: None)).mermaid()
    assert '["a #lt;b#gt; #35;1"]' in text
    assert "fn=#lt;lambda#gt;" in text


def test_secrets_are_dots_everywhere() -> None:
    secret = Secret("hunter2")
    assert secret == "hunter2"
    assert repr(secret) == "'…'"
    everything = sample().tree() + sample().mermaid() + repr(Configured(password="hunter2"))
    assert "hunter2" not in everything


async def test_where_names_the_deepest_element() -> None:
    class Breaks(Element):
        """Fails in a helper."""

        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            return self.helper()

        def helper(self) -> Connection:
            raise Unavailable("broken")

    bound = Chain("all", Tags("a"), Breaks(), Tags("b")).bind(END)
    async with Role("hop").serving() as running:
        with pytest.raises(Unavailable) as caught:
            await bound.request(running.call(), sample_request())
    assert where(caught.value.__traceback__) == "Breaks.request"


def test_where_outside_of_elements_is_empty() -> None:
    assert where(None) == ""
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018 (the error is the point)
    assert where(caught.value.__traceback__) == ""
