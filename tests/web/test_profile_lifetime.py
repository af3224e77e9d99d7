"""Profiles age out of the Profile API, and come back as they were."""

from __future__ import annotations

import pathlib

import msgspec
from tests.conftest import Place
from tests.web.reading import Reading, reading

from onymous.rules.profiles import Person

_encode, _person = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Person)


async def aged(here: Reading) -> None:
    """Make everything that was heard so far forty days old."""
    old = 40 * 86_400_000
    here.core.resolver.desk.seen._blocks.clear()  # what this minute noted
    async with here.core.store.write("test") as tx:
        await tx.run("UPDATE profile SET created = created - ?, seen = seen - ?", old, old)
        rows = await tx.rows("SELECT pid, workspace, body FROM person")
        for pid, workspace, body in rows:
            person = _person.decode(bytes(body))
            person.stored_ms -= old
            again = _encode(person)
            await tx.run(
                "UPDATE person SET body = ? WHERE pid = ? AND workspace = ?", again, pid, workspace
            )


async def send(here: Reading, customer: str) -> None:
    batch = {"user_identities": {"customer_id": customer}, "user_attributes": {"plan": "gold"}}
    it = here.running
    assert (await it.client.post("/v2/events", json=batch, headers=it.basic())).status_code == 202


async def test_who_was_not_heard_of_is_told_no_more(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path, profile_lifetime_days=30) as here:
        anna = await here.identify({"customerid": "anna"})
        ben = await here.identify({"customerid": "ben"})
        await send(here, "anna")
        assert (await here.read(anna, "user_attributes")).status_code == 200
        await aged(here)
        for mpid in (anna, ben):
            assert (await here.read(mpid, "user_attributes,attribution")).status_code == 404
        # a batch of hers, and a request of his, bring them back as they were
        await send(here, "anna")
        told = (await here.read(anna, "user_attributes")).json()
        assert told["user_attributes"] == {"plan": "gold"}
        assert await here.identify({"customerid": "ben"}) == ben
        assert (await here.read(ben)).status_code == 200


async def test_without_a_lifetime_nobody_ages(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        anna = await here.identify({"customerid": "anna"})
        await send(here, "anna")
        await aged(here)
        assert (await here.read(anna, "user_attributes")).status_code == 200
