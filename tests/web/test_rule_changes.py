"""Changes of rules over HTTP: listed, previewed, undone by a process of its own, killed or not."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.lab.test_reresolve import OTHERS, RULES, people
from tests.web.reading import MORE, reading
from tests.web.test_platform import Operator, operator

from onymous.app import running as core_running
from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows.merging import Actor
from onymous.flows.rules_asked import Rules


class Changed:
    """A server whose scope `others` got other rules, and who was who before."""

    def __init__(self, op: Operator, number: int, before: dict[int, Any]) -> None:
        self.op, self.number, self.before = op, number, before
        self.it, self.core = op.here.running, op.here.core

    async def undo(self, who: str = "boss", **body: Any) -> Any:
        return await self.op.ask("POST", f"/rule_changes/{self.number}/undo", who=who, json=body)

    async def now(self) -> dict[str, Any]:
        reply = await self.op.ask("GET", f"/rule_changes/{self.number}", who="eyes")
        assert reply.status_code == 200, reply.text
        out: dict[str, Any] = reply.json()
        return out

    async def ended(self) -> dict[str, Any]:
        """Wait until the undoing has ended."""
        while (now := await self.now())["undo"]["state"] == "waiting":
            await asyncio.sleep(0.1)
        return now

    async def is_as_before(self) -> bool:
        return await people(self.it, self.core.directory.find("stranger-api-key").pool("")) == (
            self.before
        )


@asynccontextmanager
async def changed(
    place: Any, folder: pathlib.Path, grace_s: float = 0.0, **flags: Any
) -> AsyncIterator[Changed]:
    async with reading(place, folder, **flags) as here:
        it, core = here.running, here.core
        core.grace_s = grace_s
        for known in ({"customerid": "1", "email": "a@x.io"}, {"email": "a@x.io", "other": "b"}):
            assert (await it.ask("identify", known, who="stranger")).status_code == 200
        caller = core.directory.find("stranger-api-key")
        assert caller is not None
        before = await people(it, caller.pool("production"))
        text = MORE.replace(OTHERS, RULES["wider"])
        actor = Actor(name="Helen", reason="e-mail is personal here", now_ms=5)
        _, (carried,) = await carry_over(core, text, actor, 0.0, quiet=True)
        assert carried.merged == 1
        await core.directory.load()
        yield Changed(await operator(here), carried.change, before)


async def test_seen_and_undone(place: Any, tmp_path: pathlib.Path) -> None:
    async with changed(place, tmp_path) as it:
        (listed,) = (await it.op.ask("GET", "/rule_changes", who="eyes")).json()["rule_changes"]
        assert listed == await it.now()
        assert listed["author"] == "Helen" and listed["reason"] == "e-mail is personal here"
        assert (listed["scope"], listed["state"], listed["undo"]) == ("others", "standing", None)
        seen = await it.undo(dry_run=True)
        assert seen.status_code == 200
        assert seen.json() == {
            "dry_run": True,
            "report": {"records": 2, "unmerged": 1, "left": 0},
        }
        assert (await it.now())["state"] == "standing"
        reply = await it.undo(reason="the call centre shares addresses")
        assert reply.status_code == 202
        assert reply.headers["location"] == f"{it.op.base}/rule_changes/{it.number}"
        assert reply.json()["state"] == "undoing" and reply.json()["undo"]["state"] == "waiting"
        ended = await it.ended()
        assert (ended["state"], ended["undo"]["state"]) == ("undone", "done")
        assert ended["undo"]["outcome"] == seen.json()["report"]
        assert ended["undone_by"].startswith("boss (") and await it.is_as_before()
        newest = (await it.op.ask("GET", "/configuration/versions")).json()["versions"][0]
        assert newest["author"] == ended["undone_by"]
        assert newest["reason"] == f"undo of rules:{it.number}: the call centre shares addresses"
        async with it.core.store.read() as session:
            rows = await session.rows(
                "SELECT actor, subject, detail FROM audit WHERE action = 'rules.undo'"
            )
        ((actor, subject, detail),) = rows
        assert (actor, subject) == (ended["undone_by"], f"rules:{it.number}")
        assert json.loads(bytes(detail))["reason"] == "the call centre shares addresses"
        for body in ({"reason": "again"}, {"dry_run": True}):
            again = await it.undo(**body)
            assert again.status_code == 409 and "undone already" in again.json()["message"]


async def test_who_may_and_what_is_missing(place: Any, tmp_path: pathlib.Path) -> None:
    async with changed(place, tmp_path) as it:
        assert (await it.undo("eyes", reason="no")).status_code == 403
        assert (await it.undo("eyes", dry_run=True)).status_code == 403
        assert (await it.undo("all", reason="no")).status_code == 403
        assert (await it.op.ask("GET", "/rule_changes", who="all")).status_code == 403
        for reason in ("", "  ", "x" * 501, "a\nb"):
            assert (await it.undo(reason=reason)).status_code == 400
        for number in ("0", "99", "x", "9" * 30):
            path = f"/rule_changes/{number}"
            assert (await it.op.ask("GET", path)).status_code == 404
            reply = await it.op.ask("POST", f"{path}/undo", json={"reason": "no"})
            assert reply.status_code == 404
        assert (await it.now())["undo"] is None


async def test_what_stands_on_it_is_told(place: Any, tmp_path: pathlib.Path) -> None:
    async with changed(place, tmp_path) as it:
        reply = await it.it.ask("identify", {"customerid": "1"}, who="stranger")
        change = {"identity_type": "other", "old_value": "b", "new_value": None}
        gone = await it.it.modify(reply.json()["mpid"], [change], who="stranger")
        assert gone.status_code == 200, gone.text
        seen = await it.undo(dry_run=True)
        assert seen.status_code == 409 and "a value that moved again" in seen.json()["message"]
        assert (await it.undo(reason="try")).status_code == 202
        ended = await it.ended()
        assert (ended["state"], ended["undo"]["state"]) == ("standing", "refused")
        assert ended["undo"]["outcome"]["message"] == seen.json()["message"]
        kept = await it.undo(dry_run=True, keep_later=True)
        assert kept.json()["report"] == {"records": 0, "unmerged": 0, "left": 1}
        assert (await it.undo(reason="all the same", keep_later=True)).status_code == 202
        ended = await it.ended()
        assert ended["state"] == "undone" and ended["undo"]["keep_later"]
        assert ended["undo"]["outcome"] == kept.json()["report"]


async def test_asked_twice_at_once_it_is_done_once(place: Any, tmp_path: pathlib.Path) -> None:
    async with changed(place, tmp_path, grace_s=1.0) as it:
        replies = await asyncio.gather(*(it.undo(reason=f"try {n}") for n in range(5)))
        assert {r.status_code for r in replies} == {202}
        assert len({r.json()["undo"]["id"] for r in replies}) == 1
        number = await child()
        # and by command, meanwhile
        actor = Actor(name="Ben", reason="me too", now_ms=6)
        await undo_rules(it.core, it.number, actor, 0.0, keep_later=False)
        ended = await it.ended()
        assert ended["state"] == "undone" and ended["undone_by"] == "Ben"
        assert ended["undo"]["state"] == "refused" and number
        assert "undone already" in ended["undo"]["outcome"]["message"]
        assert await it.is_as_before()


async def child() -> int:
    """Wait for the process that does it, and return its number."""
    while True:
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"onymous.aside" in words and str(os.getpid()).encode() in words:
                return int(entry.name)
        await asyncio.sleep(0.05)


async def test_killed_it_is_done_again(place: Any, tmp_path: pathlib.Path) -> None:
    async with changed(place, tmp_path, grace_s=60.0) as it:
        assert (await it.undo(reason="the call centre")).status_code == 202
        number = await child()
        while not await fences(it):
            await asyncio.sleep(0.05)
        it.core.grace_s = 0.0
        os.kill(number, signal.SIGKILL)
        # what it had announced is over at once, and nothing else has happened
        while await fences(it):
            await asyncio.sleep(0.05)
        ended = await it.ended()  # tried again, by itself
        assert ended["state"] == "undone" and await it.is_as_before()


async def fences(it: Changed) -> list[Any]:
    async with it.core.store.read() as session:
        return await session.rows("SELECT name FROM meta WHERE name LIKE 'rules_fence%'")


async def test_a_server_that_stops_leaves_it_to_the_next(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with changed(place, tmp_path, grace_s=60.0, stop_timeout_s=0.5) as it:
        assert (await it.undo(reason="the call centre")).status_code == 202
        number = await child()
        settings = it.it.server.settings
    assert not pathlib.Path(f"/proc/{number}").exists()
    async with core_running(settings) as core:
        core.grace_s = 0.0
        standing = await Rules(core.store).one(it.number)
        assert standing.state == "undoing"
        async with core.store.write("a minute later") as tx:
            await tx.run("UPDATE job SET taken_until = 0")
        work = asyncio.create_task(core.work())
        while (standing := await Rules(core.store).one(it.number)).state == "undoing":
            await asyncio.sleep(0.05)
        assert standing.state == "undone"
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
