# SPDX-License-Identifier: Apache-2.0
"""Service URLs: what is read, what is refused and why, and that writing and reading are inverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Kernel, Mechanism, Request, ServiceUrl
from nsm_sdk.errors import InvalidRequest
from tests.api.tables import REFUSED, answer


def test_all_parts() -> None:
    url = ServiceUrl.parse("kernel://svc@my.domain:5000/nsm-1?app=a&app=b&v=1#note")
    assert url == ServiceUrl(
        mechanism_type="KERNEL", service="svc@my.domain", interface="nsm-1", labels={"app": "a,b", "v": "1"}
    )
    assert str(url) == "kernel://svc@my.domain/nsm-1?app=a%2Cb&v=1"
    view = Kernel.of(url.mechanism())
    assert view is not None
    assert view.interface_name == "nsm-1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "mechanism"),
        ("my-service", "mechanism"),
        ("://svc", "mechanism"),
        ("1kernel://svc", "mechanism"),
        ("kernel:svc", "mechanism"),
        ("kernel://", "no service"),
        ("kernel://@domain", "no service"),
        ("kernel://svc@", "empty domain"),
        ("kernel://svc:port", "port"),
        ("kernel://[::1", "brackets"),
        ("kernel://[::1]x", "brackets"),
        ("kernel://my service", "' '"),
        ("kernel://my%0Aservice", "n'"),
        ("kernel://svc/a-very-long-interface", "bytes"),
        ("kernel://svc/..", "directory"),
        ("kernel://svc/a%2Fb", "'/'"),
        ("kernel://svc?a=%z", "%"),
        ("kernel://svc?a=%ff", "UTF-8"),
        ("kernel://svc?=b", "no name"),
        ("kernel://svc?a=1;b=2", "';'"),
        ("kernel://svc?a=\ud800", "Unicode"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(text: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ServiceUrl.parse(text)
    assert complaint in caught.value.message
    assert repr(text) in caught.value.message
    assert caught.value.hint


@given(
    st.text(max_size=60) | st.text(alphabet="kernl:/@?#&=%[]a;.2F", max_size=30).map(lambda text: f"kernel://{text}")
)
def test_any_text_is_read_or_refused(text: str) -> None:
    found = answer(lambda: ServiceUrl.parse(text))
    if isinstance(found, ServiceUrl):
        assert ServiceUrl.parse(str(found)) == found
    else:
        assert found == REFUSED


def valid(make: Callable[..., Any]) -> Callable[..., Any]:
    """None for parts that are refused."""

    def tried(**parts: Any) -> Any:
        try:
            return make(**parts)
        except InvalidRequest:
            return None

    return tried


SERVICES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=12)
URLS = st.builds(
    valid(ServiceUrl),
    mechanism_type=st.sampled_from(["KERNEL", "MEMIF", "VFIO", "X-1.2+3"]),
    service=st.one_of(SERVICES, st.builds("{}@{}".format, SERVICES, SERVICES), st.just("::1"), st.just("a@b@c:5")),
    interface=st.text(max_size=6),
    labels=st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=6), max_size=4),
).filter(bool)


@given(URLS)
def test_round_trip(url: ServiceUrl) -> None:
    assert ServiceUrl.parse(str(url)) == url
    assert hash(ServiceUrl.parse(str(url))) == hash(url)


@given(URLS)
def test_a_request_made_from_a_url_describes_itself_by_it(url: ServiceUrl) -> None:
    conn = Connection(network_service=url.service, labels=url.labels)
    asked = Request(connection=conn, mechanism_preferences=[url.mechanism(), Mechanism(type="OTHER")])
    assert ServiceUrl.of(asked) == url
    chosen = Request(connection=conn, mechanism_preferences=[Mechanism(type="OTHER")])
    chosen.connection.mechanism.CopyFrom(url.mechanism())
    assert ServiceUrl.of(chosen) == url


def test_a_request_without_mechanism_has_no_url() -> None:
    with pytest.raises(InvalidRequest, match="mechanism"):
        ServiceUrl.of(Request(connection=Connection(network_service="svc")))


def test_it_cannot_be_changed() -> None:
    labels = {"a": "b"}
    url: Any = ServiceUrl(mechanism_type="KERNEL", service="svc", labels=labels)
    labels["a"] = "c"
    assert url.labels == {"a": "b"}
    with pytest.raises(TypeError):
        url.labels["a"] = "c"
    with pytest.raises(dataclasses.FrozenInstanceError):
        url.service = "other"
