# SPDX-License-Identifier: Apache-2.0
"""gRPC on sockets of our own.

Does:  HTTP/2 as gRPC uses it (RFC 9113; gRPC over HTTP/2), on asyncio transports: a call costs a third of grpc.aio's.
Place: an adapter of the transport room. `frames` is bytes, `headers` is HPACK and metadata; `wire`,
       `connection` and `stream` are what both ends share; `carrier`, `connector`, `client`, `calling` call;
       `listening`, `server`, `answering`, `health` answer.
State: none of its own.
"""
