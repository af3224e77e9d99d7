"""Someone browses, registers, browses on and buys: what each strategy makes of it.

The real web SDK in Chromium visits A, B and C anonymously, registers, visits D and E and buys F.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import shutil
import time
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright
from tests.clients.test_sdks import FLAGS, call, opened, pages, sdks, shop
from tests.flows.test_events_flow import view
from tests.web.serving import Running, running

from onymous.flows.profiles import ProfileView, sides
from onymous.flows.tenants import apply
from onymous.flows.timeline import Timeline, Wanted

__all__ = ["pages", "sdks"]

STRATEGIES = ("default", "profile_conversion", "profile_link", "profile_isolation", "best_match")
KNOWN = {"customerid": "anna", "email": "anna@x.io"}


def tenants() -> str:
    """Return a scope and a workspace for each strategy."""
    lines = ["organization: Test", "scopes:"]
    for name in STRATEGIES:
        rules = (
            ""
            if name in ("default", "best_match")
            else (", login: [customerid, email], unique: [customerid, email]")
        )
        lines.append(f"  {name}: {{strategy: {name}{rules}}}")
    lines.append("workspaces:")
    for name in STRATEGIES:
        server = f'{{kind: server, api_key: {name}-server, permissions: ["alias:any"]}}'
        web = f"{{kind: web, api_key: {name}-web-key}}"
        lines.append(f"  {name}: {{scope: {name}, inputs: {{{name}: {server}, web: {web}}}}}")
    return "\n".join(lines) + "\n"


async def live(it: Running, browser: Browser, address: str, key: str) -> tuple[str, str]:
    """Live through the story; return the MPID before and after registering."""
    context = await browser.new_context()
    page = await context.new_page()
    anonymous = str((await opened(page, address))["user"])
    await page.evaluate(
        """() => {
          const user = mParticle.Identity.getCurrentUser();
          user.setUserAttribute('visitor', 'yes');
          const consent = mParticle.Consent.createConsentState();
          consent.addGDPRConsentState('ads',
            mParticle.Consent.createGDPRConsent(true, Date.now(), 'doc', 'here', 'hw'));
          user.setConsentState(consent);
          for (const name of ['A', 'B', 'C']) mParticle.logEvent(name);
          mParticle.upload();
        }"""
    )
    await page.wait_for_timeout(300)
    known = str((await call(page, "login", KNOWN))["user"])
    await page.evaluate(
        """() => {
          mParticle.Identity.getCurrentUser().setUserAttribute('member', 'yes');
          for (const name of ['D', 'E']) mParticle.logEvent(name);
          const product = mParticle.eCommerce.createProduct('F', 'sku', 30, 1);
          mParticle.eCommerce.logProductAction(
            mParticle.ProductActionType.Purchase, [product], null, null,
            {Id: 't1', Revenue: 30});
          mParticle.upload();
        }"""
    )
    for _ in range(300):
        if set("DEF") <= (await events(it, known))[0]:  # they may come in several batches
            break
        await asyncio.sleep(0.1)
    await context.close()
    return anonymous, known


async def events(it: Running, mpid: str) -> tuple[set[str], ProfileView]:
    """Return the names of the events that belong to a profile, and the profile."""
    core = it.server.core
    profile = await view(it, mpid)
    names: set[str] = set()
    async with core.store.read() as session:
        for side in await sides(session, profile.pid):
            rows = await session.rows("SELECT dictionary, body FROM batch WHERE pid = ?", side.pid)
            for row in rows:
                batch = json.loads(await core.bodies.unpack(session, *row))
                for event in batch["events"]:
                    data = event["data"]
                    at = data.get("timestamp_unixtime_ms", 0)
                    if side.start_ms <= at <= side.end_ms:
                        bought = (data.get("product_action") or {}).get("action") == "purchase"
                        names.add("F" if bought else str(data.get("event_name")))
    return names & set("ABCDEF"), profile


async def timeline(it: Running, mpid: str) -> set[str]:
    """Return whose batches the timeline of a profile shows."""
    core = it.server.core
    lines = Timeline(core.store, core.historian, core.directory, core.bodies)
    pid = core.mpids.parse(mpid)
    assert pid is not None
    items, _ = await lines.page(
        pid, int(time.time() * 1000), wanted=Wanted(kind="events"), limit=200
    )
    return {item.batch.mpid for item in items if item.batch is not None}


def attributes(profile: ProfileView) -> set[str]:
    return {name for p in profile.workspaces.values() for name in p.attributes}


@pytest.mark.clients
async def test_each_strategy_tells_its_story(
    place: Any, tmp_path: pathlib.Path, pages: tuple[str, dict[str, bytes]]
) -> None:
    address, files = pages
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed: apt-get install chromium"
    async with running(place, tmp_path) as it, async_playwright() as playwright:
        core = it.server.core
        out = await apply(core.store, core.key, tenants(), actor="test", now_ms=2)
        it.secrets |= {c.input: c.secret for c in out.credentials}
        await core.directory.load()
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=FLAGS.split(), headless=True
        )
        try:
            for name in STRATEGIES:
                files["/"] = shop(it, f"{name}-web-key")
                told = await live(it, browser, f"{address}/", f"{name}-web-key")
                await CHECKS[name](it, *told)
        finally:
            await browser.close()


async def converted(it: Running, anonymous: str, known: str) -> None:
    """One MPID throughout: everything is theirs."""
    assert anonymous == known
    names, profile = await events(it, known)
    assert names == set("ABCDEF")
    assert profile.lifetime_value == 30
    assert attributes(profile) == {"visitor", "member"}
    assert await timeline(it, known) == {known}


async def linked(it: Running, anonymous: str, known: str) -> None:
    """Two profiles; an alias gives the earlier events, and its undoing takes exactly those."""
    assert anonymous != known
    assert (await events(it, anonymous))[0] == set("ABC")
    before, profile = await events(it, known)
    assert before == set("DEF") and profile.lifetime_value == 30
    assert attributes(profile) == {"member"}
    data = {"source_mpid": anonymous, "destination_mpid": known}
    body = {"environment": "production", "data": data}
    path = "/v1/identity/profile_link-server/alias"
    headers = credentials(it, "profile_link")
    reply = await it.client.post(path, json=body, headers=headers)
    assert reply.status_code == 202, reply.text
    after, aliased = await events(it, known)
    assert after == set("ABCDEF") and attributes(aliased) == {"member"}
    assert await timeline(it, known) == {known, anonymous}
    assert not any(p.consent for p in aliased.workspaces.values())
    number = aliased.aliases_in[0].id
    undo = {"environment": "production", "reason": "test"}
    done = await it.client.post(f"/v1/alias/{number}/undo", json=undo, headers=headers)
    assert done.status_code == 200, done.text
    assert (await events(it, known))[0] == set("DEF")
    assert (await events(it, anonymous))[0] == set("ABC")
    assert await timeline(it, known) == {known}


async def isolated(it: Running, anonymous: str, known: str) -> None:
    """No anonymous event, attribute, consent or device identity reaches the known profile."""
    assert anonymous != known
    names, profile = await events(it, known)
    assert names == set("DEF")
    assert attributes(profile) == {"member"}
    assert not any(p.consent for p in profile.workspaces.values())
    assert profile.lifetime_value == 30
    # the device is theirs only by what they did after they registered
    devices = [d for p in profile.workspaces.values() for d in p.devices]
    assert devices and all(d.first_ms >= profile.created_ms for d in devices)
    assert all(n.first_ms >= profile.created_ms for n in profile.device_identities)
    names, visitor = await events(it, anonymous)
    assert names == set("ABC") and attributes(visitor) == {"visitor"}
    assert {n.type for n in visitor.user_identities} == set()
    assert await timeline(it, known) == {known}
    assert await timeline(it, anonymous) == {anonymous}


async def matched(it: Running, anonymous: str, known: str) -> None:
    """Best match has no logins: the device finds the profile that saw it."""
    assert anonymous == known
    names, profile = await events(it, known)
    assert names == set("ABCDEF")
    assert profile.lifetime_value == 30


CHECKS = {
    "default": converted,
    "profile_conversion": converted,
    "profile_link": linked,
    "profile_isolation": isolated,
    "best_match": matched,
}


def credentials(it: Running, name: str) -> dict[str, str]:
    """Return the headers of a strategy's server input."""
    text = f"{name}-server:{it.secrets[name]}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
