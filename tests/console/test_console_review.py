"""The review and the versions of the configuration in the console: over HTTP and in Chromium."""

from __future__ import annotations

import pathlib
from typing import Any

from playwright.async_api import Page
from tests.console.making import add_people, audits, browser, console, enter, here, someone
from tests.console.test_console_browser import CONTRAST
from tests.flows.going import going
from tests.flows.test_review import FIRST, SECOND, conflict, held_back, known, whose
from tests.web.serving import TENANTS, Running

from onymous.flows.tenancy import encode
from onymous.flows.tenants import apply
from onymous.store import rules_sql


async def waiting(it: Running) -> tuple[str, str]:
    """Two people, a row that belongs to both, and a value of a page held back; their MPIDs."""
    one = await known(it, customerid="c1", email=FIRST)
    two = await known(it, customerid="c2", email=SECOND)
    await conflict(it, 1)
    await held_back(it, "c1", "third@x.io")
    await it.server.core.journal.flush(it.server.core.store)
    return one, two


async def test_the_review_shows_and_decides(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "rita") as rita,
        someone(it, "helen") as helen,
    ):
        one, two = await waiting(it)
        home = f"{await here(it)}/review"
        page = (await rita.get(home)).text
        assert "/review/c1" in page and "/review/v1" in page and "public key only" in page
        assert not any(secret in page for secret in (FIRST, SECOND, "third@x.io", "c1<"))
        entry = (await rita.get(f"{home}/v1")).text
        assert "t***@x.io" in entry and "third@x.io" not in entry and "Accept in" not in entry
        assert (await rita.post(f"{home}/v1")).status_code == 403
        for verb in ("accept", "refuse"):
            assert (await rita.post(f"{home}/v1/{verb}", reason="x")).status_code == 403
        clear = (await helen.post(f"{home}/v1")).text
        assert "third@x.io" in clear and FIRST in clear
        told = [(w, s, d["field"]) for w, a, s, d in await audits(it) if a == "reveal"]
        assert told == [("console/helen", one, "review v1")]
        # without a reason nothing happens
        empty = await helen.post(f"{home}/v1/accept", reason=" ")
        assert empty.status_code == 400 and "Say why" in empty.text
        done = await helen.post(f"{home}/v1/accept", reason="asked her")
        assert (done.status_code, done.headers["location"]) == (303, f"{home}?done=accepted")
        assert await whose(it, email="third@x.io") == one
        assert "Accepted." in (await helen.get(done.headers["location"])).text
        assert (await helen.post(f"{home}/v1/accept", reason="again")).status_code == 404
        into = (await helen.get(f"{home}/c1")).text
        assert 'name="into"' in into and one in into and two in into
        bad = await helen.post(f"{home}/c1/accept", reason="x", into="7")
        assert bad.status_code == 400 and "Nothing was changed" in bad.text
        refused = await helen.post(f"{home}/c1/refuse", reason="two sisters")
        assert refused.headers["location"] == f"{home}?done=refused"
        assert "Nothing waits" in (await helen.get(home)).text
        for who, action in (("accept", "review_accept"), ("refuse", "review_refuse")):
            assert ("console/helen", action) in [(w, a) for w, a, _, _ in await audits(it)], who


