"""Clients that take their time: a byte now and then holds no connection for ever."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket
import time
from typing import Any

import pytest
from tests.web.serving import Running, running
from tests.web.test_manage_port import free_port

from onymous.web import hot

SHORT = {"head_timeout_s": 0.3, "body_timeout_s": 0.3}
LOGIN = {"environment": "production", "known_identities": {"customerid": "slow"}}


def head(it: Running, size: int, *more: str) -> bytes:
    lines = [f"{name}: {value}" for name, value in it.basic().items()]
    lines += ["host: x", f"content-length: {size}", *more]
    return "\r\n".join(["POST /v1/login HTTP/1.1", *lines, "", ""]).encode()


async def dripped(it: Running, first: bytes, rest: bytes, port: int = 0) -> bytes:
    """Send the rest byte by byte until the server ends it; return what it said."""
    host, public = it.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port or int(public))
    said = asyncio.create_task(reader.read())
    try:
        writer.write(first)
        for place in range(len(rest)):
            if said.done() or writer.is_closing():
                break
            writer.write(rest[place : place + 1])
            await asyncio.sleep(0.05)
        return await asyncio.wait_for(said, 60)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_head_that_never_ends(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, **SHORT) as it:
        said = await dripped(it, b"", b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 5_000)
        assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said.lower()
        assert b"did not arrive in time" in said
        # also after a request that was answered
        first = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        said = await dripped(it, first, b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 5_000)
        assert said.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in said


async def test_operators_port_waits_no_longer(place: Any, tmp_path: pathlib.Path) -> None:
    port = free_port()
    async with running(place, tmp_path, **SHORT, manage_port=port, console="off") as it:
        said = await dripped(it, b"", b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 5_000, port)
        assert said.startswith(b"HTTP/1.1 408 ") and b"did not arrive in time" in said
        body = b"POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n"
        assert b" 200 " not in await dripped(it, body, b" " * 5_000, port)
        # what is answered on the public port only is not answered here the short way either
        own = head(it, len(json.dumps(LOGIN))) + json.dumps(LOGIN).encode()
        closing = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        said = await dripped(it, own + closing, b"", port)
        assert said.startswith(b"HTTP/1.1 404 ") and b"HTTP/1.1 200 " in said
        assert (await it.counts())["profile"] == 0


async def test_a_body_that_never_ends(place: Any, tmp_path: pathlib.Path) -> None:
    """On a hot route and on an ordinary one: the connection ends, nothing was done."""
    async with running(place, tmp_path, **SHORT) as it:
        before = await it.counts()
        said = await dripped(it, head(it, 5_000), b" " * 5_000)
        assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said.lower()
        assert await dripped(it, head(it, 5_000, "content-encoding: gzip"), b" " * 5_000) == b""
        assert await it.counts() == before
        text = (await it.client.get("/metrics")).text
        assert 'onymous_limit_exceeded_total{limit="body_timeout_s"} 2.0' in text
        assert 'onymous_limit{limit="head_timeout_s"} 0.3' in text


async def test_who_goes_on_sending_can_read_the_answer(
    place: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is not reset under a client that has not read the 408 yet."""
    monkeypatch.setattr(hot, "LAST_WORDS_S", 60.0)

    def late(port: int, first: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(first)
            said = b"".join(iter(lambda: line.recv(4096), b""))
            for _ in range(3):  # the second one fails on a connection that was reset
                line.sendall(b" ")
                time.sleep(0.05)
            return said

    async with running(place, tmp_path, **SHORT) as it:
        port = int(it.url.rpartition(":")[2])
        assert (await asyncio.to_thread(late, port, head(it, 5_000))).startswith(b"HTTP/1.1 408 ")


async def test_who_says_nothing_is_let_go(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, **SHORT) as it:
        assert it.server._public is not None
        it.server._public.config.timeout_keep_alive = 1
        assert await dripped(it, b"", b"") == b""


async def test_a_long_body_that_comes_is_taken(place: Any, tmp_path: pathlib.Path) -> None:
    """It takes longer than the limit, but it comes; who waits for an answer is left alone."""
    async with running(place, tmp_path, **SHORT) as it:
        poll = asyncio.create_task(
            it.client.get("/v1/changes", params={"wait": 5}, headers=it.basic())
        )
        body = json.dumps(LOGIN).encode() + b" " * 100_000
        host, port = it.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head(it, len(body)))
        for place_ in range(0, 80_000, 4_000):
            writer.write(body[place_ : place_ + 4_000])
            await asyncio.sleep(0.05)
        writer.write(body[80_000:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert (await poll).status_code == 200
