# SPDX-License-Identifier: Apache-2.0
"""Templates: one engine, Jinja2 in its sandbox, with Jinja's spelling and Go's.

Does:  re-exports what the modules of this room define; Jinja2 is imported when the first template is met.
Place: match rules of services, NAT rules, names of members, commands and descriptions that a supplier fills in.
State: bounded caches of what has been translated and compiled.
"""

from __future__ import annotations

from nsm_sdk.core.templates.engine import (
    LONGEST,
    LONGEST_OF_OURS,
    MOST_OF_A_CHOICE,
    MOST_PARTS,
    MOST_RENDERED,
    Closed,
    LabelTemplates,
    Template,
    connection_fields,
)

__all__ = [
    "LONGEST",
    "LONGEST_OF_OURS",
    "MOST_OF_A_CHOICE",
    "MOST_PARTS",
    "MOST_RENDERED",
    "Closed",
    "LabelTemplates",
    "Template",
    "connection_fields",
]
