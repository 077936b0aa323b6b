# SPDX-License-Identifier: Apache-2.0
"""Where a hop's own identity comes from.

Does:  a `Source` answers the `Signer` of the moment: a subject, and what signs for it. `Insecure` has a fixed throwaway
       key that everybody knows; `Svid` signs with the key of an X.509 certificate.
Place: below `TokenGenerator`.
State: keys, which no repr shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nsm_sdk.errors import FailedPrecondition, InvalidRequest
from nsm_sdk.security.spiffe_id import check_spiffe_id, path_part

_THROWAWAY = b"nsm_sdk insecure identity: everybody knows this key, it protects nothing"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signer:
    """One identity with its key; never changes, a rotated key is another signer."""

    subject: str
    """SPIFFE id."""
    not_after: float = math.inf
    """Wall time after which nothing that it signed holds."""
    algorithm: str = field(repr=False)
    key: Any = field(repr=False)
    """What PyJWT signs with: bytes, or a private key."""

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims."""
        token: str = jwt.encode(dict(claims), self.key, algorithm=self.algorithm)
        return token


class Source(Protocol):
    """Answers who this hop is at the moment."""

    def signer(self) -> Signer:
        """The present signer, the same object until the key changes. FailedPrecondition when there is none."""
        ...


class Insecure:
    """An identity for laptops and tests: tokens are signed with a key that is no secret.

    The subject is `spiffe://insecure.test/<role>/<name>` unless given. InvalidRequest if it is not a SPIFFE id.
    """

    def __init__(self, role: str, name: str, *, subject: str = "") -> None:
        self.subject = check_spiffe_id(subject or f"spiffe://insecure.test/{path_part(role)}/{path_part(name)}")
        self._signer = Signer(subject=self.subject, algorithm="HS256", key=_THROWAWAY)

    def signer(self) -> Signer:
        """Always the same."""
        return self._signer

    def __repr__(self) -> str:
        return f"Insecure(subject={self.subject!r})"


class Svid:
    """An identity from an X.509 certificate with one SPIFFE id and its P-256 key, both PEM."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        leaf, private = _leaf(certificate), _private(key)
        if leaf.public_key() != private.public_key():
            raise InvalidRequest("the private key is not that of the certificate", hint="give a pair that belongs")
        self.subject = spiffe_id(leaf)
        self._signer = Signer(
            subject=self.subject,
            not_after=leaf.not_valid_after_utc.timestamp(),
            algorithm="ES256",
            key=private,
        )

    def signer(self) -> Signer:
        """The certificate's."""
        return self._signer

    def __repr__(self) -> str:
        return f"Svid(subject={self.subject!r})"


class Nobody:
    """No identity: every attempt to sign is refused."""

    def signer(self) -> Signer:
        """FailedPrecondition, always."""
        raise FailedPrecondition(
            "cannot make a token: this hop has no identity", hint="set NSM_IDENTITY, or give an identity source"
        )

    def __repr__(self) -> str:
        return "Nobody()"


def spiffe_id(certificate: x509.Certificate) -> str:
    """The SPIFFE id in a certificate. InvalidRequest unless it has exactly one, as its only URI name."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        uris = []
    if len(uris) != 1:
        raise InvalidRequest(
            f"a certificate has {len(uris)} URI names, a SPIFFE certificate has one",
            hint="use a certificate that was issued for SPIFFE",
        )
    return check_spiffe_id(uris[0])


def _leaf(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise InvalidRequest("the certificate cannot be read", hint="give PEM, the leaf first") from None


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # Without the cause: its text may quote the input.
        raise InvalidRequest("the private key cannot be read", hint="give an unencrypted PEM key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise InvalidRequest("the private key is not an EC key on P-256", hint="tokens are signed with ES256")
    return key
