"""Changes of rules in the console: who may undo them, what is shown first, and Chromium."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from tests.console.making import audits, browser, console, enter, someone
from tests.console.test_console_review import readable
from tests.lab.test_reresolve import OTHERS, RULES, people
from tests.web.serving import TENANTS, Running

from onymous.commands.reresolving import carry_over
from onymous.flows.merging import Actor
from onymous.flows.rules_asked import Rules

PAGE, UNDO = "/console/versions", "/console/rules/1/undo"


async def change(it: Running) -> tuple[int, dict[int, Any]]:
    """Two records become one person by new rules; return their pool, and who was who before."""
    core = it.server.core
    core.grace_s = 0.0
    for known in ({"customerid": "1", "email": "a@x.io"}, {"email": "a@x.io", "other": "b"}):
        await it.ask("identify", known, who="stranger")
    caller = core.directory.find("stranger-api-key")
    assert caller is not None
    pool = caller.pool("production")
    before = await people(it, pool)
    actor = Actor(name="Helen", reason="<b>personal</b>", now_ms=5)
    text = TENANTS.replace(OTHERS, RULES["wider"])
    await carry_over(core, text, actor, 0.0, quiet=True)
    await core.directory.load()
    return pool, before


async def ended(it: Running) -> str:
    while (now := await Rules(it.server.core.store).one(1)).state == "undoing":
        await asyncio.sleep(0.05)
    return now.state


async def test_administrators_see_what_it_does_and_undo_it(
    tmp_path: pathlib.Path, place: Any
) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "boss") as boss,
        someone(it, "helen") as helen,
    ):
        pool, before = await change(it)
        page = (await boss.get(PAGE)).text
        assert "<b>rules:1</b> of others" in page and "<b>personal</b>" not in page
        assert f'action="{UNDO}"' in page
        assert (await helen.post(UNDO, reason="no")).status_code == 403
        assert (await boss.client.post(UNDO, data={"reason": "no"})).status_code == 403
        assert (await boss.get(UNDO)).status_code == 405
        assert (await boss.post("/console/rules/9/undo")).status_code == 404
        seen = (await boss.post(UNDO)).text
        assert "Undo rules:1?" in seen and "2 records get back" in seen and "1 merge is" in seen
        tried = (await boss.post(UNDO, confirmed="yes", reason=" ")).text
        assert "Say why" in tried and await people(it, pool) != before
        done = await boss.post(UNDO, confirmed="yes", reason="shared addresses")
        assert done.status_code == 303 and done.headers["location"].startswith(PAGE)
        assert await ended(it) == "undone" and await people(it, pool) == before
        page = (await boss.get(PAGE)).text
        assert "by console/boss" in page and UNDO not in page
        assert ("console/boss", "rules.undo", "rules:1") in [a[:3] for a in await audits(it)]
        again = await boss.post(UNDO, reason="again")
        assert again.status_code == 409 and "undone already" in again.text


async def test_who_moved_again_is_named_and_can_be_left(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "boss") as boss:
        await change(it)
        anna = (await it.ask("identify", {"customerid": "1"}, who="stranger")).json()["mpid"]
        gone = {"identity_type": "other", "old_value": "b", "new_value": None}
        assert (await it.modify(anna, [gone], who="stranger")).status_code == 200
        seen = (await boss.post(UNDO)).text
        assert "a value that moved again" in seen and "See it without them" in seen
        await boss.post(UNDO, reason="all the same")
        assert await ended(it) == "standing"
        page = (await boss.get(PAGE)).text
        assert "undo refused" in page and "a value that moved again" in page
        without = (await boss.post(UNDO, keep_later="yes")).text
        assert "1 group of people" in without and 'name="keep_later" value="yes"' in without
        await boss.post(UNDO, keep_later="yes", reason="all the same")
        assert await ended(it) == "undone"


async def test_in_a_browser(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, browser() as chromium:
        pool, before = await change(it)
        context = await chromium.new_context(viewport={"width": 380, "height": 800})
        seen = await enter(context, it, "boss")
        page = seen.page
        await page.goto(f"{it.url}{PAGE}")
        await readable(page)
        await page.get_by_role("button", name="Undo rules:1 …").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Undo rules:1?")
        await readable(page)
        await page.fill("#reason", "shared addresses")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Promised")
        await readable(page)
        assert await ended(it) == "undone" and await people(it, pool) == before
        assert seen.complaints == []
