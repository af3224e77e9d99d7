"""The doctor finds what is wrong, says what to do, and is content with what is right."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trustme
from tests.web.serving import running
from typer.testing import CliRunner

from onymous import doctor, doctor_url
from onymous.cli import app
from onymous.flows.tombstones import Mark
from onymous.settings import Settings, load
from onymous.store.backup_sql import JOBS_GIVEN_UP


def states(checks: list[doctor.Check]) -> dict[str, str]:
    """The worst state per name; each that is not well says what to do."""
    order = [doctor.OK, doctor.WARN, doctor.FAIL]
    out: dict[str, str] = {}
    for check in checks:
        assert check.state == doctor.OK or check.todo, check
        out[check.name] = max(out.get(check.name, doctor.OK), check.state, key=order.index)
    return out


async def seen(url: str, key: str, settings: Settings) -> dict[str, str]:
    return states(await asyncio.to_thread(lambda: list(doctor_url.of_url(url, key, settings))))


async def test_a_healthy_installation(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        found = states(await doctor.of_store(core.settings))
        backups = found.pop("backups")
        assert backups == (doctor.FAIL if place.engine == "sqlite" else doctor.OK)
        assert set(found.values()) == {doctor.OK}, found
        key = await doctor.web_key(core.settings)
        assert key == "web-api-key"
        assert set((await seen(it.url, key, core.settings)).values()) == {doctor.OK}


async def test_what_is_wrong_with_a_store_is_told(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        await it.ask("login", {"customerid": "c"})
        async with core.store.write("wrong") as tx:
            await tx.run("UPDATE ledger SET at = ?", int(time.time() * 1000) + 3_600_000)
            await tx.run("INSERT INTO job (kind, due, tries, body) VALUES ('x', 1, 8, ?)", b"")
            assert await tx.rows(JOBS_GIVEN_UP, 8)
        core.tombstones.set_mark(Mark(1 << 60, 0, 0, 0))
        settings = core.settings
    os.rename(tmp_path / "master.key", tmp_path / "away.key")
    found = states(await doctor.of_store(settings))
    for name in ("clock", "work", "epoch", "master key"):
        assert found[name] == doctor.FAIL, name
    shutil.copy(tmp_path / "away.key", tmp_path / "master.key")
    os.chmod(tmp_path / "master.key", 0o644)
    assert states(await doctor.of_store(settings))["master key"] == doctor.FAIL


async def test_a_store_that_is_not_there_is_told() -> None:
    for url in ("sqlite:/nowhere/at/all", "postgresql://u:secret@127.0.0.1:1/x"):
        (check,) = await doctor.of_store(load({"store": url}, environ={}))
        assert check.state == doctor.FAIL and check.todo and "secret" not in str(check)


def test_settings_that_expose_are_told(tmp_path: pathlib.Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("id.example")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    other = authority.issue_cert("other.example")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    base = {"store": f"sqlite:{tmp_path}", "host": "0.0.0.0"}
    found = states(doctor.of_settings(load(base, environ={})))
    assert (found["proxy"], found["operators"]) == (doctor.WARN, doctor.WARN)
    tls = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    fine = states(doctor.of_settings(load({**base, **tls, "manage_port": 9}, environ={})))
    assert "operators" not in fine and fine["tls"] != doctor.FAIL
    wrong = {**base, **tls, "tls_key": str(tmp_path / "other.pem")}
    assert states(doctor.of_settings(load(wrong, environ={})))["tls"] == doctor.FAIL
    bad = {**base, "trusted_proxies": "everybody"}
    assert states(doctor.of_settings(load(bad, environ={})))["proxy"] == doctor.FAIL
    assert doctor.expiry("tls", time.time() - 90_000).state == doctor.FAIL
    assert doctor.expiry("tls", time.time() + 5 * 86_400).state == doctor.WARN


@contextlib.contextmanager
def proxy(to: str, *, drop: str = "", cors: bool = False, options: bool = True) -> Iterator[str]:
    """A proxy that may lose a header, add a second CORS header, or answer OPTIONS itself."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _pass(self) -> None:
            if self.command == "OPTIONS" and not options:
                self.send_response(405)
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in (drop, "host")}
            with httpx.Client(base_url=to, trust_env=False) as client:
                reply = client.request(self.command, self.path, headers=headers, content=body)
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            if cors:
                self.send_header("access-control-allow-origin", "*")
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_OPTIONS = _pass

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_what_a_proxy_takes_away_is_told(tmp_path: pathlib.Path) -> None:
    place = type("Place", (), {"engine": "sqlite", "url": str(tmp_path / "store")})()
    async with running(place, tmp_path) as it:
        settings, key = it.server.core.settings, "web-api-key"
        with proxy(it.url) as url:
            found = await seen(url, key, settings)
            assert found.pop("proxy") == doctor.WARN, "none is trusted"
            assert set(found.values()) == {doctor.OK}
        with proxy(it.url, drop="x-mp-key") as url:
            assert (await seen(url, key, settings))["sdk url"] == doctor.FAIL
        with proxy(it.url, cors=True) as url:
            assert (await seen(url, key, settings))["cors"] == doctor.FAIL
        with proxy(it.url, options=False) as url:
            assert (await seen(url, key, settings))["cors"] == doctor.FAIL
        assert (await seen(it.url, "unknown-key", settings))["sdk url"] == doctor.FAIL
        it.server.core.went_back = True
        assert (await seen(it.url, key, settings))["ready"] == doctor.FAIL
    assert (await seen(it.url, key, settings))["url"] == doctor.FAIL
    assert (await seen("nonsense", key, settings))["url"] == doctor.FAIL


async def test_a_certificate_nobody_trusts_is_told(tmp_path: pathlib.Path) -> None:
    place = type("Place", (), {"engine": "sqlite", "url": str(tmp_path / "store")})()
    async with running(place, tmp_path, tls_dev=True) as it:
        found = await seen(it.url.replace("http", "https"), "", it.server.core.settings)
        assert found["tls"] == found["url"] == doctor.FAIL


def test_command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["doctor"]).exit_code == 1
    run(app, ["init"])
    assert run(app, ["apply", "onymous.yaml"]).exit_code == 0
    result = run(app, ["doctor", "--json"])
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    (missing,) = [c for c in checks if c["state"] == doctor.FAIL]
    assert missing["name"] == "backups" and "onymous backup" in missing["todo"]
    assert run(app, ["backup"]).exit_code == 0
    text = run(app, ["doctor"])
    assert text.exit_code == 0, text.output
    assert "backup_folder" in text.output
