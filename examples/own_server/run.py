# SPDX-License-Identifier: Apache-2.0
"""An application that has a `grpc.aio` server already, and offers a network service on it, beside its own methods."""

from typing import Any

import anyio
import grpc.aio

from nsm_sdk import Client
from nsm_sdk.api import KERNEL, NetworkService, NetworkServiceEndpoint
from nsm_sdk.chains import nse, registrant
from nsm_sdk.core import Served
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.lab import UNIX, Cluster, Mode
from nsm_sdk.mechanisms import KernelServer, Mechanisms
from nsm_sdk.security import Insecure, TokenGenerator
from nsm_sdk.transport import Dialer, mount


class Own(grpc.GenericRpcHandler):
    """What the application does besides."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == "/app.Greeter/Hello":
            return grpc.unary_unary_rpc_method_handler(self.hello)
        return None

    async def hello(self, name: bytes, context: Any) -> bytes:
        return b"hello " + name


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        manager, url = node.manager.url, f"unix://{cluster.folder}/app"

        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Own(),))
        server.add_insecure_port(url.replace("unix://", "unix:"))

        tokens = TokenGenerator(Insecure("nse", "app"))
        dial = Dialer(tokens)
        work = (PointToPointIpam("10.0.0.0/24"), Mechanisms({KERNEL: KernelServer()}))
        role = nse("app", *work, tokens=tokens, services=[tokens])
        registering = registrant("app", manager=manager, dial=dial, services=[tokens, dial])
        async with role.serving() as running, registering.serving() as registered:
            mount(server, Served(running.bound, running.runtime))
            await server.start()
            try:
                services, entries = registered.bound.ns, registered.bound.nse
                assert services is not None
                assert entries is not None
                await services.register(registered.call(timeout=15), NetworkService(name="app", payload="IP"))
                entry = NetworkServiceEndpoint(name="app", url=url, network_service_names=["app"])
                entry = await entries.register(registered.call(timeout=15), entry)

                async with Client(manager) as client, client.connect("kernel://app/nsm-1") as connection:
                    print(connection.src, "->", connection.dst, "over", connection.path)
                    assert connection.path[-1] == "app"
                async with grpc.aio.insecure_channel(url.replace("unix://", "unix:")) as channel:
                    hello: Any = channel.unary_unary("/app.Greeter/Hello")
                    print((await hello(b"network")).decode())
                    assert await hello(b"again") == b"hello again"
                await entries.unregister(registered.call(timeout=5), entry)
            finally:
                await server.stop(None)


if __name__ == "__main__":
    anyio.run(main, UNIX)
