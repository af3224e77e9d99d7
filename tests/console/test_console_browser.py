"""The console in a real Chromium, as people use it: by mouse, by keyboard, light, dark, small."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page
from tests.console.making import (
    NASTY,
    PASSWORD,
    STAMP,
    Seen,
    batch,
    bought,
    browser,
    console,
    enter,
    here,
    story,
)
from tests.web.serving import Running


@asynccontextmanager
async def at_work(
    place: Any, folder: pathlib.Path, name: str = "helen", **look: Any
) -> AsyncIterator[tuple[Running, Seen, str]]:
    """A server with Anna, a browser with somebody signed in, and Anna's MPID."""
    async with console(place, folder) as it, browser() as chromium:
        mpid = await story(it)
        context = await chromium.new_context(**look)
        seen = await enter(context, it, name)
        yield it, seen, mpid
        assert seen.complaints == []
        await context.close()


async def find(page: Page, text: str) -> None:
    """Search as people do, from anywhere on a page."""
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("/")
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


async def focused(page: Page) -> str:
    """Return what has the focus, in short."""
    return str(
        await page.evaluate(
            "(e => [e.tagName, e.id, e.className.baseVal ?? e.className, e.textContent.trim()]"
            ".join('|').slice(0, 120))(document.activeElement)"
        )
    )


async def test_signing_in_by_hand(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, browser() as chromium:
        page = await chromium.new_page()
        await page.goto(f"{it.url}/console")
        await page.fill("#name", "helen")
        await page.fill("#password", "not her password")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("[role=alert]")
        assert "do not belong together" in await page.inner_text("[role=alert]")
        assert await page.input_value("#name") == "helen"
        assert await page.input_value("#password") == ""
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".env.production")
        assert "PRODUCTION" in await page.inner_text(".env")
        color = await page.eval_on_selector(
            ".env strong", "e => getComputedStyle(e.parentElement).backgroundImage"
        )
        assert "rgb(179, 21, 27)" in color
        cookies = await page.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        await page.click("text=helen")
        await page.click("text=Sign out everywhere")
        await page.wait_for_selector("#password")


async def test_a_person_is_found_drawn_and_revealed(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path) as (it, seen, mpid):
        page = seen.page
        await find(page, "ANNA@x.io")
        await page.wait_for_selector("h1.mpid")
        assert mpid in await page.inner_text("h1.mpid")
        assert "anna" not in page.url.lower()
        nodes = page.locator("svg .node")
        assert await nodes.count() == 3
        assert await page.locator("#names tbody tr").count() == 3
        told = await page.locator("svg .node").first.text_content() or ""
        assert "server" in told and "****11" in told and "-" in told
        assert "anna@x.io" not in await page.content()
        await page.get_by_role("button", name="Reveal Email").click()
        await page.wait_for_selector("#names >> text=anna@x.io")
        # the drawing and the timeline show it too
        assert await page.locator("svg >> text=anna@x.io").count() == 1
        assert await page.locator(".timeline >> text=anna@x.io").count() == 1
        assert "cust-4711" not in await page.content()
        await page.click("text=Reveal all attributes")
        await page.wait_for_selector(f"text={NASTY}")
        assert await page.evaluate("window.bad") is None
        async with it.server.core.store.read() as session:
            rows = await session.rows("SELECT subject, detail FROM audit WHERE action = 'reveal'")
        fields = {json.loads(bytes(detail))["field"] for _, detail in rows}
        assert {subject for subject, _ in rows} == {mpid}
        assert "email" in fields and "customerid" not in fields


