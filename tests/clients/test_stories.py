"""The web SDK in rough weather: shared devices, search, limits, failures, outages."""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright
from tests.clients.test_sdks import FLAGS, call, opened, pages, sdks, shop, spooled
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply
from onymous.serving import Server, listen
from onymous.store.port import StoreError

__all__ = ["pages", "sdks"]
pytestmark = pytest.mark.clients


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path, "Chromium is not installed: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*FLAGS.split(), *flags], headless=True
        )
        try:
            yield browser
        finally:
            await browser.close()


SEARCH = """([key, ids]) => new Promise(done => mParticle.Identity.search(
  key, ids, r => done({code: r.httpCode, body: r.body})))"""


async def test_a_shared_device_mixes_nobody(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with running(place, tmp_path) as it, chromium() as browser:
        files["/"] = shop(it)
        page = await (await browser.new_context()).new_page()
        await opened(page, f"{address}/")
        seen: dict[str, set[str]] = {"anna": set(), "ben": set()}
        for who in ("anna", "ben", "anna", "ben"):
            answer = await call(page, "login", {"customerid": who, "email": f"{who}@x.io"})
            assert answer["code"] == 200
            seen[who].add(answer["user"])
            await page.evaluate(f"mParticle.logEvent('by {who}'); mParticle.upload()")
            out = await call(page, "logout")
            assert out["user"] not in seen["anna"] | seen["ben"]
        assert len(seen["anna"]) == len(seen["ben"]) == 1
        assert seen["anna"] != seen["ben"]
        for batch in await spooled(it, 8):
            names = {e["data"].get("event_name") for e in batch["events"]}
            for who, mpids in seen.items():
                assert f"by {who}" not in names or {batch["mpid"]} == mpids


async def test_search_is_off_for_public_keys_unless_enabled(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with running(place, tmp_path) as it, chromium() as browser:
        core = it.server.core
        more = TENANTS.replace(
            "web: {kind: web, api_key: web-api-key}",
            "web: {kind: web, api_key: web-api-key}\n"
            "      finder: {kind: web, api_key: finder-api-key, search_key_only: true}",
        )
        await apply(core.store, core.key, more, actor="test", now_ms=2)
        await core.directory.load()
        files["/"] = shop(it)
        page = await (await browser.new_context()).new_page()
        await opened(page, f"{address}/")
        login = await call(page, "login", {"customerid": "anna"})
        refused = await page.evaluate(SEARCH, ["web-api-key", {"customerid": "anna"}])
        assert refused["code"] == 403
        found = await page.evaluate(SEARCH, ["finder-api-key", {"customerid": "anna"}])
        assert (found["code"], found["body"]["mpid"]) == (200, login["user"])
        nobody = await page.evaluate(SEARCH, ["finder-api-key", {"customerid": "zoe"}])
        assert nobody["code"] == 404


async def test_too_many_requests_are_told_and_recovered_from(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with (
        running(place, tmp_path, address_requests_per_second=2) as it,
        chromium() as browser,
    ):
        files["/"] = shop(it)
        page = await (await browser.new_context()).new_page()
        first = await opened(page, f"{address}/")
        answers = [await call(page, "login", {"customerid": str(n)}) for n in range(6)]
        refused = [a for a in answers if a["code"] != 200]
        assert refused and all("429" in json.dumps(a["body"]) for a in refused)
        assert first["code"] == 200
        await asyncio.sleep(1.1)
        assert (await call(page, "login", {"customerid": "9"}))["code"] == 200


class Failing:
    """Makes every write transaction fail for a while: on purpose, nothing else does."""

    def __init__(self, it: Running) -> None:
        self._store = it.server.core.desk.store
        self.on = False
        for name in ("write", "share"):
            setattr(self._store, name, self._failing(getattr(self._store, name)))

    def _failing(self, writes: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **more: Any) -> Any:
            if self.on:
                raise StoreError("on purpose")
            return writes(*args, **more)

        return write


async def test_what_failed_inside_is_sent_again_once(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with running(place, tmp_path) as it, chromium() as browser:
        files["/"] = shop(it)
        page = await (await browser.new_context()).new_page()
        await opened(page, f"{address}/")
        await spooled(it, 1)
        failing = Failing(it)
        failing.on = True
        answers: list[int] = []
        page.on("response", lambda r: answers.append(r.status) if "/events" in r.url else None)
        await page.evaluate("for (const n of 'abc') mParticle.logEvent(n); mParticle.upload()")
        for _ in range(100):
            if any(code >= 500 for code in answers):
                break
            await asyncio.sleep(0.1)
        assert any(code >= 500 for code in answers)
        failing.on = False
        assert sorted(await names(it, "abc")) == ["a", "b", "c"]


async def names(it: Running, wanted: str) -> list[str]:
    """Wait until the events of these names are there; return every one that is."""
    for _ in range(150):
        found = [
            event["data"].get("event_name")
            for batch in await spooled(it, 1)
            for event in batch["events"]
            if event["event_type"] == "custom_event"
        ]
        if set(found) >= set(wanted):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.2)  # a second copy would arrive with the next interval
    return [
        str(event["data"].get("event_name"))
        for batch in await spooled(it, 1)
        for event in batch["events"]
        if event["event_type"] == "custom_event"
    ]


async def test_an_outage_loses_and_doubles_nothing(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with running(place, tmp_path) as it, chromium() as browser:
        files["/"] = shop(it)
        page = await (await browser.new_context()).new_page()
        before = await opened(page, f"{address}/")
        await page.evaluate("mParticle.logEvent('a'); mParticle.upload()")
        await names(it, "a")
        settings = it.server.settings
        port = int(it.url.rpartition(":")[2])
        it.server.stop()
        while it.server.core.desk._writer is not None and not it.server.core.desk._writer.done():
            await asyncio.sleep(0.05)
        await page.evaluate("mParticle.logEvent('b'); mParticle.logEvent('c'); mParticle.upload()")
        await asyncio.sleep(1.5)
        again = Server(type(settings)(**{**vars_of(settings), "port": port}))
        sock = listen(again.settings)
        started = asyncio.Event()
        task = asyncio.create_task(again.run(sock, started.set))
        await asyncio.wait_for(started.wait(), 20)
        try:
            it.server.core = again.core
            assert sorted(await names(it, "abc")) == ["a", "b", "c"]
            after = await call(page, "login", {"customerid": "anna"})
            assert after["user"] == before["user"]
        finally:
            again.stop()
            await task


def vars_of(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


async def test_config_alias_and_audience_over_https(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    async with (
        running(place, tmp_path, tls_dev=True) as it,
        chromium("--ignore-certificate-errors") as browser,
    ):
        host = it.url.removeprefix("http://")
        files["/"] = SECURE.replace("HOST", host).encode()
        page = await (await browser.new_context(ignore_https_errors=True)).new_page()
        first = await opened(page, f"{address}/")
        assert first["code"] == 200
        known = await call(page, "login", {"customerid": "anna"})
        out = await call(page, "logout")
        alias = await page.evaluate(
            """([from, to]) => new Promise(done => mParticle.Identity.aliasUsers(
              {sourceMpid: from, destinationMpid: to, startTime: Date.now() - 60000,
               endTime: Date.now(), scope: 'device'},
              r => done({code: r.httpCode, message: r.message})))""",
            [out["user"], known["user"]],
        )
        assert alias["code"] == 202
        assert (await it.counts())["alias"] == 1


SECURE = """<!doctype html><meta charset="utf-8"><title>shop</title><script src="/sdk.js"></script>
<script>
window.answers = [];
mParticle.init('web-api-key', {
  isDevelopmentMode: false, workspaceToken: 'w1', logLevel: 'none', domain: 'HOST',
  identityCallback: r => window.answers.push(
    {code: r.httpCode, body: r.body, user: r.getUser && r.getUser() && r.getUser().getMPID()}),
});
function call(op, identities) {
  return new Promise(done => mParticle.Identity[op]({userIdentities: identities || {}},
    r => done({code: r.httpCode, body: r.body, user: mParticle.Identity.getCurrentUser() &&
      mParticle.Identity.getCurrentUser().getMPID()})));
}
</script>"""
