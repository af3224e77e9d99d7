"""What the Profile API answered before is given again only while it is still true."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tests.conftest import Place
from tests.web.reading import now, reading

from onymous.flows.merging import Actor
from onymous.web.profile_body import FIELDS
from onymous.web.profile_memory import Memory

FIELDS_ALL = ",".join(FIELDS)


async def test_an_answer_given_before_is_never_old(place: Place, tmp_path: pathlib.Path) -> None:
    """Each change shows at once in a profile that is read again and again."""
    async with reading(place, tmp_path) as here:
        core, mpid = here.core, await here.identify({"customerid": "a", "email": "a@x.io"})
        other = await here.identify({"email": "b@x.io"})

        async def seen() -> tuple[Any, ...]:
            several = [await here.read(mpid, FIELDS_ALL) for _ in range(3)]
            assert len({r.content for r in several}) == 1
            body = several[0].json()
            names = {i["type"]: i["value"] for i in body["user_identities"]}
            return names, body["user_attributes"].get("plan"), body["mpid"]

        assert await seen() == ({"customer_id": "a", "email": "a@x.io"}, None, int(mpid))
        await here.send({"mpid": mpid, "user_attributes": {"plan": "gold"}})
        assert (await seen())[1] == "gold"
        change = {"identity_type": "email", "old_value": "a@x.io", "new_value": "c@x.io"}
        assert (await here.running.modify(mpid, [change])).status_code == 200
        assert (await seen())[0] == {"customer_id": "a", "email": "c@x.io"}
        caller = core.directory.find("server-api-key")
        assert caller is not None
        pool, actor = caller.pool("production"), Actor(name="t", reason="t", now_ms=now())
        merge = await core.merging.merge(caller.plan, pool, mpid, other, actor)
        assert (await seen())[2] == int(other)
        await core.merging.undo_merge(pool, merge.id, actor)
        assert await seen() == ({"customer_id": "a", "email": "c@x.io"}, "gold", int(mpid))
        await here.running.erase(mpid, now_ms=now())
        assert (await here.read(mpid, FIELDS_ALL)).status_code == 404


async def test_what_is_asked_at_length_is_answered_and_not_kept(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who pads its queries fills no memory."""
    put = Memory.put
    kept: list[int] = []

    def counted(self: Memory, path: str, query: bytes, given: Any, now_ms: int) -> None:
        put(self, path, query, given, now_ms)
        kept.append(len(self._new))

    monkeypatch.setattr(Memory, "put", counted)
    async with reading(place, tmp_path) as here:
        mpid = await here.identify({"customerid": "a"})
        for n in range(3):
            assert (await here.read(mpid, padding=f"{n}" * 2_000)).status_code == 200
            assert not kept or kept[-1] == 0
        for _ in range(2):
            assert (await here.read(mpid)).status_code == 200
            assert not kept or kept[-1] == 1
