# SPDX-License-Identifier: Apache-2.0
"""gRPC on sockets of our own.

Does:  HTTP/2 as gRPC uses it (RFC 9113; gRPC over HTTP/2), on asyncio transports: a call costs a third of grpc.aio's.
Place: an adapter of the transport room. `frames` is bytes, `headers` and `grpc_text` what stands in header blocks;
       `stream` and `connection` are the protocol, without sockets: bytes in, events out; `wire` is the socket below
       them. `client` and `carrier` call, `server` and `listener` answer.
State: none of its own.
"""
