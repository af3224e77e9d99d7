"""A person's page: timelines filtered, former names, names taken away by hand, one person live."""

from __future__ import annotations

import asyncio
import pathlib
import re
from typing import Any

from tests.console.making import (
    ANNA,
    STAMP,
    Someone,
    asked_by,
    audits,
    batch,
    bought,
    browser,
    console,
    enter,
    here,
    someone,
    story,
)
from tests.web.serving import Running

DAY = 86_400_000
START = 1_700_000_000_000  # 14 November 2023


async def pages_seen(it: Running, count: int = 5, **more: Any) -> None:
    """Let Anna look at a page a day."""
    for n in range(count):
        data = {"screen_name": f"Day {n}.", "timestamp_unixtime_ms": START + n * DAY}
        event = {"event_type": "screen_view", "data": data}
        known = {"customer_id": ANNA["customerid"]}
        await batch(it, user_identities=known, events=[event], **more)


async def days(helen: Someone, path: str) -> list[int]:
    page = await helen.get(path)
    assert page.status_code == 200
    return [int(n) for n in re.findall(r"Day (\d+)\.", page.text)]


async def test_a_timeline_is_filtered(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        await pages_seen(it, mp_deviceid="a-device-of-hers")
        path = f"{await here(it)}/person/{mpid}"
        assert await days(helen, path) == [4, 3, 2, 1, 0]
        assert await days(helen, path + "?from=2023-11-15&to=2023-11-16") == [2, 1]
        assert await days(helen, path + "?from=2023-11-17&show=events") == [4, 3]
        assert await days(helen, path + "?to=2023-11-14") == [0]
        bare = (await helen.get(path)).text
        assert "purchase 99.50" in bare and "<b>login</b>" in bare
        bought_only = (await helen.get(path + "?event=commerce_event")).text
        assert "purchase 99.50" in bought_only and "<b>login</b>" not in bought_only
        assert "Day 1" not in bought_only
        # a device is named by a handle, not by its value
        found = re.search(r'<option value="([0-9a-f]{18})"[^>]*>[^<]*\*\*\*', bare)
        assert found and "a-device-of-hers" not in bare
        theirs = (await helen.get(f"{path}?device={found[1]}")).text
        assert "Day 1" in theirs and "purchase" not in theirs and "<b>login</b>" not in theirs
        number = re.search(r'<option value="(\d+)">server</option>', bare)
        assert number is not None
        assert "Day 1" in (await helen.get(f"{path}?input={number[1]}")).text
        other = (await helen.get(f"{path}?input=99")).text
        assert "Nothing fits this filter" in other
        for odd in ("from=never&to=2023-13-45", "input=x&event=y&device=z", "before=1.9.x&show=q"):
            assert await days(helen, f"{path}?{odd}") == [4, 3, 2, 1, 0], odd
        unknown = (await helen.get(f"{path}?device={'0' * 18}")).text
        assert "Nothing fits this filter" in unknown
        # without scripts a revealed page stays what it was
        some = {"asked": "to=2023-11-14&show=events", "value": asked_by(bare, "all names")}
        revealed = (await helen.post(f"{path}/reveal", **some)).text
        assert "Day 0" in revealed and "Day 1" not in revealed and ANNA["email"] in revealed


async def test_a_filtered_timeline_pages_without_loss(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        await pages_seen(it, 90)
        for n in range(60):
            known = {"customer_id": ANNA["customerid"]}
            start = {"event_type": "session_start", "data": {}}
            start["data"] = {"timestamp_unixtime_ms": START + n * DAY + 1}
            await batch(it, user_identities=known, events=[start])
        path, seen = f"{await here(it)}/person/{mpid}?event=screen_view", list[int]()
        for _ in range(9):
            page = (await helen.get(path)).text
            seen += [int(n) for n in re.findall(r"Day (\d+)\.", page)]
            if ">Older<" not in page:
                break
            older = page.partition(">Older<")[0].rpartition('href="')[2].partition("#")[0]
            path = older.replace("&amp;", "&")
        assert seen == list(range(90))[::-1]


async def test_former_names_say_until_when_and_whose_they_are(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        anna = await story(it)
        path = f"{await here(it)}/person/{anna}"
        assert "Former names" not in (await helen.get(path)).text
        change = {"identity_type": "email", "old_value": ANNA["email"], "new_value": "anna@new.io"}
        assert (await it.modify(anna, [change], request_id="mail-change")).status_code == 200
        page = (await helen.get(path)).text
        row = page.partition('id="former"')[2].partition("</table>")[0]
        assert "Email" in row and "modify" in row and "request mail-change" in row
        assert "nobody" in row and ANNA["email"] not in page
        ben = (await it.ask("login", {"email": ANNA["email"]})).json()["mpid"]
        row = (await helen.get(path)).text.partition('id="former"')[2].partition("</table>")[0]
        assert ben in row and "nobody" not in row
        # taken by somebody else: who took it then stands there
        change = {"identity_type": "customerid", "old_value": None}
        change["new_value"] = ANNA["customerid"]
        assert (await it.modify(ben, [change])).status_code == 200
        row = (await helen.get(path)).text.partition('id="former"')[2].partition("</table>")[0]
        assert f"given to {ben}" in row
        handle = asked_by((await helen.get(path)).text, "all names")
        shown = (await helen.post(f"{path}/reveal", value=handle)).text
        assert ANNA["email"] in shown.partition('id="former"')[2].partition("</table>")[0]


async def test_a_name_is_taken_away_by_hand_and_given_back(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "helen") as helen,
        someone(it, "rita") as rita,
    ):
        anna, home = await story(it), await here(it)
        path = f"{home}/person/{anna}"
        page = (await helen.get(path)).text
        form = page.partition('aria-label="Detach Email …"')[0].rpartition("<form")[2]
        found = re.search(r'name="value" value="([0-9a-f]+)"', form)
        assert found is not None
        seen = await helen.post(f"{path}/detach", value=found[1])
        assert seen.status_code == 200 and "a***@x.io" in seen.text
        assert ANNA["email"] not in seen.text and "last name" not in seen.text
        assert (await rita.post(f"{path}/detach", value=found[1])).status_code == 403
        assert "Detach" not in (await rita.get(path)).text
        development = path.replace("production", "development")
        for where, value in ((path, "all-names"), (path, "0" * 18), (development, found[1])):
            wrong = await helen.post(f"{where}/detach", value=value, reason="a try")
            assert wrong.status_code == 404, (where, value)
        said = await helen.post(f"{path}/detach", value=found[1], confirmed="yes")
        assert "Say why" in said.text
        done = await helen.post(f"{path}/detach", value=found[1], reason="typing mistake")
        assert done.status_code == 303
        assert (await helen.post(f"{path}/detach", value=found[1], reason="x")).status_code == 404
        assert "Nobody holds" in (await helen.post(f"{home}/search", q=ANNA["email"])).text
        page = (await helen.get(path)).text
        assert "<b>detach</b>" in page and "by hand" in page and "Former names (1)" in page
        log = [(who, s, d) for who, a, s, d in await audits(it) if a == "detach"]
        assert log == [("console/helen", anna, {"type": "email", "reason": "typing mistake"})]
        entry = page.partition("/entry/")[2].partition("/undo")[0]
        undo = f"{path}/entry/{entry}/undo"
        assert "attached: Email" in (await helen.post(undo)).text
        assert (await helen.post(undo, reason="it was right")).status_code == 303
        answer = await it.ask("search", {"email": ANNA["email"]})
        assert answer.json()["mpid"] == anna


async def test_the_last_name_of_a_merged_profile(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        anna, home = await story(it), await here(it)
        other = (await it.ask("login", {"email": "anna@work.example"})).json()["mpid"]
        both = {"source": other, "destination": anna, "reason": "same person"}
        assert (await helen.post(f"{home}/merge", **both)).status_code == 303
        path = f"{home}/person/{anna}"
        page = (await helen.get(path)).text
        row = page.partition("a***@work.example</span></td>")[2]
        value = re.search(r'detach".*?name="value" value="([0-9a-f]+)"', row)
        assert value is not None
        seen = (await helen.post(f"{path}/detach", value=value[1])).text
        assert "last name" in seen and other in seen
        done = await helen.post(f"{path}/detach", value=value[1], reason="old address")
        assert done.status_code == 303
        assert "Nobody holds" in (await helen.post(f"{home}/search", q="anna@work.example")).text
        # the others of the person stay
        assert (await it.ask("search", ANNA)).json()["mpid"] == anna


async def test_a_request_is_found_by_its_id(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        anna, home = await story(it), await here(it)
        await it.ask("identify", ANNA, request_id="only-looked")
        told = await rita.post(f"{home}/search", q="only-looked", type="request")
        assert told.status_code == 200 and "Why this answer?" in told.text
        assert anna in told.text and "it changed nothing" in told.text
        assert ANNA["email"] not in told.text
        nothing = await rita.post(f"{home}/search", q="never-was", type="request")
        assert nothing.status_code == 404
        development = home.replace("production", "development")
        elsewhere = await rita.post(f"{development}/search", q="only-looked", type="request")
        assert elsewhere.status_code == 404


async def test_one_person_live(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        anna, home = await story(it), await here(it)
        path = f"{home}/live?of={anna}"
        assert anna in (await rita.get(path)).text
        assert (await rita.get(f"{home}/live?of=5")).status_code == 404
        lines: list[str] = []
        ready = asyncio.Event()

        async def listen() -> None:
            where = f"{home}/live/stream?of={anna}"
            async with rita.client.stream("GET", where) as answer:
                async for line in answer.aiter_lines():
                    ready.set()
                    if line.startswith("data: "):
                        lines.append(line)
                    if any("batch" in x for x in lines) and any("modify" in x for x in lines):
                        return

        task = asyncio.create_task(listen())
        await asyncio.wait_for(ready.wait(), 10)
        await it.ask("login", {"customerid": "somebody-else"})
        await batch(it, user_identities={"customer_id": "somebody-else"}, events=[bought(5)])
        await batch(it, user_identities={"customer_id": ANNA["customerid"]}, events=[bought(7)])
        change = {"identity_type": "other", "old_value": None, "new_value": "card-8"}
        await it.modify(anna, [change])
        await asyncio.wait_for(task, 20)
        text = "".join(lines)
        assert "purchase 7.00" in text and "purchase 5.00" not in text
        assert all(f'"mpid": "{anna}"' in line for line in lines)


async def test_in_a_browser_by_keyboard(place: Any, tmp_path: pathlib.Path) -> None:
    async with console(place, tmp_path) as it, browser() as chromium:
        mpid = await story(it)
        await pages_seen(it)
        seen = await enter(await chromium.new_context(), it)
        page = seen.page
        await page.goto(f"{it.url}{await here(it)}/person/{mpid}")
        await page.locator(".filters summary").focus()
        await page.keyboard.press("Enter")
        await page.fill("#f-from", "2023-11-16")
        await page.select_option("#f-event", "screen_view")
        await page.keyboard.press("Tab")
        await page.locator(".filters button", has_text="Show").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Day 2.")
        assert await page.locator(".timeline > li").count() == 3
        assert "screen_view" in page.url and STAMP not in page.url
        assert await page.input_value("#f-from") == "2023-11-16"
        await page.get_by_role("button", name="Detach Email").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Take this name away?")
        await page.fill("#reason", "typing mistake")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=Former names (1)")
        await page.click("text=Former names (1)")
        assert "a***@x.io" in await page.inner_text("#former")
        assert await page.locator("#names tbody tr").count() == 2
        assert seen.complaints == []
