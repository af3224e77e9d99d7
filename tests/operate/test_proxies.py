"""The proxy configurations of deploy/, in front of the real server: addresses, TLS, streams."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trustme
from playwright.async_api import async_playwright
from tests.clients.test_sdks import FLAGS, call, opened, pages, sdks, shop
from tests.operate.processes import Load, Process, all_there, free_ports, prepared
from tests.web.serving import Running, running

from conftest import Place

__all__ = ["pages", "sdks"]

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
PROXIES = ("nginx", "caddy")


class Proxy:
    """A real proxy with the configuration operators get, on other ports and certificates."""

    def __init__(self, kind: str, folder: pathlib.Path, upstreams: list[str]) -> None:
        self.kind, self.folder = kind, folder
        self.port = free_ports()
        self.url = f"https://localhost:{self.port}"
        ca = trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        own = ca.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        own.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(part.bytes() for part in own.cert_chain_pems))
        self.trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._words = getattr(self, f"_{kind}")([u.removeprefix("http://") for u in upstreams])

    def _nginx(self, upstreams: list[str]) -> list[str]:
        text = (DEPLOY / "nginx.conf").read_text("utf-8")
        servers = "\n".join(f"server {u} max_fails=2 fail_timeout=2s;" for u in upstreams)
        text = text.replace("server 127.0.0.1:8210 max_fails=2 fail_timeout=2s;", servers)
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
        text = text.replace("/etc/ssl/identity.example.com.pem", str(self.cert))
        text = text.replace("/etc/ssl/private/identity.example.com.key", str(self.key))
        ours = re.sub(r"127\.0\.0\.1:\d+", "", text)  # a free port may have these digits
        assert "443" not in ours and "/etc/" not in text.partition("upstream")[2]
        temp = "".join(
            f"{what}_temp_path {self.folder}/{what};"
            for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {self.folder}/pid;"
            f" error_log {self.folder}/error.log; events {{}}"
            f" http {{ access_log off; {temp} {text} }}"
        )
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def _caddy(self, upstreams: list[str]) -> list[str]:
        text = (DEPLOY / "Caddyfile").read_text("utf-8")
        text = text.replace("127.0.0.1:8210", " ".join(upstreams))
        names = ", ".join(f"https://{name}:{self.port}" for name in ("localhost", "127.0.0.1"))
        site = f"{names} {{\n\ttls {self.cert} {self.key}\n"
        text = text.replace("identity.example.com {", site)
        head = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
        (self.folder / "Caddyfile").write_text(head + text)
        words = ["--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]
        return ["caddy", "run", *words]

    async def __aenter__(self) -> Proxy:
        assert shutil.which(self.kind), f"{self.kind} is not installed: apt-get install {self.kind}"
        with (self.folder / "proxy.log").open("wb") as log:
            home = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
            self.process = subprocess.Popen(
                self._words, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin", **home}
            )
        give_up = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < give_up, (
                self.folder / "proxy.log"
            ).read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                await asyncio.sleep(0.05)

    async def __aexit__(self, *error: object) -> None:
        # at once: an orderly end would wait for connections that clients keep
        self.process.send_signal(signal.SIGTERM if self.kind == "nginx" else signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 20)

    def client(self, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client at an address of its own."""
        transport = httpx.AsyncHTTPTransport(local_address=address, verify=self.trust)
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}", transport=transport, timeout=60
        )


@asynccontextmanager
async def behind(
    kind: str, folder: pathlib.Path, **settings: Any
) -> AsyncIterator[tuple[Running, Proxy]]:
    place = Place("sqlite", str(folder / "store"))
    (folder / "proxy").mkdir()
    async with (
        running(place, folder, trusted_proxies="127.0.0.1", **settings) as it,
        Proxy(kind, folder / "proxy", [it.url]) as proxy,
    ):
        yield it, proxy


