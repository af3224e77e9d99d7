"""Who asks a lot at once, or never reads the answers, takes no memory and stops nobody else."""

from __future__ import annotations

import asyncio
import pathlib
import re
import socket
from typing import Any

import psutil
import pytest
from tests.web.serving import Running, running

from onymous.web import hot

BODY = b'{"environment":"production","known_identities":{"ios_idfv":"D"}}'
#: a refusal that is made at once, an answer that waits for a commit, and the ordinary way
HEADS = {
    "refused": b"POST /v1/identify HTTP/1.1\r\nhost: x\r\n",
    "answered": b"POST /v1/identify HTTP/1.1\r\nhost: x\r\nx-mp-key: web-api-key\r\n",
    "ordinary": b"POST /v1/nothing HTTP/1.1\r\nhost: x\r\n",
}
FREE = {"address_requests_per_second": 0, "address_profiles_per_hour": 0}


def request(name: str) -> bytes:
    return HEADS[name] + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


async def alive(it: Running) -> bool:
    return (await it.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("name", "many"), [("refused", 3_000), ("answered", 300), ("ordinary", 300)]
)
async def test_many_at_once_are_answered(
    place: Any, tmp_path: pathlib.Path, name: str, many: int
) -> None:
    """Wherever the pieces of a long row of requests end."""
    async with running(place, tmp_path, **FREE) as it:
        port = int(it.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(name) * many)
        said = b""
        while said.count(b"HTTP/1.1 ") < many:
            piece = await asyncio.wait_for(reader.read(1 << 16), 60)
            assert piece, said[-500:]
            said += piece
        status = {"refused": b"401", "answered": b"200", "ordinary": b"404"}[name]
        assert set(re.findall(rb"HTTP/1.1 (\d+)", said)) == {status}
        writer.close()


def pushed(port: int, piece: bytes, most: int) -> None:
    """Send so many bytes and read nothing, until the server takes no more."""
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(1)
        line.connect(("127.0.0.1", port))
        try:
            while most > 0:
                line.sendall(piece)
                most -= len(piece)
        except OSError:
            pass


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("together", [1, 500])
async def test_answers_nobody_reads_take_no_memory(
    place: Any, tmp_path: pathlib.Path, name: str, together: int
) -> None:
    async with running(place, tmp_path, **FREE) as it:
        port = int(it.url.rpartition(":")[2])
        assert await alive(it)
        resident = psutil.Process().memory_info().rss
        pushing = asyncio.create_task(
            asyncio.to_thread(pushed, port, request(name) * together, 20 << 20)
        )
        peak = 0
        while not pushing.done():
            peak = max(peak, psutil.Process().memory_info().rss - resident)
            await asyncio.sleep(0.02)
        assert peak < 60 << 20
        assert await alive(it)


async def test_who_never_reads_is_let_go(
    place: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "UNREAD_S", 0.2)
    async with running(place, tmp_path, **FREE) as it:
        port = int(it.url.rpartition(":")[2])
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", port))
            line.setblocking(False)
            loop = asyncio.get_running_loop()
            piece = request("refused") * 500

            async def push() -> None:
                while True:
                    await loop.sock_sendall(line, piece)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(push(), 120)
        assert await alive(it)
