"""What comes after a chunked body is no header, and has a bound like everything else."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import psutil
import pytest
from tests.web.serving import Running, running

BODY = b'{"environment":"production","known_identities":{"ios_idfv":"D"}}'
CHUNK = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
#: a hot path, and one that goes the ordinary way
PATHS = ["/v1/identify", "/v1/5/modify"]


def head(path: str, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "transfer-encoding: chunked", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def exchange(it: Running, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
    writer.write(raw)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()
    return answer


@pytest.mark.parametrize("path", PATHS)
async def test_a_trailer_proves_nothing(place: Any, tmp_path: pathlib.Path, path: str) -> None:
    async with running(place, tmp_path) as it:
        secret = f"authorization: {it.basic()['Authorization']}"
        for trailer in (secret, "x-mp-key: web-api-key"):
            raw = head(path) + CHUNK + trailer.encode() + b"\r\n\r\n"
            assert (await exchange(it, raw)).startswith(b"HTTP/1.1 401 "), trailer
        # known by its head, with a trailer nobody needs
        raw = head(path, secret) + CHUNK + b"checksum: 1\r\n\r\n"
        assert (await exchange(it, raw)).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
        assert (await it.client.get("/readyz")).status_code == 200


async def test_a_trailer_says_nothing_of_the_address(place: Any, tmp_path: pathlib.Path) -> None:
    """Proxies append to the head what they know; a trailer would come after that."""
    flags = {"trusted_proxies": "127.0.0.1/32", "address_profiles_per_hour": 3}
    async with running(place, tmp_path, **flags) as it:
        statuses = []
        for n in range(6):
            body = BODY.replace(b'"D"', b'"visitor %d"' % n)
            chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
            said = ("x-mp-key: web-api-key", "x-forwarded-for: 192.0.2.1")
            raw = head("/v1/identify", *said) + chunk
            answer = await exchange(it, raw + b"x-forwarded-for: 198.51.100.%d\r\n\r\n" % n)
            statuses.append(answer.split()[1])
        assert statuses == [b"200"] * 3 + [b"429"] * 3


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (CHUNK, b"".join(b"a%d: %b\r\n" % (n, b"y" * 200) for n in range(300))),
        (CHUNK + b"one-trailer: ", b"y" * 60_000),
        (b"5;", b"x" * 60_000),
    ],
    ids=["many trailers", "a long trailer", "a long extension"],
)
async def test_trailers_without_end_take_no_memory(
    place: Any, tmp_path: pathlib.Path, path: str, first: bytes, piece: bytes
) -> None:
    async with running(place, tmp_path) as it:
        port = int(it.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(path) + first)
        resident = psutil.Process().memory_info().rss
        try:
            for _ in range(1_500):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        assert psutil.Process().memory_info().rss - resident < 30 << 20
        try:
            said = await asyncio.wait_for(reader.read(), 60)
        except ConnectionError:
            said = b""  # the ordinary way ends without a word
        assert said.startswith(b"HTTP/1.1 400 ") or not said or "modify" in path
        writer.close()
        assert (await it.client.get("/readyz")).status_code == 200