async def visit(client: httpx.AsyncClient, n: int, **headers: str) -> int:
    known = {"device_application_stamp": f"stamp number {n}"}
    body = {"environment": "production", "known_identities": known}
    reply = await client.post(
        "/v1/identify", json=body, headers={"x-mp-key": "web-api-key", **headers}
    )
    return reply.status_code


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_client_counts_by_its_own_address(kind: str, tmp_path: pathlib.Path) -> None:
    """Behind the proxy each client has its own limit, and cannot claim to be someone else."""
    async with behind(kind, tmp_path, address_profiles_per_hour=3) as (it, proxy):
        async with proxy.client("127.0.0.2") as one, proxy.client("127.0.0.3") as two:
            said = [await visit(one, n) for n in range(3)]
            assert said == [200, 200, 200]
            forged = [
                await visit(one, 10 + n, **{"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(3)
            ]
            assert forged == [429, 429, 429], "a claimed address does not count"
            claims = {"X-Forwarded-For": "127.0.0.3", "X-Real-IP": "127.0.0.3"}
            claims["Forwarded"] = "for=127.0.0.3"
            assert await visit(one, 20, **claims) == 429
            assert [await visit(two, 30 + n) for n in range(3)] == [200, 200, 200]
        # past the proxy, straight at the server: nobody is believed but the proxy
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.4")
        async with httpx.AsyncClient(base_url=it.url, transport=transport) as past:
            direct = [
                await visit(past, 40 + n, **{"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(4)
            ]
            assert direct == [200, 200, 200, 429]


@pytest.mark.parametrize("kind", PROXIES)
async def test_long_polls_streams_and_large_bodies(kind: str, tmp_path: pathlib.Path) -> None:
    async with behind(kind, tmp_path) as (it, proxy), proxy.client() as client:
        headers = it.basic()
        login = {"environment": "production", "known_identities": {"customerid": "1"}}
        poll = asyncio.create_task(client.get("/v1/changes", params={"wait": 50}, headers=headers))
        async with client.stream("GET", "/v1/changes/stream", headers=headers) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == ": following"
            assert (await client.post("/v1/login", json=login, headers=headers)).status_code == 200
            async for line in lines:
                if line.startswith("data: "):
                    told = json.loads(line[6:])
                    break
        page = (await poll).json()
        assert [c["cursor"] for c in page["changes"]] == [told["cursor"]]
        batch = {"events": [], "environment": "production", "user_identities": {"customer_id": "1"}}
        many = [{**batch, "user_attributes": {"note": "x" * 100_000}} for _ in range(18)]
        sent = await client.post("/v2/bulkevents", json=many, headers=headers)
        assert sent.status_code == 202, sent.text
        packed = gzip.compress(json.dumps(login).encode())
        reply = await client.post(
            "/v1/identify", content=packed, headers={**headers, "Content-Encoding": "gzip"}
        )
        assert reply.status_code == 200
        too_large = await client.post("/v1/identify", content=b"x" * 300_000, headers=headers)
        assert too_large.status_code == 413 and "message" in too_large.json()
        for path in ("/metrics", "/console", "/console/sign-in", "/manage/x"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("kind", PROXIES)
async def test_one_of_two_processes_leaves_under_load(kind: str, tmp_path: pathlib.Path) -> None:
    place = Place("sqlite", str(tmp_path / "store"))
    url, auth = await prepared(place, tmp_path)
    (tmp_path / "proxy").mkdir()
    # nginx notices by itself, Caddy asks /readyz
    delay = 8 if kind == "caddy" else 0
    one = await Process(url, tmp_path, "serve", "--port", "0", stop_delay_s=delay).start()
    two = await Process(url, tmp_path, "serve", "--port", "0").start()
    async with Proxy(kind, tmp_path / "proxy", [one.url, two.url]) as proxy:
        plain = Load(
            auth, [proxy.url.replace("localhost", "127.0.0.1")], callers=6, verify=proxy.trust
        )
        async with plain as load:
            await load.until(60)
            assert await one.stop() == 0, one.log()
            await load.until(60)
    said = (tmp_path / "proxy" / "proxy.log").read_text()
    assert (load.unanswered, set(load.statuses)) == ([], {200}), said
    await all_there(two.url, auth, load.answered)
    assert await two.stop() == 0


async def test_caddy_waits_where_no_process_is_ready(tmp_path: pathlib.Path) -> None:
    """A check that is late or fails once is no 503 to anybody: the next check is waited for."""
    state: dict[str, Any] = {"ready": "503 Busy", "asked": 0, "bodies": []}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                status = "200 OK"
                if head.startswith("get /readyz"):
                    state["asked"] += 1
                    status = state["ready"]
                elif head.startswith("post"):
                    size = int(head.partition("content-length: ")[2].partition("\r")[0])
                    state["bodies"].append(await reader.readexactly(size))
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Proxy("caddy", tmp_path, [address]) as proxy, proxy.client() as client:
            while state["asked"] < 2:  # by then it is taken out
                await asyncio.sleep(0.05)
            calls = [client.post("/v1/login", content=b"one"), client.get("/v1/changes")]
            waiting = [asyncio.create_task(call) for call in calls]
            seen = state["asked"]
            while state["asked"] < seen + 2:
                await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting) and state["bodies"] == []
            state["ready"] = "200 OK"
            assert [(await task).status_code for task in waiting] == [200, 200]
            assert state["bodies"] == [b"one"]


@pytest.mark.clients
async def test_the_web_sdk_through_nginx(
    tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    async with behind("nginx", tmp_path) as (it, proxy), async_playwright() as playwright:
        it.url = proxy.url.replace("https://", "http://")
        page_text = shop(it)
        assert b"forceHttps: false" in page_text
        files["/"] = page_text.replace(b"forceHttps: false", b"forceHttps: true")
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=FLAGS.split(), headless=True
        )
        page = await (await browser.new_context(ignore_https_errors=True)).new_page()
        anonymous = (await opened(page, address))["user"]
        known = (await call(page, "login", {"customerid": "anna"}))["user"]
        assert anonymous and known
        await page.evaluate("() => { mParticle.logEvent('seen'); mParticle.upload(); }")
        core = it.server.core
        for _ in range(300):
            async with core.store.read() as session:
                if (await session.rows("SELECT count(*) FROM batch"))[0][0]:
                    break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("no batch of the SDK arrived through the proxy")
        await browser.close()


def test_the_configurations_are_valid(tmp_path: pathlib.Path) -> None:
    """Also by the proxies' own checks, and every path operators use is kept in."""
    for kind in PROXIES:
        folder = tmp_path / kind
        folder.mkdir()
        proxy = Proxy(kind, folder, ["http://127.0.0.1:1"])
        check = [*proxy._words, "-t"] if kind == "nginx" else ["caddy", "validate"]
        if kind == "caddy":
            check += proxy._words[2:]
        done = subprocess.run(
            check,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin", "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr
