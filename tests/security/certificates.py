# SPDX-License-Identifier: Apache-2.0
"""Throwaway certificates.

Does:  issues self-signed certificates with the URI names that a test wants.
Place: tests of identities and tokens.
State: remembers each certificate's key.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ISSUED: dict[bytes, bytes] = {}
"""Certificate -> key, PEM."""


def key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """The key as PEM, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue(*uris: str, not_after: float = 4_000_000_000.0) -> tuple[bytes, bytes]:
    """Certificate and key, PEM; `not_after` in seconds since the epoch."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, tz=UTC))
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    ISSUED[certificate] = key_pem(key)
    return certificate, ISSUED[certificate]
