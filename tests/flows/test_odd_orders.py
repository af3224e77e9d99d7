"""Aliases, merges and erasures in orders nobody plans: nobody's history ends with somebody else."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import purchase, send, view
from tests.flows.test_merging import identify, post, with_more
from tests.web.serving import Running, running

from onymous.flows.events import Incoming, Taken

MARK = "zebra7731"


async def copied(it: Running, source: str, destination: str) -> None:
    """Let an alias copy everything that can be copied."""
    data = {
        "source_mpid": source,
        "destination_mpid": destination,
        "copy": ["attributes", "consent"],
    }
    assert (await post(it, "/v1/identity/linked-api-key/alias", data=data)).status_code == 202


async def told(it: Running, mpid: str) -> tuple[str | None, bool | None, list[bool]]:
    """Return an attribute, an answer about consent, and the history of answers."""
    persons = (await view(it, mpid)).workspaces.values()
    for person in persons:
        attribute, answer = person.attributes.get("plan"), person.consent.get("gdpr/ads")
        return (
            None if attribute is None else str(attribute.value),
            None if answer is None else answer.consented,
            [c.consented for _, c in person.consents],
        )
    return None, None, []


async def visitors(it: Running) -> tuple[list[str], str]:
    """Return two visitors who said something each, one after the other, and a customer."""
    known = await identify(it, "linked", customerid="anna")
    await send(it, {"mpid": known, "user_attributes": {"own": "1"}}, who="linked")
    out = []
    for n in (1, 2):
        mpid = await identify(it, "linked", device_application_stamp=f"device-stamp-{n}")
        at = {"timestamp_unixtime_ms": 1_700_000_000_000 + n}
        change = {"user_attribute_name": "plan", "new": f"{MARK}-{n}", **at}
        batch = {
            "mpid": mpid,
            "events": [{"event_type": "user_attribute_change", "data": change}],
            "consent_state": {"gdpr": {"ads": {"consented": True, "document": str(n), **at}}},
        }
        await send(it, batch, who="linked")
        out.append(mpid)
    return out, known


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2))))
async def test_copies_are_undone_in_any_order(
    place: Any, tmp_path: pathlib.Path, order: tuple[int, int]
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        (one, two), known = await visitors(it)
        await copied(it, one, known)
        await copied(it, two, known)
        assert await told(it, known) == (f"{MARK}-2", True, [True, True])
        first, second = order
        assert (await post(it, f"/v1/alias/{first}/undo", reason="x")).status_code == 200
        assert await told(it, known) == (f"{MARK}-{second}", True, [True])
        assert (await post(it, f"/v1/alias/{second}/undo", reason="x")).status_code == 200
        assert await told(it, known) == (None, None, [])
        persons = (await view(it, known)).workspaces.values()
        assert [p.attributes["own"].value for p in persons] == ["1"]


async def rows(it: Running, statement: str) -> list[Any]:
    async with it.server.core.store.read() as session:
        return [tuple(row) for row in await session.rows(statement)]


@pytest.mark.parametrize("who", ["source", "destination"])
async def test_what_an_alias_copied_goes_with_an_erasure(
    place: Any, tmp_path: pathlib.Path, who: str
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        (one, two), known = await visitors(it)
        await copied(it, one, known)
        await copied(it, two, known)
        gone = two if who == "source" else known
        await it.erase(gone, who="linked")
        kept = await rows(it, "SELECT body FROM alias_copy")
        left = {"source": [b"%b-2" % MARK.encode()], "destination": [MARK.encode()]}[who]
        assert not any(text in bytes(body) for (body,) in kept for text in left)
        if who == "source":
            assert await told(it, known) == (f"{MARK}-1", True, [True])
        assert (await told(it, one))[0] == f"{MARK}-1"


async def test_a_batch_and_an_erasure_at_the_same_moment(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        core = it.server.core
        caller = core.directory.find("linked-api-key")
        assert caller is not None
        for n in range(8):
            mpid = await identify(it, "linked", customerid=f"anna-{n}")
            raw = {"mpid": mpid, "events": [purchase(5)], "user_attributes": {"plan": MARK}}
            loop = asyncio.get_running_loop()
            before, after = loop.create_future(), loop.create_future()
            body = b"{}"
            one = Incoming(caller=caller, raw=raw, body=body, now_ms=5)
            two = Incoming(caller=caller, raw=raw, body=body, now_ms=6)
            core.events.take(one, before.set_result)
            erasing = asyncio.create_task(it.erase(mpid, who="linked"))
            await asyncio.sleep(0)
            core.events.take(two, after.set_result)
            answers: list[Taken] = [await before, await after]
            await erasing  # fails where it is refused
            assert all(taken.refusal is None for taken in answers)
        for table in ("person", "batch", "tally"):
            assert await rows(it, f"SELECT pid FROM {table}") == [], table
        assert await rows(it, "SELECT pid FROM identity") == []


async def test_what_was_merged_is_not_aliased_to_somebody_else(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        (visitor, _), anna = await visitors(it)
        ben = await identify(it, "linked", customerid="ben")
        await send(it, {"mpid": visitor, "events": [purchase(7)]}, who="linked")
        pair = {"source_mpid": visitor, "destination_mpid": anna, "reason": "her phone"}
        assert (await post(it, "/v1/merge", **pair)).status_code == 200
        data = {"source_mpid": visitor, "destination_mpid": ben}
        path = "/v1/identity/linked-api-key/alias"
        assert (await post(it, path, data=data)).status_code == 202
        assert await rows(it, "SELECT outcome, reason FROM alias") == [
            ("rejected", "source_is_merged")
        ]
        assert (await view(it, ben)).lifetime_value == 0
        assert (await view(it, anna)).lifetime_value == 7
        # of the same person it changes nothing; once the merge is undone it takes effect
        same = {"source_mpid": visitor, "destination_mpid": anna}
        assert (await post(it, path, data=same)).status_code == 202
        assert (await view(it, anna)).lifetime_value == 7
        assert (await post(it, "/v1/alias/2/undo", reason="x")).status_code == 200
        assert (await post(it, "/v1/merge/1/undo", reason="x")).status_code == 200
        assert (await post(it, path, data=data)).status_code == 202
        assert (await view(it, ben)).lifetime_value == 7
        # and who merges the source now is told whose history it is as well
        seen = await post(it, "/v1/merge", dry_run=True, **pair)
        assert any("another profile" in text for text in seen.json()["preview"]["warnings"])


async def test_a_merge_of_another_process_is_erased_as_well(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        (one, two), anna = await visitors(it)
        for visitor in (one, two):
            pair = {"source_mpid": visitor, "destination_mpid": anna, "reason": "her phone"}
            assert (await post(it, "/v1/merge", **pair)).status_code == 200
        # as long as this process has not heard of it
        it.server.core.resolver.merged = {}
        await it.erase(anna, who="linked")
        for table in ("person", "batch", "tally", "identity", "merge"):
            assert await rows(it, f"SELECT * FROM {table}") == [], table
        for mpid in (one, two, anna):
            assert (await post(it, "/v1/merge", **{**pair, "source_mpid": mpid})).status_code == 400
