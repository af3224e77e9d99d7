"""Operators' paths on a port of their own, and limits of what a public key may make."""

from __future__ import annotations

import pathlib
import socket
from typing import Any

import httpx
from tests.web.serving import running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_metrics_move_to_their_own_port(place: Any, tmp_path: pathlib.Path) -> None:
    port = free_port()
    async with running(place, tmp_path, manage_port=port) as it:
        assert (await it.client.get("/metrics")).status_code == 404
        assert (await it.client.get("/readyz")).status_code == 200
        assert (await it.ask("identify", {"customerid": "1"})).status_code == 200
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as own:
            assert "onymous_" in (await own.get("/metrics")).text
            assert (await own.get("/readyz")).status_code == 200
            refused = await own.post("/v1/identify", json={}, headers={"x-mp-key": "web-api-key"})
            assert refused.status_code == 404


async def test_a_public_key_makes_a_bounded_number_of_records(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path, address_profiles_per_hour=3) as it:

        async def visit(n: int, **more: Any) -> int:
            known = {"device_application_stamp": f"stamp number {n}"}
            return (await it.ask("identify", known, who="web", **more)).status_code

        assert [await visit(n, key_only=True) for n in range(5)] == [200, 200, 200, 429, 429]
        assert (await it.counts())["profile"] == 3
        assert (await it.ask("identify", {"other": "x"}, who="server")).status_code == 200
