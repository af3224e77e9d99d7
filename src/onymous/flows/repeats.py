"""A request that comes again by its id gets the answer it got (rulings 15)."""

from __future__ import annotations

from typing import Protocol

from onymous.flows.working import Working
from onymous.store.port import Kept


class Acting(Protocol):
    """What decides on locked records."""

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide, and return the answer to keep for repeats; `again` is the one kept before."""


def act(
    work: Acting,
    replay: tuple[int, bytes, bytes] | None,
    working: Working,
    kept: dict[tuple[int, bytes], Kept],
) -> None:
    """Let a work decide; keep its answer under (input, request id digest) of `replay`."""
    if replay is None:
        work.act(working, None)
        return
    key = replay[:2]
    answer = work.act(working, kept.get(key))
    if answer is not None:
        kept[key] = Kept(replay[2], answer)
        working.keep(*key, replay[2], answer)
