"""Rows written many at once make the same people as rows decided one after the other."""

from __future__ import annotations

import pathlib
import random
from typing import Any

import msgspec
import pytest
from tests.flows.test_events_flow import view, who_is
from tests.flows.test_importing import load, person
from tests.web.serving import Running, running

from onymous.flows import importing
from onymous.flows.files import Ready
from onymous.flows.loading import all_records
from onymous.flows.merging import Actor
from onymous.rules.call_logs import calls
from onymous.rules.ledger import Entry
from onymous.rules.profiles import Person

_person = msgspec.msgpack.Decoder(Person)
_entry = msgspec.msgpack.Decoder(Entry)
LOOKUPS = "SELECT slot, value, holder, seen FROM identity"
LEDGER = "SELECT l.body FROM ledger l WHERE l.pid = ? ORDER BY l.seq"


async def graph(it: Running, pool: int) -> tuple[list[Any], list[Any]]:
    """Return every record of a pool with what is kept of it, and its lookup rows; no numbers."""
    people = []
    async with it.server.core.store.read() as session:
        for record in await all_records(session):
            if record.pool != pool:
                continue
            rows = await session.rows("SELECT body FROM person WHERE pid = ?", record.pid)
            told = await session.rows(LEDGER, record.pid)
            changes = []
            for row in told:
                entry = _entry.decode(bytes(row[0]))
                changed = [(c.kind, c.code, c.key) for c in entry.changes]
                changes.append((entry.op, entry.by, changed))
            batches = await session.rows("SELECT at, late FROM batch WHERE pid = ?", record.pid)
            persons = [repr(_person.decode(bytes(row[0]))) for row in rows]
            known = (repr(record.values), record.flags, record.created_ms, record.seen_ms)
            people.append(repr((known, persons, changes, sorted(batches))))
        found = await session.rows(LOOKUPS)
        lookups = [(s % 64, v, h == 0, seen) for s, v, h, seen in found if s // 64 == pool]
    return sorted(people), sorted(map(repr, lookups))


def crossing(seed: int, count: int) -> list[Ready]:
    """Return rows some of which share values, say odd things, or are of no use."""
    rng, rows = random.Random(seed), []
    for n in range(1, count + 1):
        who = rng.randrange(count * 2)
        known: dict[str, Any] = {"customerid": f" C{who}", "email": f"P{rng.randrange(count)}@x.io"}
        if rng.random() < 0.3:
            known["ios_idfv"] = f"d{rng.randrange(count // 4)}"
        if rng.random() < 0.2:
            del known["email"]
        if rng.random() < 0.1:
            known = rng.choice([{}, {"customerid": "null"}, {"other": "o"}, {"nonsense": "x"}])
        given: dict[str, Any] = {"plan": rng.choice(["gold", "free"]), "$City": f"c{n}"}
        if rng.random() < 0.1:
            given = rng.choice([{"n": n, "l": ["a"]}, {"x" * 300: "y"}, {"t": None}, {"s": "a\nb"}])
        batch: dict[str, Any] = {"user_identities": known, "user_attributes": given}
        if rng.random() < 0.05:
            batch["mp_deviceid"] = f"stamp{n}"
        rows.append((n, batch, rng.choice([None, 1_600_000_000_000 + n])))
    return rows


@pytest.mark.parametrize("seed", [1, 2])
async def test_pieces_make_the_same_people(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any, seed: int
) -> None:
    monkeypatch.setattr(importing, "TOGETHER", 50)
    monkeypatch.setattr(importing, "MOST_TOGETHER", 20)
    rows = crossing(seed, 300)
    async with running(place, tmp_path) as it:
        caller = it.server.core.directory.find("server-api-key")
        assert caller is not None
        one, rejected = await load(it, rows)
        with monkeypatch.context() as patch:
            patch.setattr(importing, "newcomer", lambda *_: None)
            two, refused = await load(it, rows, b"slowly", development=True)
        assert one == two
        assert one.created > 100 and one.conflicts and one.rejected
        assert [(r.row, r.why) for r in rejected] == [(r.row, r.why) for r in refused]
        ours = await graph(it, caller.pool("production"))
        theirs = await graph(it, caller.pool("development"))
        assert ours == theirs


async def test_a_row_applies_once_its_two_people_are_merged(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        one, two = await who_is(it, customerid="1"), await who_is(it, email="b@x.io")
        rows = [person(1, customerid="1", email="b@x.io")]
        report, _ = await load(it, rows)
        assert report.conflicts == 1
        core = it.server.core
        caller = core.directory.find("server-api-key")
        assert caller is not None
        pool = caller.pool("production")
        actor = Actor(name="anna", reason="same", now_ms=5)
        merge = await core.merging.merge(caller.plan, pool, two, one, actor)
        seen, _ = await load(it, rows, b"again", dry_run=True)
        assert (seen.applied, seen.created, seen.conflicts) == (1, 0, 0)
        report, _ = await load(it, rows, b"again")
        assert (report.applied, report.created, report.conflicts) == (1, 0, 0)
        (known,) = (await view(it, one)).workspaces.values()
        assert known.attributes["n"].value == "1"
        await core.merging.undo_merge(pool, merge.id, actor)
        assert await who_is(it, email="b@x.io") == two
        report, _ = await load(it, rows, b"and again")
        assert report.conflicts == 1


async def test_a_call_counts_once_whichever_file_it_is_in(
    place: Any, tmp_path: pathlib.Path
) -> None:
    call = {"type": "track", "userId": "1", "event": "Order Completed", "messageId": "m1"}
    call["properties"] = {"total": 5}  # type: ignore[assignment]
    rows = [(n, item, at) for n in (1, 2) for item, at in calls(call)]
    async with running(place, tmp_path) as it:
        report, _ = await load(it, rows)
        assert (report.applied, report.before) == (1, 1)
        report, _ = await load(it, rows, b"another file")
        assert (report.applied, report.before) == (0, 2)
        assert (await view(it, await who_is(it, customerid="1"))).lifetime_value == 5


async def test_a_row_that_cannot_be_decided_is_rejected_alone(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    rows = [person(n, customerid=str(n), email="a@x.io") for n in range(1, 5)]
    async with running(place, tmp_path) as it:
        whole = importing.Take.act

        def act(self: Any, *args: Any) -> Any:
            if self._item.raw["user_identities"]["customerid"] == "3":
                raise ZeroDivisionError
            return whole(self, *args)

        monkeypatch.setattr(importing.Take, "act", act)
        report, rejected = await load(it, rows)
        assert [(r.row, r.why) for r in rejected if r.why != "conflict"] == [(3, "internal_error")]
        assert report.rejected == 1 and report.applied + report.conflicts == 3
