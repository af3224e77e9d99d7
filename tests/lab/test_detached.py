"""What was taken away by hand, or undone, stays away when rules are applied to history."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest
from tests.lab.test_reresolve import actor, document, people, start
from tests.web.serving import Running, running

from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows.detaching import Detaching
from onymous.flows.merging import Actor
from onymous.rules.errors import NoSuchThing

EMAIL = ("email", "anna@x.io")


def by_hand() -> Actor:
    return Actor(name="Helen", reason="a typing error", now_ms=time.time_ns() // 1_000_000)


async def test_a_detached_name_does_not_come_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        caller, pool = await start(it, "bare")
        core = it.server.core
        known = {"customerid": "anna", "email": "anna@x.io"}
        anna = (await it.ask("login", known, who="stranger")).json()["mpid"]
        ben = (await it.ask("login", {"customerid": "ben"}, who="stranger")).json()["mpid"]
        pid = core.mpids.parse(anna)
        assert pid is not None
        hands = Detaching(core.resolver, core.store)
        args = (caller.plan, pool, pid, EMAIL, by_hand())
        seen = await hands.detach(*args, dry_run=True)
        assert (seen.mpid, seen.orphans, seen.login, seen.immutable) == (anna, False, False, False)
        assert any(v[1] == "anna@x.io" for v in (await people(it, pool))[pid][0]), "only looked"
        await hands.detach(*args, dry_run=False)
        with pytest.raises(NoSuchThing):
            await hands.detach(*args, dry_run=False)
        # of another one somebody else gets it, as the operator knew
        cleo = await it.ask("login", {"customerid": "cleo", "email": "c@x.io"}, who="stranger")
        third = core.mpids.parse(cleo.json()["mpid"])
        assert third is not None
        name = ("email", "c@x.io")
        await hands.detach(caller.plan, pool, third, name, by_hand(), dry_run=False)
        change = [{"identity_type": "email", "old_value": None, "new_value": "c@x.io"}]
        assert (await it.modify(ben, change, who="stranger")).status_code == 200
        await core.journal.flush(core.store)
        before = await people(it, pool)
        other = core.mpids.parse(ben)
        assert other is not None
        await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        after = await people(it, pool)
        values = {p: sorted(v[1] for v in found[0]) for p, found in after.items()}
        assert values == {pid: ["anna"], other: ["ben", "c@x.io"], third: ["cleo"]}
        await undo_rules(core, 1, actor(), 0.0, keep_later=False)
        assert await people(it, pool) == before


async def latest(it: Running, mpid: str) -> int:
    """Return the latest entry of a profile."""
    pid = it.server.core.mpids.parse(mpid)
    statement = "SELECT max(seq) FROM ledger WHERE pid = ?"
    async with it.server.core.store.read() as session:
        return int((await session.rows(statement, pid))[0][0])


async def test_what_was_undone_does_not_come_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        caller, pool = await start(it, "wider")
        core = it.server.core
        undo = core.undoing.undo

        async def login(**known: str) -> str:
            return str((await it.ask("login", known, who="stranger")).json()["mpid"])

        async def modify(mpid: str, old: str | None, new: str | None) -> None:
            change = {"identity_type": "email", "old_value": old, "new_value": new}
            assert (await it.modify(mpid, [change], who="stranger")).status_code == 200

        # attached, and taken back
        anna = await login(customerid="anna")
        await login(customerid="anna", email="anna@x.io")
        await undo(caller.plan, pool, anna, await latest(it, anna), by_hand(), dry_run=False)
        # removed, and given back
        ben = await login(customerid="ben", email="ben@x.io")
        await modify(ben, "ben@x.io", None)
        await undo(caller.plan, pool, ben, await latest(it, ben), by_hand(), dry_run=False)
        # taken from somebody, and returned
        cleo, dan = await login(customerid="cleo", email="c@x.io"), await login(customerid="dan")
        await modify(dan, None, "c@x.io")
        await undo(caller.plan, pool, dan, await latest(it, dan), by_hand(), dry_run=False)
        # an immutable one, by hand
        both = "unique: [customerid, email]}"
        immutable = document("wider").replace(both, f"{both[:-1]}, immutable: [email]}}")
        await core.journal.flush(core.store)
        expected = {
            anna: ["anna"],
            ben: ["ben", "ben@x.io"],
            cleo: ["c@x.io", "cleo"],
            dan: ["dan"],
        }

        async def found() -> dict[str, list[str]]:
            told = await people(it, pool)
            return {core.mpids.text(p): sorted(v[1] for v in f[0]) for p, f in told.items()}

        assert await found() == expected
        await carry_over(core, immutable, actor(), 0.0, quiet=True)
        assert await found() == expected
        await carry_over(core, document("link"), actor(), 0.0, quiet=True)
        assert await found() == expected
