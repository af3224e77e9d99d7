"""What cannot be written fails alone: nobody who writes at the same moment is told of it."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import purchase, view, who_is
from tests.web.serving import Running, running

from onymous.flows.events import Incoming, Taken


def batch(it: Running, who: str, amount: float) -> Incoming:
    """Return a batch of somebody; a huge amount cannot be summed by any engine."""
    caller = it.server.core.directory.find("server-api-key")
    assert caller is not None
    raw = {"user_identities": {"customerid": who}, "events": [purchase(amount)] * 20}
    return Incoming(caller=caller, raw=raw, body=b"{}", now_ms=1_700_000_000_000)


@pytest.mark.parametrize("together", [False, True])
async def test_what_cannot_be_written_fails_alone(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any, together: bool
) -> None:
    monkeypatch.setattr("onymous.rules.profiles.MOST_WORTH", 10**30)
    async with running(place, tmp_path) as it:
        events, loop = it.server.core.events, asyncio.get_running_loop()
        ones: list[asyncio.Future[Taken]] = [loop.create_future() for _ in range(6)]
        call: asyncio.Future[list[Taken]] = loop.create_future()
        for n, future in enumerate(ones[:3]):
            events.take(batch(it, f"good-{n}", 1), future.set_result)
        if together:
            # of one call all fail, or none
            huge = [batch(it, "same-call", 1), batch(it, "huge", 9e11)]
            events.take_all(huge, len(huge), call.set_result)
        else:
            events.take(batch(it, "huge", 9e11), lambda taken: call.set_result([taken]))
        for n, future in enumerate(ones[3:], 3):
            events.take(batch(it, f"good-{n}", 1), future.set_result)
        taken = await asyncio.gather(*ones)
        assert [t.refusal for t in taken] == [None] * 6
        assert all(type(t.refusal).__name__ == "Internal" for t in await call)
        for n in range(6):
            mpid = await who_is(it, customerid=f"good-{n}")
            assert (await view(it, mpid)).lifetime_value == 20
        async with it.server.core.store.read() as session:
            assert len(await session.rows("SELECT pid FROM batch")) == 6
