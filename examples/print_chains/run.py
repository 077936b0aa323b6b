# SPDX-License-Identifier: Apache-2.0
"""What a chain is made of, as text and as a drawing; and a chain that is edited before it is served."""

from nsm_sdk import Chain, Next
from nsm_sdk.core import Bound
from nsm_sdk.elements import Begin, ClientUrl, Connect, Refresh, Retry, UpdatePath
from nsm_sdk.errors import ChainOrderError


def nobody(url: str) -> Bound:
    raise LookupError(url)


def main() -> None:
    chain: Chain[Next] = Chain(
        "my client",
        UpdatePath("my-nsc"),
        Begin(),
        Refresh(),
        ClientUrl("unix:///var/lib/networkservicemesh/nsm.io.sock"),
        Connect(nobody),
    )
    chain.check()
    print(chain.tree())
    assert chain.tree().splitlines()[2].startswith("|- Begin(")

    patient = chain.insert_before(UpdatePath, Retry(attempts=3))
    print(patient.mermaid())
    assert patient.mermaid().startswith("flowchart TD")
    assert patient.find(Retry) is not None
    assert chain.find(Retry) is None, "editing answers a new chain"

    try:
        chain.replace(Begin).check()
    except ChainOrderError as error:
        print("without Begin:", error)
        assert "Begin" in str(error)
    else:
        raise AssertionError("Refresh keeps state per connection, so it needs Begin")


if __name__ == "__main__":
    main()