async def test_a_link_from_elsewhere_leaves_one_signed_in(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with at_work(place, tmp_path) as (it, seen, mpid):
        link = f"{it.url}{await here(it)}/person/{mpid}"
        await seen.page.goto(f"data:text/html,<a href='{link}'>look at her</a>")
        await seen.page.click("text=look at her")
        await seen.page.wait_for_selector("h1.mpid")
        await seen.page.goto(f"{it.url}/console")
        await seen.page.wait_for_selector("#who")


async def test_the_environment_stays_in_sight(place: Any, tmp_path: pathlib.Path) -> None:
    look = {"viewport": {"width": 1000, "height": 500}}
    async with at_work(place, tmp_path, **look) as (_, seen, mpid):
        await find(seen.page, mpid)
        await seen.page.wait_for_selector("h1.mpid")
        await seen.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        assert await seen.page.evaluate("scrollY") > 200
        where = "document.querySelector('.env').getBoundingClientRect().top"
        assert await seen.page.evaluate(where) == 0


async def test_why_opens_the_reasons(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path) as (_, seen, mpid):
        page = seen.page
        await find(page, mpid)
        entry = page.locator(".timeline li.identity", has_text="Customer ID").first
        assert not await entry.locator(".why").is_visible()
        await entry.get_by_text("why?").click()
        reasons = await entry.locator(".why").inner_text()
        assert "found by Device Application Stamp" in reasons
        await page.click("text=JSON")
        await page.wait_for_selector("pre.json")
        text = await page.inner_text("pre.json")
        assert "purchase" in text and "cust-4711" not in text


async def test_merge_with_preview_and_undo(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path) as (it, seen, mpid):
        page = seen.page
        answer = await it.ask("login", {"email": "anna@work.example"})
        other = str(answer.json()["mpid"])
        await batch(it, user_identities={"email": "anna@work.example"}, events=[bought(40.0)])
        await find(page, mpid)
        await page.fill("#source", other)
        await page.click("text=Preview")
        await page.wait_for_selector("text=What will change")
        text = await page.inner_text("main")
        assert "139.50" in text and "a***@work.example" in text
        await page.fill("#reason", "same loyalty card")
        await page.click("text=Merge in production")
        await page.wait_for_selector("text=2 profiles merged")
        assert "139.50" in await page.inner_text(".facts")
        assert await page.locator("svg .node").count() == 4
        await page.click("text=Undo …")
        await page.wait_for_selector("text=loses exactly")
        await page.fill("#reason", "two people after all")
        await page.click("text=Undo in production")
        await page.wait_for_selector("text=merge undone")
        assert "99.50" in await page.inner_text(".facts")
        assert await page.locator("svg .node").count() == 3


async def test_live_shows_what_arrives_and_pauses(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path) as (it, seen, _):
        page = seen.page
        await page.click("nav >> text=Live")
        await page.wait_for_selector(".state.on")
        await it.ask("login", {"customerid": "newcomer-1", "email": "new@x.io"})
        await batch(it, user_identities={"customer_id": "newcomer-1"})
        await page.wait_for_selector("#live li.identity", timeout=10_000)
        await page.wait_for_selector("#live li.events", timeout=10_000)
        text = await page.inner_text("#live")
        assert "n***@x.io" in text and "newcomer" not in text and "Viewed basket" in text
        await page.keyboard.press("p")
        assert await page.inner_text("#state") == "paused"
        before = await page.locator("#live li").count()
        await it.ask("login", {"customerid": "newcomer-2"})
        await asyncio.sleep(1.5)
        assert await page.locator("#live li").count() == before
        await page.uncheck("#with-events")
        assert not await page.locator("#live > li.events").first.is_visible()
        await page.click("#pause")
        await page.wait_for_selector(".state.on")
        await it.ask("login", {"customerid": "newcomer-3", "email": "third@x.io"})
        await page.wait_for_selector("#live >> text=t***@x.io", timeout=10_000)


async def test_by_keyboard_alone(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path) as (_, seen, mpid):
        page = seen.page
        await find(page, mpid)
        await page.wait_for_selector("h1.mpid")
        await page.goto(page.url)
        await page.keyboard.press("Tab")
        assert "Skip to content" in await focused(page)
        await page.keyboard.press("Enter")
        assert "|main|" in await focused(page)
        reached: list[str] = []
        for _ in range(80):
            await page.keyboard.press("Tab")
            reached.append(await focused(page))
            outline = await page.evaluate(
                "(e => getComputedStyle(e).outlineStyle + e.tagName)(document.activeElement)"
            )
            assert not outline.startswith("none") or outline.endswith(("a", "BODY")), reached[-1]
            if "Preview" in reached[-1]:
                break
        text = "\n".join(reached)
        for stop in ("node user", "Reveal all names", "why?", "JSON", "|source|", "Preview"):
            assert stop in text, stop
        # an arrow of the drawing leads to its row
        await page.locator("svg .node").first.focus()
        await page.keyboard.press("Enter")
        assert "#name-" in page.url
        await page.get_by_role("button", name="Reveal Email").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#names >> text=anna@x.io")
        await page.locator(".timeline summary").first.focus()
        await page.keyboard.press("Enter")
        assert await page.locator(".why").first.is_visible()


async def test_dark_and_light_differ_and_are_readable(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path, color_scheme="dark") as (_, seen, mpid):
        page = seen.page
        await find(page, mpid)
        await page.wait_for_selector("h1.mpid")
        for scheme in ("dark", "light"):
            await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            low = await page.evaluate(CONTRAST)
            assert low == [], (scheme, low)
        dark = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(dark) == "rgb(244, 245, 249)"
        await page.emulate_media(color_scheme="dark")
        assert await page.evaluate(dark) == "rgb(17, 19, 27)"


#: every visible text whose contrast with what is behind it is below 4.5
CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e)
    .backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const out = [];
  for (const e of document.querySelectorAll('main *:not(svg *), header *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) out.push([e.tagName, e.className, e.textContent.trim().slice(0, 30), ratio]);
  }
  return out;
}"""


async def test_no_page_scrolls_sideways_on_a_phone(place: Any, tmp_path: pathlib.Path) -> None:
    look = {"viewport": {"width": 375, "height": 700}}
    async with at_work(place, tmp_path, "boss", **look) as (it, seen, mpid):
        page = seen.page
        home = await here(it)
        # a name without a space, as long as a name may be
        long = await it.ask("login", {"customerid": "x" * 250})
        await batch(
            it,
            user_identities={"customer_id": "x" * 250},
            user_attributes={"a" * 200: "y" * 900},
        )
        other = long.json()["mpid"]
        for path in (home, f"{home}/person/{mpid}", f"{home}/person/{other}", f"{home}/live"):
            await page.goto(it.url + path)
            if "person" in path:
                await page.click("text=Reveal all names")
                await page.wait_for_selector("#names .value:not(.masked)")
            assert await page.evaluate("document.documentElement.scrollWidth") == 375, path
        await page.goto(f"{it.url}/console/audit")
        assert await page.evaluate("document.documentElement.scrollWidth") == 375


async def test_it_works_without_scripts(place: Any, tmp_path: pathlib.Path) -> None:
    async with at_work(place, tmp_path, java_script_enabled=False) as (_, seen, mpid):
        page = seen.page
        await page.fill("#who", STAMP)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1.mpid")
        assert mpid in await page.inner_text("h1.mpid")
        await page.click("text=Reveal all names")
        await page.wait_for_selector("#names >> text=anna@x.io")
        await page.click(".timeline summary >> nth=0")
        assert await page.locator(".why").first.is_visible()


async def test_a_session_that_ends_says_so(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, browser() as chromium:
        mpid = await story(it)
        seen = await enter(await chromium.new_context(), it)
        path = f"{await here(it)}/person/{mpid}"
        await seen.page.goto(it.url + path)
        async with it.server.core.store.write("test") as tx:
            await tx.run("UPDATE console_user SET generation = generation + 1")
        await seen.page.click("text=Reveal all names")
        await seen.page.wait_for_selector("text=Your session has ended")
        await seen.page.fill("#name", "helen")
        await seen.page.fill("#password", PASSWORD)
        await seen.page.keyboard.press("Enter")
        await seen.page.wait_for_selector("h1.mpid")
        assert seen.page.url.endswith(path)
