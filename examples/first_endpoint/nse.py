# SPDX-License-Identifier: Apache-2.0
import sys

import anyio

from nsm_sdk import Call, Connection, Element, Endpoint, Next, Request
from nsm_sdk.ipam import PointToPointIpam


class Greet(Element):
    """Tell every client who serves it."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        context, hops = request.connection.context, request.connection.path.path_segments
        context.extra_context["greeting"] = f"hello {hops[0].name}, this is {hops[-1].name}"
        return await next.request(call, request)


async def main(manager: str, listen: str) -> None:
    work = (Greet(), PointToPointIpam("172.16.0.0/24"))
    async with Endpoint("my-nse", *work, service="hello", registry=manager, listen=listen) as endpoint:
        print("serving", endpoint.url, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
