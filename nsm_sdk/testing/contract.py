# SPDX-License-Identifier: Apache-2.0
"""The contract that every connection element keeps.

Does:  `check_element` runs nine points against an element and raises one error that lists all that are broken:

           1  fields it does not own pass unchanged, unknown ones included
           2  the answer is the one from below, apart from fields it owns
           3  an error from below comes out as the same object and leaves no slot, task or timer
           4  a caller that is cancelled while the element waits below leaves none either
           5  request, request again (a refresh), close: none left
           6  close without request, and close twice, succeed
           7  close goes on below even for a connection that makes no sense
           8  two connections do not see each other
           9  `repr` works unbound and holds no secret

Place: tests of elements, ours (run over every exported one) and yours.
State: none; each point runs with an element of its own, in virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm_sdk.testing.bench import Bench, Contract, ContractError, Factory
from nsm_sdk.testing.points import CHECKS, POINTS
from nsm_sdk.testing.virtual import START_WALL, run_virtual


def check_element(
    factory: Factory | None = None, *, contract: Contract | None = None, points: Sequence[int] = tuple(POINTS)
) -> None:
    """Raise `ContractError` if an element breaks its contract.

    Either `factory`, for an element that needs nothing else, or a whole `contract`. Not to be called where a loop runs.
    """
    known = contract if contract is not None else Contract(factory=factory)
    broken: list[str] = []
    first: Exception | None = None
    for number in points:
        if number in known.skips:
            continue
        try:
            run_virtual(CHECKS[number], known, start_wall=START_WALL)
        except Exception as error:
            first = first or error
            kind = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
            broken.append(f"point {number} ({POINTS[number]}): {kind}{error}")
    if broken:
        raise ContractError(
            f"{type(Bench(known).element).__name__} breaks its contract:\n  " + "\n  ".join(broken),
            hint="mend the element, or say in its Contract what it owns, needs or leaves out, with the reason",
        ) from first
