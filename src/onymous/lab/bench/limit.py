"""L, the limit of the language: a bare protocol that decodes the same body and answers a constant.

Run as a program: prints its port, serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import httptools
import msgspec
import uvloop

from onymous.lab.bench.traffic import ANSWER, Known


class Limit(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.decoder = msgspec.json.Decoder(Known)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.body = b""

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Decode the body and answer."""
        self.decoder.decode(self.body)
        self.transport.write(ANSWER)


async def main() -> None:
    """Serve on a free port."""
    loop = asyncio.get_running_loop()
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = await loop.create_server(Limit, sock=sock)
    print(sock.getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
