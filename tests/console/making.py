"""A running server with people in it, and those who may look at them."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from tests.web.serving import PLAIN, Running, running

from onymous.flows.people import People

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
PASSWORD = "correct horse battery"
ANNA = {"customerid": "cust-4711", "email": "anna@x.io"}
STAMP = "5da9e5c9-aaaa-bbbb"
NASTY = "<img src=x onerror=window.bad=1>"


async def batch(it: Running, **more: Any) -> None:
    """Send a batch of a web shop."""
    body = {
        "environment": "production",
        "events": [
            {"event_type": "session_start", "data": {}},
            {"event_type": "custom_event", "data": {"event_name": "Viewed basket"}},
        ],
        "device_info": {"platform": "web", "device_model": "Pixel 9", "os": "Android"},
        **more,
    }
    answer = await it.client.post("/v2/events", json=body, headers=it.basic())
    assert answer.status_code == 202, answer.text


def bought(amount: float) -> dict[str, Any]:
    """Return a purchase."""
    action = {"action": "purchase", "transaction_id": "t1", "total_amount": amount}
    return {"event_type": "commerce_event", "data": {"product_action": action}}


async def story(it: Running) -> str:
    """Let Anna visit, register and buy; return her MPID."""
    await it.ask("identify", {"device_application_stamp": STAMP})
    answer = await it.ask("login", {"device_application_stamp": STAMP, **ANNA})
    mpid = str(answer.json()["mpid"])
    await batch(
        it,
        user_identities={"customer_id": ANNA["customerid"]},
        events=[{"event_type": "session_start", "data": {}}, bought(99.5)],
        user_attributes={"$FirstName": "Anna", "$City": "Malmö", "favourite": NASTY},
        consent_state={"gdpr": {"marketing": {"consented": True, "document": "terms 3"}}},
    )
    return mpid


async def add_people(it: Running) -> None:
    """Add one of each role, and one who sees only another scope."""
    core = it.server.core
    people = People(core.store, core.key)
    for name, role, scopes in (
        ("boss", "admin", ()),
        ("helen", "support", ()),
        ("rita", "read-only", ()),
        ("olaf", "support", ("others",)),
    ):
        await people.add(name, role, PASSWORD, scopes, actor="test")


@asynccontextmanager
async def console(place: Any, folder: pathlib.Path, **flags: Any) -> AsyncIterator[Running]:
    """Serve a place with people who may sign in."""
    async with running(place, folder, **flags) as it:
        await add_people(it)
        yield it


async def audits(it: Running) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return (actor, action, subject, detail) of the whole audit."""
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT actor, action, subject, detail FROM audit ORDER BY id")
    return [(a, b, c, json.loads(bytes(d))) for a, b, c, d in rows]


def token(text: str) -> str:
    """Return the CSRF token of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found, text[:500]
    return found[1]


def asked_by(text: str, words: str) -> str:
    """Return what the button `Reveal words` of a page asks for."""
    form = text.partition(f'aria-label="Reveal {words}"')[0].rpartition("<form")[2]
    found = re.search(r'name="value" value="([^"]+)"', form)
    assert found, words
    return found[1]


async def here(it: Running, environment: str = "production", scope: str = "people") -> str:
    """Return the path of a place."""
    for caller in it.server.core.directory.callers():
        if caller.scope_name == scope:
            return f"/console/{caller.scope}/{environment}"
    raise AssertionError(scope)


class Someone:
    """Somebody with a cookie, over plain HTTP."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, verify=PLAIN, trust_env=False, timeout=30)
        self.csrf = ""

    async def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        form = await self.client.get("/console/sign-in")
        data = {"csrf": token(form.text), "name": name, "password": password}
        answer = await self.client.post("/console/sign-in", data=data)
        if answer.status_code == 303:
            home = await self.client.get("/console", follow_redirects=True)
            self.csrf = token(home.text)
        return answer

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, **more)

    async def post(self, path: str, **data: str) -> httpx.Response:
        return await self.client.post(path, data={"csrf": self.csrf, **data})


@asynccontextmanager
async def someone(it: Running, name: str) -> AsyncIterator[Someone]:
    """Sign somebody in over plain HTTP."""
    who = Someone(it.url)
    async with who.client:
        assert (await who.sign_in(name)).status_code == 303
        yield who


class Seen:
    """A browser page that remembers what its console complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.fail("Chromium is not installed: apt-get install chromium", pytrace=False)
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield found
        finally:
            await found.close()


async def enter(context: BrowserContext, it: Running, name: str = "helen") -> Seen:
    """Open the console in a browser and sign in."""
    seen = Seen(await context.new_page())
    await seen.page.goto(f"{it.url}/console")
    await seen.page.fill("#name", name)
    await seen.page.fill("#password", PASSWORD)
    await seen.page.keyboard.press("Enter")
    await seen.page.wait_for_selector(".env")
    return seen
