# SPDX-License-Identifier: Apache-2.0
"""Who is who: identities, tokens, and tokens in paths.

Does:  re-exports what the modules of this room define.
Place: above elements, below transport.
"""

from nsm_sdk.security.identity import Insecure, Nobody, Signer, Source, Svid
from nsm_sdk.security.spiffe_id import check_spiffe_id, is_spiffe_id, trust_domain
from nsm_sdk.security.tokens import TokenGenerator, TokenSource
from nsm_sdk.security.update_token import Authenticate, UpdateToken, read_token

__all__ = [
    "Authenticate",
    "Insecure",
    "Nobody",
    "Signer",
    "Source",
    "Svid",
    "TokenGenerator",
    "TokenSource",
    "UpdateToken",
    "check_spiffe_id",
    "is_spiffe_id",
    "read_token",
    "trust_domain",
]
