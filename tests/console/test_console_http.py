"""What the console shows, and to whom: searches, roles, hostile values, merges, live."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from tests.console.making import (
    ANNA,
    NASTY,
    asked_by,
    audits,
    batch,
    bought,
    console,
    here,
    someone,
    story,
)


async def test_search_finds_exactly_and_says_nothing_in_addresses(
    tmp_path: pathlib.Path, place: Any
) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        mpid = await story(it)
        home = await here(it)
        person = f"{home}/person/{mpid}"
        for text, kind in (
            (" Anna@X.io ", ""),
            ("cust-4711", ""),
            ("cust-4711", "customerid"),
            (mpid, ""),
            (mpid, "mpid"),
        ):
            answer = await rita.post(f"{home}/search", q=text, type=kind)
            assert answer.status_code == 303 and answer.headers["location"] == person, text
        for text, kind in (("cust-47", ""), ("cust-4711", "email"), ("anna@x.io", "mpid")):
            answer = await rita.post(f"{home}/search", q=text, type=kind)
            assert answer.status_code == 200 and "Nobody holds" in answer.text
        for text in ("", "  ", "x" * 300):
            assert (await rita.post(f"{home}/search", q=text)).status_code == 400
        assert (await rita.get(f"{home}/search?q=anna@x.io")).status_code == 405


async def test_several_holders_are_listed(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        shared = {"device_application_stamp": "shared-tablet-1"}
        one = (await it.ask("login", {"customerid": "first-one", **shared})).json()["mpid"]
        two = (await it.ask("login", {"customerid": "second-one", **shared})).json()["mpid"]
        answer = await rita.post(f"{await here(it)}/search", q="shared-tablet-1")
        assert answer.status_code == 200
        assert one in answer.text and two in answer.text
        assert "first-one" not in answer.text and "shared-tablet" not in answer.text


async def test_hostile_values_are_text(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        answer = await it.ask("login", {"customerid": NASTY, "email": '"><u>@x.io'})
        mpid = answer.json()["mpid"]
        await batch(
            it,
            user_identities={"customer_id": NASTY},
            events=[{"event_type": NASTY, "data": {"event_name": NASTY}}],
            user_attributes={NASTY: NASTY},
            device_info={"platform": NASTY, "device_model": NASTY},
            consent_state={"gdpr": {NASTY: {"consented": True, "document": NASTY}}},
        )
        home = await here(it)
        person = f"{home}/person/{mpid}"
        pages = [await helen.get(person), await helen.get(home)]
        for group in ("all-names", asked_by(pages[0].text, "all attributes")):
            pages.append(await helen.post(f"{person}/reveal", value=group))
        found = pages[0].text.partition("/batch/")[2].partition('"')[0]
        pages.append(await helen.post(f"{person}/batch/{found}"))
        pages.append(await helen.post(f"{home}/search", q=NASTY, type="email"))
        for page in pages:
            assert page.status_code == 200
            assert "<img src=x" not in page.text and '"><u>' not in page.text
        assert "&lt;img src=x" in pages[2].text
        policy = pages[0].headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy


async def test_roles(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "rita") as rita,
        someone(it, "helen") as helen,
        someone(it, "boss") as boss,
    ):
        mpid = await story(it)
        home = await here(it)
        person = f"{home}/person/{mpid}"
        page = await rita.get(person)
        assert "Reveal" not in page.text and "Merge another" not in page.text
        number = page.text.partition("/batch/")[2].partition('"')[0]
        for path in (
            f"{person}/reveal",
            f"{person}/batch/{number}",
            f"{home}/merge/preview",
            f"{home}/merge",
            f"{person}/merge/1/undo",
            f"{person}/alias/1/undo",
            f"{person}/entry/1/undo",
            f"{home}/alias",
        ):
            answer = await rita.post(path, value="all-names", source=mpid, destination=mpid)
            assert answer.status_code == 403, path
            assert "does not include" in answer.text
        assert (await helen.get("/console/audit")).status_code == 403
        assert (await rita.get("/console/audit")).status_code == 403
        audit = await boss.get("/console/audit")
        assert audit.status_code == 200 and "console/rita" in audit.text


async def test_foreign_scopes_and_environments(tmp_path: pathlib.Path, place: Any) -> None:
    async with (
        console(place, tmp_path) as it,
        someone(it, "helen") as helen,
        someone(it, "olaf") as olaf,
    ):
        mpid = await story(it)
        home, others = await here(it), await here(it, scope="others")
        number = (await helen.get(f"{home}/person/{mpid}")).text
        number = number.partition("/batch/")[2].partition('"')[0]
        for elsewhere in (await here(it, "development"), others):
            for rest in (f"person/{mpid}", f"person/{mpid}/batch/{number}"):
                answer = await helen.get(f"{elsewhere}/{rest}")
                assert answer.status_code == 404 and "Nobody has this MPID here" in answer.text
            answer = await helen.post(f"{elsewhere}/person/{mpid}/reveal", value="all-names")
            assert answer.status_code == 404
            answer = await helen.post(f"{elsewhere}/search", q=ANNA["email"])
            assert "Nobody holds" in answer.text
        for path in (home, f"{home}/person/{mpid}", f"{home}/live", "/console/99/production"):
            answer = await olaf.get(path)
            assert answer.status_code == 404 and "No such scope" in answer.text
        assert (await olaf.get(f"{home}/live/stream")).status_code == 404
        assert (await olaf.get(others)).status_code == 200
        for word in ("0", "x", "-0", "9" * 30, "%00", "../../x"):
            assert (await helen.get(f"{home}/person/{word}")).status_code in (404, 405), word


async def test_merge_and_undo(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        anna = await story(it)
        other = (await it.ask("login", {"email": "anna@work.example"})).json()["mpid"]
        await batch(it, user_identities={"email": "anna@work.example"}, events=[bought(40.0)])
        home = await here(it)
        both = {"source": other, "destination": anna}
        preview = await helen.post(f"{home}/merge/preview", **both)
        assert preview.status_code == 200
        assert "139.50" in preview.text and "a***@work.example" in preview.text
        assert "merged" not in (await helen.get(f"{home}/person/{anna}")).text
        silent = await helen.post(f"{home}/merge", **both)
        assert silent.status_code == 400 and "Say why" in silent.text
        done = await helen.post(f"{home}/merge", **both, reason="same card")
        assert done.status_code == 303
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "2 profiles merged" in page and "139.50" in page and "same card" in page
        # both hold their names, and are one person
        found = await helen.post(f"{home}/search", q="anna@work.example")
        assert found.headers["location"] == f"{home}/person/{anna}"
        moved = await helen.get(f"{home}/person/{other}", follow_redirects=True)
        assert str(moved.url).endswith(f"/person/{anna}?was={other}")
        undo = page.partition(f"{anna}/merge/")[2].partition("/undo")[0]
        path = f"{home}/person/{anna}/merge/{undo}/undo"
        ask = await helen.post(path)
        assert ask.status_code == 200 and "40.00" in ask.text
        assert (await helen.post(path, reason="not her after all")).status_code == 303
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "merge undone" in page and "99.50" in page and "139.50" not in page
        assert (await helen.post(path, reason="again")).status_code == 404
        for source in (anna, "5", "x"):
            answer = await helen.post(f"{home}/merge/preview", source=source, destination=anna)
            assert answer.status_code == 400, source
        kinds = [action for _, action, _, _ in await audits(it)]
        assert "merge" in kinds and "unmerge" in kinds


async def test_aliases_show_and_can_be_undone(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        stamp = {"device_application_stamp": "visitor-77"}
        source = (await it.ask("identify", stamp)).json()["mpid"]
        await batch(it, mpid=source, events=[bought(15.0)])
        anna = await story(it)
        body = {
            "environment": "production",
            "request_type": "alias",
            "request_id": "r1",
            "data": {"source_mpid": source, "destination_mpid": anna},
        }
        path = "/v1/identity/server-api-key/alias"
        answer = await it.client.post(path, json=body, headers=it.basic())
        assert answer.status_code == 202, answer.text
        home = await here(it)
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "alias applied" in page and "114.50" in page
        undo = page.partition(f"{anna}/alias/")[2].partition("/undo")[0]
        path = f"{home}/person/{anna}/alias/{undo}/undo"
        assert "15.00" in (await helen.post(path)).text
        assert (await helen.post(path, reason="wrong visitor")).status_code == 303
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "alias undone" in page and "114.50" not in page


async def test_timelines_page_without_loss(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        mpid = await story(it)
        for n in range(60):
            at = 1_700_000_000_000 + n // 7
            await batch(
                it,
                user_identities={"customer_id": ANNA["customerid"]},
                events=[
                    {
                        "event_type": "custom_event",
                        "data": {"event_name": f"step-{n}.", "timestamp_unixtime_ms": at},
                    }
                ],
            )
        seen: list[str] = []
        path = f"{await here(it)}/person/{mpid}?show=events"
        for _ in range(4):
            page = (await helen.get(path)).text
            seen += [part.partition(".")[0] for part in page.split("step-")[1:]]
            if ">Older<" not in page:
                break
            older = page.partition(">Older<")[0].rpartition('href="')[2].partition("#")[0]
            path = older.replace("&amp;", "&")
        assert sorted(map(int, seen)) == list(range(60))


async def test_every_step_of_a_decision_is_told_again(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        stamp = {"device_application_stamp": "visitor-4-steps"}
        await it.ask("identify", stamp, request_id="first-visit")
        answer = await it.ask("login", {**stamp, **ANNA}, request_id="her-login")
        mpid, home = answer.json()["mpid"], await here(it)
        page = (await rita.get(f"{home}/person/{mpid}")).text
        path = page.partition("/why")[0].rpartition('"')[2] + "/why"
        told = await rita.get(path)
        assert told.status_code == 200 and "Why this answer?" in told.text
        assert "found by device_application_stamp" in told.text and mpid in told.text
        for secret in (*ANNA.values(), "visitor-4-steps"):
            assert secret not in told.text
        other = (await it.ask("login", {"email": "ben@x.io"})).json()["mpid"]
        nothing = path.replace(mpid, other)
        assert "No request stands behind this" in (await rita.get(nothing)).text
        development = path.replace("production", "development")
        for wrong in (nothing, development, path.replace("/why", "9/why"), path + "/x"):
            assert (await rita.get(wrong)).status_code == 404, wrong
        # one who asked without an id: the reasons stand in the timeline, no more
        assert "Every step" not in (await rita.get(f"{home}/person/{other}")).text


async def test_live_tells_what_is_committed(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "rita") as rita:
        lines: list[str] = []
        ready = asyncio.Event()

        async def listen() -> None:
            path = f"{await here(it)}/live/stream"
            async with rita.client.stream("GET", path) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for line in answer.aiter_lines():
                    ready.set()
                    if line.startswith("data: "):
                        lines.append(line)
                    if any("batch" in x for x in lines) and any("login" in x for x in lines):
                        return

        task = asyncio.create_task(listen())
        await asyncio.wait_for(ready.wait(), 10)
        await it.ask("login", {"customerid": "of-another-scope"}, who="stranger")
        mpid = await story(it)
        await asyncio.wait_for(task, 20)
        text = "".join(lines)
        assert mpid in text and "a***@x.io" in text
        for secret in (*ANNA.values(), "Malmö"):
            assert secret not in text


async def test_an_alias_by_hand_is_seen_first(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        visitor = {"device_application_stamp": "visitor-78"}
        source = (await it.ask("identify", visitor)).json()["mpid"]
        await batch(it, mpid=source, events=[bought(15.0)])
        anna = await story(it)
        home = await here(it)
        both = {"source": source, "destination": anna}
        seen = await helen.post(f"{home}/alias", **both)
        assert seen.status_code == 200 and "1 batch and 15.00" in seen.text
        early = await helen.post(f"{home}/alias", **both, end="2020-01-01T00:00")
        assert "0 batches and 0.00" in early.text
        assert "114.50" not in (await helen.get(f"{home}/person/{anna}")).text
        assert (await helen.post(f"{home}/alias", **both, start="soon")).status_code == 400
        for one in ("5", "", anna):
            wrong = {"source": one, "destination": anna, "reason": "a try"}
            assert (await helen.post(f"{home}/alias", **wrong)).status_code in (400, 409), one
        done = await helen.post(f"{home}/alias", **both, reason="it was her")
        assert done.status_code == 303
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "alias applied" in page and "114.50" in page and "by hand" in page
        log = [(a, s, d["reason"]) for _, a, s, d in await audits(it) if a == "alias"]
        assert log == [("alias", anna, "it was her")]


async def test_an_identity_change_is_undone(tmp_path: pathlib.Path, place: Any) -> None:
    async with console(place, tmp_path) as it, someone(it, "helen") as helen:
        anna = await story(it)
        changes = [{"identity_type": "other", "old_value": None, "new_value": "card-88123"}]
        assert (await it.modify(anna, changes)).status_code == 200
        home = await here(it)
        page = (await helen.get(f"{home}/person/{anna}")).text
        assert "****23" in page
        entry = page.partition("/entry/")[2].partition("/undo")[0]
        path = f"{home}/person/{anna}/entry/{entry}/undo"
        seen = await helen.post(path)
        assert seen.status_code == 200 and "detached: Other" in seen.text
        assert "card-88123" not in seen.text
        foreign = f"{await here(it, 'development')}/person/{anna}/entry/{entry}/undo"
        for elsewhere in (foreign, f"{home}/person/5/entry/{entry}/undo"):
            answer = await helen.post(elsewhere, reason="a try")
            assert answer.status_code in (400, 404, 409), elsewhere
        assert (await helen.post(path, reason="typing mistake")).status_code == 303
        found = await helen.post(f"{home}/search", q="card-88123")
        assert "Nobody holds" in found.text
        assert (await helen.post(path, reason="once more")).status_code in (404, 409)
        assert any(who == "console/helen" and "undo" in did for who, did, _, _ in await audits(it))
