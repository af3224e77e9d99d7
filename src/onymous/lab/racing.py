"""Callers that ask at the same instant: a connection each, kept open."""

from __future__ import annotations

import asyncio
import json

from onymous.lab.audit import Violation

#: longest an answer may take, seconds
_ANSWER_S = 60.0


class Line:
    """One caller's connection to a serving process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def identify(self, auth: str, known: dict[str, str]) -> tuple[int, str]:
        """Ask who this is; returns the status and the MPID, or what was said instead."""
        body = json.dumps({"environment": "production", "known_identities": known}).encode()
        head = (
            "POST /v1/identify HTTP/1.1\r\nhost: soak\r\n"
            f"authorization: {auth}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode("ascii") + body)
        try:
            status, answer = await asyncio.wait_for(self._read(), _ANSWER_S)
        except TimeoutError:
            raise Violation(f"no answer within {_ANSWER_S:.0f} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Violation("a connection was closed without an answer") from None
        return status, str(answer.get("mpid") or answer)

    async def _read(self) -> tuple[int, dict[str, object]]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer: dict[str, object] = json.loads(await self._reader.readexactly(size))
        return int(head.split(b" ", 2)[1]), answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def open_lines(ports: list[int], count: int) -> list[Line]:
    """Open `count` connections, to each of the ports in turn."""
    out = []
    for n in range(count):
        out.append(Line(*await asyncio.open_connection("127.0.0.1", ports[n % len(ports)])))
    return out
