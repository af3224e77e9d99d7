"""Two scopes of one strategy with people in them, joined and split for tests."""

from __future__ import annotations

import pathlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.web.serving import Running, running

from onymous.flows.loading import all_records
from onymous.flows.scope_changes import finish
from onymous.flows.scope_planning import Report, Wanted, begin, look, wanted_undo
from onymous.flows.tenants import apply
from onymous.flows.versions import Author
from onymous.rules.records import ERASED, MERGED

TWO = """
organization: Test
scopes:
  red: {{strategy: {strategy}{sets}}}
  blue: {{strategy: {strategy}{sets}}}
workspaces:
  shop: {{scope: red, inputs: {{shop: {{kind: server, api_key: shop-api-key}}}}}}
  club: {{scope: blue, inputs: {{club: {{kind: server, api_key: club-api-key}}}}}}
"""
CONVERSION = ", login: [customerid, email], unique: [customerid, email]"


class Going:
    """A running server with the scopes red (workspace shop) and blue (workspace club)."""

    def __init__(self, it: Running) -> None:
        self.it, self.core = it, it.server.core

    async def who(self, input_: str, environment: str = "production", **known: str) -> str:
        reply = await self.it.ask("identify", known, who=input_, environment=environment)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["mpid"])

    async def search(self, input_: str, **known: str) -> str | None:
        reply = await self.it.ask("search", known, who=input_)
        return str(reply.json()["mpid"]) if reply.status_code == 200 else None

    async def buy(self, input_: str, mpid: str, **attributes: str) -> None:
        events = [{"event_type": "custom_event", "data": {"event_name": "x"}}]
        body = {
            "environment": "production",
            "mpid": mpid,
            "user_attributes": attributes,
            "events": events,
        }
        headers = self.it.basic(input_)
        reply = await self.it.client.post("/v2/events", json=body, headers=headers)
        assert reply.status_code == 202, reply.text

    async def attributes(self, input_: str, mpid: str) -> dict[str, Any]:
        """Return what the workspace of an input sees of a profile."""
        caller = self.core.directory.find(f"{input_}-api-key")
        assert caller is not None
        pid = self.core.mpids.parse(mpid)
        assert pid is not None
        view = await self.core.profiles.profile(caller.pool("production"), pid)
        assert view is not None, "unknown here"
        found = view.workspaces.get(caller.workspace)
        return {} if found is None else {k: a.value for k, a in found.attributes.items()}

    async def known(self, input_: str, mpid: str) -> bool:
        caller = self.core.directory.find(f"{input_}-api-key")
        pid = self.core.mpids.parse(mpid)
        assert caller is not None and pid is not None
        return await self.core.profiles.profile(caller.pool("production"), pid) is not None

    async def look(self, kind: str = "join", **more: Any) -> Report:
        wanted = Wanted(kind=kind, **{"source": "red", "target": "blue", **more})
        return await look(self.core.store, self.core.mpids, wanted)

    async def begin(self, kind: str = "join", **more: Any) -> int:
        wanted = Wanted(kind=kind, **{"source": "red", "target": "blue", **more})
        return await self.begin_wanted(wanted)

    async def begin_wanted(self, wanted: Wanted) -> int:
        author, now = Author(name="ann", reason="one company"), time.time_ns() // 1_000_000
        change = await begin(self.core.store, self.core.mpids, wanted, author, now)
        await self.core.directory.load()
        return change.id

    async def finish(self, number: int) -> None:
        await finish(self.core.scopes, number, hurry=True)
        await self.core.directory.load()
        await self.core.merging.refresh()

    async def change(self, kind: str = "join", **more: Any) -> int:
        number = await self.begin(kind, **more)
        await self.finish(number)
        return number

    async def undo(self, number: int, **types: str) -> int:
        wanted = await wanted_undo(self.core.store, number, types)
        new = await self.begin_wanted(wanted)
        await self.finish(new)
        return new

    async def picture(self) -> dict[str, tuple[int, bool, frozenset[tuple[int, str]]]]:
        """Return pool, whether absorbed, and values of every profile."""
        async with self.core.store.read() as session:
            records = await all_records(session)
        return {
            self.core.mpids.text(r.pid): (
                r.pool,
                bool(r.flags & MERGED),
                frozenset((v.code, v.key) for v in r.values),
            )
            for r in records
            if not r.flags & ERASED
        }

    async def lookups(self) -> list[tuple[Any, ...]]:
        """Return every lookup row that finds somebody."""
        async with self.core.store.read() as session:
            return await session.rows(
                "SELECT slot, value, pid FROM identity WHERE holder >= 0 ORDER BY 1, 2, 3"
            )

    async def sound(self) -> None:
        """Check that lookups say what the records say, and nobody shares a unique value."""
        async with self.core.store.read() as session:
            records = await all_records(session)
        wanted = sorted(
            (r.pool * 64 + v.code, v.key, r.pid)
            for r in records
            if not r.flags & ERASED
            for v in r.values
        )
        assert [tuple(row) for row in await self.lookups()] == wanted


@asynccontextmanager
async def going(
    place: Any, folder: pathlib.Path, strategy: str = "profile_conversion", sets: str = CONVERSION
) -> AsyncIterator[Going]:
    """Serve a place with both scopes."""
    async with running(place, folder) as it:
        core = it.server.core
        text = TWO.format(strategy=strategy, sets=sets)
        async with core.store.write("bare") as tx:
            await tx.run("DELETE FROM input")
            await tx.run("DELETE FROM workspace")
            await tx.run("DELETE FROM scope")
        out = await apply(core.store, core.key, text, actor="test", now_ms=2)
        it.secrets |= {c.input: c.secret for c in out.credentials}
        await core.directory.load()
        yield Going(it)
