# SPDX-License-Identifier: Apache-2.0
"""Recipes, one per role: which elements, in which order.

Does:  re-exports them. A recipe takes addresses, identities and adapters, and answers a `Role`; it holds no logic.
Place: above the rooms of elements, below `Client`, `Endpoint`, the lab and the programs.
"""

from __future__ import annotations

from nsm_sdk.chains.forwarder import forwarder
from nsm_sdk.chains.nsc import nsc
from nsm_sdk.chains.nse import nse, served
from nsm_sdk.chains.nsmgr import nsmgr
from nsm_sdk.chains.registry import registrant, registry

__all__ = ["forwarder", "nsc", "nse", "nsmgr", "registrant", "registry", "served"]
