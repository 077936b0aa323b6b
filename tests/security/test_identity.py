# SPDX-License-Identifier: Apache-2.0
"""Identity sources and SPIFFE ids.

Does:  default subjects, certificates, refusals, and that no key shows.
Place: nsm_sdk.security.identity, nsm_sdk.security.spiffe_id.
State: none.
"""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.errors import FailedPrecondition, InvalidRequest
from nsm_sdk.security import Insecure, Nobody, Svid, check_spiffe_id, is_spiffe_id, trust_domain
from tests.security.certificates import ISSUED, issue, key_pem


def test_the_default_subject_names_role_and_name() -> None:
    assert Insecure("nsmgr", "nsmgr-1").subject == "spiffe://insecure.test/nsmgr/nsmgr-1"
    assert Insecure("nsc", "a", subject="spiffe://x.org/b").signer().subject == "spiffe://x.org/b"


@given(st.text(), st.text())
def test_any_names_give_a_spiffe_id_and_different_ones_different_ids(one: str, other: str) -> None:
    first, second = Insecure("nsc", one).subject, Insecure("nsc", other).subject
    assert is_spiffe_id(first)
    assert (first == second) == (one == other)


@pytest.mark.parametrize(
    "subject", ["nsc", "http://a/b", "spiffe://", "spiffe://A/b", "spiffe://a/../b", "spiffe://a//"]
)
def test_a_subject_that_is_no_spiffe_id_is_refused(subject: str) -> None:
    with pytest.raises(InvalidRequest):
        Insecure("nsc", "a", subject=subject)
    assert not is_spiffe_id(subject)


def test_trust_domain() -> None:
    assert trust_domain("spiffe://example.org/ns/a") == "example.org"
    assert check_spiffe_id("spiffe://example.org") == "spiffe://example.org"
    with pytest.raises(InvalidRequest):
        trust_domain("example.org")


def test_a_certificate_and_its_key() -> None:
    certificate, key = issue("spiffe://example.org/nsc", not_after=4_000_000_000)
    signer = Svid(certificate, key).signer()
    assert signer.subject == "spiffe://example.org/nsc"
    assert signer.not_after == 4_000_000_000
    assert jwt.get_unverified_header(signer.sign({"sub": "a"})) == {"alg": "ES256", "typ": "JWT"}


def test_certificates_and_keys_that_do_not_do() -> None:
    certificate, key = issue("spiffe://example.org/nsc")
    other = key_pem(ec.generate_private_key(ec.SECP256R1()))
    wrong_curve = key_pem(ec.generate_private_key(ec.SECP384R1()))
    for bad_certificate, bad_key, word in (
        (certificate, other, "not that of the certificate"),
        (certificate, wrong_curve, "P-256"),
        (certificate, key_pem(rsa.generate_private_key(65537, 2048)), "P-256"),
        (certificate, b"secret rubbish", "cannot be read"),
        (b"rubbish", key, "cannot be read"),
        (issue("https://example.org/nsc")[0], None, "not a SPIFFE id"),
        (issue()[0], None, "0 URI names"),
        (issue("spiffe://a/b", "spiffe://a/c")[0], None, "2 URI names"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            # The key that belongs to a certificate is drawn anew in `issue`: names are checked with their own.
            Svid(*(_pair_of(bad_certificate) if bad_key is None else (bad_certificate, bad_key)))
        assert word in str(caught.value)
        assert "secret" not in str(caught.value)


def _pair_of(certificate: bytes) -> tuple[bytes, bytes]:
    return certificate, ISSUED[certificate]


def test_nobody_signs_nothing() -> None:
    with pytest.raises(FailedPrecondition):
        Nobody().signer()


def test_keys_do_not_show() -> None:
    insecure = Insecure("nsc", "a")
    svid = Svid(*issue("spiffe://example.org/nsc"))
    for thing in (insecure, svid, insecure.signer(), svid.signer(), Nobody()):
        assert "key" not in repr(thing).lower()