async def test_what_cannot_be_accepted_says_why(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        await known(it, customerid="c1", email=FIRST)
        await held_back(it, "c1", SECOND)
        await it.server.core.journal.flush(it.server.core.store)
        await known(it, customerid="c2", email=SECOND)
        home = f"{await here(it)}/review"
        told = await helen.post(f"{home}/v1/accept", reason="asked her")
        assert told.status_code == 400 and "Nothing was changed" in told.text
        assert 'value="asked her"' in told.text
        for entry in ("v2", "c1", "v", "x1", "v" + "9" * 30, "%00"):
            assert (await helen.get(f"{home}/{entry}")).status_code == 404, entry
            assert (await helen.post(f"{home}/{entry}/refuse", reason="x")).status_code == 404
        assert (await helen.get(f"{home}?after=nonsense")).status_code == 200
        other = f"{await here(it, scope='others')}/review"
        assert "Nothing waits" in (await helen.get(other)).text
        assert (await helen.post(f"{other}/v1/accept", reason="x")).status_code == 404
        development = f"{await here(it, 'development')}/review"
        assert (await helen.get(f"{development}/v1")).status_code == 404
        async with someone(it, "olaf") as olaf:
            assert (await olaf.get(home)).status_code == 404
        forged = await helen.client.post(f"{home}/v1/refuse", data={"reason": "x", "csrf": "no"})
        assert forged.status_code == 403


async def test_versions_are_for_administrators(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "boss") as boss,
        someone(it, "helen") as helen,
    ):
        core = it.server.core
        more = TENANTS.replace("    email_lower: true\n", "") + "# <b>\n"
        why = "phones <b>are</b> shared"
        await apply(core.store, core.key, more, actor="maria", reason=why, now_ms=9)
        page = (await boss.get("/console/versions")).text
        assert "Version 2" in page and "in force" in page and "maria" in page
        assert "<b>are</b>" not in page and "&lt;b&gt;are" in page
        one = (await boss.get("/console/versions/2")).text
        assert "email_lower" in one and "What is different from version 1" in one
        first = (await boss.get("/console/versions/1")).text
        assert "What it began with" in first and "profile_conversion" in first
        same = (await boss.get("/console/versions/2?against=2")).text
        assert "No difference." in same
        assert (await boss.get("/console/versions?before=2")).text.count("/versions/1") == 1
        for path in ("0", "3", "9" * 30, "-1", "x", "2?against=7", "2?against=" + "9" * 18):
            assert (await boss.get(f"/console/versions/{path}")).status_code == 404, path
        for odd in ("before=x", "before=-1", "before=" + "9" * 40):
            assert (await boss.get(f"/console/versions?{odd}")).status_code == 200
        for path in ("/console/versions", "/console/versions/1"):
            assert (await helen.get(path)).status_code == 403
        assert "/console/versions" not in (await helen.get("/console", follow_redirects=True)).text


async def readable(page: Page) -> None:
    """Check that nothing scrolls sideways on a phone, and all text can be read, day and night."""
    size = page.viewport_size
    await page.set_viewport_size({"width": 375, "height": 700})
    assert await page.evaluate("document.documentElement.scrollWidth") == 375, page.url
    for scheme in ("dark", "light"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert await page.evaluate(CONTRAST) == [], (page.url, scheme)
    assert size is not None
    await page.set_viewport_size(size)


async def test_in_a_browser_by_keyboard(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, browser() as chromium:
        one, two = await waiting(it)
        core = it.server.core
        plain = "plain: {kind: server, api_key: plain-api-key"
        changed = TENANTS.replace(plain, f"{plain}, keep_ip: false")
        await apply(core.store, core.key, changed, actor="maria", now_ms=9)
        seen = await enter(await chromium.new_context(), it, "boss")
        page = seen.page
        await page.get_by_role("link", name="Review").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#review-h")
        await readable(page)
        await page.locator(".hits a").first.focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Who stays?")
        await readable(page)
        await page.focus(f"input[value='{one}']")
        stays = two if await page.is_checked(f"input[value='{one}']") else one
        await page.keyboard.press("ArrowDown")
        assert await page.is_checked(f"input[value='{stays}']")
        await page.keyboard.press("Tab")
        await page.keyboard.type("same passport")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Accepted.")
        found = [await whose(it, reach="protected", customerid=c) for c in ("c1", "c2")]
        assert found == [stays, stays], (one, two)
        await page.locator(".hits a").first.focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Reveal values").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=third@x.io")
        await readable(page)
        await page.fill("#refuse-reason", "a typing error")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Nothing waits")
        await page.get_by_role("link", name="Configuration").click()
        await page.wait_for_selector("#versions-h")
        await readable(page)
        await page.locator(".hits a").first.click()
        await page.wait_for_selector(".diff .new")
        assert "keep_ip: false" in await page.inner_text(".diff .new >> nth=0")
        await readable(page)
        assert seen.complaints == []


async def test_what_was_carried_over_is_listed(tmp_path: pathlib.Path, place: Any) -> None:
    async with going(place, tmp_path) as two:
        await add_people(two.it)
        await two.who("shop", customerid="1")
        await two.change()
        core = two.core
        caller = core.directory.find("club-api-key")
        assert caller is not None
        config = encode(caller.plan.config)
        row = (9, caller.scope, "maria", "<b>shared</b> phones", config, config)
        async with core.store.write("test") as tx:
            await tx.rows(rules_sql.CHANGE_ADD, *row)
        async with someone(two.it, "boss") as boss:
            page = (await boss.get("/console/versions")).text
            assert "Carried over to the people there were" in page
            assert "<b>join 1</b>: red into blue" in page and "by ann: one company" in page
            assert "<b>rules:1</b> of blue" in page and "<b>shared</b>" not in page
            older = (await boss.get("/console/versions?before=2")).text
            assert "Carried over" not in older
