# SPDX-License-Identifier: Apache-2.0
import sys

import anyio

from nsm_sdk import Client


async def main(manager: str) -> None:
    async with Client(manager, name="my-nsc") as client, client.connect("kernel://hello/nsm-1") as connection:
        print(connection.interface, connection.src, "->", connection.dst, "over", connection.path)
        print(connection.context.extra_context["greeting"])


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
