# SPDX-License-Identifier: Apache-2.0
"""Who is who: identities, tokens, and tokens in paths.

Does:  re-exports what the modules of this room define.
Place: above elements, below transport.
State: none.
"""

from nsm_sdk.security.identity import Insecure, Nobody, Signer, Source, Svid
from nsm_sdk.security.rfc3339 import format_time, parse_time
from nsm_sdk.security.spiffe_id import check_spiffe_id, is_spiffe_id, trust_domain
from nsm_sdk.security.tokens import Claims, TokenGenerator, TokenSource, claims
from nsm_sdk.security.update_token import UpdateToken, read_token

__all__ = [
    "Claims",
    "Insecure",
    "Nobody",
    "Signer",
    "Source",
    "Svid",
    "TokenGenerator",
    "TokenSource",
    "UpdateToken",
    "check_spiffe_id",
    "claims",
    "format_time",
    "is_spiffe_id",
    "parse_time",
    "read_token",
    "trust_domain",
]
