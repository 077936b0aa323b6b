# SPDX-License-Identifier: Apache-2.0
"""Labels that say where a client or endpoint runs.

Does:  adds labels from the variables that Kubernetes fills in.
Place: programs and elements that label requests and registrations; the environment is an argument.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLES: Mapping[str, str] = {"NODE_NAME": "nodeName", "POD_NAME": "podName", "CLUSTER_NAME": "clusterName"}
"""Variable of the environment -> label."""


def with_client_info(labels: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of `labels` with those of the environment added; a label that is there is kept."""
    found = {label: environment[variable] for variable, label in VARIABLES.items() if variable in environment}
    return {**found, **labels}
